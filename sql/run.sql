-- Runs: outcomes of keys and their sums, rows, rejects, and the options of a run.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, email text UNIQUE, born date,
                    CONSTRAINT adult CHECK (born < '2010-01-01'));

\echo == every key has one outcome, and the sums add up
\! $R set user:1 '{"name": "Ada", "email": "ada@example.org", "born": "1815-12-10"}' >/dev/null
\! $R set user:2 '{"name": "Bob", "email": "bob@example.org"}' >/dev/null
\! $R mset tmp:1 x tmp:2 x other:1 x other:2 x >/dev/null
\! $R mset user:x '{"name": "X"}' user:3 'not json' user:4 '' user:5 '{"email": "five@example.org"}' >/dev/null
\! $R mset user:6 '{"name": "Six", "email": "ada@example.org"}' user:7 '{"name": "Seven", "born": "2012-01-01"}' >/dev/null
\! $R mset user:8 '{"name": "Eight", "born": "someday"}' user:9 '{"name": "n"}' user:99999999999 '{"name": "Far"}' >/dev/null
\! $R rpush user:10 a >/dev/null
SELECT redis_migrate.create_migration('run', 'shop');
SELECT redis_migrate.add_mapping('run', 'users', 'user:{id:int}', 'users',
    $$SELECT id, json->>'name' AS name, json->>'email' AS email, (json->>'born')::date AS born FROM redis_batch$$, '{id}', types => '{string}');
SELECT redis_migrate.add_check('run', 'users', 'long_name', 'length(name) > 1 OR name IS NULL');
SELECT redis_migrate.skip_keys('run', 'tmp:*');
CALL redis_migrate.run('run');
SELECT * FROM last_run('run');
SELECT * FROM last_keys('run');
SELECT * FROM last_rows('run');
SELECT * FROM last_rejects('run');
SELECT * FROM users ORDER BY id;
SELECT key, type, expires_at FROM redis_migrate.archive WHERE migration = 'run' ORDER BY key;
-- Rejects keep what was refused.
SELECT e.value FROM redis_migrate.rejects AS r, redis_migrate.elements(r.payload) AS e WHERE r.key = 'user:3';

\echo == a second run changes nothing, a changed value is updated
\! $R del user:x user:3 user:4 user:5 user:6 user:7 user:8 user:9 user:99999999999 user:10 >/dev/null
CREATE TABLE versions AS SELECT id, users.xmin::text AS version FROM users;
CALL redis_migrate.run('run');
SELECT * FROM last_keys('run');
SELECT count(*) AS written_again FROM users JOIN versions USING (id) WHERE users.xmin::text <> version;
\! $R set user:2 '{"name": "Robert", "email": "bob@example.org"}' >/dev/null
CALL redis_migrate.run('run');
SELECT * FROM last_rows('run');
SELECT * FROM users ORDER BY id;

\echo == preview tells, dry_run counts, neither keeps anything
\! $R mset user:20 '{"name": "New"}' user:21 '{}' >/dev/null
SELECT db, key, outcome, reason, message, mapping_name, target_row FROM redis_migrate.preview('run') ORDER BY key;
SELECT key, outcome, reason, mapping_name FROM redis_migrate.preview('run', mapping => 'users') WHERE outcome = 'migrated' ORDER BY key;
SELECT count(*) FROM redis_migrate.preview('run', max_keys => 3);
SELECT count(*) FROM redis_migrate.preview('run', max_keys => 0);
SELECT refused($$SELECT * FROM redis_migrate.preview('run', mapping => 'nosuch')$$);
SELECT count(*) AS before FROM redis_migrate.ledger \gset
CALL redis_migrate.run('run', dry_run => true);
SELECT dry_run, state, read, rejected, migrated, archived, skipped, balanced FROM redis_migrate.runs WHERE run_id = last_run_id('run');
SELECT * FROM last_rejects('run');
SELECT count(*) FROM users;
SELECT count(*) - :before AS ledger_rows_kept FROM redis_migrate.ledger;
CALL redis_migrate.run('run', dry_run => true, max_keys => 2);
SELECT read, balanced FROM redis_migrate.runs WHERE run_id = last_run_id('run');
\! $R del user:20 user:21 >/dev/null

\echo == arguments
CALL redis_migrate.run('nosuch');
CALL redis_migrate.run(NULL);
CALL redis_migrate.run('run', priority => 'urgent');
CALL redis_migrate.run('run', mapping => 'nosuch');
CALL redis_migrate.run('run', source => 'keys');
CALL redis_migrate.run('run', on_error => 'ignore');
CALL redis_migrate.run('run', source => 'archive', prune => true);
BEGIN;
CALL redis_migrate.run('run');
ROLLBACK;
SELECT refused($$CALL redis_migrate.run('run')$$);

\echo == unmapped keys can be refused
SELECT redis_migrate.alter_migration('run', unmapped => 'reject');
CALL redis_migrate.run('run');
SELECT key, pattern, mapping, rule, message FROM redis_migrate.rejects WHERE run_id = last_run_id('run') ORDER BY key;
SELECT redis_migrate.alter_migration('run', unmapped => 'archive');

\echo == stop at the first reject, fix it, go on
\! $R set user:30 bad >/dev/null
SET pg_redis_migrate.batch_rows = 1;
SELECT redis_migrate.alter_mapping('run', 'users', priority => 'critical');
\set VERBOSITY sqlstate
CALL redis_migrate.run('run', on_error => 'stop');
\set VERBOSITY default
SELECT state, rejected FROM last_run('run');
CALL redis_migrate.run('run');
SELECT state, read, rejected, balanced FROM last_run('run');
RESET pg_redis_migrate.batch_rows;
\! $R del user:30 >/dev/null
-- A changed definition begins a new run.
\! $R set user:30 bad >/dev/null
\set VERBOSITY sqlstate
CALL redis_migrate.run('run', on_error => 'stop');
\set VERBOSITY default
SELECT last_run_id('run') AS stopped \gset
SELECT redis_migrate.drop_check('run', 'users', 'long_name');
CALL redis_migrate.run('run');
SELECT last_run_id('run') > :stopped AS another, state FROM redis_migrate.runs WHERE run_id = :stopped;
\! $R del user:30 >/dev/null

\echo == priorities and mapping filter
CREATE TABLE log (n int GENERATED ALWAYS AS IDENTITY, mapping text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log (mapping) VALUES (new.mapping); RETURN new; END';
CREATE TABLE ordered (key text PRIMARY KEY, mapping text);
CREATE TRIGGER note BEFORE INSERT ON ordered FOR EACH ROW EXECUTE FUNCTION note();
SELECT redis_migrate.create_migration('order', 'shop');
\! $R flushall >/dev/null; $R mset a:1 x b:1 x c:1 x d:1 x e:1 x >/dev/null
SELECT redis_migrate.add_mapping('order', 'low', 'a:{k}', 'ordered', $$SELECT key, 'low' AS mapping FROM redis_batch$$, '{key}', priority => 'low');
SELECT redis_migrate.add_mapping('order', 'critical', 'b:{k}', 'ordered', $$SELECT key, 'critical' AS mapping FROM redis_batch$$, '{key}', priority => 'critical');
SELECT redis_migrate.add_mapping('order', 'medium', 'c:{k}', 'ordered', $$SELECT key, 'medium' AS mapping FROM redis_batch$$, '{key}');
SELECT redis_migrate.add_mapping('order', 'after_medium', 'd:{k}', 'ordered', $$SELECT key, 'after_medium' AS mapping FROM redis_batch$$, '{key}', depends_on => '{medium}');
SELECT redis_migrate.add_mapping('order', 'high', 'e:{k}', 'ordered', $$SELECT key, 'high' AS mapping FROM redis_batch$$, '{key}', priority => 'high');
CALL redis_migrate.run('order', priority => 'high');
SELECT string_agg(mapping, ' ' ORDER BY n) FROM log;
SELECT * FROM last_keys('order');
CALL redis_migrate.run('order', mapping => 'medium');
SELECT string_agg(mapping, ' ' ORDER BY n) FROM log;
SELECT * FROM last_keys('order');
TRUNCATE ordered, log;
CALL redis_migrate.run('order');
SELECT string_agg(mapping, ' ' ORDER BY n) FROM log;
SELECT redis_migrate.drop_migration('order');

\echo == rows that refer to rows of later keys wait until the end of their level
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
SELECT redis_migrate.create_migration('refer', 'shop');
\! $R flushall >/dev/null; $R mset parent:1 '' child:1 1 child:2 2 >/dev/null
SELECT redis_migrate.add_mapping('refer', 'child', 'child:{id:int}', 'child', 'SELECT id, value::int AS parent FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('refer', 'parent', 'parent:{id:int}', 'parent', 'SELECT id FROM redis_batch', '{id}');
CALL redis_migrate.run('refer');
SELECT * FROM last_run('refer');
SELECT * FROM child;
SELECT * FROM last_rejects('refer');
-- With depends_on the order is right from the start; what has no parent is still refused.
TRUNCATE parent, child;
SELECT redis_migrate.alter_mapping('refer', 'child', depends_on => '{parent}');
CALL redis_migrate.run('refer');
SELECT * FROM child;
SELECT redis_migrate.drop_migration('refer');

\echo == all mappings of a key or none
CREATE TABLE left_half (id int PRIMARY KEY, v int);
CREATE TABLE right_half (id int PRIMARY KEY, v int CHECK (v > 0));
SELECT redis_migrate.create_migration('both', 'shop');
\! $R flushall >/dev/null; $R mset x:1 1 x:2 -2 x:3 word >/dev/null
SELECT redis_migrate.add_mapping('both', 'left', 'x:{id:int}', 'left_half', 'SELECT id, value::int AS v FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('both', 'right', 'x:{id:int}', 'right_half', 'SELECT id, value::int AS v FROM redis_batch', '{id}');
CALL redis_migrate.run('both');
SELECT * FROM left_half FULL JOIN right_half USING (id);
SELECT * FROM last_rejects('both');
SELECT redis_migrate.drop_migration('both');

\echo == on_conflict
CREATE TABLE hits (page text PRIMARY KEY, n int, first text, last text);
INSERT INTO hits VALUES ('a', 10, NULL, 'before');
SELECT redis_migrate.create_migration('conflict', 'shop');
\! $R flushall >/dev/null; $R mset hits:a 5 hits:b 7 >/dev/null
SELECT redis_migrate.add_mapping('conflict', 'hits', 'hits:{page}', 'hits',
    $$SELECT page, value::int AS n, 'redis' AS first, 'redis' AS last FROM redis_batch$$, '{page}', on_conflict => 'nothing');
CALL redis_migrate.run('conflict');
SELECT * FROM hits ORDER BY page;
SELECT * FROM last_rows('conflict');
SELECT redis_migrate.alter_mapping('conflict', 'hits', on_conflict => 'fill');
CALL redis_migrate.run('conflict');
SELECT * FROM hits ORDER BY page;
SELECT * FROM last_rows('conflict');
SELECT redis_migrate.alter_mapping('conflict', 'hits', on_conflict => 'n = target.n + excluded.n, last = ''sum, at last'' -- of both');
CALL redis_migrate.run('conflict');
SELECT * FROM hits ORDER BY page;
SELECT redis_migrate.alter_mapping('conflict', 'hits', on_conflict => 'n = GREATEST(target.n, excluded.n)');
CALL redis_migrate.run('conflict');
SELECT * FROM hits ORDER BY page;
SELECT * FROM last_rows('conflict');
SELECT redis_migrate.alter_mapping('conflict', 'hits', on_conflict => 'update');
CALL redis_migrate.run('conflict');
SELECT * FROM hits ORDER BY page;
-- mode update changes rows that are there and neither adds nor removes any.
\! $R set hits:c 9 >/dev/null; $R set hits:a 6 >/dev/null
SELECT redis_migrate.alter_mapping('conflict', 'hits', mode => 'update');
CALL redis_migrate.run('conflict');
SELECT * FROM last_rejects('conflict');
SELECT * FROM last_rows('conflict');
SELECT redis_migrate.alter_mapping('conflict', 'hits', no_row => 'skip');
\! $R del hits:b >/dev/null
CALL redis_migrate.run('conflict', prune => true);
SELECT * FROM last_keys('conflict');
SELECT * FROM hits ORDER BY page;
SELECT redis_migrate.drop_migration('conflict');
-- A mapping does not delete a row that it neither inserted nor may change.
TRUNCATE hits;
INSERT INTO hits VALUES ('a', 10);
SELECT redis_migrate.create_migration('before', 'shop');
\! $R flushall >/dev/null; $R mset hits:a 5 hits:b 7 hits:c 8 >/dev/null
SELECT redis_migrate.add_mapping('before', 'hits', 'hits:{page}', 'hits', 'SELECT page, value::int AS n FROM redis_batch', '{page}', on_conflict => 'nothing');
CALL redis_migrate.run('before');
\! $R del hits:a hits:b >/dev/null
CALL redis_migrate.run('before', prune => true);
SELECT page, n FROM hits ORDER BY page;
SELECT redis_migrate.drop_migration('before');

\echo == no_row
CREATE TABLE filtered (id int PRIMARY KEY, v text);
SELECT redis_migrate.create_migration('filter', 'shop');
\! $R flushall >/dev/null; $R mset f:1 keep f:2 drop >/dev/null
SELECT redis_migrate.add_mapping('filter', 'filter', 'f:{id:int}', 'filtered', $$SELECT id, value AS v FROM redis_batch WHERE value = 'keep'$$, '{id}');
CALL redis_migrate.run('filter');
SELECT * FROM last_rejects('filter');
SELECT redis_migrate.alter_mapping('filter', 'filter', no_row => 'skip');
CALL redis_migrate.run('filter');
SELECT * FROM last_keys('filter');
-- A key that no longer yields its row loses it.
\! $R set f:1 drop >/dev/null
CALL redis_migrate.run('filter');
SELECT * FROM last_rows('filter');
SELECT count(*) FROM filtered;
SELECT redis_migrate.drop_migration('filter');

\echo == atomic element: the good elements of a key stay
CREATE TABLE elements (list text, pos int, v int CHECK (v < 100), PRIMARY KEY (list, pos));
SELECT redis_migrate.create_migration('atomic', 'shop');
\! $R flushall >/dev/null; $R rpush list:good 1 2 >/dev/null; $R rpush list:bad 1 x 300 4 -5 >/dev/null; $R rpush list:worst x y >/dev/null
SELECT redis_migrate.add_mapping('atomic', 'items', 'list:{list}', 'elements', 'SELECT list, position AS pos, value::int AS v FROM redis_batch', '{list,pos}', expand => 'elements');
SELECT redis_migrate.add_check('atomic', 'items', 'positive', 'v > 0');
CALL redis_migrate.run('atomic');
SELECT * FROM elements ORDER BY 1, 2;
SELECT key, rule, sqlstate, partial, message FROM redis_migrate.rejects WHERE run_id = last_run_id('atomic') ORDER BY key, rule;
SELECT redis_migrate.alter_mapping('atomic', 'items', atomic => 'element');
CALL redis_migrate.run('atomic');
SELECT * FROM last_run('atomic');
SELECT * FROM elements ORDER BY 1, 2;
SELECT key, rule, sqlstate, partial, message FROM redis_migrate.rejects WHERE run_id = last_run_id('atomic') ORDER BY key, message;
-- Other mappings of the key store theirs; elements that became bad or left lose their rows, or keep them.
CREATE TABLE lists (list text PRIMARY KEY, length int);
SELECT redis_migrate.add_mapping('atomic', 'lists', 'list:{list}', 'lists', 'SELECT list, jsonb_array_length(json) AS length FROM redis_batch', '{list}');
\! $R lset list:good 0 bad >/dev/null; $R rpop list:bad >/dev/null
CALL redis_migrate.run('atomic');
SELECT * FROM lists ORDER BY 1;
SELECT * FROM elements ORDER BY 1, 2;
SELECT * FROM last_rows('atomic');
\! $R lset list:good 0 7 >/dev/null; $R rpop list:good >/dev/null
CALL redis_migrate.run('atomic');
SELECT * FROM elements ORDER BY 1, 2;
SELECT redis_migrate.drop_migration('atomic');
DROP TABLE lists;

\echo == prune, exclusive: every row of the table belongs to the mapping
CREATE TABLE settings (name text PRIMARY KEY, v text);
INSERT INTO settings VALUES ('foreign', 'goes');
SELECT redis_migrate.create_migration('prune', 'shop');
\! $R flushall >/dev/null; $R mset set:a 1 set:b 2 set:c 3 >/dev/null
SELECT redis_migrate.add_mapping('prune', 'settings', 'set:{name}', 'settings', 'SELECT name, value AS v FROM redis_batch', '{name}', databases => '{0}', exclusive => true);
CALL redis_migrate.run('prune');
\! $R del set:b >/dev/null
CALL redis_migrate.run('prune');
SELECT * FROM settings ORDER BY name;
CALL redis_migrate.run('prune', prune => true);
SELECT * FROM settings ORDER BY name;
SELECT * FROM last_rows('prune');
-- Rejected keys keep their rows.
SELECT redis_migrate.add_check('prune', 'settings', 'number', 'v ~ ''^\d+$''');
\! $R set set:a bad >/dev/null; $R del set:c >/dev/null
\! $R set set:d 4 >/dev/null
CALL redis_migrate.run('prune', prune => true);
SELECT * FROM settings ORDER BY name;
-- Without a ledger nothing is pruned while there are some: 1 and 1.0 are equal, and are not the same bytes.
CREATE TABLE scaled (n numeric PRIMARY KEY, v text);
\! $R mset n:1 1 n:2.5 2 n:3 3 >/dev/null
SELECT redis_migrate.add_mapping('prune', 'scaled', 'n:{n:number}', 'scaled', 'SELECT n, value AS v FROM redis_batch', '{n}', databases => '{0}', exclusive => true);
SELECT ledger, ledger_reason FROM redis_migrate.mappings WHERE mapping = 'scaled';
SELECT redis_migrate.add_check('prune', 'scaled', 'number', 'v ~ ''^\d+$''');
CALL redis_migrate.run('prune', mapping => 'scaled');
\! $R set n:1 bad >/dev/null; $R del n:2.5 >/dev/null
CALL redis_migrate.run('prune', mapping => 'scaled', prune => true);
SELECT * FROM scaled ORDER BY n;
\! $R set n:1 1 >/dev/null
CALL redis_migrate.run('prune', mapping => 'scaled', prune => true);
SELECT * FROM scaled ORDER BY n;
SELECT redis_migrate.drop_migration('prune');
DROP TABLE scaled;

\echo == prune, ledger: rows of others stay
TRUNCATE settings;
INSERT INTO settings VALUES ('foreign', 'stays');
SELECT redis_migrate.create_migration('ledger', 'shop');
\! $R flushall >/dev/null; $R mset set:a 1 set:b 2 set:c 3 >/dev/null
SELECT redis_migrate.add_mapping('ledger', 'settings', 'set:{name}', 'settings', 'SELECT name, value AS v FROM redis_batch', '{name}');
SELECT redis_migrate.add_check('ledger', 'settings', 'number', 'v ~ ''^\d+$''');
CALL redis_migrate.run('ledger');
\! $R del set:b >/dev/null; $R set set:a bad >/dev/null
CALL redis_migrate.run('ledger', prune => true);
SELECT * FROM settings ORDER BY name;
SELECT * FROM last_rows('ledger');
-- on_delete as a SET list marks instead, even with a comment at its end.
\! $R del set:c >/dev/null
SELECT redis_migrate.alter_mapping('ledger', 'settings', on_delete => 'v = ''gone'' -- marked');
CALL redis_migrate.run('ledger', prune => true);
SELECT * FROM settings ORDER BY name;
SELECT redis_migrate.alter_mapping('ledger', 'settings', on_delete => 'keep');
\! $R del set:a >/dev/null
CALL redis_migrate.run('ledger', prune => true);
SELECT * FROM settings ORDER BY name;
SELECT redis_migrate.drop_migration('ledger');

\echo == an emptied Redis does not empty the targets, unless forced
CREATE TABLE owned (name text PRIMARY KEY, v text);
CREATE TABLE alone (name text PRIMARY KEY, v text);
CREATE TABLE stays (name text PRIMARY KEY);
SELECT redis_migrate.create_migration('emptied', 'shop');
\! $R flushall >/dev/null; $R mset o:1 1 o:2 2 a:1 1 a:2 2 a:3 3 s:1 1 >/dev/null
SELECT redis_migrate.add_mapping('emptied', 'owned', 'o:{name}', 'owned', 'SELECT name, value AS v FROM redis_batch', '{name}');
SELECT redis_migrate.add_mapping('emptied', 'alone', 'a:{name}', 'alone', 'SELECT name, value AS v FROM redis_batch', '{name}', databases => '{0}', exclusive => true);
SELECT redis_migrate.add_mapping('emptied', 'stays', 's:{name}', 'stays', 'SELECT name FROM redis_batch', '{name}', on_delete => 'keep');
SELECT redis_migrate.add_mapping('emptied', 'never', 'n:{name}', 'stays', 'SELECT name FROM redis_batch', '{name}');
CALL redis_migrate.run('emptied');
\! $R flushall >/dev/null; $R set o:1 1 >/dev/null
CALL redis_migrate.run('emptied', prune => true);
SELECT state, read, prune, force, rows_deleted FROM redis_migrate.runs WHERE run_id = last_run_id('emptied');
SELECT mapping, deleted, prune, prune_detail FROM redis_migrate.mapping_counts WHERE run_id = last_run_id('emptied');
SELECT (SELECT count(*) FROM owned) AS owned, (SELECT count(*) FROM alone) AS alone, (SELECT count(*) FROM stays) AS stays;
\! $R flushall >/dev/null
CALL redis_migrate.run('emptied', mapping => 'owned', prune => true);
-- A dry run tells how many rows a prune would remove, and removes none; its warning names the verification.
\! psql -Xqc "CALL redis_migrate.run('emptied', dry_run => true, prune => true)" 2>&1 | grep 'would remove'
\! psql -Xqc "CALL redis_migrate.run('emptied', prune => true, force => true)" 2>&1 | sed 's|, [0-9]* keys/s||; s/run [0-9]* of/run N of/; s/of run [0-9]*$/of run N/'
SELECT mapping, deleted, prune, prune_detail FROM redis_migrate.mapping_counts WHERE run_id = last_run_id('emptied');
SELECT prune, force, rows_deleted FROM redis_migrate.runs WHERE run_id = last_run_id('emptied');
SELECT (SELECT count(*) FROM owned) AS owned, (SELECT count(*) FROM alone) AS alone, (SELECT count(*) FROM stays) AS stays;
SELECT redis_migrate.drop_migration('emptied');
DROP TABLE owned, alone, stays;

\echo == two keys, one row: the lowest key has it, until it goes
CREATE TABLE shared (id text PRIMARY KEY, key text);
SELECT redis_migrate.create_migration('shared', 'shop');
\! $R flushall >/dev/null; $R mset k:2 same k:1 same k:3 own >/dev/null
SELECT redis_migrate.add_mapping('shared', 'shared', 'k:{n}', 'shared', 'SELECT value AS id, key FROM redis_batch', '{id}');
CALL redis_migrate.run('shared');
SELECT * FROM shared ORDER BY id;
SELECT * FROM last_keys('shared');
SET pg_redis_migrate.batch_rows = 1;
CALL redis_migrate.run('shared');
SELECT * FROM shared ORDER BY id;
SELECT * FROM last_keys('shared');
RESET pg_redis_migrate.batch_rows;
-- A lower key takes the row over.
\! $R set k:0 same >/dev/null
CALL redis_migrate.run('shared');
SELECT * FROM shared ORDER BY id;
-- It is not the former owner's any more.
\! $R set k:1 another >/dev/null
SET pg_redis_migrate.batch_rows = 1;
CALL redis_migrate.run('shared');
SELECT * FROM shared ORDER BY id;
SELECT deleted FROM last_rows('shared');
RESET pg_redis_migrate.batch_rows;
\! $R set k:1 same >/dev/null
CALL redis_migrate.run('shared');
-- The owner goes: the row stays, and is the next key's at the next run.
\! $R del k:0 >/dev/null
CALL redis_migrate.run('shared', prune => true);
SELECT * FROM shared ORDER BY id;
CALL redis_migrate.run('shared', prune => true);
SELECT * FROM shared ORDER BY id;
-- A key that yields another row gives the old one up.
\! $R set k:3 other >/dev/null
CALL redis_migrate.run('shared');
SELECT * FROM shared ORDER BY id;
SELECT redis_migrate.drop_migration('shared');

\echo == the identity of a row is the same in every session
CREATE TABLE identities (b bytea, t timestamptz, n numeric, c char(5), PRIMARY KEY (b, t, n, c));
SELECT redis_migrate.create_migration('identity', 'shop');
\! $R flushall >/dev/null; $R mset i:a 1.0 i:b 2 >/dev/null
SELECT redis_migrate.add_mapping('identity', 'i', 'i:{c}', 'identities',
    $$SELECT key_bytes AS b, '2024-07-01 12:00+00'::timestamptz AS t, value::numeric AS n, c FROM redis_batch$$, '{b,t,n,c}');
CALL redis_migrate.run('identity');
SET bytea_output = 'escape';
SET extra_float_digits = 0;
SELECT redis_migrate.alter_mapping('identity', 'i', source_timezone => 'Asia/Kathmandu');
-- The same number written otherwise is the same row.
\! $R set i:a 1.00 >/dev/null
CALL redis_migrate.run('identity', prune => true);
SELECT * FROM last_rows('identity');
SELECT * FROM identities ORDER BY n;
\! $R set i:b 3 >/dev/null
CALL redis_migrate.run('identity');
SELECT * FROM identities ORDER BY n;
RESET bytea_output;
RESET extra_float_digits;
SELECT redis_migrate.drop_migration('identity');

\echo == other key columns: the old ledger says nothing of the new rows
CREATE TABLE rekeyed (id int UNIQUE NOT NULL, n int UNIQUE NOT NULL, note text);
INSERT INTO rekeyed VALUES (50, 1, 'of others, n = 1');
SELECT redis_migrate.create_migration('rekey', 'shop');
\! $R flushall >/dev/null; $R set r:1 7 >/dev/null
SELECT redis_migrate.add_mapping('rekey', 'r', 'r:{k:int}', 'rekeyed', 'SELECT k AS id, value::int AS n FROM redis_batch', '{id}');
CALL redis_migrate.run('rekey');
SELECT redis_migrate.alter_mapping('rekey', 'r', key_columns => '{n}');
CALL redis_migrate.run('rekey', prune => true);
SELECT * FROM rekeyed ORDER BY n;
SELECT redis_migrate.drop_migration('rekey');

\echo == source archive: keys are mapped later
CREATE TABLE later (key text PRIMARY KEY, v text, expires_at timestamptz);
SELECT redis_migrate.create_migration('later', 'shop');
\! $R flushall >/dev/null; $R mset late:1 one late:2 two >/dev/null; $R set late:3 three pxat 4102444800123 >/dev/null
CALL redis_migrate.run('later');
\! $R flushall >/dev/null
SELECT redis_migrate.add_mapping('later', 'late', 'late:{n}', 'later', 'SELECT key, value AS v, expires_at FROM redis_batch', '{key}');
SELECT key, outcome, target_row FROM redis_migrate.preview('later');
CALL redis_migrate.run('later', source => 'archive');
SELECT * FROM last_run('later');
SELECT * FROM later ORDER BY key;
SELECT redis_migrate.alter_migration('later', source => 'archive');
SELECT key, outcome, reason FROM redis_migrate.preview('later');
CALL redis_migrate.run('later', prune => true);
SELECT redis_migrate.drop_migration('later');

\echo == the settings of the definition hold in every session
CREATE SCHEMA app;
CREATE FUNCTION app.tag() RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'app'$$;
CREATE FUNCTION public.tag() RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'public'$$;
CREATE TABLE app.events (id int PRIMARY KEY, tag text, day date, at timestamptz, utc timestamptz, shown text, span text);
SELECT redis_migrate.create_migration('settings', 'shop');
\! $R flushall >/dev/null; $R set ev:1 '{"day": "01/02/2024", "at": "2024-07-01 12:00:00"}' >/dev/null
SET search_path = app, public;
SET datestyle = 'SQL, DMY';
SET intervalstyle = 'iso_8601';
SET timezone = 'America/New_York';
SELECT redis_migrate.add_mapping('settings', 'local', 'ev:{id:int}', 'events',
    $$SELECT id, tag() AS tag, (json->>'day')::date AS day, (json->>'at')::timestamptz AS at, '2024-01-01'::timestamp AS utc,
             '2024-02-01'::date::text AS shown, interval '1 day 2 hours'::text AS span FROM redis_batch$$, '{id}', source_timezone => 'Asia/Tokyo');
CALL redis_migrate.run('settings');
RESET search_path;
SET datestyle = 'ISO, YMD';
SET intervalstyle = 'postgres';
SET timezone = 'UTC';
SELECT * FROM app.events;
CALL redis_migrate.run('settings');
SELECT * FROM last_rows('settings');
SELECT redis_migrate.drop_migration('settings');
DROP SCHEMA app CASCADE;

\echo == databases
CREATE TABLE places (db int, key text, PRIMARY KEY (db, key));
SELECT redis_migrate.create_migration('databases', 'shop', databases => '{0,3}');
\! $R flushall >/dev/null; for db in 0 3 5; do $R -n $db set key:1 $db >/dev/null; $R -n $db set only:$db x >/dev/null; done
SELECT redis_migrate.add_mapping('databases', 'keys', 'key:{n}', 'places', 'SELECT db, key FROM redis_batch', '{db,key}');
SELECT redis_migrate.add_mapping('databases', 'only', 'only:{n}', 'places', 'SELECT db, key FROM redis_batch', '{db,key}', databases => '{3}');
CALL redis_migrate.run('databases');
SELECT * FROM last_keys('databases');
SELECT * FROM places ORDER BY 1, 2;
SELECT redis_migrate.drop_migration('databases');

\echo == targets: views, partitions, identity and generated columns, triggers that refuse
CREATE TABLE parted (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parted_eu PARTITION OF parted FOR VALUES IN ('eu');
CREATE VIEW simple AS SELECT id, name, email FROM users;
CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED);
CREATE TABLE stubborn (id int PRIMARY KEY, v text);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.v = 'raise' THEN RAISE EXCEPTION 'not this one'; END IF;
    IF new.v = 'drop' THEN RETURN NULL; END IF;
    RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON stubborn FOR EACH ROW EXECUTE FUNCTION refuse();
TRUNCATE users;
SELECT redis_migrate.create_migration('targets', 'shop');
\! $R flushall >/dev/null; $R mset p:1:eu a p:2:us b n:7 21 v:1 Ada s:1 good s:2 raise s:3 drop >/dev/null
SELECT redis_migrate.add_mapping('targets', 'parted', 'p:{id:int}:{region}', 'parted', 'SELECT id, region, value AS v FROM redis_batch', '{id,region}');
SELECT redis_migrate.add_mapping('targets', 'numbered', 'n:{id:int}', 'numbered', 'SELECT id, value::int AS v FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('targets', 'view', 'v:{id:int}', 'simple', 'SELECT id, value AS name FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('targets', 'stubborn', 's:{id:int}', 'stubborn', 'SELECT id, value AS v FROM redis_batch', '{id}');
CALL redis_migrate.run('targets');
SELECT * FROM last_rejects('targets');
SELECT * FROM parted;
SELECT * FROM numbered;
-- The sequence has moved past what came from Redis.
INSERT INTO numbered (v) VALUES (1) RETURNING id;
SELECT * FROM simple;
SELECT * FROM stubborn;
\! $R set v:1 Augusta >/dev/null; $R set n:7 22 >/dev/null; $R del p:1:eu >/dev/null
CALL redis_migrate.run('targets', prune => true, force => true);
SELECT * FROM last_rows('targets');
SELECT * FROM numbered ORDER BY id;
SELECT * FROM simple;
-- A target that is gone stops the run.
DROP TABLE stubborn;
CALL redis_migrate.run('targets');
SELECT state, sqlstate, message FROM redis_migrate.runs WHERE run_id = last_run_id('targets');
SELECT redis_migrate.drop_migration('targets');

\echo == whose process is gone is interrupted, also when another one has been given its number
BEGIN;
UPDATE redis_migrate.run SET state = 'running', pid = pg_backend_pid(), updated_at = clock_timestamp() WHERE run_id = last_run_id('run');
SELECT state FROM last_run('run');
SELECT state, pid = pg_backend_pid() FROM redis_migrate.progress;
UPDATE redis_migrate.run AS r SET updated_at = a.backend_start - interval '1 second' FROM pg_stat_activity AS a
    WHERE a.pid = pg_backend_pid() AND r.run_id = last_run_id('run');
SELECT state FROM last_run('run');
SELECT state FROM redis_migrate.progress;
UPDATE redis_migrate.run SET pid = 0, updated_at = clock_timestamp() WHERE run_id = last_run_id('run');
SELECT state FROM last_run('run');
ROLLBACK;

SELECT redis_migrate.drop_migration('run');
SELECT count(*) FROM redis_migrate.run;
SELECT count(*) FROM redis_migrate.ledger;
SELECT count(*) FROM redis_migrate.archived_key;
DROP VIEW simple;
DROP TABLE users, versions, log, ordered, child, parent, left_half, right_half, hits, filtered, elements, settings, shared, identities,
    rekeyed, later, places, parted, numbered;
DROP FUNCTION note, refuse, public.tag;
