# Live sync: what becomes of rows that refer to each other, of bad values, of large ones and of large transactions, of
# several databases; a target that is locked, a spool that is full, a replica as the source, rights that are missing and
# passwords that change.

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

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '256mb' ]);
my $node = new_node('rows', conf => "pg_redis_migrate.max_spool_size = '64MB'");
create_server($node, 'live', $redis);
$node->safe_psql('postgres', q{
    CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users, total numeric CHECK (total > 0), expires_at timestamptz);
    CREATE TABLE seen (db int, id text, value text, gone boolean NOT NULL DEFAULT false, PRIMARY KEY (db, id));
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication');
    SELECT redis_migrate.add_mapping('live', 'users', 'user:{id:int}', 'users', 'SELECT id, value AS name FROM redis_batch', '{id}', databases => '{0}', priority => 'high');
    SELECT redis_migrate.add_mapping('live', 'orders', 'order:{id:int}', 'orders', $$SELECT id, (json->>'user')::int AS user_id, (json->>'total')::numeric AS total, expires_at FROM redis_batch$$,
        '{id}', databases => '{0}', depends_on => '{users}');
    CREATE TABLE stats (id int PRIMARY KEY REFERENCES users, n int NOT NULL);
    SELECT redis_migrate.add_mapping('live', 'stats', 'stat:{id:int}', 'stats', 'SELECT id, value::int AS n FROM redis_batch', '{id}', databases => '{0}', depends_on => '{users}');
    SELECT redis_migrate.add_mapping('live', 'seen', 'seen:{id}', 'seen', 'SELECT db, id, value, false AS gone FROM redis_batch', '{db,id}', on_delete => 'gone = true');
    CREATE TABLE addresses (address text PRIMARY KEY, id text NOT NULL);
    SELECT redis_migrate.add_mapping('live', 'addresses', 'mail:{id}', 'addresses', 'SELECT value AS address, id FROM redis_batch', '{address}', databases => '{0}');
    SELECT redis_migrate.skip_keys('live', 'skip:*');
});
$redis->cli_lines("SET user:1 ann\nHSET order:1 user 1 total 10\nSET seen:a 0\nSELECT 1\nSET seen:a 1\n");
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'without preloading, too');
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
my $orders = 'SELECT id, user_id, total FROM orders ORDER BY id';
my $rejects = q{SELECT key, rule FROM redis_migrate.rejects WHERE settled_at IS NULL ORDER BY key};

# The child comes before its parent, and goes after it.
$redis->cli('HSET', 'order:2', 'user', '2', 'total', '20');
wait_until('the child waits', sub { live($node, 'keys_ahead') eq '1' });
is(rows($orders), '1|1|10.00' =~ s/\.00//r, 'a row without its parent waits');
$redis->cli('SET', 'user:2', 'bob');
is(wait_for($node) . rows($orders), "1|1|10\n2|2|20", 'until that has come');
$redis->cli('DEL', 'user:1');
wait_until('the parent waits', sub { live($node, 'keys_ahead') eq '1' });
is(rows('SELECT id FROM users ORDER BY id'), "1\n2", 'a row that others refer to stays');
$redis->cli('DEL', 'order:1');
is(wait_for($node) . rows('SELECT id FROM users ORDER BY id'), '2', 'until they are gone');
$redis->cli_lines("MULTI\nDEL user:2\nDEL order:2\nHSET order:3 user 3 total 30\nSET user:3 cyd\nEXEC\n");
is(wait_for($node) . rows($orders) . rows('SELECT id FROM users'), '3|3|303', 'in one transaction the order does not matter');

# A counter that waits for its parent is read again ahead of the stream: no step may be counted twice.
$redis->cli('INCR', 'stat:9');
wait_until('the counter waits', sub { live($node, 'keys_ahead') eq '1' });
my $held = hold_worker($node, 'replication link');
$redis->cli('INCR', 'stat:9') for 1 .. 5;
usleep(2_500_000);
$redis->cli('SET', 'user:9', 'eve');
$held->release;
is(wait_for($node) . rows('SELECT n FROM stats WHERE id = 9'), '6', 'a counter that waits for its parent counts right');
$redis->cli('DEL', 'stat:9', 'user:9');

# A bad value is rejected, the rest goes on, and a good value takes its place.
$redis->cli_lines("HSET order:4 user 3 total -1\nHSET order:5 user 3 total 50\nHSET order:6 user 3 total none\n");
is(wait_for($node) . rows($orders), "3|3|30\n5|3|50", 'bad values are rejected by themselves');
is(rows($rejects), "order:4|orders_total_check\norder:6|total", 'and shown');
$redis->cli_lines("HSET order:4 total 40\nDEL order:6\n");
is(wait_for($node) . rows($orders) . rows($rejects), "3|3|30\n4|3|40\n5|3|50", 'until their keys have good ones, or none');

# on_delete with a SET list; several databases; keys that are skipped.
$redis->cli_lines("DEL seen:a\nSET skip:1 x\nSELECT 1\nSET seen:a 2\nSELECT 2\nSET seen:a 3\n");
is(wait_for($node) . rows('SELECT db, value, gone FROM seen ORDER BY db'), "0|0|t\n1|2|f\n2|3|f", 'a row is marked as gone');
$redis->cli('SET', 'seen:a', '9');
is(wait_for($node) . rows('SELECT db, value, gone FROM seen ORDER BY db'), "0|9|f\n1|2|f\n2|3|f", 'and comes back');
is(rows('SELECT count(*) FROM redis_migrate.archive'), '0', 'skipped keys are not archived');

# Rows whose identity is in the value: a full ledger knows which key they came from.
is(rows(q{SELECT ledger FROM redis_migrate.mappings WHERE mapping = 'addresses'}), 'full', 'a full ledger');
$redis->cli_lines("SET mail:1 a\nSET mail:2 b\nSET mail:3 c\n");
is(wait_for($node) . rows('SELECT * FROM addresses ORDER BY 1'), "a|1\nb|2\nc|3", 'rows come');
$redis->cli_lines("SET mail:1 d\nDEL mail:2\nRENAME mail:3 mail:4\n");
is(wait_for($node) . rows('SELECT * FROM addresses ORDER BY 1'), "c|4\nd|1", 'change and go');

# A large transaction, a large value.
$redis->cli_lines("MULTI\n" . join('', map { "SET user:$_ u$_\nAPPEND user:$_ x\n" } 1000 .. 5999) . "EXEC\n");
is(wait_for($node) . rows(q{SELECT count(*), min(name), max(name) FROM users WHERE id >= 1000}), '5000|u1000x|u5999x', 'a transaction of 10000 commands');
$redis->cli('EVAL', q{redis.call('SET', KEYS[1], string.rep('y', 40 * 1024 * 1024)); redis.call('APPEND', KEYS[1], 'end')}, 1, 'user:7');
is(wait_for($node) . rows(q{SELECT length(name) FROM users WHERE id = 7}), 40 * 1024 * 1024 + 3, 'a value of 40 MB');

# Two keys that change together: whoever looks after wait_for sees both or neither.
$redis->cli_lines(join '', map { "MULTI\nSET user:8 " . ($_ % 2 ? 'here' : 'not') . "\nSET user:9 " . ($_ % 2 ? 'not' : 'here') . "\nINCR seen:n\nEXEC\n" } 1 .. 501);
is(wait_for($node) . rows(q{SELECT string_agg(name, ',' ORDER BY id) FROM users WHERE id IN (8, 9)}) . rows(q{SELECT value FROM seen WHERE id = 'n'}), 'here,not501', 'a value that moves is in one place');

# The target is locked for a while, and more arrives than the spool may hold.
my $blocker = start_sql($node, 'BEGIN; LOCK users; SELECT pg_sleep(300)');
wait_until('the target is locked', sub { rows(q{SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = 'users'::regclass}) eq '1' });
$redis->cli('SET', 'user:10', 'late');
my $megabyte = q{"redis.call('SET', KEYS[1], string.rep('x', 1024 * 1024))" 1};
$redis->cli_lines(join '', map { "EVAL $megabyte skip:$_\n" } 1 .. 110);
wait_until('the spool is full', sub { live($node, 'state') eq 'spool full' });
cmp_ok(live($node, 'spool_bytes'), '<=', 160 * 1024 * 1024, 'what waits is bounded') or diag live($node, '*');
rows(q{SELECT pg_terminate_backend(pid) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = 'users'::regclass});
is(wait_for($node) . rows('SELECT name FROM users WHERE id = 10'), 'late', 'it goes on when there is room');
is(rows('SELECT count(*) FROM redis_migrate.runs'), '1', 'without another snapshot');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});

# A transaction that is larger than that can never be whole here. The link must be there before it: its backlog would
# not hold it, and a snapshot would take its place. Only a write after the start shows the link; wait_for is content
# with a position that was reached before.
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
$redis->cli('SET', 'user:10', 'linked');
is(wait_for($node) . rows('SELECT name FROM users WHERE id = 10'), 'linked', 'the link is there');
$redis->cli('EVAL', q{for i = 1, 110 do redis.call('SET', 'skip:' .. i, string.rep('x', 1024 * 1024)) end}, 0);
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
like(job($node, 'live', 'sqlstate, message'), qr/^54000\|a transaction of the stream at offset \d+ is larger/, 'a transaction larger than the spool is named');
$node->safe_psql('postgres', q{LOAD 'pg_redis_migrate'; ALTER SYSTEM SET pg_redis_migrate.max_spool_size = '1GB'});
$node->reload;
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'with more room it goes on');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});

# From a replica.
my $replica = start_redis(args => [ '--replicaof', '127.0.0.1 ' . $redis->port, '--repl-diskless-sync-delay', '0' ]);
wait_until('the replica', sub { $replica->cli('INFO', 'replication') =~ /master_link_status:up/ });
$node->safe_psql('postgres', 'ALTER SERVER live OPTIONS (SET port $$' . $replica->port . q{$$); SELECT redis_migrate.start('live', live => true)});
$redis->cli_lines("SET user:11 new\nINCR seen:n\nLPUSH seen:l x\nLPOP seen:l\n");
wait_until('the replica has it all', sub { $replica->cli('INFO', 'replication') =~ /slave_repl_offset:(\d+)/ && $redis->cli('INFO', 'replication') =~ /master_repl_offset:$1\b/ });
is(wait_for($node) . rows(q{SELECT name FROM users WHERE id = 11}) . rows(q{SELECT id, value, gone FROM seen WHERE db = 0 AND id <> 'a' ORDER BY id}), "newn|502|f",
    'a replica is followed, too') or diag live($node, '*');

# A right that is missing.
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});
$replica->cli('ACL', 'SETUSER', 'default', '-psync');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
wait_until('the link is refused', sub { live($node, 'state, sqlstate') eq 'connecting|42501' });
like(live($node, 'last_error'), qr/psync.*: NOPERM\. Grant .* ACL SETUSER \.\.\. \+psync \+replconf/i, 'a right that is missing is named, and what helps');
is(job($node, 'live', 'state'), 'running', 'and does not end the run');

# A password that is changed while the run follows: whoever connects again uses the new one. One that is refused is named.
$replica->cli('ACL', 'SETUSER', 'default', '+psync');
is(wait_for($node), '', 'with the right it goes on by itself');
sub change_password
{
    my ($new) = @_;
    $replica->cli('CONFIG', 'SET', 'requirepass', $new);
    $replica->{password} = $new;
    $replica->cli('CLIENT', 'KILL', 'TYPE', $_) for qw(replica normal);
    return;
}
wait_until('the link', sub { $replica->cli('INFO', 'replication') =~ /connected_slaves:1/ });
rows(q{ALTER USER MAPPING FOR CURRENT_USER SERVER live OPTIONS (ADD password 'second')});
change_password('second');
$redis->cli_lines("SET user:12 new\nLPUSH seen:l x\nLPOP seen:l\nINCR seen:n\n");
wait_until('the change', sub { rows(q{SELECT value FROM seen WHERE id = 'n'}) eq '503' });
is(wait_for($node) . rows('SELECT name FROM users WHERE id = 12'), 'new', 'a password that was changed is read again');
change_password('third');
wait_until('the login is refused', sub { live($node, 'sqlstate') eq '28000' });
like(live($node, 'state || last_error'), qr/^(connecting|retrying)authentication with Redis at \S+ failed/, 'a login that is refused is named');
unlike(live($node, 'last_error'), qr/second|third/, 'without the password');
rows(q{ALTER USER MAPPING FOR CURRENT_USER SERVER live OPTIONS (SET password 'third')});
$redis->cli('SET', 'user:13', 'new');
wait_until('the change', sub { rows('SELECT name FROM users WHERE id = 13') eq 'new' });
is(wait_for($node), '', 'with the right password it goes on by itself');

done_testing();
