-- Materialized views that are refreshed when they are due, and when they were marked stale.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset tuples_only
\pset null NULL
CREATE SCHEMA refresh;
SET search_path = refresh, public;
CREATE TABLE base (id int PRIMARY KEY, v text);
INSERT INTO base VALUES (1, 'a');
CREATE MATERIALIZED VIEW names AS SELECT id, v FROM base;
CREATE MATERIALIZED VIEW empty AS SELECT id FROM base WITH NO DATA;

\echo == what is refused
SELECT refused($$SELECT redis_migrate.add_refresh('names')$$);
SELECT refused($$SELECT redis_migrate.add_refresh('base')$$);
SELECT refused($$SELECT redis_migrate.add_refresh(NULL)$$);
CREATE UNIQUE INDEX ON names (id);
SELECT refused($$SELECT redis_migrate.add_refresh('names', every => '1 ms')$$);
SELECT refused($$SELECT redis_migrate.add_refresh('names', debounce => '-1 s')$$);
SELECT refused($$SELECT redis_migrate.add_refresh('names', every => '200 years')$$);
SELECT refused($$SELECT redis_migrate.add_refresh('names', debounce => '178000000 years')$$);
SELECT refused($$SELECT redis_migrate.mark_stale('names')$$);
SELECT redis_migrate.add_refresh('names', every => '1 hour', debounce => '0');
SELECT refused($$SELECT redis_migrate.add_refresh('names')$$);
SELECT view, owner = current_user::regrole, enabled, every, "concurrently", debounce, stale_since, runs FROM redis_migrate.refreshes;

\echo == due at once, then every hour
INSERT INTO base VALUES (2, 'b');
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
INSERT INTO base VALUES (3, 'c');
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
SELECT next_run > now() + interval '50 minutes', runs FROM redis_migrate.refreshes;

\echo == a mark makes it due, one for each transaction, none if that is rolled back
BEGIN;
SELECT redis_migrate.mark_stale('names');
ROLLBACK;
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
BEGIN;
SELECT redis_migrate.mark_stale('names'), redis_migrate.mark_stale('names');
SAVEPOINT s;
SELECT redis_migrate.mark_stale('names');
ROLLBACK TO s;
COMMIT;
SELECT count(*) FROM redis_migrate.stale_mark;
SELECT stale_since IS NOT NULL, redis_migrate.next_maintenance() <= clock_timestamp() FROM redis_migrate.refreshes;
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
SELECT count(*) FROM redis_migrate.stale_mark;
SELECT stale_since, runs FROM redis_migrate.refreshes;

\echo == debounced: not before so much time after the first mark and after the last refresh
SELECT redis_migrate.alter_refresh('names', every => '0', debounce => '1 hour');
SELECT next_run FROM redis_migrate.refreshes;
INSERT INTO base VALUES (4, 'd');
SELECT redis_migrate.mark_stale('names');
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
SELECT redis_migrate.next_maintenance() BETWEEN now() + interval '59 minutes' AND now() + interval '61 minutes';
UPDATE redis_migrate.stale_mark SET marked_at = marked_at - interval '2 hours';
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
UPDATE redis_migrate.job SET last_finished_at = last_finished_at - interval '2 hours' WHERE kind = 'refresh';
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
-- Marked in the future: the clock was set back.
SELECT redis_migrate.alter_refresh('names', debounce => '0');
INSERT INTO base VALUES (5, 'e');
SELECT redis_migrate.mark_stale('names');
UPDATE redis_migrate.stale_mark SET marked_at = marked_at + interval '1 year';
CALL redis_migrate.maintain();
SELECT count(*) FROM names;

\echo == triggers
CREATE TRIGGER stale AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON base FOR EACH STATEMENT
    EXECUTE FUNCTION redis_migrate.mark_stale_trigger('refresh.names');
INSERT INTO base SELECT g, 'x' FROM generate_series(6, 100) AS g;
UPDATE base SET v = 'y' WHERE id = 6;
SELECT count(*) FROM redis_migrate.stale_mark;
CALL redis_migrate.maintain();
SELECT count(*), max(v) FROM names;
CREATE TRIGGER rows BEFORE UPDATE ON base FOR EACH ROW EXECUTE FUNCTION redis_migrate.mark_stale_trigger('refresh.names');
UPDATE base SET v = 'z' WHERE id < 50;
SELECT count(*) FROM redis_migrate.stale_mark;
DROP TRIGGER rows ON base;
CALL redis_migrate.maintain();
SELECT max(v) FROM names;
-- A view without a refresh does not stop a writer.
CREATE MATERIALIZED VIEW other AS SELECT 1 AS id;
CREATE TABLE log (id int);
CREATE TRIGGER stale AFTER INSERT ON log FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.mark_stale_trigger('refresh.other');
INSERT INTO log VALUES (1);
INSERT INTO log VALUES (2);
CREATE TRIGGER none AFTER INSERT ON log FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.mark_stale_trigger();
SELECT refused('INSERT INTO log VALUES (3)');

\echo == not concurrently, and one that has no data yet
SELECT redis_migrate.add_refresh('empty', concurrently => false);
CALL redis_migrate.maintain();
SELECT count(*) FROM empty;
SELECT refused($$SELECT redis_migrate.alter_refresh('empty', "concurrently" => true)$$);

\echo == rights
CREATE ROLE regress_prm_writer;
GRANT USAGE ON SCHEMA refresh TO regress_prm_writer;
GRANT INSERT ON base TO regress_prm_writer;
SET ROLE regress_prm_writer;
SELECT refused($$SELECT redis_migrate.mark_stale('refresh.names')$$);
SELECT refused($$SELECT redis_migrate.add_refresh('refresh.other', "concurrently" => false)$$);
SELECT refused($$SELECT redis_migrate.drop_refresh('refresh.names')$$);
SELECT count(*) FROM redis_migrate.refreshes;
-- The table's owner may see the view: so a writer to the table marks it.
INSERT INTO refresh.base VALUES (101, 'w');
RESET ROLE;
CALL redis_migrate.maintain();
SELECT count(*) FROM names;

\echo == paused, renamed, dropped
SELECT redis_migrate.pause_refresh('names');
INSERT INTO base VALUES (102, 'p');
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
SELECT redis_migrate.resume_refresh('names');
CALL redis_migrate.maintain();
SELECT count(*) FROM names;
ALTER MATERIALIZED VIEW names RENAME TO people;
DROP TRIGGER stale ON base;
UPDATE redis_migrate.job SET next_run = now() WHERE name = 'refresh.names';
CALL redis_migrate.maintain();
SELECT consecutive_failures, last_sqlstate, last_message FROM redis_migrate.refreshes WHERE view = 'refresh.names';
SELECT redis_migrate.alter_refresh('refresh.names', new_view => 'people', every => '1 hour');
CALL redis_migrate.maintain();
SELECT view, consecutive_failures FROM redis_migrate.refreshes ORDER BY view;
SELECT outcome, sqlstate FROM redis_migrate.job_runs WHERE kind = 'refresh' ORDER BY history_id DESC LIMIT 2;
SELECT redis_migrate.drop_refresh('people'), redis_migrate.drop_refresh('empty');
SELECT count(*) FROM redis_migrate.refreshes;
\echo == refreshed only when stale, and never refreshed yet: due debounce after the mark
CREATE MATERIALIZED VIEW rare AS SELECT count(*) FROM base;
SELECT redis_migrate.add_refresh('rare', every => NULL, concurrently => false, debounce => '10 ms');
SELECT redis_migrate.mark_stale('rare');
SELECT pg_sleep(0.05);
SELECT redis_migrate.next_maintenance() < clock_timestamp();
CALL redis_migrate.maintain();
SELECT runs, stale_since FROM redis_migrate.refreshes WHERE view = 'refresh.rare';
-- The clock was set back: a mark and a refresh of the future keep nothing waiting.
SELECT redis_migrate.mark_stale('rare');
UPDATE redis_migrate.stale_mark SET marked_at = now() + interval '1 day';
UPDATE redis_migrate.job SET last_finished_at = now() + interval '1 day' WHERE name = 'refresh.rare';
CALL redis_migrate.maintain();
SELECT runs, stale_since FROM redis_migrate.refreshes WHERE view = 'refresh.rare';
SELECT redis_migrate.drop_refresh('rare');
DROP TABLE base CASCADE;
SET client_min_messages = error;
DROP SCHEMA refresh CASCADE;
DROP ROLE regress_prm_writer;
