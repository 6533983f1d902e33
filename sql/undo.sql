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

\echo == columns with the names that our statements use
CREATE TABLE names (target text PRIMARY KEY, redis_found text, redis_found_ int, redis_rows text, redis_batch text, redis_before text, redis_seen text,
    redis_gone text, redis_undo text, redis_met text, redis_query text, redis_identities text, excluded text, stored text DEFAULT 'as it was', before text,
    latter text, batch text, seen text, offered text, inserted text, recorded text, asked text, one text, other text, found text, image text, gone text,
    met text, suspect text, ranked text, n text, row_key text, is_found text, hash text, key text, value text, entry text, redis_value text,
    after_ms bigint, until_ms bigint);
CREATE TABLE names_of_full (LIKE names INCLUDING ALL);
\! $R flushall >/dev/null
SELECT redis_migrate.create_migration('names', 'shop');
SELECT redis_migrate.add_mapping('names', ledger, ledger || ':{id}', relation, format($$SELECT %s AS target, value AS redis_found, 1 AS redis_found_,
        value AS redis_rows, value AS redis_batch, value AS excluded, value AS before, value AS latter, value AS key, value AS entry, value AS found, value AS n,
        value AS row_key, value AS hash, value AS offered FROM redis_batch$$, target), '{target}',
    databases => '{0}', on_conflict => CASE ledger WHEN 'full' THEN 'redis_found = excluded.redis_found, stored = target.n' ELSE 'update' END)
FROM (VALUES ('packed', 'id', 'names'), ('full', $$split_part(value, ':', 1)$$, 'names_of_full')) AS m (ledger, target, relation);
SELECT redis_migrate.add_check('names', 'packed', 'good', $$redis_found <> 'bad' AND row_key = n$$);
SELECT redis_migrate.alter_mapping('names', 'packed', priority => 'high');
SELECT mapping, ledger FROM redis_migrate.mappings WHERE migration = 'names' ORDER BY mapping;
\! $R mset packed:1 a packed:2 b full:1 a:1 full:2 b:1 >/dev/null
INSERT INTO names (target, redis_found) VALUES ('1', 'mine');
INSERT INTO names_of_full (target, redis_found) VALUES ('a', 'mine');
SELECT key, target_row - '{before,latter,key,entry,found,n,row_key,hash,offered,excluded,redis_batch}'::text[] AS target_row FROM redis_migrate.preview('names') ORDER BY key;
CALL redis_migrate.run('names');
\! $R mset packed:1 c full:1 a:2 >/dev/null; $R del packed:2 full:2 >/dev/null
CALL redis_migrate.run('names', prune => true);
SELECT * FROM last_run('names');
SELECT target, redis_found, redis_rows, stored FROM (TABLE names UNION ALL TABLE names_of_full) AS t ORDER BY target;
SELECT mapping, operation, row_key, earlier -> 'redis_found' AS earlier FROM redis_migrate.journal_entries WHERE run_id = last_run_id('names') ORDER BY mapping, row_key;
CALL redis_migrate.verify('names');
CALL redis_migrate.undo_run(last_run_id('names'));
SELECT target, redis_found, redis_rows, stored FROM (TABLE names UNION ALL TABLE names_of_full) AS t ORDER BY target;
SELECT min(run_id) AS first FROM redis_migrate.runs WHERE migration = 'names' \gset
CALL redis_migrate.undo_run(:first);
SELECT target, redis_found, redis_rows, stored FROM (TABLE names UNION ALL TABLE names_of_full) AS t ORDER BY target;
-- what happens to rows that are gone may read them, too
SELECT redis_migrate.alter_mapping('names', m, on_delete => $$stored = concat_ws(' ', 'gone', n, row_key, after_ms, until_ms)$$) FROM unnest(ARRAY['full', 'packed']) AS m;
\! $R mset packed:1 d packed:2 e full:1 a:3 full:2 b:3 >/dev/null
CALL redis_migrate.run('names');
\! $R del packed:2 full:2 >/dev/null
CALL redis_migrate.run('names', prune => true);
\! $R set full:1 c:4 >/dev/null
CALL redis_migrate.run('names');
SELECT target, redis_found, stored FROM (TABLE names UNION ALL TABLE names_of_full) AS t ORDER BY target;
SELECT redis_migrate.drop_migration('names');
SELECT redis_migrate.create_migration('names', 'shop');
SET client_min_messages = notice;
DO $$
DECLARE
    taken text;
BEGIN
    FOREACH taken IN ARRAY '{redis_row,redis_entry,redis_hash,redis_image,redis_row_key,redis_after_ms,redis_until_ms,redis_key_1,redis_key_2}'::text[] LOOP
        EXECUTE format('ALTER TABLE names RENAME redis_found TO %I', taken);
        BEGIN
            PERFORM redis_migrate.add_mapping('names', 'row', 'packed:{id}', 'names', 'SELECT id AS target FROM redis_batch', '{target}');
            RAISE NOTICE '% is not taken', taken;
        EXCEPTION WHEN reserved_name THEN
            RAISE NOTICE '%', SQLERRM;
        END;
        EXECUTE format('ALTER TABLE names RENAME %I TO redis_found', taken);
    END LOOP;
END
$$;
SET client_min_messages = error;
SELECT redis_migrate.drop_migration('names');
DROP TABLE names, names_of_full;
