-- The journal of runs and live sessions, and how it is undone.

CREATE TABLE redis_migrate.journal (
    run_id      bigint NOT NULL,
    journal_id  bigint GENERATED ALWAYS AS IDENTITY,
    mapping_id  bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    target      text NOT NULL,
    columns     text[] NOT NULL,
    row_key     text[] NOT NULL,
    earlier     text[],
    later       text[],
    PRIMARY KEY (run_id, journal_id)
);
CREATE INDEX journal_recorded ON redis_migrate.journal (recorded_at);
COMMENT ON TABLE redis_migrate.journal IS
    'The rows that runs and live sessions have changed, in the order in which they did. columns: those of the target then, the key columns first, whose values are row_key. earlier: the values of the row before, as texts; NULL: there was no such row. later: the values afterwards, NULL for one that stayed, an empty text for NULL, else 32 digits of the SHA-256 of the text; NULL altogether: the row was deleted. Deleted after pg_redis_migrate.journal_retention';
COMMENT ON SEQUENCE redis_migrate.journal_journal_id_seq IS 'Order of changes in the journal';

CREATE TABLE redis_migrate.undo (
    run_id      bigint PRIMARY KEY REFERENCES redis_migrate.run ON DELETE CASCADE,
    state       text NOT NULL CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'dry_run'])),
    force       boolean NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    pid         integer NOT NULL DEFAULT pg_catalog.pg_backend_pid()
);
COMMENT ON TABLE redis_migrate.undo IS 'Runs that were undone, or are being undone: the last call for each';

CREATE TABLE redis_migrate.undo_count (
    run_id   bigint NOT NULL REFERENCES redis_migrate.undo ON DELETE CASCADE,
    mapping  text NOT NULL,
    restored bigint NOT NULL DEFAULT 0,
    put_back bigint NOT NULL DEFAULT 0,
    removed  bigint NOT NULL DEFAULT 0,
    left_alone bigint NOT NULL DEFAULT 0,
    failed   bigint NOT NULL DEFAULT 0,
    unknown  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, mapping)
);
COMMENT ON TABLE redis_migrate.undo_count IS
    'What undoing a run did to the rows of each mapping. left_alone: rows that somebody else has changed since; failed: rows that the target refused; unknown: changes of the run that are not in its journal';

CREATE TABLE redis_migrate.undo_left (
    run_id   bigint NOT NULL REFERENCES redis_migrate.undo ON DELETE CASCADE,
    left_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping  text NOT NULL,
    row_key  text[] NOT NULL,
    sqlstate text,
    reason   text NOT NULL
);
CREATE INDEX undo_left_run ON redis_migrate.undo_left (run_id);
COMMENT ON TABLE redis_migrate.undo_left IS
    'Rows that were not undone, and why: the first thousand of each call';
COMMENT ON SEQUENCE redis_migrate.undo_left_left_id_seq IS 'Numbers of rows that were not undone';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['journal', 'undo', 'undo_count', 'undo_left', 'journal_journal_id_seq', 'undo_left_left_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE PROCEDURE redis_migrate.undo_run(run_id bigint, dry_run boolean DEFAULT false, force boolean DEFAULT false)
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_undo_run';
COMMENT ON PROCEDURE redis_migrate.undo_run(bigint, boolean, boolean) IS
    'Gives the rows that a run or live session has written the values that they had before: removes those that it inserted, puts back those that it deleted. Rows that somebody else has changed since are left alone. dry_run: only says what would happen; force: also rows that somebody else has changed, and families that belong to PostgreSQL. Commits as it goes; when it is interrupted, the next call goes on';

CREATE VIEW redis_migrate.undos WITH (security_barrier) AS
    SELECT u.run_id, r.migration, c.mapping,
           CASE WHEN u.state OPERATOR(pg_catalog.=) 'running'
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(u.pid) AS a WHERE a.pid OPERATOR(pg_catalog.=) u.pid
                                     AND (a.backend_start IS NULL OR a.backend_start OPERATOR(pg_catalog.<=) u.updated_at))
                THEN 'interrupted' ELSE u.state END AS state,
           u.force, c.restored, c.put_back, c.removed, c.left_alone, c.failed, c.unknown, u.started_at, u.finished_at
    FROM redis_migrate.undo AS u JOIN redis_migrate.run AS r USING (run_id) LEFT JOIN redis_migrate.undo_count AS c USING (run_id)
    WHERE redis_migrate.may_see(r.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
    ORDER BY u.run_id, c.mapping COLLATE "C";
COMMENT ON VIEW redis_migrate.undos IS
    'What undo_run did, a line for each mapping: rows that got their earlier values, deleted rows that were put back, inserted rows that were removed, rows that were left alone because somebody else has changed them since, rows that the target refused, and changes that are not in the journal';

CREATE VIEW redis_migrate.undo_leftovers WITH (security_barrier) AS
    SELECT l.run_id, r.migration, l.mapping, l.row_key, l.sqlstate, l.reason
    FROM redis_migrate.undo_left AS l JOIN redis_migrate.run AS r USING (run_id)
    WHERE redis_migrate.may_see(r.owner)
    ORDER BY l.run_id, l.left_id;
COMMENT ON VIEW redis_migrate.undo_leftovers IS 'Rows that the last undo_run of a run did not undo, and why; the first thousand';

CREATE VIEW redis_migrate.journal_entries WITH (security_barrier) AS
    SELECT j.run_id, j.journal_id, r.migration, m.mapping, j.recorded_at,
           CASE WHEN j.earlier IS NULL THEN 'insert' WHEN j.later IS NULL THEN 'delete' ELSE 'update' END AS operation,
           j.row_key,
           pg_catalog.json_object(j.columns, j.earlier) AS earlier,
           CASE WHEN j.later IS NOT NULL AND j.earlier IS NOT NULL
                THEN ARRAY(SELECT c.name FROM ROWS FROM (pg_catalog.unnest(j.columns), pg_catalog.unnest(j.later)) AS c (name, later) WHERE c.later IS NOT NULL) END AS changed
    FROM redis_migrate.journal AS j JOIN redis_migrate.run AS r USING (run_id) LEFT JOIN redis_migrate.mapping AS m USING (mapping_id)
    WHERE redis_migrate.may_see(r.owner);
COMMENT ON VIEW redis_migrate.journal_entries IS
    'The rows that runs and live sessions of the caller''s migrations have changed or deleted, with their earlier values, and the columns that were changed';

GRANT SELECT ON redis_migrate.undos, redis_migrate.undo_leftovers, redis_migrate.journal_entries TO PUBLIC;
