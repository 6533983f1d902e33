# Large values in the archive: kept in chunks, read again chunk by chunk, saved by pg_dump.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib/perl";

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('main', conf => "max_wal_size = 4GB\nshared_buffers = 16MB");  # which count as memory of a session
my $redis = start_redis();
my $mb = 60;
# With assertions PostgreSQL wipes what it frees, so that a copy more stays in memory.
my $spare = $node->safe_psql('postgres', 'SHOW debug_assertions') eq 'on' ? $mb : 0;
create_server($node, 'shop', $redis);
$node->safe_psql('postgres', q{
    CREATE EXTENSION pgcrypto;
    CREATE FUNCTION peak_kb() RETURNS int LANGUAGE sql AS $$ SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s*(\d+)')::int $$;
    SELECT redis_migrate.create_migration('shop', 'shop')});

# Noise, so that DUMP does not compress it.
sub noise
{
    my ($key, $megabytes) = @_;
    $redis->cli('EVAL', q{local t = {} for i = 1, 1048576 do t[i] = string.char(32 + math.random(0, 94)) end
        redis.call('SET', KEYS[1], string.rep(table.concat(t), tonumber(ARGV[1])))}, 1, $key, $megabytes);
}

# Runs, and says how many megabytes of memory that took.
sub run_and_measure
{
    my ($options) = @_;
    my ($idle, $peak) = split /\n/, $node->safe_psql('postgres', "SELECT peak_kb(); CALL redis_migrate.run('shop' $options); SELECT peak_kb()");
    return int(($peak - $idle) / 1024);
}

sub archived { my ($columns) = @_; return $node->safe_psql('postgres', "SELECT $columns FROM redis_migrate.archive ORDER BY key"); }
sub chunks { return $node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT key_bytes), coalesce(max(octet_length(bytes)), 0) FROM redis_migrate.archive_chunks'); }
sub counts { return $node->safe_psql('postgres', q{SELECT string_agg(concat_ws(' ', outcome, reason, keys), ', ' ORDER BY outcome, reason)
    FROM redis_migrate.run_counts WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) AND outcome <> 'read'}); }

noise('large', $mb);
$redis->cli('SET', 'small', 'value');
$redis->cli('EVAL', q{for i = 1, 60000 do redis.call('HSET', 'hash', 'field ' .. i, string.sub(tostring(math.random()), 3) .. i) end}, 0);
$redis->cli('PEXPIREAT', 'hash', '4102444800123');
my $cost = run_and_measure('');
cmp_ok($cost, '<', 64 + 3 * $mb + $spare, "archiving $mb MB takes $cost MB of memory");
is(counts(), 'archived inserted 3', 'every key is archived');
is(archived('key, type, payload_size = octet_length(payload), payload_size > 1048576'), "hash|hash|t|t\nlarge|string|t|t\nsmall|string|t|f", 'one row per key, with its size');
like(chunks(), qr/^6\d\|2\|1048576$/, 'large payloads stand in chunks of 1 MB');
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.archived_key WHERE payload IS NULL}), 2, 'and not beside them');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT field) FROM redis_migrate.archive AS a, redis_migrate.elements(a.payload) WHERE key = 'hash'}),
    '60000|60000', 'the payload of the view is whole');
run_and_measure('');
is(counts(), 'archived unchanged 3', 'what is the same is not written');

# Read again, chunk by chunk.
$node->safe_psql('postgres', q{CREATE TABLE target (key text PRIMARY KEY, v bytea);
    SELECT redis_migrate.add_mapping('shop', 'large', 'large', 'target', 'SELECT key, value_bytes AS v FROM redis_batch', key_columns => '{key}')});
$cost = run_and_measure(", source => 'archive'");
cmp_ok($cost, '<', 64 + 4 * $mb + $spare, "mapping it from the archive takes $cost MB");
my $digest = $redis->cli('EVAL', q{return redis.sha1hex(redis.call('GET', 'large'))}, 0);
is($node->safe_psql('postgres', q{SELECT encode(digest(v, 'sha1'), 'hex') FROM target}), $digest, 'it is what Redis has');

# pg_dump carries the chunks.
my $dump = $node->backup_dir . '/archive.sql';
$node->run_log([ 'createdb', '-h', $node->host, '-p', $node->port, 'restored' ]);
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'restored into another database');
my $sums = q{SELECT key, payload_size, md5(payload) FROM redis_migrate.archive ORDER BY key};
is($node->safe_psql('restored', $sums), $node->safe_psql('postgres', $sums), 'with the same payloads');

# Values change, also in size. A key that has a mapping leaves the archive with its chunks.
$redis->cli('HSET', 'hash', 'field 7', 'new');
noise('small', 2);
run_and_measure('');
is(counts(), 'archived updated 2, migrated unchanged 1', 'a part of a payload changes, a small one becomes large');
like(chunks(), qr/^\d\|2\|/, 'what was mapped has no chunks any more');
is($node->safe_psql('postgres', q{SELECT redis_migrate.field(payload, 'field 7') FROM redis_migrate.archive WHERE key = 'hash'}), 'new', 'the payload is the new one');
$redis->cli('SET', 'small', 'value');
$redis->cli('DEL', 'hash');
$redis->cli('HSET', 'hash', 'field', 'value');
run_and_measure('');
is(counts(), 'archived updated 2, migrated unchanged 1', 'large ones become small');
is(chunks(), '0|0|0', 'and leave no chunks');
is(archived('key, redis_migrate.field(payload, \'field\'), expires_at'), "hash|value|\nsmall||", 'nothing is left of what was');

# Nobody else sees them; a dry run leaves nothing; names may have any length; drop_migration removes everything.
noise('more', 2);
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop', dry_run => true)});
is(chunks(), '0|0|0', 'a dry run keeps no chunk');
is($node->safe_psql('postgres', q{SELECT key, outcome, reason, target_row ->> 'payload_size' > '2000000' FROM redis_migrate.preview('shop') WHERE key = 'more'}),
    'more|archived|inserted|t', 'preview shows the row');
my $long_key = join '', map { sprintf '%04x', ($_ * 40503) % 65536 } 1 .. 16384;
noise($long_key, 2);
run_and_measure('');
is(counts(), 'archived inserted 2, archived unchanged 2, migrated unchanged 1', 'a name too long for an index is archived as well');
cmp_ok((split /\|/, chunks())[0], '>=', 2, 'in chunks');
$node->safe_psql('postgres', 'CREATE ROLE somebody');
is($node->safe_psql('postgres', 'SET ROLE somebody; SELECT count(*) FROM redis_migrate.archive_chunks'), 0, 'chunks are shown to the owner of the migration');
$node->safe_psql('postgres', q{SELECT redis_migrate.drop_migration('shop')});
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.archive_chunk'), 0, 'drop_migration drops them');

# A large collection that is read in pieces goes to a temporary file, and from there to rows or into the archive.
$redis->cli('FLUSHALL');
$redis->cli('EVAL', q{for i = 1, 60000 do redis.call('SADD', 'set', string.rep(tostring(i), 16)) end}, 0);
$node->safe_psql('postgres', q{SELECT redis_migrate.create_migration('pieces', 'shop')});
my $pieces = q{SET pg_redis_migrate.max_reply_size = '1MB'; CALL redis_migrate.run('pieces')};
my ($status, $out, $log) = $node->psql('postgres', "SET log_temp_files = 0; SET client_min_messages = log; $pieces");
like($log, qr/temporary file: path "[^"]+", size 4\d{6}/, 'the payload goes to a file');
is(counts(), 'archived inserted 1', 'and is archived');
my $members = q{SELECT count(*), md5(string_agg(member, ' ' ORDER BY member COLLATE "C")) FROM };
my $expected = $node->safe_psql('postgres', "$members (SELECT repeat(i::text, 16) AS member FROM generate_series(1, 60000) AS i) AS m");
is($node->safe_psql('postgres', "$members redis_migrate.archive AS a, redis_migrate.elements(a.payload) AS e"), $expected, 'every member of it');
$node->psql('postgres', $pieces);
is(counts(), 'archived unchanged 1', 'again it is the same');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_ls_tmpdir()}), 0, 'the file is gone');
like(sql_error($node, "SET temp_file_limit = '1MB'; $pieces"), qr/ERROR:  53400: temporary file size exceeds/, 'it keeps to temp_file_limit');
$node->safe_psql('postgres', q{CREATE TABLE members (key text, member text, PRIMARY KEY (key, member));
    SELECT redis_migrate.add_mapping('pieces', 'set', 'set', 'members', 'SELECT key, member FROM redis_batch', key_columns => '{key,member}', expand => 'elements')});
$node->psql('postgres', $pieces);
is($node->safe_psql('postgres', "$members members"), $expected, 'or it becomes rows');
$node->safe_psql('postgres', q{SELECT redis_migrate.drop_migration('pieces')});

# Values that PostgreSQL cannot hold are rejected by name: a JSON string beyond 256 MB, a row beyond 1 GB.
$redis->cli('FLUSHALL');
$redis->cli('EVAL', q{redis.call('SET', 'huge', '"') for i = 1, 36 do redis.call('APPEND', 'huge', string.rep('x', 10485760)) end redis.call('APPEND', 'huge', '"')}, 0);
$node->safe_psql('postgres', q{
    CREATE TABLE as_json (key text PRIMARY KEY, j jsonb);
    CREATE TABLE as_row (key text PRIMARY KEY, a int, b int, c int);
    SELECT redis_migrate.create_migration('huge', 'shop');
    SELECT redis_migrate.add_mapping('huge', 'm', 'huge', 'as_json', 'SELECT key, json AS j FROM redis_batch', key_columns => '{key}');
    SET pg_redis_migrate.max_value_size = '1000MB';
    CALL redis_migrate.run('huge');
    SELECT redis_migrate.drop_mapping('huge', 'm');
    SELECT redis_migrate.add_mapping('huge', 'm', 'huge', 'as_row',
        'SELECT key, length(value) AS a, length(value_bytes) AS b, length(payload) AS c FROM redis_batch', key_columns => '{key}');
    CALL redis_migrate.run('huge');
    SET pg_redis_migrate.max_value_size = '100MB';
    CALL redis_migrate.run('huge')});
is($node->safe_psql('postgres', q{SELECT key, rule FROM redis_migrate.rejects WHERE migration = 'huge' ORDER BY run_id}), "huge|json_too_large\nhuge|row_too_large\nhuge|max_value_size",
    'what PostgreSQL cannot hold is rejected by name');

done_testing();
