-- preflight on a good server, on one that lacks rights, and on one that is not there.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset null NULL

\echo == a good server
\! $R set a 1 >/dev/null; $R -n 3 set b 1 ex 100000 >/dev/null
SELECT check_name, status, hint FROM redis_migrate.preflight('shop');
SELECT detail FROM redis_migrate.preflight('shop') WHERE check_name IN ('role', 'databases', 'memory', 'rights', 'server encoding');
SELECT detail ~ '^connected to .*:\d+$' FROM redis_migrate.preflight('shop') WHERE check_name = 'reachable';
SELECT detail ~ '^Redis \d+\.\d+\.\d+$' FROM redis_migrate.preflight('shop') WHERE check_name = 'version';
SELECT detail ~ '^Redis'' clock is \d\.\d{3} s (ahead of|behind) this server''s$' FROM redis_migrate.preflight('shop') WHERE check_name = 'clock';
\! $R flushall >/dev/null
SELECT check_name, status, detail, hint FROM redis_migrate.preflight('shop') WHERE check_name = 'databases';

\echo == settings of the session
SET statement_timeout = '1h';
SET idle_in_transaction_session_timeout = '1min';
SELECT check_name, status, detail, hint FROM redis_migrate.preflight('shop') WHERE check_name LIKE '%timeout';
RESET statement_timeout;
RESET idle_in_transaction_session_timeout;

\echo == rights: what is missing is named with the command that grants it
\! $R acl setuser regress_prm on '>secret' '~*' +@connection +scan +dump >/dev/null
CREATE SERVER poor FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port :'redis_port');
CREATE USER MAPPING FOR CURRENT_USER SERVER poor OPTIONS (username 'regress_prm', password 'secret');
SELECT check_name, status, hint FROM redis_migrate.preflight('poor') WHERE status <> 'ok';
-- The hints are commands.
\! $R acl setuser regress_prm +info >/dev/null; $R acl setuser regress_prm '~*' '+memory|usage' >/dev/null; $R acl setuser regress_prm '~*' +pexpiretime >/dev/null; $R acl setuser regress_prm '~*' +getrange >/dev/null; $R acl setuser regress_prm '~*' +strlen >/dev/null; $R acl setuser regress_prm '~*' +time >/dev/null
\! $R acl setuser regress_prm '~*' +type +llen +lrange +scard +sscan +hlen +hscan +zcard +zrevrange +xrange +xinfo +xpending >/dev/null; $R acl setuser regress_prm '~*' +watch +multi +exec >/dev/null
SELECT check_name, status, hint FROM redis_migrate.preflight('poor') WHERE status <> 'ok' AND check_name <> 'databases';
\! $R acl setuser regress_prm -dump -select >/dev/null
SELECT check_name, status, hint FROM redis_migrate.preflight('poor') WHERE status <> 'ok' AND check_name <> 'databases';
-- Keys out of reach.
\! $R acl setuser regress_prm resetkeys '~app:*' +dump +select >/dev/null
SELECT check_name, status, hint FROM redis_migrate.preflight('poor') WHERE status <> 'ok' AND check_name <> 'databases';
\! $R acl deluser regress_prm >/dev/null
SELECT check_name, status, detail LIKE '%secret%' AS leaks FROM redis_migrate.preflight('poor');
DROP SERVER poor CASCADE;

\echo == memory
\! $R config set maxmemory 64mb >/dev/null; $R config set maxmemory-policy allkeys-lru >/dev/null
SELECT check_name, status, regexp_replace(detail, '\d+', 'N') AS detail, hint FROM redis_migrate.preflight('shop') WHERE check_name = 'memory';
\! $R config set maxmemory 12mb >/dev/null
SELECT check_name, status, regexp_replace(detail, '\d+', 'N') AS detail, hint FROM redis_migrate.preflight('shop') WHERE check_name = 'memory';
SET pg_redis_migrate.bytes_in_flight = '64kB';
SELECT check_name, status FROM redis_migrate.preflight('shop') WHERE check_name = 'memory';
RESET pg_redis_migrate.bytes_in_flight;
\! $R config set maxmemory-policy noeviction >/dev/null
SELECT check_name, status, regexp_replace(detail, '\d+', 'N') AS detail, hint FROM redis_migrate.preflight('shop') WHERE check_name = 'memory';
\! $R config set maxmemory 0 >/dev/null

\echo == not there
CREATE SERVER nowhere FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '1', connect_timeout '2');
SELECT check_name, status, detail FROM redis_migrate.preflight('nowhere');
ALTER SERVER nowhere OPTIONS (SET host '/nonexistent/redis.sock');
SELECT check_name, status, detail FROM redis_migrate.preflight('nowhere');
SELECT refused($$SELECT * FROM redis_migrate.preflight('nosuch')$$);
SELECT refused($$SELECT * FROM redis_migrate.preflight(NULL)$$);
SELECT redis_migrate.create_migration('nowhere', 'nowhere');
SET pg_redis_migrate.reconnect_timeout = 0;
CALL redis_migrate.run('nowhere');
SELECT state, sqlstate FROM redis_migrate.runs WHERE migration = 'nowhere';
SELECT redis_migrate.drop_migration('nowhere');
RESET pg_redis_migrate.reconnect_timeout;
DROP SERVER nowhere;
