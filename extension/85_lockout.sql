-- Login lockouts: too many failures by user name, address, user agent or a combination of them lock the login for a time.

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
    notify_channel    text,
    when_full         text NOT NULL CHECK (when_full OPERATOR(pg_catalog.=) ANY (ARRAY['share', 'refuse']))
);
COMMENT ON TABLE redis_migrate.lockout_policy IS
    'Policies of login lockouts. policy_id is part of the counters'' keys, so no policy inherits the counters of a dropped one';

CREATE TABLE redis_migrate.lockout_scope (
    policy   text NOT NULL REFERENCES redis_migrate.lockout_policy ON DELETE CASCADE,
    scope    text NOT NULL,
    failures integer NOT NULL,
    cool_off interval,
    PRIMARY KEY (policy, scope, failures)
);
COMMENT ON TABLE redis_migrate.lockout_scope IS
    'The columns that a policy counts by, and how many failures lock for how long. cool_off NULL: that of the policy, or else its time_window';

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
    'Login attempts, and resets of lockouts (success NULL). write_login_attempts takes them from the queue in shared memory';

CREATE FUNCTION redis_migrate.create_lockout(policy text, scopes jsonb DEFAULT '{"user_name": 5, "address": 15}',
        time_window interval DEFAULT '15 minutes', cool_off interval DEFAULT NULL, cool_off_mode text DEFAULT 'fixed',
        extend_on_attempt boolean DEFAULT false, reset_on_success boolean DEFAULT true, fold_case boolean DEFAULT true,
        ipv6_prefix integer DEFAULT 64, allowed_networks cidr[] DEFAULT '{}', pending_timeout interval DEFAULT '1 minute',
        notify_channel text DEFAULT NULL, when_full text DEFAULT 'share') RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_create_lockout';
COMMENT ON FUNCTION redis_migrate.create_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text) IS
    'Creates a policy of login lockouts. scopes: what to count by (user_name, address, user_agent, or several joined by +), and how many failures lock. when_full: what to do with logins for which shared memory has no room: share, refuse. See docs/lockouts.md';

CREATE FUNCTION redis_migrate.alter_lockout(policy text, scopes jsonb DEFAULT NULL, time_window interval DEFAULT NULL,
        cool_off interval DEFAULT NULL, cool_off_mode text DEFAULT NULL, extend_on_attempt boolean DEFAULT NULL,
        reset_on_success boolean DEFAULT NULL, fold_case boolean DEFAULT NULL, ipv6_prefix integer DEFAULT NULL,
        allowed_networks cidr[] DEFAULT NULL, pending_timeout interval DEFAULT NULL, notify_channel text DEFAULT NULL,
        when_full text DEFAULT NULL) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_alter_lockout';
COMMENT ON FUNCTION redis_migrate.alter_lockout(text, jsonb, interval, interval, text, boolean, boolean, boolean, integer, cidr[], interval, text, text) IS
    'Changes a lockout policy. NULL leaves a property as it is. The new rules apply to existing counters at once';

CREATE FUNCTION redis_migrate.drop_lockout(policy text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_drop_lockout';
COMMENT ON FUNCTION redis_migrate.drop_lockout(text) IS 'Drops a lockout policy. Recorded attempts stay';

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
    'The answer of login_check and login_result. reason: ok, locked, pending (attempts in flight leave no room), no_room (shared memory is full) or exempt (not counted)';

CREATE FUNCTION redis_migrate.login_check(policy text, user_name text, address inet, user_agent text DEFAULT NULL,
        attempt_type text DEFAULT 'login') RETURNS redis_migrate.login_answer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_login_check';
COMMENT ON FUNCTION redis_migrate.login_check(text, text, inet, text, text) IS
    'Says whether a login may be tried, and reserves the attempt until login_result. Call it before you check the password';

CREATE FUNCTION redis_migrate.login_result(policy text, user_name text, address inet, success boolean, token bigint DEFAULT NULL,
        user_agent text DEFAULT NULL, reason text DEFAULT NULL, attempt_type text DEFAULT 'login') RETURNS redis_migrate.login_answer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_login_result';
COMMENT ON FUNCTION redis_migrate.login_result(text, text, inet, boolean, bigint, text, text, text) IS
    'Reports the result of an attempt: with the token, of one that login_check has let in; without, of one that was not checked';

CREATE FUNCTION redis_migrate.lockout_status(policy text, user_name text, address inet, user_agent text DEFAULT NULL)
    RETURNS TABLE (scope text, failures integer, pending integer, remaining integer, locked boolean, locked_until timestamptz, retry_after interval,
                   retry_after_seconds double precision)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 3 AS 'MODULE_PATHNAME', 'prm_lockout_status';
COMMENT ON FUNCTION redis_migrate.lockout_status(text, text, inet, text) IS
    'Shows the counters of a login without counting an attempt. No rows if the login is exempt';

CREATE FUNCTION redis_migrate.login_check_at(policy text, user_name text, address inet, user_agent text, attempt_type text,
        at timestamptz) RETURNS redis_migrate.login_answer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_login_check_at';
COMMENT ON FUNCTION redis_migrate.login_check_at(text, text, inet, text, text, timestamptz) IS
    'login_check at another time, for tests and simulations by the policy''s owner';

CREATE FUNCTION redis_migrate.login_result_at(policy text, user_name text, address inet, success boolean, token bigint,
        user_agent text, reason text, attempt_type text, at timestamptz) RETURNS redis_migrate.login_answer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_login_result_at';
COMMENT ON FUNCTION redis_migrate.login_result_at(text, text, inet, boolean, bigint, text, text, text, timestamptz) IS
    'login_result at another time, for tests and simulations by the policy''s owner';

CREATE FUNCTION redis_migrate.lockout_status_at(policy text, user_name text, address inet, user_agent text, at timestamptz)
    RETURNS TABLE (scope text, failures integer, pending integer, remaining integer, locked boolean, locked_until timestamptz, retry_after interval,
                   retry_after_seconds double precision)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 3 AS 'MODULE_PATHNAME', 'prm_lockout_status_at';
COMMENT ON FUNCTION redis_migrate.lockout_status_at(text, text, inet, text, timestamptz) IS
    'lockout_status at another time, for tests and simulations by the policy''s owner';

CREATE FUNCTION redis_migrate.reset_lockout(policy text, user_name text DEFAULT NULL, address inet DEFAULT NULL,
        everything boolean DEFAULT false) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_reset_lockout';
COMMENT ON FUNCTION redis_migrate.reset_lockout(text, text, inet, boolean) IS
    'Drops the counters of a user name, an address, both, or everything, and so ends their locks. Returns how many. login_attempts records the reset';

CREATE FUNCTION redis_migrate.import_lockout(policy text, user_name text, address inet, failures integer, last_failure timestamptz,
        user_agent text DEFAULT NULL, no_ttl text DEFAULT 'reject') RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_import_lockout';
COMMENT ON FUNCTION redis_migrate.import_lockout(text, text, inet, integer, timestamptz, text, text) IS
    'Raises the counter of exactly those columns that are not NULL to what another system counted. A second call with the same arguments changes nothing. no_ttl says what to do with failures without last_failure: reject, forever, full_window';

CREATE FUNCTION redis_migrate.reset_lockout_stats(policy text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_reset_lockout_stats';
COMMENT ON FUNCTION redis_migrate.reset_lockout_stats(text) IS
    'Sets the statistics of a lockout policy to zero. Its counters stay';

CREATE PROCEDURE redis_migrate.write_login_attempts()
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_write_login_attempts';
COMMENT ON PROCEDURE redis_migrate.write_login_attempts() IS
    'Writes the attempts that wait in shared memory to their table, a batch in each transaction, and sends notifications of locks. The background worker calls it, or a session';

CREATE FUNCTION redis_migrate.attempts_due() RETURNS timestamptz
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_attempts_due';
COMMENT ON FUNCTION redis_migrate.attempts_due() IS
    'When write_login_attempts next has something to write, perhaps in the past; NULL if no attempt of this database waits';

-- Functions for the views below.

CREATE FUNCTION redis_migrate.lockout_counts()
    RETURNS TABLE (policy_id uuid, checks bigint, allowed bigint, locked bigint, pending bigint, exempt bigint, no_room bigint, successes bigint,
                   failures bigint, uncounted bigint, timeouts bigint, locks bigint, evicted bigint, locks_evicted bigint, shared_counters bigint,
                   dropped bigint, entries bigint, stats_reset timestamptz)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_lockout_counts';
COMMENT ON FUNCTION redis_migrate.lockout_counts() IS
    'Statistics of this database''s lockout policies. The row with policy_id NULL has the sums over all policies, in all databases, that have no statistics of their own. See the view lockout_stats';

CREATE FUNCTION redis_migrate.login_attempt_queue()
    RETURNS TABLE (capacity bigint, waiting bigint, waiting_here bigint, dropped bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'prm_login_attempt_queue';
COMMENT ON FUNCTION redis_migrate.login_attempt_queue() IS
    'The queue of login attempts in shared memory: its capacity, how many attempts wait (of all databases; of this one), and how many were dropped since the server started because it was full';

-- Views. Each shows the caller what belongs to roles whose rights the caller has.

CREATE VIEW redis_migrate.lockout_policies WITH (security_barrier) AS
    SELECT p.policy, redis_migrate.shown_owner(p.owner) AS owner, s.scopes, p.time_window, p.cool_off, p.cool_off_mode, p.extend_on_attempt, p.reset_on_success, p.fold_case,
           p.ipv6_prefix, p.allowed_networks, p.pending_timeout, p.notify_channel, p.when_full
    FROM redis_migrate.lockout_policy AS p
    CROSS JOIN LATERAL (
        SELECT pg_catalog.jsonb_object_agg(t.scope, t.tiers) AS scopes
        FROM (SELECT l.scope, CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 AND pg_catalog.bool_and(l.cool_off IS NULL)
                                   THEN pg_catalog.to_jsonb(pg_catalog.min(l.failures))
                                   ELSE pg_catalog.jsonb_object_agg(l.failures, l.cool_off) END AS tiers
              FROM redis_migrate.lockout_scope AS l WHERE l.policy OPERATOR(pg_catalog.=) p.policy GROUP BY l.scope) AS t) AS s
    WHERE redis_migrate.may_see(p.owner);
COMMENT ON VIEW redis_migrate.lockout_policies IS
    'Lockout policies that the caller may use, with scopes as create_lockout takes them';

CREATE VIEW redis_migrate.login_attempts WITH (security_barrier) AS
    SELECT attempt_id, attempted_at, policy, user_name, address, user_agent, attempt_type, success, reason, locks, locked_by, locked_until
    FROM redis_migrate.login_attempt
    WHERE redis_migrate.may_see(owner);
COMMENT ON VIEW redis_migrate.login_attempts IS
    'Attempts of the policies that the caller may use. reason: what the application gave, otherwise locked, pending, no result, or the role that made a reset';

CREATE VIEW redis_migrate.login_attempts_by_address WITH (security_barrier) AS
    SELECT policy, address, pg_catalog.count(*) AS attempts, pg_catalog.count(*) FILTER (WHERE success) AS successes,
           pg_catalog.count(*) FILTER (WHERE NOT success) AS failures, pg_catalog.count(*) FILTER (WHERE locks) AS locks,
           pg_catalog.count(DISTINCT user_name) AS user_names, pg_catalog.min(attempted_at) AS first_at, pg_catalog.max(attempted_at) AS last_at
    FROM redis_migrate.login_attempts WHERE success IS NOT NULL GROUP BY policy, address;
COMMENT ON VIEW redis_migrate.login_attempts_by_address IS 'Numbers of recorded attempts by policy and address';

CREATE VIEW redis_migrate.login_attempts_by_user WITH (security_barrier) AS
    SELECT policy, user_name, pg_catalog.count(*) AS attempts, pg_catalog.count(*) FILTER (WHERE success) AS successes,
           pg_catalog.count(*) FILTER (WHERE NOT success) AS failures, pg_catalog.count(*) FILTER (WHERE locks) AS locks,
           pg_catalog.count(DISTINCT address) AS addresses, pg_catalog.min(attempted_at) AS first_at, pg_catalog.max(attempted_at) AS last_at
    FROM redis_migrate.login_attempts WHERE success IS NOT NULL GROUP BY policy, user_name;
COMMENT ON VIEW redis_migrate.login_attempts_by_user IS 'Numbers of recorded attempts by policy and user name';

CREATE VIEW redis_migrate.login_attempts_by_hour WITH (security_barrier) AS
    SELECT policy, pg_catalog.date_trunc('hour', attempted_at) AS hour, pg_catalog.count(*) AS attempts,
           pg_catalog.count(*) FILTER (WHERE success) AS successes, pg_catalog.count(*) FILTER (WHERE NOT success) AS failures,
           pg_catalog.count(*) FILTER (WHERE locks) AS locks, pg_catalog.count(DISTINCT user_name) AS user_names,
           pg_catalog.count(DISTINCT address) AS addresses
    FROM redis_migrate.login_attempts WHERE success IS NOT NULL GROUP BY policy, pg_catalog.date_trunc('hour', attempted_at);
COMMENT ON VIEW redis_migrate.login_attempts_by_hour IS 'Numbers of recorded attempts by policy and hour';

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
    'Current locks: logins whose recorded attempts were refused by a lock that is still in force';

CREATE VIEW redis_migrate.lockout_stats WITH (security_barrier) AS
    SELECT coalesce(p.policy, '(shared)') AS policy, c.checks, c.allowed, c.locked, c.pending, c.exempt, c.no_room, c.successes, c.failures,
           c.uncounted, c.timeouts, c.locks, c.entries, c.evicted, c.locks_evicted, c.shared_counters, c.dropped, c.stats_reset
    FROM redis_migrate.lockout_policy AS p FULL JOIN redis_migrate.lockout_counts() AS c USING (policy_id)
    WHERE p.policy IS NOT NULL OR c.policy_id IS NULL;
COMMENT ON VIEW redis_migrate.lockout_stats IS
    'Statistics of each lockout policy: answers of login_check; results; uncounted: failures that were not counted because memory was full; locks: locks that began; entries: counters in memory; evicted: counters that were evicted; locks_evicted: those of them that locked; shared_counters: counters of whole networks that began because memory was full of locks; dropped: attempts that the full queue dropped. If the numbers are NULL, the policy has no statistics of its own; the row (shared) has the sums over all such policies';

-- The interface of YOUTILITY3: the same names, arguments and results.

CREATE FUNCTION redis_migrate.check_rate_limit(p_ip_address inet, p_username varchar DEFAULT NULL,
        p_time_window interval DEFAULT '15 minutes', p_max_attempts integer DEFAULT 5) RETURNS json
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_check_rate_limit';
COMMENT ON FUNCTION redis_migrate.check_rate_limit(inet, varchar, interval, integer) IS
    'Whether a user name has failed too often (p_max_attempts), or an address (three times as many), by the lockout policy auth_rate_limit';

CREATE FUNCTION redis_migrate.log_rate_limit_attempt(p_ip_address inet, p_username varchar DEFAULT NULL, p_user_agent text DEFAULT NULL,
        p_attempt_type varchar DEFAULT 'login', p_success boolean DEFAULT false, p_failure_reason varchar DEFAULT NULL) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_log_rate_limit_attempt';
COMMENT ON FUNCTION redis_migrate.log_rate_limit_attempt(inet, varchar, text, varchar, boolean, varchar) IS
    'Counts and records an attempt for check_rate_limit. Returns 1, or 0 if the full queue dropped the record';

CREATE FUNCTION redis_migrate.cleanup_old_rate_limit_attempts(p_keep_duration interval DEFAULT '7 days') RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prm_cleanup_old_rate_limit_attempts';
COMMENT ON FUNCTION redis_migrate.cleanup_old_rate_limit_attempts(interval) IS
    'Deletes recorded attempts that are older than p_keep_duration, of the policies that the caller may use. Returns how many';

DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['lockout_policy', 'lockout_scope', 'login_attempt'] LOOP
        PERFORM pg_catalog.pg_extension_config_dump(('redis_migrate.' || relation)::regclass, '');
    END LOOP;
END
$$;
