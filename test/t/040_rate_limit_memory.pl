# The states of rate limits in shared memory: across restarts, crashes, damaged files, promotion; under pressure.

use strict;
use warnings;

use lib 'lib';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

sub allowed { my ($node, $policy, $key, $cost) = @_; return $node->safe_psql('postgres', "SELECT redis_migrate.rate_limit_allowed('$policy', '$key', $cost)"); }
sub remaining { my ($node, $policy, $key) = @_; return $node->safe_psql('postgres', "SELECT remaining FROM redis_migrate.rate_limit('$policy', '$key', 0)"); }

my $node;

sub crash
{
    my $victim = start_sql($node, 'SELECT pg_sleep(100)');
    my $pid;
    wait_until('the session', sub { $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'}) });
    my $before = -s $node->logfile;
    kill 'KILL', $pid;
    wait_until('the crash restart', sub { slurp_file($node->logfile, $before) =~ /database system is ready to accept connections/ });
    return;
}

# Nothing saves but the test and the shutdown.
$node = new_node('main', preload => 1, init => { allows_streaming => 1 }, conf => "restart_after_crash = on\npg_redis_migrate.rate_limit_save_interval = 0\npg_redis_migrate.rate_limit_memory = '1MB'");
my $file = $node->data_dir . '/pg_stat/pg_redis_migrate.rate_limits';
$node->safe_psql('postgres', q{
    SELECT redis_migrate.create_rate_limit('day', 10, '1 day');
    SELECT redis_migrate.create_rate_limit('other', 10, '1 day', algorithm => 'sliding_window');
    SELECT redis_migrate.create_rate_limit('row', 10, '1 day', storage => 'table');
    SELECT redis_migrate.create_rate_limit('unlogged', 10, '1 day', storage => 'unlogged table')});

# Restart.
is(allowed($node, $_, 'u', 4), 't', "$_: before the restart") for qw(day other row unlogged);
$node->safe_psql('postgres', q{SELECT redis_migrate.rate_limit_allowed('day', 'u', 7)});
my $stats = $node->safe_psql('postgres', q{SELECT * FROM redis_migrate.rate_limit_stats ORDER BY 1});
$node->restart;
is(remaining($node, $_, 'u'), 6, "$_: a restart keeps the count") for qw(day other row unlogged);
is($node->safe_psql('postgres', q{SELECT * FROM redis_migrate.rate_limit_stats ORDER BY 1}), $stats, 'and the statistics');

# Whatever the plan, only the key's own row decides: here the table is read from end to end, others behind it.
is($node->safe_psql('postgres', q{
    SET enable_indexscan = off; SET enable_bitmapscan = off; SET statement_timeout = '60s';
    SELECT redis_migrate.rate_limit_allowed('row', 'full', 10), redis_migrate.rate_limit_allowed('row', 'behind it', 1);
    SELECT allowed, remaining, reason FROM redis_migrate.rate_limit('row', 'full')}), "t|t\nf|0|limited", 'a sequential scan of a table');

# A crash brings the last save back.
$node->safe_psql('postgres', 'CHECKPOINT');
allowed($node, $_, 'u', 1) for qw(day other row unlogged);
is($node->safe_psql('postgres', 'SELECT redis_migrate.save_rate_limits()'), 't', 'saved');
allowed($node, $_, 'u', 2) for qw(day other row unlogged);
crash();
is(remaining($node, 'day', 'u'), 5, 'memory: as last saved');
is(remaining($node, 'other', 'u'), 5, 'sliding window in memory: as last saved');
is(remaining($node, 'row', 'u'), 3, 'table: as committed');
is(remaining($node, 'unlogged', 'u'), 10, 'unlogged table: empty');
allowed($node, 'day', 'immediate', 3);
$node->stop('immediate');
$node->start;
is(remaining($node, 'day', 'u'), 5, 'an immediate shutdown is a crash');
is(remaining($node, 'day', 'immediate'), 10, 'what was not saved is lost');

# The launcher saves by itself: what was counted longer ago than the interval survives a crash.
$node->adjust_conf('postgresql.conf', 'pg_redis_migrate.rate_limit_save_interval', "'200ms'");
$node->restart;
allowed($node, 'day', 'periodic', 3);
my $counted = time;
# Something changes all the time, so that a save begins after what was counted.
wait_until('a periodic save', sub { $node->safe_psql('postgres', q{SELECT redis_migrate.reset_rate_limit('day', 'tick'), redis_migrate.rate_limit_allowed('day', 'tick')}); return (stat $file)[9] > $counted; });
crash();
is(remaining($node, 'day', 'periodic'), 7, 'what a periodic save holds survives a crash');
$node->adjust_conf('postgresql.conf', 'pg_redis_migrate.rate_limit_save_interval', '0');
$node->restart;

# Files that are damaged, cut or of another version are refused with a line in the log; nothing crashes.
sub try_file
{
    my ($content, $reason) = @_;
    $node->stop;
    open my $handle, '>:raw', $file or die "$file: $!\n";
    print $handle $content;
    close $handle;
    my $before = -s $node->logfile;
    $node->start;
    like(slurp_file($node->logfile, $before), qr/LOG:  file "pg_stat\/pg_redis_migrate\.rate_limits" is not used: $reason/, "refused: $reason");
    is(remaining($node, 'day', 'u'), 10, 'and the server begins anew');
    allowed($node, 'day', 'u', 4);
    return;
}
$node->stop;
my $good = slurp_file($file);
$node->start;
is(remaining($node, 'day', 'u'), 5, 'the file that is spoiled next is good');
my $damaged = $good;
substr($damaged, 100, 1) = chr(ord(substr $damaged, 100, 1) ^ 1);
try_file($damaged, 'it is damaged');
try_file(substr($good, 0, length($good) - 60), 'it is damaged');
try_file('short', 'it is cut short');
try_file('', 'it is cut short');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal 11/, 'no crash but the one that was made');

# A policy that gets the number of one that was dropped with the extension does not inherit its states.
my $create = q{CREATE EXTENSION pg_redis_migrate; SELECT redis_migrate.create_rate_limit('first', 10, '1 day'), redis_migrate.rate_limit_allowed('first', 'u', 4)};
my $look = q{SELECT policy_id, (redis_migrate.rate_limit('first', 'u', 0)).remaining FROM redis_migrate.rate_limit_policy};
$node->safe_psql('postgres', 'CREATE DATABASE again');
$node->safe_psql('again', $create);
is($node->safe_psql('again', $look), '1|6', 'a policy');
$node->safe_psql('again', "DROP EXTENSION pg_redis_migrate; $create");
is($node->safe_psql('again', $look), '1|6', 'its successor in a new extension counts for itself');

# A standby decides in its own memory, cannot write tables, and goes on where it is when it is promoted.
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
allowed($standby, 'day', 'standby', 7);
is(remaining($standby, 'day', 'standby'), 3, 'a standby counts');
is(remaining($node, 'day', 'standby'), 10, 'for itself');
like(sql_error($standby, q{SELECT redis_migrate.rate_limit('row', 'u')}), qr/25006: rate limit policy "row" cannot be decided during recovery.*HINT:  Use storage => 'memory'/s, 'a table cannot be written there');
# A change of a policy on the primary reaches a session of the standby.
my $go = PostgreSQL::Test::Utils::tempdir() . '/go';
my $ask = q{SELECT quota FROM redis_migrate.rate_limit('day', 'standby', 0);};
my $session = start_sql($standby, "BEGIN; $ask\n\\! while [ ! -e $go ]; do sleep 0.02; done\n$ask COMMIT;");
wait_until('the first answer', sub { (eval { ($session->output)[0] } // '') eq "10\n" });
$node->safe_psql('postgres', q{SELECT redis_migrate.alter_rate_limit('day', quota => 20), redis_migrate.alter_rate_limit('row', fail_open => true)});
$node->wait_for_catchup($standby);
append_to_file($go, '');
is(($session->finish)[0], "10\n20\n", 'a transaction on the standby learns of a change on the primary in its next statement');
is($standby->safe_psql('postgres', q{SELECT allowed, reason FROM redis_migrate.rate_limit('row', 'u')}), 't|unavailable', 'a policy that fails open');
$standby->promote;
# 7 of 10 per day are 16.8 hours, which are 14 of 20 per day.
is(remaining($standby, 'day', 'standby'), 6, 'after promotion memory is what it was');
is($standby->safe_psql('postgres', q{SELECT allowed, reason FROM redis_migrate.rate_limit('row', 'u', 1)}), 't|ok', 'and tables can be written');
is(remaining($standby, 'unlogged', 'u'), 10, 'unlogged tables begin empty');
$standby->stop;

# More live keys than fit: the size of the table stays, evicted keys are counted, and those that are limited longest
# stay.
$node->safe_psql('postgres', q{
    SELECT redis_migrate.create_rate_limit('flood', 10, '1 minute'), redis_migrate.create_rate_limit('victim', 100, '50 days')});
my ($capacity) = $node->safe_psql('postgres', 'SELECT keys FROM redis_migrate.rate_limit_capacity()');
$node->safe_psql('postgres', q{SELECT count(*) FROM generate_series(1, 100) AS i WHERE redis_migrate.rate_limit_allowed('victim', i::text, 100)});
my $flooded = 10 * $capacity;
is($node->safe_psql('postgres', "SELECT count(*) FROM generate_series(1, $flooded) AS i WHERE redis_migrate.rate_limit_allowed('flood', i::text)"), $flooded, 'ten times as many keys as fit');
is($node->safe_psql('postgres', q{SELECT count(*) FROM generate_series(1, 100) AS i WHERE redis_migrate.rate_limit_allowed('victim', i::text)}), 0, 'keys that are limited for longer still are');
my ($entries, $evictions) = split /\|/, $node->safe_psql('postgres', q{SELECT entries, evictions FROM redis_migrate.rate_limit_stats WHERE policy = 'flood'});
cmp_ok($entries, '<=', $capacity, 'memory is bounded');
cmp_ok($entries, '>', 0.9 * $capacity, 'and used');
is($entries + $evictions, $flooded, 'every key that was charged is there or counted as evicted');
$node->stop;

# With less memory what fits is loaded.
$node->adjust_conf('postgresql.conf', 'pg_redis_migrate.rate_limit_memory', "'64kB'");
my $offset = -s $node->logfile;
$node->start;
like(slurp_file($node->logfile, $offset), qr/saved rate limits did not fit/, 'a smaller memory says what it could not hold');
cmp_ok($node->safe_psql('postgres', 'SELECT keys FROM redis_migrate.rate_limit_capacity()'), '<', 1400, 'a smaller memory');

# At most one line per policy and minute tells of refusals. The minute may change once meanwhile.
$offset = -s $node->logfile;
$node->safe_psql('postgres', q{
    SELECT redis_migrate.create_rate_limit('logged', 1, '1 hour');
    SELECT count(redis_migrate.rate_limit_allowed('logged', 'secret-key')) FROM generate_series(1, 1000)});
my @lines = slurp_file($node->logfile, $offset) =~ /(requests refused by rate limit policy "logged" since this was last reported: \d+)/g;
ok(@lines == 1 || @lines == 2, 'a thousand refusals, ' . @lines . ' lines');
unlike(slurp_file($node->logfile, $offset) =~ s/.*statement:.*//gir, qr/secret-key/, 'that do not name keys');
$node->stop;

# Without preloading memory is refused by name, tables work.
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->start;
my $hint = qr/55000.*HINT:  Add pg_redis_migrate to shared_preload_libraries and restart the server/s;
like(sql_error($node, q{SELECT redis_migrate.rate_limit('day', 'u')}), $hint, 'deciding in memory');
like(sql_error($node, q{SELECT redis_migrate.create_rate_limit('new', '1/s')}), $hint, 'creating a policy in memory');
like(sql_error($node, q{SELECT redis_migrate.alter_rate_limit('row', storage => 'memory')}), $hint, 'moving one there');
like(sql_error($node, q{SELECT redis_migrate.rate_limit_adhoc('a', 'u', '1/s')}), $hint, 'a limit without a policy');
like(sql_error($node, q{SELECT redis_migrate.save_rate_limits()}), qr/55000/, 'saving');
is(remaining($node, 'row', 'u'), 3, 'a table');
is(allowed($node, 'row', 'u', 3), 't', 'can be charged');
my (undef, undef, $told) = $node->psql('postgres', q{SET jit = on; SET jit_above_cost = 0; SET client_min_messages = debug1;
    DO $$ DECLARE answer boolean; BEGIN
        answer := redis_migrate.rate_limit_allowed('row', 'compiled'); answer := redis_migrate.rate_limit_allowed('row', 'compiled'); answer := redis_migrate.reset_rate_limit('row', 'compiled');
    END $$});
unlike($told, qr/JIT provider/, 'its statements are not compiled');
(undef, undef, $told) = $node->psql('postgres', q{SET jit = on; SET jit_above_cost = 0; SET client_min_messages = debug1; SELECT count(*) FROM pg_catalog.pg_class});
like($told, qr/JIT provider/, 'as those of the session are');
is($node->safe_psql('postgres', q{SELECT count(calls) FROM redis_migrate.rate_limit_stats}), 0, 'no statistics');
is($node->safe_psql('postgres', q{SELECT redis_migrate.alter_rate_limit('row', fail_open => true)}), '', 'altering what is in a table');
$node->safe_psql('postgres', q{UPDATE redis_migrate.rate_limit_policy SET fail_open = true WHERE policy = 'day'});
is($node->safe_psql('postgres', q{SELECT allowed, reason FROM redis_migrate.rate_limit('day', 'u', 1)}), 't|unavailable', 'memory that fails open');

done_testing();
