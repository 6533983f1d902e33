# Live sync: a value of 100 MB arrives, in a command and to be read again. It takes a bounded amount of memory in each
# process, and the stream goes on.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant MB => 1024 * 1024;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '256mb', '--client-output-buffer-limit', 'replica 1gb 1gb 60' ]);
my $node = new_node('huge', conf => "shared_buffers = 16MB\nmax_wal_size = 1GB");
create_server($node, 'live', $redis);
create_live($node);
$redis->cli('SET', 's:1', 'v');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . differences($node, $redis), '', 'it follows');

# The most memory of its own that a worker has taken since it was asked last, in MB.
my %pids = map { $_ => worker_pid($node, $_) } 'migration', 'replication link';
sub peak
{
    my ($kind) = @_;
    my ($most) = slurp_file("/proc/$pids{$kind}/status") =~ /^VmHWM:\s+(\d+) kB/m;
    return $most / 1024;
}
my %before = map { $_ => peak($_) } keys %pids;
sub text_of { my ($letter, $mb) = @_; return $redis->cli('EVAL', "redis.call('SET', KEYS[1], string.rep('$letter', $mb * 1024 * 1024))", 1, 's:huge'); }
sub row { return $node->safe_psql('postgres', q{SELECT length(value), left(value, 1), right(value, 4) FROM strings WHERE id = 'huge'}); }

text_of('x', 100);
$redis->cli_lines("SET s:2 w\nINCR s:c1\n");
is(wait_for($node) . row(), (100 * MB) . '|x|xxxx', 'a value of 100 MB in a command');
is($node->safe_psql('postgres', q{SELECT string_agg(value, ' ' ORDER BY id) FROM strings WHERE id <> 'huge'}), 'v w 1', 'what came behind it is there');
my %by_command = map { $_ => peak($_) - $before{$_} } keys %pids;
cmp_ok($by_command{migration}, '<', 450, 'the applier takes about four times the value') or diag $by_command{migration};
cmp_ok($by_command{'replication link'}, '<', 32, 'the link hardly anything') or diag $by_command{'replication link'};

$redis->cli_lines("APPEND s:huge end.\nSET s:2 x\n");
is(wait_for($node) . row(), (100 * MB + 4) . '|x|end.', 'read again');
cmp_ok(peak('migration') - $before{migration}, '<', 450, 'in the same memory') or diag peak('migration') - $before{migration};
note sprintf 'peaks above the start, MB: applier %.0f by the command, %.0f read again; link %.0f', $by_command{migration}, peak('migration') - $before{migration}, peak('replication link') - $before{'replication link'};
is(join(' ', map { worker_pid($node, $_) } sort keys %pids), join(' ', map { $pids{$_} } sort keys %pids), 'the same processes');

# One that is larger than a value may be is rejected, and what it was stays.
$node->append_conf('postgresql.conf', "pg_redis_migrate.max_value_size = '64MB'");
$node->restart;
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
text_of('y', 100);
$redis->cli('SET', 's:3', 'z');
is(wait_for($node), '', 'a value beyond max_value_size does not stop the stream');
is(row() . ' ' . $node->safe_psql('postgres', q{SELECT value FROM strings WHERE id = '3'}), (100 * MB + 4) . '|x|end. z', 'its row stays');
is($node->safe_psql('postgres', q{SELECT key, rule FROM redis_migrate.rejects WHERE settled_at IS NULL}), 's:huge|max_value_size', 'and it is among the rejects');
$redis->cli('SET', 's:huge', 'small');
is(wait_for($node) . differences($node, $redis), '', 'until it is small again');

done_testing();
