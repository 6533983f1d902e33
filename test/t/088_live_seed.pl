# Live sync from a dump file: the run loads it and follows the stream from its place on, without a snapshot of the server;
# a file from which the stream cannot be followed is refused by name, and the server is not asked for a snapshot.

use strict;
use warnings;

use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant KEYS => 100;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb' ]);
my $node = new_node('seed', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\npg_redis_migrate.live_delete_limit = 100");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $redis->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
create_live($node);
my $dump = $redis->directory . '/dump.rdb';
my $seed = PostgreSQL::Test::Utils::tempdir() . '/seed.rdb';
sub save { my ($to) = @_; $redis->cli('SAVE'); copy($dump, $to // $seed) or die "copy: $!\n"; return; }
sub start { my ($file) = @_; return sql_error($node, "SELECT redis_migrate.start('live', live => true, seed => '$file')"); }
sub stop { $node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')}); return; }
sub full_syncs { my ($count) = $redis->cli('INFO', 'stats') =~ /sync_full:(\d+)/; return $count; }
sub failure
{
    wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
    return job($node, 'live', 'sqlstate, message');
}
# Begins anew: the last run does not go on.
sub forget { stop(); $node->safe_psql('postgres', q{UPDATE redis_migrate.run SET state = 'superseded'}); return; }

# A server that never had a replica notes no place.
$redis->cli_lines(load_commands(2000, KEYS));
save();
is(start($seed), '', 'it starts');
like(failure(), qr/^55000\|the dump file does not tell its place in the replication stream: .*redis-cli --rdb FILE/, 'a file without a place') or diag live($node, '*');
is(full_syncs(), '0', 'no snapshot was asked for');
is(system('redis-cli', '-p', $redis->port, '--rdb', $seed) >> 8, 0, 'what the hint says');
my $before = full_syncs();
$redis->cli_lines(load_commands(2000, KEYS) . "SELECT 0\nSET s:later x\n");

# Loaded, and followed from there on.
my $load = start_load($redis, KEYS);
is(start($seed), '', 'it starts again');
is(wait_for($node), '', 'it gets in step');
$load->finish;
is(wait_for($node) . differences($node, $redis), '', 'and has every key');
is(full_syncs(), $before, 'without a snapshot of the server');
is($node->safe_psql('postgres', q{SELECT seed IS NULL FROM redis_migrate.background_run}), 't', 'the file has been taken');
like($redis->cli('INFO', 'replication'), qr/connected_slaves:1/, 'the link is there');
$redis->cli_lines(load_commands(500, KEYS));
is(wait_for($node) . differences($node, $redis), '', 'it follows');
stop();
$redis->cli_lines(load_commands(500, KEYS));
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . differences($node, $redis), '', 'also when it is started again');
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE live AND state <> $$failed$$'), '1', 'in one run');

# The stream goes on in the database that it had selected.
forget();
$redis->cli_lines("SELECT 2\nSET s:other x\nSELECT 0\n");
$redis->cli('-n', '2', 'SET', 's:other', 'y');
save();
$redis->cli('-n', '2', 'SET', 's:other', 'z');
is(start($seed), '', 'the last write before the file was to another database');
is(wait_for($node) . differences($node, $redis), '', 'and so was the first after it');
is(full_syncs(), $before, 'without a snapshot of the server');

# More was written since than the backlog holds.
forget();
save();
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '16384');
$redis->cli_lines(join '', map { "SET s:f$_ " . 'x' x 1000 . "\n" } 1 .. 100);
is(start($seed), '', 'an old file');
like(failure(), qr/^55000\|the stream of Redis at \S+ cannot be followed from the dump file on: The file is of offset \d+, and the server's backlog begins at \d+\. CONFIG SET repl-backlog-size to more than/, 'is refused by name, with what helps');
is(full_syncs(), $before, 'before Redis makes a snapshot');
like(wait_for($node), qr/55000/, 'wait_for says so');

# Of another history.
forget();
my $other = start_redis();
system('redis-cli', '-p', $other->port, '--rdb', "$seed.other");
is(start("$seed.other"), '', 'a file of another Redis');
like(failure(), qr/^55000\|the stream of Redis at \S+ cannot be followed/, 'is refused');
is(full_syncs(), $before, 'before Redis makes a snapshot');

# A damaged file, none, one that may not be read; what cannot be asked for.
forget();
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '16mb');
save();
my $bytes = slurp_file($seed);
substr($bytes, -3, 1) ^= "\x01";
my $damaged = "$seed.damaged";
open my $file, '>:raw', $damaged or die "open: $!\n";
print $file $bytes;
close $file;
start($damaged);
like(failure(), qr/^XX001\|/, 'a damaged file');
start("$seed.none");
like(failure(), qr/^58P01\|/, 'no file');
like(start('seed.rdb'), qr/42602.*is not an absolute path/, 'a relative path');
like(sql_error($node, "SELECT redis_migrate.start('live', seed => '$seed')"), qr/22023.*seed needs live/, 'not without live');
$node->safe_psql('postgres', q{CREATE ROLE poor LOGIN; GRANT USAGE ON FOREIGN SERVER live TO poor; SET ROLE poor; SELECT redis_migrate.create_migration('poor', 'live', source => 'replication')});
like(sql_error($node, "SET ROLE poor; SELECT redis_migrate.start('poor', live => true, seed => '$seed')"), qr/42501.*permission denied to read a file on the server/, 'a role without pg_read_server_files');

# While a live run is tried again, its hint is shown.
$node->safe_psql('postgres', q{REVOKE USAGE ON FOREIGN SERVER live FROM poor; SET ROLE poor; SELECT redis_migrate.start('poor', live => true)});
wait_until('a run that is tried again shows what to do', sub { job($node, 'poor', 'state, sqlstate, hint') eq 'retrying|42501|GRANT USAGE ON FOREIGN SERVER live TO the role.' });
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('poor')});

# A Redis that was restarted from the file has another id, which it says; before 7.0 it does not.
save();
$redis->restart;
$redis->cli_lines(load_commands(500, KEYS));
is(start($seed), '', 'a restart from the very file');
if (redis_version() >= 7) { is(wait_for($node) . differences($node, $redis), '', 'is followed from there on'); }
else { like(failure(), qr/^55000\|.*cannot be followed from the dump file on/, 'is not followed from there on'); }
like($redis->cli('INFO', 'stats'), qr/sync_full:0/, 'without a snapshot of the server') or diag live($node, '*');

done_testing();
