-- Live sync: a run that has loaded its snapshot follows the server's replication stream, or, with source scan, the names
-- of keys that the server says have changed.

CREATE TABLE redis_migrate.live_position (
    run_id          bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    link            integer NOT NULL DEFAULT 0,
    appliers        integer NOT NULL DEFAULT 1,
    applier         integer NOT NULL DEFAULT 0,
    replication_id  text NOT NULL,
    applied_offset  bigint NOT NULL,
    db              integer NOT NULL,
    received_at     timestamptz NOT NULL,
    is_loaded       boolean NOT NULL DEFAULT false,
    keys_read_again bigint NOT NULL DEFAULT 0,
    commands        bigint NOT NULL DEFAULT 0,
    flush_offset    bigint NOT NULL DEFAULT 0,
    updated_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    sqlstate        text,
    message         text,
    PRIMARY KEY (run_id, link, appliers, applier)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.live_position IS
    'How far live runs have applied the replication stream, or each master''s stream of a cluster; the transaction that writes the rows also writes it. All keys whose hash slot leaves the remainder `applier` when it is divided by `appliers` are applied up to applied_offset. If the number of processes changes, the rows of the earlier ones stay until the present ones are beyond them. link: 0, or the number of a cluster''s master; db: the database that the stream has selected there; received_at: when the last applied change arrived; is_loaded: false while the snapshot of that offset is being loaded; flush_offset: redis_migrate.wait_for wants large values that changed up to there at once; message: why the process that applies the share ended. Without sqlstate, a new snapshot is needed';

CREATE TABLE redis_migrate.live_key (
    run_id      bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    link        integer NOT NULL DEFAULT 0,
    db          integer NOT NULL,
    key_bytes   bytea NOT NULL,
    slot        integer NOT NULL,
    read_offset bigint NOT NULL,
    is_absent   boolean NOT NULL,
    is_unread   boolean NOT NULL,
    bytes       bigint
);
ALTER TABLE redis_migrate.live_key REPLICA IDENTITY FULL;
CREATE UNIQUE INDEX live_key_name ON redis_migrate.live_key (run_id, link, db, redis_migrate.index_key(key_bytes));
CREATE INDEX live_key_stored ON redis_migrate.live_key (run_id, link, read_offset) WHERE NOT is_absent AND NOT is_unread;
COMMENT ON TABLE redis_migrate.live_key IS
    'Keys whose rows are not those of the applied offset. slot: the hash slot of the key. The rows show the state at read_offset, so commands up to there are passed over. is_absent: the key did not exist then, and its row goes once the stream is there. is_unread: the row could not be stored, and the key is to be read again. bytes: the size of a large value that changes often and waits to be read again';

CREATE TABLE redis_migrate.live_link (
    run_id          bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    link            integer NOT NULL DEFAULT 0,
    nodes           text[] NOT NULL DEFAULT '{}',
    state           text NOT NULL CHECK (state OPERATOR(pg_catalog.=)
                        ANY (ARRAY['connecting', 'snapshot', 'streaming', 'spool full', 'full sync needed'])),
    since           timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    replication_id  text,
    received_offset bigint,
    durable_offset  bigint,
    received_at     timestamptz,
    spool_bytes     bigint,
    backlog_bytes   bigint,
    acknowledged_at timestamptz,
    reconnects      bigint NOT NULL DEFAULT 0,
    sqlstate        text,
    message         text,
    feed            text CHECK (feed OPERATOR(pg_catalog.=) ANY (ARRAY['tracking', 'notifications'])),
    doubt           text,
    updated_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (run_id, link)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.live_link IS
    'The replication links of live runs, as their workers note them about once a second. nodes: for a cluster, the ids of the master and its replicas. durable_offset: what is safe here, as the server was told at acknowledged_at. backlog_bytes: how much of the stream the server keeps for a link that comes back. feed: for source scan, what tells the names of changed keys; received_offset then has all changes before received_at, and doubt says why some may be missing';

CREATE TABLE redis_migrate.live_mapping (
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    link       integer NOT NULL,
    mapping_id bigint NOT NULL,
    pattern    text NOT NULL,
    is_filled  boolean NOT NULL,
    appliers_left integer[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (run_id, link, mapping_id)
);
COMMENT ON TABLE redis_migrate.live_mapping IS
    'The mappings whose keys a live run has met. is_filled: false while the run looks for the keys of a mapping that was added or dropped since. appliers_left: the processes that have not yet found the keys of their share';

CREATE VIEW redis_migrate.live_applied WITH (security_barrier) AS
    SELECT DISTINCT ON (run_id, link) run_id, link, appliers, replication_id, applied_offset, db, received_at, is_loaded, flush_offset, updated_at,
           (pg_catalog.sum(commands) OVER of_link)::bigint AS commands, (pg_catalog.sum(keys_read_again) OVER of_link)::bigint AS keys_read_again, furthest_offset
    FROM (SELECT *, pg_catalog.min(applied_offset) OVER of_layout AS lowest, pg_catalog.max(applied_offset) OVER of_layout AS furthest_offset
          FROM redis_migrate.live_position
          WINDOW of_layout AS (PARTITION BY run_id, link, appliers)) AS p
    WINDOW of_link AS (PARTITION BY run_id, link)
    ORDER BY run_id, link, lowest DESC, applied_offset;
COMMENT ON VIEW redis_migrate.live_applied IS
    'Up to where all changes of a live run''s link are applied: the lowest position of the processes that apply shares of them. furthest_offset: the highest position';

CREATE PROCEDURE redis_migrate.follow(migration text, force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_follow';
COMMENT ON PROCEDURE redis_migrate.follow(text, boolean) IS
    'Loads a snapshot, or scans, and then applies every change until it is stopped. Background workers that redis_migrate.start(live => true) starts call it. Commits after each batch. force removes rows whose keys a snapshot lacks, however many';

CREATE PROCEDURE redis_migrate.receive_stream(run_id bigint, link integer DEFAULT 0)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_receive_stream';
COMMENT ON PROCEDURE redis_migrate.receive_stream(bigint, integer) IS
    'Keeps a replication link of a live run, or its feed, and writes what arrives to the disk. The background worker of the link calls it';

CREATE PROCEDURE redis_migrate.apply_stream(run_id bigint, applier integer)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_apply_stream';
COMMENT ON PROCEDURE redis_migrate.apply_stream(bigint, integer) IS
    'Applies the changes of a share of a live run''s keys. Background workers call it beside the process that leads the run. Commits after each batch';

CREATE FUNCTION redis_migrate.confirm_instance(migration text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_confirm_instance';
COMMENT ON FUNCTION redis_migrate.confirm_instance(text) IS
    'Declares that a paused live run is to go on here, on a server that was copied from another, restored or promoted';

CREATE VIEW redis_migrate.live_sync WITH (security_barrier) AS
    SELECT j.migration, redis_migrate.shown_owner(j.owner) AS owner, r.run_id, coalesce(l.link, 0) AS link,
           CASE WHEN j.state OPERATOR(pg_catalog.<>) 'running' THEN j.state
                WHEN l.state OPERATOR(pg_catalog.=) 'full sync needed' THEN l.state
                WHEN NOT h.is_kept THEN 'connecting'
                WHEN p.is_loaded IS NOT TRUE THEN CASE WHEN l.state OPERATOR(pg_catalog.=) 'streaming' THEN 'loading' ELSE l.state END
                WHEN l.state OPERATOR(pg_catalog.<>) 'streaming' THEN l.state
                WHEN p.applied_offset OPERATOR(pg_catalog.>=) l.received_offset AND k.keys_ahead OPERATOR(pg_catalog.=) 0 AND f.mappings_unfilled OPERATOR(pg_catalog.=) 0
                    AND l.doubt IS NULL AND l.updated_at OPERATOR(pg_catalog.>) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '10 s'::interval)
                THEN CASE WHEN l.feed IS NULL THEN 'in step' ELSE 'settled' END
                ELSE CASE WHEN l.feed IS NULL THEN 'streaming' ELSE 'converging' END END AS state,
           p.replication_id, p.applied_offset, greatest(l.received_offset, p.applied_offset) AS received_offset, l.durable_offset,
           greatest(l.received_offset OPERATOR(pg_catalog.-) p.applied_offset, 0) AS lag_bytes,
           CASE WHEN l.received_offset OPERATOR(pg_catalog.>) p.applied_offset
                THEN greatest(extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) p.received_at), 0)::numeric(20, 3)
                WHEN p.is_loaded THEN 0 END AS lag_seconds,
           p.appliers, p.commands, p.keys_read_again, k.keys_ahead, k.keys_deferred, k.bytes_deferred, f.mappings_unfilled, l.spool_bytes, l.reconnects, l.received_at, l.feed, l.doubt,
           CASE WHEN e.is_of_link THEN l.sqlstate ELSE j.sqlstate END AS sqlstate, CASE WHEN e.is_of_link THEN l.message ELSE j.message END AS last_error
    FROM redis_migrate.background_run AS j
    LEFT JOIN LATERAL (SELECT u.run_id FROM redis_migrate.run AS u
                       WHERE u.migration OPERATOR(pg_catalog.=) j.migration AND u.live ORDER BY u.run_id DESC LIMIT 1) AS r ON true
    LEFT JOIN redis_migrate.live_link AS l ON l.run_id OPERATOR(pg_catalog.=) r.run_id
    LEFT JOIN redis_migrate.live_applied AS p ON p.run_id OPERATOR(pg_catalog.=) r.run_id AND p.link OPERATOR(pg_catalog.=) l.link
    -- What a link has noted that is no more says nothing of the server. A standby has none of its own.
    CROSS JOIN LATERAL (SELECT l.run_id IS NOT NULL AND (pg_catalog.pg_is_in_recovery() OR EXISTS (
                            SELECT FROM redis_migrate.worker_slots() AS w
                            WHERE w.kind OPERATOR(pg_catalog.=) 'replication link' AND w.run_id OPERATOR(pg_catalog.=) l.run_id AND w.number OPERATOR(pg_catalog.=) l.link
                                AND w.pid IS NOT NULL AND w.launched_at OPERATOR(pg_catalog.<=) l.updated_at
                                AND w.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
                                                                       WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))) AS is_kept) AS h
    CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS keys_ahead, pg_catalog.count(q.bytes) AS keys_deferred,
                               coalesce(pg_catalog.sum(q.bytes), 0)::bigint AS bytes_deferred
                        FROM redis_migrate.live_key AS q
                        WHERE q.run_id OPERATOR(pg_catalog.=) r.run_id AND q.link OPERATOR(pg_catalog.=) l.link) AS k
    CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS mappings_unfilled
                        FROM redis_migrate.live_mapping AS m
                        WHERE m.run_id OPERATOR(pg_catalog.=) r.run_id AND m.link OPERATOR(pg_catalog.=) l.link AND NOT m.is_filled) AS f
    CROSS JOIN LATERAL (SELECT j.message IS NULL OR j.state OPERATOR(pg_catalog.=) 'running' AND l.message IS NOT NULL AS is_of_link) AS e
    WHERE j.live AND (redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE'));
COMMENT ON VIEW redis_migrate.live_sync IS
    'Live runs of the caller''s migrations, or all for members of pg_monitor, with a row for each master of a cluster: how far the stream is received and applied. appliers: how many processes apply a share of the changes each; applied_offset is that of the last of them. lag_seconds: the age of what was applied last, 0 if nothing waits. keys_ahead: keys whose rows are not those of the applied offset. keys_deferred, bytes_deferred: those of them whose large values change often and wait to be read again. mappings_unfilled: mappings that were added or dropped while the run was stopped, and whose keys are still being looked for. feed: for source scan, what tells the changed keys. Everything that changed before received_at is here once the state is settled; doubt says why it never is';

CREATE VIEW redis_migrate.stat_live WITH (security_barrier) AS
    SELECT v.run_id, v.migration, v.link, a.pid, b.pid AS link_pid, v.replication_id, v.received_offset, v.received_at AS last_msg_receipt_time,
           v.durable_offset AS latest_ack_offset, l.acknowledged_at AS latest_ack_time, v.applied_offset AS latest_end_offset, p.updated_at AS latest_end_time,
           l.backlog_bytes, v.spool_bytes,
           (SELECT pg_catalog.count(*) FROM redis_migrate.reject AS r
            WHERE r.run_id OPERATOR(pg_catalog.=) v.run_id AND r.settled_at IS NULL) AS rejects
    FROM redis_migrate.live_sync AS v
    JOIN redis_migrate.background_run AS j USING (migration)
    LEFT JOIN redis_migrate.live_link AS l USING (run_id, link)
    LEFT JOIN redis_migrate.live_applied AS p USING (run_id, link)
    LEFT JOIN redis_migrate.worker_slots() AS a
        ON a.kind OPERATOR(pg_catalog.=) 'migration' AND a.background_run_id OPERATOR(pg_catalog.=) j.background_run_id
           AND a.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    LEFT JOIN redis_migrate.worker_slots() AS b
        ON b.kind OPERATOR(pg_catalog.=) 'replication link' AND b.run_id OPERATOR(pg_catalog.=) v.run_id AND b.number OPERATOR(pg_catalog.=) v.link
           AND b.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());
COMMENT ON VIEW redis_migrate.stat_live IS
    'Live runs for monitoring, in the shape of pg_stat_subscription: the processes, and how far the stream was received, acknowledged and applied, each with its time. pid applies the changes, link_pid keeps the link. backlog_bytes: how much of the stream the server keeps. rejects: keys whose newest value could not be stored';

CREATE VIEW redis_migrate.live_appliers WITH (security_barrier) AS
    SELECT v.migration, v.owner, v.run_id, v.link, p.applier, a.pid, p.applied_offset,
           greatest(v.received_offset OPERATOR(pg_catalog.-) p.applied_offset, 0) AS lag_bytes, p.updated_at AS applied_at, p.commands, p.keys_read_again
    FROM redis_migrate.live_sync AS v
    JOIN redis_migrate.background_run AS j USING (migration)
    JOIN redis_migrate.live_position AS p
        ON p.run_id OPERATOR(pg_catalog.=) v.run_id AND p.link OPERATOR(pg_catalog.=) v.link AND p.appliers OPERATOR(pg_catalog.=) v.appliers
    LEFT JOIN redis_migrate.worker_slots() AS a
        ON CASE WHEN p.applier OPERATOR(pg_catalog.=) 0
                THEN a.kind OPERATOR(pg_catalog.=) 'migration' AND a.background_run_id OPERATOR(pg_catalog.=) j.background_run_id
                ELSE a.kind OPERATOR(pg_catalog.=) 'live applier' AND a.run_id OPERATOR(pg_catalog.=) v.run_id AND a.number OPERATOR(pg_catalog.=) p.applier END
           AND a.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());
COMMENT ON VIEW redis_migrate.live_appliers IS
    'The processes that apply the changes of live runs, each those of a share of the keys, and how far each is. One that is behind holds back wait_for, and the files of changes';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['live_position', 'live_key', 'live_link', 'live_mapping'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;
