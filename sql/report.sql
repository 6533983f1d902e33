-- The report of a migration, as text and as JSON, and what a run tells.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
\pset tuples_only on
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL CHECK (name <> 'bad'));
CREATE TABLE carts (id text PRIMARY KEY, value text);
SELECT redis_migrate.create_migration('story', 'shop');
SELECT redis_migrate.add_mapping('story', 'users', 'user:{id:int}', 'users', 'SELECT id, value AS name FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('story', 'carts', 'cart:{id}', 'carts', 'SELECT id, value FROM redis_batch', '{id}');
SELECT redis_migrate.skip_keys('story', 'tmp:*');
-- Times, durations and numbers that differ from run to run.
CREATE FUNCTION steady(text) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace(regexp_replace(regexp_replace($1, '\d{4}-\d\d-\d\d \d\d:\d\d', 'YYYY-MM-DD HH:MI', 'g'), '(HH:MI +)[\d.]+', '\1SS', 'g'), '(Run|Verification|Audit) \d+', '\1 N', 'g') $$;
CREATE FUNCTION lines(text) RETURNS SETOF text LANGUAGE sql AS $$ SELECT regexp_replace(line, '^ +\d+ +scan', '    N scan') FROM regexp_split_to_table(steady($1), '\n') AS line $$;

\echo == before anything has happened
SELECT lines(redis_migrate.report('story'));
\! $R mset user:1 Ada user:2 Bob user:3 bad user:4711 bad user:x Eve cart:a x cart:b y tmp:1 x other:1 x >/dev/null
\! $R hset cart:h a 1 >/dev/null

\echo == after a run and a verification
CALL redis_migrate.audit('shop');
CALL redis_migrate.run('story');
DELETE FROM carts WHERE id = 'b';
SET client_min_messages = error;
CALL redis_migrate.verify('story');
SET client_min_messages = warning;
SELECT lines(redis_migrate.report('story'));
SELECT redis_migrate.set_family_state('story', 'cart:{id}', 'postgres');
SELECT m->>'mapping', m->>'family', m->>'rows' FROM jsonb_array_elements(redis_migrate.report_json('story')->'mappings') AS m;
SELECT jsonb_pretty(redis_migrate.report_json('story')->'rejects');
SELECT redis_migrate.report_json('story')->'verification'->'verified';

\echo == an error
ALTER TABLE users RENAME COLUMN name TO title;
\set VERBOSITY terse
CALL redis_migrate.run('story');
SELECT line FROM lines(redis_migrate.report('story')) AS line WHERE line LIKE 'Run N ended%';
ALTER TABLE users RENAME COLUMN title TO name;

\echo == rows
SELECT redis_migrate.count_rows('carts');
-- A view's functions would run as the caller.
CREATE VIEW some_carts AS SELECT * FROM carts;
SELECT redis_migrate.count_rows('some_carts') IS NULL;
DROP VIEW some_carts;
CREATE TABLE many (n int) PARTITION BY RANGE (n);
CREATE TABLE many_1 PARTITION OF many FOR VALUES FROM (0) TO (10000000);
INSERT INTO many SELECT generate_series(1, 1000010);
ANALYZE many, many_1;
SELECT redis_migrate.count_rows('many') BETWEEN 1000001 AND 1100000;
CREATE ROLE regress_prm_other;
SET ROLE regress_prm_other;
SELECT redis_migrate.count_rows('carts');
SELECT redis_migrate.report_json('story');
\set VERBOSITY default
SELECT redis_migrate.report('story');
RESET ROLE;
SELECT redis_migrate.report(NULL);
DROP ROLE regress_prm_other;
SELECT redis_migrate.drop_migration('story');
SELECT redis_migrate.drop_audit(max(audit_id)) FROM redis_migrate.audits;
DROP TABLE users, carts, many;
DROP FUNCTION lines(text), steady(text);
