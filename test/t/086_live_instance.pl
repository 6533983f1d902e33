# One server follows: a live run goes on after a restart and a crash, but not by itself on a clone, after a restore to a
# point in time, on a promoted standby or in a copy of the database, until somebody confirms it there.

use strict;
use warnings;

use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant KEYS => 50;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb' ]);
my $primary = new_node('primary', preload => 1, init => { allows_streaming => 1, has_archiving => 1 },
    conf => "pg_redis_migrate.databases = 'postgres,copy'\npg_redis_migrate.live_delete_limit = 100");
$primary->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $redis->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
create_live($primary);
$redis->cli_lines(load_commands(500, KEYS));

like(sql_error($primary, q{SELECT redis_migrate.confirm_instance('live')}), qr/ERROR:  55000: migration "live" has no live run that is paused/, 'nothing is to be confirmed before a live run');
$primary->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($primary) . differences($primary, $redis), '', 'the run follows');
like(sql_error($primary, q{SELECT redis_migrate.confirm_instance('live')}), qr/ERROR:  55000: .*\nDETAIL:  The state of its background run is "running"/, 'nothing is to be confirmed where it runs');

# The same server, whichever way it ended.
for my $mode ('fast', 'immediate')
{
    $primary->stop($mode);
    $redis->cli_lines(load_commands(100, KEYS));
    $primary->start;
    is(wait_for($primary) . differences($primary, $redis), '', "after a stop ($mode) it goes on");
}

# Checks that a node is paused and moves nothing, and then that it goes on when it is told to.
sub pauses
{
    my ($node, $name, $is_primary_up) = @_;
    wait_until("$name: a decision", sub { job($node, 'live', 'state') =~ /paused|failed/ });
    is(job($node, 'live', 'state, wanted, sqlstate'), 'paused|f|55000', "$name: the run is paused");
    is(live($node, 'state'), 'paused', "$name: the view says so");
    like(sql_error($node, q{CALL redis_migrate.wait_for('live')}), qr/ERROR:  55000: the live run of migration "live" is paused.*\nHINT:  SELECT redis_migrate\.confirm_instance\('live'\)/, "$name: so does wait_for");
    like(slurp_file($node->logfile), qr/WARNING:  live run of migration "live" is paused.*\n.*\n?.*HINT:  .*confirm_instance\('live'\)/, "$name: so does the log");
    $redis->cli('SET', "s:$name", 'v');
    is(wait_for($primary), '', "$name: the primary goes on") if $is_primary_up;
    is($node->safe_psql('postgres', "SELECT count(*) FROM strings WHERE id = '$name'"), 0, "$name: nothing comes");
    $node->restart;
    $node->safe_psql('postgres', 'SELECT pg_sleep(1)');
    is(job($node, 'live', 'state'), 'paused', "$name: nor after a restart");
    wait_until("$name: no worker", sub { !workers($node) });
    $node->safe_psql('postgres', q{SELECT redis_migrate.confirm_instance('live')});
    is(wait_for($node) . differences($node, $redis), '', "$name: confirmed, it goes on");
    $node->restart;
    is(wait_for($node), '', "$name: and after the next restart by itself");
    return;
}

# A base backup that is started elsewhere.
$primary->backup('base');
my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($primary, 'base');
$clone->start;
pauses($clone, 'clone', 1);
is(differences($primary, $redis), '', 'clone and primary both follow');
$clone->stop;

# An exact copy, which has the file by which the primary knows itself: Redis tells of the primary.
my ($file) = glob($primary->data_dir . '/pg_stat/pgsql_tmp_redis_migrate_instance');
ok($file && -s $file == 32, 'the primary has a number');
my $twin = PostgreSQL::Test::Cluster->new('twin');
$twin->init_from_backup($primary, 'base');
copy($file, $twin->data_dir . '/pg_stat') or die "copy: $!";
$twin->start;
my $link = q{SELECT state, message FROM redis_migrate.live_link WHERE sqlstate = '57P03'};
wait_until('the exact copy', sub { $twin->safe_psql('postgres', $link) ne '' });
like($twin->safe_psql('postgres', $link), qr/^connecting\|another server follows 127\.0\.0\.1:\d+ by this run\. On the server that is not to follow: SELECT redis_migrate\.stop\('live'\), and remove /, 'an exact copy waits');
$redis->cli('SET', 's:twin', 'v');
is(wait_for($primary), '', 'while the primary goes on');
is($twin->safe_psql('postgres', q{SELECT count(*) FROM strings WHERE id = 'twin'}), 0, 'alone');
$twin->stop;

# A restore to a point in time, though it has the file, too: rows and position are those of that time, and what came later
# is followed from there.
$redis->cli('SET', 's:before', 'v');
is(wait_for($primary), '', 'before the point in time');
$primary->safe_psql('postgres', q{SELECT pg_create_restore_point('here')});
$redis->cli('SET', 's:after', 'v');
is(wait_for($primary), '', 'and after it');
my $wal = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
wait_until('the archive', sub { $primary->safe_psql('postgres', "SELECT last_archived_wal >= '$wal' FROM pg_stat_archiver") eq 't' });
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($primary, 'base', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', "recovery_target_name = 'here'\nrecovery_target_action = promote\narchive_mode = off");
copy($file, $restored->data_dir . '/pg_stat') or die "copy: $!";
$restored->start;
wait_until('the restore', sub { $restored->safe_psql('postgres', 'SELECT pg_is_in_recovery()') eq 'f' });
is($restored->safe_psql('postgres', q{SELECT string_agg(id, ' ') FROM strings WHERE id IN ('before', 'after')}), 'before', 'the rows are those of the point in time');
pauses($restored, 'restored', 1);
is($restored->safe_psql('postgres', q{SELECT count(*) FROM strings WHERE id = 'after'}), '1', 'what came later is followed from there');
is($redis->cli('INFO', 'stats') =~ /sync_full:(\d+)/ ? $1 : '', '1', 'without another snapshot');
$restored->stop;

# A promoted standby, though it has the file by which the primary knows itself.
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
copy($file, $standby->data_dir . '/pg_stat') or die "copy: $!";
$standby->start;
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;
pauses($standby, 'standby', 0);
$standby->stop;

# A copy of the database in the same server. Where the library is not preloaded, nobody else uses the original.
$primary->start;
is(wait_for($primary), '', 'the old primary goes on');
$primary->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$primary->restart;
$primary->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
$primary->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_redis_migrate'");
$primary->restart;
$redis->cli('SET', 's:copy', 'v');
is(wait_for($primary), '', 'the original goes on');
like($primary->safe_psql('copy', q{SELECT problem FROM redis_migrate.definitions WHERE kind = 'background run'}), qr/^restored: it waits/, 'the copy waits');
is($primary->safe_psql('copy', q{SELECT count(*) FROM strings WHERE id = 'copy'}), 0, 'and moves nothing');
$primary->safe_psql('copy', 'CALL redis_migrate.resume_restored()');
wait_until('the copy', sub { $primary->safe_psql('copy', q{SELECT count(*) FROM strings WHERE id = 'copy'}) eq '1' });
is($primary->safe_psql('copy', q{SELECT state FROM redis_migrate.background_runs}), 'running', 'until resume_restored');

done_testing();
