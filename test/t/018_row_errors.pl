# An error that the row of a key raises costs only that key; an error of the server or of the mapping ends the run. A
# batch with many bad rows takes several transactions, and a failure between them neither loses nor doubles a key.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('main', conf => "pg_redis_migrate.batch_rows = 5000\nlog_statement = none");
my $redis = start_redis();
create_server($node, 'shop', $redis);
$node->safe_psql('postgres', q{
    CREATE FUNCTION raise_state() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.v ~ '^[0-9A-Z]{5}$' THEN RAISE EXCEPTION 'state %', NEW.v USING ERRCODE = NEW.v; END IF;
        RETURN NEW; END $$;
    CREATE TABLE t (id text PRIMARY KEY, v text, xact text DEFAULT pg_current_xact_id()::text);
    CREATE TRIGGER raise_state BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION raise_state();
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'values', 'v:{id}', 't', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}')});

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub outcomes
{
    my ($migration) = @_;
    return sql(qq{SELECT string_agg(concat_ws(' ', outcome, sum), ', ' ORDER BY outcome) FROM (SELECT outcome, sum(keys) FROM redis_migrate.run_counts
        WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs WHERE migration = '$migration') GROUP BY outcome) AS c});
}

sub rejected
{
    return sql(q{SELECT string_agg(concat_ws(' ', key, sqlstate), ', ' ORDER BY key COLLATE "C") FROM redis_migrate.rejects
        WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs)});
}

# Each in a batch with good keys.
my @of_rows = qw(21000 22012 23514 38000 44000 54000 P0001 P0002 P0004 MY001 42X99 42501 42883 0A000 55000);
$redis->cli('SET', "v:good$_", 'good') for 1 .. 5;
$redis->cli('SET', "v:$_", $_) for @of_rows;
my $rejects = join ', ', sort map { "v:$_ $_" } @of_rows;
sql(q{CALL redis_migrate.run('shop', dry_run => true)});
is(outcomes('shop'), 'migrated 5, read 20, rejected 15', 'a dry run rejects the keys whose rows raise something');
is(sql(q{SELECT string_agg(outcome || ' ' || n, ', ' ORDER BY outcome) FROM (SELECT outcome, count(*) AS n FROM redis_migrate.preview('shop') GROUP BY outcome) AS p}),
    'migrated 5, rejected 15', 'preview as well');
sql(q{CALL redis_migrate.run('shop')});
is(outcomes('shop'), 'migrated 5, read 20, rejected 15', 'a run rejects them');
is(rejected(), $rejects, 'with their SQLSTATEs');
$redis->cli('DEL', map { "v:$_" } @of_rows);

for my $state (qw(08006 25006 40001 53100 55P03 57P03 58030 XX000))
{
    $redis->cli('SET', 'v:bad', $state);
    like(sql_error($node, q{CALL redis_migrate.run('shop')}), qr/ERROR:  $state: state $state/, "$state ends the run");
    is(last_run($node, 'shop', 'state, sqlstate'), "failed|$state", 'which says so');
}
$redis->cli('FLUSHALL');

# An error that every key raises is the mapping's.
$redis->cli('SET', "v:$_", '42883') for 1 .. 10;
like(sql_error($node, q{CALL redis_migrate.run('shop')}), qr/ERROR:  42883: mapping "values": state 42883\n.*HINT: .*alter_mapping.*\nCONTEXT:  PL\/pgSQL function/s,
    'what fails alike for every key ends the run, names the mapping, says what to do and where it was raised');
$redis->cli('FLUSHALL');

# Rights: those of a row, and those that the mapping lacks.
$node->safe_psql('postgres', q{
    CREATE ROLE mover LOGIN;
    GRANT USAGE ON FOREIGN SERVER shop TO mover;
    CREATE USER MAPPING FOR mover SERVER shop;
    CREATE TABLE secured (id text PRIMARY KEY, v text);
    ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
    CREATE POLICY visible ON secured USING (v <> 'secret');
    GRANT SELECT, INSERT, UPDATE, DELETE ON secured TO mover;
    SET SESSION AUTHORIZATION mover;
    SELECT redis_migrate.create_migration('secured', 'shop');
    SELECT redis_migrate.add_mapping('secured', 'rows', 'v:{id}', 'secured', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}')});
$redis->cli('SET', "v:$_", $_ eq 'c' ? 'secret' : 'open') for 'a' .. 'e';
my $as_mover = q{SET SESSION AUTHORIZATION mover; };
$node->safe_psql('postgres', "$as_mover CALL redis_migrate.run('secured')");
is(outcomes('secured'), 'migrated 4, read 5, rejected 1', 'a row that row security refuses is rejected');
is(rejected(), 'v:c 42501', 'by its SQLSTATE');
$node->safe_psql('postgres', q{REVOKE INSERT ON secured FROM mover; DELETE FROM secured});
like(sql_error($node, "$as_mover CALL redis_migrate.run('secured')"), qr/ERROR:  42501: mapping "rows": permission denied for table secured/,
    'a right that the mapping lacks ends the run and names the mapping');
$redis->cli('FLUSHALL');

# Elements of a key.
$node->safe_psql('postgres', q{
    CREATE TABLE e (id text, field text, v text, PRIMARY KEY (id, field));
    CREATE TRIGGER raise_state BEFORE INSERT OR UPDATE ON e FOR EACH ROW EXECUTE FUNCTION raise_state();
    SELECT redis_migrate.create_migration('elements', 'shop');
    SELECT redis_migrate.add_mapping('elements', 'fields', 'h:{id}', 'e', 'SELECT id, field, value AS v FROM redis_batch', key_columns => '{id,field}',
        expand => 'elements', atomic => 'element')});
$redis->cli('HSET', 'h:1', map { ("f$_", $_ % 100 == 50 ? ('MY001', '44000', '42883')[ $_ / 100 % 3 ] : 'good') } 0 .. 999);
$redis->cli('HSET', 'h:2', 'f', 'good');
$redis->cli('HSET', 'h:3', 'f', 'good');
sql(q{CALL redis_migrate.run('elements')});
is(sql('SELECT id, count(*) FROM e GROUP BY id ORDER BY id'), "1|990\n2|1\n3|1", 'the good elements are stored');
is(sql(q{SELECT string_agg(concat_ws(' ', sqlstate, n), ', ' ORDER BY sqlstate) FROM (SELECT sqlstate, count(*) AS n FROM redis_migrate.rejects
    WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) AND partial GROUP BY sqlstate) AS r}), '42883 3, 44000 3, MY001 4', 'the bad ones are rejected, each once');
is(outcomes('elements'), 'migrated 2, read 3, rejected 1', 'the key counts as rejected');
$redis->cli('FLUSHALL');

# Every second of 1,000 rows is bad, and one fails the run in the middle, as a crash would end it.
sql('TRUNCATE t');
$redis->cli('EVAL', q{for i = 1000, 1999 do redis.call('SET', 'v:' .. i, i % 2 == 0 and 'good' or 'MY001') end redis.call('SET', 'v:1500', 'XX000')}, 0);
like(sql_error($node, q{CALL redis_migrate.run('shop')}), qr/ERROR:  XX000/, 'a batch of 1,000 keys is ended by an error');
my $stored = sql('SELECT count(*) FROM t');
cmp_ok($stored, '>', 100, "of its keys $stored are stored");
is(last_run($node, 'shop', 'balanced'), 't', 'and counted');
$redis->cli('SET', 'v:1500', 'good');
sql(q{CALL redis_migrate.run('shop')});
is(outcomes('shop'), 'migrated 500, read 1000, rejected 500', 'the next CALL gives each of the others its outcome');
is(sql('SELECT count(*) FROM t'), 500, 'no row is missing');
is(sql(q{SELECT count(*), count(DISTINCT key) FROM redis_migrate.rejects WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs WHERE migration = 'shop')}), '500|500', 'no reject is doubled');
cmp_ok(sql('SELECT max(n) FROM (SELECT count(DISTINCT xmin::text) AS n FROM t GROUP BY xact) AS x'), '<=', 64, 'no transaction has kept more than 64 subtransactions');
is(sql('SELECT count(*) FROM redis_migrate.page_key'), 0, 'nothing is left of what was noted between transactions');

# The same holds when rows that wait for others are tried again.
$node->safe_psql('postgres', q{
    CREATE TABLE parent (id text PRIMARY KEY);
    CREATE TABLE child (id text PRIMARY KEY, parent text REFERENCES parent, v text);
    CREATE TRIGGER raise_state BEFORE INSERT OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION raise_state();
    SELECT redis_migrate.create_migration('family', 'shop');
    SELECT redis_migrate.add_mapping('family', 'children', 'c:{id}', 'child', 'SELECT id, CASE WHEN id::int % 4 = 0 THEN ''p'' ELSE ''q'' END AS parent, value AS v FROM redis_batch',
        key_columns => '{id}');
    SELECT redis_migrate.add_mapping('family', 'parents', 'p:{id}', 'parent', 'SELECT id FROM redis_batch', key_columns => '{id}')});
$redis->cli('FLUSHALL');
$redis->cli('EVAL', q{for i = 1000, 1499 do redis.call('SET', 'c:' .. i, i % 2 == 0 and 'good' or 'MY001') end redis.call('SET', 'p:p', '')}, 0);
sql(q{CALL redis_migrate.run('family')});
is(outcomes('family'), 'migrated 126, read 501, rejected 375', 'keys that waited for their parent have one outcome each');
is(last_run($node, 'family', 'state, balanced'), 'completed|t', 'the sums agree');
is(sql('SELECT count(*) FROM redis_migrate.deferred'), 0, 'none waits any more');

done_testing();
