-- Definitions: migrations, mappings, checks.

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

CREATE FUNCTION redis_migrate.drop_migration(migration text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_migration';
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

CREATE FUNCTION redis_migrate.drop_mapping(migration text, mapping text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_mapping';
COMMENT ON FUNCTION redis_migrate.drop_mapping(text, text) IS
    'Drops a mapping and its ledger. The rows that it stored stay';

CREATE FUNCTION redis_migrate.add_check(migration text, mapping text, check_name text, condition text,
        trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_check';
COMMENT ON FUNCTION redis_migrate.add_check(text, text, text, text, boolean) IS
    'Adds a condition on the rows that a mapping''s query yields. If it is not true for a row, the key is rejected under the name of the check';

CREATE FUNCTION redis_migrate.drop_check(migration text, mapping text, check_name text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_check';
COMMENT ON FUNCTION redis_migrate.drop_check(text, text, text) IS 'Drops a check';

CREATE FUNCTION redis_migrate.skip_keys(migration text, pattern text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_skip_keys';
COMMENT ON FUNCTION redis_migrate.skip_keys(text, text) IS
    'Declares that the keys of a pattern are not migrated. They are counted as skipped';

CREATE FUNCTION redis_migrate.unskip_keys(migration text, pattern text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_unskip_keys';
COMMENT ON FUNCTION redis_migrate.unskip_keys(text, text) IS 'Reverses skip_keys';

CREATE FUNCTION redis_migrate.migration_sql(migration text) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'prm_migration_sql';
COMMENT ON FUNCTION redis_migrate.migration_sql(text) IS 'The calls that recreate a migration, for version control';
