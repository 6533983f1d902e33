# on_expire: rows whose keys have expired and rows whose keys were deleted part ways, in live sync, after an interruption of
# the link, and in runs. An expanded mapping without an index for its keys is refused.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb', '--enable-debug-command', 'yes' ]);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('expiry', conf => 'pg_redis_migrate.live_delete_limit = 100');
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $proxy->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
$node->safe_psql('postgres', q{
    CREATE TABLE used (id text PRIMARY KEY, n int, expires_at timestamptz);
    CREATE TABLE sessions (id text PRIMARY KEY, gone boolean, until timestamptz);
    CREATE TABLE reversed (id text PRIMARY KEY, n int, expires_at timestamptz);
    CREATE TABLE addresses (address text PRIMARY KEY, id text, expires_at timestamptz);
    CREATE TABLE elements (id text, field text, value text, expires_at timestamptz, PRIMARY KEY (id, field));
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'used', 'u:{id}', 'used', 'SELECT id, value::int AS n, expires_at FROM redis_batch', '{id}', databases => '{0}', on_expire => 'keep');
    SELECT redis_migrate.add_mapping('live', 'sessions', 's:{id}', 'sessions', 'SELECT id, false AS gone, expires_at AS until FROM redis_batch', '{id}', databases => '{0}', exclusive => true, on_expire => 'gone = true, until = NULL');
    SELECT redis_migrate.add_mapping('live', 'reversed', 'r:{id}', 'reversed', 'SELECT id, value::int AS n, expires_at FROM redis_batch', '{id}', databases => '{0}', on_delete => 'keep', on_expire => 'delete');
    SELECT redis_migrate.add_mapping('live', 'addresses', 'm:{id}', 'addresses', 'SELECT value AS address, id, expires_at FROM redis_batch', '{address}', databases => '{0}', on_expire => 'keep');
    SELECT redis_migrate.add_mapping('live', 'elements', 'e:{id}', 'elements', 'SELECT id, field, value, expires_at FROM redis_batch', '{id,field}', databases => '{0}', expand => 'elements', on_expire => 'keep');
});
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
is(sql(q{SELECT string_agg(mapping || ' ' || ledger, ', ' ORDER BY mapping) FROM redis_migrate.mappings}), 'addresses full, elements packed, reversed packed, sessions packed, used packed', 'ledgers');
my $rows = q{SELECT string_agg(r, ' ' ORDER BY r COLLATE "C") FROM (
    SELECT 'u' || id || '=' || n AS r FROM used UNION ALL SELECT 's' || id || CASE WHEN gone THEN ' gone' ELSE '' END FROM sessions
    UNION ALL SELECT 'r' || id FROM reversed UNION ALL SELECT 'm' || id || '=' || address FROM addresses
    UNION ALL SELECT 'e' || id || '.' || field FROM elements) AS r};
sub counts { return sql(q{SELECT string_agg(mapping || ' ' || expired || ' ' || unclear, ', ' ORDER BY mapping) FROM redis_migrate.mapping_counts WHERE expired + unclear > 0 AND run_id = (SELECT max(run_id) FROM redis_migrate.runs)}) }

# Keys of three kinds in each family: 1 expires soon, 2 at some time, 3 never.
sub load
{
    my ($ms) = @_;
    my @options = ('', " PX $ms", ' PX 600000', '');
    my @expiries = ('', "PEXPIRE e:1 $ms\n", "PEXPIRE e:2 600000\n", '');
    $redis->cli_lines(join '', map { ("SET u:$_ $_$options[$_]\n", "SET s:$_ $_$options[$_]\n", "SET r:$_ $_$options[$_]\n", "SET m:$_ a$_$options[$_]\n", "DEL e:$_\n", "HSET e:$_ a 1 b 2\n", $expiries[$_]) } 1 .. 3);
    return;
}
# Has Redis look at what has expired.
sub look { $redis->cli_lines(join '', map { "EXISTS $_:1\n" } qw(u s r m e)); return; }
sub delete_others { $redis->cli_lines(join '', map { "DEL $_:2 $_:3\n" } qw(u s r m e)); return; }
my $all = 'e1.a e1.b e2.a e2.b e3.a e3.b m1=a1 m2=a2 m3=a3 r1 r2 r3 s1 s2 s3 u1=1 u2=2 u3=3';
my $parted = 'e1.a e1.b m1=a1 r2 r3 s1 gone u1=1';

sql(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'it runs');
load(4000);
is(wait_for($node) . sql($rows), $all, 'rows come');
usleep(4_000_000);
look();
delete_others();
is(wait_for($node) . sql($rows), $parted, 'what expired and what was deleted part ways');
is(counts(), 'addresses 1 0, elements 2 0, reversed 1 0, sessions 1 0, used 1 0', 'and are counted');

# Rows that have outlived their keys belong to them again when these come back.
load(600000);
is(wait_for($node) . sql($rows), $all, 'keys that come back have their rows');
$redis->cli('HDEL', 'e:1', 'b');
$redis->cli_lines(join '', map { "DEL $_:1\n" } qw(u s r m));
is(wait_for($node) . sql($rows), 'e1.a e2.a e2.b e3.a e3.b m2=a2 m3=a3 r1 r2 r3 s2 s3 u2=2 u3=3', 'and lose them');

# An expired key and its successor in one batch.
$redis->cli_lines("DEL e:1\nHSET e:1 a 1 b 2\nPEXPIRE e:1 300\n");
is(wait_for($node) . sql(q{SELECT count(*) FROM elements WHERE id = '1'}), '2', 'elements');
usleep(350_000);
$redis->cli_lines("MULTI\nEXISTS e:1\nHSET e:1 c 3\nEXEC\n");
is(wait_for($node) . sql(q{SELECT string_agg(field, ',' ORDER BY field) FROM elements WHERE id = '1'}), 'a,b,c', 'elements of a key that expired stay beside those of the next');

# The link is cut: of what was to expire meanwhile it is not known why it went. What expires later was deleted, what had to
# expire before has expired.
delete_others();
$redis->cli('DEL', 'e:1');
is(wait_for($node), '', 'nothing is left');
sql('TRUNCATE used, sessions, reversed, addresses, elements');
$redis->cli('DEBUG', 'SET-ACTIVE-EXPIRE', '0');
load(5000);
$redis->cli_lines("SET u:4 4 PX 300\n");
is(wait_for($node) . sql($rows), "$all u4=4", 'rows again');
usleep(350_000);
$redis->cli('SET', 'u:5', '5');
is(wait_for($node) . sql($rows), "$all u4=4 u5=5", 'a key that has expired has its row until Redis deletes it');
$proxy->tell('hold');
$proxy->tell('drop');
usleep(200_000);
$redis->cli_lines("EXISTS u:4\nDEL u:5\n" . join '', map { "DEL $_:1 $_:2 $_:3\n" } qw(u s r m e));
usleep(5_000_000);
$proxy->tell('pass');
is(wait_for($node) . sql($rows), 'e1.a e1.b m1=a1 r1 r2 r3 s1 gone u1=1 u4=4', 'what may have been either fares as the milder says');
is(counts(), 'addresses 1 1, elements 4 2, reversed 1 1, sessions 1 1, used 2 1', 'and is counted');
cmp_ok(live($node, 'reconnects'), '>', 0, 'the link was cut');
$redis->cli('DEBUG', 'SET-ACTIVE-EXPIRE', '1');
$redis->cli('SET', 'u:6', '6', 'PX', '60000');
is(wait_for($node), '', 'in step');
$redis->cli('DEL', 'u:6');
is(wait_for($node) . sql(q{SELECT count(*) FROM used WHERE id = '6'}), '0', 'after that it is known again');
sql(q{SELECT redis_migrate.stop('live')});

# Runs: what is gone and would have expired by now has expired.
sql(q{TRUNCATE used, sessions, reversed, addresses, elements; SELECT redis_migrate.alter_migration('live', source => 'scan')});
load(4000);
sql(q{CALL redis_migrate.run('live', prune => true)});
is(sql($rows), $all, 'a run');
usleep(4_100_000);
delete_others();
$redis->cli_lines(join '', map { "SET $_:9 9\n" } qw(u s r m));
$redis->cli('HSET', 'e:9', 'a', '1');
sql(q{CALL redis_migrate.run('live', prune => true)});
is(sql($rows), 'e1.a e1.b e9.a m1=a1 m9=9 r2 r3 r9 s1 gone s9 u1=1 u9=9', 'prune parts them, too');
is(counts(), 'addresses 1 0, elements 2 0, reversed 1 0, sessions 1 0, used 1 0', 'and counts them');

# An expanded mapping needs an index by which the rows of a key are found.
sql(q{SELECT redis_migrate.alter_migration('live', source => 'replication'); CREATE TABLE wide (field text, id text, PRIMARY KEY (field, id));
    SELECT redis_migrate.add_mapping('live', 'wide', 'w:{id}', 'wide', 'SELECT id, field FROM redis_batch', '{field,id}', databases => '{0}', expand => 'elements')});
my $refused = sql_error($node, q{SELECT redis_migrate.start('live', live => true)});
like($refused, qr/0A000: mapping "wide" cannot be followed: no index of public.wide begins with \(id\)/, 'a mapping without an index is refused');
like($refused, qr/HINT:  CREATE INDEX ON public.wide \(id\), and then SELECT redis_migrate.alter_mapping\('live', 'wide'\)\./, 'with what helps');
sql("$1; $2") if $refused =~ /HINT:  (CREATE INDEX[^,]*), and then (.*)\./;
is(sql_error($node, q{SELECT redis_migrate.start('live', live => true)}), '', 'which does');

done_testing();
