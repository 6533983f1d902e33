# Of values that Redis has been asked for and that have not come, all processes of a run or a verification together have no
# more under way than pg_redis_migrate.bytes_in_flight.

use strict;
use warnings;

use HostileRedis;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;
use Time::HiRes qw(usleep);

use constant BYTES => 64 * 1024;
use constant PROBE => 1024;  # what a GETRANGE asks for

my $node = new_node('flight', conf => "pg_redis_migrate.bytes_in_flight = '64kB'\nmax_worker_processes = 20");
my $asked = PostgreSQL::Test::Utils::tempdir() . '/asked';
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# A server that notes the values that it is asked for, and answers nothing from then on.
sub silent
{
    my ($redis) = @_;
    my $is_silent = 0;
    return HostileRedis->new($redis->port, sub {
        my (undef, @command) = @_;
        my $is_value = uc $command[0] eq 'GETRANGE' && $command[1] ne '';
        append_to_file($asked, "$$\n") if $is_value;
        $is_silent ||= $is_value;
        return $is_silent ? HostileRedis::SILENCE : undef;
    });
}

# How many values each connection waits for, when no more are asked for.
sub waits
{
    my ($call, $all) = @_;
    unlink $asked;
    my $running = start_sql($node, $call, name => 'call');
    my $count = sub { -e $asked ? scalar(() = slurp_file($asked) =~ /\n/g) : 0 };
    wait_until("$all values", sub { $count->() >= $all });
    for (my $before = 0; $before != $count->();)
    {
        $before = $count->();
        usleep(2_000_000);
    }
    my %of;
    ++$of{$_} for split /\n/, slurp_file($asked);
    sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
    like(($running->finish)[1], qr/57014: canceling statement/, "$call: cancelled");
    wait_until('the end of the workers', sub { sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE '%part'}) == 0 });
    return join ' ', sort { $a <=> $b } values %of;
}

sub define
{
    my ($name) = @_;
    sql(qq{
        SELECT redis_migrate.drop_migration('$name') FROM redis_migrate.migrations WHERE migration = '$name';
        SELECT redis_migrate.create_migration('$name', '$name', databases => '{0}');
        SELECT redis_migrate.add_mapping('$name', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}')});
    return;
}

sql('CREATE TABLE item (id bigint PRIMARY KEY, v text)');
my $redis = start_redis();
$redis->cli('EVAL', q{for i = 1, 4000 do redis.call('SET', 'k:' .. i, 'value ' .. i) end}, 0);
my $silent = silent($redis);
sql(qq{CREATE SERVER single FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '} . $silent->port . q{');
    CREATE USER MAPPING FOR PUBLIC SERVER single});
for my $workers (1, 2, 4)
{
    for my $what (qw(run verify))
    {
        define('single');
        is(waits("CALL redis_migrate.$what('single', workers => $workers)", BYTES / PROBE), join(' ', (BYTES / PROBE / $workers) x $workers),
            "$what, $workers processes");
    }
}

# Masters of a cluster, each behind such a server, which they name as theirs.
my $cluster = start_cluster(masters => 3, replicas => 0);
$cluster->set(map { ("k:$_" => "value $_") } 1 .. 3000);
my @masters = $cluster->masters;
my @silent = map { silent($_->{node}) } @masters;
$masters[$_]{node}->cli('CONFIG', 'SET', 'cluster-announce-port', $silent[$_]->port) for 0 .. 2;
for my $master (@masters)
{
    wait_until('the ports', sub { my $nodes = $master->{node}->cli('CLUSTER', 'NODES'); !grep { index($nodes, ':' . $_->port . '@') < 0 } @silent });
}
my $seeds = join ', ', map { '127.0.0.1:' . $_->port } @silent;
sql(qq{CREATE SERVER several FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on')});
my $each = int(BYTES / 3 / PROBE);
for my $what (qw(run verify))
{
    define('several');
    is(waits("CALL redis_migrate.$what('several', workers => 3)", 3 * $each), join(' ', ($each) x 3), "$what, three processes, each from a master");
}

done_testing();
