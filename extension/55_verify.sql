-- Verifications: what Redis has beside what the tables have.

CREATE TABLE redis_migrate.verification (
    verification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration      text NOT NULL,
    owner          redis_migrate.owner_role NOT NULL,
    source         text NOT NULL,
    mapping        text,
    sample         double precision,
    max_differences bigint NOT NULL,
    followed       boolean NOT NULL DEFAULT false,
    state          text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'failed'])),
    started_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at    timestamptz,
    pid            integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    keys_estimated bigint,
    keys_read      bigint NOT NULL DEFAULT 0,
    keys_read_again bigint NOT NULL DEFAULT 0,
    keys_rejected  bigint NOT NULL DEFAULT 0,
    keys_unwatched bigint NOT NULL DEFAULT 0,
    verified       boolean,
    proves         boolean,
    reasons        text[],
    sqlstate       text,
    message        text
) WITH (fillfactor = 50);
CREATE INDEX verification_migration ON redis_migrate.verification (migration, verification_id);
COMMENT ON TABLE redis_migrate.verification IS
    'Comparisons of Redis with the tables of a migration. verified: all keys and rows were compared, and nothing differs; reasons: why not. proves: the same, except for keys that never held still; each of them has a line in verification_difference. followed: live sync was under way when the verification began';
COMMENT ON SEQUENCE redis_migrate.verification_verification_id_seq IS 'Numbers of verifications';

CREATE TABLE redis_migrate.verification_part (
    verification_id bigint NOT NULL REFERENCES redis_migrate.verification ON DELETE CASCADE,
    part            integer NOT NULL CHECK (part OPERATOR(pg_catalog.>) 0),
    share           text NOT NULL,
    position        text NOT NULL,
    done            boolean NOT NULL DEFAULT false,
    pid             integer,
    updated_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    keys_read       bigint NOT NULL DEFAULT 0,
    keys_read_again bigint NOT NULL DEFAULT 0,
    keys_rejected   bigint NOT NULL DEFAULT 0,
    keys_unwatched  bigint NOT NULL DEFAULT 0,
    rules           text[],
    rejected        bigint[],
    restarts        integer NOT NULL DEFAULT 0,
    readers         integer NOT NULL DEFAULT 1,
    sqlstate        text,
    message         text,
    PRIMARY KEY (verification_id, part)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.verification_part IS
    'Parts of a verification''s source that several processes read side by side. share: the slots of a cluster''s master, a range of a server''s cursors, or a share of the names; position: where the part begins; rejected: keys by rule, once the part is done; restarts: how often it began again because the server was restarted';

CREATE TABLE redis_migrate.verification_count (
    verification_id bigint NOT NULL REFERENCES redis_migrate.verification ON DELETE CASCADE,
    part           integer NOT NULL,
    mapping        text NOT NULL,
    equal          bigint NOT NULL,
    missing        bigint NOT NULL,
    different      bigint NOT NULL,
    expiry_differs bigint NOT NULL,
    extra          bigint,
    unsettled      bigint NOT NULL,
    not_kept       bigint NOT NULL,
    PRIMARY KEY (verification_id, part, mapping)
);
COMMENT ON TABLE redis_migrate.verification_count IS
    'Numbers of rows by mapping and finding, for each part of a verification''s source and outside them (part 0). extra is NULL if it was not looked for. unsettled counts keys. not_kept: how many rows that differ have no line in verification_difference';

CREATE TABLE redis_migrate.verification_difference (
    difference_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    verification_id bigint NOT NULL REFERENCES redis_migrate.verification ON DELETE CASCADE,
    part            integer NOT NULL,
    number          bigint NOT NULL,
    mapping         text NOT NULL,
    kind            text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['missing', 'extra', 'different', 'expiry_differs', 'unsettled', 'rejected'])),
    db              integer,
    key_bytes       bytea,
    row_key         text,
    column_name     text,
    redis_value     text,
    stored_value    text,
    found_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX verification_difference_of ON redis_migrate.verification_difference (verification_id);
COMMENT ON TABLE redis_migrate.verification_difference IS
    'What differs, a line for each column, for as many rows of each mapping as were asked for. number: the row''s number in its part and mapping; row_key: the row''s key columns, as an array';
COMMENT ON SEQUENCE redis_migrate.verification_difference_difference_id_seq IS 'Numbers of differences';

CREATE TABLE redis_migrate.verification_met (
    verification_id bigint NOT NULL REFERENCES redis_migrate.verification ON DELETE CASCADE,
    part       integer NOT NULL,
    mapping_id bigint NOT NULL,
    batch_id   bigint GENERATED ALWAYS AS IDENTITY,
    suspects   boolean NOT NULL,
    format     integer NOT NULL,
    hashes     bytea NOT NULL,
    PRIMARY KEY (verification_id, batch_id)
);
ALTER TABLE redis_migrate.verification_met ALTER hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE redis_migrate.verification_met IS
    'While a verification runs: row_hash of the rows that each batch''s keys yield, 16 bytes each, in ascending order. suspects: versions of rows that no key has yielded so far';
COMMENT ON SEQUENCE redis_migrate.verification_met_batch_id_seq IS 'Numbers of batches of met rows';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['verification', 'verification_part', 'verification_count', 'verification_difference', 'verification_met',
                                    'verification_verification_id_seq', 'verification_difference_difference_id_seq',
                                    'verification_met_batch_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE PROCEDURE redis_migrate.verify(migration text, sample double precision DEFAULT NULL, mapping text DEFAULT NULL,
        source text DEFAULT NULL, max_differences integer DEFAULT 100, workers integer DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_verify';
COMMENT ON PROCEDURE redis_migrate.verify(text, double precision, text, text, integer, integer) IS
    'Compares what Redis has with the rows of a migration, and the rows with what Redis has. It changes neither, and may run beside a run. sample: a share of the keys, between 0 and 1, for a quick look; max_differences: how many rows that differ are kept for each mapping; workers: how many processes read the source side by side, by default a number that suits it. Commits as it goes';

CREATE PROCEDURE redis_migrate.join_verification(verification_id bigint)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_join_verification';
COMMENT ON PROCEDURE redis_migrate.join_verification(bigint) IS
    'Reads parts of a verification that another process leads, one after the other, until none is left that nobody reads. Background workers call it. Commits as it goes';

CREATE VIEW redis_migrate.verifications WITH (security_barrier) AS
    SELECT v.verification_id, v.migration, redis_migrate.shown_owner(v.owner) AS owner, v.source, v.mapping, v.sample,
           CASE WHEN v.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(v.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) v.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) v.updated_at))
                THEN 'interrupted' ELSE v.state END AS state,
           v.started_at, v.finished_at, v.pid, v.keys_estimated, v.keys_read, v.keys_read_again, v.keys_rejected,
           CASE WHEN v.followed THEN v.keys_unwatched END AS keys_unwatched, v.verified, v.reasons, v.sqlstate, CASE WHEN redis_migrate.may_see(v.owner) THEN v.message END AS message
    FROM redis_migrate.verification AS v
    WHERE redis_migrate.may_see(v.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.verifications IS
    'Verifications of the caller''s migrations, or all for members of pg_monitor: whether Redis and the tables are equal, and why not if that is not proved';

CREATE VIEW redis_migrate.verification_parts WITH (security_barrier) AS
    SELECT p.verification_id, v.migration, p.part, p.share, p.done, p.pid, p.updated_at, p.keys_read, p.keys_read_again, p.keys_rejected,
           CASE WHEN v.followed THEN p.keys_unwatched END AS keys_unwatched, p.readers, p.sqlstate, CASE WHEN redis_migrate.may_see(v.owner) THEN p.message END AS message
    FROM redis_migrate.verification_part AS p JOIN redis_migrate.verification AS v USING (verification_id)
    WHERE redis_migrate.may_see(v.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.verification_parts IS
    'Parts of verifications that several processes read side by side: the share of the source, the process that reads or last read it, and how many keys. Of the caller''s migrations, or all for members of pg_monitor';

CREATE VIEW redis_migrate.verification_counts WITH (security_barrier) AS
    SELECT c.verification_id, v.migration, c.mapping,
           pg_catalog.sum(c.equal OPERATOR(pg_catalog.+) c.missing OPERATOR(pg_catalog.+) c.different OPERATOR(pg_catalog.+) c.expiry_differs)::bigint AS checked,
           pg_catalog.sum(c.equal)::bigint AS equal, pg_catalog.sum(c.missing)::bigint AS missing, pg_catalog.sum(c.extra)::bigint AS extra,
           pg_catalog.sum(c.different)::bigint AS different, pg_catalog.sum(c.expiry_differs)::bigint AS expiry_differs,
           pg_catalog.sum(c.unsettled)::bigint AS unsettled, pg_catalog.sum(c.not_kept)::bigint AS not_kept
    FROM redis_migrate.verification_count AS c JOIN redis_migrate.verification AS v USING (verification_id)
    WHERE v.state OPERATOR(pg_catalog.=) 'completed' AND (redis_migrate.may_see(v.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE'))
    GROUP BY c.verification_id, v.migration, c.mapping
    ORDER BY c.verification_id, c.mapping COLLATE "C";
COMMENT ON VIEW redis_migrate.verification_counts IS
    'Numbers of rows by mapping: checked = equal + missing + different + expiry_differs. extra: rows of the mapping that no key yields, NULL if they were not looked for. unsettled: keys that changed each time they were read';

CREATE VIEW redis_migrate.verification_differences WITH (security_barrier) AS
    SELECT d.difference_id, d.verification_id, v.migration, d.mapping, d.kind, d.db,
           CASE WHEN m.sees THEN redis_migrate.bytes_as_text(d.key_bytes)
                ELSE pg_catalog.regexp_replace(redis_migrate.bytes_as_text(d.key_bytes), m.letters, 'x', 'g') END AS key,
           CASE WHEN m.sees THEN d.key_bytes END AS key_bytes,
           CASE WHEN m.sees THEN d.row_key ELSE pg_catalog.regexp_replace(d.row_key, m.letters, 'x', 'g') END AS row_key,
           d.column_name,
           CASE WHEN m.sees THEN d.redis_value ELSE pg_catalog.regexp_replace(d.redis_value, m.letters, 'x', 'g') END AS redis_value,
           CASE WHEN m.sees THEN d.stored_value ELSE pg_catalog.regexp_replace(d.stored_value, m.letters, 'x', 'g') END AS stored_value,
           d.found_at
    FROM redis_migrate.verification_difference AS d JOIN redis_migrate.verification AS v USING (verification_id)
    CROSS JOIN LATERAL (SELECT redis_migrate.may_see(v.owner) AS sees, '[^[:punct:][:space:]]' AS letters) AS m
    WHERE m.sees OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.verification_differences IS
    'Differences that verifications of the caller''s migrations found, a line for each column. Members of pg_monitor see letters and digits masked. Of a long value, the part is shown where the values begin to differ';
