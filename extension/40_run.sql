-- Running migrations.

CREATE FUNCTION redis_migrate.preflight(server name)
    RETURNS TABLE (check_name text, status text, detail text, hint text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_preflight';
COMMENT ON FUNCTION redis_migrate.preflight(name) IS
    'Checks whether a migration can read a server: reachability, rights, databases, eviction, clocks and so on. status is ok, warn or fail';

CREATE FUNCTION redis_migrate.preview(migration text, mapping text DEFAULT NULL, max_keys integer DEFAULT 100, bytes boolean DEFAULT false)
    RETURNS TABLE (db integer, key text, key_bytes bytea, outcome text, reason text, message text, mapping_name text, target_row jsonb)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_preview';
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

CREATE PROCEDURE redis_migrate.join_run(run_id bigint)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_join_run';
COMMENT ON PROCEDURE redis_migrate.join_run(bigint) IS
    'Reads parts of a run, beside the process that leads it, until no unread part is left. Background workers call it. Commits after each batch';

CREATE FUNCTION redis_migrate.input_is_valid(value text, type regtype) RETURNS boolean
    LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'prm_input_is_valid';
COMMENT ON FUNCTION redis_migrate.input_is_valid(text, regtype) IS
    'Whether a text is a valid value of a type; for queries and checks';

CREATE FUNCTION redis_migrate.field(payload bytea, name text) RETURNS text
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_field';
COMMENT ON FUNCTION redis_migrate.field(bytea, text) IS
    'The value of a hash''s field, from the DUMP payload; NULL if there is no such field';

CREATE FUNCTION redis_migrate.field_bytes(payload bytea, name bytea) RETURNS bytea
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_field_bytes';
COMMENT ON FUNCTION redis_migrate.field_bytes(bytea, bytea) IS
    'The value of a hash''s field as bytes, from the DUMP payload; NULL if there is no such field';

CREATE FUNCTION redis_migrate.elements(payload bytea)
    RETURNS TABLE ("position" bigint, field text, member text, score double precision, entry_id text, value text, value_bytes bytea, "json" jsonb,
                   field_bytes bytea, fields_bytes bytea[], field_expires_at timestamptz)
    LANGUAGE c STRICT IMMUTABLE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'prm_elements';
COMMENT ON FUNCTION redis_migrate.elements(bytea) IS
    'The elements of a list, set, hash, sorted set, array or stream, or the one value of a string, from its DUMP payload';
