# kill -9 of worker, scheduler, launcher and sweeper, which restarts the whole cluster each time: the run or the sweep
# resumes by itself and no key is lost or doubled; a run that crashes the cluster again and again is given up.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

use constant KEYS => 8_000;

my $node = new_node('crash', preload => 1,
    conf => "pg_redis_migrate.databases = 'postgres'\npg_redis_migrate.batch_rows = 100\nrestart_after_crash = on");
my $redis = start_redis();
fill($redis, KEYS);
my $proxy = PrmTools::Proxy->new($redis->port);
shop($node, 'shop', $proxy->port);

# The server may be recovering.
sub pid_now { my ($kind) = @_; return try_sql($node, "SELECT pid FROM redis_migrate.workers WHERE kind = '$kind' AND pid IS NOT NULL") // ''; }

$proxy->tell('rate 25000');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('shop')});
my ($run, $crashes, $before) = (undef, 0, 0);
for my $kind ('migration', 'scheduler', 'migration', 'launcher')
{
    my $pid;
    wait_until("a $kind", sub { ($pid) = split /\n/, pid_now($kind); return $pid && pid_now('migration'); });
    # Somewhere between two commits, in one, or before the first.
    usleep(rand 700_000);
    kill 'KILL', $pid;
    wait_until('the server recovers', sub { my $new = pid_now('launcher'); return $new && (try_sql($node, 'SELECT pg_is_in_recovery()') // '') eq 'f'; });
    ++$crashes;
    wait_until('the crash is noticed', sub { (try_sql($node, q{SELECT crashes FROM redis_migrate.background_runs}) // -1) == $crashes });
    ok(1, "kill -9 of the $kind: crash $crashes is counted");
    my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM shop');
    cmp_ok($rows, '>=', $before, 'no committed row is lost');
    $before = $rows;
    $run ||= last_run($node, 'shop', 'run_id');    # none yet, if it was killed that early
}
like(job($node, 'shop', 'sqlstate, message'), qr/^57P02\|the server crashed while the migration was running$/, 'the background run says why');
$proxy->tell('pass');
$node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(last_run($node, 'shop', 'state, balanced, run_id >= ' . ($run || 0)), 'completed|t|t', 'the run goes on by itself to its end');
is(compare($node, 'shop', KEYS), '', 'every key is there, once');
is(job($node, 'shop', 'state, wanted'), 'completed|f', 'nothing more is wanted');

# Again and again: given up, the cluster stays up.
$proxy->tell('hold');
$node->safe_psql('postgres', q{TRUNCATE shop; SELECT redis_migrate.start('shop')});
is(job($node, 'shop', 'crashes'), 0, 'start begins to count anew');
wait_until('the worker', sub { workers($node, 'state') eq 'running' });
$node->safe_psql('postgres', 'UPDATE redis_migrate.background_run SET crashes = 4');
kill 'KILL', pid_now('migration');
wait_until('it is given up', sub { (try_sql($node, q{SELECT state FROM redis_migrate.background_runs}) // '') eq 'failed' });
is(job($node, 'shop', 'wanted, message'), 'f|failed after 5 crashes of the server', 'the fifth crash ends it');
is(workers($node), '', 'no worker is started');
like(sql_error($node, q{CALL redis_migrate.wait_for('shop')}), qr/ERROR:  57P02: .*failed after 5 crashes/, 'wait_for says so');
$proxy->tell('pass');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('shop')});
$node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(compare($node, 'shop', KEYS), '', 'start goes on with it');

# A sweeper: the schedule goes on with its sweep.
$node->safe_psql('postgres', q{CREATE TABLE session (id int PRIMARY KEY, expires timestamptz); CREATE INDEX ON session (expires);
    INSERT INTO session SELECT n, CASE WHEN n <= 6000 THEN now() - interval '1 hour' ELSE 'infinity' END FROM generate_series(1, 6100) AS n;
    SELECT redis_migrate.add_expiry('session', 'expires', every => '1 hour', max_rate => 1000)});
my $deleted = q{SELECT rows_deleted, failed_runs FROM redis_migrate.expiry_stats WHERE target = 'public.session'};
wait_until('some batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM session') < 6100 });
my $left = $node->safe_psql('postgres', 'SELECT count(*) FROM session');
kill 'KILL', pid_now('sweeper');
wait_until('the rest is swept', sub { (try_sql($node, 'SELECT count(*) FROM session') // '') eq '100' });
cmp_ok($left, '>', 100, 'kill -9 of a sweeper: it was in the middle, and another one goes on');
is($node->safe_psql('postgres', $deleted), '6000|0', 'each row is counted once');
$node->safe_psql('postgres', q{SELECT redis_migrate.drop_expiry('session')});

# An immediate shutdown is no orderly end either, but the run survives it.
$node->safe_psql('postgres', 'TRUNCATE shop');
$proxy->tell('rate 60000');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('shop')});
wait_until('some batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM shop') > 0 });
$node->stop('immediate');
$proxy->tell('pass');
$node->start;
$node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(compare($node, 'shop', KEYS), '', 'after an immediate shutdown the run goes on by itself');
unlike(slurp_file($node->logfile), qr/is in use by another session/, 'no worker comes before the transaction of start has released the migration');

done_testing();
