# Live sync of a cluster: a link to each master; keys keep their rows, and lose them, when slots move between masters while
# the application writes; fail-overs; a master that joins.

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use RedisNodes;
use Test::More;
use Time::HiRes qw(usleep);

use constant KEYS => 80;

my $cluster = start_cluster(masters => 3, replicas => 1);
my $node = new_node('cluster', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nmax_worker_processes = 20\npg_redis_migrate.max_workers = 12\npg_redis_migrate.live_delete_limit = 60\nlog_statement = none");
my $seeds = join ', ', map { '127.0.0.1:' . $_->port } $cluster->nodes;
$node->safe_psql('postgres', qq{CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on'); CREATE USER MAPPING FOR PUBLIC SERVER live});
create_live($node);

# Sends commands to the cluster, one a line, following its redirects.
sub send_lines
{
    my ($lines) = @_;
    my ($any) = grep { $_->pid } $cluster->nodes;
    my $out = '';
    IPC::Run::run([ 'redis-cli', '-c', '-p', $any->port ], '<', \$lines, '>', \$out, '2>&1');
    return;
}
sub start_cluster_load
{
    my $pid = fork() // die "fork: $!\n";
    if ($pid == 0)
    {
        my $ended = 0;
        $SIG{TERM} = sub { $ended = 1 };
        srand $$;
        while (!$ended) { eval { send_lines(load_commands(100, KEYS)) }; }
        POSIX::_exit(0);
    }
    return bless { pid => $pid }, 'PrmLive::Load';
}
sub missing { return wait_for($node) . differences($node, map { $_->{node} } $cluster->masters); }
sub runs { return $node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs'); }
sub owner_of { my ($key) = @_; my ($master) = grep { $_->{slots}{ RedisNodes::Cluster::slot($key) } } $cluster->masters; return $master; }
sub other_than { my ($master) = @_; my ($other) = grep { $_->{id} ne $master->{id} } $cluster->masters; return $other; }

send_lines(load_commands(1500, KEYS));
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(missing(), '', 'the snapshots of all masters');
is($node->safe_psql('postgres', q{SELECT string_agg(link::text, ' ' ORDER BY link) FROM redis_migrate.live_sync}), '1 2 3', 'a link to each master');
send_lines(load_commands(500, KEYS));
is(missing(), '', 'and what they send');

# Slots move, with keys that are written before, meanwhile and afterwards; the applier sees all of that at once.
my ($kept, $deleted, $written, $back) = ('s:{kept}', 's:{deleted}', 's:{written}', 's:{back}');
send_lines(join '', map { "SET $_ 1\n" } $kept, $deleted, $written, $back);
is(missing(), '', 'keys that are about to move');
my $home = owner_of($back);
my $applier = hold_worker($node, 'migration');
send_lines("DEL $deleted\nSET $written 2\nINCR $written\nINCR $back\n");
for my $key ($kept, $deleted, $written, $back)
{
    my $from = owner_of($key);
    $cluster->move(RedisNodes::Cluster::slot($key), $from, other_than($from));
}
send_lines("INCR $written\nSET $back 5\n");
$cluster->move(RedisNodes::Cluster::slot($back), owner_of($back), $home);
send_lines("INCR $back\n");
usleep(1_500_000);
$applier->release;
is(missing(), '', 'keys that moved');
is($node->safe_psql('postgres', q(SELECT string_agg(id || '=' || value, ' ' ORDER BY id) FROM strings WHERE id LIKE '{%')), '{back}=6 {kept}=1 {written}=4', 'have what the application last wrote');

# The same under load.
my $load = start_cluster_load();
for my $kind (qw(s h l z t))
{
    for my $number (1 .. 6)
    {
        my $key = "$kind:$number";
        my $of = owner_of($key);
        my $to = other_than($of);
        $cluster->begin_move(RedisNodes::Cluster::slot($key), $of, $to, half => 1);
        usleep(100_000) if $number == 3;
        $cluster->finish_move(RedisNodes::Cluster::slot($key), $of, $to);
    }
}
$load->finish;
is(missing(), '', 'slots that move under load');
is(runs(), '1', 'without another snapshot');

# Slots that a newer server moves at once, with a stream of its own from master to master.
sub move_at_once
{
    my ($slot, $from, $to) = @_;
    my $reply = $to->{node}->cli_lines("CLUSTER MIGRATION IMPORT $slot $slot\n");
    $reply = $from->{node}->cli_lines("CLUSTER MIGRATESLOTS SLOTSRANGE $slot $slot NODE $to->{id}\n") if $reply =~ /^ERR/;
    die $reply if $reply =~ /^ERR (?!unknown)/;
    return 0 if $reply =~ /^ERR/;
    wait_until('the slot has moved', sub { grep { $_->{id} eq $to->{id} && $_->{slots}{$slot} } $cluster->masters });
    return 1;
}
SKIP:
{
    my $key = 's:{once}';
    send_lines("SET $key 1\nINCR $key\n");
    skip 'the server does not move slots at once', 2 if !move_at_once(RedisNodes::Cluster::slot($key), owner_of($key), other_than(owner_of($key)));
    send_lines("INCR $key\n");
    $load = start_cluster_load();
    for my $number (1 .. 4) { for my $kind (qw(s h l)) { my $of = owner_of("$kind:$number"); move_at_once(RedisNodes::Cluster::slot("$kind:$number"), $of, other_than($of)); } }
    $load->finish;
    $cluster->wait_until_agreed;
    is(missing(), '', 'slots that move at once, under load');
    is(runs(), '1', 'without another snapshot');
}
SKIP:
{
    my $key = 's:{flushed}';
    send_lines("SET $key 1\nSET s:{kept} 2\n");
    is(missing(), '', 'a key');
    my $reply = owner_of($key)->{node}->cli_lines('CLUSTER FLUSHSLOT ' . RedisNodes::Cluster::slot($key) . "\n");
    skip 'the server does not empty slots', 1 if $reply =~ /^ERR unknown/;
    is(missing(), '', 'a slot that is emptied');
}

# A fail-over that loses nothing, and one that may.
my $runs = runs();
my ($first) = $cluster->masters;
my ($replica) = $cluster->replicas($first);
$replica->cli('CLUSTER', 'FAILOVER');
wait_until('the fail-over', sub { $replica->cli('INFO', 'replication') =~ /role:master/ });
$cluster->wait_until_agreed;
send_lines(load_commands(500, KEYS));
is(missing(), '', 'a fail-over');
is(runs(), $runs, 'by a partial resync');
$load = start_cluster_load();
my ($victim) = grep { $_->{node}->port != $replica->port } $cluster->masters;
my ($heir) = $cluster->replicas($victim);
$victim->{node}->kill9;
wait_until('the fail-over', sub { (eval { $heir->cli('INFO', 'replication') } // '') =~ /role:master/ });
$load->finish;
$cluster->wait_until_agreed;
is(missing(), '', 'a master that ends, under load');

# A master joins.
my $joins = RedisNodes::Cluster::start_node();
$joins->cli('CLUSTER', 'MEET', '127.0.0.1', $replica->port, $replica->{bus});
push @{ $cluster->{nodes} }, $joins;
my $id = $joins->cli('CLUSTER', 'MYID');
wait_until('the node is known', sub { !grep { $_->pid && $_->cli('CLUSTER', 'NODES') !~ /^$id .* connected/m } $cluster->nodes });
$cluster->wait_until_agreed;
my $before = runs();
for my $key ('s:1', 's:2', 'h:1', 's:50')
{
    my $of = owner_of($key);
    next if $of->{id} eq $id;
    $cluster->move(RedisNodes::Cluster::slot($key), $of, { node => $joins, id => $id });
}
$cluster->wait_until_agreed;
send_lines("SET s:1 new\nSET s:2 new\nHSET h:1 a new\n");
is(missing(), '', 'a master that joins');
cmp_ok(runs() - $before, '>=', 1, 'is followed after another snapshot');
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.live_sync}), '4', 'by a link of its own');
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums agree');

done_testing();
