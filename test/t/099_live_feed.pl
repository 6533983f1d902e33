# Live sync without PSYNC, source scan: the tables follow what CLIENT TRACKING or keyspace notifications tell, under load
# and through the end of each process, a cut of each connection, FLUSHALL, a spool that is full and a server that talks
# nonsense.

use strict;
use warnings;

use HostileRedis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

use constant KEYS => 150;

# Rights without PSYNC: what a scan needs, and what each feed needs.
my @scan = known_rights(qw(%R~* +select +scan +getrange +strlen +type +dump +pexpiretime +memory|usage +info +time +watch +multi +exec +ping));
my $redis = start_redis(args => [
    '--user', qw(tracking on >pw -@all), @scan, qw(resetchannels &__redis__:invalidate +subscribe +client|id +client|tracking),
    '--user', qw(notifications on >pw -@all), @scan, qw(resetchannels &__keyevent@*__:* +psubscribe +config|get),
    qw(--notify-keyspace-events AE --save 3600 1) ]);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('feed', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on\npg_redis_migrate.live_delete_limit = 60\npg_redis_migrate.max_spool_size = 64MB");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $proxy->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live OPTIONS (username $$tracking$$, password $$pw$$)');
create_live($node);
$redis->cli_lines(load_commands(3000, KEYS));
$redis->cli_lines("SELECT 3\nSET s:elsewhere x\n");

like(sql_error($node, q{SELECT redis_migrate.alter_migration('live', source => 'scan')}), qr/^$/, 'the source is scan');
sub start { my ($options) = @_; return $node->safe_psql('postgres', "SELECT redis_migrate.start('live', live => true" . ($options // '') . ')'); }
sub settled { my ($what) = @_; is(wait_for($node) . differences($node, $redis), '', $what) or diag live($node, '*'); return; }
sub runs { return $node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs'); }
sub goes_on
{
    my ($what, $killed) = @_;
    wait_until("$what: it answers", sub { answers($node, $killed) });
    # A crash of the server too many in a short time is no matter here.
    $node->safe_psql('postgres', 'UPDATE redis_migrate.background_run SET crashes = 0, failures = 0, not_before = NULL');
    is(wait_for($node), '', "$what: it gets in step");
    return;
}
sub follow_by
{
    my ($feed, $options) = @_;
    $node->safe_psql('postgres', "SELECT redis_migrate.stop('live'); ALTER USER MAPPING FOR PUBLIC SERVER live OPTIONS (SET username '$feed')");
    return start($options);
}

start();
settled('every key is there');
for my $command (
    'SET s:1 plain', 'SET s:1 timed EX 5000', 'APPEND s:1 x', 'PERSIST s:1', 'INCR s:c1', 'DEL s:1', 'MSET s:1 a s:2 b', 'RENAME s:1 s:3',
    'COPY s:3 s:4', 'MOVE s:4 1', 'HSET h:1 f 1 g 2', 'HDEL h:1 f', 'EXPIRE h:1 5000', 'HDEL h:1 g', 'RPUSH l:1 a b c', 'LTRIM l:1 1 1', 'LPOP l:1',
    'ZADD z:1 1 a 2 b', 'ZREM z:1 a', 'ZUNIONSTORE z:2 1 z:1', 'SADD t:1 a b', 'SPOP t:1', 'SPOP t:1', 'XADD x:1 * f v', 'DEL x:1',
    'EVAL "redis.call(\'SET\', KEYS[1], ARGV[1]); redis.call(\'INCR\', KEYS[2])" 2 s:1 s:c1 y')
{
    $redis->cli_lines("$command\n");
    settled($command);
}
$redis->cli('SET', 's:gone', 'x', 'PX', '1');
usleep(5_000);
is($redis->cli('GET', 's:gone'), '', 'a key expires');
settled('and so does its row');
wait_until('it settles', sub { live($node, 'state') eq 'settled' });
is(live($node, 'feed, doubt, keys_ahead, lag_bytes, sqlstate'), 'tracking||0|0|', 'the view says by what');
is(last_run($node, 'live', 'source, live, state, balanced'), 'scan|t|running|t', 'and the sums of the run agree');
is(runs(), '1', 'one scan was enough');

# Under load, with ends of processes: each time all keys are read again.
for my $feed ('tracking', 'notifications')
{
    follow_by($feed);
    my $load = start_load($redis, KEYS);
    goes_on($feed);
    is(live($node, 'feed'), $feed, 'by that feed');
    for my $kind ('migration', 'replication link')
    {
        for my $signal ('TERM', 'KILL')
        {
            my $pid = worker_pid($node, $kind);
            kill $signal, $pid;
            usleep(500_000);
            goes_on("$feed: SIG$signal to the $kind", $pid);
        }
    }
    my $before = runs();
    for my $type ('pubsub', 'normal')
    {
        $redis->cli(qw(CLIENT KILL TYPE), $type);
        wait_until("$feed: another scan", sub { runs() > $before });
        $before = runs();
        goes_on("$feed: CLIENT KILL TYPE $type");
    }
    $proxy->tell('drop') for 1 .. 2;
    goes_on("$feed: cut connections");
    $redis->restart;
    goes_on("$feed: after a restart of Redis with its data");
    $load->finish;
    settled("$feed: nothing is lost");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums of all runs agree');

# A database that is emptied, and one that changes places with another.
sub keeps_rows
{
    my ($feed) = @_;
    $redis->cli('DEL', 's:1');
    settled("$feed: a key is gone");
    # Keys that wait to be read go with all others before the link knows that.
    my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM strings');
    my $held = hold_worker($node, 'migration');
    $redis->cli('EVAL', q{for _, key in ipairs(redis.call('KEYS', 's:*')) do redis.call('APPEND', key, '0') end}, 0);
    usleep(300_000);
    my $link = hold_worker($node, 'replication link');
    $redis->cli('FLUSHALL');
    $held->release;
    usleep(700_000);
    is($node->safe_psql('postgres', 'SELECT count(*) FROM strings'), $rows, "$feed: rows wait until it is known why their keys are gone");
    $link->release;
    wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
    like(job($node, 'live', 'message'), qr/would lose \d+ of its \d+ rows/, "$feed: FLUSHALL pauses the run");
    is($node->safe_psql('postgres', 'SELECT count(*) FROM strings'), $rows, 'and no row is gone');
    return;
}
for my $feed ('tracking', 'notifications')
{
    $redis->cli_lines(load_commands(500, KEYS));
    follow_by($feed, ', force => true');
    settled("$feed follows");
    keeps_rows($feed);
    $redis->cli_lines("SET s:new x\nSELECT 1\nSET s:other y\n");
    start(', force => true');
    settled("$feed: with force it goes on");
    my $before = runs();
    $redis->cli_lines("SWAPDB 0 1\nSET s:new z\n");
    wait_until("$feed: SWAPDB is noticed", sub { runs() > $before });
    settled("$feed: after SWAPDB");
}
# The same where nothing but tracking tells of it.
my $hiding = HostileRedis->new($redis->port, sub { my (undef, @command) = @_; return "@command" eq 'INFO commandstats' ? "\$0\r\n\r\n" : undef; });
$redis->cli_lines(load_commands(500, KEYS));
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live'); ALTER SERVER live OPTIONS (SET port '} . $hiding->port . q{')});
follow_by('tracking', ', force => true');
settled('a server without commandstats is followed');
like(live($node, 'state, doubt'), qr/^converging\|.* SWAPDB, REPLICAOF or FAILOVER was called/, 'and in doubt');
keeps_rows('without commandstats');
# Or where nothing does but the number of keys.
$redis->cli_lines(load_commands(500, KEYS));
$redis->cli('EVAL', q{for i = 1, 2000 do redis.call('ZADD', 'z:many' .. i, i, 'm') end}, 0);
follow_by('notifications', ', force => true');
settled('by notifications, too');
like(live($node, 'state, doubt'), qr/^converging\|.* whether FLUSHALL, FLUSHDB, SWAPDB, REPLICAOF or FAILOVER was called/, 'and in doubt');
keeps_rows('without anything but the number of keys');
$node->safe_psql('postgres', q{ALTER SERVER live OPTIONS (SET port '} . $proxy->port . q{')});
follow_by('notifications', ', force => true');
settled('the server itself is followed again');

# More waits than the spool may take: a scan replaces it. The names are long, and Redis keeps all that a slow machine has yet
# to read.
$redis->cli('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 0 0 0');
my $lock = start_sql($node, 'BEGIN; LOCK TABLE strings IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(3600);', name => 'lock');
wait_until('the table is locked', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted}) ne '0' });
$redis->cli('SET', 's:locked', 'x');
wait_until('a batch waits for the lock', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE NOT granted}) ne '0' });
ok(wait_until('it converges', sub { live($node, 'state, doubt, lag_bytes > 0') eq 'converging||t' }), 'a feed that is settled converges again');
my $before = runs();
$redis->cli('EVAL', q{for i = 1, 10 do local key = 'other:' .. ARGV[1] .. i .. string.rep('x', 100000); redis.call('SET', key, '1'); redis.call('DEL', key) end}, 0, "$_ ") for 1 .. 80;
wait_until('the link gives up', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.live_link WHERE message LIKE '%max_spool_size%'}) ne '0' });
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'});
$lock->finish;
wait_until('there is another scan', sub { runs() > $before });
settled('and it has everything');

# The feed is set up badly, and then well.
$redis->cli(qw(CONFIG SET notify-keyspace-events Kx));
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});
start();
wait_until('it fails', sub { job($node, 'live', 'state') eq 'failed' });
like(job($node, 'live', 'sqlstate, message'), qr/^0A000\|.*lacks A\..*CONFIG SET notify-keyspace-events AKE/, 'the error says which command helps');
$redis->cli(qw(CONFIG SET notify-keyspace-events AE));
start();
settled('then it follows');
$redis->cli(qw(CONFIG SET notify-keyspace-events Kx));
wait_until('a setting that is taken away is noticed', sub { job($node, 'live', 'state') eq 'failed' });
$redis->cli(qw(CONFIG SET notify-keyspace-events AE));

# All databases, which tracking cannot tell apart.
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live'); CREATE TABLE everywhere (db int, id text, value text, PRIMARY KEY (db, id)); SELECT redis_migrate.create_migration('all', 'live', unmapped => 'reject')});
$node->safe_psql('postgres', q{SELECT redis_migrate.add_mapping('all', 'all', 'a:{id}', 'everywhere', 'SELECT db, id, value FROM redis_batch', '{db,id}'); ALTER USER MAPPING FOR PUBLIC SERVER live OPTIONS (SET username 'tracking'); SELECT redis_migrate.start('all', live => true)});
wait_until('it fails', sub { job($node, 'all', 'state') eq 'failed' });
like(job($node, 'all', 'sqlstate, message'), qr/^0A000\|.*the migration names none/, 'tracking does not do for all databases');
$redis->cli_lines("SELECT 5\nSET a:1 x\n");
$node->safe_psql('postgres', q{ALTER USER MAPPING FOR PUBLIC SERVER live OPTIONS (SET username 'notifications'); SELECT redis_migrate.start('all', live => true)});
$redis->cli_lines("SELECT 6\nSET a:1 y\nMOVE a:1 7\n");
is(sql_error($node, q{CALL redis_migrate.wait_for('all', '50 s')}) . $node->safe_psql('postgres', 'SELECT * FROM everywhere ORDER BY db'), "5|1|x\n7|1|y", 'notifications do');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('all')});

# Consumer groups, of which no feed tells everything.
$redis->cli_lines("XADD g:1 1-1 f v\nXGROUP CREATE g:1 workers 0\n");
$node->safe_psql('postgres', q{CREATE TABLE groups (id text, name text, last_id text, PRIMARY KEY (id, name));
    SELECT redis_migrate.add_mapping('live', 'groups', 'g:{id}', 'groups', 'SELECT id, group_name AS name, last_delivered_id AS last_id FROM redis_batch', '{id,name}', databases => '{0}', expand => 'groups', no_row => 'skip')});
for my $feed ('tracking', 'notifications')
{
    follow_by($feed);
    is(wait_for($node) . $node->safe_psql('postgres', 'TABLE groups'), '1|workers|0-0', "$feed: a group");
    wait_until('it says why it does not settle', sub { live($node, 'state, doubt') =~ /^converging\|mapping "groups" stores consumer groups/ });
    usleep(1_200_000);    # two questions have been answered
    is(live($node, 'state'), 'converging', 'and it does not');
}
$redis->cli('DEL', 'g:1');
is(wait_for($node), '', 'a stream that goes');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live'); SELECT redis_migrate.drop_mapping('live', 'groups')});
start();
settled('without them');
wait_until('it settles', sub { live($node, 'state, doubt') eq 'settled|' });
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});

# A server that sends nonsense after the subscription.
my $count = 0;
my @nonsense = (HostileRedis::wrong_answers(), "*3\r\n\$7\r\nmessage\r\n\$20\r\n__redis__:invalidate\r\n*2147483647\r\n", "*3\r\n\$7\r\nmessage\r\n\$20\r\n__redis__:invalidate\r\n*1\r\n:1\r\n");
my $hostile = HostileRedis->new($redis->port, sub {
    my ($number, @command) = @_;
    return "+OK\r\n" if uc $command[0] eq 'CLIENT' && uc $command[1] eq 'TRACKING';
    return "*3\r\n\$9\r\nsubscribe\r\n\$20\r\n__redis__:invalidate\r\n:1\r\n" . $nonsense[ $number % @nonsense ] if uc $command[0] eq 'SUBSCRIBE';
    return "*2\r\n\$4\r\npong\r\n\$0\r\n\r\n" if uc $command[0] eq 'PING';
    return;
});
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
$node->safe_psql('postgres', "ALTER SERVER live OPTIONS (SET port '" . $hostile->port . "'); ALTER USER MAPPING FOR PUBLIC SERVER live OPTIONS (SET username 'tracking')");
$before = runs();
start();
# A reply in place of the confirmation of SUBSCRIBE may fail the run for good.
wait_until('some scans', sub { my $state = job($node, 'live', 'state'); start() if $state eq 'failed'; usleep(100_000); return runs() > $before + 4; });
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'nothing crashed');
unlike($node->safe_psql('postgres', 'SELECT message FROM redis_migrate.runs'), qr/[^\n\x20-\x7e\xc2-\xf4\x80-\xbf]/, 'and messages are printable');
$node->safe_psql('postgres', "SELECT redis_migrate.stop('live'); ALTER SERVER live OPTIONS (SET port '" . $redis->port . "')");
start(', force => true');
settled('with the real server it follows again');

# Clusters and Sentinels by name.
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live'); ALTER SERVER live OPTIONS (ADD cluster 'on')});
start();
wait_until('it fails', sub { job($node, 'live', 'state') eq 'failed' });
like(job($node, 'live', 'sqlstate, message'), qr/^0A000\|.*neither clusters nor/, 'a cluster is refused');

done_testing();
