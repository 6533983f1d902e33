# Shared memory that is full: databases, roles and policies have a share of it, locks stay, what had to go is counted,
# and what is dropped makes room. Lockouts, the queue of attempts, rate limits, statistics.

use strict;
use warnings;

use PrmTest;
use Test::More;

my $node = new_node(
    'shares', preload => 1,
    conf => "pg_redis_migrate.attempt_queue_size = 40\npg_redis_migrate.lockout_memory = '128kB'\npg_redis_migrate.rate_limit_memory = '64kB'");

sub sql { my ($sql, $database) = @_; return $node->safe_psql($database // 'postgres', $sql); }
sub stat_of { my ($columns, $policy, $database) = @_; return sql("SELECT $columns FROM redis_migrate.lockout_stats WHERE policy = '$policy'", $database); }
# How many of ten users, or of ten addresses, are locked.
my $users = q{SELECT count(*) FROM generate_series(1, 10) AS n, LATERAL redis_migrate.lockout_status('login', 'user' || n, NULL) WHERE locked};
my $addresses = q{SELECT count(*) FROM generate_series(1, 10) AS n, LATERAL redis_migrate.lockout_status('login', NULL, inet '10.0.0.0' + n) WHERE locked};

# 1,024 counters at most, and far more locks of others than fit. These are from seconds before: of two locks of the same
# second none counts as the older one.
sql(q{CREATE ROLE mallory; CREATE DATABASE other;
    GRANT EXECUTE ON FUNCTION redis_migrate.create_lockout, redis_migrate.import_lockout, redis_migrate.drop_lockout TO mallory;
    SELECT redis_migrate.create_lockout('login', '{"user_name": 5, "address": 3}', time_window => '1 hour');
    SELECT redis_migrate.import_lockout('login', 'user' || n, NULL, 5, now() - interval '5 s'),
        redis_migrate.import_lockout('login', NULL, inet '10.0.0.0' + n, 3, now() - interval '5 s')
    FROM generate_series(1, 10) AS n});
sql('CREATE EXTENSION pg_redis_migrate', 'other');
is(sql($users) . ' ' . sql($addresses), '10 10', 'users and addresses are locked');

my $flood = sub {
    my ($policies) = @_;
    return qq{SELECT redis_migrate.create_lockout('junk' || p, '{"user_name": 1}', time_window => '1 day') FROM generate_series(1, $policies) AS p;
        SELECT count(redis_migrate.import_lockout('junk' || p, 'name' || n, NULL, 9, now())) FROM generate_series(1, $policies) AS p, generate_series(1, 4000 / $policies) AS n};
};
sql('SET ROLE mallory; ' . $flood->(20));
is(sql($users) . ' ' . sql($addresses), '10 10', 'policies of another role do not push them out');
sql($flood->(10), 'other');
is(sql($users) . ' ' . sql($addresses), '10 10', 'nor do those of another database');
is(stat_of('evicted, locks_evicted', 'login'), '0|0', 'nothing of theirs had to go');
cmp_ok(sql(q{SELECT sum(locks_evicted) FROM redis_migrate.lockout_stats}, 'other'), '>', 3000, 'whoever takes more than his share loses it, which is counted');

# A dropped policy makes room once the drop has committed.
sql(q{BEGIN; SELECT redis_migrate.drop_lockout('login'); ROLLBACK});
sql(q{BEGIN; SAVEPOINT s; SELECT redis_migrate.drop_lockout('login'); ROLLBACK TO s; COMMIT});
is(sql($users), 10, 'a drop that is rolled back frees nobody');
sql(q{SELECT redis_migrate.drop_lockout(policy) FROM redis_migrate.lockout_policies}, 'other');
sql(q{BEGIN; SAVEPOINT s; SELECT redis_migrate.drop_lockout(policy) FROM redis_migrate.lockout_policies WHERE policy LIKE 'junk%'; RELEASE s; COMMIT});
sql(q{SELECT count(redis_migrate.import_lockout('login', 'more' || n, NULL, 1, now())) FROM generate_series(1, 350) AS n});
is(stat_of('entries, evicted', 'login'), '370|0', 'there is room again');

# From outside: invented names from invented addresses. Counters of one failure go first.
sql(q{SELECT count(redis_migrate.login_result('login', 'invented' || n, inet '172.16.0.0' + n * 7, false)) FROM generate_series(1, 3000) AS n});
is(sql($users) . ' ' . sql($addresses), '10 10', 'a flood of single failures ends no lock');
like(stat_of('evicted > 4000, locks_evicted, shared_counters', 'login'), qr/^t\|0\|0$/, 'and is counted');

# Locks of thousands of addresses: those of users have a share of their own; new addresses share a counter.
sql(q{SELECT count(redis_migrate.import_lockout('login', NULL, inet '172.16.0.0' + n * 256, 3, now())) FROM generate_series(1, 4000) AS n});
is(sql($users) . ' ' . sql($addresses), '10 10', 'a flood of locked addresses ends no lock that was there before');
cmp_ok(stat_of('shared_counters', 'login'), '>', 1000, 'addresses for which there is no room are counted by their networks');
is(sql(q{SELECT string_agg(allowed::text, ' ' ORDER BY n) FROM generate_series(1, 4) AS n, LATERAL redis_migrate.login_result('login', NULL, inet '192.0.2.0' + n, false)}),
    'true true false false', 'IPv4 by /24');
is(sql(q{SELECT redis_migrate.reset_lockout('login', address => '192.0.2.9'); SELECT allowed FROM redis_migrate.login_check('login', NULL, '192.0.2.9')}), "1\nt", 'a reset of an address is one of its network, too');
sql(q{SELECT count(redis_migrate.import_lockout('login', NULL, inet '172.64.0.0' + n * 256, 3, now())) FROM generate_series(1, 1000) AS n});  # the room of the one that was reset
is(sql(q{SELECT string_agg(allowed::text, ' ' ORDER BY n) FROM generate_series(1, 4) AS n, LATERAL redis_migrate.login_result('login', NULL, ('2001:db8:0:' || n || '::1')::inet, false)}),
    'true true false false', 'IPv6, of which a /64 is one address, by /48');

# A user name that fails enough locks in full memory, too, whatever has to go for it.
sql(q{SELECT count(redis_migrate.import_lockout('login', 'victim' || n, NULL, 5, now())) FROM generate_series(1, 2000) AS n});
sql(q{SELECT count(redis_migrate.login_result('login', 'jay', NULL, false)) FROM generate_series(1, 5) AS n});
is(sql(q{SELECT locked FROM redis_migrate.lockout_status('login', 'jay', NULL)}), 't', 'a new lock');
cmp_ok(stat_of('locks_evicted', 'login'), '>', 1000, 'each lock that ended for others is counted');
$node->restart;
is(sql(q{SELECT locked FROM redis_migrate.lockout_status('login', 'jay', NULL)}), 't', 'which a restart keeps');

# The queue: the policy that fills it loses its attempts to others that need room.
sql('CALL redis_migrate.write_login_attempts()');
sql(q{SELECT redis_migrate.create_lockout('loud', '{"user_name": 100}'), redis_migrate.create_lockout('quiet', '{"user_name": 100}')}, 'other');
sql(q{SELECT count(redis_migrate.login_result('loud', 'a', NULL, false)) FROM generate_series(1, 60)}, 'other');
is(sql('SELECT capacity, waiting, waiting_here, dropped FROM redis_migrate.login_attempt_queue()', 'other'), '40|40|40|20', 'a database fills the queue');
sql(q{SELECT count(redis_migrate.login_result('quiet', 'a', NULL, false)) FROM generate_series(1, 5)}, 'other');
is(stat_of('dropped', 'loud', 'other') . ' ' . stat_of('dropped', 'quiet', 'other'), '25 0', 'another policy has its share');
sql(q{SELECT redis_migrate.reset_lockout_stats('login'); SELECT count(redis_migrate.login_result('login', 'queue', NULL, false)) FROM generate_series(1, 30)});
is(stat_of('dropped', 'login') . ' ' . sql('SELECT waiting, waiting_here, dropped FROM redis_migrate.login_attempt_queue()'), '10 40|20|55', 'another database has half');
is(stat_of('dropped', 'loud', 'other') . ' ' . stat_of('dropped', 'quiet', 'other'), '45 0', 'each attempt that was dropped is counted for its policy');
sql('CALL redis_migrate.write_login_attempts()', 'other');
is(sql(q{SELECT policy, count(*) FROM redis_migrate.login_attempts GROUP BY 1 ORDER BY 1}, 'other'), "loud|15\nquiet|5", 'the others are written');

# Places of policies: a role can own so many; a database that makes policies without end leaves places for others.
my ($code, undef, $warnings) = $node->psql('other', q{SET pg_redis_migrate.max_policies_per_role = 2000; SELECT count(redis_migrate.create_lockout('p' || n)) FROM generate_series(1, 600) AS n});
is($code, 0, 'as many policies as one likes');
like($warnings, qr/WARNING:  lockout policy "p600" has no statistics of its own.*HINT:  Drop unused lockout policies\./s, 'of which some have no statistics');
sql(q{SELECT redis_migrate.create_lockout('late')});
is(stat_of('checks', 'late'), 0, 'another database has places left');
sql(q{SELECT redis_migrate.login_check('p600', 'ada', NULL)}, 'other');
is(stat_of('checks IS NULL', 'p600', 'other') . ' ' . stat_of('checks', '(shared)', 'other') . ' ' . stat_of('checks', '(shared)'), 't 1 1', 'those without have theirs in one row');
($code, undef, $warnings) = $node->psql('postgres', q{SET ROLE mallory; SELECT count(redis_migrate.create_lockout('mine' || n)) FROM generate_series(1, 101) AS n});
like($warnings, qr/ERROR:  too many lockout policies of one role\nDETAIL:  Role mallory owns 100 in this database, and pg_redis_migrate.max_policies_per_role is 100\.\nHINT:  Drop unused ones, or let a superuser raise/, 'a role cannot take all places');
($code, undef, $warnings) = $node->psql('postgres', q{SET ROLE mallory; SET pg_redis_migrate.max_policies_per_role = 1000});
like($warnings, qr/permission denied to set parameter "pg_redis_migrate.max_policies_per_role"/, 'and does not decide how many he has');
sql(q{ALTER ROLE mallory LOGIN; ALTER ROLE mallory SET pg_redis_migrate.max_policies_per_role = 102});
is($node->safe_psql('postgres', q{SELECT count(redis_migrate.create_lockout('mine' || n)) FROM generate_series(1, 102) AS n}, extra_params => ['-U', 'mallory']), 102, 'a superuser raises it for a role');
sql(q{SELECT redis_migrate.drop_lockout('mine' || n) FROM generate_series(1, 102) AS n});

# Counters without a lock: those of more failures stay, even if the others are younger.
sql(q{SELECT redis_migrate.drop_lockout(policy) FROM redis_migrate.lockout_policies}, $_) for 'postgres', 'other';
sql(q{SELECT redis_migrate.create_lockout('worth', '{"user_name": 5}', time_window => '1 hour');
    SELECT count(redis_migrate.import_lockout('worth', 'near' || n, NULL, 4, now() - interval '10 minutes')) FROM generate_series(1, 10) AS n;
    SELECT count(redis_migrate.import_lockout('worth', 'far' || n, NULL, 2, now())) FROM generate_series(1, 4000) AS n});
is(sql(q{SELECT count(*) FROM generate_series(1, 10) AS n, LATERAL redis_migrate.lockout_status('worth', 'near' || n, NULL) WHERE failures = 4}), 10, 'a flood of two failures each ends no counter of four');
cmp_ok(stat_of('evicted', 'worth'), '>', 2500, 'memory was full');

# A policy that fails closed: full of its own locks it lets in nobody whom it cannot count, and ends no lock.
sql(q{SELECT redis_migrate.drop_lockout('worth'); SELECT redis_migrate.create_lockout('closed', '{"user_name": 5, "address": 3}', time_window => '1 hour', when_full => 'refuse')});
sql(q{SELECT count(redis_migrate.login_result('closed', 'known', '10.9.9.9', false)); SELECT count(redis_migrate.import_lockout('closed', 'user' || n, NULL, 5, now())) FROM generate_series(1, 5) AS n});
(undef, undef, $warnings) = $node->psql('postgres', q{DO $$ BEGIN FOR n IN 1 .. 3000 LOOP PERFORM redis_migrate.import_lockout('closed', NULL, inet '172.16.0.0' + n, 3, now()); END LOOP; END $$});
like($warnings, qr/ERROR:  no memory is left for a counter of lockout policy "closed"\nDETAIL:  Memory is full of locks, and the policy has when_full => 'refuse'\.\nHINT:  Raise pg_redis_migrate.lockout_memory/, 'an import says that memory is full');
sql(q{DO $$ BEGIN FOR n IN 1 .. 3000 LOOP BEGIN PERFORM redis_migrate.import_lockout('closed', NULL, inet '172.16.0.0' + n, 3, now()); EXCEPTION WHEN configuration_limit_exceeded THEN END; END LOOP; END $$});
is(stat_of('entries, locks_evicted, shared_counters, no_room, uncounted', 'closed'), '1024|0|0|0|0', 'memory is full of locks, of which none had to go');
is(sql(q{SELECT allowed, reason, blocked_by, retry_after, retry_after_seconds, locked_until, remaining, token FROM redis_migrate.login_check('closed', 'new', '192.0.2.1')}), 'f|no_room|address||||0|', 'a login that cannot be counted is refused');
is(sql(q{SELECT allowed, reason FROM redis_migrate.login_check('closed', NULL, '192.0.2.1')}), 'f|no_room', 'so is an address');
is(sql(q{SELECT allowed, reason FROM redis_migrate.login_result('closed', 'new', '192.0.2.1', false)}), 'f|no_room', 'and a failure is not lost silently');
is(sql(q{SELECT allowed, reason FROM redis_migrate.login_result('closed', 'new', '192.0.2.1', true)}), 't|ok', 'a success needs no counter');
is(stat_of('checks, allowed, no_room, failures, uncounted', 'closed'), '2|0|2|2|1', 'all of them are counted');
is(sql(q{CALL redis_migrate.write_login_attempts(); SELECT reason, count(*) FROM redis_migrate.login_attempts WHERE policy = 'closed' AND reason = 'no_room' GROUP BY 1}), 'no_room|2', 'and recorded');
is(sql(q{SELECT string_agg(locked::text, ' ') FROM generate_series(1, 5) AS n, LATERAL redis_migrate.lockout_status('closed', 'user' || n, NULL)}), join(' ', ('true') x 5), 'locks stay');
sql(q{SELECT redis_migrate.alter_lockout('closed', when_full => 'share')});
is(sql(q{SELECT allowed, reason FROM redis_migrate.login_check('closed', 'new', '192.0.2.1')}), 't|ok', 'with when_full => share it is counted with its network');
is(sql(q{SELECT p.when_full, s.shared_counters FROM redis_migrate.lockout_policies AS p JOIN redis_migrate.lockout_stats AS s USING (policy) WHERE policy = 'closed'}), 'share|1', 'which says so');

# Rate limits: keys that others remember for longer do not push out those within their share.
my $limits = q{SELECT count(*) FROM generate_series(1, 20) AS n WHERE NOT redis_migrate.rate_limit_allowed('small', n::text)};
sql(q{GRANT EXECUTE ON FUNCTION redis_migrate.create_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean),
        redis_migrate.rate_limit_allowed(text, text, bigint) TO mallory;
    SELECT redis_migrate.create_rate_limit('small', 1, '1 hour'), redis_migrate.create_rate_limit('neighbour', 1, '50 days');
    SELECT redis_migrate.rate_limit_allowed('small', n::text) FROM generate_series(1, 20) AS n});
is(sql($limits), 20, 'keys are limited');
sql(q{SELECT count(redis_migrate.rate_limit_allowed('neighbour', n::text)) FROM generate_series(1, 5000) AS n});
sql(q{SET ROLE mallory; SELECT redis_migrate.create_rate_limit('flood' || p, 1, '60 days') FROM generate_series(1, 10) AS p;
    SELECT count(redis_migrate.rate_limit_allowed('flood' || p, n::text)) FROM generate_series(1, 10) AS p, generate_series(1, 1000) AS n});
sql(q{SELECT redis_migrate.create_rate_limit('flood', 1, '60 days'); SELECT count(redis_migrate.rate_limit_allowed('flood', n::text)) FROM generate_series(1, 10000) AS n}, 'other');
is(sql($limits), 20, 'whatever another policy, another role or another database does');
is(sql(q{SELECT evictions FROM redis_migrate.rate_limit_stats WHERE policy = 'small'}), 0, 'none of them had to go');
cmp_ok(sql(q{SELECT evictions FROM redis_migrate.rate_limit_stats}, 'other'), '>', 8000, 'evictions are counted where there is too much');
sql(q{SELECT redis_migrate.drop_rate_limit('flood')}, 'other');
sql(q{BEGIN; SELECT redis_migrate.drop_rate_limit('small'); ROLLBACK; SELECT redis_migrate.drop_rate_limit(policy) FROM redis_migrate.rate_limit_policies WHERE policy <> 'small'});
is(sql($limits), 20, 'a drop that is rolled back forgets nothing');
sql(q{SELECT redis_migrate.create_rate_limit('after', 1, '1 day'); SELECT count(redis_migrate.rate_limit_allowed('after', n::text)) FROM generate_series(1, 400) AS n});
is(sql(q{SELECT entries, evictions FROM redis_migrate.rate_limit_stats WHERE policy = 'after'}), '400|0', 'what is dropped makes room');

done_testing();
