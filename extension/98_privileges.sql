-- Who has which privileges, all in one place: what ALTER DEFAULT PRIVILEGES of the role that creates the extension has given
-- on each object ends first, also on the tables behind the views, which decide whose SQL runs with whose rights. PUBLIC has
-- what PostgreSQL itself gives it: routines and types, unless default privileges have taken these from it.
DO $$
DECLARE
    known oid[] := '{}'; -- what an upgrade leaves as it is
    given text;
BEGIN
    FOR given IN
        SELECT DISTINCT pg_catalog.format('%s %s FROM %s', o.kind, o.name,
                   CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::oid THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM (
            SELECT 'SCHEMA', oid, nspname::text, nspowner, nspacl, false
            FROM pg_catalog.pg_namespace WHERE oid OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
            UNION ALL SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid, oid::regclass::text, relowner, relacl, false
            FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
            UNION ALL SELECT 'ROUTINE', oid, oid::regprocedure::text, proowner, proacl, true
            FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
            UNION ALL SELECT 'TYPE', oid, oid::regtype::text, typowner, typacl, true
            FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) 'redis_migrate'::regnamespace
        ) AS o (kind, oid, name, owner, acl, is_of_public) CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) AS a
        WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner AND NOT (o.is_of_public AND a.grantee OPERATOR(pg_catalog.=) 0::oid)
            AND o.oid OPERATOR(pg_catalog.<>) ALL (known)
    LOOP
        EXECUTE pg_catalog.concat('REVOKE ALL ON ', given);
    END LOOP;
END
$$;

GRANT SELECT ON redis_migrate.families, redis_migrate.family_changes TO PUBLIC;

GRANT SELECT ON redis_migrate.audits, redis_migrate.audit_families, redis_migrate.audit_largest_keys TO PUBLIC;

GRANT USAGE ON SCHEMA redis_migrate TO PUBLIC;
GRANT SELECT ON redis_migrate.migrations, redis_migrate.mappings, redis_migrate.checks, redis_migrate.skipped_patterns,
    redis_migrate.runs, redis_migrate.run_parts, redis_migrate.run_counts, redis_migrate.mapping_counts, redis_migrate.rejects,
    redis_migrate.archive, redis_migrate.archive_chunks, redis_migrate.progress TO PUBLIC;

GRANT SELECT ON redis_migrate.verifications, redis_migrate.verification_parts, redis_migrate.verification_counts, redis_migrate.verification_differences TO PUBLIC;

GRANT SELECT ON redis_migrate.undos, redis_migrate.undo_leftovers, redis_migrate.journal_entries TO PUBLIC;

GRANT SELECT ON redis_migrate.restores, redis_migrate.restore_counts, redis_migrate.restore_failures TO PUBLIC;

GRANT SELECT ON redis_migrate.background_runs, redis_migrate.workers TO PUBLIC;

GRANT SELECT ON redis_migrate.live_sync, redis_migrate.stat_live, redis_migrate.live_appliers TO PUBLIC;

GRANT SELECT ON redis_migrate.reverse_feeds, redis_migrate.reverse_rejects TO PUBLIC;

GRANT SELECT ON redis_migrate.cutovers, redis_migrate.fenced_users TO PUBLIC;
GRANT SELECT ON redis_migrate.late_writes, redis_migrate.late_writers TO PUBLIC;

REVOKE ALL ON FUNCTION redis_migrate.maintenance_owners() FROM PUBLIC;
REVOKE ALL ON FUNCTION redis_migrate.fail_maintenance(oid, text, text) FROM PUBLIC;
GRANT SELECT ON redis_migrate.expiry_policies, redis_migrate.expiry_stats, redis_migrate.stuck_rows, redis_migrate.refreshes, redis_migrate.job_runs TO PUBLIC;

REVOKE ALL ON FUNCTION redis_migrate.set_retention(text, interval) FROM PUBLIC;

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

REVOKE ALL ON FUNCTION redis_migrate.import_rate_limit(text, text, bigint, timestamptz, bigint, bigint, text) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION redis_migrate.lockout_counts(), redis_migrate.login_attempt_queue() TO pg_monitor;
GRANT SELECT ON redis_migrate.lockout_stats TO pg_monitor;
GRANT SELECT ON redis_migrate.lockout_policies, redis_migrate.login_attempts, redis_migrate.login_attempts_by_address,
    redis_migrate.login_attempts_by_user, redis_migrate.login_attempts_by_hour, redis_migrate.lockouts TO PUBLIC;
-- Each policy takes shared memory, and each call reveals other people's logins: a DBA grants them.
REVOKE ALL ON FUNCTION
    redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text),
    redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text),
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

GRANT SELECT ON redis_migrate.definitions TO PUBLIC;
REVOKE ALL ON FUNCTION redis_migrate.take_over(text, text, name) FROM PUBLIC;
