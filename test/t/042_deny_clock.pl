# A deny list's entry for a time that was made while the clock was ahead: once the clock is set back it lasts as long as it
# was to, not until the clock is there again.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

my $clock = fake_clock('+86400');
local %ENV = (%ENV, $clock->environment);
my $node = new_node('clock', preload => 1);
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub seconds { my ($key) = @_; return "SELECT coalesce(extract(epoch FROM (redis_migrate.rate_limit('calls', $key)).retry_after), 0)"; }

sql(q{SELECT redis_migrate.create_rate_limit('calls', 1000, '1 hour')});
sql(q{SELECT redis_migrate.add_rate_limit_deny('calls', 'ada', '8 s'), redis_migrate.add_rate_limit_deny('calls', inet '10.0.0.0/8', '8 s'),
    redis_migrate.add_rate_limit_deny('calls', 'eve'), redis_migrate.add_rate_limit_deny('calls', 'day', '2 days')});
cmp_ok(sql(seconds("'ada'")), '>', 0, 'an entry');

# A session that has read the list, and cannot write to it.
my $asks = seconds("'ada'");
my @answers = split /\n/, sql("SET default_transaction_read_only = on; $asks;\n\\! echo +0 > ${\$clock->file}.new && mv ${\$clock->file}.new ${\$clock->file}\n$asks; $asks; SELECT pg_sleep(8.2); $asks");
cmp_ok($answers[0], '>', 0, 'a session knows it');
cmp_ok($answers[1], '<=', 8, 'once the clock is set back, it lasts no longer than it was to');
cmp_ok($answers[2], '<=', $answers[1], 'and not longer with each look');
is($answers[-1] + 0, 0, 'until it ends');

# Sessions that read the list now.
cmp_ok(sql("SET default_transaction_read_only = on; $asks"), '<=', 8, 'nor does it last longer for others that cannot write');
cmp_ok(sql("BEGIN ISOLATION LEVEL REPEATABLE READ; $asks; COMMIT"), '<=', 8, 'or have a snapshot');
cmp_ok(sql(seconds("inet '10.1.2.3'")), '<=', 8, 'or ask for an address');
is(sql(q{SELECT count(*) FROM redis_migrate.rate_limit_exceptions WHERE kind = 'deny' AND expires_at > clock_timestamp() + interval '2 days'}), 0, 'the list has been set back');
my $rest = sql($asks);
cmp_ok($rest, '>', 0, 'the key is denied still');
ok(sql($asks) <= $rest, 'not longer with each look');
wait_until('it ends', sub { sql($asks) == 0 && sql(seconds("inet '10.1.2.3'")) == 0 });
cmp_ok(sql(seconds("'day'")), '>', 86400, 'one for days goes on');
is(sql(q{SELECT reason FROM redis_migrate.rate_limit('calls', 'eve')}), 'denylisted', 'and so does one for ever');

# A clock that goes on being right changes nothing.
sql(q{SELECT redis_migrate.add_rate_limit_deny('calls', 'bob', '3 s')});
$clock->set('+10');
cmp_ok(sql(seconds("'bob'")), '==', 0, 'an entry ends when its time has come');

done_testing();
