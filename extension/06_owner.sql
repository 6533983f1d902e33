-- Owners of definitions. A role is stored with its name and with the database and installation in which its OID means
-- it, so that a dump never makes another role the owner, and never fails for want of one.

DO $$
BEGIN
    EXECUTE pg_catalog.format('CREATE FUNCTION redis_migrate.installation() RETURNS pg_catalog.uuid
        LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS %L',
        pg_catalog.format('SELECT %L::pg_catalog.uuid', pg_catalog.gen_random_uuid()));
END
$$;
COMMENT ON FUNCTION redis_migrate.installation() IS
    'Identifies this CREATE EXTENSION. pg_upgrade keeps the number; a dump does not carry it';

CREATE TABLE redis_migrate.definition_owners ();
ALTER TABLE redis_migrate.definition_owners REPLICA IDENTITY FULL;
COMMENT ON TABLE redis_migrate.definition_owners IS
    'Always empty. Each role that owns a definition is granted SELECT on one of its columns, so that DROP ROLE fails. The grant is revoked when the role''s last definition is dropped';
DO $$
BEGIN
    EXECUTE (SELECT pg_catalog.concat('ALTER TABLE redis_migrate.definition_owners ',
                 pg_catalog.string_agg(pg_catalog.format('ADD owner_%s boolean', n), ', ' ORDER BY n))
             FROM pg_catalog.generate_series(1, 256) AS n);
END
$$;

CREATE TYPE redis_migrate.owner_role;
CREATE FUNCTION redis_migrate.owner_role_in(cstring) RETURNS redis_migrate.owner_role
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_role_in';
COMMENT ON FUNCTION redis_migrate.owner_role_in(cstring) IS 'Input of owner_role';
CREATE FUNCTION redis_migrate.owner_role_out(redis_migrate.owner_role) RETURNS cstring
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_role_out';
COMMENT ON FUNCTION redis_migrate.owner_role_out(redis_migrate.owner_role) IS
    'Output of owner_role: name/role/database/installation, with the current name of the role';
CREATE TYPE redis_migrate.owner_role (
    INPUT = redis_migrate.owner_role_in, OUTPUT = redis_migrate.owner_role_out, INTERNALLENGTH = VARIABLE, ALIGNMENT = int4,
    STORAGE = main);

CREATE FUNCTION redis_migrate.stamp_owner(role oid) RETURNS redis_migrate.owner_role
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_stamp_owner';
COMMENT ON FUNCTION redis_migrate.stamp_owner(oid) IS 'Makes a role an owner in this database';

CREATE FUNCTION redis_migrate.stamped_role(owner redis_migrate.owner_role) RETURNS oid
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_stamped_role';
COMMENT ON FUNCTION redis_migrate.stamped_role(redis_migrate.owner_role) IS
    'The stored OID of the role, valid here or not; for indexes';

CREATE FUNCTION redis_migrate.owner_oid(owner redis_migrate.owner_role) RETURNS oid
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_oid';
COMMENT ON FUNCTION redis_migrate.owner_oid(redis_migrate.owner_role) IS
    'The role that owns a definition; NULL if it does not exist or has no grant on definition_owners';

CREATE FUNCTION redis_migrate.acting_role(owner redis_migrate.owner_role) RETURNS oid
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_acting_role';
COMMENT ON FUNCTION redis_migrate.acting_role(redis_migrate.owner_role) IS
    'The role as which background workers run a definition: its owner. A restored definition has none before resume_restored';

CREATE FUNCTION redis_migrate.shown_owner(owner redis_migrate.owner_role) RETURNS regrole
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_shown_owner';
COMMENT ON FUNCTION redis_migrate.shown_owner(redis_migrate.owner_role) IS
    'The owner as views show it, even of a record whose definition is gone';

CREATE FUNCTION redis_migrate.may_see(owner redis_migrate.owner_role) RETURNS boolean
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_may_see';
COMMENT ON FUNCTION redis_migrate.may_see(redis_migrate.owner_role) IS
    'Whether the caller has the privileges of that owner. Superusers also see definitions without an owner';

CREATE FUNCTION redis_migrate.is_restored(owner redis_migrate.owner_role) RETURNS boolean
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_is_restored';
COMMENT ON FUNCTION redis_migrate.is_restored(redis_migrate.owner_role) IS
    'Whether the definition was stored elsewhere, because it came with a dump, or this database is a copy';

CREATE FUNCTION redis_migrate.owner_name(owner redis_migrate.owner_role) RETURNS text
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_name';
COMMENT ON FUNCTION redis_migrate.owner_name(redis_migrate.owner_role) IS 'The name of an owner, even if the role does not exist here';

CREATE FUNCTION redis_migrate.owner_problem(owner redis_migrate.owner_role) RETURNS text
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_problem';
COMMENT ON FUNCTION redis_migrate.owner_problem(redis_migrate.owner_role) IS
    'Why a definition has no owner; NULL if it has one';

CREATE FUNCTION redis_migrate.release_owner() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_release_owner';
COMMENT ON FUNCTION redis_migrate.release_owner() IS
    'Trigger of tables with definitions: revokes the grant of a role that no longer owns a definition';
