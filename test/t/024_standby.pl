# A standby runs nothing, and goes on after its promotion; a binary upgrade starts nothing.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant KEYS => 4_000;

my $redis = start_redis();
fill($redis, KEYS);
my $proxy = PrmTools::Proxy->new($redis->port);
my $primary = new_node('primary', preload => 1, init => { allows_streaming => 1 },
    conf => "pg_redis_migrate.databases = 'postgres'\npg_redis_migrate.batch_rows = 100");
shop($primary, 'shop', $proxy->port);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub our_processes
{
    my ($node) = @_;
    return $node->safe_psql('postgres', q{SELECT coalesce(string_agg(backend_type, ', '), '') FROM pg_stat_activity WHERE backend_type LIKE 'redis_migrate%'});
}

# On the primary it runs, half way.
$proxy->tell('rate 50000');
$primary->safe_psql('postgres', q{SELECT redis_migrate.start('shop')});
wait_until('some batches', sub { $primary->safe_psql('postgres', 'SELECT count(*) FROM shop') > 500 });
$proxy->tell('hold');
my $run = last_run($primary, 'shop', 'run_id');
$primary->wait_for_catchup($standby);

# The standby shows it and does nothing.
cmp_ok($standby->safe_psql('postgres', 'SELECT count(*) FROM shop'), '>', 500, 'the standby has the rows');
is(our_processes($standby), '', 'no launcher, no scheduler, no worker on a standby');
is($standby->safe_psql('postgres', q{SELECT state, pid FROM redis_migrate.workers}), 'interrupted|', 'its views can be read');
is($standby->safe_psql('postgres', q{SELECT run_id, state FROM redis_migrate.progress}), "$run|interrupted", 'and say that nobody runs it here');
like(sql_error($standby, q{SELECT redis_migrate.start('shop')}), qr/ERROR:  25006: /, 'start is refused with 25006');
like(sql_error($standby, q{SELECT redis_migrate.stop('shop')}), qr/ERROR:  25006: /, 'so is stop');

# Promotion: it goes on from the position that was replicated.
$primary->stop('immediate');
$standby->promote;
wait_until('a worker', sub { workers($standby, 'state') eq 'running' });
$proxy->tell('pass');
$standby->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(last_run($standby, 'shop', 'run_id, state, balanced, read'), "$run|completed|t|" . KEYS, 'the same run goes on after promotion, to its end');
is(compare($standby, 'shop', KEYS), '', 'every key is there');

# pg_upgrade starts both servers with -b: nothing may move.
$proxy->tell('hold');
$standby->safe_psql('postgres', q{TRUNCATE shop; SELECT redis_migrate.start('shop')});
wait_until('a worker', sub { workers($standby, 'state') eq 'running' });
$standby->stop('fast');
my @ctl = ('pg_ctl', '-w', '-D', $standby->data_dir);
$proxy->tell('pass');
PostgreSQL::Test::Utils::system_or_bail(@ctl, '-l', $standby->logfile, '-o', '-b', 'start');
$standby->safe_psql('postgres', 'SELECT pg_sleep(1.5)');
is(our_processes($standby), '', 'in binary upgrade mode nothing is started');
like(sql_error($standby, q{SELECT redis_migrate.start('shop')}), qr/ERROR:  55000: background runs cannot be started during a binary upgrade/, 'and nobody can start it');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM shop'), 0, 'nothing has moved');
PostgreSQL::Test::Utils::system_or_bail(@ctl, '-m', 'fast', 'stop');
$standby->start;
$standby->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(compare($standby, 'shop', KEYS), '', 'started as usual it goes on');

done_testing();
