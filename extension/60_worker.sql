-- Background workers. The desired state is in these tables, the actual state in shared memory; redis_migrate.workers shows both.

CREATE TABLE redis_migrate.background_run (
    background_run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration    text NOT NULL UNIQUE REFERENCES redis_migrate.migration ON DELETE CASCADE,
    owner        redis_migrate.owner_role NOT NULL,
    priority     text,
    mapping      text,
    on_error     text NOT NULL,
    prune        boolean NOT NULL,
    force        boolean NOT NULL,
    workers      integer,
    live         boolean NOT NULL DEFAULT false,
    seed         text,
    is_flushed   boolean NOT NULL DEFAULT false,
    wanted       boolean NOT NULL DEFAULT true,
    state        text NOT NULL DEFAULT 'starting' CHECK (state OPERATOR(pg_catalog.=)
                     ANY (ARRAY['starting', 'waiting for worker', 'running', 'retrying', 'paused', 'completed', 'stopped', 'failed'])),
    since        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    requested_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    marked_at    timestamptz,
    incarnation  bigint,
    crashes      integer NOT NULL DEFAULT 0,
    failures     integer NOT NULL DEFAULT 0,
    not_before   timestamptz,
    instance     text,
    sqlstate     text,
    message      text,
    hint         text
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.background_run IS
    'Requested background runs, with the parameters of redis_migrate.run. seed: a dump file to begin with, until the run has taken it. is_flushed: FLUSHALL, FLUSHDB or SWAPDB came since all keys were last loaded. marked_at and incarnation are set before a worker is launched, and cleared when it ends normally: if they are still set after a restart, the server crashed. instance: the server on which a live run was started or confirmed; on another server the run is paused';
COMMENT ON SEQUENCE redis_migrate.background_run_background_run_id_seq IS 'Numbers of background runs';

CREATE FUNCTION redis_migrate.worker_role_problem(role oid, OUT sqlstate text, OUT message text, OUT hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH r AS (SELECT oid, rolname, pg_catalog.quote_ident(rolname) AS quoted, rolcanlogin FROM pg_catalog.pg_roles WHERE oid = $1),
    d AS (SELECT oid, datname, pg_catalog.quote_ident(datname) AS quoted FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
    -- The most specific setting wins: of the role here, of the role, of the database, of the server.
    read_only AS (
        SELECT coalesce((SELECT pg_catalog.split_part(c, '=', 2)::boolean
                         FROM pg_catalog.pg_db_role_setting AS s, d, pg_catalog.unnest(s.setconfig) AS c
                         WHERE pg_catalog.starts_with(c, 'default_transaction_read_only=') AND s.setrole IN ($1, 0) AND s.setdatabase IN (d.oid, 0)
                         ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
                        (SELECT s.reset_val::boolean FROM pg_catalog.pg_settings AS s WHERE s.name = 'default_transaction_read_only')) AS is_on)
    SELECT p.sqlstate, p.message, p.hint
    FROM (VALUES (1)) AS one LEFT JOIN r ON true CROSS JOIN d CROSS JOIN read_only,
         LATERAL (VALUES
             (r.oid IS NULL, '28000', pg_catalog.format('its owner, role %s, was dropped', $1), NULL),
             -- From PostgreSQL 17 on, workers ignore NOLOGIN.
             (NOT r.rolcanlogin AND pg_catalog.current_setting('server_version_num')::integer < 170000, '28000',
              pg_catalog.format('its owner, role "%s", is not permitted to log in', r.rolname), pg_catalog.format('ALTER ROLE %s LOGIN;', r.quoted)),
             (NOT pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT'), '42501',
              pg_catalog.format('its owner, role "%s", may not connect to database "%s"', r.rolname, d.datname),
              pg_catalog.format('GRANT CONNECT ON DATABASE %s TO %s;', d.quoted, r.quoted)),
             (read_only.is_on, '25006', pg_catalog.format('transactions of its owner, role "%s", are read-only by default', r.rolname),
              pg_catalog.format('ALTER ROLE %s SET default_transaction_read_only = off;', r.quoted))) AS p (applies, sqlstate, message, hint)
    WHERE p.applies
    LIMIT 1 $$;
COMMENT ON FUNCTION redis_migrate.worker_role_problem(oid) IS
    'Why no background worker can connect to this database as a role: SQLSTATE, message, and the command that fixes it. NULL if it can';

CREATE FUNCTION redis_migrate.start(migration text, priority text DEFAULT NULL, mapping text DEFAULT NULL,
        on_error text DEFAULT 'continue', prune boolean DEFAULT false, force boolean DEFAULT false,
        workers integer DEFAULT NULL, live boolean DEFAULT false, seed text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_start';
COMMENT ON FUNCTION redis_migrate.start(text, text, text, text, boolean, boolean, integer, boolean, text) IS
    'Runs a migration in background workers, as its owner, once the transaction has committed. live: then follows every change of the server until redis_migrate.stop. A live run removes rows whose keys the snapshot lacks; with force, however many. seed: the absolute path of a dump file on the database server, with which a live run begins if it would need a snapshot. The other options are those of redis_migrate.run';

CREATE FUNCTION redis_migrate.stop(migration text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_stop';
COMMENT ON FUNCTION redis_migrate.stop(text) IS
    'Stops the background run of a migration at once, even if the transaction is rolled back. redis_migrate.start resumes it';

CREATE PROCEDURE redis_migrate.wait_for(migration text, timeout interval DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_wait_for';
COMMENT ON PROCEDURE redis_migrate.wait_for(text, interval) IS
    'Waits until the background run of a migration ends, or until a live run has applied everything that was written to the server before the call. If the run failed, raises its error';

CREATE FUNCTION redis_migrate.worker_slots(OUT pid integer, OUT kind text, OUT database oid, OUT owner oid, OUT background_run_id bigint,
        OUT run_id bigint, OUT state text, OUT launched_at timestamptz, OUT since timestamptz, OUT wakeups bigint, OUT runs bigint,
        OUT sqlstate text, OUT message text, OUT number integer, OUT verification_id bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prm_worker_slots';
COMMENT ON FUNCTION redis_migrate.worker_slots() IS
    'Background workers of all databases: those of the caller, or all for members of pg_monitor';

CREATE FUNCTION redis_migrate.wake_workers() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_wake_workers';
COMMENT ON FUNCTION redis_migrate.wake_workers() IS
    'Trigger of tables that define background work: wakes the scheduler when the transaction commits';

CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE OR DELETE ON redis_migrate.background_run
    FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers();
COMMENT ON TRIGGER wake_workers ON redis_migrate.background_run IS 'Wakes the scheduler';

CREATE VIEW redis_migrate.background_runs WITH (security_barrier) AS
    SELECT j.background_run_id, j.migration, redis_migrate.shown_owner(j.owner) AS owner, j.priority, j.mapping, j.on_error, j.prune, j.force, j.workers, j.live, j.wanted, j.state, j.since,
           j.requested_at, j.crashes, j.failures, j.not_before, j.sqlstate, j.message, j.hint
    FROM redis_migrate.background_run AS j
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.background_runs IS
    'Background runs of the caller''s migrations, or all for members of pg_monitor: what was requested, how it ended, the last error, and what to do about it';

CREATE VIEW redis_migrate.workers WITH (security_barrier) AS
    SELECT s.pid, coalesce(s.kind, 'migration') AS kind, CASE WHEN s.kind IS NULL THEN pg_catalog.current_database() ELSE d.datname END AS database,
           coalesce(s.owner::regrole, j.owner) AS owner, coalesce(j.migration, t.migration, v.migration) AS migration,
           CASE WHEN s.state IS NOT NULL THEN s.state
                WHEN j.state OPERATOR(pg_catalog.=) 'waiting for worker' THEN j.state ELSE 'interrupted' END AS state,
           coalesce(s.since, j.since) AS since, coalesce(p.position, r.position) AS position,
           coalesce(r.keys_read, p.keys_read, v.keys_read) AS keys_read,
           CASE WHEN coalesce(r.seconds, p.seconds, v.seconds) OPERATOR(pg_catalog.>) 0
                THEN pg_catalog.round((coalesce(r.keys_read, p.keys_read, v.keys_read) OPERATOR(pg_catalog./) coalesce(r.seconds, p.seconds, v.seconds))::numeric, 1) END AS keys_per_second,
           s.wakeups, s.runs, coalesce(s.sqlstate, j.sqlstate) AS sqlstate, coalesce(s.message, j.message) AS last_error
    FROM redis_migrate.worker_slots() AS s
    LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) s.database
    FULL JOIN (SELECT * FROM redis_migrate.background_runs
               WHERE wanted) AS j
        ON s.kind OPERATOR(pg_catalog.=) 'migration' AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND s.background_run_id OPERATOR(pg_catalog.=) j.background_run_id
    LEFT JOIN LATERAL (
        SELECT u.position, extract(epoch FROM u.active_time) AS seconds,
               (SELECT coalesce(pg_catalog.sum(c.keys), 0)::bigint FROM redis_migrate.run_count AS c
                WHERE c.run_id OPERATOR(pg_catalog.=) u.run_id AND c.outcome OPERATOR(pg_catalog.=) 'read') AS keys_read
        FROM redis_migrate.run AS u
        WHERE u.migration OPERATOR(pg_catalog.=) j.migration AND u.pid OPERATOR(pg_catalog.=) s.pid AND u.state OPERATOR(pg_catalog.=) 'running'
        ORDER BY u.run_id DESC LIMIT 1) AS r ON true
    LEFT JOIN LATERAL (
        SELECT q.position, extract(epoch FROM q.updated_at OPERATOR(pg_catalog.-) s.launched_at) AS seconds,
               (SELECT coalesce(pg_catalog.sum(c.keys), 0)::bigint FROM redis_migrate.run_count AS c
                WHERE c.run_id OPERATOR(pg_catalog.=) q.run_id AND c.level OPERATOR(pg_catalog.=) q.level
                      AND c.part OPERATOR(pg_catalog.=) q.part AND c.outcome OPERATOR(pg_catalog.=) 'read') AS keys_read
        FROM redis_migrate.run_part AS q JOIN redis_migrate.run AS u USING (run_id)
        WHERE q.pid OPERATOR(pg_catalog.=) s.pid AND NOT q.done AND u.state OPERATOR(pg_catalog.=) 'running'
              AND (q.run_id OPERATOR(pg_catalog.=) s.run_id OR u.migration OPERATOR(pg_catalog.=) j.migration)
        ORDER BY q.updated_at DESC LIMIT 1) AS p ON true
    LEFT JOIN redis_migrate.run AS t ON t.run_id OPERATOR(pg_catalog.=) s.run_id AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
    LEFT JOIN LATERAL (
        SELECT w.migration, q.keys_read, extract(epoch FROM q.updated_at OPERATOR(pg_catalog.-) s.launched_at) AS seconds
        FROM redis_migrate.verification AS w
        LEFT JOIN redis_migrate.verification_part AS q
            ON q.verification_id OPERATOR(pg_catalog.=) w.verification_id AND q.pid OPERATOR(pg_catalog.=) s.pid AND NOT q.done
        WHERE w.verification_id OPERATOR(pg_catalog.=) s.verification_id AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS v ON true;
COMMENT ON VIEW redis_migrate.workers IS
    'Background workers, including those that have yet to be started (pid NULL): those of the caller, or all for members of pg_monitor. position and rate are as of the last commit; a worker that reads a part of a run or verification shows those of its part';
