-- Expiry policies: what expires, what is refused, what the user is told.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset tuples_only
\pset null NULL
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
CREATE SCHEMA expiry;
SET search_path = expiry, public;
-- The rows that a sweep leaves, and its record.
CREATE FUNCTION stats(text) RETURNS TABLE (deleted bigint, batches bigint, partitions bigint, runs bigint, empty bigint, failed bigint)
    LANGUAGE sql AS $$SELECT rows_deleted, batches, partitions_dropped, runs, empty_runs, failed_runs
                      FROM redis_migrate.expiry_stats WHERE target = $1$$;
CREATE FUNCTION ids(regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT string_agg(id::text, '' '' ORDER BY id) FROM %s', $1) INTO result;
    RETURN result;
END
$$;

\echo == every kind of column; id 1 and 2 have expired, 3 and 4 have not, 5 never does
CREATE TABLE tz (id int, expires_at timestamptz);
INSERT INTO tz VALUES (1, '-infinity'), (2, now() - interval '1 s'), (3, now() + interval '1 h'), (4, 'infinity'), (5, NULL);
CREATE INDEX ON tz (expires_at);
SELECT redis_migrate.add_expiry('tz', 'expires_at');
SELECT * FROM redis_migrate.sweep_preview('tz');
SET client_min_messages = notice;
CALL redis_migrate.sweep('tz', dry_run => true);
SET client_min_messages = warning;
SELECT ids('tz');
CALL redis_migrate.sweep('tz');
SELECT ids('tz');
SELECT * FROM stats('expiry.tz');
-- A second sweep finds nothing: it is counted, and no entry of the history.
CALL redis_migrate.sweep('expiry.tz');
SELECT * FROM stats('expiry.tz');
SELECT kind, name, owner = current_user::regrole, rows, batches, outcome, sqlstate, message, duration = finished_at - started_at
FROM redis_migrate.job_runs WHERE name = 'expiry.tz';

-- A time without zone means what column_timezone says: where clocks are three hours ahead, the same digits are three
-- hours earlier, and more has expired.
CREATE TABLE ts (id int, expire timestamp(6));
INSERT INTO ts SELECT i, (now() AT TIME ZONE 'UTC') + interval '1 hour' * o FROM (VALUES (1, -5), (2, -1), (3, 1), (4, 5)) AS v (i, o);
INSERT INTO ts VALUES (5, NULL);
CREATE INDEX ON ts (expire);
SELECT refused($$SELECT redis_migrate.add_expiry('ts', 'expire')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('ts', 'expire', column_timezone => 'Nowhere/None')$$);
SELECT redis_migrate.add_expiry('ts', 'expire', column_timezone => 'UTC');
SELECT would_delete FROM redis_migrate.sweep_preview('ts');
SELECT redis_migrate.alter_expiry('ts', column_timezone => 'Etc/GMT-3');
SELECT would_delete FROM redis_migrate.sweep_preview('ts');
SELECT redis_migrate.alter_expiry('ts', column_timezone => 'Etc/GMT+3');
SELECT would_delete FROM redis_migrate.sweep_preview('ts');
CALL redis_migrate.sweep('ts');
SELECT ids('ts');

-- The hour that clocks show twice, in New York 2025-11-02 from 05:00 to 07:00 UTC. What expires at 01:30 may mean the second
-- time: at 05:50 UTC it is kept, at 06:50 UTC, when 01:50 is shown again, it has expired either way.
CREATE TABLE twice (id int, expire timestamp);
INSERT INTO twice VALUES (1, '2025-11-02 00:30'), (2, '2025-11-02 01:30'), (3, '2025-11-02 02:30');
SELECT redis_migrate.add_expiry('twice', 'expire', column_timezone => 'America/New_York', grace =>
    make_interval(secs => extract(epoch FROM clock_timestamp() - '2025-11-02 05:50Z')::float8));
SELECT would_delete FROM redis_migrate.sweep_preview('twice');
SELECT redis_migrate.alter_expiry('twice', grace =>
    make_interval(secs => extract(epoch FROM clock_timestamp() - '2025-11-02 06:50Z')::float8));
SELECT would_delete FROM redis_migrate.sweep_preview('twice');

CREATE TABLE days (id int, until date);
INSERT INTO days VALUES (1, current_date - 1), (2, current_date - 1), (3, current_date + 2), (5, NULL);
CREATE INDEX ON days (until);
SELECT redis_migrate.add_expiry('days', 'until', column_timezone => 'UTC');
CALL redis_migrate.sweep('days');
SELECT ids('days');

-- Seconds and milliseconds since 1970.
CREATE DOMAIN epoch AS integer;
CREATE TABLE seconds (id int, last_activity epoch);
INSERT INTO seconds SELECT i, extract(epoch FROM now())::int + o FROM (VALUES (1, -100000), (2, -7300), (3, -7100), (4, 0)) AS v (i, o);
INSERT INTO seconds VALUES (5, NULL);
CREATE INDEX ON seconds (last_activity);
SELECT refused($$SELECT redis_migrate.add_expiry('seconds', 'last_activity')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('seconds', 'last_activity', unit => 'minutes')$$);
SELECT redis_migrate.add_expiry('seconds', 'last_activity', unit => 'seconds', lifetime => '2 hours');
CALL redis_migrate.sweep('seconds');
SELECT ids('seconds');
CREATE TABLE millis (id int, expiry_time bigint);
INSERT INTO millis SELECT i, (extract(epoch FROM now()) * 1000)::bigint + o FROM (VALUES (1, -100000), (2, -1000), (3, 60000), (4, 100000000)) AS v (i, o);
INSERT INTO millis VALUES (1, -9223372036854775808), (4, 9223372036854775807), (5, NULL);
CREATE INDEX ON millis (expiry_time);
SELECT redis_migrate.add_expiry('millis', 'expiry_time', unit => 'milliseconds');
CALL redis_migrate.sweep('millis');
SELECT ids('millis');
-- A unit that the values of the column contradict. One plausible value is enough to prevent the warning.
SELECT refused($$SELECT redis_migrate.alter_expiry('seconds', unit => 'milliseconds')$$);
CREATE TABLE unit (id int, expires bigint);
CREATE INDEX ON unit (expires);
SELECT redis_migrate.add_expiry('unit', 'expires', unit => 'milliseconds');
INSERT INTO unit VALUES (1, 1500000000), (2, 1700000000), (3, NULL);
SELECT redis_migrate.alter_expiry('unit', lifetime => '1 year');
SELECT redis_migrate.alter_expiry('expiry.unit', unit => 'seconds');
UPDATE unit SET expires = expires * 1000;
SELECT redis_migrate.alter_expiry('unit', lifetime => '0');
SELECT redis_migrate.alter_expiry('expiry.unit', unit => 'milliseconds');
UPDATE unit SET expires = expires / 1000;
INSERT INTO unit VALUES (4, 1700000000000);
SELECT redis_migrate.alter_expiry('unit', lifetime => '1 day');
TRUNCATE unit;
INSERT INTO unit SELECT g, 9223372036854775807 FROM generate_series(1, 3) AS g;
SELECT redis_migrate.alter_expiry('unit', lifetime => '0');
-- Whichever partition it is in.
CREATE TABLE units (id int, expires bigint) PARTITION BY LIST (id);
CREATE TABLE units_1 PARTITION OF units FOR VALUES IN (1);
CREATE TABLE units_2 PARTITION OF units FOR VALUES IN (2);
INSERT INTO units VALUES (1, 1500000000), (2, 1700000000);
SELECT redis_migrate.add_expiry('units', 'expires', unit => 'milliseconds');
-- The index of a partitioned table is made on all of it.
CREATE INDEX ON expiry.units (expires);
UPDATE units SET expires = 1700000000000 WHERE id = 2;
SELECT redis_migrate.alter_expiry('units', every => '1 hour');

\echo == grace, condition
CREATE TABLE cond (id int, expires_at timestamptz, keep boolean);
INSERT INTO cond VALUES (1, now() - interval '2 h', false), (2, now() - interval '2 h', true), (3, now() - interval '30 min', false), (4, now() - interval '2 h', NULL);
CREATE INDEX ON cond (expires_at);
SELECT refused($$SELECT redis_migrate.add_expiry('cond', 'expires_at', condition => 'NOT keep) OR (true')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('cond', 'expires_at', condition => 'true; DROP TABLE cond')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('cond', 'expires_at', condition => 'true ORDER BY 1')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('cond', 'expires_at', condition => 'nosuch > 1')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('cond', 'expires_at', condition => 'id')$$);
SELECT redis_migrate.add_expiry('cond', 'expires_at', grace => '1 hour', condition => 'NOT keep -- not these');
CALL redis_migrate.sweep('cond');
SELECT ids('cond');
SELECT redis_migrate.alter_expiry('cond', condition => '', grace => '0');
CALL redis_migrate.sweep('cond');
SELECT ids('cond');

\echo == soft delete
CREATE TABLE soft (id int, expires_at timestamptz, deleted_at timestamptz);
INSERT INTO soft SELECT g, now() - interval '1 h' FROM generate_series(1, 3) AS g;
INSERT INTO soft VALUES (4, now() + interval '1 h');
CREATE INDEX ON soft (expires_at);
SELECT refused($$SELECT redis_migrate.add_expiry('soft', 'expires_at', soft_delete => 'deleted_at = now() WHERE true')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('soft', 'expires_at', soft_delete => 'nosuch = now()')$$);
SELECT redis_migrate.add_expiry('soft', 'expires_at', soft_delete => 'deleted_at = now()');
CALL redis_migrate.sweep('soft');
SELECT count(deleted_at) FROM soft;
SELECT redis_migrate.alter_expiry('soft', condition => 'deleted_at IS NULL');
CALL redis_migrate.sweep('soft');
SELECT id, deleted_at IS NOT NULL FROM soft ORDER BY id;
CALL redis_migrate.sweep('soft');
SELECT * FROM stats('expiry.soft');

\echo == without an index a sweep reads all pages, and the user is told
CREATE TABLE "No Index" (id int, "expires at" timestamptz);
INSERT INTO "No Index" SELECT g, now() + (g - 500) * interval '1 h' FROM generate_series(1, 1000) AS g;
SELECT redis_migrate.add_expiry('"No Index"', 'expires at');
CALL redis_migrate.sweep('"No Index"');
SELECT count(*), min(id) FROM "No Index";
-- Only an index that leads with the column serves it, and one that leaves rows out does not.
CREATE INDEX ON "No Index" (id, "expires at");
CREATE INDEX ON "No Index" ("expires at") WHERE id > 0;
SELECT redis_migrate.alter_expiry('"No Index"', every => '1 hour');
CREATE INDEX ON "No Index" ("expires at", id) WHERE "expires at" IS NOT NULL;
SELECT redis_migrate.alter_expiry('"No Index"', every => '1 hour');

\echo == rows that cannot be removed
CREATE TABLE bill (id int, part text, expires_at timestamptz, PRIMARY KEY (id, part));
CREATE TABLE bill_line (id int, part text, FOREIGN KEY (id, part) REFERENCES bill);
INSERT INTO bill SELECT g, 'it''s', '2020-01-01' FROM generate_series(1, 20) AS g;
INSERT INTO bill_line VALUES (3, 'it''s'), (20, 'it''s');
CREATE INDEX ON bill (expires_at);
SELECT redis_migrate.add_expiry('bill', 'expires_at');
CALL redis_migrate.sweep('bill');
SELECT ids('bill');
SELECT target, table_name, row_tid, row_key, sqlstate, message, tries, next_try - last_try AS waits
FROM redis_migrate.stuck_rows WHERE target = 'expiry.bill' ORDER BY row_tid;
DELETE FROM bill_line WHERE id = 3;
CALL redis_migrate.sweep('bill');
SELECT stuck_rows, backlog_estimate FROM redis_migrate.expiry_stats WHERE target = 'expiry.bill';
SELECT redis_migrate.resume_expiry('bill');
CALL redis_migrate.sweep('bill');
SELECT row_key, tries, next_try - last_try AS waits FROM redis_migrate.stuck_rows WHERE target = 'expiry.bill';
SELECT redis_migrate.drop_expiry('bill');
SELECT count(*) FROM redis_migrate.stuck_rows WHERE target = 'expiry.bill';

\echo == partitions: swept one by one, or dropped where their bounds prove it
CREATE TABLE part (id int, expires_at timestamptz NOT NULL) PARTITION BY RANGE (expires_at);
CREATE TABLE part_old PARTITION OF part FOR VALUES FROM ('2000-01-01') TO ('2001-01-01');
CREATE TABLE part_mixed PARTITION OF part FOR VALUES FROM ('2001-01-01') TO ('2100-01-01') PARTITION BY LIST (id);
CREATE TABLE part_odd PARTITION OF part_mixed FOR VALUES IN (1, 3, 5);
CREATE TABLE part_even PARTITION OF part_mixed DEFAULT;
CREATE TABLE part_nested PARTITION OF part FOR VALUES FROM ('1999-01-01') TO ('2000-01-01') PARTITION BY LIST (id);
CREATE TABLE part_nested_any PARTITION OF part_nested DEFAULT;
CREATE TABLE part_future PARTITION OF part FOR VALUES FROM ('2100-01-01') TO ('2101-01-01');
CREATE INDEX ON part (expires_at);
INSERT INTO part VALUES (1, '2000-06-01'), (2, '2000-06-01'), (3, '2002-01-01'), (4, '2002-01-01'), (5, '2099-01-01'), (6, '2099-01-01'), (7, '2100-06-01');
SELECT redis_migrate.add_expiry('part', 'expires_at');
CALL redis_migrate.sweep('part');
SELECT ids('part');
SELECT * FROM stats('expiry.part');
INSERT INTO part VALUES (1, '2000-06-01'), (3, '2002-01-01');
SELECT refused($$SELECT redis_migrate.alter_expiry('part', drop_partitions => true, condition => 'id > 1')$$);
SELECT redis_migrate.alter_expiry('part', drop_partitions => true);
CALL redis_migrate.sweep('part');
SELECT ids('part');
SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'part'::regclass ORDER BY 1;
SELECT to_regclass('part_nested_any');
SELECT * FROM stats('expiry.part');
-- NULL never expires, though it may lie in a partition whose other rows all have.
CREATE TABLE by_list (id int, until date) PARTITION BY LIST (until);
CREATE TABLE by_list_old PARTITION OF by_list FOR VALUES IN ('2000-01-01', '2000-01-02');
CREATE TABLE by_list_null PARTITION OF by_list FOR VALUES IN (NULL, '2000-01-03');
CREATE INDEX ON by_list (until);
INSERT INTO by_list VALUES (1, '2000-01-01'), (2, '2000-01-03'), (3, NULL);
SELECT redis_migrate.add_expiry('by_list', 'until', column_timezone => 'UTC', drop_partitions => true);
CALL redis_migrate.sweep('by_list');
SELECT ids('by_list');
SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'by_list'::regclass;
-- Rows that row security hides from the owner are not swept; a partition that may hold such rows is not dropped.
CREATE ROLE regress_prm_hidden LOGIN;
GRANT USAGE, CREATE ON SCHEMA expiry TO regress_prm_hidden;
GRANT EXECUTE ON FUNCTION refused(text) TO regress_prm_hidden;
SET ROLE regress_prm_hidden;
CREATE TABLE hidden (id int, expires_at timestamptz) PARTITION BY RANGE (expires_at);
CREATE TABLE hidden_old PARTITION OF hidden FOR VALUES FROM ('2000-01-01') TO ('2001-01-01');
CREATE TABLE hidden_live PARTITION OF hidden FOR VALUES FROM ('2100-01-01') TO ('2101-01-01');
CREATE INDEX ON hidden (expires_at);
INSERT INTO hidden VALUES (1, '2000-06-01'), (2, '2000-06-01'), (3, '2100-06-01');
CREATE POLICY odd ON hidden_old USING (id % 2 = 1);
ALTER TABLE hidden_old ENABLE ROW LEVEL SECURITY;
SELECT redis_migrate.add_expiry('hidden', 'expires_at');
ALTER TABLE hidden_old FORCE ROW LEVEL SECURITY;
SELECT redis_migrate.alter_expiry('hidden', every => '1 hour');
SELECT redis_migrate.alter_expiry('hidden', drop_partitions => true);
CALL redis_migrate.sweep('hidden');
SELECT * FROM stats('expiry.hidden');
ALTER TABLE hidden_old NO FORCE ROW LEVEL SECURITY;
SELECT ids('hidden');
CALL redis_migrate.sweep('hidden');
SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'hidden'::regclass;
SELECT * FROM stats('expiry.hidden');
SELECT redis_migrate.drop_expiry('hidden');
RESET ROLE;
DROP OWNED BY regress_prm_hidden;
DROP ROLE regress_prm_hidden;
-- Children of a table, too.
CREATE TABLE parent (id int, expires_at timestamptz);
CREATE TABLE child () INHERITS (parent);
CREATE INDEX ON parent (expires_at);
INSERT INTO parent VALUES (1, '2000-01-01'), (2, 'infinity');
INSERT INTO child VALUES (3, '2000-01-01'), (4, 'infinity');
SELECT redis_migrate.add_expiry('parent', 'expires_at');
CALL redis_migrate.sweep('parent');
SELECT ids('parent');
SELECT refused($$SELECT redis_migrate.alter_expiry('parent', drop_partitions => true)$$);

\echo == what is refused
SELECT refused($$SELECT redis_migrate.add_expiry('tz', 'expires_at')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'nosuch')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', every => '0')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', every => '178000000 years')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', unit => 'seconds')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', column_timezone => 'UTC')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', batch_time => '2 min')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', max_rate => -1)$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', lifetime => '-1 hour')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', grace => '1 day -1 hour')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', notify_column => 'id')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', 'expires_at', notify_channel => 'c', notify_column => 'nosuch')$$);
SELECT refused($$SELECT redis_migrate.add_expiry(NULL, 'expires_at')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('part_odd', NULL)$$);
CREATE TABLE textual (expires_at text);
SELECT refused($$SELECT redis_migrate.add_expiry('textual', 'expires_at')$$);
CREATE VIEW expiring AS SELECT * FROM tz;
SELECT refused($$SELECT redis_migrate.add_expiry('expiring', 'expires_at')$$);
CREATE TEMPORARY TABLE transient (expires_at timestamptz);
SELECT refused($$SELECT redis_migrate.add_expiry('transient', 'expires_at')$$);
SELECT refused($$SELECT redis_migrate.add_expiry('pg_class', 'relpages', unit => 'seconds')$$);
SELECT refused($$SELECT redis_migrate.drop_expiry('nosuch')$$);
SELECT refused($$SELECT redis_migrate.drop_expiry('"it''s"')$$);
SELECT refused($$SELECT redis_migrate.alter_expiry('textual')$$);
SELECT refused($$SELECT * FROM redis_migrate.sweep_preview('textual')$$);
BEGIN;
CALL redis_migrate.sweep('tz');
ROLLBACK;
BEGIN;
CALL redis_migrate.maintain();
ROLLBACK;

\echo == what changed since: tables and columns of other names
CREATE TABLE moved (id int, expires_at timestamptz);
CREATE INDEX ON moved (expires_at);
INSERT INTO moved VALUES (1, '2000-01-01');
SELECT redis_migrate.add_expiry('moved', 'expires_at');
ALTER TABLE moved RENAME expires_at TO expiry;
CALL redis_migrate.sweep('moved');
SELECT redis_migrate.alter_expiry('moved', expires_column => 'expiry');
ALTER TABLE moved RENAME TO elsewhere;
CALL redis_migrate.sweep('expiry.moved');
SELECT redis_migrate.alter_expiry('expiry.moved', new_target => 'elsewhere');
CALL redis_migrate.sweep('elsewhere');
SELECT ids('elsewhere');
DROP TABLE elsewhere;
CALL redis_migrate.sweep('expiry.elsewhere');
SELECT target, failed_runs, consecutive_failures, last_sqlstate, last_message FROM redis_migrate.expiry_stats WHERE target = 'expiry.elsewhere';
SELECT outcome, sqlstate, message FROM redis_migrate.job_runs WHERE name IN ('expiry.moved', 'expiry.elsewhere') ORDER BY history_id;
SELECT redis_migrate.drop_expiry('expiry.elsewhere');

\echo == owners
CREATE ROLE regress_prm_owner LOGIN;
CREATE ROLE regress_prm_other;
GRANT USAGE ON SCHEMA expiry TO regress_prm_owner, regress_prm_other;
CREATE TABLE shared (id int, expires_at timestamptz);
CREATE INDEX ON shared (expires_at);
INSERT INTO shared VALUES (1, '2000-01-01'), (2, 'infinity');
SET ROLE regress_prm_owner;
SELECT refused($$SELECT redis_migrate.add_expiry('expiry.shared', 'expires_at')$$);
RESET ROLE;
GRANT SELECT, UPDATE, DELETE ON shared TO regress_prm_owner;
SET ROLE regress_prm_owner;
SELECT redis_migrate.add_expiry('expiry.shared', 'expires_at');
SELECT target, owner, enabled FROM redis_migrate.expiry_policies;
RESET ROLE;
CALL redis_migrate.sweep('shared');
SET ROLE regress_prm_other;
CALL redis_migrate.sweep('expiry.shared');
SELECT refused($$SELECT redis_migrate.pause_expiry('expiry.shared')$$);
SELECT refused($$SELECT * FROM redis_migrate.sweep_preview('expiry.shared')$$);
SELECT count(*) FROM redis_migrate.expiry_policies;
SELECT count(*) FROM redis_migrate.expiry_stats;
SELECT refused('SELECT * FROM redis_migrate.maintenance_owners()');
RESET ROLE;
GRANT pg_monitor TO regress_prm_other;
SET ROLE regress_prm_other;
SELECT count(*) FROM redis_migrate.expiry_policies;
SELECT target FROM redis_migrate.expiry_stats WHERE owner = 'regress_prm_owner'::regrole;
SET ROLE regress_prm_owner;
CALL redis_migrate.sweep('expiry.shared');
RESET ROLE;
SELECT ids('shared');
REVOKE DELETE ON shared FROM regress_prm_owner;
INSERT INTO shared VALUES (1, '2000-01-01');
SET ROLE regress_prm_owner;
CALL redis_migrate.sweep('expiry.shared');
-- The superuser may stop it, and put it back.
RESET ROLE;
SELECT redis_migrate.pause_expiry('shared');
SELECT enabled FROM redis_migrate.expiry_policies WHERE target = 'expiry.shared';
SELECT redis_migrate.resume_expiry('shared');
SELECT enabled, next_run <= now() AS due FROM redis_migrate.expiry_policies WHERE target = 'expiry.shared';
SELECT owner::regrole FROM redis_migrate.maintenance_owners() ORDER BY owner::regrole::text;
SELECT redis_migrate.drop_expiry('shared');
-- Triggers run with the rights of the role that sweeps.
ALTER TABLE shared OWNER TO regress_prm_other;
SELECT refused($$SELECT redis_migrate.add_expiry('expiry.shared', 'expires_at')$$);
SELECT redis_migrate.add_expiry('shared', 'expires_at', trust_target => true);
SELECT redis_migrate.drop_expiry('shared');

\echo == what is due
CALL redis_migrate.maintain();
SELECT redis_migrate.next_maintenance() > now();
INSERT INTO tz VALUES (6, '2000-01-01');
SELECT redis_migrate.pause_expiry('tz'), redis_migrate.resume_expiry('days');
UPDATE redis_migrate.job SET next_run = '2000-01-01' WHERE name IN ('expiry.tz', 'expiry.days', 'expiry.cond');
SELECT redis_migrate.next_maintenance();
CALL redis_migrate.maintain();
SELECT ids('tz');
SELECT redis_migrate.resume_expiry('tz');
CALL redis_migrate.maintain();
SELECT ids('tz');
-- The clock was set back by a year: what was scheduled in the future is due.
INSERT INTO tz VALUES (6, '2000-01-01');
UPDATE redis_migrate.job SET scheduled_at = now() + interval '1 year', next_run = now() + interval '1 year', last_started_at = now() + interval '1 year',
    last_finished_at = now() + interval '1 year' WHERE name = 'expiry.tz';
SELECT redis_migrate.next_maintenance() <= clock_timestamp();
CALL redis_migrate.maintain();
SELECT ids('tz');
SELECT next_run < now() + interval '1 hour' FROM redis_migrate.expiry_policies WHERE target = 'expiry.tz';

\echo == history, kept by the same engine
UPDATE redis_migrate.job_history SET finished_at = finished_at - interval '31 days';
INSERT INTO redis_migrate.job_history (job_id, kind, name, owner, started_at, finished_at, rows, batches, outcome)
    VALUES (0, 'expiry', 'of yesterday', redis_migrate.stamp_owner(current_user::regrole), now() - interval '1 day', now() - interval '1 day', 1, 1, 'completed');
SELECT redis_migrate.resume_expiry('redis_migrate.job_history');
CALL redis_migrate.maintain();
SELECT name, rows > 1 FROM redis_migrate.job_runs ORDER BY history_id;
SELECT redis_migrate.reset_expiry_stats();
SELECT sum(rows_deleted), sum(runs) FROM redis_migrate.expiry_stats;

SET client_min_messages = error;
DO $$ DECLARE t text; BEGIN FOR t IN SELECT target FROM redis_migrate.expiry_policies LOOP PERFORM redis_migrate.drop_expiry(t); END LOOP; END $$;
DROP SCHEMA expiry CASCADE;
DROP ROLE regress_prm_owner, regress_prm_other;
