-- Which mapping a key belongs to: patterns, their databases, and what is told of keys that nobody takes.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset null NULL
CREATE TABLE sessions (id text PRIMARY KEY, v text);
CREATE TABLE cache (name text PRIMARY KEY, v text);
CREATE TABLE numbers (n bigint PRIMARY KEY, v text);

\echo == the same shape in two databases: each key goes to the mapping of its database
\! for db in 3 4 5; do for k in p1 p2 px q1; do $R -n $db set $k $db >/dev/null; done; done
SELECT redis_migrate.create_migration('two', 'shop');
SELECT redis_migrate.add_mapping('two', 'cache', 'p{name}', 'cache', 'SELECT name, value AS v FROM redis_batch', '{name}', databases => '{4}');
SELECT redis_migrate.add_mapping('two', 'sessions', 'p{id}', 'sessions', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{3}');
CALL redis_migrate.run('two', dry_run => true);
SELECT * FROM last_keys('two');
CALL redis_migrate.run('two');
SELECT * FROM last_keys('two');
SELECT * FROM sessions ORDER BY id;
SELECT * FROM cache ORDER BY name;

\echo == a type refuses keys only where its pattern takes the database
SELECT redis_migrate.add_mapping('two', 'numbers', 'p{n:int}', 'numbers', 'SELECT n, value AS v FROM redis_batch', '{n}', databases => '{5}');
CALL redis_migrate.run('two');
SELECT * FROM last_keys('two');
SELECT db, key, pattern, rule FROM redis_migrate.rejects WHERE run_id = last_run_id('two');
SELECT * FROM numbers ORDER BY n;
SELECT redis_migrate.alter_mapping('two', 'cache', databases => '{5,4}');
CALL redis_migrate.run('two');
SELECT * FROM last_keys('two');

\echo == a run of one mapping, and a mapping that met no key
CREATE TABLE nothing (n text PRIMARY KEY);
SELECT redis_migrate.add_mapping('two', 'nothing', 'nothing:{n}', 'nothing', 'SELECT n FROM redis_batch', '{n}');
CALL redis_migrate.run('two', mapping => 'sessions');
SELECT * FROM last_keys('two');
SELECT * FROM last_rows('two');
CALL redis_migrate.run('two', dry_run => true, mapping => 'sessions', max_keys => 2);
SELECT pattern, outcome, reason FROM last_keys('two') WHERE outcome = 'migrated';
SELECT read >= 2 AND balanced AS ok FROM redis_migrate.runs WHERE run_id = last_run_id('two');
SELECT count(*), count(DISTINCT key), min(outcome) FROM redis_migrate.preview('two', mapping => 'sessions', max_keys => 3);
CALL redis_migrate.run('two');
SELECT * FROM last_rows('two');

\echo == only keys of the selected mapping count
SELECT redis_migrate.skip_keys('two', 'q*');
SELECT DISTINCT db, outcome, mapping_name FROM redis_migrate.preview('two', mapping => 'numbers', max_keys => 2);
CALL redis_migrate.run('two', dry_run => true, mapping => 'numbers');
SELECT * FROM last_keys('two');

\echo == mappings that can never get a key
SET client_min_messages = warning;
SELECT redis_migrate.create_migration('never', 'shop', databases => '{0,1}');
SELECT redis_migrate.add_mapping('never', 'all', 'p{a}', 'sessions', 'SELECT a AS id FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('never', 'same', 'p{b}', 'sessions', 'SELECT b AS id FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('never', 'typed', 'p{c:int}', 'numbers', 'SELECT c AS n FROM redis_batch', '{n}');
SELECT redis_migrate.add_mapping('never', 'starred', 'p*', 'sessions', 'SELECT key AS id FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('never', 'elsewhere', 'x{a}', 'sessions', 'SELECT a AS id FROM redis_batch', '{id}', databases => '{7}');
SELECT redis_migrate.add_mapping('never', 'one', 'y{b}', 'sessions', 'SELECT b AS id FROM redis_batch', '{id}', databases => '{1}');
SELECT redis_migrate.add_mapping('never', 'other', 'y{a}', 'sessions', 'SELECT a AS id FROM redis_batch', '{id}', databases => '{0}');
SELECT redis_migrate.alter_mapping('never', 'other', databases => '{0,1}');
SELECT redis_migrate.add_mapping('never', 'hidden', 'z{b}', 'sessions', 'SELECT b AS id FROM redis_batch', '{id}');
SELECT redis_migrate.skip_keys('never', 'z{a}');
SELECT redis_migrate.alter_migration('never', databases => '{0}');
SELECT refused($$SELECT redis_migrate.add_mapping('never', 'twice', 'x{a}', 'sessions', 'SELECT a AS id FROM redis_batch', '{id}', databases => '{1}')$$);
RESET client_min_messages;

\echo == overlaps are told at once, and only where databases are shared
SELECT redis_migrate.create_migration('overlaps', 'shop');
SELECT redis_migrate.add_mapping('overlaps', 'a', 'k:{a}', 'sessions', 'SELECT a AS id FROM redis_batch', '{id}', databases => '{1}');
SELECT redis_migrate.add_mapping('overlaps', 'b', 'k:{a}:{b}', 'sessions', 'SELECT a AS id FROM redis_batch', '{id}', databases => '{1}');
SELECT redis_migrate.add_mapping('overlaps', 'c', 'k:{a}:x', 'sessions', 'SELECT a AS id FROM redis_batch', '{id}', databases => '{2}');
SELECT redis_migrate.add_mapping('overlaps', 'd', 'k:{a}:x:{b}', 'sessions', 'SELECT a AS id FROM redis_batch', '{id}');
SELECT redis_migrate.skip_keys('overlaps', '*');
SELECT redis_migrate.drop_migration(migration) FROM redis_migrate.migrations;
DROP TABLE sessions, cache, numbers, nothing;
