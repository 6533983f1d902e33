-- Cutover: a family is handed over to PostgreSQL while the masters hold writes back. Each step is stored before it is taken.

CREATE TABLE redis_migrate.cutover (
    cutover_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration     text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    patterns      text[] NOT NULL,
    to_state      text NOT NULL CHECK (to_state OPERATOR(pg_catalog.=) ANY (ARRAY['postgres', 'both', 'redis'])),
    fence         text CHECK (fence OPERATOR(pg_catalog.=) ANY (ARRAY['acl', 'kill', 'confirmed'])),
    state         text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'undone'])),
    step          text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_by    name NOT NULL DEFAULT SESSION_USER,
    pid           integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    instance      text NOT NULL,
    deadline      timestamptz,
    finished_at   timestamptz,
    paused_ms     double precision,
    keys_compared bigint,
    sqlstate      text,
    message       text
);
CREATE INDEX cutover_of ON redis_migrate.cutover (migration, cutover_id);
COMMENT ON TABLE redis_migrate.cutover IS
    'Cutovers, and cutbacks, whose to_state is redis. step: the one that was about to be taken last; instance: the server and database that began it; deadline: when the pause of the masters ends by itself; paused_ms: how long writes were held back';
COMMENT ON SEQUENCE redis_migrate.cutover_cutover_id_seq IS 'Numbers of cutovers';

CREATE TABLE redis_migrate.fenced_user (
    cutover_id bigint NOT NULL REFERENCES redis_migrate.cutover ON DELETE CASCADE,
    node       text NOT NULL,
    username   text NOT NULL,
    rules      text NOT NULL,
    PRIMARY KEY (cutover_id, node, username)
);
COMMENT ON TABLE redis_migrate.fenced_user IS
    'Users of Redis who lost @write, and the rules for commands that they had, as ACL GETUSER showed them. node: the id of a master of a cluster, otherwise empty';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['cutover', 'fenced_user', 'cutover_cutover_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE PROCEDURE redis_migrate.cutover(migration text, fence text, pattern text DEFAULT NULL, users text[] DEFAULT NULL,
        to_state text DEFAULT 'postgres', max_pause interval DEFAULT '2 s', compare_keys integer DEFAULT 500,
        verified_within interval DEFAULT '1 hour', force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_cutover';
COMMENT ON PROCEDURE redis_migrate.cutover(text, text, text, text[], text, interval, integer, interval, boolean) IS
    'Hands the families of a migration, or that of a pattern, over to PostgreSQL: holds writes to Redis back with CLIENT PAUSE, waits until live sync has all of them, compares keys, fences the writers and changes the state; or undoes everything. fence: acl takes @write from users, kill closes all connections, confirmed: writers are stopped. to_state: postgres, or both: Redis may still be read; max_pause: writes are held back no longer; force: with a warning, although checks speak against it. First completes or undoes one that was interrupted';

CREATE PROCEDURE redis_migrate.undo_cutover(migration text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_undo_cutover';
COMMENT ON PROCEDURE redis_migrate.undo_cutover(text) IS
    'Completes or undoes a cutover or cutback that was interrupted, whichever its last step demands; does nothing if none was';

CREATE VIEW redis_migrate.cutovers WITH (security_barrier) AS
    SELECT c.cutover_id, c.migration, redis_migrate.shown_owner(g.owner) AS owner, c.patterns, c.to_state, c.fence,
           (SELECT pg_catalog.array_agg(DISTINCT f.username ORDER BY f.username) FROM redis_migrate.fenced_user AS f
            WHERE f.cutover_id OPERATOR(pg_catalog.=) c.cutover_id) AS users,
           CASE WHEN c.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(c.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) c.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) c.started_at))
                THEN 'interrupted' ELSE c.state END AS state,
           c.step, c.started_at, c.started_by, c.deadline, c.finished_at, c.paused_ms::numeric(20, 1) AS paused_ms, c.keys_compared,
           c.sqlstate, CASE WHEN redis_migrate.may_see(g.owner) THEN c.message END AS message
    FROM redis_migrate.cutover AS c JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.cutovers IS
    'Cutovers and cutbacks of the caller''s migrations, or all for members of pg_monitor. state: running, completed, undone, or interrupted: the next call completes or undoes it. paused_ms: how long writes were held back';

GRANT SELECT ON redis_migrate.cutovers TO PUBLIC;
