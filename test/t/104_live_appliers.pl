# Live sync by several processes, each of which applies the changes of a share of the keys: every key, value and expiry
# afterwards; values that move between shares; one that is behind, or ends; another number of them; flushes; constraints
# that look at rows of other keys.

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use RedisNodes;
use Test::More;
use Time::HiRes qw(time usleep);

use constant KEYS => 100;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb', '--repl-ping-replica-period', '3600', '--save', '' ]);
my $node = new_node('appliers', preload => 1,
    conf => "pg_redis_migrate.databases = 'postgres'\ntrack_commit_timestamp = on\nrestart_after_crash = on\nmax_worker_processes = 20\npg_redis_migrate.max_workers = 12\npg_redis_migrate.live_delete_limit = 100\nlog_statement = none");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $redis->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub start { my ($n) = @_; rows("SELECT redis_migrate.start('live', live => true, workers => $n)"); return; }
sub problems { return wait_for($node) . differences($node, $redis); }
sub share { my ($key, $n) = @_; return RedisNodes::Cluster::slot($key) % $n; }
sub value { my ($id) = @_; return rows("SELECT value FROM strings WHERE id = '$id'"); }
# So many ids whose keys are in a share.
sub ids_of
{
    my ($share, $n, $count, $prefix, $letter) = @_;
    $letter //= 's';
    my @ids;
    for (my $i = 0; @ids < $count; $i++) { push @ids, "$prefix$i" if share("$letter:$prefix$i", $n) == $share; }
    return @ids;
}
# Lets the process of one share wait for a row of one of its keys, until it is finished.
sub hold_share
{
    my ($id) = @_;
    my $lock = start_sql($node, "BEGIN; SELECT FROM strings WHERE id = '$id' FOR UPDATE; SELECT pg_sleep(3600);", name => 'lock');
    wait_until('the row is locked', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lock' AND wait_event = 'PgSleep'}) eq '1' });
    $redis->cli('APPEND', "s:$id", 'x');
    wait_until('an applier waits', sub { rows(q{SELECT count(*) FROM pg_locks WHERE NOT granted}) ne '0' });
    return $lock;
}
sub let_go { my ($lock) = @_; rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'}); $lock->finish; return; }

like(sql_error($node, q{SELECT redis_migrate.start('live', live => true, workers => 12)}), qr/12 appliers and their link need 13 workers/, 'not more than there is room for');
$redis->cli_lines(load_commands(2000, KEYS));
start_load($redis, KEYS)->finish for 1 .. 5;
ok(answers($node), 'a load that is ended before it has begun takes no server with it');
start(3);
my $load = start_load($redis, KEYS, 0.01);
wait_until('three processes', sub { rows('SELECT count(DISTINCT pid) FROM redis_migrate.live_appliers') eq '3' });
is(live($node, 'appliers'), '3', 'the view says how many');
usleep(500_000);
$load->finish;
is(problems(), '', 'under load all keys are as in Redis');
wait_until('in step', sub { live($node, 'state') eq 'in step' });
is(rows('SELECT count(*) FROM redis_migrate.live_appliers WHERE commands > 100 AND lag_bytes = 0'), '3', 'each has applied a share, and all are where the stream is');

# Transactions that wrote something, a second and for each process, while Redis gets a thousand commands a second of each kind.
sub commits
{
    my ($processes, @commands) = @_;
    my ($from, $began) = (rows('SELECT pg_snapshot_xmax(pg_current_snapshot())'), time);
    my @pids;
    for my $command (@commands)
    {
        my $pid = fork() // die "fork: $!\n";
        if ($pid == 0) { eval { $redis->cli('-r', 2000, '-i', 0.001, @$command) }; POSIX::_exit(0); }
        push @pids, $pid;
    }
    waitpid $_, 0 for @pids;
    my ($to, $seconds) = (rows('SELECT pg_snapshot_xmax(pg_current_snapshot())'), time - $began);
    my $commits = rows("SELECT count(DISTINCT pg_xact_commit_timestamp(x::text::xid)) FROM generate_series($from, $to - 1) AS x");
    note sprintf '%d commits in %.1f s', $commits, $seconds;
    return $commits / $seconds / $processes;
}
my @apart = map { ids_of($_, 3, 1, 'apart') } 0 .. 2;
my $rate = commits(3, [ 'MSET', map { ("s:$_", 'x') } @apart ]);
cmp_ok($rate, '>', 5, 'changes of keys of all shares at once are stored soon');
cmp_ok($rate, '<', 60, 'by few transactions');

# A value that moves between two shares is in one place when nothing is written.
my ($left) = ids_of(0, 3, 1, 'left');
my ($right) = ids_of(1, 3, 1, 'right');
$redis->cli('SET', "s:$left", 'token');
for my $round (1 .. 3)
{
    $redis->cli_lines(join '', map { "MULTI\nRENAME s:$left s:$right\nINCR s:cmoved\nEXEC\nMULTI\nSET s:$left token\nDEL s:$right\nEXEC\n" } 1 .. 200);
    $redis->cli('RENAME', "s:$left", "s:$right") if $round % 2;
    is(wait_for($node) . rows("SELECT string_agg(id || '=' || value, ' ') FROM strings WHERE id IN ('$left', '$right')"), ($round % 2 ? $right : $left) . '=token', "a value that moves is in one place, $round");
    $redis->cli('RENAME', "s:$right", "s:$left") if $round % 2;
}

# One is behind: the others go on, and who waits for all waits for it.
my ($slow) = ids_of(2, 3, 1, 'slow');
my @quick = map { ids_of($_, 3, 1, 'quick') } 0, 1;
$redis->cli('SET', "s:$slow", 'a');
is(wait_for($node), '', 'keys');
my $lock = hold_share($slow);
$redis->cli('SET', "s:$_", 'b') for @quick;
$redis->cli_lines(single_keys(load_commands(300, KEYS)));
wait_until('the others', sub { rows("SELECT count(*) FROM strings WHERE id IN ('$quick[0]', '$quick[1]') AND value = 'b'") eq '2' });
is(value($slow), 'a', 'one waits, the others go on');
like(sql_error($node, q{CALL redis_migrate.wait_for('live', '300 ms')}), qr/not in step yet/, 'who waits for all waits for it');
wait_until('the view shows which', sub { rows('SELECT string_agg(applier::text, $$ $$) FROM redis_migrate.live_appliers WHERE lag_bytes > 0') eq '2' });

# A MULTI over keys of several shares is a barrier, also for a share that has none of them.
my ($half) = ids_of(0, 3, 1, 'half');
my ($other) = ids_of(2, 3, 1, 'half');
my @after = map { ids_of($_, 3, 1, 'after') } 0, 1;
$redis->cli_lines("MULTI\nSET s:$half whole\nSET s:$other whole\nEXEC\n");
my $end = $redis->cli('INFO', 'replication') =~ /master_repl_offset:(\d+)/ ? $1 : die "no offset\n";
wait_until('two have come to the transaction', sub { rows("SELECT count(*) FROM redis_migrate.live_position WHERE applied_offset >= $end") eq '2' });
$redis->cli('SET', "s:$_", 'after') for @after;
usleep(300_000);
is(value($half) . value($other) . join('', map { value($_) } @after), 'whole', 'each share stores its part of a transaction, and none goes on before all have');

# Another number of processes goes on from where each was.
rows(q{SELECT redis_migrate.stop('live')});
is(rows(q{SELECT count(*) FROM redis_migrate.workers WHERE migration = 'live' AND pid IS NOT NULL}), '0', 'all have ended');
let_go($lock);
my $first = rows('SELECT max(applied_offset) FROM redis_migrate.live_position');
rows("UPDATE strings SET value = 'here' WHERE id IN ('$quick[0]', '$quick[1]', '$slow')");
start(2);
is(wait_for($node) . value($slow), 'ax', 'two instead of three: what was not applied is');
is(join(' ', map { value($_) } $half, $other, @after), 'whole whole after after', 'also behind the barrier');
is(value($_), 'here', 'what was applied is not applied again') for @quick;
$redis->cli('SET', "s:$_", 'c') for @quick;
is(problems(), '', 'and all goes on');
cmp_ok(rows('SELECT min(applied_offset) FROM redis_migrate.live_position WHERE appliers = 2'), '>=', $first, 'they have come further');
rows(q{SELECT redis_migrate.stop('live')});
start(1);
is(problems(), '', 'and one');
is(rows('SELECT count(*) FROM redis_migrate.live_position'), '1', 'has a position alone');
# Many a hash is gone by the time it is read again.
$rate = commits(1, [ 'HINCRBY', 'h:often', 'f', 1 ], [ 'DEL', 'h:often' ]);
cmp_ok($rate, '<', 60, 'its transactions are few, too');
rows(q{SELECT redis_migrate.stop('live')});
start(3);
is(problems(), '', 'and three again');

# Tables are analyzed and vacuumed all the time: statements are planned anew, which must leave nothing behind.
sub kept_memory
{
    my $before = -s $node->logfile;
    rows(q{SELECT pg_log_backend_memory_contexts(pid) FROM redis_migrate.live_appliers WHERE applier = 0});
    my $bytes;
    wait_until('the log', sub { ($bytes) = PostgreSQL::Test::Utils::slurp_file($node->logfile, $before) =~ /SPI Proc: .* (\d+) used/; defined $bytes });
    return $bytes;
}
$redis->cli_lines(join '', map { "SET s:$_ x\n" } @apart);
is(wait_for($node), '', 'what is needed is planned');
my $kept = kept_memory();
my $analyze = start_sql($node, q{DO $$BEGIN FOR i IN 1 .. 10000 LOOP ANALYZE; COMMIT; END LOOP; END$$}, name => 'analyze');
$redis->cli('-r', 1500, '-i', 0.001, 'MSET', map { ("s:$_", 'y') } @apart);
rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'analyze'});
$analyze->finish;
my $more = kept_memory() - $kept;
note "$more bytes more";
cmp_ok($more, '<', 60_000, 'statements that are planned anew leave nothing behind');

# One of them ends, while a value moves between the keys of two. Whenever nobody writes, it is in one place.
sub start_moves
{
    my $pid = fork() // die "fork: $!\n";
    return bless { pid => $pid }, 'PrmLive::Load' if $pid;
    my $ended = 0;
    $SIG{TERM} = sub { $ended = 1 };
    while (!$ended) { eval { $redis->cli_lines("RENAME s:$left s:$right\nMULTI\nSET s:$left token\nDEL s:$right\nINCR s:cmoved\nEXEC\n" x 20) }; usleep(5000); }
    eval { $redis->cli('RENAME', "s:$left", "s:$right") } if $$ % 2;
    POSIX::_exit(0);
}
$redis->cli_lines("DEL s:$right\nSET s:$left token\n");
for my $signal ('TERM', 'KILL')
{
    my $pid;
    wait_until('a process', sub { $pid = rows(q{SELECT pid FROM redis_migrate.live_appliers WHERE applier = 1}); $pid ne '' });
    $load = start_load($redis, KEYS, 0.01);
    my $moves = start_moves();
    usleep(100_000);
    kill $signal, $pid;
    usleep(300_000);
    wait_until('it answers', sub { answers($node, $pid) });
    wait_until('another process', sub { (try_sql($node, 'SELECT pid FROM redis_migrate.live_appliers WHERE applier = 1') // '') !~ /^($pid)?$/ });
    usleep(100_000);
    $_->finish for $moves, $load;
    is(problems(), '', "one ends by $signal");
    my $there = $redis->cli('EXISTS', "s:$left") ? $left : $right;
    is(rows("SELECT string_agg(id || '=' || value, ' ') FROM strings WHERE id IN ('$left', '$right')"), "$there=token", 'and a value that moved meanwhile is in one place');
    $redis->cli_lines("DEL s:$right\nSET s:$left token\n");
}

# Flushes and swaps, under load: everything comes in a new snapshot.
for my $event ([ 'FLUSHALL' ], [ 'SWAPDB', 0, 1 ], [ 'FLUSHDB' ])
{
    my $runs = rows('SELECT count(*) FROM redis_migrate.runs');
    $load = start_load($redis, KEYS, 0.01);
    usleep(100_000);
    $redis->cli(@$event);
    usleep(100_000);
    $load->finish;
    # Of few rows all may be gone.
    rows(q{SELECT redis_migrate.start('live', live => true, force => true, workers => 3)}) if wait_for($node) =~ /would lose/;
    is(problems(), '', "@$event");
    cmp_ok(rows('SELECT count(*) FROM redis_migrate.runs'), '>', $runs, 'takes a new snapshot');
}
rows(q{SELECT redis_migrate.stop('live')});

# A name that goes from one key to another in another share; rows that refer to rows of another share.
rows(q{
    CREATE TABLE owners (id text PRIMARY KEY, name text UNIQUE);
    CREATE TABLE pets (id text PRIMARY KEY, owner text NOT NULL REFERENCES owners);
    SELECT redis_migrate.add_mapping('live', 'owners', 'o:{id}', 'owners', 'SELECT id, value AS name FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'pets', 'p:{id}', 'pets', 'SELECT id, value AS owner FROM redis_batch', '{id}', databases => '{0}', depends_on => '{owners}')});
start(3);
is(wait_for($node), '', 'with more mappings');
my ($old) = ids_of(2, 3, 1, 'old', 'o');
my ($new) = ids_of(0, 3, 1, 'new', 'o');
my ($pet) = ids_of(1, 3, 1, 'pet', 'p');
$redis->cli('SET', "o:$old", 'Ada');
($slow) = ids_of(2, 3, 1, 'slow');
$redis->cli('SET', "s:$slow", 'a');
is(wait_for($node), '', 'keys');
$lock = hold_share($slow);
$redis->cli('DEL', "o:$old");
$redis->cli('SET', "o:$new", 'Ada');
my ($late) = ids_of(2, 3, 1, 'late', 'o');
$redis->cli('SET', "o:$late", 'Eve');
$redis->cli('SET', "p:$pet", $late);
usleep(500_000);
is(rows('SELECT string_agg(id || $$ $$ || name, $$ $$) FROM owners'), "$old Ada", 'one is behind');
let_go($lock);
is(wait_for($node), '', 'it comes');
is(rows(q{SELECT string_agg(id || ' ' || name, ' ' ORDER BY name) FROM owners}), "$new Ada $late Eve", 'the name has gone over');
is(rows('SELECT id || $$ $$ || owner FROM pets'), "$pet $late", 'and the pet has its owner');
is(rows('SELECT count(*) FROM redis_migrate.reject'), '0', 'nothing was rejected');

# What a mapping lacks ends the run, which names the mapping.
rows('ALTER TABLE pets RENAME COLUMN owner TO keeper');
my ($cat) = ids_of(1, 3, 1, 'cat', 'p');
$redis->cli('SET', "p:$cat", $late);
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
is(job($node, 'live', 'sqlstate, message'), '42703|mapping "pets": column "owner" of relation public.pets does not exist', 'a column that is gone');
is(rows('SELECT message FROM redis_migrate.runs ORDER BY run_id DESC LIMIT 1'), 'mapping "pets": column "owner" of relation public.pets does not exist', 'also in what the run leaves');
rows('ALTER TABLE pets RENAME COLUMN keeper TO owner');
start(3);
is(wait_for($node) . rows("SELECT owner FROM pets WHERE id = '$cat'"), $late, 'it goes on when it is back');

# An error of one is that of the run.
rows('DROP TABLE pets');
$redis->cli('SET', 'p:' . (ids_of(2, 3, 1, 'dog', 'p'))[0], $late);
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
like(job($node, 'live', 'message'), qr/mapping "pets"/, 'with the error of one of them');
is(rows(q{SELECT count(*) FROM redis_migrate.workers WHERE migration = 'live' AND kind = 'live applier'}), '0', 'all end');
is(rows('SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums agree');

done_testing();
