-- One line for each table of the schema threadr: its name, its rows, and a fingerprint of where each row version lies and
-- which transaction wrote it. Two equal outputs say that no row was inserted, updated or deleted in between.
SELECT string_agg(format($$SELECT %L AS "table", count(*) AS rows,
                                  md5(coalesce(string_agg(ctid || ' ' || xmin, ',' ORDER BY ctid), '')) AS versions
                           FROM threadr.%I$$, tablename, tablename),
                  ' UNION ALL ' ORDER BY tablename COLLATE "C") || ' ORDER BY 1'
FROM pg_catalog.pg_tables
WHERE schemaname = 'threadr'
\gexec
