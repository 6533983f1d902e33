-- set_retention: expiry policies on the extension's own tables.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset tuples_only on
SET client_min_messages = error;
CREATE FUNCTION ours() RETURNS text[] LANGUAGE sql AS $$
    SELECT ARRAY(SELECT 'redis_migrate.' || t FROM unnest(ARRAY['journal', 'journal_value', 'journal_insert', 'ledger_batch', 'audit', 'reject', 'archived_key']) AS t) $$;
CREATE TABLE kept (id int PRIMARY KEY, value text);
SELECT redis_migrate.create_migration('r', 'shop');
SELECT redis_migrate.add_mapping('r', 'kept', 'k:{id:int}', 'kept', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
\! $R mset k:1 a k:2 b k:x bad other1 z >/dev/null
\! $R set other2 z px 1 >/dev/null
\! $R set other3 z ex 1000 >/dev/null
CALL redis_migrate.run('r');
\! $R mset k:1 new k:2 new >/dev/null
CALL redis_migrate.run('r');
SELECT count(redis_migrate.drop_audit(audit_id)) >= 0 FROM redis_migrate.audits;
CALL redis_migrate.audit('shop');
SELECT redis_migrate.set_retention('journal', '1 hour'), redis_migrate.set_retention('audits', '1 hour'),
    redis_migrate.set_retention('rejects', '1 hour'), redis_migrate.set_retention('archive', '1 hour');
SELECT target, expires_column, lifetime FROM redis_migrate.expiry_policies WHERE target = ANY (ours()) ORDER BY target COLLATE "C";
CREATE PROCEDURE sweep_all() LANGUAGE plpgsql AS $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['journal', 'journal_value', 'journal_insert', 'ledger_batch', 'audit', 'reject', 'archived_key'] LOOP
        CALL redis_migrate.sweep('redis_migrate.' || t);
    END LOOP;
END $$;
CREATE FUNCTION counts() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', 'journal', (SELECT count(*) FROM redis_migrate.journal AS j JOIN redis_migrate.runs AS r USING (run_id) WHERE r.migration = 'r'),
        'batches', (SELECT count(*) FROM redis_migrate.ledger_batch AS b JOIN redis_migrate.runs AS r USING (run_id) WHERE r.migration = 'r'),
        'audits', (SELECT count(*) FROM redis_migrate.audit), 'rejects', (SELECT count(*) FROM redis_migrate.rejects WHERE migration = 'r'),
        'archived', (SELECT count(*) FROM redis_migrate.archived_key WHERE migration = 'r')) $$;
CALL sweep_all();
SELECT counts();
\echo == all is old; the rejects of the last run stay, a journal of which an undo has begun, and archived keys without an expiry
UPDATE redis_migrate.journal SET recorded_at = recorded_at - interval '2 hours' WHERE run_id IN (SELECT run_id FROM redis_migrate.runs WHERE migration = 'r');
UPDATE redis_migrate.ledger_batch SET appended_at = appended_at - interval '2 hours' WHERE run_id IN (SELECT run_id FROM redis_migrate.runs WHERE migration = 'r');
UPDATE redis_migrate.audit SET updated_at = updated_at - interval '2 hours';
UPDATE redis_migrate.reject SET created_at = created_at - interval '2 hours' WHERE run_id IN (SELECT run_id FROM redis_migrate.runs WHERE migration = 'r');
UPDATE redis_migrate.archived_key SET expires_at = expires_at - interval '2 hours' WHERE migration = 'r';
INSERT INTO redis_migrate.undo (run_id, dry_run, state, force) SELECT last_run_id('r'), false, 'running', false;
CALL sweep_all();
SELECT counts();
DELETE FROM redis_migrate.undo WHERE run_id = last_run_id('r');
CALL sweep_all();
SELECT counts();
SELECT target, rows_deleted FROM redis_migrate.expiry_stats WHERE target = ANY (ours()) AND rows_deleted > 0 ORDER BY target COLLATE "C";
SELECT last_run_id('r') AS last \gset
CALL redis_migrate.undo_run(:last);
SELECT mapping, restored, unknown FROM redis_migrate.undos ORDER BY run_id DESC LIMIT 1;
\echo == off again, and what is refused
SELECT redis_migrate.set_retention(kind, NULL) FROM unnest(ARRAY['journal', 'audits', 'rejects', 'archive']) AS kind;
SELECT count(*) FROM redis_migrate.expiry_policies WHERE target = ANY (ours());
SELECT refused('SELECT redis_migrate.set_retention(''tables'', ''1 day'')');
SELECT refused('SELECT redis_migrate.set_retention(''audits'', ''-1 day'')');
CREATE ROLE regress_prm_other;
SET ROLE regress_prm_other;
SELECT redis_migrate.set_retention('audits', '1 day');
RESET ROLE;
DROP ROLE regress_prm_other;
SELECT redis_migrate.drop_migration('r');
DROP TABLE kept;
DROP FUNCTION counts, ours;
DROP PROCEDURE sweep_all;
