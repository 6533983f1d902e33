-- undo_run called again, out of order, and after changes of what it writes to.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
\pset tuples_only on
SET client_min_messages = error;
CREATE TABLE packed (id int PRIMARY KEY, state text);
CREATE TABLE fulls (owner numeric PRIMARY KEY, value text);
CREATE TABLE kept (id text PRIMARY KEY, value text);
SELECT redis_migrate.create_migration('u', 'shop');
SELECT redis_migrate.add_mapping('u', 'packed', 'p:{id:int}', 'packed', 'SELECT id, value AS state FROM redis_batch', '{id}', databases => '{0}');
SELECT redis_migrate.add_mapping('u', 'fulls', 'f:{id}', 'fulls', 'SELECT split_part(value, '':'', 1)::numeric AS owner, value FROM redis_batch', '{owner}', databases => '{0}');
SELECT redis_migrate.add_mapping('u', 'kept', 'k:{id}', 'kept', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}', on_delete => 'keep', exclusive => true);
SELECT mapping, ledger FROM redis_migrate.mappings WHERE migration = 'u' ORDER BY mapping;
CREATE FUNCTION everything() RETURNS TABLE (relation text, line text) LANGUAGE sql AS $$
    SELECT 'packed', t::text FROM packed AS t UNION ALL SELECT 'fulls', t::text FROM fulls AS t
    UNION ALL SELECT 'kept', t::text FROM kept AS t ORDER BY 1, 2 $$;
CREATE FUNCTION undone(bigint) RETURNS TABLE (mapping text, state text, counts text) LANGUAGE sql AS $$
    SELECT mapping, state, concat_ws(' ', 'restored', restored, 'put back', put_back, 'removed', removed, 'left', left_alone, 'failed', failed, 'unknown', unknown, 'already', already)
    FROM redis_migrate.undos WHERE run_id = $1 $$;
CREATE FUNCTION leftovers(bigint) RETURNS TABLE (mapping text, row_key text[], sqlstate text, reason text) LANGUAGE sql AS $$
    SELECT mapping, row_key, sqlstate, reason FROM redis_migrate.undo_leftovers WHERE run_id = $1 ORDER BY 1, 2 $$;

\echo == rows that are inserted again between two calls stay, whether the first has removed them or met them gone
\! $R mset p:1 a p:2 b p:3 c f:1 1:a f:2 2:b f:3 3:c k:1 a k:2 b k:3 c >/dev/null
CALL redis_migrate.run('u');
SELECT max(run_id) AS a FROM redis_migrate.runs \gset
SELECT count(*) FROM redis_migrate.journal_entries WHERE run_id = :a;
UPDATE packed SET state = 'mine' WHERE id = 1;
UPDATE fulls SET value = 'mine' WHERE owner = 1;
UPDATE kept SET value = 'mine' WHERE id = '1';
DELETE FROM packed WHERE id = 3;
DELETE FROM fulls WHERE owner = 3;
DELETE FROM kept WHERE id = '3';
CALL redis_migrate.undo_run(:a);
SELECT * FROM undone(:a);
SELECT * FROM leftovers(:a);
INSERT INTO packed VALUES (2, 'b'), (3, 'c');
INSERT INTO fulls VALUES (2, '2:b'), (3, '3:c');
INSERT INTO kept VALUES ('2', 'b'), ('3', 'c');
CALL redis_migrate.undo_run(:a, dry_run => true);
SELECT * FROM undone(:a);
CALL redis_migrate.undo_run(:a);
SELECT * FROM undone(:a);
SELECT * FROM everything();
\echo == forced, only what was left goes
CALL redis_migrate.undo_run(:a, force => true);
SELECT * FROM undone(:a);
SELECT * FROM everything();
CALL redis_migrate.undo_run(:a, force => true);
SELECT * FROM everything();
TRUNCATE packed, fulls, kept;

\echo == two runs, undone in either order
SELECT redis_migrate.alter_mapping('u', 'fulls', depends_on => '{packed}');
CALL redis_migrate.run('u');
SELECT max(run_id) AS a FROM redis_migrate.runs \gset
\! $R mset p:1 x f:1 1:x k:1 x >/dev/null
CALL redis_migrate.run('u');
SELECT max(run_id) AS b FROM redis_migrate.runs \gset
CALL redis_migrate.undo_run(:a);
SELECT * FROM undone(:a);
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b);
CALL redis_migrate.undo_run(:a);
SELECT * FROM undone(:a);
SELECT count(*) FROM everything();

\echo == keys that are equal, and spelled differently
INSERT INTO fulls VALUES (1.0, 'old');
\! $R flushall >/dev/null
\! $R set f:1 1.00:a >/dev/null
CALL redis_migrate.run('u');
\! $R mset f:1 5:z f:2 1:b >/dev/null
CALL redis_migrate.run('u');
SELECT max(run_id) AS b FROM redis_migrate.runs \gset
SELECT * FROM fulls ORDER BY owner;
SELECT operation, row_key FROM redis_migrate.journal_entries WHERE run_id = :b ORDER BY journal_id, line;
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b) WHERE mapping = 'fulls';
CALL redis_migrate.undo_run(:b - 1);
SELECT * FROM fulls;

\echo == rows that refer to each other, in whatever order
TRUNCATE packed, fulls, kept;
ALTER TABLE kept ADD parent int REFERENCES packed;
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES packed, up int REFERENCES child);
SELECT redis_migrate.add_mapping('u', 'child', 'c:{id:int}', 'child', 'SELECT id, (json->>0)::int AS parent, (json->>1)::int AS up FROM redis_batch', '{id}', databases => '{0}', depends_on => '{packed}');
\! $R flushall >/dev/null
\! $R mset p:1 a p:2 b c:1 '[1]' c:2 '[2,1]' c:3 '[2,2]' >/dev/null
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.state = upper(NEW.state); RETURN NEW; END $$;
CREATE TRIGGER note BEFORE INSERT OR UPDATE ON packed FOR EACH ROW EXECUTE FUNCTION note();
CALL redis_migrate.run('u');
SELECT * FROM packed;
SELECT max(run_id) AS a FROM redis_migrate.runs \gset
CALL redis_migrate.undo_run(:a);
SELECT * FROM undone(:a);
SELECT (SELECT count(*) FROM packed), (SELECT count(*) FROM child);

\echo == partitions, generated and identity columns
\! $R flushall >/dev/null
CREATE TABLE parts (id int, value text, twice text GENERATED ALWAYS AS (value || value) STORED, n int GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
SELECT redis_migrate.add_mapping('u', 'parts', 'q:{id:int}', 'parts', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
\! $R mset q:1 a q:2 b q:20 c >/dev/null
CALL redis_migrate.run('u');
\! $R mset q:1 x q:3 d >/dev/null
\! $R del q:2 q:20 >/dev/null
CALL redis_migrate.run('u', prune => true, force => true);
SELECT max(run_id) AS b FROM redis_migrate.runs \gset
SELECT * FROM parts ORDER BY id;
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b) WHERE mapping = 'parts';
SELECT * FROM parts ORDER BY id;
\echo == columns renamed, dropped and added since
CALL redis_migrate.run('u', prune => true, force => true);
SELECT max(run_id) AS b FROM redis_migrate.runs \gset
ALTER TABLE parts DROP COLUMN twice;
ALTER TABLE parts RENAME n TO m;
ALTER TABLE parts ADD more int DEFAULT 7;
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b) WHERE mapping = 'parts';
SELECT id, value, m > 3, more FROM parts ORDER BY id;

\echo == a table that is gone, and a mapping that is gone
CALL redis_migrate.run('u', prune => true, force => true);
SELECT max(run_id) AS b FROM redis_migrate.runs \gset
ALTER TABLE parts RENAME TO hidden;
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b) WHERE mapping = 'parts';
SELECT * FROM leftovers(:b);
ALTER TABLE hidden RENAME TO parts;
SELECT redis_migrate.drop_mapping('u', 'parts');
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b) WHERE mapping LIKE '%parts%';
SELECT * FROM leftovers(:b);

\echo == row security hides rows: they are not taken for deleted
\! $R flushall >/dev/null
CREATE ROLE regress_prm_owner;
GRANT ALL ON SCHEMA public TO regress_prm_owner;
GRANT USAGE ON FOREIGN SERVER shop TO regress_prm_owner;
SET ROLE regress_prm_owner;
CREATE USER MAPPING FOR CURRENT_USER SERVER shop;
CREATE TABLE secured (id int PRIMARY KEY, value text);
SELECT redis_migrate.create_migration('v', 'shop');
SELECT redis_migrate.add_mapping('v', 'secured', 's:{id:int}', 'secured', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
\! $R mset s:1 a s:2 b >/dev/null
CALL redis_migrate.run('v');
SELECT last_run_id('v') AS c \gset
ALTER TABLE secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON secured USING (id = 1);
CALL redis_migrate.undo_run(:c);
SELECT * FROM undone(:c);
SELECT * FROM leftovers(:c);
DROP POLICY p ON secured;
CREATE POLICY p ON secured USING (true);
ALTER TABLE secured NO FORCE ROW LEVEL SECURITY;
CALL redis_migrate.undo_run(:c);
SELECT * FROM undone(:c);
SELECT count(*) FROM secured;
\echo == the run of another is not told from one that does not exist
\setenv LAST :b
\! psql -X -q -c 'SET ROLE regress_prm_owner' -c "CALL redis_migrate.undo_run($LAST)" 2>&1 | sed "s/run $LAST/run N/"
CALL redis_migrate.undo_run(1000000);
RESET ROLE;
SELECT redis_migrate.drop_migration('v');
DROP TABLE secured;
DROP OWNED BY regress_prm_owner;
DROP ROLE regress_prm_owner;

\echo == values of more than a megabyte
\! $R flushall >/dev/null
CREATE TABLE large (id int PRIMARY KEY, value text, b bytea, j jsonb);
ALTER TABLE large ALTER b SET STORAGE EXTERNAL;
SELECT redis_migrate.add_mapping('u', 'large', 'l:{id:int}', 'large', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
INSERT INTO large SELECT i, string_agg(md5(i::text || n), ''), decode(string_agg(md5(n || '' || i), ''), 'hex'), jsonb_agg(md5(n::text)) FROM generate_series(1, 2) AS i, generate_series(1, 60000) AS n GROUP BY i;
CREATE TABLE before AS TABLE large;
\! $R mset l:1 new l:2 new >/dev/null
CALL redis_migrate.run('u');
SELECT max(run_id) AS b FROM redis_migrate.runs \gset
SELECT count(*), sum(octet_length(bytes)) > 8000000 FROM redis_migrate.journal_value WHERE run_id = :b;
SELECT operation, row_key, changed FROM redis_migrate.journal_entries WHERE run_id = :b ORDER BY row_key;
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b) WHERE mapping = 'large';
SELECT count(*) FROM (TABLE large EXCEPT TABLE before) AS x;
SELECT count(*) FROM redis_migrate.journal_value WHERE run_id = :b;
\echo == such values, and bytes, where columns have other types by now
INSERT INTO large VALUES (3, 'small', 'small', '1');
INSERT INTO before VALUES (3, 'small', 'small', '1');
\! $R mset l:1 new l:2 new l:3 new >/dev/null
CALL redis_migrate.run('u');
SELECT max(run_id) AS b FROM redis_migrate.runs \gset
ALTER TABLE large ALTER b TYPE text USING encode(b, 'hex');
CALL redis_migrate.undo_run(:b, force => true);
SELECT * FROM undone(:b) WHERE mapping = 'large';
SELECT * FROM leftovers(:b);
ALTER TABLE large ALTER b TYPE bytea USING 'x', ALTER value TYPE varchar(10);
CALL redis_migrate.undo_run(:b, force => true);
SELECT * FROM undone(:b) WHERE mapping = 'large';
SELECT * FROM leftovers(:b);
ALTER TABLE large ALTER value TYPE text;
CALL redis_migrate.undo_run(:b, force => true);
SELECT * FROM undone(:b) WHERE mapping = 'large';
SELECT count(*) FROM (TABLE large EXCEPT TABLE before) AS x;

\echo == few subtransactions are kept, however many rows cannot be undone
\! $R flushall >/dev/null
CREATE TABLE many (id int PRIMARY KEY, value text);
CREATE TABLE kept_statements (transaction xid8);
CREATE FUNCTION note_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO kept_statements VALUES (pg_current_xact_id());
    RETURN NULL; END $$;
SELECT redis_migrate.add_mapping('u', 'many', 'y:{id:int}', 'many', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
\! $R eval 'for i = 1, 1000 do redis.call("SET", "y:" .. i, "old") end' 0 >/dev/null
CALL redis_migrate.run('u');
SELECT max(run_id) AS a FROM redis_migrate.runs \gset
\! $R eval 'for i = 1, 1000 do redis.call("SET", "y:" .. i, "new") end' 0 >/dev/null
CALL redis_migrate.run('u');
SELECT max(run_id) AS b FROM redis_migrate.runs \gset
CREATE TRIGGER note AFTER UPDATE OR DELETE ON many FOR EACH STATEMENT EXECUTE FUNCTION note_statement();
ALTER TABLE many ADD CONSTRAINT not_again CHECK (value <> 'old' OR id % 5 <> 0);
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b) WHERE mapping = 'many';
SELECT value, count(*) FROM many GROUP BY value ORDER BY value;
SELECT max(count(*)) OVER () <= 64 FROM kept_statements GROUP BY transaction LIMIT 1;
TRUNCATE kept_statements;
ALTER TABLE many DROP CONSTRAINT not_again;
CALL redis_migrate.undo_run(:b);
SELECT * FROM undone(:b) WHERE mapping = 'many';
CREATE TABLE refers (id int REFERENCES many);
INSERT INTO refers SELECT generate_series(5, 1000, 5);
CALL redis_migrate.undo_run(:a);
SELECT * FROM undone(:a) WHERE mapping = 'many';
SELECT count(*), bool_and(id % 5 = 0) FROM many;
SELECT max(count(*)) OVER () <= 64 FROM kept_statements GROUP BY transaction LIMIT 1;
DROP TABLE refers;
CALL redis_migrate.undo_run(:a);
SELECT * FROM undone(:a) WHERE mapping = 'many';
SELECT count(*) FROM many;
DROP TABLE many, kept_statements;
DROP FUNCTION note_statement;

SELECT redis_migrate.drop_migration('u');
SELECT count(*) FROM redis_migrate.journal_insert;
DROP TABLE packed, fulls, kept, child, parts, large, before;
DROP FUNCTION everything, undone, leftovers, note;
