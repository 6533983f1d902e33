# Restores: what the archive and the rejects have is written to other Redis servers, as it was, whatever these take; once,
# however often it is tried; by whom it may be.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

my @debug = (args => [ '--enable-debug-command', 'yes' ]);
my $redis = start_redis(@debug);
my $spare = start_redis(@debug);
my $limited = start_redis(@debug);
my $node = new_node('restore', conf => "pg_redis_migrate.progress_interval = 0\npg_redis_migrate.reconnect_timeout = '20s'");
create_server($node, 'shop', $redis);
create_server($node, 'spare', $spare);
create_server($node, 'limited', $limited);
# As a managed service does, which takes no RESTORE.
$limited->cli('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '+@all', '-@admin', '-@dangerous', '-restore');
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
rows(q{ALTER USER MAPPING FOR CURRENT_USER SERVER limited OPTIONS (ADD username 'app', ADD password 'secret');
    SELECT redis_migrate.create_migration('shop', 'shop');
    CREATE TABLE counters (id int PRIMARY KEY, value int NOT NULL);
    SELECT redis_migrate.add_mapping('shop', 'counters', 'counter:{id:int}', 'counters', 'SELECT id, value::int FROM redis_batch', key_columns => '{id}');
    SELECT redis_migrate.add_check('shop', 'counters', 'small', 'value < 100')});
my $last = '(SELECT max(restore_id) FROM redis_migrate.restores)';
sub restore { my ($options) = @_; return sql_error($node, "CALL redis_migrate.restore('shop', $options)"); }
sub counts { return rows("SELECT state, keys, restored, \"exists\", expired, failed, by_commands FROM redis_migrate.restores WHERE restore_id = $last"); }

# Every type, small and large, in two databases, with expiries.
$redis->cli('EVAL', q{
    local function noise(n) local t = {} for i = 1, n do t[i] = string.char(math.random(0, 255)) end return table.concat(t) end
    redis.call('SET', 'string', 'value') redis.call('SET', 'number', '12345') redis.call('SET', 'binary\0\255key', noise(3000)) redis.call('SET', '', 'empty name')
    redis.call('SET', 'large', string.rep(noise(65536), 40))
    redis.call('RPUSH', 'list', 'a', 'b', 'a', '') redis.call('SADD', 'intset', 1, 2, 300000) redis.call('SADD', 'set', 'x', 'y', noise(100))
    redis.call('HSET', 'hash', 'f', 'v', '', '') redis.call('ZADD', 'zset', '-inf', 'low', '1e-320', 'tiny', '0.1', 'b', '+inf', 'high')
    for i = 1, 3000 do redis.call('RPUSH', 'longlist', i .. noise(400)) redis.call('HSET', 'longhash', 'f' .. i, noise(30)) redis.call('SADD', 'longset', 'm' .. i)
        redis.call('ZADD', 'longzset', i / 3, 'm' .. i) redis.call('XADD', 'longstream', '*', 'n', i) end
    for i = 1, 5 do redis.call('XADD', 'stream', '100-' .. i, 'field', i, 'other', noise(9)) end
    redis.call('XGROUP', 'CREATE', 'stream', 'workers', '0') redis.call('XREADGROUP', 'GROUP', 'workers', 'w1', 'COUNT', 3, 'STREAMS', 'stream', '>')
    redis.call('XACK', 'stream', 'workers', '100-1') redis.call('XGROUP', 'CREATECONSUMER', 'stream', 'workers', 'idle') redis.call('XDEL', 'stream', '100-5')
    for _, key in ipairs({'string', 'hash', 'zset', 'longlist', 'stream'}) do redis.call('PEXPIREAT', key, '4102444800123') end
    for i = 1, 1500 do redis.call('SET', 'many:' .. i, 'value ' .. i, 'PX', 100000000 + i) end
    redis.call('SELECT', 3) redis.call('SET', 'string', 'in another database') redis.call('HSET', 'h3', 'a', 'b')}, 0);
rows(q{CALL redis_migrate.run('shop')});
my $archived = rows('SELECT count(*) FROM redis_migrate.archive');
is($archived, 1500 + 16 + 2, 'what the archive has');

# All keys of a server, by its own digest of all values, and when they expire.
my $expiries = q{local all = {} for _, db in ipairs({0, 3}) do redis.call('SELECT', db)
    for _, key in ipairs(redis.call('KEYS', '*')) do table.insert(all, redis.call('PEXPIRETIME', key) .. ' ' .. key) end end
    table.sort(all) return redis.sha1hex(table.concat(all, '|'))};
sub contents { my ($server) = @_; return $server->cli('DEBUG', 'DIGEST') . $server->cli('EVAL', $expiries, 0); }
# Groups are not part of the digest.
sub groups { my ($server) = @_; return join "\n", map { scalar $server->cli(@$_) } [ 'XINFO', 'GROUPS', 'stream' ], [ 'XPENDING', 'stream', 'workers' ], [ 'XINFO', 'STREAM', 'stream' ]; }
my $expected = contents($redis);

is(restore(q{'spare', dry_run => true}) . counts(), "completed|$archived|$archived|0|0|0|0", 'a dry run says what would be');
is($spare->cli('DBSIZE') + 0, 0, 'and writes nothing');
is(restore(q{'spare'}) . counts(), "completed|$archived|$archived|0|0|0|0", 'a restore');
is(contents($spare), $expected, 'writes the keys as they were');
is(groups($spare), groups($redis), 'and their groups');
is(restore(q{'spare'}) . counts(), "completed|$archived|0|$archived|0|0|0", 'once more there is nothing to do');
$spare->cli('SET', 'string', 'changed');
is(restore(q{'spare', pattern => 'str*'}) . counts(), 'completed|3|0|3|0|0|0', 'what exists stays');
is($spare->cli('GET', 'string'), 'changed', 'as it is');
is(restore(q{'spare', pattern => 'str*', replace => true}) . counts(), 'completed|3|3|0|0|0|0', 'unless it is to be replaced');
is(contents($spare), $expected, 'as it was');

is(restore(q{'limited'}) . counts(), "completed|$archived|$archived|0|0|0|$archived", 'a server that takes no RESTORE gets commands');
is(contents($limited), $expected, 'that write the same');
is(groups($limited), groups($redis), 'and the same groups');

# Rejects: those of the last run; and what is no longer there to be restored.
$redis->cli('EVAL', q{for i = 1, 20 do redis.call('SET', 'counter:' .. i, i * 10) end}, 0);
rows(q{CALL redis_migrate.run('shop')});
is(rows(q{SELECT count(*) FROM redis_migrate.rejects}), 11, 'rejects');
is(restore(q{'spare', source => 'rejects'}) . counts(), 'completed|11|11|0|0|0|0', 'rejects are restored, too');
is($spare->cli('GET', 'counter:20'), '200', 'as they were');
is($spare->cli('EXISTS', 'counter:5'), '0', 'and nothing else');
$redis->cli('SET', 'counter:20', '5');
$redis->cli('SET', 'brief', 'x', 'PX', '6000');
rows(q{CALL redis_migrate.run('shop')});
is(restore(q{'limited', source => 'rejects'}) . counts(), 'completed|10|10|0|0|0|10', 'only those that are open');
wait_until('its expiry', sub { $redis->cli('EXISTS', 'brief') eq '0' });
is(restore(q{'spare', pattern => 'brief'}) . counts(), 'completed|1|0|0|1|0|0', 'a key that has expired stays away');

# A payload that nobody can read costs itself alone.
rows(q{UPDATE redis_migrate.archived_key SET payload = overlay(payload PLACING '\x00' FROM 4) WHERE key_bytes = 'many:7'});
$spare->cli('FLUSHALL');
is(restore(q{'spare', pattern => 'many:*'}) . counts(), 'completed|1500|1499|0|0|1|0', 'a corrupt payload fails');
is(rows("SELECT key, reason FROM redis_migrate.restore_failures WHERE restore_id = $last"), 'many:7|corrupt_payload', 'by name');
is(rows("SELECT outcome, reason, keys FROM redis_migrate.restore_counts WHERE restore_id = $last"), "restored||1499\nfailed|corrupt_payload|1", 'and is counted');

# Cancelled, with a ceiling; then continued. No transaction waits meanwhile.
$spare->cli('FLUSHALL');
rows(q{ALTER SERVER spare OPTIONS (ADD max_rate '250'); ALTER SYSTEM SET pg_redis_migrate.batch_rows = 100; SELECT pg_reload_conf()});
my $slow = start_sql($node, q{CALL redis_migrate.restore('shop', 'spare')}, name => 'slow');
wait_until('some batches', sub { rows("SELECT keys > 200 FROM redis_migrate.restores WHERE restore_id = $last AND state = 'running'") eq 't' });
# A look may meet it between two waits.
wait_until('a wait without a transaction', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'slow'
    AND backend_xid IS NULL AND backend_xmin IS NULL AND wait_event_type = 'Extension'}) == 1 });
like(restore(q{'spare'}), qr/55006: another session restores keys/, 'a second session is turned away');
rows(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'slow'});
like(($slow->finish)[1], qr/57014/, 'cancelled');
my ($id, $state, $done) = split /\|/, rows("SELECT restore_id, state, keys FROM redis_migrate.restores WHERE restore_id = $last");
is($state, 'failed', 'it says so');
rows(q{ALTER SERVER spare OPTIONS (DROP max_rate)});
is(restore(q{'spare'}), '', 'the next call');
is(rows("SELECT restore_id = $id FROM redis_migrate.restores WHERE restore_id = $last"), 't', 'continues it');
my ($keys, $exists) = split /\|/, rows("SELECT keys, \"exists\" FROM redis_migrate.restores WHERE restore_id = $last");
is($keys, $archived + 1, 'each key has one outcome');
cmp_ok($done, '<', $keys, 'it had not been through');
cmp_ok($exists, '<=', 100, 'but for one batch, nothing is written twice');

# The server goes away and comes back in the middle.
rows(q{ALTER SERVER spare OPTIONS (ADD max_rate '250')});
my $patient = start_sql($node, q{CALL redis_migrate.restore('shop', 'spare', pattern => 'many:*', replace => true)});
wait_until('some batches', sub { rows("SELECT keys > 200 FROM redis_migrate.restores WHERE restore_id = $last AND state = 'running'") eq 't' });
$spare->kill9;
wait_until('a word', sub { ($patient->output)[1] =~ /WARNING/ });  # after a second, at the next attempt
$spare->start;
my ($out, $err) = $patient->finish;
rows(q{ALTER SERVER spare OPTIONS (DROP max_rate)});
is(rows("SELECT state, keys, restored, failed FROM redis_migrate.restores WHERE restore_id = $last"), 'completed|1500|1499|1', 'a server that comes back is waited for');
like($err, qr/WARNING:  01000: could not connect.*DETAIL.*HINT:  The restore continues by itself/s, 'with a word');
$spare->kill9;
rows(q{ALTER SYSTEM SET pg_redis_migrate.reconnect_timeout = '1s'; SELECT pg_reload_conf()});
like(restore(q{'spare'}), qr/08006/, 'one that does not is an error');
$spare->start;
$spare->cli('CONFIG', 'SET', 'maxmemory', '1');
like(restore(q{'spare'}), qr/OOM.*HINT:  The restore keeps its position/s, 'as is one that is full');
$spare->cli('CONFIG', 'SET', 'maxmemory', '0');
$spare->cli('REPLICAOF', '127.0.0.1', $redis->port);
like(restore(q{'spare'}), qr/is a replica|not a master|is no master/i, 'and a replica');
$spare->cli('REPLICAOF', 'NO', 'ONE');

# Whose it is.
rows(q{CREATE ROLE other LOGIN; GRANT USAGE ON FOREIGN SERVER spare TO other});
like(sql_error($node, q{SET ROLE other; CALL redis_migrate.restore('shop', 'spare')}), qr/42501/, 'only the owner may restore');
is(rows(q{SET ROLE other; SELECT count(*) FROM redis_migrate.restores}), '0', 'and see it');
like(restore(q{'nowhere'}), qr/42704/, 'no such server');
like(restore(q{'spare', source => 'ashes'}), qr/22023: invalid source "ashes"/, 'no such source');
like(restore(q{'spare', source => 'rows'}), qr/55000: migration "shop" has no mapping whose rows can become keys/, 'nor rows without a way back');
like(sql_error($node, q{BEGIN; CALL redis_migrate.restore('shop', 'spare')}), qr/2D000/, 'not in a transaction');

# Values made of rows, by RESTORE and by commands.
rows(q{
    CREATE TABLE texts (id text PRIMARY KEY, v text, expires_at timestamptz);
    CREATE TABLE carts (id int, item text, n text, PRIMARY KEY (id, item));
    CREATE TABLE boards (id int, member text, score float8, PRIMARY KEY (id, member));
    CREATE TABLE jobs (name text, at bigint, job text, PRIMARY KEY (name, at));
    CREATE TABLE ages (id int PRIMARY KEY, age text);
    SELECT redis_migrate.create_migration('back', 'shop');
    SELECT redis_migrate.add_mapping('back', 'texts', 'text:{id}', 'texts', 'SELECT id, value AS v, expires_at FROM redis_batch', '{id}', databases => '{0}', types => '{string}');
    SELECT redis_migrate.add_mapping('back', 'carts', 'cart:{id:int}', 'carts', 'SELECT id, field AS item, value AS n FROM redis_batch', '{id,item}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('back', 'boards', 'board:{id:int}', 'boards', 'SELECT id, member, score FROM redis_batch', '{id,member}', databases => '{1}', types => '{zset}', expand => 'elements');
    SELECT redis_migrate.add_mapping('back', 'jobs', 'jobs:{name}', 'jobs', 'SELECT name, ordinal AS at, value AS job FROM redis_batch', '{name,at}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('back', 'ages', 'age:{id:int}', 'ages', 'SELECT id, json->>''age'' AS age FROM redis_batch', '{id}', databases => '{0}');
    INSERT INTO texts SELECT i, 'v' || i, CASE WHEN i % 2 = 0 THEN '2100-01-01'::timestamptz END FROM generate_series(1, 1000) AS i;
    INSERT INTO texts VALUES ('none', NULL), ('large', repeat('x', 9000000)), ('larger', repeat('y', 9000000));
    INSERT INTO carts VALUES (1, 'a', '1'), (1, 'b', '2'), (2, 'c', '3'); INSERT INTO boards VALUES (1, 'low', -1.5), (1, 'high', 'infinity');
    INSERT INTO jobs VALUES ('j', 2, 'second'), ('j', 1, 'first'); INSERT INTO ages VALUES (1, 1), (2, 'old')});
sub of_rows { my ($options) = @_; return ($node->psql('postgres', "CALL redis_migrate.restore('back', $options, source => 'rows')"))[2]; }
like(of_rows(q{'spare'}), qr/WARNING:  rows of mapping "ages" are left out: the columns are no plain copies/, 'rows: what has no way back is told');
is(counts(), 'completed|1006|1006|0|0|0|0', 'the others are written');
sub back { my ($server) = @_; return join '|', map { my $answer = $server->cli_lines("$_\n"); $answer =~ tr/\n/ /; $answer } 'GET text:7', 'PEXPIRETIME text:8', 'EXISTS text:none', 'STRLEN text:larger', 'HGETALL cart:1', 'LRANGE jobs:j 0 -1', 'SELECT 1', 'DBSIZE'; }
my $back = 'v7 |4102444800000 |0 |9000000 |a 1 b 2 |first second |OK |';
like(back($spare), qr/^\Q$back\E/, 'as the rows say');
is($spare->cli_lines("SELECT 1\nZRANGE board:1 0 -1 WITHSCORES\n"), "OK\nlow\n-1.5\nhigh\ninf\n", 'also in another database');
rows(q{SELECT redis_migrate.set_reverse_query('back', 'ages', 'SELECT id, ''hash'' AS type, jsonb_build_object(''age'', age::int) AS value, NULL AS expires_at FROM redis_rows')});
like(of_rows(q{'limited'}), qr/WARNING:  key age:x of mapping "ages" is left out: invalid input syntax/, 'a row at fault');
is(counts(), 'completed|1008|1007|0|0|1|1007', 'is counted');
is($limited->cli('HGET', 'age:1', 'age'), '1', 'and the others are written');
like(back($limited), qr/^\Q$back\E/, 'by commands');
my ($guarded) = $limited->cli('INFO', 'commandstats') =~ /cmdstat_pexpire:calls=(\d+)/;
cmp_ok($guarded, '>=', 2000, 'which write to names that do not stay for ever');

# A cluster, which has one database.
my $cluster = start_cluster(masters => 3, replicas => 0);
my $seeds = join ', ', map { '127.0.0.1:' . $_->{node}->port } $cluster->masters;
rows(qq{CREATE SERVER cluster FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on'); CREATE USER MAPPING FOR CURRENT_USER SERVER cluster});
is(restore(q{'cluster'}), '', 'a cluster');
my $in_0 = rows(q{SELECT count(*) FROM redis_migrate.archive WHERE db = 0 AND (expires_at IS NULL OR expires_at > now())}) - 1;
is($cluster->dbsize, $in_0, 'has the keys of database 0');
is(rows("SELECT reason, count(*) FROM redis_migrate.restore_failures WHERE restore_id = $last GROUP BY 1 ORDER BY 1"), "corrupt_payload|1\nno_such_database|2", 'and the others have failed');

done_testing();
