-- Definitions: refusals, and the messages for the user.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset tuples_only

\echo == migrations
SELECT redis_migrate.create_migration('m', 'shop');
SELECT refused($$SELECT redis_migrate.create_migration('m', 'shop')$$);
SELECT refused($$SELECT redis_migrate.create_migration('', 'shop')$$);
SELECT refused($$SELECT redis_migrate.create_migration(NULL, 'shop')$$);
SELECT refused($$SELECT redis_migrate.create_migration('n', 'shop', source => 'keys')$$);
SELECT refused($$SELECT redis_migrate.create_migration('n', 'shop', unmapped => 'drop')$$);
SELECT refused($$SELECT redis_migrate.create_migration('n', 'shop', databases => '{}')$$);
SELECT refused($$SELECT redis_migrate.create_migration('n', 'shop', databases => '{0,-1}')$$);
SELECT refused($$SELECT redis_migrate.alter_migration('nosuch', unmapped => 'reject')$$);
SELECT refused($$SELECT redis_migrate.drop_migration('nosuch')$$);
SELECT redis_migrate.alter_migration('m', unmapped => 'reject', databases => '{0,3}');
SELECT migration, owner, server, source, unmapped, databases FROM redis_migrate.migrations;
SELECT redis_migrate.alter_migration('m', unmapped => 'archive');
SELECT migration, owner, server, source, unmapped, databases FROM redis_migrate.migrations;

\echo == ownership
CREATE ROLE regress_prm_alice LOGIN;
CREATE ROLE regress_prm_bob;
GRANT USAGE ON FOREIGN SERVER shop TO regress_prm_alice, regress_prm_bob;
GRANT CREATE ON SCHEMA public TO regress_prm_alice;
SET ROLE regress_prm_alice;
SELECT redis_migrate.create_migration('alices', 'shop');
CREATE TABLE alices_table (id text PRIMARY KEY, note text);
SELECT redis_migrate.add_mapping('alices', 'a', 'alice:{id}', 'alices_table', 'SELECT id, value AS note FROM redis_batch', '{id}');
SELECT redis_migrate.add_check('alices', 'a', 'has_note', $$note <> ''$$);
SELECT redis_migrate.skip_keys('alices', 'skip:*');
SELECT migration FROM redis_migrate.migrations;
SET ROLE regress_prm_bob;
SELECT migration FROM redis_migrate.migrations;
SELECT mapping FROM redis_migrate.mappings;
SELECT check_name FROM redis_migrate.checks;
SELECT pattern FROM redis_migrate.skipped_patterns;
SELECT refused($$SELECT redis_migrate.create_migration('alices', 'shop')$$);
SELECT refused($$SELECT redis_migrate.alter_migration('alices', unmapped => 'reject')$$);
SELECT refused($$SELECT redis_migrate.drop_migration('alices')$$);
SELECT refused($$SELECT redis_migrate.migration_sql('alices')$$);
SELECT refused($$SELECT * FROM redis_migrate.preview('alices')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('alices', 'b', 'b:{id}', 'pg_class', 'SELECT 1', '{id}')$$);
SELECT refused($$SELECT redis_migrate.alter_mapping('alices', 'a', priority => 'low')$$);
SELECT refused($$SELECT redis_migrate.drop_mapping('alices', 'a')$$);
SELECT refused($$SELECT redis_migrate.add_check('alices', 'a', 'c', 'true')$$);
SELECT refused($$SELECT redis_migrate.drop_check('alices', 'a', 'has_note')$$);
SELECT refused($$SELECT redis_migrate.skip_keys('alices', 'x')$$);
SELECT refused($$SELECT redis_migrate.unskip_keys('alices', 'skip:*')$$);
CALL redis_migrate.run('alices');
RESET ROLE;
-- A superuser sees all, but runs and changes only what is theirs.
SELECT migration FROM redis_migrate.migrations ORDER BY 1;
CALL redis_migrate.run('alices');
GRANT regress_prm_alice TO regress_prm_bob;
SET ROLE regress_prm_bob;
SELECT migration FROM redis_migrate.migrations;
RESET ROLE;
SET ROLE regress_prm_alice;
SELECT redis_migrate.drop_migration('alices');
RESET ROLE;
SELECT count(*) FROM redis_migrate.mapping_check;
DROP OWNED BY regress_prm_alice, regress_prm_bob;
DROP ROLE regress_prm_alice, regress_prm_bob;

CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE t (id text PRIMARY KEY, n integer, note varchar(10), at timestamptz, feeling mood,
                twice integer GENERATED ALWAYS AS (n * 2) STORED, number bigint GENERATED ALWAYS AS IDENTITY);
CREATE TABLE plain (a text NOT NULL, b text NOT NULL, c text, d text NOT NULL);
CREATE UNIQUE INDEX ON plain (c);
CREATE UNIQUE INDEX ON plain (a) WHERE b <> '';
CREATE UNIQUE INDEX ON plain (lower(b));
ALTER TABLE plain ADD CONSTRAINT later UNIQUE (d) DEFERRABLE;
CREATE VIEW a_view AS SELECT id, n FROM t;
CREATE MATERIALIZED VIEW matview AS SELECT id, n FROM t;
-- add(query, …): whether a mapping "x" of keys x:{k} to table t is accepted; if so, it is dropped again.
CREATE FUNCTION add(query text, more text DEFAULT '', pattern text DEFAULT 'x:{k}', target text DEFAULT 't', key_columns text DEFAULT '{id}')
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text := refused(format('SELECT redis_migrate.add_mapping(%L, %L, %L, %L, %L, %L %s)', 'm', 'x', pattern, target, query, key_columns, more));
BEGIN
    IF answer <> 'not refused' THEN
        RETURN answer;
    END IF;
    PERFORM redis_migrate.drop_mapping('m', 'x');
    RETURN 'accepted';
END
$$;

\echo == columns
SELECT add('SELECT k AS id, 1 AS nosuch FROM redis_batch');
SELECT add('SELECT k AS id, nosuch AS note FROM redis_batch');
SELECT add('SELECT k FROM redis_batch');
SELECT add('SELECT k AS id, true AS n FROM redis_batch');
SELECT add('SELECT k AS id, value AS n FROM redis_batch');
SELECT add('SELECT k AS id, json AS at FROM redis_batch');
SELECT add('SELECT k AS id, 4 AS twice FROM redis_batch');
SELECT add('SELECT k AS id, k AS id FROM redis_batch');
SELECT add('SELECT * FROM redis_batch');
SELECT add('SELECT k AS id, ''sad'' AS feeling FROM redis_batch');
SELECT add('SELECT 1 AS n FROM redis_batch');
SELECT add('SELECT k AS id FROM redis_batch', target => 'nosuch');
SELECT add('SELECT k AS id FROM redis_batch', target => 'matview');
SELECT add('SELECT k AS id FROM redis_batch', target => '-');

\echo == key columns
SELECT add('SELECT k AS id FROM redis_batch', key_columns => '{nosuch}');
SELECT add('SELECT k AS id FROM redis_batch', key_columns => '{}');
SELECT add('SELECT k AS id FROM redis_batch', key_columns => '{id,id}');
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', key_columns => '{id,n}');
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', key_columns => '{n}');
SELECT add('SELECT k AS a, k AS b, k AS d FROM redis_batch', target => 'plain', key_columns => '{a}');
SELECT add('SELECT k AS a, k AS b, k AS d FROM redis_batch', target => 'plain', key_columns => '{b}');
SELECT add('SELECT k AS a, k AS b, k AS c, k AS d FROM redis_batch', target => 'plain', key_columns => '{c}');
SELECT add('SELECT k AS a, k AS b, k AS d FROM redis_batch', target => 'plain', key_columns => '{d}');
-- The statements of the hints work.
CREATE UNIQUE INDEX ON public.plain (a);
SELECT add('SELECT k AS a, k AS b, k AS d FROM redis_batch', target => 'plain', key_columns => '{a}');
ALTER TABLE public.plain ALTER c SET NOT NULL;
SELECT add('SELECT k AS a, k AS b, k AS c, k AS d FROM redis_batch', target => 'plain', key_columns => '{c}');
-- Nothing is known of the indexes below a view.
SELECT add('SELECT k AS id FROM redis_batch', target => 'a_view', key_columns => '{n}');
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', target => 'a_view', key_columns => '{n}');

\echo == the shape of the query
SELECT add('');
SELECT add('SELECT k AS id FROM redis_batch; SELECT 1');
SELECT add('DELETE FROM t');
SELECT add('VALUES (1)');
SELECT add('SELECT FROM redis_batch');
SELECT add('SELEC k AS id FROM redis_batch');
SELECT add('TABLE redis_batch');
-- The position of an error is one in the query, not in the call.
SELECT redis_migrate.add_mapping('m', 'x', 'x:{k}', 't', 'SELECT k AS id, nosuch AS n FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('m', 'x', 'x:{k}', 't', 'SELECT k AS id, FROM redis_batch', '{id}');
SELECT add('SELECT k AS id FROM redis_batch LIMIT 1');
SELECT add('SELECT k AS id FROM redis_batch OFFSET 1');
SELECT add('SELECT k AS id INTO other FROM redis_batch');
SELECT add('SELECT k AS id INTO other FROM redis_batch UNION SELECT k FROM redis_batch');
SELECT add('SELECT k AS id FROM redis_batch FOR UPDATE');
SELECT add('WITH gone AS (DELETE FROM t RETURNING id) SELECT k AS id FROM redis_batch');
SELECT add('SELECT ''a'' AS id');
SELECT add('SELECT id FROM t');
SELECT add('SELECT $1 AS id FROM redis_batch');
SELECT add('SELECT k AS id FROM elsewhere.redis_batch');
SELECT add('SELECT k AS id FROM redis_batch -- with a comment at its end');

\echo == per entry
SELECT add('SELECT max(k) AS id FROM redis_batch');
SELECT add('SELECT k AS id, count(*)::int AS n FROM redis_batch GROUP BY k');
SELECT add('SELECT k AS id, count(*)::int AS n FROM redis_batch GROUP BY entry, k');
SELECT add('SELECT k AS id, count(*)::int AS n FROM redis_batch GROUP BY GROUPING SETS ((entry, k), (entry))');
SELECT add('SELECT k AS id, (SELECT count(*) FROM redis_batch)::int AS n FROM redis_batch');
SELECT add('SELECT b.k AS id, (SELECT count(*) FROM redis_batch AS c WHERE c.entry = b.entry GROUP BY c.entry)::int AS n FROM redis_batch AS b');
SELECT add('SELECT k AS id, count(*)::int AS n FROM (SELECT entry, k FROM redis_batch) AS b GROUP BY k, n');
SELECT add('SELECT b.entry, k AS id FROM (SELECT count(*) AS n FROM redis_batch) AS a, redis_batch AS b');
SELECT add('SELECT k AS id, (row_number() OVER ())::int AS n FROM redis_batch');
SELECT add('SELECT k AS id, (row_number() OVER (PARTITION BY k))::int AS n FROM redis_batch');
SELECT add('SELECT k AS id, (row_number() OVER (PARTITION BY entry ORDER BY k))::int AS n FROM redis_batch');
SELECT add('SELECT k AS id, (count(*) OVER ())::int AS n FROM (SELECT entry, k FROM redis_batch) AS b');
SELECT add('WITH b AS (SELECT entry, k FROM redis_batch) SELECT k AS id, (count(*) OVER ())::int AS n FROM b');
SELECT add('WITH b AS (SELECT entry, k FROM redis_batch) SELECT k AS id, (count(*) OVER (PARTITION BY entry))::int AS n FROM b');
SELECT add('SELECT DISTINCT k AS id FROM redis_batch');
SELECT add('SELECT DISTINCT ON (k) k AS id FROM redis_batch');
SELECT add('SELECT DISTINCT ON (entry) k AS id FROM redis_batch');
SELECT add('SELECT k AS id, (SELECT c.n FROM (SELECT count(*)::int AS n FROM t) AS c) AS n FROM redis_batch');

\echo == redis_batch beside itself
SELECT add('SELECT a.k AS id, b.value AS note FROM redis_batch AS a JOIN redis_batch AS b ON b.k > a.k');
SELECT add('SELECT a.k AS id, b.value AS note FROM redis_batch AS a LEFT JOIN redis_batch AS b ON b.entry = b.entry');
SELECT add('SELECT a.k AS id FROM redis_batch AS a, redis_batch AS b WHERE a.entry = b.entry OR a.k = b.k');
SELECT add('SELECT a.k AS id, b.value AS note FROM redis_batch AS a LEFT JOIN redis_batch AS b ON b.entry = a.entry AND b.k > a.k');
SELECT add('SELECT a.k AS id FROM redis_batch AS a, redis_batch AS b WHERE a.entry = b.entry AND b.value IS NOT NULL');
SELECT add('SELECT id, n FROM (SELECT entry, k AS id FROM redis_batch) AS a LEFT JOIN (SELECT entry, count(*)::int AS n FROM redis_batch GROUP BY entry) AS b USING (entry)');
SELECT add('SELECT k AS id FROM redis_batch WHERE k IN (SELECT c.value FROM redis_batch AS c)');
SELECT add('SELECT b.k AS id FROM redis_batch AS b WHERE EXISTS (SELECT FROM redis_batch AS c WHERE c.entry = b.entry AND c.value = c.k)');
SELECT add('SELECT k AS id FROM redis_batch WHERE k IN (SELECT id FROM t)');

\echo == entry is handed on
SELECT add('SELECT k AS id FROM (SELECT 1000000000 AS entry, k FROM redis_batch) AS b');
SELECT add('SELECT k AS id FROM (SELECT entry + 1 AS entry, k FROM redis_batch) AS b');
SELECT add('SELECT k AS id FROM (SELECT entry::text AS entry, k FROM redis_batch) AS b');
SELECT add('SELECT k AS id FROM (SELECT k FROM redis_batch) AS b');
SELECT add('SELECT a.k AS id FROM (SELECT entry, k FROM redis_batch) AS a, (SELECT entry FROM redis_batch) AS b');
SELECT add('SELECT a.k AS id FROM (SELECT entry, k FROM redis_batch) AS a JOIN (SELECT entry, count(*) AS n FROM redis_batch GROUP BY entry) AS b USING (entry)');
SELECT add('WITH redis_batch AS (SELECT 0 AS entry, ''x'' AS k) SELECT k AS id FROM redis_batch');
SELECT add('SELECT x.k AS id FROM (VALUES (''a'')) AS x (k) LEFT JOIN redis_batch AS b ON b.k = x.k');
SELECT add('SELECT b.k AS id FROM redis_batch AS b RIGHT JOIN t ON t.id = b.k');
SELECT add('SELECT b.k AS id FROM redis_batch AS b FULL JOIN t ON t.id = b.k');
SELECT add('SELECT b.k AS id, t.n FROM redis_batch AS b LEFT JOIN t ON t.id = b.k');
SELECT add('SELECT k AS id FROM redis_batch UNION SELECT id FROM (SELECT 7 AS entry, id FROM t) AS u');
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch UNION ALL (SELECT k || ''b'', 2 FROM redis_batch EXCEPT SELECT ''c'', 3 FROM redis_batch) ORDER BY 1');
SELECT add('SELECT b.k AS id, t.n FROM t JOIN redis_batch AS b ON t.id = b.k');
SELECT add('SELECT id, n FROM (SELECT entry, k AS id FROM redis_batch) AS b JOIN t USING (id)');
SELECT add('SELECT j.k AS id FROM (redis_batch AS b CROSS JOIN (VALUES (1)) AS v (x)) AS j');
SELECT add('WITH RECURSIVE steps AS (SELECT entry, k, 1 AS n FROM redis_batch UNION ALL SELECT entry, k, n + 1 FROM steps WHERE n < 3) SELECT k || n AS id FROM steps');
SELECT add('WITH RECURSIVE steps AS (SELECT entry, k, 1 AS n FROM redis_batch UNION ALL SELECT entry + 1, k, n + 1 FROM steps WHERE n < 3) SELECT k || n AS id FROM steps');

\echo == options
SELECT add('SELECT k AS id FROM redis_batch', $$, priority => 'urgent'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, mode => 'insert'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, no_row => 'ignore'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, atomic => 'row'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, atomic => 'element'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, expand => 'all'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, types => '{string,number}'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, types => '{}'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, databases => '{}'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, databases => '{-1}'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, source_timezone => 'Nowhere/Town'$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, source_timezone => NULL$$);
SELECT add('SELECT k AS id FROM redis_batch', $$, priority => NULL$$);
SELECT add('SELECT member AS id FROM redis_batch');
SELECT add('SELECT value AS id FROM redis_batch', $$, expand => 'groups'$$);

\echo == SET lists
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'replace'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => ''$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'n = 1; DROP TABLE t'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'n = 1 WHERE true'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'n = 1 FROM t'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'n = 1 RETURNING id'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => '(n, note) = (1, 2)'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'nosuch = 1'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'n = target.nosuch'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'n = excluded.note'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'n = true'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_delete => 'remove'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_delete => 'nosuch = 1'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_delete => 'n = excluded.n'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_conflict => 'n = target.n + excluded.n, note = ''a, b = c'' -- said', on_delete => 'n = 0 -- gone'$$);
-- on_flush.
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_flush => 'keep'$$);
-- on_expire: only of a mapping whose rows tell when their keys expire.
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_expire => 'keep'$$);
SELECT add('SELECT k AS id, 1 AS n FROM redis_batch', $$, on_expire => 'remove'$$);
CREATE TABLE counters (id text PRIMARY KEY, n int, expires_at timestamptz);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'counters', 'counter:{k}', 'counters', 'SELECT k AS id, expires_at + interval ''1 s'' AS expires_at FROM redis_batch', '{id}', on_expire => 'keep')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'counters', 'counter:{k}', 'counters', 'SELECT k AS id, expires_at FROM redis_batch', '{id}', on_expire => 'nosuch = 1')$$);
SELECT redis_migrate.add_mapping('m', 'counters', 'counter:{k}', 'counters', 'SELECT k AS id, expires_at FROM redis_batch', '{id}', databases => '{0}', on_delete => 'keep', on_expire => 'delete', mode => 'update');
SELECT on_delete, on_expire, ledger FROM redis_migrate.mappings WHERE mapping = 'counters';
SELECT redis_migrate.alter_mapping('m', 'counters', mode => 'upsert', on_delete => 'delete', on_expire => 'n = NULL -- and stays');
SELECT on_delete, on_expire, ledger FROM redis_migrate.mappings WHERE mapping = 'counters';
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'counters', query => 'SELECT k AS id FROM redis_batch')$$);
SELECT redis_migrate.alter_mapping('m', 'counters', reset => '{on_expire}');
SELECT on_delete, on_expire, ledger FROM redis_migrate.mappings WHERE mapping = 'counters';
SELECT redis_migrate.drop_mapping('m', 'counters');
DROP TABLE counters;
-- A mapping that inserts no rows deletes none.
SELECT redis_migrate.add_mapping('m', 'x', 'x:{k}', 't', 'SELECT k AS id, 1 AS n FROM redis_batch', '{id}', mode => 'update');
SELECT on_delete FROM redis_migrate.mappings WHERE mapping = 'x';
SELECT redis_migrate.drop_mapping('m', 'x');

\echo == patterns
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => '');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:{k');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:{}');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:{k:integer}');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:{a}{b}');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:{a}*');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:{a}:{a}');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:{entry}');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:{value}');
SELECT add('SELECT 1 AS n FROM redis_batch', pattern => 'x:\a');
-- The types of captures: what comes out in redis_batch.
CREATE TABLE captures (a text, b bigint, c numeric, d uuid, e inet, f date, g date, h text, i text, id text PRIMARY KEY);
SELECT add('SELECT a, b, c, d, e, f, g, h, i, key AS id FROM redis_batch', target => 'captures',
           pattern => 'x:{a}:{b:int}:{c:number}:{d:uuid}:{e:inet}:{f:date}:{g:month}:{h:hex}:{i:email}');
SET client_min_messages = notice;
SELECT redis_migrate.add_mapping('m', 'orders', 'order:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('m', 'numbers', 'order:{k:int}', 't', 'SELECT k::text AS id FROM redis_batch', '{id}');
SELECT redis_migrate.skip_keys('m', 'order:*:tmp');
SELECT redis_migrate.add_mapping('m', 'others', 'other:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}');
SET client_min_messages = warning;
SELECT refused($$SELECT redis_migrate.skip_keys('m', 'order:*:tmp')$$);
SELECT refused($$SELECT redis_migrate.skip_keys('m', 'order:{k}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'tmp', 'order:*:tmp', 't', 'SELECT key AS id FROM redis_batch', '{id}')$$);
SELECT refused($$SELECT redis_migrate.unskip_keys('m', 'order:{k}')$$);
SELECT redis_migrate.unskip_keys('m', 'order:*:tmp');

\echo == names, siblings, dependencies
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'orders', 'y:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', '', 'y:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('nosuch', 'y', 'y:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'y', NULL, 't', 'SELECT k AS id FROM redis_batch', '{id}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'y', 'y:{k}', NULL, 'SELECT k AS id FROM redis_batch', '{id}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'more', 'order:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', priority => 'high')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'more', 'order:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', databases => '{0}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'y', 'y:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', depends_on => '{nosuch}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'y', 'y:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', depends_on => '{y}')$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'y', 'y:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', depends_on => '{orders}', priority => 'high')$$);
SELECT redis_migrate.add_mapping('m', 'y', 'y:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', depends_on => '{orders,others}');
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'orders', depends_on => '{y}')$$);
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'orders', priority => 'low')$$);
SELECT refused($$SELECT redis_migrate.drop_mapping('m', 'orders')$$);
SELECT refused($$SELECT redis_migrate.drop_mapping('m', 'nosuch')$$);

\echo == alter_mapping
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'nosuch', priority => 'low')$$);
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'y', query => 'SELECT k AS nosuch FROM redis_batch')$$);
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'y', pattern => 'y:{id}')$$);
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'y', target => 'plain')$$);
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'y', expand => 'groups', query => 'SELECT value AS id FROM redis_batch')$$);
SELECT redis_migrate.add_check('m', 'y', 'short', 'length(id) < 5');
SELECT refused($$SELECT redis_migrate.alter_mapping('m', 'y', target => 'plain', query => 'SELECT k AS a, k AS b, k AS c, k AS d FROM redis_batch', key_columns => '{a}')$$);
SELECT redis_migrate.alter_mapping('m', 'y', query => 'SELECT k AS id, 1 AS n FROM redis_batch', priority => 'low', types => '{string,hash}', source_timezone => 'Asia/Kathmandu', on_conflict => 'fill');
\pset format aligned
\x on
SELECT * FROM redis_migrate.mappings WHERE mapping = 'y';
\x off
\pset format unaligned

\echo == exclusive
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', exclusive => true)$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}', 't', 'SELECT lower(k) AS id FROM redis_batch', '{id}', databases => '{0}', exclusive => true)$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}:*', 't', 'SELECT k AS id FROM redis_batch', '{id}', databases => '{0}', exclusive => true)$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', databases => '{0,1}', exclusive => true)$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', databases => '{0}', expand => 'elements', exclusive => true)$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k:uuid}', 't', 'SELECT k::text AS id FROM redis_batch', '{id}', databases => '{0}', exclusive => true)$$);
-- Texts that differ may be equal: in a nondeterministic collation, without trailing blanks.
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE loose (id text COLLATE ignore_case PRIMARY KEY);
CREATE TABLE padded (id char(8) PRIMARY KEY);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}', 'loose', 'SELECT k AS id FROM redis_batch', '{id}', databases => '{0}', exclusive => true)$$);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}', 'padded', 'SELECT k AS id FROM redis_batch', '{id}', databases => '{0}', exclusive => true)$$);
-- Nor may another mapping store rows there.
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}', 't', 'SELECT k AS id FROM redis_batch', '{id}', databases => '{0}', exclusive => true)$$);
CREATE TABLE alone (id text PRIMARY KEY, n integer);
SELECT redis_migrate.add_mapping('m', 'e', 'e:{k}', 'alone', 'SELECT k AS id, 1 AS n FROM redis_batch', '{id}', databases => '{0}', exclusive => true);
SELECT refused($$SELECT redis_migrate.add_mapping('m', 'f', 'f:{k}', 'alone', 'SELECT k AS id FROM redis_batch', '{id}')$$);
SELECT redis_migrate.add_mapping('m', 'kept', 'kept:{k}', 't', 'SELECT k AS id, 1 AS n FROM redis_batch', '{id}', databases => '{0}', on_delete => 'keep');
SELECT redis_migrate.add_mapping('m', 'owned', 'owned:{k}', 't', 'SELECT k AS id, 1 AS n FROM redis_batch', '{id}', databases => '{0}');
SELECT mapping, exclusive, ledger FROM redis_migrate.mappings WHERE mapping IN ('e', 'kept', 'owned') ORDER BY 1;

\echo == queries whose result may change by itself
SELECT redis_migrate.add_mapping('m', 'v1', 'v1:{k}', 't', 'SELECT k AS id, (random() * 9)::int AS n FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('m', 'v2', 'v2:{k}', 't', 'SELECT k AS id, now() AS at FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('m', 'v3', 'v3:{k}', 't', 'SELECT k AS id, current_timestamp AS at FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('m', 'v4', 'v4:{k}', 't', 'SELECT k AS id, transaction_timestamp() AS at FROM redis_batch', '{id}');
SELECT redis_migrate.add_mapping('m', 'v5', 'v5:{k}', 't', 'SELECT k AS id, current_user::varchar AS note FROM redis_batch', '{id}');

\echo == checks
SELECT refused($$SELECT redis_migrate.add_check('m', 'y', 'c', 'nosuch > 1')$$);
SELECT refused($$SELECT redis_migrate.add_check('m', 'y', 'c', 'n')$$);
SELECT refused($$SELECT redis_migrate.add_check('m', 'y', 'c', 'note = ''x''')$$);
SELECT refused($$SELECT redis_migrate.add_check('m', 'y', 'c', 'count(*) > 0')$$);
SELECT refused($$SELECT redis_migrate.add_check('m', 'y', 'c', 'n > ')$$);
SELECT refused($$SELECT redis_migrate.add_check('m', 'y', 'c', '')$$);
SELECT refused($$SELECT redis_migrate.add_check('m', 'y', '', 'true')$$);
SELECT refused($$SELECT redis_migrate.add_check('m', 'y', 'short', 'true')$$);
SELECT refused($$SELECT redis_migrate.add_check('m', 'nosuch', 'c', 'true')$$);
SELECT redis_migrate.add_check('m', 'y', 'known', 'id IN (SELECT id FROM t) OR redis_migrate.input_is_valid(id, ''date'') -- or so');
SELECT mapping, check_name, condition FROM redis_migrate.checks ORDER BY 1, 2;
SELECT refused($$SELECT redis_migrate.drop_check('m', 'y', 'nosuch')$$);
SELECT redis_migrate.drop_check('m', 'y', 'known');

\echo == migration_sql recreates a migration
SELECT redis_migrate.drop_migration('m');
SET search_path = '';
SET datestyle = 'SQL, DMY';
SELECT redis_migrate.create_migration('it''s', 'shop', unmapped => 'reject', databases => '{0,2}');
SELECT pg_catalog.set_config('search_path', '', false);
SELECT redis_migrate.add_mapping('it''s', 'b "quoted"', 'b\*:{k}', 'public.t', $$SELECT k AS id, 'it''s \ "b"' AS note FROM redis_batch$$, '{id}',
    types => '{string}', databases => '{2}', on_conflict => 'n = target.n + 1', on_delete => 'n = NULL', mode => 'update', no_row => 'skip', priority => 'critical');
RESET search_path;
RESET datestyle;
SET intervalstyle = 'iso_8601';
ALTER TABLE captures ADD until timestamptz;
SELECT redis_migrate.add_mapping('it''s', 'a', 'a:{k}', 'captures', 'SELECT key AS id, field AS a, expires_at AS until FROM redis_batch', '{id}',
    on_expire => 'a = ''it''''s''', on_flush => 'delete', expand => 'elements', atomic => 'element', depends_on => ARRAY['b "quoted"'], source_timezone => 'America/St_Johns');
RESET intervalstyle;
SELECT redis_migrate.add_check('it''s', 'a', 'a''s check', $$a <> 'it''s'$$);
SELECT redis_migrate.skip_keys('it''s', 'tmp:*');
SELECT redis_migrate.migration_sql('it''s');
SELECT replace(redis_migrate.migration_sql('it''s'), $$'it''s',$$, $$'copy',$$) AS recreate \gset
CREATE FUNCTION recreate(text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE $1; END$$;
SELECT recreate(:'recreate');
RESET ALL;
SET client_min_messages = warning;
SELECT replace(redis_migrate.migration_sql('copy'), $$'copy',$$, $$'it''s',$$) = redis_migrate.migration_sql('it''s') AS equal;
SELECT count(*) AS different FROM (SELECT to_jsonb(m) - 'migration' FROM redis_migrate.mappings AS m WHERE migration = 'copy'
                                   EXCEPT SELECT to_jsonb(m) - 'migration' FROM redis_migrate.mappings AS m WHERE migration = 'it''s') AS d;
SELECT redis_migrate.drop_migration('copy'), redis_migrate.drop_migration('it''s');

DROP VIEW a_view;
DROP MATERIALIZED VIEW matview;
DROP TABLE t, plain, captures, loose, padded, alone;
DROP COLLATION ignore_case;
DROP TYPE mood;
DROP FUNCTION add, recreate;
