-- Whose a family is: the keys of a pattern, with all its mappings, belong to Redis, or to PostgreSQL.

CREATE TABLE redis_migrate.family_change (
    change_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration  text NOT NULL REFERENCES redis_migrate.migration ON DELETE CASCADE,
    pattern    text NOT NULL,
    state      text NOT NULL CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['redis', 'cutting', 'both', 'postgres', 'done'])),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    changed_by name NOT NULL DEFAULT SESSION_USER,
    note       text
);
CREATE INDEX family_change_of ON redis_migrate.family_change (migration, pattern, change_id);
COMMENT ON TABLE redis_migrate.family_change IS
    'The states of families, one after another. A family without a row is in state redis';
COMMENT ON SEQUENCE redis_migrate.family_change_change_id_seq IS 'Order of the changes of families';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['family_change', 'family_change_change_id_seq'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;

CREATE FUNCTION redis_migrate.set_family_state(migration text, pattern text, state text, note text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_set_family_state';
COMMENT ON FUNCTION redis_migrate.set_family_state(text, text, text, text) IS
    'Says whose the keys of a pattern are: redis, cutting (still Redis''), both, postgres or done. In the last three states, runs and live sync leave the rows of the pattern''s mappings alone. If a reverse feed rests because the family was given back to Redis, one of these three states ends that: all rows are written to Redis, and keys without rows are removed. Waits for batches that are under way';

CREATE VIEW redis_migrate.families WITH (security_barrier) AS
    SELECT g.migration, redis_migrate.shown_owner(g.owner) AS owner, f.pattern, f.mappings, coalesce(c.state, 'redis') AS state,
           c.changed_at AS since, c.changed_by, c.note
    FROM redis_migrate.migration AS g
    CROSS JOIN LATERAL (SELECT m.pattern, pg_catalog.array_agg(m.mapping ORDER BY m.mapping_id) AS mappings
                        FROM redis_migrate.mapping AS m WHERE m.migration OPERATOR(pg_catalog.=) g.migration GROUP BY m.pattern) AS f
    LEFT JOIN LATERAL (SELECT * FROM redis_migrate.family_change AS x
                       WHERE x.migration OPERATOR(pg_catalog.=) g.migration AND x.pattern OPERATOR(pg_catalog.=) f.pattern
                       ORDER BY x.change_id DESC LIMIT 1) AS c ON true
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.families IS
    'The families of the caller''s migrations, or all for members of pg_monitor: a pattern with all its mappings, and whose its keys are. since is NULL if the state never changed';

CREATE VIEW redis_migrate.family_changes WITH (security_barrier) AS
    SELECT c.change_id, c.migration, c.pattern, c.state, c.changed_at, c.changed_by, c.note
    FROM redis_migrate.family_change AS c JOIN redis_migrate.migration AS g USING (migration)
    WHERE redis_migrate.may_see(g.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.family_changes IS 'The history of families: each state, since when, and who set it';
