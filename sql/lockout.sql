-- Login lockouts: who is locked, for how long, and what is recorded. Times are given, so that nothing sleeps.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
\pset format unaligned
SET timezone = 'UTC';
SET intervalstyle = 'postgres';
SET search_path = public, pg_catalog;

CREATE TABLE t0 AS SELECT date_trunc('second', clock_timestamp()) AS t0;
DELETE FROM redis_migrate.login_attempt;
-- A time after the start.
CREATE FUNCTION t(interval DEFAULT '0') RETURNS timestamptz LANGUAGE sql AS 'SELECT t0 + $1 FROM t0';
-- How long to wait, twice: as an interval and in seconds.
CREATE FUNCTION check_wait(a redis_migrate.login_answer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    ASSERT (a.retry_after IS NULL) = (a.retry_after_seconds IS NULL)
        AND abs(extract(epoch FROM a.retry_after) - a.retry_after_seconds) < 1e-6 IS NOT FALSE, a::text;
END
$$;
-- One attempt with a wrong (or the right) password: what the check says and, if it lets the attempt in, the result.
CREATE FUNCTION try(policy text, user_name text, address inet, at interval DEFAULT '0', success boolean DEFAULT false,
                    user_agent text DEFAULT 'test-browser') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    a redis_migrate.login_answer;
BEGIN
    a := redis_migrate.login_check_at(policy, user_name, address, user_agent, 'login', t(at));
    PERFORM check_wait(a);
    IF NOT a.allowed THEN
        RETURN format('refused: %s by %s for %s', a.reason, a.blocked_by, a.retry_after);
    END IF;
    a := redis_migrate.login_result_at(policy, user_name, address, success, a.token, user_agent, NULL, 'login', t(at));
    PERFORM check_wait(a);
    RETURN CASE WHEN success THEN 'success' ELSE 'failure' END
        || CASE WHEN NOT a.allowed THEN format(', %s by %s for %s', a.reason, a.blocked_by, a.retry_after) ELSE '' END;
END
$$;
-- Whether an attempt would be let in, without making it.
CREATE FUNCTION may(policy text, user_name text, address inet, at interval DEFAULT '0', user_agent text DEFAULT 'test-browser')
    RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN bool_or(remaining = 0) THEN 'blocked' ELSE 'allowed' END
    FROM redis_migrate.lockout_status_at(policy, user_name, address, user_agent, t(at)) $$;

\echo == which failures lock whom: the matrix of django-axes, limit 10, user1 at ip1 with test-browser has failed 10 times
CREATE TABLE matrix (id int, scopes jsonb, user_name text, address inet, user_agent text, expected text);
INSERT INTO matrix
SELECT id, scopes::jsonb, user_name, address::inet, user_agent, expected
FROM (VALUES
    (1, '{"address": 10}', ARRAY['blocked', 'allowed', 'blocked', 'allowed']),
    (2, '{"user_name": 10}', ARRAY['blocked', 'blocked', 'allowed', 'allowed']),
    (3, '{"user_name+address": 10}', ARRAY['blocked', 'allowed', 'allowed', 'allowed']),
    (4, '{"user_name": 10, "address": 10}', ARRAY['blocked', 'blocked', 'blocked', 'allowed']),
    (5, '{"user_agent": 10}', ARRAY['blocked', 'blocked', 'blocked', 'blocked']),
    (6, '{"address": 10, "user_name": 10, "user_agent": 10}', ARRAY['blocked', 'blocked', 'blocked', 'blocked']),
    (7, '{"address+user_name+user_agent": 10}', ARRAY['blocked', 'allowed', 'allowed', 'allowed']),
    (8, '{"address": 10, "user_name+user_agent": 10}', ARRAY['blocked', 'blocked', 'blocked', 'allowed']),
    (9, '{"address+user_agent": 10, "user_name+user_agent": 10}', ARRAY['blocked', 'blocked', 'blocked', 'allowed'])
) AS m (id, scopes, row),
LATERAL (VALUES ('user1', '192.0.2.1', row[1]), ('user1', '192.0.2.2', row[2]), ('user2', '192.0.2.1', row[3]), ('user2', '192.0.2.2', row[4]))
    AS c (user_name, address, expected), (VALUES ('test-browser')) AS b (user_agent)
UNION ALL
-- With another user agent.
VALUES (5, '{"user_agent": 10}'::jsonb, 'user1', '192.0.2.1'::inet, 'other', 'allowed'),
    (6, '{"address": 10, "user_name": 10, "user_agent": 10}', 'user2', '192.0.2.2', 'other', 'allowed'),
    (6, '{"address": 10, "user_name": 10, "user_agent": 10}', 'user1', '192.0.2.2', 'other', 'blocked'),
    (6, '{"address": 10, "user_name": 10, "user_agent": 10}', 'user2', '192.0.2.1', 'other', 'blocked'),
    (7, '{"address+user_name+user_agent": 10}', 'user1', '192.0.2.1', 'other', 'allowed'),
    (8, '{"address": 10, "user_name+user_agent": 10}', 'user1', '192.0.2.2', 'other', 'allowed'),
    (8, '{"address": 10, "user_name+user_agent": 10}', 'user1', '192.0.2.1', 'other', 'blocked'),
    (9, '{"address+user_agent": 10, "user_name+user_agent": 10}', 'user1', '192.0.2.1', 'other', 'allowed');
SELECT count(redis_migrate.create_lockout('matrix' || id, scopes)::text) FROM (SELECT DISTINCT id, scopes FROM matrix) AS p;
SELECT id, string_agg(DISTINCT attempt, ' / ' ORDER BY attempt) FROM (SELECT DISTINCT id FROM matrix) AS p,
    LATERAL (SELECT try('matrix' || id, 'user1', '192.0.2.1', n * interval '1 second') AS attempt FROM generate_series(1, 10) AS n) AS a GROUP BY id ORDER BY id;
SELECT *, may('matrix' || id, user_name, address, '11 s', user_agent) AS found FROM matrix
WHERE may('matrix' || id, user_name, address, '11 s', user_agent) <> expected;
SELECT count(*) AS cases FROM matrix;
SELECT count(redis_migrate.drop_lockout('matrix' || id)::text) FROM (SELECT DISTINCT id FROM matrix) AS p;

\echo == the failure before the last does not lock, the last says so, and then the right password is refused, too
SELECT redis_migrate.create_lockout('p', '{"user_name": 3}', cool_off => '1 hour');
SELECT n, try('p', 'ada', '192.0.2.1', n * interval '1 minute') FROM generate_series(1, 3) AS n;
SELECT try('p', 'ada', '192.0.2.1', '4 min', success => true);
SELECT try('p', 'ada', '192.0.2.1', '62 min 59.999 s', success => true);
SELECT try('p', 'ada', '192.0.2.1', '63 min', success => true);
\echo == a success forgets the failures of its user name, unless the policy says otherwise
SELECT n, try('p', 'bob', '192.0.2.1', success => n = 3) FROM generate_series(1, 5) AS n;
SELECT redis_migrate.alter_lockout('p', reset_on_success => false);
SELECT n, try('p', 'cyd', '192.0.2.1', success => n = 3) FROM generate_series(1, 5) AS n;
SELECT redis_migrate.drop_lockout('p');

\echo == several steps by user name and address together, limit 2
SELECT redis_migrate.create_lockout('p', '{"user_name+address": 2}');
SELECT step, try('p', u, a::inet, success => s) FROM (VALUES (1, 'u1', '192.0.2.1', false), (2, 'u1', '192.0.2.2', false), (3, 'u2', '192.0.2.1', false),
    (4, 'u1', '192.0.2.1', false), (5, 'u1', '192.0.2.2', false), (6, 'u2', '192.0.2.2', true)) AS v (step, u, a, s);
SELECT redis_migrate.drop_lockout('p');
\echo == by user name or address, limit 3
SELECT redis_migrate.create_lockout('p', '{"user_name": 3, "address": 3}');
SELECT step, try('p', u, a::inet) FROM (VALUES (1, 'u1', '192.0.2.1'), (2, 'u1', '192.0.2.2'), (3, 'u1', '192.0.2.2'), (4, 'u1', '192.0.2.3'),
    (5, 'u2', '192.0.2.1'), (6, 'u1', '192.0.2.1'), (7, 'u2', '192.0.2.1'), (8, 'u3', '192.0.2.1')) AS v (step, u, a);
SELECT redis_migrate.reset_lockout('p', everything => true);
SELECT step, try('p', u, a::inet, success => s) FROM (VALUES (1, 'u1', '192.0.2.1', false), (2, 'u1', '192.0.2.2', false), (3, 'u2', '192.0.2.1', false),
    (4, 'u1', '192.0.2.2', false), (5, 'u2', '192.0.2.2', true)) AS v (step, u, a, s);
\echo == the success of one account forgets nothing of the address and of other accounts
SELECT redis_migrate.reset_lockout('p', everything => true);
SELECT step, try('p', u, '192.0.2.1', success => s) FROM (VALUES (1, 'victim', false), (2, 'victim', false), (3, 'own', true), (4, 'victim', false)) AS v (step, u, s);
SELECT scope, failures, locked FROM redis_migrate.lockout_status_at('p', 'victim', '192.0.2.1', NULL, t());
SELECT redis_migrate.drop_lockout('p');

\echo == tiers: 3 -> 15 min, 6 -> 2 h, 10 -> 24 h
SELECT redis_migrate.create_lockout('p', '{"user_name": {"3": "15 minutes", "6": "2 hours", "10": "24 hours"}}', time_window => '1 day');
CREATE FUNCTION tiers() RETURNS TABLE (failures int, answer text) LANGUAGE plpgsql AS $$
DECLARE
    at interval := '0';
    wait interval;
BEGIN
    FOR failures, wait IN VALUES (1, '0'), (2, '0'), (3, '15 min'), (4, '15 min'), (5, '15 min'), (6, '2 h'), (7, '2 h'), (8, '2 h'), (9, '2 h'),
                                 (10, '24 h'), (11, '24 h') LOOP
        answer := try('p', 'ada', '192.0.2.1', at);
        RETURN NEXT;
        at := at + wait;
    END LOOP;
    failures := 0;
    answer := try('p', 'ada', '192.0.2.1', at - interval '1 second');
    RETURN NEXT;
    answer := 'one day after the last lock: ' || try('p', 'ada', '192.0.2.1', at + interval '1 day');
    RETURN NEXT;
END
$$;
SELECT * FROM tiers();
SELECT redis_migrate.import_lockout('p', 'far', NULL, 100, t());
SELECT failures, locked_until - t() AS locked_for FROM redis_migrate.lockout_status('p', 'far', NULL) WHERE locked;
SELECT redis_migrate.drop_lockout('p');

\echo == three failures, the last at 10:05, locked for an hour; a try at 10:50
SELECT redis_migrate.create_lockout('p', '{"user_name": 3}', cool_off => '1 hour', cool_off_mode => 'inactivity');
SELECT minute, try('p', 'ada', '192.0.2.1', minute * interval '1 minute') FROM unnest(ARRAY[3, 4, 5, 50]) AS minute;
SELECT locked_until - t() AS "locked until 11:05" FROM redis_migrate.lockout_status_at('p', 'ada', NULL, NULL, t('51 min'));
SELECT redis_migrate.alter_lockout('p', extend_on_attempt => true);
SELECT try('p', 'ada', '192.0.2.1', '50 min');
SELECT locked_until - t() AS "locked until 11:50" FROM redis_migrate.lockout_status_at('p', 'ada', NULL, NULL, t('51 min'));
SELECT redis_migrate.drop_lockout('p');

\echo == how failures are forgotten, with a window of 15 minutes and threshold 2: after the first, after the last, each by itself
SELECT redis_migrate.create_lockout('fixed', '{"user_name": 2}');
SELECT redis_migrate.create_lockout('inactivity', '{"user_name": 2}', cool_off_mode => 'inactivity', cool_off => '1 min');
SELECT redis_migrate.create_lockout('rolling', '{"user_name": 2}', cool_off_mode => 'rolling');
SELECT mode, minute, try(mode, 'ada', NULL, minute * interval '1 minute') LIKE 'failure, locked%' AS locks
FROM (VALUES ('fixed', 0), ('fixed', 15), ('fixed', 29), ('inactivity', 0), ('inactivity', 14), ('inactivity', 29)) AS v (mode, minute);
SELECT minute, left(try('rolling', 'ada', NULL, minute * interval '1 minute'), 15) FROM unnest(ARRAY[0, 17, 31, 33, 48]) AS minute;
SELECT redis_migrate.drop_lockout(mode) FROM unnest(ARRAY['fixed', 'inactivity', 'rolling']) AS mode;

\echo == rack-attack: Fail2Ban with maxretry 2, findtime 60, bantime 60; good requests are refused as well, other addresses are not
SELECT redis_migrate.create_lockout('p', '{"address": 2}', time_window => '60 s', cool_off => '60 s');
SELECT try('p', NULL, a::inet, at, s) FROM (VALUES ('192.0.2.1', interval '0', true), ('192.0.2.1', '1 s', false), ('192.0.2.1', '2 s', false),
    ('192.0.2.1', '3 s', true), ('192.0.2.2', '3 s', true), ('192.0.2.1', '61.999 s', true), ('192.0.2.1', '62 s', true)) AS v (a, at, s);
SELECT try('p', NULL, '192.0.2.3', '70 s') FROM generate_series(1, 2);
SELECT redis_migrate.reset_lockout('p', address => '192.0.2.3');
SELECT may('p', NULL, '192.0.2.3', '71 s');
SELECT redis_migrate.drop_lockout('p');

\echo == rate-limiter-flexible: one point per second; who asks for more is blocked for two seconds, which asking again does not extend
SELECT redis_migrate.create_lockout('p', '{"user_name": 2}', time_window => '1 s', cool_off => '2 s');
SELECT at, try('p', 'ada', NULL, at) FROM unnest(ARRAY['0', '0', '1.201 s', '2.01 s']::interval[]) AS at;
SELECT redis_migrate.drop_lockout('p');

\echo == spelling: folded by default, as django-defender does; not if the policy says so
SELECT redis_migrate.create_lockout('p', '{"user_name": 2}');
SELECT try('p', u, NULL) FROM unnest(ARRAY['Ada', 'ADA', 'ada']) AS u;
SELECT redis_migrate.alter_lockout('p', fold_case => false);
SELECT may('p', u, NULL) FROM unnest(ARRAY['Ada', 'ADA', 'ada']) AS u;
SELECT redis_migrate.drop_lockout('p');
\echo == an empty user name locks nobody, its address is counted still; so is nobody without an address
SELECT redis_migrate.create_lockout('p', '{"user_name": 2, "address": 4}');
SELECT n, try('p', CASE WHEN n % 2 = 0 THEN '' END, '192.0.2.1') FROM generate_series(1, 5) AS n;
SELECT may('p', '', '192.0.2.2'), may('p', NULL, '192.0.2.2'), may('p', 'ada', '192.0.2.2');
SELECT n, try('p', '', NULL) FROM generate_series(1, 3) AS n;
SELECT * FROM redis_migrate.login_check('p', NULL, NULL);
\echo == one form per address: IPv4-mapped, netmasks; IPv6 by its /64 unless the policy says otherwise
SELECT redis_migrate.reset_lockout('p', everything => true);
SELECT redis_migrate.alter_lockout('p', '{"address": 2}');
SELECT try('p', 'ada', a::inet) FROM unnest(ARRAY['::ffff:192.0.2.1', '192.0.2.1/24', '192.0.2.1']) AS a;
SELECT may('p', 'ada', '::ffff:192.0.2.2');
SELECT try('p', 'ada', a::inet) FROM unnest(ARRAY['2001:db8:0:1::1', '2001:db8:0:1:ffff::2']) AS a;
SELECT may('p', 'ada', '2001:db8:0:1::3'), may('p', 'ada', '2001:db8:0:2::3');
SELECT redis_migrate.alter_lockout('p', ipv6_prefix => 56);
SELECT try('p', 'ada', a::inet) FROM unnest(ARRAY['2001:db8:0:101::1', '2001:db8:0:1ff::1']) AS a;
SELECT may('p', 'ada', '2001:db8:0:177::1'), may('p', 'ada', '2001:db8:0:277::1');
\echo == networks that are never counted
SELECT redis_migrate.alter_lockout('p', allowed_networks => '{10.0.0.0/8,fd00::/8}');
SELECT DISTINCT try('p', 'ada', a::inet) FROM unnest(ARRAY['10.1.2.3', '::ffff:10.1.2.3', 'fd12::1']) AS a, generate_series(1, 3);
SELECT * FROM redis_migrate.login_check('p', 'ada', '10.1.2.3');
SELECT count(*) FROM redis_migrate.lockout_status('p', 'ada', '10.1.2.3');
-- IPv4 inside IPv6, in the list or in the address, also as NAT64 makes it.
SELECT redis_migrate.alter_lockout('p', allowed_networks => '{::ffff:10.0.0.0/104,64:ff9b::192.0.2.0/120,198.51.100.0/24}');
SELECT a, reason FROM unnest('{10.1.2.3,::ffff:10.9.9.9,11.0.0.1,192.0.2.77,192.0.3.1,64:ff9b::198.51.100.1,64:ff9b::198.51.101.1,64:ff9b:1::198.51.100.1}'::inet[]) AS a,
    LATERAL redis_migrate.login_check('p', NULL, a);
SELECT redis_migrate.alter_lockout('p', allowed_networks => '{}');
SELECT count(*) FROM redis_migrate.lockout_status('p', 'ada', '10.1.2.3');
SELECT redis_migrate.drop_lockout('p');

\echo == attempts in flight take the room of failures; without a result they become some
SELECT redis_migrate.create_lockout('p', '{"user_name": 2}', pending_timeout => '30 s', cool_off => '1 hour');
SELECT allowed, reason, remaining FROM redis_migrate.login_check_at('p', 'ada', NULL, NULL, 'login', t());
SELECT allowed, reason, remaining, token FROM redis_migrate.login_check_at('p', 'ada', NULL, NULL, 'login', t('1 s')) \gset
SELECT :'allowed' AS allowed, :'reason' AS reason, :remaining AS remaining;
SELECT try('p', 'ada', NULL, '2 s');
SELECT * FROM redis_migrate.lockout_status_at('p', 'ada', NULL, NULL, t('2 s'));
SELECT * FROM redis_migrate.login_result_at('p', 'ada', NULL, true, :token, NULL, NULL, 'login', t('3 s'));
SELECT try('p', 'ada', NULL, '3 s', success => true);
SELECT token FROM redis_migrate.login_check_at('p', 'ada', NULL, NULL, 'login', t('4 s')) \gset
SELECT try('p', 'ada', NULL, '33.999 s');
SELECT try('p', 'ada', NULL, '34 s');
\echo == a result that comes too late changes nothing; one without a check counts
SELECT allowed, reason, blocked_by, retry_after, locked_until - t() AS locked_until
FROM redis_migrate.login_result_at('p', 'ada', NULL, true, :token, NULL, NULL, 'login', t('40 s'));
SELECT redis_migrate.reset_lockout('p', 'ada');
SELECT n, allowed, reason, remaining
FROM generate_series(1, 2) AS n, redis_migrate.login_result_at('p', 'ada', NULL, false, NULL, NULL, NULL, 'login', t(n * interval '50 s'));
SELECT allowed, reason FROM redis_migrate.login_result_at('p', 'ada', NULL, true, NULL, NULL, NULL, 'login', t('101 s'));
\echo == rolling back keeps the count
SELECT redis_migrate.reset_lockout('p', 'ada');
BEGIN;
SELECT try('p', 'ada', NULL);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT try('p', 'ada', NULL);
ROLLBACK TO s;
ROLLBACK;
SELECT scope, failures, locked FROM redis_migrate.lockout_status_at('p', 'ada', NULL, NULL, t());
\echo == a changed policy applies to what was counted
SELECT redis_migrate.alter_lockout('p', '{"user_name": 3}');
SELECT failures, remaining, locked FROM redis_migrate.lockout_status_at('p', 'ada', NULL, NULL, t());
SELECT redis_migrate.alter_lockout('p', '{"user_name": 1}', cool_off => '2 hours');
SELECT failures, locked_until - t() AS locked_for FROM redis_migrate.lockout_status_at('p', 'ada', NULL, NULL, t());
\echo == a dropped policy leaves nothing to the next of its name
SELECT redis_migrate.drop_lockout('p');
SELECT refused($$SELECT redis_migrate.login_check('p', 'ada', NULL)$$);
SELECT redis_migrate.create_lockout('p', '{"user_name": 2}');
SELECT scope, failures FROM redis_migrate.lockout_status('p', 'ada', NULL);

\echo == names of 64 KB, that differ at their ends
SELECT try('p', repeat('x', 65536) || n, NULL) FROM generate_series(1, 2) AS n, generate_series(1, 2);
SELECT may('p', repeat('x', 65536) || '1', NULL), may('p', repeat('x', 65536) || '3', NULL), may('p', repeat('x', 65536), NULL);
SELECT redis_migrate.drop_lockout('p');

\echo == reset by user name, by address, by both; written down
SELECT redis_migrate.create_lockout('p', '{"user_name": 9, "address": 9, "user_name+address": 9}');
CREATE FUNCTION fill() RETURNS bigint LANGUAGE sql AS $$
    SELECT redis_migrate.reset_lockout('p', everything => true);
    SELECT count(try('p', u, a::inet)) FROM unnest(ARRAY['ada', 'bob']) AS u, unnest(ARRAY['192.0.2.1', '192.0.2.2']) AS a; $$;
SELECT fill(), redis_migrate.reset_lockout('p', user_name => 'Ada') AS "ada, ada at 1 and 2";
SELECT fill(), redis_migrate.reset_lockout('p', address => '192.0.2.1') AS "1, ada and bob at 1";
SELECT fill(), redis_migrate.reset_lockout('p', 'ada', '192.0.2.1') AS "ada, 1, ada at 1";
SELECT fill(), redis_migrate.reset_lockout('p', everything => true) AS "all 8";
SELECT refused($$SELECT redis_migrate.reset_lockout('p')$$);
SELECT refused($$SELECT redis_migrate.reset_lockout('p', 'ada', everything => true)$$);
CALL redis_migrate.write_login_attempts();
SELECT user_name, address, success, reason = 'by ' || current_user AS by_me FROM redis_migrate.login_attempts
WHERE policy = 'p' AND attempt_type = 'reset' AND (user_name IS NOT NULL OR address IS NOT NULL) ORDER BY attempt_id;
SELECT redis_migrate.drop_lockout('p');

\echo == what is recorded
SELECT redis_migrate.create_lockout('log', '{"user_name": 2}', pending_timeout => '3 s');
SELECT try('log', 'ada', '192.0.2.1', success => true);
SELECT try('log', 'ada', '::ffff:192.0.2.1') FROM generate_series(1, 3);
SELECT redis_migrate.login_result('log', 'bob', '2001:db8::1', false, NULL, repeat('é', 300), repeat('r', 200), 'api_access') IS NULL;
SELECT redis_migrate.login_result('log', repeat('n', 300), NULL, false) IS NULL;
SELECT redis_migrate.login_check('log', 'gone', NULL) IS NULL;
SELECT redis_migrate.attempts_due() <= clock_timestamp() IS TRUE;
CALL redis_migrate.write_login_attempts();
SELECT redis_migrate.attempts_due() <= clock_timestamp() IS TRUE;
SELECT user_name, address, user_agent, attempt_type, success, reason, locks, locked_by, locked_until > now() AS locked
FROM redis_migrate.login_attempts WHERE policy = 'log' AND length(user_name) < 10 AND user_name <> 'bob' ORDER BY attempt_id;
SELECT user_name IS NULL AS none, octet_length(user_name) AS name_bytes, address, octet_length(user_agent) AS agent_bytes, length(reason) AS reason_bytes, attempt_type
FROM redis_migrate.login_attempts WHERE policy = 'log' AND (length(user_name) > 10 OR user_name = 'bob') ORDER BY attempt_id;
-- An attempt without a result is written when its time is up.
DO $$ BEGIN WHILE NOT redis_migrate.attempts_due() <= clock_timestamp() IS TRUE LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;
CALL redis_migrate.write_login_attempts();
SELECT user_name, success, reason FROM redis_migrate.login_attempts WHERE policy = 'log' ORDER BY attempt_id DESC LIMIT 1;
CALL redis_migrate.write_login_attempts();
SELECT policy, address, attempts, successes, failures, locks, user_names FROM redis_migrate.login_attempts_by_address WHERE policy = 'log' ORDER BY address;
SELECT policy, user_name, attempts, successes, failures, locks, addresses FROM redis_migrate.login_attempts_by_user
WHERE policy = 'log' AND length(user_name) < 10 ORDER BY user_name;
SELECT policy, sum(attempts), sum(successes), sum(failures), sum(locks) FROM redis_migrate.login_attempts_by_hour WHERE policy = 'log' GROUP BY policy;
SELECT policy, scope, user_name, network, failures, retry_after > '14 min' AS retry_after,
    abs(extract(epoch FROM retry_after) - retry_after_seconds) < 1e-6 AS seconds FROM redis_migrate.lockouts WHERE policy = 'log';
SELECT redis_migrate.reset_lockout('log', 'ada');
SELECT count(*) FROM redis_migrate.lockouts WHERE policy = 'log';
BEGIN;
CALL redis_migrate.write_login_attempts();
ROLLBACK;

\echo == statistics
SELECT checks, allowed, locked, pending, exempt, successes, failures, timeouts, locks, entries, evicted, dropped
FROM redis_migrate.lockout_stats WHERE policy = 'log';
SELECT redis_migrate.reset_lockout_stats('log');
SELECT checks, locks, entries, stats_reset <= clock_timestamp() AS reset FROM redis_migrate.lockout_stats WHERE policy = 'log';
SELECT capacity, waiting >= waiting_here AS waiting, dropped FROM redis_migrate.login_attempt_queue();

\echo == what another system counted goes on
SELECT redis_migrate.create_lockout('threadr', '{"user_name+address": 5}', time_window => '30 minutes');
SELECT redis_migrate.import_lockout('threadr', 'ada.0@example.com', '2001:db8::10', n, t('-10 min')) FROM unnest(ARRAY[4, 4, 2]) AS n;
SELECT failures, remaining FROM redis_migrate.lockout_status_at('threadr', 'ada.0@example.com', '2001:db8::10', NULL, t());
SELECT redis_migrate.import_lockout('threadr', 'bob@example.com', '192.0.2.1', 9, t('-10 min'));
SELECT try('threadr', 'bob@example.com', '192.0.2.1', '10 min'), try('threadr', 'bob@example.com', '192.0.2.1', '20 min');
SELECT redis_migrate.import_lockout('threadr', 'old@example.com', '192.0.2.1', 9, t('-31 min'));
SELECT may('threadr', 'old@example.com', '192.0.2.1');
SELECT refused($$SELECT redis_migrate.import_lockout('threadr', 'ada', NULL, 4, now())$$);
SELECT refused($$SELECT redis_migrate.import_lockout('threadr', NULL, NULL, 4, now())$$);

\echo == the interface of YOUTILITY3, as an application calls it: unqualified
SET search_path = public, redis_migrate, pg_catalog;
SELECT refused($$SELECT check_rate_limit('192.0.2.1')$$);
SELECT redis_migrate.create_lockout('auth_rate_limit');
SELECT refused($$SELECT check_rate_limit('192.0.2.1')$$);
SELECT redis_migrate.drop_lockout('auth_rate_limit');
SELECT redis_migrate.create_lockout('auth_rate_limit', scopes => '{"user_name": 5, "address": 15}', time_window => '15 minutes', cool_off_mode => 'rolling', extend_on_attempt => true);
SELECT check_rate_limit('192.0.2.1', 'ada');
SELECT sum(log_rate_limit_attempt('192.0.2.1', 'ada', 'Firefox', p_failure_reason => 'bad password')) FROM generate_series(1, 4);
CREATE VIEW blocked AS SELECT c->>'is_blocked' AS is_blocked, c->>'ip_attempts' AS ip, c->>'user_attempts' AS "user", c->>'total_attempts' AS total,
    c->>'blocking_strategy' AS strategy, c->>'block_reason' AS reason, (c->>'time_until_reset')::int BETWEEN 835 AND 960 AS reset,
    (c->>'last_attempt')::timestamptz > now() - interval '1 min' AS last FROM check_rate_limit('192.0.2.1', 'ada') AS c;
SELECT * FROM blocked;
SELECT log_rate_limit_attempt('192.0.2.1', 'ada', 'Firefox', 'login', false, 'bad password');
SELECT * FROM blocked;
SELECT check_rate_limit('192.0.2.1', 'ada', '15 minutes', 6)->>'is_blocked' AS six, check_rate_limit('192.0.2.1', 'ada', '5 minutes', 3)->>'blocking_strategy' AS three,
    check_rate_limit('192.0.2.1', 'bob')->>'is_blocked' AS bob, check_rate_limit('192.0.2.2', 'ada')->>'is_blocked' AS elsewhere;
SELECT sum(log_rate_limit_attempt('192.0.2.1', 'name' || n, NULL)) FROM generate_series(6, 14) AS n;
SELECT check_rate_limit('192.0.2.1', 'zoe')->>'blocking_strategy';
SELECT log_rate_limit_attempt('192.0.2.1', 'name15', NULL);
SELECT c->>'blocking_strategy' AS strategy, c->>'ip_attempts' AS ip, c->>'user_attempts' AS "user", c->>'max_attempts' AS max, c->>'block_reason' AS reason
FROM check_rate_limit('192.0.2.1', 'zoe') AS c;
SELECT redis_migrate.reset_lockout('auth_rate_limit', address => '192.0.2.1');
SELECT check_rate_limit('192.0.2.1', 'zoe')->>'is_blocked' AS zoe, check_rate_limit('192.0.2.1', 'ada')->>'is_blocked' AS ada;
SELECT log_rate_limit_attempt('192.0.2.1', 'ada', 'Firefox', 'login', true);
SELECT redis_migrate.reset_lockout('auth_rate_limit', user_name => 'ada');
SELECT check_rate_limit('192.0.2.1', 'ada')->>'is_blocked' AS ada;
SELECT refused($$SELECT check_rate_limit('192.0.2.1', 'ada', '16 minutes')$$);
SELECT refused($$SELECT check_rate_limit('192.0.2.1', 'ada', p_max_attempts => 0)$$);
CALL redis_migrate.write_login_attempts();
SELECT attempts, successes, user_names FROM redis_migrate.login_attempts_by_address WHERE policy = 'auth_rate_limit';
UPDATE redis_migrate.login_attempt SET attempted_at = attempted_at - interval '8 days' WHERE policy = 'auth_rate_limit' AND user_name = 'ada';
SELECT cleanup_old_rate_limit_attempts();
SELECT cleanup_old_rate_limit_attempts();
SELECT count(*) FROM redis_migrate.login_attempts WHERE policy = 'auth_rate_limit';
RESET search_path;

\echo == dropped policies leave room: the last of more than there are places for has statistics of its own
DO $$
BEGIN
    FOR i IN 1 .. 1030 LOOP
        PERFORM redis_migrate.create_lockout('brief', '{"user_name": 3}');
        PERFORM redis_migrate.login_result('brief', 'ada', NULL, false);
        PERFORM redis_migrate.drop_lockout('brief');
    END LOOP;
END
$$;
SELECT redis_migrate.create_lockout('brief', '{"user_name": 3}');
SELECT allowed, remaining FROM redis_migrate.login_result('brief', 'ada', NULL, false);
SELECT failures, entries FROM redis_migrate.lockout_stats WHERE policy = 'brief';
SELECT redis_migrate.drop_lockout('brief');

\echo == arguments
SELECT refused(s) FROM unnest(ARRAY[
    $$SELECT redis_migrate.create_lockout('log')$$,
    $$SELECT redis_migrate.create_lockout('')$$,
    $$SELECT redis_migrate.create_lockout(NULL)$$,
    $$SELECT redis_migrate.create_lockout('q', '{}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"ip": 3}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"address+address": 3}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"user_name+address": 3, "address+user_name": 3}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"address": 0}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"address": 10001}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"address": "three"}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"address": {}}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"address": {"3": "soon"}}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"address": {"3": "-1 hour"}}')$$,
    $$SELECT redis_migrate.create_lockout('q', '{"address": {"3": "1 hour", "6": "2 hours"}}', cool_off_mode => 'rolling')$$,
    $$SELECT redis_migrate.create_lockout('q', cool_off_mode => 'sometimes')$$,
    $$SELECT redis_migrate.create_lockout('q', when_full => 'guess')$$,
    $$SELECT redis_migrate.create_lockout('q', when_full => NULL)$$,
    $$SELECT redis_migrate.create_lockout('q', cool_off_mode => 'rolling', cool_off => '1 hour')$$,
    $$SELECT redis_migrate.create_lockout('q', time_window => '0')$$,
    $$SELECT redis_migrate.create_lockout('q', time_window => '1000 years')$$,
    $$SELECT redis_migrate.create_lockout('q', pending_timeout => '10 ms')$$,
    $$SELECT redis_migrate.create_lockout('q', ipv6_prefix => 0)$$,
    $$SELECT redis_migrate.create_lockout('q', fold_case => NULL)$$,
    $$SELECT redis_migrate.create_lockout('q', notify_channel => repeat('c', 64))$$,
    $$SELECT redis_migrate.alter_lockout('nosuch')$$,
    $$SELECT redis_migrate.drop_lockout('nosuch')$$,
    $$SELECT redis_migrate.login_check(NULL, 'ada', NULL)$$,
    $$SELECT redis_migrate.login_check('log', 'ada', NULL, attempt_type => repeat('t', 51))$$,
    $$SELECT redis_migrate.login_result('log', 'ada', NULL, NULL)$$,
    $$SELECT redis_migrate.login_check_at('log', 'ada', NULL, NULL, 'login', 'infinity')$$]) AS s;
SELECT policy, scopes, cool_off FROM redis_migrate.lockout_policies WHERE policy = 'q';

\echo == rights: members of the owner use a policy, the owner alone gives it a time, pg_monitor sees statistics
CREATE ROLE regress_prm_guard;
CREATE ROLE regress_prm_app IN ROLE regress_prm_guard;
CREATE ROLE regress_prm_stranger;
CREATE ROLE regress_prm_monitor IN ROLE pg_monitor;
SET ROLE regress_prm_guard;
SELECT refused($$SELECT redis_migrate.create_lockout('guard')$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION redis_migrate.create_lockout, redis_migrate.login_check, redis_migrate.login_result,
    redis_migrate.login_check_at, redis_migrate.lockout_status_at, redis_migrate.drop_lockout TO regress_prm_guard;
GRANT EXECUTE ON FUNCTION redis_migrate.login_check, redis_migrate.drop_lockout, redis_migrate.cleanup_old_rate_limit_attempts
    TO regress_prm_stranger;
GRANT EXECUTE ON PROCEDURE redis_migrate.write_login_attempts TO regress_prm_guard;
SET ROLE regress_prm_guard;
SELECT redis_migrate.create_lockout('guard', '{"user_name": {"3": "1 minute", "4": "1 hour"}}');
SELECT allowed FROM redis_migrate.login_check_at('guard', 'ada', NULL, NULL, 'login', now());
SET ROLE regress_prm_app;
SELECT allowed FROM redis_migrate.login_check('guard', 'ada', NULL);
SELECT refused($$SELECT redis_migrate.login_check_at('guard', 'ada', NULL, NULL, 'login', now())$$);
SELECT refused($$SELECT redis_migrate.lockout_status_at('guard', 'ada', NULL, NULL, now())$$);
SELECT redis_migrate.login_result('guard', 'ada', NULL, false) IS NULL;
CALL redis_migrate.write_login_attempts();
SELECT policy, scopes FROM redis_migrate.lockout_policies;
SELECT DISTINCT policy FROM redis_migrate.login_attempts;
SELECT refused('SELECT * FROM redis_migrate.login_attempt');
SELECT refused('SELECT * FROM redis_migrate.lockout_stats');
SET ROLE regress_prm_stranger;
SELECT refused($$SELECT redis_migrate.login_check('guard', 'ada', NULL)$$);
SELECT refused($$SELECT redis_migrate.drop_lockout('guard')$$);
SELECT count(*) FROM redis_migrate.lockout_policies;
SELECT count(*) FROM redis_migrate.login_attempts;
SELECT redis_migrate.cleanup_old_rate_limit_attempts('0');
SET ROLE regress_prm_monitor;
SELECT policy, checks, failures FROM redis_migrate.lockout_stats WHERE policy = 'guard';
SELECT count(*) FROM redis_migrate.login_attempt_queue();
RESET ROLE;
SELECT redis_migrate.create_lockout('superuser');
SET ROLE regress_prm_stranger;
SELECT refused($$SELECT redis_migrate.login_check('superuser', 'ada', NULL)$$);
RESET ROLE;

\echo == whoever may not execute a function of rate limits or lockouts is told the GRANT, which works as it stands
CREATE ROLE regress_prm_nobody;
CREATE VIEW denied AS
    SELECT proname, format('SELECT redis_migrate.%I(%s)', proname, (SELECT string_agg('NULL::' || format_type(t, NULL), ', ') FROM unnest(proargtypes) AS t)) AS call
    FROM pg_proc WHERE pronamespace = 'redis_migrate'::regnamespace AND prokind = 'f' AND proname ~ 'rate_limit|lockout|login|attempts'
        AND proname NOT IN ('rate_limit_changed', 'rate_limit_step', 'rate_limit_stepped') AND NOT has_function_privilege('regress_prm_nobody', oid, 'EXECUTE');
GRANT SELECT ON denied TO regress_prm_nobody;
CREATE FUNCTION hint_of(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE call;
    RETURN 'not refused';
EXCEPTION WHEN insufficient_privilege THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN hint;
END
$$;
SELECT count(*) > 40 FROM denied;
SET ROLE regress_prm_nobody;
SELECT proname FROM denied WHERE hint_of(call) NOT LIKE 'GRANT EXECUTE ON FUNCTION redis_migrate.' || proname || '%';
SELECT refused('SELECT redis_migrate.login_check(NULL, NULL, NULL)');
SELECT refused($$SELECT * FROM redis_migrate.rate_limit('api', 'u')$$);
-- Expressions that PL/pgSQL evaluates by itself.
CREATE FUNCTION pg_temp.allowed() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN redis_migrate.rate_limit_allowed('api', 'u'); END $$;
SELECT refused('SELECT pg_temp.allowed()');
-- Statements that the executor does not run.
DO $$ BEGIN IF redis_migrate.rate_limit_allowed('api', 'u') THEN NULL; END IF; END $$;
CALL redis_migrate.write_login_attempts();
CREATE PROCEDURE pg_temp.ask() LANGUAGE plpgsql AS $$ BEGIN IF redis_migrate.rate_limit_allowed('api', 'u') THEN COMMIT; END IF; END $$;
CALL pg_temp.ask();
CREATE TEMPORARY TABLE asked (n int);
CREATE FUNCTION pg_temp.before_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN redis_migrate.rate_limit_allowed('api', 'u') THEN NEW END; END $$;
CREATE TRIGGER asked BEFORE INSERT ON asked FOR EACH ROW EXECUTE FUNCTION pg_temp.before_insert();
COPY asked FROM STDIN;
1
\.
SELECT refused('SELECT redis_migrate.rate_limit_step(1, NULL, 1, 1, 1)');
-- Somebody else's functions of these names: a message does not say whose was refused.
RESET ROLE;
CREATE SCHEMA regress_prm_other;
GRANT USAGE ON SCHEMA regress_prm_other TO regress_prm_nobody;
CREATE FUNCTION regress_prm_other.create_lockout(text) RETURNS boolean LANGUAGE sql VOLATILE STRICT AS 'SELECT random() > 2';
CREATE PROCEDURE regress_prm_other.write_login_attempts() LANGUAGE plpgsql AS 'BEGIN END';
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA regress_prm_other FROM PUBLIC;
SET ROLE regress_prm_nobody;
SELECT refused($$SELECT regress_prm_other.create_lockout('api')$$);
SELECT refused($$SELECT redis_migrate.create_lockout('api')$$);
SELECT refused($$SELECT 1 WHERE 1 = (SELECT count(*) FROM regress_prm_other.create_lockout('api'))$$);
CREATE FUNCTION pg_temp.theirs() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN regress_prm_other.create_lockout('api'); END $$;
SELECT refused('SELECT pg_temp.theirs()');
CALL regress_prm_other.write_login_attempts();
CALL redis_migrate.write_login_attempts();
RESET ROLE;
DROP FUNCTION pg_temp.theirs();
SET client_min_messages = warning;
DROP SCHEMA regress_prm_other CASCADE;
RESET client_min_messages;
SET ROLE regress_prm_nobody;
DO $$ BEGIN PERFORM set_config('prm.hints', (SELECT string_agg(DISTINCT hint_of(call), ' ') FROM denied), false); END $$;
RESET ROLE;
DO $$ BEGIN EXECUTE replace(current_setting('prm.hints'), 'the role that needs it.', 'regress_prm_nobody;'); END $$;
SELECT * FROM denied;
DROP VIEW denied;
DROP FUNCTION hint_of, pg_temp.allowed;
DROP OWNED BY regress_prm_nobody;
DROP ROLE regress_prm_nobody;
SELECT redis_migrate.drop_lockout(policy) FROM redis_migrate.lockout_policies;
SELECT redis_migrate.drop_expiry('redis_migrate.login_attempt');
DROP TABLE t0, matrix;
DROP VIEW blocked;
DROP FUNCTION t, try, may, tiers, fill;
DELETE FROM redis_migrate.login_attempt;
DROP OWNED BY regress_prm_guard, regress_prm_stranger;
DROP ROLE regress_prm_app, regress_prm_guard, regress_prm_stranger, regress_prm_monitor;
