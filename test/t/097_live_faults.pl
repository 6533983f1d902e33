# Live sync against what happens to servers: buffers that overrun, keys that are prolonged just before they expire, a
# flush in the middle of the snapshot, a database that is slow or ends; what readers see meanwhile. A table is locked for
# PRM_LIVE_LOCK_SECONDS, 3 if it is not set.

use strict;
use warnings;

use HostileRedis;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(time usleep);

use constant KEYS => 100;

my $redis = start_redis(args => [ '--repl-diskless-sync', 'yes', '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '1mb' ]);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('faults', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $proxy->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
create_live($node);
sub value { my ($id) = @_; return $node->safe_psql('postgres', "SELECT value FROM strings WHERE id = '$id'"); }
sub runs { return $node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs'); }

# FLUSHALL in the middle of the snapshot.
sub fill_strings { $redis->cli_lines(join '', map { "SET s:f$_ " . (join '', map { sprintf '%08x', rand 2**32 } 1 .. 25) . "\n" } 1 .. 5000); return; }
fill_strings();
$proxy->tell('rate 150000');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
wait_until('the snapshot', sub { live($node, 'state') eq 'snapshot' && $redis->cli('INFO', 'persistence') =~ /rdb_bgsave_in_progress:0/ });
$redis->cli_lines("FLUSHALL\nSET s:new x\n" . load_commands(200, KEYS));
is(live($node, 'state'), 'snapshot', 'the server is flushed while its snapshot is sent');
$proxy->tell('pass');
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
like(job($node, 'live', 'sqlstate, message'), qr/^55000\|.*would lose 5000 of its \d+ rows/, 'what the snapshot had does not go unasked');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true, force => true)});
is(wait_for($node) . differences($node, $redis), '', 'with force the tables are as the server');

# The same while the server is still writing it: then it gives that up, and the link asks for another.
fill_strings();
is(wait_for($node), '', 'there are rows');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '16384');
fill_strings();
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '1mb');
$redis->cli('CONFIG', 'SET', 'rdb-key-save-delay', '1000');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
wait_until('the snapshot', sub { live($node, 'state') eq 'snapshot' && $redis->cli('INFO', 'persistence') =~ /rdb_bgsave_in_progress:1/ });
$redis->cli_lines("FLUSHALL\nSET s:new y\n" . load_commands(200, KEYS));
$redis->cli('CONFIG', 'SET', 'rdb-key-save-delay', '0');
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
like(job($node, 'live', 'sqlstate, message'), qr/^55000\|.*would lose \d+ of its \d+ rows/, 'a flush while the snapshot is written');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true, force => true)});
is(wait_for($node) . differences($node, $redis), '', 'with force the tables are as the server again');

# Keys that are prolonged just before they expire, as the database receives it late.
for my $round (1 .. 3)
{
    my $held = hold_worker($node, $round == 2 ? 'replication link' : 'migration');
    $redis->cli_lines(join '', map { "SET s:e$_ x PX 150\nHSET h:e$_ f $round\nPEXPIRE h:e$_ 150\n" } 1 .. 200);
    usleep(100_000 + 10_000 * $round);
    $redis->cli_lines(join '', map { "PEXPIRE s:e$_ 3600000\nPERSIST h:e$_\n" } 1 .. 200);
    usleep(300_000);
    $held->release;
    is(wait_for($node) . differences($node, $redis), '', "keys that are prolonged late, or too late, $round");
}
$redis->cli_lines(join '', map { "SET s:e$_ x PX 60000\nPEXPIRE s:e$_ 1\nHSET h:e$_ f x\nPEXPIRE h:e$_ 1\n" } 1 .. 200);
usleep(50_000);
is($redis->cli('EXISTS', map { ("s:e$_", "h:e$_") } 1 .. 200), '0', 'keys that expire');
is(wait_for($node) . differences($node, $redis), '', 'take their rows with them');

# Transactions are whole for whoever looks: where every command carries the whole state, at any moment; elsewhere when
# the application pauses.
sub write_pairs
{
    my ($until) = @_;
    my $n = $redis->cli('GET', 's:p') || 0;
    while (time < $until) { $redis->cli_lines(join '', map { ++$n; "MULTI\nSET s:p $n\nSET s:q $n\n" . ($n % 2 ? "RENAME s:left s:right\n" : "RENAME s:right s:left\n") . "EXEC\n" } 1 .. 50); }
    return;
}
sub start_pairs
{
    my $pid = fork() // die "fork: $!\n";
    if ($pid == 0) { eval { write_pairs(time + 60) }; POSIX::_exit(0); }
    return bless { pid => $pid }, 'PrmLive::Load';
}
$redis->cli_lines("SET s:p 0\nSET s:q 0\nSET s:left token\n");
wait_for($node);
my $pairs = start_pairs();
my ($broken, $looks, %seen) = ('', 0);
for (my $end = time + 3; time < $end; ++$looks)
{
    my $pair = $node->safe_psql('postgres', q{SELECT string_agg(value, ' ' ORDER BY id) FROM strings WHERE id IN ('p', 'q')});
    $broken = $pair if $pair !~ /^(\d+) \1$/;
    $seen{$pair} = 1;
}
cmp_ok(scalar(keys %seen), '>', 5, 'it changes while somebody looks') or diag "$looks looks";
is($broken, '', 'and two keys of a transaction always agree');
$pairs->finish;
for my $round (1 .. 4)
{
    $pairs = start_pairs();
    usleep(300_000);
    $pairs->finish;
    my ($error, $there) = (wait_for($node), $redis->cli('EXISTS', 's:left') ? 'left' : 'right');
    is($error . $node->safe_psql('postgres', q{SELECT string_agg(id, ' ') FROM strings WHERE id IN ('left', 'right')}), $there, "a value that moves is in one place, $round");
}

# After a crash the tables show a moment of the server's history, without the server.
for my $round (1 .. 2)
{
    $pairs = start_pairs();
    usleep(700_000);
    # The link has nothing to go on with when the server is back.
    my $cut = sub { $proxy->tell('hold'); $proxy->tell('drop'); return; };
    if ($round == 1) { $node->stop('immediate'); $cut->(); $node->start; }
    else { kill_postgres($node, $cut); }
    wait_until('it answers', sub { answers($node) });
    like($node->safe_psql('postgres', q{SELECT string_agg(value, ' ' ORDER BY id) FROM strings WHERE id IN ('p', 'q')}), qr/^(\d+) \1$/, ($round == 1 ? 'after an immediate shutdown' : 'after kill -9 of the postmaster') . ' two keys of a transaction agree');
    $pairs->finish;
    $proxy->tell('pass');
    is(wait_for($node) . differences($node, $redis), '', 'and the rest comes');
}

# Of the few rows of some mappings, more than a tenth may go between two snapshots of a server under load.
$node->safe_psql('postgres', q{LOAD 'pg_redis_migrate'; ALTER SYSTEM SET pg_redis_migrate.live_delete_limit = 100});
$node->reload;

# The link does not read, and the server's buffer for it overruns. Its backlog holds less than that.
my $before = runs();
$redis->cli('CONFIG', 'SET', 'client-output-buffer-limit', 'replica 2mb 2mb 1');
my $held = hold_worker($node, 'replication link');
my $megabyte = q{"redis.call('SET', KEYS[1], string.rep('x', 1024 * 1024)) redis.call('DEL', KEYS[1])" 1 other};
$redis->cli_lines("EVAL $megabyte\n" x 20 . load_commands(200, KEYS));
# What the kernel holds for the sockets grows with its settings.
wait_until('the server gives the link up', sub { $redis->cli_lines("EVAL $megabyte\n" x 5); slurp_file($redis->log_file) =~ /scheduled to be closed ASAP for overcoming of output buffer limits/ });
$held->release;
is(wait_for($node) . differences($node, $redis), '', 'an output buffer that overruns');
is(runs() - $before, 1, 'costs another snapshot');
$redis->cli('CONFIG', 'SET', 'client-output-buffer-limit', 'replica 256mb 64mb 60');

# A lock that the batches wait for: the link goes on.
my $locked_seconds = $ENV{PRM_LIVE_LOCK_SECONDS} // 3;
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '16mb');
$before = runs();
my $reconnects = live($node, 'reconnects');
my $lock = start_sql($node, 'BEGIN; LOCK TABLE strings IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(3600);', name => 'lock');
wait_until('the table is locked', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted}) ne '0' });
my $load = start_load($redis, KEYS);
sleep $locked_seconds - 3;
wait_until('it lags', sub { live($node, "coalesce(lag_seconds, 0) > $locked_seconds") eq 't' });
is(live($node, 'state'), 'streaming', 'the state while a table is locked');
$load->finish;
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'});
$lock->finish;
is(wait_for($node) . differences($node, $redis), '', "a table that was locked for $locked_seconds seconds");
is(runs() - $before . live($node, 'reconnects'), "0$reconnects", 'costs nothing');

# Live sync names the command that the server refuses and tries it again, until it is permitted.
$redis->cli('ACL', 'SETUSER', 'migrator', 'on', '>pw', '~*', '&*', '+@all');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});
$node->safe_psql('postgres', q{ALTER USER MAPPING FOR PUBLIC SERVER live OPTIONS (ADD username 'migrator', ADD password 'pw'); SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'it follows as another user');
for my $command ('multi', 'exec')
{
    $redis->cli('ACL', 'SETUSER', 'migrator', "-$command");
    $redis->cli_lines("LPUSH l:refused x\n" . load_commands(100, KEYS));
    wait_until("without the right to $command the run waits for it", sub { live($node, 'state, sqlstate, last_error') =~ /^(retrying|connecting)\|42501\|.* refused command "$command": NOPERM$/i });
    like(sql_error($node, q{CALL redis_migrate.wait_for('live', '0 s')}), qr/42501/, 'and whoever waits for the run learns it');
    my $applied = live($node, 'applied_offset');
    $redis->cli_lines(load_commands(100, KEYS));
    is(live($node, 'applied_offset'), $applied, 'its position stays');
    $redis->cli('ACL', 'SETUSER', 'migrator', "+$command");
    is(wait_for($node) . differences($node, $redis), '', 'with it the run goes on by itself');
}

# A server that is busy, or has no memory left, is read all the same.
my $failures = job($node, 'live', 'failures');
$redis->cli('CONFIG', 'SET', 'lua-time-limit', '50');
$held = hold_worker($node, 'migration');
$redis->cli_lines("RPUSH l:busy a b c\n" . load_commands(100, KEYS));
my $script = fork() // die "fork: $!\n";
if ($script == 0) { eval { $redis->cli('EVAL', 'while true do end', 0) }; POSIX::_exit(0); }
wait_until('the server is busy', sub { !eval { $redis->cli('PING') } && $@ =~ /BUSY/ });
$held->release;
usleep(700_000);
$redis->cli('SCRIPT', 'KILL');
waitpid $script, 0;
is(wait_for($node) . differences($node, $redis) . job($node, 'live', 'state, failures'), "running|$failures", 'a script that runs for long delays the run');
$redis->cli('CONFIG', 'SET', 'maxmemory', '1');
ok(!eval { $redis->cli('SET', 's:more', 'x') } && $@ =~ /OOM/, 'the server has no memory left');
$redis->cli('LPOP', 'l:busy');
is(wait_for($node) . differences($node, $redis), '', 'and is read');
$redis->cli('CONFIG', 'SET', 'maxmemory', '0');

# No worker can start for a while, after the run has been tried several times for other reasons: as on a full disk, nobody can
# connect to the database.
my $version_file = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT 'base/' || oid || '/PG_VERSION' FROM pg_database WHERE datname = current_database()});
$node->safe_psql('postgres', q{UPDATE redis_migrate.background_run SET failures = 3});
kill 'TERM', worker_pid($node, 'migration');
wait_until('the worker has ended', sub { job($node, 'live', 'state') eq 'retrying' });
chmod 0, $version_file;
$redis->cli_lines(load_commands(100, KEYS));
wait_until('a worker cannot start', sub { slurp_file($node->logfile) =~ /FATAL:.*PG_VERSION.*\n(?:.*\n)*?.*WARNING:  background run of migration "live": no worker could start in \d+ tries/ });
chmod 0600, $version_file;
is(wait_for($node) . differences($node, $redis), '', 'a run whose worker could not start goes on by itself');

# It cannot write the snapshot that is needed.
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live'); ALTER USER MAPPING FOR PUBLIC SERVER live OPTIONS (DROP username, DROP password)});
$redis->cli('CONFIG', 'SET', 'repl-diskless-sync', 'no');
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '16384');
$redis->cli_lines(load_commands(200, KEYS) . join '', map { "SET s:f$_ " . 'x' x 1000 . "\n" } 1 .. 100);
chmod 0500, $redis->{directory};
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
wait_until('the server refuses', sub { live($node, 'state, sqlstate, last_error') =~ /^(connecting|snapshot)\|(38000|08006)\|/ });
chmod 0700, $redis->{directory};
is(wait_for($node) . differences($node, $redis), '', 'once the server can write a snapshot the run goes on by itself');
unlink "$redis->{directory}/dump.rdb";

$node->safe_psql('postgres', q{LOAD 'pg_redis_migrate'; ALTER SYSTEM RESET pg_redis_migrate.live_delete_limit});
$node->reload;

# A server that comes back without its data does not empty the tables unasked.
$before = $node->safe_psql('postgres', 'SELECT count(*) FROM strings');
$redis->restart('KILL');
is($redis->cli('DBSIZE'), '0', 'the server has lost its data');
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
is($node->safe_psql('postgres', 'SELECT count(*) FROM strings'), $before, 'the tables have not');
$redis->cli('SET', 's:new', 'x');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true, force => true)});
is(wait_for($node) . differences($node, $redis), '', 'until that is asked for');
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums agree');

# Commands that nobody knows, as a newer server has them, and scripts as a server before 5.0 sends them.
sub follow_server
{
    my ($server) = @_;
    $node->safe_psql('postgres', q{SELECT redis_migrate.stop('live'); SELECT redis_migrate.alter_migration('live', journal => true); ALTER SERVER live OPTIONS (SET port '} . $server->port . q{')});
    $node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true, force => true)});
    is(wait_for($node), '', 'another server is followed');
    return;
}
my $newer = start_redis(args => [qw(--rename-command APPEND FOO.SET --rename-command MOVE FOO.MOVE)]);
my $unknowing = HostileRedis->new($newer->port, sub { my (undef, @command) = @_; return uc "@command" eq 'COMMAND INFO FOO.SET' ? "*1\r\n*-1\r\n" : undef; });
$newer->cli(qw(SET s:1 a));
follow_server($unknowing);
$newer->cli_lines("FOO.SET s:1 b\nFOO.SET s:2 c\n");
is(wait_for($node) . differences($node, $newer), '', 'the keys of an unknown command are read again, if the server names them');
is($node->safe_psql('postgres', q{SELECT value FROM strings WHERE id = '1'}), 'ab', 'as they are');
SKIP:
{
    skip 'rights of subcommands came with Redis 7.0', 5 if redis_version() < 7;
    $newer->cli(qw(ACL SETUSER default -command +command|getkeys));
    $newer->cli_lines("SET s:4 x\nFOO.MOVE s:4 1\nSET s:3 e\n");
    wait_until('the server refuses', sub { live($node, 'state, sqlstate') eq 'retrying|42501' });
    like(live($node, 'last_error'), qr/the stream at offset \d+ has an unknown command: FOO\.MOVE/, 'without the right to COMMAND INFO the run waits, as the keys of a command are not all');
    $newer->cli(qw(ACL SETUSER default +command));
    is(wait_for($node) . differences($node, $newer), '', 'and goes on with it');
    $newer->cli_lines(join '', map { "SET s:n$_ x\nFOO.MOVE s:n$_ 1\n" } 1 .. 30);
    is(wait_for($node) . differences($node, $newer), '', 'many of them');
    my ($asked) = $newer->cli('INFO', 'commandstats') =~ /cmdstat_command\|info:calls=(\d+)/;
    cmp_ok($asked, '<=', 3, 'for which it is not asked again');
}
my $mute = start_redis(args => [ '--rename-command', 'APPEND', "foo\xff" . 'o' x 1000, '--rename-command', 'COMMAND', '', '--rename-command', 'EVAL', '', '--rename-command', 'SETRANGE', 'EVAL' ]);
for my $case ([ '"foo\xff' . 'o' x 1000 . '" s:1 b', qr/has an unknown command: foo\\xffo{36}\.\.\./ ], [ 'EVAL s:1 0 x', qr/has a command whose keys nobody knows: EVAL/ ])
{
    my ($command, $message) = @$case;
    follow_server($mute);
    my $rows = $node->safe_psql('postgres', 'SELECT * FROM strings');
    $mute->cli_lines("$command\nSET s:2 later\n");
    wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
    like(job($node, 'live', 'sqlstate, message'), qr/^0A000\|the stream at offset \d+ $message/, substr($command, 0, 20) . ' ends the run, with its offset');
    is($node->safe_psql('postgres', 'SELECT * FROM strings'), $rows, 'and nothing behind it is applied');
}

done_testing();
