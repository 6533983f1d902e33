# Background runs in a server that did not preload the library: start, stop, wait_for, what the views show, and that
# the run inside a worker behaves as in a session.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

use constant KEYS => 20_000;

my $node = new_node('start', conf => "pg_redis_migrate.batch_rows = 500\nmax_worker_processes = 6");
my $redis = start_redis();
fill($redis, KEYS);
my $proxy = PrmTools::Proxy->new($redis->port);
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE ROLE other LOGIN; CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor');
shop($node, 'shop', $proxy->port, owner => 'owner');
sub as { my ($user, $sql) = @_; return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $user ]); }

# From start to end.
as('owner', q{SELECT redis_migrate.start('shop')});
as('owner', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(last_run($node, 'shop', 'state, read, migrated, owner, balanced'), 'completed|' . KEYS . '|' . KEYS . '|owner|t', 'a background run completes');
is(compare($node, 'shop', KEYS), '', 'every key is there');
is(job($node, 'shop', 'wanted, state, crashes, failures, message'), 'f|completed|0|0|', 'the job says so');
wait_until('the worker leaves', sub { !workers($node) });

# The run begins when the transaction of start commits, and not at all if that is rolled back.
$node->safe_psql('postgres', 'TRUNCATE shop');
my $session = start_sql($node, q{BEGIN; SELECT redis_migrate.start('shop'); SELECT pg_sleep(4); ROLLBACK;}, user => 'owner');
wait_until('the worker waits', sub { workers($node, 'state') eq 'waiting for a transaction' });
wait_until('the transaction of start is what it waits for', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted}) == 1 });
$session->finish;
wait_until('the worker leaves', sub { !workers($node) });
is($node->safe_psql('postgres', 'SELECT count(*) FROM shop'), 0, 'after a rollback nothing was run');
is(job($node, 'shop', 'wanted, state'), 'f|completed', 'and nothing is wanted');
$node->safe_psql('postgres', q{BEGIN; SELECT redis_migrate.start('shop'); SELECT redis_migrate.stop('shop'); COMMIT;});
is(job($node, 'shop', 'wanted, state'), 'f|stopped', 'start and stop in one transaction');
is($node->safe_psql('postgres', 'SELECT count(*) FROM shop'), 0, 'run nothing');

# While it waits for Redis it holds nothing; the views show it; other roles may not touch it.
$proxy->tell('hold_on DUMP');
$proxy->tell('hold_on GETRANGE');
as('owner', q{SELECT redis_migrate.start('shop', on_error => 'stop')});
wait_until('the worker is held', sub { $proxy->holds && workers($node, 'state') eq 'running' });
my $seen = 0;
wait_until('it waits for the network', sub {
    my $event = $node->safe_psql('postgres', q{SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'redis_migrate migration'});
    $seen = $event eq 'Extension' ? $seen + 1 : 0;
    return $seen == 5;
});
is($node->safe_psql('postgres', q{
        SELECT usename, datname, backend_xid IS NULL, backend_xmin IS NULL,
               (SELECT count(*) FROM pg_locks AS l WHERE l.pid = a.pid AND l.locktype = 'relation'), query
        FROM pg_stat_activity AS a WHERE backend_type = 'redis_migrate migration'}),
    q{owner|postgres|t|t|0|CALL redis_migrate.run(migration => 'shop', priority => NULL, mapping => NULL, on_error => 'stop', prune => false, force => false, workers => NULL)},
    'the worker is connected as the owner, shows its command and holds no xid, no snapshot, no relation lock');
my $pid = workers($node, 'pid');
is(as('owner', q{SELECT kind, database, owner, migration, state FROM redis_migrate.workers}), 'migration|postgres|owner|shop|running', 'its owner sees it');
is(as('other', q{SELECT count(*) FROM redis_migrate.workers}), '0', 'others do not');
is(as('other', q{SELECT count(*) FROM redis_migrate.background_runs}), '0', 'nor the job');
is(as('monitor', q{SELECT pid FROM redis_migrate.workers}), $pid, 'pg_monitor does');
is(as('owner', q{SELECT pid, state, keys_read, batches, keys_per_second, estimated_end FROM redis_migrate.progress}), "$pid|running|0|0||",
    'progress names the process, and tells no rate before the first batch');
like(sql_error($node, q{SELECT redis_migrate.start('shop')}), qr/ERROR:  55006: migration "shop" already has a background worker\nDETAIL:  Its process is $pid/, 'it cannot be started twice');
like(sql_error($node, q{CALL redis_migrate.run('shop')}, extra_params => [ '-U', 'owner' ]), qr/ERROR:  55006: migration "shop" is already running\nDETAIL:  The process that runs it is $pid/, 'nor run in a session');
for my $call (q{redis_migrate.start('shop')}, q{redis_migrate.stop('shop')})
{
    like(sql_error($node, "SELECT $call", extra_params => [ '-U', 'other' ]), qr/ERROR:  42501: must be owner of migration "shop"/, "$call is for the owner");
}
my $waited = sql_error($node, q{SET client_min_messages = notice; SET pg_redis_migrate.progress_interval = '1s'; CALL redis_migrate.wait_for('shop', '3 s')});
like($waited, qr/ERROR:  57014: migration "shop" is still running\nDETAIL:  Its state is "running"/, 'wait_for ends with its time');
like($waited, qr/NOTICE:  00000: run \d+: 0 of about ${\KEYS} keys, 0\.0 %/, 'and tells the progress meanwhile');
my $create = elapsed(sub { $node->safe_psql('postgres', 'CREATE DATABASE aside') });
cmp_ok(elapsed(sub { $node->safe_psql('postgres', 'DROP DATABASE aside') }), '<', 5, 'DROP DATABASE of another database is not held up');

# stop takes effect at once and in order, and the run resumes later.
$proxy->tell('pass');
$proxy->tell('rate 300000');
wait_until('some batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM shop') > 0 });
is(as('owner', q{SELECT position <> '', keys_read > 0, keys_per_second > 0, since <= clock_timestamp() FROM redis_migrate.workers}), 't|t|t|t',
    'position and rate of a worker are seen');
is(as('owner', q{SELECT position <> '', keys_read BETWEEN 1 AND keys_estimated, keys_per_second > 0, estimated_end > clock_timestamp(), percent = round(100.0 * keys_read / keys_estimated, 1),
        percent BETWEEN 0 AND 100 FROM redis_migrate.progress}),
    't|t|t|t|t|t', 'so they are of a run, when it may end, and how much of it is done');
# Nothing comes for longer than a batch has taken so far, as while one huge value is read.
$proxy->tell('hold');
my $arrived = '';
wait_until('what is on its way', sub {
    my $before = $arrived;
    usleep(500_000);
    return ($arrived = $node->safe_psql('postgres', 'SELECT keys_read FROM redis_migrate.progress')) eq $before; });
my ($rate, $later) = map { $node->safe_psql('postgres', "SELECT keys_per_second FROM redis_migrate.progress, pg_sleep($_)") } 1, 2;
ok($later > 0 && $later < $rate, 'the rate falls, not to zero');
is($node->safe_psql('postgres', 'SELECT estimated_end > clock_timestamp() FROM redis_migrate.progress'), 't', 'and the end stays in the future');
# Redis says what it likes of the number of its keys.
my $keys = $node->safe_psql('postgres', 'SELECT keys_estimated FROM redis_migrate.progress');
$node->safe_psql('postgres', 'UPDATE redis_migrate.run SET keys_estimated = 9223372036854775807');
is($node->safe_psql('postgres', 'SELECT keys_estimated, estimated_end IS NULL FROM redis_migrate.progress'), '9223372036854775807|t', 'an end in a million years is not told');
$node->safe_psql('postgres', "UPDATE redis_migrate.run SET keys_estimated = $keys");
# An hour with nearly nothing does not matter if 100 keys came in the last ten seconds: 10 a second, less what has passed since.
my $counted = $node->safe_psql('postgres', 'SELECT keys_read FROM redis_migrate.progress');
$node->safe_psql('postgres', q{UPDATE redis_migrate.run SET active_time = '1 hour', updated_at = clock_timestamp(), window_began = '00:59:50', window_read = } . ($counted - 100));
is($node->safe_psql('postgres', q{SELECT keys_per_second BETWEEN 1 AND 10, estimated_end - clock_timestamp() BETWEEN
        0.09 * (keys_estimated - keys_read) * interval '1 s' AND (keys_estimated - keys_read) * interval '1 s' FROM redis_migrate.progress}), 't|t',
    'the rate is of the recent past, and so is the end');
$node->safe_psql('postgres', q{UPDATE redis_migrate.run SET window_began = '0'});
is($node->safe_psql('postgres', 'SELECT keys_per_second BETWEEN 0.001 AND 0.1 FROM redis_migrate.progress'), 't', 'less than one a second is not 0');
$proxy->tell('rate 300000');
my $log = -s $node->logfile;
cmp_ok(elapsed(sub { as('owner', q{SELECT redis_migrate.stop('shop')}) }), '<', 5, 'stop returns soon');
is(workers($node), '', 'when the worker has left');
is(last_run($node, 'shop', 'state, message'), 'stopped|stopped by redis_migrate.stop', 'the run is stopped');
is(job($node, 'shop', 'wanted, state, message'), 'f|stopped|', 'so is the job');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile, $log), qr/FATAL|exited with exit code 1/, 'the worker ended in order');
my ($run, $read) = split /\|/, last_run($node, 'shop', 'run_id, read');
cmp_ok($read, '<', KEYS, 'before the end');
$proxy->tell('pass');
as('owner', q{SELECT redis_migrate.start('shop', on_error => 'stop')});
like(sql_error($node, q{SELECT redis_migrate.last_run_id()}), qr/ERROR:  55000: last_run_id is not yet defined in this session/, 'a session that has waited for no run');
my ($id, $summary);
$node->psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute'); SELECT redis_migrate.last_run_id()}, stdout => \$id, stderr => \$summary, extra_params => [ '-U', 'owner' ]);
is($id, $run, 'one that has knows which');
like($summary, qr/NOTICE:  run $run of migration "shop" completed: ${\KEYS} read = 0 vanished \+ 0 rejected \+ ${\KEYS} migrated \+ 0 archived \+ 0 skipped.*\n.*NOTICE:  rows of run $run\nDETAIL:  +mapping +target/,
    'wait_for ends with the summary of the run');
is(last_run($node, 'shop', 'run_id, state, read'), "$run|completed|" . KEYS, 'the same run goes on to its end');
is($node->safe_psql('postgres', "SELECT next_began >= '1 hour', next_read BETWEEN $counted + 1 AND " . KEYS . ", window_began, window_read FROM redis_migrate.run WHERE run_id = $run"),
    't|t|00:00:00|0', 'and has moved the window of its rate');
is(compare($node, 'shop', KEYS), '', 'every key is there');
like(sql_error($node, q{SET client_min_messages = notice; SELECT redis_migrate.stop('shop')}), qr/NOTICE: .*is not running in the background/, 'stop of nothing says so');

# A transaction that sees what was before the run has ended can stop it, but not drop the migration with it.
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
    my $begin = "BEGIN ISOLATION LEVEL $level; SELECT 1;";
    for my $case ([ 'drop_migration', qr/ERROR:  40001: migration "shop" has changed since this transaction began\n.*HINT:  .*once more/s ], [ 'stop', qr/^$/ ])
    {
        my ($function, $expected) = @$case;
        $proxy->tell("hold_on $_") for 'DUMP', 'GETRANGE';
        as('owner', q{SELECT redis_migrate.start('shop')});
        wait_until('the worker is held', sub { $proxy->holds && workers($node, 'state') eq 'running' });
        like(sql_error($node, "$begin SELECT redis_migrate.$function('shop'); COMMIT", extra_params => [ '-U', 'owner' ]), $expected, "$level: $function");
        is(job($node, 'shop', 'wanted, state'), 'f|stopped', 'the run is stopped');
        $proxy->tell('pass');
    }
}

# SIGHUP reaches a worker in the middle of a run.
$node->safe_psql('postgres', 'TRUNCATE shop');
$proxy->tell('rate 200000');
as('owner', q{SELECT redis_migrate.start('shop')});
wait_until('some batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM shop') > 0 });
$node->append_conf('postgresql.conf', 'pg_redis_migrate.batch_rows = 7');
$node->reload;
$pid = workers($node, 'pid');
$proxy->tell('drop');  # the size of batches is looked up with each connection
wait_until('smaller batches', sub {
    $node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT xmin FROM shop GROUP BY xmin HAVING count(*) < 30) AS x}) > 5;
});
is(workers($node, 'pid'), $pid, 'a changed setting takes effect during a run');

# pg_terminate_backend is no crash; nothing is lost.
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM redis_migrate.workers});
wait_until('the worker leaves', sub { !workers($node, 'pid') });
wait_until('its run to be interrupted', sub { $node->safe_psql('postgres', q{SELECT state FROM redis_migrate.runs ORDER BY run_id DESC LIMIT 1}) eq 'interrupted' });
is(workers($node, 'state, pid'), 'interrupted|', 'the job is still wanted; without scheduler nobody goes on');
$node->append_conf('postgresql.conf', 'pg_redis_migrate.batch_rows = 5000');
$node->reload;
$proxy->tell('pass');
as('owner', q{SELECT redis_migrate.start('shop')});
as('owner', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(compare($node, 'shop', KEYS), '', 'start goes on with it');

# Errors: the worker itself retries after transient ones; others end the job.
$proxy->tell('drop');
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (SET port '1'); TRUNCATE shop});
$node->append_conf('postgresql.conf', "pg_redis_migrate.reconnect_timeout = 0");
$node->reload;
as('owner', q{SELECT redis_migrate.start('shop')});
wait_until('it is tried again', sub { workers($node, 'state') eq 'retrying' });
like(workers($node, 'sqlstate, last_error'), qr/^08006\|could not connect to Redis at 127\.0\.0\.1:1/, 'the view shows the last error');
wait_until('the job to say so', sub { job($node, 'shop', 'sqlstate, state, failures > 0, wanted') eq '08006|retrying|t|t' });
$node->safe_psql('postgres', 'ALTER SERVER shop OPTIONS (SET port \'' . $redis->port . '\')');
as('owner', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(compare($node, 'shop', KEYS), '', 'when Redis is back it goes on');
$node->safe_psql('postgres', q{ALTER TABLE shop RENAME TO gone});
as('owner', q{SELECT redis_migrate.start('shop')});
like(sql_error($node, q{CALL redis_migrate.wait_for('shop', '1 minute')}), qr/ERROR:  42P01: the background run of migration "shop" failed: .*shop/, 'wait_for raises the error of the run');
is(job($node, 'shop', 'wanted, state, sqlstate'), 'f|failed|42P01', 'a mapping without target fails for good');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/WARNING:  background run of migration "shop" failed: /, 'the log has it');
$node->safe_psql('postgres', q{ALTER TABLE gone RENAME TO shop});

# A full server: a WARNING that names the setting, and the job waits.
my @others = map { "hog$_" } 1 .. 6;
my $held = PrmTools::Proxy->new($redis->port);
$held->tell('hold');
shop($node, $_, $held->port) for @others;
my $warnings = '';
for my $name (@others)
{
    $node->psql('postgres', "SELECT redis_migrate.start('$name')", stderr => \my $err);
    $warnings .= $err;
}
like($warnings, qr/WARNING:  migration "hog\d" waits for a worker: the server has no free slot for a background worker\nDETAIL:  .*\nHINT:  Raise max_worker_processes/, 'a full max_worker_processes is a WARNING that names it');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.background_runs WHERE state = 'waiting for worker' AND wanted}), '>=', 1, 'what found no place waits for a worker');
my $waiting = $node->safe_psql('postgres', q{SELECT migration FROM redis_migrate.workers WHERE state = 'waiting for worker' ORDER BY 1 LIMIT 1});
$node->safe_psql('postgres', qq{SELECT redis_migrate.drop_migration(migration) FROM redis_migrate.migrations WHERE migration LIKE 'hog%' AND migration <> '$waiting'});
is(workers($node, 'pid'), '', 'drop_migration ends the worker');
$held->tell('pass');
$node->safe_psql('postgres', "SELECT redis_migrate.start('$waiting')");
$node->safe_psql('postgres', "CALL redis_migrate.wait_for('$waiting', '1 minute')");
is(compare($node, $waiting, KEYS), '', 'with room again start goes on');

# Before PostgreSQL 17 a role that cannot log in has no worker.
SKIP_NONE: {
    $node->safe_psql('postgres', 'ALTER ROLE owner NOLOGIN');
    my $err = sql_error($node, q{SELECT redis_migrate.start('shop')});
    if ($node->pg_version < 17) { like($err, qr/ERROR:  28000: .*role "owner", is not permitted to log in/, 'an owner without LOGIN is refused with the reason'); }
    else { is($err, '', 'an owner without LOGIN runs'); $node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop')}); }
    $node->safe_psql('postgres', 'ALTER ROLE owner LOGIN');
}

# Fast shutdown does not wait for Redis.
$held->tell('hold');
$node->safe_psql('postgres', "TRUNCATE $waiting; SELECT redis_migrate.start('$waiting')");
wait_until('the worker runs', sub { workers($node, 'state') eq 'running' });
cmp_ok(elapsed(sub { $node->stop('fast') }), '<', 10, 'a fast shutdown does not hang on a worker');

done_testing();
