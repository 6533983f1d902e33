# Live sync by several processes when something fails while they are at different places: the link is cut within a
# command, the server has lost the stream, has another history or its data of a while ago, and the spool is full. At the
# end each key, value and expiry is compared. PRM_LIVE_CUTS=all cuts the link at every byte.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use RedisNodes;
use Test::More;
use Time::HiRes qw(usleep);

use constant { KEYS => 60, APPLIERS => 2 };

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '64mb', '--repl-ping-replica-period', '3600' ]);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('faults', preload => 1,
    conf => "pg_redis_migrate.databases = 'postgres'\nmax_worker_processes = 20\npg_redis_migrate.live_delete_limit = 100\npg_redis_migrate.max_spool_size = '64MB'\nlog_statement = none");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $proxy->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub problems { return wait_for($node) . differences($node, $redis); }
sub runs { return rows('SELECT count(*) FROM redis_migrate.runs'); }
# An id whose key is in a share.
sub id_of { my ($share, $letter, $prefix) = @_; for (my $i = 0;; $i++) { return "$prefix$i" if RedisNodes::Cluster::slot("$letter:$prefix$i") % APPLIERS == $share; } }
my ($left, $right) = map { id_of($_, 's', 'place') } 0, 1;
my ($slow, $quick, $count) = (id_of(1, 's', 'slow'), id_of(0, 's', 'quick'), id_of(0, 's', 'count'));
$redis->cli_lines(load_commands(500, KEYS) . "SET s:$left token\nSET s:$slow a\nSET s:$quick a\n");
rows(sprintf q{SELECT redis_migrate.start('live', live => true, workers => %d)}, APPLIERS);
is(problems(), '', 'it follows');

# Lets the second applier wait for a row, and waits until the first is ahead of it.
sub hold_second
{
    my $lock = start_sql($node, "BEGIN; SELECT FROM strings WHERE id = '$slow' FOR UPDATE; SELECT pg_sleep(3600);", name => 'lock');
    wait_until('the row is locked', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lock' AND wait_event = 'PgSleep'}) eq '1' });
    $redis->cli('APPEND', "s:$slow", 'x');
    wait_until('an applier waits', sub { rows('SELECT count(*) FROM pg_locks WHERE NOT granted') ne '0' });
    $redis->cli_lines(single_keys(load_commands(100, KEYS)) . "INCR s:$count\n");
    my $n = $redis->cli('GET', "s:$count");
    wait_until('the other is ahead', sub { rows("SELECT value FROM strings WHERE id = '$count'") eq $n });
    return $lock;
}
sub let_go { my ($lock) = @_; rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'}); $lock->finish; return; }

# A cut at bytes of a small stream, which has a transaction over both shares.
my $round = 0;
sub small_stream { ++$round; my ($from, $to) = $round % 2 ? ($left, $right) : ($right, $left); return "SET s:$quick $round\nMULTI\nRENAME s:$from s:$to\nINCR s:cuts\nHSET h:cuts f $round\nEXPIRE h:cuts 5000\nEXEC\nDEL s:none s:$slow\nSET s:$slow $round\n"; }
sub received { return $redis->cli('INFO', 'replication') =~ /master_repl_offset:(\d+)/ ? $1 : die "no offset\n"; }
my $before = received();
$redis->cli_lines(small_stream());
my $length = received() - $before;
cmp_ok($length, '>', 150, 'the length of the stream');
is(problems(), '', 'the stream as a whole');
my @cuts = ($ENV{PRM_LIVE_CUTS} // '') eq 'all' ? (0 .. $length) : map { int rand $length } 1 .. 6;
my $reconnects = live($node, 'reconnects');
my $wrong = '';
for my $cut (@cuts)
{
    $proxy->tell("cut $cut");
    $redis->cli_lines(small_stream());
    my $problem = problems();
    my $places = rows("SELECT string_agg(id, ' ') FROM strings WHERE id IN ('$left', '$right')");
    $problem .= "the token is in '$places'" if $places ne ($round % 2 ? $right : $left);
    $wrong .= "cut at $cut: $problem\n" if $problem ne '';
}
is($wrong, '', 'cuts at ' . @cuts . ' places of a stream');
cmp_ok(live($node, 'reconnects') - $reconnects, '>=', @cuts / 2, 'it was cut');
is(runs(), '1', 'without another snapshot');

# Another history while one is behind: a restart of the server with its data.
my $lock = hold_second();
$redis->cli('CONFIG', 'SET', 'save', '3600 1');
$redis->restart;
$redis->cli_lines(load_commands(100, KEYS) . small_stream());
usleep(500_000);
let_go($lock);
is(problems(), '', 'a restart of the server while one is behind');
is(runs(), redis_version() < 7 ? '2' : '1', 'without another snapshot');

# The server has its data of a while ago: what one has applied never was, and the other has not applied it.
$redis->cli('SAVE');
$lock = hold_second();
$redis->restart('KILL');
$redis->cli_lines("SET s:$quick after\nINCR s:c1\n");
let_go($lock);
is(problems(), '', 'a restart of the server from a dump that one is beyond');

# The server has lost the stream while one is behind.
my $earlier = runs();
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '16384');
wait_for($node);
$lock = hold_second();
$proxy->tell('hold');
$proxy->tell('drop');
$redis->cli_lines(load_commands(500, KEYS) . (join '', map { "SET s:f$_ " . 'x' x 1000 . "\n" } 1 .. 100) . "DEL s:$quick\n");
$proxy->tell('pass');
let_go($lock);
is(problems(), '', 'a backlog that overruns while one is behind');
cmp_ok(runs(), '>', $earlier, 'costs another snapshot');
$redis->cli('CONFIG', 'SET', 'repl-backlog-size', '256mb');
is(problems(), '', 'it follows');

# The spool is full of what one has not applied, and the other has, to the middle of a transaction, for longer than it
# would wait for room if it were alone.
$earlier = runs();
$lock = hold_second();
my $megabytes = q{"redis.call('SET', KEYS[1], string.rep('x', 4 * 1024 * 1024)) redis.call('DEL', KEYS[1])" 1 other};
$redis->cli_lines("EVAL $megabytes\n" x 30);
wait_until('the spool is full', sub { live($node, 'state') eq 'spool full' });
$redis->cli_lines(load_commands(200, KEYS) . small_stream());
usleep(5_500_000);
let_go($lock);
is(problems(), '', 'a spool that is full because one is behind');
is(runs(), $earlier, 'without another snapshot');

# A value that moves, under load: whenever nothing is written, it is in one place.
for my $i (1 .. 2)
{
    my $load = start_load($redis, KEYS, 0.01);
    $redis->cli_lines(join '', map { small_stream() } 1 .. 100 + $i);
    $load->finish;
    my ($problem, $there) = (wait_for($node), $round % 2 ? $right : $left);
    is($problem . rows("SELECT string_agg(id || '=' || value, ' ') FROM strings WHERE id IN ('$left', '$right')"), "$there=token", "a value that moves between shares is in one place, $i");
}
is(problems(), '', 'every key');
is(rows('SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums agree');

done_testing();
