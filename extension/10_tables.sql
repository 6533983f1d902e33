-- Tables. They are named in the singular and belong to the extension's owner; the views of
-- 50_views.sql, in the plural, show each owner of a migration what is theirs.

CREATE FUNCTION redis_migrate.index_key(name bytea) RETURNS bytea
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_index_key';
COMMENT ON FUNCTION redis_migrate.index_key(bytea) IS
    'The index key of a name of any length: the name itself up to 256 bytes, otherwise its first 256 bytes and the SHA-256 of the whole name';

CREATE TABLE redis_migrate.migration (
    migration   text PRIMARY KEY CHECK (migration OPERATOR(pg_catalog.<>) ''),
    owner       redis_migrate.owner_role NOT NULL,
    server      name,
    file        text,
    source      text NOT NULL CHECK (source OPERATOR(pg_catalog.=) ANY (ARRAY['scan', 'rdb', 'replication', 'archive'])),
    unmapped    text NOT NULL CHECK (unmapped OPERATOR(pg_catalog.=) ANY (ARRAY['archive', 'reject'])),
    databases   integer[],
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    altered_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    journal     boolean NOT NULL DEFAULT true,
    CHECK (server IS NOT NULL OR file IS NOT NULL)
);
COMMENT ON TABLE redis_migrate.migration IS
    'Migrations: a server or a file, a source, and mappings. changed_at: the last change of the definition. altered_at: the same, but it ignores added and dropped mappings that share no keys with others. journal: runs and live sync keep the earlier images of rows';

CREATE TABLE redis_migrate.mapping (
    mapping_id    bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    migration     text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    mapping       text NOT NULL CHECK (mapping OPERATOR(pg_catalog.<>) ''),
    pattern       text NOT NULL,
    target        text NOT NULL,
    target_relation oid NOT NULL,
    target_owner  redis_migrate.owner_role NOT NULL,
    trusted_roles redis_migrate.owner_role[] NOT NULL,
    query         text NOT NULL,
    key_columns   text[] NOT NULL,
    priority      text NOT NULL,
    on_conflict   text NOT NULL,
    on_delete     text NOT NULL,
    on_expire     text,
    on_flush      text NOT NULL DEFAULT 'pause' CHECK (on_flush OPERATOR(pg_catalog.=) ANY (ARRAY['pause', 'delete'])),
    mode          text NOT NULL,
    no_row        text NOT NULL,
    atomic        text NOT NULL,
    expand        text,
    types         text[],
    databases     integer[],
    depends_on    text[],
    exclusive     boolean NOT NULL,
    ledger        text NOT NULL CHECK (ledger OPERATOR(pg_catalog.=) ANY (ARRAY['none', 'packed', 'full'])),
    ledger_reason text NOT NULL,
    ledger_mark   bytea,
    ledger_keys   text[],
    search_path   text NOT NULL,
    timezone      text NOT NULL,
    datestyle     text NOT NULL,
    intervalstyle text NOT NULL,
    PRIMARY KEY (migration, mapping)
);
COMMENT ON TABLE redis_migrate.mapping IS
    'How the keys of a pattern become rows of a table, with the session settings under which the query was defined. target_relation, target_owner: the target and its owner when the mapping''s owner last accepted them; trusted_roles: other roles whose SQL may run with the owner''s rights. ledger_mark: row_hash(mapping_id) under the secret of the ledger''s entries; NULL until a run has checked that the secret fits the ledger. ledger_keys: the types of the key columns, as far as the hashes in a packed ledger depend on them, and the labels of enums';
COMMENT ON SEQUENCE redis_migrate.mapping_mapping_id_seq IS 'Numbers of mappings';

CREATE TABLE redis_migrate.mapping_check (
    migration  text NOT NULL,
    mapping    text NOT NULL,
    check_name text NOT NULL CHECK (check_name OPERATOR(pg_catalog.<>) ''),
    condition  text NOT NULL,
    PRIMARY KEY (migration, mapping, check_name),
    FOREIGN KEY (migration, mapping) REFERENCES redis_migrate.mapping ON DELETE CASCADE ON UPDATE CASCADE
);
COMMENT ON TABLE redis_migrate.mapping_check IS
    'Conditions on the rows that a mapping''s query yields. If a condition is not true, the key is rejected under the name of the check';

CREATE TABLE redis_migrate.skip_pattern (
    migration text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    pattern   text NOT NULL,
    PRIMARY KEY (migration, pattern)
);
COMMENT ON TABLE redis_migrate.skip_pattern IS 'Patterns whose keys are not migrated';

CREATE TABLE redis_migrate.run (
    run_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration      text NOT NULL,
    owner          redis_migrate.owner_role NOT NULL,
    source         text NOT NULL,
    dry_run        boolean NOT NULL,
    priority       text,
    mapping        text,
    on_error       text NOT NULL,
    prune          boolean NOT NULL,
    force          boolean NOT NULL,
    live           boolean NOT NULL DEFAULT false,
    state          text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=)
                       ANY (ARRAY['running', 'completed', 'stopped', 'failed', 'unbalanced', 'superseded'])),
    started_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at    timestamptz,
    pid            integer,
    active_time    interval NOT NULL DEFAULT '0',
    window_began   interval NOT NULL DEFAULT '0',
    window_read    bigint NOT NULL DEFAULT 0,
    next_began     interval NOT NULL DEFAULT '0',
    next_read      bigint NOT NULL DEFAULT 0,
    level          integer NOT NULL DEFAULT 0,
    position       text NOT NULL DEFAULT '',
    keys_estimated bigint,
    bytes_read     bigint NOT NULL DEFAULT 0,
    batches        bigint NOT NULL DEFAULT 0,
    restarts       integer NOT NULL DEFAULT 0,
    evicted        bigint,
    sqlstate       text,
    message        text,
    unlogged_mark  uuid
) WITH (fillfactor = 50);
CREATE INDEX run_migration ON redis_migrate.run (migration, run_id);
COMMENT ON TABLE redis_migrate.run IS
    'Executions of migrations. (level, position) is the checkpoint; the transaction that writes rows also writes it. If a level is read in parts, run_part has a checkpoint for each. The shown rate begins at active_time window_began, when window_read keys had been read. (next_began, next_read) is the next such point, and replaces this one once it is 30 seconds old. unlogged_mark: the number in the table of that name when what the run had stored was last known to be there';
COMMENT ON SEQUENCE redis_migrate.run_run_id_seq IS 'Numbers of runs';

CREATE UNLOGGED TABLE redis_migrate.unlogged_mark (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    mark    uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
COMMENT ON TABLE redis_migrate.unlogged_mark IS
    'A random number that a run draws if the table is empty. PostgreSQL empties the table whenever it empties unlogged tables, so a run that noted another number began before that';

CREATE TABLE redis_migrate.run_part (
    run_id         bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    level          integer NOT NULL,
    part           integer NOT NULL CHECK (part OPERATOR(pg_catalog.>) 0),
    share          text NOT NULL,
    position       text NOT NULL DEFAULT '',
    done           boolean NOT NULL DEFAULT false,
    pid            integer,
    updated_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    bytes_read     bigint NOT NULL DEFAULT 0,
    batches        bigint NOT NULL DEFAULT 0,
    repeated_slots bigint NOT NULL DEFAULT 0,
    readers        integer NOT NULL DEFAULT 1,
    sqlstate       text,
    message        text,
    PRIMARY KEY (run_id, level, part)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.run_part IS
    'Parts of a level that several processes read side by side, each with its own checkpoint. share: the slots of a cluster''s master, a range of a server''s cursors, or a share of the names';

CREATE TABLE redis_migrate.run_count (
    run_id  bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    level   integer NOT NULL,
    part    integer NOT NULL,
    pattern text,
    outcome text NOT NULL,
    reason  text,
    keys    bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (run_id, level, part, pattern, outcome, reason)
) WITH (fillfactor = 50);
ALTER TABLE redis_migrate.run_count REPLICA IDENTITY FULL;
COMMENT ON TABLE redis_migrate.run_count IS
    'Numbers of keys by outcome, reason, pattern (NULL: unmapped) and part of the level (0: the level is not read in parts). The outcome read counts the names that the source returned';

CREATE TABLE redis_migrate.mapping_count (
    run_id    bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    part      integer NOT NULL,
    mapping   text NOT NULL,
    inserted  bigint NOT NULL DEFAULT 0,
    updated   bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    folded    bigint NOT NULL DEFAULT 0,
    deleted   bigint NOT NULL DEFAULT 0,
    changed_here bigint NOT NULL DEFAULT 0,
    deleted_here bigint NOT NULL DEFAULT 0,
    expired   bigint NOT NULL DEFAULT 0,
    unclear   bigint NOT NULL DEFAULT 0,
    claims_unchanged boolean NOT NULL DEFAULT false,
    prune     text CHECK (prune OPERATOR(pg_catalog.=) ANY (ARRAY['pruned', 'kept', 'refused'])),
    prune_detail text,
    PRIMARY KEY (run_id, part, mapping)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.mapping_count IS
    'Numbers of rows by mapping and outcome. changed_here: how many of the changed or deleted rows somebody else had changed since they were stored; deleted_here: how many of the inserted rows somebody else had deleted. A packed ledger knows both once it is merged. expired, unclear: for a mapping with on_expire, rows that left because their keys had expired, and rows for which that is unknown. prune: whether rows without a key were removed; prune_detail: if not, why, or which rows stayed. claims_unchanged: the ledger was empty when the run began, so rows that are as Redis has them become the mapping''s';

CREATE TABLE redis_migrate.reject (
    reject_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    level      integer NOT NULL,
    part       integer NOT NULL,
    db         integer NOT NULL,
    key_bytes  bytea NOT NULL,
    type       text,
    pattern    text,
    mapping    text,
    rule       text NOT NULL,
    sqlstate   text,
    message    text NOT NULL,
    partial    boolean NOT NULL DEFAULT false,
    payload    bytea,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    settled_at timestamptz
);
CREATE INDEX reject_run ON redis_migrate.reject (run_id, level);
CREATE INDEX reject_key ON redis_migrate.reject USING hash (key_bytes);
CREATE INDEX reject_settled ON redis_migrate.reject (settled_at) WHERE settled_at IS NOT NULL;
COMMENT ON TABLE redis_migrate.reject IS
    'Rejected keys, with the reason and the payload, so that nothing is lost. settled_at: when a live run stored a newer value of the key, or found the key gone';
COMMENT ON SEQUENCE redis_migrate.reject_reject_id_seq IS 'Numbers of rejects';

CREATE TABLE redis_migrate.deferred (
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    level      integer NOT NULL,
    part       integer NOT NULL,
    db         integer NOT NULL,
    index_key  bytea NOT NULL,
    key_bytes  bytea NOT NULL,
    payload    bytea NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (run_id, level, db, index_key)
);
COMMENT ON TABLE redis_migrate.deferred IS
    'Keys that a foreign key refused, or whose row belongs to a lower key. They are tried again at the end of their level';

CREATE TABLE redis_migrate.archived_key (
    migration  text NOT NULL,
    db         integer NOT NULL,
    index_key  bytea NOT NULL,
    key_bytes  bytea NOT NULL,
    type       text NOT NULL,
    payload    bytea,
    payload_size bigint NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (migration, db, index_key)
);
ALTER TABLE redis_migrate.archived_key ALTER payload SET STORAGE EXTERNAL;
COMMENT ON TABLE redis_migrate.archived_key IS
    'Keys without a mapping, as DUMP payloads. They can be mapped later, or restored into a Redis. payload is NULL if it is kept in chunks';

CREATE TABLE redis_migrate.archive_chunk (
    migration text NOT NULL,
    db        integer NOT NULL,
    index_key bytea NOT NULL,
    chunk_no  integer NOT NULL,
    bytes     bytea NOT NULL,
    PRIMARY KEY (migration, db, index_key, chunk_no),
    FOREIGN KEY (migration, db, index_key) REFERENCES redis_migrate.archived_key ON DELETE CASCADE
);
ALTER TABLE redis_migrate.archive_chunk ALTER bytes SET STORAGE EXTERNAL;
COMMENT ON TABLE redis_migrate.archive_chunk IS
    'Payloads of archived keys that are larger than 1 MB, in chunks of 1 MB that are counted from 0';

CREATE TABLE redis_migrate.ledger (
    mapping_id bigint NOT NULL,
    row_hash   bigint NOT NULL,
    key_hash   bigint NOT NULL,
    db         integer NOT NULL,
    row_key    text NOT NULL,
    key_bytes  bytea NOT NULL
);
ALTER TABLE redis_migrate.ledger REPLICA IDENTITY FULL;
-- Names are of any length, and wide entries are what an index costs: it holds hashes, and names are compared in the row.
CREATE INDEX ledger_row ON redis_migrate.ledger (row_hash);
CREATE INDEX ledger_key ON redis_migrate.ledger (key_hash);
COMMENT ON TABLE redis_migrate.ledger IS
    'The full ledger, for mappings of which two keys could yield the same row: the key that each row came from. row_hash and key_hash are the first 8 bytes of redis_migrate.row_hash of (mapping_id, row_key) and of (mapping_id, db, key_bytes)';

CREATE TABLE redis_migrate.ledger_batch (
    mapping_id    bigint NOT NULL,
    batch_id      bigint GENERATED ALWAYS AS IDENTITY,
    run_id        bigint,
    appended_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    merged        boolean NOT NULL DEFAULT false,
    format        integer NOT NULL,
    columns       bigint NOT NULL,
    takes_changed boolean NOT NULL,
    in_journal    boolean NOT NULL DEFAULT false,
    inserted      bytea NOT NULL,
    changed       bytea NOT NULL,
    removed       bytea NOT NULL,
    PRIMARY KEY (mapping_id, batch_id)
);
CREATE INDEX ledger_batch_new ON redis_migrate.ledger_batch (mapping_id, batch_id) WHERE NOT merged;
CREATE INDEX ledger_batch_appended ON redis_migrate.ledger_batch (appended_at);
ALTER TABLE redis_migrate.ledger_batch ALTER inserted SET STORAGE EXTERNAL, ALTER changed SET STORAGE EXTERNAL,
    ALTER removed SET STORAGE EXTERNAL;
COMMENT ON TABLE redis_migrate.ledger_batch IS
    'News for the packed ledger, which is also the journal of inserts: a row for each batch. All lists ascend by row_hash. inserted: row_hash and row_image of inserted rows, 24 bytes each. changed: the same of rows that existed, and their earlier row_image, 32 bytes each. removed: row_hash of rows that are no longer the mapping''s, 16 bytes each. takes_changed: the changed rows became the mapping''s. in_journal: the table journal has the inserted rows, too. columns stands for the columns that row_image covers. The end of a run merges the batches into ledger_segment; they are deleted after pg_redis_migrate.journal_retention';
COMMENT ON SEQUENCE redis_migrate.ledger_batch_batch_id_seq IS 'Order of the packed ledger''s batches';

CREATE TABLE redis_migrate.ledger_segment (
    mapping_id bigint NOT NULL,
    first_hash bytea NOT NULL,
    format     integer NOT NULL,
    columns    bigint NOT NULL,
    entries    bytea NOT NULL,
    PRIMARY KEY (mapping_id, first_hash)
);
ALTER TABLE redis_migrate.ledger_segment ALTER entries SET STORAGE EXTERNAL;
COMMENT ON TABLE redis_migrate.ledger_segment IS
    'The packed ledger: row_hash of each row that is the mapping''s, in ascending order, and the row_image that was stored, 24 bytes together, at most 2000 rows in a segment. A row_image of 0 is unknown';

CREATE TABLE redis_migrate.ledger_secret (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    secret  bytea NOT NULL CHECK (pg_catalog.octet_length(secret) OPERATOR(pg_catalog.=) 16)
);
COMMENT ON TABLE redis_migrate.ledger_secret IS
    'The secret key of row_hash, row_image and the hashes in ledger, so that nobody can make up two keys with the same hash. The first mapping with a ledger draws it. A dump contains it, because the ledgers need it';

CREATE TABLE redis_migrate.page_key (
    run_id    bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    part      integer NOT NULL,
    db        integer NOT NULL,
    key_bytes bytea NOT NULL
);
ALTER TABLE redis_migrate.page_key REPLICA IDENTITY FULL;
CREATE INDEX page_key_run ON redis_migrate.page_key (run_id, part);
COMMENT ON TABLE redis_migrate.page_key IS
    'Keys that were stored, although the position of the run does not cover them yet. A resumed run does not count them again';

CREATE TABLE redis_migrate.seen_row (
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    mapping_id bigint NOT NULL,
    row_key    text NOT NULL,
    lost       boolean NOT NULL
);
ALTER TABLE redis_migrate.seen_row REPLICA IDENTITY FULL;
CREATE INDEX seen_row_run ON redis_migrate.seen_row (run_id, mapping_id);
COMMENT ON TABLE redis_migrate.seen_row IS
    'Rows that a run with prune => true has met; emptied when the run ends. Rows that are missing here were not in Redis. lost: a key that does not own the row met it';

CREATE TABLE redis_migrate.seen_batch (
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    mapping_id bigint NOT NULL,
    batch_id   bigint GENERATED ALWAYS AS IDENTITY,
    format     integer NOT NULL,
    hashes     bytea NOT NULL,
    PRIMARY KEY (run_id, batch_id)
);
ALTER TABLE redis_migrate.seen_batch ALTER hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE redis_migrate.seen_batch IS
    'Like seen_row, for mappings with a packed ledger: row_hash of the rows that each batch met, 16 bytes each, in ascending order';
COMMENT ON SEQUENCE redis_migrate.seen_batch_batch_id_seq IS 'Numbers of batches of met rows';

CREATE FUNCTION redis_migrate.row_hash(VARIADIC key "any") RETURNS bytea
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_row_hash';
COMMENT ON FUNCTION redis_migrate.row_hash("any") IS
    'The hash by which a packed ledger knows a row. The arguments are the row''s key columns, in the order of the mapping''s key_columns. Raises 55000 before the secret is drawn';

CREATE FUNCTION redis_migrate.row_image(columns record) RETURNS bigint
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_row_image';
COMMENT ON FUNCTION redis_migrate.row_image(record) IS
    'A hash of the other columns that the mapping fills. It shows a packed ledger whether a row still is as it was stored. Raises 55000 before the secret is drawn';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['migration', 'mapping', 'mapping_check', 'skip_pattern', 'unlogged_mark', 'run', 'run_part', 'run_count',
                                    'mapping_count', 'reject', 'deferred', 'archived_key', 'archive_chunk', 'ledger',
                                    'ledger_batch', 'ledger_segment', 'ledger_secret', 'seen_row', 'seen_batch', 'page_key',
                                    'mapping_mapping_id_seq', 'run_run_id_seq', 'reject_reject_id_seq', 'ledger_batch_batch_id_seq', 'seen_batch_batch_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;
