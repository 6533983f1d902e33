# preflight on a server that a migration follows: each setting of Redis and of this server that ends a link or
# makes it begin anew, with the command that helps, and what it says when that command was run.

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-backlog-size', '64mb', '--repl-diskless-sync', 'yes', '--repl-diskless-sync-delay', '5', '--enable-protected-configs', 'yes' ]);
my $is_old = redis_version() < 7;    # has neither shutdown-timeout nor ACL DRYRUN
my $node = new_node('preflight');
create_server($node, 'live', $redis);
sub rows { my ($where) = @_; return $node->safe_psql('postgres', "SELECT check_name, status, detail, hint FROM redis_migrate.preflight('live') WHERE $where"); }
sub of { my ($check) = @_; return rows("check_name = '$check'"); }
sub unknown { my ($user) = @_; return "rights of a replica|warn|could not be checked for psync, as ACL DRYRUN is missing or refused|ACL SETUSER $user +acl|dryrun, which Redis has from 7.0 on, or +psync +replconf"; }

is(of('replication backlog'), '', 'no migration follows the server');
$node->safe_psql('postgres', q{SELECT redis_migrate.create_migration('live', 'live', source => 'replication')});
is(of('replication buffer'), 'replication buffer|ok|client-output-buffer-limit replica is 256 MB at once, 64 MB for 60 s; a snapshot needs about 16 MB|', 'the default buffer');
like(of('replication backlog'), qr{^replication backlog\|ok\|repl-backlog-size is 65536 kB(?:, which lasts about \d+ s at what the server receives now)?; without any replica it is kept for 3600 s\|$}, 'a backlog that is large enough');
is(of('snapshot'), 'snapshot|ok|the server sends a snapshot without its disk, after 5 s|', 'a snapshot without the disk');
is(of('shutdown'), $is_old ? '' : 'shutdown|ok|SHUTDOWN of a master waits up to 10 s until the link has acknowledged what was written, as for any replica|', 'a shutdown');
is(of('counted as a replica'), 'counted as a replica|ok|WAIT and FAILOVER count the link as a replica|', 'who counts it');
is(of('rights of a replica'), $is_old ? unknown('default') : 'rights of a replica|ok|user default may use PSYNC and REPLCONF|', 'rights');
like(of('disk'), qr/^disk\|ok\|a snapshot takes at most about \d+ MB, and what is written while it is loaded \d+ MB; (\d+) MB are free in the database's directory\|$/, 'the disk');
my ($free) = of('disk') =~ /(\d+) MB are free/;
my @df = split ' ', (split /\n/, `df -B1048576 --output=avail @{[$node->data_dir]}`)[1];
cmp_ok(abs($free - $df[0]), '<', 500, 'as df says');

for my $case (
    [ 'client-output-buffer-limit', 'replica 1mb 0 0', 'replication buffer', qr/^replication buffer\|warn\|client-output-buffer-limit replica is 1 MB at once; a snapshot needs about 16 MB\|Beyond it Redis ends the link: CONFIG SET client-output-buffer-limit "replica 32mb 32mb 60"$/ ],
    [ 'client-output-buffer-limit', 'replica 0 2mb 0', 'replication buffer', qr/^replication buffer\|warn\|client-output-buffer-limit replica is unlimited at once, 2 MB for 0 s;/ ],
    [ 'repl-backlog-size', '1mb', 'replication backlog', qr/^replication backlog\|warn\|repl-backlog-size is 1024 kB.*CONFIG SET repl-backlog-size 64mb$/ ],
    [ 'repl-diskless-sync-delay', '100', 'snapshot', qr/^snapshot\|warn\|the server waits 100 s for other replicas before each snapshot\|CONFIG SET repl-diskless-sync-delay 5$/ ],
    $is_old ? () : [ 'shutdown-timeout', '100', 'shutdown', qr/^shutdown\|warn\|SHUTDOWN of a master waits up to 100 s.*\|CONFIG SET shutdown-timeout 10$/ ])
{
    my ($setting, $value, $check, $expected) = @$case;
    $redis->cli('CONFIG', 'SET', $setting, $value);
    my $row = of($check);
    like($row, $expected, "$setting $value");
    my ($command) = $row =~ /(CONFIG SET .*)$/;
    $redis->cli_lines("$command\n");
    like(of($check), qr/^\Q$check\E\|ok\|/, "$setting as the hint says");
}
$redis->cli('CONFIG', 'SET', 'min-replicas-to-write', '1');
is(of('counted as a replica'), 'counted as a replica|warn|min-replicas-to-write is 1, and the link counts as one|So that as many real ones are needed as before: CONFIG SET min-replicas-to-write 2', 'a least number of replicas');
$redis->cli('CONFIG', 'SET', 'min-replicas-to-write', '0');
$redis->cli('CONFIG', 'SET', 'repl-diskless-sync', 'no');
is(of('snapshot'), 'snapshot|ok|the server saves a snapshot on its own disk first|', 'a snapshot from the disk');

# A server that cannot save.
my $gone = $redis->directory . '/gone';
mkdir $gone or die "mkdir: $!\n";
$redis->cli('CONFIG', 'SET', 'dir', $gone);
rmdir $gone or die "rmdir: $!\n";
$redis->cli('BGSAVE');
wait_until('BGSAVE fails', sub { $redis->cli('INFO', 'persistence') =~ /rdb_last_bgsave_status:err/ });
is(of('snapshot'), q{snapshot|fail|the server's last BGSAVE failed, and a snapshot is one, too|Look into the log of Redis, and try BGSAVE again.}, 'a server that cannot save');
$redis->cli('CONFIG', 'SET', 'dir', $redis->directory);
$redis->cli('SAVE');

# Much data, and many writes.
$redis->cli('EVAL', q{for i = 1, 100 do redis.call('SET', 'k:' .. i, string.rep('x', 1024 * 1024)) end}, 0);
$node->safe_psql('postgres', q{LOAD 'pg_redis_migrate'; ALTER SYSTEM SET pg_redis_migrate.max_spool_size = '64MB'; ALTER SYSTEM SET pg_redis_migrate.max_snapshot_size = '50MB'});
$node->reload;
like(of('snapshot size'), qr/^snapshot size\|warn\|pg_redis_migrate.max_snapshot_size is 50 MB, and a snapshot takes at most about (1\d\d) MB.*\|ALTER SYSTEM SET pg_redis_migrate.max_snapshot_size = '\1MB'$/, 'a snapshot larger than allowed');
my $writer = fork() // die "fork: $!\n";
if ($writer == 0)
{
    my $ended = 0;
    $SIG{TERM} = sub { $ended = 1 };
    while (!$ended) { eval { $redis->cli_lines(join '', map { 'SET k:1 ' . ('y' x 1048576) . "\n" } 1 .. 20) }; }
    POSIX::_exit(0);
}
wait_until('the server receives much', sub { $redis->cli('INFO', 'stats') =~ /instantaneous_input_kbps:(\d+)/ && $1 > 10 * 1024 });
my $all = rows('true');
kill 'TERM', $writer;
waitpid $writer, 0;
like($all, qr/^spool size\|warn\|pg_redis_migrate.max_spool_size is 64 MB.*would leave the server meanwhile\|ALTER SYSTEM SET pg_redis_migrate.max_spool_size = '\d+MB'$/m, 'more is written meanwhile than the spool may hold');
like($all, qr/^replication backlog\|warn\|.*, which lasts about \d+ s at what the server receives now.*CONFIG SET repl-backlog-size \d+mb$/m, 'and more than the backlog has');

# Rights.
my @rights = known_rights(qw(ACL SETUSER mig reset on >pw %R~* -@all +@connection +select +scan +getrange +dump +pexpiretime +memory|usage +info +time +config|get));
$redis->cli(@rights);
$node->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER live OPTIONS (username 'mig', password 'pw')});
is(of('rights of a replica'), q{rights of a replica|fail|user mig lacks +replconf|ACL SETUSER mig +replconf: they give the link all keys, whatever key patterns the user has.}, 'without ACL DRYRUN what may be tried is tried');
$redis->cli('ACL', 'SETUSER', 'mig', '+replconf');
is(of('rights of a replica'), unknown('mig'), 'and the rest is said');
$redis->cli('ACL', 'SETUSER', 'mig', '+acl|dryrun', '-replconf');
SKIP: {
    skip 'ACL DRYRUN came with Redis 7.0', 1 if $is_old;
    is(of('rights of a replica'), 'rights of a replica|fail|user mig lacks +psync +replconf|ACL SETUSER mig +psync +replconf: they give the link all keys, whatever key patterns the user has.', 'with it each right is named');
}
is(of('rights to read again'), 'rights to read again|fail|user mig lacks +multi +exec, with which changed keys are read again|ACL SETUSER mig +multi +exec', 'what reading again needs, too');
$redis->cli('ACL', 'SETUSER', 'mig', '+psync', '+replconf', '+multi');
is(of('rights to read again'), 'rights to read again|fail|user mig lacks +multi +exec, with which changed keys are read again|ACL SETUSER mig +multi +exec', 'without EXEC nobody begins');
$redis->cli('ACL', 'SETUSER', 'mig', '+exec');
is(rows(q{check_name IN ('rights of a replica', 'rights to read again')}), $is_old ? unknown('mig') : 'rights of a replica|ok|user mig may use PSYNC and REPLCONF|', 'as the hints say');
unlike($redis->cli('INFO', 'replication'), qr/connected_slaves:[1-9]/, 'nothing became a replica');
is($redis->cli('INFO', 'stats') =~ /sync_full:(\d+)/ && $1, '0', 'and no snapshot was made');
$redis->cli('ACL', 'SETUSER', 'mig', '-config');
like(of('replication settings'), qr/^replication settings\|warn\|.*\|ACL SETUSER mig \+config\|get, or look at/, 'settings that cannot be read');

# The changes that a live run would follow by scan: by each user's rights, the setting of Redis and the databases of migrations.
my $feeds = start_redis(args => [
    '--user', known_rights(qw(blind on >pw -@all %R~* +select +scan +dump +getrange +type +strlen +pexpiretime +memory|usage +info +time +ping resetchannels &__keyevent@*__:* &__keyspace@*__:* +psubscribe)),
    '--user', known_rights(qw(nothing on >pw -@all %R~* +select +scan +dump +getrange +type +strlen +pexpiretime +memory|usage +info +time +ping)) ]);
create_server($node, 'feeds', $feeds);
sub feed { return $node->safe_psql('postgres', q{SELECT status, detail, hint FROM redis_migrate.preflight('feeds') WHERE check_name = 'change feed'}); }
sub use_user { my ($user) = @_; $node->safe_psql('postgres', "DROP USER MAPPING IF EXISTS FOR PUBLIC SERVER feeds; DROP USER MAPPING IF EXISTS FOR CURRENT_USER SERVER feeds; CREATE USER MAPPING FOR PUBLIC SERVER feeds OPTIONS (username '$user', password 'pw')"); return; }
is(feed(), '', 'nobody scans the server');
$node->safe_psql('postgres', q{SELECT redis_migrate.create_migration('scans', 'feeds', source => 'scan', databases => '{0}')});
is(feed(), 'ok|a live run with source scan follows CLIENT TRACKING|', 'tracking');
$node->safe_psql('postgres', q{SELECT redis_migrate.create_migration('all', 'feeds', source => 'scan')});
like(feed(), qr/^ok\|a live run with source scan cannot follow it: Redis at \S+ does not tell which keys change \(Tracking does not tell databases, and the migration names none\. notify-keyspace-events is "" and lacks AE\.\)\|CONFIG SET notify-keyspace-events AKE, .*; or name the databases of the migration\.$/, 'neither');
$feeds->cli('CONFIG', 'SET', 'notify-keyspace-events', 'AKE');
like(feed(), qr/^ok\|a live run with source scan follows keyspace notifications\|.*alter_migration\(\.\.\., databases => '\{0\}'\)$/, 'notifications');
use_user('blind');
is(feed(), q{warn|a live run with source scan follows keyspace notifications, and is never settled: CONFIG GET is refused: nothing shows whether the server sends every notification|ACL SETUSER ... +config|get +info}, 'notifications that may be missing');
use_user('nothing');
like(feed(), qr/^ok\|a live run with source scan cannot follow it: .*\|.*\+psubscribe/, 'no rights');
SKIP: {
    skip 'rights to subcommands and channels came with Redis 7.0', 2 if $is_old;
    my ($rights) = feed() =~ /ACL SETUSER \.\.\. (.*?)(?:; or name .*)?\.$/;
    $feeds->cli(qw(ACL SETUSER nothing -ping), split / /, $rights);
    is(feed() =~ /follows/ ? 'follows' : feed(), 'follows', 'the rights that the hint names are enough');
    $feeds->cli(qw(ACL SETUSER nothing -ping));
    like(feed(), qr/^ok\|a live run with source scan cannot follow it: Redis at \S+ does not tell whether all changes have been told \(.*ping.*\)\|ACL SETUSER \.\.\. \+ping$/, 'with PING, by which it asks whether it knows all');
}
is($feeds->cli('CLIENT', 'LIST') =~ /sub=[1-9]|psub=[1-9]/ ? 'subscribed' : '', '', 'and nothing of it stays');

done_testing();
