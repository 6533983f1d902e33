-- Numbers and lengths of time that mean nothing are refused, with what is allowed.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
CREATE TABLE timed (id int PRIMARY KEY, expires_at timestamptz);
CREATE INDEX ON timed (expires_at);
CREATE MATERIALIZED VIEW times AS SELECT count(*) FROM timed;
SELECT redis_migrate.create_rate_limit('ranges', '10/s'), redis_migrate.create_lockout('auth_rate_limit', cool_off_mode => 'rolling', extend_on_attempt => true);
CREATE FUNCTION all_refused(calls text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    call text;
    said text;
    hint text;
BEGIN
    FOREACH call IN ARRAY calls LOOP
        BEGIN
            EXECUTE 'SELECT ' || call;
            RETURN NEXT call || ': taken';
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
            RETURN NEXT concat_ws(' ', SQLSTATE, said, nullif('(' || hint || ')', '()'));
        END;
    END LOOP;
END
$$;

\echo == rate limits
SELECT all_refused(ARRAY[
    $$redis_migrate.add_rate_limit_deny('ranges', 'u', '0')$$,
    $$redis_migrate.add_rate_limit_deny('ranges', 'u', '-1 hour')$$,
    $$redis_migrate.add_rate_limit_deny('ranges', inet '192.0.2.1', '-1 hour')$$,
    $$redis_migrate.add_rate_limit_deny('ranges', 'u', '1 month -31 days')$$,
    $$redis_migrate.add_rate_limit_deny('ranges', 'u', '178000000 years')$$,
    $$redis_migrate.set_rate_limit_override('ranges', 'u', 0)$$,
    $$redis_migrate.set_rate_limit_override('ranges', 'u', 1, '-1 s')$$,
    $$redis_migrate.set_rate_limit_override('ranges', 'u', 1, '74 years')$$,
    $$redis_migrate.set_rate_limit_override('ranges', 'u', 1, burst => 0)$$,
    $$redis_migrate.rate_limit_adhoc('n', 'u', '1/s', burst => 0)$$]);
SELECT count(*) FROM redis_migrate.rate_limit_exceptions WHERE policy = 'ranges';
SELECT redis_migrate.add_rate_limit_deny('ranges', 'u', '1 month'), redis_migrate.add_rate_limit_deny('ranges', 'v', NULL);
SELECT key, expires_at > now() + interval '27 days' FROM redis_migrate.rate_limit_exceptions WHERE policy = 'ranges' ORDER BY key;

\echo == lockouts
SELECT all_refused(ARRAY[
    $$redis_migrate.alter_lockout('auth_rate_limit', time_window => '-1 s')$$,
    $$redis_migrate.alter_lockout('auth_rate_limit', time_window => '178000000 years')$$,
    $$redis_migrate.alter_lockout('auth_rate_limit', scopes => '{"address": 1.5}')$$,
    $$redis_migrate.check_rate_limit('192.0.2.1', p_time_window => '-1 s')$$,
    $$redis_migrate.check_rate_limit('192.0.2.1', p_max_attempts => 2147483647)$$,
    $$redis_migrate.cleanup_old_rate_limit_attempts('-7 days')$$,
    $$redis_migrate.cleanup_old_rate_limit_attempts('178000000 years')$$,
    $$redis_migrate.import_lockout('auth_rate_limit', 'ada', NULL, 5, 'infinity')$$]);

\echo == expiry, refreshes and retention
SELECT all_refused(ARRAY[
    $$redis_migrate.add_expiry('timed', 'expires_at', every => '-1 s')$$,
    $$redis_migrate.add_expiry('timed', 'expires_at', lifetime => '178000000 years')$$,
    $$redis_migrate.add_expiry('timed', 'expires_at', grace => '178000000 years')$$,
    $$redis_migrate.add_expiry('timed', 'expires_at', batch_time => '0')$$,
    $$redis_migrate.add_expiry('timed', 'expires_at', max_replication_lag => '-1 s')$$,
    $$redis_migrate.add_expiry('timed', 'expires_at', max_replication_lag => '178000000 years')$$,
    $$redis_migrate.add_expiry('timed', 'expires_at', max_xmin_age => -1)$$,
    $$redis_migrate.add_refresh('times', every => '1 ms', concurrently => false)$$,
    $$redis_migrate.add_refresh('times', debounce => '178000000 years', concurrently => false)$$,
    $$redis_migrate.set_retention('audits', '-1 day')$$,
    $$redis_migrate.set_retention('audits', '178000000 years')$$]);

\echo == runs, verifications and audits
CALL redis_migrate.run('nosuch', dry_run => true, max_keys => -1);
SELECT redis_migrate.preview('nosuch', max_keys => -1);
CALL redis_migrate.run('nosuch', workers => 0);
CALL redis_migrate.wait_for('nosuch', '-1 s');
CALL redis_migrate.wait_for('nosuch', '178000000 years');
CALL redis_migrate.verify('nosuch', sample => 'infinity');
CALL redis_migrate.audit('nosuch', sample => 'infinity');
CALL redis_migrate.audit('nosuch', sample => 'NaN');
CALL redis_migrate.audit('nosuch', sample => 1.5);
CALL redis_migrate.audit('nosuch', max_duration => '-1 s');
CALL redis_migrate.audit('nosuch', max_duration => '178000000 years');

\echo == cutover and reverse feed
CALL redis_migrate.cutover('nosuch', 'confirmed', max_pause => '99 ms');
CALL redis_migrate.cutover('nosuch', 'confirmed', max_pause => NULL);
CALL redis_migrate.cutover('nosuch', 'confirmed', compare_keys => -1);
CALL redis_migrate.cutover('nosuch', 'confirmed', compare_keys => NULL);
CALL redis_migrate.cutover('nosuch', 'confirmed', verified_within => '-1 s');
CALL redis_migrate.cutover('nosuch', 'confirmed', verified_within => NULL);
CALL redis_migrate.cutback('nosuch', max_wait => '0');
CALL redis_migrate.cutback('nosuch', max_wait => NULL);
CALL redis_migrate.check_reverse('nosuch', keys => 0);
CALL redis_migrate.check_reverse('nosuch', keys => NULL);

SELECT redis_migrate.drop_rate_limit('ranges'), redis_migrate.drop_lockout('auth_rate_limit');
DROP FUNCTION all_refused;
DROP MATERIALIZED VIEW times;
DROP TABLE timed;
