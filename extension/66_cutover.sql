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
    step_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    steps_ms      jsonb NOT NULL DEFAULT '{}',
    paused_ms     double precision,
    keys_compared bigint,
    keys_touched  bigint,
    sqlstate      text,
    message       text
);
CREATE INDEX cutover_of ON redis_migrate.cutover (migration, cutover_id);
COMMENT ON TABLE redis_migrate.cutover IS
    'Cutovers, and cutbacks (to_state redis). step: the last step that was about to be taken; step_at: when it was stored; steps_ms: how long the earlier steps took. instance: the server and database that began it. deadline: when the pause of the masters ends by itself. paused_ms: how long writes were held back. keys_touched: how many keys had changed since the last verification began, NULL if that is unknown';
COMMENT ON SEQUENCE redis_migrate.cutover_cutover_id_seq IS 'Numbers of cutovers';

CREATE TABLE redis_migrate.fenced_user (
    cutover_id   bigint NOT NULL REFERENCES redis_migrate.cutover ON DELETE CASCADE,
    node         text NOT NULL,
    address      text NOT NULL,
    username     text NOT NULL,
    rules        text NOT NULL,
    fenced_rules text,
    returned_at  timestamptz,
    run_id       text,
    trouble      text,
    PRIMARY KEY (cutover_id, node, address, username)
);
COMMENT ON TABLE redis_migrate.fenced_user IS
    'Users of Redis who lost @write, and their rules for commands before the first cutover that fenced them, as ACL GETUSER showed these. node: the id of a cluster''s master, otherwise empty; fenced_rules: the rules that the fence has left; returned_at: when the rights were returned, or nothing was left to return; run_id: the process of Redis that had fenced the user when that was last seen; trouble: why the user may write all the same';

CREATE TABLE redis_migrate.late_write (
    late_write_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration     text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    pattern       text NOT NULL,
    db            integer NOT NULL,
    key_bytes     bytea NOT NULL,
    kind          text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['written', 'deleted'])),
    payload       bytea,
    expires_at    timestamptz,
    changes       bigint NOT NULL DEFAULT 1,
    first_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    settled_at    timestamptz
);
CREATE UNIQUE INDEX late_write_key ON redis_migrate.late_write (migration, db, redis_migrate.index_key(key_bytes)) WHERE settled_at IS NULL;
CREATE INDEX late_write_open ON redis_migrate.late_write (migration, late_write_id) WHERE settled_at IS NULL;
COMMENT ON TABLE redis_migrate.late_write IS
    'Keys that were changed in Redis although their family belongs to PostgreSQL: the newest state of each that live sync met. settled_at: when somebody declared that nothing is to be done about it any more';
COMMENT ON SEQUENCE redis_migrate.late_write_late_write_id_seq IS 'Numbers of late writes';

CREATE TABLE redis_migrate.late_writer (
    migration     text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    address       text NOT NULL,
    client_name   text,
    username      text,
    command       text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_seen_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (migration, address)
);
COMMENT ON TABLE redis_migrate.late_writer IS
    'Clients of Redis whose last command may have been a write, as CLIENT LIST showed them when late writes arrived';

CREATE TABLE redis_migrate.touched_key (
    migration       text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    verification_id bigint NOT NULL,
    db              integer,
    key_bytes       bytea
);
ALTER TABLE redis_migrate.touched_key REPLICA IDENTITY FULL;
CREATE UNIQUE INDEX touched_key_name ON redis_migrate.touched_key (migration, verification_id, db, redis_migrate.index_key(key_bytes));
COMMENT ON TABLE redis_migrate.touched_key IS
    'Keys that live sync has changed since a verification of all mappings began, up to 20,000 for a migration. A row without a key says that there are more';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['cutover', 'fenced_user', 'cutover_cutover_id_seq',
                                    'late_write', 'late_writer', 'late_write_late_write_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE PROCEDURE redis_migrate.cutover(migration text, fence text, pattern text DEFAULT NULL, users text[] DEFAULT NULL,
        to_state text DEFAULT 'postgres', max_pause interval DEFAULT '2 s', compare_keys integer DEFAULT 500,
        verified_within interval DEFAULT '1 hour', no_way_back boolean DEFAULT false, force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_cutover';
COMMENT ON PROCEDURE redis_migrate.cutover(text, text, text, text[], text, interval, integer, interval, boolean, boolean) IS
    'Hands the families of a migration, or that of a pattern, over to PostgreSQL, or undoes everything: holds writes to Redis back with CLIENT PAUSE, waits until live sync has applied all of them, compares keys, fences the writers and changes the state. fence: acl takes @write from users, kill closes all connections, confirmed says that the writers are stopped. to_state: postgres, or both (Redis may still be read). max_pause: the longest time for which writes are held back. no_way_back: even if rows of a mapping cannot be written to Redis. force: even if checks fail, with a warning. First completes or undoes a cutover or cutback that was interrupted';

CREATE PROCEDURE redis_migrate.cutback(migration text, pattern text DEFAULT NULL, discard_changes boolean DEFAULT false,
        max_wait interval DEFAULT '1 minute', force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_cutback';
COMMENT ON PROCEDURE redis_migrate.cutback(text, text, boolean, interval, boolean) IS
    'Gives the families of a migration, or that of a pattern, back to Redis: fences the tables, waits until the reverse feed has written everything, compares some rows with Redis, changes the state, and returns to users the rights that a cutover took. discard_changes: even if no reverse feed has written what was changed here, or rows differ. force: even if the tables also have rows of families that stay with PostgreSQL, whose writers are then refused, too';

CREATE FUNCTION redis_migrate.refuse_write() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_refuse_write';
COMMENT ON FUNCTION redis_migrate.refuse_write() IS
    'Trigger of tables that belong to Redis again: refuses writes, except those of the extension';

CREATE FUNCTION redis_migrate.unfence(migration text, pattern text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_unfence';
COMMENT ON FUNCTION redis_migrate.unfence(text, text) IS
    'Removes the fence that a cutback has put around the tables of a migration, or of one of its patterns. Call it once nobody writes to them any more';

CREATE PROCEDURE redis_migrate.undo_cutover(migration text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_undo_cutover';
COMMENT ON PROCEDURE redis_migrate.undo_cutover(text) IS
    'Completes or undoes a cutover or cutback that was interrupted, as its last step demands. Does nothing if none was';

CREATE FUNCTION redis_migrate.is_being_cut_over(migration text) RETURNS boolean
    LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'prm_is_being_cut_over';
COMMENT ON FUNCTION redis_migrate.is_being_cut_over(text) IS
    'Whether a session is cutting a migration over or back now, or is ending an interrupted cutover or cutback';

CREATE TRIGGER wake_workers AFTER INSERT ON redis_migrate.cutover
    FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers();
COMMENT ON TRIGGER wake_workers ON redis_migrate.cutover IS
    'Wakes the scheduler, which settles the cutover if its session ends before it does';

CREATE VIEW redis_migrate.cutovers WITH (security_barrier) AS
    SELECT c.cutover_id, c.migration, redis_migrate.shown_owner(g.owner) AS owner, c.patterns, c.to_state, c.fence,
           (SELECT pg_catalog.array_agg(DISTINCT f.username ORDER BY f.username) FROM redis_migrate.fenced_user AS f
            WHERE f.cutover_id OPERATOR(pg_catalog.=) c.cutover_id) AS users,
           CASE WHEN c.state OPERATOR(pg_catalog.=) 'running' AND NOT redis_migrate.is_being_cut_over(c.migration)
                THEN 'interrupted' ELSE c.state END AS state,
           c.step, c.started_at, c.started_by, c.deadline, c.finished_at, c.paused_ms::numeric(20, 1) AS paused_ms, c.keys_compared,
           c.keys_touched, c.steps_ms,
           c.sqlstate, CASE WHEN redis_migrate.may_see(g.owner) THEN c.message END AS message,
           CASE WHEN redis_migrate.may_see(g.owner) THEN (SELECT pg_catalog.string_agg(f.username OPERATOR(pg_catalog.||) ' at ' OPERATOR(pg_catalog.||) f.address OPERATOR(pg_catalog.||) ': ' OPERATOR(pg_catalog.||) f.trouble, E'\n' ORDER BY f.username, f.address)
            FROM redis_migrate.fenced_user AS f
            WHERE f.cutover_id OPERATOR(pg_catalog.=) c.cutover_id AND f.returned_at IS NULL) END AS fence_trouble
    FROM redis_migrate.cutover AS c JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.cutovers IS
    'Cutovers and cutbacks of the caller''s migrations, or all for members of pg_monitor. state: running, completed, undone, or interrupted (a worker, or the next call, completes or undoes it). paused_ms: how long writes were held back; steps_ms: how long each step took; keys_touched: keys that had changed since the last verification began; fence_trouble: users who were fenced and may write all the same, and why';

CREATE VIEW redis_migrate.fenced_users WITH (security_barrier) AS
    SELECT u.cutover_id, c.migration, u.node, u.address, u.username, u.rules, u.fenced_rules, u.returned_at, u.trouble
    FROM redis_migrate.fenced_user AS u
    JOIN redis_migrate.cutover AS c USING (cutover_id)
    JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.fenced_users IS
    'Users of Redis from whom cutovers of the caller''s migrations took the right to write, at each master (node: its id in a cluster). rules: their earlier rules for commands, which ACL SETUSER gives back; fenced_rules: the rules that the fence has left; returned_at: when the rights were returned; trouble: why the user may write all the same';

CREATE FUNCTION redis_migrate.settle_late_writes(migration text, pattern text DEFAULT NULL) RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_settle_late_writes';
COMMENT ON FUNCTION redis_migrate.settle_late_writes(text, text) IS
    'Declares that nothing is to be done any more about a migration''s late writes so far, or about those of a family. Returns how many there were';

CREATE VIEW redis_migrate.late_writes WITH (security_barrier) AS
    SELECT l.late_write_id, l.migration, l.pattern, l.db, redis_migrate.bytes_as_text(l.key_bytes) AS key, l.key_bytes, l.kind,
           l.payload, l.expires_at, l.changes, l.first_at, l.last_at, l.settled_at
    FROM redis_migrate.late_write AS l JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.late_writes IS
    'Keys of the caller''s migrations that were changed in Redis although they belong to PostgreSQL, with the newest value as a DUMP payload. A key that has expired is shown as deleted, because Redis does not tell the difference';

CREATE VIEW redis_migrate.late_writers WITH (security_barrier) AS
    SELECT w.migration, w.address, w.client_name, w.username, w.command, w.first_seen_at, w.last_seen_at
    FROM redis_migrate.late_writer AS w JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.late_writers IS
    'Clients whose last command may have been a write, as CLIENT LIST showed them when late writes arrived';
