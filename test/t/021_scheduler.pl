# Launcher and schedulers of a server that preloads the library: wanted runs continue by themselves, also after a
# restart, and nothing runs if there is nothing to do.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant KEYS => 4_000;

my $node = new_node('scheduler', preload => 1,
    conf => "pg_redis_migrate.databases = 'postgres, quiet, later'\npg_redis_migrate.batch_rows = 100\npg_redis_migrate.max_workers = 3\nmax_worker_processes = 8");
my $redis = start_redis();
fill($redis, KEYS);
my $proxy = PrmTools::Proxy->new($redis->port);
shop($node, 'shop', $proxy->port);
$node->safe_psql('postgres', 'CREATE DATABASE quiet');
$node->safe_psql('quiet', 'CREATE EXTENSION pg_redis_migrate');

sub schedulers { return $node->safe_psql('postgres', q{SELECT string_agg(database::text, ' ' ORDER BY database) FROM redis_migrate.workers WHERE kind = 'scheduler'}); }
sub wakeups { my ($kind) = @_; return $node->safe_psql('postgres', "SELECT wakeups FROM redis_migrate.workers WHERE kind = '$kind'"); }

# Nothing is scheduled: no scheduler, and nothing is connected to a database.
wait_until('the launcher', sub { pid_of($node, 'launcher') });
wait_until('no scheduler', sub { schedulers() eq '' });
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'redis_migrate%' AND datname IS NOT NULL}), 0, 'an idle server has no worker in any database');
is($node->safe_psql('postgres', q{SELECT state, database, owner FROM redis_migrate.workers}), 'sleeping||', 'only a launcher, in no database');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/WARNING:  database "later" of pg_redis_migrate.databases does not exist/, 'a database that does not exist is named once');
$node->safe_psql('postgres', 'CREATE DATABASE scratch TEMPLATE quiet');
ok(1, 'a database where nothing is scheduled is idle enough to be a template');

# Nobody can connect to a database whose DROP was interrupted.
$node->safe_psql('postgres', 'CREATE DATABASE broken');
$node->safe_psql('postgres', q{UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'});
$node->append_conf('postgresql.conf', "pg_redis_migrate.databases = 'postgres, quiet, broken'");
$node->reload;
wait_until('the launcher has looked', sub {
    PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /WARNING:  database "broken" of pg_redis_migrate.databases does not exist or accepts no connections/ });
ok(1, 'an invalid database is named, and nobody tries to connect to it');

# A commit that defines work makes the launcher start a scheduler there, and only there.
$proxy->tell('hold');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('shop')});
wait_until('the scheduler', sub { schedulers() eq 'postgres' });
wait_until('the worker', sub { workers($node, 'state') eq 'running' });

# While the launcher has nothing to do it sleeps: its counters do not change.
wait_until('the scheduler sleeps', sub { $node->safe_psql('postgres', q{SELECT state FROM redis_migrate.workers WHERE kind = 'scheduler'}) eq 'sleeping' });
my ($scheduler, $launcher) = (0, 0);
wait_until('all is calm', sub {
    my $before = "$scheduler $launcher";
    sleep 1;
    ($scheduler, $launcher) = (wakeups('scheduler'), wakeups('launcher'));
    return $before eq "$scheduler $launcher";
});
my $seconds = elapsed(sub { sleep 5 });
cmp_ok(wakeups('scheduler') - $scheduler, '<=', 1, "a scheduler with nothing due sleeps: at most one look in $seconds s");
cmp_ok(wakeups('launcher') - $launcher, '<=', 1, 'so does the launcher');

# A worker that is terminated is replaced.
my $old = workers($node, 'pid');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($old)");
wait_until('another worker', sub { my $new = workers($node, 'pid'); return $new && $new ne $old; });
like(job($node, 'shop', 'wanted, failures, crashes'), qr/^t\|1\|0$/, 'a terminated worker is replaced; it is no crash');

# So are scheduler and launcher, and the worker does not notice.
$old = workers($node, 'pid');
for my $kind ('scheduler', 'launcher')
{
    my $pid = pid_of($node, $kind);
    $node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
    wait_until("another $kind", sub { my $new = pid_of($node, $kind); return $new && $new ne $pid; });
    is(workers($node, 'pid'), $old, "without $kind the worker goes on");
}

# A restart: fast shutdown does not hang, and the run resumes by itself.
$proxy->tell('pass');
$proxy->tell('rate 60000');
wait_until('some batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM shop') > 500 });
my $run = last_run($node, 'shop', 'run_id');
cmp_ok(elapsed(sub { $node->stop('fast') }), '<', 10, 'a fast shutdown does not hang');
$node->start;
wait_until('the worker is back', sub { workers($node, 'state') eq 'running' });
is(job($node, 'shop', 'crashes'), 0, 'a restart is no crash');
$proxy->tell('pass');
$node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(last_run($node, 'shop', 'run_id, state, read, balanced'), "$run|completed|" . KEYS . '|t', 'the run goes on by itself after a restart');
is(compare($node, 'shop', KEYS), '', 'every key is there');
wait_until('the scheduler leaves', sub { schedulers() eq '' });
ok(1, 'when all is done the scheduler ends');

# SIGHUP: a database is taken out of the list, and into it.
$launcher = wakeups('launcher');
$node->append_conf('postgresql.conf', "pg_redis_migrate.databases = 'quiet'");
$node->reload;
wait_until('the launcher has looked', sub { $node->safe_psql('postgres', "SELECT wakeups > $launcher AND state = 'sleeping' FROM redis_migrate.workers WHERE kind = 'launcher'") eq 't' });
$node->psql('postgres', q{SELECT redis_migrate.start('shop')}, stderr => \my $notice);
like($notice, qr/NOTICE:  the run will not resume by itself after a restart/, 'out of the list, start says what that means');
$node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(schedulers(), '', 'and has no scheduler');
$node->append_conf('postgresql.conf', "pg_redis_migrate.databases = 'quiet, postgres'");
$node->reload;

# No room: waiting runs start as soon as there is room, and other runs continue.
$proxy->tell('hold');
my $gate = PrmTools::Proxy->new($redis->port);
my @names = map { "job$_" } 1 .. 5;
shop($node, $_, $gate->port) for @names;
$gate->tell('hold');
my $warnings = '';
my $log = -s $node->logfile;
for my $name (@names) { $node->psql('postgres', "SELECT redis_migrate.start('$name')", stderr => \my $err); $warnings .= $err; }
is(() = $warnings =~ /waits for a worker: its owner has 2 of the 3 workers/g, 3, 'three of five find that their owner has its share');
my $running = q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'migration' AND state = 'running'};
wait_until('two that run', sub { $node->safe_psql('postgres', $running) == 2 });
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'migration' AND state = 'waiting for worker' AND pid IS NULL}), 3, 'three wait');
$gate->tell('pass');
for my $name (@names)
{
    $node->safe_psql('postgres', "CALL redis_migrate.wait_for('$name', '1 minute')");
    is(compare($node, $name, KEYS), '', "$name is done");
}
my @told = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /WARNING: .*waits for a worker/g;
is(scalar @told, 3, 'one WARNING each');

# The same with max_worker_processes, which other extensions share.
$node->append_conf('postgresql.conf', "pg_redis_migrate.max_workers = 8\nmax_worker_processes = 5");
$node->restart;
wait_until('the launcher', sub { pid_of($node, 'launcher') });
wait_until('no scheduler', sub { schedulers() eq '' });
$gate->tell('hold');
$warnings = '';
$log = -s $node->logfile;
$node->safe_psql('postgres', q{SELECT redis_migrate.start('job1')});
wait_until('a place for the scheduler', sub { schedulers() eq 'postgres' });
for my $name (@names[ 1 .. 4 ]) { $node->psql('postgres', "SELECT redis_migrate.start('$name')", stderr => \my $err); $warnings .= $err; }
like($warnings, qr/waits for a worker: the server has no free slot for a background worker\nDETAIL:  It starts when a worker is free\.\nHINT:  Raise max_worker_processes/, 'a full max_worker_processes is named');
my $waiting = q{FROM redis_migrate.background_runs WHERE state = 'waiting for worker'};
wait_until('it has been tried again', sub { $node->safe_psql('postgres', "SELECT count(*) > 0 AND bool_and(failures >= 3) $waiting") eq 't' });
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'migration' AND state = 'running'}), '>=', 1, 'others run');
my %told;
$told{$_}++ for PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /WARNING: .*"(job\d)" waits for a worker: the server has no free slot/g;
is_deeply(\%told, { map { ($_ => 1) } split /\n/, $node->safe_psql('postgres', "SELECT migration $waiting") }, 'each run that waits has told so once');
$gate->tell('pass');
$node->safe_psql('postgres', "CALL redis_migrate.wait_for('$_', '1 minute')") for @names;
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.background_runs WHERE migration LIKE 'job%' AND state = 'completed'}), 5, 'all are run in the end');

# Postmaster death: nobody stays.
$gate->tell('hold');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('job1')});
wait_until('scheduler and worker', sub { schedulers() eq 'postgres' && workers($node, 'state') eq 'running' });
my @pids = split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM redis_migrate.workers});
is(scalar @pids, 3, 'launcher, scheduler and worker run');
$node->kill9;
wait_until('all are gone', sub { !grep { kill 0, $_ } @pids });
ok(1, 'after the death of the postmaster they exit');

done_testing();
