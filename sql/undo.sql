-- The journal, and undo_run: after it every row is as it was before the run.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
-- Notices name the run.
SET client_min_messages = error;
CREATE TABLE packed (id int PRIMARY KEY, state text, app text DEFAULT 'mine', at timestamptz, f float8, b bytea, n numeric(8,2), a text[]);
CREATE TABLE fulls (owner text PRIMARY KEY, value text);
CREATE TABLE excl (id text PRIMARY KEY, value text);
CREATE TABLE marked (id text PRIMARY KEY, value text, gone boolean NOT NULL DEFAULT false, changes int NOT NULL DEFAULT 0);
SELECT redis_migrate.create_migration('u', 'shop');
SELECT redis_migrate.add_mapping('u', 'packed', 'p:{id:int}', 'packed', 'SELECT id, value AS state FROM redis_batch', '{id}', databases => '{0}');
SELECT redis_migrate.add_mapping('u', 'fulls', 'f:{id}', 'fulls', 'SELECT split_part(value, '':'', 1) AS owner, value FROM redis_batch', '{owner}', databases => '{0}');
SELECT redis_migrate.add_mapping('u', 'excl', 'e:{id}', 'excl', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}', exclusive => true);
SELECT redis_migrate.add_mapping('u', 'marked', 'm:{id}', 'marked', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}',
    on_conflict => 'value = excluded.value, changes = target.changes + 1, gone = false', on_delete => 'gone = true');
SELECT mapping, ledger FROM redis_migrate.mappings WHERE migration = 'u' ORDER BY mapping;
CREATE FUNCTION everything() RETURNS TABLE (relation text, line text) LANGUAGE sql AS $$
    SELECT 'packed', t::text FROM packed AS t UNION ALL SELECT 'fulls', t::text FROM fulls AS t
    UNION ALL SELECT 'excl', t::text FROM excl AS t UNION ALL SELECT 'marked', t::text FROM marked AS t $$;
CREATE VIEW undone AS SELECT mapping, state, restored, put_back, removed, left_alone, failed, unknown, already FROM redis_migrate.undos
    WHERE run_id = last_run_id('u') ORDER BY mapping;

\echo == a first run: its inserts are removed, rows that were there get their values again
INSERT INTO packed VALUES (1, 'old', 'kept', '2026-01-02 03:04:05.678901+00', 0.1, '\x00ff', 1.50, ARRAY['a', NULL, 'b "c"']);
INSERT INTO packed VALUES (9, 'other');
INSERT INTO fulls VALUES ('a', NULL), ('z', 'other');
INSERT INTO excl VALUES ('x', 'same');
INSERT INTO marked VALUES ('x', 'old');
CREATE TABLE before AS SELECT * FROM everything();
CREATE FUNCTION differs() RETURNS TABLE (side text, relation text, line text) LANGUAGE sql AS $$
    (SELECT 'now', * FROM (SELECT * FROM everything() EXCEPT ALL SELECT * FROM before) AS x)
    UNION ALL (SELECT 'before', * FROM (SELECT * FROM before EXCEPT ALL SELECT * FROM everything()) AS x) ORDER BY 1, 2, 3 $$;
\! $R mset p:1 new p:2 new f:1 a:1 f:2 b:1 e:x same e:y new m:x new m:y new >/dev/null
CALL redis_migrate.run('u');
SELECT * FROM last_rows('u');
SELECT mapping, operation, row_key, earlier, changed FROM redis_migrate.journal_entries WHERE run_id = last_run_id('u') ORDER BY mapping, row_key;
CALL redis_migrate.undo_run(last_run_id('u'), dry_run => true);
SELECT * FROM undone;
SELECT count(*) FROM differs();
CALL redis_migrate.undo_run(last_run_id('u'));
SELECT * FROM undone;
SELECT * FROM differs();

\echo == once more: nothing is left to be undone
CALL redis_migrate.undo_run(last_run_id('u'));
SELECT * FROM undone;
SELECT * FROM differs();

\echo == a run after an undo does everything again
CALL redis_migrate.run('u');
SELECT * FROM last_rows('u');

\echo == a later run: updates, deletes, elements that moved, a prune; the columns of the table change afterwards
TRUNCATE before;
INSERT INTO before SELECT * FROM everything();
\! $R mset p:1 newer p:3 new f:1 c:1 e:y newer m:x newer >/dev/null
\! $R del p:2 f:2 e:x m:y >/dev/null
CALL redis_migrate.run('u', prune => true);
SELECT * FROM last_rows('u');
SELECT * FROM everything() ORDER BY 1, 2;
CALL redis_migrate.undo_run(last_run_id('u'));
SELECT * FROM undone;
SELECT * FROM differs();
CALL redis_migrate.run('u', prune => true);
SELECT * FROM last_rows('u');
ALTER TABLE packed ADD COLUMN later text DEFAULT 'later', DROP COLUMN f, ALTER id TYPE bigint;
CALL redis_migrate.undo_run(last_run_id('u'));
SELECT * FROM undone;
SELECT * FROM packed ORDER BY id;

\echo == rows that the application has changed since are left alone, unless forced
CALL redis_migrate.run('u', prune => true);
UPDATE packed SET app = 'changed' WHERE id = 1;
INSERT INTO packed VALUES (2, 'of the application');
UPDATE packed SET state = 'done' WHERE id = 3;
CALL redis_migrate.undo_run(last_run_id('u'));
SELECT * FROM undone;
SELECT mapping, row_key, sqlstate, reason FROM redis_migrate.undo_leftovers WHERE run_id = last_run_id('u');
SELECT id, state, app FROM packed ORDER BY id;
CALL redis_migrate.undo_run(last_run_id('u'), force => true);
SELECT * FROM undone;
SELECT id, state, app FROM packed ORDER BY id;

\echo == a row that the target refuses is reported
CALL redis_migrate.run('u', prune => true);
ALTER TABLE packed ADD CHECK (id <> 2) NOT VALID;
CREATE TABLE refers (id bigint REFERENCES packed);
INSERT INTO refers VALUES (3);
CALL redis_migrate.undo_run(last_run_id('u'));
SELECT * FROM undone;
SELECT mapping, row_key, sqlstate, reason FROM redis_migrate.undo_leftovers WHERE run_id = last_run_id('u');
DROP TABLE refers;
ALTER TABLE packed DROP CONSTRAINT packed_id_check;
CALL redis_migrate.undo_run(last_run_id('u'));
SELECT * FROM undone;
SELECT id, state, app FROM packed ORDER BY id;

\echo == journal => false
SELECT redis_migrate.alter_migration('u', journal => false);
\! $R set p:1 newest >/dev/null
CALL redis_migrate.run('u');
SELECT mapping, operation FROM redis_migrate.journal_entries WHERE run_id = last_run_id('u');
CALL redis_migrate.undo_run(last_run_id('u'));
SELECT * FROM undone;
SELECT id, state FROM packed ORDER BY id;
SELECT redis_migrate.migration_sql('u') LIKE '%journal => false%';
SELECT redis_migrate.alter_migration('u', journal => true);

\echo == what is refused
SELECT refused('CALL redis_migrate.undo_run(0)');
\set VERBOSITY terse
SET client_min_messages = warning;
CALL redis_migrate.undo_run(0);
CALL redis_migrate.undo_run(NULL);
SELECT redis_migrate.set_family_state('u', 'p:{id:int}', 'postgres');
SELECT set_config('my.run', last_run_id('u')::text, false) IS NULL;
CALL redis_migrate.undo_run(current_setting('my.run')::bigint);
SELECT redis_migrate.set_family_state('u', 'p:{id:int}', 'redis');
CREATE ROLE regress_prm_other;
SELECT last_run_id('u') AS last \gset
\setenv LAST :last
\! psql -X -q -c 'SET ROLE regress_prm_other' -c "CALL redis_migrate.undo_run($LAST)" 2>&1 | sed "s/run $LAST/run N/"
SET ROLE regress_prm_other;
SELECT count(*) FROM redis_migrate.undos;
SELECT count(*) FROM redis_migrate.journal_entries;
RESET ROLE;
DROP ROLE regress_prm_other;
SELECT redis_migrate.drop_migration('u');
SELECT (SELECT count(*) FROM redis_migrate.journal), (SELECT count(*) FROM redis_migrate.undo);
DROP VIEW undone;
DROP FUNCTION differs;
DROP TABLE before;
DROP FUNCTION everything;
DROP TABLE packed, fulls, excl, marked;
