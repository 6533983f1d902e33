-- Values as columns: fields of streams, bytes that are no text, and work on payloads that can be cancelled.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
SET timezone = 'UTC';
SET bytea_output = hex;
CREATE SCHEMA vals;
SET search_path = vals, public;
SELECT redis_migrate.create_migration('values', 'shop');

\echo == an entry that has a field twice keeps both values
\! $R xadd ev:twice 1-1 a 1 b 2 a 3 c 4 >/dev/null
\! $R xadd ev:twice 2-1 a 1 b 2 >/dev/null
\! printf 'XADD ev:binary 1-1 f\\xff v g "\\xfe\\x00"\r\n' | sed 's/f\\xff/"f\\xff"/' | $R >/dev/null
\! printf 'XGROUP CREATE ev:binary "g\\xff" 0\r\nXREADGROUP GROUP "g\\xff" "c\\xfe" STREAMS ev:binary >\r\n' | $R >/dev/null
CREATE TABLE streams (stream text PRIMARY KEY, doc jsonb);
SELECT redis_migrate.add_mapping('values', 'streams', 'ev:{stream}', 'streams', 'SELECT stream, json AS doc FROM redis_batch', '{stream}');
CALL redis_migrate.run('values');
SELECT * FROM streams ORDER BY stream;
SELECT * FROM last_rejects('values');
SELECT e.entry_id, e.json, e.fields_bytes FROM redis_migrate.rejects AS r, redis_migrate.elements(r.payload) AS e
WHERE r.run_id = last_run_id('values');
SELECT redis_migrate.drop_mapping('values', 'streams');

\echo == only what is asked for must be text
CREATE TABLE entries (stream text, id text, fields bytea[], PRIMARY KEY (stream, id));
SELECT redis_migrate.add_mapping('values', 'entries', 'ev:{stream}', 'entries',
    'SELECT stream, entry_id AS id, fields_bytes AS fields FROM redis_batch', '{stream, id}', expand => 'elements');
CREATE TABLE pending (stream text, id text, group_bytes bytea, consumer_bytes bytea, PRIMARY KEY (stream, id));
SELECT redis_migrate.add_mapping('values', 'pending', 'ev:{stream}', 'pending',
    'SELECT stream, entry_id AS id, group_name_bytes AS group_bytes, consumer_bytes FROM redis_batch', '{stream, id}',
    expand => 'pending', no_row => 'skip');
CALL redis_migrate.run('values');
SELECT * FROM entries ORDER BY stream, id;
SELECT * FROM pending;
SELECT * FROM last_rejects('values');

\echo == collections as JSON: what is no text is rejected by value_encoding
\! printf 'HSET c:hash f "\\xff"\r\nHSET c:field "\\xff" v\r\nRPUSH c:list "\\xff"\r\nSADD c:set "a\\x00b"\r\nZADD c:zset 1 "\\xff"\r\n' | $R >/dev/null
\! printf 'SET c:string "\\"\\xff\\""\r\nSET c:zero "\\"\\\\u0000\\""\r\nSET c:twice "{\\"a\\":1,\\"a\\":2}"\r\nSET c:none text\r\n' | $R >/dev/null
CREATE TABLE collections (name text PRIMARY KEY, doc jsonb);
SELECT redis_migrate.add_mapping('values', 'collections', 'c:{name}', 'collections', 'SELECT name, json AS doc FROM redis_batch', '{name}');
CALL redis_migrate.run('values');
-- If a name stands twice in an object, jsonb keeps the last value.
SELECT * FROM collections;
SELECT key, rule, message FROM last_rejects('values');
CREATE TABLE elements (name text, value_bytes bytea, doc jsonb, PRIMARY KEY (name, value_bytes));
SELECT redis_migrate.drop_mapping('values', 'collections');
SELECT redis_migrate.add_mapping('values', 'elements', 'c:{name}', 'elements', 'SELECT name, value_bytes, json AS doc FROM redis_batch',
    '{name, value_bytes}', expand => 'elements', types => '{list,hash,set}');
CALL redis_migrate.run('values');
SELECT key, rule FROM last_rejects('values');

\echo == fields by their bytes
SELECT redis_migrate.field_bytes(payload, '\xff'), redis_migrate.field(payload, 'v'), redis_migrate.field_bytes(payload, 'v')
FROM redis_migrate.rejects WHERE run_id = last_run_id('values') AND key = 'c:field';
SELECT refused(format('SELECT redis_migrate.field(%L, %L)', payload, 'f'))
FROM redis_migrate.rejects WHERE run_id = last_run_id('values') AND key = 'c:hash';
SELECT e.field, e.field_bytes, e.value, e.value_bytes FROM redis_migrate.rejects AS r, redis_migrate.elements(r.payload) AS e
WHERE run_id = last_run_id('values') AND key IN ('c:field', 'c:hash') ORDER BY key;

\echo == fields that expire: a hash of Redis 7.4
SELECT field, value, field_expires_at FROM redis_migrate.elements(
    '\x18e80300000000000002000161013102016201320c000000000000000000') ORDER BY field;

\echo == an array of Redis 8.8
SELECT field, value, json FROM redis_migrate.elements(
    '\x1c04000000016101012a000000000000000202000000000000f83f81fffffffffffffffe03036162630e000000000000000000');

\echo == payloads of millions of elements can be cancelled
CREATE FUNCTION payload(type text, body bytea) RETURNS bytea LANGUAGE sql AS
    $$SELECT decode(type, 'hex') || body || '\x0c000000000000000000'::bytea$$;
CREATE FUNCTION zeros(n int) RETURNS bytea LANGUAGE sql AS $$SELECT decode(repeat('00', n), 'hex')$$;
CREATE TABLE payloads (name text PRIMARY KEY, payload bytea);
INSERT INTO payloads VALUES
    ('list', payload('01', '\x80002dc6c0' || zeros(3000000))),
    ('set', payload('02', '\x80002dc6c0' || zeros(3000000))),
    ('hash', payload('04', '\x80002dc6c0' || zeros(6000000))),
    ('zset', payload('05', '\x80002dc6c0' || zeros(27000000))),
    ('intset', payload('0b', '\x80005b8d8802000000c0c62d00' || zeros(6000000))),
    ('expiring hash', payload('16', '\x80002dc6c0' || zeros(9000000)));
-- 3,000,000 zeros, compressed: 264 of them take three bytes.
INSERT INTO payloads SELECT 'compressed intset',
    payload('0b', '\xc38000010a6380005b8d880702000000c0c62d000000' || decode(repeat('e0ff00', 22727), 'hex') || '\xe03e00'::bytea);
SELECT octet_length(payload) FROM payloads WHERE name = 'compressed intset';
CREATE FUNCTION cancelled(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz := clock_timestamp();
BEGIN
    EXECUTE statement;
    RETURN 'not cancelled';
EXCEPTION WHEN query_canceled THEN
    RETURN CASE WHEN clock_timestamp() - began < '10 s' THEN 'in time' ELSE 'too late' END;
END
$$;
SET statement_timeout = '500ms';
SELECT cancelled($$SELECT count(*) FROM redis_migrate.elements((SELECT payload FROM payloads WHERE name = 'list'))$$);
SELECT cancelled($$SELECT count(*) FROM redis_migrate.elements((SELECT payload FROM payloads WHERE name = 'set'))$$);
SELECT cancelled($$SELECT count(*) FROM redis_migrate.elements((SELECT payload FROM payloads WHERE name = 'hash'))$$);
SELECT cancelled($$SELECT count(*) FROM redis_migrate.elements((SELECT payload FROM payloads WHERE name = 'zset'))$$);
SELECT cancelled($$SELECT count(*) FROM redis_migrate.elements((SELECT payload FROM payloads WHERE name = 'intset'))$$);
SELECT cancelled($$SELECT count(*) FROM redis_migrate.elements((SELECT payload FROM payloads WHERE name = 'expiring hash'))$$);
SELECT cancelled($$SELECT count(*) FROM redis_migrate.elements((SELECT payload FROM payloads WHERE name = 'compressed intset'))$$);
RESET statement_timeout;
SET client_min_messages = warning;
DROP SCHEMA vals CASCADE;
SELECT redis_migrate.drop_migration('values');
