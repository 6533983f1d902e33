# Live sync of a cluster: a master that is away does not keep the others waiting, neither while the run follows nor when it
# starts; a replica that joins while the run follows may become the master; masters whose clocks are apart.

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
use Time::HiRes qw(time usleep);

use constant HOUR_MS => 3600 * 1000;

# Nothing is as late as these clocks are apart.
my $cluster = start_cluster(masters => 3, replicas => 0, clocks => [ 0, HOUR_MS, -HOUR_MS() ]);
$_->cli('CONFIG', 'SET', 'cluster-require-full-coverage', 'no') for $cluster->nodes;
my $node = new_node('masters', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nmax_worker_processes = 20\npg_redis_migrate.max_workers = 12\nlog_statement = none");
my $seeds = join ', ', map { '127.0.0.1:' . $_->port } $cluster->nodes;
$node->safe_psql('postgres', qq{CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on'); CREATE USER MAPPING FOR PUBLIC SERVER live});
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
rows(q{
    CREATE TABLE kept (id text PRIMARY KEY, n int, expires_at timestamptz);
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication');
    SELECT redis_migrate.add_mapping('live', 'kept', 'k:{id}', 'kept', 'SELECT id, value::int AS n, expires_at FROM redis_batch', '{id}', on_expire => 'keep')});
my @masters = $cluster->masters;
# Keys of a master, as so many ids.
sub ids_of
{
    my ($number, $count, $prefix) = @_;
    my @ids;
    for (my $i = 0; @ids < $count; $i++) { push @ids, "$prefix$i" if $masters[$number]{slots}{ RedisNodes::Cluster::slot("k:$prefix$i") }; }
    return @ids;
}
sub send_to { my ($number, @lines) = @_; my $replies = $masters[$number]{node}->cli_lines(join '', map { "$_\n" } @lines); die $replies if $replies =~ /^(ERR|MOVED|CLUSTERDOWN)/m; return; }
sub has { my (@ids) = @_; return rows('SELECT count(*) FROM kept WHERE id IN (' . (join ', ', map { "'$_'" } @ids) . ')'); }

# Clocks: of each master a key that expires, and one that is deleted before it would, by its own clock.
my @ids = map { [ ids_of($_, 3, 'c') ] } 0 .. 2;
my @clocks = map { ($_->{node}->cli('TIME'))[0] =~ /^(\d+)/ ? $1 : 0 } @masters;
is(join(' ', map { int(($_ - time) / 3600 + ($_ < time ? -0.5 : 0.5)) } sort { $a <=> $b } @clocks), '-1 0 1', 'the clocks are apart');
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'it follows');
for my $number (0 .. 2)
{
    my ($expires, $deleted, $stays) = @{ $ids[$number] };
    send_to($number, "SET k:$expires 1", "SET k:$deleted 1 PX 600000", "SET k:$stays 1");
}
is(wait_for($node), '', 'keys');
is(has(map { @$_ } @ids), '9', 'of three masters');
for my $number (0 .. 2) { send_to($number, "PEXPIRE k:$ids[$number][0] 500"); }
usleep(600_000);
for my $number (0 .. 2) { send_to($number, "EXISTS k:$ids[$number][0]", "DEL k:$ids[$number][1]"); }
is(wait_for($node), '', 'some expire, and some are deleted');
is(has(map { $_->[0] } @ids), '3', 'rows whose keys have expired by the clock of their master are kept');
is(has(map { $_->[1] } @ids), '0', 'those of deleted keys are not');
is(rows(q{SELECT expired || ' ' || unclear FROM redis_migrate.mapping_counts WHERE mapping = 'kept'}), '3 0', 'and it is known which is which');

# A master ends, and later comes back. Its changes wait, those of others do not.
$masters[0]{node}->cli('CONFIG', 'SET', 'save', '3600 1');
# A PING in the stream after SAVE would be missing after the restart.
$masters[0]{node}->cli('CONFIG', 'SET', 'repl-ping-replica-period', '3600');
my ($away, @others) = map { [ ids_of($_, 60, 'w') ] } 0 .. 2;
my $applier = hold_worker($node, 'migration');
send_to(0, map { ("SET k:$_ 1", "INCRBY k:$_ 4") } @$away);
$masters[0]{node}->cli('SAVE');
usleep(1_200_000);
$masters[0]{node}->kill9;
$applier->release;
sub others_go_on
{
    my ($name) = @_;
    my $longest = 0;
    for my $round (0 .. 9)
    {
        my @now = map { shift @$_ } @others;
        send_to($_ + 1, "SET k:$now[$_] 1", "INCRBY k:$now[$_] 4") for 0 .. 1;
        my $since = time;
        wait_until('the others', sub { has(@now) eq '2' });
        $longest = time - $since if time - $since > $longest;
        usleep(100_000);
    }
    cmp_ok($longest, '<', 4, "$name: the others go on");
    return;
}
others_go_on('a master has ended');
is(rows(q{SELECT count(*) FROM redis_migrate.live_sync WHERE state = 'connecting'}), '1', 'the view shows which one waits');
rows(q{SELECT redis_migrate.stop('live')});
rows(q{SELECT redis_migrate.start('live', live => true)});
others_go_on('it starts without that master');
$masters[0]{node}->start;
$masters[0]{node}->cli('CONFIG', 'SET', 'cluster-require-full-coverage', 'no');
wait_until('the cluster', sub { $masters[0]{node}->cli('CLUSTER', 'INFO') =~ /cluster_state:ok/ });
is(wait_for($node), '', 'the master is back');
is(rows("SELECT count(*), sum(n) FROM kept WHERE id LIKE 'w%'"), '100|500', 'everything is there');

# One that does not answer.
kill 'STOP', $masters[1]{node}->pid;
@others = map { [ ids_of($_, 60, 'h') ] } 0, 2;
sub one_goes_on { my ($id, $number) = @_; send_to($number, "SET k:$id 1", "INCRBY k:$id 4"); my $since = time; wait_until($id, sub { has($id) eq '1' }); return time - $since; }
my $longest = 0;
for (1 .. 10) { for my $other (0, 1) { my $took = one_goes_on(shift @{ $others[$other] }, $other * 2); $longest = $took if $took > $longest; } }
cmp_ok($longest, '<', 5, 'a master that hangs: the others go on');
kill 'CONT', $masters[1]{node}->pid;
wait_until('the cluster', sub { $masters[1]{node}->cli('CLUSTER', 'INFO') =~ /cluster_state:ok/ && $masters[1]{node}->cli('CLUSTER', 'NODES') !~ /fail/ });
is(wait_for($node), '', 'it answers again');
is(rows('SELECT count(*) FROM redis_migrate.runs'), '1', 'all that without another snapshot');

# A replica that joins a master becomes the master.
my $replica = $cluster->add_replica($masters[2]);
my $id = $replica->cli('CLUSTER', 'MYID');
wait_until('the link knows the replica', sub { rows("SELECT count(*) FROM redis_migrate.live_link WHERE '$id' = ANY (nodes)") eq '1' });
$masters[2]{node}->kill9;
wait_until('the fail-over', sub { (eval { $replica->cli('INFO', 'replication') } // '') =~ /role:master/ });
$cluster->wait_until_agreed;
my ($new) = ids_of(2, 1, 'r');
$replica->cli('SET', "k:$new", '7');
is(wait_for($node), '', 'a replica that joined has become the master');
is(rows("SELECT n FROM kept WHERE id = '$new'"), '7', 'and is followed');
is(rows('SELECT count(*) FROM redis_migrate.runs'), '1', 'without another snapshot');

done_testing();
