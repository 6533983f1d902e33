-- Audits of the keys of a server, kept so that they can be compared.

CREATE TABLE redis_migrate.audit (
    audit_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server           name NOT NULL,
    owner            redis_migrate.owner_role NOT NULL,
    state            text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=)
                         ANY (ARRAY['running', 'completed', 'stopped', 'failed'])),
    started_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at      timestamptz,
    pid              integer,
    sample           double precision,
    max_duration     interval,
    databases        integer[],
    max_rate         integer,
    redis_version    text,
    maxmemory_policy text,
    dbsize           bigint,
    keys             bigint NOT NULL DEFAULT 0,
    asked            bigint NOT NULL DEFAULT 0,
    vanished         bigint NOT NULL DEFAULT 0,
    odd              bigint NOT NULL DEFAULT 0,
    odd_reasons      jsonb NOT NULL DEFAULT '{}',
    families         integer NOT NULL DEFAULT 0,
    bytes            bigint,
    notes            text[] NOT NULL DEFAULT '{}',
    sqlstate         text,
    message          text
);
COMMENT ON TABLE redis_migrate.audit IS 'Audits of Redis servers: parameters, progress and sums';
COMMENT ON SEQUENCE redis_migrate.audit_audit_id_seq IS 'Numbers of audits';

CREATE TABLE redis_migrate.audit_family (
    audit_id     bigint NOT NULL REFERENCES redis_migrate.audit ON DELETE CASCADE,
    db           integer NOT NULL,
    pattern      text NOT NULL,
    type         text NOT NULL,
    types        jsonb NOT NULL,
    keys         bigint NOT NULL,
    asked        bigint NOT NULL,
    bytes        bigint,
    with_ttl     bigint,
    without_ttl  bigint,
    min_ttl      interval,
    max_ttl      interval,
    ttl_spread   jsonb,
    min_idle     interval,
    max_idle     interval,
    min_freq     integer,
    max_freq     integer,
    encodings    jsonb NOT NULL,
    odd          bigint NOT NULL,
    odd_reasons  jsonb NOT NULL,
    example      text,
    framework    text,
    layout       text,
    advice       text,
    priority     text NOT NULL,
    create_table text,
    suggestion   text,
    PRIMARY KEY (audit_id, db, pattern, type)
);
COMMENT ON TABLE redis_migrate.audit_family IS
    'Key families that an audit found. If the keys of a pattern have several types, each type is a family. type is empty if it is unknown';

CREATE TABLE redis_migrate.audit_key (
    audit_id bigint NOT NULL REFERENCES redis_migrate.audit ON DELETE CASCADE,
    db       integer NOT NULL,
    rank     integer NOT NULL,
    pattern  text,
    key      text NOT NULL,
    type     text,
    bytes    bigint NOT NULL,
    ttl      interval,
    PRIMARY KEY (audit_id, db, rank)
);
COMMENT ON TABLE redis_migrate.audit_key IS 'The largest keys that an audit met in each database, masked';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['audit', 'audit_family', 'audit_key', 'audit_audit_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE PROCEDURE redis_migrate.audit(server name, sample double precision DEFAULT NULL, max_duration interval DEFAULT NULL,
        databases integer[] DEFAULT NULL, max_rate integer DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_audit';
COMMENT ON PROCEDURE redis_migrate.audit(name, double precision, interval, integer[], integer) IS
    'Finds the key families of a server, or of all masters of a cluster, and stores them. sample: how many keys per family to ask about; below 1, a share of them; NULL: all. max_rate: keys per second. Commits as it goes';

CREATE FUNCTION redis_migrate.drop_audit(audit_id bigint) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_audit';
COMMENT ON FUNCTION redis_migrate.drop_audit(bigint) IS 'Drops an audit and its key families';

CREATE VIEW redis_migrate.audits WITH (security_barrier) AS
    SELECT a.audit_id, a.server, redis_migrate.shown_owner(a.owner) AS owner,
           CASE WHEN a.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(a.pid) AS s WHERE s.pid OPERATOR(pg_catalog.=) a.pid)
                THEN 'interrupted' ELSE a.state END AS state,
           a.state OPERATOR(pg_catalog.=) 'completed' AS complete,
           a.started_at, a.updated_at, a.finished_at, a.pid, a.sample, a.max_duration, a.databases, a.max_rate,
           a.redis_version, a.maxmemory_policy, a.dbsize, a.keys, a.asked, a.vanished, a.odd, a.odd_reasons, a.families, a.bytes,
           a.notes, a.sqlstate, a.message
    FROM redis_migrate.audit AS a
    WHERE redis_migrate.may_see(a.owner);
COMMENT ON VIEW redis_migrate.audits IS 'Audits of the caller, including those under way';

CREATE VIEW redis_migrate.audit_families WITH (security_barrier) AS
    SELECT f.audit_id, a.server, f.db, f.pattern, NULLIF(f.type, '') AS type, f.types, f.keys, f.asked, f.asked OPERATOR(pg_catalog.<) f.keys AS estimated,
           f.bytes, f.with_ttl, f.without_ttl, f.min_ttl, f.max_ttl, f.ttl_spread, f.min_idle, f.max_idle, f.min_freq, f.max_freq,
           f.encodings, f.odd, f.odd_reasons, f.example, f.framework, f.layout, f.advice, f.priority, f.create_table, f.suggestion
    FROM redis_migrate.audit_family AS f JOIN redis_migrate.audit AS a USING (audit_id)
    WHERE redis_migrate.may_see(a.owner);
COMMENT ON VIEW redis_migrate.audit_families IS
    'Key families of the caller''s audits. keys is exact for a pattern of one type. If estimated is true, bytes, with_ttl and without_ttl are estimates for all keys; types, ttl_spread and encodings count what was seen';

CREATE VIEW redis_migrate.audit_largest_keys WITH (security_barrier) AS
    SELECT k.audit_id, a.server, k.db, k.rank, k.pattern, k.key, k.type, k.bytes, k.ttl
    FROM redis_migrate.audit_key AS k JOIN redis_migrate.audit AS a USING (audit_id)
    WHERE redis_migrate.may_see(a.owner);
COMMENT ON VIEW redis_migrate.audit_largest_keys IS
    'The largest keys of each database among those that an audit asked about. Letters and digits of captures are masked';

CREATE FUNCTION redis_migrate.compare_audits(before bigint, after bigint)
    RETURNS TABLE (db integer, pattern text, type text, change text, keys_before bigint, keys_after bigint, keys_growth bigint,
                   bytes_before bigint, bytes_after bigint, touched boolean, renewed boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.db, f.pattern, f.type,
           CASE WHEN b.keys IS NULL THEN 'new' WHEN a.keys IS NULL THEN 'gone' WHEN a.keys > b.keys THEN 'grown'
                WHEN a.keys < b.keys THEN 'shrunk' ELSE 'same' END,
           b.keys, a.keys, coalesce(a.keys, 0) - coalesce(b.keys, 0), b.bytes, a.bytes,
           a.min_idle < t.began - t.ended - interval '2 s',
           t.began + a.max_ttl > t.ended + b.max_ttl + interval '2 s'
    FROM (SELECT max(s.finished_at) FILTER (WHERE s.audit_id = before) AS ended,
                 max(s.started_at) FILTER (WHERE s.audit_id = after) AS began
          FROM redis_migrate.audits AS s WHERE s.audit_id IN (before, after)) AS t
    CROSS JOIN (SELECT DISTINCT x.db, x.pattern, x.type FROM redis_migrate.audit_families AS x WHERE x.audit_id IN (before, after)) AS f
    LEFT JOIN redis_migrate.audit_families AS b ON b.audit_id = before AND b.db = f.db AND b.pattern = f.pattern AND b.type IS NOT DISTINCT FROM f.type
    LEFT JOIN redis_migrate.audit_families AS a ON a.audit_id = after AND a.db = f.db AND a.pattern = f.pattern AND a.type IS NOT DISTINCT FROM f.type
    ORDER BY f.db, f.pattern COLLATE "C", f.type
$$;
COMMENT ON FUNCTION redis_migrate.compare_audits(bigint, bigint) IS
    'Differences between two audits, by family: new, gone, grown, shrunk, same. touched: a key was read or written since the first audit ended. renewed: the latest expiry has moved on';
