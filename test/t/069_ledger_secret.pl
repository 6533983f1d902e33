# The hashes of ledgers need a secret. Definitions and runs draw it; the functions only read it, so that they work on a
# standby, in a parallel worker and in a read-only transaction.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

my $primary = new_node('primary', init => { allows_streaming => 1 });
my $redis = start_redis();
create_server($primary, 'shop', $redis);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub sql { return $primary->safe_psql('postgres', join(';', @_)); }

my $call = q{SELECT redis_migrate.row_hash(1, 'a'), redis_migrate.row_image(ROW (2, 'b')::record)};
my $none = qr/ERROR:  55000: there is no secret for the hashes of ledgers\n.*\nHINT:  .*define a mapping/;
like(sql_error($primary, $call), $none, 'without a secret there is no hash');
like(sql_error($standby, $call), $none, 'nor on a standby');
like(sql_error($primary, 'SELECT redis_migrate.row_image(ROW (2)::record)'), $none, 'nor an image');
is(sql('SELECT count(*) FROM redis_migrate.ledger_secret'), 0, 'and none is drawn');

sql('CREATE TABLE t (id text PRIMARY KEY, v text)', q{SELECT redis_migrate.create_migration('m', 'shop')},
    q{SELECT redis_migrate.add_mapping('m', 't', 't:{id}', 't', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}')});
is(sql('SELECT count(*) FROM redis_migrate.ledger_secret'), 1, 'the first mapping draws it');
my $hashes = sql($call);
like($hashes, qr/^\\x[0-9a-f]{32}\|-?\d+$/, 'and then there are hashes');
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $call), $hashes, 'the same on a standby');
is(sql('BEGIN READ ONLY', $call, 'COMMIT'), $hashes, 'and in a read-only transaction');

# A parallel worker.
my $setting = sql(q{SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')});
is(sql("SET $setting = on", $call), $hashes, 'and in a parallel worker');
my $rows = q{SELECT redis_migrate.row_hash(i, 'a') AS hash, redis_migrate.row_image(ROW (i)::record) AS image FROM generate_series(1, 100) AS i};
like(sql("SET $setting = on", "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) $rows"), qr/Workers Launched: 1/, 'there is one');
is(sql("SET $setting = on", "SELECT md5(string_agg(r::text, ',' ORDER BY r)) FROM ($rows) AS r"), sql("SELECT md5(string_agg(r::text, ',' ORDER BY r)) FROM ($rows) AS r"),
    'its hashes of many rows are the same');

# If it is lost before a run has relied on it, the run draws another one.
sql('DELETE FROM redis_migrate.ledger_secret');
$redis->cli('SET', 't:1', 'v');
sql(q{CALL redis_migrate.run('m')});
is(sql('SELECT count(*) FROM redis_migrate.ledger_secret') . '|' . last_run($primary, 'm', 'state'), '1|completed', 'a first run draws it, too');

done_testing();
