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
# Sentinels give a fail-over up whose replica does not answer in time, so they are asked again while none is under way.
sub fail_over
{
    my ($to) = @_;
    return wait_until('the fail-over', sub {
        my $port = $to->port;
        return (eval { $to->cli('INFO', 'replication') } // '') =~ /role:master/ if ask_sentinel('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'shop') =~ /^$port$/m;
        ask_sentinel('SENTINEL', 'FAILOVER', 'shop') if ask_sentinel('SENTINEL', 'MASTER', 'shop') =~ /^flags\nmaster$/m;
        return 0; });
}
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
fail_over($first);
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

# A user whom a cutover has fenced is fenced at the next master, too.
$first->start;
wait_until_replica($first);
$_->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all') for $first, $second;
sub may_write { my ($redis) = @_; return $redis->cli('ACL', 'GETUSER', 'app') !~ /-\@write/; }
sub trouble { return $node->safe_psql('postgres', 'SELECT coalesce(fence_trouble, $$none$$) FROM redis_migrate.cutovers'); }
is(wait_for($node), '', 'live sync');
is(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', max_pause => '10 s', force => true)}), '', 'cutover');
is(may_write($second) . may_write($first), '1', 'the master is fenced');
fail_over($first);
wait_until('the new master is fenced', sub { !may_write($first) });
is(trouble(), 'none', 'a fail-over: so is the new one');
like(slurp_file($node->logfile), qr/WARNING:  user "app" of Redis at \S+ had the right to write again, and has lost it once more/, 'and the log says so');
# Rules that somebody gives by hand stay.
$first->cli('ACL', 'SETUSER', 'app', 'nocommands', '+@all');
wait_until('somebody has given other rules', sub { trouble() =~ /^app at \S+: Somebody has given it other rules since it was fenced\.$/ });
$first->cli('ACL', 'SETUSER', 'app', 'nocommands', '+@all', '-@write');
wait_until('they are taken back', sub { trouble() eq 'none' });
ok(!may_write($first), 'by hand, too');
my $err = '';
$node->psql('postgres', q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}, stderr => \$err);
like($err, qr/WARNING:  users of Redis may stay without their rights to write: "app"/, 'cutback: at the old master the user stays fenced');
ok(may_write($first), 'and may write at the new one');

done_testing();
