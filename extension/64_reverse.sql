-- The reverse feed: what changes here goes back to Redis.

CREATE TABLE redis_migrate.reverse_query (
    mapping_id bigint PRIMARY KEY REFERENCES redis_migrate.mapping (mapping_id) ON DELETE CASCADE,
    query      text NOT NULL
);
COMMENT ON TABLE redis_migrate.reverse_query IS
    'For each mapping whose owner has set one: the query that makes the values of keys from its rows';

CREATE TABLE redis_migrate.reverse_feed (
    migration    text PRIMARY KEY REFERENCES redis_migrate.migration ON DELETE CASCADE,
    feed_id      bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    wanted       boolean NOT NULL DEFAULT true,
    state        text NOT NULL DEFAULT 'starting' CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['starting', 'running', 'idle', 'paused', 'failed', 'stopped'])),
    since        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    sqlstate     text,
    message      text,
    instance     text,
    batch        bigint NOT NULL DEFAULT 0,
    acknowledged bigint NOT NULL DEFAULT 0,
    slots        text NOT NULL DEFAULT '-'
);
COMMENT ON TABLE redis_migrate.reverse_feed IS
    'Reverse feeds of migrations. instance: the server on which the feed was started, as in background_run. batch: the last batch that was begun; acknowledged: the last batch that Redis has confirmed. slots: the slots of batches that were begun, unless Redis has confirmed them or a later batch has replaced them; 0 for a server that is no cluster';
COMMENT ON SEQUENCE redis_migrate.reverse_feed_feed_id_seq IS 'Numbers of reverse feeds';

CREATE TABLE redis_migrate.reverse_slot (
    migration    text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    slot         integer NOT NULL,
    acknowledged bigint NOT NULL,
    PRIMARY KEY (migration, slot)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.reverse_slot IS
    'For reverse feeds to a cluster: the last batch that each slot has confirmed';

CREATE TABLE redis_migrate.reverse_mapping (
    mapping_id      bigint PRIMARY KEY REFERENCES redis_migrate.mapping (mapping_id) ON DELETE CASCADE,
    migration       text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    target_relation regclass NOT NULL,
    partitions      text,
    in_full_pass    boolean NOT NULL DEFAULT false,
    unscanned       text,
    oldest          bigint NOT NULL DEFAULT 0,
    expires_column  text,
    sent            bigint NOT NULL DEFAULT 0,
    unfit           bigint NOT NULL DEFAULT 0,
    nameless_after  bigint,
    last_sent_at    timestamptz
);
COMMENT ON TABLE redis_migrate.reverse_mapping IS
    'Mappings whose targets have triggers that note changes. partitions: the target''s partitions, with their files, and the triggers. unscanned: for a pass over all rows, the slots in which keys without rows are still to be looked for, once the rows are written. oldest: all changes before it have been sent. expires_column: the column by which a row expires, if each key has one row. unfit: changes of rows whose names make no key of the pattern, or whose keys the ledger should name but does not know; nameless_after: the number of the last change of a family when a row of the latter kind was last met';

CREATE TABLE redis_migrate.outbox (
    outbox_id  bigint GENERATED ALWAYS AS IDENTITY,
    mapping_id bigint NOT NULL,
    name       text[] NOT NULL,
    noted_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (mapping_id, outbox_id)
);
COMMENT ON TABLE redis_migrate.outbox IS
    'Rows that have changed since their keys were last written to Redis. The columns identify a row by the parts of its key''s name, or, if the full ledger names the key, by the row''s own key. It holds no values: those are read when the key is written';
COMMENT ON SEQUENCE redis_migrate.outbox_outbox_id_seq IS 'Order in which changes were noted';

CREATE TABLE redis_migrate.outbox_gap (
    gap_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping_id bigint NOT NULL,
    reason     text NOT NULL,
    noted_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE redis_migrate.outbox_gap IS
    'Changes that the outbox lacks, and why: all rows of the mapping are to be written to Redis';
COMMENT ON SEQUENCE redis_migrate.outbox_gap_gap_id_seq IS 'Numbers of gaps';

CREATE TABLE redis_migrate.reverse_reject (
    mapping_id  bigint NOT NULL,
    name_hash   bigint NOT NULL,
    name        text[] NOT NULL,
    key         text NOT NULL,
    sqlstate    text NOT NULL,
    message     text NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (mapping_id, name_hash)
);
COMMENT ON TABLE redis_migrate.reverse_reject IS
    'Rows that could not be written back to Redis, and why. A row is named by the parts of its key''s name, or by its database and its own key (name_hash: the hash of these). It is tried again every minute, and when it changes';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['reverse_query', 'reverse_feed', 'reverse_feed_feed_id_seq', 'reverse_slot', 'reverse_mapping', 'outbox', 'outbox_outbox_id_seq', 'outbox_gap', 'outbox_gap_gap_id_seq', 'reverse_reject'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE FUNCTION redis_migrate.note_change() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_note_change';
COMMENT ON FUNCTION redis_migrate.note_change() IS
    'Trigger of targets whose changes go back to Redis: notes which row has changed, unless the extension changed it';

CREATE FUNCTION redis_migrate.reverse_elements(type text, value bytea) RETURNS bytea[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_reverse_elements_bytea';
COMMENT ON FUNCTION redis_migrate.reverse_elements(text, bytea) IS
    'The value of a string that a reverse query yields';

CREATE FUNCTION redis_migrate.reverse_elements(type text, value jsonb) RETURNS bytea[]
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_reverse_elements_jsonb';
COMMENT ON FUNCTION redis_migrate.reverse_elements(text, jsonb) IS
    'The elements of a value that a reverse query yields: an object (fields and values, members and scores) or an array (elements, or objects with member and score, or with field, value and expires_at)';

CREATE FUNCTION redis_migrate.reverse_elements(type text, value text) RETURNS bytea[]
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_reverse_elements_text';
COMMENT ON FUNCTION redis_migrate.reverse_elements(text, text) IS
    'The value of a string that a reverse query yields, or the elements of another type''s value, as JSON';

CREATE FUNCTION redis_migrate.set_reverse_query(migration text, mapping text, query text,
        trust_target boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_set_reverse_query';
COMMENT ON FUNCTION redis_migrate.set_reverse_query(text, text, text, boolean) IS
    'Says how rows of a mapping become the values of keys: a SELECT from redis_rows, which holds the rows of some keys. For each key it yields the columns that name it (redis_db and redis_key if the full ledger names it), type, value (text or bytea for a string, jsonb for other types) and expires_at. NULL: as derived from the mapping';

CREATE FUNCTION redis_migrate.reverse_problems(migration text, pattern text DEFAULT NULL, OUT mapping text, OUT problem text, OUT hint text) RETURNS SETOF record
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_reverse_problems';
COMMENT ON FUNCTION redis_migrate.reverse_problems(text, text) IS
    'The mappings of a migration, or of one of its patterns, whose rows cannot be written back to Redis, and why';

CREATE FUNCTION redis_migrate.start_reverse(migration text, pattern text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_start_reverse';
COMMENT ON FUNCTION redis_migrate.start_reverse(text, text) IS
    'Begins to write changes of a migration''s targets back to Redis, or those of one of its patterns, with triggers on the targets and a background worker';

CREATE FUNCTION redis_migrate.stop_reverse(migration text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_stop_reverse';
COMMENT ON FUNCTION redis_migrate.stop_reverse(text) IS
    'Ends the reverse feed of a migration: removes its triggers, and forgets changes that were not sent';

CREATE PROCEDURE redis_migrate.feed_redis(migration text, until_drained boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_feed_redis';
COMMENT ON PROCEDURE redis_migrate.feed_redis(text, boolean) IS
    'Writes what has changed here to Redis until nothing is left; the background worker goes on until stop_reverse';

CREATE PROCEDURE redis_migrate.check_reverse(migration text, pattern text DEFAULT NULL, keys integer DEFAULT 100, INOUT checked bigint DEFAULT NULL, INOUT differing bigint DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_check_reverse';
COMMENT ON PROCEDURE redis_migrate.check_reverse(text, text, integer, bigint, bigint) IS
    'Compares what some rows of each mapping would write back with what Redis has: type, elements, and expiry within a second. A warning names the first keys that differ, masked';

CREATE FUNCTION redis_migrate.reverse_feeds_due(OUT owner oid, OUT feed_id bigint) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT redis_migrate.acting_role(g.owner), f.feed_id
    FROM redis_migrate.reverse_feed AS f JOIN redis_migrate.migration AS g USING (migration)
    WHERE f.wanted AND f.state OPERATOR(pg_catalog.<>) 'paused' AND NOT redis_migrate.is_restored(g.owner)
          AND redis_migrate.acting_role(g.owner) IS NOT NULL
$$;
COMMENT ON FUNCTION redis_migrate.reverse_feeds_due() IS 'Reverse feeds that need a worker';

CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE OF wanted ON redis_migrate.reverse_feed
    FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers();
COMMENT ON TRIGGER wake_workers ON redis_migrate.reverse_feed IS 'Wakes the scheduler';

CREATE VIEW redis_migrate.reverse_feeds WITH (security_barrier) AS
    SELECT f.migration, redis_migrate.shown_owner(g.owner) AS owner, f.wanted, f.state, f.since, f.sqlstate, f.message,
           x.mappings, x.sent, x.unfit, x.rejected, x.last_sent_at, o.waiting, o.oldest_at, x.needs_full
    FROM redis_migrate.reverse_feed AS f
    JOIN redis_migrate.migration AS g USING (migration)
    CROSS JOIN LATERAL (
        SELECT pg_catalog.array_agg(p.mapping ORDER BY p.mapping_id) AS mappings, coalesce(pg_catalog.sum(m.sent), 0)::bigint AS sent, coalesce(pg_catalog.sum(m.unfit), 0)::bigint AS unfit,
               coalesce(pg_catalog.sum((SELECT pg_catalog.count(*) FROM redis_migrate.reverse_reject AS j
                                        WHERE j.mapping_id OPERATOR(pg_catalog.=) m.mapping_id)), 0)::bigint AS rejected,
               pg_catalog.max(m.last_sent_at) AS last_sent_at,
               coalesce(pg_catalog.bool_or(m.in_full_pass OR EXISTS (SELECT FROM redis_migrate.outbox_gap AS q
                                                                    WHERE q.mapping_id OPERATOR(pg_catalog.=) m.mapping_id)), false) AS needs_full
        FROM redis_migrate.reverse_mapping AS m JOIN redis_migrate.mapping AS p USING (mapping_id)
        WHERE m.migration OPERATOR(pg_catalog.=) f.migration) AS x
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS waiting, pg_catalog.min(b.noted_at) AS oldest_at
        FROM redis_migrate.outbox AS b JOIN redis_migrate.reverse_mapping AS m USING (mapping_id)
        WHERE m.migration OPERATOR(pg_catalog.=) f.migration) AS o
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.reverse_feeds IS
    'Reverse feeds of the caller''s migrations, or all for members of pg_monitor: their state and last error, the changes that were sent, changes of rows that make no key (unfit), rows that could not be written back (rejected: see reverse_rejects), changes that wait, and whether all rows have to be written';

CREATE VIEW redis_migrate.reverse_rejects WITH (security_barrier) AS
    SELECT p.migration, p.mapping, j.key, j.name, j.sqlstate, j.message, j.rejected_at
    FROM redis_migrate.reverse_reject AS j
    JOIN redis_migrate.mapping AS p USING (mapping_id)
    JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.reverse_rejects IS
    'Rows of the caller''s migrations that could not be written back to Redis, and why. Their keys are as they were before. Each row is tried again every minute, and when it changes';
