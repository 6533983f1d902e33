# The masters of a cluster are read side by side: by the worker of a background run and others beside it, each with a
# checkpoint of its own, in one run with one set of counts; whatever happens to workers, masters and slots meanwhile.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use RedisNodes;
use Test::More;

use constant KEYS => 6000;

my $node = new_node('side', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\npg_redis_migrate.batch_rows = 200\nrestart_after_crash = on");
my $cluster = start_cluster(masters => 3, replicas => 1);
$cluster->set(map { ("k:$_" => "value $_") } 1 .. KEYS);
my @masters = $cluster->masters;
my $seeds = join ', ', map { '127.0.0.1:' . $_->{node}->port } @masters;
my $dbsize = $cluster->dbsize;

$node->safe_psql('postgres', qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on', max_rate '1500');
    CREATE TABLE item (id bigint PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}', exclusive => true);});

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub parts { my ($columns, $where) = @_; $where //= 'true';
    return sql("SELECT $columns FROM redis_migrate.run_parts WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) AND $where"); }
sub wait_for { my ($migration) = @_; return sql("CALL redis_migrate.wait_for('" . ($migration // 'shop') . "', '2 minutes')"); }
sub start { sql(q{TRUNCATE item}); return sql(q{SELECT redis_migrate.start('shop')}); }
sub pace { my ($rate) = @_; return sql("ALTER SERVER shop OPTIONS (SET max_rate '$rate')"); }

# Until each of three processes has stored something. The rows of a run before this one name processes that are gone.
sub wait_until_all_read
{
    return wait_until('three readers', sub {
        parts('count(DISTINCT pid)', 'read > 0 AND NOT done AND pid IN (SELECT pid FROM redis_migrate.workers)') == 3 });
}

# A finished run must show this.
sub is_whole
{
    my ($name, $read) = @_;
    is(last_run($node, 'shop', 'state, read, migrated, balanced'), join('|', 'completed', ($read // $dbsize) x 2, 't'), "$name: the sums");
    is(compare($node, 'item', KEYS), '', "$name: every key");
    return;
}

# Three masters, three processes. -------------------------------------------------------------------------------------

start();
wait_until_all_read();
is(sql(q{SELECT kind, migration, state, position ~ '^cluster of=', keys_read > 0, keys_per_second > 0 FROM redis_migrate.workers
    WHERE kind LIKE 'migration%' ORDER BY kind}), "migration|shop|running|t|t|t\nmigration part|shop|running|t|t|t\nmigration part|shop|running|t|t|t",
    'one worker leads, two read beside it');
is(sql(q{SELECT count(DISTINCT substring(position FROM ' node=([0-9a-f]+)')) FROM redis_migrate.workers WHERE kind LIKE 'migration%'}), 3,
    'each from a master of its own');
is(sql(q{SELECT state, keys_read > 0, keys_estimated FROM redis_migrate.progress}), "running|t|$dbsize", 'progress is of all of them');
wait_for();
is_whole('three masters');
is(parts('count(*), count(DISTINCT pid), bool_and(done), sum(read)'), "3|3|t|$dbsize", 'three parts with a checkpoint each');
is(parts('bool_and(batches > 1 AND bytes_read > 0)'), 't', 'and numbers of their own');
is(sql(q{SELECT (SELECT sum(batches) FROM redis_migrate.run_parts AS p WHERE p.run_id = r.run_id) = batches FROM redis_migrate.runs AS r ORDER BY run_id DESC LIMIT 1}), 't',
    'which the run adds up');
is(sql(q{SELECT mapping, inserted, updated FROM redis_migrate.mapping_counts}), 'm|' . KEYS . '|0', 'rows are counted once');
is(parts(q{string_agg(share, ', ' ORDER BY part), min(readers)}), 'slots 0-5460, slots 5461-10922, slots 10923-16383|3', 'the slots of each master, and three share the ceiling');
my ($seconds) = last_run($node, 'shop', 'extract(epoch FROM active_time)');
cmp_ok($dbsize / $seconds, '<=', 1500 * 1.3, 'together they keep to the ceiling');

# A session leads workers, too, or reads one master after the other. ----------------------------------------------------

sql('TRUNCATE item');
pace(100000);
sql(q{CALL redis_migrate.run('shop')});
is_whole('in a session');
is(parts('count(*), count(DISTINCT pid)'), '3|3', 'in a session: a part for each master');
sql(q{TRUNCATE item; CALL redis_migrate.run('shop', workers => 1)});
is_whole('in a session, alone');
is(parts('count(*)'), 0, 'in a session, alone: not in parts');

# Workers end. -----------------------------------------------------------------------------------------------------------

pace(900);
start();
wait_until_all_read();
my $leader = pid_of($node, 'migration');
is(sql(q{SELECT count(pg_terminate_backend(pid)) FROM redis_migrate.workers WHERE kind = 'migration part'}), 2, 'two workers are terminated');
pace(100000);
wait_for();
is_whole('after workers were terminated');
is(parts('count(*)', "pid = $leader"), 3, 'after workers were terminated: the leader has read their parts');

pace(900);
start();
wait_until_all_read();
is(sql(q{SELECT count(pg_cancel_backend(pid)) FROM redis_migrate.workers WHERE kind = 'migration part'}), 2, 'two workers are cancelled');
pace(100000);
wait_for();
is_whole('after workers were cancelled');

pace(900);
start();
wait_until_all_read();
sql(q{SELECT redis_migrate.stop('shop')});
is(sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE 'migration%'}), 0, 'stop ends all of them');
is(last_run($node, 'shop', 'state'), 'stopped', 'and the run says so');
my $before = parts('sum(read)');
cmp_ok($before, '<', $dbsize, 'in the middle');
my $stopped = sql('SELECT max(run_id) FROM redis_migrate.runs');
like(sql_error($node, "CALL redis_migrate.join_run($stopped)"), qr/ERROR:  55000: run $stopped is not in progress/, 'nobody joins a run that is not in progress');
pace(100000);
sql(q{CALL redis_migrate.run('shop', workers => 1)});
is_whole('a session goes on with the parts');
is(parts('count(*), count(DISTINCT pid), min(readers)'), '3|1|1', 'a session goes on with the parts: alone, with all of the ceiling');

pace(900);
start();
wait_until_all_read();
my $lead = sql(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'migration'});
sql("SELECT pg_terminate_backend($lead)");
wait_until('the leader has gone', sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $lead") == 0 });
pace(100000);
wait_for();
is_whole('after the leader was terminated');

# kill -9 takes the whole server along; the scheduler starts the run again, and it goes on from three checkpoints.
for my $kind ('migration part', 'migration')
{
    pace(900);
    start();
    wait_until_all_read();
    my $pid = sql("SELECT pid FROM redis_migrate.workers WHERE kind = '$kind' LIMIT 1");
    kill 'KILL', $pid;
    wait_until('the server is back', sub { answers($node, $pid) });
    pace(100000);
    wait_for();
    is_whole("after kill -9 of a $kind");
}

# Room for no worker beside the leader. -----------------------------------------------------------------------------------

$node->append_conf('postgresql.conf', 'pg_redis_migrate.max_workers = 1');
$node->restart;
my $log = -s $node->logfile;
start();
wait_for();
is_whole('without room for others');
is(parts('count(*), count(DISTINCT pid), min(readers)'), '3|1|1', 'without room for others: one process reads all parts');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile, $log), qr/WARNING:  run \d+ is read by 1 processes instead of 3: pg_redis_migrate\.max_workers, 1, allows no more.*\n.*HINT:  Raise pg_redis_migrate\.max_workers/,
    'and the log says why');
$node->append_conf('postgresql.conf', 'pg_redis_migrate.max_workers = 8');
$node->restart;

# Slots move and a master dies while three processes read. ---------------------------------------------------------------

pace(900);
start();
wait_until_all_read();
my $hold = start_sql($node, 'BEGIN; LOCK TABLE item; SELECT pg_sleep(100);', name => 'hold');
wait_until('the lock', sub { sql(q{SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass AND mode = 'AccessExclusiveLock' AND granted}) });
wait_until('three readers that are held', sub { sql(q{SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass AND NOT granted}) == 3 });
my %seen;
my @slots = grep { !$seen{$_}++ } map { RedisNodes::Cluster::slot("k:$_") } 1 .. 60;
$cluster->move($_, $masters[2], $masters[0]) for (grep { $masters[2]{slots}{$_} } @slots)[ 0 .. 3 ];
$cluster->move($_, $masters[1], $masters[2]) for (grep { $masters[1]{slots}{$_} } @slots)[ 0 .. 3 ];
pace(100000);
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hold'});
$hold->finish;
wait_for();
is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'slots move between three readers');
is(compare($node, 'item', KEYS), '', 'slots move between three readers: every key');
cmp_ok(parts('sum(repeated_slots)'), '>=', 8, 'slots move between three readers: they were read again by whom they belong to');

@masters = $cluster->masters;
$cluster->wait_until_agreed;
pace(900);
start();
wait_until_all_read();
$masters[1]{node}->kill9;
pace(100000);
wait_for();
is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'a master dies among three readers');
is(compare($node, 'item', KEYS), '', 'a master dies among three readers: every key');
$masters[1]{node}->start;
$cluster->wait_until_agreed;

# Rows that keys of several masters yield. ----------------------------------------------------------------------------

# Each row comes from eight keys all over the cluster; the lowest of them has it, as in a session.
my %names = map { my $row = $_; map { ("n:$row:$_" => "row $row of $_") } qw(a b c d e f g h) } 1 .. 500;
$cluster->set(%names);
sql(q{
    CREATE TABLE named (row int PRIMARY KEY, v text);
    CREATE TABLE in_order (LIKE named INCLUDING ALL);
    SELECT redis_migrate.create_migration('names', 'shop', unmapped => 'reject');
    SELECT redis_migrate.add_mapping('names', 'm', 'n:{row:int}:{letter}', 'named', 'SELECT row, value AS v FROM redis_batch', key_columns => '{row}');
    SELECT redis_migrate.skip_keys('names', 'k:*');
    SELECT redis_migrate.create_migration('order', 'shop', unmapped => 'reject');
    SELECT redis_migrate.add_mapping('order', 'm', 'n:{row:int}:{letter}', 'in_order', 'SELECT row, value AS v FROM redis_batch', key_columns => '{row}');
    SELECT redis_migrate.skip_keys('order', 'k:*');
    SELECT redis_migrate.start('names')});
wait_for('names');
is(sql(q{SELECT count(*), count(*) FILTER (WHERE v = 'row ' || row || ' of a') FROM named}), '500|500', 'the lowest key has the row');
is(last_run($node, 'names', 'read, migrated + skipped, rejected, balanced'), join('|', (4000 + KEYS) x 2, 0, 't'), 'the others are counted');
sql(q{CALL redis_migrate.run('order')});
is(sql('(TABLE named EXCEPT TABLE in_order) UNION ALL (TABLE in_order EXCEPT TABLE named)'), '', 'as they are one after the other');
is(sql(q{SELECT count(*) FROM redis_migrate.ledger WHERE key_bytes::text LIKE '%3a61'}), 1000, 'and the ledger names it');
my $versions = sql('SELECT md5(string_agg(xmin::text || ctid, $$,$$ ORDER BY row)) FROM named');
sql(q{SELECT redis_migrate.start('names')});
wait_for('names');
is(sql('SELECT md5(string_agg(xmin::text || ctid, $$,$$ ORDER BY row)) FROM named'), $versions, 'a second run writes nothing');

# Errors of another process are those of the run. -----------------------------------------------------------------------

$cluster->set('k:x1' => 'no number', 'k:x2' => 'no number', 'k:x3' => 'no number', 'k:x4' => 'no number');
sql(q{TRUNCATE item; SELECT redis_migrate.start('shop', on_error => 'stop')});
like(sql_error($node, q{CALL redis_migrate.wait_for('shop', '2 minutes')}), qr/22000: the background run of migration "shop" failed: run \d+ stopped: \d+ keys were rejected/,
    'a reject stops all readers');
is(last_run($node, 'shop', 'state'), 'stopped', 'a reject stops all readers: the run says so');
wait_until('a reject stops all readers', sub { sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE 'migration%'}) == 0 });
sql(q{SELECT redis_migrate.start('shop')});
wait_for();
is(last_run($node, 'shop', 'state, rejected, migrated, balanced'), 'completed|4|' . KEYS . '|t', 'and it goes on where all of them stopped');
is(compare($node, 'item', KEYS), '', 'with every key');

# Only the owner may join a run, and only while it is led.
sql('CREATE ROLE guest LOGIN');
my $run = sql('SELECT max(run_id) FROM redis_migrate.runs');
like(sql_error($node, "BEGIN; CALL redis_migrate.join_run($run)"), qr/2D000/, 'not in a transaction block');
like(sql_error($node, 'CALL redis_migrate.join_run(0)'), qr/42704: run 0 does not exist/, 'no such run');
sql("UPDATE redis_migrate.run SET state = 'running' WHERE run_id = $run");
like(sql_error($node, "CALL redis_migrate.join_run($run)", extra_params => [ '-U', 'guest' ]), qr/42704: run $run does not exist/, 'to others than the owner there is no such run');
like(sql_error($node, "CALL redis_migrate.join_run($run)"), qr/55000: no process leads run $run of migration "shop"\n.*\nHINT:  CALL redis_migrate\.run/, 'not without a leader');
sql("UPDATE redis_migrate.run SET state = 'completed' WHERE run_id = $run");

# Keys that wait for the end of their level. -----------------------------------------------------------------------------

# All children wait for a parent. Of those that are read again, because their slots move, the later value counts, and once.
$cluster->set(map { ("o:$_" => "old $_") } 1 .. 900);
$cluster->set('last:1' => 'x');
sql(q{
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int PRIMARY KEY REFERENCES parent, v text);
    CREATE TABLE last (id int PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('waiting', 'shop');
    SELECT redis_migrate.add_mapping('waiting', 'm', 'o:{id:int}', 'child', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}',
        priority => 'high');
    SELECT redis_migrate.add_mapping('waiting', 'last', 'last:{id:int}', 'last', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}',
        priority => 'low');
    SELECT redis_migrate.skip_keys('waiting', 'k:*'), redis_migrate.skip_keys('waiting', 'n:*')});
@masters = $cluster->masters;
$cluster->wait_until_agreed;
pace(900);
sql(q{SELECT redis_migrate.start('waiting')});
my $second = q{SELECT convert_from(key_bytes, 'UTF8') FROM redis_migrate.deferred WHERE part = 2};
wait_until('children that wait', sub { sql("SELECT count(*) FROM ($second) AS d") >= 3 });
$hold = start_sql($node, 'BEGIN; LOCK TABLE child; SELECT pg_sleep(100);', name => 'hold');
wait_until('the lock', sub { sql(q{SELECT count(*) FROM pg_locks WHERE relation = 'child'::regclass AND mode = 'AccessExclusiveLock' AND granted}) });
my @again = (split /\n/, sql($second))[ 0 .. 2 ];
is(parts('count(*)', 'part = 2 AND NOT done'), 1, 'their part is still being read');
%seen = ();
$cluster->move($_, $masters[1], $masters[0]) for grep { !$seen{$_}++ } map { RedisNodes::Cluster::slot($_) } @again;
$cluster->set(map { ($_ => "new $_") } @again);
my @ids = map { /(\d+)/ } @again;
sql("INSERT INTO parent VALUES ($_)") for @ids;
pace(100000);
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hold'});
$hold->finish;
wait_for('waiting');
is(last_run($node, 'waiting', 'state, balanced'), 'completed|t', 'children that were read twice: the sums');
is(sql(q{SELECT string_agg(outcome || ' ' || keys, ', ' ORDER BY outcome) FROM redis_migrate.run_counts
    WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) AND pattern = 'o:{id:int}'}), 'migrated 3, read 900, rejected 897', 'each is counted once');
is(sql('SELECT count(*) FROM child WHERE v = $$new o:$$ || id'), 3, 'and has its later value');
is(sql('SELECT count(*) FROM redis_migrate.deferred'), 0, 'none is left waiting');
is(parts('count(*), count(DISTINCT level), bool_and(done)'), '6|2|t', 'two levels in parts');
is(sql('TABLE last'), '1|x', 'the second level');

# Rows whose keys are gone, and keys that nobody owns. ---------------------------------------------------------------------

$cluster->remove('last:1', map { "k:$_" } 1 .. 3, 'x1', 'x2', 'x3', 'x4');
sql(q{SELECT redis_migrate.start('shop', prune => true)});
wait_for();
is(sql('SELECT min(id), count(*) FROM item'), '4|' . (KEYS - 3), 'prune removes what no reader has met, and nothing else');
is(sql(q{SELECT count(*) FROM redis_migrate.archive WHERE migration = 'shop'}), 4000 + 900, 'what nobody owns is archived once');
$cluster->set(map { ("k:$_" => "value $_") } 1 .. 3);

# A silent node holds up its reader, although no process leads the run any more.
pace(900);
start();
wait_until_all_read();
kill 'STOP', $masters[2]{node}->pid;
my $gone = pid_of($node, 'migration');
sql("SELECT pg_terminate_backend($gone)");
sql(q{SELECT redis_migrate.stop('shop')});
is(sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE 'migration%'}), 0, 'stop ends readers without a leader');
is(sql_error($node, q{SELECT redis_migrate.alter_migration('shop', unmapped => 'archive')}), '', 'and the migration may be changed');
kill 'CONT', $masters[2]{node}->pid;
$cluster->wait_until_agreed;

# Positions in a cluster mean nothing to another one: its parts begin anew, with nothing left out. -----------------------------

my $other = start_cluster(masters => 3, replicas => 0);
$other->set(map { ("k:$_" => "value $_") } 1 .. KEYS);
pace(900);
start();
wait_until_all_read();
sql(q{SELECT redis_migrate.stop('shop')});
my $others = join ', ', map { '127.0.0.1:' . $_->{node}->port } $other->masters;
sql(qq{ALTER SERVER shop OPTIONS (SET host '$others', SET max_rate '100000'); CALL redis_migrate.run('shop')});
is(last_run($node, 'shop', 'state, restarts, read, balanced'), join('|', 'completed', 3, KEYS, 't'), 'another cluster: its keys are read from the start');
is(compare($node, 'item', KEYS), '', 'another cluster: every key');
sql(qq{ALTER SERVER shop OPTIONS (SET host '$seeds')});

# A server that is a cluster no longer: the level is read again, whole.
pace(900);
start();
wait_until_all_read();
sql(q{SELECT redis_migrate.stop('shop')});
my $plain = start_redis();
$plain->cli('SET', 'k:1', 'value 1');
my $port = $plain->port;
sql(qq{ALTER SERVER shop OPTIONS (SET host '127.0.0.1', ADD port '$port', SET cluster 'off'); CALL redis_migrate.run('shop')});
is(last_run($node, 'shop', 'state, read, balanced'), 'completed|1|t', 'parts mean nothing to a single server');

done_testing();
