# Live sync: the tables follow a load of every kind of command through the end of each process, a cut of the link, a
# restart of either server and a full sync; they lose nothing, and no row goes unasked when Redis is emptied.

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

use constant KEYS => 150;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb' ]);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('live', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on\npg_redis_migrate.live_delete_limit = 60");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $proxy->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
# A live run without any mapping.
$redis->cli(qw(SET s:0 archived));
$node->safe_psql('postgres', q{SELECT redis_migrate.create_migration('archived', 'live', source => 'replication'); SELECT redis_migrate.start('archived', live => true)});
is(wait_for($node, 'archived'), '', 'a database in which no mapping was ever defined');
$redis->cli(qw(DEL s:0));
is(wait_for($node, 'archived') . $node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.archive}), '0', 'its archive is kept in step');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('archived'); SELECT redis_migrate.drop_migration('archived')});
create_live($node);
$redis->cli_lines(load_commands(3000, KEYS));
$redis->cli_lines("SELECT 3\nSET s:elsewhere x\n");

# The snapshot, and then each kind of command by itself.
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'wait_for returns when the snapshot is loaded');
is(differences($node, $redis), '', 'every key is there');
for my $command (
    'SET s:1 plain', 'SET s:1 timed EX 5000', 'SET s:1 kept KEEPTTL', 'APPEND s:1 x', 'PERSIST s:1', 'INCR s:c1', 'DEL s:1', 'MSET s:1 a s:2 b',
    'RENAME s:1 s:3', 'COPY s:3 s:4', 'MOVE s:4 1', 'HSET h:1 f 1 g 2', 'HDEL h:1 f', 'EXPIRE h:1 5000', 'HDEL h:1 g', 'RPUSH l:1 a b c',
    'LPOP l:1', 'LINSERT l:1 BEFORE b z', 'LTRIM l:1 1 1', 'LPOP l:1', 'ZADD z:1 1 a 2 b', 'ZREM z:1 a', 'ZUNIONSTORE z:2 1 z:1', 'SADD t:1 a b',
    'SPOP t:1', 'SPOP t:1', 'XADD x:1 * f v', 'DEL x:1', 'EVAL "redis.call(\'SET\', KEYS[1], ARGV[1]); redis.call(\'INCR\', KEYS[2])" 2 s:1 s:c1 y')
{
    $redis->cli_lines("$command\n");
    is(wait_for($node) . differences($node, $redis), '', $command);
}
# Keys without a mapping have in the archive all that they hold, and when they expire. The comparison sees if they do not.
for my $command (
    'XADD x:1 1-1 f v g w', 'XADD x:1 2-1 f v', 'XADD x:1 2-2 other v', 'XGROUP CREATE x:1 g 0', 'XREADGROUP GROUP g c COUNT 2 STREAMS x:1 >', 'XACK x:1 g 1-1',
    'XREADGROUP GROUP g d COUNT 1 STREAMS x:1 >', 'XCLAIM x:1 g d 0 2-1', 'XDEL x:1 2-2', 'XSETID x:1 9-9', 'XGROUP DELCONSUMER x:1 g c', 'XGROUP CREATECONSUMER x:1 g e', 'EXPIRE x:1 5000',
    'SET o:s "a\x00 b" PX 5000000', 'SETBIT o:s 100 1', 'HSET o:h f v "\xff" w', 'RPUSH o:l a b', 'ZADD o:z 1.5 a inf b', 'SADD o:t a b', 'PFADD o:p a b')
{
    $redis->cli_lines("$command\n");
    is(wait_for($node) . differences($node, $redis), '', $command);
}
# What a transaction has changed is read at one moment, whatever was changed just before it.
$redis->cli('EVAL', q{for _, key in ipairs(KEYS) do redis.call('SADD', key, string.rep(key, 150000)) end; redis.call('SADD', KEYS[1], 'a')}, 2, 'o:m2', 'o:m3');
$redis->cli_lines("HSET o:m1 f v\nHSET o:m4 f v\n");
is(wait_for($node) . differences($node, $redis), '', 'two large sets');
my $applier = hold_worker($node, 'migration');
$redis->cli_lines("SMOVE o:m2 o:m3 a\nMULTI\nHSET o:m1 f w\nHSET o:m4 f w\nEXEC\n");
my ($offset) = $redis->cli('INFO', 'replication') =~ /master_repl_offset:(\d+)/;
wait_until('the link has it', sub { live($node, 'received_offset') >= $offset });
my $monitored = PostgreSQL::Test::Utils::tempdir() . '/monitored';
my $monitor = IPC::Run::start([ 'redis-cli', '-p', $redis->port, 'MONITOR' ], '<', \undef, '>', $monitored);
wait_until('the monitor', sub { -s $monitored });
$applier->release;
is(wait_for($node) . differences($node, $redis), '', 'a transaction behind a command with two keys');
$monitor->kill_kill;
my ($between) = slurp_file($monitored) =~ /"DUMP" "o:m1"(.*?)"DUMP" "o:m4"/s;
ok(defined $between && $between !~ /"(?:MULTI|EXEC)"/, 'is read by one EXEC') or diag $between // 'not read';
$redis->cli('DEL', map { "o:m$_" } 1 .. 4);

for my $case (
    [ 'another expiry', q{SET expires_at = expires_at + interval '2 ms' WHERE key_bytes = 'o:s'}, qr/^missing: o:s is a string .*\ntoo much: o:s is a string/ ],
    [ 'another value', q{SET payload = (SELECT o.payload FROM redis_migrate.archived_key AS o WHERE o.key_bytes = 'o:t') WHERE key_bytes = 'o:h'}, qr/^missing: o:h is a hash .*\ntoo much: o:h is a set/ ],
    [ 'a group that is not there', q{SET payload = (SELECT o.payload FROM redis_migrate.archived_key AS o WHERE o.key_bytes = 'x:2') WHERE key_bytes = 'x:1'}, qr/^missing: x:1 is a stream .*\(name g .*\ntoo much: x:1 is a stream .*groups \(\)/ ])
{
    my ($what, $change, $difference) = @$case;
    $redis->cli_lines("DEL x:2\nXADD x:2 1-1 f v\n");
    wait_for($node);
    $node->safe_psql('postgres', "UPDATE redis_migrate.archived_key $change");
    like(differences($node, $redis), $difference, "$what in the archive is seen");
    $redis->cli_lines("PERSIST o:s\nHSET o:h f v\nHDEL o:h x\nXADD x:1 * f v\n");
    is(wait_for($node) . differences($node, $redis), '', 'and stands until the key changes');
}
$redis->cli(qw(DEL x:1 x:2 o:s o:h o:l o:z o:t o:p));
SKIP:
{
    skip 'functions came with Redis 7.0', 2 if redis_version() < 7;
    $redis->cli('FUNCTION', 'LOAD', "#!lua name=live\nredis.register_function('live_set', function(keys, args) redis.call('SET', keys[1], args[1]); return redis.call('INCR', keys[2]) end)");
    is(wait_for($node) . differences($node, $redis), '', 'FUNCTION LOAD');
    $redis->cli(qw(FCALL live_set 2 s:1 s:c1 by_function));
    is(wait_for($node) . differences($node, $redis), '', 'FCALL');
}
# What is known of a string, and many changes of one key.
$redis->cli(qw(SET s:known 1));
is(wait_for($node), '', 'a value that the stream has shown');
my $reads = live($node, 'keys_read_again');
$redis->cli_lines("INCR s:known\nAPPEND s:known 0\nSET s:known 7 KEEPTTL\nPEXPIREAT s:known 4102444800000\nPERSIST s:known\n");
is(wait_for($node) . differences($node, $redis), '', 'changes of it');
$node->safe_psql('postgres', q{CREATE TABLE hot_updates (n int);
    CREATE FUNCTION count_hot() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO hot_updates VALUES (1); RETURN NULL; END';
    CREATE TRIGGER hot AFTER UPDATE ON strings FOR EACH ROW WHEN (new.id = 'known') EXECUTE FUNCTION count_hot()});
$redis->cli_lines("INCR s:known\n" x 2000);
is(wait_for($node) . differences($node, $redis), '', 'a hot key');
is(live($node, 'keys_read_again'), $reads, 'none of them needs it to be read');
my $updates = $node->safe_psql('postgres', 'SELECT count(*) FROM hot_updates');
ok($updates > 0 && $updates < 1000, 'its changes are stored together') or diag "$updates updates";
$node->safe_psql('postgres', 'DROP TRIGGER hot ON strings');
# Of newer servers.
for my $line (
    'SET s:n1 a', '8.4/8.1 SET s:n1 b IFEQ a', '8.4/8.1 SET s:n1 c IFEQ b EX 5000', '8.4/- SET s:n1 d IFNE c', '8.4/- SET s:n1 e IFNE a KEEPTTL', '8.4/9.1 MSETEX 2 s:n1 a s:n2 b', '8.4/9.1 MSETEX 2 s:n1 c s:n2 d PX 5000000',
    '8.4/9.1 MSETEX 2 s:n1 e s:n2 f KEEPTTL', '8.4/9.1 MSETEX 1 s:n3 g NX', '8.8/- INCREX s:cn', '8.8/- INCREX s:cn EX 5000', '8.2/- BITOP ONE s:n4 s:n1 s:n2', '8.4/- DELEX s:n1 IFEQ e', '8.4/- DELEX s:n2', '-/9.0 DELIFEQ s:n3 g', '8.0/9.0 HSETEX h:n PX 5000000 FIELDS 2 f v g w',
    '8.0/9.0 HGETEX h:n PX 9000000 FIELDS 1 f', '7.4/9.0 HPERSIST h:n FIELDS 1 f', 'HINCRBYFLOAT h:n n 1.5', '7.4/9.0 HPEXPIRE h:n 5000000 FIELDS 1 n', 'HINCRBY h:n i 1', '8.0/9.1 HGETDEL h:n FIELDS 1 f', '7.4/9.0 HPEXPIREAT h:n 1 FIELDS 1 g',
    '8.0/9.1 HGETDEL h:n FIELDS 2 n i', '8.6/- XADD x:n IDMP p i * f v', '8.6/- XADD x:n IDMP p i * f v', '8.6/- XADD x:n IDMPAUTO p * f w', 'XADD x:n 9999999999999-1 f v', '8.2/- XDELEX x:n IDS 1 9999999999999-1',
    '8.6/- XCFGSET x:n IDMP-MAXSIZE 10', '8.0/- VADD v:n VALUES 2 1 0.5 m', '8.0/- VSETATTR v:n m \'{"a":1}\'', '8.0/- VREM v:n m', '8.8/- ARSET a:n 3 x', '8.8/- ARINSERT a:n y', '8.8/- ARDEL a:n 3', '8.10/- LMOVEM l:n l:m LEFT RIGHT COUNT 1')
{
    my ($command, $is_there) = send_newer($redis, $line);
    SKIP:
    {
        skip "$command: other servers have it", 1 if !$is_there;
        is(wait_for($node) . differences($node, $redis), '', $command);
    }
}
$redis->cli('SET', 's:gone', 'x', 'PX', '1');
usleep(5_000);
is($redis->cli('GET', 's:gone'), '', 'a key expires');
is(wait_for($node) . differences($node, $redis), '', 'and so does its row');
ok(wait_until('the link says so', sub { live($node, 'state, keys_ahead, lag_bytes, lag_seconds = 0, sqlstate') eq 'in step|0|0|t|' }), 'the view says that it is in step');
# Who waits for replicas waits until the changes are durable here.
is($redis->cli_lines("SET s:1 x\nWAIT 1 10000\n"), "OK\n1\n", 'WAIT returns');
my $held = hold_worker($node, 'replication link');
is($redis->cli_lines("SET s:1 y\nWAIT 1 300\n"), "OK\n0\n", 'but not while the link has not received them');
$held->release;
# What whoever waits is told.
my ($id, $waited);
$held = hold_worker($node, 'migration');
$redis->cli_lines("SET s:1 z\n");
wait_until('the link has noted it', sub { live($node, 'lag_bytes > 0') eq 't' });
like(sql_error($node, q{SET client_min_messages = notice; SET pg_redis_migrate.progress_interval = '1s'; CALL redis_migrate.wait_for('live', '3 s')}),
    qr/NOTICE:  00000: run \d+: streaming, [1-9]\d* bytes behind, [\d.]+ s behind, \d+ keys ahead of their offset\n(?s:.*)ERROR:  57014/, 'wait_for tells how far behind a live run is');
$held->release;
$node->psql('postgres', q{CALL redis_migrate.wait_for('live', '50 s'); SELECT redis_migrate.last_run_id()}, stdout => \$id, stderr => \$waited);
is($id, last_run($node, 'live', 'run_id'), 'and which run it waited for');
like($waited, qr/NOTICE:  run $id of migration "live" is in step at offset \d+: \d+ read = \d+ vanished \+ .* skipped.*\n.*NOTICE:  rows of run $id\nDETAIL: /, 'and its summary');
# Rows that somebody else has changed or deleted since: a change of their keys is written over them, and the server's log says so.
my $log = -s $node->logfile;
$redis->cli_lines("SET s:own1 a\nSET s:own2 a\nSET s:own3 a\n");
is(wait_for($node), '', 'three rows');
$node->safe_psql('postgres', q{UPDATE strings SET value = 'mine' WHERE id = 'own1'; DELETE FROM strings WHERE id = 'own2'});
$redis->cli_lines("MULTI\nSET s:own1 b\nSET s:own2 b\nSET s:own3 b\nEXEC\n");
is(wait_for($node) . differences($node, $redis), '', 'are those of Redis again');
my $changed_here = q{SELECT changed_here, deleted_here FROM redis_migrate.mapping_counts WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs WHERE live) AND mapping = 'strings'};
ok(wait_until('the count', sub { $node->safe_psql('postgres', $changed_here) eq '1|1' }), 'those of them that were changed here are counted');
ok(wait_until('the warning', sub { PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~
    /WARNING:  run \d+ has written over 1 rows of mapping "strings" that were changed here, and put back 1 that were deleted here/ }), 'and told');
# Monitoring and autovacuum, which looks at the statistics.
is(wait_for($node) . $node->safe_psql('postgres', q{CREATE ROLE watcher IN ROLE pg_monitor; CREATE ROLE nobody; SET ROLE watcher;
    SELECT count(*) FROM redis_migrate.stat_live AS s, redis_migrate.workers AS a, redis_migrate.workers AS l
    WHERE s.migration = 'live' AND a.kind = 'migration' AND a.pid = s.pid AND l.kind = 'replication link' AND l.pid = s.link_pid
      AND s.latest_ack_offset > 0 AND s.latest_ack_time > now() - interval '1 minute' AND s.backlog_bytes = 16 * 1024 * 1024 AND s.rejects = 0}), '1', 'pg_monitor sees it');
is($node->safe_psql('postgres', 'SET ROLE nobody; SELECT count(*) FROM redis_migrate.stat_live'), '0', 'others do not');
SKIP:
{
    skip 'the server takes no statistics within a procedure', 1 if $node->safe_psql('postgres', 'SHOW debug_assertions') eq 'on';
    ok(wait_until('the statistics', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_user_tables WHERE relname IN ('strings', 'live_position') AND n_tup_ins + n_tup_upd > 10}) eq '2' }), 'what the run does is counted while it follows');
}
is(last_run($node, 'live', 'live, state, balanced'), 't|running|t', 'and the sums of the run agree');
like(sql_error($node, q{CALL redis_migrate.run('live')}), qr/55006/, 'nobody else may run it');

# Under load, each process ends, in order and otherwise.
sub goes_on
{
    my ($what, $killed) = @_;
    wait_until("$what: it answers", sub { answers($node, $killed) });
    is(wait_for($node), '', "$what: it gets in step");
}
my $load = start_load($redis, KEYS);
for my $kind ('migration', 'replication link')
{
    $node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . worker_pid($node, $kind) . ')');
    usleep(300_000);
    goes_on("the end of the $kind");
}
for my $kind ('migration', 'replication link')
{
    my $pid = worker_pid($node, $kind);
    kill 'KILL', $pid;
    usleep(500_000);
    goes_on("kill -9 of the $kind", $pid);
}
$node->stop('immediate');
$node->start;
goes_on('an immediate shutdown');
$proxy->tell('drop') for 1 .. 3;
goes_on('a link that was cut');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live'); SELECT redis_migrate.start('live', live => true)});
goes_on('stop and start');
$load->finish;
is(wait_for($node) . differences($node, $redis), '', 'nothing was lost');
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs'), '1', 'by partial resyncs alone');

# What an earlier process has noted, or one that is held up, says nothing of the server: as long as a row lacks what waits there, the
# view does not say that it is in step.
my $round = 0;
sub watch_state
{
    my ($what) = @_;
    my $seen = $node->safe_psql('postgres', qq{SET client_min_messages = notice; DO \$\$
        DECLARE seen record; states text[] := '{}'; ends timestamptz := clock_timestamp() + interval '50 s';
        BEGIN
            LOOP
                SELECT (SELECT state FROM redis_migrate.live_sync WHERE migration = 'live'), (SELECT value = '$round' FROM strings WHERE id = 'waits') AS is_there INTO seen;
                EXIT WHEN seen.is_there OR clock_timestamp() > ends;
                IF seen.state <> ALL (states) THEN states := states || seen.state; END IF;
                PERFORM pg_sleep(0.001);
            END LOOP;
            PERFORM set_config('test.states', coalesce(seen.is_there, false) || ' ' || array_to_string(states, ', '), false);
        END \$\$; SELECT current_setting('test.states')});
    like($seen, qr/^true (?!.*in step)/, $what) or diag $seen;
    return;
}
sub set_waiting { $redis->cli('SET', 's:waits', ++$round); return; }
set_waiting();
is(wait_for($node), '', 'a value');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});
set_waiting();
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
watch_state('started again it is not in step at once');
$node->stop('immediate');
set_waiting();
$node->start;
watch_state('nor after a crash');
$proxy->tell('hold');
$proxy->tell('drop');
wait_until('the link is cut', sub { live($node, 'state') eq 'connecting' });
set_waiting();
$proxy->tell('pass');
watch_state('nor after a cut of the link');
$proxy->tell('hold');
$proxy->tell('drop');
wait_until('the link is cut', sub { live($node, 'state') eq 'connecting' });
$redis->cli_lines(join '', map { "SET s:slow $_" . 'x' x 20_000 . "\n" } 1 .. 60);
set_waiting();
$proxy->tell('rate 200000');
watch_state('nor while what it missed arrives over a slow line');
$proxy->tell('pass');
is(wait_for($node) . differences($node, $redis), '', 'then it is');
$held = hold_worker($node, 'replication link');
set_waiting();
ok(wait_until('it is not in step', sub { live($node, 'state') eq 'streaming' }), 'a link that is held up');
$held->release;

# A restart of Redis with its data.
$load = start_load($redis, KEYS);
usleep(500_000);
$redis->cli('CONFIG', 'SET', 'save', '3600 1');
$redis->restart;
usleep(500_000);
goes_on('a restart of Redis');
$load->finish;
is(wait_for($node) . differences($node, $redis), '', 'a restart of Redis with its data loses nothing');
my $lost = redis_version() < 7 ? 1 : 0;    # a master that was restarted does not know its history
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs'), 1 + $lost, 'and needs no full sync');

# While the link is cut, the server writes more than its backlog holds.
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '16384');
$proxy->tell('hold');
$proxy->tell('drop');
$redis->cli_lines(load_commands(3000, KEYS) . "DEL s:1 h:1 z:1\n" . "SET s:late x\n" . join '', map { "SET s:f$_ " . 'x' x 1000 . "\n" } 1 .. 100);
$proxy->tell('pass');
is(wait_for($node) . differences($node, $redis), '', 'a full sync, when the server does not have the stream any more');
is($node->safe_psql('postgres', 'SELECT state, message IS NOT NULL FROM redis_migrate.runs ORDER BY run_id'), "superseded|t\n" x (1 + $lost) . 'running|f', 'is another run');

# An emptied Redis does not empty the tables unasked.
my ($alerts) = slurp_file('../docs/live-sync.md') =~ /^(SELECT v\.migration, a\.alert.*?;)$/ms;
like($node->safe_psql('postgres', $alerts), qr/^live\|a backlog below 64 MB/, 'a small backlog is a reason to wake somebody');
for my $flush ('FLUSHDB', 'SWAPDB 0 5', 'FLUSHALL')
{
    my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM strings');
    $redis->cli(split / /, $flush);
    wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
    like(job($node, 'live', 'message'), qr/would lose \d+ of its \d+ rows/, "$flush pauses the run");
    is($node->safe_psql('postgres', 'SELECT count(*) FROM strings'), $before, 'and no row is gone');
    is(live($node, 'state'), 'failed', 'the view says so');
    like($node->safe_psql('postgres', $alerts), qr/^live\|failed: .*would lose/, 'so does the query for alerts');
    like(wait_for($node), qr/55000.*would lose.*\nHINT:  .*SELECT redis_migrate\.start\('live', live => true, force => true\)/, 'wait_for says so, and what to do');
    $redis->cli('SET', 's:new', 'x');
    $node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true, force => true)});
    is(wait_for($node) . differences($node, $redis), '', 'with force it goes on');
    is(job($node, 'live', 'force'), 'f', 'once');
    $redis->cli_lines(load_commands(500, KEYS));
    is(wait_for($node) . differences($node, $redis), '', 'and follows');
}

# A cache may lose all its rows at once, if its mapping says so; what Redis has lost in another way it keeps.
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live'); CREATE TABLE cached (id text PRIMARY KEY, value text);
    SELECT redis_migrate.add_mapping('live', 'cached', 'cache:{id}', 'cached', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}', on_flush => 'delete');
    SELECT redis_migrate.alter_mapping('live', 'strings', on_flush => 'delete')});
$redis->cli('FLUSHALL');
$redis->cli('SET', 's:new', 'x');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true, force => true)});
is(wait_for($node) . differences($node, $redis), '', 'nothing but a string');
my $cached = sub { return $node->safe_psql('postgres', 'SELECT count(*) FROM cached'); };
sub fill_cache { $redis->cli_lines(join '', "FLUSHALL\n", map { "SET cache:$_ x\nSET s:$_ x\n" } 1 .. 20); }
for my $flush ('FLUSHALL', 'FLUSHDB', 'SWAPDB 0 4')
{
    fill_cache();
    is(wait_for($node) . $cached->(), '20', 'a cache');
    $redis->cli_lines("$flush\n");
    is(wait_for($node) . $cached->() . differences($node, $redis), '0', "$flush empties it");
}
fill_cache();
is(wait_for($node) . $cached->(), '20', 'a cache');
my $runs = $node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs');
$redis->cli('CONFIG', 'SET', 'save', '');
unlink "$redis->{directory}/dump.rdb";
$redis->restart;
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
like(job($node, 'live', 'message'), qr/would lose 20 of its 20 rows/, 'a restart without the data pauses the run');
is($cached->(), '20', 'which keeps them');
$redis->cli('SET', 's:new', 'x');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true, force => true)});
is(wait_for($node) . $cached->() . differences($node, $redis), '0', 'with force it goes on');

# Options that a live run does not take.
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});
like(sql_error($node, q{SELECT redis_migrate.start('live', live => true, priority => 'high')}), qr/0A000.*a live run does not take priority/, 'no priority');
$node->safe_psql('postgres', q{SELECT redis_migrate.create_migration('other', file => '/dump.rdb', source => 'rdb')});
like(sql_error($node, q{SELECT redis_migrate.start('other', live => true)}), qr/22023.*a live run needs source 'replication' or 'scan'/, 'no other source');
like(sql_error($node, q{CALL redis_migrate.follow('live')}), qr/55000.*is for background workers/, 'not in a session');

done_testing();
