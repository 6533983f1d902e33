-- Who owns definitions, and what else has a say: the schema, roles that go, tables that are replaced.
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
