# The names of levels come from the scan for an earlier one. That must not show: each key has its outcome, whatever
# happens to keys, sessions and servers between the levels.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

my $redis = start_redis();
my $port = $redis->port;
# Levels of 50, 350, 10, 0 and 150 keys: in the last one 20 keys that no pattern owns, and 30 of another database.
$redis->cli('MSET', map { ("parent:$_" => $_) } 1 .. 50);
$redis->cli('MSET', map { ("child:$_" => $_) } 1 .. 350);
$redis->cli('MSET', map { ("brief:$_" => $_) } 1 .. 10);
$redis->cli('MSET', map { ("small:$_" => $_) } 1 .. 100);
$redis->cli('MSET', map { ("other:$_" => $_) } 1 .. 20);
$redis->cli('-n', 1, 'MSET', map { ("small:$_" => $_) } 101 .. 130);
use constant KEYS => 560;

my $node = new_node('levels');
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub calls { return $redis->cli('INFO', 'commandstats') =~ /^cmdstat_scan:calls=(\d+)/m ? $1 : 0; }

sql(qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
    CREATE USER MAPPING FOR PUBLIC SERVER shop;
    CREATE TABLE rows (kind text, id bigint, v text, PRIMARY KEY (kind, id));
    CREATE FUNCTION pace() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN
        PERFORM pg_advisory_xact_lock(7) FROM new_rows AS added WHERE kind = current_setting('test.hold', true)
            AND (SELECT count(*) FROM rows WHERE rows.kind = added.kind) > current_setting('test.after', true)::bigint LIMIT 1; RETURN NULL; END \$\$;
    CREATE TRIGGER pace AFTER INSERT ON rows REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION pace();
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', kind, kind || ':{id:int}', 'rows', format('SELECT %L AS kind, id, value AS v FROM redis_batch', kind),
        key_columns => '{kind, id}', priority => priority)
    FROM (VALUES ('parent', 'critical'), ('child', 'high'), ('brief', 'medium'), ('small', 'low')) AS levels (kind, priority);
    SELECT redis_migrate.add_mapping('shop', 'none', 'none:{id:int}', 'rows', \$\$SELECT 'none' AS kind, id, value AS v FROM redis_batch\$\$,
        key_columns => '{kind, id}', depends_on => '{brief}');});

# Runs with these settings, and returns how often names were asked for.
sub scans
{
    my ($settings) = @_;
    my $before = calls();
    # A page of names is then one step, whatever the pace.
    sql("SET pg_redis_migrate.batch_rows = 100; $settings; CALL redis_migrate.run('shop', workers => 1)");
    is(last_run($node, 'shop', 'state, read, migrated, archived, balanced'), join('|', 'completed', KEYS, KEYS - 20, 20, 't'), "$settings: the sums");
    is(sql('SELECT count(*), count(*) FILTER (WHERE v = id::text) FROM rows'), join('|', (KEYS - 20) x 2), "$settings: the rows");
    return calls() - $before;
}

# Five levels. Only the first one is scanned for; all are if names come at a limited rate.
my $one = scans('SELECT 1');
sql(q{ALTER SERVER shop OPTIONS (ADD max_rate '100000')});
my $five = scans('SELECT 2');
sql(q{ALTER SERVER shop OPTIONS (DROP max_rate)});
is(5 * $one, $five, 'one scan instead of five');

# Runs into an empty table, and does something while a level is being stored, of which so many rows have been stored before.
sub held
{
    my ($kind, $meanwhile, $after) = (@_, 0);
    sql('TRUNCATE rows');
    my $holder = start_sql($node, 'SELECT pg_advisory_lock(7); SELECT pg_sleep(1000)', name => 'holder');
    wait_until('the lock', sub { sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND granted}) == 1 });
    my $run = start_sql($node, "SET pg_redis_migrate.batch_rows = 150; SET test.hold = '$kind'; SET test.after = $after; CALL redis_migrate.run('shop', workers => 1)", name => 'run');
    wait_until("level $kind", sub { sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted}) == 1 });
    $meanwhile->();
    sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'});
    $run->finish;
    return;
}

# Keys that go between the levels have vanished; keys that come are left to the next run.
held('brief', sub { $redis->cli('DEL', 'small:1'); $redis->cli('SET', 'small:1000', 1000); });
is(last_run($node, 'shop', 'state, read, migrated, vanished, balanced'), join('|', 'completed', KEYS, KEYS - 21, 1, 't'), 'a key that went between the levels');
is(sql('SELECT count(*) FROM rows WHERE id = 1000'), 0, 'a key that came between the levels');
scans('SELECT 3');
is(sql('SELECT count(*) FROM rows WHERE id = 1000'), 1, 'comes with the next run');

# A session that ends in the middle of such a level takes the names with it.
held('small', sub { sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'run'}) });
cmp_ok(scans('SELECT 4'), '>', 0, 'the run goes on with a scan');
is(sql(q{SELECT count(*) FROM redis_migrate.runs WHERE migration = 'shop' AND state <> 'completed'}), 0, 'and ends');

# Also if it has stored some of its batches.
held('child', sub { sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'run'}) }, 200);
is(sql(q{SELECT count(*) BETWEEN 1 AND 349 FROM rows WHERE kind = 'child'}), 't', 'a session ends in the middle of a level');
scans('SELECT 5');

# Another process of Redis is scanned anew.
held('brief', sub { $redis->cli('SAVE'); $redis->restart; });
is(last_run($node, 'shop', 'state, read, migrated, archived, balanced'), join('|', 'completed', KEYS, KEYS - 20, 20, 't'), 'Redis was restarted between the levels');
cmp_ok(calls(), '>', 0, 'and scanned again');

done_testing();
