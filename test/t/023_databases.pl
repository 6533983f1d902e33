# Databases, the extension and roles that go away, or change, while workers are connected.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant KEYS => 2_000;

my $redis = start_redis();
fill($redis, KEYS);
my $proxy = PrmTools::Proxy->new($redis->port);
$proxy->tell('hold');

my $node = new_node('databases', preload => 1, conf => "pg_redis_migrate.databases = 'postgres, store'\nmax_worker_processes = 12");
$node->safe_psql('postgres', 'CREATE ROLE thief LOGIN CREATEDB');

# A database whose migration "shop" is running.
sub new_store
{
    $node->safe_psql('postgres', 'CREATE DATABASE store');
    $node->safe_psql('store', 'CREATE EXTENSION pg_redis_migrate');
    shop($node, 'shop', $proxy->port, database => 'store');
    $node->safe_psql('store', q{SELECT redis_migrate.start('shop')});
    wait_running();
    return;
}
sub wait_running
{
    wait_until('the worker runs', sub { workers($node, 'state', 'store') eq 'running' });
    return;
}
sub in_store { return $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname IN ('store', 'moved', 'copy') AND backend_type LIKE 'redis_migrate%'}); }
sub wait_scheduler { wait_until('a scheduler', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.workers WHERE database = 'store' AND kind = 'scheduler'}) eq '1' }); return; }

# Whoever may not drop it ends nobody's worker.
new_store();
wait_scheduler();
my $pid = workers($node, 'pid', 'store');
for my $sql ('DROP DATABASE store', 'ALTER DATABASE store RENAME TO moved')
{
    like(sql_error($node, $sql, extra_params => [ '-U', 'thief' ]), qr/ERROR:  42501: must be owner of database store/, "$sql by another role is refused");
}
is(workers($node, 'pid', 'store'), $pid, 'and the worker goes on');

# A template: the workers leave, and come back.
my $seconds = elapsed(sub { $node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE store') });
cmp_ok($seconds, '<', 5, "CREATE DATABASE … TEMPLATE with a worker: $seconds s");
wait_until('the worker is back', sub { my $new = workers($node, 'pid', 'store'); return $new && $new ne $pid; });
is(in_store() >= 1, 1, 'the workers come back');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'copy'}), 0, 'a copy that is not listed has none');

# RENAME: by another name it is not listed; by its own it is again.
wait_running();
$node->safe_psql('postgres', 'ALTER DATABASE store RENAME TO moved');
is(in_store(), 0, 'RENAME with a worker');
$node->safe_psql('postgres', 'ALTER DATABASE moved RENAME TO store');
$node->reload;
wait_running();
ok(1, 'under its name it is gone on with');

# A DROP that fails: the workers come back.
my $guest = $node->background_psql('store');
my $err = sql_error($node, 'DROP DATABASE store');
like($err, qr/ERROR:  55006: database "store" is being accessed by other users\nDETAIL:  There is 1 other session/, 'somebody else still keeps a database');
$guest->quit;
wait_running();
ok(1, 'after a DROP that failed the run goes on');

# DROP, and with FORCE.
$seconds = elapsed(sub { $node->safe_psql('postgres', 'DROP DATABASE store') });
cmp_ok($seconds, '<', 5, "DROP DATABASE with scheduler and worker: $seconds s");
is(in_store(), 0, 'nobody is left');
new_store();
$node->safe_psql('postgres', 'DROP DATABASE store WITH (FORCE)');
is(in_store(), 0, 'DROP DATABASE WITH (FORCE)');
my $log = -s $node->logfile;
$node->psql('postgres', 'SELECT pg_sleep(2)');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile, $log), qr/FATAL/, 'nobody tries to go on in a database that is gone');

# DROP EXTENSION: does not wait for Redis, and the worker ends in order.
new_store();
wait_scheduler();
$log = -s $node->logfile;
$seconds = elapsed(sub { $node->safe_psql('store', 'DROP EXTENSION pg_redis_migrate CASCADE') });
cmp_ok($seconds, '<', 5, "DROP EXTENSION with a worker: $seconds s");
$proxy->tell('pass');
wait_until('the workers leave', sub { $node->reload; in_store() == 0 });
my $text = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log);
like($text, qr/LOG:  background worker ends: extension pg_redis_migrate was dropped/, 'the worker says why it ends');
unlike($text, qr/exited with exit code [1-9]/, 'and ends with status 0');
$proxy->tell('hold');

# The same during a run in a session.
$node->safe_psql('postgres', 'DROP DATABASE store');
$node->safe_psql('postgres', 'CREATE TABLE kept (id int)');
shop($node, 'shop', $proxy->port);
my $call = start_sql($node, q{CALL redis_migrate.run('shop');}, name => 'session');
wait_until('the session waits', sub { $node->safe_psql('postgres', q{SELECT wait_event_type FROM pg_stat_activity WHERE application_name = 'session'}) eq 'Extension' });
$node->safe_psql('postgres', 'DROP EXTENSION pg_redis_migrate CASCADE');
$proxy->tell('pass');
(undef, $err) = $call->finish;
like($err, qr/ERROR:  55000: extension pg_redis_migrate was dropped meanwhile/, 'a session that runs says what happened');
$proxy->tell('hold');

# ALTER EXTENSION UPDATE: workers of the old version are replaced. (Its effect on the catalog, without another version.)
$node->safe_psql('postgres', 'CREATE EXTENSION pg_redis_migrate; DROP TABLE shop');
shop($node, 'shop', $proxy->port);
$node->safe_psql('postgres', q{SELECT redis_migrate.start('shop')});
wait_until('the worker runs', sub { workers($node, 'state') eq 'running' });
wait_until('its scheduler', sub { pid_of($node, 'scheduler') });
my ($worker, $scheduler) = (workers($node, 'pid'), pid_of($node, 'scheduler'));
$node->safe_psql('postgres', q{UPDATE pg_extension SET extversion = '9.9' WHERE extname = 'pg_redis_migrate'});
$node->reload;
wait_until('both are replaced', sub {
    my ($new_worker, $new_scheduler) = (workers($node, 'pid'), pid_of($node, 'scheduler'));
    return $new_worker && $new_worker ne $worker && $new_scheduler && $new_scheduler ne $scheduler;
});
is(job($node, 'shop', 'wanted, failures, crashes'), 't|0|0', 'a changed version of the extension replaces the workers, which is no failure');
$proxy->tell('pass');
$node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(compare($node, 'shop', KEYS), '', 'and the run goes on');
$node->safe_psql('postgres', qq{UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'pg_redis_migrate') WHERE extname = 'pg_redis_migrate'});

# DROP ROLE of an owner: what it owns keeps it; without that its background runs are disabled.
$proxy->tell('hold');
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN');
shop($node, 'owned', $proxy->port, owner => 'owner');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('owned')});
wait_until('the worker runs', sub { workers($node, 'state') eq 'running' });
like(sql_error($node, 'DROP ROLE owner'), qr/ERROR:  2BP01: role "owner" cannot be dropped because some objects depend on it/, 'an owner of tables cannot be dropped');
$node->safe_psql('postgres', 'REASSIGN OWNED BY owner TO CURRENT_USER; DROP OWNED BY owner; DROP ROLE owner');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM redis_migrate.workers WHERE kind = 'migration'});
wait_until('it is disabled', sub { job($node, 'owned', 'state') eq 'failed' });
like(job($node, 'owned', 'wanted, sqlstate, message'), qr/^f\|28000\|its owner, role "owner", does not exist$/, 'a background run of a role that is gone is disabled and says why');
is(workers($node), '', 'no worker is started for it');
$node->stop('fast');

# Without preloading nobody sends the workers away: DROP DATABASE says who is connected, FORCE ends them.
$node = new_node('late');
new_store();
like(sql_error($node, 'DROP DATABASE store'), qr/ERROR:  55006: database "store" is being accessed by other users/, 'without preloading a worker keeps its database');
$seconds = elapsed(sub { $node->safe_psql('postgres', 'DROP DATABASE store WITH (FORCE)') });
cmp_ok($seconds, '<', 5, "and FORCE ends it: $seconds s");
is(in_store(), 0, 'nobody is left');
$node->stop('fast');

done_testing();
