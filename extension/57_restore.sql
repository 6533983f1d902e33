-- Restores: what was kept of keys is written to a Redis.

CREATE TABLE redis_migrate.restore (
    restore_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration    text NOT NULL,
    owner        redis_migrate.owner_role NOT NULL,
    server       name NOT NULL,
    source       text NOT NULL CHECK (source OPERATOR(pg_catalog.=) ANY (ARRAY['archive', 'rejects', 'rows'])),
    pattern      text,
    replace      boolean NOT NULL,
    dry_run      boolean NOT NULL,
    state        text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'failed'])),
    started_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at  timestamptz,
    pid          integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    position     text NOT NULL DEFAULT '',
    by_commands  bigint NOT NULL DEFAULT 0,
    sqlstate     text,
    message      text
) WITH (fillfactor = 50);
CREATE INDEX restore_migration ON redis_migrate.restore (migration, restore_id);
COMMENT ON TABLE redis_migrate.restore IS
    'Restores of kept keys to a server. position is the checkpoint; the transaction that counts the keys before it also writes it. by_commands: how many keys were written by the commands of their types, because the server did not take their payloads';
COMMENT ON SEQUENCE redis_migrate.restore_restore_id_seq IS 'Numbers of restores';

CREATE TABLE redis_migrate.restore_count (
    restore_id bigint NOT NULL REFERENCES redis_migrate.restore ON DELETE CASCADE,
    outcome    text NOT NULL CHECK (outcome OPERATOR(pg_catalog.=) ANY (ARRAY['restored', 'exists', 'expired', 'failed'])),
    reason     text,
    keys       bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (restore_id, outcome, reason)
) WITH (fillfactor = 50);
ALTER TABLE redis_migrate.restore_count REPLICA IDENTITY FULL;
COMMENT ON TABLE redis_migrate.restore_count IS 'Numbers of keys of a restore by outcome and reason';

CREATE TABLE redis_migrate.restore_failure (
    failure_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    restore_id bigint NOT NULL REFERENCES redis_migrate.restore ON DELETE CASCADE,
    db         integer NOT NULL,
    key_bytes  bytea NOT NULL,
    reason     text NOT NULL,
    message    text NOT NULL
);
CREATE INDEX restore_failure_of ON redis_migrate.restore_failure (restore_id);
COMMENT ON TABLE redis_migrate.restore_failure IS
    'Keys that a restore could not write, with what the server or the decoder of payloads said';
COMMENT ON SEQUENCE redis_migrate.restore_failure_failure_id_seq IS 'Numbers of keys that could not be restored';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['restore', 'restore_count', 'restore_failure', 'restore_restore_id_seq',
                                    'restore_failure_failure_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE PROCEDURE redis_migrate.restore(migration text, server name, source text DEFAULT 'archive', pattern text DEFAULT NULL,
        replace boolean DEFAULT false, dry_run boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_restore';
COMMENT ON PROCEDURE redis_migrate.restore(text, name, text, text, boolean, boolean) IS
    'Writes keys that a migration has kept to a Redis, with their expiries. source: archive; rejects (those that are open); rows (what the rows say, by reverse queries). pattern: only keys that fit it; replace overwrites keys that exist; dry_run writes nothing and counts what would become of the keys. With the same arguments it continues an interrupted restore. Commits as it goes';

CREATE VIEW redis_migrate.restores WITH (security_barrier) AS
    SELECT r.restore_id, r.migration, redis_migrate.shown_owner(r.owner) AS owner, r.server, r.source, r.pattern, r.replace, r.dry_run,
           CASE WHEN r.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(r.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) r.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) r.updated_at))
                THEN 'interrupted' ELSE r.state END AS state,
           r.started_at, r.updated_at, r.finished_at, r.pid,
           c.restored OPERATOR(pg_catalog.+) c.already OPERATOR(pg_catalog.+) c.expired OPERATOR(pg_catalog.+) c.failed AS keys,
           c.restored, c.already AS "exists", c.expired, c.failed, r.by_commands, r.sqlstate, r.message
    FROM redis_migrate.restore AS r
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome OPERATOR(pg_catalog.=) 'restored'), 0)::bigint AS restored,
               coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome OPERATOR(pg_catalog.=) 'exists'), 0)::bigint AS already,
               coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome OPERATOR(pg_catalog.=) 'expired'), 0)::bigint AS expired,
               coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome OPERATOR(pg_catalog.=) 'failed'), 0)::bigint AS failed
        FROM redis_migrate.restore_count AS k WHERE k.restore_id OPERATOR(pg_catalog.=) r.restore_id) AS c
    WHERE redis_migrate.may_see(r.owner);
COMMENT ON VIEW redis_migrate.restores IS
    'Restores of the caller''s migrations: keys = restored + exists + expired + failed. exists: the server has the key, which was left as it is. by_commands: how many keys were written by the commands of their types instead of RESTORE';

CREATE VIEW redis_migrate.restore_counts WITH (security_barrier) AS
    SELECT c.restore_id, r.migration, c.outcome, c.reason, c.keys
    FROM redis_migrate.restore_count AS c JOIN redis_migrate.restore AS r USING (restore_id)
    WHERE redis_migrate.may_see(r.owner)
    ORDER BY c.restore_id, pg_catalog.array_position(ARRAY['restored', 'exists', 'expired', 'failed'], c.outcome), c.reason COLLATE "C";
COMMENT ON VIEW redis_migrate.restore_counts IS 'Numbers of keys of restores by outcome and reason';

CREATE VIEW redis_migrate.restore_failures WITH (security_barrier) AS
    SELECT f.restore_id, r.migration, f.db, redis_migrate.bytes_as_text(f.key_bytes) AS key, f.key_bytes, f.reason, f.message
    FROM redis_migrate.restore_failure AS f JOIN redis_migrate.restore AS r USING (restore_id)
    WHERE redis_migrate.may_see(r.owner)
    ORDER BY f.failure_id;
COMMENT ON VIEW redis_migrate.restore_failures IS 'Keys that restores could not write, and why';
