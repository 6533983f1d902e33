-- Queries that read single fields of hashes get them without json. Each mapping stands beside one that takes any type,
-- which reads the same fields from json: they must have the same rows.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
CREATE SCHEMA fields;
SET search_path = fields, public;
SELECT redis_migrate.create_migration('fields', 'shop');
\! printf 'HSET h:1 a one n 1 b x\r\nHSET h:2 a two n -2 "spaced name" "with \\"quotes\\""\r\nHSET h:3 n 3\r\nHSET h:4 a "" n 4\r\nHSET h:5 a "\\xc3\\xa4" n 5 "\\xc3\\xb6" u\r\n' | $R >/dev/null
\! for i in $(seq 600); do echo "HSET h:6 n 6 f$i $i"; done | $R >/dev/null
\! echo "HSET h:6 a $(printf 'long%.0s' $(seq 40000))" | $R >/dev/null
CREATE TABLE known (name text PRIMARY KEY, meaning text);
INSERT INTO known VALUES ('one', 'eins'), ('two', 'zwei');

CREATE TABLE cases (name text, query text);
INSERT INTO cases VALUES
    ('plain', $$SELECT id, json->>'a' AS v FROM redis_batch$$),
    ('several', $$SELECT id, concat_ws('|', json->>'a', (json->>'n')::int + 1, json->>'spaced name', json->>'f300', json->>'a') AS v FROM redis_batch$$),
    ('missing', $$SELECT id, coalesce(json->>'none', 'nothing') AS v FROM redis_batch$$),
    ('other letters', $$SELECT id, json->>'a' || (json->>'\u00f6') AS v FROM redis_batch$$),
    ('condition', $$SELECT id, json->>'n' AS v FROM redis_batch WHERE json->>'a' <> ''$$),
    ('alias', $$SELECT b.id, upper(b.json->>'a') AS v FROM redis_batch AS b$$),
    ('case', $$SELECT id, CASE WHEN json->>'a' IS NULL THEN 'null' WHEN json->>'a' = 'one' THEN json->>'b' END AS v FROM redis_batch$$),
    ('join', $$SELECT id, meaning AS v FROM redis_batch JOIN known ON name = json->>'a'$$),
    ('outer join', $$SELECT id, meaning AS v FROM redis_batch LEFT JOIN known ON name = json->>'a'$$),
    ('subquery', $$SELECT id, v FROM (SELECT entry, id, json->>'a' AS v FROM redis_batch) AS b$$),
    ('sublink', $$SELECT id, (SELECT meaning FROM known WHERE name = json->>'a') AS v FROM redis_batch$$),
    ('deep sublink', $$SELECT id, (SELECT (SELECT max(meaning || (json->>'n')) FROM known WHERE name = k.name) FROM known AS k WHERE k.name = json->>'a') AS v FROM redis_batch$$),
    ('lateral', $$SELECT id, l.v FROM redis_batch, LATERAL (SELECT lower(json->>'a') AS v OFFSET 0) AS l$$),
    ('with', $$WITH b AS (SELECT * FROM redis_batch) SELECT id, json->>'a' AS v FROM b$$),
    ('json as well', $$SELECT id, (json->>'a') || ' of ' || (SELECT count(*) FROM jsonb_object_keys(json)) AS v FROM redis_batch$$),
    ('whole row', $$SELECT id, (json->>'a') || (redis_batch IS NOT NULL)::text AS v FROM redis_batch$$),
    ('name of a column', $$SELECT id, json->>(key || '') AS v FROM redis_batch$$),
    ('grouped', $$SELECT id, min(json->>'a') AS v FROM redis_batch GROUP BY entry, id, json->>'n'$$);
SELECT format('CREATE TABLE %I (id bigint PRIMARY KEY, v text); CREATE TABLE %I (id bigint PRIMARY KEY, v text)', 'direct ' || name, 'json ' || name)
FROM cases \gexec
SELECT redis_migrate.add_mapping('fields', 'direct ' || name, 'h:{id:int}', format('%I', 'direct ' || name)::regclass, query, '{id}',
           databases => '{0}', types => '{hash}', no_row => 'skip'),
       redis_migrate.add_mapping('fields', 'json ' || name, 'h:{id:int}', format('%I', 'json ' || name)::regclass, query, '{id}',
           databases => '{0}', no_row => 'skip')
FROM cases;
CALL redis_migrate.run('fields');
SELECT state, read, migrated, rejected FROM last_run('fields');

\echo == the same rows by both ways
SELECT format('SELECT %1$L AS name, (SELECT count(*) FROM (TABLE %2$I EXCEPT TABLE %3$I) AS d) AS only_direct, (SELECT count(*) FROM (TABLE %3$I EXCEPT TABLE %2$I) AS d) AS only_json',
              name, 'direct ' || name, 'json ' || name)
FROM cases \gexec
\echo == which are these
TABLE "direct plain" ORDER BY id LIMIT 5;
SELECT id, length(v) FROM "direct plain" WHERE id = 6;
TABLE "direct several" ORDER BY id LIMIT 5;
TABLE "direct condition" ORDER BY id;
TABLE "direct outer join" ORDER BY id;
TABLE "direct deep sublink" ORDER BY id;

\echo == a hash that is not all text is refused, whichever fields are read; so are other types
SELECT redis_migrate.drop_mapping('fields', mapping) FROM redis_migrate.mappings WHERE migration = 'fields' AND mapping <> 'direct plain';
\! $R flushall >/dev/null
\! printf 'HSET h:1 a fine b "\xff"\r\nHSET h:2 a fine "\xff" b\r\nHSET h:3 a "z\x00"\r\nSET h:4 "{}"\r\nHSET h:5 a changed\r\nHSET h:6 b "no a"\r\n' | $R >/dev/null
CALL redis_migrate.run('fields');
SELECT key, mapping, rule, message FROM last_rejects('fields');
TABLE "direct plain" ORDER BY id;

\echo == an expression that fails is named by its column
SELECT redis_migrate.drop_mapping('fields', 'direct plain');
CREATE TABLE numbers (id bigint PRIMARY KEY, n int, m int);
SELECT redis_migrate.add_mapping('fields', 'numbers', 'h:{id:int}', 'numbers', $$SELECT id, (json->>'n')::int AS n, (json->>'m')::int AS m FROM redis_batch$$,
    '{id}', types => '{hash}');
\! $R flushall >/dev/null
\! printf 'HSET h:1 n 1 m 2\r\nHSET h:2 n 1 m two\r\nHSET h:3 n x m 2\r\nHSET h:4 m 4\r\n' | $R >/dev/null
CALL redis_migrate.run('fields');
SELECT key, rule, sqlstate, message FROM last_rejects('fields');
TABLE numbers ORDER BY id;

DROP SCHEMA fields CASCADE;
SELECT redis_migrate.drop_migration('fields');
