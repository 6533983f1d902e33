-- Bad elements, properties that are taken back, exclusive mappings with typed captures, sequences that end.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
-- Rows are deleted here and come back, of which runs warn.
SET client_min_messages = error;
\pset null NULL
\pset format unaligned
SELECT redis_migrate.create_migration('e', 'shop', databases => '{0}');

\echo == an element whose own text or JSON cannot be read costs only itself
CREATE TABLE item (key text, n int, v text, PRIMARY KEY (key, n));
\! $R rpush l:text a "$(printf '\303\050')" c >/dev/null; $R rpush l:bad "$(printf '\377')" "$(printf '\376')" >/dev/null; $R rpush l:good x y >/dev/null
\! $R rpush l:nul 1 2 >/dev/null; $R eval "redis.call('RPUSH', 'l:nul', 'a\0b')" 0 >/dev/null
SELECT redis_migrate.add_mapping('e', 'text', 'l:*', 'item', 'SELECT key, "position" AS n, value AS v FROM redis_batch', '{key,n}',
    expand => 'elements', atomic => 'element', databases => '{0}', exclusive => true);
CALL redis_migrate.run('e');
SELECT * FROM last_run('e');
SELECT * FROM last_keys('e');
SELECT * FROM last_rejects('e');
SELECT * FROM item ORDER BY key, n;
-- Without it the key is refused.
TRUNCATE item;
SELECT redis_migrate.alter_mapping('e', 'text', atomic => 'key');
CALL redis_migrate.run('e');
SELECT * FROM last_keys('e');
SELECT * FROM last_rejects('e');
SELECT count(*) FROM item;
-- JSON, and members, fields, entries.
CREATE TABLE as_json (key text, field text, j jsonb, PRIMARY KEY (key, field));
\! $R hset h:1 good '{"a": 1}' bad '{"a": ' empty '' also '[]' >/dev/null
\! $R hset h:2 bad nonsense >/dev/null
\! $R xadd x:1 1-1 f v >/dev/null; $R xadd x:1 2-1 f "$(printf '\377')" >/dev/null; $R xadd x:1 3-1 f w >/dev/null
SELECT redis_migrate.add_mapping('e', 'json', 'h:*', 'as_json', 'SELECT key, field, json AS j FROM redis_batch', '{key,field}',
    expand => 'elements', atomic => 'element');
SELECT redis_migrate.add_mapping('e', 'stream', 'x:*', 'as_json', 'SELECT key, entry_id AS field, json AS j FROM redis_batch', '{key,field}',
    expand => 'elements', atomic => 'element');
CALL redis_migrate.run('e', mapping => 'json');
SELECT * FROM last_rejects('e');
CALL redis_migrate.run('e', mapping => 'stream');
SELECT * FROM last_rejects('e');
SELECT * FROM as_json ORDER BY key, field;
-- Together with elements that the target refuses.
TRUNCATE as_json;
ALTER TABLE as_json ADD CONSTRAINT no_list CHECK (jsonb_typeof(j) <> 'array');
CALL redis_migrate.run('e', mapping => 'json');
SELECT * FROM last_keys('e') WHERE outcome <> 'skipped';
SELECT * FROM last_rejects('e');
SELECT * FROM as_json ORDER BY key, field;
SELECT redis_migrate.drop_mapping('e', m) FROM unnest('{text,json,stream}'::text[]) AS m;

\echo == properties that become NULL again
CREATE TABLE plain (id text PRIMARY KEY);
SELECT redis_migrate.add_mapping('e', 'first', 'f:{id}', 'plain', 'SELECT id FROM redis_batch', '{id}', on_delete => 'keep');
SELECT redis_migrate.add_mapping('e', 'second', 's:{id}', 'plain', 'SELECT id FROM redis_batch', '{id}', on_delete => 'keep',
    types => '{string}', databases => '{0}', depends_on => '{first}');
SELECT mapping, expand, types, databases, depends_on FROM redis_migrate.mappings ORDER BY mapping;
SELECT redis_migrate.alter_mapping('e', 'second', reset => '{types}');
SELECT redis_migrate.alter_mapping('e', 'second', reset => ARRAY['depends_on', 'databases'], types => '{list}');
SELECT mapping, expand, types, databases, depends_on FROM redis_migrate.mappings ORDER BY mapping;
ALTER TABLE plain ADD value text;
SELECT redis_migrate.alter_mapping('e', 'second', expand => 'elements');
SELECT redis_migrate.alter_mapping('e', 'second', reset => '{expand}');
SELECT mapping, expand, types, databases, depends_on FROM redis_migrate.mappings ORDER BY mapping;
SELECT refused($$SELECT redis_migrate.alter_mapping('e', 'second', reset => '{query}')$$);
SELECT refused($$SELECT redis_migrate.alter_mapping('e', 'second', reset => '{types}', types => '{list}')$$);
SELECT redis_migrate.alter_migration('e', reset => '{databases}');
SELECT databases FROM redis_migrate.migrations;
SELECT refused($$SELECT redis_migrate.alter_migration('e', reset => '{server}')$$);
SELECT redis_migrate.drop_mapping('e', m) FROM unnest('{second,first}'::text[]) AS m;
DROP TABLE plain;

\echo == exclusive mappings by typed captures: one spelling of a value is taken
\! $R flushall >/dev/null
CREATE TABLE typed (u uuid, a inet, d date, m date, n numeric, v text, PRIMARY KEY (u, a, d, m, n));
SELECT redis_migrate.add_mapping('e', 'typed', 't:{u:uuid}/{a:inet}/{d:date}/{m:month}/{n:number}', 'typed',
    'SELECT u, a, d, m, n, value AS v FROM redis_batch', '{u,a,d,m,n}', databases => '{0}', exclusive => true);
\! for key in 123e4567-e89b-12d3-a456-426614174000/2001:db8::1/2024-02-29/2024-02/1.5 123E4567-e89b-12d3-a456-426614174000/10.0.0.1/2024-02-29/2024-02/1.5 123e4567-e89b-12d3-a456-426614174000/2001:db8:0::1/2024-02-29/2024-02/1.5 123e4567-e89b-12d3-a456-426614174000/10.0.0.1/20240229/2024-02/1.5 123e4567-e89b-12d3-a456-426614174000/10.0.0.1/2024-02-29/202402/1.5 123e4567-e89b-12d3-a456-426614174000/10.0.0.1/2024-02-29/2024-02/1.50; do $R set t:$key v >/dev/null; done
CALL redis_migrate.run('e');
SELECT * FROM last_run('e');
SELECT rule, message FROM redis_migrate.rejects WHERE run_id = last_run_id('e') ORDER BY key_bytes;
SELECT * FROM typed;
-- Where the key itself tells rows apart, every spelling is taken.
TRUNCATE typed;
ALTER TABLE typed DROP CONSTRAINT typed_pkey, ADD key text PRIMARY KEY;
SELECT redis_migrate.alter_mapping('e', 'typed', query => 'SELECT key, u, a, d, m, n, value AS v FROM redis_batch', key_columns => '{key}');
CALL redis_migrate.run('e');
SELECT * FROM last_run('e');
-- A column that rounds would take two numbers for one.
CREATE TABLE rounded (n numeric(10,1) PRIMARY KEY);
SELECT refused($$SELECT redis_migrate.add_mapping('e', 'r', 'r:{n:number}', 'rounded', 'SELECT n FROM redis_batch', '{n}', databases => '{0}', exclusive => true)$$);
SELECT redis_migrate.drop_mapping('e', 'typed');
-- Without exclusive nothing is refused for its spelling; the ledger decides.
CREATE TABLE loose (u uuid PRIMARY KEY, v text);
\! $R flushall >/dev/null; $R mset l:123E4567-e89b-12d3-a456-426614174000 upper l:123e4567-e89b-12d3-a456-426614174000 lower >/dev/null
SELECT redis_migrate.add_mapping('e', 'loose', 'l:{u:uuid}', 'loose', 'SELECT u, value AS v FROM redis_batch', '{u}', databases => '{0}', on_delete => 'keep');
CALL redis_migrate.run('e');
SELECT * FROM last_keys('e');
SELECT v FROM loose;
SELECT redis_migrate.drop_mapping('e', 'loose');

\echo == a sequence is set to what it can reach
\! $R flushall >/dev/null; $R mset i:7 a i:20 b i:5000000000 c >/dev/null
CREATE TABLE numbered (id bigint PRIMARY KEY, v text);
CREATE SEQUENCE short AS integer MAXVALUE 1000 OWNED BY numbered.id;
ALTER TABLE numbered ALTER id SET DEFAULT nextval('short');
SELECT redis_migrate.add_mapping('e', 'numbered', 'i:{id:int}', 'numbered', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}', exclusive => true);
CALL redis_migrate.run('e');
SELECT * FROM last_run('e');
INSERT INTO numbered (v) VALUES ('next') RETURNING id;
SELECT redis_migrate.drop_migration('e');
DROP TABLE item, as_json, typed, rounded, loose, numbered;
