# A Redis on a unix socket, all 16 databases, and the ceiling on keys per second.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('sockets');
my $redis = start_redis(unix => 1);
my $socket = $redis->socket;

# The path names a file on the server, so not everybody may set it.
$node->safe_psql('postgres', 'CREATE ROLE plain LOGIN; GRANT USAGE ON FOREIGN DATA WRAPPER redis_migrate TO plain; GRANT CREATE ON SCHEMA public TO plain');
my $create = "CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$socket')";
like(sql_error($node, $create, extra_params => [ '-U', 'plain' ]), qr/42501: permission denied to set option "host"\nDETAIL:  The option names a file on the server\./, 'a unix socket needs pg_read_server_files');
is(sql_error($node, "CREATE SERVER tcp FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1')", extra_params => [ '-U', 'plain' ]), '', 'a host does not');
$node->safe_psql('postgres', "$create; GRANT USAGE ON FOREIGN SERVER shop TO plain");

# Every database, each with its own keys.
$redis->cli('-n', $_, 'EVAL', 'for i = 1, 100 do redis.call("SET", "k:" .. i, ARGV[1] .. ":" .. i) end', 0, $_) for 0 .. 15;
$node->safe_psql(
    'postgres', q{
    CREATE TABLE item (db int, id bigint, v text, PRIMARY KEY (db, id));
    GRANT ALL ON item TO plain;
    SET ROLE plain;
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT db, id, value AS v FROM redis_batch',
        key_columns => '{db,id}', exclusive => true);
    CALL redis_migrate.run('shop');});
is(last_run($node, 'shop', 'state, read, migrated, balanced'), 'completed|1600|1600|t', '16 databases through a unix socket');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT db) FROM item WHERE v = db || ':' || id}), '1600|16', 'each key in its database');
$node->safe_psql('postgres', q{TRUNCATE item; SET ROLE plain; SELECT redis_migrate.alter_migration('shop', databases => '{3,15}'); CALL redis_migrate.run('shop')});
is($node->safe_psql('postgres', 'SELECT db, count(*) FROM item GROUP BY db ORDER BY db'), "3|100\n15|100", 'or some of them');

# The ceiling.
$redis->cli('FLUSHALL');
$redis->cli('EVAL', 'for i = 1, 3000 do redis.call("SET", "k:" .. i, "0:" .. i) end', 0);
$node->safe_psql('postgres', q{TRUNCATE item; ALTER SERVER shop OPTIONS (ADD max_rate '2000');
    SET ROLE plain; SELECT redis_migrate.alter_migration('shop', databases => '{0}')});
my $seconds = elapsed(sub { $node->safe_psql('postgres', q{SET ROLE plain; CALL redis_migrate.run('shop')}) });
is(last_run($node, 'shop', 'state, read, balanced'), 'completed|3000|t', 'a run under a ceiling reads every key');
cmp_ok($seconds, '>', 1.4, 'no faster than the ceiling allows');
cmp_ok($seconds, '<', 10, 'nor much slower');

# Slow as it is, it commits and can be cancelled.
$node->safe_psql('postgres', q{TRUNCATE item; ALTER SERVER shop OPTIONS (SET max_rate '50')});
my $call = start_sql($node, q{CALL redis_migrate.run('shop');}, user => 'plain', name => 'slow');
wait_until('the first batch', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM item') > 0 });
cmp_ok(elapsed(sub {
    $node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'slow' AND query LIKE 'CALL%'});
    $call->finish; }), '<', 2, 'a pause is cancelled at once');
is(last_run($node, 'shop', 'state, sqlstate, balanced'), 'failed|57014|t', 'with what was stored counted');

done_testing();
