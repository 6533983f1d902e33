# Source replication: one snapshot of a moment, as a replica gets it, also when the run is interrupted.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PrmTest;
use PrmTools;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--rdb-key-save-delay', '0' ]);
my $node = new_node('main');
create_server($node, 'source', $redis);
$node->append_conf('postgresql.conf', 'pg_redis_migrate.batch_rows = 100');
$node->reload;

$redis->cli_lines(join '', map { "SET user:$_ name-$_\nHSET team:$_ name t$_ size $_\n" } 1 .. 2000);
$redis->cli_lines("SELECT 5\nSET user:1 other\nRPUSH stray a b\n");
$node->safe_psql('postgres', q{
    CREATE TABLE users (db int, id int, name text, PRIMARY KEY (db, id));
    CREATE TABLE teams (db int, id int, name text, size int, PRIMARY KEY (db, id));
    SELECT redis_migrate.create_migration('shop', 'source', source => 'replication');
    SELECT redis_migrate.add_mapping('shop', 'users', 'user:{id:int}', 'users', 'SELECT db, id, value AS name FROM redis_batch', '{db,id}', priority => 'high');
    SELECT redis_migrate.add_mapping('shop', 'teams', 'team:{id:int}', 'teams', $$SELECT db, id, json->>'name' AS name, (json->>'size')::int AS size FROM redis_batch$$, '{db,id}');
});

# The files of the database's snapshots.
sub snapshots
{
    my $directory = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT 'base/' || oid FROM pg_database WHERE datname = current_database()}) . '/pg_redis_migrate';
    return join ' ', sort map { s{.*/}{}r } glob "$directory/*";
}

my $rows = q{SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM teams), (SELECT sum(size) FROM teams)};

for my $diskless ('yes', 'no')
{
    $redis->cli('CONFIG', 'SET', 'repl-diskless-sync', $diskless);
    $node->safe_psql('postgres', 'TRUNCATE users, teams');
    $node->psql('postgres', q{CALL redis_migrate.run('shop')}, stderr => \my $err);
    like($err, qr/NOTICE:  received a snapshot of Redis at 127\.0\.0\.1:\d+: 1 MB in \d+ ms/, "diskless $diskless: the snapshot is told");
    is($node->safe_psql('postgres', $rows), '2001|2000|2001000', 'every key is a row');
    is(last_run($node, 'shop', 'source, state, balanced, read, migrated, archived'), 'replication|completed|t|4002|4001|1', 'and counted');
    is(snapshots(), '', 'the snapshot is gone when the run is complete');
}
is($node->safe_psql('postgres', q{SELECT key, type FROM redis_migrate.archive}), 'stray|list', 'keys without a mapping are archived');

# Writes during the run do not belong to it: all levels read one moment.
$node->safe_psql('postgres', 'TRUNCATE users, teams; CREATE TABLE gate (x int); CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT count(*) FROM users) >= 1000 THEN PERFORM 1 FROM gate; END IF;
            RETURN NULL;
        END$$;
    CREATE TRIGGER gate BEFORE INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION pass()');
my $blocker = start_sql($node, 'BEGIN; LOCK gate; SELECT pg_sleep(300)');
wait_until('the gate is locked', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE granted AND relation = 'gate'::regclass}) eq '1' });
my $waiting = start_sql($node, q{CALL redis_migrate.run('shop')});
wait_until('the run meets the gate', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass}) eq '1' });
$redis->cli('FLUSHALL');
$redis->cli('HSET', 'team:9999', 'name', 'late', 'size', '1');
my $run = $node->safe_psql('postgres', 'SELECT max(run_id) FROM redis_migrate.runs');
is(snapshots(), "$run.rdb", 'a run under way has its snapshot');
like($node->safe_psql('postgres', q{SELECT file_size > 10000, file_offset <= file_size FROM redis_migrate.progress}), qr/^t\|t$/, 'progress shows how far it is read');

# A crash in the middle: the run goes on with the same snapshot, though Redis is empty by now.
$node->stop('immediate');
$node->start;
is(snapshots(), "$run.rdb", 'the snapshot survives a crash');
$node->psql('postgres', q{CALL redis_migrate.run('shop')}, stderr => \my $resumed);
like($resumed, qr/resuming run $run/, 'the run is resumed');
unlike($resumed, qr/received a snapshot/, 'without another snapshot');
is($node->safe_psql('postgres', $rows), '2001|2000|2001000', 'every key of the moment is a row, and no other');
is(last_run($node, 'shop', 'state, balanced, read, restarts'), 'completed|t|4002|0', 'each counted once');

# A snapshot that is lost: another is taken, and the pass begins again.
sub interrupt
{
    $redis->cli_lines(join '', map { "SET user:$_ name-$_\n" } 1 .. 2000);
    $node->safe_psql('postgres', 'TRUNCATE users, teams; DROP TRIGGER IF EXISTS gate ON users;
        CREATE TRIGGER gate BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION no_more()');
    my ($status) = $node->psql('postgres', q{CALL redis_migrate.run('shop')}, stderr => \my $err);
    like($err, qr/ERROR:  no more/, 'the run is interrupted');
    $node->safe_psql('postgres', 'DROP TRIGGER gate ON users');
    return $node->safe_psql('postgres', 'SELECT max(run_id) FROM redis_migrate.runs');
}
$node->safe_psql('postgres', q{CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF (SELECT count(*) FROM users) > 500 THEN RAISE 'no more' USING ERRCODE = '57014'; END IF; RETURN NEW; END$$});
$run = interrupt();
is(snapshots(), "$run.rdb", 'an interrupted run keeps its snapshot');
my $path = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT 'base/' || oid FROM pg_database WHERE datname = current_database()}) . "/pg_redis_migrate/$run.rdb";
unlink $path or die "$path: $!\n";
$node->psql('postgres', q{CALL redis_migrate.run('shop')}, stderr => \$resumed);
like($resumed, qr/received a snapshot.*is read again from its beginning/s, 'a snapshot that is lost is taken again');
is(last_run($node, 'shop', 'state, balanced, read, restarts'), 'completed|t|2001|1', 'and the counts begin again');
is($node->safe_psql('postgres', $rows), '2000|1|1', 'with the keys of that moment');

# A run that takes the place of an interrupted one removes its snapshot, and what a crash has left.
$run = interrupt();
append_to_file($path =~ s/\d+\.rdb$/999999.part/r, 'x');
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop', source => 'scan')});
is(snapshots(), '', 'snapshots that no run goes on with are removed');

# Prune sees what the snapshot lacks; preview and dry run leave no snapshot.
$redis->cli('DEL', 'user:7');
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop', prune => true)});
is($node->safe_psql('postgres', 'SELECT count(*) FROM users WHERE id = 7'), '0', 'prune removes what is gone');
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop', dry_run => true)});
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.preview('shop', max_keys => 10)}), '10', 'a preview reads a snapshot');
is(snapshots(), '', 'which goes with it');

# Limits and rights.
$node->psql('postgres', q{SET pg_redis_migrate.max_snapshot_size = 0; CALL redis_migrate.run('shop')}, stderr => \my $limited);
like($limited, qr/ERROR:  the snapshot is larger than 0 MB, the most that is allowed\nHINT:  Raise pg_redis_migrate\.max_snapshot_size/, 'the size has a limit');
is(snapshots(), '', 'and what had arrived is removed');
like(sql_error($node, q{SELECT redis_migrate.create_migration('none', source => 'replication')}), qr/22023.*source 'replication' needs a server/s, 'it needs a server');
$redis->cli('ACL', 'SETUSER', 'default', '-psync');
like(sql_error($node, q{CALL redis_migrate.run('shop')}), qr/42501.*psync.*ACL SETUSER \.\.\. \+psync \+replconf/si, 'a right that is missing is named');
$redis->cli('ACL', 'SETUSER', 'default', '+psync');

# DROP DATABASE takes the snapshots along.
$node->safe_psql('postgres', 'CREATE DATABASE other');
my $other = $node->data_dir . '/base/' . $node->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'other'});
mkdir "$other/pg_redis_migrate" or die;
append_to_file("$other/pg_redis_migrate/1.rdb", 'x');
$node->safe_psql('postgres', 'DROP DATABASE other');
ok(!-e $other, 'DROP DATABASE removes the snapshots of a database');

done_testing();
