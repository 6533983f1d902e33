# The reverse feed: what changes in the tables is in Redis, as redis-cli shows it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

my $redis = start_redis();
my $node = new_node('reverse', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on\nmax_prepared_transactions = 4");
my $port = $redis->port;
sub sql { my ($text) = @_; return $node->safe_psql('postgres', $text); }
sub cli { my ($command) = @_; chomp(my $answer = $redis->cli_lines("$command\n")); return $answer; }

sql(qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
    CREATE TABLE sessions (id text PRIMARY KEY, data text, expires_at timestamptz);
    CREATE TABLE customers (id bigint PRIMARY KEY, name text, age int);
    CREATE TABLE carts (id bigint, sku text, count text, PRIMARY KEY (id, sku));
    CREATE TABLE scores (board text, member text, score float8, PRIMARY KEY (board, member));
    CREATE TABLE tags (value bigint, type text, PRIMARY KEY (value, type));
    CREATE TABLE queue (name text, ordinal bigint, job text, PRIMARY KEY (name, ordinal));
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'sessions', 'session:{id}', 'sessions', 'SELECT id, value AS data, expires_at FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('shop', 'customers', 'customer:{id:int}', 'customers', 'SELECT id, json->>''name'' AS name, (json->>''age'')::int AS age FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('shop', 'carts', 'cart:{id:int}', 'carts', 'SELECT id, field AS sku, value AS count FROM redis_batch', '{id,sku}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('shop', 'scores', 'board:{board}', 'scores', 'SELECT board, member, score FROM redis_batch', '{board,member}', databases => '{2}', expand => 'elements');
    SELECT redis_migrate.add_mapping('shop', 'tags', 'tags:{id:int}', 'tags', 'SELECT id AS value, member AS type FROM redis_batch', '{value,type}', databases => '{0}', types => '{set}', expand => 'elements');
    SELECT redis_migrate.add_mapping('shop', 'queue', 'queue:{name}', 'queue', 'SELECT name, ordinal, value AS job FROM redis_batch', '{name,ordinal}', databases => '{0}', expand => 'elements');
});
is(sql(q{SELECT mapping, problem FROM redis_migrate.reverse_problems('shop')}), 'customers|the columns are no plain copies of the value, and it has no reverse query', 'a mapping that has no way back is told');
like(sql_error($node, q{SELECT redis_migrate.start_reverse('shop')}), qr/rows of mapping "customers" cannot become keys/, 'start_reverse names it, too');
for (
    [ 'SELECT id) AS x, (SELECT 1' => qr/syntax error at or near "\)", at character 10/ ], [ 'SELECT 1) + (SELECT 2' => qr/syntax error at or near "\)", at character 9/ ],
    [ 'SELECT id FROM redis_rows; SELECT 1' => qr/holds more than one statement/ ], [ 'SELECT $1' => qr/no parameter \$1, at character 8/ ],
    [ 'DELETE FROM customers' => qr/It is not a SELECT/ ], [ 'DROP TABLE customers' => qr/It is not a SELECT/ ],
    [ 'EXPLAIN SELECT $1' => qr/It is not a SELECT/ ], [ 'SELECT 1 /*' => qr/unterminated/ ], [ '' => qr/holds no statement/ ])
{
    my ($query, $why) = @$_;
    like(sql_error($node, "SELECT redis_migrate.set_reverse_query('shop', 'customers', '$query')"),
        qr/ERROR:  42601: query "\Q$query\E" is not valid\nDETAIL:  .*$why.*\nHINT:  Write one SELECT,/, "no reverse query: $query");
}
like(sql_error($node, q{SELECT redis_migrate.set_reverse_query('shop', 'customers', 'SELECT id FROM redis_rows')}), qr/column r\.type does not exist/, 'a reverse query without a type is refused');
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'customers', 'SELECT id, ''hash'' AS type, jsonb_build_object(''name'', name, ''age'', age) AS value, NULL AS expires_at FROM redis_rows')});
is(sql(q{SELECT count(*) FROM redis_migrate.reverse_problems('shop')}), '0', 'with a reverse query it has one');

cli("SET session:1 one EX 5000"); cli('SET session:2 two'); cli('HSET customer:1 name Ann age 30'); cli('HSET cart:1 apple 2 pear 1'); cli('SADD tags:1 red');
$redis->cli_lines("SELECT 2\nZADD board:b 1 ann 2 bob\n"); cli('RPUSH queue:q a b c');
sql(q{CALL redis_migrate.run('shop')});
sql(q{SELECT redis_migrate.start_reverse('shop')});

# Two operators at once: the second waits for the first.
my $other = start_sql($node, q{BEGIN; SELECT redis_migrate.stop_reverse('shop'), redis_migrate.start_reverse('shop'); SELECT pg_sleep(2); COMMIT}, name => 'other');
wait_until('the first operator', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'other' AND wait_event = 'PgSleep'}) eq '1' });
is(sql_error($node, q{SELECT redis_migrate.start_reverse('shop')}), '', 'two operators at once');
$other->finish;

# Waits until all is sent.
sub drained
{
    my ($what) = @_;
    wait_until("$what: all is sent", sub { sql(q{SELECT waiting = 0 AND NOT needs_full FROM redis_migrate.reverse_feeds}) eq 't' });
    return;
}

sql(q{
    UPDATE sessions SET data = 'uno', expires_at = '2100-01-01 00:00:00+00' WHERE id = '1';
    DELETE FROM sessions WHERE id = '2';
    INSERT INTO sessions VALUES ('3', 'drei', NULL);
    UPDATE customers SET age = 31;
    UPDATE carts SET count = '5' WHERE sku = 'pear';
    DELETE FROM carts WHERE sku = 'apple';
    INSERT INTO scores VALUES ('b', 'cy', 2.5), ('c', 'dan', 1);
    DELETE FROM scores WHERE member = 'ann';
    INSERT INTO tags VALUES (1, 'blue'), (2, 'green');
    DELETE FROM queue WHERE job = 'b';
    INSERT INTO queue VALUES ('q', 100000000, 'd');
});
drained('changes of every kind');
is(cli('GET session:1'), 'uno', 'a changed string');
is(cli('PEXPIRETIME session:1'), '4102444800000', 'and its expiry');
is(cli('EXISTS session:2'), '0', 'a deleted row');
is(cli('GET session:3') . cli('PTTL session:3'), 'drei-1', 'a new row');
is(cli('HGET customer:1 age') . cli('HLEN customer:1'), '312', 'a hash by its reverse query');
is(cli('HGETALL cart:1'), "pear\n5", 'a hash of elements');
is(cli("SELECT 2\nZRANGE board:b 0 -1 WITHSCORES\nZRANGE board:c 0 -1 WITHSCORES"), "OK\nbob\n2\ncy\n2.5\ndan\n1", 'sorted sets in another database');
is(join(',', sort split /\n/, cli('SMEMBERS tags:1')) . cli('SMEMBERS tags:2'), 'blue,redgreen', 'sets');
is(cli('LRANGE queue:q 0 -1'), "a\nc\nd", 'a list');

sql(q{UPDATE sessions SET id = '4' WHERE id = '3'});
drained('another name');
is(cli('EXISTS session:3') . cli('GET session:4'), '0drei', 'another name is another key');

sql(q{BEGIN; INSERT INTO sessions VALUES ('r', 'x'); SAVEPOINT s; INSERT INTO sessions VALUES ('s', 'x'); ROLLBACK TO s; COMMIT; BEGIN; INSERT INTO sessions VALUES ('t', 'x'); ROLLBACK});
sql(q{COPY sessions (id, data) FROM PROGRAM 'echo c,copied' (FORMAT csv)});
sql(q{SET session_replication_role = replica; INSERT INTO sessions VALUES ('u', 'x')});
sql(q{BEGIN; INSERT INTO sessions VALUES ('p', 'x'); PREPARE TRANSACTION 'p'}); sql(q{COMMIT PREPARED 'p'});
drained('transactions');
is(join('', map { cli("EXISTS session:$_") } qw(r s t c u p)), '100111', 'rollbacks, COPY, replicas and prepared transactions');

# Runs write nothing back.
cli('SET session:1 redis'); cli('SET session:new n');
my $sent = sql(q{SELECT sent FROM redis_migrate.reverse_feeds});
sql(q{CALL redis_migrate.run('shop', mapping => 'sessions')});
is(sql(q{SELECT data FROM sessions WHERE id IN ('1', 'new') ORDER BY id}), "redis\nn", 'a run stores what Redis has');
sql(q{INSERT INTO sessions VALUES ('old', 'x', now() + interval '5 seconds')});
drained('a row that expires');
sql(q{SELECT redis_migrate.add_expiry('sessions', 'expires_at')});
wait_until('a sweep has removed it', sub { $node->psql('postgres', q{CALL redis_migrate.sweep('sessions')}); sql(q{SELECT count(*) FROM sessions WHERE id = 'old'}) eq '0' });
drained('a sweep');
is(cli('EXISTS session:old') . ' ' . (sql(q{SELECT sent FROM redis_migrate.reverse_feeds}) - $sent), '0 1', 'neither runs are sent, nor sweeps of what has expired in Redis, too');

sql(q{TRUNCATE tags});
drained('TRUNCATE');
is(cli('EXISTS tags:1') . cli('EXISTS tags:2'), '00', 'TRUNCATE removes the keys');
is(cli('GET session:1'), 'redis', 'and no other');

# Redis is gone: changes wait, up to a bound.
sql(q{ALTER SYSTEM SET pg_redis_migrate.max_outbox_rows = 100}); sql('SELECT pg_reload_conf()');
$redis->stop;
sql(q{UPDATE customers SET age = 40});
wait_until('the error is shown', sub { sql(q{SELECT state || sqlstate FROM redis_migrate.reverse_feeds}) eq 'failed08006' });
sql("INSERT INTO sessions SELECT 'x' || i, 'v' FROM generate_series(1, 500) AS i");
is(sql(q{SELECT needs_full AND waiting < 300 FROM redis_migrate.reverse_feeds}), 't', 'the outbox is bounded');
sql(q{DELETE FROM sessions WHERE id = 'x7'; INSERT INTO sessions VALUES ('after', 'full')});
$redis->restart;
drained('Redis is back');
is(cli('HGET customer:1 age'), '40', 'what waited is sent');
is(join(' ', map { cli("EXISTS session:$_") } qw(x1 x6 x7 x8 x500 after 1 new)), '1 1 0 1 1 1 1 1', 'and all rows');

# Redis has become a replica: EXEC is refused as a whole.
$redis->cli('REPLICAOF', '127.0.0.1', '1');
sql(q{UPDATE customers SET age = 41});
wait_until('the error is shown', sub { sql(q{SELECT sqlstate, message FROM redis_migrate.reverse_feeds}) =~ /^57P03\|Redis at \S+ is a replica, and takes no writes$/ });
$redis->cli('REPLICAOF', 'NO', 'ONE');
drained('a master again');
is(cli('HGET customer:1 age'), '41', 'nothing is lost by a fail-over');

# Live sync passes its own writes over.
sql(q{SELECT redis_migrate.stop_reverse('shop')});
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'redis_migrate_outbox%'}) . sql(q{SELECT count(*) FROM redis_migrate.outbox}), '00', 'stop_reverse removes the triggers');
$redis->stop;
done_testing();
