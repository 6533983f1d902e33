\echo Use "ALTER EXTENSION pg_redis_migrate UPDATE TO '0.2'" to load this file. \quit

-- What there is already keeps its privileges.
SELECT pg_catalog.set_config('redis_migrate_upgrade.known', pg_catalog.array_agg(o.oid)::text, true)
FROM (SELECT oid FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
      UNION ALL SELECT oid FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
      UNION ALL SELECT oid FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
      UNION ALL SELECT 'redis_migrate'::regnamespace) AS o;

-- Tables that have changed, and their rows. New columns come last.
-- create again: redis_migrate.mappings

-- The roles that a definition's owner trusts with his rights: until now nobody was asked, so those that have them keep them.
-- Only a superuser has to confirm them, see src/pg/relation_trust.cpp.
CREATE FUNCTION redis_migrate.trusted_until_now(relation oid, owner oid) RETURNS redis_migrate.owner_role[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE used (relid) AS (
        SELECT relation
        UNION
        SELECT next.relid FROM used CROSS JOIN LATERAL (
            SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = used.relid
            UNION ALL
            SELECT d.refobjid
            FROM pg_class AS v JOIN pg_rewrite AS r ON r.ev_class = v.oid
            JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
            WHERE v.oid = used.relid) AS next (relid)),
    influence (role) AS (
        SELECT c.relowner FROM pg_class AS c
        WHERE c.oid IN (SELECT relid FROM used UNION SELECT a.relid FROM pg_partition_ancestors(relation) AS a (relid))
        UNION SELECT n.nspowner FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = relation),
    actual (role) AS (
        SELECT DISTINCT CASE WHEN i.role = 'pg_database_owner'::regrole THEN d.datdba ELSE i.role END
        FROM influence AS i JOIN pg_database AS d ON d.datname = current_database())
    SELECT coalesce(array_agg(redis_migrate.stamp_owner(a.role)), '{}')
    FROM actual AS a
    WHERE NOT pg_has_role(a.role, owner, 'MEMBER') AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.oid = owner)
          AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = relation AND c.relkind = 'm')
$$;

ALTER TABLE redis_migrate.migration
    DROP CONSTRAINT migration_source_check,
    ADD CONSTRAINT migration_source_check CHECK (source OPERATOR(pg_catalog.=) ANY (ARRAY['scan', 'rdb', 'replication', 'archive']));

-- A ledger of version 0.1 is a full one: it says which key each row came from. The next run chooses the ledger anew.
ALTER TABLE redis_migrate.mapping ALTER ledger DROP NOT NULL;
ALTER TABLE redis_migrate.mapping RENAME ledger TO has_ledger;
ALTER TABLE redis_migrate.mapping
    ADD target_relation oid,
    ADD target_owner redis_migrate.owner_role,
    ADD trusted_roles redis_migrate.owner_role[],
    ADD ledger text CHECK (ledger OPERATOR(pg_catalog.=) ANY (ARRAY['none', 'packed', 'full'])),
    ADD ledger_reason text,
    ADD ledger_mark bytea,
    ADD ledger_keys text[],
    ADD on_expire text,
    ADD on_flush text NOT NULL DEFAULT 'pause' CHECK (on_flush OPERATOR(pg_catalog.=) ANY (ARRAY['pause', 'delete']));
UPDATE redis_migrate.mapping AS m
SET target_relation = coalesce(c.oid, 0), target_owner = coalesce(redis_migrate.stamp_owner(c.relowner), g.owner),
    trusted_roles = coalesce(redis_migrate.trusted_until_now(c.oid, redis_migrate.owner_oid(g.owner)), '{}'),
    ledger = CASE WHEN m.has_ledger THEN 'full' ELSE 'none' END,
    ledger_reason = 'the mapping was defined with version 0.1'
FROM redis_migrate.mapping AS n JOIN redis_migrate.migration AS g USING (migration)
LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(n.target)
WHERE n.mapping_id OPERATOR(pg_catalog.=) m.mapping_id;
ALTER TABLE redis_migrate.mapping
    ALTER target_relation SET NOT NULL, ALTER target_owner SET NOT NULL, ALTER trusted_roles SET NOT NULL,
    ALTER ledger SET NOT NULL, ALTER ledger_reason SET NOT NULL;

-- From PostgreSQL 18 on, NOT NULL has the column's name.
ALTER TABLE redis_migrate.run_part ALTER slots DROP NOT NULL;
ALTER TABLE redis_migrate.run_part RENAME slots TO share;
UPDATE redis_migrate.run_part SET share = pg_catalog.concat('slots ', share);
ALTER TABLE redis_migrate.run_part ALTER share SET NOT NULL;

ALTER TABLE redis_migrate.reject ADD settled_at timestamptz;
ALTER TABLE redis_migrate.migration ADD altered_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ADD journal boolean NOT NULL DEFAULT true;
ALTER TABLE redis_migrate.background_run
    ADD workers integer,
    ADD live boolean NOT NULL DEFAULT false,
    ADD seed text,
    ADD is_flushed boolean NOT NULL DEFAULT false,
    ADD instance text,
    ADD hint text,
    DROP CONSTRAINT background_run_state_check,
    ADD CHECK (state OPERATOR(pg_catalog.=)
               ANY (ARRAY['starting', 'waiting for worker', 'running', 'retrying', 'paused', 'completed', 'stopped', 'failed']));

ALTER TABLE redis_migrate.run
    ADD live boolean NOT NULL DEFAULT false,
    ADD window_began interval NOT NULL DEFAULT '0',
    ADD window_read bigint NOT NULL DEFAULT 0,
    ADD next_began interval NOT NULL DEFAULT '0',
    ADD next_read bigint NOT NULL DEFAULT 0,
    ADD unlogged_mark uuid;

ALTER TABLE redis_migrate.mapping_count
    ADD changed_here bigint NOT NULL DEFAULT 0,
    ADD deleted_here bigint NOT NULL DEFAULT 0,
    ADD claims_unchanged boolean NOT NULL DEFAULT false,
    ADD expired bigint NOT NULL DEFAULT 0,
    ADD unclear bigint NOT NULL DEFAULT 0;

-- Its indexes hold hashes now, which are computed below.
ALTER TABLE redis_migrate.ledger DROP CONSTRAINT ledger_mapping_id_fkey;
DROP INDEX redis_migrate.ledger_row, redis_migrate.ledger_key;
ALTER TABLE redis_migrate.ledger ADD row_hash bigint, ADD key_hash bigint;

ALTER TABLE redis_migrate.job
    ADD relation_owner redis_migrate.owner_role,
    ADD trusted_roles redis_migrate.owner_role[] NOT NULL DEFAULT '{}',
    ADD problem text;
UPDATE redis_migrate.job AS j
SET relation_owner = coalesce(redis_migrate.stamp_owner(c.relowner), j.owner),
    trusted_roles = coalesce(redis_migrate.trusted_until_now(c.oid, redis_migrate.owner_oid(j.owner)), '{}')
FROM redis_migrate.job AS k LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) k.relation
WHERE k.job_id OPERATOR(pg_catalog.=) j.job_id;
ALTER TABLE redis_migrate.job ALTER relation_owner SET NOT NULL;

ALTER TABLE redis_migrate.rate_limit_exception ADD added_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp();

ALTER TABLE redis_migrate.lockout_policy
    ADD when_full text NOT NULL DEFAULT 'share' CHECK (when_full OPERATOR(pg_catalog.=) ANY (ARRAY['share', 'refuse']));
ALTER TABLE redis_migrate.lockout_policy ALTER when_full DROP DEFAULT;

DROP FUNCTION redis_migrate.trusted_until_now(oid, oid);

-- BEGIN: written by scripts/write-upgrade

ALTER ROUTINE redis_migrate.create_migration(text, name, text, text, integer[], text) RENAME TO create_migration_old;

ALTER ROUTINE redis_migrate.alter_migration(text, name, text, text, integer[], text, text[]) RENAME TO alter_migration_old;

ALTER ROUTINE redis_migrate.add_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text) RENAME TO add_mapping_old;

ALTER ROUTINE redis_migrate.alter_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, text[]) RENAME TO alter_mapping_old;

ALTER ROUTINE redis_migrate.add_check(text, text, text, text) RENAME TO add_check_old;

ALTER ROUTINE redis_migrate.run(text, boolean, text, text, text, text, boolean, bigint, boolean) RENAME TO run_old;

ALTER VIEW redis_migrate.mappings RENAME TO mappings_old;

ALTER VIEW redis_migrate.runs RENAME TO runs_old;

ALTER VIEW redis_migrate.run_parts RENAME TO run_parts_old;

ALTER VIEW redis_migrate.mapping_counts RENAME TO mapping_counts_old;

ALTER ROUTINE redis_migrate.start(text, text, text, text, boolean, boolean) RENAME TO start_old;

ALTER ROUTINE redis_migrate.worker_slots() RENAME TO worker_slots_old;

ALTER VIEW redis_migrate.background_runs RENAME TO background_runs_old;

ALTER ROUTINE redis_migrate.add_expiry(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer) RENAME TO add_expiry_old;

ALTER ROUTINE redis_migrate.alter_expiry(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer) RENAME TO alter_expiry_old;

ALTER ROUTINE redis_migrate.add_session_expiry(text, regclass, interval, interval, text) RENAME TO add_session_expiry_old;

ALTER ROUTINE redis_migrate.add_refresh(regclass, interval, boolean, interval) RENAME TO add_refresh_old;

ALTER ROUTINE redis_migrate.alter_refresh(text, regclass, interval, boolean, interval) RENAME TO alter_refresh_old;

ALTER VIEW redis_migrate.expiry_stats RENAME TO expiry_stats_old;

ALTER ROUTINE redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text) RENAME TO create_lockout_old;

ALTER ROUTINE redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text) RENAME TO alter_lockout_old;

ALTER ROUTINE redis_migrate.lockout_counts() RENAME TO lockout_counts_old;

ALTER VIEW redis_migrate.lockout_stats RENAME TO lockout_stats_old;

ALTER VIEW redis_migrate.progress RENAME TO progress_old;

ALTER VIEW redis_migrate.workers RENAME TO workers_old;

COMMENT ON FUNCTION redis_migrate.installation() IS
    'Identifies this CREATE EXTENSION. pg_upgrade keeps the number; a dump does not carry it';

COMMENT ON TABLE redis_migrate.definition_owners IS
    'Always empty. Each role that owns a definition is granted SELECT on one of its columns, so that DROP ROLE fails. The grant is revoked when the role''s last definition is dropped';

COMMENT ON FUNCTION redis_migrate.owner_role_out(redis_migrate.owner_role) IS
    'Output of owner_role: name/role/database/installation, with the current name of the role';

COMMENT ON FUNCTION redis_migrate.stamp_owner(oid) IS 'Makes a role an owner in this database';

COMMENT ON FUNCTION redis_migrate.stamped_role(redis_migrate.owner_role) IS
    'The stored OID of the role, valid here or not; for indexes';

COMMENT ON FUNCTION redis_migrate.owner_oid(redis_migrate.owner_role) IS
    'The role that owns a definition; NULL if it does not exist or has no grant on definition_owners';

COMMENT ON FUNCTION redis_migrate.acting_role(redis_migrate.owner_role) IS
    'The role as which background workers run a definition: its owner. A restored definition has none before resume_restored';

COMMENT ON FUNCTION redis_migrate.shown_owner(redis_migrate.owner_role) IS
    'The owner as views show it, even of a record whose definition is gone';

COMMENT ON FUNCTION redis_migrate.may_see(redis_migrate.owner_role) IS
    'Whether the caller has the privileges of that owner. Superusers also see definitions without an owner';

COMMENT ON FUNCTION redis_migrate.is_restored(redis_migrate.owner_role) IS
    'Whether the definition was stored elsewhere, because it came with a dump, or this database is a copy';

COMMENT ON FUNCTION redis_migrate.owner_name(redis_migrate.owner_role) IS 'The name of an owner, even if the role does not exist here';

COMMENT ON FUNCTION redis_migrate.owner_problem(redis_migrate.owner_role) IS
    'Why a definition has no owner; NULL if it has one';

COMMENT ON FUNCTION redis_migrate.release_owner() IS
    'Trigger of tables with definitions: revokes the grant of a role that no longer owns a definition';

COMMENT ON FUNCTION redis_migrate.index_key(bytea) IS
    'The index key of a name of any length: the name itself up to 256 bytes, otherwise its first 256 bytes and the SHA-256 of the whole name';

COMMENT ON TABLE redis_migrate.migration IS
    'Migrations: a server or a file, a source, and mappings. changed_at: the last change of the definition. altered_at: the same, but it ignores added and dropped mappings that share no keys with others. journal: runs and live sync keep the earlier images of rows';

COMMENT ON TABLE redis_migrate.mapping IS
    'How the keys of a pattern become rows of a table, with the session settings under which the query was defined. target_relation, target_owner: the target and its owner when the mapping''s owner last accepted them; trusted_roles: other roles whose SQL may run with the owner''s rights. ledger_mark: row_hash(mapping_id) under the secret of the ledger''s entries; NULL until a run has checked that the secret fits the ledger. ledger_keys: the types of the key columns, as far as the hashes in a packed ledger depend on them, and the labels of enums';

COMMENT ON TABLE redis_migrate.mapping_check IS
    'Conditions on the rows that a mapping''s query yields. If a condition is not true, the key is rejected under the name of the check';

COMMENT ON TABLE redis_migrate.skip_pattern IS 'Patterns whose keys are not migrated';

COMMENT ON TABLE redis_migrate.run IS
    'Executions of migrations. (level, position) is the checkpoint; the transaction that writes rows also writes it. If a level is read in parts, run_part has a checkpoint for each. The shown rate begins at active_time window_began, when window_read keys had been read. (next_began, next_read) is the next such point, and replaces this one once it is 30 seconds old. unlogged_mark: the number in the table of that name when what the run had stored was last known to be there';

CREATE UNLOGGED TABLE redis_migrate.unlogged_mark (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    mark    uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);

COMMENT ON TABLE redis_migrate.unlogged_mark IS
    'A random number that a run draws if the table is empty. PostgreSQL empties the table whenever it empties unlogged tables, so a run that noted another number began before that';

COMMENT ON TABLE redis_migrate.run_part IS
    'Parts of a level that several processes read side by side, each with its own checkpoint. share: the slots of a cluster''s master, a range of a server''s cursors, or a share of the names';

COMMENT ON TABLE redis_migrate.run_count IS
    'Numbers of keys by outcome, reason, pattern (NULL: unmapped) and part of the level (0: the level is not read in parts). The outcome read counts the names that the source returned';

COMMENT ON TABLE redis_migrate.mapping_count IS
    'Numbers of rows by mapping and outcome. changed_here: how many of the changed or deleted rows somebody else had changed since they were stored; deleted_here: how many of the inserted rows somebody else had deleted. A packed ledger knows both once it is merged. expired, unclear: for a mapping with on_expire, rows that left because their keys had expired, and rows for which that is unknown. prune: whether rows without a key were removed; prune_detail: if not, why, or which rows stayed. claims_unchanged: the ledger was empty when the run began, so rows that are as Redis has them become the mapping''s';

CREATE INDEX reject_key ON redis_migrate.reject USING hash (key_bytes);

CREATE INDEX reject_settled ON redis_migrate.reject (settled_at) WHERE settled_at IS NOT NULL;

COMMENT ON TABLE redis_migrate.reject IS
    'Rejected keys, with the reason and the payload, so that nothing is lost. settled_at: when a live run stored a newer value of the key, or found the key gone';

COMMENT ON TABLE redis_migrate.deferred IS
    'Keys that a foreign key refused, or whose row belongs to a lower key. They are tried again at the end of their level';

COMMENT ON TABLE redis_migrate.archived_key IS
    'Keys without a mapping, as DUMP payloads. They can be mapped later, or restored into a Redis. payload is NULL if it is kept in chunks';

COMMENT ON TABLE redis_migrate.archive_chunk IS
    'Payloads of archived keys that are larger than 1 MB, in chunks of 1 MB that are counted from 0';

COMMENT ON TABLE redis_migrate.ledger IS
    'The full ledger, for mappings of which two keys could yield the same row: the key that each row came from. row_hash and key_hash are the first 8 bytes of redis_migrate.row_hash of (mapping_id, row_key) and of (mapping_id, db, key_bytes)';

CREATE TABLE redis_migrate.ledger_batch (
    mapping_id    bigint NOT NULL,
    batch_id      bigint GENERATED ALWAYS AS IDENTITY,
    run_id        bigint,
    appended_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    merged        boolean NOT NULL DEFAULT false,
    format        integer NOT NULL,
    columns       bigint NOT NULL,
    takes_changed boolean NOT NULL,
    in_journal    boolean NOT NULL DEFAULT false,
    inserted      bytea NOT NULL,
    changed       bytea NOT NULL,
    removed       bytea NOT NULL,
    PRIMARY KEY (mapping_id, batch_id)
);

CREATE INDEX ledger_batch_new ON redis_migrate.ledger_batch (mapping_id, batch_id) WHERE NOT merged;

CREATE INDEX ledger_batch_appended ON redis_migrate.ledger_batch (appended_at);

ALTER TABLE redis_migrate.ledger_batch ALTER inserted SET STORAGE EXTERNAL, ALTER changed SET STORAGE EXTERNAL,
    ALTER removed SET STORAGE EXTERNAL;

COMMENT ON TABLE redis_migrate.ledger_batch IS
    'News for the packed ledger, which is also the journal of inserts: a row for each batch. All lists ascend by row_hash. inserted: row_hash and row_image of inserted rows, 24 bytes each. changed: the same of rows that existed, and their earlier row_image, 32 bytes each. removed: row_hash of rows that are no longer the mapping''s, 16 bytes each. takes_changed: the changed rows became the mapping''s. in_journal: the table journal has the inserted rows, too. columns stands for the columns that row_image covers. The end of a run merges the batches into ledger_segment; they are deleted after pg_redis_migrate.journal_retention';

COMMENT ON SEQUENCE redis_migrate.ledger_batch_batch_id_seq IS 'Order of the packed ledger''s batches';

CREATE TABLE redis_migrate.ledger_segment (
    mapping_id bigint NOT NULL,
    first_hash bytea NOT NULL,
    format     integer NOT NULL,
    columns    bigint NOT NULL,
    entries    bytea NOT NULL,
    PRIMARY KEY (mapping_id, first_hash)
);

ALTER TABLE redis_migrate.ledger_segment ALTER entries SET STORAGE EXTERNAL;

COMMENT ON TABLE redis_migrate.ledger_segment IS
    'The packed ledger: row_hash of each row that is the mapping''s, in ascending order, and the row_image that was stored, 24 bytes together, at most 2000 rows in a segment. A row_image of 0 is unknown';

CREATE TABLE redis_migrate.ledger_secret (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    secret  bytea NOT NULL CHECK (pg_catalog.octet_length(secret) OPERATOR(pg_catalog.=) 16)
);

COMMENT ON TABLE redis_migrate.ledger_secret IS
    'The secret key of row_hash, row_image and the hashes in ledger, so that nobody can make up two keys with the same hash. The first mapping with a ledger draws it. A dump contains it, because the ledgers need it';

COMMENT ON TABLE redis_migrate.page_key IS
    'Keys that were stored, although the position of the run does not cover them yet. A resumed run does not count them again';

COMMENT ON TABLE redis_migrate.seen_row IS
    'Rows that a run with prune => true has met; emptied when the run ends. Rows that are missing here were not in Redis. lost: a key that does not own the row met it';

CREATE TABLE redis_migrate.seen_batch (
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    mapping_id bigint NOT NULL,
    batch_id   bigint GENERATED ALWAYS AS IDENTITY,
    format     integer NOT NULL,
    hashes     bytea NOT NULL,
    PRIMARY KEY (run_id, batch_id)
);

ALTER TABLE redis_migrate.seen_batch ALTER hashes SET STORAGE EXTERNAL;

COMMENT ON TABLE redis_migrate.seen_batch IS
    'Like seen_row, for mappings with a packed ledger: row_hash of the rows that each batch met, 16 bytes each, in ascending order';

COMMENT ON SEQUENCE redis_migrate.seen_batch_batch_id_seq IS 'Numbers of batches of met rows';

CREATE FUNCTION redis_migrate.row_hash(VARIADIC key "any") RETURNS bytea
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_row_hash';

COMMENT ON FUNCTION redis_migrate.row_hash("any") IS
    'The hash by which a packed ledger knows a row. The arguments are the row''s key columns, in the order of the mapping''s key_columns. Raises 55000 before the secret is drawn';

CREATE FUNCTION redis_migrate.row_image(columns record) RETURNS bigint
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_row_image';

COMMENT ON FUNCTION redis_migrate.row_image(record) IS
    'A hash of the other columns that the mapping fills. It shows a packed ledger whether a row still is as it was stored. Raises 55000 before the secret is drawn';

COMMENT ON FOREIGN DATA WRAPPER redis_migrate IS
    'Redis servers that migrations read. Options of a server include host (a path is a unix socket), port, connect_timeout and command_timeout; options of a user mapping include username, password and password_file. See docs/connections.md';

CREATE FUNCTION redis_migrate.create_migration(migration text, server name DEFAULT NULL, source text DEFAULT 'scan',
        unmapped text DEFAULT 'archive', databases integer[] DEFAULT NULL, file text DEFAULT NULL, journal boolean DEFAULT true) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_create_migration';

COMMENT ON FUNCTION redis_migrate.create_migration(text, name, text, text, integer[], text, boolean) IS
    'Creates a migration from a server, or from a dump file on the database server. source: scan, replication (a snapshot), rdb (the file), archive; unmapped: archive, reject; databases: NULL means all that have keys; journal: keep the earlier images of rows, for undo_run';

CREATE FUNCTION redis_migrate.alter_migration(migration text, server name DEFAULT NULL, source text DEFAULT NULL,
        unmapped text DEFAULT NULL, databases integer[] DEFAULT NULL, file text DEFAULT NULL,
        reset text[] DEFAULT NULL, journal boolean DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_migration';

COMMENT ON FUNCTION redis_migrate.alter_migration(text, name, text, text, integer[], text, text[], boolean) IS
    'Changes a migration. NULL leaves a property as it is; reset names the properties that become NULL. An interrupted run then begins anew';

COMMENT ON FUNCTION redis_migrate.drop_migration(text) IS
    'Drops a migration with its mappings, its archive and the history of its runs. Target tables stay. It stops a run that is under way. A REPEATABLE READ or SERIALIZABLE transaction cannot see the run''s last changes and fails with 40001: call redis_migrate.stop first';

CREATE FUNCTION redis_migrate.add_mapping(migration text, mapping text, pattern text, target regclass, query text,
        key_columns text[], priority text DEFAULT 'medium', on_conflict text DEFAULT 'update',
        on_delete text DEFAULT 'delete', mode text DEFAULT 'upsert', no_row text DEFAULT 'reject',
        atomic text DEFAULT 'key', expand text DEFAULT NULL, types text[] DEFAULT NULL,
        databases integer[] DEFAULT NULL, depends_on text[] DEFAULT NULL, exclusive boolean DEFAULT false,
        source_timezone text DEFAULT 'UTC', trust_target boolean DEFAULT false, on_expire text DEFAULT NULL,
        on_flush text DEFAULT 'pause') RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_mapping';

COMMENT ON FUNCTION redis_migrate.add_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, boolean, text, text) IS
    'Adds a mapping: how the keys of a pattern become rows of a table, by a query over redis_batch. trust_target: a superuser confirms a target that others own. on_flush: after FLUSHALL, FLUSHDB or SWAPDB a live run may remove any number of rows (delete), or stops beyond live_delete_limit (pause). See docs/mappings.md';

CREATE FUNCTION redis_migrate.alter_mapping(migration text, mapping text, pattern text DEFAULT NULL, target regclass DEFAULT NULL,
        query text DEFAULT NULL, key_columns text[] DEFAULT NULL, priority text DEFAULT NULL, on_conflict text DEFAULT NULL,
        on_delete text DEFAULT NULL, mode text DEFAULT NULL, no_row text DEFAULT NULL, atomic text DEFAULT NULL,
        expand text DEFAULT NULL, types text[] DEFAULT NULL, databases integer[] DEFAULT NULL,
        depends_on text[] DEFAULT NULL, exclusive boolean DEFAULT NULL, source_timezone text DEFAULT NULL,
        reset text[] DEFAULT NULL, trust_target boolean DEFAULT false, on_expire text DEFAULT NULL,
        on_flush text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_mapping';

COMMENT ON FUNCTION redis_migrate.alter_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, text[], boolean, text, text) IS
    'Changes a mapping. NULL leaves a property as it is; reset names the properties that become NULL. A new query is stored with the session''s settings. trust_target confirms a target that has another owner than before';

COMMENT ON FUNCTION redis_migrate.drop_mapping(text, text) IS
    'Drops a mapping and its ledger. The rows that it stored stay';

CREATE FUNCTION redis_migrate.add_check(migration text, mapping text, check_name text, condition text,
        trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_check';

COMMENT ON FUNCTION redis_migrate.add_check(text, text, text, text, boolean) IS
    'Adds a condition on the rows that a mapping''s query yields. If it is not true for a row, the key is rejected under the name of the check';

COMMENT ON FUNCTION redis_migrate.skip_keys(text, text) IS
    'Declares that the keys of a pattern are not migrated. They are counted as skipped';

COMMENT ON FUNCTION redis_migrate.unskip_keys(text, text) IS 'Reverses skip_keys';

CREATE TABLE redis_migrate.family_change (
    change_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration  text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    pattern    text NOT NULL,
    state      text NOT NULL CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['redis', 'cutting', 'both', 'postgres', 'done'])),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    changed_by name NOT NULL DEFAULT SESSION_USER,
    note       text
);

CREATE INDEX family_change_of ON redis_migrate.family_change (migration, pattern, change_id);

COMMENT ON TABLE redis_migrate.family_change IS
    'The states of families, one after another. A family without a row is in state redis';

COMMENT ON SEQUENCE redis_migrate.family_change_change_id_seq IS 'Order of the changes of families';

CREATE FUNCTION redis_migrate.set_family_state(migration text, pattern text, state text, note text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_set_family_state';

COMMENT ON FUNCTION redis_migrate.set_family_state(text, text, text, text) IS
    'Says whose the keys of a pattern are: redis, cutting (still Redis''), both, postgres or done. In the last three states, runs and live sync leave the rows of the pattern''s mappings alone. If a reverse feed rests because the family was given back to Redis, one of these three states ends that: all rows are written to Redis, and keys without rows are removed. Waits for batches that are under way';

CREATE VIEW redis_migrate.families WITH (security_barrier) AS
    SELECT g.migration, redis_migrate.shown_owner(g.owner) AS owner, f.pattern, f.mappings, coalesce(c.state, 'redis') AS state,
           c.changed_at AS since, c.changed_by, c.note
    FROM redis_migrate.migration AS g
    CROSS JOIN LATERAL (SELECT m.pattern, pg_catalog.array_agg(m.mapping ORDER BY m.mapping_id) AS mappings
                        FROM redis_migrate.mapping AS m WHERE m.migration OPERATOR(pg_catalog.=) g.migration GROUP BY m.pattern) AS f
    LEFT JOIN LATERAL (SELECT * FROM redis_migrate.family_change AS x
                       WHERE x.migration OPERATOR(pg_catalog.=) g.migration AND x.pattern OPERATOR(pg_catalog.=) f.pattern
                       ORDER BY x.change_id DESC LIMIT 1) AS c ON true
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.families IS
    'The families of the caller''s migrations, or all for members of pg_monitor: a pattern with all its mappings, and whose its keys are. since is NULL if the state never changed';

CREATE VIEW redis_migrate.family_changes WITH (security_barrier) AS
    SELECT c.change_id, c.migration, c.pattern, c.state, c.changed_at, c.changed_by, c.note
    FROM redis_migrate.family_change AS c JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.family_changes IS 'The history of families: each state, since when, and who set it';

COMMENT ON FUNCTION redis_migrate.preflight(name) IS
    'Checks whether a migration can read a server: reachability, rights, databases, eviction, clocks and so on. status is ok, warn or fail';

COMMENT ON FUNCTION redis_migrate.preview(text, text, integer, boolean) IS
    'Shows what would happen to the first keys of the source, and which rows would be stored; everything is rolled back. With a mapping, only its keys count. bytea columns are left out unless bytes is true. key_bytes is filled if the key is not text, or bytes is true';

CREATE PROCEDURE redis_migrate.run(migration text, dry_run boolean DEFAULT false, priority text DEFAULT NULL,
        mapping text DEFAULT NULL, source text DEFAULT NULL, on_error text DEFAULT 'continue',
        prune boolean DEFAULT false, max_keys bigint DEFAULT 10000, force boolean DEFAULT false,
        workers integer DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_run';

COMMENT ON PROCEDURE redis_migrate.run(text, boolean, text, text, text, text, boolean, bigint, boolean, integer) IS
    'Runs a migration, or resumes an interrupted run. Commits after each batch. dry_run tries at most max_keys keys and keeps nothing. on_error: continue, stop. prune removes rows whose keys are gone; with dry_run it only says how many they are. force without prune also writes to families that belong to PostgreSQL; force with prune also prunes mappings of which the run met no key, or that would lose more than pg_redis_migrate.prune_limit. workers: how many processes read the source side by side, including this one; by default as many as its size, the cores and pg_redis_migrate.max_workers allow';

CREATE FUNCTION redis_migrate.last_run_id() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prm_last_run_id';

COMMENT ON FUNCTION redis_migrate.last_run_id() IS
    'The run that the last CALL of run or wait_for in this session executed or waited for, even if it failed';

COMMENT ON PROCEDURE redis_migrate.join_run(bigint) IS
    'Reads parts of a run, beside the process that leads it, until no unread part is left. Background workers call it. Commits after each batch';

COMMENT ON FUNCTION redis_migrate.input_is_valid(text, regtype) IS
    'Whether a text is a valid value of a type; for queries and checks';

COMMENT ON FUNCTION redis_migrate.field(bytea, text) IS
    'The value of a hash''s field, from the DUMP payload; NULL if there is no such field';

COMMENT ON FUNCTION redis_migrate.field_bytes(bytea, bytea) IS
    'The value of a hash''s field as bytes, from the DUMP payload; NULL if there is no such field';

COMMENT ON FUNCTION redis_migrate.elements(bytea) IS
    'The elements of a list, set, hash, sorted set, array or stream, or the one value of a string, from its DUMP payload';

COMMENT ON TABLE redis_migrate.audit IS 'Audits of Redis servers: parameters, progress and sums';

COMMENT ON TABLE redis_migrate.audit_family IS
    'Key families that an audit found. If the keys of a pattern have several types, each type is a family. type is empty if it is unknown';

COMMENT ON TABLE redis_migrate.audit_key IS 'The largest keys that an audit met in each database, masked';

COMMENT ON PROCEDURE redis_migrate.audit(name, double precision, interval, integer[], integer) IS
    'Finds the key families of a server, or of all masters of a cluster, and stores them. sample: how many keys per family to ask about; below 1, a share of them; NULL: all. max_rate: keys per second. Commits as it goes';

COMMENT ON FUNCTION redis_migrate.drop_audit(bigint) IS 'Drops an audit and its key families';

COMMENT ON VIEW redis_migrate.audits IS 'Audits of the caller, including those under way';

COMMENT ON VIEW redis_migrate.audit_families IS
    'Key families of the caller''s audits. keys is exact for a pattern of one type. If estimated is true, bytes, with_ttl and without_ttl are estimates for all keys; types, ttl_spread and encodings count what was seen';

COMMENT ON VIEW redis_migrate.audit_largest_keys IS
    'The largest keys of each database among those that an audit asked about. Letters and digits of captures are masked';

COMMENT ON FUNCTION redis_migrate.compare_audits(bigint, bigint) IS
    'Differences between two audits, by family: new, gone, grown, shrunk, same. touched: a key was read or written since the first audit ended. renewed: the latest expiry has moved on';

CREATE OR REPLACE VIEW redis_migrate.migrations WITH (security_barrier) AS
    SELECT migration, redis_migrate.shown_owner(owner) AS owner, server, file, source, unmapped, databases, created_at, changed_at, journal
    FROM redis_migrate.migration
    WHERE redis_migrate.may_see(owner);

CREATE VIEW redis_migrate.mappings WITH (security_barrier) AS
    SELECT m.migration, m.mapping, m.pattern, m.target, m.query, m.key_columns, m.priority, m.on_conflict, m.on_delete,
           m.mode, m.no_row, m.atomic, m.expand, m.types, m.databases, m.depends_on, m.exclusive, m.ledger,
           m.ledger_reason, m.search_path, m.timezone, m.datestyle, m.intervalstyle, m.on_expire, m.on_flush
    FROM redis_migrate.mapping AS m JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);

COMMENT ON VIEW redis_migrate.mappings IS
    'Mappings of the caller''s migrations. ledger: how a mapping knows which rows are its own (none, packed, full); ledger_reason: why it has this ledger';

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

COMMENT ON FUNCTION redis_migrate.bytes_as_text(bytea) IS
    'Bytes from Redis as text: UTF-8, converted to the server''s encoding; NULL if they are not valid';

CREATE OR REPLACE VIEW redis_migrate.rejects WITH (security_barrier) AS
    SELECT j.reject_id, j.run_id, r.migration, j.db, redis_migrate.bytes_as_text(j.key_bytes) AS key, j.key_bytes, j.type,
           j.pattern, j.mapping, j.rule, j.sqlstate, j.message, j.partial, j.payload, j.expires_at, j.created_at, j.settled_at
    FROM redis_migrate.reject AS j JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner);

COMMENT ON VIEW redis_migrate.rejects IS
    'Rejected keys. rule: the name of a check, capture, column or constraint, or a built-in rule. settled_at: since when, in a live run, nothing is wrong with the key any more';

CREATE OR REPLACE VIEW redis_migrate.archive WITH (security_barrier) AS
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

CREATE TABLE redis_migrate.verification (
    verification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration      text NOT NULL,
    owner          redis_migrate.owner_role NOT NULL,
    source         text NOT NULL,
    mapping        text,
    sample         double precision,
    max_differences bigint NOT NULL,
    followed       boolean NOT NULL DEFAULT false,
    state          text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'failed'])),
    started_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at    timestamptz,
    pid            integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    keys_estimated bigint,
    keys_read      bigint NOT NULL DEFAULT 0,
    keys_read_again bigint NOT NULL DEFAULT 0,
    keys_rejected  bigint NOT NULL DEFAULT 0,
    keys_unwatched bigint NOT NULL DEFAULT 0,
    verified       boolean,
    proves         boolean,
    reasons        text[],
    sqlstate       text,
    message        text
) WITH (fillfactor = 50);

CREATE INDEX verification_migration ON redis_migrate.verification (migration, verification_id);

COMMENT ON TABLE redis_migrate.verification IS
    'Comparisons of Redis with the tables of a migration. verified: all keys and rows were compared, and nothing differs; reasons: why not. proves: the same, except for keys that never held still; each of them has a line in verification_difference. followed: live sync was under way when the verification began';

COMMENT ON SEQUENCE redis_migrate.verification_verification_id_seq IS 'Numbers of verifications';

CREATE TABLE redis_migrate.verification_part (
    verification_id bigint NOT NULL REFERENCES redis_migrate.verification ON DELETE CASCADE,
    part            integer NOT NULL CHECK (part OPERATOR(pg_catalog.>) 0),
    share           text NOT NULL,
    position        text NOT NULL,
    done            boolean NOT NULL DEFAULT false,
    pid             integer,
    updated_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    keys_read       bigint NOT NULL DEFAULT 0,
    keys_read_again bigint NOT NULL DEFAULT 0,
    keys_rejected   bigint NOT NULL DEFAULT 0,
    keys_unwatched  bigint NOT NULL DEFAULT 0,
    rules           text[],
    rejected        bigint[],
    restarts        integer NOT NULL DEFAULT 0,
    readers         integer NOT NULL DEFAULT 1,
    sqlstate        text,
    message         text,
    PRIMARY KEY (verification_id, part)
) WITH (fillfactor = 50);

COMMENT ON TABLE redis_migrate.verification_part IS
    'Parts of a verification''s source that several processes read side by side. share: the slots of a cluster''s master, a range of a server''s cursors, or a share of the names; position: where the part begins; rejected: keys by rule, once the part is done; restarts: how often it began again because the server was restarted';

CREATE TABLE redis_migrate.verification_count (
    verification_id bigint NOT NULL REFERENCES redis_migrate.verification ON DELETE CASCADE,
    part           integer NOT NULL,
    mapping        text NOT NULL,
    equal          bigint NOT NULL,
    missing        bigint NOT NULL,
    different      bigint NOT NULL,
    expiry_differs bigint NOT NULL,
    extra          bigint,
    unsettled      bigint NOT NULL,
    not_kept       bigint NOT NULL,
    PRIMARY KEY (verification_id, part, mapping)
);

COMMENT ON TABLE redis_migrate.verification_count IS
    'Numbers of rows by mapping and finding, for each part of a verification''s source and outside them (part 0). extra is NULL if it was not looked for. unsettled counts keys. not_kept: how many rows that differ have no line in verification_difference';

CREATE TABLE redis_migrate.verification_difference (
    difference_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    verification_id bigint NOT NULL REFERENCES redis_migrate.verification ON DELETE CASCADE,
    part            integer NOT NULL,
    number          bigint NOT NULL,
    mapping         text NOT NULL,
    kind            text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['missing', 'extra', 'different', 'expiry_differs', 'unsettled', 'rejected'])),
    db              integer,
    key_bytes       bytea,
    row_key         text,
    column_name     text,
    redis_value     text,
    stored_value    text,
    found_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

CREATE INDEX verification_difference_of ON redis_migrate.verification_difference (verification_id);

COMMENT ON TABLE redis_migrate.verification_difference IS
    'What differs, a line for each column, for as many rows of each mapping as were asked for. number: the row''s number in its part and mapping; row_key: the row''s key columns, as an array';

COMMENT ON SEQUENCE redis_migrate.verification_difference_difference_id_seq IS 'Numbers of differences';

CREATE TABLE redis_migrate.verification_met (
    verification_id bigint NOT NULL REFERENCES redis_migrate.verification ON DELETE CASCADE,
    part       integer NOT NULL,
    mapping_id bigint NOT NULL,
    batch_id   bigint GENERATED ALWAYS AS IDENTITY,
    suspects   boolean NOT NULL,
    format     integer NOT NULL,
    hashes     bytea NOT NULL,
    PRIMARY KEY (verification_id, batch_id)
);

ALTER TABLE redis_migrate.verification_met ALTER hashes SET STORAGE EXTERNAL;

COMMENT ON TABLE redis_migrate.verification_met IS
    'While a verification runs: row_hash of the rows that each batch''s keys yield, 16 bytes each, in ascending order. suspects: versions of rows that no key has yielded so far';

COMMENT ON SEQUENCE redis_migrate.verification_met_batch_id_seq IS 'Numbers of batches of met rows';

CREATE PROCEDURE redis_migrate.verify(migration text, sample double precision DEFAULT NULL, mapping text DEFAULT NULL,
        source text DEFAULT NULL, max_differences integer DEFAULT 100, workers integer DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_verify';

COMMENT ON PROCEDURE redis_migrate.verify(text, double precision, text, text, integer, integer) IS
    'Compares what Redis has with the rows of a migration, and the rows with what Redis has. It changes neither, and may run beside a run. sample: a share of the keys, between 0 and 1, for a quick look; max_differences: how many rows that differ are kept for each mapping; workers: how many processes read the source side by side, by default a number that suits it. Commits as it goes';

CREATE PROCEDURE redis_migrate.join_verification(verification_id bigint)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_join_verification';

COMMENT ON PROCEDURE redis_migrate.join_verification(bigint) IS
    'Reads parts of a verification that another process leads, one after the other, until none is left that nobody reads. Background workers call it. Commits as it goes';

CREATE VIEW redis_migrate.verifications WITH (security_barrier) AS
    SELECT v.verification_id, v.migration, redis_migrate.shown_owner(v.owner) AS owner, v.source, v.mapping, v.sample,
           CASE WHEN v.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(v.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) v.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) v.updated_at))
                THEN 'interrupted' ELSE v.state END AS state,
           v.started_at, v.finished_at, v.pid, v.keys_estimated, v.keys_read, v.keys_read_again, v.keys_rejected,
           CASE WHEN v.followed THEN v.keys_unwatched END AS keys_unwatched, v.verified, v.reasons, v.sqlstate, CASE WHEN redis_migrate.may_see(v.owner) THEN v.message END AS message
    FROM redis_migrate.verification AS v
    WHERE redis_migrate.may_see(v.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.verifications IS
    'Verifications of the caller''s migrations, or all for members of pg_monitor: whether Redis and the tables are equal, and why not if that is not proved';

CREATE VIEW redis_migrate.verification_parts WITH (security_barrier) AS
    SELECT p.verification_id, v.migration, p.part, p.share, p.done, p.pid, p.updated_at, p.keys_read, p.keys_read_again, p.keys_rejected,
           CASE WHEN v.followed THEN p.keys_unwatched END AS keys_unwatched, p.readers, p.sqlstate, CASE WHEN redis_migrate.may_see(v.owner) THEN p.message END AS message
    FROM redis_migrate.verification_part AS p JOIN redis_migrate.verification AS v USING (verification_id)
    WHERE redis_migrate.may_see(v.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.verification_parts IS
    'Parts of verifications that several processes read side by side: the share of the source, the process that reads or last read it, and how many keys. Of the caller''s migrations, or all for members of pg_monitor';

CREATE VIEW redis_migrate.verification_counts WITH (security_barrier) AS
    SELECT c.verification_id, v.migration, c.mapping,
           pg_catalog.sum(c.equal OPERATOR(pg_catalog.+) c.missing OPERATOR(pg_catalog.+) c.different OPERATOR(pg_catalog.+) c.expiry_differs)::bigint AS checked,
           pg_catalog.sum(c.equal)::bigint AS equal, pg_catalog.sum(c.missing)::bigint AS missing, pg_catalog.sum(c.extra)::bigint AS extra,
           pg_catalog.sum(c.different)::bigint AS different, pg_catalog.sum(c.expiry_differs)::bigint AS expiry_differs,
           pg_catalog.sum(c.unsettled)::bigint AS unsettled, pg_catalog.sum(c.not_kept)::bigint AS not_kept
    FROM redis_migrate.verification_count AS c JOIN redis_migrate.verification AS v USING (verification_id)
    WHERE v.state OPERATOR(pg_catalog.=) 'completed' AND (redis_migrate.may_see(v.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE'))
    GROUP BY c.verification_id, v.migration, c.mapping
    ORDER BY c.verification_id, c.mapping COLLATE "C";

COMMENT ON VIEW redis_migrate.verification_counts IS
    'Numbers of rows by mapping: checked = equal + missing + different + expiry_differs. extra: rows of the mapping that no key yields, NULL if they were not looked for. unsettled: keys that changed each time they were read';

CREATE VIEW redis_migrate.verification_differences WITH (security_barrier) AS
    SELECT d.difference_id, d.verification_id, v.migration, d.mapping, d.kind, d.db,
           CASE WHEN m.sees THEN redis_migrate.bytes_as_text(d.key_bytes)
                ELSE pg_catalog.regexp_replace(redis_migrate.bytes_as_text(d.key_bytes), m.letters, 'x', 'g') END AS key,
           CASE WHEN m.sees THEN d.key_bytes END AS key_bytes,
           CASE WHEN m.sees THEN d.row_key ELSE pg_catalog.regexp_replace(d.row_key, m.letters, 'x', 'g') END AS row_key,
           d.column_name,
           CASE WHEN m.sees THEN d.redis_value ELSE pg_catalog.regexp_replace(d.redis_value, m.letters, 'x', 'g') END AS redis_value,
           CASE WHEN m.sees THEN d.stored_value ELSE pg_catalog.regexp_replace(d.stored_value, m.letters, 'x', 'g') END AS stored_value,
           d.found_at
    FROM redis_migrate.verification_difference AS d JOIN redis_migrate.verification AS v USING (verification_id)
    CROSS JOIN LATERAL (SELECT redis_migrate.may_see(v.owner) AS sees, '[^[:punct:][:space:]]' AS letters) AS m
    WHERE m.sees OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.verification_differences IS
    'Differences that verifications of the caller''s migrations found, a line for each column. Members of pg_monitor see letters and digits masked. Of a long value, the part is shown where the values begin to differ';

CREATE TABLE redis_migrate.journal (
    run_id      bigint NOT NULL,
    journal_id  bigint GENERATED ALWAYS AS IDENTITY,
    mapping_id  bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    target      text NOT NULL,
    columns     text[] NOT NULL,
    types       text[] NOT NULL,
    keys        integer NOT NULL,
    salt        bytea NOT NULL,
    deletes     boolean NOT NULL,
    lines       integer NOT NULL,
    entries     bytea NOT NULL,
    PRIMARY KEY (run_id, journal_id)
);

CREATE INDEX journal_recorded ON redis_migrate.journal (recorded_at);

ALTER TABLE redis_migrate.journal ALTER entries SET STORAGE EXTERNAL;

COMMENT ON TABLE redis_migrate.journal IS
    'Rows that runs and live sessions changed, in blocks, in the order of the changes. journal_entries shows the lines. columns: the target''s columns at that time, of which the first `keys` ones are the key columns; types: their types, without domains. entries: lines with the rows'' earlier values, as texts, and digests of the later ones, made with salt. deletes: some of the rows were deleted';

COMMENT ON SEQUENCE redis_migrate.journal_journal_id_seq IS 'Order of changes in the journal';

CREATE TABLE redis_migrate.journal_value (
    run_id      bigint NOT NULL,
    value_id    bigint GENERATED BY DEFAULT AS IDENTITY,
    piece       integer NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    bytes       bytea NOT NULL,
    PRIMARY KEY (value_id, piece)
);

CREATE INDEX journal_value_recorded ON redis_migrate.journal_value (recorded_at);

ALTER TABLE redis_migrate.journal_value ALTER bytes SET STORAGE EXTERNAL;

COMMENT ON TABLE redis_migrate.journal_value IS
    'Values of more than 1 MB in lines of the journal, in pieces of 1 MB that are counted from 0';

COMMENT ON SEQUENCE redis_migrate.journal_value_value_id_seq IS 'Numbers of large values in the journal';

CREATE TABLE redis_migrate.journal_insert (
    run_id      bigint NOT NULL,
    insert_id   bigint GENERATED ALWAYS AS IDENTITY,
    mapping_id  bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    target      text NOT NULL,
    key_columns text[] NOT NULL,
    sorted      boolean NOT NULL,
    format      integer NOT NULL,
    columns     bigint NOT NULL,
    inserted    bytea NOT NULL,
    PRIMARY KEY (run_id, insert_id)
);

CREATE INDEX journal_insert_recorded ON redis_migrate.journal_insert (recorded_at);

ALTER TABLE redis_migrate.journal_insert ALTER inserted SET STORAGE EXTERNAL;

COMMENT ON TABLE redis_migrate.journal_insert IS
    'Rows that runs of mappings without a packed ledger inserted, packed as in ledger_batch. sorted: a list that an undo made. It has each row of one range of hashes that the undo has not yet removed, or has left, once, and includes rows of ledger_batch';

COMMENT ON SEQUENCE redis_migrate.journal_insert_insert_id_seq IS 'Numbers of lists of inserted rows';

CREATE TABLE redis_migrate.undo (
    run_id      bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    dry_run     boolean NOT NULL,
    state       text NOT NULL CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'dry_run'])),
    force       boolean NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    pid         integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    PRIMARY KEY (run_id, dry_run)
);

COMMENT ON TABLE redis_migrate.undo IS
    'Runs that were undone, or are being undone: the last call for each run, and the last dry run since';

CREATE TABLE redis_migrate.undo_count (
    run_id   bigint NOT NULL,
    dry_run  boolean NOT NULL,
    mapping  text NOT NULL,
    restored bigint NOT NULL DEFAULT 0,
    put_back bigint NOT NULL DEFAULT 0,
    removed  bigint NOT NULL DEFAULT 0,
    left_alone bigint NOT NULL DEFAULT 0,
    failed   bigint NOT NULL DEFAULT 0,
    unknown  bigint NOT NULL DEFAULT 0,
    already  bigint NOT NULL DEFAULT 0,
    changes  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, dry_run, mapping),
    FOREIGN KEY (run_id, dry_run) REFERENCES redis_migrate.undo ON DELETE CASCADE
);

COMMENT ON TABLE redis_migrate.undo_count IS
    'What undoing a run did to the rows of each mapping. left_alone: rows that somebody else has changed since; failed: rows that the target refused; unknown: changes of the run that are not in its journal; already: rows that somebody else had taken back before; changes: how many of the run''s changes are dealt with. A row may have several changes';

CREATE TABLE redis_migrate.undo_left (
    run_id   bigint NOT NULL,
    dry_run  boolean NOT NULL,
    left_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping  text NOT NULL,
    row_key  text[] NOT NULL,
    sqlstate text,
    reason   text NOT NULL,
    FOREIGN KEY (run_id, dry_run) REFERENCES redis_migrate.undo ON DELETE CASCADE
);

CREATE INDEX undo_left_run ON redis_migrate.undo_left (run_id);

COMMENT ON TABLE redis_migrate.undo_left IS 'Rows that were not undone, and why: the first thousand of each call';

COMMENT ON SEQUENCE redis_migrate.undo_left_left_id_seq IS 'Numbers of rows that were not undone';

CREATE PROCEDURE redis_migrate.undo_run(run_id bigint, dry_run boolean DEFAULT false, force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_undo_run';

COMMENT ON PROCEDURE redis_migrate.undo_run(bigint, boolean, boolean) IS
    'Takes back what a run or live session did to rows: changed rows get their earlier values, inserted rows are removed, deleted rows are put back. Rows that somebody else has changed since are left alone. dry_run only says what would happen; force also takes back rows that somebody else has changed, and families that belong to PostgreSQL. Commits as it goes. If it is interrupted, the next call goes on';

CREATE VIEW redis_migrate.undos WITH (security_barrier) AS
    SELECT u.run_id, r.migration, c.mapping,
           CASE WHEN u.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(u.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) u.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) u.updated_at))
                THEN 'interrupted' ELSE u.state END AS state,
           u.force, c.restored, c.put_back, c.removed, c.left_alone, c.failed, c.unknown, c.already, u.started_at, u.finished_at
    FROM redis_migrate.undo AS u JOIN redis_migrate.run AS r USING (run_id)
         LEFT JOIN redis_migrate.undo_count AS c ON c.run_id OPERATOR(pg_catalog.=) u.run_id AND c.dry_run OPERATOR(pg_catalog.=) u.dry_run
    WHERE redis_migrate.may_see(r.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
    ORDER BY u.run_id, u.dry_run, c.mapping COLLATE "C";

COMMENT ON VIEW redis_migrate.undos IS
    'What undo_run did, a line for each mapping: rows that got their earlier values, deleted rows that were put back, inserted rows that were removed, rows that were left alone because somebody else has changed them since, rows that the target refused, changes that are not in the journal, and rows that somebody else had taken back already';

CREATE VIEW redis_migrate.undo_leftovers WITH (security_barrier) AS
    SELECT l.run_id, r.migration, l.mapping, l.row_key, l.sqlstate, l.reason, l.dry_run
    FROM redis_migrate.undo_left AS l JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner)
    ORDER BY l.run_id, l.left_id;

COMMENT ON VIEW redis_migrate.undo_leftovers IS
    'Rows that the last undo_run of a run did not undo, and why; the first thousand';

CREATE FUNCTION redis_migrate.journal_lines(columns integer, keys integer, entries bytea)
    RETURNS TABLE (line integer, operation text, row_key text[], earlier text[], is_changed boolean[])
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_journal_lines';

COMMENT ON FUNCTION redis_migrate.journal_lines(integer, integer, bytea) IS
    'The lines of a block of the journal: columns is the number of the rows'' columns, keys the number of key columns among them. Raises XX001 if the bytes are no block';

CREATE VIEW redis_migrate.journal_entries WITH (security_barrier) AS
    SELECT j.run_id, j.journal_id, l.line, r.migration, m.mapping, j.recorded_at, l.operation, l.row_key,
           pg_catalog.json_object(j.columns, l.earlier) AS earlier,
           CASE WHEN l.operation OPERATOR(pg_catalog.=) 'update'
                THEN ARRAY(SELECT c.name FROM ROWS FROM (pg_catalog.unnest(j.columns), pg_catalog.unnest(l.is_changed)) AS c (name, is_changed) WHERE c.is_changed) END AS changed
    FROM redis_migrate.journal AS j JOIN redis_migrate.run AS r USING (run_id) LEFT JOIN redis_migrate.mapping AS m USING (mapping_id)
         CROSS JOIN LATERAL redis_migrate.journal_lines(pg_catalog.cardinality(j.columns), j.keys, j.entries) AS l
    WHERE redis_migrate.may_see(r.owner);

COMMENT ON VIEW redis_migrate.journal_entries IS
    'Rows that runs and live sessions of the caller''s migrations changed or deleted, with their earlier values and the columns that were changed. Order by (journal_id, line). For a value of more than 1 MB it shows the value''s number in journal_value';

CREATE TABLE redis_migrate.restore (
    restore_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration    text NOT NULL,
    owner        redis_migrate.owner_role NOT NULL,
    server       name NOT NULL,
    source       text NOT NULL CHECK (source OPERATOR(pg_catalog.=) ANY (ARRAY['archive', 'rejects', 'rows'])),
    pattern      text,
    replace      boolean NOT NULL,
    dry_run      boolean NOT NULL,
    state        text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'failed'])),
    started_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at  timestamptz,
    pid          integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    position     text NOT NULL DEFAULT '',
    by_commands  bigint NOT NULL DEFAULT 0,
    sqlstate     text,
    message      text
) WITH (fillfactor = 50);

CREATE INDEX restore_migration ON redis_migrate.restore (migration, restore_id);

COMMENT ON TABLE redis_migrate.restore IS
    'Restores of kept keys to a server. position is the checkpoint; the transaction that counts the keys before it also writes it. by_commands: how many keys were written by the commands of their types, because the server did not take their payloads';

COMMENT ON SEQUENCE redis_migrate.restore_restore_id_seq IS 'Numbers of restores';

CREATE TABLE redis_migrate.restore_count (
    restore_id bigint NOT NULL REFERENCES redis_migrate.restore ON DELETE CASCADE,
    outcome    text NOT NULL CHECK (outcome OPERATOR(pg_catalog.=) ANY (ARRAY['restored', 'exists', 'expired', 'failed'])),
    reason     text,
    keys       bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (restore_id, outcome, reason)
) WITH (fillfactor = 50);

ALTER TABLE redis_migrate.restore_count REPLICA IDENTITY FULL;

COMMENT ON TABLE redis_migrate.restore_count IS 'Numbers of keys of a restore by outcome and reason';

CREATE TABLE redis_migrate.restore_failure (
    failure_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    restore_id bigint NOT NULL REFERENCES redis_migrate.restore ON DELETE CASCADE,
    db         integer NOT NULL,
    key_bytes  bytea NOT NULL,
    reason     text NOT NULL,
    message    text NOT NULL
);

CREATE INDEX restore_failure_of ON redis_migrate.restore_failure (restore_id);

COMMENT ON TABLE redis_migrate.restore_failure IS
    'Keys that a restore could not write, with what the server or the decoder of payloads said';

COMMENT ON SEQUENCE redis_migrate.restore_failure_failure_id_seq IS 'Numbers of keys that could not be restored';

CREATE PROCEDURE redis_migrate.restore(migration text, server name, source text DEFAULT 'archive', pattern text DEFAULT NULL,
        replace boolean DEFAULT false, dry_run boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_restore';

COMMENT ON PROCEDURE redis_migrate.restore(text, name, text, text, boolean, boolean) IS
    'Writes keys that a migration has kept to a Redis, with their expiries. source: archive; rejects (those that are open); rows (what the rows say, by reverse queries). pattern: only keys that fit it; replace overwrites keys that exist; dry_run writes nothing and counts what would become of the keys. With the same arguments it continues an interrupted restore. Commits as it goes';

CREATE VIEW redis_migrate.restores WITH (security_barrier) AS
    SELECT r.restore_id, r.migration, redis_migrate.shown_owner(r.owner) AS owner, r.server, r.source, r.pattern, r.replace, r.dry_run,
           CASE WHEN r.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(r.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) r.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) r.updated_at))
                THEN 'interrupted' ELSE r.state END AS state,
           r.started_at, r.updated_at, r.finished_at, r.pid,
           c.restored OPERATOR(pg_catalog.+) c.already OPERATOR(pg_catalog.+) c.expired OPERATOR(pg_catalog.+) c.failed AS keys,
           c.restored, c.already AS "exists", c.expired, c.failed, r.by_commands, r.sqlstate, r.message
    FROM redis_migrate.restore AS r
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome OPERATOR(pg_catalog.=) 'restored'), 0)::bigint AS restored,
               coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome OPERATOR(pg_catalog.=) 'exists'), 0)::bigint AS already,
               coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome OPERATOR(pg_catalog.=) 'expired'), 0)::bigint AS expired,
               coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome OPERATOR(pg_catalog.=) 'failed'), 0)::bigint AS failed
        FROM redis_migrate.restore_count AS k WHERE k.restore_id OPERATOR(pg_catalog.=) r.restore_id) AS c
    WHERE redis_migrate.may_see(r.owner);

COMMENT ON VIEW redis_migrate.restores IS
    'Restores of the caller''s migrations: keys = restored + exists + expired + failed. exists: the server has the key, which was left as it is. by_commands: how many keys were written by the commands of their types instead of RESTORE';

CREATE VIEW redis_migrate.restore_counts WITH (security_barrier) AS
    SELECT c.restore_id, r.migration, c.outcome, c.reason, c.keys
    FROM redis_migrate.restore_count AS c JOIN redis_migrate.restore AS r USING (restore_id)
    WHERE redis_migrate.may_see(r.owner)
    ORDER BY c.restore_id, pg_catalog.array_position(ARRAY['restored', 'exists', 'expired', 'failed'], c.outcome), c.reason COLLATE "C";

COMMENT ON VIEW redis_migrate.restore_counts IS 'Numbers of keys of restores by outcome and reason';

CREATE VIEW redis_migrate.restore_failures WITH (security_barrier) AS
    SELECT f.restore_id, r.migration, f.db, redis_migrate.bytes_as_text(f.key_bytes) AS key, f.key_bytes, f.reason, f.message
    FROM redis_migrate.restore_failure AS f JOIN redis_migrate.restore AS r USING (restore_id)
    WHERE redis_migrate.may_see(r.owner)
    ORDER BY f.failure_id;

COMMENT ON VIEW redis_migrate.restore_failures IS 'Keys that restores could not write, and why';

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

COMMENT ON TABLE redis_migrate.background_run IS
    'Requested background runs, with the parameters of redis_migrate.run. seed: a dump file to begin with, until the run has taken it. is_flushed: FLUSHALL, FLUSHDB or SWAPDB came since all keys were last loaded. marked_at and incarnation are set before a worker is launched, and cleared when it ends normally: if they are still set after a restart, the server crashed. instance: the server on which a live run was started or confirmed; on another server the run is paused';

COMMENT ON SEQUENCE redis_migrate.background_run_background_run_id_seq IS 'Numbers of background runs';

CREATE OR REPLACE FUNCTION redis_migrate.worker_role_problem(role oid, OUT sqlstate text, OUT message text, OUT hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH r AS (SELECT oid, rolname, pg_catalog.quote_ident(rolname) AS quoted, rolcanlogin FROM pg_catalog.pg_roles WHERE oid = $1),
    d AS (SELECT oid, datname, pg_catalog.quote_ident(datname) AS quoted FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
    -- The most specific setting wins: of the role here, of the role, of the database, of the server.
    read_only AS (
        SELECT coalesce((SELECT pg_catalog.split_part(c, '=', 2)::boolean
                         FROM pg_catalog.pg_db_role_setting AS s, d, pg_catalog.unnest(s.setconfig) AS c
                         WHERE pg_catalog.starts_with(c, 'default_transaction_read_only=') AND s.setrole IN ($1, 0) AND s.setdatabase IN (d.oid, 0)
                         ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
                        (SELECT s.reset_val::boolean FROM pg_catalog.pg_settings AS s WHERE s.name = 'default_transaction_read_only')) AS is_on)
    SELECT p.sqlstate, p.message, p.hint
    FROM (VALUES (1)) AS one LEFT JOIN r ON true CROSS JOIN d CROSS JOIN read_only,
         LATERAL (VALUES
             (r.oid IS NULL, '28000', pg_catalog.format('its owner, role %s, was dropped', $1), NULL),
             -- From PostgreSQL 17 on, workers ignore NOLOGIN.
             (NOT r.rolcanlogin AND pg_catalog.current_setting('server_version_num')::integer < 170000, '28000',
              pg_catalog.format('its owner, role "%s", is not permitted to log in', r.rolname), pg_catalog.format('ALTER ROLE %s LOGIN;', r.quoted)),
             (NOT pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT'), '42501',
              pg_catalog.format('its owner, role "%s", may not connect to database "%s"', r.rolname, d.datname),
              pg_catalog.format('GRANT CONNECT ON DATABASE %s TO %s;', d.quoted, r.quoted)),
             (read_only.is_on, '25006', pg_catalog.format('transactions of its owner, role "%s", are read-only by default', r.rolname),
              pg_catalog.format('ALTER ROLE %s SET default_transaction_read_only = off;', r.quoted))) AS p (applies, sqlstate, message, hint)
    WHERE p.applies
    LIMIT 1 $$;

COMMENT ON FUNCTION redis_migrate.worker_role_problem(oid) IS
    'Why no background worker can connect to this database as a role: SQLSTATE, message, and the command that fixes it. NULL if it can';

CREATE FUNCTION redis_migrate.start(migration text, priority text DEFAULT NULL, mapping text DEFAULT NULL,
        on_error text DEFAULT 'continue', prune boolean DEFAULT false, force boolean DEFAULT false,
        workers integer DEFAULT NULL, live boolean DEFAULT false, seed text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_start';

COMMENT ON FUNCTION redis_migrate.start(text, text, text, text, boolean, boolean, integer, boolean, text) IS
    'Runs a migration in background workers, as its owner, once the transaction has committed. live: then follows every change of the server until redis_migrate.stop. A live run removes rows whose keys the snapshot lacks; with force, however many. seed: the absolute path of a dump file on the database server, with which a live run begins if it would need a snapshot. The other options are those of redis_migrate.run';

COMMENT ON FUNCTION redis_migrate.stop(text) IS
    'Stops the background run of a migration at once, even if the transaction is rolled back. redis_migrate.start resumes it';

COMMENT ON PROCEDURE redis_migrate.wait_for(text, interval) IS
    'Waits until the background run of a migration ends, or until a live run has applied everything that was written to the server before the call. If the run failed, raises its error';

CREATE FUNCTION redis_migrate.worker_slots(OUT pid integer, OUT kind text, OUT database oid, OUT owner oid, OUT background_run_id bigint,
        OUT run_id bigint, OUT state text, OUT launched_at timestamptz, OUT since timestamptz, OUT wakeups bigint, OUT runs bigint,
        OUT sqlstate text, OUT message text, OUT number integer, OUT verification_id bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prm_worker_slots';

COMMENT ON FUNCTION redis_migrate.worker_slots() IS
    'Background workers of all databases: those of the caller, or all for members of pg_monitor';

COMMENT ON FUNCTION redis_migrate.wake_workers() IS
    'Trigger of tables that define background work: wakes the scheduler when the transaction commits';

CREATE VIEW redis_migrate.background_runs WITH (security_barrier) AS
    SELECT j.background_run_id, j.migration, redis_migrate.shown_owner(j.owner) AS owner, j.priority, j.mapping, j.on_error, j.prune, j.force, j.workers, j.live, j.wanted, j.state, j.since,
           j.requested_at, j.crashes, j.failures, j.not_before, j.sqlstate, j.message, j.hint
    FROM redis_migrate.background_run AS j
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.background_runs IS
    'Background runs of the caller''s migrations, or all for members of pg_monitor: what was requested, how it ended, the last error, and what to do about it';

CREATE VIEW redis_migrate.workers WITH (security_barrier) AS
    SELECT s.pid, coalesce(s.kind, 'migration') AS kind, CASE WHEN s.kind IS NULL THEN pg_catalog.current_database() ELSE d.datname END AS database,
           coalesce(s.owner::regrole, j.owner) AS owner, coalesce(j.migration, t.migration, v.migration) AS migration,
           CASE WHEN s.state IS NOT NULL THEN s.state
                WHEN j.state OPERATOR(pg_catalog.=) 'waiting for worker' THEN j.state ELSE 'interrupted' END AS state,
           coalesce(s.since, j.since) AS since, coalesce(p.position, r.position) AS position,
           coalesce(r.keys_read, p.keys_read, v.keys_read) AS keys_read,
           CASE WHEN coalesce(r.seconds, p.seconds, v.seconds) OPERATOR(pg_catalog.>) 0
                THEN pg_catalog.round((coalesce(r.keys_read, p.keys_read, v.keys_read) OPERATOR(pg_catalog./) coalesce(r.seconds, p.seconds, v.seconds))::numeric, 1) END AS keys_per_second,
           s.wakeups, s.runs, coalesce(s.sqlstate, j.sqlstate) AS sqlstate, coalesce(s.message, j.message) AS last_error
    FROM redis_migrate.worker_slots() AS s
    LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) s.database
    FULL JOIN (SELECT * FROM redis_migrate.background_runs
               WHERE wanted) AS j
        ON s.kind OPERATOR(pg_catalog.=) 'migration' AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND s.background_run_id OPERATOR(pg_catalog.=) j.background_run_id
    LEFT JOIN LATERAL (
        SELECT u.position, extract(epoch FROM u.active_time) AS seconds,
               (SELECT coalesce(pg_catalog.sum(c.keys), 0)::bigint FROM redis_migrate.run_count AS c
                WHERE c.run_id OPERATOR(pg_catalog.=) u.run_id AND c.outcome OPERATOR(pg_catalog.=) 'read') AS keys_read
        FROM redis_migrate.run AS u
        WHERE u.migration OPERATOR(pg_catalog.=) j.migration AND u.pid OPERATOR(pg_catalog.=) s.pid AND u.state OPERATOR(pg_catalog.=) 'running'
        ORDER BY u.run_id DESC LIMIT 1) AS r ON true
    LEFT JOIN LATERAL (
        SELECT q.position, extract(epoch FROM q.updated_at OPERATOR(pg_catalog.-) s.launched_at) AS seconds,
               (SELECT coalesce(pg_catalog.sum(c.keys), 0)::bigint FROM redis_migrate.run_count AS c
                WHERE c.run_id OPERATOR(pg_catalog.=) q.run_id AND c.level OPERATOR(pg_catalog.=) q.level
                      AND c.part OPERATOR(pg_catalog.=) q.part AND c.outcome OPERATOR(pg_catalog.=) 'read') AS keys_read
        FROM redis_migrate.run_part AS q JOIN redis_migrate.run AS u USING (run_id)
        WHERE q.pid OPERATOR(pg_catalog.=) s.pid AND NOT q.done AND u.state OPERATOR(pg_catalog.=) 'running'
              AND (q.run_id OPERATOR(pg_catalog.=) s.run_id OR u.migration OPERATOR(pg_catalog.=) j.migration)
        ORDER BY q.updated_at DESC LIMIT 1) AS p ON true
    LEFT JOIN redis_migrate.run AS t ON t.run_id OPERATOR(pg_catalog.=) s.run_id AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
    LEFT JOIN LATERAL (
        SELECT w.migration, q.keys_read, extract(epoch FROM q.updated_at OPERATOR(pg_catalog.-) s.launched_at) AS seconds
        FROM redis_migrate.verification AS w
        LEFT JOIN redis_migrate.verification_part AS q
            ON q.verification_id OPERATOR(pg_catalog.=) w.verification_id AND q.pid OPERATOR(pg_catalog.=) s.pid AND NOT q.done
        WHERE w.verification_id OPERATOR(pg_catalog.=) s.verification_id AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS v ON true;

COMMENT ON VIEW redis_migrate.workers IS
    'Background workers, including those that have yet to be started (pid NULL): those of the caller, or all for members of pg_monitor. position and rate are as of the last commit; a worker that reads a part of a run or verification shows those of its part';

CREATE TABLE redis_migrate.live_position (
    run_id          bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    link            integer NOT NULL DEFAULT 0,
    appliers        integer NOT NULL DEFAULT 1,
    applier         integer NOT NULL DEFAULT 0,
    replication_id  text NOT NULL,
    applied_offset  bigint NOT NULL,
    db              integer NOT NULL,
    received_at     timestamptz NOT NULL,
    is_loaded       boolean NOT NULL DEFAULT false,
    keys_read_again bigint NOT NULL DEFAULT 0,
    commands        bigint NOT NULL DEFAULT 0,
    flush_offset    bigint NOT NULL DEFAULT 0,
    updated_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    sqlstate        text,
    message         text,
    PRIMARY KEY (run_id, link, appliers, applier)
) WITH (fillfactor = 50);

COMMENT ON TABLE redis_migrate.live_position IS
    'How far live runs have applied the replication stream, or each master''s stream of a cluster; the transaction that writes the rows also writes it. All keys whose hash slot leaves the remainder `applier` when it is divided by `appliers` are applied up to applied_offset. If the number of processes changes, the rows of the earlier ones stay until the present ones are beyond them. link: 0, or the number of a cluster''s master; db: the database that the stream has selected there; received_at: when the last applied change arrived; is_loaded: false while the snapshot of that offset is being loaded; flush_offset: redis_migrate.wait_for wants large values that changed up to there at once; message: why the process that applies the share ended. Without sqlstate, a new snapshot is needed';

CREATE TABLE redis_migrate.live_key (
    run_id      bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    link        integer NOT NULL DEFAULT 0,
    db          integer NOT NULL,
    key_bytes   bytea NOT NULL,
    slot        integer NOT NULL,
    read_offset bigint NOT NULL,
    is_absent   boolean NOT NULL,
    is_unread   boolean NOT NULL,
    bytes       bigint
);

ALTER TABLE redis_migrate.live_key REPLICA IDENTITY FULL;

CREATE UNIQUE INDEX live_key_name ON redis_migrate.live_key (run_id, link, db, redis_migrate.index_key(key_bytes));

CREATE INDEX live_key_stored ON redis_migrate.live_key (run_id, link, read_offset) WHERE NOT is_absent AND NOT is_unread;

COMMENT ON TABLE redis_migrate.live_key IS
    'Keys whose rows are not those of the applied offset. slot: the hash slot of the key. The rows show the state at read_offset, so commands up to there are passed over. is_absent: the key did not exist then, and its row goes once the stream is there. is_unread: the row could not be stored, and the key is to be read again. bytes: the size of a large value that changes often and waits to be read again';

CREATE TABLE redis_migrate.live_link (
    run_id          bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    link            integer NOT NULL DEFAULT 0,
    nodes           text[] NOT NULL DEFAULT '{}',
    state           text NOT NULL CHECK (state OPERATOR(pg_catalog.=)
                        ANY (ARRAY['connecting', 'snapshot', 'streaming', 'spool full', 'full sync needed'])),
    since           timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    replication_id  text,
    received_offset bigint,
    durable_offset  bigint,
    received_at     timestamptz,
    spool_bytes     bigint,
    backlog_bytes   bigint,
    acknowledged_at timestamptz,
    reconnects      bigint NOT NULL DEFAULT 0,
    sqlstate        text,
    message         text,
    feed            text CHECK (feed OPERATOR(pg_catalog.=) ANY (ARRAY['tracking', 'notifications'])),
    doubt           text,
    updated_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (run_id, link)
) WITH (fillfactor = 50);

COMMENT ON TABLE redis_migrate.live_link IS
    'The replication links of live runs, as their workers note them about once a second. nodes: for a cluster, the ids of the master and its replicas. durable_offset: what is safe here, as the server was told at acknowledged_at. backlog_bytes: how much of the stream the server keeps for a link that comes back. feed: for source scan, what tells the names of changed keys; received_offset then has all changes before received_at, and doubt says why some may be missing';

CREATE TABLE redis_migrate.live_mapping (
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    link       integer NOT NULL,
    mapping_id bigint NOT NULL,
    pattern    text NOT NULL,
    is_filled  boolean NOT NULL,
    appliers_left integer[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (run_id, link, mapping_id)
);

COMMENT ON TABLE redis_migrate.live_mapping IS
    'The mappings whose keys a live run has met. is_filled: false while the run looks for the keys of a mapping that was added or dropped since. appliers_left: the processes that have not yet found the keys of their share';

CREATE VIEW redis_migrate.live_applied WITH (security_barrier) AS
    SELECT DISTINCT ON (run_id, link) run_id, link, appliers, replication_id, applied_offset, db, received_at, is_loaded, flush_offset, updated_at,
           (pg_catalog.sum(commands) OVER of_link)::bigint AS commands, (pg_catalog.sum(keys_read_again) OVER of_link)::bigint AS keys_read_again, furthest_offset
    FROM (SELECT *, pg_catalog.min(applied_offset) OVER of_layout AS lowest, pg_catalog.max(applied_offset) OVER of_layout AS furthest_offset
          FROM redis_migrate.live_position
          WINDOW of_layout AS (PARTITION BY run_id, link, appliers)) AS p
    WINDOW of_link AS (PARTITION BY run_id, link)
    ORDER BY run_id, link, lowest DESC, applied_offset;

COMMENT ON VIEW redis_migrate.live_applied IS
    'Up to where all changes of a live run''s link are applied: the lowest position of the processes that apply shares of them. furthest_offset: the highest position';

CREATE PROCEDURE redis_migrate.follow(migration text, force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_follow';

COMMENT ON PROCEDURE redis_migrate.follow(text, boolean) IS
    'Loads a snapshot, or scans, and then applies every change until it is stopped. Background workers that redis_migrate.start(live => true) starts call it. Commits after each batch. force removes rows whose keys a snapshot lacks, however many';

CREATE PROCEDURE redis_migrate.receive_stream(run_id bigint, link integer DEFAULT 0)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_receive_stream';

COMMENT ON PROCEDURE redis_migrate.receive_stream(bigint, integer) IS
    'Keeps a replication link of a live run, or its feed, and writes what arrives to the disk. The background worker of the link calls it';

CREATE PROCEDURE redis_migrate.apply_stream(run_id bigint, applier integer)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_apply_stream';

COMMENT ON PROCEDURE redis_migrate.apply_stream(bigint, integer) IS
    'Applies the changes of a share of a live run''s keys. Background workers call it beside the process that leads the run. Commits after each batch';

CREATE FUNCTION redis_migrate.confirm_instance(migration text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_confirm_instance';

COMMENT ON FUNCTION redis_migrate.confirm_instance(text) IS
    'Declares that a paused live run is to go on here, on a server that was copied from another, restored or promoted';

CREATE VIEW redis_migrate.live_sync WITH (security_barrier) AS
    SELECT j.migration, redis_migrate.shown_owner(j.owner) AS owner, r.run_id, coalesce(l.link, 0) AS link,
           CASE WHEN j.state OPERATOR(pg_catalog.<>) 'running' THEN j.state
                WHEN l.state OPERATOR(pg_catalog.=) 'full sync needed' THEN l.state
                WHEN NOT h.is_kept THEN 'connecting'
                WHEN p.is_loaded IS NOT TRUE THEN CASE WHEN l.state OPERATOR(pg_catalog.=) 'streaming' THEN 'loading' ELSE l.state END
                WHEN l.state OPERATOR(pg_catalog.<>) 'streaming' THEN l.state
                WHEN p.applied_offset OPERATOR(pg_catalog.>=) l.received_offset AND k.keys_ahead OPERATOR(pg_catalog.=) 0 AND f.mappings_unfilled OPERATOR(pg_catalog.=) 0
                    AND l.doubt IS NULL AND l.updated_at OPERATOR(pg_catalog.>) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '10 s'::interval)
                THEN CASE WHEN l.feed IS NULL THEN 'in step' ELSE 'settled' END
                ELSE CASE WHEN l.feed IS NULL THEN 'streaming' ELSE 'converging' END END AS state,
           p.replication_id, p.applied_offset, greatest(l.received_offset, p.applied_offset) AS received_offset, l.durable_offset,
           greatest(l.received_offset OPERATOR(pg_catalog.-) p.applied_offset, 0) AS lag_bytes,
           CASE WHEN l.received_offset OPERATOR(pg_catalog.>) p.applied_offset
                THEN greatest(extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) p.received_at), 0)::numeric(20, 3)
                WHEN p.is_loaded THEN 0 END AS lag_seconds,
           p.appliers, p.commands, p.keys_read_again, k.keys_ahead, k.keys_deferred, k.bytes_deferred, f.mappings_unfilled, l.spool_bytes, l.reconnects, l.received_at, l.feed, l.doubt,
           CASE WHEN e.is_of_link THEN l.sqlstate ELSE j.sqlstate END AS sqlstate, CASE WHEN e.is_of_link THEN l.message ELSE j.message END AS last_error
    FROM redis_migrate.background_run AS j
    LEFT JOIN LATERAL (SELECT u.run_id FROM redis_migrate.run AS u
                       WHERE u.migration OPERATOR(pg_catalog.=) j.migration AND u.live ORDER BY u.run_id DESC LIMIT 1) AS r ON true
    LEFT JOIN redis_migrate.live_link AS l ON l.run_id OPERATOR(pg_catalog.=) r.run_id
    LEFT JOIN redis_migrate.live_applied AS p ON p.run_id OPERATOR(pg_catalog.=) r.run_id AND p.link OPERATOR(pg_catalog.=) l.link
    -- What a link has noted that is no more says nothing of the server. A standby has none of its own.
    CROSS JOIN LATERAL (SELECT l.run_id IS NOT NULL AND (pg_catalog.pg_is_in_recovery() OR EXISTS (
                            SELECT FROM redis_migrate.worker_slots() AS w
                            WHERE w.kind OPERATOR(pg_catalog.=) 'replication link' AND w.run_id OPERATOR(pg_catalog.=) l.run_id AND w.number OPERATOR(pg_catalog.=) l.link
                                AND w.pid IS NOT NULL AND w.launched_at OPERATOR(pg_catalog.<=) l.updated_at
                                AND w.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
                                                                       WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))) AS is_kept) AS h
    CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS keys_ahead, pg_catalog.count(q.bytes) AS keys_deferred,
                               coalesce(pg_catalog.sum(q.bytes), 0)::bigint AS bytes_deferred
                        FROM redis_migrate.live_key AS q
                        WHERE q.run_id OPERATOR(pg_catalog.=) r.run_id AND q.link OPERATOR(pg_catalog.=) l.link) AS k
    CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS mappings_unfilled
                        FROM redis_migrate.live_mapping AS m
                        WHERE m.run_id OPERATOR(pg_catalog.=) r.run_id AND m.link OPERATOR(pg_catalog.=) l.link AND NOT m.is_filled) AS f
    CROSS JOIN LATERAL (SELECT j.message IS NULL OR j.state OPERATOR(pg_catalog.=) 'running' AND l.message IS NOT NULL AS is_of_link) AS e
    WHERE j.live AND (redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE'));

COMMENT ON VIEW redis_migrate.live_sync IS
    'Live runs of the caller''s migrations, or all for members of pg_monitor, with a row for each master of a cluster: how far the stream is received and applied. appliers: how many processes apply a share of the changes each; applied_offset is that of the last of them. lag_seconds: the age of what was applied last, 0 if nothing waits. keys_ahead: keys whose rows are not those of the applied offset. keys_deferred, bytes_deferred: those of them whose large values change often and wait to be read again. mappings_unfilled: mappings that were added or dropped while the run was stopped, and whose keys are still being looked for. feed: for source scan, what tells the changed keys. Everything that changed before received_at is here once the state is settled; doubt says why it never is';

CREATE VIEW redis_migrate.stat_live WITH (security_barrier) AS
    SELECT v.run_id, v.migration, v.link, a.pid, b.pid AS link_pid, v.replication_id, v.received_offset, v.received_at AS last_msg_receipt_time,
           v.durable_offset AS latest_ack_offset, l.acknowledged_at AS latest_ack_time, v.applied_offset AS latest_end_offset, p.updated_at AS latest_end_time,
           l.backlog_bytes, v.spool_bytes,
           (SELECT pg_catalog.count(*) FROM redis_migrate.reject AS r
            WHERE r.run_id OPERATOR(pg_catalog.=) v.run_id AND r.settled_at IS NULL) AS rejects
    FROM redis_migrate.live_sync AS v
    JOIN redis_migrate.background_run AS j USING (migration)
    LEFT JOIN redis_migrate.live_link AS l USING (run_id, link)
    LEFT JOIN redis_migrate.live_applied AS p USING (run_id, link)
    LEFT JOIN redis_migrate.worker_slots() AS a
        ON a.kind OPERATOR(pg_catalog.=) 'migration' AND a.background_run_id OPERATOR(pg_catalog.=) j.background_run_id
           AND a.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    LEFT JOIN redis_migrate.worker_slots() AS b
        ON b.kind OPERATOR(pg_catalog.=) 'replication link' AND b.run_id OPERATOR(pg_catalog.=) v.run_id AND b.number OPERATOR(pg_catalog.=) v.link
           AND b.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());

COMMENT ON VIEW redis_migrate.stat_live IS
    'Live runs for monitoring, in the shape of pg_stat_subscription: the processes, and how far the stream was received, acknowledged and applied, each with its time. pid applies the changes, link_pid keeps the link. backlog_bytes: how much of the stream the server keeps. rejects: keys whose newest value could not be stored';

CREATE VIEW redis_migrate.live_appliers WITH (security_barrier) AS
    SELECT v.migration, v.owner, v.run_id, v.link, p.applier, a.pid, p.applied_offset,
           greatest(v.received_offset OPERATOR(pg_catalog.-) p.applied_offset, 0) AS lag_bytes, p.updated_at AS applied_at, p.commands, p.keys_read_again
    FROM redis_migrate.live_sync AS v
    JOIN redis_migrate.background_run AS j USING (migration)
    JOIN redis_migrate.live_position AS p
        ON p.run_id OPERATOR(pg_catalog.=) v.run_id AND p.link OPERATOR(pg_catalog.=) v.link AND p.appliers OPERATOR(pg_catalog.=) v.appliers
    LEFT JOIN redis_migrate.worker_slots() AS a
        ON CASE WHEN p.applier OPERATOR(pg_catalog.=) 0
                THEN a.kind OPERATOR(pg_catalog.=) 'migration' AND a.background_run_id OPERATOR(pg_catalog.=) j.background_run_id
                ELSE a.kind OPERATOR(pg_catalog.=) 'live applier' AND a.run_id OPERATOR(pg_catalog.=) v.run_id AND a.number OPERATOR(pg_catalog.=) p.applier END
           AND a.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());

COMMENT ON VIEW redis_migrate.live_appliers IS
    'The processes that apply the changes of live runs, each those of a share of the keys, and how far each is. One that is behind holds back wait_for, and the files of changes';

CREATE TABLE redis_migrate.reverse_query (
    mapping_id bigint PRIMARY KEY REFERENCES redis_migrate.mapping (mapping_id) ON DELETE CASCADE,
    query      text NOT NULL
);

COMMENT ON TABLE redis_migrate.reverse_query IS
    'For each mapping whose owner has set one: the query that makes the values of keys from its rows';

CREATE TABLE redis_migrate.reverse_feed (
    migration    text PRIMARY KEY REFERENCES redis_migrate.migration ON DELETE CASCADE,
    feed_id      bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    wanted       boolean NOT NULL DEFAULT true,
    state        text NOT NULL DEFAULT 'starting' CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['starting', 'running', 'idle', 'paused', 'failed', 'stopped'])),
    since        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    sqlstate     text,
    message      text,
    instance     text,
    batch        bigint NOT NULL DEFAULT 0,
    acknowledged bigint NOT NULL DEFAULT 0,
    slots        text NOT NULL DEFAULT '-'
);

COMMENT ON TABLE redis_migrate.reverse_feed IS
    'Reverse feeds of migrations. instance: the server on which the feed was started, as in background_run. batch: the last batch that was begun; acknowledged: the last batch that Redis has confirmed. slots: the slots of batches that were begun, unless Redis has confirmed them or a later batch has replaced them; 0 for a server that is no cluster';

COMMENT ON SEQUENCE redis_migrate.reverse_feed_feed_id_seq IS 'Numbers of reverse feeds';

CREATE TABLE redis_migrate.reverse_slot (
    migration    text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    slot         integer NOT NULL,
    acknowledged bigint NOT NULL,
    PRIMARY KEY (migration, slot)
) WITH (fillfactor = 50);

COMMENT ON TABLE redis_migrate.reverse_slot IS
    'For reverse feeds to a cluster: the last batch that each slot has confirmed';

CREATE TABLE redis_migrate.reverse_mapping (
    mapping_id      bigint PRIMARY KEY REFERENCES redis_migrate.mapping (mapping_id) ON DELETE CASCADE,
    migration       text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    target_relation regclass NOT NULL,
    partitions      text,
    in_full_pass    boolean NOT NULL DEFAULT false,
    unscanned       text,
    oldest          bigint NOT NULL DEFAULT 0,
    expires_column  text,
    sent            bigint NOT NULL DEFAULT 0,
    unfit           bigint NOT NULL DEFAULT 0,
    nameless_after  bigint,
    last_sent_at    timestamptz
);

COMMENT ON TABLE redis_migrate.reverse_mapping IS
    'Mappings whose targets have triggers that note changes. partitions: the target''s partitions, with their files, and the triggers. unscanned: for a pass over all rows, the slots in which keys without rows are still to be looked for, once the rows are written. oldest: all changes before it have been sent. expires_column: the column by which a row expires, if each key has one row. unfit: changes of rows whose names make no key of the pattern, or whose keys the ledger should name but does not know; nameless_after: the number of the last change of a family when a row of the latter kind was last met';

CREATE TABLE redis_migrate.outbox (
    outbox_id  bigint GENERATED ALWAYS AS IDENTITY,
    mapping_id bigint NOT NULL,
    name       text[] NOT NULL,
    noted_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (mapping_id, outbox_id)
);

COMMENT ON TABLE redis_migrate.outbox IS
    'Rows that have changed since their keys were last written to Redis. The columns identify a row by the parts of its key''s name, or, if the full ledger names the key, by the row''s own key. It holds no values: those are read when the key is written';

COMMENT ON SEQUENCE redis_migrate.outbox_outbox_id_seq IS 'Order in which changes were noted';

CREATE TABLE redis_migrate.outbox_gap (
    gap_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping_id bigint NOT NULL,
    reason     text NOT NULL,
    noted_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

COMMENT ON TABLE redis_migrate.outbox_gap IS
    'Changes that the outbox lacks, and why: all rows of the mapping are to be written to Redis';

COMMENT ON SEQUENCE redis_migrate.outbox_gap_gap_id_seq IS 'Numbers of gaps';

CREATE TABLE redis_migrate.reverse_reject (
    mapping_id  bigint NOT NULL,
    name_hash   bigint NOT NULL,
    name        text[] NOT NULL,
    key         text NOT NULL,
    sqlstate    text NOT NULL,
    message     text NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (mapping_id, name_hash)
);

COMMENT ON TABLE redis_migrate.reverse_reject IS
    'Rows that could not be written back to Redis, and why. A row is named by the parts of its key''s name, or by its database and its own key (name_hash: the hash of these). It is tried again every minute, and when it changes';

CREATE FUNCTION redis_migrate.note_change() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_note_change';

COMMENT ON FUNCTION redis_migrate.note_change() IS
    'Trigger of targets whose changes go back to Redis: notes which row has changed, unless the extension changed it';

CREATE FUNCTION redis_migrate.reverse_elements(type text, value bytea) RETURNS bytea[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_reverse_elements_bytea';

COMMENT ON FUNCTION redis_migrate.reverse_elements(text, bytea) IS
    'The value of a string that a reverse query yields';

CREATE FUNCTION redis_migrate.reverse_elements(type text, value jsonb) RETURNS bytea[]
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_reverse_elements_jsonb';

COMMENT ON FUNCTION redis_migrate.reverse_elements(text, jsonb) IS
    'The elements of a value that a reverse query yields: an object (fields and values, members and scores) or an array (elements, or objects with member and score, or with field, value and expires_at)';

CREATE FUNCTION redis_migrate.reverse_elements(type text, value text) RETURNS bytea[]
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_reverse_elements_text';

COMMENT ON FUNCTION redis_migrate.reverse_elements(text, text) IS
    'The value of a string that a reverse query yields, or the elements of another type''s value, as JSON';

CREATE FUNCTION redis_migrate.set_reverse_query(migration text, mapping text, query text,
        trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_set_reverse_query';

COMMENT ON FUNCTION redis_migrate.set_reverse_query(text, text, text, boolean) IS
    'Says how rows of a mapping become the values of keys: a SELECT from redis_rows, which holds the rows of some keys. For each key it yields the columns that name it (redis_db and redis_key if the full ledger names it), type, value (text or bytea for a string, jsonb for other types) and expires_at. NULL: as derived from the mapping';

CREATE FUNCTION redis_migrate.reverse_problems(migration text, pattern text DEFAULT NULL, OUT mapping text, OUT problem text, OUT hint text) RETURNS SETOF record
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_reverse_problems';

COMMENT ON FUNCTION redis_migrate.reverse_problems(text, text) IS
    'The mappings of a migration, or of one of its patterns, whose rows cannot be written back to Redis, and why';

CREATE FUNCTION redis_migrate.start_reverse(migration text, pattern text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_start_reverse';

COMMENT ON FUNCTION redis_migrate.start_reverse(text, text) IS
    'Begins to write changes of a migration''s targets back to Redis, or those of one of its patterns, with triggers on the targets and a background worker';

CREATE FUNCTION redis_migrate.stop_reverse(migration text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_stop_reverse';

COMMENT ON FUNCTION redis_migrate.stop_reverse(text) IS
    'Ends the reverse feed of a migration: removes its triggers, and forgets changes that were not sent';

CREATE PROCEDURE redis_migrate.feed_redis(migration text, until_drained boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_feed_redis';

COMMENT ON PROCEDURE redis_migrate.feed_redis(text, boolean) IS
    'Writes what has changed here to Redis until nothing is left; the background worker goes on until stop_reverse';

CREATE PROCEDURE redis_migrate.check_reverse(migration text, pattern text DEFAULT NULL, keys integer DEFAULT 100, INOUT checked bigint DEFAULT NULL, INOUT differing bigint DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_check_reverse';

COMMENT ON PROCEDURE redis_migrate.check_reverse(text, text, integer, bigint, bigint) IS
    'Compares what some rows of each mapping would write back with what Redis has: type, elements, and expiry within a second. A warning names the first keys that differ, masked';

CREATE FUNCTION redis_migrate.reverse_feeds_due(OUT owner oid, OUT feed_id bigint) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT redis_migrate.acting_role(g.owner), f.feed_id
    FROM redis_migrate.reverse_feed AS f JOIN redis_migrate.migration AS g USING (migration)
    WHERE f.wanted AND f.state OPERATOR(pg_catalog.<>) 'paused' AND NOT redis_migrate.is_restored(g.owner)
          AND redis_migrate.acting_role(g.owner) IS NOT NULL
$$;

COMMENT ON FUNCTION redis_migrate.reverse_feeds_due() IS 'Reverse feeds that need a worker';

CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE OF wanted ON redis_migrate.reverse_feed
    FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers();

COMMENT ON TRIGGER wake_workers ON redis_migrate.reverse_feed IS 'Wakes the scheduler';

CREATE VIEW redis_migrate.reverse_feeds WITH (security_barrier) AS
    SELECT f.migration, redis_migrate.shown_owner(g.owner) AS owner, f.wanted, f.state, f.since, f.sqlstate, f.message,
           x.mappings, x.sent, x.unfit, x.rejected, x.last_sent_at, o.waiting, o.oldest_at, x.needs_full
    FROM redis_migrate.reverse_feed AS f
    JOIN redis_migrate.migration AS g USING (migration)
    CROSS JOIN LATERAL (
        SELECT pg_catalog.array_agg(p.mapping ORDER BY p.mapping_id) AS mappings, coalesce(pg_catalog.sum(m.sent), 0)::bigint AS sent, coalesce(pg_catalog.sum(m.unfit), 0)::bigint AS unfit,
               coalesce(pg_catalog.sum((SELECT pg_catalog.count(*) FROM redis_migrate.reverse_reject AS j
                                        WHERE j.mapping_id OPERATOR(pg_catalog.=) m.mapping_id)), 0)::bigint AS rejected,
               pg_catalog.max(m.last_sent_at) AS last_sent_at,
               coalesce(pg_catalog.bool_or(m.in_full_pass OR EXISTS (SELECT FROM redis_migrate.outbox_gap AS q
                                                                    WHERE q.mapping_id OPERATOR(pg_catalog.=) m.mapping_id)), false) AS needs_full
        FROM redis_migrate.reverse_mapping AS m JOIN redis_migrate.mapping AS p USING (mapping_id)
        WHERE m.migration OPERATOR(pg_catalog.=) f.migration) AS x
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS waiting, pg_catalog.min(b.noted_at) AS oldest_at
        FROM redis_migrate.outbox AS b JOIN redis_migrate.reverse_mapping AS m USING (mapping_id)
        WHERE m.migration OPERATOR(pg_catalog.=) f.migration) AS o
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.reverse_feeds IS
    'Reverse feeds of the caller''s migrations, or all for members of pg_monitor: their state and last error, the changes that were sent, changes of rows that make no key (unfit), rows that could not be written back (rejected: see reverse_rejects), changes that wait, and whether all rows have to be written';

CREATE VIEW redis_migrate.reverse_rejects WITH (security_barrier) AS
    SELECT p.migration, p.mapping, j.key, j.name, j.sqlstate, j.message, j.rejected_at
    FROM redis_migrate.reverse_reject AS j
    JOIN redis_migrate.mapping AS p USING (mapping_id)
    JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);

COMMENT ON VIEW redis_migrate.reverse_rejects IS
    'Rows of the caller''s migrations that could not be written back to Redis, and why. Their keys are as they were before. Each row is tried again every minute, and when it changes';

CREATE TABLE redis_migrate.cutover (
    cutover_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration     text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    patterns      text[] NOT NULL,
    to_state      text NOT NULL CHECK (to_state OPERATOR(pg_catalog.=) ANY (ARRAY['postgres', 'both', 'redis'])),
    fence         text CHECK (fence OPERATOR(pg_catalog.=) ANY (ARRAY['acl', 'kill', 'confirmed'])),
    state         text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'undone'])),
    step          text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_by    name NOT NULL DEFAULT SESSION_USER,
    pid           integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    instance      text NOT NULL,
    deadline      timestamptz,
    finished_at   timestamptz,
    step_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    steps_ms      jsonb NOT NULL DEFAULT '{}',
    paused_ms     double precision,
    keys_compared bigint,
    keys_touched  bigint,
    sqlstate      text,
    message       text
);

CREATE INDEX cutover_of ON redis_migrate.cutover (migration, cutover_id);

COMMENT ON TABLE redis_migrate.cutover IS
    'Cutovers, and cutbacks (to_state redis). step: the last step that was about to be taken; step_at: when it was stored; steps_ms: how long the earlier steps took. instance: the server and database that began it. deadline: when the pause of the masters ends by itself. paused_ms: how long writes were held back. keys_touched: how many keys had changed since the last verification began, NULL if that is unknown';

COMMENT ON SEQUENCE redis_migrate.cutover_cutover_id_seq IS 'Numbers of cutovers';

CREATE TABLE redis_migrate.fenced_user (
    cutover_id   bigint NOT NULL REFERENCES redis_migrate.cutover ON DELETE CASCADE,
    node         text NOT NULL,
    address      text NOT NULL,
    username     text NOT NULL,
    rules        text NOT NULL,
    fenced_rules text,
    returned_at  timestamptz,
    run_id       text,
    trouble      text,
    PRIMARY KEY (cutover_id, node, address, username)
);

COMMENT ON TABLE redis_migrate.fenced_user IS
    'Users of Redis who lost @write, and their rules for commands before the first cutover that fenced them, as ACL GETUSER showed these. node: the id of a cluster''s master, otherwise empty; fenced_rules: the rules that the fence has left; returned_at: when the rights were returned, or nothing was left to return; run_id: the process of Redis that had fenced the user when that was last seen; trouble: why the user may write all the same';

CREATE TABLE redis_migrate.late_write (
    late_write_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration     text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    pattern       text NOT NULL,
    db            integer NOT NULL,
    key_bytes     bytea NOT NULL,
    kind          text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['written', 'deleted'])),
    payload       bytea,
    expires_at    timestamptz,
    changes       bigint NOT NULL DEFAULT 1,
    first_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    settled_at    timestamptz
);

CREATE UNIQUE INDEX late_write_key ON redis_migrate.late_write (migration, db, redis_migrate.index_key(key_bytes)) WHERE settled_at IS NULL;

CREATE INDEX late_write_open ON redis_migrate.late_write (migration, late_write_id) WHERE settled_at IS NULL;

COMMENT ON TABLE redis_migrate.late_write IS
    'Keys that were changed in Redis although their family belongs to PostgreSQL: the newest state of each that live sync met. settled_at: when somebody declared that nothing is to be done about it any more';

COMMENT ON SEQUENCE redis_migrate.late_write_late_write_id_seq IS 'Numbers of late writes';

CREATE TABLE redis_migrate.late_writer (
    migration     text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    address       text NOT NULL,
    client_name   text,
    username      text,
    command       text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_seen_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (migration, address)
);

COMMENT ON TABLE redis_migrate.late_writer IS
    'Clients of Redis whose last command may have been a write, as CLIENT LIST showed them when late writes arrived';

CREATE TABLE redis_migrate.touched_key (
    migration       text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    verification_id bigint NOT NULL,
    db              integer,
    key_bytes       bytea
);

ALTER TABLE redis_migrate.touched_key REPLICA IDENTITY FULL;

CREATE UNIQUE INDEX touched_key_name ON redis_migrate.touched_key (migration, verification_id, db, redis_migrate.index_key(key_bytes));

COMMENT ON TABLE redis_migrate.touched_key IS
    'Keys that live sync has changed since a verification of all mappings began, up to 20,000 for a migration. A row without a key says that there are more';

CREATE PROCEDURE redis_migrate.cutover(migration text, fence text, pattern text DEFAULT NULL, users text[] DEFAULT NULL,
        to_state text DEFAULT 'postgres', max_pause interval DEFAULT '2 s', compare_keys integer DEFAULT 500,
        verified_within interval DEFAULT '1 hour', no_way_back boolean DEFAULT false, force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_cutover';

COMMENT ON PROCEDURE redis_migrate.cutover(text, text, text, text[], text, interval, integer, interval, boolean, boolean) IS
    'Hands the families of a migration, or that of a pattern, over to PostgreSQL, or undoes everything: holds writes to Redis back with CLIENT PAUSE, waits until live sync has applied all of them, compares keys, fences the writers and changes the state. fence: acl takes @write from users, kill closes all connections, confirmed says that the writers are stopped. to_state: postgres, or both (Redis may still be read). max_pause: the longest time for which writes are held back. no_way_back: even if rows of a mapping cannot be written to Redis. force: even if checks fail, with a warning. First completes or undoes a cutover or cutback that was interrupted';

CREATE PROCEDURE redis_migrate.cutback(migration text, pattern text DEFAULT NULL, discard_changes boolean DEFAULT false,
        max_wait interval DEFAULT '1 minute', force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_cutback';

COMMENT ON PROCEDURE redis_migrate.cutback(text, text, boolean, interval, boolean) IS
    'Gives the families of a migration, or that of a pattern, back to Redis: fences the tables, waits until the reverse feed has written everything, compares some rows with Redis, changes the state, and returns to users the rights that a cutover took. discard_changes: even if no reverse feed has written what was changed here, or rows differ. force: even if the tables also have rows of families that stay with PostgreSQL, whose writers are then refused, too';

CREATE FUNCTION redis_migrate.refuse_write() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_refuse_write';

COMMENT ON FUNCTION redis_migrate.refuse_write() IS
    'Trigger of tables that belong to Redis again: refuses writes, except those of the extension';

CREATE FUNCTION redis_migrate.unfence(migration text, pattern text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_unfence';

COMMENT ON FUNCTION redis_migrate.unfence(text, text) IS
    'Removes the fence that a cutback has put around the tables of a migration, or of one of its patterns. Call it once nobody writes to them any more';

CREATE PROCEDURE redis_migrate.undo_cutover(migration text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_undo_cutover';

COMMENT ON PROCEDURE redis_migrate.undo_cutover(text) IS
    'Completes or undoes a cutover or cutback that was interrupted, as its last step demands. Does nothing if none was';

CREATE FUNCTION redis_migrate.is_being_cut_over(migration text) RETURNS boolean
    LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'prm_is_being_cut_over';

COMMENT ON FUNCTION redis_migrate.is_being_cut_over(text) IS
    'Whether a session is cutting a migration over or back now, or is ending an interrupted cutover or cutback';

CREATE TRIGGER wake_workers AFTER INSERT ON redis_migrate.cutover
    FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers();

COMMENT ON TRIGGER wake_workers ON redis_migrate.cutover IS
    'Wakes the scheduler, which settles the cutover if its session ends before it does';

CREATE VIEW redis_migrate.cutovers WITH (security_barrier) AS
    SELECT c.cutover_id, c.migration, redis_migrate.shown_owner(g.owner) AS owner, c.patterns, c.to_state, c.fence,
           (SELECT pg_catalog.array_agg(DISTINCT f.username ORDER BY f.username) FROM redis_migrate.fenced_user AS f
            WHERE f.cutover_id OPERATOR(pg_catalog.=) c.cutover_id) AS users,
           CASE WHEN c.state OPERATOR(pg_catalog.=) 'running' AND NOT redis_migrate.is_being_cut_over(c.migration)
                THEN 'interrupted' ELSE c.state END AS state,
           c.step, c.started_at, c.started_by, c.deadline, c.finished_at, c.paused_ms::numeric(20, 1) AS paused_ms, c.keys_compared,
           c.keys_touched, c.steps_ms,
           c.sqlstate, CASE WHEN redis_migrate.may_see(g.owner) THEN c.message END AS message,
           CASE WHEN redis_migrate.may_see(g.owner) THEN (SELECT pg_catalog.string_agg(f.username OPERATOR(pg_catalog.||) ' at ' OPERATOR(pg_catalog.||) f.address OPERATOR(pg_catalog.||) ': ' OPERATOR(pg_catalog.||) f.trouble, E'\n' ORDER BY f.username, f.address)
            FROM redis_migrate.fenced_user AS f
            WHERE f.cutover_id OPERATOR(pg_catalog.=) c.cutover_id AND f.returned_at IS NULL) END AS fence_trouble
    FROM redis_migrate.cutover AS c JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.cutovers IS
    'Cutovers and cutbacks of the caller''s migrations, or all for members of pg_monitor. state: running, completed, undone, or interrupted (a worker, or the next call, completes or undoes it). paused_ms: how long writes were held back; steps_ms: how long each step took; keys_touched: keys that had changed since the last verification began; fence_trouble: users who were fenced and may write all the same, and why';

CREATE VIEW redis_migrate.fenced_users WITH (security_barrier) AS
    SELECT u.cutover_id, c.migration, u.node, u.address, u.username, u.rules, u.fenced_rules, u.returned_at, u.trouble
    FROM redis_migrate.fenced_user AS u
    JOIN redis_migrate.cutover AS c USING (cutover_id)
    JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);

COMMENT ON VIEW redis_migrate.fenced_users IS
    'Users of Redis from whom cutovers of the caller''s migrations took the right to write, at each master (node: its id in a cluster). rules: their earlier rules for commands, which ACL SETUSER gives back; fenced_rules: the rules that the fence has left; returned_at: when the rights were returned; trouble: why the user may write all the same';

CREATE FUNCTION redis_migrate.settle_late_writes(migration text, pattern text DEFAULT NULL) RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_settle_late_writes';

COMMENT ON FUNCTION redis_migrate.settle_late_writes(text, text) IS
    'Declares that nothing is to be done any more about a migration''s late writes so far, or about those of a family. Returns how many there were';

CREATE VIEW redis_migrate.late_writes WITH (security_barrier) AS
    SELECT l.late_write_id, l.migration, l.pattern, l.db, redis_migrate.bytes_as_text(l.key_bytes) AS key, l.key_bytes, l.kind,
           l.payload, l.expires_at, l.changes, l.first_at, l.last_at, l.settled_at
    FROM redis_migrate.late_write AS l JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);

COMMENT ON VIEW redis_migrate.late_writes IS
    'Keys of the caller''s migrations that were changed in Redis although they belong to PostgreSQL, with the newest value as a DUMP payload. A key that has expired is shown as deleted, because Redis does not tell the difference';

CREATE VIEW redis_migrate.late_writers WITH (security_barrier) AS
    SELECT w.migration, w.address, w.client_name, w.username, w.command, w.first_seen_at, w.last_seen_at
    FROM redis_migrate.late_writer AS w JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.late_writers IS
    'Clients whose last command may have been a write, as CLIENT LIST showed them when late writes arrived';

COMMENT ON TABLE redis_migrate.job IS
    'Scheduled jobs: when each is next due, the settings of the session that defined it, and its results so far. relation, relation_owner: the table and its owner when its name was last resolved; trusted_roles: other roles whose SQL may run with the owner''s rights; problem: what the owner has to confirm. failures: how many there were since the last success. If scheduled_at lies ahead, the clock was set back';

COMMENT ON TABLE redis_migrate.expiry_policy IS
    'Which rows of a table expire, and how they are removed. expires_attnum: the number of the column when its name was last resolved; it explains a rename';

COMMENT ON TABLE redis_migrate.expiry_state IS
    'Progress of a policy''s sweep; each batch''s transaction writes it. It names the table or partition, and for expiry order the highest value met (microseconds since 2000, or the column''s own number), for page order the next page. started_at is NULL if no sweep is under way';

CREATE TABLE redis_migrate.stuck_row (
    job_id     bigint NOT NULL REFERENCES redis_migrate.job ON DELETE CASCADE,
    table_name text NOT NULL,
    row_tid    tid NOT NULL,
    row_xmin   xid NOT NULL,
    row_key    text,
    sqlstate   text NOT NULL,
    message    text NOT NULL,
    tries      integer NOT NULL DEFAULT 1,
    first_try  timestamptz NOT NULL,
    last_try   timestamptz NOT NULL,
    next_try   timestamptz NOT NULL,
    PRIMARY KEY (job_id, table_name, row_tid)
);

COMMENT ON TABLE redis_migrate.stuck_row IS
    'Expired rows that sweeps could not remove, and when each is tried again. row_tid and row_xmin name a version of the row, so a row that is changed leaves the list. row_tid (0,0) stands for a partition that could not be dropped. Not dumped, because places of rows mean nothing elsewhere';

COMMENT ON TABLE redis_migrate.refresh_policy IS
    'Materialized views that are refreshed: at an interval, and debounce after the first mark since the last refresh';

COMMENT ON TABLE redis_migrate.stale_mark IS
    'A row for each transaction that made a materialized view stale. Writers only insert, so none waits for another. The refresh deletes the rows that it has seen';

COMMENT ON TABLE redis_migrate.job_history IS
    'Runs of jobs that did something or failed. An expiry policy keeps them for pg_redis_migrate.history_retention';

CREATE FUNCTION redis_migrate.add_expiry(target regclass, expires_column text, every interval DEFAULT '5 minutes',
        unit text DEFAULT NULL, column_timezone text DEFAULT NULL, lifetime interval DEFAULT '0', grace interval DEFAULT '0',
        condition text DEFAULT NULL, soft_delete text DEFAULT NULL, notify_channel text DEFAULT NULL,
        notify_column text DEFAULT NULL, drop_partitions boolean DEFAULT false, batch_time interval DEFAULT '100 milliseconds',
        max_rate integer DEFAULT 0, max_replication_lag interval DEFAULT '30 seconds', max_xmin_age integer DEFAULT 10000000,
        trust_target boolean DEFAULT false)
    RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_expiry';

COMMENT ON FUNCTION redis_migrate.add_expiry(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer, boolean) IS
    'Adds an expiry policy, which deletes rows of a table once the time in a column, plus lifetime and grace, has passed. Sweeps run with the rights of the caller. trust_target: a superuser confirms a table that others own. See docs/expiry.md';

CREATE FUNCTION redis_migrate.alter_expiry(target text, new_target regclass DEFAULT NULL, expires_column text DEFAULT NULL,
        every interval DEFAULT NULL, unit text DEFAULT NULL, column_timezone text DEFAULT NULL, lifetime interval DEFAULT NULL,
        grace interval DEFAULT NULL, condition text DEFAULT NULL, soft_delete text DEFAULT NULL, notify_channel text DEFAULT NULL,
        notify_column text DEFAULT NULL, drop_partitions boolean DEFAULT NULL, batch_time interval DEFAULT NULL,
        max_rate integer DEFAULT NULL, max_replication_lag interval DEFAULT NULL, max_xmin_age integer DEFAULT NULL,
        trust_target boolean DEFAULT false)
    RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_expiry';

COMMENT ON FUNCTION redis_migrate.alter_expiry(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer, boolean) IS
    'Changes an expiry policy from the next batch on. NULL leaves a property as it is, an empty text removes it. trust_target confirms a table that has another owner than before';

COMMENT ON FUNCTION redis_migrate.drop_expiry(text) IS 'Drops an expiry policy. Rows and history stay';

COMMENT ON FUNCTION redis_migrate.pause_expiry(text) IS
    'Takes an expiry policy off the schedule at once. CALL redis_migrate.sweep still works';

COMMENT ON FUNCTION redis_migrate.resume_expiry(text) IS
    'Puts an expiry policy back on the schedule. It is due at once';

CREATE FUNCTION redis_migrate.add_session_expiry(store text, target regclass DEFAULT NULL, every interval DEFAULT '6 hours',
        lifetime interval DEFAULT NULL, column_timezone text DEFAULT NULL, trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_session_expiry';

COMMENT ON FUNCTION redis_migrate.add_session_expiry(text, regclass, interval, interval, text, boolean) IS
    'Adds an expiry policy for the session table of django, connect-pg-simple, flask-session, spring-session, laravel or scs';

COMMENT ON PROCEDURE redis_migrate.sweep(text, boolean) IS
    'Removes the expired rows of a table now, in committed batches. dry_run shows what there is before, what would be deleted, and what would be left';

COMMENT ON FUNCTION redis_migrate.sweep_preview(text) IS
    'Counts the rows that a sweep would find, remove and leave. Reads the whole table';

COMMENT ON FUNCTION redis_migrate.meets_expired_row() IS
    'Always true. A sweep''s statement evaluates it for each expired row before it locks the row, so that rows that others have locked are counted';

COMMENT ON FUNCTION redis_migrate.gives_way() IS
    'Always true. A sweep''s statement evaluates it for each row that it reads, and it yields the processor every 0.1 ms';

CREATE FUNCTION redis_migrate.add_refresh(view regclass, every interval DEFAULT '5 minutes', concurrently boolean DEFAULT true,
        debounce interval DEFAULT '5 seconds', trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_refresh';

COMMENT ON FUNCTION redis_migrate.add_refresh(regclass, interval, boolean, interval, boolean) IS
    'Refreshes a materialized view at an interval (NULL: only when it is stale), and debounce after it was marked stale. trust_target: a superuser confirms a view that others own';

CREATE FUNCTION redis_migrate.alter_refresh(view text, new_view regclass DEFAULT NULL, every interval DEFAULT NULL,
        concurrently boolean DEFAULT NULL, debounce interval DEFAULT NULL, trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_refresh';

COMMENT ON FUNCTION redis_migrate.alter_refresh(text, regclass, interval, boolean, interval, boolean) IS
    'Changes a refresh. NULL leaves a property as it is; every => ''0'' refreshes the view only when it is stale. trust_target confirms a view that has another owner than before';

COMMENT ON FUNCTION redis_migrate.drop_refresh(text) IS 'Drops a refresh. The view and the history stay';

COMMENT ON FUNCTION redis_migrate.pause_refresh(text) IS 'Takes a refresh off the schedule. Marks are kept';

COMMENT ON FUNCTION redis_migrate.resume_refresh(text) IS 'Puts a refresh back on the schedule. It is due at once';

COMMENT ON FUNCTION redis_migrate.mark_stale(regclass) IS
    'Marks a materialized view as stale, so that it is refreshed after this transaction has committed. Requires SELECT on the view';

COMMENT ON FUNCTION redis_migrate.mark_stale_trigger() IS
    'Trigger that calls mark_stale for the views named in its arguments; the table''s owner needs SELECT on them. For AFTER ... FOR EACH STATEMENT';

COMMENT ON PROCEDURE redis_migrate.maintain() IS
    'Runs the caller''s due sweeps and refreshes in turn, and returns. Background workers call it';

COMMENT ON FUNCTION redis_migrate.next_maintenance() IS
    'When the caller''s next sweep or refresh is due, perhaps in the past; NULL if there is none';

COMMENT ON FUNCTION redis_migrate.maintenance_owners() IS
    'Roles with sweeps or refreshes, and when the next one of each role is due; for the scheduler';

COMMENT ON FUNCTION redis_migrate.fail_maintenance(oid, text, text) IS
    'Records that a role''s due sweeps and refreshes failed, because no worker can work as that role; for the scheduler';

CREATE VIEW redis_migrate.expiry_stats WITH (security_barrier) AS
    SELECT j.name AS target, redis_migrate.shown_owner(j.owner) AS owner, j.enabled, j.next_run, s.rows_total AS rows_deleted, s.batches_total AS batches,
           s.partitions_dropped, s.skipped_total AS skipped_locked,
           (SELECT pg_catalog.count(*) FROM redis_migrate.stuck_row AS r WHERE r.job_id OPERATOR(pg_catalog.=) j.job_id) AS stuck_rows, j.runs, j.empty_runs, j.failed_runs,
           j.last_started_at, j.last_finished_at, j.last_finished_at OPERATOR(pg_catalog.-) j.last_started_at AS last_duration,
           j.last_rows, s.started_at AS sweeping_since, s.leaf AS sweeping, s.sweep_order,
           s.backlog AS backlog_estimate, s.oldest_expired_at,
           pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.oldest_expired_at AS oldest_expired_age,
           coalesce(s.paused_since, CASE WHEN j.problem IS NOT NULL THEN j.last_error_at END) AS paused_since,
           CASE WHEN redis_migrate.is_restored(j.owner) THEN 'restored: it waits for CALL redis_migrate.resume_restored()'
                ELSE coalesce(j.problem, s.pause_reason) END AS pause_reason, j.failures AS consecutive_failures, j.last_error_at, j.last_sqlstate, j.last_message,
           j.stats_reset
    FROM redis_migrate.job AS j JOIN redis_migrate.expiry_state AS s USING (job_id)
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.expiry_stats IS
    'Results of sweeps, the rows left as of the last batch, and why a sweep is paused or failing. Members of pg_monitor see all';

CREATE VIEW redis_migrate.stuck_rows WITH (security_barrier) AS
    SELECT j.name AS target, redis_migrate.shown_owner(j.owner) AS owner, r.table_name,
           CASE WHEN r.row_tid OPERATOR(pg_catalog.<>) '(0,0)' THEN r.row_tid END AS row_tid,
           CASE WHEN redis_migrate.may_see(j.owner) THEN r.row_key END AS row_key, r.sqlstate,
           CASE WHEN redis_migrate.may_see(j.owner) THEN r.message END AS message,
           r.tries, r.first_try, r.last_try, r.next_try
    FROM redis_migrate.stuck_row AS r JOIN redis_migrate.job AS j USING (job_id)
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.stuck_rows IS
    'Expired rows that sweeps could not remove, why, and when each is tried again. A row without row_tid is a partition that could not be dropped. Members of pg_monitor see all, without keys and messages';

CREATE OR REPLACE VIEW redis_migrate.refreshes WITH (security_barrier) AS
    SELECT j.name AS view, redis_migrate.shown_owner(j.owner) AS owner, j.enabled, j.every, p."concurrently", p.debounce, j.next_run,
           (SELECT pg_catalog.min(m.marked_at) FROM redis_migrate.stale_mark AS m WHERE m.job_id OPERATOR(pg_catalog.=) j.job_id) AS stale_since,
           j.runs, j.failed_runs, j.last_started_at, j.last_finished_at,
           j.last_finished_at OPERATOR(pg_catalog.-) j.last_started_at AS last_duration,
           j.failures AS consecutive_failures, j.last_error_at, j.last_sqlstate, j.last_message, j.stats_reset,
           CASE WHEN redis_migrate.is_restored(j.owner) THEN 'restored: it waits for CALL redis_migrate.resume_restored()'
                ELSE j.problem END AS pause_reason
    FROM redis_migrate.job AS j JOIN redis_migrate.refresh_policy AS p USING (job_id)
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.refreshes IS
    'Materialized views that are refreshed, since when each is stale, and the result of the last refresh';

COMMENT ON VIEW redis_migrate.job_runs IS
    'Sweeps and refreshes of the caller that did something or failed. Members of pg_monitor see all';

CREATE FUNCTION redis_migrate.set_retention(kind text, keep interval) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Of no undo that has begun, and of no run that is under way.
    unused constant text := 'NOT EXISTS (SELECT FROM redis_migrate.undo AS u WHERE u.run_id = target.run_id AND u.state = ''running'') '
        'AND NOT EXISTS (SELECT FROM redis_migrate.run AS r WHERE r.run_id = target.run_id AND r.state = ''running'' AND NOT r.live)';
    policy record;
BEGIN
    IF kind IS NULL OR kind NOT IN ('journal', 'audits', 'rejects', 'archive') THEN
        RAISE EXCEPTION 'kind must be journal, audits, rejects or archive' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Months of 30 days, as in all comparisons of intervals, would make 100 years shorter.
    IF extract(epoch FROM keep) NOT BETWEEN 0 AND extract(epoch FROM '100 years'::interval) THEN
        RAISE EXCEPTION 'keep must be between 0 and 100 years' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'NULL keeps them until somebody drops them.';
    END IF;
    FOR policy IN
        SELECT p.relation, p.expires_column, p.condition
        FROM (VALUES
            ('journal', 'redis_migrate.journal', 'recorded_at', unused),
            ('journal', 'redis_migrate.journal_value', 'recorded_at', unused),
            ('journal', 'redis_migrate.journal_insert', 'recorded_at', unused),
            ('journal', 'redis_migrate.ledger_batch', 'appended_at', 'target.merged AND ' || unused),
            ('audits', 'redis_migrate.audit', 'updated_at', 'target.state <> ''running'' OR target.updated_at < now() - interval ''1 day'''),
            -- Settled, or of a run whose place another has taken: verifications and cutovers look at the last.
            ('rejects', 'redis_migrate.reject', 'created_at',
             'target.settled_at IS NOT NULL OR EXISTS (SELECT FROM redis_migrate.run AS r JOIN redis_migrate.run AS later USING (migration) '
             'WHERE r.run_id = target.run_id AND r.state <> ''running'' AND later.run_id > r.run_id AND later.state = ''completed'' AND NOT later.dry_run)'),
            -- Of a key without an expiry nothing is ever old.
            ('archive', 'redis_migrate.archived_key', 'expires_at',
             'NOT EXISTS (SELECT FROM redis_migrate.run AS r WHERE r.migration = target.migration AND r.state = ''running'' AND NOT r.live)')
        ) AS p (kind, relation, expires_column, condition)
        WHERE p.kind = set_retention.kind
    LOOP
        IF EXISTS (SELECT FROM redis_migrate.expiry_policies AS p WHERE p.target = policy.relation) THEN
            PERFORM redis_migrate.drop_expiry(policy.relation);
        END IF;
        IF keep IS NOT NULL THEN
            PERFORM redis_migrate.add_expiry(policy.relation::regclass, policy.expires_column, every => '1 hour', lifetime => keep,
                condition => policy.condition);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION redis_migrate.set_retention(text, interval) IS
    'Says how long the journal, audits, rejects or archive (kind) of all migrations are kept; NULL: until somebody drops them. Adds expiry policies to the tables of the extension, so only its owner may call it. What an undo, a run or a verification still needs stays';

COMMENT ON TABLE redis_migrate.rate_limit_policy IS
    'Rate limit policies. Sessions keep what they have read until the table changes';

COMMENT ON TABLE redis_migrate.rate_limit_exception IS
    'Keys that a rate limit policy treats differently: allowed, denied (until expires_at), or with other numbers. If added_at lies ahead, the clock has been set back since, and expires_at moves with it';

COMMENT ON TABLE redis_migrate.rate_limit_state IS
    'States of rate limits with storage => ''table''. Only the key is indexed, so that updates stay on their page';

COMMENT ON TABLE redis_migrate.rate_limit_unlogged_state IS
    'States of rate limits with storage => ''unlogged table'': empty after a crash, absent on standbys';

COMMENT ON FUNCTION redis_migrate.rate_limit_changed() IS 'Makes every session read the rate limit policies again';

COMMENT ON TRIGGER changed ON redis_migrate.rate_limit_policy IS 'Makes every session read the rate limit policies again';

COMMENT ON TRIGGER changed ON redis_migrate.rate_limit_exception IS 'Makes every session read the rate limit policies again';

COMMENT ON TYPE redis_migrate.rate_limits_result IS
    'The answer to a request under several policies, with the policy that decided: the refusal with the longest wait, or else the policy with the least remaining';

COMMENT ON FUNCTION redis_migrate.create_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean) IS
    'Creates a rate limit policy: quota per period. algorithm: gcra, fixed_window, fixed_window_first_hit, sliding_window; storage: memory, table, unlogged table; key_type: text, inet. See docs/rate-limits.md';

COMMENT ON FUNCTION redis_migrate.alter_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean, text) IS
    'Changes a rate limit policy. NULL leaves a property as it is. The change applies to existing keys at once; with a new algorithm all keys begin afresh';

COMMENT ON FUNCTION redis_migrate.set_rate_limit_override(text, text, bigint, interval, bigint) IS
    'Gives one key of a rate limit policy other numbers. period NULL: that of the policy';

COMMENT ON FUNCTION redis_migrate.set_rate_limit_override(text, inet, bigint, interval, bigint) IS
    'Gives each address of a network other numbers under a rate limit policy. The longest matching prefix counts';

COMMENT ON FUNCTION redis_migrate.drop_rate_limit_override(text, text) IS
    'Removes the override of a key. false: there was none';

COMMENT ON FUNCTION redis_migrate.drop_rate_limit_override(text, inet) IS
    'Removes the override of a network. false: there was none';

COMMENT ON FUNCTION redis_migrate.add_rate_limit_allow(text, text) IS
    'Lets a key always pass a rate limit policy. The allow list takes precedence over the deny list';

COMMENT ON FUNCTION redis_migrate.add_rate_limit_allow(text, inet) IS
    'Lets the addresses of a network always pass a rate limit policy';

COMMENT ON FUNCTION redis_migrate.drop_rate_limit_allow(text, text) IS
    'Takes a key off the allow list. false: it was not there';

COMMENT ON FUNCTION redis_migrate.drop_rate_limit_allow(text, inet) IS
    'Takes a network off the allow list. false: it was not there';

COMMENT ON FUNCTION redis_migrate.add_rate_limit_deny(text, text, interval) IS
    'Makes a rate limit policy refuse a key, for a time (reason blocked) or, without for_time, for ever (reason denylisted)';

COMMENT ON FUNCTION redis_migrate.add_rate_limit_deny(text, inet, interval) IS
    'Makes a rate limit policy refuse the addresses of a network, for a time (reason blocked) or, without for_time, for ever (reason denylisted)';

COMMENT ON FUNCTION redis_migrate.drop_rate_limit_deny(text, text) IS
    'Takes a key off the deny list. false: it was not there';

COMMENT ON FUNCTION redis_migrate.drop_rate_limit_deny(text, inet) IS
    'Takes a network off the deny list. false: it was not there';

COMMENT ON FUNCTION redis_migrate.rate_limit(text, text, bigint) IS
    'Asks whether a request of a key may pass, and charges the request if it may. cost 0 charges nothing';

COMMENT ON FUNCTION redis_migrate.rate_limit(text, inet, bigint) IS
    'rate_limit for an address. IPv6 addresses with the same prefix, of the policy''s length, share a key; IPv4 in IPv6 counts as IPv4';

COMMENT ON FUNCTION redis_migrate.rate_limit_allowed(text, text, bigint) IS
    'Asks whether a request of a key may pass, and charges the request if it may. The fast form: it answers only yes or no';

COMMENT ON FUNCTION redis_migrate.rate_limit_allowed(text, inet, bigint) IS
    'rate_limit_allowed for an address. IPv6 addresses with the same prefix, of the policy''s length, share a key; IPv4 in IPv6 counts as IPv4';

COMMENT ON FUNCTION redis_migrate.rate_limit_at(text, text, bigint, timestamptz) IS
    'rate_limit at another time, for tests and simulations by the policy''s owner';

COMMENT ON FUNCTION redis_migrate.rate_limit_adhoc(text, text, text, bigint, bigint, text) IS
    'rate_limit without a policy: the limit is an argument, and may differ in the next call';

COMMENT ON FUNCTION redis_migrate.rate_limits(text[], text[], bigint) IS
    'Asks several policies, with a key for each or one key for all. Charges all of them or, if one refuses, none';

COMMENT ON FUNCTION redis_migrate.rate_limit_refund(text, text, bigint) IS
    'Gives cost back, at most until the whole quota remains. Returns what remains';

COMMENT ON FUNCTION redis_migrate.reset_rate_limit(text, text) IS
    'Forgets what a key has used. false: there was nothing to forget';

COMMENT ON FUNCTION redis_migrate.rate_limit_counters() IS
    'Statistics of this database''s rate limits. The row with policy_id NULL has the sums over all policies, in all databases, that have no statistics of their own. No rows without shared memory';

COMMENT ON FUNCTION redis_migrate.rate_limit_capacity() IS
    'The size of the shared memory for rate limits, and the number of keys that fit into it; NULL if there is none';

COMMENT ON FUNCTION redis_migrate.save_rate_limits() IS
    'Saves the shared memory of rate limits now, as happens every few seconds and at shutdown. false: it failed, see the log';

CREATE OR REPLACE VIEW redis_migrate.rate_limit_stats WITH (security_barrier = true) AS
    SELECT coalesce(p.policy, CASE c.policy_id WHEN -1 THEN '(ad hoc)' ELSE '(shared)' END) AS policy,
           c.allowed OPERATOR(pg_catalog.+) c.limited OPERATOR(pg_catalog.+) c.shadow OPERATOR(pg_catalog.+) c.blocked AS calls,
           c.allowed, c.limited, c.shadow, c.blocked, c.entries, c.evictions,
           c.entries OPERATOR(pg_catalog.*) 48 AS memory
    FROM redis_migrate.rate_limit_policy AS p FULL JOIN redis_migrate.rate_limit_counters() AS c USING (policy_id)
    WHERE p.policy IS NOT NULL OR c.policy_id IS NULL OR c.policy_id OPERATOR(pg_catalog.=) -1;

COMMENT ON VIEW redis_migrate.rate_limit_stats IS
    'Statistics of each rate limit policy: calls = allowed + limited + shadow + blocked. entries: keys that are in shared memory now; memory: their bytes; evictions: live keys that were evicted. If the numbers are NULL, the policy has no statistics of its own; the row (shared) has the sums over all such policies';

COMMENT ON FUNCTION redis_migrate.import_rate_limit(text, text, bigint, timestamptz, bigint, bigint, text) IS
    'Starts a key with what another limiter counted, and returns what remains. Window algorithms need used and reset_at; sliding_window also takes previous, the count of the window before. gcra needs tat, the theoretical arrival time in nanoseconds since 1970. no_ttl says what to do with a counter without reset_at: reject, forever, full_window. See docs/importing-limits.md';

COMMENT ON TABLE redis_migrate.lockout_policy IS
    'Policies of login lockouts. policy_id is part of the counters'' keys, so no policy inherits the counters of a dropped one';

COMMENT ON TABLE redis_migrate.lockout_scope IS
    'The columns that a policy counts by, and how many failures lock for how long. cool_off NULL: that of the policy, or else its time_window';

COMMENT ON TABLE redis_migrate.login_attempt IS
    'Login attempts, and resets of lockouts (success NULL). write_login_attempts takes them from the queue in shared memory';

CREATE FUNCTION redis_migrate.create_lockout(policy text, scopes jsonb DEFAULT '{"user_name": 5, "address": 15}',
        time_window interval DEFAULT '15 minutes', cool_off interval DEFAULT NULL, cool_off_mode text DEFAULT 'fixed',
        extend_on_attempt boolean DEFAULT false, reset_on_success boolean DEFAULT true, fold_case boolean DEFAULT true,
        ipv6_prefix integer DEFAULT 64, allowed_networks cidr[] DEFAULT '{}', pending_timeout interval DEFAULT '1 minute',
        notify_channel text DEFAULT NULL, when_full text DEFAULT 'share') RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_create_lockout';

COMMENT ON FUNCTION redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text) IS
    'Creates a policy of login lockouts. scopes: what to count by (user_name, address, user_agent, or several joined by +), and how many failures lock. when_full: what to do with logins for which shared memory has no room: share, refuse. See docs/lockouts.md';

CREATE FUNCTION redis_migrate.alter_lockout(policy text, scopes jsonb DEFAULT NULL, time_window interval DEFAULT NULL,
        cool_off interval DEFAULT NULL, cool_off_mode text DEFAULT NULL, extend_on_attempt boolean DEFAULT NULL,
        reset_on_success boolean DEFAULT NULL, fold_case boolean DEFAULT NULL, ipv6_prefix integer DEFAULT NULL,
        allowed_networks cidr[] DEFAULT NULL, pending_timeout interval DEFAULT NULL, notify_channel text DEFAULT NULL,
        when_full text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_lockout';

COMMENT ON FUNCTION redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text) IS
    'Changes a lockout policy. NULL leaves a property as it is. The new rules apply to existing counters at once';

COMMENT ON FUNCTION redis_migrate.drop_lockout(text) IS 'Drops a lockout policy. Recorded attempts stay';

COMMENT ON TYPE redis_migrate.login_answer IS
    'The answer of login_check and login_result. reason: ok, locked, pending (attempts in flight leave no room), no_room (shared memory is full) or exempt (not counted)';

COMMENT ON FUNCTION redis_migrate.login_check(text, text, inet, text, text) IS
    'Says whether a login may be tried, and reserves the attempt until login_result. Call it before you check the password';

COMMENT ON FUNCTION redis_migrate.login_result(text, text, inet, boolean, bigint, text, text, text) IS
    'Reports the result of an attempt: with the token, of one that login_check has let in; without, of one that was not checked';

COMMENT ON FUNCTION redis_migrate.lockout_status(text, text, inet, text) IS
    'Shows the counters of a login without counting an attempt. No rows if the login is exempt';

COMMENT ON FUNCTION redis_migrate.login_check_at(text, text, inet, text, text, timestamptz) IS
    'login_check at another time, for tests and simulations by the policy''s owner';

COMMENT ON FUNCTION redis_migrate.login_result_at(text, text, inet, boolean, bigint, text, text, text, timestamptz) IS
    'login_result at another time, for tests and simulations by the policy''s owner';

COMMENT ON FUNCTION redis_migrate.lockout_status_at(text, text, inet, text, timestamptz) IS
    'lockout_status at another time, for tests and simulations by the policy''s owner';

COMMENT ON FUNCTION redis_migrate.reset_lockout(text, text, inet, boolean) IS
    'Drops the counters of a user name, an address, both, or everything, and so ends their locks. Returns how many. login_attempts records the reset';

COMMENT ON FUNCTION redis_migrate.import_lockout(text, text, inet, integer, timestamptz, text, text) IS
    'Raises the counter of exactly those columns that are not NULL to what another system counted. A second call with the same arguments changes nothing. no_ttl says what to do with failures without last_failure: reject, forever, full_window';

COMMENT ON FUNCTION redis_migrate.reset_lockout_stats(text) IS
    'Sets the statistics of a lockout policy to zero. Its counters stay';

COMMENT ON PROCEDURE redis_migrate.write_login_attempts() IS
    'Writes the attempts that wait in shared memory to their table, a batch in each transaction, and sends notifications of locks. The background worker calls it, or a session';

COMMENT ON FUNCTION redis_migrate.attempts_due() IS
    'When write_login_attempts next has something to write, perhaps in the past; NULL if no attempt of this database waits';

CREATE FUNCTION redis_migrate.lockout_counts()
    RETURNS TABLE (policy_id uuid, checks bigint, allowed bigint, locked bigint, pending bigint, exempt bigint, no_room bigint, successes bigint,
                   failures bigint, uncounted bigint, timeouts bigint, locks bigint, evicted bigint, locks_evicted bigint, shared_counters bigint,
                   dropped bigint, entries bigint, stats_reset timestamptz)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_lockout_counts';

COMMENT ON FUNCTION redis_migrate.lockout_counts() IS
    'Statistics of this database''s lockout policies. The row with policy_id NULL has the sums over all policies, in all databases, that have no statistics of their own. See the view lockout_stats';

COMMENT ON FUNCTION redis_migrate.login_attempt_queue() IS
    'The queue of login attempts in shared memory: its capacity, how many attempts wait (of all databases; of this one), and how many were dropped since the server started because it was full';

CREATE OR REPLACE VIEW redis_migrate.lockout_policies WITH (security_barrier) AS
    SELECT p.policy, redis_migrate.shown_owner(p.owner) AS owner, s.scopes, p.time_window, p.cool_off, p.cool_off_mode, p.extend_on_attempt, p.reset_on_success, p.fold_case,
           p.ipv6_prefix, p.allowed_networks, p.pending_timeout, p.notify_channel, p.when_full
    FROM redis_migrate.lockout_policy AS p
    CROSS JOIN LATERAL (
        SELECT pg_catalog.jsonb_object_agg(t.scope, t.tiers) AS scopes
        FROM (SELECT l.scope, CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 AND pg_catalog.bool_and(l.cool_off IS NULL)
                                   THEN pg_catalog.to_jsonb(pg_catalog.min(l.failures))
                                   ELSE pg_catalog.jsonb_object_agg(l.failures, l.cool_off) END AS tiers
              FROM redis_migrate.lockout_scope AS l WHERE l.policy OPERATOR(pg_catalog.=) p.policy GROUP BY l.scope) AS t) AS s
    WHERE redis_migrate.may_see(p.owner);

COMMENT ON VIEW redis_migrate.lockout_policies IS
    'Lockout policies that the caller may use, with scopes as create_lockout takes them';

COMMENT ON VIEW redis_migrate.login_attempts IS
    'Attempts of the policies that the caller may use. reason: what the application gave, otherwise locked, pending, no result, or the role that made a reset';

COMMENT ON VIEW redis_migrate.login_attempts_by_address IS 'Numbers of recorded attempts by policy and address';

COMMENT ON VIEW redis_migrate.login_attempts_by_user IS 'Numbers of recorded attempts by policy and user name';

COMMENT ON VIEW redis_migrate.login_attempts_by_hour IS 'Numbers of recorded attempts by policy and hour';

COMMENT ON VIEW redis_migrate.lockouts IS
    'Current locks: logins whose recorded attempts were refused by a lock that is still in force';

CREATE VIEW redis_migrate.lockout_stats WITH (security_barrier) AS
    SELECT coalesce(p.policy, '(shared)') AS policy, c.checks, c.allowed, c.locked, c.pending, c.exempt, c.no_room, c.successes, c.failures,
           c.uncounted, c.timeouts, c.locks, c.entries, c.evicted, c.locks_evicted, c.shared_counters, c.dropped, c.stats_reset
    FROM redis_migrate.lockout_policy AS p FULL JOIN redis_migrate.lockout_counts() AS c USING (policy_id)
    WHERE p.policy IS NOT NULL OR c.policy_id IS NULL;

COMMENT ON VIEW redis_migrate.lockout_stats IS
    'Statistics of each lockout policy: answers of login_check; results; uncounted: failures that were not counted because memory was full; locks: locks that began; entries: counters in memory; evicted: counters that were evicted; locks_evicted: those of them that locked; shared_counters: counters of whole networks that began because memory was full of locks; dropped: attempts that the full queue dropped. If the numbers are NULL, the policy has no statistics of its own; the row (shared) has the sums over all such policies';

COMMENT ON FUNCTION redis_migrate.check_rate_limit(inet, varchar, interval, integer) IS
    'Whether a user name has failed too often (p_max_attempts), or an address (three times as many), by the lockout policy auth_rate_limit';

COMMENT ON FUNCTION redis_migrate.log_rate_limit_attempt(inet, varchar, text, varchar, boolean, varchar) IS
    'Counts and records an attempt for check_rate_limit. Returns 1, or 0 if the full queue dropped the record';

COMMENT ON FUNCTION redis_migrate.cleanup_old_rate_limit_attempts(interval) IS
    'Deletes recorded attempts that are older than p_keep_duration, of the policies that the caller may use. Returns how many';

CREATE OR REPLACE VIEW redis_migrate.definitions WITH (security_barrier) AS
    SELECT d.kind, d.name, redis_migrate.owner_oid(d.owner)::regrole AS owner, redis_migrate.owner_name(d.owner) AS owner_name,
           redis_migrate.is_restored(d.owner) AS restored,
           coalesce(redis_migrate.owner_problem(d.owner),
                    CASE WHEN d.acts AND redis_migrate.is_restored(d.owner)
                         THEN 'restored: it waits for CALL redis_migrate.resume_restored()' END, d.problem) AS problem
    FROM (SELECT 'migration' AS kind, migration AS name, owner, false AS acts, NULL::text AS problem FROM redis_migrate.migration
          UNION ALL SELECT 'background run', migration, owner, wanted, NULL FROM redis_migrate.background_run
          UNION ALL SELECT 'audit', audit_id::text, owner, false, NULL FROM redis_migrate.audit
          UNION ALL SELECT kind, name, owner, true, problem FROM redis_migrate.job
          UNION ALL SELECT 'rate limit', policy, owner, false, NULL FROM redis_migrate.rate_limit_policy
          UNION ALL SELECT 'lockout', policy, owner, false, NULL FROM redis_migrate.lockout_policy) AS d
    WHERE redis_migrate.may_see(d.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW redis_migrate.definitions IS
    'Definitions of the caller, or all for members of pg_monitor: their owners, whether they came with a dump, and why a definition is disabled';

COMMENT ON FUNCTION redis_migrate.take_over(text, text, name) IS
    'Makes a role the owner of a definition, which is named as in the view definitions. Only for superusers. A restored definition resumes';

COMMENT ON PROCEDURE redis_migrate.resume_restored() IS
    'Declares that a restore has ended, so that restored definitions resume: those of the caller, or all for a superuser';

DO $$
DECLARE
    known oid[] := pg_catalog.current_setting('redis_migrate_upgrade.known')::oid[]; -- what an upgrade leaves as it is
    given text;
BEGIN
    FOR given IN
        SELECT DISTINCT pg_catalog.format('%s %s FROM %s', o.kind, o.name,
                   CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::oid THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM (
            SELECT 'SCHEMA', oid, nspname::text, nspowner, nspacl, false
            FROM pg_catalog.pg_namespace WHERE oid OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
            UNION ALL SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid, oid::regclass::text, relowner, relacl, false
            FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
            UNION ALL SELECT 'ROUTINE', oid, oid::regprocedure::text, proowner, proacl, true
            FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
            UNION ALL SELECT 'TYPE', oid, oid::regtype::text, typowner, typacl, true
            FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
        ) AS o (kind, oid, name, owner, acl, is_of_public) CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) AS a
        WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner AND NOT (o.is_of_public AND a.grantee OPERATOR(pg_catalog.=) 0::oid)
            AND o.oid OPERATOR(pg_catalog.<>) ALL (known)
    LOOP
        EXECUTE pg_catalog.concat('REVOKE ALL ON ', given);
    END LOOP;
END
$$;

GRANT SELECT ON redis_migrate.families, redis_migrate.family_changes TO PUBLIC;

GRANT SELECT ON redis_migrate.mappings, redis_migrate.runs, redis_migrate.run_parts, redis_migrate.mapping_counts, redis_migrate.progress TO PUBLIC;

GRANT SELECT ON redis_migrate.verifications, redis_migrate.verification_parts, redis_migrate.verification_counts, redis_migrate.verification_differences TO PUBLIC;

GRANT SELECT ON redis_migrate.undos, redis_migrate.undo_leftovers, redis_migrate.journal_entries TO PUBLIC;

GRANT SELECT ON redis_migrate.restores, redis_migrate.restore_counts, redis_migrate.restore_failures TO PUBLIC;

GRANT SELECT ON redis_migrate.background_runs, redis_migrate.workers TO PUBLIC;

GRANT SELECT ON redis_migrate.live_sync, redis_migrate.stat_live, redis_migrate.live_appliers TO PUBLIC;

GRANT SELECT ON redis_migrate.reverse_feeds, redis_migrate.reverse_rejects TO PUBLIC;

GRANT SELECT ON redis_migrate.cutovers, redis_migrate.fenced_users TO PUBLIC;

GRANT SELECT ON redis_migrate.late_writes, redis_migrate.late_writers TO PUBLIC;

GRANT SELECT ON redis_migrate.expiry_stats, redis_migrate.stuck_rows TO PUBLIC;

REVOKE ALL ON FUNCTION redis_migrate.set_retention(text, interval) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION redis_migrate.lockout_counts() TO pg_monitor;

GRANT SELECT ON redis_migrate.lockout_stats TO pg_monitor;

REVOKE ALL ON FUNCTION
    redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text), redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text), redis_migrate.lockout_counts() FROM PUBLIC;

-- Objects that were created again have the privileges of a new installation. The script tells those that others had
-- been granted, and does not grant them: pg_dump takes what an extension's script grants for part of the extension.
DO $$
DECLARE
    a record;
BEGIN
    FOR a IN
        SELECT r.kind, r.name, g.privilege_type, CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS grantable,
               CASE WHEN g.grantee OPERATOR(pg_catalog.=) 0::oid THEN 'PUBLIC' ELSE g.grantee::regrole::text END AS grantee
        FROM (VALUES
            ('ROUTINE', 'redis_migrate.create_migration_old(text, name, text, text, integer[], text)'::regprocedure::text, 'redis_migrate.create_migration(text, name, text, text, integer[], text, boolean)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.create_migration_old(text, name, text, text, integer[], text)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.create_migration(text, name, text, text, integer[], text, boolean)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.alter_migration_old(text, name, text, text, integer[], text, text[])'::regprocedure::text, 'redis_migrate.alter_migration(text, name, text, text, integer[], text, text[], boolean)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_migration_old(text, name, text, text, integer[], text, text[])'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_migration(text, name, text, text, integer[], text, text[], boolean)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.add_mapping_old(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text)'::regprocedure::text, 'redis_migrate.add_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, boolean, text, text)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_mapping_old(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, boolean, text, text)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.alter_mapping_old(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, text[])'::regprocedure::text, 'redis_migrate.alter_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, text[], boolean, text, text)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_mapping_old(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, text[])'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, text[], boolean, text, text)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.add_check_old(text, text, text, text)'::regprocedure::text, 'redis_migrate.add_check(text, text, text, text, boolean)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_check_old(text, text, text, text)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_check(text, text, text, text, boolean)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.run_old(text, boolean, text, text, text, text, boolean, bigint, boolean)'::regprocedure::text, 'redis_migrate.run(text, boolean, text, text, text, text, boolean, bigint, boolean, integer)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.run_old(text, boolean, text, text, text, text, boolean, bigint, boolean)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.run(text, boolean, text, text, text, text, boolean, bigint, boolean, integer)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.start_old(text, text, text, text, boolean, boolean)'::regprocedure::text, 'redis_migrate.start(text, text, text, text, boolean, boolean, integer, boolean, text)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.start_old(text, text, text, text, boolean, boolean)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.start(text, text, text, text, boolean, boolean, integer, boolean, text)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.worker_slots_old()'::regprocedure::text, 'redis_migrate.worker_slots()'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.worker_slots_old()'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.worker_slots()'::regprocedure)),
            ('ROUTINE', 'redis_migrate.add_expiry_old(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer)'::regprocedure::text, 'redis_migrate.add_expiry(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer, boolean)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_expiry_old(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_expiry(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer, boolean)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.alter_expiry_old(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer)'::regprocedure::text, 'redis_migrate.alter_expiry(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer, boolean)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_expiry_old(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_expiry(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer, boolean)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.add_session_expiry_old(text, regclass, interval, interval, text)'::regprocedure::text, 'redis_migrate.add_session_expiry(text, regclass, interval, interval, text, boolean)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_session_expiry_old(text, regclass, interval, interval, text)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_session_expiry(text, regclass, interval, interval, text, boolean)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.add_refresh_old(regclass, interval, boolean, interval)'::regprocedure::text, 'redis_migrate.add_refresh(regclass, interval, boolean, interval, boolean)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_refresh_old(regclass, interval, boolean, interval)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.add_refresh(regclass, interval, boolean, interval, boolean)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.alter_refresh_old(text, regclass, interval, boolean, interval)'::regprocedure::text, 'redis_migrate.alter_refresh(text, regclass, interval, boolean, interval, boolean)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_refresh_old(text, regclass, interval, boolean, interval)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_refresh(text, regclass, interval, boolean, interval, boolean)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.create_lockout_old(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text)'::regprocedure::text, 'redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.create_lockout_old(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.alter_lockout_old(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text)'::regprocedure::text, 'redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text)'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_lockout_old(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text)'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text)'::regprocedure)),
            ('ROUTINE', 'redis_migrate.lockout_counts_old()'::regprocedure::text, 'redis_migrate.lockout_counts()'::regprocedure::text, (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.lockout_counts_old()'::regprocedure), (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'redis_migrate.lockout_counts()'::regprocedure)),
            ('TABLE', 'redis_migrate.mappings_old', 'redis_migrate.mappings', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.mappings_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.mappings'::regclass)),
            ('TABLE', 'redis_migrate.runs_old', 'redis_migrate.runs', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.runs_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.runs'::regclass)),
            ('TABLE', 'redis_migrate.run_parts_old', 'redis_migrate.run_parts', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.run_parts_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.run_parts'::regclass)),
            ('TABLE', 'redis_migrate.mapping_counts_old', 'redis_migrate.mapping_counts', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.mapping_counts_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.mapping_counts'::regclass)),
            ('TABLE', 'redis_migrate.background_runs_old', 'redis_migrate.background_runs', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.background_runs_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.background_runs'::regclass)),
            ('TABLE', 'redis_migrate.expiry_stats_old', 'redis_migrate.expiry_stats', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.expiry_stats_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.expiry_stats'::regclass)),
            ('TABLE', 'redis_migrate.lockout_stats_old', 'redis_migrate.lockout_stats', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.lockout_stats_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.lockout_stats'::regclass)),
            ('TABLE', 'redis_migrate.progress_old', 'redis_migrate.progress', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.progress_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.progress'::regclass)),
            ('TABLE', 'redis_migrate.workers_old', 'redis_migrate.workers', (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.workers_old'::regclass), (SELECT relacl FROM pg_catalog.pg_class WHERE oid = 'redis_migrate.workers'::regclass))
        ) AS r (kind, old, name, old_acl, new_acl) CROSS JOIN LATERAL pg_catalog.aclexplode(r.old_acl) AS g
        WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(r.new_acl) AS h WHERE h.grantee OPERATOR(pg_catalog.=) g.grantee
                                                                      AND h.privilege_type OPERATOR(pg_catalog.=) g.privilege_type)
              AND g.grantee OPERATOR(pg_catalog.<>) g.grantor
              AND NOT (r.kind OPERATOR(pg_catalog.=) 'ROUTINE' AND r.new_acl IS NULL AND g.grantee OPERATOR(pg_catalog.=) 0::oid)
    LOOP
        RAISE WARNING 'a privilege on % was not kept', a.name
            USING HINT = pg_catalog.format('GRANT %s ON %s %s TO %s%s;', a.privilege_type, a.kind, a.name, a.grantee, a.grantable);
    END LOOP;
END
$$;

DROP VIEW redis_migrate.mappings_old, redis_migrate.runs_old, redis_migrate.run_parts_old, redis_migrate.mapping_counts_old, redis_migrate.background_runs_old, redis_migrate.expiry_stats_old, redis_migrate.lockout_stats_old, redis_migrate.progress_old, redis_migrate.workers_old;

DROP ROUTINE redis_migrate.create_migration_old(text, name, text, text, integer[], text),
    redis_migrate.alter_migration_old(text, name, text, text, integer[], text, text[]),
    redis_migrate.add_mapping_old(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text),
    redis_migrate.alter_mapping_old(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, text[]),
    redis_migrate.add_check_old(text, text, text, text),
    redis_migrate.run_old(text, boolean, text, text, text, text, boolean, bigint, boolean),
    redis_migrate.start_old(text, text, text, text, boolean, boolean),
    redis_migrate.worker_slots_old(),
    redis_migrate.add_expiry_old(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer),
    redis_migrate.alter_expiry_old(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer),
    redis_migrate.add_session_expiry_old(text, regclass, interval, interval, text),
    redis_migrate.add_refresh_old(regclass, interval, boolean, interval),
    redis_migrate.alter_refresh_old(text, regclass, interval, boolean, interval),
    redis_migrate.create_lockout_old(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text),
    redis_migrate.alter_lockout_old(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text),
    redis_migrate.lockout_counts_old(),
    redis_migrate.index_key(text);

-- END

ALTER TABLE redis_migrate.mapping DROP has_ledger;

INSERT INTO redis_migrate.ledger_secret (secret)
SELECT pg_catalog.substr(pg_catalog.sha256(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
                             OPERATOR(pg_catalog.||) pg_catalog.uuid_send(pg_catalog.gen_random_uuid())), 1, 16)
WHERE EXISTS (SELECT FROM redis_migrate.ledger);
UPDATE redis_migrate.ledger SET
    row_hash = ('x' || pg_catalog.encode(pg_catalog.substr(redis_migrate.row_hash(mapping_id, row_key), 1, 8), 'hex'))::bit(64)::bigint,
    key_hash = ('x' || pg_catalog.encode(pg_catalog.substr(redis_migrate.row_hash(mapping_id, db, key_bytes), 1, 8), 'hex'))::bit(64)::bigint;
ALTER TABLE redis_migrate.ledger ALTER row_hash SET NOT NULL, ALTER key_hash SET NOT NULL;
CREATE INDEX ledger_row ON redis_migrate.ledger (row_hash);
CREATE INDEX ledger_key ON redis_migrate.ledger (key_hash);

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['ledger_batch', 'ledger_segment', 'ledger_secret', 'seen_batch',
                                    'ledger_batch_batch_id_seq', 'seen_batch_batch_id_seq',
                                    'live_position', 'live_key', 'live_link', 'live_mapping',
                                    'family_change', 'family_change_change_id_seq',
                                    'unlogged_mark', 'verification', 'verification_part', 'verification_count', 'verification_difference', 'verification_met',
                                    'verification_verification_id_seq', 'verification_difference_difference_id_seq',
                                    'verification_met_batch_id_seq',
                                    'restore', 'restore_count', 'restore_failure', 'restore_restore_id_seq',
                                    'restore_failure_failure_id_seq',
                                    'reverse_query', 'reverse_feed', 'reverse_feed_feed_id_seq', 'reverse_slot', 'reverse_mapping', 'outbox',
                                    'outbox_outbox_id_seq', 'outbox_gap', 'outbox_gap_gap_id_seq', 'reverse_reject',
                                    'cutover', 'fenced_user', 'cutover_cutover_id_seq',
                                    'late_write', 'late_writer', 'late_write_late_write_id_seq',
                                    'journal', 'journal_value', 'journal_insert', 'undo', 'undo_count', 'undo_left',
                                    'journal_journal_id_seq', 'journal_value_value_id_seq', 'journal_insert_insert_id_seq', 'undo_left_left_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;
