-- ALTER DEFAULT PRIVILEGES of the role that creates the extension has given others rights on each object, also on the tables
-- behind the views, which decide whose SQL runs with whose rights. Nobody keeps any but what this script itself grants: to
-- PUBLIC, and to pg_monitor.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT pg_catalog.format('%s ON %s %s FROM %s', o.privilege, o.kind, o.name,
                   CASE WHEN o.grantee OPERATOR(pg_catalog.=) 0::oid THEN 'PUBLIC' ELSE o.grantee::regrole::text END) AS privilege
        FROM (
            SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, a.grantee, a.privilege_type, c.relowner,
                   a.privilege_type OPERATOR(pg_catalog.=) 'SELECT' AND c.relkind OPERATOR(pg_catalog.=) 'v'
                       AND a.grantee OPERATOR(pg_catalog.=) ANY (ARRAY[0::oid, 'pg_monitor'::regrole::oid])
            FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
            WHERE c.relnamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
            UNION ALL
            SELECT 'ROUTINE', p.oid::regprocedure::text, a.grantee, a.privilege_type, p.proowner,
                   a.grantee OPERATOR(pg_catalog.=) ANY (ARRAY[0::oid, 'pg_monitor'::regrole::oid])
            FROM pg_catalog.pg_proc AS p CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) AS a
            WHERE p.pronamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
        ) AS o (kind, name, grantee, privilege, owner, is_meant)
        WHERE o.grantee OPERATOR(pg_catalog.<>) o.owner AND NOT o.is_meant
    LOOP
        EXECUTE pg_catalog.concat('REVOKE ', given.privilege);
    END LOOP;
END
$$;
