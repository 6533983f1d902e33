# Live sync through ends of processes at random moments of the snapshot and of the stream: after each, everything that is
# in Redis is in the tables, and nothing else. PRM_LIVE_KILLS says how many; 200 take half an hour. PRM_LIVE_SOURCE=scan
# follows CLIENT TRACKING instead of the replication stream. One to three processes apply, PRM_LIVE_APPLIERS if it is set.

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

use constant KEYS => 300;

my $kills = $ENV{PRM_LIVE_KILLS} // 5;
my $seed = $ENV{PRM_LIVE_SEED} // time;
srand $seed;
diag("PRM_LIVE_SEED=$seed") if $ENV{PRM_LIVE_KILLS};

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '1mb', '--save', '1 1' ]);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('kills', preload => 1,
    conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on\nmax_worker_processes = 20\npg_redis_migrate.max_workers = 12\npg_redis_migrate.live_delete_limit = 100\npg_redis_migrate.batch_rows = 200\nlog_statement = none");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $proxy->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
create_live($node);
my $source = $ENV{PRM_LIVE_SOURCE} // 'replication';
$node->safe_psql('postgres', "SELECT redis_migrate.alter_migration('live', source => '$source')");
$redis->cli_lines(load_commands(5000, KEYS));
sub start { my $n = $ENV{PRM_LIVE_APPLIERS} // 1 + int rand 3; $node->safe_psql('postgres', "SELECT redis_migrate.start('live', live => true, workers => $n)"); return; }
start();

sub pid_now
{
    my ($kind) = @_;
    my ($status, $out) = $node->psql('postgres', "SELECT pid FROM redis_migrate.workers WHERE kind = '$kind' AND pid IS NOT NULL LIMIT 1");
    return $status == 0 ? $out : '';
}
sub kill_worker
{
    my ($signal, $kind) = @_;
    my $pid = '';
    wait_until("a $kind", sub { $pid = pid_now($kind) });
    kill $signal, $pid;
    return;
}
my %events = (
    'kill -9 of the applier' => sub { kill_worker('KILL', 'migration') },
    'SIGTERM to another applier' => sub { my $pid = pid_now('live applier'); kill 'TERM', $pid if $pid ne ''; },
    'kill -9 of the link worker' => sub { kill_worker('KILL', 'replication link') },
    'SIGTERM to the applier' => sub { kill_worker('TERM', 'migration') },
    'SIGTERM to the link worker' => sub { kill_worker('TERM', 'replication link') },
    'an immediate shutdown' => sub { $node->stop('immediate'); $node->start },
    'kill -9 of the postmaster' => sub { kill_postgres($node) },
    'a fast shutdown' => sub { $node->stop('fast'); $node->start },
    'a cut link' => sub { $proxy->tell('drop') },
    'a restart of Redis' => sub { $redis->restart },
    'kill -9 of Redis' => sub { $redis->restart('KILL') },
    'a stop and a start' => sub { $node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')}); start() },
    # The server forgets the stream meanwhile.
    'a full sync' => sub { $redis->cli('CONFIG', 'SET', 'repl-backlog-size', '16384'); $proxy->tell('hold'); $proxy->tell('drop'); usleep(500_000); $proxy->tell('pass'); usleep(500_000); $redis->cli('CONFIG', 'SET', 'repl-backlog-size', '1mb'); },
);
delete $events{'a full sync'} if $source eq 'scan';
my @names = sort keys %events;
for my $number (1 .. $kills)
{
    my $event = $names[ rand @names ];
    my $load = start_load($redis, KEYS, 0.01);
    usleep(rand 800_000);
    $events{$event}->();
    # Sometimes a second one before the first is over.
    if (rand() < 0.3) { usleep(rand 500_000); my $second = $names[ rand @names ]; wait_until('it answers', sub { answers($node) }); $events{$second}->(); $event .= ", then $second"; }
    usleep(rand 500_000);
    wait_until('it answers', sub { answers($node) });
    $load->finish;
    # A crash of the server too many in a short time is no matter here.
    $node->safe_psql('postgres', 'UPDATE redis_migrate.background_run SET crashes = 0, failures = 0, not_before = NULL');
    my $problem = wait_for($node) . differences($node, $redis);
    is($problem, '', "$number: $event");
    if ($problem ne '') { diag live($node, '*'); diag $node->safe_psql('postgres', 'SELECT * FROM redis_migrate.live_key LIMIT 5'); last if $ENV{PRM_LIVE_KILLS}; }
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums of all runs agree');

done_testing();
