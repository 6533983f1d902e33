# Rows that change hands between keys, rows that were there before, pages of SCAN that are cut, and errors that cannot
# be explained by a column: each key has one outcome, and each row is stored once.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('ownership', conf => 'autovacuum = off');
my $redis = start_redis();
create_server($node, 'shop', $redis);

sub sql { return $node->safe_psql('postgres', join(';', @_)); }

# A row whose key is a value of the key: the account 1 leaves an address, the account 2 takes it.
sql('CREATE TABLE account (email text PRIMARY KEY, id int)',
    q{SELECT redis_migrate.create_migration('hands', 'shop')},
    q{SELECT redis_migrate.add_mapping('hands', 'account', 'acc:{id:int}', 'account',
        'SELECT value AS email, id FROM redis_batch', '{email}')});
$redis->cli('MSET', 'acc:1', 'a@x', 'acc:2', 'b@x');
sql(q{CALL redis_migrate.run('hands')});
$redis->cli('MSET', 'acc:1', 'c@x', 'acc:2', 'a@x');
sql(q{CALL redis_migrate.run('hands')});
is(sql('SELECT * FROM account ORDER BY 1'), "a\@x|2\nc\@x|1", 'an address changes hands within a batch');

# As above, with a batch for each key, whichever of the two comes first.
for my $address ('d', 'e', 'f', 'g')
{
    my $left = sql('SELECT email FROM account WHERE id = 1');
    $redis->cli('MSET', 'acc:1', "$address\@x", 'acc:2', $left);
    $node->safe_psql('postgres', "SET pg_redis_migrate.batch_rows = 1;\nCALL redis_migrate.run('hands');");
    is(sql('SELECT * FROM account ORDER BY 2'), "$address\@x|1\n$left|2", "$left changes hands between batches");
    is(last_run($node, 'hands', 'read, migrated, skipped, balanced'), '2|2|0|t', 'both are migrated');
}

# The lower of two keys that yield the same row has it, in whatever order they come; the other one is folded.
$redis->cli('SET', 'acc:2', sql('SELECT email FROM account WHERE id = 1'));
for my $rows (1, 5000)
{
    $node->safe_psql('postgres', "SET pg_redis_migrate.batch_rows = $rows;\nCALL redis_migrate.run('hands');");
    is(last_run($node, 'hands', 'read, migrated, skipped, balanced'), '2|1|1|t', "the higher key is folded, batches of $rows");
    is(sql('SELECT id FROM account'), '1', 'the lower one has the row');
}

# A run does not delete rows that were there before, unless it has overwritten them.
for my $on_conflict ('nothing', 'fill', 'update')
{
    $redis->cli('FLUSHALL');
    $redis->cli('MSET', 'n:1', 'new', 'n:2', 'new');
    sql("CREATE TABLE before_$on_conflict (id text PRIMARY KEY, v text)",
        "INSERT INTO before_$on_conflict VALUES ('1', 'old')",
        "SELECT redis_migrate.create_migration('$on_conflict', 'shop')",
        "SELECT redis_migrate.add_mapping('$on_conflict', 'n', 'n:{id}', 'before_$on_conflict',
            'SELECT id, value AS v FROM redis_batch', '{id}', on_conflict => '$on_conflict')");
    sql("CALL redis_migrate.run('$on_conflict')");
    $redis->cli('FLUSHALL');
    sql("CALL redis_migrate.run('$on_conflict', prune => true, force => true)");
    is(sql("SELECT * FROM before_$on_conflict"), $on_conflict eq 'update' ? '' : '1|old', "prune after on_conflict '$on_conflict'");
}

# The archive holds keys without a mapping. Once a key is migrated, its older value must not come back from there.
$redis->cli('FLUSHALL');
$redis->cli('MSET', 'arch:1', 'v1', 'other', 'x');
sql('CREATE TABLE arch (id text PRIMARY KEY, v text)', q{SELECT redis_migrate.create_migration('arch', 'shop')});
sql(q{CALL redis_migrate.run('arch')});
is(sql('SELECT key FROM redis_migrate.archive ORDER BY 1'), "arch:1\nother", 'both keys are archived');
sql(q{SELECT redis_migrate.add_mapping('arch', 'arch', 'arch:{id}', 'arch', 'SELECT id, value AS v FROM redis_batch', '{id}')});
$redis->cli('SET', 'arch:1', 'v2');
$redis->cli('SET', 'late', 'x');
sql(q{CALL redis_migrate.run('arch', mapping => 'arch')});
is(last_run($node, 'arch', 'read, migrated, archived, skipped'), '3|1|0|2', 'a run of one mapping archives nothing');
is(sql('SELECT key FROM redis_migrate.archive'), 'other', 'what is migrated leaves the archive');
sql(q{CALL redis_migrate.run('arch', source => 'archive')});
is(sql('SELECT v FROM arch'), 'v2', 'the older value does not come back');

# An error that no single column explains costs its key, not the run.
$redis->cli('FLUSHALL');
$redis->cli('MSET', map { ("fn:$_", "v$_") } 1 .. 20);
sql('CREATE TABLE fn (id text PRIMARY KEY, v text)',
    q{CREATE FUNCTION refuse(t text) RETURNS text LANGUAGE plpgsql AS
        'BEGIN IF t = ''v7'' THEN RAISE ''no %'', t; END IF; RETURN t; END'},
    q{SELECT redis_migrate.create_migration('fn', 'shop')},
    q{SELECT redis_migrate.add_mapping('fn', 'fn', 'fn:{id}', 'fn', 'SELECT id, refuse(value) AS v FROM redis_batch', '{id}')});
sql(q{CALL redis_migrate.run('fn')});
is(last_run($node, 'fn', 'state, read, migrated, rejected'), 'completed|20|19|1', 'a function that raises rejects its key');
is(sql('SELECT key, sqlstate, message FROM redis_migrate.rejects'), 'fn:7|P0001|no v7', 'with its own words');
sql(q{SELECT redis_migrate.alter_mapping('fn', 'fn', query =>
    'SELECT id, (SELECT g::text FROM generate_series(1, CASE WHEN value = ''v9'' THEN 2 ELSE 1 END) AS g) AS v FROM redis_batch')});
sql(q{CALL redis_migrate.run('fn')});
is(sql(q{SELECT key, rule, sqlstate FROM redis_migrate.rejects ORDER BY reject_id DESC LIMIT 1}), 'fn:9|v|21000',
    'a subselect with two rows, by its column');

# Batches that are cut by their size within a page of SCAN: nothing is stored or counted twice when the connection is
# lost again and again.
$redis->cli('FLUSHALL');
# Text that LZF does not shorten, so that batches are cut where their size says.
$redis->cli('EVAL', <<'LUA', 0);
for i = 1, 400 do
  local pieces = {}
  for j = 1, 375 do pieces[j] = redis.sha1hex(i .. ':' .. j) end
  redis.call('SET', 'big:' .. i, table.concat(pieces))
end
LUA
sql('CREATE TABLE hits (id text PRIMARY KEY, n int, length int)',
    q{CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.005); RETURN new; END'},
    'CREATE TRIGGER slow BEFORE INSERT ON hits FOR EACH ROW EXECUTE FUNCTION slow()',
    q{SELECT redis_migrate.create_migration('hits', 'shop')},
    q{SELECT redis_migrate.add_mapping('hits', 'hits', 'big:{id}', 'hits', 'SELECT id, 1 AS n, length(value) AS length FROM redis_batch',
        '{id}', on_conflict => 'n = target.n + excluded.n')});
my $call = start_sql($node, "SET pg_redis_migrate.batch_size = '64kB';\nSET pg_redis_migrate.bytes_in_flight = '64kB';\nCALL redis_migrate.run('hits');");
my $lost = 0;
for my $rows (20, 60, 100)
{
    wait_until("$rows rows", sub { sql('SELECT count(*) FROM hits') >= $rows });
    $lost += $redis->cli('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes') > 0;
}
$call->finish;
is($lost, 3, 'the connection was lost three times');
is(last_run($node, 'hits', 'state, read, migrated, balanced'), 'completed|400|400|t', 'each key is counted once');
is(sql('SELECT count(*), max(n), min(length) FROM hits'), '400|1|15000', 'and stored once');

# As above, with the backend terminated, and resumed by another CALL.
sql('TRUNCATE hits');
$call = start_sql($node, "SET pg_redis_migrate.batch_size = '64kB';\nSET pg_redis_migrate.bytes_in_flight = '64kB';\nCALL redis_migrate.run('hits');");
wait_until('some rows', sub { sql('SELECT count(*) FROM hits') >= 90 });
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL redis_migrate.run%'});
$call->finish;
sql(q{CALL redis_migrate.run('hits')});
is(last_run($node, 'hits', 'state, read, migrated, balanced'), 'completed|400|400|t', 'resumed: each key is counted once');
is(sql('SELECT count(*), max(n) FROM hits'), '400|1', 'resumed: and stored once');

# One look-up finds the owner of a row, also if the statistics are from before the mapping had rows.
$redis->cli('FLUSHALL');
sql(q{SELECT redis_migrate.drop_migration(migration) FROM redis_migrate.migrations}, 'CREATE TABLE later (id text PRIMARY KEY, v text)',
    q{SELECT redis_migrate.create_migration('later', 'shop')},
    q{SELECT redis_migrate.add_mapping('later', 'few', 'few:{id:int}', 'account', 'SELECT value AS email, id FROM redis_batch', '{email}')},
    q{SELECT redis_migrate.add_mapping('later', 'many', 'm:{id:int}', 'later',
        $$SELECT 'a row that is called ' || id AS id, value AS v FROM redis_batch$$, '{id}')});
$redis->cli('EVAL', 'for i = 1, 100 do redis.call("SET", "few:" .. i, "few" .. i .. "@x") end', 0);
sql(q{CALL redis_migrate.run('later')});
sql('ANALYZE redis_migrate.ledger');
$redis->cli('EVAL', 'for i = 1, 5000 do redis.call("SET", "m:" .. i, i) end', 0);
sql(q{CALL redis_migrate.run('later')}) for 1 .. 2;
sessions_over($node);
my ($before, $after) = map { $node->safe_psql('postgres', qq{
    $_;
    SELECT pg_stat_force_next_flush() \\g /dev/null
    SELECT sum(idx_tup_read) FROM pg_stat_all_indexes WHERE relname = 'ledger'}) } '', q{CALL redis_migrate.run('later')};
is(last_run($node, 'later', 'read, migrated, balanced'), '5100|5100|t', 'a further run');
cmp_ok($after - $before, '<=', 4 * 5100, 'reads few entries of the ledger for each key');

# Names with the same hash are told apart: here entries of keys that do not exist have rows that do not exist.
sql(q{INSERT INTO redis_migrate.ledger (mapping_id, row_hash, key_hash, db, row_key, key_bytes)
        SELECT mapping_id, row_hash, key_hash, db, '{nobody}', '\x00' FROM redis_migrate.ledger},
    q{UPDATE redis_migrate.ledger SET row_key = '{"few 1"}' WHERE row_key = '{nobody}' AND key_hash = (SELECT key_hash FROM redis_migrate.ledger WHERE key_bytes = 'm:1')},
    q{UPDATE later SET v = 'x' WHERE id LIKE '% 1'});
$redis->cli('SET', 'm:2', 'changed');
sql(q{CALL redis_migrate.run('later')});
is(sql(q{SELECT mapping, inserted, updated, unchanged, folded, deleted FROM redis_migrate.mapping_counts WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) ORDER BY 1}),
    "few|0|0|100|0|0\nmany|0|2|4998|0|0", 'no row is taken for that of another key with the same hash');
$redis->cli('DEL', 'm:3');
$redis->cli('SET', 'few:1', 'few2@x');
sql(q{CALL redis_migrate.run('later', prune => true)});
is(sql(q{SELECT (SELECT count(*) FROM account WHERE email LIKE 'few%'), (SELECT count(*) FROM later), (SELECT count(*) FROM redis_migrate.ledger)}), '99|4999|5098',
    'rows of keys that are gone go, and entries without a key');

done_testing();
