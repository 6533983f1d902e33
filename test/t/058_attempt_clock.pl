# Login attempts that wait for a result while the clock is set back: they wait as long as the policy says, not until the
# clock is again where it was.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

my $clock = fake_clock('+86400');
local %ENV = (%ENV, $clock->environment);
my $node = new_node('clock', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub written { my ($user) = @_; return sql("SELECT count(*) FROM redis_migrate.login_attempts WHERE user_name = '$user'"); }

sql(q{SELECT redis_migrate.create_lockout('login', '{"user_name": 2}', pending_timeout => '6 seconds')});
sql(q{SELECT allowed FROM redis_migrate.login_check('login', 'ada', NULL)});
cmp_ok(sql(q{SELECT extract(epoch FROM redis_migrate.attempts_due() - clock_timestamp())}), '<=', 6, 'an attempt waits for its result');
$clock->set('+0');
my $seconds = elapsed(sub {
    is(written('ada'), 0, 'also after the clock was set back');
    my $rest = sql(q{SELECT extract(epoch FROM redis_migrate.attempts_due() - clock_timestamp())});
    cmp_ok($rest, '>', 0, 'it goes on waiting');
    cmp_ok($rest, '<=', 6, 'no longer than before');
    is(sql(q{SELECT extract(epoch FROM redis_migrate.attempts_due() - clock_timestamp())}) <= $rest, 1, 'and not longer with each look');
    wait_until('it is written', sub { written('ada') });
});
pass("without a result, after $seconds s");

# A result finds its attempt.
$clock->set('+86400');
my $token = sql(q{SELECT token FROM redis_migrate.login_check('login', 'bob', NULL)});
$clock->set('+0');
sql("SELECT * FROM redis_migrate.login_result('login', 'bob', NULL, true, token => $token)");
wait_until('it is written', sub { written('bob') });
is(sql(q{SELECT string_agg(success::text, ' ') FROM redis_migrate.login_attempts WHERE user_name = 'bob'}), 'true', 'a result is that of its attempt');

# The queue comes through a restart.
$clock->set('+86400');
sql(q{SELECT allowed FROM redis_migrate.login_check('login', 'cyd', NULL)});
$node->stop('fast');
$clock->set('+0');
$node->start;
is(written('cyd'), 0, 'an attempt that waits while the server is restarted');
wait_until('it is written', sub { written('cyd') });
pass('waits no longer than before');

done_testing();
