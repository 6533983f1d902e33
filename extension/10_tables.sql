-- Tables. They are named in the singular and belong to the extension's owner; the views of
-- 50_views.sql, in the plural, show each owner of a migration what is theirs.

CREATE FUNCTION redis_migrate.index_key(name bytea) RETURNS bytea
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_index_key';
COMMENT ON FUNCTION redis_migrate.index_key(bytea) IS
    'The index key of a name of any length: the name itself up to 256 bytes, otherwise its first 256 bytes and the SHA-256 of the whole';

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
    'Named jobs: a server or a file, a source and mappings. changed_at moves with every change of the definition, altered_at not if a mapping was added or dropped that shares no keys with others; journal: runs and live sync keep the earlier images of rows';

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
    'How the keys of a pattern become rows of a table, with the session settings under which the query was defined. target_relation and target_owner are the target and whose it was when the owner last accepted it, trusted_roles the other roles whose SQL may run with the owner''s rights. ledger_mark is row_hash(mapping_id) by the secret with which the entries of its ledger were made; NULL until a run has made sure that they fit the ledger. ledger_keys are the types of the key columns of which the entries of a packed ledger are hashes, as far as these depend on them, and the labels of enums';
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
    'Conditions on the output rows of a mapping''s query; a row for which a condition is not true is rejected under its name';

CREATE TABLE redis_migrate.skip_pattern (
    migration text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    pattern   text NOT NULL,
    PRIMARY KEY (migration, pattern)
);
COMMENT ON TABLE redis_migrate.skip_pattern IS 'Patterns whose keys are not to be migrated';

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
    'Executions of migrations. (level, position) is the checkpoint, written in the transaction that writes the rows; if a level is read in parts, run_part has one for each. The rate shown is that since active_time was window_began, when window_read keys had been read; (next_began, next_read) is the next such point, and takes its place when it is 30 seconds old';
COMMENT ON SEQUENCE redis_migrate.run_run_id_seq IS 'Numbers of runs';

CREATE UNLOGGED TABLE redis_migrate.unlogged_mark (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    mark    uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
COMMENT ON TABLE redis_migrate.unlogged_mark IS
    'A random number, drawn when a run begins and the table is empty. PostgreSQL empties the table with all unlogged tables, so a run with another number began before that';

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
    'Parts of a level that several processes read side by side, each with its own checkpoint. share: the slots of a master of a cluster, a range of the cursors of a server, or a share of the names';

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
    'Keys per outcome, reason, pattern (NULL: unmapped) and part of the level (0: not read in parts); the outcome read counts the names that the source returned';

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
COMMENT ON TABLE redis_migrate.mapping_count IS 'Rows per mapping by outcome. changed_here, deleted_here: how many of those that were changed or deleted, and of those that were inserted, somebody else had changed or deleted since they were stored; known with a packed ledger, once its news is merged. expired, unclear: with an on_expire, rows that left because their keys had expired, and those of which it is not known. prune: whether rows without a key were removed, prune_detail: why not; claims_unchanged: rows that are as Redis has them become the mapping''s, because its ledger was empty when the run began';

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
COMMENT ON TABLE redis_migrate.reject IS 'Rejected keys, with the reason and the payload, so that nothing is lost. settled_at: when a live run has stored a newer value of the key, or the key was gone';
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
    'Keys that a foreign key refused, or whose row belongs to a lower key; they are tried again at the end of their level';

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
    'Keys without a mapping, as DUMP payloads: they can be mapped later or restored into a Redis. payload is NULL where it is kept in chunks';

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
    'Payloads of archived keys that are larger than 1 MB, in chunks of 1 MB counted from 0';

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
    'The full ledger: which key each target row came from, of mappings of which two keys could yield the same row. row_hash and key_hash are the first 8 bytes of redis_migrate.row_hash of (mapping_id, row_key) and of (mapping_id, db, key_bytes)';

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
    'The packed ledger''s news and the journal of inserts, a row for each batch. Ascending by row_hash, inserted has row_hash and row_image of rows that were inserted (24 bytes each), changed of those that were there, and their row_image before (32 bytes), removed the row_hash of rows that are the mapping''s no more (16 bytes). takes_changed: changed ones became the mapping''s; in_journal: the inserted ones are in the table journal, too. columns stands for those that row_image is of. The end of a run merges it into ledger_segment; it is deleted after pg_redis_migrate.journal_retention';
COMMENT ON SEQUENCE redis_migrate.ledger_batch_batch_id_seq IS 'Order of batches of the packed ledger';

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
    'The packed ledger: row_hash of each row that is the mapping''s, in ascending order, each with the row_image as which it was stored, 24 bytes together and at most 2000 in a row. A row_image of 0 is unknown';

CREATE TABLE redis_migrate.ledger_secret (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    secret  bytea NOT NULL CHECK (pg_catalog.octet_length(secret) OPERATOR(pg_catalog.=) 16)
);
COMMENT ON TABLE redis_migrate.ledger_secret IS
    'The key of row_hash, of row_image and of the hashes in ledger: drawn with the first mapping that has a ledger, and dumped with them, so that nobody can make up two keys of one hash';

CREATE TABLE redis_migrate.page_key (
    run_id    bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    part      integer NOT NULL,
    db        integer NOT NULL,
    key_bytes bytea NOT NULL
);
ALTER TABLE redis_migrate.page_key REPLICA IDENTITY FULL;
CREATE INDEX page_key_run ON redis_migrate.page_key (run_id, part);
COMMENT ON TABLE redis_migrate.page_key IS
    'Keys that were stored although the position of the run does not cover them yet, so that a resumed run does not count them again';

CREATE TABLE redis_migrate.seen_row (
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    mapping_id bigint NOT NULL,
    row_key    text NOT NULL,
    lost       boolean NOT NULL
);
ALTER TABLE redis_migrate.seen_row REPLICA IDENTITY FULL;
CREATE INDEX seen_row_run ON redis_migrate.seen_row (run_id, mapping_id);
COMMENT ON TABLE redis_migrate.seen_row IS
    'Rows that a run with prune => true has met; emptied when the run ends. A row that is missing here was not in Redis. lost: met by a key that does not own the row';

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
    'As seen_row, of mappings with a packed ledger: row_hash of the rows that each batch met, 16 bytes each in ascending order';
COMMENT ON SEQUENCE redis_migrate.seen_batch_batch_id_seq IS 'Numbers of batches of rows met';

CREATE FUNCTION redis_migrate.row_hash(VARIADIC key "any") RETURNS bytea
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_row_hash';
COMMENT ON FUNCTION redis_migrate.row_hash("any") IS
    'The hash by which a packed ledger knows a row, of its key columns in the order of the mapping''s key_columns. Raises 55000 before the secret is drawn';

CREATE FUNCTION redis_migrate.row_image(columns record) RETURNS bigint
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_row_image';
COMMENT ON FUNCTION redis_migrate.row_image(record) IS
    'The image by which a packed ledger tells whether a row still is as it was stored: a hash of the other columns that the mapping fills. Raises 55000 before the secret is drawn';

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
