-- Audits: families, what is known of them, suggestions, options, rights, comparison.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset null NULL

\echo == every type, several encodings, odd keys
\! for i in $(seq 1 20); do $R set user:$i "{\"n\": $i}" >/dev/null; $R set hits:192.0.2.$i:2026-11-0$((i % 9 + 1)) $((i * 1000)) ex 100000 >/dev/null; $R hset cart:$i sku-1 2 >/dev/null; done
\! $R set user:email:ada@example.com 17 ex 100 >/dev/null; $R set hits:None:2026-11-01 5 ex 100000 >/dev/null
\! $R rpush queue:mail '{"class": "Mail", "args": []}' >/dev/null; $R sadd queues mail >/dev/null; $R zadd board 1.5 ada 2 bob >/dev/null; $R xadd log '1-1' a 1 >/dev/null
\! $R set 'tag:{a}*x' 1 >/dev/null; printf 'SET "bin:\\xff\\xfe" x\nSET "" nameless\nSET pickled "\\x80\\x04K\\x05."\n' | $R >/dev/null
\! $R -n 3 set user:1 other >/dev/null
CALL redis_migrate.audit('shop', databases => '{0}');
SELECT state, complete, keys, asked, vanished, odd, odd_reasons, families, dbsize, maxmemory_policy, finished_at >= started_at AS ended,
       bytes > 0 AS sized FROM redis_migrate.audits;
SELECT pattern, type, keys, with_ttl, without_ttl, ttl_spread, encodings, odd_reasons, regexp_replace(example, '0+', '0', 'g') AS example, framework, priority
FROM redis_migrate.audit_families ORDER BY pattern COLLATE "C";
SELECT bool_and(bytes > 0) AS sized, bool_and(NOT estimated) AS exact, bool_and(max_idle < '1 h') AS idle,
       bool_and(max_ttl <= '100000 s' AND min_ttl > '50 s') AS expiries
FROM redis_migrate.audit_families;
SELECT create_table, suggestion FROM redis_migrate.audit_families WHERE suggestion IS NOT NULL ORDER BY pattern COLLATE "C";

\echo == suggestions are statements, and they do what they say
SELECT redis_migrate.create_migration('shop', 'shop', databases => '{0}');
SELECT create_table FROM redis_migrate.audit_families WHERE create_table IS NOT NULL ORDER BY pattern COLLATE "C" \gexec
SELECT suggestion FROM redis_migrate.audit_families WHERE suggestion IS NOT NULL ORDER BY pattern COLLATE "C" \gexec
CALL redis_migrate.run('shop');
SELECT * FROM last_run('shop');
SELECT key, mapping, rule FROM last_rejects('shop');
SELECT * FROM hits ORDER BY ip LIMIT 1 \gset got_
SELECT :'got_ip' AS ip, :'got_day' AS day, :'got_value' AS value, :'got_expires_at'::timestamptz > now() AS expires;
SELECT "user".*, cart.* FROM "user" JOIN cart ON cart_id = user_id WHERE user_id = 7;
SELECT * FROM board ORDER BY member;
SELECT * FROM log;

\echo == largest keys
\! $R setrange huge:1 1000000 x >/dev/null
CALL redis_migrate.audit('shop', databases => '{0}');
SELECT rank, pattern, key, type, bytes > 1000000 AS large FROM redis_migrate.audit_largest_keys
WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits) ORDER BY rank LIMIT 1;

\echo == what changed
\! $R del board queues >/dev/null; for i in 21 22; do $R set user:$i '{}' >/dev/null; done; $R set brand:new 1 >/dev/null; $R del cart:1 >/dev/null
CALL redis_migrate.audit('shop', databases => '{0}');
SELECT pattern, change, keys_before, keys_after, keys_growth FROM redis_migrate.compare_audits(
    (SELECT min(audit_id) FROM redis_migrate.audits), (SELECT max(audit_id) FROM redis_migrate.audits))
WHERE change <> 'same';

\echo == several databases
CALL redis_migrate.audit('shop');
SELECT db, pattern, keys, suggestion ~ 'databases => ' AS names_db, create_table FROM redis_migrate.audit_families
WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits) AND pattern LIKE 'user:%' ORDER BY db, pattern;
-- Nothing is audited in place of databases without keys.
CALL redis_migrate.audit('shop', databases => '{9}');
SELECT keys, families FROM redis_migrate.audits ORDER BY audit_id DESC LIMIT 1;
CALL redis_migrate.audit('shop', databases => '{-1}');

\echo == a sample
\! $R flushall >/dev/null; $R eval 'for i = 1, 5000 do redis.call("SET", "k:" .. i, "v", "EX", 100000) end' 0 >/dev/null
CALL redis_migrate.audit('shop', sample => 100);
-- Keys that are under way when the family is met for the first time come on top.
SELECT pattern, keys, asked BETWEEN 100 AND 200 AS asked, estimated, with_ttl, without_ttl, encodings = jsonb_build_object('text', asked) AS all_read,
       bytes BETWEEN 5000 * 40 AND 5000 * 80 AS plausible
FROM redis_migrate.audit_families WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits);
CALL redis_migrate.audit('shop', sample => 0.1);
SELECT pattern, keys, asked BETWEEN 500 AND 600 AS asked FROM redis_migrate.audit_families WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits);

\echo == a rate and a time limit
CALL redis_migrate.audit('shop', max_duration => '300 ms', max_rate => 1000);
SELECT state, complete, keys BETWEEN 1 AND 600 AS some, finished_at - started_at BETWEEN '250 ms' AND '10 s' AS in_time, message
FROM redis_migrate.audits ORDER BY audit_id DESC LIMIT 1;
SELECT count(*) FROM redis_migrate.audit_families WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits);

\echo == under LFU there are no idle times
\! $R config set maxmemory-policy allkeys-lfu >/dev/null
CALL redis_migrate.audit('shop');
SELECT pattern, max_idle, max_freq IS NOT NULL AS freq FROM redis_migrate.audit_families WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits);
SELECT unnest(notes) FROM redis_migrate.audits ORDER BY audit_id DESC LIMIT 2;
\! $R config set maxmemory-policy noeviction >/dev/null

\echo == what the user may not ask is left out
\! $R acl setuser regress_prm_audit on '>secret' '~*' +@connection +scan >/dev/null
CREATE SERVER poor FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port :'redis_port');
CREATE USER MAPPING FOR CURRENT_USER SERVER poor OPTIONS (username 'regress_prm_audit', password 'secret');
CALL redis_migrate.audit('poor');
SELECT state, keys, odd, notes FROM redis_migrate.audits WHERE server = 'poor';
SELECT pattern, type, keys, bytes, with_ttl, max_idle, suggestion FROM redis_migrate.audit_families WHERE server = 'poor';
\! $R acl setuser regress_prm_audit resetkeys '~k:1*' +type +pttl >/dev/null
CALL redis_migrate.audit('poor');
SELECT state, keys, odd, odd_reasons FROM redis_migrate.audits WHERE server = 'poor' ORDER BY audit_id DESC LIMIT 1;
SELECT type, keys, types FROM redis_migrate.audit_families WHERE server = 'poor' ORDER BY audit_id DESC LIMIT 1;
\! $R acl deluser regress_prm_audit >/dev/null

\echo == wrong calls
SELECT refused($$CALL redis_migrate.audit('shop')$$);
CALL redis_migrate.audit('nosuch');
CALL redis_migrate.audit(NULL);
CALL redis_migrate.audit('shop', sample => 0);
CALL redis_migrate.audit('shop', max_rate => 0);
CALL redis_migrate.audit('shop', max_duration => '0');
SELECT count(*) FROM redis_migrate.audits WHERE server = 'nosuch';
DROP SERVER poor CASCADE;

\echo == a suggestion keeps what was seen, types are apart, and no token is shown
\! $R flushall >/dev/null; $R set otp:1 493817 >/dev/null; $R set otp:2 014748 >/dev/null; $R set pin:1 4938 >/dev/null; $R set pin:2 1474 >/dev/null
\! $R set thing:1 x >/dev/null; $R hset thing:2 f x >/dev/null; $R set sess:q7TzPl0aBcKq-7TzPl0aBcKq7TzPl_0aBc '{"user": 1}' >/dev/null
-- Ids that read like words; a word that is known stays.
\! for id in montaseringerolas prosedentalicore; do $R set login:$id:data x >/dev/null; $R set visitor_$id x >/dev/null; $R hset $id f x >/dev/null; done; $R set config:maintenance on >/dev/null
CALL redis_migrate.audit('shop');
SELECT pattern, type, keys, regexp_replace(example, '[xX0]+', '', 'g') AS example, create_table FROM redis_migrate.audit_families
WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits) ORDER BY pattern COLLATE "C", type;
SELECT count(*) FROM redis_migrate.audit_families AS f WHERE f::text ~ 'q7Tz|montas|prosed';
SELECT count(*) FROM redis_migrate.audit_largest_keys AS k WHERE k::text ~ 'q7Tz|montas|prosed';

\echo == an empty server
\! $R flushall >/dev/null
CALL redis_migrate.audit('shop');
SELECT state, keys, families FROM redis_migrate.audits ORDER BY audit_id DESC LIMIT 1;

\echo == owners
CREATE ROLE regress_audit_other;
SELECT min(audit_id) AS first FROM redis_migrate.audits \gset
SET ROLE regress_audit_other;
SELECT count(*) FROM redis_migrate.audits;
SELECT count(*) FROM redis_migrate.audit_families;
SELECT count(*) FROM redis_migrate.audit_largest_keys;
SELECT count(*) FROM redis_migrate.compare_audits(:first, :first);
SELECT refused(format('SELECT redis_migrate.drop_audit(%s)', :first)) ~ '^42501 must be owner of audit \d+\n' AS refused;
SELECT refused($$SELECT redis_migrate.drop_audit(0)$$);
SELECT refused('SELECT 1 FROM redis_migrate.audit');
CALL redis_migrate.audit('shop');
RESET ROLE;
DROP ROLE regress_audit_other;
SELECT redis_migrate.drop_audit(audit_id) FROM redis_migrate.audits;
SELECT count(*) FROM redis_migrate.audit_family;
SELECT redis_migrate.drop_migration('shop');
DROP TABLE "user", hits, cart, queue_mail, queues, board, log, user_email, tag_a_x, pickled, bin;
