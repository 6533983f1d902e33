# Databases of other encodings than UTF-8: text of Redis is UTF-8 and is converted, or the key is rejected. And what
# becomes of damaged, empty and far-off values.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib/perl";

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('main');
my $redis = start_redis();
my ($host, $port) = ($redis->host, $redis->port);

# Text as UTF-8, each on the shell's way to redis-cli.
my %text = (e_acute => "caf\xc3\xa9", euro => "5 \xe2\x82\xac", nihon => "\xe6\x97\xa5\xe6\x9c\xac", broken => "caf\xe9");
for my $name (keys %text)
{
    $redis->cli('SET', "text:$name:$text{$name}", $text{$name});
    $redis->cli('HSET', "hash:$name", $text{$name}, $text{$name});
}
$redis->cli('XADD', "stream:$_", '1-1', 'field', $text{$_}) for 'e_acute', 'broken';
$redis->cli('SET', 'json:plain', qq({"name": "$text{e_acute}"}));
$redis->cli('SET', 'json:escaped', '{"name": "caf\u00e9"}');
$redis->cli('SET', "s\xc3\xa9ries:1", 'x');
my ($user, $password) = ("jos\xc3\xa9", "$text{e_acute}2");
$redis->cli('ACL', 'SETUSER', $user, 'on', ">$password", '~*', '+@all');
my %text_of = (
    LATIN1    => 'e_acute',
    WIN1252   => 'e_acute,euro',
    EUC_JP    => 'e_acute,nihon',
    UTF8      => 'e_acute,euro,nihon',
    SQL_ASCII => 'e_acute,euro,nihon');

for my $encoding (sort keys %text_of)
{
    my $db = lc $encoding;
    $node->safe_psql('postgres', "CREATE DATABASE $db ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    my $run = sub { return $node->safe_psql($db, "SET client_encoding = 'UTF8'; $_[0]") };
    $run->(qq{
        CREATE EXTENSION pg_redis_migrate;
        CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$host', port '$port');
        CREATE USER MAPPING FOR CURRENT_USER SERVER shop OPTIONS (username '$user', password '$password');
        SELECT redis_migrate.create_migration('m', 'shop', unmapped => 'reject');
        SELECT redis_migrate.skip_keys('m', 'stream:{name}');
        CREATE TABLE texts (name text PRIMARY KEY, key text, capture text, value text);
        SELECT redis_migrate.add_mapping('m', 'texts', 'text:{name}:{capture}', 'texts', 'SELECT name, key, capture, value FROM redis_batch', '{name}');
        CREATE TABLE fields (name text PRIMARY KEY, field text, value text);
        SELECT redis_migrate.add_mapping('m', 'fields', 'hash:{name}', 'fields', 'SELECT name, field, value FROM redis_batch', '{name}', expand => 'elements');
        CREATE TABLE documents (name text PRIMARY KEY, doc jsonb);
        SELECT redis_migrate.add_mapping('m', 'documents', 'json:{name}', 'documents', 'SELECT name, json AS doc FROM redis_batch', '{name}');
        CREATE TABLE series (id text PRIMARY KEY);
        SELECT redis_migrate.add_mapping('m', 'series', 's\xc3\xa9ries:{id}', 'series', 'SELECT id FROM redis_batch', '{id}');
        CALL redis_migrate.run('m')});
    is($run->(q{SELECT detail FROM redis_migrate.preflight('shop') WHERE check_name = 'rights'}),
        "user $user may run every command needed", "$encoding: names of users and passwords are sent as UTF-8");
    if ($encoding eq 'WIN1252') # which has no character 0x81
    {
        $run->(q{DO $$ BEGIN EXECUTE format('ALTER USER MAPPING FOR CURRENT_USER SERVER shop OPTIONS (SET password %L)', chr(129) || 'secret'); END $$});
        my (undef, undef, $error) = $node->psql($db, q{SET client_encoding = 'UTF8'; SELECT * FROM redis_migrate.preflight('shop')});
        like($error, qr/option "password" cannot be converted to UTF-8/, "$encoding: a password that UTF-8 lacks is named");
        unlike($error, qr/0x|secret|\x81/, "$encoding: without its bytes");
        $run->("ALTER USER MAPPING FOR CURRENT_USER SERVER shop OPTIONS (SET password '$password')");
    }
    my $expected = $text_of{$encoding};
    my @names = split /,/, $expected;
    # A client of SQL_ASCII gets the bytes that are stored.
    my $same = join "\n", map { "$_|text:$_:$text{$_}|$text{$_}|$text{$_}" } @names;
    is($run->('SELECT * FROM texts ORDER BY name'), $same, "$encoding: keys, captures and values are text");
    is($run->('SELECT * FROM fields ORDER BY name'), join("\n", map { "$_|$text{$_}|$text{$_}" } @names), "$encoding: fields, too");
    is($run->(q{SELECT doc->>'name' = 'café', length(doc->>'name') FROM documents WHERE name = 'plain'}),
        $encoding eq 'SQL_ASCII' ? 't|5' : 't|4', "$encoding: JSON, too");
    is($run->('SELECT * FROM series'), '1', "$encoding: a pattern with another letter fits");
    is($run->(q{SELECT string_agg(DISTINCT rule, ',' ORDER BY rule) FROM redis_migrate.rejects WHERE key_bytes NOT LIKE 'json:%'}),
        'key_encoding,value_encoding', "$encoding: the others are rejected by the encoding");
    is($run->(q{SELECT count(*) FROM redis_migrate.rejects WHERE key_bytes NOT LIKE 'json:%'}), 2 * (4 - @names), "$encoding: each of them");
    is($run->(q{SELECT redis_migrate.field(payload, 'x') IS NULL, (redis_migrate.elements(payload)).field IS NULL FROM redis_migrate.rejects
        WHERE key_bytes = 'hash:broken'}), 't|t', "$encoding: what is no text is NULL");
    is($run->("CALL redis_migrate.audit('shop'); SELECT count(*) FROM redis_migrate.audit_families WHERE pattern LIKE 's\xc3\xa9ries%'"),
        1, "$encoding: an audit names its family");
    is($run->(q{DO $$ DECLARE f record; BEGIN
            PERFORM redis_migrate.create_migration('shop', 'shop');
            FOR f IN SELECT * FROM redis_migrate.audit_families WHERE suggestion IS NOT NULL LOOP
                EXECUTE f.create_table; EXECUTE f.suggestion;
            END LOOP; END $$;
        CALL redis_migrate.run('shop');
        SELECT count(*) FROM redis_migrate.rejects WHERE migration = 'shop' AND pattern LIKE 'stream:%'}),
        0, "$encoding: its suggestions run, and streams of any bytes are kept");
    $run->(q{SELECT redis_migrate.drop_migration('shop')});
}

is($node->safe_psql($_, q{SELECT string_agg(rule, ',') FROM redis_migrate.rejects WHERE key_bytes = 'json:escaped'}),
    $_ eq 'sql_ascii' ? 'value_encoding' : '', "$_: an escape in JSON is a character") for map { lc } sort keys %text_of;

# Expiries that PostgreSQL does not have are the last that it has, for archived values of any size.
my $far = '9223372036854775806';
$redis->cli('FLUSHALL');
$redis->cli('EVAL', q{redis.call('SET', KEYS[1], string.rep('x', 3000000)) redis.call('SET', KEYS[2], 'x')}, 2, 'large', 'small');
$redis->cli('EVAL', q{local t = {} for i = 1, 3000000 do t[i] = string.char(32 + math.random(0, 94)) end redis.call('SET', KEYS[1], table.concat(t))}, 1, 'noise');
$redis->cli('PEXPIREAT', $_, $far) for 'large', 'small', 'noise';
create_server($node, 'shop', $redis);
$node->safe_psql('postgres', q{SELECT redis_migrate.create_migration('far', 'shop'); CALL redis_migrate.run('far')});
is($node->safe_psql('postgres', q{SELECT key, expires_at AT TIME ZONE 'UTC' FROM redis_migrate.archive ORDER BY key}),
    join("\n", map { "$_|294276-12-31 23:59:59.999" } 'large', 'noise', 'small'), 'archived with the last timestamp')
  or diag $node->safe_psql('postgres', 'SELECT key, rule, message FROM redis_migrate.rejects');

# Damaged values are not kept as if they were whole; collections without elements are passed over.
my $dumps = PostgreSQL::Test::Utils::tempdir();
chmod 0755, $dumps;
append_to_file("$dumps/odd.rdb", "REDIS0012\xfe\x00"
    . "\x01\x05empty\x00"                                        # a list without elements
    . "\x10\x06packed\x07\x07\x00\x00\x00\x00\x00\xff"           # a hash in an empty listpack
    . "\x10\x07damaged\x09\x09\x00\x00\x00\x01\x00\x01\x01\xff"  # a hash with a field and no value
    . "\x18\x07expired" . pack('q<', 1000) . "\x01\x01\x01a\x011" # a hash whose field has expired
    . "\x00\x04fine\x01v" . "\xff" . "\0" x 8);
$node->safe_psql('postgres', "SELECT redis_migrate.create_migration('odd', source => 'rdb', file => '$dumps/odd.rdb');
    CALL redis_migrate.run('odd')");
is($node->safe_psql('postgres', q{SELECT outcome, reason, keys FROM redis_migrate.run_counts
    WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) AND outcome <> 'read' ORDER BY outcome::text, reason}),
    "archived|inserted|1\nrejected|corrupt_payload|1\nskipped|empty|2\nskipped|expired|1", 'each has its outcome');
is($node->safe_psql('postgres', q{SELECT key, rule FROM redis_migrate.rejects WHERE migration = 'odd'}), 'damaged|corrupt_payload', 'the damaged one is named');
is(last_run($node, 'odd', 'read, balanced'), '5|t', 'all are counted');

done_testing();
