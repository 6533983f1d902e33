# Events in a Redis Cluster while it is read: no key is missed, and nothing is read again without need.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use RedisNodes;
use Test::More;
use Time::HiRes qw(usleep);

use constant { KEYS => 9000, TAGGED => 6 };

my $node = new_node('events', preload => 1, conf => "pg_redis_migrate.batch_rows = 200\nlog_statement = none");
my $cluster = start_cluster(masters => 3, replicas => 1);
$cluster->set(map { ("k:$_" => "value $_") } 1 .. KEYS);
my @masters = $cluster->masters;
my $seeds = join ', ', map { '127.0.0.1:' . $_->{node}->port } @masters;

sub sql { return join "\n", map { $node->safe_psql('postgres', $_) } @_; }
sub position { return last_run($node, 'shop', 'position'); }
sub reads { my ($id) = @_; return position() =~ / node=$id /; }
sub run { return start_sql($node, q{CALL redis_migrate.run('shop', workers => 1);}); }

# Starts a run and waits until it has come to a node.
sub run_to
{
    my ($id) = @_;
    my $call = run();
    wait_until('the node', sub { reads($id) });
    return $call;
}

# Keys in one slot of a master, for which there is no mapping. Returns the slot and the sub that counts those that have arrived.
sub tagged_keys
{
    my ($master) = @_;
    my ($tag) = grep { $master->{slots}{ RedisNodes::Cluster::slot($_) } } map { "tag$_" } 1 .. 1000;
    $cluster->set(map { ("{$tag}:$_" => $_) } 1 .. TAGGED);
    return (RedisNodes::Cluster::slot($tag), sub { sql("SELECT count(*) FROM redis_migrate.archive WHERE key LIKE '{$tag}:%'") });
}

sql(qq{CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on', max_rate '750')},
    'CREATE TABLE item (id bigint PRIMARY KEY, v text)',
    q{SELECT redis_migrate.create_migration('shop', 'shop')},
    q{SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}', exclusive => true)});

# A slot leaves the node that is being read, and comes back before its scan is over. The keys that were away were not
# named. With few keys, it is unlikely that one of them is met on its way, which would reveal the move.
my ($slot, $arrived) = tagged_keys($masters[1]);
my $call = run_to($masters[1]{id});
$cluster->move($slot, $masters[1], $masters[0]);
usleep(1_800_000);
$cluster->move($slot, $masters[0], $masters[1]);
ok(reads($masters[1]{id}), 'a slot is back while its node is still being read');
my (undef, $err) = $call->finish;
is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'the run completes') or diag($err);
is($arrived->(), TAGGED, 'with every key of the slot');
is(compare($node, 'item', KEYS), '', 'and all others');

# A slot leaves the node that is being read, and the connection breaks: only that slot is read again.
sql('TRUNCATE item');
@masters = $cluster->masters;
$cluster->wait_until_agreed;
my ($moving) = grep { $masters[1]{slots}{$_} } map { RedisNodes::Cluster::slot("k:$_") } 1 .. KEYS;
my $in_slot = grep { RedisNodes::Cluster::slot("k:$_") == $moving } 1 .. KEYS;
$call = run_to($masters[1]{id});
$cluster->move($moving, $masters[1], $masters[0]);
$masters[1]{node}->cli('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
(undef, $err) = $call->finish;
like($err, qr/NOTICE: .* [12] slots of the cluster were read again/, 'a slot that has moved when the connection is opened again is read again');
cmp_ok(last_run($node, 'shop', 'read'), '<=', KEYS + TAGGED + $in_slot, 'and nothing else');
is(compare($node, 'item', KEYS), '', 'every key');

# A node that has left the cluster, or has not joined it, among the seeds: the next one is asked.
my $lone = RedisNodes::Cluster::start_node();
my $alone = '127.0.0.1:' . $lone->port;
sql(qq{ALTER SERVER shop OPTIONS (SET host '$alone, $seeds', SET max_rate '100000')}, 'TRUNCATE item',
    q{SELECT redis_migrate.start('shop')}, q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(compare($node, 'item', KEYS), '', 'a seed without slots is passed over');
sql(qq{ALTER SERVER shop OPTIONS (SET host '$alone')});
like(sql_error($node, q{CALL redis_migrate.run('shop', workers => 1)}), qr/57P03: Redis at $alone knows no node that serves slots\nHINT:/, 'alone it is refused');
sql(q{SELECT redis_migrate.start('shop')});
wait_until('the worker to try again', sub { workers($node, 'state, sqlstate') eq 'retrying|57P03' });
sql(q{SELECT redis_migrate.stop('shop')}, qq{ALTER SERVER shop OPTIONS (SET host '$seeds')}, q{CALL redis_migrate.run('shop', workers => 1)});

# Either one of two replicas may have lost its master: the other one is read.
@masters = $cluster->masters;
$cluster->add_replica($masters[0]);
sql(q{ALTER SERVER shop OPTIONS (ADD read_from 'replica')});
for my $replica ($cluster->replicas($masters[0]))
{
    $replica->cli('CONFIG', 'SET', 'masteruser', 'nobody');
    $replica->cli('CONFIG', 'SET', 'masterauth', 'nothing');
    $masters[0]{node}->cli('CLIENT', 'KILL', 'TYPE', 'replica');
    wait_until('a replica without its master', sub { $replica->cli('INFO', 'replication') =~ /master_link_status:down/ });
    wait_until('the other one', sub { 1 == grep { $_->cli('INFO', 'replication') =~ /master_link_status:up/ } $cluster->replicas($masters[0]) });
    sql('TRUNCATE item');
    is(sql_error($node, q{CALL redis_migrate.run('shop', workers => 1)}), '', 'a replica without its master is passed over');
    is(compare($node, 'item', KEYS), '', 'every key is read from the other one');
    $replica->cli('CONFIG', 'SET', 'masteruser', '');
    $replica->cli('CONFIG', 'SET', 'masterauth', '');
    $cluster->wait_until_agreed;
}
sql(q{ALTER SERVER shop OPTIONS (DROP read_from)});

# A move stands open, and a replica of the slot's owner takes over, which knows nothing of it: of the keys that have gone
# before only the other node knows.
@masters = $cluster->masters;
($slot, $arrived) = tagged_keys($masters[2]);
$_->cli('CONFIG', 'SET', 'cluster-require-full-coverage', 'no') for $cluster->nodes;
$cluster->begin_move($slot, @masters[ 2, 0 ], half => 1);
my ($heir) = $cluster->replicas($masters[2]);
is($heir->cli('CLUSTER', 'FAILOVER'), 'OK', 'a replica is told to take over');
# The node that is taking the slot over never agrees about it.
my $owner = { node => $heir, id => $heir->cli('CLUSTER', 'MYID') };
wait_until('all to know', sub { !grep { $_->cli('CLUSTER', 'NODES') !~ /^$owner->{id} \S+ (?:myself,)?master /m } $cluster->nodes });
sql('TRUNCATE item');
like(sql_error($node, q{SET pg_redis_migrate.reconnect_timeout = '2s'; CALL redis_migrate.run('shop', workers => 1)}),
    qr/ERROR:  57P03: slots $slot of the cluster are (?:being moved|served by no node)/, 'a run does not pass for complete without the keys that are on their way');
# As redis-cli --cluster fix would: the importing node learns who the owner is now, and the move begins again.
$masters[0]{node}->cli('CLUSTER', 'SETSLOT', $slot, $_->@*) for [ 'STABLE' ], [ 'NODE', $owner->{id} ];
$cluster->begin_move($slot, $owner, $masters[0]);
$cluster->finish_move($slot, $owner, $masters[0]);
is(sql_error($node, q{CALL redis_migrate.run('shop', workers => 1)}), '', 'when the move is complete');
is($arrived->(), TAGGED, 'it reads them');
is(compare($node, 'item', KEYS), '', 'and all others');

done_testing();
