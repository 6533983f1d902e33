-- The whole story of a migration on one screen.

CREATE FUNCTION redis_migrate.count_rows(relation regclass) RETURNS bigint
    LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'prm_count_rows';
COMMENT ON FUNCTION redis_migrate.count_rows(regclass) IS
    'How many rows a relation has. Beyond a million, it is the planner''s estimate. NULL if the caller may not read the relation, and for views, foreign tables and tables with row security, because functions of their owners would run';

CREATE FUNCTION redis_migrate.report_json(migration text) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'migration', g.migration, 'owner', g.owner::text, 'server', g.server, 'file', g.file, 'source', g.source, 'reported_at', now(),
        'audit', (SELECT jsonb_build_object('audit_id', a.audit_id, 'finished_at', a.finished_at, 'keys', a.keys, 'families', a.families, 'bytes', a.bytes)
                  FROM redis_migrate.audits AS a WHERE a.server = g.server AND a.complete ORDER BY a.audit_id DESC LIMIT 1),
        'runs', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                            'run_id', r.run_id, 'source', r.source, 'state', r.state, 'dry_run', r.dry_run, 'live', r.live, 'started_at', r.started_at,
                            'seconds', round(extract(epoch FROM r.active_time)::numeric, 1), 'read', r.read, 'vanished', r.vanished, 'rejected', r.rejected,
                            'migrated', r.migrated, 'archived', r.archived, 'skipped', r.skipped, 'rows_deleted', r.rows_deleted,
                            'sqlstate', r.sqlstate, 'message', r.message) ORDER BY r.run_id DESC), '[]')
                 FROM (SELECT * FROM redis_migrate.runs AS x WHERE x.migration = g.migration ORDER BY x.run_id DESC LIMIT 5) AS r),
        'last_run', l.run_id,
        'mappings', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                'mapping', m.mapping, 'pattern', m.pattern, 'target', m.target, 'ledger', m.ledger, 'family', f.state,
                                'rows', redis_migrate.count_rows(to_regclass(m.target)),
                                'inserted', c.inserted, 'updated', c.updated, 'unchanged', c.unchanged, 'folded', c.folded, 'deleted', c.deleted,
                                'changed_here', c.changed_here, 'deleted_here', c.deleted_here, 'prune', c.prune, 'prune_detail', c.prune_detail)
                            ORDER BY m.pattern COLLATE "C", m.mapping COLLATE "C"), '[]')
                     FROM redis_migrate.mappings AS m
                     LEFT JOIN redis_migrate.families AS f ON f.migration = m.migration AND f.pattern = m.pattern
                     LEFT JOIN redis_migrate.mapping_counts AS c ON c.run_id = l.run_id AND c.mapping = m.mapping
                     WHERE m.migration = g.migration),
        'keys', (SELECT coalesce(jsonb_agg(to_jsonb(k) ORDER BY k.pattern COLLATE "C"), '[]')
                 FROM (SELECT c.pattern, sum(c.keys) FILTER (WHERE c.outcome = 'read') AS read, sum(c.keys) FILTER (WHERE c.outcome = 'vanished') AS vanished,
                              sum(c.keys) FILTER (WHERE c.outcome = 'rejected') AS rejected, sum(c.keys) FILTER (WHERE c.outcome = 'migrated') AS migrated,
                              sum(c.keys) FILTER (WHERE c.outcome = 'archived') AS archived, sum(c.keys) FILTER (WHERE c.outcome = 'skipped') AS skipped
                       FROM redis_migrate.run_counts AS c WHERE c.run_id = l.run_id GROUP BY c.pattern) AS k),
        -- An example is one key, with its letters and digits masked.
        'rejects', (SELECT coalesce(jsonb_agg(to_jsonb(j) ORDER BY j.keys DESC, j.pattern COLLATE "C", j.rule COLLATE "C"), '[]')
                    FROM (SELECT r.pattern, r.mapping, r.rule, count(DISTINCT (r.db, r.key_bytes)) AS keys,
                                 left(regexp_replace(regexp_replace(min(coalesce(r.key, '(not text)') COLLATE "C"), '[[:digit:]]', '9', 'g'), '[[:alpha:]]', 'x', 'g'), 60) AS example
                          FROM redis_migrate.rejects AS r WHERE r.run_id = l.run_id GROUP BY r.pattern, r.mapping, r.rule) AS j),
        'live', (SELECT jsonb_build_object('state', string_agg(DISTINCT s.state, ', '), 'lag_bytes', sum(s.lag_bytes), 'lag_seconds', max(s.lag_seconds),
                                           'commands', sum(s.commands), 'keys_ahead', sum(s.keys_ahead), 'last_error', min(s.last_error))
                 FROM redis_migrate.live_sync AS s WHERE s.migration = g.migration HAVING count(*) > 0),
        'verification', (SELECT jsonb_build_object(
                                    'verification_id', v.verification_id, 'state', v.state, 'sample', v.sample, 'source', v.source, 'mapping', v.mapping,
                                    'started_at', v.started_at, 'finished_at', v.finished_at, 'keys_read', v.keys_read, 'keys_rejected', v.keys_rejected,
                                    'verified', v.verified, 'reasons', to_jsonb(v.reasons), 'message', v.message,
                                    'counts', (SELECT coalesce(jsonb_agg(to_jsonb(c) - 'verification_id' - 'migration' ORDER BY c.mapping COLLATE "C"), '[]')
                                               FROM redis_migrate.verification_counts AS c WHERE c.verification_id = v.verification_id))
                         FROM redis_migrate.verifications AS v WHERE v.migration = g.migration ORDER BY v.verification_id DESC LIMIT 1),
        'cutovers', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                'cutover_id', c.cutover_id, 'to_state', c.to_state, 'patterns', to_jsonb(c.patterns), 'fence', c.fence, 'state', c.state,
                                'step', c.step, 'started_at', c.started_at, 'started_by', c.started_by, 'finished_at', c.finished_at,
                                'paused_ms', c.paused_ms, 'keys_compared', c.keys_compared, 'fence_trouble', c.fence_trouble,
                                'sqlstate', c.sqlstate, 'message', c.message) ORDER BY c.cutover_id DESC), '[]')
                     FROM (SELECT * FROM redis_migrate.cutovers AS x WHERE x.migration = g.migration ORDER BY x.cutover_id DESC LIMIT 5) AS c),
        'late_writes', (SELECT count(*) FROM redis_migrate.late_writes AS w WHERE w.migration = g.migration AND w.settled_at IS NULL),
        'reverse', (SELECT jsonb_build_object('state', r.state, 'waiting', r.waiting, 'oldest_at', r.oldest_at, 'needs_full', r.needs_full,
                                              'sent', r.sent, 'unfit', r.unfit, 'rejected', r.rejected, 'message', r.message)
                    FROM redis_migrate.reverse_feeds AS r WHERE r.migration = g.migration))
    FROM redis_migrate.migrations AS g
    LEFT JOIN LATERAL (SELECT x.run_id FROM redis_migrate.runs AS x WHERE x.migration = g.migration AND NOT x.dry_run ORDER BY x.run_id DESC LIMIT 1) AS l ON true
    WHERE g.migration = report_json.migration
$$;
COMMENT ON FUNCTION redis_migrate.report_json(text) IS
    'The whole story of a migration: the last audit of its server; the last five runs; of the last run that was no dry run, keys by outcome, rows by mapping and rejects by rule; live sync; the last verification; the last five cutovers and cutbacks; open late writes; the reverse feed. NULL for a migration that the caller does not see';

CREATE FUNCTION redis_migrate.report(migration text) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'prm_report';
COMMENT ON FUNCTION redis_migrate.report(text) IS 'report_json as text for one screen';
