-- Servers and user mappings: what the validator takes, and who may use them.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset tuples_only

\echo == the right options in the right place
CREATE SERVER good FOREIGN DATA WRAPPER redis_migrate OPTIONS (host 'redis.example', port '65535', connect_timeout '1', command_timeout '86400');
CREATE SERVER defaults FOREIGN DATA WRAPPER redis_migrate;
CREATE SERVER socket FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '/run/redis/redis.sock');
CREATE USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (username 'u', password 'p');
CREATE USER MAPPING FOR PUBLIC SERVER good;
SELECT srvname, srvoptions FROM pg_foreign_server WHERE srvname IN ('good', 'defaults', 'socket') ORDER BY 1;

\echo == bad options
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (hots 'redis.example')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (password 'p')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (port '0')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (port '65536')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (port '6379x')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (port '')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (connect_timeout '0')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (connect_timeout '1.5')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (command_timeout '99999999999999999999')$$);
SELECT refused($$ALTER SERVER good OPTIONS (SET port '-1')$$);
SELECT refused($$CREATE USER MAPPING FOR CURRENT_USER SERVER defaults OPTIONS (host 'x')$$);
SELECT refused($$CREATE USER MAPPING FOR CURRENT_USER SERVER defaults OPTIONS (user 'x')$$);
SELECT refused($$ALTER FOREIGN DATA WRAPPER redis_migrate OPTIONS (host 'x')$$);
-- Options that look like protection and are none.
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (tls 'yes')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (ca_file '/etc/ca.crt')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (tls 'require', ca_file '/etc/ca.crt')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (tls 'off', tls_server_name 'redis.example')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (tls 'on', host '/run/redis.sock')$$);
SELECT refused($$CREATE USER MAPPING FOR CURRENT_USER SERVER defaults OPTIONS (tls_cert '/etc/client.crt')$$);
CREATE SERVER secure FOREIGN DATA WRAPPER redis_migrate OPTIONS (tls 'on', ca_file '/etc/ca.crt', tls_server_name 'redis.example');
CREATE USER MAPPING FOR CURRENT_USER SERVER secure OPTIONS (tls_cert '/etc/client.pem', tls_key '/etc/client.pem');
SELECT refused($$ALTER SERVER secure OPTIONS (SET tls 'require')$$);
ALTER SERVER secure OPTIONS (SET tls 'verify-ca');
DROP SERVER secure CASCADE;
-- Deployments.
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (cluster 'yes')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (host 'a,b')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (cluster 'on', host 'a:1,b:0')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinels 'a,b')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinels 'a:x', sentinel_master 'm')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinels 'a', sentinel_master 'm', host 'b')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinels 'a', sentinel_master 'm', cluster 'on')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (read_from 'slave')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (cluster 'on', redirects_to '10.0.0.0/8, nowhere')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (redirects_to 'any')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (stale_replica 'true')$$);
SELECT refused($$CREATE SERVER bad FOREIGN DATA WRAPPER redis_migrate OPTIONS (max_rate '0')$$);
CREATE SERVER many FOREIGN DATA WRAPPER redis_migrate OPTIONS (cluster 'on', host 'a.example:7000, [::1], b', port '7001', read_from 'replica', stale_replica 'off', max_rate '1000', redirects_to '10.0.0.0/8, fd00::/8');
CREATE SERVER watched FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinels 'a.example, [::1]:26380', sentinel_master 'm', tls 'on', read_from 'master');
CREATE USER MAPPING FOR CURRENT_USER SERVER watched OPTIONS (sentinel_username 'u', sentinel_password 'p');
DROP SERVER watched CASCADE;
DROP SERVER many;
SELECT refused($$CREATE FOREIGN TABLE f (a int) SERVER good OPTIONS (key 'x')$$);
SELECT refused($$CREATE FOREIGN TABLE f (a int) SERVER good$$);

\echo == who may use a server
CREATE ROLE regress_prm_alice LOGIN;
CREATE ROLE regress_prm_bob;
GRANT CREATE ON SCHEMA public TO regress_prm_alice;
SET ROLE regress_prm_alice;
SELECT refused($$SELECT redis_migrate.create_migration('alices', 'shop')$$);
SELECT refused($$SELECT * FROM redis_migrate.preflight('shop')$$);
SELECT refused($$CREATE SERVER mine FOREIGN DATA WRAPPER redis_migrate$$);
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER shop TO regress_prm_alice;
SET ROLE regress_prm_alice;
SELECT redis_migrate.create_migration('alices', 'shop');
SELECT refused($$SELECT redis_migrate.alter_migration('alices', server => 'good')$$);
SELECT refused($$SELECT redis_migrate.create_migration('other', 'nosuch')$$);
SELECT refused($$SELECT redis_migrate.create_migration('other', NULL)$$);
RESET ROLE;
-- Names in hints can be run as they stand.
CREATE SERVER "My ""Shop" FOREIGN DATA WRAPPER redis_migrate;
SET ROLE regress_prm_alice;
SELECT refused($$SELECT redis_migrate.create_migration('other', 'My "Shop')$$);
SELECT refused($$SELECT redis_migrate.create_migration('other', 'Your Shop')$$);
RESET ROLE;
DROP SERVER "My ""Shop";
CREATE FOREIGN DATA WRAPPER other_wrapper;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER other_wrapper;
SELECT refused($$SELECT redis_migrate.create_migration('other', 'elsewhere')$$);
SELECT refused($$SELECT * FROM redis_migrate.preflight('elsewhere')$$);
DROP FOREIGN DATA WRAPPER other_wrapper CASCADE;

\echo == rights that are lost after the definition count at the run
REVOKE USAGE ON FOREIGN SERVER shop FROM regress_prm_alice;
SET ROLE regress_prm_alice;
CALL redis_migrate.run('alices');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER shop TO regress_prm_alice;

\echo == files of the server need pg_read_server_files, when the option is set and when it is used
SET ROLE regress_prm_alice;
SELECT refused($$CREATE USER MAPPING FOR regress_prm_alice SERVER shop OPTIONS (password_file '/etc/passwd')$$);
SELECT refused($$CREATE USER MAPPING FOR regress_prm_alice SERVER shop OPTIONS (tls_cert '/etc/a.pem', tls_key '/etc/a.pem')$$);
RESET ROLE;
CREATE USER MAPPING FOR regress_prm_alice SERVER shop OPTIONS (password_file '/nonexistent/password');
SET ROLE regress_prm_alice;
CALL redis_migrate.run('alices');
RESET ROLE;
GRANT pg_read_server_files TO regress_prm_alice;
SET ROLE regress_prm_alice;
CALL redis_migrate.run('alices');
RESET ROLE;

\echo == passwords are for their user
ALTER USER MAPPING FOR regress_prm_alice SERVER shop OPTIONS (DROP password_file, ADD password 'secret');
GRANT USAGE ON FOREIGN SERVER shop TO regress_prm_bob;
SET ROLE regress_prm_bob;
SELECT coalesce(umoptions::text, 'hidden') FROM pg_user_mappings WHERE srvname = 'shop' AND usename = 'regress_prm_alice';
RESET ROLE;
SET ROLE regress_prm_alice;
SELECT coalesce(umoptions::text, 'hidden') FROM pg_user_mappings WHERE srvname = 'shop' AND usename = 'regress_prm_alice';
-- A Redis without passwords refuses one: the message does not repeat it.
\set VERBOSITY sqlstate
CALL redis_migrate.run('alices');
\set VERBOSITY default
SELECT state, sqlstate, message LIKE '%secret%' AS leaks FROM redis_migrate.runs WHERE migration = 'alices' AND state <> 'completed';
SELECT redis_migrate.drop_migration('alices');
RESET ROLE;

DROP USER MAPPING FOR regress_prm_alice SERVER shop;
DROP SERVER good CASCADE;
DROP SERVER defaults;
DROP SERVER socket;
DROP OWNED BY regress_prm_alice, regress_prm_bob;
DROP ROLE regress_prm_alice, regress_prm_bob;
