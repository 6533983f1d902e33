-- Families of Redis and of PostgreSQL, and runs that meet rows changed here.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
-- Warnings name the run, see t/121_families.pl.
SET client_min_messages = error;
CREATE TABLE jobs (id int PRIMARY KEY, state text NOT NULL);
CREATE TABLE job_log (id int PRIMARY KEY, state text NOT NULL);
CREATE TABLE carts (id text PRIMARY KEY, value text);
SELECT redis_migrate.create_migration('move', 'shop');
SELECT redis_migrate.add_mapping('move', 'jobs', 'job:{id:int}', 'jobs', 'SELECT id, value AS state FROM redis_batch', '{id}', databases => '{0}');
SELECT redis_migrate.add_mapping('move', 'log', 'job:{id:int}', 'job_log', 'SELECT id, value AS state FROM redis_batch', '{id}', databases => '{0}');
SELECT redis_migrate.add_mapping('move', 'carts', 'cart:{id}', 'carts', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}', exclusive => true);
\! $R mset job:1 waiting job:2 waiting job:3 waiting cart:a x cart:b y >/dev/null
CALL redis_migrate.run('move');
SELECT migration, pattern, mappings, state, since, changed_by, note FROM redis_migrate.families ORDER BY pattern;

\echo == rows that were changed or deleted here: a run says so
UPDATE jobs SET state = 'done' WHERE id IN (1, 2);
DELETE FROM jobs WHERE id = 3;
CALL redis_migrate.run('move');
SELECT mapping, inserted, updated, changed_here, deleted_here FROM redis_migrate.mapping_counts WHERE run_id = last_run_id('move') ORDER BY mapping;
SELECT * FROM jobs ORDER BY id;

\echo == a family of PostgreSQL is left alone
UPDATE jobs SET state = 'done' WHERE id IN (1, 2);
SELECT redis_migrate.set_family_state('move', 'job:{id:int}', 'postgres', 'release 7');
\! $R del job:3 >/dev/null
\! $R mset job:4 waiting cart:a z >/dev/null
CALL redis_migrate.run('move', prune => true);
SELECT * FROM last_run('move');
SELECT * FROM last_keys('move');
SELECT mapping, inserted, updated, deleted, prune, prune_detail FROM redis_migrate.mapping_counts WHERE run_id = last_run_id('move') AND mapping <> '(archive)' ORDER BY mapping;
SELECT * FROM jobs ORDER BY id;
SELECT * FROM carts ORDER BY id;
SELECT key, outcome, reason FROM redis_migrate.preview('move') ORDER BY key;
CALL redis_migrate.verify('move');
SELECT mapping, checked, extra FROM redis_migrate.verification_counts WHERE verification_id = (SELECT max(verification_id) FROM redis_migrate.verifications) ORDER BY mapping;
SELECT pattern, state, changed_by = session_user AS by_me, note FROM redis_migrate.families ORDER BY pattern;

\echo == force, and the way back
CALL redis_migrate.run('move', force => true);
SELECT * FROM jobs ORDER BY id;
SELECT redis_migrate.set_family_state('move', 'job:{id:int}', 'postgres');
SELECT redis_migrate.set_family_state('move', 'job:{id:int}', 'both');
UPDATE jobs SET state = 'mine' WHERE id = 1;
CALL redis_migrate.run('move');
SELECT redis_migrate.set_family_state('move', 'job:{id:int}', 'done');
CALL redis_migrate.run('move');
SELECT state FROM jobs WHERE id = 1;
SELECT redis_migrate.set_family_state('move', 'job:{id:int}', 'cutting');
CALL redis_migrate.run('move');
SELECT state FROM jobs WHERE id = 1;
SELECT redis_migrate.set_family_state('move', 'job:{id:int}', 'redis');
SELECT pattern, state, note FROM redis_migrate.family_changes ORDER BY change_id;

\echo == a prune that would remove much
\! seq 200 | sed 's/.*/SET cart:n& &/' | $R >/dev/null
CALL redis_migrate.run('move');
\! seq 150 | sed 's/.*/DEL cart:n&/' | $R >/dev/null
CALL redis_migrate.run('move', dry_run => true, prune => true);
SELECT mapping, extra FROM redis_migrate.verification_counts WHERE verification_id = (SELECT max(verification_id) FROM redis_migrate.verifications) ORDER BY mapping;
SELECT count(*) FROM carts;
CALL redis_migrate.run('move', prune => true);
SELECT mapping, deleted, prune, prune_detail FROM redis_migrate.mapping_counts WHERE run_id = last_run_id('move') AND prune = 'refused';
SELECT count(*) FROM carts;
SET pg_redis_migrate.prune_limit = 75;
CALL redis_migrate.run('move', prune => true);
SELECT count(*) FROM carts;
RESET pg_redis_migrate.prune_limit;
INSERT INTO carts SELECT 'x' || n FROM generate_series(1, 150) AS n;
CALL redis_migrate.run('move', prune => true, force => true);
SELECT count(*) FROM carts;

\echo == what is refused
SELECT refused($$SELECT redis_migrate.set_family_state('move', 'job:{id:int}', 'mine')$$);
SELECT refused($$SELECT redis_migrate.set_family_state('move', 'nosuch:*', 'postgres')$$);
SELECT refused($$SELECT redis_migrate.set_family_state('nosuch', 'job:{id:int}', 'postgres')$$);
SELECT refused($$SELECT redis_migrate.set_family_state('move', NULL, 'postgres')$$);
SELECT redis_migrate.set_family_state('move', 'cart:{id}', 'postgres');
SELECT refused($$SELECT redis_migrate.alter_mapping('move', 'carts', pattern => 'cart:{cart}', query => 'SELECT cart AS id, value FROM redis_batch')$$);
SELECT redis_migrate.set_family_state('move', 'cart:{id}', 'redis');
CREATE ROLE regress_prm_other;
SET ROLE regress_prm_other;
SELECT refused($$SELECT redis_migrate.set_family_state('move', 'job:{id:int}', 'postgres')$$);
SELECT count(*) FROM redis_migrate.families;
SELECT count(*) FROM redis_migrate.family_changes;
RESET ROLE;
DROP ROLE regress_prm_other;
SELECT redis_migrate.drop_migration('move');
SELECT count(*) FROM redis_migrate.family_change;
DROP TABLE jobs, job_log, carts;
