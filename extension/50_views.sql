-- Views. Each shows the caller what belongs to roles whose rights the caller has.

CREATE VIEW redis_migrate.migrations WITH (security_barrier) AS
    SELECT migration, redis_migrate.shown_owner(owner) AS owner, server, file, source, unmapped, databases, created_at, changed_at, journal
    FROM redis_migrate.migration
    WHERE redis_migrate.may_see(owner);
COMMENT ON VIEW redis_migrate.migrations IS 'Migrations of the caller';

CREATE VIEW redis_migrate.mappings WITH (security_barrier) AS
    SELECT m.migration, m.mapping, m.pattern, m.target, m.query, m.key_columns, m.priority, m.on_conflict, m.on_delete,
           m.mode, m.no_row, m.atomic, m.expand, m.types, m.databases, m.depends_on, m.exclusive, m.ledger,
           m.ledger_reason, m.search_path, m.timezone, m.datestyle, m.intervalstyle, m.on_expire, m.on_flush
    FROM redis_migrate.mapping AS m JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.mappings IS
    'Mappings of the caller''s migrations. ledger: how a mapping knows which rows are its own (none, packed, full); ledger_reason: why it has this ledger';

CREATE VIEW redis_migrate.checks WITH (security_barrier) AS
    SELECT c.migration, c.mapping, c.check_name, c.condition
    FROM redis_migrate.mapping_check AS c JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.checks IS 'Checks of the caller''s mappings';

CREATE VIEW redis_migrate.skipped_patterns WITH (security_barrier) AS
    SELECT s.migration, s.pattern
    FROM redis_migrate.skip_pattern AS s JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.skipped_patterns IS 'Patterns that skip_keys declared';

CREATE VIEW redis_migrate.runs WITH (security_barrier) AS
    SELECT r.run_id, r.migration, redis_migrate.shown_owner(r.owner) AS owner, r.source, r.dry_run, r.priority, r.mapping, r.on_error, r.prune, r.force, r.live,
           CASE WHEN r.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(r.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) r.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) r.updated_at))
                THEN 'interrupted' ELSE r.state END AS state,
           r.started_at, r.finished_at, r.active_time, r.pid, r.level, r.position, r.restarts, r.evicted,
           (r.batches OPERATOR(pg_catalog.+) p.batches)::bigint AS batches, (r.bytes_read OPERATOR(pg_catalog.+) p.bytes_read)::bigint AS bytes_read,
           c.read, c.vanished, c.rejected, c.migrated, c.archived, c.skipped,
           c.read OPERATOR(pg_catalog.=) (c.vanished OPERATOR(pg_catalog.+) c.rejected OPERATOR(pg_catalog.+) c.migrated
                OPERATOR(pg_catalog.+) c.archived OPERATOR(pg_catalog.+) c.skipped) AS balanced,
           (SELECT coalesce(pg_catalog.sum(m.deleted), 0)::bigint FROM redis_migrate.mapping_count AS m
            WHERE m.run_id OPERATOR(pg_catalog.=) r.run_id) AS rows_deleted,
           r.sqlstate, r.message
    FROM redis_migrate.run AS r
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'read'), 0)::bigint AS read,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'vanished'), 0)::bigint AS vanished,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'rejected'), 0)::bigint AS rejected,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'migrated'), 0)::bigint AS migrated,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'archived'), 0)::bigint AS archived,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'skipped'), 0)::bigint AS skipped
        FROM redis_migrate.run_count AS k WHERE k.run_id OPERATOR(pg_catalog.=) r.run_id) AS c
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.sum(q.batches), 0) AS batches, coalesce(pg_catalog.sum(q.bytes_read), 0) AS bytes_read
        FROM redis_migrate.run_part AS q WHERE q.run_id OPERATOR(pg_catalog.=) r.run_id) AS p
    WHERE redis_migrate.may_see(r.owner);
COMMENT ON VIEW redis_migrate.runs IS
    'Executions of migrations: read = vanished + rejected + migrated + archived + skipped, otherwise balanced is false. rows_deleted counts rows, not keys';

CREATE VIEW redis_migrate.run_parts WITH (security_barrier) AS
    SELECT p.run_id, r.migration, p.level, p.part, p.share, p.done, p.pid, p.position, p.updated_at,
           (SELECT coalesce(pg_catalog.sum(c.keys), 0)::bigint FROM redis_migrate.run_count AS c
            WHERE c.run_id OPERATOR(pg_catalog.=) p.run_id AND c.level OPERATOR(pg_catalog.=) p.level
                  AND c.part OPERATOR(pg_catalog.=) p.part AND c.outcome OPERATOR(pg_catalog.=) 'read') AS read,
           p.bytes_read, p.batches, p.repeated_slots, p.readers, p.sqlstate, p.message
    FROM redis_migrate.run_part AS p JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner);
COMMENT ON VIEW redis_migrate.run_parts IS
    'Parts of runs that several processes read side by side: the share of the source, the process that reads or last read it, progress and counts';

CREATE VIEW redis_migrate.run_counts WITH (security_barrier) AS
    SELECT c.run_id, r.migration, c.pattern, c.outcome, c.reason, pg_catalog.sum(c.keys)::bigint AS keys
    FROM redis_migrate.run_count AS c JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner)
    GROUP BY c.run_id, r.migration, c.pattern, c.outcome, c.reason
    ORDER BY c.run_id, c.pattern COLLATE "C", pg_catalog.array_position(ARRAY['read', 'vanished', 'rejected', 'migrated', 'archived', 'skipped'], c.outcome), c.reason COLLATE "C";
COMMENT ON VIEW redis_migrate.run_counts IS
    'Numbers of keys by outcome, reason and pattern (NULL: keys that no pattern owns). The outcome read counts the names that the source returned';

CREATE VIEW redis_migrate.mapping_counts WITH (security_barrier) AS
    SELECT c.run_id, r.migration, c.mapping, pg_catalog.sum(c.inserted)::bigint AS inserted, pg_catalog.sum(c.updated)::bigint AS updated,
           pg_catalog.sum(c.unchanged)::bigint AS unchanged, pg_catalog.sum(c.folded)::bigint AS folded, pg_catalog.sum(c.deleted)::bigint AS deleted,
           pg_catalog.sum(c.changed_here)::bigint AS changed_here, pg_catalog.sum(c.deleted_here)::bigint AS deleted_here,
           pg_catalog.max(c.prune) AS prune, pg_catalog.max(c.prune_detail) AS prune_detail,
           pg_catalog.sum(c.expired)::bigint AS expired, pg_catalog.sum(c.unclear)::bigint AS unclear
    FROM redis_migrate.mapping_count AS c JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner)
    GROUP BY c.run_id, r.migration, c.mapping
    ORDER BY c.run_id, (SELECT m.mapping_id FROM redis_migrate.mapping AS m
                        WHERE m.migration OPERATOR(pg_catalog.=) r.migration AND m.mapping OPERATOR(pg_catalog.=) c.mapping),
             c.mapping COLLATE "C";
COMMENT ON VIEW redis_migrate.mapping_counts IS
    'Numbers of rows by mapping and outcome. changed_here, deleted_here: how many rows somebody else had changed or deleted since they were stored. expired, unclear: for a mapping with on_expire, how many rows left because their keys had expired, and how many for which that is unclear. prune, prune_detail: whether a run with prune removed the rows without a key, and if not, why, or which rows stayed';

CREATE FUNCTION redis_migrate.bytes_as_text(bytes bytea) RETURNS text
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_bytes_as_text';
COMMENT ON FUNCTION redis_migrate.bytes_as_text(bytea) IS
    'Bytes from Redis as text: UTF-8, converted to the server''s encoding; NULL if they are not valid';

CREATE VIEW redis_migrate.rejects WITH (security_barrier) AS
    SELECT j.reject_id, j.run_id, r.migration, j.db, redis_migrate.bytes_as_text(j.key_bytes) AS key, j.key_bytes, j.type,
           j.pattern, j.mapping, j.rule, j.sqlstate, j.message, j.partial, j.payload, j.expires_at, j.created_at, j.settled_at
    FROM redis_migrate.reject AS j JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner);
COMMENT ON VIEW redis_migrate.rejects IS
    'Rejected keys. rule: the name of a check, capture, column or constraint, or a built-in rule. settled_at: since when, in a live run, nothing is wrong with the key any more';

CREATE VIEW redis_migrate.archive WITH (security_barrier) AS
    SELECT a.migration, a.db, redis_migrate.bytes_as_text(a.key_bytes) AS key, a.key_bytes, a.type,
           coalesce(a.payload, (SELECT pg_catalog.string_agg(c.bytes, '' ORDER BY c.chunk_no)
                                FROM redis_migrate.archive_chunk AS c
                                WHERE c.migration OPERATOR(pg_catalog.=) a.migration AND c.db OPERATOR(pg_catalog.=) a.db
                                      AND c.index_key OPERATOR(pg_catalog.=) a.index_key)) AS payload,
           a.payload_size, a.expires_at
    FROM redis_migrate.archived_key AS a JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.archive IS
    'Keys without a mapping, as DUMP payloads that RESTORE takes. Do not select payload of large values: it is put together from chunks';

CREATE VIEW redis_migrate.archive_chunks WITH (security_barrier) AS
    SELECT c.migration, c.db, a.key_bytes, c.chunk_no, c.bytes
    FROM redis_migrate.archive_chunk AS c JOIN redis_migrate.archived_key AS a USING (migration, db, index_key)
    JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.archive_chunks IS
    'Archived payloads larger than 1 MB, in chunks, for payloads that are too large to be sent whole';

CREATE VIEW redis_migrate.progress WITH (security_barrier) AS
    SELECT s.run_id, s.migration, s.pid, s.state, s.level OPERATOR(pg_catalog.+) 1 AS level, s.read AS keys_read, e.keys_estimated,
           s.bytes_read, s.batches, s.position, s.started_at, r.updated_at, e.active_time,
           pg_catalog.round(w.rate::numeric, CASE WHEN w.rate OPERATOR(pg_catalog.<) 1 THEN 4 ELSE 1 END) AS keys_per_second,
           -- A peer or a file may claim any number of keys: nobody waits for a century.
           CASE WHEN s.state OPERATOR(pg_catalog.=) 'running' AND l.seconds_left OPERATOR(pg_catalog.<) 3e9::double precision
                THEN e.as_of OPERATOR(pg_catalog.+) (interval '1 second' OPERATOR(pg_catalog.*) l.seconds_left) END AS estimated_end,
           p.file_offset, p.file_size,
           CASE WHEN p.file_offset OPERATOR(pg_catalog.>) 0 AND s.level OPERATOR(pg_catalog.=) 0
                THEN pg_catalog.round(100::numeric OPERATOR(pg_catalog.*) p.file_offset::numeric OPERATOR(pg_catalog./) p.file_size::numeric, 1)
                WHEN e.keys_estimated OPERATOR(pg_catalog.>=) s.read AND e.keys_estimated OPERATOR(pg_catalog.>) 0
                THEN pg_catalog.round(100::numeric OPERATOR(pg_catalog.*) s.read::numeric OPERATOR(pg_catalog./) e.keys_estimated::numeric, 1) END AS percent
    FROM redis_migrate.runs AS s JOIN redis_migrate.run AS r USING (run_id)
    CROSS JOIN LATERAL (
        SELECT pg_catalog.avg(pg_catalog.substring(f.position, ' offset=([0-9]+)$')::bigint)::bigint AS file_offset,
               pg_catalog.max(pg_catalog.substring(f.position, ' size=([0-9]+) ')::bigint) AS file_size
        FROM (SELECT s.position
              UNION ALL
              SELECT q.position FROM redis_migrate.run_part AS q
              WHERE q.run_id OPERATOR(pg_catalog.=) s.run_id AND q.level OPERATOR(pg_catalog.=) s.level) AS f
        WHERE s.source OPERATOR(pg_catalog.=) ANY (ARRAY['rdb', 'replication'])) AS p
    -- While a batch is under way, which may be one huge value, time passes and nothing is counted yet.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN s.state OPERATOR(pg_catalog.=) 'running' THEN greatest(pg_catalog.clock_timestamp(), r.updated_at)
                    ELSE r.updated_at END AS as_of) AS t
    CROSS JOIN LATERAL (
        SELECT t.as_of, s.active_time OPERATOR(pg_catalog.+) (t.as_of OPERATOR(pg_catalog.-) r.updated_at) AS active_time,
               CASE WHEN r.keys_estimated OPERATOR(pg_catalog.>=) s.read OR p.file_offset IS NULL THEN r.keys_estimated
                    WHEN p.file_offset OPERATOR(pg_catalog.>) 0 AND s.level OPERATOR(pg_catalog.=) 0
                    THEN pg_catalog.ceil(s.read::double precision OPERATOR(pg_catalog.*) p.file_size::double precision
                                         OPERATOR(pg_catalog./) p.file_offset::double precision)::bigint END AS keys_estimated) AS e
    CROSS JOIN LATERAL (
        SELECT CASE WHEN s.read OPERATOR(pg_catalog.>) r.window_read AND e.active_time OPERATOR(pg_catalog.>) r.window_began
                    THEN (s.read OPERATOR(pg_catalog.-) r.window_read)::double precision
                         OPERATOR(pg_catalog./) extract(epoch FROM e.active_time OPERATOR(pg_catalog.-) r.window_began)::double precision
               END AS rate) AS w
    -- Bytes know better than keys how much is left, and all of the file, but only while it is read for the first time.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN p.file_offset OPERATOR(pg_catalog.>) 0 AND s.level OPERATOR(pg_catalog.=) 0
                    THEN s.read::double precision OPERATOR(pg_catalog.*) (p.file_size OPERATOR(pg_catalog.-) p.file_offset)::double precision
                         OPERATOR(pg_catalog./) p.file_offset::double precision
                    WHEN e.keys_estimated OPERATOR(pg_catalog.>=) s.read
                    THEN (e.keys_estimated OPERATOR(pg_catalog.-) s.read)::double precision
               END OPERATOR(pg_catalog./) w.rate AS seconds_left) AS l
    WHERE s.state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'interrupted']);
COMMENT ON VIEW redis_migrate.progress IS
    'Runs that are under way: keys as of the last commit, times as of now. percent: how much of the level has been read, if the source says how much there is. keys_estimated of a file: what the file says of the databases that were read so far, or what follows from the share of its bytes. keys_per_second: the rate of the 30 to 60 seconds before the last commit, and of the time since. estimated_end follows from the rate. Both are NULL until the first commit';
