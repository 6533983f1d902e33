# Names of keys of any length, too long for a B-tree, work wherever short ones do. All of it runs under a publication
# FOR ALL TABLES, which must not make updates and deletes of the extension's tables fail.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib/perl";

use PostgreSQL::Test::Utils;
use PrmTest;
use Test::More;

my $node = new_node('main', conf => "wal_level = logical");
my $redis = start_redis();
create_server($node, 'shop', $redis);

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub counts { return sql(q{SELECT string_agg(concat_ws(' ', coalesce(pattern, '-'), outcome, reason, keys), ', ')
    FROM redis_migrate.run_counts WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) AND outcome <> 'read'}); }

# Two names of each length that differ in their last byte alone, of noise, so that nothing compresses them. With quotes
# and backslashes, which the text of an identity doubles.
my @lengths = (2000, 2700, 10000, 1000000);
$redis->cli('EVAL', q{
    for _, length in ipairs(ARGV) do
        local t = {}
        for i = 1, tonumber(length) do t[i] = string.char(32 + math.random(0, 94)) end
        local noise = table.concat(t)
        for _, last in ipairs({'1', '2'}) do
            for _, prefix in ipairs({'kept:', 'shared:', 'bad:', 'child:', 'quoted:'}) do
                if prefix ~= 'quoted:' or length == '2000' then redis.call('SET', prefix .. noise .. last, 'v' .. last) end
            end
        end
    end
    redis.call('SET', 'parent:v1', '1') redis.call('SET', 'parent:v2', '1')}, 0, @lengths);

sql(q{CREATE PUBLICATION everything FOR ALL TABLES;
    CREATE TABLE shared (id text PRIMARY KEY, length int);
    CREATE TABLE bad (id text PRIMARY KEY CHECK (id = ''));
    CREATE TABLE parent (id text PRIMARY KEY);
    CREATE TABLE child (id text PRIMARY KEY, parent text NOT NULL REFERENCES parent);
    CREATE TABLE quoted (name text PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('long', 'shop');
    SELECT redis_migrate.add_mapping('long', 'shared', 'shared:{name}', 'shared', 'SELECT right(md5(name), 1) || length(name) AS id, length(name) AS length FROM redis_batch', '{id}');
    SELECT redis_migrate.add_mapping('long', 'bad', 'bad:{name}', 'bad', 'SELECT md5(name) AS id FROM redis_batch', '{id}');
    SELECT redis_migrate.add_mapping('long', 'child', 'child:{name}', 'child', 'SELECT md5(name) AS id, value AS parent FROM redis_batch', '{id}');
    SELECT redis_migrate.add_mapping('long', 'parent', 'parent:{name}', 'parent', 'SELECT name AS id FROM redis_batch', '{id}');
    SELECT redis_migrate.add_mapping('long', 'quoted', 'quoted:{name}', 'quoted', 'SELECT repeat(''"'', 300) || name AS name, value AS v FROM redis_batch', '{name}')});

my $small = 'SET pg_redis_migrate.batch_rows = 3;';
sql("$small CALL redis_migrate.run('long', dry_run => true)");
like(counts(), qr/bad:\{name\} rejected bad_id_check 8, .*child:\{name\} migrated inserted 8, .*- archived inserted 8$/, 'a dry run tries them');
is(sql("SELECT count(*), count(DISTINCT key), max(length(key)) FROM redis_migrate.preview('long')"), '36|36|1000008', 'preview shows them');
sql("$small CALL redis_migrate.run('long')");
is(counts(), 'bad:{name} rejected bad_id_check 8, child:{name} migrated inserted 8, parent:{name} migrated inserted 2, quoted:{name} migrated inserted 2, '
    . 'shared:{name} migrated inserted 8, - archived inserted 8', 'each key has the outcome that a short one would have');
is(sql('SELECT count(*), count(DISTINCT key), max(length(key)) FROM redis_migrate.archive'), '8|8|1000006', 'archived whole');
is(sql('SELECT count(*), count(DISTINCT key_hash), count(DISTINCT row_hash), max(octet_length(key_bytes)) FROM redis_migrate.ledger'),
    '20|20|20|1000008', 'in the ledger whole, in its indexes by a hash');
is(sql('SELECT count(*), max(length(key)) FROM redis_migrate.rejects WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs)'), '8|1000005', 'rejected whole');
sql("$small CALL redis_migrate.run('long')");
like(counts(), qr/child:\{name\} migrated unchanged 8, .*quoted:\{name\} migrated unchanged 2, shared:\{name\} migrated unchanged 8, - archived unchanged 8/, 'found again');

# A key of each length goes; one changes.
$redis->cli('EVAL', q{
    for _, key in ipairs(redis.call('KEYS', 'shared:*1')) do redis.call('DEL', key) end
    for _, key in ipairs(redis.call('KEYS', 'quoted:*')) do redis.call('SET', key, 'new') end
    for _, key in ipairs(redis.call('KEYS', 'kept:*1')) do redis.call('SET', key, 'new') end}, 0);
sql("CALL redis_migrate.run('long', prune => true)");
like(counts(), qr/quoted:\{name\} migrated updated 2, shared:\{name\} migrated unchanged 4, - archived unchanged 4, - archived updated 4/, 'changed where they are known by their names');
is(sql('SELECT rows_deleted FROM redis_migrate.runs ORDER BY run_id DESC LIMIT 1'), 4, 'pruned');
is(sql('SELECT count(*), (SELECT count(*) FROM redis_migrate.ledger) FROM shared'), '4|16', 'with their entries in the ledger');

# From the archive, in batches whose positions are such names; values there that are kept in chunks.
$redis->cli('EVAL', q{for _, key in ipairs(redis.call('KEYS', 'kept:*2')) do
    local t = {} for i = 1, 200000 do t[i] = tostring(math.random()) end redis.call('SET', key, table.concat(t)) end}, 0);
sql("CALL redis_migrate.run('long')");
is(sql('SELECT count(DISTINCT key_bytes), max(octet_length(key_bytes)) FROM redis_migrate.archive_chunks'), '4|1000006', 'chunks of keys with long names');
sql(q{CREATE TABLE kept (id text PRIMARY KEY, v text);
    SELECT redis_migrate.add_mapping('long', 'kept', 'kept:{name}', 'kept', 'SELECT md5(name) AS id, left(value, 3) AS v FROM redis_batch', '{id}');
    SET pg_redis_migrate.batch_rows = 3; CALL redis_migrate.run('long', source => 'archive')});
is(sql('SELECT count(*) FROM kept'), 8, 'mapped from the archive');
sql("CALL redis_migrate.run('long')");
is(sql('SELECT count(*) FROM redis_migrate.archive'), 0, 'and taken out of it, once they are migrated from Redis');

# Other changes that the extension makes to its own tables.
sql(q{SELECT redis_migrate.create_rate_limit('api', 10, '1 minute', storage => 'table');
    SELECT redis_migrate.add_rate_limit_deny('api', 'a', '1 hour'); SELECT redis_migrate.add_rate_limit_deny('api', 'a', '2 hours');
    SELECT redis_migrate.drop_rate_limit_deny('api', 'a'); SELECT redis_migrate.rate_limit('api', 'b'); SELECT redis_migrate.rate_limit('api', 'b');
    SELECT redis_migrate.drop_rate_limit('api');
    CREATE MATERIALIZED VIEW lengths AS SELECT length, count(*) AS n FROM shared GROUP BY length;
    CREATE UNIQUE INDEX ON lengths (length);
    SELECT redis_migrate.add_refresh('lengths', every => '1 second');
    SELECT redis_migrate.mark_stale('lengths')});
sql('CALL redis_migrate.maintain()');
is(sql('SELECT count(*) FROM redis_migrate.stale_mark'), 0, 'a refresh deletes the marks that it has seen');
sql(q{SELECT redis_migrate.drop_migration('long')});
is(sql('SELECT count(*) FROM redis_migrate.ledger'), 0, 'everything can be dropped');
done_testing();
