# Migrations from a dump file: the same rows and counts as from the server that wrote it, rights, resume, damage, memory.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use File::Copy qw(copy move);
use PrmTest;
use PrmTools;

my $redis = start_redis(args => [ '--enable-debug-command', 'yes' ]);
my $node = new_node('main');
create_server($node, 'source', $redis);
my $dumps = PostgreSQL::Test::Utils::tempdir();
chmod 0755, $dumps;

# A copy, under another name, of the file that redis-server would load if it started now.
sub save
{
    my ($name) = @_;
    $redis->cli('SAVE');
    copy($redis->directory . '/dump.rdb', "$dumps/$name") or die "copy: $!\n";
    return "$dumps/$name";
}

# Changes one byte of a file.
sub flip
{
    my ($file, $offset) = @_;
    open my $handle, '+<:raw', $file or die "$file: $!\n";
    seek $handle, $offset, 0;
    read $handle, my $byte, 1;
    seek $handle, $offset, 0;
    print $handle chr(ord($byte) ^ 0x20);
    close $handle;
    return;
}

# Every type, every encoding of this server, three databases, expiries.
$redis->cli('DEBUG', 'QUICKLIST-PACKED-THRESHOLD', '4000b');
my $lines = '';
for my $i (1 .. 300)
{
    $lines .= "SET string:$i value-$i\nHSET hash:$i name n$i number $i\nRPUSH list:$i a b $i\nSADD set:$i $i " . ($i * 70000) . "\n"
      . "SADD words:$i x y$i\nZADD zset:$i 1.5 a -3 b$i inf c\nXADD stream:$i $i-1 f v$i\n";
}
$lines .= join ' ', 'HSET hash:large', map { "f$_ " . 'v' x 100 } 1 .. 200;
$lines .= "\n" . join ' ', 'ZADD zset:large', map { "$_.25 m$_" } 1 .. 400;
$lines .= "\n" . join ' ', 'RPUSH list:large', map { "e$_" . 'x' x 90 } 1 .. 500;
$lines .= "\nRPUSH list:plain " . 'p' x 9000 . " small\n";
$lines .= 'SET string:large ' . 'compressible ' x 2000 . "\n";
$lines =~ s/compressible /compressible_/g;
$lines .= "XGROUP CREATE stream:1 workers 0\nXREADGROUP GROUP workers one COUNT 1 STREAMS stream:1 >\n";
$lines .= "SET string:later x\nPEXPIREAT string:later 4102444800123\n";
$lines .= "SELECT 3\nSET string:3 third\nSELECT 9\nHSET hash:9 name nine number 9\n";
$redis->cli_lines($lines);
my $all = save('all.rdb');

$node->safe_psql('postgres', q{
    CREATE TABLE strings (db int, key text, value text, expires_at timestamptz, PRIMARY KEY (db, key));
    CREATE TABLE elements (kind text, db int, key text, nr bigint, field text, member text, score float8, entry_id text,
        value text, PRIMARY KEY (kind, db, key, nr));
    CREATE TABLE groups (key text, name text, entries_read bigint, PRIMARY KEY (key, name));});

# A migration with the same mappings, whatever it reads.
sub define
{
    my ($name, $arguments) = @_;
    my $sql = "SELECT redis_migrate.create_migration('$name', $arguments);
        SELECT redis_migrate.add_mapping('$name', 'strings', 'string:*', 'strings',
            'SELECT db, key, value, expires_at FROM redis_batch', '{db,key}', priority => 'high');
        SELECT redis_migrate.add_mapping('$name', 'groups', 'stream:*', 'groups',
            'SELECT key, group_name AS name, entries_read FROM redis_batch', '{key,name}', expand => 'groups', no_row => 'skip');";
    my %columns = (
        hash   => "position, field, NULL::text, NULL::float8, NULL::text, value",
        list   => "position, NULL::text, NULL::text, NULL::float8, NULL::text, value",
        set    => "position, NULL::text, member, NULL::float8, NULL::text, NULL::text",
        zset   => "position, NULL::text, member, score, NULL::text, NULL::text",
        stream => "position, NULL::text, NULL::text, NULL::float8, entry_id, json::text");
    for my $type (sort keys %columns)
    {
        my @columns = split /, /, $columns{$type};
        my $list = join ', ', map { "$columns[$_] AS " . (qw(nr field member score entry_id value))[$_] } 0 .. 5;
        $sql .= "SELECT redis_migrate.add_mapping('$name', '$type', '$type:*', 'elements',
            \$\$SELECT '$type' AS kind, db, key, $list FROM redis_batch\$\$, '{kind,db,key,nr}', expand => 'elements');";
    }
    $node->safe_psql('postgres', $sql);
    return;
}

# The contents of the tables and of the archive, with sets and hashes in a fixed order.
my $state = q{
    SELECT md5(string_agg(r, E'\n' ORDER BY r COLLATE "C")) || ' ' || count(*) FROM (
        SELECT s::text AS r FROM strings AS s
        UNION ALL SELECT (kind, db, key, CASE WHEN kind IN ('list', 'zset', 'stream') THEN nr END, field, member, score, entry_id, value)::text FROM elements
        UNION ALL SELECT g::text FROM groups AS g
        UNION ALL SELECT (a.db, a.key, a.type, a.expires_at, (SELECT string_agg(e.value, ',' ORDER BY e.value) FROM redis_migrate.elements(a.payload) AS e))::text
            FROM redis_migrate.archive AS a WHERE migration = '%s') AS all_rows};
my $counts = q{
    SELECT pattern, outcome, reason, keys FROM redis_migrate.run_counts
    WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs WHERE migration = '%s') ORDER BY 1, 2, 3};
my $empty = 'TRUNCATE strings, elements, groups';

define('scan', q{'source'});
$node->safe_psql('postgres', q{CALL redis_migrate.run('scan')});
my $rows_of_scan = $node->safe_psql('postgres', sprintf $state, 'scan');
my $counts_of_scan = $node->safe_psql('postgres', sprintf $counts, 'scan');
like($rows_of_scan, qr/^[0-9a-f]{32} [0-9]{4,}$/, 'a scan stores rows');
$node->safe_psql('postgres', $empty);

define('file', "source => 'rdb', file => '$all'");
$node->psql('postgres', q{CALL redis_migrate.run('file')}, stderr => \my $err);
is($node->safe_psql('postgres', sprintf $state, 'file'), $rows_of_scan, 'the dump file gives the rows and the archive that a scan gives');
is($node->safe_psql('postgres', sprintf $counts, 'file'), $counts_of_scan, 'and the same counts');
is(last_run($node, 'file', 'source, state, balanced, restarts'), 'rdb|completed|t|0', 'the run is complete');

# A run from the file of a migration that has a server, too; nothing changes.
$node->safe_psql('postgres', "SELECT redis_migrate.alter_migration('scan', file => '$all')");
$node->safe_psql('postgres', q{CALL redis_migrate.run('scan', source => 'rdb', prune => true)});
is($node->safe_psql('postgres', sprintf $state, 'file'), $rows_of_scan, 'prune finds every row of the file again');
is($node->safe_psql('postgres', q{SELECT redis_migrate.migration_sql('scan') ~ 'source => ''scan''.*, file => '''}), 't', 'migration_sql tells the file');

# Prune: what is not in the file goes.
$redis->cli('DEL', 'string:7', 'hash:8');
my $fewer = save('fewer.rdb');
$node->safe_psql('postgres', "SELECT redis_migrate.alter_migration('scan', file => '$fewer')");
$node->safe_psql('postgres', q{CALL redis_migrate.run('scan', source => 'rdb', prune => true)});
is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM strings WHERE key = 'string:7'), (SELECT count(*) FROM elements WHERE key = 'hash:8'), (SELECT count(*) FROM strings WHERE key = 'string:8')}),
    '0|0|1', 'prune removes what the file no longer has');

# Preview and dry run; databases.
like($node->safe_psql('postgres', q{SELECT outcome, count(*) FROM redis_migrate.preview('file', max_keys => 50) GROUP BY 1 ORDER BY 1}),
    qr/migrated\|/, 'preview reads the file');
my $rows_before = $node->safe_psql('postgres', sprintf $state, 'file');
$node->safe_psql('postgres', q{CALL redis_migrate.run('file', dry_run => true, max_keys => 100)});
is(last_run($node, 'file', 'dry_run, read, state'), 't|100|completed', 'a dry run reads so many keys of it');
is($node->safe_psql('postgres', sprintf $state, 'file'), $rows_before, 'and changes nothing');
$node->safe_psql('postgres', "SELECT redis_migrate.create_migration('third', source => 'rdb', file => '$all', databases => '{3,9}')");
$node->safe_psql('postgres', q{CALL redis_migrate.run('third')});
is($node->safe_psql('postgres', q{SELECT db, key FROM redis_migrate.archive WHERE migration = 'third' ORDER BY 1}), "3|string:3\n9|hash:9",
    'only the databases that are asked for');

# Archived keys can be restored.
my $payload = $node->safe_psql('postgres', q{SELECT encode(payload, 'hex') FROM redis_migrate.archive WHERE migration = 'third' AND db = 9});
$payload =~ s/(..)/\\x$1/g;
$redis->cli_lines(qq{RESTORE restored 0 "$payload"\n});
is($redis->cli('HGET', 'restored', 'name'), 'nine', 'RESTORE takes a payload made from a file');
$redis->cli('DEL', 'restored');

# Keys that have expired since the file was written are counted; other expiries are absolute.
$redis->cli('DEBUG', 'SET-ACTIVE-EXPIRE', '0');
$redis->cli('SET', 'string:soon', 'x', 'PX', 1500);
$redis->cli('SET', 'string:never', 'x', 'PXAT', '9223372036854775807');
my $soon = save('soon.rdb');
$redis->cli('DEBUG', 'SET-ACTIVE-EXPIRE', '1');
$node->safe_psql('postgres', "SELECT redis_migrate.alter_migration('file', file => '$soon')");
wait_until('the expiry', sub { $redis->cli('EXISTS', 'string:soon') eq '0' });
$node->safe_psql('postgres', q{CALL redis_migrate.run('file')});
is($node->safe_psql('postgres', sprintf(q{SELECT keys FROM (%s) AS c WHERE reason = 'expired'}, sprintf $counts, 'file')), 1, 'the expired key is counted as skipped');
is($node->safe_psql('postgres', q{SELECT count(*) FROM strings WHERE key = 'string:soon'}), 0, 'and not stored');
is($node->safe_psql('postgres', q{SELECT expires_at AT TIME ZONE 'UTC' FROM strings WHERE key = 'string:later'}), '2100-01-01 00:00:00.123', 'expiries are absolute');

is($node->safe_psql('postgres', q{SELECT expires_at AT TIME ZONE 'UTC' FROM strings WHERE key = 'string:never'}), '294276-12-31 23:59:59.999',
    'what PostgreSQL cannot hold is the last moment that it can');

# Rights, and paths that are none.
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE TABLE t (key text PRIMARY KEY); ALTER TABLE t OWNER TO owner');
my $refused = sql_error($node, "SELECT redis_migrate.create_migration('theirs', source => 'rdb', file => '$all')", connstr => $node->connstr('postgres') . " user=owner");
like($refused, qr/ERROR:  42501: permission denied to read a file on the server.*HINT:  Only roles with the privileges of pg_read_server_files/s,
    'a file needs pg_read_server_files');
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO owner');
$node->safe_psql('postgres', "SELECT redis_migrate.create_migration('theirs', source => 'rdb', file => '$all')", extra_params => [ '-U', 'owner' ]);
$node->safe_psql('postgres', q{CALL redis_migrate.run('theirs')}, extra_params => [ '-U', 'owner' ]);
is(last_run($node, 'theirs', 'state'), 'completed', 'with it a role that is no superuser reads one');
$node->safe_psql('postgres', 'REVOKE pg_read_server_files FROM owner');
like(sql_error($node, q{CALL redis_migrate.run('theirs')}, connstr => $node->connstr('postgres') . " user=owner"), qr/42501/, 'the right is asked for at each run');
for my $case (
    [ "'relative.rdb'",      '42602', 'a relative path' ],
    [ 'NULL',                '22023', 'no file' ])
{
    like(sql_error($node, "SELECT redis_migrate.create_migration('bad', source => 'rdb', file => $case->[0])"), qr/ERROR:  $case->[1]/, $case->[2]);
}
like(sql_error($node, q{SELECT redis_migrate.create_migration('bad')}), qr/ERROR:  22023: source 'scan' needs a server/, 'neither server nor file');
like(sql_error($node, q{CALL redis_migrate.run('file', source => 'scan')}), qr/ERROR:  22023: source 'scan' needs a server/, 'a run from a server that there is none of');
append_to_file("$dumps/text", "not a dump file\n");
for my $case (
    [ "$dumps/none",  '58P01', qr/could not open file/ ],
    [ $dumps,         '42809', qr/is not a regular file/ ],
    [ "$dumps/text",  'XX001', qr/not an RDB file.*File "\Q$dumps\E\/text", It begins with "not a dum/s ])
{
    $node->safe_psql('postgres', "SELECT redis_migrate.alter_migration('file', file => '$case->[0]')");
    my $error = sql_error($node, q{CALL redis_migrate.run('file')});
    like($error, qr/ERROR:  $case->[1]/, "$case->[0]: SQLSTATE");
    like($error, $case->[2], "$case->[0]: message");
}

# Damage. A truncated file stops at a place with a name; what comes before it is stored.
# Within the value of a string near the middle: between keys, or in a name, there is no key to be told.
copy($all, "$dumps/short.rdb");
my $first = do { local $/; open my $handle, '<:raw', $all; <$handle> };
truncate "$dumps/short.rdb", index($first, 'value-', int(length($first) / 2)) + 3;
$node->safe_psql('postgres', "$empty; SELECT redis_migrate.alter_migration('file', file => '$dumps/short.rdb')");
my $error = sql_error($node, q{CALL redis_migrate.run('file')});
like($error, qr/ERROR:  XX001: corrupt value at byte [0-9]+: .* expected, .* left\n.*DETAIL:  File "\Q$dumps\E\/short.rdb", RDB version 10, database 0, key "[^"]+"/s,
    'a truncated file is an error with file, version, database, key and offset');
is(last_run($node, 'file', 'state, sqlstate'), 'failed|XX001', 'the run failed');
cmp_ok(last_run($node, 'file', 'migrated'), '>', 50, 'what comes before is stored');

# A flipped byte in a value: the checksum says so at the end, the rows stay.
copy($all, "$dumps/flipped.rdb");
flip("$dumps/flipped.rdb", index($first, 'value-42') + 2);
$node->safe_psql('postgres', "$empty; SELECT redis_migrate.alter_migration('file', file => '$dumps/flipped.rdb')");
$error = sql_error($node, q{CALL redis_migrate.run('file')});
like($error, qr/ERROR:  XX001: corrupt RDB file: the checksum at byte [0-9]+ is not that of the bytes before it.*HINT:  .*redis-check-rdb/s, 'a flipped byte: the checksum at the end');
is($node->safe_psql('postgres', q{SELECT value FROM strings WHERE key = 'string:42' AND db = 0}), 'vaLue-42', 'rows stored so far stay');
like(sql_error($node, q{CALL redis_migrate.run('file')}), qr/checksum/, 'going on finds the same');

# An append-only file may begin with a dump; its commands would be lost.
copy($all, "$dumps/appended.rdb");
append_to_file("$dumps/appended.rdb", "*1\r\n");
$node->safe_psql('postgres', "SELECT redis_migrate.alter_migration('file', file => '$dumps/appended.rdb')");
like(sql_error($node, q{CALL redis_migrate.run('file')}), qr/4 bytes follow the end of the RDB file/, 'bytes behind the end are not passed over');

# Values that only newer servers write: fields that expire, and a module's value, which goes to the archive unchanged.
append_to_file("$dumps/newer.rdb", "REDIS0012\xfe\x00"
    . "\x18\x01h" . pack('q<', 4102444800000) . "\x02\x00\x01a\x011\x02\x01b\x012"
    . "\x07\x01m\x81" . pack('H*', '0123456789abcdef') . "\x02\x05\x00"
    . "\xff" . "\0" x 8);
$node->safe_psql('postgres', "CREATE TABLE fields (field text PRIMARY KEY, value int, until timestamptz);
    SELECT redis_migrate.create_migration('newer', source => 'rdb', file => '$dumps/newer.rdb');
    SELECT redis_migrate.add_mapping('newer', 'fields', 'h', 'fields',
        'SELECT field, value::int, field_expires_at AS until FROM redis_batch', '{field}', expand => 'elements');
    CALL redis_migrate.run('newer')");
is($node->safe_psql('postgres', q{SELECT field, value, until AT TIME ZONE 'UTC' FROM fields ORDER BY 1}), "a|1|\nb|2|2100-01-01 00:00:00.001", 'fields come with their expiry');
is($node->safe_psql('postgres', q{SELECT key, type, encode(payload, 'hex') ~ '^07810123456789abcdef0205000c00' FROM redis_migrate.archive WHERE migration = 'newer'}),
    'm|module|t', 'a value of a module is kept whole');
like(sql_error($node, q{SELECT redis_migrate.elements(payload) FROM redis_migrate.archive WHERE migration = 'newer'}), qr/ERROR:  0A000: a value of module type/, 'and not taken apart');

# A file that this release does not read ends the run at that place: a type of a later Redis, a later version.
append_to_file("$dumps/type.rdb", "REDIS0012\xfe\x05" . "\x00\x04fine\x01v" . "\x1c\x05array" . "\xff" . "\0" x 8);
append_to_file("$dumps/version.rdb", "REDIS0099\xff" . "\0" x 8);
for my $case (
    [ 'type',    qr/ERROR:  0A000: unsupported value type 28 of RDB version 12 at byte 19\nDETAIL:  File "\Q$dumps\E\/type.rdb", RDB version 12, database 5, key "array"/ ],
    [ 'version', qr/ERROR:  0A000: unsupported RDB version 99 of a file\nDETAIL:  File "\Q$dumps\E\/version.rdb", It begins with "REDIS0099"/ ])
{
    my ($name, $expected) = @$case;
    $node->safe_psql('postgres', "SELECT redis_migrate.create_migration('$name', source => 'rdb', file => '$dumps/$name.rdb')");
    like(sql_error($node, "CALL redis_migrate.run('$name')"), $expected, "an unknown $name");
}
is(last_run($node, 'type', 'state, archived'), 'failed|1', 'what stands before it is kept');

# Values above the limit are rejected, each by name: those whose payload is larger.
my $large_keys = $redis->cli('EVAL', q{local t = {} for _, k in ipairs(redis.call('KEYS', '*')) do
    if #redis.call('DUMP', k) > 1024 then t[#t + 1] = k end end table.sort(t) return t}, 0);
like($large_keys, qr/^hash:large\nlist:large\n/, 'some values are large');
$node->safe_psql('postgres', "SELECT redis_migrate.create_migration('limited', source => 'rdb', file => '$all', databases => '{0}');
    SET pg_redis_migrate.max_value_size = '1kB'; CALL redis_migrate.run('limited')");
is($node->safe_psql('postgres', q{SELECT string_agg(key, E'\n' ORDER BY key COLLATE "C") FROM redis_migrate.rejects
    WHERE migration = 'limited' AND rule = 'max_value_size' AND payload IS NULL}), $large_keys, 'they are rejected by name');
is(last_run($node, 'limited', 'state, balanced, rejected + archived = read'), 'completed|t|t', 'all others are kept');

# A larger file: progress, kill -9, resume, a file that is replaced, memory.
$redis->cli('FLUSHALL');
$redis->cli('CONFIG', 'SET', 'rdbcompression', 'no');
$redis->cli('DEBUG', 'POPULATE', 200_000, 'string', 1000);
$redis->cli_lines("XADD stream:1 1-1 a b\nSELECT 9\nMSET a 1 b 2 c 3\n");
my $large = save('large.rdb');
cmp_ok(-s $large, '>', 200_000_000, 'a file of more than 200 MB');
$node->safe_psql('postgres', "$empty; DROP TABLE t; CREATE TABLE t (db int, key text PRIMARY KEY, n int);
    SELECT redis_migrate.create_migration('large', source => 'rdb', file => '$large');
    SELECT redis_migrate.add_mapping('large', 'strings', 'string:*', 't', 'SELECT db, key, octet_length(value_bytes) AS n FROM redis_batch', '{key}')");
$node->safe_psql('postgres', 'ALTER SYSTEM SET restart_after_crash = on; SELECT pg_reload_conf()');
my $call = start_sql($node, q{CALL redis_migrate.run('large')}, name => 'large');
wait_until('half of the file', sub {
    $node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.progress WHERE migration = 'large' AND file_offset > file_size / 2}) eq '1' });
my ($offset, $file_size) = split /\|/, $node->safe_psql('postgres', q{SELECT file_offset, file_size FROM redis_migrate.progress WHERE migration = 'large'});
is($file_size, -s $large, 'progress knows the size of the file');
cmp_ok($offset, '<=', $file_size, 'and how far it is');
is($node->safe_psql('postgres', q{SELECT keys_read > 0, keys_per_second > 0, estimated_end > clock_timestamp(), keys_estimated FROM redis_migrate.progress WHERE migration = 'large'}),
    't|t|t|200001', 'how fast, when it will have read it, and how many keys the first database has');
my $pid = $node->safe_psql('postgres', q{SELECT pid FROM redis_migrate.progress WHERE migration = 'large'});
my ($peak) = slurp_file("/proc/$pid/status") =~ /VmHWM:\s+([0-9]+) kB/;
my ($shared) = slurp_file("/proc/$pid/status") =~ /RssShmem:\s+([0-9]+) kB/;
note("peak memory of the session $peak kB, of that shared $shared kB");
cmp_ok($peak - $shared, '<', 150_000, 'the session does not hold the file');
my $logged = -s $node->logfile;
kill 'KILL', $pid;
$call->finish;
# It answers until it notices.
wait_until('the server after the crash', sub { slurp_file($node->logfile, $logged) =~ /all server processes terminated/ && answers($node) });
my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM t');
cmp_ok($before, '>', 0, 'rows are there after the crash');
$node->psql('postgres', q{CALL redis_migrate.run('large')}, stderr => \$err);
like($err, qr/NOTICE:  resuming run/, 'the next CALL goes on');
is(last_run($node, 'large', 'state, read, migrated, archived, balanced'), 'completed|200004|200000|4|t', 'with every key, and none twice');
is($node->safe_psql('postgres', q{SELECT keys_estimated FROM redis_migrate.run WHERE migration = 'large'}), 200_004, 'as many as the file said, in all its databases');
is($node->safe_psql('postgres', 'SELECT count(*), sum(n) FROM t'), '200000|200000000', 'and every row');

# Interrupted, then replaced: the run begins again with the new file.
$node->safe_psql('postgres', 'TRUNCATE t');
$call = start_sql($node, q{CALL redis_migrate.run('large')}, name => 'large');
wait_until('some batches', sub {
    $node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.progress WHERE migration = 'large' AND file_offset > 10000000}) eq '1' });
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM redis_migrate.progress WHERE migration = 'large'});
like(join('', $call->finish), qr/57014/, 'reading a file can be cancelled');
my $interrupted = last_run($node, 'large', 'run_id');
copy($all, "$large.new");
move("$large.new", $large);
$node->psql('postgres', q{CALL redis_migrate.run('large')}, stderr => \$err);
unlike($err, qr/resuming/, 'a replaced file is not gone on with');
is($node->safe_psql('postgres', "SELECT state FROM redis_migrate.runs WHERE run_id = $interrupted"), 'superseded', 'the interrupted run is superseded');
like(last_run($node, 'large', 'state, balanced'), qr/completed\|t/, 'the new file is read from its beginning');

# A file says what it likes of the number of its keys.
my $absurd = "$dumps/absurd.rdb";
open my $out, '>:raw', $absurd or die;
print $out 'REDIS0011', "\xfe\x00\xfb\x81", pack('Q>', 1 << 63), "\x00", "\x00\x01a\x01b", "\x00\x01c\x01d", "\xff", "\x00" x 8;
close $out;
chmod 0644, $absurd;
$node->safe_psql('postgres', "SELECT redis_migrate.create_migration('absurd', source => 'rdb', file => '$absurd'); CALL redis_migrate.run('absurd')");
is(last_run($node, 'absurd', 'state, read, archived'), 'completed|2|2', 'a file with an absurd number of keys');
is($node->safe_psql('postgres', q{SELECT keys_estimated FROM redis_migrate.run WHERE migration = 'absurd'}), -s $absurd, 'is not taken to have more than bytes');

done_testing();
