-- Rate limits: the vectors, what the functions answer, what is refused.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset format unaligned
\pset tuples_only
SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres';
SET DateStyle = 'ISO';

\echo == vectors, asked through rate_limit_at
CREATE TABLE vector (line int GENERATED ALWAYS AS IDENTITY, suite text, source text, algorithm text, quota bigint, period_ns bigint,
                     burst bigint, t_ns bigint, cost bigint, allowed boolean, remaining bigint, reset_ns bigint, retry_ns bigint);
\copy vector (suite, source, algorithm, quota, period_ns, burst, t_ns, cost, allowed, remaining, reset_ns, retry_ns) FROM PROGRAM 'tail -n +2 "$PG_ABS_SRCDIR/test/data/rate_limit_vectors.tsv"'
-- SQL has microseconds: suites that need nanoseconds are run a thousand times as slowly, except the one whose
-- period would then have another remainder. Those with refunds, which take no time as an argument, follow below.
CREATE FUNCTION wrong_answers() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    suite record; v record; r redis_migrate.rate_limit_result; answer text; expected text;
BEGIN
    FOR suite IN SELECT vector.suite, min(line) AS line, CASE WHEN bool_or(t_ns % 1000 > 0 OR period_ns % 1000 > 0) THEN 1000 ELSE 1 END AS scale,
                        bool_or(period_ns % quota > 0) AS remainder, bool_or(vector.cost < 0) AS refund FROM vector GROUP BY 1 ORDER BY 2 LOOP
        CONTINUE WHEN suite.refund OR suite.scale > 1 AND suite.remainder;
        FOR v IN SELECT * FROM vector WHERE vector.suite = suite.suite ORDER BY line LOOP
            IF v.line = suite.line THEN
                PERFORM redis_migrate.create_rate_limit('vector ' || suite.line, v.quota, v.period_ns * suite.scale / 1000 * interval '1 microsecond',
                    burst => NULLIF(v.burst, 0), algorithm => v.algorithm);
            ELSE
                PERFORM redis_migrate.alter_rate_limit('vector ' || suite.line, v.quota, v.period_ns * suite.scale / 1000 * interval '1 microsecond',
                    burst => NULLIF(v.burst, 0));
            END IF;
            r := redis_migrate.rate_limit_at('vector ' || suite.line, 'foo', v.cost,
                timestamptz '1970-01-01 00:00Z' + v.t_ns * suite.scale / 1000 * interval '1 microsecond');
            answer := concat_ws(' ', r.allowed, r.remaining, r.reset_after, r.retry_after, r.quota);
            expected := concat_ws(' ', v.allowed, v.remaining, ceil(v.reset_ns * suite.scale / 1000.0) * interval '1 microsecond',
                CASE WHEN v.retry_ns >= 0 THEN ceil(v.retry_ns * suite.scale / 1000.0) * interval '1 microsecond' END,
                CASE v.algorithm WHEN 'gcra' THEN v.burst ELSE v.quota END);
            IF answer IS DISTINCT FROM expected THEN
                RETURN NEXT format('%s, line %s: %s, not %s', v.suite, v.line, answer, expected);
            END IF;
        END LOOP;
    END LOOP;
END
$$;
SELECT count(*), count(DISTINCT suite), count(DISTINCT algorithm) FROM vector;
SELECT wrong_answers();

\echo == a policy and its answers
SELECT redis_migrate.create_rate_limit('api', '10/s', burst => 21);
SELECT redis_migrate.create_rate_limit('general', 30, '1 second', burst => 51);
SELECT policy, owner, quota, period, burst, algorithm, storage, key_type, ipv6_prefix, shadow, fail_open FROM redis_migrate.rate_limit_policies WHERE policy IN ('api', 'general') ORDER BY 1;
SELECT * FROM redis_migrate.rate_limit_at('api', 'u', 1, '2024-02-29 12:00:00');
SELECT * FROM redis_migrate.rate_limit_at('api', 'u', 20, '2024-02-29 12:00:00');
SELECT * FROM redis_migrate.rate_limit_at('api', 'u', 1, '2024-02-29 12:00:00');
SELECT * FROM redis_migrate.rate_limit_at('api', 'u', 22, '2024-02-29 12:00:00');
-- A look, also at a key that nobody knows, changes nothing.
SELECT * FROM redis_migrate.rate_limit_at('api', 'u', 0, '2024-02-29 12:00:00');
SELECT * FROM redis_migrate.rate_limit_at('api', 'nobody', 0, '2024-02-29 12:00:00');
-- After sleeping exactly retry_after the same request passes, a microsecond earlier it does not.
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('api', 'u', 7, '2024-02-29 12:00:00');
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('api', 'u', 7, '2024-02-29 12:00:00.699999');
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('api', 'u', 7, '2024-02-29 12:00:00.7');
SELECT redis_migrate.rate_limit_allowed('api', 'now'), remaining, reason FROM redis_migrate.rate_limit('api', 'now', 0);
SELECT redis_migrate.rate_limit_allowed('api', 'now', 21);
SELECT redis_migrate.rate_limit_allowed('api', 'now', 21);
SELECT redis_migrate.reset_rate_limit('api', 'now'), redis_migrate.reset_rate_limit('api', 'now');
SELECT redis_migrate.rate_limit_allowed('api', 'now', 21);

\echo == a rate of one per year, and of a million per second
SELECT redis_migrate.create_rate_limit('yearly', 1, '365 days');
SELECT allowed, reset_after FROM redis_migrate.rate_limit_at('yearly', 'u', 1, '2024-01-01');
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('yearly', 'u', 1, '2024-12-30');
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('yearly', 'u', 1, '2024-12-31');
SELECT redis_migrate.create_rate_limit('million', 1000000, '1 second', burst => 1);
SELECT allowed, reset_after FROM redis_migrate.rate_limit_at('million', 'u', 1, '2024-01-01');
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('million', 'u', 1, '2024-01-01');
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('million', 'u', 1, '2024-01-01 00:00:00.000001');

\echo == keys and costs of every kind
SELECT refused($$SELECT redis_migrate.rate_limit('nosuch', 'u')$$);
SELECT refused($$SELECT redis_migrate.rate_limit(NULL, 'u')$$);
SELECT refused($$SELECT redis_migrate.rate_limit('api', NULL::text)$$);
SELECT refused($$SELECT redis_migrate.rate_limit('api', NULL::inet)$$);
SELECT refused($$SELECT redis_migrate.rate_limit('api', 'u', NULL)$$);
SELECT refused($$SELECT redis_migrate.rate_limit('api', 'u', -1)$$);
SELECT reason, remaining FROM redis_migrate.rate_limit('api', 'huge', 9223372036854775807);
SELECT refused($$SELECT redis_migrate.rate_limit_at('api', 'u', 1, '1969-12-31 23:59:59')$$);
SELECT refused($$SELECT redis_migrate.rate_limit_at('api', 'u', 1, 'infinity')$$);
SELECT redis_migrate.rate_limit_allowed('api', '', 21), redis_migrate.rate_limit_allowed('api', '', 21), redis_migrate.rate_limit_allowed('api', ' ', 21);
-- 64 kB: every byte counts. Compressed on disk, out of line or inline, it is the same key.
CREATE TABLE long_key (key text);
INSERT INTO long_key VALUES (repeat('k', 65536));
SELECT redis_migrate.rate_limit_allowed('api', repeat('k', 65536), 21), redis_migrate.rate_limit_allowed('api', repeat('k', 65535) || 'l', 21),
       (SELECT redis_migrate.rate_limit_allowed('api', key, 21) FROM long_key);

\echo == the largest quota and cost do not overflow
SELECT redis_migrate.create_rate_limit('largest ' || a, 9223372036854775807, '70 years', algorithm => a) FROM unnest('{fixed_window,fixed_window_first_hit,sliding_window}'::text[]) AS a;
SELECT a, (first).allowed, (first).remaining, (second).allowed AS second, (second).reason, redis_migrate.rate_limit_refund('largest ' || a, 'u', 9223372036854775807)
FROM (SELECT a, redis_migrate.rate_limit('largest ' || a, 'u', 9223372036854775807) AS first, redis_migrate.rate_limit('largest ' || a, 'u') AS second
      FROM unnest('{fixed_window,fixed_window_first_hit,sliding_window}'::text[]) AS a OFFSET 0) AS asked;

\echo == refunds end at full
SELECT redis_migrate.create_rate_limit('refund', 10, '1 day');
SELECT redis_migrate.rate_limit_refund('refund', 'u', 3);
SELECT redis_migrate.rate_limit_allowed('refund', 'u', 4), redis_migrate.rate_limit_refund('refund', 'u', 2), redis_migrate.rate_limit_refund('refund', 'u', 9223372036854775807);
SELECT refused($$SELECT redis_migrate.rate_limit_refund('refund', 'u', -1)$$);
-- The vectors with refunds whose windows are long: a negative cost is given back.
CREATE FUNCTION wrong_refunds() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    v record; answer bigint;
BEGIN
    FOR v IN SELECT *, line = min(line) OVER (PARTITION BY suite) AS first FROM vector
        WHERE suite LIKE 'upstash refund%' OR suite LIKE 'rate-limiter-flexible reward%' ORDER BY line LOOP
        IF v.first THEN
            PERFORM redis_migrate.create_rate_limit(v.suite, v.quota, greatest(v.period_ns / 1000000000, 3600) * interval '1 second', algorithm => v.algorithm);
        END IF;
        IF v.cost < 0 THEN
            answer := redis_migrate.rate_limit_refund(v.suite, 'foo', -v.cost);
        ELSE
            SELECT remaining INTO answer FROM redis_migrate.rate_limit(v.suite, 'foo', v.cost) WHERE allowed = v.allowed;
        END IF;
        IF answer IS DISTINCT FROM v.remaining THEN
            RETURN NEXT format('%s, line %s: %s, not %s', v.suite, v.line, answer, v.remaining);
        END IF;
    END LOOP;
END
$$;
SELECT wrong_refunds();
-- rate-limiter-flexible: set 12 of 10 points leaves none; of a key that nobody has used there is nothing to delete.
SELECT redis_migrate.create_rate_limit('set', 10, '1 hour', algorithm => 'fixed_window_first_hit'),
       redis_migrate.import_rate_limit('set', 'u', 12, clock_timestamp() + interval '1 hour'), redis_migrate.rate_limit_allowed('set', 'u'),
       redis_migrate.reset_rate_limit('set', 'u'), redis_migrate.reset_rate_limit('set', 'u');

\echo == a changed policy holds for live keys in the next statement, also inside a transaction
SELECT redis_migrate.create_rate_limit('change', 1, '1 minute');
SELECT allowed FROM redis_migrate.rate_limit_at('change', 'u', 1, '2024-01-01 00:00:00');
BEGIN;
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('change', 'u', 1, '2024-01-01 00:00:00');
SELECT redis_migrate.alter_rate_limit('change', "limit" => '10/s', burst => 10);
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('change', 'u', 1, '2024-01-01 00:00:00');
SELECT allowed, remaining FROM redis_migrate.rate_limit_at('change', 'u', 1, '2024-01-01 00:00:01');
ROLLBACK;
-- Rolled back, the old policy holds, for what the transaction has used.
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('change', 'u', 1, '2024-01-01 00:00:01');
SELECT redis_migrate.alter_rate_limit('change', algorithm => 'sliding_window', quota => 5);
SELECT quota, period, burst, algorithm FROM redis_migrate.rate_limit_policies WHERE policy = 'change';
SELECT allowed, remaining FROM redis_migrate.rate_limit_at('change', 'u', 1, '2024-01-01 00:00:01');
SELECT redis_migrate.drop_rate_limit('change');
SELECT refused($$SELECT redis_migrate.rate_limit('change', 'u')$$);
-- One of the same name is another policy: it knows nothing of the first.
SELECT redis_migrate.create_rate_limit('change', 5, '1 minute', algorithm => 'sliding_window');
SELECT allowed, remaining FROM redis_migrate.rate_limit_at('change', 'u', 1, '2024-01-01 00:00:01');

\echo == overrides, allow and deny lists
SELECT redis_migrate.create_rate_limit('lists', 2, '1 hour');
SELECT redis_migrate.set_rate_limit_override('lists', 'gold', 100);
SELECT quota, remaining FROM redis_migrate.rate_limit('lists', 'gold');
SELECT redis_migrate.set_rate_limit_override('lists', 'gold', 3, '1 day', burst => 4);
SELECT quota, remaining FROM redis_migrate.rate_limit('lists', 'gold', 0);
SELECT redis_migrate.add_rate_limit_allow('lists', 'monitor'), redis_migrate.add_rate_limit_deny('lists', 'bot'),
       redis_migrate.add_rate_limit_deny('lists', 'paused', '1 hour'), redis_migrate.add_rate_limit_deny('lists', 'past', '1 ms'),
       redis_migrate.add_rate_limit_deny('lists', 'monitor');
SELECT allowed, quota, remaining, retry_after, reset_after, reason FROM redis_migrate.rate_limit('lists', 'monitor', 1000);
SELECT allowed, quota, remaining, retry_after, reset_after, reset_at, reason FROM redis_migrate.rate_limit('lists', 'bot');
SELECT allowed, reason, retry_after BETWEEN '59 minutes' AND '1 hour' AS about_an_hour, retry_after = reset_after AS same FROM redis_migrate.rate_limit('lists', 'paused');
SELECT allowed, reason FROM redis_migrate.rate_limit('lists', 'past');
-- Nanoseconds since 1970 reach to 2262: what lies beyond is refused until then.
SELECT redis_migrate.add_rate_limit_deny('lists', 'past', '1 hour');
UPDATE redis_migrate.rate_limit_exception SET expires_at = expires_at + interval '300 years' WHERE key = 'past';
SELECT allowed, reason, retry_after > '200 years' AS long FROM redis_migrate.rate_limit('lists', 'past');
SELECT redis_migrate.drop_rate_limit_deny('lists', 'past');
-- rate_limit and rate_limits answer alike; what lies in time lies between the two statements' clocks.
SELECT key, a.reason, (a.allowed, a.quota, a.remaining, a.reason) = (b.allowed, b.quota, b.remaining, b.reason) AS same,
       a.reset_at - clock_timestamp() BETWEEN '-1 minute' AND '1 hour' AS soon, a.retry_after - b.retry_after < '1 minute' AS retry,
       b.reset_at - a.reset_at < '1 minute' AS reset, abs(extract(epoch FROM a.retry_after) - a.retry_after_seconds) < 1e-6 AS seconds
FROM unnest('{monitor,bot,paused,past,free}'::text[]) AS key, redis_migrate.rate_limit('lists', key, 0) AS a,
    redis_migrate.rate_limits('{lists}', ARRAY[key], 0) AS b;
SELECT policy, kind, key, network, quota, period, burst, expires_at IS NULL FROM redis_migrate.rate_limit_exceptions ORDER BY kind, key;
SELECT redis_migrate.drop_rate_limit_deny('lists', 'bot'), redis_migrate.drop_rate_limit_deny('lists', 'bot'),
       redis_migrate.drop_rate_limit_allow('lists', 'monitor'), redis_migrate.drop_rate_limit_override('lists', 'gold');
SELECT reason, quota FROM redis_migrate.rate_limit('lists', 'bot');
SELECT reason FROM redis_migrate.rate_limit('lists', 'monitor');
SELECT quota FROM redis_migrate.rate_limit('lists', 'gold', 0);
SELECT refused($$SELECT redis_migrate.set_rate_limit_override('lists', 'gold', 0)$$);
SELECT redis_migrate.set_rate_limit_override('lists', 'gold', 3, '1 day', burst => 4);
SELECT redis_migrate.alter_rate_limit('lists', algorithm => 'fixed_window');
SELECT quota FROM redis_migrate.rate_limit('lists', 'gold', 0);
-- upstash, dynamic limits: 10, for one key 3; five requests each.
SELECT redis_migrate.create_rate_limit('dynamic', 10, '1 hour', algorithm => 'fixed_window_first_hit'), redis_migrate.set_rate_limit_override('dynamic', 'three', 3);
SELECT key, (answer).quota, min((answer).remaining) AS remaining, count(*) FILTER (WHERE (answer).allowed) AS allowed
FROM (SELECT key, redis_migrate.rate_limit('dynamic', key) AS answer FROM unnest('{three,other}'::text[]) AS key, generate_series(1, 5)) AS asked GROUP BY 1, 2 ORDER BY 2;

\echo == addresses: IPv6 folded, IPv4 in IPv6 is IPv4; text stays text unless the policy says otherwise
SELECT redis_migrate.create_rate_limit('address', 1, '1 hour', key_type => 'inet');
SELECT redis_migrate.rate_limit_allowed('address', '2001:db8:1:2::1'), redis_migrate.rate_limit_allowed('address', '2001:db8:1:2:ffff::9'),
       redis_migrate.rate_limit_allowed('address', inet '2001:db8:1:2:3::4'), redis_migrate.rate_limit_allowed('address', '2001:db8:1:3::1');
SELECT redis_migrate.rate_limit_allowed('address', '192.0.2.7'), redis_migrate.rate_limit_allowed('address', '::ffff:192.0.2.7'),
       redis_migrate.rate_limit_allowed('address', inet '::ffff:192.0.2.8'), redis_migrate.rate_limit_allowed('address', '192.0.2.8');
SELECT refused($$SELECT redis_migrate.rate_limit('address', 'localhost')$$);
SELECT redis_migrate.alter_rate_limit('address', ipv6_prefix => 48);
SELECT redis_migrate.rate_limit_allowed('address', '2001:db8:1:4::1'), redis_migrate.rate_limit_allowed('address', '2001:db8:1:5::1');
SELECT redis_migrate.rate_limit_allowed('api', '2001:db8::1', 21), redis_migrate.rate_limit_allowed('api', '2001:db8::2', 21),
       redis_migrate.rate_limit_allowed('api', inet '2001:db8::1', 21), redis_migrate.rate_limit_allowed('api', inet '2001:db8::2', 21);
SELECT redis_migrate.add_rate_limit_allow('address', '10.0.0.0/8'), redis_migrate.add_rate_limit_deny('address', inet '198.51.100.0/24'),
       redis_migrate.set_rate_limit_override('address', '10.9.0.0/16', 7), redis_migrate.set_rate_limit_override('address', inet '203.0.113.0/24', 9),
       redis_migrate.set_rate_limit_override('address', '203.0.113.5', 11), redis_migrate.add_rate_limit_deny('address', '2001:db8:bad::/48');
SELECT a, reason, quota FROM unnest('{10.1.2.3,10.9.1.1,198.51.100.200,::ffff:198.51.100.200,64:ff9b::198.51.100.200,64:ff9b::203.0.113.5,203.0.113.4,203.0.113.5,2001:db8:bad:1::1}'::text[]) AS a,
    redis_migrate.rate_limit('address', a, 0);
-- A single host of IPv6, though it counts with its network.
SELECT redis_migrate.add_rate_limit_deny('address', '2001:db8:7::5');
SELECT a, reason FROM unnest('{2001:db8:7::5,2001:db8:7::6,2001:db8:7::/64}'::text[]) AS a, redis_migrate.rate_limit('address', a, 0);
SELECT reason FROM redis_migrate.rate_limit('address', inet '2001:db8:7::5', 0);
-- A network is the same however it is written.
SELECT redis_migrate.add_rate_limit_deny('address', a) FROM unnest('{192.0.2.77/28,::ffff:192.0.2.64/124,64:ff9b::192.0.2.64/124,192.0.2.64/28}'::inet[]) AS a;
SELECT network FROM redis_migrate.rate_limit_exception WHERE kind = 'deny' AND host(network) LIKE '%192.0.2.%';
SELECT reason FROM redis_migrate.rate_limit('address', '64:ff9b::192.0.2.70', 0);
SELECT redis_migrate.drop_rate_limit_deny('address', '::ffff:192.0.2.70/124'), redis_migrate.drop_rate_limit_deny('address', '192.0.2.64/28');
SELECT reason FROM redis_migrate.rate_limit('address', '192.0.2.70', 0);

\echo == shadow
SELECT redis_migrate.create_rate_limit('shadow', 1, '1 hour', shadow => true);
SELECT allowed, reason, remaining, retry_after FROM redis_migrate.rate_limit('shadow', 'u');
SELECT allowed, reason, remaining, retry_after FROM redis_migrate.rate_limit('shadow', 'u');
SELECT redis_migrate.alter_rate_limit('shadow', shadow => false);
SELECT allowed, reason FROM redis_migrate.rate_limit('shadow', 'u');

\echo == several policies, all or nothing
SELECT redis_migrate.create_rate_limit('second', 1, '1 second', algorithm => 'fixed_window_first_hit'),
       redis_migrate.create_rate_limit('hour', 3, '1 hour'), redis_migrate.create_rate_limit('row', 2, '1 hour', storage => 'table'),
       redis_migrate.create_rate_limit('unlogged', 3, '1 hour', storage => 'unlogged table');
SELECT allowed, policy, remaining, reason FROM redis_migrate.rate_limits('{hour,row,unlogged}', '{u}');
SELECT allowed, policy, remaining, reason FROM redis_migrate.rate_limits('{unlogged,hour,row}', '{u}');
SELECT allowed, policy, remaining, reason FROM redis_migrate.rate_limits('{row,hour,unlogged}', '{u}');
SELECT remaining FROM redis_migrate.rate_limit('hour', 'u', 0);
SELECT remaining FROM redis_migrate.rate_limit('unlogged', 'u', 0);
-- Memory that refuses takes the rows back, too.
SELECT redis_migrate.rate_limit_allowed('hour', 'v', 3);
SELECT allowed, policy FROM redis_migrate.rate_limits('{row,hour}', '{v}');
SELECT remaining FROM redis_migrate.rate_limit('row', 'v', 0);
SELECT allowed, policy, reason, retry_after FROM redis_migrate.rate_limits('{hour,row}', '{w,w}', 3);
SELECT allowed, policy, remaining FROM redis_migrate.rate_limits('{hour,hour}', '{x,y}');
SELECT refused($$SELECT redis_migrate.rate_limits('{hour,hour}', '{x,x}')$$);
SELECT refused($$SELECT redis_migrate.rate_limits('{hour,row}', '{x,y,z}')$$);
SELECT refused($$SELECT redis_migrate.rate_limits('{}', '{x}')$$);
SELECT refused($$SELECT redis_migrate.rate_limits('{hour,nosuch}', '{x}')$$);
SELECT refused($$SELECT redis_migrate.rate_limits('{hour,NULL}', '{x}')$$);
SELECT refused($$SELECT redis_migrate.rate_limits('{hour,row}', '{NULL,x}')$$);
SELECT refused($$SELECT redis_migrate.rate_limits('{hour}', NULL)$$);
SELECT refused($$SELECT redis_migrate.rate_limits('{hour}', '{x}', NULL)$$);
SELECT refused($$SELECT redis_migrate.rate_limits('{hour}', '{x}', -1)$$);
SELECT allowed, policy, reason, retry_after FROM redis_migrate.rate_limits('{hour}', '{x}', 9223372036854775807);
SELECT refused($$SELECT redis_migrate.rate_limits(array_fill('hour'::text, '{33}'), (SELECT array_agg(i::text) FROM generate_series(1, 33) AS i))$$);

\echo == without a policy
SELECT allowed, quota, remaining FROM redis_migrate.rate_limit_adhoc('signup', 'u', '2 per hour');
SELECT allowed, quota, remaining FROM redis_migrate.rate_limit_adhoc('signup', 'u', '2 per hour');
SELECT allowed, quota, reason FROM redis_migrate.rate_limit_adhoc('signup', 'u', '2 per hour');
SELECT allowed, quota, remaining FROM redis_migrate.rate_limit_adhoc('signup', 'u', '3/h', algorithm => 'fixed_window');
SELECT allowed, quota, remaining FROM redis_migrate.rate_limit_adhoc('signin', 'u', '2 per hour', burst => 5, cost => 4);
SELECT refused($$SELECT redis_migrate.rate_limit_adhoc('signup', 'u', 'often')$$);
SELECT refused($$SELECT redis_migrate.rate_limit_adhoc('signup', 'u', '2/h', -1)$$);
SELECT refused($$SELECT redis_migrate.rate_limit_adhoc('signup', 'u', '1/s; 5/m')$$);

\echo == memory keeps what was used when the caller rolls back, a table does not
BEGIN;
SELECT redis_migrate.rate_limit_allowed('hour', 'rollback', 2), redis_migrate.rate_limit_allowed('row', 'rollback', 2), redis_migrate.rate_limit_allowed('unlogged', 'rollback', 2);
ROLLBACK;
SELECT remaining FROM redis_migrate.rate_limit('hour', 'rollback', 0);
SELECT remaining FROM redis_migrate.rate_limit('row', 'rollback', 0);
SELECT remaining FROM redis_migrate.rate_limit('unlogged', 'rollback', 0);

\echo == tables: a refusal writes nothing, keys may be long
SELECT redis_migrate.rate_limit_allowed('row', 'ctid', 2);
SELECT ctid, xmax AS ctid_before, time_ns AS time_before FROM redis_migrate.rate_limit_state WHERE key = 'ctid' \gset
SELECT redis_migrate.rate_limit_allowed('row', 'ctid', 2), redis_migrate.rate_limit_allowed('row', 'ctid', 0), redis_migrate.rate_limit_allowed('row', 'ctid', 3);
SELECT ctid = :'ctid' AND xmax::text = :'ctid_before' AND time_ns = :time_before FROM redis_migrate.rate_limit_state WHERE key = 'ctid';
SELECT redis_migrate.rate_limit_allowed('row', repeat('k', 65536), 2), redis_migrate.rate_limit_allowed('row', repeat('k', 65536), 2), redis_migrate.rate_limit_allowed('row', repeat('k', 65535) || 'l', 2);
SELECT left(key, 7), length(key), count(*) FROM redis_migrate.rate_limit_state WHERE length(key) > 60 GROUP BY 1, 2;
SELECT redis_migrate.rate_limit_refund('row', 'ctid', 1), redis_migrate.reset_rate_limit('row', 'ctid'), redis_migrate.reset_rate_limit('row', 'ctid');
SELECT allowed, reset_at, reason FROM redis_migrate.rate_limit_at('row', 'at', 2, '2024-01-01');
SELECT allowed, retry_after FROM redis_migrate.rate_limit_at('row', 'at', 1, '2024-01-01 00:10');
SELECT allowed, remaining FROM redis_migrate.rate_limit_at('row', 'at', 1, '2024-01-01 00:30');
BEGIN READ ONLY;
SELECT refused($$SELECT redis_migrate.rate_limit('row', 'readonly')$$);
SELECT redis_migrate.rate_limit_allowed('hour', 'readonly');
ROLLBACK;
-- Rows that mean nothing any more are swept; one of an override or a simulation not before that one says so.
SELECT target, expires_column FROM redis_migrate.expiry_policies WHERE target LIKE 'redis_migrate.rate_limit%' ORDER BY 1;
SELECT redis_migrate.create_rate_limit('slide', 2, '1 minute', algorithm => 'sliding_window', storage => 'table'),
       redis_migrate.set_rate_limit_override('slide', 'year', 2, '1 year');
SELECT redis_migrate.rate_limit_allowed('slide', 'year'), (redis_migrate.rate_limit_at('slide', 'old', 1, '2024-01-01')).allowed;
SELECT key, expires_at > clock_timestamp() + interval '1 year' AS after_a_year, expires_at > clock_timestamp() AS later
FROM redis_migrate.rate_limit_state WHERE key IN ('year', 'old') ORDER BY key;
UPDATE redis_migrate.rate_limit_state SET expires_at = now() - interval '1 minute' WHERE key = 'old';
CALL redis_migrate.sweep('redis_migrate.rate_limit_state');
SELECT key FROM redis_migrate.rate_limit_state WHERE key IN ('year', 'old');
SELECT redis_migrate.drop_rate_limit('slide');
SELECT redis_migrate.drop_rate_limit('row'), redis_migrate.drop_rate_limit('unlogged');
SELECT count(*) FROM redis_migrate.rate_limit_state;

\echo == imported numbers that are out of all bounds limit nobody who was not limited, and let nobody pass who was
SELECT redis_migrate.create_rate_limit('bounds', 5, '1 minute'), redis_migrate.create_rate_limit('bounds slide', 5, '1 hour', algorithm => 'sliding_window'),
       redis_migrate.set_rate_limit_override('bounds', 'slow', 1, '1 day');
SELECT redis_migrate.import_rate_limit('bounds', 'u', tat => -9223372036854775808), redis_migrate.import_rate_limit('bounds', 'v', tat => 9223372036854775807),
       redis_migrate.import_rate_limit('bounds slide', 'u', 9223372036854775807, now() + interval '1 minute', 9223372036854775807);
SELECT redis_migrate.rate_limit_allowed('bounds', 'u'), redis_migrate.rate_limit_allowed('bounds', 'v'), redis_migrate.rate_limit_allowed('bounds slide', 'u');
-- The numbers of an override are those that an import obeys.
SELECT redis_migrate.import_rate_limit('bounds', 'slow', tat => (extract(epoch FROM now() + interval '12 hours') * 1000000000)::bigint);
SELECT retry_after BETWEEN '11 hours 59 minutes' AND '12 hours' AS twelve_hours FROM redis_migrate.rate_limit('bounds', 'slow');

\echo == headers
SELECT redis_migrate.create_rate_limit('log"in\', 5, '1 minute');
SELECT redis_migrate.rate_limit_headers('log"in\', redis_migrate.rate_limit_at('log"in\', 'u', 5, '2024-01-01'));
SELECT redis_migrate.rate_limit_headers('log"in\', redis_migrate.rate_limit_at('log"in\', 'u', 1, '2024-01-01 00:00:00.5'));
SELECT redis_migrate.rate_limit_headers('log"in\', redis_migrate.rate_limit_at('log"in\', 'u', 6, '2024-01-01'));
SELECT refused($$SELECT redis_migrate.rate_limit_headers('nosuch', NULL)$$);

\echo == what decides or changes is volatile and never runs in a parallel worker
SELECT proname FROM pg_proc WHERE pronamespace = 'redis_migrate'::regnamespace AND proname ~ 'rate_limit|lockout|login' AND (provolatile <> 'v' OR proparallel <> 'u');

\echo == statistics
SELECT redis_migrate.create_rate_limit('stats', 2, '1 hour'), redis_migrate.add_rate_limit_deny('stats', 'bot');
SELECT count(*) FROM generate_series(1, 5), redis_migrate.rate_limit_allowed('stats', 'a' || generate_series % 2);
SELECT redis_migrate.rate_limit_allowed('stats', 'bot'), redis_migrate.rate_limit_allowed('stats', 'a1', 0), redis_migrate.rate_limit_allowed('stats', 'a1', 9);
SELECT * FROM redis_migrate.rate_limit_stats WHERE policy IN ('stats', 'shadow') ORDER BY policy;
SELECT redis_migrate.reset_rate_limit_stats('stats');
SELECT * FROM redis_migrate.rate_limit_stats WHERE policy = 'stats';
SELECT bytes > 0 AND keys = bytes / 48 FROM redis_migrate.rate_limit_capacity();
SELECT redis_migrate.save_rate_limits();

\echo == what cannot be defined
SELECT refused($$SELECT redis_migrate.create_rate_limit('api', '1/s')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('', '1/s')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('ключ', '1/s')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 0, '1 second')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '0')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '-1 second')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '100 years')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '1 year', burst => 100)$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '1 second', burst => 0)$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '1 second', burst => 1, algorithm => 'fixed_window')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 2000000000, '1 second')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '1 second', algorithm => 'magic')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '1 second', storage => 'disk')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '1 second', key_type => 'bytea')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', 1, '1 second', ipv6_prefix => 129)$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', '1/s; 5/m')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('bad', NULL::text)$$);
SELECT refused($$SELECT redis_migrate.alter_rate_limit('nosuch', quota => 1)$$);
SELECT refused($$SELECT redis_migrate.alter_rate_limit('api', quota => 1, "limit" => '1/s')$$);
SELECT refused($$SELECT redis_migrate.drop_rate_limit('nosuch')$$);
SELECT refused($$SELECT redis_migrate.rate_limit_step(1, 'u', 1, 1, 1)$$);

\echo == rights
CREATE ROLE regress_prm_limiter;
CREATE ROLE regress_prm_caller;
SET ROLE regress_prm_caller;
SELECT refused($$SELECT redis_migrate.rate_limit('api', 'u')$$);
SELECT refused($$SELECT redis_migrate.create_rate_limit('mine', '1/s')$$);
SELECT refused($$SELECT * FROM redis_migrate.rate_limit_stats$$);
SELECT refused($$SELECT * FROM redis_migrate.rate_limit_state$$);
SELECT count(*) FROM redis_migrate.rate_limit_policies;
RESET ROLE;
GRANT EXECUTE ON FUNCTION redis_migrate.create_rate_limit(text, text, bigint, text, text, text, integer, boolean, boolean),
    redis_migrate.alter_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean, text),
    redis_migrate.drop_rate_limit(text), redis_migrate.rate_limit_at(text, text, bigint, timestamptz), redis_migrate.add_rate_limit_deny(text, text, interval)
    TO regress_prm_limiter;
GRANT EXECUTE ON FUNCTION redis_migrate.rate_limit(text, text, bigint), redis_migrate.rate_limit_at(text, text, bigint, timestamptz) TO regress_prm_caller;
GRANT pg_monitor TO regress_prm_caller;
SET ROLE regress_prm_limiter;
SELECT redis_migrate.create_rate_limit('mine', '1/h', storage => 'table');
SELECT policy, owner FROM redis_migrate.rate_limit_policies;
SELECT allowed FROM redis_migrate.rate_limit_at('mine', 'u', 1, '2024-01-01');
SELECT refused($$SELECT redis_migrate.alter_rate_limit('api', quota => 1)$$);
SELECT refused($$SELECT redis_migrate.drop_rate_limit('api')$$);
SELECT refused($$SELECT redis_migrate.add_rate_limit_deny('api', 'u')$$);
SELECT refused($$SELECT redis_migrate.rate_limit_at('api', 'u', 1, '2024-01-01')$$);
SET ROLE regress_prm_caller;
SELECT allowed, remaining FROM redis_migrate.rate_limit('mine', 'v');
SELECT refused($$SELECT redis_migrate.rate_limit_at('mine', 'u', 1, '2024-01-01')$$);
SELECT calls FROM redis_migrate.rate_limit_stats WHERE policy = 'mine';
SET ROLE regress_prm_limiter;
SELECT redis_migrate.drop_rate_limit('mine');
RESET ROLE;
REVOKE pg_monitor FROM regress_prm_caller;
DROP OWNED BY regress_prm_limiter, regress_prm_caller;
DROP ROLE regress_prm_limiter, regress_prm_caller;
