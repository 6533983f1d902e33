-- Checks who owns the schema before anything is created in it. pg_restore makes an empty one first, as a superuser; anything
-- else that was there before could shadow what follows, and so could what others may add later.

DO $$
DECLARE
    owner      pg_catalog.name;
    is_trusted pg_catalog.bool;
    culprit    pg_catalog.text;
BEGIN
    SELECT r.rolname, r.rolsuper INTO STRICT owner, is_trusted
    FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
    WHERE n.nspname OPERATOR(pg_catalog.=) 'redis_migrate';
    IF NOT is_trusted THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'schema redis_migrate belongs to a role that is not a superuser',
            DETAIL = pg_catalog.format('Its owner is %I, who could put functions in front of those of the extension.', owner),
            HINT = 'DROP SCHEMA redis_migrate, or ALTER SCHEMA redis_migrate RENAME TO ...: CREATE EXTENSION makes its own.';
    END IF;
    SELECT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END
    INTO culprit
    FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.grantee
    WHERE n.nspname OPERATOR(pg_catalog.=) 'redis_migrate' AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
          AND r.rolsuper IS NOT TRUE
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'others may create objects in schema redis_migrate',
            DETAIL = pg_catalog.concat('CREATE on it is granted to ', culprit, '.'),
            HINT = pg_catalog.concat('CREATE SCHEMA IF NOT EXISTS redis_migrate; REVOKE CREATE ON SCHEMA redis_migrate FROM ', culprit, ';');
    END IF;
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) INTO culprit
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) d.refobjid
    WHERE n.nspname OPERATOR(pg_catalog.=) 'redis_migrate' AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
          AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_schema',
            MESSAGE = 'schema redis_migrate exists and is not empty',
            DETAIL = pg_catalog.concat('There is ', culprit, ' in it, for example.'),
            HINT = 'DROP SCHEMA redis_migrate CASCADE, or ALTER SCHEMA redis_migrate RENAME TO ...: CREATE EXTENSION makes its own.';
    END IF;
END
$$;
