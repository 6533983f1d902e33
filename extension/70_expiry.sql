-- Expiry policies, scheduled refreshes, and the history of both.

CREATE TABLE redis_migrate.job (
    job_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind             text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['expiry', 'refresh'])),
    name             text NOT NULL,
    relation         oid NOT NULL,
    relation_owner   redis_migrate.owner_role NOT NULL,
    trusted_roles    redis_migrate.owner_role[] NOT NULL DEFAULT '{}',
    owner            redis_migrate.owner_role NOT NULL,
    every            interval,
    enabled          boolean NOT NULL DEFAULT true,
    scheduled_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    next_run         timestamptz DEFAULT pg_catalog.clock_timestamp(),
    search_path      text NOT NULL DEFAULT pg_catalog.current_setting('search_path'),
    timezone         text NOT NULL DEFAULT pg_catalog.current_setting('TimeZone'),
    datestyle        text NOT NULL DEFAULT pg_catalog.current_setting('DateStyle'),
    intervalstyle    text NOT NULL DEFAULT pg_catalog.current_setting('IntervalStyle'),
    runs             bigint NOT NULL DEFAULT 0,
    empty_runs       bigint NOT NULL DEFAULT 0,
    failed_runs      bigint NOT NULL DEFAULT 0,
    failures         integer NOT NULL DEFAULT 0,
    last_started_at  timestamptz,
    last_finished_at timestamptz,
    last_rows        bigint,
    last_sqlstate    text,
    last_message     text,
    last_error_at    timestamptz,
    problem          text,
    stats_reset      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (kind, name)
) WITH (fillfactor = 50);
CREATE INDEX job_due ON redis_migrate.job (redis_migrate.stamped_role(owner), next_run) WHERE enabled;
CREATE INDEX job_scheduled ON redis_migrate.job (redis_migrate.stamped_role(owner), scheduled_at) WHERE enabled;
COMMENT ON TABLE redis_migrate.job IS
    'Scheduled jobs: when each is next due, the settings of the session that defined it, and its results so far. relation, relation_owner: the table and its owner when its name was last resolved; trusted_roles: other roles whose SQL may run with the owner''s rights; problem: what the owner has to confirm. failures: how many there were since the last success. If scheduled_at lies ahead, the clock was set back';
COMMENT ON SEQUENCE redis_migrate.job_job_id_seq IS 'Numbers of jobs';

CREATE TABLE redis_migrate.expiry_policy (
    job_id              bigint PRIMARY KEY REFERENCES redis_migrate.job ON DELETE CASCADE,
    expires_column      text NOT NULL,
    expires_attnum      smallint NOT NULL DEFAULT 0,
    unit                text,
    column_timezone     text,
    lifetime            interval NOT NULL,
    grace               interval NOT NULL,
    condition           text,
    soft_delete         text,
    notify_channel      text,
    notify_column       text,
    drop_partitions     boolean NOT NULL,
    batch_time          interval NOT NULL,
    max_rate            integer NOT NULL,
    max_replication_lag interval NOT NULL,
    max_xmin_age        integer NOT NULL
);
COMMENT ON TABLE redis_migrate.expiry_policy IS
    'Which rows of a table expire, and how they are removed. expires_attnum: the number of the column when its name was last resolved; it explains a rename';

CREATE TABLE redis_migrate.expiry_state (
    job_id             bigint PRIMARY KEY REFERENCES redis_migrate.job ON DELETE CASCADE,
    started_at         timestamptz,
    leaf               text,
    sweep_order        text CHECK (sweep_order OPERATOR(pg_catalog.=) ANY (ARRAY['index', 'pages'])),
    watermark          bigint,
    next_page          bigint,
    end_page           bigint,
    batch_rows         integer NOT NULL DEFAULT 1000,
    batch_pages        integer NOT NULL DEFAULT 64,
    rows               bigint NOT NULL DEFAULT 0,
    batches            bigint NOT NULL DEFAULT 0,
    rows_total         bigint NOT NULL DEFAULT 0,
    batches_total      bigint NOT NULL DEFAULT 0,
    skipped_total      bigint NOT NULL DEFAULT 0,
    partitions_dropped bigint NOT NULL DEFAULT 0,
    backlog            bigint,
    oldest_expired_at  timestamptz,
    paused_since       timestamptz,
    pause_reason       text
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.expiry_state IS
    'Progress of a policy''s sweep; each batch''s transaction writes it. It names the table or partition, and for expiry order the highest value met (microseconds since 2000, or the column''s own number), for page order the next page. started_at is NULL if no sweep is under way';

CREATE TABLE redis_migrate.stuck_row (
    job_id     bigint NOT NULL REFERENCES redis_migrate.job ON DELETE CASCADE,
    table_name text NOT NULL,
    row_tid    tid NOT NULL,
    row_xmin   xid NOT NULL,
    row_key    text,
    sqlstate   text NOT NULL,
    message    text NOT NULL,
    tries      integer NOT NULL DEFAULT 1,
    first_try  timestamptz NOT NULL,
    last_try   timestamptz NOT NULL,
    next_try   timestamptz NOT NULL,
    PRIMARY KEY (job_id, table_name, row_tid)
);
COMMENT ON TABLE redis_migrate.stuck_row IS
    'Expired rows that sweeps could not remove, and when each is tried again. row_tid and row_xmin name a version of the row, so a row that is changed leaves the list. row_tid (0,0) stands for a partition that could not be dropped. Not dumped, because places of rows mean nothing elsewhere';

CREATE TABLE redis_migrate.refresh_policy (
    job_id       bigint PRIMARY KEY REFERENCES redis_migrate.job ON DELETE CASCADE,
    "concurrently" boolean NOT NULL,
    debounce     interval NOT NULL
);
COMMENT ON TABLE redis_migrate.refresh_policy IS
    'Materialized views that are refreshed: at an interval, and debounce after the first mark since the last refresh';

CREATE TABLE redis_migrate.stale_mark (
    job_id    bigint NOT NULL,
    marked_at timestamptz NOT NULL
);
ALTER TABLE redis_migrate.stale_mark REPLICA IDENTITY FULL;
CREATE INDEX stale_mark_job ON redis_migrate.stale_mark (job_id, marked_at);
COMMENT ON TABLE redis_migrate.stale_mark IS
    'A row for each transaction that made a materialized view stale. Writers only insert, so none waits for another. The refresh deletes the rows that it has seen';

CREATE TABLE redis_migrate.job_history (
    history_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      bigint NOT NULL,
    kind        text NOT NULL,
    name        text NOT NULL,
    owner       redis_migrate.owner_role NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    duration    interval GENERATED ALWAYS AS (finished_at OPERATOR(pg_catalog.-) started_at) STORED,
    rows        bigint NOT NULL,
    batches     bigint NOT NULL,
    outcome     text NOT NULL CHECK (outcome OPERATOR(pg_catalog.=) ANY (ARRAY['completed', 'failed'])),
    sqlstate    text,
    message     text
);
CREATE INDEX job_history_finished ON redis_migrate.job_history (finished_at);
CREATE INDEX job_history_job ON redis_migrate.job_history (job_id, history_id);
COMMENT ON TABLE redis_migrate.job_history IS
    'Runs of jobs that did something or failed. An expiry policy keeps them for pg_redis_migrate.history_retention';
COMMENT ON SEQUENCE redis_migrate.job_history_history_id_seq IS 'Numbers of entries in the history';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['job', 'expiry_policy', 'expiry_state', 'refresh_policy', 'stale_mark', 'job_history',
                                    'job_job_id_seq', 'job_history_history_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE FUNCTION redis_migrate.add_expiry(target regclass, expires_column text, every interval DEFAULT '5 minutes',
        unit text DEFAULT NULL, column_timezone text DEFAULT NULL, lifetime interval DEFAULT '0', grace interval DEFAULT '0',
        condition text DEFAULT NULL, soft_delete text DEFAULT NULL, notify_channel text DEFAULT NULL,
        notify_column text DEFAULT NULL, drop_partitions boolean DEFAULT false, batch_time interval DEFAULT '100 milliseconds',
        max_rate integer DEFAULT 0, max_replication_lag interval DEFAULT '30 seconds', max_xmin_age integer DEFAULT 10000000,
        trust_target boolean DEFAULT false)
    RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_expiry';
COMMENT ON FUNCTION redis_migrate.add_expiry(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer, boolean) IS
    'Adds an expiry policy, which deletes rows of a table once the time in a column, plus lifetime and grace, has passed. Sweeps run with the rights of the caller. trust_target: a superuser confirms a table that others own. See docs/expiry.md';

CREATE FUNCTION redis_migrate.alter_expiry(target text, new_target regclass DEFAULT NULL, expires_column text DEFAULT NULL,
        every interval DEFAULT NULL, unit text DEFAULT NULL, column_timezone text DEFAULT NULL, lifetime interval DEFAULT NULL,
        grace interval DEFAULT NULL, condition text DEFAULT NULL, soft_delete text DEFAULT NULL, notify_channel text DEFAULT NULL,
        notify_column text DEFAULT NULL, drop_partitions boolean DEFAULT NULL, batch_time interval DEFAULT NULL,
        max_rate integer DEFAULT NULL, max_replication_lag interval DEFAULT NULL, max_xmin_age integer DEFAULT NULL,
        trust_target boolean DEFAULT false)
    RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_expiry';
COMMENT ON FUNCTION redis_migrate.alter_expiry(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer, boolean) IS
    'Changes an expiry policy from the next batch on. NULL leaves a property as it is, an empty text removes it. trust_target confirms a table that has another owner than before';

CREATE FUNCTION redis_migrate.drop_expiry(target text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_drop_expiry';
COMMENT ON FUNCTION redis_migrate.drop_expiry(text) IS 'Drops an expiry policy. Rows and history stay';

CREATE FUNCTION redis_migrate.pause_expiry(target text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_pause_expiry';
COMMENT ON FUNCTION redis_migrate.pause_expiry(text) IS
    'Takes an expiry policy off the schedule at once. CALL redis_migrate.sweep still works';

CREATE FUNCTION redis_migrate.resume_expiry(target text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_resume_expiry';
COMMENT ON FUNCTION redis_migrate.resume_expiry(text) IS
    'Puts an expiry policy back on the schedule. It is due at once';

CREATE FUNCTION redis_migrate.add_session_expiry(store text, target regclass DEFAULT NULL, every interval DEFAULT '6 hours',
        lifetime interval DEFAULT NULL, column_timezone text DEFAULT NULL, trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_session_expiry';
COMMENT ON FUNCTION redis_migrate.add_session_expiry(text, regclass, interval, interval, text, boolean) IS
    'Adds an expiry policy for the session table of django, connect-pg-simple, flask-session, spring-session, laravel or scs';

CREATE PROCEDURE redis_migrate.sweep(target text, dry_run boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_sweep';
COMMENT ON PROCEDURE redis_migrate.sweep(text, boolean) IS
    'Removes the expired rows of a table now, in committed batches. dry_run shows what there is before, what would be deleted, and what would be left';

CREATE FUNCTION redis_migrate.sweep_preview(target text)
    RETURNS TABLE (before bigint, would_delete bigint, after bigint)
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_sweep_preview';
COMMENT ON FUNCTION redis_migrate.sweep_preview(text) IS
    'Counts the rows that a sweep would find, remove and leave. Reads the whole table';

CREATE FUNCTION redis_migrate.meets_expired_row() RETURNS boolean
    LANGUAGE c VOLATILE COST 100000 AS 'MODULE_PATHNAME', 'prm_meets_expired_row';
COMMENT ON FUNCTION redis_migrate.meets_expired_row() IS
    'Always true. A sweep''s statement evaluates it for each expired row before it locks the row, so that rows that others have locked are counted';

CREATE FUNCTION redis_migrate.gives_way() RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'prm_gives_way';
COMMENT ON FUNCTION redis_migrate.gives_way() IS
    'Always true. A sweep''s statement evaluates it for each row that it reads, and it yields the processor every 0.1 ms';

CREATE FUNCTION redis_migrate.add_refresh(view regclass, every interval DEFAULT '5 minutes', concurrently boolean DEFAULT true,
        debounce interval DEFAULT '5 seconds', trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_refresh';
COMMENT ON FUNCTION redis_migrate.add_refresh(regclass, interval, boolean, interval, boolean) IS
    'Refreshes a materialized view at an interval (NULL: only when it is stale), and debounce after it was marked stale. trust_target: a superuser confirms a view that others own';

CREATE FUNCTION redis_migrate.alter_refresh(view text, new_view regclass DEFAULT NULL, every interval DEFAULT NULL,
        concurrently boolean DEFAULT NULL, debounce interval DEFAULT NULL, trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_refresh';
COMMENT ON FUNCTION redis_migrate.alter_refresh(text, regclass, interval, boolean, interval, boolean) IS
    'Changes a refresh. NULL leaves a property as it is; every => ''0'' refreshes the view only when it is stale. trust_target confirms a view that has another owner than before';

CREATE FUNCTION redis_migrate.drop_refresh(view text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_drop_refresh';
COMMENT ON FUNCTION redis_migrate.drop_refresh(text) IS 'Drops a refresh. The view and the history stay';

CREATE FUNCTION redis_migrate.pause_refresh(view text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_pause_refresh';
COMMENT ON FUNCTION redis_migrate.pause_refresh(text) IS 'Takes a refresh off the schedule. Marks are kept';

CREATE FUNCTION redis_migrate.resume_refresh(view text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_resume_refresh';
COMMENT ON FUNCTION redis_migrate.resume_refresh(text) IS 'Puts a refresh back on the schedule. It is due at once';

CREATE FUNCTION redis_migrate.mark_stale(view regclass) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_mark_stale';
COMMENT ON FUNCTION redis_migrate.mark_stale(regclass) IS
    'Marks a materialized view as stale, so that it is refreshed after this transaction has committed. Requires SELECT on the view';

CREATE FUNCTION redis_migrate.mark_stale_trigger() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_mark_stale_trigger';
COMMENT ON FUNCTION redis_migrate.mark_stale_trigger() IS
    'Trigger that calls mark_stale for the views named in its arguments; the table''s owner needs SELECT on them. For AFTER ... FOR EACH STATEMENT';

CREATE PROCEDURE redis_migrate.maintain()
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_maintain';
COMMENT ON PROCEDURE redis_migrate.maintain() IS
    'Runs the caller''s due sweeps and refreshes in turn, and returns. Background workers call it';

CREATE FUNCTION redis_migrate.next_maintenance() RETURNS timestamptz
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'prm_next_maintenance';
COMMENT ON FUNCTION redis_migrate.next_maintenance() IS
    'When the caller''s next sweep or refresh is due, perhaps in the past; NULL if there is none';

CREATE FUNCTION redis_migrate.maintenance_owners() RETURNS TABLE (owner oid, next_run timestamptz)
    LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'prm_maintenance_owners';
COMMENT ON FUNCTION redis_migrate.maintenance_owners() IS
    'Roles with sweeps or refreshes, and when the next one of each role is due; for the scheduler';

CREATE FUNCTION redis_migrate.fail_maintenance(owner oid, sqlstate text, message text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_fail_maintenance';
COMMENT ON FUNCTION redis_migrate.fail_maintenance(oid, text, text) IS
    'Records that a role''s due sweeps and refreshes failed, because no worker can work as that role; for the scheduler';

CREATE FUNCTION redis_migrate.reset_expiry_stats(target text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_reset_expiry_stats';
COMMENT ON FUNCTION redis_migrate.reset_expiry_stats(text) IS
    'Sets the counters of a policy, or of all policies of the caller, to zero';

CREATE VIEW redis_migrate.expiry_policies WITH (security_barrier) AS
    SELECT j.name AS target, redis_migrate.shown_owner(j.owner) AS owner, j.enabled, j.every, p.expires_column, p.unit, p.column_timezone, p.lifetime, p.grace,
           p.condition, p.soft_delete, p.notify_channel, p.notify_column, p.drop_partitions, p.batch_time, p.max_rate,
           p.max_replication_lag, p.max_xmin_age, j.next_run, j.search_path, j.timezone, j.datestyle, j.intervalstyle
    FROM redis_migrate.job AS j JOIN redis_migrate.expiry_policy AS p USING (job_id)
    WHERE redis_migrate.may_see(j.owner);
COMMENT ON VIEW redis_migrate.expiry_policies IS 'Expiry policies of the caller';

CREATE VIEW redis_migrate.expiry_stats WITH (security_barrier) AS
    SELECT j.name AS target, redis_migrate.shown_owner(j.owner) AS owner, j.enabled, j.next_run, s.rows_total AS rows_deleted, s.batches_total AS batches,
           s.partitions_dropped, s.skipped_total AS skipped_locked,
           (SELECT pg_catalog.count(*) FROM redis_migrate.stuck_row AS r WHERE r.job_id OPERATOR(pg_catalog.=) j.job_id) AS stuck_rows, j.runs, j.empty_runs, j.failed_runs,
           j.last_started_at, j.last_finished_at, j.last_finished_at OPERATOR(pg_catalog.-) j.last_started_at AS last_duration,
           j.last_rows, s.started_at AS sweeping_since, s.leaf AS sweeping, s.sweep_order,
           s.backlog AS backlog_estimate, s.oldest_expired_at,
           pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.oldest_expired_at AS oldest_expired_age,
           coalesce(s.paused_since, CASE WHEN j.problem IS NOT NULL THEN j.last_error_at END) AS paused_since,
           CASE WHEN redis_migrate.is_restored(j.owner) THEN 'restored: it waits for CALL redis_migrate.resume_restored()'
                ELSE coalesce(j.problem, s.pause_reason) END AS pause_reason, j.failures AS consecutive_failures, j.last_error_at, j.last_sqlstate, j.last_message,
           j.stats_reset
    FROM redis_migrate.job AS j JOIN redis_migrate.expiry_state AS s USING (job_id)
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.expiry_stats IS
    'Results of sweeps, the rows left as of the last batch, and why a sweep is paused or failing. Members of pg_monitor see all';

CREATE VIEW redis_migrate.stuck_rows WITH (security_barrier) AS
    SELECT j.name AS target, redis_migrate.shown_owner(j.owner) AS owner, r.table_name,
           CASE WHEN r.row_tid OPERATOR(pg_catalog.<>) '(0,0)' THEN r.row_tid END AS row_tid,
           CASE WHEN redis_migrate.may_see(j.owner) THEN r.row_key END AS row_key, r.sqlstate,
           CASE WHEN redis_migrate.may_see(j.owner) THEN r.message END AS message,
           r.tries, r.first_try, r.last_try, r.next_try
    FROM redis_migrate.stuck_row AS r JOIN redis_migrate.job AS j USING (job_id)
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.stuck_rows IS
    'Expired rows that sweeps could not remove, why, and when each is tried again. A row without row_tid is a partition that could not be dropped. Members of pg_monitor see all, without keys and messages';

CREATE VIEW redis_migrate.refreshes WITH (security_barrier) AS
    SELECT j.name AS view, redis_migrate.shown_owner(j.owner) AS owner, j.enabled, j.every, p."concurrently", p.debounce, j.next_run,
           (SELECT pg_catalog.min(m.marked_at) FROM redis_migrate.stale_mark AS m WHERE m.job_id OPERATOR(pg_catalog.=) j.job_id) AS stale_since,
           j.runs, j.failed_runs, j.last_started_at, j.last_finished_at,
           j.last_finished_at OPERATOR(pg_catalog.-) j.last_started_at AS last_duration,
           j.failures AS consecutive_failures, j.last_error_at, j.last_sqlstate, j.last_message, j.stats_reset,
           CASE WHEN redis_migrate.is_restored(j.owner) THEN 'restored: it waits for CALL redis_migrate.resume_restored()'
                ELSE j.problem END AS pause_reason
    FROM redis_migrate.job AS j JOIN redis_migrate.refresh_policy AS p USING (job_id)
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.refreshes IS
    'Materialized views that are refreshed, since when each is stale, and the result of the last refresh';

CREATE VIEW redis_migrate.job_runs WITH (security_barrier) AS
    SELECT history_id, job_id, kind, name, redis_migrate.shown_owner(owner) AS owner, started_at, finished_at, duration, rows, batches, outcome, sqlstate, message
    FROM redis_migrate.job_history
    WHERE redis_migrate.may_see(owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.job_runs IS
    'Sweeps and refreshes of the caller that did something or failed. Members of pg_monitor see all';
