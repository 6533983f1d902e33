-- SQL that users give as text: it is one expression or one SET list, and names in it or around it mean what they say.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
CREATE TABLE t (id text PRIMARY KEY, n int, expires_at timestamptz);
CREATE INDEX ON t (expires_at);
SELECT redis_migrate.create_migration('u', 'shop');
SELECT redis_migrate.add_mapping('u', 'm', 'm:{id}', 't', 'SELECT id, 1 AS n FROM redis_batch', '{id}');
CREATE FUNCTION tried(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; detail text;
BEGIN
    EXECUTE statement;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN state || ' ' || CASE WHEN detail = '' THEN message ELSE detail END;
END
$$;

\echo == what is no single expression is refused alike wherever an expression stands
CREATE TABLE places (place text, kind text, statement text);
INSERT INTO places VALUES
    ('check', 'expression', $$SELECT redis_migrate.add_check('u', 'm', 'c', %L)$$),
    ('condition', 'expression', $$SELECT redis_migrate.add_expiry('t', 'expires_at', condition => %L)$$),
    ('on_conflict', 'list', $$SELECT redis_migrate.alter_mapping('u', 'm', on_conflict => %L)$$),
    ('on_delete', 'list', $$SELECT redis_migrate.alter_mapping('u', 'm', on_delete => %L)$$),
    ('soft_delete', 'list', $$SELECT redis_migrate.add_expiry('t', 'expires_at', soft_delete => %L)$$);
CREATE TABLE texts (n int GENERATED ALWAYS AS IDENTITY, kind text, given text);
INSERT INTO texts (kind, given) SELECT 'expression', unnest(ARRAY['true) OR (true', 'true); DROP TABLE t; --', 'true; SELECT true',
    'n > $1', '$2::text IS NULL', 'n = (SELECT $1)', E'true\n) OR (true', 'true /*', 'true, true', 'true AS x', 'n m', '*', 'ALL true',
    'DISTINCT true', 'true UNION SELECT true', 'true FROM t', 'true WHERE true', 'true GROUP BY 1', 'true HAVING true',
    'true ORDER BY 1', 'true LIMIT 1', 'true FOR UPDATE', 'true INTO x', ' ', '--', ')', '''', 'VALUES (true)', 'a = é and $1']);
INSERT INTO texts (kind, given) SELECT 'list', unnest(ARRAY['n = 1) WHERE (true', 'n = 1; DROP TABLE t', 'n = $1', 'n = 1 + $3', 'n = (SELECT $1)',
    'n = 1 FROM t', 'n = 1 WHERE true', 'n = 1 RETURNING id', 'n', 'n =', 'n = 1,', 'n = 1 /*', 'n == 1', ' ', '--', '''', 'n = 1 n = 2']);
SELECT given, CASE WHEN count(DISTINCT outcome) = 1 THEN min(outcome) ELSE string_agg(place || ': ' || outcome, E'\n' ORDER BY place) END AS outcome
FROM (SELECT t.n, t.given, p.place, tried(format(p.statement, t.given)) AS outcome FROM texts AS t JOIN places AS p USING (kind)) AS tries
GROUP BY n, given ORDER BY n;
SELECT count(*) AS checks FROM redis_migrate.checks;

\echo == what only looks so is taken: comments, quotes, items and equals signs within others
SELECT redis_migrate.add_check('u', 'm', 'comment', 'n = 1 -- ) OR (false');
SELECT redis_migrate.add_check('u', 'm', 'quoted', $$id <> ') OR ($1' AND id <> E'\') $1 (' AND NOT EXISTS (SELECT FROM t WHERE n < 0)$$);
SELECT redis_migrate.alter_mapping('u', 'm', on_conflict => $$n /* = */ = -- , = (
    CASE WHEN target.n = 1 THEN excluded.n /* , */ ELSE 7 END, /* id = 'x' */ "expires_at" = COALESCE(target.expires_at, ('2000-01-01'::timestamptz)) -- , n = 8$$);
\! $R set m:1 x >/dev/null; $R set m:2 y >/dev/null
INSERT INTO t VALUES ('1', 5), ('2', 1);
CALL redis_migrate.run('u');
SELECT id, n, expires_at = '2000-01-01' AS expired FROM t ORDER BY id;
SELECT * FROM last_rejects('u');
-- A backslash means the same when it is run as when it was defined.
SELECT redis_migrate.add_check('u', 'm', 'backslash', $$id <> '\'$$);
SET standard_conforming_strings = off;
CALL redis_migrate.run('u');
-- Nor do statements of the extension depend on it.
SELECT redis_migrate.create_migration('strings', 'shop');
SELECT redis_migrate.drop_migration('strings');
RESET standard_conforming_strings;
SELECT rejected FROM last_run('u');

\echo == names are the same whatever a session quotes
CREATE TABLE q (id uuid PRIMARY KEY, expires_at timestamptz);
CREATE INDEX ON q (expires_at);
\! $R set q:7d1b3c1e-0f5c-4a51-8a83-f1b3c5ad0e55 x >/dev/null
SET quote_all_identifiers = on;
SELECT redis_migrate.add_mapping('u', 'q', 'q:{id:uuid}', 'q', 'SELECT id FROM redis_batch', '{id}');
SELECT redis_migrate.add_expiry('q', 'expires_at');
CALL redis_migrate.run('u', mapping => 'q');
RESET quote_all_identifiers;
CALL redis_migrate.run('u', mapping => 'q');
CALL redis_migrate.sweep('public.q');
SELECT migrated, state FROM last_run('u');
SELECT refused($$SELECT redis_migrate.add_expiry('q', 'expires_at')$$);
SELECT redis_migrate.drop_expiry('public.q');
SELECT redis_migrate.drop_migration('u');
DROP TABLE t, q, places, texts;

\echo == the operator that identifies rows is that of the key index
CREATE EXTENSION citext SCHEMA public;
CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN word AS citext;
CREATE DOMAIN tags AS text[];
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE by_citext (k citext PRIMARY KEY, v text);
CREATE TABLE by_domain (k word PRIMARY KEY, v text);
CREATE TABLE by_collation (k text COLLATE caseless PRIMARY KEY, v text);
CREATE TABLE by_index (k text COLLATE caseless NOT NULL, v text);
CREATE UNIQUE INDEX ON by_index (k COLLATE "C");
CREATE TABLE by_array (k tags PRIMARY KEY, v text);
CREATE TABLE by_varchar (k varchar(20), c char(5), m mood, PRIMARY KEY (k, c, m), v text);
CREATE TABLE by_range (k int4range PRIMARY KEY, v text);
CREATE TABLE by_pattern (k text NOT NULL, v text);
CREATE UNIQUE INDEX ON by_pattern (k text_pattern_ops);
\! $R flushall >/dev/null; for k in Ada ADA bob; do $R set k:$k $k >/dev/null; done

\echo == and no search_path puts another operator, function or cast in its place
CREATE SCHEMA evil;
DO $$
DECLARE
    t text; o text;
BEGIN
    FOREACH t IN ARRAY ARRAY['smallint', 'int', 'bigint', 'text', 'varchar', 'bytea', 'boolean', 'oid', 'numeric', 'float8', 'timestamptz', 'timestamp',
            'interval', 'jsonb', 'name', 'regclass', 'citext', 'int4range', 'mood', 'tid', 'pg_lsn', 'inet', 'uuid', 'date', 'text[]', 'char(5)'] LOOP
        EXECUTE format('CREATE FUNCTION evil.captured(%s, %s) RETURNS boolean LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION USING ERRCODE = ''''XX000'''', MESSAGE = ''''captured''''; END''', t, t);
        FOREACH o IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '||', '~', '~~', '*=', '@>', '->>', '->', '&&'] LOOP
            EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.captured, LEFTARG = %s, RIGHTARG = %s)', o, t, t);
        END LOOP;
        FOREACH o IN ARRAY ARRAY['lower', 'upper', 'length', 'octet_length', 'to_jsonb', 'abs', 'sha256', 'unnest', 'format', 'nullif', 'round',
                'quote_ident', 'pg_get_serial_sequence', 'has_table_privilege', 'row_to_json', 'to_timestamp', 'timezone'] LOOP
            EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %2$s LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION USING ERRCODE = ''''XX000'''', MESSAGE = ''''captured''''; END''', o, t);
        END LOOP;
        EXECUTE format('CREATE FUNCTION evil.step(boolean, %s) RETURNS boolean LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION USING ERRCODE = ''''XX000'''', MESSAGE = ''''captured''''; END''', t);
        FOREACH o IN ARRAY ARRAY['count', 'max', 'min', 'sum', 'string_agg', 'array_agg', 'bool_or'] LOOP
            EXECUTE format('CREATE AGGREGATE evil.%I(%s) (SFUNC = evil.step, STYPE = boolean)', o, t);
        END LOOP;
    END LOOP;
END
$$;
CREATE FUNCTION evil.captured(boolean) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'captured'; END$$;
CREATE AGGREGATE evil.count(*) (SFUNC = evil.captured, STYPE = boolean, INITCOND = 'true');
CREATE FUNCTION evil.format(text, name, name) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'captured'; END$$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'captured'; END$$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'captured'; END$$;
CREATE FUNCTION evil.row_number() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'captured'; END$$;
SET search_path = evil, pg_catalog, public;
SELECT 1 = 1;
SELECT count(*);
SELECT redis_migrate.create_migration('keys', 'shop');
SELECT redis_migrate.add_mapping('keys', 'citext', 'k:{k}', 'by_citext', 'SELECT k::citext AS k, value AS v FROM redis_batch', '{k}');
SELECT redis_migrate.add_mapping('keys', 'domain', 'k:{k}', 'by_domain', 'SELECT k::public.word AS k, value AS v FROM redis_batch', '{k}');
SELECT redis_migrate.add_mapping('keys', 'collation', 'k:{k}', 'by_collation', 'SELECT k, value AS v FROM redis_batch', '{k}');
SELECT redis_migrate.add_mapping('keys', 'index', 'k:{k}', 'by_index', 'SELECT k, value AS v FROM redis_batch', '{k}');
SELECT redis_migrate.add_mapping('keys', 'array', 'k:{k}', 'by_array', 'SELECT ARRAY[k]::public.tags AS k, value AS v FROM redis_batch', '{k}');
SELECT redis_migrate.add_mapping('keys', 'varchar', 'k:{k}', 'by_varchar', $$SELECT k, k AS c, 'sad' AS m, value AS v FROM redis_batch$$, '{k,c,m}');
SELECT redis_migrate.add_mapping('keys', 'range', 'k:{k}', 'by_range', $$SELECT int4range(entry, NULL) AS k, 'x' AS v FROM redis_batch$$, '{k}');
SELECT redis_migrate.add_mapping('keys', 'pattern', 'k:{k}', 'by_pattern', 'SELECT k, value AS v FROM redis_batch', '{k}');
CALL redis_migrate.run('keys', dry_run => true);
SELECT DISTINCT outcome FROM redis_migrate.preview('keys');
CALL redis_migrate.run('keys');
CALL redis_migrate.run('keys');
\! $R set k:ADA 'new' >/dev/null; $R del k:bob >/dev/null
CALL redis_migrate.run('keys', prune => true);
ALTER TABLE by_citext ADD expires_at timestamptz;
CREATE INDEX ON by_citext (expires_at);
SELECT redis_migrate.add_expiry('by_citext', 'expires_at', condition => 'v IS NOT NULL');
UPDATE by_citext SET expires_at = '2000-01-01' WHERE k OPERATOR(public.=) 'ada';
CALL redis_migrate.sweep('public.by_citext');
SELECT * FROM redis_migrate.sweep_preview('public.by_citext');
\! $R rpush l:a one two three >/dev/null; $R rpush l:b one >/dev/null
CREATE TABLE public.lists (k text, n int, v text, PRIMARY KEY (k, n));
SELECT redis_migrate.create_migration('back', 'shop');
SELECT redis_migrate.add_mapping('back', 'lists', 'l:{k}', 'lists', 'SELECT k, position AS n, value AS v FROM redis_batch', '{k,n}', expand => 'elements', types => '{list}', databases => '{0}');
CALL redis_migrate.run('back', force => true);
CALL redis_migrate.verify('back');
SELECT redis_migrate.start_reverse('back');
UPDATE lists SET v = 'two!' WHERE n OPERATOR(pg_catalog.=) 1;
DELETE FROM lists WHERE k OPERATOR(pg_catalog.=) 'b';
CALL redis_migrate.feed_redis('back', until_drained => true);
CALL redis_migrate.check_reverse('back');
SELECT redis_migrate.stop_reverse('back');
SELECT redis_migrate.unfence('back');
SELECT redis_migrate.report('back') IS NOT NULL, redis_migrate.count_rows('lists');
CALL redis_migrate.restore('back', 'shop', source => 'rows', dry_run => true);
SELECT run_id AS last FROM redis_migrate.runs WHERE migration OPERATOR(pg_catalog.=) 'back' ORDER BY run_id DESC LIMIT 1 \gset
CALL redis_migrate.undo_run(:last, dry_run => true);
CALL redis_migrate.undo_run(:last);
SELECT redis_migrate.create_migration('names', 'shop');
SELECT redis_migrate.add_mapping('names', v, concat(v, ':{k}'), v::regclass, 'SELECT k, value AS v FROM redis_batch', '{k}', databases => '{0}') FROM (VALUES ('by_citext'), ('by_domain'), ('by_collation'), ('by_pattern')) AS t (v);
SELECT * FROM redis_migrate.reverse_problems('names');
SELECT redis_migrate.drop_migration('names');
CALL redis_migrate.audit('shop');
SELECT redis_migrate.create_rate_limit('evil', 10, '1 minute', storage => 'table');
SELECT (redis_migrate.rate_limit('evil', 'someone')).allowed;
RESET search_path;
DO $$ BEGIN PERFORM redis_migrate.drop_audit(max(audit_id)) FROM redis_migrate.audits; END $$;
\! $R lrange l:a 0 -1; $R exists l:b
SELECT * FROM lists ORDER BY k, n;
DROP TABLE lists;
SELECT redis_migrate.unfence('back');
SELECT redis_migrate.drop_migration('back');
SELECT k, v FROM by_citext ORDER BY k;
SELECT k, v FROM by_domain ORDER BY k;
SELECT k, v FROM by_collation ORDER BY k;
SELECT k, v FROM by_index ORDER BY k COLLATE "C";
SELECT k, v FROM by_array ORDER BY k;
SELECT * FROM by_varchar ORDER BY k COLLATE "C";
SELECT k, v FROM by_pattern ORDER BY k COLLATE "C";
SELECT * FROM last_run('keys');
SELECT * FROM last_rejects('keys');
SELECT redis_migrate.drop_expiry('public.by_citext');
SELECT redis_migrate.drop_rate_limit('evil');
SELECT redis_migrate.drop_migration('keys');
DROP TABLE by_citext, by_domain, by_collation, by_index, by_array, by_varchar, by_range, by_pattern;
SET client_min_messages = error;
DROP SCHEMA evil CASCADE;
RESET client_min_messages;
DROP TYPE word, tags, mood;
DROP COLLATION caseless;
DROP EXTENSION citext CASCADE;
