# Every wait for the network: cancel and terminate end it at once, and while it lasts the session holds nothing that
# others could need.

use strict;
use warnings;

use FindBin;
use IO::Socket::INET;
use List::Util qw(min);
use PrmTest;
use PrmTools;
use Socket;
use Test::More;

use constant KEYS => 20_000;

# A name server that takes queries and answers none.
my $name_server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp') or die "udp: $!";
$ENV{PRM_NAME_SERVER_PORT} = $name_server->sockport;
my $shim = "$FindBin::Bin/../modules/bridge/name_server.so";
die "make -C test/modules/bridge has to be run first\n" if !-e $shim;
my $node;
{
    local $ENV{LD_PRELOAD} = $shim;
    $node = new_node('waits', conf => "pg_redis_migrate.connect_timeout = '1h'\npg_redis_migrate.command_timeout = '1h'\npg_redis_migrate.batch_rows = 100");
}

# An address that never answers: its queue of connections is full.
my $full = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "listen: $!";
my @queued;
for (1 .. 4)
{
    my $socket = IO::Socket::INET->new(Proto => 'tcp', Blocking => 0);
    connect($socket, sockaddr_in($full->sockport, inet_aton('127.0.0.1')));
    push @queued, $socket;
}

my $redis = start_redis();
$redis->cli('EVAL', 'for i = 1, tonumber(ARGV[1]) do redis.call("SET", "k:" .. i, "value " .. i) end', 0, KEYS);
my $proxy = PrmTools::Proxy->new($redis->port);

sub migration
{
    my ($name, $host, $port) = @_;
    $node->safe_psql(
        'postgres', qq{
        CREATE SERVER $name FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$host', port '$port');
        CREATE TABLE $name (id bigint PRIMARY KEY, v text);
        SELECT redis_migrate.create_migration('$name', '$name');
        SELECT redis_migrate.add_mapping('$name', 'm', 'k:{id:int}', '$name', 'SELECT id, value AS v FROM redis_batch',
            key_columns => '{id}', databases => '{0}', exclusive => true);});
    return;
}
migration('deaf', '127.0.0.1', $full->sockport);
migration('nameless', 'redis.example', 6379);
migration('stopped', '127.0.0.1', $redis->port);
migration('paused', '127.0.0.1', $redis->port);
migration('slow', '127.0.0.1', $proxy->port);

# Waits until the session of $call has been waiting for the network for a while.
sub wait_for_wait
{
    my ($call) = @_;
    my $seen = 0;
    wait_until("$call->{name} waits", sub {
        die "the call has ended: " . join('', $call->output) if !$call->running;
        my $event = $node->safe_psql('postgres',
            "SELECT wait_event_type FROM pg_stat_activity WHERE application_name = '$call->{name}' AND query LIKE 'CALL%'");
        $seen = $event eq 'Extension' ? $seen + 1 : 0;
        return $seen == 5;
    });
    return;
}

sub holds_nothing
{
    my ($what, $call) = @_;
    my $held;
    my $sample = sub {
        $held = $node->safe_psql('postgres', qq{
        SELECT coalesce(a.backend_xid::text, 'no xid'), coalesce(a.backend_xmin::text, 'no xmin'),
               (SELECT count(*) FROM pg_locks AS l WHERE l.pid = a.pid AND l.locktype = 'relation'), a.wait_event_type
        FROM pg_stat_activity AS a WHERE application_name = '$call->{name}' AND query LIKE 'CALL%'});
        return $held =~ /Extension$/; };
    wait_until("$what: the wait", $sample);  # a slow reply ends it for microseconds, again and again
    is($held, 'no xid|no xmin|0|Extension', "$what: no transaction id, no snapshot, no relation lock; the wait is visible");
    return;
}

my $create = sub { $node->safe_psql('postgres', 'CREATE DATABASE other'); };
my $drop = sub { $node->safe_psql('postgres', 'DROP DATABASE other'); };
my $baseline = elapsed($create) + elapsed($drop);

# A call that waits: it holds nothing, lets others create and drop databases, and obeys.
sub check_wait
{
    my ($what, $migration, %hooks) = @_;
    my %codes = (pg_cancel_backend => '57014', pg_terminate_backend => '57P01');
    for my $function (sort keys %codes)
    {
        my ($err, $time);
        for my $try (1 .. 3)  # a defect would make each of them slow, a machine that stands still only one
        {
            ($hooks{before} // sub { })->();
            my $call = start_sql($node, "CALL redis_migrate.run('$migration');", name => $migration);
            ($hooks{during} // sub { })->();
            wait_for_wait($call);
            if ($try == 1)
            {
                holds_nothing($what, $call);
                if ($function eq 'pg_cancel_backend')
                {
                    my @times = map { elapsed($create) + elapsed($drop) } 1 .. 3;
                    cmp_ok(min(@times), '<', $baseline + 1, "$what: CREATE and DROP DATABASE are not held up");
                }
            }
            $time = elapsed(sub {
                $node->safe_psql('postgres',
                    "SELECT $function(pid) FROM pg_stat_activity WHERE application_name = '$migration' AND query LIKE 'CALL%'");
                (undef, $err) = $call->finish;
            });
            ($hooks{after} // sub { })->();
            last if $time < 1;
        }
        like($err, qr/$codes{$function}/, "$what: $function ends the call");
        cmp_ok($time, '<', 1, "$what: $function takes effect within a second");
    }
    return;
}

check_wait('an address that never answers', 'deaf');

check_wait('a name that never resolves', 'nameless');
$name_server->blocking(0);
ok(defined $name_server->recv(my $query, 512), 'the name server was asked');
like($query, qr/\x05redis\x07example\x00/, 'for the name');

check_wait('a server that does not answer from the start', 'stopped',
    before => sub { kill 'STOP', $redis->pid }, after => sub { kill 'CONT', $redis->pid });

my $stopped_at = 0;
check_wait(
    'a server that stops in the middle', 'paused',
    before => sub { $stopped_at = $node->safe_psql('postgres', 'SELECT count(*) FROM paused') },
    during => sub {
        wait_until('some batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM paused') > $stopped_at });
        kill 'STOP', $redis->pid;
    },
    after => sub { kill 'CONT', $redis->pid });
my $stored = $node->safe_psql('postgres', 'SELECT count(*) FROM paused');
cmp_ok($stored, '>', 0, "batches were committed before the server stopped: $stored rows");
cmp_ok($stored, '<', KEYS, 'and it stopped before the end');
is(last_run($node, 'paused', 'state, sqlstate'), 'interrupted|', 'a terminated run shows as interrupted');
$node->safe_psql('postgres', q{CALL redis_migrate.run('paused')});
is(last_run($node, 'paused', 'state, balanced, rejected, restarts'), 'completed|t|0|0', 'the run goes on when the server does');
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE migration = \'paused\''), 1, 'as the same run');
is($node->safe_psql('postgres', q{SELECT count(*), count(*) FILTER (WHERE v = 'value ' || id) FROM paused}), KEYS . '|' . KEYS, 'nothing is missing');

check_wait('a slow pipeline', 'slow', before => sub { $proxy->tell('rate 3000') }, after => sub { $proxy->tell('pass') });
$node->safe_psql('postgres', q{CALL redis_migrate.run('slow')});
is($node->safe_psql('postgres', q{SELECT count(*), count(*) FILTER (WHERE v = 'value ' || id) FROM slow}), KEYS . '|' . KEYS, 'the slow run is finished at full speed');

# statement_timeout is a cancel, too.
kill 'STOP', $redis->pid;
my $err;
my $time = min(map { elapsed(sub { $err = sql_error($node, "SET statement_timeout = '300ms';\nCALL redis_migrate.run('stopped');") }) } 1 .. 3);
kill 'CONT', $redis->pid;
like($err, qr/57014: canceling statement due to statement timeout/, 'statement_timeout ends a wait');
cmp_ok($time, '<', 1.5, 'in time');

# The message of a timeout names what was waited for.
$time = elapsed(sub { $err = sql_error($node, "SET pg_redis_migrate.connect_timeout = '300ms';\nCALL redis_migrate.run('deaf');\nCALL redis_migrate.run('nameless');") });
like($err, qr/08000: could not connect to Redis at 127\.0\.0\.1:\d+ within 300 ms/, 'connect_timeout names the address');
like($err, qr/08000: could not resolve host name "redis\.example" within 300 ms/, 'or the name');
cmp_ok($time, '<', 5, "and both are kept: $time s");

done_testing();
