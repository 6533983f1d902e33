-- Owners of definitions, and changes that concern them: a prepared schema, dropped roles, replaced tables.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned

-- CREATE EXTENSION takes no schema in which somebody else has, or may put, anything.
DROP EXTENSION pg_redis_migrate CASCADE;
DROP SCHEMA IF EXISTS redis_migrate;
CREATE ROLE regress_prm_squatter;
CREATE SCHEMA redis_migrate AUTHORIZATION regress_prm_squatter;
SELECT refused('CREATE EXTENSION pg_redis_migrate');
ALTER SCHEMA redis_migrate OWNER TO CURRENT_USER;
GRANT CREATE ON SCHEMA redis_migrate TO regress_prm_squatter;
SELECT refused('CREATE EXTENSION pg_redis_migrate');
GRANT CREATE ON SCHEMA redis_migrate TO PUBLIC;
REVOKE CREATE ON SCHEMA redis_migrate FROM regress_prm_squatter;
SELECT refused('CREATE EXTENSION pg_redis_migrate');
REVOKE CREATE ON SCHEMA redis_migrate FROM PUBLIC;
CREATE FUNCTION redis_migrate.concat(text, text, text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
SELECT refused('CREATE EXTENSION pg_redis_migrate');
DROP FUNCTION redis_migrate.concat(text, text, text);
CREATE OPERATOR redis_migrate.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.texteq);
SELECT refused('CREATE EXTENSION pg_redis_migrate');
DROP OPERATOR redis_migrate.= (text, text);
-- An empty one of a superuser is what pg_restore makes.
CREATE EXTENSION pg_redis_migrate;
DROP ROLE regress_prm_squatter;
CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port :'redis_port');
CREATE USER MAPPING FOR CURRENT_USER SERVER shop;

-- A role that owns a definition of any kind is not dropped, and is when it has dropped its last.
CREATE ROLE regress_prm_owner LOGIN;
GRANT USAGE ON FOREIGN SERVER shop TO regress_prm_owner;
CREATE SCHEMA owned AUTHORIZATION regress_prm_owner;
GRANT EXECUTE ON FUNCTION redis_migrate.create_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean),
    redis_migrate.drop_rate_limit(text), redis_migrate.create_lockout TO regress_prm_owner;
SET ROLE regress_prm_owner;
CREATE TABLE owned.session (id int PRIMARY KEY, expires_at timestamptz);
CREATE INDEX ON owned.session (expires_at);
CREATE MATERIALIZED VIEW owned.summary AS SELECT count(*) AS n FROM owned.session;
SELECT redis_migrate.create_migration('mine', 'shop');
SELECT redis_migrate.add_expiry('owned.session', 'expires_at', every => '1 day');
SELECT redis_migrate.add_refresh('owned.summary', every => '1 day', concurrently => false);
SELECT redis_migrate.create_rate_limit('mine', 5, '1 minute', storage => 'table');
SELECT redis_migrate.create_lockout('mine');
SELECT kind, name, owner, owner_name, restored, problem FROM redis_migrate.definitions ORDER BY kind;
RESET ROLE;
SELECT refused('DROP ROLE regress_prm_owner');
-- No hint of what a superuser owns advises to become one.
CREATE TABLE public.of_superuser (id int PRIMARY KEY, expires_at timestamptz);
CREATE INDEX ON public.of_superuser (expires_at);
CREATE MATERIALIZED VIEW public.summary_of_superuser AS SELECT count(*) AS n FROM public.of_superuser;
CREATE MATERIALIZED VIEW public.another_of_superuser AS SELECT count(*) AS n FROM public.of_superuser;
SELECT redis_migrate.create_migration('theirs', 'shop');
SELECT redis_migrate.add_expiry('public.of_superuser', 'expires_at', every => '1 day');
SELECT redis_migrate.add_refresh('public.summary_of_superuser', every => '1 day', concurrently => false);
SELECT redis_migrate.create_rate_limit('theirs', 5, '1 minute', storage => 'table');
SELECT redis_migrate.create_lockout('theirs');
GRANT EXECUTE ON FUNCTION redis_migrate.drop_lockout, redis_migrate.login_check, redis_migrate.rate_limit_at,
    redis_migrate.reset_rate_limit_stats TO regress_prm_owner;
SET ROLE regress_prm_owner;
SELECT statement, substring(refusal FROM '^[^\n]+') AS refusal, refusal ~ 'DETAIL Its owner is' AS owner,
    refusal ~ format('(SET ROLE|GRANT) "?%s', session_user) AS advice
FROM (SELECT statement, refused(statement) AS refusal FROM unnest(ARRAY[
    $$SELECT redis_migrate.drop_migration('theirs')$$, $$SELECT redis_migrate.start('theirs')$$,
    $$SELECT redis_migrate.drop_expiry('public.of_superuser')$$, $$SELECT redis_migrate.drop_refresh('public.summary_of_superuser')$$,
    $$SELECT redis_migrate.add_refresh('public.another_of_superuser')$$, $$SELECT redis_migrate.drop_rate_limit('theirs')$$,
    $$SELECT redis_migrate.reset_rate_limit_stats('theirs')$$, $$SELECT redis_migrate.rate_limit_at('theirs', 'k', 1, now())$$,
    $$SELECT redis_migrate.drop_lockout('theirs')$$]) AS statement) AS all_of_them;
RESET ROLE;
SELECT redis_migrate.drop_migration('theirs'), redis_migrate.drop_expiry('public.of_superuser'), redis_migrate.drop_refresh('public.summary_of_superuser'),
    redis_migrate.drop_rate_limit('theirs'), redis_migrate.drop_lockout('theirs');
REVOKE EXECUTE ON FUNCTION redis_migrate.drop_lockout, redis_migrate.login_check, redis_migrate.rate_limit_at,
    redis_migrate.reset_rate_limit_stats FROM regress_prm_owner;
DROP TABLE public.of_superuser CASCADE;
SELECT attname, grantee::regrole, privilege_type FROM pg_attribute, aclexplode(attacl)
WHERE attrelid = 'redis_migrate.definition_owners'::regclass;
-- A new name changes nothing.
ALTER ROLE regress_prm_owner RENAME TO regress_prm_renamed;
SELECT DISTINCT owner, owner_name, problem FROM redis_migrate.definitions WHERE name = 'mine';
SELECT split_part(owner::text, '/', 1) AS "as a dump has it" FROM redis_migrate.migration WHERE migration = 'mine';
ALTER ROLE regress_prm_renamed RENAME TO regress_prm_owner;
SET ROLE regress_prm_owner;
SELECT redis_migrate.drop_migration('mine');
SELECT redis_migrate.drop_expiry('owned.session');
SELECT redis_migrate.drop_refresh('owned.summary');
SELECT redis_migrate.drop_rate_limit('mine');
RESET ROLE;
SELECT count(*) AS grants FROM pg_attribute, aclexplode(attacl)
WHERE attrelid = 'redis_migrate.definition_owners'::regclass AND grantee = 'regress_prm_owner'::regrole;
-- A superuser drops what is not its own.
SELECT redis_migrate.drop_lockout('mine');
SELECT count(*) AS grants FROM pg_attribute, aclexplode(attacl)
WHERE attrelid = 'redis_migrate.definition_owners'::regclass AND grantee = 'regress_prm_owner'::regrole;

-- The trigger of these tables is of use on no other.
SET ROLE regress_prm_owner;
CREATE TABLE owned.forged (owner bigint);
CREATE TRIGGER release AFTER DELETE ON owned.forged FOR EACH ROW EXECUTE FUNCTION redis_migrate.release_owner();
INSERT INTO owned.forged VALUES (1);
SELECT refused('DELETE FROM owned.forged');
DROP TABLE owned.forged;
RESET ROLE;

-- After DROP OWNED its definitions are out of action one by one; a superuser gives them to others, or drops them.
SET ROLE regress_prm_owner;
SELECT redis_migrate.create_migration('left', 'shop');
SELECT redis_migrate.create_migration('dropped', 'shop');
SELECT redis_migrate.add_expiry('owned.session', 'expires_at', every => '1 day');
SELECT redis_migrate.create_rate_limit('left', 1, '1 hour', storage => 'table');
RESET ROLE;
-- REASSIGN OWNED knows nothing of definitions.
CREATE ROLE regress_prm_heir LOGIN;
GRANT USAGE ON FOREIGN SERVER shop TO regress_prm_heir;
REASSIGN OWNED BY regress_prm_owner TO regress_prm_heir;
SELECT name, owner FROM redis_migrate.definitions WHERE owner IS NOT NULL AND owner <> CURRENT_USER::regrole ORDER BY kind, name;
DROP OWNED BY regress_prm_owner;
SELECT kind, name, owner, problem FROM redis_migrate.definitions WHERE problem IS NOT NULL ORDER BY kind, name;
GRANT USAGE ON FOREIGN SERVER shop TO regress_prm_owner;
GRANT USAGE ON SCHEMA owned TO regress_prm_owner;
SET ROLE regress_prm_owner;
CALL redis_migrate.run('left');
CALL redis_migrate.sweep('owned.session');
SELECT kind, name, owner FROM redis_migrate.definitions ORDER BY kind, name;
SELECT redis_migrate.take_over('migration', 'left');
RESET ROLE;
SELECT redis_migrate.start('left');
-- A rate limit is in force whoever owns it.
SELECT allowed FROM redis_migrate.rate_limit('left', 'key');
SELECT allowed FROM redis_migrate.rate_limit('left', 'key');
DROP OWNED BY regress_prm_owner;
DROP ROLE regress_prm_owner;
SELECT kind, name, owner, owner_name, problem FROM redis_migrate.definitions WHERE problem IS NOT NULL ORDER BY kind, name;
SELECT redis_migrate.drop_migration('dropped');
SELECT redis_migrate.take_over(kind, name, 'regress_prm_heir') FROM redis_migrate.definitions WHERE problem IS NOT NULL;
SELECT kind, name, owner, problem FROM redis_migrate.definitions WHERE owner = 'regress_prm_heir'::regrole ORDER BY kind, name;
SELECT redis_migrate.take_over('mapping', 'x');
SELECT redis_migrate.take_over('expiry', 'owned.nothing');
SELECT redis_migrate.take_over('migration', 'left', 'regress_prm_nobody');
SELECT refused('DROP ROLE regress_prm_heir');

-- Definitions that came from elsewhere: their OIDs mean nothing here, their names do, and what deletes waits.
SELECT 'a/b/1/2/7d1b3c1e-0f5c-4a51-8a83-f1b3c5ad0e55'::redis_migrate.owner_role AS owner,
       redis_migrate.owner_name('a/b/1/2/7d1b3c1e-0f5c-4a51-8a83-f1b3c5ad0e55') AS name;
SELECT refused($$SELECT 'a/1/7d1b3c1e-0f5c-4a51-8a83-f1b3c5ad0e55'::redis_migrate.owner_role$$);
SELECT refused($$SELECT 'a/-1/2/7d1b3c1e-0f5c-4a51-8a83-f1b3c5ad0e55'::redis_migrate.owner_role$$);
UPDATE redis_migrate.job SET owner = (format('regress_prm_heir/%s/5/7d1b3c1e-0f5c-4a51-8a83-f1b3c5ad0e55', CURRENT_USER::regrole::oid))::redis_migrate.owner_role
WHERE name = 'owned.session';
UPDATE redis_migrate.migration SET owner = 'regress_prm_elsewhere/10/5/7d1b3c1e-0f5c-4a51-8a83-f1b3c5ad0e55' WHERE migration = 'left';
SELECT kind, name, owner, owner_name, restored, problem FROM redis_migrate.definitions WHERE restored ORDER BY kind;
INSERT INTO owned.session VALUES (1, '2000-01-01');
SET ROLE regress_prm_heir;
CALL redis_migrate.maintain();
CALL redis_migrate.sweep('owned.session');
SELECT redis_migrate.next_maintenance();
SELECT count(*) FROM owned.session;
SET client_min_messages = notice;
CALL redis_migrate.resume_restored();
RESET client_min_messages;
CALL redis_migrate.maintain();
SELECT count(*) FROM owned.session;
RESET ROLE;
SET client_min_messages = notice;
CALL redis_migrate.resume_restored();
SET client_min_messages = warning;
-- A role that is made later is not the one that the dump meant.
CREATE ROLE regress_prm_elsewhere;
SELECT kind, name, owner, owner_name, problem FROM redis_migrate.definitions WHERE restored ORDER BY kind;
SELECT redis_migrate.drop_migration('left');
DROP ROLE regress_prm_elsewhere;
DROP SCHEMA owned CASCADE;
SELECT redis_migrate.drop_expiry('owned.session');
SELECT redis_migrate.drop_rate_limit('left');
REVOKE USAGE ON FOREIGN SERVER shop FROM regress_prm_heir;
DROP ROLE regress_prm_heir;
