# Live sync through ends of processes, in each of its states, and at random moments of the snapshot and of the stream: after
# each, everything that is in Redis is in the tables, and nothing else. PRM_LIVE_KILLS says how many; 200 take half an hour. PRM_LIVE_SOURCE=scan
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
    conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on\nmax_worker_processes = 20\npg_redis_migrate.max_workers = 12\npg_redis_migrate.live_delete_limit = 100\npg_redis_migrate.batch_rows = 200\npg_redis_migrate.max_spool_size = '64MB'\nlog_statement = none");
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
    return try_sql($node, "SELECT pid FROM redis_migrate.workers WHERE kind = '$kind' AND pid IS NOT NULL LIMIT 1") // '';
}
sub kill_worker
{
    my ($signal, $kind) = @_;
    my $pid = '';
    wait_until("a $kind", sub { $pid = pid_now($kind) });
    kill $signal, $pid;
    return $pid;
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
# Returns the process that was killed, whose end the server has yet to notice.
sub end_now { my ($event) = @_; my $pid = $events{$event}->(); return $event =~ /^kill -9 of the (?:applier|link worker)$/ ? $pid : undef; }
for my $number (1 .. $kills)
{
    my $event = $names[ rand @names ];
    my $load = start_load($redis, KEYS, 0.01);
    usleep(rand 800_000);
    my $killed = end_now($event);
    # Sometimes a second one before the first is over.
    if (rand() < 0.3) { usleep(rand 500_000); my $second = $names[ rand @names ]; wait_until('it answers', sub { answers($node, $killed) }); $killed = end_now($second); $event .= ", then $second"; }
    usleep(rand 500_000);
    wait_until('it answers', sub { answers($node, $killed) });
    $load->finish;
    # A crash of the server too many in a short time is no matter here.
    $node->safe_psql('postgres', 'UPDATE redis_migrate.background_run SET crashes = 0, failures = 0, not_before = NULL');
    my $problem = wait_for($node) . differences($node, $redis);
    is($problem, '', "$number: $event");
    if ($problem ne '') { diag live($node, '*'); diag $node->safe_psql('postgres', 'SELECT * FROM redis_migrate.live_key LIMIT 5'); last if $ENV{PRM_LIVE_KILLS}; }
}

# Each state of src/worker/README.md that a live run by replication can be held in. It is brought about by `hold`, lasts
# until `release`, and `kill` ends a process meanwhile; `stays` is the state after that, until `release`.
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
my $lock;
sub hold_table
{
    $lock = start_sql($node, 'BEGIN; LOCK TABLE strings IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(3600);', name => 'lock');
    wait_until('the table is locked', sub { rows(q{SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted}) ne '0' });
    return;
}
sub wait_for_lock { wait_until('a batch waits for the lock', sub { rows(q{SELECT count(*) FROM pg_locks WHERE NOT granted}) ne '0' }); return; }
sub begin_anew { rows(q{SELECT redis_migrate.stop('live'); SELECT redis_migrate.alter_migration('live', journal => true); SELECT redis_migrate.start('live', live => true)}); return; }
sub lose_stream
{
    $redis->cli(qw(CONFIG SET repl-backlog-size 16384));
    $proxy->tell('hold');
    $proxy->tell('drop');
    $redis->cli_lines(join '', map { "SET s:f$_ " . 'x' x 1000 . "\n" } 1 .. 100);
    $proxy->tell('pass');
    return;
}
my $postmaster = sub { kill_postgres($node); return; };
my $megabytes = q{"redis.call('SET', KEYS[1], string.rep('x', 4 * 1024 * 1024)) redis.call('DEL', KEYS[1])" 1 other};
my $held;
my @states = (
    { state => 'stopped', hold => sub { rows(q{SELECT redis_migrate.stop('live')}) }, kill => $postmaster, stays => 'stopped', release => sub { start() } },
    { state => 'connecting', hold => sub { $proxy->tell('hold'); $proxy->tell('drop') }, kill => sub { kill_worker('KILL', 'replication link') }, release => sub { $proxy->tell('pass') } },
    # Of text that the server cannot compress it sends some seconds, and then nothing more.
    { state => 'snapshot',
      hold => sub { $redis->cli_lines(join '', map { "SET s:f$_ " . (join '', map { sprintf '%08x', rand 2**32 } 1 .. 125) . "\n" } 1 .. 500); $proxy->tell('rate 100000'); begin_anew() },
      keep => sub { $proxy->tell('hold') }, kill => sub { kill_worker('KILL', 'replication link') }, release => sub { $proxy->tell('pass') } },
    { state => 'loading', hold => sub { hold_table(); begin_anew(); wait_for_lock() }, kill => sub { kill_worker('KILL', 'migration') } },
    { state => 'streaming', hold => sub { hold_table(); $redis->cli(qw(INCR s:c1)); wait_for_lock() }, kill => sub { kill_worker('KILL', 'migration') } },
    { state => 'in step', kill => sub { $redis->restart('KILL') } },
    { state => 'spool full', hold => sub { hold_table(); $redis->cli(qw(INCR s:c1)); wait_for_lock(); $redis->cli_lines("EVAL $megabytes\n" x 18) }, kill => sub { kill_worker('KILL', 'replication link') } },
    { state => 'full sync needed', hold => sub { $held = hold_worker($node, 'migration'); lose_stream() }, kill => sub { kill_worker('KILL', 'migration') }, release => sub { delete $held->{pid}; $redis->cli(qw(CONFIG SET repl-backlog-size 1mb)) } },
    { state => 'retrying', hold => sub { $redis->cli(qw(ACL SETUSER default -multi)); $redis->cli(qw(LPUSH l:1 x)) }, kill => sub { kill_worker('KILL', 'migration') }, stays => 'retrying', release => sub { $redis->cli(qw(ACL SETUSER default +multi)) } },
    { state => 'paused', hold => sub { rows(q{UPDATE redis_migrate.background_run SET instance = repeat('0', 32)}); kill_worker('TERM', 'migration') }, kill => $postmaster, stays => 'paused', release => sub { rows(q{SELECT redis_migrate.confirm_instance('live')}) } },
    { state => 'failed',
      hold => sub { rows(q{LOAD 'pg_redis_migrate'; ALTER SYSTEM SET pg_redis_migrate.live_delete_limit = 10}); $node->reload; $redis->cli('FLUSHALL') }, kill => $postmaster, stays => 'failed',
      release => sub { rows(q{LOAD 'pg_redis_migrate'; ALTER SYSTEM RESET pg_redis_migrate.live_delete_limit; SELECT redis_migrate.start('live', live => true, force => true)}) } });
if ($source eq 'replication')
{
    rows(q{SELECT redis_migrate.stop('live'); SELECT redis_migrate.start('live', live => true, workers => 1)});
    for my $case (@states)
    {
        my ($state, $stays) = @$case{qw(state stays)};
        is(wait_for($node), '', "before state $state");
        $case->{hold}->() if $case->{hold};
        ok(wait_until("state $state", sub { live($node, 'state') eq $state }), "state $state");
        $case->{keep}->() if $case->{keep};
        $redis->cli_lines(load_commands(100, KEYS));
        my $says = "$state|" . ($state =~ /^(?:stopped|retrying|paused|failed)$/ ? $state : 'running');
        wait_until('a pause between two tries', sub { live($node, 'state') . '|' . job($node, 'live', 'state') eq $says }) if $state eq 'retrying';
        is(live($node, 'state') . '|' . job($node, 'live', 'state'), $says, 'it lasts, and what the background run says') if $state !~ /^(?:in step|retrying)$/;
        my $killed = $case->{kill}->();
        wait_until('it answers', sub { answers($node, $killed) });
        rows('UPDATE redis_migrate.background_run SET crashes = 0, failures = 0, not_before = NULL');
        ok(wait_until("state $stays", sub { live($node, 'state') eq $stays }), 'lasts through that, too') if $stays;
        $redis->cli_lines(load_commands(100, KEYS));
        $case->{release}->() if $case->{release};
        is(wait_for($node) . differences($node, $redis), '', "what ended in state $state loses nothing");
        undef $lock;
    }
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums of all runs agree');

done_testing();
