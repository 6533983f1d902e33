\echo Use "CREATE EXTENSION pg_redis_migrate" to load this file. \quit

-- Whose schema it is, before anything is created in it. pg_restore makes an empty one first, as a superuser; anything
-- else that was there before could shadow what follows, and so could what others may add later.

DO $$
DECLARE
    owner      pg_catalog.name;
    is_trusted pg_catalog.bool;
    culprit    pg_catalog.text;
BEGIN
    SELECT r.rolname, r.rolsuper INTO STRICT owner, is_trusted
    FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
    WHERE n.nspname OPERATOR(pg_catalog.=) 'redis_migrate';
    IF NOT is_trusted THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'schema redis_migrate belongs to a role that is not a superuser',
            DETAIL = pg_catalog.format('Its owner is %I, who could put functions in front of those of the extension.', owner),
            HINT = 'DROP SCHEMA redis_migrate, or ALTER SCHEMA redis_migrate RENAME TO ...: CREATE EXTENSION makes its own.';
    END IF;
    SELECT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END
    INTO culprit
    FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.grantee
    WHERE n.nspname OPERATOR(pg_catalog.=) 'redis_migrate' AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
          AND r.rolsuper IS NOT TRUE
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'others may create objects in schema redis_migrate',
            DETAIL = pg_catalog.concat('CREATE on it is granted to ', culprit, '.'),
            HINT = pg_catalog.concat('REVOKE CREATE ON SCHEMA redis_migrate FROM ', culprit, ';');
    END IF;
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) INTO culprit
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) d.refobjid
    WHERE n.nspname OPERATOR(pg_catalog.=) 'redis_migrate' AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
          AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_schema',
            MESSAGE = 'schema redis_migrate exists and is not empty',
            DETAIL = pg_catalog.concat('There is ', culprit, ' in it, for example.'),
            HINT = 'DROP SCHEMA redis_migrate CASCADE, or ALTER SCHEMA redis_migrate RENAME TO ...: CREATE EXTENSION makes its own.';
    END IF;
END
$$;
-- Who owns definitions. A role is stored with its name and with the database and installation in which its OID means
-- it, so that a dump never makes another role the owner, and never fails for want of one.

DO $$
BEGIN
    EXECUTE pg_catalog.format('CREATE FUNCTION redis_migrate.installation() RETURNS pg_catalog.uuid
        LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS %L',
        pg_catalog.format('SELECT %L::pg_catalog.uuid', pg_catalog.gen_random_uuid()));
END
$$;
COMMENT ON FUNCTION redis_migrate.installation() IS
    'Tells what CREATE EXTENSION made here from what it made elsewhere: pg_dump leaves the number behind, pg_upgrade takes it along';

CREATE TABLE redis_migrate.definition_owners ();
ALTER TABLE redis_migrate.definition_owners REPLICA IDENTITY FULL;
COMMENT ON TABLE redis_migrate.definition_owners IS
    'Always empty. SELECT on a column is granted to each role that owns a definition, so that DROP ROLE is refused, and revoked with its last one';
DO $$
BEGIN
    EXECUTE (SELECT pg_catalog.concat('ALTER TABLE redis_migrate.definition_owners ',
                 pg_catalog.string_agg(pg_catalog.format('ADD owner_%s boolean', n), ', ' ORDER BY n))
             FROM pg_catalog.generate_series(1, 256) AS n);
END
$$;

CREATE TYPE redis_migrate.owner_role;
CREATE FUNCTION redis_migrate.owner_role_in(cstring) RETURNS redis_migrate.owner_role
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_role_in';
COMMENT ON FUNCTION redis_migrate.owner_role_in(cstring) IS 'Input of owner_role';
CREATE FUNCTION redis_migrate.owner_role_out(redis_migrate.owner_role) RETURNS cstring
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_role_out';
COMMENT ON FUNCTION redis_migrate.owner_role_out(redis_migrate.owner_role) IS
    'Output of owner_role: name/role/database/installation, with the name that the role has now';
CREATE TYPE redis_migrate.owner_role (
    INPUT = redis_migrate.owner_role_in, OUTPUT = redis_migrate.owner_role_out, INTERNALLENGTH = VARIABLE, ALIGNMENT = int4,
    STORAGE = main);

CREATE FUNCTION redis_migrate.stamp_owner(role oid) RETURNS redis_migrate.owner_role
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_stamp_owner';
COMMENT ON FUNCTION redis_migrate.stamp_owner(oid) IS 'A role as an owner in this database';

CREATE FUNCTION redis_migrate.stamped_role(owner redis_migrate.owner_role) RETURNS oid
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_stamped_role';
COMMENT ON FUNCTION redis_migrate.stamped_role(redis_migrate.owner_role) IS
    'The OID that was stored, whether it means anything here or not; for indexes';

CREATE FUNCTION redis_migrate.owner_oid(owner redis_migrate.owner_role) RETURNS oid
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_oid';
COMMENT ON FUNCTION redis_migrate.owner_oid(redis_migrate.owner_role) IS
    'Who owns a definition; NULL where the role does not exist or has no grant on definition_owners';

CREATE FUNCTION redis_migrate.acting_role(owner redis_migrate.owner_role) RETURNS oid
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_acting_role';
COMMENT ON FUNCTION redis_migrate.acting_role(redis_migrate.owner_role) IS
    'As whom a definition is run by itself: its owner, and nobody before resume_restored';

CREATE FUNCTION redis_migrate.shown_owner(owner redis_migrate.owner_role) RETURNS regrole
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_shown_owner';
COMMENT ON FUNCTION redis_migrate.shown_owner(redis_migrate.owner_role) IS
    'The owner as views show it: also the role that owned a record whose definition is gone';

CREATE FUNCTION redis_migrate.may_see(owner redis_migrate.owner_role) RETURNS boolean
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_may_see';
COMMENT ON FUNCTION redis_migrate.may_see(redis_migrate.owner_role) IS
    'Whether the caller has the privileges of that owner; superusers see what is nobody''s as well';

CREATE FUNCTION redis_migrate.is_restored(owner redis_migrate.owner_role) RETURNS boolean
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_is_restored';
COMMENT ON FUNCTION redis_migrate.is_restored(redis_migrate.owner_role) IS
    'Whether it was stored elsewhere: it came by a dump, or this database is a copy';

CREATE FUNCTION redis_migrate.owner_name(owner redis_migrate.owner_role) RETURNS text
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_name';
COMMENT ON FUNCTION redis_migrate.owner_name(redis_migrate.owner_role) IS 'The name of an owner, also of one that does not exist here';

CREATE FUNCTION redis_migrate.owner_problem(owner redis_migrate.owner_role) RETURNS text
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_owner_problem';
COMMENT ON FUNCTION redis_migrate.owner_problem(redis_migrate.owner_role) IS 'Why a definition has no owner; NULL where it has one';

CREATE FUNCTION redis_migrate.release_owner() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_release_owner';
COMMENT ON FUNCTION redis_migrate.release_owner() IS
    'Trigger of tables of definitions: revokes the grant of a role that owns no definition any more';
-- Tables. They are named in the singular and belong to the extension's owner; the views of
-- 50_views.sql, in the plural, show each owner of a migration what is theirs.

CREATE FUNCTION redis_migrate.index_key(name bytea) RETURNS bytea
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_index_key';
COMMENT ON FUNCTION redis_migrate.index_key(bytea) IS
    'A name as indexes hold it, whatever its length: itself up to 256 bytes, of a longer one the first 256 and the SHA-256 of all';

CREATE FUNCTION redis_migrate.index_key(name text) RETURNS bytea
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_index_key';
COMMENT ON FUNCTION redis_migrate.index_key(text) IS 'The same of the bytes of a text';

CREATE TABLE redis_migrate.migration (
    migration   text PRIMARY KEY CHECK (migration OPERATOR(pg_catalog.<>) ''),
    owner       redis_migrate.owner_role NOT NULL,
    server      name,
    file        text,
    source      text NOT NULL CHECK (source OPERATOR(pg_catalog.=) ANY (ARRAY['scan', 'rdb', 'archive'])),
    unmapped    text NOT NULL CHECK (unmapped OPERATOR(pg_catalog.=) ANY (ARRAY['archive', 'reject'])),
    databases   integer[],
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CHECK (server IS NOT NULL OR file IS NOT NULL)
);
COMMENT ON TABLE redis_migrate.migration IS
    'Named jobs: a server or a file, a source and mappings. changed_at moves with every change of the definition';

CREATE TABLE redis_migrate.mapping (
    mapping_id    bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    migration     text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    mapping       text NOT NULL CHECK (mapping OPERATOR(pg_catalog.<>) ''),
    pattern       text NOT NULL,
    target        text NOT NULL,
    query         text NOT NULL,
    key_columns   text[] NOT NULL,
    priority      text NOT NULL,
    on_conflict   text NOT NULL,
    on_delete     text NOT NULL,
    mode          text NOT NULL,
    no_row        text NOT NULL,
    atomic        text NOT NULL,
    expand        text,
    types         text[],
    databases     integer[],
    depends_on    text[],
    exclusive     boolean NOT NULL,
    ledger        boolean NOT NULL,
    search_path   text NOT NULL,
    timezone      text NOT NULL,
    datestyle     text NOT NULL,
    intervalstyle text NOT NULL,
    PRIMARY KEY (migration, mapping)
);
COMMENT ON TABLE redis_migrate.mapping IS
    'How the keys of a pattern become rows of a table, with the session settings under which the query was defined';
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
    'Conditions over the output rows of a mapping''s query; a row for which one is not true is rejected by its name';

CREATE TABLE redis_migrate.skip_pattern (
    migration text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    pattern   text NOT NULL,
    PRIMARY KEY (migration, pattern)
);
COMMENT ON TABLE redis_migrate.skip_pattern IS 'Patterns whose keys are declared not to be migrated';

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
    state          text NOT NULL DEFAULT 'running' CHECK (state OPERATOR(pg_catalog.=)
                       ANY (ARRAY['running', 'completed', 'stopped', 'failed', 'unbalanced', 'superseded'])),
    started_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at    timestamptz,
    pid            integer,
    active_time    interval NOT NULL DEFAULT '0',
    level          integer NOT NULL DEFAULT 0,
    position       text NOT NULL DEFAULT '',
    keys_estimated bigint,
    bytes_read     bigint NOT NULL DEFAULT 0,
    batches        bigint NOT NULL DEFAULT 0,
    restarts       integer NOT NULL DEFAULT 0,
    evicted        bigint,
    sqlstate       text,
    message        text
) WITH (fillfactor = 50);
CREATE INDEX run_migration ON redis_migrate.run (migration, run_id);
COMMENT ON TABLE redis_migrate.run IS
    'Executions of migrations. (level, position) is the checkpoint, written in the transaction that writes the rows; of a level in parts, run_part has one for each';
COMMENT ON SEQUENCE redis_migrate.run_run_id_seq IS 'Numbers of runs';

CREATE TABLE redis_migrate.run_part (
    run_id         bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    level          integer NOT NULL,
    part           integer NOT NULL CHECK (part OPERATOR(pg_catalog.>) 0),
    slots          text NOT NULL,
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
    'Parts of a level that are read side by side, one for each master that a cluster had when the level began: which slots, and a checkpoint of its own';

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
    'Keys per outcome, reason and pattern (NULL: unmapped), and by part of the level, 0 for what is not read in parts; the outcome read counts the names that the source returned';

CREATE TABLE redis_migrate.mapping_count (
    run_id    bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    part      integer NOT NULL,
    mapping   text NOT NULL,
    inserted  bigint NOT NULL DEFAULT 0,
    updated   bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    folded    bigint NOT NULL DEFAULT 0,
    deleted   bigint NOT NULL DEFAULT 0,
    prune     text CHECK (prune OPERATOR(pg_catalog.=) ANY (ARRAY['pruned', 'kept', 'refused'])),
    prune_detail text,
    PRIMARY KEY (run_id, part, mapping)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.mapping_count IS 'Rows per mapping and what became of them; prune: whether rows without a key were removed, prune_detail: why not';

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
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX reject_run ON redis_migrate.reject (run_id, level);
COMMENT ON TABLE redis_migrate.reject IS 'Keys that were refused, why, and their payload, so that nothing is lost';
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
    'Keys that a foreign key refused, or whose row a lower key has, kept until the end of their level, when they are tried again';

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
    mapping_id bigint NOT NULL REFERENCES redis_migrate.mapping (mapping_id) ON DELETE CASCADE,
    row_key    text NOT NULL,
    db         integer NOT NULL,
    key_bytes  bytea NOT NULL
);
ALTER TABLE redis_migrate.ledger REPLICA IDENTITY FULL;
-- mapping_id comes last in both: statistics from before a mapping had rows say that it has none, and then an index
-- that begins with it looks as good as the one that is meant, and all its rows are read for each key.
CREATE UNIQUE INDEX ledger_row ON redis_migrate.ledger (redis_migrate.index_key(row_key), mapping_id);
CREATE INDEX ledger_key ON redis_migrate.ledger (redis_migrate.index_key(key_bytes), db, mapping_id);
COMMENT ON TABLE redis_migrate.ledger IS
    'Which key each target row came from, for mappings that are not exclusive: the right to change or delete the row';

CREATE TABLE redis_migrate.page_key (
    run_id    bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    part      integer NOT NULL,
    db        integer NOT NULL,
    key_bytes bytea NOT NULL
);
ALTER TABLE redis_migrate.page_key REPLICA IDENTITY FULL;
CREATE INDEX page_key_run ON redis_migrate.page_key (run_id, part);
COMMENT ON TABLE redis_migrate.page_key IS
    'Keys that were stored although the position of the run does not cover them yet: going on from it must not count them again';

CREATE TABLE redis_migrate.seen_row (
    run_id     bigint NOT NULL REFERENCES redis_migrate.run ON DELETE CASCADE,
    mapping_id bigint NOT NULL,
    row_key    text NOT NULL,
    lost       boolean NOT NULL
);
ALTER TABLE redis_migrate.seen_row REPLICA IDENTITY FULL;
CREATE INDEX seen_row_run ON redis_migrate.seen_row (run_id, mapping_id);
COMMENT ON TABLE redis_migrate.seen_row IS
    'Rows that a run with prune => true has met; emptied when it ends. What is not here was not in Redis. lost: met by a key that does not own the row';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['migration', 'mapping', 'mapping_check', 'skip_pattern', 'run', 'run_part', 'run_count',
                                    'mapping_count', 'reject', 'deferred', 'archived_key', 'archive_chunk', 'ledger', 'seen_row', 'page_key',
                                    'mapping_mapping_id_seq', 'run_run_id_seq', 'reject_reject_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;
-- Where a Redis is: servers and user mappings of this wrapper. It has no handler: foreign tables are refused.

CREATE FUNCTION redis_migrate.fdw_validator(options text[], catalog oid) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_fdw_validator';
COMMENT ON FUNCTION redis_migrate.fdw_validator(text[], oid) IS 'Checks the options of redis_migrate servers and user mappings';

CREATE FOREIGN DATA WRAPPER redis_migrate VALIDATOR redis_migrate.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER redis_migrate IS
    'Redis servers that migrations read from. Options of a server: host (a path is a unix socket), port, connect_timeout, command_timeout; of a user mapping: username, password, password_file';
-- Definitions: migrations, mappings, checks.

CREATE FUNCTION redis_migrate.create_migration(migration text, server name DEFAULT NULL, source text DEFAULT 'scan',
        unmapped text DEFAULT 'archive', databases integer[] DEFAULT NULL, file text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_create_migration';
COMMENT ON FUNCTION redis_migrate.create_migration(text, name, text, text, integer[], text) IS
    'Creates a migration from a server, or from a dump file on the database server. source: scan, rdb (the file), archive; unmapped: archive, reject; databases: NULL for all that have keys';

CREATE FUNCTION redis_migrate.alter_migration(migration text, server name DEFAULT NULL, source text DEFAULT NULL,
        unmapped text DEFAULT NULL, databases integer[] DEFAULT NULL, file text DEFAULT NULL,
        reset text[] DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_migration';
COMMENT ON FUNCTION redis_migrate.alter_migration(text, name, text, text, integer[], text, text[]) IS
    'Changes a migration; NULL leaves a property as it is, reset names those that become NULL. An interrupted run begins again afterwards';

CREATE FUNCTION redis_migrate.drop_migration(migration text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_migration';
COMMENT ON FUNCTION redis_migrate.drop_migration(text) IS
    'Drops a migration with its mappings, its archive and the history of its runs. Target tables stay';

CREATE FUNCTION redis_migrate.add_mapping(migration text, mapping text, pattern text, target regclass, query text,
        key_columns text[], priority text DEFAULT 'medium', on_conflict text DEFAULT 'update',
        on_delete text DEFAULT 'delete', mode text DEFAULT 'upsert', no_row text DEFAULT 'reject',
        atomic text DEFAULT 'key', expand text DEFAULT NULL, types text[] DEFAULT NULL,
        databases integer[] DEFAULT NULL, depends_on text[] DEFAULT NULL, exclusive boolean DEFAULT false,
        source_timezone text DEFAULT 'UTC') RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_mapping';
COMMENT ON FUNCTION redis_migrate.add_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text) IS
    'Adds a mapping: how the keys of a pattern become rows of a table, by a query over redis_batch. See docs/mappings.md';

CREATE FUNCTION redis_migrate.alter_mapping(migration text, mapping text, pattern text DEFAULT NULL, target regclass DEFAULT NULL,
        query text DEFAULT NULL, key_columns text[] DEFAULT NULL, priority text DEFAULT NULL, on_conflict text DEFAULT NULL,
        on_delete text DEFAULT NULL, mode text DEFAULT NULL, no_row text DEFAULT NULL, atomic text DEFAULT NULL,
        expand text DEFAULT NULL, types text[] DEFAULT NULL, databases integer[] DEFAULT NULL,
        depends_on text[] DEFAULT NULL, exclusive boolean DEFAULT NULL, source_timezone text DEFAULT NULL,
        reset text[] DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_mapping';
COMMENT ON FUNCTION redis_migrate.alter_mapping(text, text, text, regclass, text, text[], text, text, text, text, text, text, text, text[], integer[], text[], boolean, text, text[]) IS
    'Changes a mapping; NULL leaves a property as it is, reset names those that become NULL. Where the query is given, the session''s settings are stored anew';

CREATE FUNCTION redis_migrate.drop_mapping(migration text, mapping text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_mapping';
COMMENT ON FUNCTION redis_migrate.drop_mapping(text, text) IS 'Drops a mapping and its ledger; rows that it stored stay';

CREATE FUNCTION redis_migrate.add_check(migration text, mapping text, check_name text, condition text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_check';
COMMENT ON FUNCTION redis_migrate.add_check(text, text, text, text) IS
    'Adds a condition over the output rows of a mapping''s query: a key with a row for which it is not true is rejected by the check''s name';

CREATE FUNCTION redis_migrate.drop_check(migration text, mapping text, check_name text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_check';
COMMENT ON FUNCTION redis_migrate.drop_check(text, text, text) IS 'Drops a check';

CREATE FUNCTION redis_migrate.skip_keys(migration text, pattern text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_skip_keys';
COMMENT ON FUNCTION redis_migrate.skip_keys(text, text) IS 'Declares that the keys of a pattern are not to be migrated; they are counted as skipped';

CREATE FUNCTION redis_migrate.unskip_keys(migration text, pattern text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_unskip_keys';
COMMENT ON FUNCTION redis_migrate.unskip_keys(text, text) IS 'Takes a declaration of skip_keys back';

CREATE FUNCTION redis_migrate.migration_sql(migration text) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'prm_migration_sql';
COMMENT ON FUNCTION redis_migrate.migration_sql(text) IS 'The calls that recreate a migration, for version control';
-- Do it.

CREATE FUNCTION redis_migrate.preflight(server name)
    RETURNS TABLE (check_name text, status text, detail text, hint text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_preflight';
COMMENT ON FUNCTION redis_migrate.preflight(name) IS
    'Whether a server can be migrated from: reachable, rights, databases, eviction, clocks and so on; status is ok, warn or fail';

CREATE FUNCTION redis_migrate.preview(migration text, mapping text DEFAULT NULL, max_keys integer DEFAULT 100, bytes boolean DEFAULT false)
    RETURNS TABLE (db integer, key text, key_bytes bytea, outcome text, reason text, message text, mapping_name text, target_row jsonb)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_preview';
COMMENT ON FUNCTION redis_migrate.preview(text, text, integer, boolean) IS
    'What would happen to the first keys of the source, with the rows that would be stored; everything is tried and rolled back. Only keys of the mapping count, if one is named. Columns of bytes are left out unless bytes is true; key_bytes is filled where the key is not text';

CREATE PROCEDURE redis_migrate.run(migration text, dry_run boolean DEFAULT false, priority text DEFAULT NULL,
        mapping text DEFAULT NULL, source text DEFAULT NULL, on_error text DEFAULT 'continue',
        prune boolean DEFAULT false, max_keys bigint DEFAULT 10000, force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_run';
COMMENT ON PROCEDURE redis_migrate.run(text, boolean, text, text, text, text, boolean, bigint, boolean) IS
    'Runs a migration, or goes on with an interrupted run. Commits after each batch. dry_run tries at most max_keys keys and keeps nothing; on_error: continue, stop; prune removes rows whose keys are gone; force: also of mappings of which the run met no key';

CREATE PROCEDURE redis_migrate.join_run(run_id bigint)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_join_run';
COMMENT ON PROCEDURE redis_migrate.join_run(bigint) IS
    'Reads those parts of a run that nobody else reads, beside the process that runs it, until there is none; background workers call it. Commits after each batch';

CREATE FUNCTION redis_migrate.input_is_valid(value text, type regtype) RETURNS boolean
    LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'prm_input_is_valid';
COMMENT ON FUNCTION redis_migrate.input_is_valid(text, regtype) IS 'Whether a text is a value of a type; for queries and checks';

CREATE FUNCTION redis_migrate.field(payload bytea, name text) RETURNS text
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_field';
COMMENT ON FUNCTION redis_migrate.field(bytea, text) IS 'The value of a field of a hash, from its DUMP payload; NULL when there is no such field';

CREATE FUNCTION redis_migrate.field_bytes(payload bytea, name bytea) RETURNS bytea
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_field_bytes';
COMMENT ON FUNCTION redis_migrate.field_bytes(bytea, bytea) IS 'The value of a field of a hash, from its DUMP payload, whatever its bytes; NULL when there is no such field';

CREATE FUNCTION redis_migrate.elements(payload bytea)
    RETURNS TABLE ("position" bigint, field text, member text, score double precision, entry_id text, value text, value_bytes bytea, "json" jsonb,
                   field_bytes bytea, fields_bytes bytea[], field_expires_at timestamptz)
    LANGUAGE c STRICT IMMUTABLE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'prm_elements';
COMMENT ON FUNCTION redis_migrate.elements(bytea) IS
    'The elements of a list, set, hash, sorted set, array or stream, or the one value of a string, from a DUMP payload';
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
COMMENT ON TABLE redis_migrate.audit IS 'Audits of Redis servers: what was asked for, how far it came, and the sums';
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
COMMENT ON TABLE redis_migrate.audit_family IS 'Key families that an audit found; keys of one pattern and several types are a family for each type. type is empty where it is not known';

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
COMMENT ON TABLE redis_migrate.audit_key IS 'The largest keys of each database that an audit met, masked';

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
    'Finds the key families of a server, or of all masters of a cluster, and keeps what it found. sample: keys of each family that are asked about, below 1 a share, NULL all; max_rate: keys per second. Commits as it goes';

CREATE FUNCTION redis_migrate.drop_audit(audit_id bigint) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_audit';
COMMENT ON FUNCTION redis_migrate.drop_audit(bigint) IS 'Drops what an audit found';

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
COMMENT ON VIEW redis_migrate.audits IS 'Audits of the caller, also while they run';

CREATE VIEW redis_migrate.audit_families WITH (security_barrier) AS
    SELECT f.audit_id, a.server, f.db, f.pattern, NULLIF(f.type, '') AS type, f.types, f.keys, f.asked, f.asked OPERATOR(pg_catalog.<) f.keys AS estimated,
           f.bytes, f.with_ttl, f.without_ttl, f.min_ttl, f.max_ttl, f.ttl_spread, f.min_idle, f.max_idle, f.min_freq, f.max_freq,
           f.encodings, f.odd, f.odd_reasons, f.example, f.framework, f.layout, f.advice, f.priority, f.create_table, f.suggestion
    FROM redis_migrate.audit_family AS f JOIN redis_migrate.audit AS a USING (audit_id)
    WHERE redis_migrate.may_see(a.owner);
COMMENT ON VIEW redis_migrate.audit_families IS
    'Key families of the caller''s audits. keys is exact for a pattern of one type. Where estimated is true, bytes, with_ttl and without_ttl are estimates for all keys; types, ttl_spread and encodings count what was seen';

CREATE VIEW redis_migrate.audit_largest_keys WITH (security_barrier) AS
    SELECT k.audit_id, a.server, k.db, k.rank, k.pattern, k.key, k.type, k.bytes, k.ttl
    FROM redis_migrate.audit_key AS k JOIN redis_migrate.audit AS a USING (audit_id)
    WHERE redis_migrate.may_see(a.owner);
COMMENT ON VIEW redis_migrate.audit_largest_keys IS
    'The largest keys of each database among those that were asked about; letters and digits of captures are masked';

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
    'What changed between two audits, by family: new, gone, grown, shrunk, same; touched: a key was read or written since the first audit ended; renewed: the latest expiry moved on';

GRANT SELECT ON redis_migrate.audits, redis_migrate.audit_families, redis_migrate.audit_largest_keys TO PUBLIC;
-- See it. Each view shows the caller what belongs to roles whose rights the caller has.

CREATE VIEW redis_migrate.migrations WITH (security_barrier) AS
    SELECT migration, redis_migrate.shown_owner(owner) AS owner, server, file, source, unmapped, databases, created_at, changed_at
    FROM redis_migrate.migration
    WHERE redis_migrate.may_see(owner);
COMMENT ON VIEW redis_migrate.migrations IS 'Migrations of the caller';

CREATE VIEW redis_migrate.mappings WITH (security_barrier) AS
    SELECT m.migration, m.mapping, m.pattern, m.target, m.query, m.key_columns, m.priority, m.on_conflict, m.on_delete,
           m.mode, m.no_row, m.atomic, m.expand, m.types, m.databases, m.depends_on, m.exclusive, m.ledger,
           m.search_path, m.timezone, m.datestyle, m.intervalstyle
    FROM redis_migrate.mapping AS m JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.mappings IS 'Mappings of the caller''s migrations';

CREATE VIEW redis_migrate.checks WITH (security_barrier) AS
    SELECT c.migration, c.mapping, c.check_name, c.condition
    FROM redis_migrate.mapping_check AS c JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.checks IS 'Checks of the caller''s mappings';

CREATE VIEW redis_migrate.skipped_patterns WITH (security_barrier) AS
    SELECT s.migration, s.pattern
    FROM redis_migrate.skip_pattern AS s JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.skipped_patterns IS 'Patterns that skip_keys declared';

CREATE VIEW redis_migrate.runs WITH (security_barrier) AS
    SELECT r.run_id, r.migration, redis_migrate.shown_owner(r.owner) AS owner, r.source, r.dry_run, r.priority, r.mapping, r.on_error, r.prune, r.force,
           CASE WHEN r.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(r.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) r.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) r.updated_at))
                THEN 'interrupted' ELSE r.state END AS state,
           r.started_at, r.finished_at, r.active_time, r.pid, r.level, r.position, r.restarts, r.evicted,
           (r.batches OPERATOR(pg_catalog.+) p.batches)::bigint AS batches, (r.bytes_read OPERATOR(pg_catalog.+) p.bytes_read)::bigint AS bytes_read,
           c.read, c.vanished, c.rejected, c.migrated, c.archived, c.skipped,
           c.read OPERATOR(pg_catalog.=) (c.vanished OPERATOR(pg_catalog.+) c.rejected OPERATOR(pg_catalog.+) c.migrated
                OPERATOR(pg_catalog.+) c.archived OPERATOR(pg_catalog.+) c.skipped) AS balanced,
           (SELECT coalesce(pg_catalog.sum(m.deleted), 0)::bigint FROM redis_migrate.mapping_count AS m
            WHERE m.run_id OPERATOR(pg_catalog.=) r.run_id) AS rows_deleted,
           r.sqlstate, r.message
    FROM redis_migrate.run AS r
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'read'), 0)::bigint AS read,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'vanished'), 0)::bigint AS vanished,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'rejected'), 0)::bigint AS rejected,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'migrated'), 0)::bigint AS migrated,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'archived'), 0)::bigint AS archived,
               coalesce(pg_catalog.sum(keys) FILTER (WHERE outcome OPERATOR(pg_catalog.=) 'skipped'), 0)::bigint AS skipped
        FROM redis_migrate.run_count AS k WHERE k.run_id OPERATOR(pg_catalog.=) r.run_id) AS c
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.sum(q.batches), 0) AS batches, coalesce(pg_catalog.sum(q.bytes_read), 0) AS bytes_read
        FROM redis_migrate.run_part AS q WHERE q.run_id OPERATOR(pg_catalog.=) r.run_id) AS p
    WHERE redis_migrate.may_see(r.owner);
COMMENT ON VIEW redis_migrate.runs IS
    'Executions of migrations: read = vanished + rejected + migrated + archived + skipped, or balanced is false. rows_deleted are rows, not keys';

CREATE VIEW redis_migrate.run_parts WITH (security_barrier) AS
    SELECT p.run_id, r.migration, p.level, p.part, p.slots, p.done, p.pid, p.position, p.updated_at,
           (SELECT coalesce(pg_catalog.sum(c.keys), 0)::bigint FROM redis_migrate.run_count AS c
            WHERE c.run_id OPERATOR(pg_catalog.=) p.run_id AND c.level OPERATOR(pg_catalog.=) p.level
                  AND c.part OPERATOR(pg_catalog.=) p.part AND c.outcome OPERATOR(pg_catalog.=) 'read') AS read,
           p.bytes_read, p.batches, p.repeated_slots, p.readers, p.sqlstate, p.message
    FROM redis_migrate.run_part AS p JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner);
COMMENT ON VIEW redis_migrate.run_parts IS
    'Parts of runs of a cluster that are read side by side: slots, the process that reads them or read them last, how far, and what was read';

CREATE VIEW redis_migrate.run_counts WITH (security_barrier) AS
    SELECT c.run_id, r.migration, c.pattern, c.outcome, c.reason, pg_catalog.sum(c.keys)::bigint AS keys
    FROM redis_migrate.run_count AS c JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner)
    GROUP BY c.run_id, r.migration, c.pattern, c.outcome, c.reason
    ORDER BY c.run_id, c.pattern COLLATE "C", pg_catalog.array_position(ARRAY['read', 'vanished', 'rejected', 'migrated', 'archived', 'skipped'], c.outcome), c.reason COLLATE "C";
COMMENT ON VIEW redis_migrate.run_counts IS
    'Keys per outcome, reason and pattern (NULL: keys that no pattern owns); the outcome read counts the names that the source returned';

CREATE VIEW redis_migrate.mapping_counts WITH (security_barrier) AS
    SELECT c.run_id, r.migration, c.mapping, pg_catalog.sum(c.inserted)::bigint AS inserted, pg_catalog.sum(c.updated)::bigint AS updated,
           pg_catalog.sum(c.unchanged)::bigint AS unchanged, pg_catalog.sum(c.folded)::bigint AS folded, pg_catalog.sum(c.deleted)::bigint AS deleted,
           pg_catalog.max(c.prune) AS prune, pg_catalog.max(c.prune_detail) AS prune_detail
    FROM redis_migrate.mapping_count AS c JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner)
    GROUP BY c.run_id, r.migration, c.mapping
    ORDER BY c.run_id, (SELECT m.mapping_id FROM redis_migrate.mapping AS m
                        WHERE m.migration OPERATOR(pg_catalog.=) r.migration AND m.mapping OPERATOR(pg_catalog.=) c.mapping),
             c.mapping COLLATE "C";
COMMENT ON VIEW redis_migrate.mapping_counts IS
    'Rows per mapping and what became of them; after a run with prune, whether it removed the rows without a key, and if not, why';

CREATE FUNCTION redis_migrate.bytes_as_text(bytes bytea) RETURNS text
    LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prm_bytes_as_text';
COMMENT ON FUNCTION redis_migrate.bytes_as_text(bytea) IS 'Bytes of Redis as text: UTF-8, converted to the server''s encoding; NULL where they are no such text';

CREATE VIEW redis_migrate.rejects WITH (security_barrier) AS
    SELECT j.reject_id, j.run_id, r.migration, j.db, redis_migrate.bytes_as_text(j.key_bytes) AS key, j.key_bytes, j.type,
           j.pattern, j.mapping, j.rule, j.sqlstate, j.message, j.partial, j.payload, j.expires_at, j.created_at
    FROM redis_migrate.reject AS j JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner);
COMMENT ON VIEW redis_migrate.rejects IS 'Keys that were refused: rule is the name of a check, capture, column or constraint, or a built-in rule';

CREATE VIEW redis_migrate.archive WITH (security_barrier) AS
    SELECT a.migration, a.db, redis_migrate.bytes_as_text(a.key_bytes) AS key, a.key_bytes, a.type,
           coalesce(a.payload, (SELECT pg_catalog.string_agg(c.bytes, '\x' ORDER BY c.chunk_no)
                                FROM redis_migrate.archive_chunk AS c
                                WHERE c.migration OPERATOR(pg_catalog.=) a.migration AND c.db OPERATOR(pg_catalog.=) a.db
                                      AND c.index_key OPERATOR(pg_catalog.=) a.index_key)) AS payload,
           a.payload_size, a.expires_at
    FROM redis_migrate.archived_key AS a JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.archive IS
    'Keys without a mapping, as DUMP payloads that RESTORE takes. Leave payload out where values are large: it is put together when it is asked for';

CREATE VIEW redis_migrate.archive_chunks WITH (security_barrier) AS
    SELECT c.migration, c.db, a.key_bytes, c.chunk_no, c.bytes
    FROM redis_migrate.archive_chunk AS c JOIN redis_migrate.archived_key AS a USING (migration, db, index_key)
    JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner);
COMMENT ON VIEW redis_migrate.archive_chunks IS
    'The payloads of archived keys that are larger than 1 MB, piece by piece, for those too large to be sent whole';

CREATE VIEW redis_migrate.progress WITH (security_barrier) AS
    SELECT s.run_id, s.migration, s.pid, s.state, s.level OPERATOR(pg_catalog.+) 1 AS level, s.read AS keys_read, e.keys_estimated,
           s.bytes_read, s.batches, s.position, s.started_at, r.updated_at, e.active_time,
           CASE WHEN s.read OPERATOR(pg_catalog.>) 0 AND e.active_time OPERATOR(pg_catalog.>) interval '0'
                THEN pg_catalog.round((s.read OPERATOR(pg_catalog./) extract(epoch FROM e.active_time))::numeric, 1) END AS keys_per_second,
           CASE WHEN s.read OPERATOR(pg_catalog.>) 0 AND e.keys_estimated OPERATOR(pg_catalog.>=) s.read
                THEN e.as_of OPERATOR(pg_catalog.+) (e.active_time OPERATOR(pg_catalog.*)
                     ((e.keys_estimated OPERATOR(pg_catalog.-) s.read)::double precision OPERATOR(pg_catalog./) s.read::double precision))
                END AS estimated_end,
           p.file_offset, p.file_size
    FROM redis_migrate.runs AS s JOIN redis_migrate.run AS r USING (run_id)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN s.source OPERATOR(pg_catalog.=) 'rdb' THEN pg_catalog.substring(s.position, ' offset=([0-9]+)$')::bigint END AS file_offset,
               CASE WHEN s.source OPERATOR(pg_catalog.=) 'rdb' THEN pg_catalog.substring(s.position, ' size=([0-9]+) ')::bigint END AS file_size) AS p
    -- While a batch is under way, which may be one huge value, time passes and nothing is counted yet.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN s.state OPERATOR(pg_catalog.=) 'running' THEN greatest(pg_catalog.clock_timestamp(), r.updated_at)
                    ELSE r.updated_at END AS as_of) AS t
    CROSS JOIN LATERAL (
        SELECT t.as_of, s.active_time OPERATOR(pg_catalog.+) (t.as_of OPERATOR(pg_catalog.-) r.updated_at) AS active_time,
               coalesce(r.keys_estimated,
                        CASE WHEN p.file_offset OPERATOR(pg_catalog.>) 0 AND s.level OPERATOR(pg_catalog.=) 0
                             THEN pg_catalog.ceil(s.read::double precision OPERATOR(pg_catalog.*) p.file_size::double precision
                                                  OPERATOR(pg_catalog./) p.file_offset::double precision)::bigint END) AS keys_estimated) AS e
    WHERE s.state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'interrupted']);
COMMENT ON VIEW redis_migrate.progress IS
    'Runs that are under way: keys as of the last commit, times as of now. Of a file, keys_estimated follows from the share of its bytes that has been read; keys_per_second and estimated_end are NULL until the first commit';

GRANT USAGE ON SCHEMA redis_migrate TO PUBLIC;
GRANT SELECT ON redis_migrate.migrations, redis_migrate.mappings, redis_migrate.checks, redis_migrate.skipped_patterns,
    redis_migrate.runs, redis_migrate.run_parts, redis_migrate.run_counts, redis_migrate.mapping_counts, redis_migrate.rejects,
    redis_migrate.archive, redis_migrate.archive_chunks, redis_migrate.progress TO PUBLIC;
-- Background workers: what is wanted. What there is stands in shared memory; redis_migrate.workers shows both.

CREATE TABLE redis_migrate.background_run (
    background_run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration    text NOT NULL UNIQUE REFERENCES redis_migrate.migration ON DELETE CASCADE,
    owner        redis_migrate.owner_role NOT NULL,
    priority     text,
    mapping      text,
    on_error     text NOT NULL,
    prune        boolean NOT NULL,
    force        boolean NOT NULL,
    wanted       boolean NOT NULL DEFAULT true,
    state        text NOT NULL DEFAULT 'starting' CHECK (state OPERATOR(pg_catalog.=)
                     ANY (ARRAY['starting', 'waiting for worker', 'running', 'retrying', 'completed', 'stopped', 'failed'])),
    since        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    requested_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    marked_at    timestamptz,
    incarnation  bigint,
    crashes      integer NOT NULL DEFAULT 0,
    failures     integer NOT NULL DEFAULT 0,
    not_before   timestamptz,
    sqlstate     text,
    message      text
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.background_run IS
    'Background runs that are wanted, with the parameters of redis_migrate.run. marked_at and incarnation are set before a worker is launched and cleared when it ends in order: what is left of them after a restart tells a crash';
COMMENT ON SEQUENCE redis_migrate.background_run_background_run_id_seq IS 'Numbers of jobs';

CREATE FUNCTION redis_migrate.worker_role_problem(role oid, OUT sqlstate text, OUT message text, OUT hint text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH r AS (SELECT oid, rolname, pg_catalog.quote_ident(rolname) AS quoted, rolcanlogin FROM pg_catalog.pg_roles WHERE oid = $1),
    d AS (SELECT oid, datname, pg_catalog.quote_ident(datname) AS quoted FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
    -- The most specific setting wins: of the role here, of the role, of the database, of the server.
    read_only AS (
        SELECT coalesce((SELECT pg_catalog.split_part(c, '=', 2)::boolean
                         FROM pg_catalog.pg_db_role_setting AS s, d, pg_catalog.unnest(s.setconfig) AS c
                         WHERE c LIKE 'default\_transaction\_read\_only=%' AND s.setrole IN ($1, 0) AND s.setdatabase IN (d.oid, 0)
                         ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
                        (SELECT s.reset_val::boolean FROM pg_catalog.pg_settings AS s WHERE s.name = 'default_transaction_read_only')) AS is_on)
    SELECT p.sqlstate, p.message, p.hint
    FROM (VALUES (1)) AS one LEFT JOIN r ON true CROSS JOIN d CROSS JOIN read_only,
         LATERAL (VALUES
             (r.oid IS NULL, '28000', pg_catalog.format('its owner, role %s, was dropped', $1), NULL),
             -- From PostgreSQL 17 on workers pass over NOLOGIN.
             (NOT r.rolcanlogin AND pg_catalog.current_setting('server_version_num')::integer < 170000, '28000',
              pg_catalog.format('its owner, role "%s", is not permitted to log in', r.rolname), pg_catalog.format('ALTER ROLE %s LOGIN;', r.quoted)),
             (NOT pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT'), '42501',
              pg_catalog.format('its owner, role "%s", must not connect to database "%s"', r.rolname, d.datname),
              pg_catalog.format('GRANT CONNECT ON DATABASE %s TO %s;', d.quoted, r.quoted)),
             (read_only.is_on, '25006', pg_catalog.format('transactions of its owner, role "%s", are read-only by default', r.rolname),
              pg_catalog.format('ALTER ROLE %s SET default_transaction_read_only = off;', r.quoted))) AS p (applies, sqlstate, message, hint)
    WHERE p.applies
    LIMIT 1 $$;
COMMENT ON FUNCTION redis_migrate.worker_role_problem(oid) IS
    'Why no background worker can work as a role in this database: SQLSTATE, message and the command that fixes it; NULL where it can';

CREATE FUNCTION redis_migrate.start(migration text, priority text DEFAULT NULL, mapping text DEFAULT NULL,
        on_error text DEFAULT 'continue', prune boolean DEFAULT false, force boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_start';
COMMENT ON FUNCTION redis_migrate.start(text, text, text, text, boolean, boolean) IS
    'Runs a migration in a background worker, as its owner; it begins when the transaction commits. The options are those of redis_migrate.run';

CREATE FUNCTION redis_migrate.stop(migration text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_stop';
COMMENT ON FUNCTION redis_migrate.stop(text) IS
    'Ends the background run of a migration, at once and also if the transaction is rolled back; redis_migrate.start goes on with it';

CREATE PROCEDURE redis_migrate.wait_for(migration text, timeout interval DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_wait_for';
COMMENT ON PROCEDURE redis_migrate.wait_for(text, interval) IS
    'Waits until the background run of a migration has ended; raises its error if it failed';

CREATE FUNCTION redis_migrate.worker_slots(OUT pid integer, OUT kind text, OUT database oid, OUT owner oid, OUT background_run_id bigint,
        OUT run_id bigint, OUT state text, OUT launched_at timestamptz, OUT since timestamptz, OUT wakeups bigint, OUT runs bigint,
        OUT sqlstate text, OUT message text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prm_worker_slots';
COMMENT ON FUNCTION redis_migrate.worker_slots() IS
    'The background workers of all databases that the caller may see: its own, or all for members of pg_monitor';

CREATE FUNCTION redis_migrate.wake_workers() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_wake_workers';
COMMENT ON FUNCTION redis_migrate.wake_workers() IS
    'Trigger of tables that define background work: when the transaction commits, the scheduler looks at them';

CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE OR DELETE ON redis_migrate.background_run
    FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers();
COMMENT ON TRIGGER wake_workers ON redis_migrate.background_run IS 'Wakes the scheduler';

CREATE VIEW redis_migrate.background_runs WITH (security_barrier) AS
    SELECT j.background_run_id, j.migration, redis_migrate.shown_owner(j.owner) AS owner, j.priority, j.mapping, j.on_error, j.prune, j.force, j.wanted, j.state, j.since,
           j.requested_at, j.crashes, j.failures, j.not_before, j.sqlstate, j.message
    FROM redis_migrate.background_run AS j
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.background_runs IS
    'Background runs of the caller''s migrations, for members of pg_monitor all of them: what is wanted, how it ended, and the last error';

CREATE VIEW redis_migrate.workers WITH (security_barrier) AS
    SELECT s.pid, coalesce(s.kind, 'migration') AS kind, CASE WHEN s.kind IS NULL THEN pg_catalog.current_database() ELSE d.datname END AS database,
           coalesce(s.owner::regrole, j.owner) AS owner, coalesce(j.migration, t.migration) AS migration,
           CASE WHEN s.state IS NOT NULL THEN s.state
                WHEN j.state OPERATOR(pg_catalog.=) 'waiting for worker' THEN j.state ELSE 'interrupted' END AS state,
           coalesce(s.since, j.since) AS since, coalesce(p.position, r.position) AS position, coalesce(r.keys_read, p.keys_read) AS keys_read,
           CASE WHEN coalesce(r.seconds, p.seconds) OPERATOR(pg_catalog.>) 0
                THEN pg_catalog.round((coalesce(r.keys_read, p.keys_read) OPERATOR(pg_catalog./) coalesce(r.seconds, p.seconds))::numeric, 1) END AS keys_per_second,
           s.wakeups, s.runs, coalesce(s.sqlstate, j.sqlstate) AS sqlstate, coalesce(s.message, j.message) AS last_error
    FROM redis_migrate.worker_slots() AS s
    LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) s.database
    FULL JOIN (SELECT * FROM redis_migrate.background_runs
               WHERE wanted) AS j
        ON s.kind OPERATOR(pg_catalog.=) 'migration' AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND s.background_run_id OPERATOR(pg_catalog.=) j.background_run_id
    LEFT JOIN LATERAL (
        SELECT u.position, extract(epoch FROM u.active_time) AS seconds,
               (SELECT coalesce(pg_catalog.sum(c.keys), 0)::bigint FROM redis_migrate.run_count AS c
                WHERE c.run_id OPERATOR(pg_catalog.=) u.run_id AND c.outcome OPERATOR(pg_catalog.=) 'read') AS keys_read
        FROM redis_migrate.run AS u
        WHERE u.migration OPERATOR(pg_catalog.=) j.migration AND u.pid OPERATOR(pg_catalog.=) s.pid AND u.state OPERATOR(pg_catalog.=) 'running'
        ORDER BY u.run_id DESC LIMIT 1) AS r ON true
    LEFT JOIN LATERAL (
        SELECT q.position, extract(epoch FROM q.updated_at OPERATOR(pg_catalog.-) s.launched_at) AS seconds,
               (SELECT coalesce(pg_catalog.sum(c.keys), 0)::bigint FROM redis_migrate.run_count AS c
                WHERE c.run_id OPERATOR(pg_catalog.=) q.run_id AND c.level OPERATOR(pg_catalog.=) q.level
                      AND c.part OPERATOR(pg_catalog.=) q.part AND c.outcome OPERATOR(pg_catalog.=) 'read') AS keys_read
        FROM redis_migrate.run_part AS q JOIN redis_migrate.run AS u USING (run_id)
        WHERE q.pid OPERATOR(pg_catalog.=) s.pid AND NOT q.done AND u.state OPERATOR(pg_catalog.=) 'running'
              AND (q.run_id OPERATOR(pg_catalog.=) s.run_id OR u.migration OPERATOR(pg_catalog.=) j.migration)
        ORDER BY q.updated_at DESC LIMIT 1) AS p ON true
    LEFT JOIN redis_migrate.run AS t ON t.run_id OPERATOR(pg_catalog.=) s.run_id AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();
COMMENT ON VIEW redis_migrate.workers IS
    'Background workers, also those that are still waited for (pid NULL): the caller''s own, or all for members of pg_monitor. position and rate are as of the last commit; those of a migration part are of the part that it reads';

GRANT SELECT ON redis_migrate.background_runs, redis_migrate.workers TO PUBLIC;
-- Expiry policies, scheduled refreshes, and the history of both.

CREATE TABLE redis_migrate.job (
    job_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind             text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['expiry', 'refresh'])),
    name             text NOT NULL,
    relation         oid NOT NULL,
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
    stats_reset      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (kind, name)
) WITH (fillfactor = 50);
CREATE INDEX job_due ON redis_migrate.job (redis_migrate.stamped_role(owner), next_run) WHERE enabled;
CREATE INDEX job_scheduled ON redis_migrate.job (redis_migrate.stamped_role(owner), scheduled_at) WHERE enabled;
COMMENT ON TABLE redis_migrate.job IS
    'What runs by itself: when it is due next, under which settings of the session that defined it, and what became of it so far. relation is the table''s number when its name was last resolved; it explains a rename. failures counts those since the last success; scheduled_at lies in the future after the clock was set back';
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
    'Which rows of a table expire and how they are removed. expires_attnum is the column''s number when its name was last resolved; it explains a rename';

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
    'How far the sweep of a policy is, written in the transaction of each batch: the table or partition, and in expiry order the highest value met (microseconds since 2000, or the column''s own number), in page order the next page. started_at is NULL when no sweep is under way';

CREATE TABLE redis_migrate.refresh_policy (
    job_id       bigint PRIMARY KEY REFERENCES redis_migrate.job ON DELETE CASCADE,
    "concurrently" boolean NOT NULL,
    debounce     interval NOT NULL
);
COMMENT ON TABLE redis_migrate.refresh_policy IS
    'Materialized views that are refreshed: every so often, and debounce after the first mark since the last refresh';

CREATE TABLE redis_migrate.stale_mark (
    job_id    bigint NOT NULL,
    marked_at timestamptz NOT NULL
);
ALTER TABLE redis_migrate.stale_mark REPLICA IDENTITY FULL;
CREATE INDEX stale_mark_job ON redis_migrate.stale_mark (job_id, marked_at);
COMMENT ON TABLE redis_migrate.stale_mark IS
    'One row per transaction that made a materialized view stale: writers only insert, so that none waits for another; the refresh deletes those that it has seen';

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
    'Runs of jobs that did something or failed, kept for pg_redis_migrate.history_retention by an expiry policy of its own';
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
        max_rate integer DEFAULT 0, max_replication_lag interval DEFAULT '30 seconds', max_xmin_age integer DEFAULT 10000000)
    RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_expiry';
COMMENT ON FUNCTION redis_migrate.add_expiry(regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer) IS
    'Lets rows of a table disappear after the time in a column, plus lifetime and grace. It runs with the rights of the caller. See docs/expiry.md';

CREATE FUNCTION redis_migrate.alter_expiry(target text, new_target regclass DEFAULT NULL, expires_column text DEFAULT NULL,
        every interval DEFAULT NULL, unit text DEFAULT NULL, column_timezone text DEFAULT NULL, lifetime interval DEFAULT NULL,
        grace interval DEFAULT NULL, condition text DEFAULT NULL, soft_delete text DEFAULT NULL, notify_channel text DEFAULT NULL,
        notify_column text DEFAULT NULL, drop_partitions boolean DEFAULT NULL, batch_time interval DEFAULT NULL,
        max_rate integer DEFAULT NULL, max_replication_lag interval DEFAULT NULL, max_xmin_age integer DEFAULT NULL)
    RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_expiry';
COMMENT ON FUNCTION redis_migrate.alter_expiry(text, regclass, text, interval, text, text, interval, interval, text, text, text, text, boolean, interval, integer, interval, integer) IS
    'Changes an expiry policy, from the next batch on; NULL leaves a property as it is, an empty text takes it away';

CREATE FUNCTION redis_migrate.drop_expiry(target text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_drop_expiry';
COMMENT ON FUNCTION redis_migrate.drop_expiry(text) IS 'Drops an expiry policy; rows and history stay';

CREATE FUNCTION redis_migrate.pause_expiry(target text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_pause_expiry';
COMMENT ON FUNCTION redis_migrate.pause_expiry(text) IS
    'Takes an expiry policy from the schedule, at once; CALL redis_migrate.sweep still works';

CREATE FUNCTION redis_migrate.resume_expiry(target text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_resume_expiry';
COMMENT ON FUNCTION redis_migrate.resume_expiry(text) IS 'Puts an expiry policy back into the schedule; it is due at once';

CREATE FUNCTION redis_migrate.add_session_expiry(store text, target regclass DEFAULT NULL, every interval DEFAULT '6 hours',
        lifetime interval DEFAULT NULL, column_timezone text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_session_expiry';
COMMENT ON FUNCTION redis_migrate.add_session_expiry(text, regclass, interval, interval, text) IS
    'Adds an expiry policy for the session table of django, connect-pg-simple, flask-session, spring-session, laravel or scs';

CREATE PROCEDURE redis_migrate.sweep(target text, dry_run boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_sweep';
COMMENT ON PROCEDURE redis_migrate.sweep(text, boolean) IS
    'Removes the expired rows of a table in committed batches, now. dry_run reports before, would delete and after';

CREATE FUNCTION redis_migrate.sweep_preview(target text)
    RETURNS TABLE (before bigint, would_delete bigint, after bigint)
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_sweep_preview';
COMMENT ON FUNCTION redis_migrate.sweep_preview(text) IS
    'How many rows a sweep would find, remove and leave. It counts the whole table';

CREATE FUNCTION redis_migrate.meets_expired_row() RETURNS boolean
    LANGUAGE c VOLATILE COST 100000 AS 'MODULE_PATHNAME', 'prm_meets_expired_row';
COMMENT ON FUNCTION redis_migrate.meets_expired_row() IS
    'Always true. A sweep''s statement evaluates it for each expired row before it locks it, so that rows that others have locked are counted';

CREATE FUNCTION redis_migrate.gives_way() RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'prm_gives_way';
COMMENT ON FUNCTION redis_migrate.gives_way() IS
    'Always true. A sweep''s statement evaluates it for each row that it looks at: every 0.1 ms it lets another process have the processor';

CREATE FUNCTION redis_migrate.add_refresh(view regclass, every interval DEFAULT '5 minutes', concurrently boolean DEFAULT true,
        debounce interval DEFAULT '5 seconds') RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_refresh';
COMMENT ON FUNCTION redis_migrate.add_refresh(regclass, interval, boolean, interval) IS
    'Refreshes a materialized view every so often (NULL: only when it is stale), and debounce after it was marked stale';

CREATE FUNCTION redis_migrate.alter_refresh(view text, new_view regclass DEFAULT NULL, every interval DEFAULT NULL,
        concurrently boolean DEFAULT NULL, debounce interval DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_refresh';
COMMENT ON FUNCTION redis_migrate.alter_refresh(text, regclass, interval, boolean, interval) IS
    'Changes a refresh; NULL leaves a property as it is, every => ''0'' leaves only refreshes of what is stale';

CREATE FUNCTION redis_migrate.drop_refresh(view text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_drop_refresh';
COMMENT ON FUNCTION redis_migrate.drop_refresh(text) IS 'Drops a refresh; the view and the history stay';

CREATE FUNCTION redis_migrate.pause_refresh(view text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_pause_refresh';
COMMENT ON FUNCTION redis_migrate.pause_refresh(text) IS 'Takes a refresh from the schedule; marks are kept';

CREATE FUNCTION redis_migrate.resume_refresh(view text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_resume_refresh';
COMMENT ON FUNCTION redis_migrate.resume_refresh(text) IS 'Puts a refresh back into the schedule; it is due at once';

CREATE FUNCTION redis_migrate.mark_stale(view regclass) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_mark_stale';
COMMENT ON FUNCTION redis_migrate.mark_stale(regclass) IS
    'Notes that a materialized view is behind: it will be refreshed after this transaction has committed. Needs SELECT on the view';

CREATE FUNCTION redis_migrate.mark_stale_trigger() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_mark_stale_trigger';
COMMENT ON FUNCTION redis_migrate.mark_stale_trigger() IS
    'mark_stale for the views named in the trigger''s arguments; the table''s owner needs SELECT on them. For AFTER ... FOR EACH STATEMENT';

CREATE PROCEDURE redis_migrate.maintain()
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_maintain';
COMMENT ON PROCEDURE redis_migrate.maintain() IS
    'Runs the caller''s sweeps and refreshes that are due, in turn, and returns; what background workers call';

CREATE FUNCTION redis_migrate.next_maintenance() RETURNS timestamptz
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'prm_next_maintenance';
COMMENT ON FUNCTION redis_migrate.next_maintenance() IS
    'When the next sweep or refresh of the caller is due, perhaps in the past; NULL for none';

CREATE FUNCTION redis_migrate.maintenance_owners() RETURNS TABLE (owner oid, next_run timestamptz)
    LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'prm_maintenance_owners';
COMMENT ON FUNCTION redis_migrate.maintenance_owners() IS
    'Roles with sweeps or refreshes, and when the next of each is due; for the scheduler';
REVOKE ALL ON FUNCTION redis_migrate.maintenance_owners() FROM PUBLIC;

CREATE FUNCTION redis_migrate.fail_maintenance(owner oid, sqlstate text, message text) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_fail_maintenance';
COMMENT ON FUNCTION redis_migrate.fail_maintenance(oid, text, text) IS
    'Records that the due sweeps and refreshes of a role failed, because no worker can work as that role; for the scheduler';
REVOKE ALL ON FUNCTION redis_migrate.fail_maintenance(oid, text, text) FROM PUBLIC;

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
           s.partitions_dropped, s.skipped_total AS skipped_locked, j.runs, j.empty_runs, j.failed_runs,
           j.last_started_at, j.last_finished_at, j.last_finished_at OPERATOR(pg_catalog.-) j.last_started_at AS last_duration,
           j.last_rows, s.started_at AS sweeping_since, s.leaf AS sweeping, s.sweep_order,
           s.backlog AS backlog_estimate, s.oldest_expired_at,
           pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.oldest_expired_at AS oldest_expired_age,
           s.paused_since,
           CASE WHEN redis_migrate.is_restored(j.owner) THEN 'restored: it waits for CALL redis_migrate.resume_restored()'
                ELSE s.pause_reason END AS pause_reason, j.failures AS consecutive_failures, j.last_error_at, j.last_sqlstate, j.last_message,
           j.stats_reset
    FROM redis_migrate.job AS j JOIN redis_migrate.expiry_state AS s USING (job_id)
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.expiry_stats IS
    'What sweeps have done, how much is left as of the last batch, why one is paused or failing; pg_monitor sees all';

CREATE VIEW redis_migrate.refreshes WITH (security_barrier) AS
    SELECT j.name AS view, redis_migrate.shown_owner(j.owner) AS owner, j.enabled, j.every, p."concurrently", p.debounce, j.next_run,
           (SELECT pg_catalog.min(m.marked_at) FROM redis_migrate.stale_mark AS m WHERE m.job_id OPERATOR(pg_catalog.=) j.job_id) AS stale_since,
           j.runs, j.failed_runs, j.last_started_at, j.last_finished_at,
           j.last_finished_at OPERATOR(pg_catalog.-) j.last_started_at AS last_duration,
           j.failures AS consecutive_failures, j.last_error_at, j.last_sqlstate, j.last_message, j.stats_reset
    FROM redis_migrate.job AS j JOIN redis_migrate.refresh_policy AS p USING (job_id)
    WHERE redis_migrate.may_see(j.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.refreshes IS 'Materialized views that are refreshed, since when each is stale, and what became of the last refresh';

CREATE VIEW redis_migrate.job_runs WITH (security_barrier) AS
    SELECT history_id, job_id, kind, name, redis_migrate.shown_owner(owner) AS owner, started_at, finished_at, duration, rows, batches, outcome, sqlstate, message
    FROM redis_migrate.job_history
    WHERE redis_migrate.may_see(owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.job_runs IS
    'Sweeps and refreshes that did something or failed, of the caller; pg_monitor sees all';

GRANT SELECT ON redis_migrate.expiry_policies, redis_migrate.expiry_stats, redis_migrate.refreshes, redis_migrate.job_runs TO PUBLIC;
-- Rate limits. What decides costs the quota of others, so nothing here is for everybody: a DBA grants it.

CREATE TABLE redis_migrate.rate_limit_policy (
    policy_id   bigint GENERATED BY DEFAULT AS IDENTITY UNIQUE,
    policy      text PRIMARY KEY,
    owner       redis_migrate.owner_role NOT NULL,
    quota       bigint NOT NULL,
    period      interval NOT NULL,
    burst       bigint,
    algorithm   text NOT NULL,
    storage     text NOT NULL,
    key_type    text NOT NULL,
    ipv6_prefix integer NOT NULL,
    shadow      boolean NOT NULL,
    fail_open   boolean NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    changed_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE redis_migrate.rate_limit_policy IS
    'Rate limits: what may pass how often. Sessions keep what they read of it until it changes';
COMMENT ON SEQUENCE redis_migrate.rate_limit_policy_policy_id_seq IS 'Numbers of rate limit policies';

CREATE TABLE redis_migrate.rate_limit_exception (
    policy_id  bigint NOT NULL REFERENCES redis_migrate.rate_limit_policy (policy_id) ON DELETE CASCADE,
    kind       text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['allow', 'deny', 'override'])),
    key        text COLLATE "C",
    network    inet,
    quota      bigint,
    period     interval,
    burst      bigint,
    expires_at timestamptz,
    UNIQUE NULLS NOT DISTINCT (policy_id, kind, key, network),
    CHECK ((key IS NULL) OPERATOR(pg_catalog.<>) (network IS NULL)),
    CHECK ((kind OPERATOR(pg_catalog.=) 'override') OPERATOR(pg_catalog.=) (quota IS NOT NULL AND period IS NOT NULL))
);
ALTER TABLE redis_migrate.rate_limit_exception REPLICA IDENTITY FULL;
COMMENT ON TABLE redis_migrate.rate_limit_exception IS
    'What a rate limit policy says about some keys only: allowed, denied (until expires_at), other numbers';

CREATE TABLE redis_migrate.rate_limit_state (
    policy_id  bigint NOT NULL,
    key        text COLLATE "C" NOT NULL,
    time_ns    bigint NOT NULL,
    count      bigint NOT NULL,
    previous   bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (policy_id, key)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.rate_limit_state IS
    'States of rate limits with storage table. No index but the key''s, so that updates stay in their page';

CREATE UNLOGGED TABLE redis_migrate.rate_limit_unlogged_state (
    policy_id  bigint NOT NULL,
    key        text COLLATE "C" NOT NULL,
    time_ns    bigint NOT NULL,
    count      bigint NOT NULL,
    previous   bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (policy_id, key)
) WITH (fillfactor = 50);
COMMENT ON TABLE redis_migrate.rate_limit_unlogged_state IS
    'States of rate limits with storage unlogged table: empty after a crash, absent on standbys';

SELECT pg_catalog.pg_extension_config_dump('redis_migrate.rate_limit_policy', '');
SELECT pg_catalog.pg_extension_config_dump('redis_migrate.rate_limit_policy_policy_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('redis_migrate.rate_limit_exception', '');
SELECT pg_catalog.pg_extension_config_dump('redis_migrate.rate_limit_state', '');
SELECT pg_catalog.pg_extension_config_dump('redis_migrate.rate_limit_unlogged_state', '');

CREATE FUNCTION redis_migrate.rate_limit_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_changed';
COMMENT ON FUNCTION redis_migrate.rate_limit_changed() IS 'Makes every session read the rate limit policies anew';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON redis_migrate.rate_limit_policy
    FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.rate_limit_changed();
COMMENT ON TRIGGER changed ON redis_migrate.rate_limit_policy IS 'Makes every session read the rate limit policies anew';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON redis_migrate.rate_limit_exception
    FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.rate_limit_changed();
COMMENT ON TRIGGER changed ON redis_migrate.rate_limit_exception IS 'Makes every session read the rate limit policies anew';

CREATE TYPE redis_migrate.rate_limit_result AS (
    allowed     boolean,
    quota       bigint,
    remaining   bigint,
    retry_after interval,
    retry_after_seconds double precision,
    reset_after interval,
    reset_at    timestamptz,
    reason      text
);
COMMENT ON TYPE redis_migrate.rate_limit_result IS
    'The answer to a request. reason: ok, limited, cost_exceeds_limit, allowlisted, denylisted, blocked, shadow, unavailable';

CREATE TYPE redis_migrate.rate_limits_result AS (
    allowed     boolean,
    policy      text,
    quota       bigint,
    remaining   bigint,
    retry_after interval,
    retry_after_seconds double precision,
    reset_after interval,
    reset_at    timestamptz,
    reason      text
);
COMMENT ON TYPE redis_migrate.rate_limits_result IS
    'The answer to a request under several policies, with the policy that decided: of refusals the one with the longest wait, otherwise the one with the least remaining';

-- Definitions.

CREATE FUNCTION redis_migrate.create_rate_limit(policy text, quota bigint, period interval, burst bigint DEFAULT NULL,
        algorithm text DEFAULT 'gcra', storage text DEFAULT 'memory', key_type text DEFAULT 'text',
        ipv6_prefix integer DEFAULT 64, shadow boolean DEFAULT false, fail_open boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_create_rate_limit';
COMMENT ON FUNCTION redis_migrate.create_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean) IS
    'Creates a rate limit policy: quota per period. algorithm: gcra, fixed_window, fixed_window_first_hit, sliding_window; storage: memory, table, unlogged table; key_type: text, inet';

CREATE FUNCTION redis_migrate.create_rate_limit(policy text, "limit" text, burst bigint DEFAULT NULL,
        algorithm text DEFAULT 'gcra', storage text DEFAULT 'memory', key_type text DEFAULT 'text',
        ipv6_prefix integer DEFAULT 64, shadow boolean DEFAULT false, fail_open boolean DEFAULT false) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_create_rate_limit_text';
COMMENT ON FUNCTION redis_migrate.create_rate_limit(text, text, bigint, text, text, text, integer, boolean, boolean) IS
    'Creates a rate limit policy from a limit as text: ''10/s'', ''100 per 15 minutes''';

CREATE FUNCTION redis_migrate.alter_rate_limit(policy text, quota bigint DEFAULT NULL, period interval DEFAULT NULL,
        burst bigint DEFAULT NULL, algorithm text DEFAULT NULL, storage text DEFAULT NULL, key_type text DEFAULT NULL,
        ipv6_prefix integer DEFAULT NULL, shadow boolean DEFAULT NULL, fail_open boolean DEFAULT NULL,
        "limit" text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_rate_limit';
COMMENT ON FUNCTION redis_migrate.alter_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean, text) IS
    'Changes a rate limit policy; NULL leaves a property as it is. Live keys obey at once; a new algorithm begins afresh';

CREATE FUNCTION redis_migrate.drop_rate_limit(policy text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_rate_limit';
COMMENT ON FUNCTION redis_migrate.drop_rate_limit(text) IS 'Drops a rate limit policy with its lists, overrides and states';

CREATE FUNCTION redis_migrate.set_rate_limit_override(policy text, key text, quota bigint, period interval DEFAULT NULL,
        burst bigint DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_set_rate_limit_override';
COMMENT ON FUNCTION redis_migrate.set_rate_limit_override(text, text, bigint, interval, bigint) IS
    'Gives one key of a rate limit policy other numbers; period NULL: the policy''s';
CREATE FUNCTION redis_migrate.set_rate_limit_override(policy text, network inet, quota bigint, period interval DEFAULT NULL,
        burst bigint DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_set_rate_limit_override_inet';
COMMENT ON FUNCTION redis_migrate.set_rate_limit_override(text, inet, bigint, interval, bigint) IS
    'Gives each address of a network other numbers under a rate limit policy; the longest prefix counts';
CREATE FUNCTION redis_migrate.drop_rate_limit_override(policy text, key text) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_rate_limit_override';
COMMENT ON FUNCTION redis_migrate.drop_rate_limit_override(text, text) IS 'Takes an override back; false: there was none';
CREATE FUNCTION redis_migrate.drop_rate_limit_override(policy text, network inet) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_rate_limit_override_inet';
COMMENT ON FUNCTION redis_migrate.drop_rate_limit_override(text, inet) IS 'Takes an override back; false: there was none';

CREATE FUNCTION redis_migrate.add_rate_limit_allow(policy text, key text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_rate_limit_allow';
COMMENT ON FUNCTION redis_migrate.add_rate_limit_allow(text, text) IS
    'Lets a key pass a rate limit policy always; goes before the deny list';
CREATE FUNCTION redis_migrate.add_rate_limit_allow(policy text, network inet) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_rate_limit_allow_inet';
COMMENT ON FUNCTION redis_migrate.add_rate_limit_allow(text, inet) IS
    'Lets the addresses of a network pass a rate limit policy always';
CREATE FUNCTION redis_migrate.drop_rate_limit_allow(policy text, key text) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_rate_limit_allow';
COMMENT ON FUNCTION redis_migrate.drop_rate_limit_allow(text, text) IS 'Takes a key off the allow list; false: it was not there';
CREATE FUNCTION redis_migrate.drop_rate_limit_allow(policy text, network inet) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_rate_limit_allow_inet';
COMMENT ON FUNCTION redis_migrate.drop_rate_limit_allow(text, inet) IS 'Takes a network off the allow list; false: it was not there';

CREATE FUNCTION redis_migrate.add_rate_limit_deny(policy text, key text, for_time interval DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_rate_limit_deny';
COMMENT ON FUNCTION redis_migrate.add_rate_limit_deny(text, text, interval) IS
    'Refuses a key of a rate limit policy, for a time (reason blocked) or for ever (reason denylisted)';
CREATE FUNCTION redis_migrate.add_rate_limit_deny(policy text, network inet, for_time interval DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_add_rate_limit_deny_inet';
COMMENT ON FUNCTION redis_migrate.add_rate_limit_deny(text, inet, interval) IS
    'Refuses the addresses of a network, for a time (reason blocked) or for ever (reason denylisted)';
CREATE FUNCTION redis_migrate.drop_rate_limit_deny(policy text, key text) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_rate_limit_deny';
COMMENT ON FUNCTION redis_migrate.drop_rate_limit_deny(text, text) IS 'Takes a key off the deny list; false: it was not there';
CREATE FUNCTION redis_migrate.drop_rate_limit_deny(policy text, network inet) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_rate_limit_deny_inet';
COMMENT ON FUNCTION redis_migrate.drop_rate_limit_deny(text, inet) IS 'Takes a network off the deny list; false: it was not there';

-- Decisions.

CREATE FUNCTION redis_migrate.rate_limit(policy text, key text, cost bigint DEFAULT 1) RETURNS redis_migrate.rate_limit_result
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit';
COMMENT ON FUNCTION redis_migrate.rate_limit(text, text, bigint) IS
    'Asks whether a request of this key may pass, and charges it if so. cost 0 only looks';
CREATE FUNCTION redis_migrate.rate_limit(policy text, address inet, cost bigint DEFAULT 1) RETURNS redis_migrate.rate_limit_result
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_inet';
COMMENT ON FUNCTION redis_migrate.rate_limit(text, inet, bigint) IS
    'The same for an address: IPv6 folded to the policy''s prefix, IPv4 in IPv6 taken as IPv4';

CREATE FUNCTION redis_migrate.rate_limit_allowed(policy text, key text, cost bigint DEFAULT 1) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_allowed';
COMMENT ON FUNCTION redis_migrate.rate_limit_allowed(text, text, bigint) IS
    'Asks whether a request of this key may pass, and charges it if so: the fast form';
CREATE FUNCTION redis_migrate.rate_limit_allowed(policy text, address inet, cost bigint DEFAULT 1) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_allowed_inet';
COMMENT ON FUNCTION redis_migrate.rate_limit_allowed(text, inet, bigint) IS
    'The same for an address: IPv6 folded to the policy''s prefix, IPv4 in IPv6 taken as IPv4';

CREATE FUNCTION redis_migrate.rate_limit_at(policy text, key text, cost bigint, at timestamptz) RETURNS redis_migrate.rate_limit_result
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_at';
COMMENT ON FUNCTION redis_migrate.rate_limit_at(text, text, bigint, timestamptz) IS
    'rate_limit as if it were another time, for tests and simulations by the policy''s owner';

CREATE FUNCTION redis_migrate.rate_limit_adhoc(name text, key text, "limit" text, cost bigint DEFAULT 1,
        burst bigint DEFAULT NULL, algorithm text DEFAULT 'gcra') RETURNS redis_migrate.rate_limit_result
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_adhoc';
COMMENT ON FUNCTION redis_migrate.rate_limit_adhoc(text, text, text, bigint, bigint, text) IS
    'rate_limit without a policy: the limit comes with the call and may differ in the next';

CREATE FUNCTION redis_migrate.rate_limits(policies text[], keys text[], cost bigint DEFAULT 1) RETURNS redis_migrate.rate_limits_result
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limits';
COMMENT ON FUNCTION redis_migrate.rate_limits(text[], text[], bigint) IS
    'Asks several policies, with a key for each or one for all: charges all of them or, if one refuses, none';

CREATE FUNCTION redis_migrate.rate_limit_refund(policy text, key text, cost bigint DEFAULT 1) RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_refund';
COMMENT ON FUNCTION redis_migrate.rate_limit_refund(text, text, bigint) IS
    'Gives cost back, at most until all of it remains; returns what remains';

CREATE FUNCTION redis_migrate.reset_rate_limit(policy text, key text) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_reset_rate_limit';
COMMENT ON FUNCTION redis_migrate.reset_rate_limit(text, text) IS
    'Forgets what a key has used; false: nothing was remembered';

CREATE FUNCTION redis_migrate.rate_limit_headers(policy text, result redis_migrate.rate_limit_result) RETURNS jsonb
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_headers';
COMMENT ON FUNCTION redis_migrate.rate_limit_headers(text, redis_migrate.rate_limit_result) IS
    'The HTTP header fields RateLimit-Policy, RateLimit and, for a refusal, Retry-After, as a JSON object';

CREATE FUNCTION redis_migrate.rate_limit_step(policy_id bigint, key text, time_ns bigint, count bigint, previous bigint) RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_step';
COMMENT ON FUNCTION redis_migrate.rate_limit_step(bigint, text, bigint, bigint, bigint) IS 'Internal: part of a decision in a table';
CREATE FUNCTION redis_migrate.rate_limit_stepped(field integer) RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_stepped';
COMMENT ON FUNCTION redis_migrate.rate_limit_stepped(integer) IS 'Internal: part of a decision in a table';

-- Seeing and keeping.

CREATE FUNCTION redis_migrate.rate_limit_counters(OUT policy_id bigint, OUT allowed bigint, OUT limited bigint,
        OUT shadow bigint, OUT blocked bigint, OUT evictions bigint, OUT entries bigint) RETURNS SETOF record
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_counters';
COMMENT ON FUNCTION redis_migrate.rate_limit_counters() IS 'What the rate limits of this database did; no rows without shared memory';
CREATE FUNCTION redis_migrate.rate_limit_capacity(OUT bytes bigint, OUT keys bigint) RETURNS record
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_rate_limit_capacity';
COMMENT ON FUNCTION redis_migrate.rate_limit_capacity() IS
    'The shared memory for rate limits, and how many keys fit into it; NULL where there is none';
CREATE FUNCTION redis_migrate.reset_rate_limit_stats(policy text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_reset_rate_limit_stats';
COMMENT ON FUNCTION redis_migrate.reset_rate_limit_stats(text) IS 'Sets the counters of a rate limit policy to zero';
CREATE FUNCTION redis_migrate.save_rate_limits() RETURNS boolean
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_save_rate_limits';
COMMENT ON FUNCTION redis_migrate.save_rate_limits() IS
    'Saves the shared memory of rate limits now, as happens every few seconds and at shutdown; false: see the log';

CREATE VIEW redis_migrate.rate_limit_policies WITH (security_barrier) AS
    SELECT policy, redis_migrate.shown_owner(owner) AS owner, quota, period, burst, algorithm, storage, key_type, ipv6_prefix, shadow, fail_open, created_at, changed_at
    FROM redis_migrate.rate_limit_policy
    WHERE redis_migrate.may_see(owner);
COMMENT ON VIEW redis_migrate.rate_limit_policies IS 'Rate limit policies of the caller';

CREATE VIEW redis_migrate.rate_limit_exceptions WITH (security_barrier) AS
    SELECT p.policy, e.kind, e.key, e.network, e.quota, e.period, e.burst, e.expires_at
    FROM redis_migrate.rate_limit_exception AS e JOIN redis_migrate.rate_limit_policy AS p USING (policy_id)
    WHERE redis_migrate.may_see(p.owner);
COMMENT ON VIEW redis_migrate.rate_limit_exceptions IS 'Allow and deny lists and overrides of the caller''s rate limit policies';

CREATE VIEW redis_migrate.rate_limit_stats WITH (security_barrier = true) AS
    SELECT p.policy, c.allowed OPERATOR(pg_catalog.+) c.limited OPERATOR(pg_catalog.+) c.shadow OPERATOR(pg_catalog.+) c.blocked AS calls,
           c.allowed, c.limited, c.shadow, c.blocked, c.entries, c.evictions,
           c.entries OPERATOR(pg_catalog.*) 48 AS memory
    FROM (SELECT policy_id, policy FROM redis_migrate.rate_limit_policy
          UNION ALL SELECT -1, '(ad hoc)') AS p
    JOIN redis_migrate.rate_limit_counters() AS c USING (policy_id);
COMMENT ON VIEW redis_migrate.rate_limit_stats IS
    'What each rate limit policy did. calls = allowed + limited + shadow + blocked; entries: keys that are remembered in shared memory now, in memory bytes; evictions: live ones that had to go';

REVOKE ALL ON FUNCTION
    redis_migrate.create_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean),
    redis_migrate.create_rate_limit(text, text, bigint, text, text, text, integer, boolean, boolean),
    redis_migrate.alter_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean, text),
    redis_migrate.drop_rate_limit(text),
    redis_migrate.set_rate_limit_override(text, text, bigint, interval, bigint),
    redis_migrate.set_rate_limit_override(text, inet, bigint, interval, bigint),
    redis_migrate.drop_rate_limit_override(text, text), redis_migrate.drop_rate_limit_override(text, inet),
    redis_migrate.add_rate_limit_allow(text, text), redis_migrate.add_rate_limit_allow(text, inet),
    redis_migrate.drop_rate_limit_allow(text, text), redis_migrate.drop_rate_limit_allow(text, inet),
    redis_migrate.add_rate_limit_deny(text, text, interval), redis_migrate.add_rate_limit_deny(text, inet, interval),
    redis_migrate.drop_rate_limit_deny(text, text), redis_migrate.drop_rate_limit_deny(text, inet),
    redis_migrate.rate_limit(text, text, bigint), redis_migrate.rate_limit(text, inet, bigint),
    redis_migrate.rate_limit_allowed(text, text, bigint), redis_migrate.rate_limit_allowed(text, inet, bigint),
    redis_migrate.rate_limit_at(text, text, bigint, timestamptz),
    redis_migrate.rate_limit_adhoc(text, text, text, bigint, bigint, text),
    redis_migrate.rate_limits(text[], text[], bigint),
    redis_migrate.rate_limit_refund(text, text, bigint), redis_migrate.reset_rate_limit(text, text),
    redis_migrate.rate_limit_headers(text, redis_migrate.rate_limit_result), redis_migrate.rate_limit_changed(),
    redis_migrate.rate_limit_step(bigint, text, bigint, bigint, bigint), redis_migrate.rate_limit_stepped(integer),
    redis_migrate.rate_limit_counters(), redis_migrate.rate_limit_capacity(),
    redis_migrate.reset_rate_limit_stats(text), redis_migrate.save_rate_limits()
    FROM PUBLIC;
GRANT SELECT ON redis_migrate.rate_limit_policies, redis_migrate.rate_limit_exceptions TO PUBLIC;
GRANT SELECT ON redis_migrate.rate_limit_stats TO pg_monitor;
GRANT EXECUTE ON FUNCTION redis_migrate.rate_limit_counters(), redis_migrate.rate_limit_capacity() TO pg_monitor;
-- Rate limits that begin elsewhere.

CREATE FUNCTION redis_migrate.import_rate_limit(policy text, key text, used bigint DEFAULT NULL, reset_at timestamptz DEFAULT NULL,
        previous bigint DEFAULT NULL, tat bigint DEFAULT NULL, no_ttl text DEFAULT 'reject') RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_import_rate_limit';
COMMENT ON FUNCTION redis_migrate.import_rate_limit(text, text, bigint, timestamptz, bigint, bigint, text) IS
    'Lets a key go on from what another limiter counted: used until reset_at (and in the previous window, for sliding_window), or the theoretical arrival time in nanoseconds since 1970 for gcra; returns what remains. no_ttl says what becomes of a counter without reset_at: reject it, forever, or full_window. See docs/importing-limits.md';
REVOKE ALL ON FUNCTION redis_migrate.import_rate_limit(text, text, bigint, timestamptz, bigint, bigint, text) FROM PUBLIC;
-- Login lockouts: who fails too often, by user name, address, user agent or combinations of them, has to wait.

CREATE TABLE redis_migrate.lockout_policy (
    policy            text PRIMARY KEY CHECK (policy OPERATOR(pg_catalog.<>) ''),
    policy_id         uuid NOT NULL UNIQUE DEFAULT pg_catalog.gen_random_uuid(),
    owner             redis_migrate.owner_role NOT NULL,
    time_window       interval NOT NULL,
    cool_off          interval,
    cool_off_mode     text NOT NULL CHECK (cool_off_mode OPERATOR(pg_catalog.=) ANY (ARRAY['fixed', 'rolling', 'inactivity'])),
    extend_on_attempt boolean NOT NULL,
    reset_on_success  boolean NOT NULL,
    fold_case         boolean NOT NULL,
    ipv6_prefix       integer NOT NULL,
    allowed_networks  cidr[] NOT NULL,
    pending_timeout   interval NOT NULL,
    notify_channel    text
);
COMMENT ON TABLE redis_migrate.lockout_policy IS
    'Policies of login lockouts. policy_id is part of the keys of its counters: nobody inherits those of a dropped policy';

CREATE TABLE redis_migrate.lockout_scope (
    policy   text NOT NULL REFERENCES redis_migrate.lockout_policy ON DELETE CASCADE,
    scope    text NOT NULL,
    failures integer NOT NULL,
    cool_off interval,
    PRIMARY KEY (policy, scope, failures)
);
COMMENT ON TABLE redis_migrate.lockout_scope IS
    'What a policy counts by, and how many failures lock for how long; cool_off NULL: that of the policy, otherwise its time_window';

CREATE TABLE redis_migrate.login_attempt (
    attempt_id   bigint PRIMARY KEY,
    attempted_at timestamptz NOT NULL,
    policy       text NOT NULL,
    owner        redis_migrate.owner_role NOT NULL,
    user_name    text,
    address      inet,
    user_agent   text,
    attempt_type text NOT NULL,
    success      boolean,
    reason       text,
    locks        boolean NOT NULL,
    locked_by    text,
    locked_until timestamptz
);
CREATE INDEX login_attempt_time ON redis_migrate.login_attempt (attempted_at);
CREATE INDEX login_attempt_user_name ON redis_migrate.login_attempt (user_name, attempted_at);
CREATE INDEX login_attempt_address ON redis_migrate.login_attempt (address, attempted_at);
COMMENT ON TABLE redis_migrate.login_attempt IS
    'Attempts to log in and resets of lockouts (success NULL), as write_login_attempts took them from the queue in shared memory';

CREATE FUNCTION redis_migrate.create_lockout(policy text, scopes jsonb DEFAULT '{"user_name": 5, "address": 15}',
        time_window interval DEFAULT '15 minutes', cool_off interval DEFAULT NULL, cool_off_mode text DEFAULT 'fixed',
        extend_on_attempt boolean DEFAULT false, reset_on_success boolean DEFAULT true, fold_case boolean DEFAULT true,
        ipv6_prefix integer DEFAULT 64, allowed_networks cidr[] DEFAULT '{}', pending_timeout interval DEFAULT '1 minute',
        notify_channel text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_create_lockout';
COMMENT ON FUNCTION redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text) IS
    'Creates a policy of login lockouts. scopes: what to count by (user_name, address, user_agent, joined by +) and how many failures lock. See docs/lockouts.md';

CREATE FUNCTION redis_migrate.alter_lockout(policy text, scopes jsonb DEFAULT NULL, time_window interval DEFAULT NULL,
        cool_off interval DEFAULT NULL, cool_off_mode text DEFAULT NULL, extend_on_attempt boolean DEFAULT NULL,
        reset_on_success boolean DEFAULT NULL, fold_case boolean DEFAULT NULL, ipv6_prefix integer DEFAULT NULL,
        allowed_networks cidr[] DEFAULT NULL, pending_timeout interval DEFAULT NULL, notify_channel text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_lockout';
COMMENT ON FUNCTION redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text) IS
    'Changes a policy; NULL leaves a property as it is. What was counted is judged by the new rules at once';

CREATE FUNCTION redis_migrate.drop_lockout(policy text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_lockout';
COMMENT ON FUNCTION redis_migrate.drop_lockout(text) IS 'Drops a policy; recorded attempts stay';

CREATE TYPE redis_migrate.login_answer AS (
    allowed      boolean,
    reason       text,
    blocked_by   text,
    retry_after  interval,
    retry_after_seconds double precision,
    locked_until timestamptz,
    remaining    integer,
    token        bigint
);
COMMENT ON TYPE redis_migrate.login_answer IS
    'What login_check and login_result answer. reason: ok, locked, pending (attempts in flight leave no room) or exempt (not counted)';

CREATE FUNCTION redis_migrate.login_check(policy text, user_name text, address inet, user_agent text DEFAULT NULL,
        attempt_type text DEFAULT 'login') RETURNS redis_migrate.login_answer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_login_check';
COMMENT ON FUNCTION redis_migrate.login_check(text, text, inet, text, text) IS
    'Whether a login may be tried; reserves the attempt until login_result. To be called before the password is looked at';

CREATE FUNCTION redis_migrate.login_result(policy text, user_name text, address inet, success boolean, token bigint DEFAULT NULL,
        user_agent text DEFAULT NULL, reason text DEFAULT NULL, attempt_type text DEFAULT 'login') RETURNS redis_migrate.login_answer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_login_result';
COMMENT ON FUNCTION redis_migrate.login_result(text, text, inet, boolean, bigint, text, text, text) IS
    'The result of an attempt that login_check has let in, by its token; or, without a token, of one that was not checked';

CREATE FUNCTION redis_migrate.lockout_status(policy text, user_name text, address inet, user_agent text DEFAULT NULL)
    RETURNS TABLE (scope text, failures integer, pending integer, remaining integer, locked boolean, locked_until timestamptz, retry_after interval,
                   retry_after_seconds double precision)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 3 AS 'MODULE_PATHNAME', 'prm_lockout_status';
COMMENT ON FUNCTION redis_migrate.lockout_status(text, text, inet, text) IS
    'The counters of a login, without counting an attempt; none for one that is exempt';

CREATE FUNCTION redis_migrate.login_check_at(policy text, user_name text, address inet, user_agent text, attempt_type text,
        at timestamptz) RETURNS redis_migrate.login_answer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_login_check_at';
COMMENT ON FUNCTION redis_migrate.login_check_at(text, text, inet, text, text, timestamptz) IS
    'login_check at a given time, for tests and simulations; only for the owner of the policy';

CREATE FUNCTION redis_migrate.login_result_at(policy text, user_name text, address inet, success boolean, token bigint,
        user_agent text, reason text, attempt_type text, at timestamptz) RETURNS redis_migrate.login_answer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_login_result_at';
COMMENT ON FUNCTION redis_migrate.login_result_at(text, text, inet, boolean, bigint, text, text, text, timestamptz) IS
    'login_result at a given time, for tests and simulations; only for the owner of the policy';

CREATE FUNCTION redis_migrate.lockout_status_at(policy text, user_name text, address inet, user_agent text, at timestamptz)
    RETURNS TABLE (scope text, failures integer, pending integer, remaining integer, locked boolean, locked_until timestamptz, retry_after interval,
                   retry_after_seconds double precision)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 3 AS 'MODULE_PATHNAME', 'prm_lockout_status_at';
COMMENT ON FUNCTION redis_migrate.lockout_status_at(text, text, inet, text, timestamptz) IS
    'lockout_status at a given time; only for the owner of the policy';

CREATE FUNCTION redis_migrate.reset_lockout(policy text, user_name text DEFAULT NULL, address inet DEFAULT NULL,
        everything boolean DEFAULT false) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_reset_lockout';
COMMENT ON FUNCTION redis_migrate.reset_lockout(text, text, inet, boolean) IS
    'Forgets the counters of a user name, an address, both, or everything, and so ends their locks; returns how many. Recorded in login_attempts';

CREATE FUNCTION redis_migrate.import_lockout(policy text, user_name text, address inet, failures integer, last_failure timestamptz,
        user_agent text DEFAULT NULL, no_ttl text DEFAULT 'reject') RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_import_lockout';
COMMENT ON FUNCTION redis_migrate.import_lockout(text, text, inet, integer, timestamptz, text, text) IS
    'Makes the counter of exactly the columns that are not NULL at least as high as another system had it; doing it twice changes nothing. no_ttl says what becomes of failures without last_failure: reject them, forever, or full_window';

CREATE FUNCTION redis_migrate.reset_lockout_stats(policy text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_reset_lockout_stats';
COMMENT ON FUNCTION redis_migrate.reset_lockout_stats(text) IS 'Sets the statistics of a policy to zero; its counters stay';

CREATE PROCEDURE redis_migrate.write_login_attempts()
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_write_login_attempts';
COMMENT ON PROCEDURE redis_migrate.write_login_attempts() IS
    'Writes the attempts that wait in shared memory to their table, a batch per transaction, and notifies of locks; for the background worker or a session';

CREATE FUNCTION redis_migrate.attempts_due() RETURNS timestamptz
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_attempts_due';
COMMENT ON FUNCTION redis_migrate.attempts_due() IS
    'When write_login_attempts has something to write, perhaps in the past; NULL when no attempt of this database waits';

-- Functions for the views below.

CREATE FUNCTION redis_migrate.lockout_counts()
    RETURNS TABLE (policy_id uuid, checks bigint, allowed bigint, locked bigint, pending bigint, exempt bigint, successes bigint,
                   failures bigint, timeouts bigint, locks bigint, evicted bigint, locks_evicted bigint, shared_counters bigint,
                   dropped bigint, entries bigint, stats_reset timestamptz)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_lockout_counts';
COMMENT ON FUNCTION redis_migrate.lockout_counts() IS 'Statistics of the lockout policies of this database; see the view lockout_stats';

CREATE FUNCTION redis_migrate.login_attempt_queue()
    RETURNS TABLE (capacity bigint, waiting bigint, waiting_here bigint, dropped bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'prm_login_attempt_queue';
COMMENT ON FUNCTION redis_migrate.login_attempt_queue() IS
    'The queue of login attempts in shared memory: places, attempts that wait (of all databases; of this one), and those dropped since the server started because it was full';

-- See it. Each view shows the caller what belongs to roles whose rights the caller has.

CREATE VIEW redis_migrate.lockout_policies WITH (security_barrier) AS
    SELECT p.policy, redis_migrate.shown_owner(p.owner) AS owner, s.scopes, p.time_window, p.cool_off, p.cool_off_mode, p.extend_on_attempt, p.reset_on_success, p.fold_case,
           p.ipv6_prefix, p.allowed_networks, p.pending_timeout, p.notify_channel
    FROM redis_migrate.lockout_policy AS p
    CROSS JOIN LATERAL (
        SELECT pg_catalog.jsonb_object_agg(t.scope, t.tiers) AS scopes
        FROM (SELECT l.scope, CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 AND pg_catalog.bool_and(l.cool_off IS NULL)
                                   THEN pg_catalog.to_jsonb(pg_catalog.min(l.failures))
                                   ELSE pg_catalog.jsonb_object_agg(l.failures, l.cool_off) END AS tiers
              FROM redis_migrate.lockout_scope AS l WHERE l.policy OPERATOR(pg_catalog.=) p.policy GROUP BY l.scope) AS t) AS s
    WHERE redis_migrate.may_see(p.owner);
COMMENT ON VIEW redis_migrate.lockout_policies IS 'Lockout policies that the caller may use; scopes as create_lockout takes them';

CREATE VIEW redis_migrate.login_attempts WITH (security_barrier) AS
    SELECT attempt_id, attempted_at, policy, user_name, address, user_agent, attempt_type, success, reason, locks, locked_by, locked_until
    FROM redis_migrate.login_attempt
    WHERE redis_migrate.may_see(owner);
COMMENT ON VIEW redis_migrate.login_attempts IS
    'Attempts of the policies that the caller may use. reason: what the application gave, otherwise locked, pending, no result, or who made a reset';

CREATE VIEW redis_migrate.login_attempts_by_address WITH (security_barrier) AS
    SELECT policy, address, pg_catalog.count(*) AS attempts, pg_catalog.count(*) FILTER (WHERE success) AS successes,
           pg_catalog.count(*) FILTER (WHERE NOT success) AS failures, pg_catalog.count(*) FILTER (WHERE locks) AS locks,
           pg_catalog.count(DISTINCT user_name) AS user_names, pg_catalog.min(attempted_at) AS first_at, pg_catalog.max(attempted_at) AS last_at
    FROM redis_migrate.login_attempts WHERE success IS NOT NULL GROUP BY policy, address;
COMMENT ON VIEW redis_migrate.login_attempts_by_address IS 'Recorded attempts per policy and address';

CREATE VIEW redis_migrate.login_attempts_by_user WITH (security_barrier) AS
    SELECT policy, user_name, pg_catalog.count(*) AS attempts, pg_catalog.count(*) FILTER (WHERE success) AS successes,
           pg_catalog.count(*) FILTER (WHERE NOT success) AS failures, pg_catalog.count(*) FILTER (WHERE locks) AS locks,
           pg_catalog.count(DISTINCT address) AS addresses, pg_catalog.min(attempted_at) AS first_at, pg_catalog.max(attempted_at) AS last_at
    FROM redis_migrate.login_attempts WHERE success IS NOT NULL GROUP BY policy, user_name;
COMMENT ON VIEW redis_migrate.login_attempts_by_user IS 'Recorded attempts per policy and user name';

CREATE VIEW redis_migrate.login_attempts_by_hour WITH (security_barrier) AS
    SELECT policy, pg_catalog.date_trunc('hour', attempted_at) AS hour, pg_catalog.count(*) AS attempts,
           pg_catalog.count(*) FILTER (WHERE success) AS successes, pg_catalog.count(*) FILTER (WHERE NOT success) AS failures,
           pg_catalog.count(*) FILTER (WHERE locks) AS locks, pg_catalog.count(DISTINCT user_name) AS user_names,
           pg_catalog.count(DISTINCT address) AS addresses
    FROM redis_migrate.login_attempts WHERE success IS NOT NULL GROUP BY policy, pg_catalog.date_trunc('hour', attempted_at);
COMMENT ON VIEW redis_migrate.login_attempts_by_hour IS 'Recorded attempts per policy and hour';

CREATE VIEW redis_migrate.lockouts WITH (security_barrier) AS
    SELECT DISTINCT a.policy, s.scope, CASE WHEN s.scope OPERATOR(pg_catalog.~) 'user_name' THEN a.user_name END AS user_name,
           CASE WHEN s.scope OPERATOR(pg_catalog.~) 'address'
                THEN CASE WHEN pg_catalog.family(a.address) OPERATOR(pg_catalog.=) 6
                          THEN pg_catalog.network(pg_catalog.set_masklen(a.address, a.ipv6_prefix)) ELSE pg_catalog.network(a.address) END END AS network,
           CASE WHEN s.scope OPERATOR(pg_catalog.~) 'user_agent' THEN a.user_agent END AS user_agent,
           s.failures, s.locked_until, s.retry_after, s.retry_after_seconds
    FROM (SELECT DISTINCT l.policy, l.user_name, l.address, l.user_agent, p.ipv6_prefix
          FROM redis_migrate.login_attempt AS l JOIN redis_migrate.lockout_policy AS p USING (policy)
          WHERE l.locked_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() AND redis_migrate.may_see(p.owner) OFFSET 0) AS a
    CROSS JOIN LATERAL redis_migrate.lockout_status(a.policy, a.user_name, a.address, a.user_agent) AS s
    WHERE s.locked;
COMMENT ON VIEW redis_migrate.lockouts IS
    'Who is locked now: logins whose recorded attempts were refused by a lock, as far as their counters still say so';

CREATE VIEW redis_migrate.lockout_stats WITH (security_barrier) AS
    SELECT p.policy, c.checks, c.allowed, c.locked, c.pending, c.exempt, c.successes, c.failures, c.timeouts, c.locks, c.entries,
           c.evicted, c.locks_evicted, c.shared_counters, c.dropped, c.stats_reset
    FROM redis_migrate.lockout_policy AS p JOIN redis_migrate.lockout_counts() AS c USING (policy_id);
COMMENT ON VIEW redis_migrate.lockout_stats IS
    'Per policy: answers of login_check, results, locks that began, counters in memory; evicted: counters that had to make room, locks_evicted: those of them that locked; shared_counters: counters of whole networks that began because memory was full of locks; dropped: attempts that the full queue did not keep';

GRANT EXECUTE ON FUNCTION redis_migrate.lockout_counts(), redis_migrate.login_attempt_queue() TO pg_monitor;
GRANT SELECT ON redis_migrate.lockout_stats TO pg_monitor;
GRANT SELECT ON redis_migrate.lockout_policies, redis_migrate.login_attempts, redis_migrate.login_attempts_by_address,
    redis_migrate.login_attempts_by_user, redis_migrate.login_attempts_by_hour, redis_migrate.lockouts TO PUBLIC;

-- The interface of YOUTILITY3: the same names, arguments and results.

CREATE FUNCTION redis_migrate.check_rate_limit(p_ip_address inet, p_username varchar DEFAULT NULL,
        p_time_window interval DEFAULT '15 minutes', p_max_attempts integer DEFAULT 5) RETURNS json
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_check_rate_limit';
COMMENT ON FUNCTION redis_migrate.check_rate_limit(inet, varchar, interval, integer) IS
    'Whether a user name (at p_max_attempts) or an address (at three times as many) has failed too often, by the lockout policy auth_rate_limit';

CREATE FUNCTION redis_migrate.log_rate_limit_attempt(p_ip_address inet, p_username varchar DEFAULT NULL, p_user_agent text DEFAULT NULL,
        p_attempt_type varchar DEFAULT 'login', p_success boolean DEFAULT false, p_failure_reason varchar DEFAULT NULL) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_log_rate_limit_attempt';
COMMENT ON FUNCTION redis_migrate.log_rate_limit_attempt(inet, varchar, text, varchar, boolean, varchar) IS
    'Counts and records an attempt for check_rate_limit; 1, or 0 where the full queue dropped the record';

CREATE FUNCTION redis_migrate.cleanup_old_rate_limit_attempts(p_keep_duration interval DEFAULT '7 days') RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_cleanup_old_rate_limit_attempts';
COMMENT ON FUNCTION redis_migrate.cleanup_old_rate_limit_attempts(interval) IS
    'Deletes recorded attempts that are older, of the policies that the caller may use; how many';

-- Each policy takes shared memory, and each call tells of other people's logins: a DBA grants them.
REVOKE ALL ON FUNCTION
    redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text),
    redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text),
    redis_migrate.drop_lockout(text), redis_migrate.login_check(text, text, inet, text, text),
    redis_migrate.login_result(text, text, inet, boolean, bigint, text, text, text),
    redis_migrate.lockout_status(text, text, inet, text),
    redis_migrate.login_check_at(text, text, inet, text, text, timestamptz),
    redis_migrate.login_result_at(text, text, inet, boolean, bigint, text, text, text, timestamptz),
    redis_migrate.lockout_status_at(text, text, inet, text, timestamptz),
    redis_migrate.reset_lockout(text, text, inet, boolean),
    redis_migrate.import_lockout(text, text, inet, integer, timestamptz, text, text), redis_migrate.reset_lockout_stats(text),
    redis_migrate.attempts_due(), redis_migrate.lockout_counts(), redis_migrate.login_attempt_queue(),
    redis_migrate.check_rate_limit(inet, varchar, interval, integer),
    redis_migrate.log_rate_limit_attempt(inet, varchar, text, varchar, boolean, varchar),
    redis_migrate.cleanup_old_rate_limit_attempts(interval)
    FROM PUBLIC;
REVOKE ALL ON PROCEDURE redis_migrate.write_login_attempts() FROM PUBLIC;

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['lockout_policy', 'lockout_scope', 'login_attempt'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;
-- Tables of other parts that define background work: a commit there wakes the scheduler.

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['job', 'stale_mark'] LOOP
        IF pg_catalog.to_regclass('redis_migrate.' OPERATOR(pg_catalog.||) relation) IS NOT NULL THEN
            EXECUTE pg_catalog.format('CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE OR DELETE ON redis_migrate.%I
                FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers()', relation);
            EXECUTE pg_catalog.format('COMMENT ON TRIGGER wake_workers ON redis_migrate.%I IS ''Wakes the scheduler''', relation);
        END IF;
    END LOOP;
END
$$;
-- All definitions and their owners: what a role has to drop before it is dropped, what a dump brought, what nobody owns.

CREATE VIEW redis_migrate.definitions WITH (security_barrier) AS
    SELECT d.kind, d.name, redis_migrate.owner_oid(d.owner)::regrole AS owner, redis_migrate.owner_name(d.owner) AS owner_name,
           redis_migrate.is_restored(d.owner) AS restored,
           coalesce(redis_migrate.owner_problem(d.owner),
                    CASE WHEN d.acts AND redis_migrate.is_restored(d.owner)
                         THEN 'restored: it waits for CALL redis_migrate.resume_restored()' END) AS problem
    FROM (SELECT 'migration' AS kind, migration AS name, owner, false AS acts FROM redis_migrate.migration
          UNION ALL SELECT 'background run', migration, owner, wanted FROM redis_migrate.background_run
          UNION ALL SELECT 'audit', audit_id::text, owner, false FROM redis_migrate.audit
          UNION ALL SELECT kind, name, owner, true FROM redis_migrate.job
          UNION ALL SELECT 'rate limit', policy, owner, false FROM redis_migrate.rate_limit_policy
          UNION ALL SELECT 'lockout', policy, owner, false FROM redis_migrate.lockout_policy) AS d
    WHERE redis_migrate.may_see(d.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.definitions IS
    'Definitions of the caller, for members of pg_monitor all: whose they are, whether they came by a dump, and why one is out of action';
GRANT SELECT ON redis_migrate.definitions TO PUBLIC;

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['migration', 'audit', 'job', 'rate_limit_policy', 'lockout_policy'] LOOP
        EXECUTE pg_catalog.format('CREATE TRIGGER release_owner AFTER DELETE OR UPDATE OF owner ON redis_migrate.%I
            FOR EACH ROW EXECUTE FUNCTION redis_migrate.release_owner()', relation);
        EXECUTE pg_catalog.format('COMMENT ON TRIGGER release_owner ON redis_migrate.%I IS ''Revokes what its owner no longer needs''', relation);
    END LOOP;
END
$$;

CREATE FUNCTION redis_migrate.take_over(kind text, name text, new_owner name DEFAULT CURRENT_USER) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_take_over';
COMMENT ON FUNCTION redis_migrate.take_over(text, text, name) IS
    'Makes a role the owner of a definition, named as in the view definitions; only for superusers. What was restored goes on';
REVOKE ALL ON FUNCTION redis_migrate.take_over(text, text, name) FROM PUBLIC;

CREATE PROCEDURE redis_migrate.resume_restored()
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_resume_restored';
COMMENT ON PROCEDURE redis_migrate.resume_restored() IS
    'Says that a restore has ended: definitions that it brought go on, those of the caller, or all for a superuser';
