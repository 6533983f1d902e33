-- All definitions and their owners: those to drop before DROP ROLE, those that a dump brought, and those without an owner.

CREATE VIEW redis_migrate.definitions WITH (security_barrier) AS
    SELECT d.kind, d.name, redis_migrate.owner_oid(d.owner)::regrole AS owner, redis_migrate.owner_name(d.owner) AS owner_name,
           redis_migrate.is_restored(d.owner) AS restored,
           coalesce(redis_migrate.owner_problem(d.owner),
                    CASE WHEN d.acts AND redis_migrate.is_restored(d.owner)
                         THEN 'restored: it waits for CALL redis_migrate.resume_restored()' END, d.problem) AS problem
    FROM (SELECT 'migration' AS kind, migration AS name, owner, false AS acts, NULL::text AS problem FROM redis_migrate.migration
          UNION ALL SELECT 'background run', migration, owner, wanted, NULL FROM redis_migrate.background_run
          UNION ALL SELECT 'audit', audit_id::text, owner, false, NULL FROM redis_migrate.audit
          UNION ALL SELECT kind, name, owner, true, problem FROM redis_migrate.job
          UNION ALL SELECT 'rate limit', policy, owner, false, NULL FROM redis_migrate.rate_limit_policy
          UNION ALL SELECT 'lockout', policy, owner, false, NULL FROM redis_migrate.lockout_policy) AS d
    WHERE redis_migrate.may_see(d.owner) OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW redis_migrate.definitions IS
    'Definitions of the caller, or all for members of pg_monitor: their owners, whether they came with a dump, and why a definition is disabled';

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
    'Makes a role the owner of a definition, which is named as in the view definitions. Only for superusers. A restored definition resumes';

CREATE PROCEDURE redis_migrate.resume_restored()
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_resume_restored';
COMMENT ON PROCEDURE redis_migrate.resume_restored() IS
    'Declares that a restore has ended, so that restored definitions resume: those of the caller, or all for a superuser';
