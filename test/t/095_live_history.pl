# Live sync when the server's history changes: what was read of a history that came to nothing is read again. A restart
# from a dump, a replica that becomes master, two changes at once; files of changes that are gone or do not fit.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

use constant KEYS => 100;

my @options = ('--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb', '--repl-ping-replica-period', '3600');
my $master = start_redis(args => \@options);
my $redis = start_redis(args => \@options);
$redis->cli('REPLICAOF', '127.0.0.1', $master->port);
wait_until('the replica has its master', sub { $redis->cli('INFO', 'replication') =~ /master_link_status:up/ });
my $node = new_node('history', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
create_live($node);
$master->cli_lines(load_commands(1000, KEYS) . "SET s:two 0\n");
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});

sub offset { my ($server) = @_; return $server->cli('INFO', 'replication') =~ /master_repl_offset:(\d+)/ ? $1 : die 'no offset'; }
sub wait_until_received { my $offset = offset($redis); return wait_until('the link has it', sub { (live($node, 'received_offset') || 0) >= $offset }); }
sub wait_until_linked { my $id = $redis->cli('INFO', 'replication') =~ /master_replid:(\w+)/ ? $1 : ''; return wait_until('the link is there', sub { $node->safe_psql('postgres', 'SELECT replication_id FROM redis_migrate.live_link ORDER BY run_id DESC LIMIT 1') eq $id }); }
sub value { my ($id) = @_; return $node->safe_psql('postgres', "SELECT value FROM strings WHERE id = '$id'"); }
sub runs { return $node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs'); }

# A replica that becomes a master.
wait_until('the replica has it all', sub { offset($master) == offset($redis) });
is(wait_for($node) . differences($node, $redis), '', 'a replica is followed');
my $load = start_load($master, KEYS);
usleep(500_000);
$master->kill9;
$load->finish;
$redis->cli('REPLICAOF', 'NO', 'ONE');
$redis->cli_lines(load_commands(500, KEYS) . "HINCRBY h:count n 1\n");
is(wait_for($node) . differences($node, $redis), '', 'and when it has become master, too');

sub counter { return $node->safe_psql('postgres', q{SELECT fields->>'n' FROM hashes WHERE id = 'count'}); }

# Has the row of h:count show more of the server's history than the link has received. Returns what holds the link.
sub get_ahead
{
    wait_until_linked();
    my $applier = hold_worker($node, 'migration');
    $redis->cli('HINCRBY', 'h:count', 'n', 1);
    wait_until_received();
    my $link = hold_worker($node, 'replication link');
    $redis->cli('CLIENT', 'KILL', 'TYPE', 'replica');  # nothing waits in its socket
    $redis->cli('SAVE');
    $redis->cli_lines("HINCRBY h:count n 100\n" x 50);
    $applier->release;
    wait_until('the row is ahead', sub { counter() > 5000 });
    return $link;
}

# A restart from a dump: the server has lost what a row shows.
my $held = get_ahead();
is(live($node, 'keys_ahead'), '1', 'a row is ahead of the stream');
$redis->restart('KILL');
is($redis->cli('HGET', 'h:count', 'n'), '2', 'the server has lost what it shows');
$held->release;
is(wait_for($node) . counter(), '2', 'and so has the row');
is(differences($node, $redis), '', 'a restart from a dump');

# The same, and another process has to know.
$held = get_ahead();
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . worker_pid($node, 'migration') . ')');
$redis->restart('KILL');
$held->release;
is(wait_for($node) . counter(), '3', 'a restart from a dump, and an applier that ends meanwhile');
is(differences($node, $redis), '', 'with all keys');

# Two changes of the history before the first is applied. Before 7.0 a master that was restarted does not know it.
if (redis_version() >= 7)
{
    wait_until_linked();
    my $applier = hold_worker($node, 'migration');
    for my $round (1 .. 2)
    {
        $redis->cli('CONFIG', 'SET', 'save', '3600 1');
        $redis->cli_lines(load_commands(200, KEYS) . "INCR s:two\n");
        wait_until_received();
        $redis->restart;
        wait_until_linked();
    }
    $redis->cli('INCR', 's:two');
    wait_until_received();
    $applier->release;
    is(wait_for($node) . value('two'), '3', 'two restarts, and all is applied');
    is(differences($node, $redis), '', 'with all keys');
    is(live($node, 'replication_id'), $redis->cli('INFO', 'replication') =~ /master_replid:(\w+)/ ? $1 : '', 'the position is of the last history');
    is(runs(), '1', 'all that by partial resyncs alone');
}

# Files that are gone: the server has what they had.
my $runs = runs();
sub files { return glob $node->data_dir . '/base/*/pg_redis_migrate/*.spool'; }
sub stop_live { $node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')}); return wait_until('the link ends', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'replication link'}) eq '0' }); }
stop_live();
my @files = files();
cmp_ok(scalar(@files), '>', 0, 'there are files') and unlink @files;
$redis->cli_lines(load_commands(300, KEYS));
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . differences($node, $redis), '', 'files of changes that are gone');

# Files that are newer than the position, as a restored database may have them. Before 7.0 another size empties the backlog.
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '64mb');
wait_for($node);
stop_live();
$node->safe_psql('postgres', 'CREATE TABLE kept AS SELECT * FROM redis_migrate.live_position');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
my $megabyte = q{"redis.call('SET', KEYS[1], string.rep('x', 1024 * 1024)) redis.call('DEL', KEYS[1])" 1 other};
for (1 .. 5) { $redis->cli_lines("EVAL $megabyte\n" x 8); wait_for($node); }
$redis->cli_lines(load_commands(300, KEYS) . "DEL s:two\nHINCRBY h:count n 1\n");
is(wait_for($node) . differences($node, $redis), '', 'many changes');
stop_live();
$node->safe_psql('postgres', 'UPDATE redis_migrate.live_position AS p SET replication_id = k.replication_id, applied_offset = k.applied_offset, db = k.db FROM kept AS k WHERE p.run_id = k.run_id; UPDATE hashes SET fields = $${}$$ WHERE id = $$count$$; INSERT INTO strings VALUES ($$two$$, 99)');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . differences($node, $redis), '', 'files that are newer than the position');
is(runs(), $runs, 'that also needs no other snapshot');
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums agree');

done_testing();
