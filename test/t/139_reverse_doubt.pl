# The reverse feed in doubt: names that make no key, or that of others; a Redis that has lost batches; tables that change.

use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

my $redis = start_redis();
my $node = new_node('doubt', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
my $port = $redis->port;
sub sql { my ($text) = @_; return $node->safe_psql('postgres', $text); }
sub cli { my ($command) = @_; chomp(my $answer = $redis->cli_lines("$command\n")); return $answer; }

sub drained
{
    my ($what) = @_;
    wait_until("$what: all is sent", sub { sql(q{SELECT waiting = 0 AND NOT needs_full AND state = 'running' FROM redis_migrate.reverse_feeds}) eq 't' });
    return;
}

sql(qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
    CREATE TABLE prices (n numeric PRIMARY KEY, v text);
    CREATE TABLE visits (day date, host inet, who uuid, v text, PRIMARY KEY (day, host, who));
    CREATE TABLE months (m date PRIMARY KEY, v text);
    CREATE TABLE things (id text PRIMARY KEY, v text);
    CREATE TABLE specials (id text PRIMARY KEY, v text);
    CREATE TABLE pairs (a text, b text, v text, PRIMARY KEY (a, b));
    CREATE TABLE parts (id bigint PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
    CREATE TABLE bags (id bigint, f text, v int, PRIMARY KEY (id, f));
    CREATE TABLE groups (id bigint, m text, s float8, PRIMARY KEY (id, m));
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'prices', 'price:{n:number}', 'prices', 'SELECT n, value AS v FROM redis_batch', '{n}', databases => '{0}', exclusive => true);
    SELECT redis_migrate.add_mapping('shop', 'visits', 'visit:{day:date}:{host:inet}:{who:uuid}', 'visits', 'SELECT day, host, who, value AS v FROM redis_batch', '{day,host,who}', databases => '{0}', exclusive => true);
    SELECT redis_migrate.add_mapping('shop', 'months', 'month:{m:month}', 'months', 'SELECT m, value AS v FROM redis_batch', '{m}', databases => '{0}', exclusive => true);
    SELECT redis_migrate.add_mapping('shop', 'things', 'thing:{id}', 'things', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('shop', 'specials', 'thing:special:{id}', 'specials', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('shop', 'pairs', 'pair:{a}:{b}', 'pairs', 'SELECT a, b, value AS v FROM redis_batch', '{a,b}', databases => '{0}');
    SELECT redis_migrate.add_mapping('shop', 'parts', 'part:{id:int}', 'parts', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('shop', 'groups', 'group:{id:int}', 'groups', 'SELECT id, member AS m, score AS s FROM redis_batch', '{id,m}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('shop', 'bags', 'bag:{id:int}', 'bags', 'SELECT id, field AS f, value::int AS v FROM redis_batch', '{id,f}', databases => '{0}', expand => 'elements', atomic => 'element',
        types => '{hash}');
    SELECT redis_migrate.set_reverse_query('shop', 'bags', 'SELECT id, ''hash'' AS type, jsonb_object_agg(f, v) AS value, NULL AS expires_at FROM redis_rows GROUP BY id');
});

my $visit = 'visit:2024-02-29:10.0.0.1:6ba7b810-9dad-11d1-80b4-00c04fd430c8';
cli("SET price:1.5 a"); cli("SET $visit a"); cli('SET month:2024-02 a'); cli('SET thing:1 a'); cli('SET thing:special:1 s'); cli('SADD group:1 x'); cli('ZADD group:2 1 y');
cli("SET part:$_ a") for 1, 2, 11;
cli('HSET bag:1 good 1 bad x'); cli('HSET bag:2 good 1');
sql(q{CALL redis_migrate.run('shop')});
sql(q{SELECT redis_migrate.start_reverse('shop', 'thing:{id}')});
sql(q{UPDATE things SET v = 'b'});
drained('one pattern');
is(cli('GET thing:1'), 'b', 'one pattern is fed');
sql(q{SELECT redis_migrate.start_reverse('shop')});
sql(q{UPDATE prices SET v = 'b', n = 1.50; UPDATE visits SET v = 'b'; UPDATE months SET v = 'b'; UPDATE parts SET v = 'b'; INSERT INTO groups VALUES (1, 'z', NULL), (2, 'z', 5)});
drained('patterns that were started later');
is(cli('GET price:1.5') . cli('EXISTS price:1.50'), 'b0', 'a number is spelled as in its key');
is(cli("GET $visit") . cli('GET month:2024-02'), 'bb', 'dates, addresses, uuids and months are, too');
is(join(',', sort split /\n/, cli('SMEMBERS group:1')) . cli('ZRANGE group:2 0 -1'), "x,zy\nz", 'sets and sorted sets of one mapping stay apart');

sql(q{INSERT INTO things VALUES ('special:2', 'no'), ('', 'no'); INSERT INTO pairs VALUES ('a:b', 'c', 'no'), ('a', 'b:c', 'yes'); INSERT INTO months VALUES ('2024-03-05', 'no')});
drained('names that make no key');
is(cli('EXISTS thing:special:2') . cli('EXISTS thing:') . cli('GET pair:a:b:c') . cli('EXISTS month:2024-03'), '00yes0', 'rows do not get the keys of others');
is(sql(q{SELECT unfit FROM redis_migrate.reverse_feeds}), '4', 'and are counted');

# Redis alone has elements that runs have rejected.
sql(q{UPDATE bags SET v = 2});
drained('a key of rejected elements');
is(cli('HGET bag:1 bad') . cli('HGET bag:1 good') . cli('HGET bag:2 good'), 'x12', 'it stays as it is');
is(sql(q{SELECT key, sqlstate FROM redis_migrate.reverse_rejects}) . sql(q{SELECT unfit FROM redis_migrate.reverse_feeds}), 'bag:1|550004', 'and its row is told, so that nobody takes it for written');
sql(q{UPDATE redis_migrate.reject SET settled_at = now() WHERE key_bytes = 'bag:1'; UPDATE bags SET v = 3});
drained('no such elements any more');
is(cli('HGET bag:1 good') . cli('EXISTS bag:1') . sql(q{SELECT count(*) FROM redis_migrate.reverse_rejects}), '310', 'then it is written');

cli('HSET thing:hash f 1');
sql(q{INSERT INTO things VALUES ('hash', NULL)});
drained('a row that does not tell a value');
is(cli('HGET thing:hash f') . sql(q{SELECT unfit FROM redis_migrate.reverse_feeds}), '15', 'does not remove a key of another type');
my ($sent, $unfit) = split /\|/, sql(q{SELECT sent, unfit FROM redis_migrate.reverse_feeds});
sql(q{BEGIN; UPDATE things SET v = NULL WHERE id = 'hash'; UPDATE things SET v = NULL WHERE id = 'hash'; UPDATE things SET v = 'c' WHERE id = '1'; COMMIT});
drained('changes of one row');
is(sql(q{SELECT sent, unfit FROM redis_migrate.reverse_feeds}), ($sent + 1) . '|' . ($unfit + 2), 'each change is counted');
sql(q{INSERT INTO redis_migrate.outbox_gap (mapping_id, reason) SELECT mapping_id, 'a test' FROM redis_migrate.mapping WHERE mapping = 'things'});
drained('all rows');
is(sql(q{SELECT sent, unfit FROM redis_migrate.reverse_feeds}), ($sent + 1) . '|' . ($unfit + 2), 'a pass over all rows counts none');
sql(q{DELETE FROM things WHERE id = 'hash'});
drained('a row that is gone');
is(cli('EXISTS thing:hash'), '0', 'does');

sql(q{TRUNCATE things});
drained('TRUNCATE');
is(cli('EXISTS thing:1') . cli('EXISTS thing:special:1'), '01', 'keys of a more specific pattern stay');
sql(q{DROP TABLE parts_1});
wait_until('the keys of a partition that was dropped are gone', sub { cli('EXISTS part:1') . cli('EXISTS part:2') . cli('EXISTS part:11') eq '001' });
sql(q{TRUNCATE parts_2});
wait_until('and of one that was truncated', sub { cli('EXISTS part:11') eq '0' });

# Values that are larger than a batch.
sql(q{INSERT INTO things SELECT 'large' || i, repeat('x', 5000000) FROM generate_series(1, 6) AS i});
drained('large values');
is(join(' ', map { cli("STRLEN thing:large$_") } 1 .. 6), join(' ', (5000000) x 6), 'values beyond a batch');

# Redis has lost batches: it restarts with an older state.
cli("SET thing:large$_ 1") for 1 .. 6; cli("DEL $visit"); cli('SET redis_migrate:position:{shop} 1');
sql(q{INSERT INTO specials VALUES ('n', 'n')});
wait_until('another writer of the position is an error', sub { sql(q{SELECT count(*) FROM redis_migrate.reverse_feeds WHERE sqlstate = '40001'}) eq '1' or cli("EXISTS $visit") eq '1' });
drained('lost batches');
is(cli("GET $visit") . cli('STRLEN thing:large6') . cli('GET thing:special:n'), 'b5000000n', 'all rows are written again');
sql(q{CALL redis_migrate.run('shop')});
is(sql(q{SELECT count(*) FROM redis_migrate.archive WHERE key LIKE 'redis_migrate:%'}), '0', 'runs pass the position over');

# Definitions and roles.
like(sql_error($node, q{SELECT redis_migrate.alter_mapping('shop', 'things', no_row => 'skip')}), qr/changes of mapping "things" go back to Redis/, 'a mapping that is fed is not altered');
like(sql_error($node, q{SELECT redis_migrate.drop_mapping('shop', 'things')}), qr/changes of mapping "things" go back to Redis/, 'nor dropped');
sql(q{CREATE ROLE stranger; GRANT USAGE ON SCHEMA redis_migrate TO stranger});
like(sql_error($node, q{SET ROLE stranger; CALL redis_migrate.feed_redis('shop')}), qr/shop/, 'another role does not feed');
like(sql_error($node, q{CALL redis_migrate.feed_redis('shop')}), qr/is under way/, 'nor does a second process');
is(sql(q{SELECT state, sqlstate FROM redis_migrate.reverse_feeds}), 'running|', 'which does not show as a failure');
sql(q{INSERT INTO things SELECT 'many' || i, i FROM generate_series(1, 3000) AS i; CALL redis_migrate.feed_redis('shop', until_drained => true)});
is(cli('GET thing:many3000'), '3000', 'but it can wait until all is sent');

# The round trip: what rows would write back is what Redis has.
is(sql(q{CALL redis_migrate.check_reverse('shop')}) =~ /^[1-9]\d+\|0$/, 1, 'no key differs');
cli('SADD thing:set x');
sql(q{INSERT INTO things VALUES ('set', NULL)});
drained('a row that does not tell what its key is');
is(sql(q{CALL redis_migrate.check_reverse('shop', 'thing:{id}', 10000)}), sql('SELECT count(v) FROM things') . '|0', 'a row that does not tell what its key is differs from none, nor does it count');
cli('SET thing:many1 other'); cli('EXPIRE thing:many2 100'); cli('DEL thing:special:n');
my ($status, $out, $err) = $node->psql('postgres', q{CALL redis_migrate.check_reverse('shop', keys => 10000)});
like($out, qr/\|3$/, 'three keys differ: a value, an expiry, and one that is gone');
like($err, qr/WARNING:  2 keys of mapping "things" are not what its rows would write back\nDETAIL:  Letters and digits are masked: thing:xxxxx, thing:xxxxx\./, 'a warning names them, masked');
sql(q{UPDATE things SET v = v WHERE id IN ('many1', 'many2'); UPDATE specials SET v = v; CALL redis_migrate.feed_redis('shop', true)});
like(sql(q{CALL redis_migrate.check_reverse('shop', keys => 10000)}), qr/\|0$/, 'and none after they are sent');

sql(q{SELECT redis_migrate.set_reverse_query('shop', 'specials', 'SELECT upper(id) AS id, ''string'' AS type, v AS value, NULL AS expires_at FROM redis_rows')});
# The feed looks at the definition once a second.
wait_until('a query that yields other names is an error', sub { sql(q{UPDATE specials SET v = v WHERE id = 'n'}); sql(q{SELECT key, message FROM redis_migrate.reverse_rejects}) =~ /^thing:special:n\|the reverse query of mapping "specials" yields a name that is not one of redis_rows/ });
sql(q{UPDATE specials SET v = 'm' WHERE id = 'n'});
drained('a row that is rejected');
is(cli('GET thing:special:n'), 'n', 'and no key is removed by it');
sql(q{INSERT INTO things VALUES ('beside', 'b')});
wait_until('other mappings go on', sub { cli('GET thing:beside') eq 'b' });
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'specials', 'SELECT id, current_setting(''no.such'') AS type, v AS value, NULL AS expires_at FROM redis_rows')});
wait_until('a query that fails is an error', sub { sql(q{SELECT state || sqlstate FROM redis_migrate.reverse_feeds}) eq 'failed42704' });
sql(q{INSERT INTO things VALUES ('beside2', 'b')});
wait_until('other mappings go on', sub { cli('GET thing:beside2') eq 'b' });
like(sql_error($node, q{CALL redis_migrate.feed_redis('shop')}), qr/is under way/, 'in the same process');
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'specials', NULL)});
wait_until('the query is taken back', sub { sql(q{SELECT count(*) FROM redis_migrate.reverse_rejects}) eq '0' });
drained('what it refused');
is(cli('GET thing:special:n'), 'm', 'it goes on');
sql(q{ALTER TABLE specials RENAME id TO name; INSERT INTO specials VALUES ('o', 'o'); ALTER TABLE specials RENAME name TO id});
drained('a column that had another name for a while');
is(cli('GET thing:special:o'), 'o', 'writes go on when a column is renamed, and are not lost');
# The clock of the server, which may be ahead, tells which keys have expired.
{
    local @ENV{qw(LD_PRELOAD PRM_CLOCK_AHEAD_MS)} = ("$FindBin::Bin/../modules/bridge/other_clock.so", 3_600_000);
    my $ahead = start_redis();
    sql(q{CREATE SERVER ahead FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '} . $ahead->port . q{'); CREATE TABLE early (id text PRIMARY KEY, v text, expires_at timestamptz);
        SELECT redis_migrate.create_migration('ahead', 'ahead'); SELECT redis_migrate.add_mapping('ahead', 'early', 'early:{id}', 'early', 'SELECT id, value AS v, expires_at FROM redis_batch', '{id}', databases => '{0}');
        INSERT INTO early VALUES ('gone', 'x', now() + interval '30 minutes')});
    is(sql(q{CALL redis_migrate.check_reverse('ahead')}), '1|0', 'a row that has expired by the clock of the server is no key');
    $ahead->stop;
}
sql(q{SELECT redis_migrate.drop_migration('shop')});
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'redis_migrate_outbox%'}), '0', 'drop_migration removes the triggers');
$redis->stop;
done_testing();
