-- CREATE EXTENSION leaves behind comments, grants, and nothing after DROP EXTENSION.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned

-- Everything has a comment. Types of tables and views have those of the relations.
SELECT pg_describe_object(d.classid, d.objid, 0) AS "without a comment"
FROM pg_depend AS d
JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'pg_redis_migrate' AND d.deptype = 'e' AND d.classid <> 'pg_type'::regclass
  AND obj_description(d.objid, d.classid::regclass::name) IS NULL
ORDER BY 1;

-- PUBLIC may use the schema, select from the views, call the functions. Rights inside belong to owners.
SELECT 'schema ' || nspname AS "granted to PUBLIC", privilege_type
FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
WHERE nspname = 'redis_migrate' AND grantee = 0
UNION ALL
SELECT CASE relkind WHEN 'v' THEN 'view ' WHEN 'r' THEN 'table ' ELSE relkind::text || ' ' END || relname, privilege_type
FROM pg_class, aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner)))
WHERE relnamespace = 'redis_migrate'::regnamespace AND grantee = 0
UNION ALL
SELECT DISTINCT 'foreign-data wrapper ' || fdwname, privilege_type
FROM pg_foreign_data_wrapper, aclexplode(coalesce(fdwacl, acldefault('F', fdwowner)))
WHERE fdwname = 'redis_migrate' AND grantee = 0
UNION ALL
SELECT CASE prokind WHEN 'p' THEN 'procedure ' ELSE 'function ' END || proname, privilege_type
FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
WHERE pronamespace = 'redis_migrate'::regnamespace AND grantee = 0
ORDER BY 1, 2;

-- No function runs with its owner's rights, and none is written in SQL, whose names could be hijacked, unless it
-- fixes the search_path.
SELECT proname, prosecdef, lanname FROM pg_proc JOIN pg_language ON pg_language.oid = prolang
WHERE pronamespace = 'redis_migrate'::regnamespace AND (prosecdef OR lanname <> 'c' AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false));

-- Views that filter by owner must not let a function of the caller see the other rows.
SELECT relname FROM pg_class
WHERE relnamespace = 'redis_migrate'::regnamespace AND relkind = 'v' AND NOT coalesce('security_barrier=true' = ANY (reloptions), false);

-- Operators and functions that the views use come from pg_catalog or from the extension, whatever the search_path.
SELECT DISTINCT pg_describe_object(d.refclassid, d.refobjid, 0)
FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
LEFT JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
WHERE r.ev_class IN (SELECT oid FROM pg_class WHERE relnamespace = 'redis_migrate'::regnamespace)
  AND coalesce(o.oprnamespace, p.pronamespace) NOT IN ('pg_catalog'::regnamespace, 'redis_migrate'::regnamespace);

-- pg_dump saves what users have defined and what runs have recorded; which background runs are wanted is of this server alone.
SELECT relname FROM pg_class
WHERE relnamespace = 'redis_migrate'::regnamespace AND relkind IN ('r', 'S')
  AND NOT oid = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'pg_redis_migrate')::oid[])
ORDER BY relname COLLATE "C";

-- A publication FOR ALL TABLES takes in these tables: each can tell its rows apart, or updates and deletes would fail.
SELECT relname, relreplident FROM pg_class AS c
WHERE relnamespace = 'redis_migrate'::regnamespace AND relkind = 'r' AND relpersistence = 'p'
  AND relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary AND relreplident = 'd')
ORDER BY relname COLLATE "C";

-- A role without rights sees the views, empty, and no table.
CREATE ROLE regress_prm_nobody;
SELECT redis_migrate.create_migration('install', 'shop');
SET ROLE regress_prm_nobody;
SELECT count(*) FROM redis_migrate.migrations;
SELECT count(*) FROM redis_migrate.archive;
SELECT refused('SELECT * FROM redis_migrate.migration');
SELECT refused('SELECT * FROM redis_migrate.archived_key');
SELECT refused('INSERT INTO redis_migrate.migrations (migration) VALUES (''x'')');
RESET ROLE;
DROP ROLE regress_prm_nobody;

-- DROP EXTENSION takes everything along, but not while a server depends on it.
SELECT refused('DROP EXTENSION pg_redis_migrate');
DROP EXTENSION pg_redis_migrate CASCADE;
SELECT count(*) FROM pg_foreign_data_wrapper WHERE fdwname = 'redis_migrate';
SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('redis_migrate');
SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('redis_migrate');
CREATE EXTENSION pg_redis_migrate;
SELECT extversion IS NOT NULL AS installed FROM pg_extension WHERE extname = 'pg_redis_migrate';
