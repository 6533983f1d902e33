-- The beginning of every SQL test: an empty Redis, the extension, a server "shop" and some functions.
\set ECHO none
\set SHOW_CONTEXT never
\getenv redis_port PRM_REDIS_PORT
\set cli 'redis-cli -p ' :redis_port
-- $R in the shell: redis-cli for the tests' Redis.
\setenv R :cli
\setenv PGDATABASE :DBNAME
\! $R flushall >/dev/null
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_redis_migrate;
CREATE SERVER IF NOT EXISTS shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port :'redis_port');
CREATE USER MAPPING IF NOT EXISTS FOR CURRENT_USER SERVER shop;

-- The error of a statement, with what it says to the user; a statement that succeeds is kept.
CREATE OR REPLACE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; detail text; hint text;
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', state || ' ' || message, 'DETAIL ' || NULLIF(detail, ''), 'HINT ' || NULLIF(hint, ''));
END
$$;

-- The last run of a migration.
CREATE OR REPLACE FUNCTION last_run_id(text) RETURNS bigint LANGUAGE sql AS
    'SELECT max(run_id) FROM redis_migrate.runs WHERE migration = $1';
CREATE OR REPLACE FUNCTION last_run(text)
    RETURNS TABLE (state text, read bigint, vanished bigint, rejected bigint, migrated bigint, archived bigint, skipped bigint, balanced boolean)
    LANGUAGE sql AS 'SELECT state, read, vanished, rejected, migrated, archived, skipped, balanced
                     FROM redis_migrate.runs WHERE run_id = last_run_id($1)';
CREATE OR REPLACE FUNCTION last_keys(text) RETURNS TABLE (pattern text, outcome text, reason text, keys bigint) LANGUAGE sql AS
    $$SELECT pattern, outcome, reason, keys FROM redis_migrate.run_counts
      WHERE run_id = last_run_id($1) AND outcome <> 'read' ORDER BY pattern COLLATE "C" NULLS LAST, outcome, reason$$;
CREATE OR REPLACE FUNCTION last_rows(text)
    RETURNS TABLE (mapping text, inserted bigint, updated bigint, unchanged bigint, folded bigint, deleted bigint) LANGUAGE sql AS
    $$SELECT mapping, inserted, updated, unchanged, folded, deleted FROM redis_migrate.mapping_counts
      WHERE run_id = last_run_id($1) AND mapping <> '(archive)' ORDER BY mapping$$;
CREATE OR REPLACE FUNCTION last_rejects(text) RETURNS TABLE (key text, mapping text, rule text, sqlstate text, message text) LANGUAGE sql AS
    'SELECT coalesce(key, key_bytes::text), mapping, rule, sqlstate, message FROM redis_migrate.rejects
     WHERE run_id = last_run_id($1) ORDER BY key_bytes, message';
\set ECHO all
