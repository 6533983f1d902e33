# Live sync with Sentinels: it goes on with the master that they name after a fail-over, while the application writes;
# what was read of the old master, and never came to the new one, is read again.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use RedisNodes;
use Test::More;
use Time::HiRes qw(usleep);

use constant KEYS => 100;

my @options = ('--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb');
my $first = start_redis(args => \@options);
my $second = start_replica($first, args => \@options);
my ($sentinel, @others) = start_sentinels($first, 'shop', replicas => 1);
my $sentinels = join ', ', map { "127.0.0.1:$_" } $sentinel, @others;
my $node = new_node('sentinel', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\npg_redis_migrate.live_delete_limit = 60");
$node->safe_psql('postgres', qq{
    CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinel_master 'shop', sentinels '$sentinels');
    CREATE USER MAPPING FOR PUBLIC SERVER live});
create_live($node);
$first->cli_lines(load_commands(1000, KEYS));
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . differences($node, $first), '', 'the master that the Sentinels name is followed');

sub ask_sentinel
{
    my (@command) = @_;
    my $out = '';
    IPC::Run::run([ 'redis-cli', '-p', $sentinel, @command ], '<', \undef, '>', \$out, '2>&1');
    return $out;
}
sub wait_until_master { my ($redis) = @_; my $port = $redis->port; return wait_until('the fail-over', sub { ask_sentinel('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'shop') =~ /^$port$/m && (eval { $redis->cli('INFO', 'replication') } // '') =~ /role:master/ }); }
sub wait_until_replica { my ($redis) = @_; return wait_until('the old master is a replica', sub { (eval { $redis->cli('INFO', 'replication') } // '') =~ /role:slave.*master_link_status:up/s && ask_sentinel('SENTINEL', 'MASTER', 'shop') =~ /^flags\nmaster$/m && ask_sentinel('SENTINEL', 'REPLICAS', 'shop') =~ /^flags\nslave$/m }); }
sub runs { return $node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs'); }

# The master ends. A row shows what its replica never received.
my $applier = hold_worker($node, 'migration');
$first->cli('HINCRBY', 'h:count', 'n', 1);
sub counter { return $node->safe_psql('postgres', q{SELECT fields->>'n' FROM hashes WHERE id = 'count'}); }
sub offset { my ($redis) = @_; return $redis->cli('INFO', 'replication') =~ /master_repl_offset:(\d+)/ ? $1 : die 'no offset'; }
my $offset = offset($first);
wait_until('the link has it', sub { live($node, 'received_offset') >= $offset });
my $link = hold_worker($node, 'replication link');
$offset = offset($first);
wait_until('the replica has it', sub { offset($second) >= $offset });
kill 'STOP', $second->pid;
$first->cli('CLIENT', 'KILL', 'TYPE', 'replica');
$first->cli_lines("HINCRBY h:count n 1\n" x 200);
$applier->release;
wait_until('the row is ahead', sub { counter() eq '201' });
$first->kill9;
kill 'CONT', $second->pid;
wait_until_master($second);
is($second->cli('HGET', 'h:count', 'n'), '1', 'a fail-over: the new master lacks what a row shows');
$link->release;
is(wait_for($node) . counter(), '1', 'and then the row does');
is(differences($node, $second), '', 'with all keys');
is(runs(), '1', 'by a partial resync');

# A fail-over on demand, and a master that ends, under load.
$first->start;
wait_until_replica($first);
my $load = start_load([ $first, $second ], KEYS);
usleep(500_000);
wait_until('the fail-over begins', sub { ask_sentinel('SENTINEL', 'FAILOVER', 'shop') =~ /OK|INPROG/ });
wait_until_master($first);
wait_until_replica($second);
usleep(500_000);
$load->finish;
is(wait_for($node) . differences($node, $first), '', 'a fail-over on demand, under load');
$load = start_load([ $first, $second ], KEYS);
usleep(500_000);
$first->kill9;
wait_until_master($second);
usleep(500_000);
$load->finish;
is(wait_for($node) . differences($node, $second), '', 'a master that ends, under load');
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums agree');

done_testing();
