-- Verifications: findings, messages, options.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, age int);
CREATE TABLE sessions (token text PRIMARY KEY, data text, expires_at timestamptz);
CREATE TABLE items (cart text, position bigint, value text, PRIMARY KEY (cart, position));
CREATE TABLE seen (id text PRIMARY KEY, value text, first_value text, hits int NOT NULL DEFAULT 0, gone boolean NOT NULL DEFAULT false);
CREATE TABLE mails (address text PRIMARY KEY, id text NOT NULL);
SELECT redis_migrate.create_migration('proof', 'shop');
SELECT redis_migrate.add_mapping('proof', 'users', 'user:{id:int}', 'users',
    $$SELECT id, json->>'name' AS name, (json->>'age')::int AS age FROM redis_batch$$, '{id}', types => '{hash}', databases => '{0}', exclusive => true);
SELECT redis_migrate.add_mapping('proof', 'sessions', 'session:{token}', 'sessions', 'SELECT token, value AS data, expires_at FROM redis_batch', '{token}');
SELECT redis_migrate.add_mapping('proof', 'items', 'cart:{cart}', 'items', 'SELECT cart, position, value FROM redis_batch', '{cart,position}', expand => 'elements');
SELECT redis_migrate.add_mapping('proof', 'seen', 'seen:{id}', 'seen', 'SELECT id, value, false AS gone FROM redis_batch', '{id}', on_delete => 'gone = true');
SELECT redis_migrate.add_mapping('proof', 'mails', 'mail:{id}', 'mails', 'SELECT value AS address, id FROM redis_batch', '{address}');
\! $R hset user:1 name Ada age 36 >/dev/null
\! $R hset user:2 name Bob age 41 >/dev/null
\! $R set session:a one EXAT 4102444800 >/dev/null
\! $R set session:b two >/dev/null
\! $R rpush cart:x p q r s >/dev/null
\! $R mset seen:1 x seen:2 y mail:1 ada@example.org mail:2 bob@example.org other:1 z >/dev/null
\! $R sadd other:2 a b c >/dev/null
CREATE FUNCTION last_counts() RETURNS TABLE (mapping text, checked bigint, equal bigint, missing bigint, extra bigint, different bigint, expiry_differs bigint, unsettled bigint)
    LANGUAGE sql AS 'SELECT mapping, checked, equal, missing, extra, different, expiry_differs, unsettled FROM redis_migrate.verification_counts
                     WHERE verification_id = (SELECT max(verification_id) FROM redis_migrate.verifications)';
CREATE FUNCTION last_differences() RETURNS TABLE (mapping text, kind text, key text, row_key text, column_name text, redis_value text, stored_value text)
    LANGUAGE sql AS 'SELECT mapping, kind, key, row_key, column_name, redis_value, stored_value FROM redis_migrate.verification_differences
                     WHERE verification_id = (SELECT max(verification_id) FROM redis_migrate.verifications)
                     ORDER BY mapping COLLATE "C", kind, key COLLATE "C", row_key COLLATE "C", column_name';
CREATE FUNCTION last_verdict() RETURNS TABLE (state text, keys_read bigint, keys_rejected bigint, verified boolean, reasons text[])
    LANGUAGE sql AS 'SELECT state, keys_read, keys_rejected, verified, reasons FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT 1';

\echo == before the first run everything is missing
\! psql -Xqc "CALL redis_migrate.verify('proof')" 2>&1 | sed 's/verification [0-9]*/verification N/; s/_id = [0-9]*/_id = N/'
SELECT * FROM last_verdict();
SELECT * FROM last_counts();
SELECT * FROM last_differences();

\echo == after it everything is equal
SET client_min_messages = error;
CALL redis_migrate.run('proof');
CALL redis_migrate.verify('proof');
SELECT * FROM last_verdict();
SELECT * FROM last_counts();
SELECT * FROM last_differences();
-- It leaves nothing behind but what it says.
SELECT count(*) FROM redis_migrate.verification_met;

\echo == each kind of difference
UPDATE users SET age = 37, name = 'Ade' WHERE id = 1;
INSERT INTO users VALUES (3, 'Eve', 20);
UPDATE sessions SET expires_at = expires_at + interval '1 s' WHERE token = 'a';
UPDATE sessions SET expires_at = '2100-01-01' WHERE token = 'b';
UPDATE items SET value = CASE position WHEN 1 THEN 'r' ELSE 'q' END WHERE position IN (1, 2);
DELETE FROM mails WHERE id = '2';
DELETE FROM seen WHERE id = '2';
CALL redis_migrate.verify('proof');
SELECT * FROM last_verdict();
SELECT * FROM last_counts();
SELECT * FROM last_differences();
-- Values stay as they are, and another run brings them back.
SELECT * FROM users ORDER BY id;
DELETE FROM users WHERE id = 3;
CALL redis_migrate.run('proof');
CALL redis_migrate.verify('proof');
SELECT * FROM last_verdict();

\echo == an expiry further off than a second, a key of another type, an element that is gone, rows without a key
UPDATE sessions SET expires_at = expires_at + interval '1.001 s' WHERE token = 'a';
\! $R del user:2 mail:1 seen:1 session:b >/dev/null
\! $R set user:2 text >/dev/null
\! $R rpop cart:x >/dev/null
INSERT INTO sessions VALUES ('mine', 'of somebody else', NULL);
INSERT INTO mails VALUES ('eve@example.org', 'of somebody else');
CALL redis_migrate.verify('proof');
SELECT * FROM last_verdict();
SELECT * FROM last_counts();
SELECT * FROM last_differences();

\echo == a row that has expired is as good as none, and so is one that on_delete has marked
UPDATE sessions SET expires_at = now() - interval '1 hour' WHERE token = 'b';
UPDATE seen SET gone = true WHERE id = '1';
CALL redis_migrate.verify('proof');
SELECT * FROM last_counts() WHERE mapping IN ('sessions', 'seen');

\echo == long values: where they begin to differ
\! $R eval "redis.call('SET', KEYS[1], string.rep('a', 500000) .. 'b' .. string.rep('c', 500000))" 1 session:long >/dev/null
CALL redis_migrate.run('proof', mapping => 'sessions');
UPDATE sessions SET data = overlay(data PLACING 'c' FROM 500001) WHERE token = 'long';
CALL redis_migrate.verify('proof', mapping => 'sessions');
SELECT * FROM last_counts();
SELECT key, column_name, redis_value, stored_value FROM last_differences() WHERE kind = 'different';

\echo == what on_conflict leaves alone is not compared
SELECT redis_migrate.alter_mapping('proof', 'sessions', on_conflict => 'nothing');
SELECT redis_migrate.alter_mapping('proof', 'seen', query => 'SELECT id, value, value AS first_value, false AS gone FROM redis_batch', on_conflict => 'fill');
CALL redis_migrate.verify('proof');
SELECT * FROM last_counts() WHERE mapping IN ('sessions', 'seen');
SELECT * FROM last_differences() WHERE mapping IN ('sessions', 'seen') AND kind <> 'extra';
SELECT redis_migrate.alter_mapping('proof', 'seen', query => 'SELECT id, value, 1 AS hits FROM redis_batch', on_conflict => 'hits = greatest(target.hits, excluded.hits)');
CALL redis_migrate.verify('proof');
SELECT * FROM last_counts() WHERE mapping = 'seen';
SELECT * FROM last_differences() WHERE mapping = 'seen' AND kind <> 'extra';

\echo == so many are kept
CALL redis_migrate.verify('proof', max_differences => 0);
SELECT mapping, missing + different + expiry_differs + coalesce(extra, 0) AS differences, not_kept FROM redis_migrate.verification_counts
    WHERE verification_id = (SELECT max(verification_id) FROM redis_migrate.verifications);
SELECT count(*) FROM last_differences();

\echo == a sample proves nothing, and says so
CALL redis_migrate.run('proof', prune => true);
CALL redis_migrate.verify('proof', sample => 0.5);
SELECT state, verified, reasons[1] FROM last_verdict();
SELECT mapping, extra FROM last_counts() WHERE mapping <> '(archive)';

\echo == what is refused
SELECT refused($$CALL redis_migrate.verify('proof')$$);
DO $$ BEGIN CALL redis_migrate.verify('nosuch'); EXCEPTION WHEN OTHERS THEN RAISE INFO '%', SQLSTATE; END $$;
\set VERBOSITY default
CALL redis_migrate.verify('nosuch');
CALL redis_migrate.verify('proof', sample => 1.5);
CALL redis_migrate.verify('proof', sample => 'NaN');
CALL redis_migrate.verify('proof', max_differences => -1);
CALL redis_migrate.verify('proof', mapping => 'nosuch');
CALL redis_migrate.verify('proof', source => 'archive');
CALL redis_migrate.verify('proof', source => 'rdb');
CREATE ROLE regress_prm_other;
SET ROLE regress_prm_other;
CALL redis_migrate.verify('proof');
SELECT count(*) FROM redis_migrate.verifications;
RESET ROLE;
GRANT pg_monitor TO regress_prm_other;
UPDATE users SET name = 'Eve-1' WHERE id = 1;
CALL redis_migrate.verify('proof');
SET ROLE regress_prm_other;
SELECT * FROM last_differences();
SELECT count(key_bytes) FROM redis_migrate.verification_differences;
RESET ROLE;
DROP ROLE regress_prm_other;

\echo == elements that are rejected
CREATE TABLE parts (id text, field text, n int, PRIMARY KEY (id, field));
SELECT redis_migrate.create_migration('parts', 'shop');
SELECT redis_migrate.add_mapping('parts', 'parts', 'part:{id}', 'parts', 'SELECT id, field, value::int AS n FROM redis_batch', '{id,field}',
    types => '{hash}', expand => 'elements', atomic => 'element', databases => '{0}');
SELECT redis_migrate.add_check('parts', 'parts', 'positive', 'n > 0');
\! $R hset part:a x 1 y -1 >/dev/null
SET client_min_messages = error;
CALL redis_migrate.run('parts');
CALL redis_migrate.verify('parts');
SELECT keys_rejected, verified, reasons FROM last_verdict();
SELECT redis_migrate.drop_migration('parts');
DROP TABLE parts;
SELECT redis_migrate.drop_migration('proof');
DROP TABLE users, sessions, items, seen, mails;
DROP FUNCTION last_counts(), last_differences(), last_verdict();
