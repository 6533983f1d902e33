# A run that is killed, cancelled, shut down or in the way of others: the next CALL resumes it, and the tables are those
# of an undisturbed run.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(usleep);

my $seed = $ENV{PRM_SEED} // time % 100_000;
srand $seed;
note "PRM_SEED=$seed";

my $node = new_node('interrupt', conf => "restart_after_crash = on\npg_redis_migrate.batch_rows = 20");
my $redis = start_redis();
my $proxy = PrmTools::Proxy->new($redis->port);
my ($direct, $slow) = ($redis->port, $proxy->port);
$node->safe_psql(
    'postgres', qq{
    CREATE SERVER direct FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$direct');
    CREATE SERVER slow FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$slow');});

# Keys of every type. f: three keys for each row, of which the lowest wins. b: every fifth value is no number.
$redis->cli('EVAL', <<'LUA', 0);
for i = 1, 600 do redis.call('SET', 's:' .. i, 'value ' .. i) end
for i = 1, 300 do
  redis.call('HSET', 'h:' .. i, 'a', i, 'b', i * 2, 'c', i * 3)
  redis.call('RPUSH', 'l:' .. i, 'one', 'two', 'one', i)
  redis.call('SADD', 'e:' .. i, 'x', 'y', i)
  redis.call('ZADD', 'z:' .. i, i, 'm', i / 2, 'n')
  redis.call('SET', 'f:' .. i % 100 .. ':' .. i, i)
  redis.call('SET', 'u:' .. i, i)
end
for i = 1, 100 do
  redis.call('XADD', 'x:' .. i, i .. '-1', 'k', 'v' .. i)
  redis.call('XADD', 'x:' .. i, i .. '-2', 'k', 'w' .. i)
  redis.call('SET', 'b:' .. i, i % 5 == 0 and 'bad' or i)
end
LUA
use constant KEYS => 600 + 6 * 300 + 2 * 100;
my @tables = qw(s s2 h l e z f x b);

# Schema, tables and migration, all of one name.
sub define
{
    my ($name, $server) = @_;
    $node->safe_psql(
        'postgres', qq{
        CREATE SCHEMA $name;
        SET search_path = $name;
        CREATE TABLE s (id bigint PRIMARY KEY, v text);
        CREATE TABLE s2 (id bigint PRIMARY KEY, n int);
        CREATE TABLE h (id bigint, f text, v int, PRIMARY KEY (id, f));
        CREATE TABLE l (id bigint, p bigint, v text, PRIMARY KEY (id, p));
        CREATE TABLE e (id bigint, m text, PRIMARY KEY (id, m));
        CREATE TABLE z (id bigint, m text, score float8, PRIMARY KEY (id, m));
        CREATE TABLE f (name text PRIMARY KEY, n int, v text);
        CREATE TABLE x (id bigint, entry text, doc jsonb, PRIMARY KEY (id, entry));
        CREATE TABLE b (id bigint PRIMARY KEY, v int);
        SELECT redis_migrate.create_migration('$name', '$server');
        CREATE FUNCTION add(mapping text, pattern text, target regclass, query text, keys text[], expand text DEFAULT NULL,
            exclusive boolean DEFAULT true, priority text DEFAULT 'medium') RETURNS void LANGUAGE sql AS \$\$
            SELECT redis_migrate.add_mapping('$name', mapping, pattern, target, query, keys, expand => expand, exclusive => exclusive,
                databases => '{0}', priority => priority) \$\$;
        SELECT add('s', 's:{id:int}', 's', 'SELECT id, value AS v FROM redis_batch', '{id}', priority => 'high');
        SELECT add('s2', 's:{id:int}', 's2', 'SELECT id, length(value) AS n FROM redis_batch', '{id}', exclusive => false, priority => 'high');
        SELECT add('h', 'h:{id:int}', 'h', 'SELECT id, field AS f, value::int AS v FROM redis_batch', '{id,f}', expand => 'elements');
        SELECT add('l', 'l:{id:int}', 'l', 'SELECT id, position AS p, value AS v FROM redis_batch', '{id,p}', expand => 'elements', exclusive => false);
        SELECT add('e', 'e:{id:int}', 'e', 'SELECT id, member AS m FROM redis_batch', '{id,m}', expand => 'elements');
        SELECT add('z', 'z:{id:int}', 'z', 'SELECT id, member AS m, score FROM redis_batch', '{id,m}', expand => 'elements', exclusive => false);
        SELECT add('f', 'f:{name}:{n:int}', 'f', 'SELECT name, n::int AS n, value AS v FROM redis_batch', '{name}', exclusive => false);
        SELECT add('x', 'x:{id:int}', 'x', 'SELECT id, entry_id AS entry, json AS doc FROM redis_batch', '{id,entry}', expand => 'elements');
        SELECT add('b', 'b:{id:int}', 'b', 'SELECT id, value::int AS v FROM redis_batch', '{id}', exclusive => false);});
    return;
}

# The results of a run: a digest of each table, of the archive and of the rejects.
sub result
{
    my ($name) = @_;
    my $sql = join ";\n", map { "SELECT '$_', count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM $name.$_ AS t" } @tables;
    return $node->safe_psql('postgres', "$sql;
        SELECT 'archive', count(*), md5(string_agg(key || encode(payload, 'hex'), '|' ORDER BY key)) FROM redis_migrate.archive WHERE migration = '$name';
        SELECT 'rejects', count(*), md5(string_agg(key || rule, '|' ORDER BY key)) FROM redis_migrate.rejects
            WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs WHERE migration = '$name')");
}

sub pid_of_call
{
    return $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL%' AND state = 'active'});
}

# The undisturbed run.
define('calm', 'direct');
$node->safe_psql('postgres', q{CALL redis_migrate.run('calm')});
my $balance = 'completed|t|' . KEYS . '|20|2280|300|0|' . 200;
my $columns = 'state, balanced, read, rejected, migrated, archived, vanished, skipped';
# f: the lowest of three keys is stored, the others are folded or, met first, overwritten.
my $calm = result('calm');
like($calm, qr/^s\|600\|.*^h\|900\|.*^l\|1200\|.*^e\|900\|.*^z\|600\|.*^f\|100\|.*^x\|200\|.*^b\|80\|.*^archive\|300\|.*^rejects\|20\|/ms, 'the undisturbed run stores everything');
is(last_run($node, 'calm', 'state, balanced, read, rejected, archived, vanished, migrated + skipped'),
    'completed|t|' . KEYS . '|20|300|0|' . (KEYS - 320), 'and its sums agree');
is($node->safe_psql('postgres', q{SELECT count(*) FROM calm.f WHERE n <> (SELECT ('{' || min(i::text COLLATE "C") || '}')::int[] FROM generate_series(1, 300) AS i WHERE i % 100 = name::int)[1]}),
    0, 'of three keys for a row the lowest wins');

# As above, killed at random moments.
define('killed', 'slow');
$proxy->tell('rate 60000');
my ($kills, $rounds) = (0, 0);
my @moments;
while ($kills < 10 && $rounds++ < 60)
{
    my $call = start_sql($node, q{CALL redis_migrate.run('killed');});
    my $moment = int(60_000 + rand 400_000);
    usleep($moment);
    my $pid = pid_of_call();
    if ($call->running && $pid)
    {
        kill 'KILL', $pid;
        push @moments, $moment;
        $kills++;
    }
    my (undef, $err) = $call->finish;
    wait_until('the server is back', sub { answers($node, $pid) });
}
note "killed after @moments microseconds, read then: " . last_run($node, 'killed', 'read');
is($kills, 10, 'the backend was killed ten times');
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.runs WHERE migration = 'killed' AND state NOT IN ('interrupted', 'completed')}),
    0, 'a killed run shows as interrupted');
$proxy->tell('pass');
$node->safe_psql('postgres', q{CALL redis_migrate.run('killed')});
is(result('killed'), $calm, 'the tables are those of the undisturbed run');
is(last_run($node, 'killed', 'state, balanced, read, rejected, archived, vanished, migrated + skipped'),
    'completed|t|' . KEYS . '|20|300|0|' . (KEYS - 320), 'no key is counted twice');
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.deferred}), 0, 'nothing is left over');

# statement_timeout in the middle of batches. The 30 batches of s alone take twice as long as a call may.
define('timeout', 'direct');
$node->safe_psql(
    'postgres', q{
    CREATE FUNCTION tarry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
    CREATE TRIGGER tarry AFTER INSERT ON timeout.s FOR EACH STATEMENT EXECUTE FUNCTION tarry();});
my $timeouts = 0;
my $err;
my ($milliseconds, $batches) = (250, 0);
for (1 .. 300)
{
    $err = sql_error($node, qq{SET statement_timeout = '${milliseconds}ms';
        CALL redis_migrate.run('timeout');});
    last if $err eq '';
    # On a busy machine a call may need more time to come to a batch. One that begins anew must not complete.
    my $stored = $node->safe_psql('postgres', q{SELECT coalesce(sum(batches), 0) FROM redis_migrate.runs WHERE migration = 'timeout'});
    $milliseconds = 1500 if $stored == $batches && ($milliseconds *= 2) > 1500;
    $batches = $stored;
    like($err, qr/ERROR:  57014: canceling statement due to statement timeout/, 'statement_timeout is the only error') if $err !~ /57014/;
    $timeouts++;
}
is($err, '', 'calls that are cut short complete the run together');
cmp_ok($timeouts, '>', 1, "after $timeouts timeouts");
is(result('timeout'), $calm, 'with the tables of the undisturbed run');
is(last_run($node, 'timeout', 'state, read'), 'completed|' . KEYS, 'and its counts');

# Cancelled while a trigger sleeps: within a batch.
define('cancelled', 'direct');
$node->safe_psql(
    'postgres', q{
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$;
    CREATE TRIGGER wait AFTER INSERT ON cancelled.s FOR EACH STATEMENT EXECUTE FUNCTION wait();});
my $call = start_sql($node, q{CALL redis_migrate.run('cancelled');});
$node->poll_query_until('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE 'CALL%'});
(undef, $err) = $call->finish;
like($err, qr/57014/, 'cancelled within a batch');
is(last_run($node, 'cancelled', 'state, sqlstate, balanced'), 'failed|57014|t', 'the run is written down');
$node->safe_psql('postgres', q{DROP TRIGGER wait ON cancelled.s; CALL redis_migrate.run('cancelled')});
is(result('cancelled'), $calm, 'and completed by the next CALL');

# Shut down in the middle.
define('shutdown', 'slow');
$proxy->tell('rate 60000');
$call = start_sql($node, q{CALL redis_migrate.run('shutdown');});
wait_until('the first rows', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM shutdown.s') > 0 });
my $time = elapsed(sub { $node->stop('fast') });
(undef, $err) = $call->finish;
like($err, qr/57P01: terminating connection due to administrator command/, 'a fast shutdown ends the run');
cmp_ok($time, '<', 5, 'and does not wait for it');
$node->start;
is(last_run($node, 'shutdown', 'state'), 'interrupted', 'after the start it shows as interrupted');
$proxy->tell('pass');
$node->safe_psql('postgres', q{CALL redis_migrate.run('shutdown')});
is(result('shutdown'), $calm, 'and is completed by the next CALL');

# A target that is dropped during the run.
define('dropped', 'slow');
$proxy->tell('rate 60000');
$call = start_sql($node, q{CALL redis_migrate.run('dropped');});
wait_until('the first rows', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM dropped.s') > 0 });
$node->safe_psql('postgres', 'DROP TABLE dropped.s');
$proxy->tell('pass');
(undef, $err) = $call->finish;
like($err, qr/ERROR:  42P01: target dropped\.s of mapping "s" does not exist/, 'a dropped target is named, with its mapping');
is(last_run($node, 'dropped', 'state, sqlstate'), 'failed|42P01', 'the run is failed');
$node->safe_psql('postgres', 'CREATE TABLE dropped.s (id bigint PRIMARY KEY, v text)');
$node->safe_psql('postgres', q{CALL redis_migrate.run('dropped')});
is(last_run($node, 'dropped', 'state, read, balanced'), 'completed|' . KEYS . '|t', 'created again, the run goes on');
my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM dropped.s');
ok($rows > 0 && $rows < 600, "the new table has what came after: $rows rows");
$node->safe_psql('postgres', q{CALL redis_migrate.run('dropped')});
is(result('dropped'), $calm, 'and a new run completes it');

# Two runs of one migration.
$proxy->tell('hold');
$call = start_sql($node, q{CALL redis_migrate.run('dropped');});
wait_until('the first call', sub { pid_of_call() ne '' });
my $pid = pid_of_call();
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM redis_migrate.runs WHERE pid = $pid AND state = 'running')");
$err = sql_error($node, q{CALL redis_migrate.run('dropped')});
like($err, qr/ERROR:  55006: migration "dropped" is already running\nDETAIL:  .*\b$pid\b/, 'two runs at once: 55006, with the pid of the other');
is(sql_error($node, q{CALL redis_migrate.run('calm')}), '', 'another migration can run meanwhile');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$call->finish;
$proxy->tell('pass');
is(sql_error($node, q{CALL redis_migrate.run('dropped')}), '', 'a session that ends lets others run');

# Cancelled in a statement of the extension, which waits for a row that another session has locked.
$proxy->tell('hold');
$call = start_sql($node, q{CALL redis_migrate.run('dropped');});
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Extension')});
my $locker = start_sql($node, q{BEGIN;
    SELECT FROM redis_migrate.run WHERE run_id = (SELECT max(run_id) FROM redis_migrate.run) FOR UPDATE;
    SELECT pg_sleep(1.5);
    COMMIT;});
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')});
$proxy->tell('pass');
$node->poll_query_until('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'});
(undef, $err) = $call->finish;
$locker->finish;
like($err, qr/ERROR:  57014: canceling statement due to user request/, 'cancelled within a statement of the run\'s own');
is(last_run($node, 'dropped', 'state, sqlstate'), 'failed|57014', 'the run is written down all the same');
is(sql_error($node, q{CALL redis_migrate.run('dropped')}), '', 'and goes on');

# Callers in which a run cannot commit.
my $nowhere = qr/ERROR:  2D000: .*\n(?:DETAIL:.*\n)?HINT:  CALL it on its own/;
like(sql_error($node, q{BEGIN; CALL redis_migrate.run('calm'); COMMIT;}), $nowhere, 'within BEGIN');
my ($stdout, $stderr) = run_command([ 'psql', '-X', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', q{SELECT 1; CALL redis_migrate.run('calm')} ]);
like($stderr, $nowhere, 'with others in one psql -c');
$node->safe_psql('postgres', q{CREATE FUNCTION run() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL redis_migrate.run('calm'); END $$});
like(sql_error($node, 'SELECT run()'), $nowhere, 'from a function');
like(sql_error($node, q{DO $$ BEGIN CALL redis_migrate.run('calm'); EXCEPTION WHEN data_exception THEN NULL; END $$}), $nowhere, 'from a block with EXCEPTION');
like(sql_error($node, q{BEGIN; DO $$ BEGIN CALL redis_migrate.run('calm'); END $$; COMMIT}), $nowhere, 'from DO within BEGIN');
is(sql_error($node, q{DO $$ BEGIN CALL redis_migrate.run('calm'); END $$}), '', 'a DO of its own may commit');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), 0, 'no lock is left');

# on_error => 'stop'.
define('stop', 'direct');
my $stops = 0;
for (1 .. 40)
{
    $err = sql_error($node, q{CALL redis_migrate.run('stop', on_error => 'stop')});
    last if $err eq '';
    like($err, qr/ERROR:  22000: run \d+ stopped: \d+ keys were rejected\nDETAIL:  The first is "b:\d+", rule v: /, 'a run stops at the first batch with a bad key') if !$stops++;
}
is($err, '', "each CALL goes on after the batch: $stops stops");
ok($stops > 1 && $stops <= 20, 'there are as many stops as batches with bad keys');
is(result('stop'), $calm, 'with the result of a run that does not stop');
is(last_run($node, 'stop', 'state, read, rejected'), 'completed|' . KEYS . '|20', 'and its counts');

# Values so large that a page of SCAN takes several batches.
$redis->cli('FLUSHALL');
$redis->cli('EVAL', q{local v = string.rep('0123456789abcdef', 640)
    for i = 1, 200 do redis.call('SET', 'k:' .. i, i % 40 == 0 and 'bad' or i .. v) end}, 0);
$redis->cli('CONFIG', 'SET', 'rdbcompression', 'no');
$node->safe_psql(
    'postgres', q{
    CREATE TABLE texts (id bigint PRIMARY KEY, v text CHECK (v <> 'bad'));
    SELECT redis_migrate.create_migration('texts', 'direct');
    SELECT redis_migrate.add_mapping('texts', 'm', 'k:{id:int}', 'texts', 'SELECT id, value AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}', exclusive => true);});
for (1 .. 10)
{
    $err = sql_error($node, q{SET pg_redis_migrate.batch_size = '64kB'; SET pg_redis_migrate.batch_rows = 5000;
        CALL redis_migrate.run('texts', on_error => 'stop')});
    last if $err eq '';
}
is($err, '', 'a run that stops within a page gets past it');
is($node->safe_psql('postgres', q{SELECT count(*) FROM texts}), 195, 'and stores what is good');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT key) FROM redis_migrate.rejects WHERE migration = 'texts'}), 5, 'and rejects what is bad');

# A batch of which every row is bad.
$redis->cli('FLUSHALL');
$redis->cli('EVAL', 'for i = 1, 5000 do redis.call("SET", "k:" .. i, "bad") end', 0);
$node->safe_psql(
    'postgres', q{
    CREATE TABLE numbers (id bigint PRIMARY KEY, v int);
    CREATE FUNCTION stubborn() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        CASE TG_ARGV[0]
            WHEN 'all' THEN RAISE EXCEPTION 'never %', NEW.id;
            WHEN 'one' THEN IF NEW.id = 4711 THEN RAISE EXCEPTION 'not %', NEW.id; END IF;
            WHEN 'suppress' THEN IF NEW.id % 500 = 0 THEN RETURN NULL; END IF;
            WHEN 'state' THEN RAISE object_not_in_prerequisite_state USING MESSAGE = 'not now';
        END CASE;
        RETURN NEW;
    END $$;
    SELECT redis_migrate.create_migration('numbers', 'direct');
    SELECT redis_migrate.add_mapping('numbers', 'm', 'k:{id:int}', 'numbers', 'SELECT id, value::int AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}', exclusive => true);});
my $large = q{SET pg_redis_migrate.batch_rows = 5000;
    CALL redis_migrate.run('numbers')};
$time = elapsed(sub { $node->safe_psql('postgres', $large) });
is(last_run($node, 'numbers', 'state, read, rejected'), 'completed|5000|5000', 'a batch of bad values is rejected whole');
cmp_ok($time, '<', 60, "5,000 bad values cost $time s");
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT key), min(rule), max(sqlstate) FROM redis_migrate.rejects WHERE migration = 'numbers'}), '5000|5000|v|22P02', 'each with its rule');

$redis->cli('EVAL', 'for i = 1, 5000 do redis.call("SET", "k:" .. i, i) end', 0);
my $trigger = sub { my ($how) = @_;
    $node->safe_psql('postgres', "DROP TRIGGER IF EXISTS stubborn ON numbers; TRUNCATE numbers;
        CREATE TRIGGER stubborn BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION stubborn('$how')"); };
$trigger->('all');
$time = elapsed(sub { $node->safe_psql('postgres', $large) });
is(last_run($node, 'numbers', 'state, rejected'), 'completed|5000', 'a trigger that refuses every row');
cmp_ok($time, '<', 60, "costs $time s");
$trigger->('one');
$node->safe_psql('postgres', $large);
is(last_run($node, 'numbers', 'migrated, rejected'), '4999|1', 'a trigger that refuses one row');
is($node->safe_psql('postgres', q{SELECT key, rule, sqlstate, message FROM redis_migrate.rejects ORDER BY reject_id DESC LIMIT 1}), 'k:4711|P0001|P0001|not 4711', 'by the trigger\'s message');
is($node->safe_psql('postgres', 'SELECT count(*), sum(v) FROM numbers'), '4999|' . (5000 * 5001 / 2 - 4711), 'all others are stored');
$trigger->('suppress');
$node->safe_psql('postgres', $large);
is(last_run($node, 'numbers', 'migrated, rejected, balanced'), '4990|10|t', 'a trigger that suppresses rows');
is($node->safe_psql('postgres', q{SELECT DISTINCT rule FROM redis_migrate.rejects WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs)}), 'not_stored', 'they are rejected as not stored');
is($node->safe_psql('postgres', 'SELECT count(*) FROM numbers'), 4990, 'all others are stored');
$trigger->('state');
like(sql_error($node, $large), qr/ERROR:  55000: mapping "m": not now/, 'an error that is not about the data ends the run');
is($node->safe_psql('postgres', 'SELECT count(*) FROM numbers'), 0, 'with nothing stored');
is(last_run($node, 'numbers', 'state, read'), 'failed|0', 'or counted');
$node->safe_psql('postgres', 'DROP TRIGGER stubborn ON numbers');
$node->safe_psql('postgres', $large);
is(last_run($node, 'numbers', 'state, migrated, rejected'), 'completed|5000|0', 'and goes on when the cause is gone');

done_testing();
