-- Relations that change hands: whose SQL runs with the rights of a definition's owner.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset null NULL
SET client_min_messages = warning;
CREATE ROLE regress_prm_app LOGIN;
CREATE ROLE regress_prm_writer;
CREATE ROLE regress_prm_runner SUPERUSER LOGIN;
\! $R set t:1 one >/dev/null
-- A trigger of the application notes what ran with whose rights.
CREATE SCHEMA seen;
CREATE TABLE seen.call (who name, what text);
GRANT USAGE ON SCHEMA seen TO PUBLIC;
GRANT INSERT ON seen.call TO PUBLIC;
CREATE FUNCTION seen.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO seen.call VALUES (current_user, TG_TABLE_NAME); RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
-- Tables of the runner in a schema of the application, which can drop them.
CREATE SCHEMA app AUTHORIZATION regress_prm_app;
CREATE FUNCTION seen.make(owner name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DROP TABLE IF EXISTS app.session, app.kv CASCADE;
    CREATE TABLE app.session (id int PRIMARY KEY, expires_at timestamptz);
    CREATE INDEX ON app.session (expires_at);
    CREATE TABLE app.kv (id text PRIMARY KEY, value text);
    INSERT INTO app.session VALUES (1, '2000-01-01');
    CREATE MATERIALIZED VIEW app.view AS SELECT count(*) AS n FROM app.session;
    EXECUTE format('ALTER TABLE app.session OWNER TO %1$I; ALTER TABLE app.kv OWNER TO %1$I; ALTER MATERIALIZED VIEW app.view OWNER TO %1$I', owner);
END $$;
SELECT seen.make('regress_prm_runner');
CREATE USER MAPPING FOR regress_prm_runner SERVER shop;

\echo == a superuser has to confirm what others own or can replace
SET ROLE regress_prm_runner;
SELECT redis_migrate.create_migration('trust', 'shop');
SELECT redis_migrate.add_expiry('app.session', 'expires_at');
SELECT redis_migrate.add_refresh('app.view', concurrently => false);
SELECT redis_migrate.add_mapping('trust', 'kv', 't:{id}', 'app.kv', 'SELECT id, value FROM redis_batch', '{id}', on_delete => 'keep');
SELECT redis_migrate.add_expiry('app.session', 'expires_at', trust_target => true);
SELECT redis_migrate.add_refresh('app.view', concurrently => false, trust_target => true);
SELECT redis_migrate.add_mapping('trust', 'kv', 't:{id}', 'app.kv', 'SELECT id, value FROM redis_batch', '{id}', on_delete => 'keep', trust_target => true);
CALL redis_migrate.sweep('app.session');
CALL redis_migrate.run('trust');
CALL redis_migrate.maintain();

\echo == a rebuild by the same owner goes on without asking
RESET ROLE;
SELECT seen.make('regress_prm_runner');
SET ROLE regress_prm_runner;
CALL redis_migrate.sweep('app.session');
CALL redis_migrate.run('trust');
SELECT count(*) FROM app.session;
SELECT count(*) FROM app.kv;
UPDATE redis_migrate.job SET next_run = '2000-01-01' WHERE name = 'app.view';
CALL redis_migrate.maintain();
SELECT view, last_sqlstate, pause_reason FROM redis_migrate.refreshes;

\echo == the owner of the schema puts others in their place, with triggers
SET ROLE regress_prm_app;
DROP TABLE app.session, app.kv CASCADE;
CREATE TABLE app.session (id int PRIMARY KEY, expires_at timestamptz);
CREATE INDEX ON app.session (expires_at);
CREATE TABLE app.kv (id text PRIMARY KEY, value text);
CREATE TRIGGER note AFTER DELETE ON app.session FOR EACH ROW EXECUTE FUNCTION seen.note();
CREATE TRIGGER note BEFORE INSERT ON app.kv FOR EACH ROW EXECUTE FUNCTION seen.note();
CREATE MATERIALIZED VIEW app.view AS SELECT count(*) AS n FROM app.session;
INSERT INTO app.session VALUES (1, '2000-01-01');
SET ROLE regress_prm_runner;
CALL redis_migrate.sweep('app.session');
\echo :LAST_ERROR_SQLSTATE
CALL redis_migrate.sweep('app.session', dry_run => true);
SELECT * FROM redis_migrate.sweep_preview('app.session');
SELECT redis_migrate.alter_expiry('app.session', every => '1 hour');
CALL redis_migrate.run('trust');
\echo :LAST_ERROR_SQLSTATE
CALL redis_migrate.run('trust', dry_run => true);
SELECT * FROM redis_migrate.preview('trust');
UPDATE redis_migrate.job SET next_run = '2000-01-01' WHERE name LIKE 'app.%';
CALL redis_migrate.maintain();
SELECT name, problem FROM redis_migrate.definitions WHERE problem IS NOT NULL ORDER BY 1;
SELECT last_sqlstate, pause_reason, paused_since IS NOT NULL AS paused FROM redis_migrate.expiry_stats WHERE target = 'app.session';
SELECT last_sqlstate, pause_reason FROM redis_migrate.refreshes;
SELECT * FROM seen.call;

\echo == until the owner confirms
SELECT redis_migrate.alter_expiry('app.session', trust_target => true);
SELECT redis_migrate.alter_refresh('app.view', trust_target => true);
SELECT redis_migrate.alter_mapping('trust', 'kv', trust_target => true);
CALL redis_migrate.sweep('app.session');
CALL redis_migrate.run('trust');
UPDATE redis_migrate.job SET next_run = '2000-01-01' WHERE name = 'app.view';
CALL redis_migrate.maintain();
SELECT * FROM seen.call ORDER BY 2;
SELECT name, problem FROM redis_migrate.definitions WHERE problem IS NOT NULL ORDER BY 1;
SELECT redis_migrate.migration_sql('trust') ~ 'trust_target => true' AS confirms_again;

\echo == a change of owner alone, TRIGGER for others, a partition, a table below a view
RESET ROLE;
SELECT redis_migrate.take_over('expiry', 'app.session', 'regress_prm_runner');
SET ROLE regress_prm_runner;
CREATE SCHEMA ours;
CREATE TABLE ours.part (id int, expires_at timestamptz) PARTITION BY RANGE (id);
CREATE TABLE ours.part_1 PARTITION OF ours.part FOR VALUES FROM (0) TO (10);
CREATE TABLE ours.alone (id int, expires_at timestamptz);
CREATE TABLE ours.open (id int, expires_at timestamptz);
CREATE TABLE ours.base (id text PRIMARY KEY, value text);
CREATE VIEW ours.shown AS SELECT * FROM ours.base;
SELECT redis_migrate.add_expiry(t, 'expires_at') FROM unnest('{ours.part,ours.alone,ours.open}'::regclass[]) AS t;
SELECT redis_migrate.alter_mapping('trust', 'kv', target => 'ours.shown');
ALTER TABLE ours.part_1 OWNER TO regress_prm_app;
ALTER TABLE ours.alone OWNER TO regress_prm_app;
ALTER TABLE ours.base OWNER TO regress_prm_app;
GRANT ALL ON ours.open TO regress_prm_app;
CALL redis_migrate.sweep('ours.part');
CALL redis_migrate.sweep('ours.alone');
CALL redis_migrate.sweep('ours.open');
CALL redis_migrate.run('trust');
SELECT redis_migrate.add_check('trust', 'kv', 'any', 'true', trust_target => true);
-- A role of another name is the same owner.
RESET ROLE;
ALTER ROLE regress_prm_app RENAME TO regress_prm_application;
SET ROLE regress_prm_runner;
SELECT redis_migrate.alter_expiry('ours.alone', trust_target => true);
CALL redis_migrate.sweep('ours.alone');
RESET ROLE;
ALTER ROLE regress_prm_application RENAME TO regress_prm_app;
SET ROLE regress_prm_runner;
CALL redis_migrate.sweep('ours.alone');

\echo == functions and domains of others that a table uses
RESET ROLE;
SET ROLE regress_prm_app;
CREATE FUNCTION app.holds(timestamptz) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION app.later() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()';
CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE DOMAIN app.moment AS timestamptz;
CREATE DOMAIN app.late_moment AS app.moment;
SET ROLE regress_prm_runner;
CREATE DOMAIN ours.moment AS timestamptz CHECK (app.holds(VALUE));
CREATE TABLE ours.checked (id int, expires_at timestamptz CHECK (app.holds(expires_at)));
CREATE TABLE ours.filled (id int, expires_at timestamptz, at timestamptz DEFAULT app.later());
CREATE TABLE ours.typed (id int, expires_at timestamptz, at app.late_moment);
CREATE TABLE ours.arrays (id int, expires_at timestamptz, at app.moment[]);
CREATE TYPE ours.pair AS (a int, at app.moment);
CREATE TABLE ours.pairs (id int, expires_at timestamptz, at ours.pair);
CREATE TABLE ours.coerced (id int, expires_at timestamptz CHECK (expires_at::app.moment IS NOT NULL));
CREATE TABLE ours.typed_here (id int, expires_at timestamptz, at ours.moment);
CREATE TABLE ours.indexed (id int, expires_at timestamptz);
CREATE INDEX ON ours.indexed (id) WHERE app.holds(expires_at);
CREATE TABLE ours.plain (id int, expires_at timestamptz);
SELECT redis_migrate.add_expiry('ours.checked', 'expires_at');
SELECT redis_migrate.add_expiry('ours.filled', 'expires_at');
SELECT redis_migrate.add_expiry('ours.typed', 'expires_at');
SELECT redis_migrate.add_expiry('ours.arrays', 'expires_at');
SELECT redis_migrate.add_expiry('ours.pairs', 'expires_at');
SELECT redis_migrate.add_expiry('ours.coerced', 'expires_at');
SELECT redis_migrate.add_expiry('ours.typed_here', 'expires_at');
SELECT redis_migrate.add_expiry('ours.indexed', 'expires_at');
SELECT redis_migrate.add_expiry('ours.indexed', 'expires_at', trust_target => true);
CALL redis_migrate.sweep('ours.indexed');
SELECT redis_migrate.add_expiry('ours.plain', 'expires_at');
CREATE TRIGGER note AFTER DELETE ON ours.plain FOR EACH ROW EXECUTE FUNCTION app.note();
CALL redis_migrate.sweep('ours.plain');
SELECT redis_migrate.drop_expiry('ours.plain'), redis_migrate.drop_expiry('ours.indexed');

\echo == casts of others, and types to which they can add one
SET ROLE regress_prm_app;
CREATE TYPE app.mood AS ENUM ('sad');
SET ROLE regress_prm_runner;
CREATE TYPE ours.mood AS ENUM ('sad');
CREATE FUNCTION ours.mood_text(ours.mood) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'sad'$$;
CREATE CAST (ours.mood AS text) WITH FUNCTION ours.mood_text;
CREATE TABLE ours.moody (id int PRIMARY KEY, expires_at timestamptz, at app.mood);
CREATE TABLE ours.moods (id int PRIMARY KEY, expires_at timestamptz, at ours.mood[]);
CREATE TABLE ours.words (id int PRIMARY KEY, expires_at timestamptz, at text);
SELECT redis_migrate.add_expiry('ours.moody', 'expires_at', notify_channel => 'gone', notify_column => 'at');
SELECT redis_migrate.add_mapping('trust', 'moods', 'm:{id:int}', 'ours.moody', 'SELECT id FROM redis_batch', '{id}');
SELECT redis_migrate.add_expiry(t, 'expires_at') FROM unnest('{ours.moods,ours.words}'::regclass[]) AS t;
ALTER FUNCTION ours.mood_text OWNER TO regress_prm_app;
CALL redis_migrate.sweep('ours.moods');
CALL redis_migrate.sweep('ours.words');
SELECT redis_migrate.drop_expiry('ours.moods'), redis_migrate.drop_expiry('ours.words');

\echo == functions, types and relations of others that the SQL of a definition uses
SET ROLE regress_prm_app;
CREATE FUNCTION app.spelled(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'called'; END$$;
CREATE FUNCTION app.joined(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE OPERATOR app.+ (FUNCTION = app.joined, LEFTARG = text, RIGHTARG = text);
CREATE AGGREGATE app.last(text) (SFUNC = app.joined, STYPE = text);
CREATE DOMAIN app.word AS text CHECK (app.spelled(VALUE) IS NOT NULL);
CREATE TABLE app.list (id text);
CREATE VIEW app.shown AS SELECT id FROM app.list;
SET ROLE regress_prm_runner;
CREATE TABLE ours.kv (id text PRIMARY KEY, value text);
CREATE AGGREGATE ours.last(text) (SFUNC = app.joined, STYPE = text);
CREATE DOMAIN ours.word AS app.word;
CREATE VIEW ours.listed AS SELECT id FROM app.shown;
CREATE FUNCTION ours.spelled(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)';
CREATE TABLE query (n int GENERATED ALWAYS AS IDENTITY, query text);
INSERT INTO query (query) SELECT unnest(ARRAY[$$id, app.spelled('x') AS value FROM redis_batch$$, 'id, value OPERATOR(app.+) value AS value FROM redis_batch',
    'id, app.last(value) AS value FROM redis_batch GROUP BY entry, id', 'id, ours.last(value) AS value FROM redis_batch GROUP BY entry, id',
    $$id, 'x'::app.word AS value FROM redis_batch$$, 'id, value::ours.word AS value FROM redis_batch',
    $$id, x.w AS value FROM redis_batch, jsonb_to_record('{"w": "x"}') AS x (w app.word)$$,
    'id, (SELECT max(l.id) FROM app.list AS l) AS value FROM redis_batch', 'id, (SELECT max(s.id) FROM ours.listed AS s) AS value FROM redis_batch',
    'id, value FROM redis_batch WHERE EXISTS (SELECT FROM generate_series(1, 2) WHERE app.spelled(id) > id)']);
SELECT n, refused(format($$SELECT redis_migrate.add_mapping('trust', 'uses', 'u:{id}', 'ours.kv', %L, '{id}', databases => '{0}')$$, 'SELECT ' || query)) FROM query ORDER BY n;
DROP TABLE query;
SELECT redis_migrate.add_mapping('trust', 'uses', 'u:{id}', 'ours.kv', 'SELECT id, ours.spelled(value) AS value FROM redis_batch', '{id}', databases => '{0}');
SELECT redis_migrate.alter_mapping('trust', 'uses', on_conflict => 'value = app.spelled(excluded.value)');
SELECT redis_migrate.alter_mapping('trust', 'uses', on_delete => 'value = app.spelled(value)');
SELECT redis_migrate.add_check('trust', 'uses', 'spelled', 'app.spelled(value) > value');
SELECT redis_migrate.set_reverse_query('trust', 'uses', $$SELECT id, 'string' AS type, app.spelled(value) AS value, NULL AS expires_at FROM redis_rows$$);
CREATE TABLE ours.own (id int, expires_at timestamptz);
CREATE INDEX ON ours.own (expires_at);
INSERT INTO ours.own VALUES (1, '2000-01-01');
SELECT redis_migrate.add_expiry('ours.own', 'expires_at', condition => 'app.holds(expires_at)');
SELECT redis_migrate.add_expiry('ours.own', 'expires_at', soft_delete => 'id = (SELECT count(*) FROM app.shown)');
-- What was the runner's own becomes the application's.
SELECT redis_migrate.add_expiry('ours.own', 'expires_at', condition => 'ours.spelled(id::text) IS NOT NULL');
\! $R set u:1 one >/dev/null
CALL redis_migrate.run('trust', mapping => 'uses');
ALTER FUNCTION ours.spelled OWNER TO regress_prm_app;
CALL redis_migrate.run('trust', mapping => 'uses');
\echo :LAST_ERROR_SQLSTATE
CALL redis_migrate.sweep('ours.own');
CALL redis_migrate.sweep('ours.own', dry_run => true);
SELECT redis_migrate.alter_mapping('trust', 'uses', trust_target => true);
SELECT redis_migrate.add_check('trust', 'uses', 'spelled', 'app.joined(value, value) IS NOT NULL');
SELECT redis_migrate.alter_expiry('ours.own', trust_target => true);
CALL redis_migrate.run('trust', mapping => 'uses');
CALL redis_migrate.sweep('ours.own');
SELECT * FROM ours.kv;
-- What a reverse query uses stays confirmed while the target does.
CREATE FUNCTION ours.shout(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)';
ALTER FUNCTION ours.shout OWNER TO regress_prm_writer;
SELECT redis_migrate.set_reverse_query('trust', 'uses', $$SELECT id, 'string' AS type, ours.shout(value) AS value, NULL AS expires_at FROM redis_rows$$, trust_target => true);
SELECT redis_migrate.alter_mapping('trust', 'uses', trust_target => true);
BEGIN;
SELECT redis_migrate.start_reverse('trust', 'u:{id}');
ROLLBACK;
SELECT redis_migrate.alter_mapping('trust', 'uses', target => 'ours.kv', trust_target => true);
SELECT redis_migrate.start_reverse('trust', 'u:{id}');
-- A definition as SQL has the reverse query.
SELECT redis_migrate.set_reverse_query('trust', 'uses', $$SELECT id, 'string' AS type, value, NULL AS expires_at FROM redis_rows$$);
SELECT substring(redis_migrate.migration_sql('trust') FROM 'SELECT redis_migrate.set_reverse_query.*redis_rows[^;]*;');
SELECT redis_migrate.drop_expiry('ours.own');

\echo == others are warned, of the owner of the schema too
RESET ROLE;
ALTER ROLE regress_prm_runner NOSUPERUSER;
SELECT redis_migrate.drop_expiry('ours.part'), redis_migrate.drop_expiry('ours.open');
SELECT seen.make('regress_prm_runner');
SELECT redis_migrate.drop_expiry('app.session');
GRANT USAGE ON SCHEMA app TO regress_prm_runner;
SET ROLE regress_prm_runner;
SELECT redis_migrate.add_expiry('app.session', 'expires_at');
SET ROLE regress_prm_app;
DROP TABLE app.session CASCADE;
CREATE TABLE app.session (id int PRIMARY KEY, expires_at timestamptz);
GRANT ALL ON app.session TO PUBLIC;
SET ROLE regress_prm_runner;
CALL redis_migrate.sweep('app.session');
-- A superuser who takes it over has to confirm it, another role has not.
RESET ROLE;
SELECT redis_migrate.take_over('expiry', 'app.session');
CALL redis_migrate.sweep('app.session');
SELECT redis_migrate.take_over('expiry', 'app.session', 'regress_prm_runner');
SET ROLE regress_prm_runner;
CALL redis_migrate.sweep('app.session');

RESET ROLE;
SELECT redis_migrate.drop_expiry('app.session'), redis_migrate.drop_expiry('ours.alone'), redis_migrate.drop_refresh('app.view'), redis_migrate.drop_migration('trust');
SET client_min_messages = warning;
DROP USER MAPPING FOR regress_prm_runner SERVER shop;
DROP SCHEMA app, ours, seen CASCADE;
DROP ROLE regress_prm_app, regress_prm_runner, regress_prm_writer;
