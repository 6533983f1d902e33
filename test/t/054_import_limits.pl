# Counters of other rate limiters and lockouts, as they are in Redis, continue in PostgreSQL: clients that were limited
# stay limited, and for as long. The keys are written by hand in the formats of redis-cell, rate-limiter-flexible,
# rack-attack, limits (Flask-Limiter), Laravel, redis_rate, and the sample application.

use strict;
use warnings;

use POSIX qw(strftime);
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(time);

my $redis = start_redis();
my $node = new_node('import', preload => 1);
create_server($node, 'shop', $redis);

my $now = time;
my $day = int($now / 86400);
my $ns = sub { return sprintf '%d', ($now + shift) * 1e9; };
my $iso = sub { return strftime('%Y-%m-%dT%H:%M:%S', gmtime($now - 60 * shift)); };
my $set = sub { my ($key, $value, $ttl) = @_; $redis->cli('SET', $key, $value, 'EX', $ttl); return; };

# redis-cell: 30 per 60 s with a burst of 16, so 2 s each. The arrival time 320 s ahead is an old, longer limit's.
$set->('cell:full', $ns->(32), 32);
$set->('cell:part', $ns->(10), 10);
# redis_rate: seconds since 2017 as a float, 5 per hour, all of it used.
$redis->cli('SET', 'rate:user:1', sprintf('%.6f', $now - 1483228800 + 3600), 'EX', 3600);
# rate-limiter-flexible: 5 points per 600 s.
$set->('rlflx:over', 7, 400);
$set->('rlflx:two', 2, 400);
# Blocked for a day, which is longer than its window.
$set->('rlflx:blocked', 6, 86400);
# Counters that never got their expiry: a crash between INCR and EXPIRE, or PERSIST.
$redis->cli('SET', 'rlflx:stuck', 7);
$redis->cli('SET', 'rlflx:stuck two', 2);
$redis->cli('SET', 'defender:failed:username:stuck', 5);
$set->('defender:failed:username:ada', 5, 240);
# rack-attack: 3 per day, aligned.
$set->("rack::attack:$day:req/ip:192.0.2.1", 4, 86400);
$set->("rack::attack:$day:req/ip:192.0.2.2", 1, 86400);
$set->('rack::attack:' . ($day - 1) . ':req/ip:192.0.2.3', 9, 86400);
# limits: 10 per 1 hour.
$set->('LIMITS:LIMITER/192.0.2.7/10/1/hour', 11, 1800);
# Laravel: a hash and, beside it, when it is over.
my $hash = 'a' x 40;
$set->("laravel_database_laravel_cache_:$hash", 5, 50);
$set->("laravel_database_laravel_cache_:$hash:timer", int($now) + 50, 50);
# The sample application.
$set->('threadr:ratelimit:192.0.2.13', 10, 2303);
$set->('threadr:ratelimit:2001:db8::7', 14, 100);
$set->('threadr:ratelimit:192.0.2.14', 3, 2303);
my $failed = sub {
    my ($email, $ip, $attempts, $minutes) = @_;
    my $last = $iso->($minutes);
    $set->("threadr:failed_login:$email:$ip", qq({"attempts": $attempts, "last_attempt": "$last", "email": "$email", "client_ip": "$ip"}), 4000);
};
$failed->('ada.0@example.com', '2001:db8::10', 5, 10);
$failed->('bob@example.com', '192.0.2.20', 4, 10);
$failed->('old@example.com', '192.0.2.20', 9, 40);

# The mappings of docs/importing-limits.md.
$node->safe_psql(
    'postgres', q{
    CREATE TABLE limit_counter (policy text, key text, used bigint, reset_at timestamptz, tat bigint, PRIMARY KEY (policy, key));
    CREATE TABLE defender_user (name text PRIMARY KEY, failures int, expires_at timestamptz);
    CREATE TABLE failed_login (email text, ip inet, attempts int, last_attempt timestamptz, PRIMARY KEY (email, ip));
    SELECT redis_migrate.create_migration('limits', 'shop');
    SELECT redis_migrate.add_mapping('limits', 'cell', 'cell:{id}', 'limit_counter',
        $$SELECT 'cell' AS policy, id AS key, value::bigint AS tat FROM redis_batch$$, '{policy,key}');
    SELECT redis_migrate.add_mapping('limits', 'redis_rate', 'rate:{user}', 'limit_counter',
        $$SELECT 'redis_rate' AS policy, "user" AS key, ((value::numeric + 1483228800) * 1000000000)::bigint AS tat FROM redis_batch$$, '{policy,key}');
    SELECT redis_migrate.add_mapping('limits', 'rlflx', 'rlflx:{id}', 'limit_counter',
        $$SELECT 'rlflx' AS policy, id AS key, value::bigint AS used, expires_at AS reset_at FROM redis_batch$$, '{policy,key}');
    SELECT redis_migrate.add_mapping('limits', 'rack', 'rack::attack:{bucket:int}:req/ip:{ip:inet}', 'limit_counter',
        $$SELECT 'rack' AS policy, host(ip) AS key, value::bigint AS used, to_timestamp((bucket + 1) * 86400) AS reset_at FROM redis_batch
          WHERE to_timestamp((bucket + 1) * 86400) > clock_timestamp()$$, '{policy,key}', no_row => 'skip');
    SELECT redis_migrate.add_mapping('limits', 'limits', 'LIMITS:LIMITER/{id}/{amount:int}/{multiples:int}/{unit}', 'limit_counter',
        $$SELECT 'limits' AS policy, id AS key, value::bigint AS used, expires_at AS reset_at FROM redis_batch$$, '{policy,key}');
    SELECT redis_migrate.skip_keys('limits', 'laravel_database_laravel_cache_:{hash:hex}:timer');
    SELECT redis_migrate.add_mapping('limits', 'laravel', 'laravel_database_laravel_cache_:{hash:hex}', 'limit_counter',
        $$SELECT 'laravel' AS policy, hash AS key, value::bigint AS used, expires_at AS reset_at FROM redis_batch$$, '{policy,key}');
    SELECT redis_migrate.add_mapping('limits', 'ratelimit', 'threadr:ratelimit:{ip:inet}', 'limit_counter',
        $$SELECT 'ratelimit' AS policy, host(ip) AS key, value::bigint AS used, expires_at AS reset_at FROM redis_batch$$, '{policy,key}');
    SELECT redis_migrate.add_mapping('limits', 'failed_login', 'threadr:failed_login:{email:email}:{ip:inet}', 'failed_login',
        $$SELECT email, ip, (json->>'attempts')::int AS attempts, (json->>'last_attempt')::timestamptz AS last_attempt FROM redis_batch$$, '{email,ip}');
    SELECT redis_migrate.add_mapping('limits', 'defender', 'defender:failed:username:{name}', 'defender_user',
        $$SELECT name, value::int AS failures, expires_at FROM redis_batch$$, '{name}');
    CALL redis_migrate.run('limits');});
is(last_run($node, 'limits', 'state, rejected, archived, balanced'), 'completed|0|0|t', 'every key is understood')
  or diag($node->safe_psql('postgres', 'SELECT key, rule, message FROM redis_migrate.rejects'));

# The same limits, and the counters into them; twice, which changes nothing.
my $import = q{
    SELECT count(redis_migrate.import_rate_limit(policy, key, used, reset_at, tat => tat)) FROM limit_counter WHERE reset_at > clock_timestamp() OR tat IS NOT NULL;
    SELECT count(redis_migrate.add_rate_limit_deny(policy, key, reset_at - clock_timestamp())) FROM limit_counter
        WHERE policy = 'rlflx' AND reset_at > clock_timestamp() + interval '600 s';
    SELECT count(redis_migrate.import_lockout('failed_login', email, ip, attempts, last_attempt)::text) FROM failed_login};
my $sums = $node->safe_psql(
    'postgres', qq{
    SELECT redis_migrate.create_rate_limit('cell', 30, '60 s', burst => 16) \\g /dev/null
    SELECT redis_migrate.create_rate_limit('redis_rate', 5, '1 hour') \\g /dev/null
    SELECT redis_migrate.create_rate_limit('rlflx', 5, '600 s', algorithm => 'fixed_window_first_hit') \\g /dev/null
    SELECT redis_migrate.create_rate_limit('rack', 3, '1 day', algorithm => 'fixed_window') \\g /dev/null
    SELECT redis_migrate.create_rate_limit('limits', 10, '1 hour', algorithm => 'fixed_window_first_hit') \\g /dev/null
    SELECT redis_migrate.create_rate_limit('laravel', 5, '60 s', algorithm => 'fixed_window_first_hit') \\g /dev/null
    SELECT redis_migrate.create_rate_limit('ratelimit', 10, '1 hour', algorithm => 'fixed_window_first_hit', key_type => 'inet') \\g /dev/null
    SELECT redis_migrate.create_lockout('failed_login', '{"user_name+address": 5}', time_window => '30 minutes', ipv6_prefix => 128) \\g /dev/null
    $import;
    $import});
is($sums, "13\n1\n3\n13\n1\n3", 'counters imported, twice');

# allowed, remaining, and when the next request passes, in seconds from when the keys were written; -1 where that says nothing.
sub answer
{
    my ($policy, $key) = @_;
    return $node->safe_psql('postgres',
        "SELECT allowed || ' ' || reason || ' ' || coalesce(round(extract(epoch FROM clock_timestamp() + retry_after) - $now), -1)
         FROM redis_migrate.rate_limit('$policy', '$key')");
}
sub remaining
{
    my ($policy, $key) = @_;
    return $node->safe_psql('postgres', "SELECT remaining FROM redis_migrate.rate_limit('$policy', '$key', 0)");
}
sub about
{
    my ($answer, $start, $seconds, $name, $slack) = @_;
    my ($found) = $answer =~ /^\Q$start\E (-?\d+)$/;
    ok(defined $found && abs($found - $seconds) <= ($slack // 2), "$name: $answer") or diag("expected $start $seconds");
    return;
}
# Its bucket leaks: after a wait of two seconds one more request passes.
my $part = remaining('cell', 'part');
ok($part >= 11 && $part <= 16, "redis-cell: five of sixteen were used, $part are left");
my $passed = $node->safe_psql('postgres', q{SELECT remaining, reset_at FROM redis_migrate.rate_limit('cell', 'full', 0)});
my ($left, $reset_at) = split /\|/, $passed;
is($node->safe_psql('postgres', "SELECT round(extract(epoch FROM '$reset_at'::timestamptz) - $now)"), 32, 'redis-cell: empty until the same moment');
about(answer('redis_rate', 'user:1'), 'false limited', 720, 'redis_rate: limited until a fifth of the hour has passed');
about(answer('rlflx', 'over'), 'false limited', 400, 'rate-limiter-flexible: limited until its key would have expired');
is(remaining('rlflx', 'two'), 3, 'rate-limiter-flexible: three points are left');
about(answer('rlflx', 'blocked'), 'false blocked', 86400, 'rate-limiter-flexible: blocked for longer than its window');
about(answer('rack', '192.0.2.1'), 'false limited', ($day + 1) * 86400 - $now, 'rack-attack: limited until the day ends');
is(remaining('rack', '192.0.2.2'), 2, 'rack-attack: two are left');
is(remaining('rack', '192.0.2.3'), 3, 'rack-attack: yesterday does not count');
about(answer('limits', '192.0.2.7'), 'false limited', 1800, 'limits: limited although its counter is above the limit');
about(answer('laravel', $hash), 'false limited', 50, 'Laravel: limited until its timer');
about(answer('ratelimit', '192.0.2.13'), 'false limited', 2303, 'threadr: limited');
about(answer('ratelimit', '2001:db8::7'), 'false limited', 100, 'threadr: an IPv6 address is limited');
is(remaining('ratelimit', '192.0.2.14'), 7, 'threadr: seven are left');

sub locked
{
    my ($email, $ip) = @_;
    return $node->safe_psql('postgres',
        "SELECT locked, failures, remaining, coalesce(round(extract(epoch FROM locked_until) - $now), -1)
         FROM redis_migrate.lockout_status('failed_login', '$email', '$ip')");
}
my $locked = locked('ada.0@example.com', '2001:db8::10');
ok($locked =~ /^t\|5\|0\|(\d+)$/ && abs($1 - 1200) <= 2, "threadr: locked for the 20 minutes that are left: $locked");
is(locked('bob@example.com', '192.0.2.20'), 'f|4|1|-1', 'threadr: one attempt is left');
is(locked('old@example.com', '192.0.2.20'), 'f|0|5|-1', 'threadr: what is older than the window does not count');

# Into tables, too.
$node->safe_psql('postgres', q{
    SELECT redis_migrate.create_rate_limit('stored', 5, '600 s', algorithm => 'fixed_window_first_hit', storage => 'table');
    SELECT redis_migrate.import_rate_limit('stored', key, used, reset_at) FROM limit_counter WHERE policy = 'rlflx' AND reset_at IS NOT NULL;});
about(answer('stored', 'over'), 'false limited', 400, 'storage table: limited');
is(remaining('stored', 'two'), 3, 'storage table: three points are left');

# Counters without an expiry: nobody gets them back for nothing, and nothing is decided without being asked for.
is($node->safe_psql('postgres', q{SELECT key, used, reset_at FROM limit_counter WHERE reset_at IS NULL AND tat IS NULL ORDER BY key}), "stuck|7|\nstuck two|2|",
    'Redis has no expiry for them');
my $stuck = q{FROM limit_counter WHERE policy = 'rlflx' AND reset_at IS NULL ORDER BY key};
like(sql_error($node, "SELECT redis_migrate.import_rate_limit(policy, key, used, reset_at) $stuck"),
    qr/ERROR:  22023: a counter for rate limit policy "rlflx" has no end\nDETAIL:  It counts 7 .*HINT:  Give no_ttl => 'full_window'/s, 'they are rejected');
like(sql_error($node, "SELECT redis_migrate.import_rate_limit(policy, key, used, reset_at, no_ttl => 'never') $stuck"), qr/ERROR:  22023: invalid no_ttl "never"/, 'no_ttl is one of three words');
is($node->safe_psql('postgres', "SELECT redis_migrate.import_rate_limit(policy, key, used, reset_at, no_ttl => 'full_window') $stuck"), "0\n3", 'full_window');
my $soon = q{SELECT reason, retry_after BETWEEN '590 s' AND '600 s' FROM redis_migrate.rate_limit('rlflx', 'stuck')};
is($node->safe_psql('postgres', $soon), 'limited|t', 'limited for one window');
for (1, 2)
{
    is($node->safe_psql('postgres', "SELECT redis_migrate.import_rate_limit(policy, key, used, reset_at, no_ttl => 'forever') $stuck"), "0\n3", 'forever');
    is($node->safe_psql('postgres', q{SELECT reason, retry_after, reset_at FROM redis_migrate.rate_limit('rlflx', 'stuck')}), 'denylisted||', 'denied for ever');
}
is(remaining('rlflx', 'stuck two'), 3, 'what is left of the others is left');
for my $algorithm (qw(fixed_window sliding_window))
{
    is($node->safe_psql('postgres', qq{
        SELECT redis_migrate.create_rate_limit('$algorithm', 5, '1 hour', algorithm => '$algorithm') \\g /dev/null
        SELECT redis_migrate.import_rate_limit('$algorithm', 'stuck', 7, no_ttl => 'full_window') \\g /dev/null
        SELECT reason, retry_after_seconds > 0 AND retry_after <= '2 hours' FROM redis_migrate.rate_limit('$algorithm', 'stuck')}), 'limited|t', "full_window into $algorithm");
}
$node->safe_psql('postgres', q{SELECT redis_migrate.create_lockout('defender', '{"user_name": 5}', time_window => '5 minutes')});
my $defender = sub { my ($option) = @_; return "SELECT redis_migrate.import_lockout('defender', name, NULL, failures, expires_at - interval '5 minutes'$option) FROM defender_user ORDER BY name"; };
my $locks = q{SELECT name, locked, CASE WHEN locked_until > now() + interval '99 years' THEN 'for ever' ELSE ceil(extract(epoch FROM locked_until - now()) / 60)::text END
    FROM defender_user, LATERAL redis_migrate.lockout_status('defender', name, NULL) ORDER BY name};
like(sql_error($node, $defender->('')), qr/ERROR:  22023: a counter for lockout policy "defender" has no end\n.*HINT:  Give no_ttl => 'full_window'/s, 'lockouts: rejected');
$node->safe_psql('postgres', $defender->(q{, no_ttl => 'full_window'}));
is($node->safe_psql('postgres', $locks), "ada|t|4\nstuck|t|5", 'lockouts: full_window');
$node->safe_psql('postgres', $defender->(q{, no_ttl => 'forever'})) for 1, 2;
is($node->safe_psql('postgres', $locks), "ada|t|4\nstuck|t|for ever", 'lockouts: forever');
is($node->safe_psql('postgres', q{SELECT redis_migrate.reset_lockout('defender', 'stuck'), locked FROM redis_migrate.lockout_status('defender', 'stuck', NULL)}) =~ s/\|.*//r, 1, 'but for a reset');

# An import never refunds what was used here, and never guesses.
is($node->safe_psql('postgres', q{
    SELECT redis_migrate.rate_limit_allowed('rlflx', 'two', 2) \g /dev/null
    SELECT redis_migrate.import_rate_limit('rlflx', key, used, reset_at) FROM limit_counter WHERE policy = 'rlflx' AND key = 'two'}), 1,
    'a key that has used more here keeps it');
like(sql_error($node, q{SELECT redis_migrate.import_rate_limit('rlflx', 'x', tat => 1)}), qr/22023: .*cannot import these numbers.*DETAIL:  Its algorithm needs used and reset_at\./s,
    'numbers of another algorithm are refused');
like(sql_error($node, q{SELECT redis_migrate.import_rate_limit('cell', 'x', 1, now())}), qr/22023: .*DETAIL:  Its algorithm needs tat alone\./s, 'both ways');

done_testing();
