-- The columns of redis_batch for each type of value, beside what redis-cli says.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT redis_migrate.create_migration('types', 'shop');

\echo == strings: text, number, json, bytes
\! $R mset s:text 'häuser' s:int 42 s:json '{"a": [1, "x"], "b": null}' s:empty '' s:float 3.5 >/dev/null
\! printf '\377\000\001' | $R -x set s:bytes >/dev/null
CREATE TABLE strings (id text PRIMARY KEY, key text, key_bytes bytea, db integer, type text, value text, value_bytes bytea);
SELECT redis_migrate.add_mapping('types', 'strings', 's:{id}', 'strings',
    'SELECT id, key, key_bytes, db, type, value_bytes FROM redis_batch', '{id}');
CALL redis_migrate.run('types');
SELECT id, key, key_bytes, db, type, value, value_bytes, octet_length(value_bytes) AS strlen FROM strings ORDER BY id;
\! for k in bytes empty float int json text; do echo $k $($R strlen s:$k); done
-- preview leaves bytes out unless it is asked for them.
SELECT b AS bytes, target_row FROM unnest('{false,true}'::boolean[]) AS b, redis_migrate.preview('types', bytes => b) WHERE key = 's:int' ORDER BY b;
-- Values as text: the one that is none is rejected, the others are stored.
SELECT redis_migrate.alter_mapping('types', 'strings', query => 'SELECT id, value FROM redis_batch');
CALL redis_migrate.run('types');
SELECT id, value FROM strings ORDER BY id;
SELECT * FROM last_rejects('types');
-- Values as JSON: empty, not JSON, and numbers, which are.
CREATE TABLE documents (id text PRIMARY KEY, doc jsonb);
SELECT redis_migrate.alter_mapping('types', 'strings', target => 'documents', query => 'SELECT id, json AS doc FROM redis_batch');
CALL redis_migrate.run('types');
SELECT id, doc FROM documents ORDER BY id;
SELECT * FROM last_rejects('types');
SELECT redis_migrate.drop_mapping('types', 'strings');

\echo == keys that are not text
\! printf 'SET "b:\\xff\\x00" binary\r\n' | $R >/dev/null
CREATE TABLE binary_keys (key_bytes bytea PRIMARY KEY, key text, value text);
SELECT redis_migrate.add_mapping('types', 'bytes', 'b:{id}', 'binary_keys', 'SELECT key_bytes, value FROM redis_batch', '{key_bytes}');
CALL redis_migrate.run('types');
SELECT * FROM binary_keys;
SELECT redis_migrate.alter_mapping('types', 'bytes', query => 'SELECT key_bytes, key, value FROM redis_batch');
CALL redis_migrate.run('types');
SELECT * FROM last_rejects('types');
SELECT redis_migrate.alter_mapping('types', 'bytes', query => 'SELECT key_bytes, id AS value FROM redis_batch');
CALL redis_migrate.run('types');
SELECT * FROM last_rejects('types');
SELECT redis_migrate.drop_mapping('types', 'bytes');

\echo == expiry is absolute
\! $R set e:never x >/dev/null; $R set e:later x pxat 4102444800123 >/dev/null; $R pexpiretime e:later
CREATE TABLE expiries (id text PRIMARY KEY, expires_at timestamptz);
SELECT redis_migrate.add_mapping('types', 'expiries', 'e:{id}', 'expiries', 'SELECT id, expires_at FROM redis_batch', '{id}');
CALL redis_migrate.run('types');
SELECT id, expires_at, (extract(epoch FROM expires_at) * 1000)::int8 AS pexpiretime FROM expiries ORDER BY id;
SELECT redis_migrate.drop_mapping('types', 'expiries');

\echo == hashes
\! $R hset h:1 name Ada born 1815 '' 'empty name' empty '' >/dev/null
CREATE TABLE people (id int PRIMARY KEY, name text, born int, missing text, doc jsonb);
SELECT redis_migrate.add_mapping('types', 'hash', 'h:{id:int}', 'people',
    $$SELECT id, redis_migrate.field(payload, 'name') AS name, redis_migrate.field(payload, 'born')::int AS born,
             redis_migrate.field(payload, 'nosuch') AS missing, json AS doc FROM redis_batch$$, '{id}');
CREATE TABLE fields (id int, field text, value text, PRIMARY KEY (id, field));
SELECT redis_migrate.add_mapping('types', 'fields', 'h:{id:int}', 'fields', 'SELECT id, field, value FROM redis_batch', '{id,field}', expand => 'elements');
CALL redis_migrate.run('types');
SELECT * FROM people;
SELECT * FROM fields ORDER BY field;
\! $R --json hgetall h:1
-- A field that is gone takes its row along.
\! $R hdel h:1 born >/dev/null
CALL redis_migrate.run('types');
SELECT * FROM fields ORDER BY field;
SELECT redis_migrate.drop_mapping('types', 'fields'), redis_migrate.drop_mapping('types', 'hash');

\echo == lists
\! $R rpush l:1 first '' 3 first >/dev/null
CREATE TABLE items (list text, pos bigint, ord bigint, value text, json jsonb, PRIMARY KEY (list, pos));
SELECT redis_migrate.add_mapping('types', 'list', 'l:{id}', 'items',
    'SELECT id AS list, position AS pos, ordinal AS ord, value FROM redis_batch', '{list,pos}', expand => 'elements');
CALL redis_migrate.run('types');
SELECT pos, ord, value FROM items ORDER BY ord;
\! $R lrange l:1 0 -1
-- Long lists, of several nodes and with large elements, keep their order.
\! (for i in $(seq 1 2000); do echo "rpush l:long element-$i"; done; echo "rpush l:long $(printf 'x%.0s' $(seq 1 9000))") | $R >/dev/null
CALL redis_migrate.run('types');
SELECT count(*), sum(CASE WHEN value = 'element-' || pos + 1 THEN 1 END) AS in_order, max(length(value)) FROM items WHERE list = 'long';
-- The whole list as one value.
CREATE TABLE whole (key text PRIMARY KEY, doc jsonb);
SELECT redis_migrate.drop_mapping('types', 'list');
SELECT redis_migrate.add_mapping('types', 'list', 'l:1', 'whole', 'SELECT key, json AS doc FROM redis_batch', '{key}');
CALL redis_migrate.run('types');
SELECT * FROM whole;
SELECT redis_migrate.drop_mapping('types', 'list');

\echo == sets
\! $R sadd set:words b a c >/dev/null; $R sadd set:ints 3 1 2 -7 >/dev/null
CREATE TABLE members (id text, member text, PRIMARY KEY (id, member));
SELECT redis_migrate.add_mapping('types', 'set', 'set:{id}', 'members', 'SELECT id, member FROM redis_batch', '{id,member}', expand => 'elements');
CALL redis_migrate.run('types');
SELECT id, string_agg(member, ' ' ORDER BY member COLLATE "C") FROM members GROUP BY id ORDER BY id;
\! echo $($R smembers set:ints | sort) / $($R smembers set:words | sort)
SELECT redis_migrate.drop_mapping('types', 'set');

\echo == sorted sets: ties go by member, scores may be infinite
\! $R zadd z:small 2 b 2 a 1.5 c inf top -inf bottom 1e300 huge 0.1 tenth >/dev/null
\! (for i in $(seq 1 300); do echo "zadd z:large $((i % 3)) m$i"; done) | $R >/dev/null
CREATE TABLE scores (id text, member text, score float8, pos bigint, PRIMARY KEY (id, member));
SELECT redis_migrate.add_mapping('types', 'zset', 'z:{id}', 'scores', 'SELECT id, member, score, position AS pos FROM redis_batch', '{id,member}', expand => 'elements');
CALL redis_migrate.run('types');
SELECT member, score, pos FROM scores WHERE id = 'small' ORDER BY pos;
\! $R zrange z:small 0 -1 withscores | paste -d' ' - -
\! $R object encoding z:large; $R zrange z:large 0 -1 | md5sum | cut -c1-32
SELECT md5(string_agg(member || E'\n', '' ORDER BY pos)) FROM scores WHERE id = 'large';
SELECT redis_migrate.drop_mapping('types', 'zset');
SELECT redis_migrate.add_mapping('types', 'zset', 'z:small', 'whole', 'SELECT key, json AS doc FROM redis_batch', '{key}');
CALL redis_migrate.run('types');
SELECT jsonb_array_elements(doc) FROM whole WHERE key = 'z:small';
SELECT redis_migrate.drop_mapping('types', 'zset');

\echo == streams: entries, groups, pending entries
\! $R xadd st:1 5-1 a 1 b 2 >/dev/null; $R xadd st:1 5-2 a 3 >/dev/null; $R xadd st:1 1700000000000-0 other 'ü' >/dev/null; $R xdel st:1 5-2 >/dev/null
\! $R xgroup create st:1 workers 0 >/dev/null; $R xgroup create st:1 idle '$' >/dev/null; $R xreadgroup group workers alice count 1 streams st:1 '>' >/dev/null
\! $R xadd st:2 1-0 a 1 >/dev/null; $R xadd st:2 2-0 a 2 >/dev/null; $R xgroup create st:2 readers 1-0 entriesread 1 >/dev/null; $R xreadgroup group readers bob streams st:2 '>' >/dev/null
CREATE TABLE entries (id text, entry_id text, pos bigint, doc jsonb, PRIMARY KEY (id, entry_id));
CREATE TABLE groups (id text, name text, last text, read bigint, PRIMARY KEY (id, name));
CREATE TABLE pending (id text, name text, entry_id text, consumer text, recent boolean, count bigint, PRIMARY KEY (id, name, entry_id));
SELECT redis_migrate.add_mapping('types', 'entries', 'st:{id}', 'entries', 'SELECT id, entry_id, position AS pos, json AS doc FROM redis_batch', '{id,entry_id}', expand => 'elements');
SELECT redis_migrate.add_mapping('types', 'groups', 'st:{id}', 'groups', 'SELECT id, group_name AS name, last_delivered_id AS last, entries_read AS read FROM redis_batch', '{id,name}', expand => 'groups');
SELECT redis_migrate.add_mapping('types', 'pending', 'st:{id}', 'pending',
    $$SELECT id, group_name AS name, entry_id, consumer, delivered_at > '2020-01-01' AS recent, delivery_count AS count FROM redis_batch$$, '{id,name,entry_id}', expand => 'pending');
CALL redis_migrate.run('types');
SELECT * FROM entries ORDER BY id, pos;
\! $R xrange st:1 - +
SELECT * FROM groups ORDER BY id, name;
\! ($R xinfo groups st:1; $R xinfo groups st:2) | paste -d' ' - - - - - - - - - - - - | cut -d' ' -f 2,8,10
SELECT * FROM pending ORDER BY id;
\! ($R xpending st:1 workers - + 10; $R xpending st:2 readers - + 10) | paste -d' ' - - - - | cut -d' ' -f 1,2,4
-- A stream without pending entries yields no row, which no_row has to allow.
\! $R xack st:1 workers 5-1 >/dev/null; $R xack st:2 readers 2-0 >/dev/null
CALL redis_migrate.run('types');
SELECT * FROM last_rejects('types');
SELECT redis_migrate.alter_mapping('types', 'pending', no_row => 'skip');
CALL redis_migrate.run('types');
SELECT * FROM last_keys('types') WHERE pattern IS NOT NULL;
SELECT count(*) FROM pending;
SELECT redis_migrate.drop_mapping('types', 'entries'), redis_migrate.drop_mapping('types', 'groups'), redis_migrate.drop_mapping('types', 'pending');

\echo == types that do not fit
SELECT redis_migrate.add_mapping('types', 'pending', 's:{id}', 'pending',
    'SELECT id, group_name AS name, entry_id FROM redis_batch', '{id,name,entry_id}', expand => 'pending');
SELECT redis_migrate.add_mapping('types', 'elements', 'e:{id}', 'members', 'SELECT id, member FROM redis_batch', '{id,member}', expand => 'elements');
SELECT redis_migrate.add_mapping('types', 'strings', 'set:{id}', 'documents', 'SELECT id, json AS doc FROM redis_batch', '{id}', types => '{string,hash}');
CALL redis_migrate.run('types');
SELECT * FROM last_rejects('types');
SELECT redis_migrate.drop_mapping('types', 'pending'), redis_migrate.drop_mapping('types', 'elements'), redis_migrate.drop_mapping('types', 'strings');

\echo == captures as values of their types
\! $R set cap:-9223372036854775808:12.50:A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11:2001:db8::1:20240229:2024-02:Ff:me@example.org 1 >/dev/null
\! $R set cap:x:1:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11:::1:2024-02-30:2024-02:Ff:me@example.org 1 >/dev/null
CREATE TABLE captures (b bigint, c numeric, d uuid, e inet, f date, g date, h text, i text, id text PRIMARY KEY);
SELECT redis_migrate.add_mapping('types', 'captures', 'cap:{b:int}:{c:number}:{d:uuid}:{e:inet}:{f:date}:{g:month}:{h:hex}:{i:email}', 'captures',
    'SELECT b, c, d, e, f, g, h, i, key AS id FROM redis_batch', '{id}');
CALL redis_migrate.run('types');
SELECT b, c, d, e, f, g, h, i FROM captures;
SELECT * FROM last_rejects('types');
SELECT redis_migrate.drop_mapping('types', 'captures');

\echo == functions over payloads, and the archive, whose payloads RESTORE takes
DELETE FROM redis_migrate.archived_key WHERE migration = 'types';
CALL redis_migrate.run('types');
SELECT type, count(*) FROM redis_migrate.archive WHERE migration = 'types' GROUP BY type ORDER BY type;
SELECT e.position, e.field, e.member, e.score, e.entry_id, e.value, e.json
FROM redis_migrate.archive AS a, redis_migrate.elements(a.payload) AS e
WHERE a.key IN ('z:small', 'st:1', 'l:1', 's:json', 's:bytes') ORDER BY a.key, e.position;
SELECT redis_migrate.field(payload, 'name') AS name, redis_migrate.field(payload, 'nosuch') AS nosuch FROM redis_migrate.archive WHERE key = 'h:1';
SELECT redis_migrate.field(payload, 'name') AS name FROM redis_migrate.archive WHERE key = 's:text';
SELECT refused(format('SELECT * FROM redis_migrate.elements(%L)', set_byte(payload, 3, 99))) FROM redis_migrate.archive WHERE key = 's:text';
SELECT refused($$SELECT redis_migrate.field('\x', 'a')$$);
SELECT redis_migrate.bytes_as_text('\xc3a4'), redis_migrate.bytes_as_text('\xff'), redis_migrate.bytes_as_text('\x00');
SELECT redis_migrate.input_is_valid('2024-02-30', 'date'), redis_migrate.input_is_valid('{"a": 1}', 'jsonb'), redis_migrate.input_is_valid('9', 'smallint'), redis_migrate.input_is_valid(NULL, 'int');
\! /usr/bin/python3 $PG_ABS_SRCDIR/test/lib/python/restore.py types

SELECT redis_migrate.drop_migration('types');
DROP TABLE strings, documents, binary_keys, expiries, people, fields, items, whole, members, scores, entries, groups, pending, captures;
