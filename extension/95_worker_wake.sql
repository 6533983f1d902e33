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
