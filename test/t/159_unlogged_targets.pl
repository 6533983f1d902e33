# A crash of PostgreSQL empties unlogged targets: what would go on where it was begins anew, and all rows are there again.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('unlogged', preload => 1, init => { allows_streaming => 1 }, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub notices { my ($sql) = @_; my $err = ''; $node->psql('postgres', $sql, stderr => \$err); return $err; }
sub crash { $node->stop('immediate'); $node->start; return; }
# How many rows each target has.
sub counts { return rows(q{SELECT concat_ws(' ', (SELECT count(*) FROM plain), (SELECT count(*) FROM parted), (SELECT count(*) FROM logged))}); }

rows(q{
    CREATE UNLOGGED TABLE plain (id text PRIMARY KEY, value text);
    CREATE TABLE parted (id int PRIMARY KEY, value text) PARTITION BY RANGE (id);
    CREATE UNLOGGED TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (5);
    CREATE UNLOGGED TABLE parted_2 PARTITION OF parted FOR VALUES FROM (5) TO (100);
    CREATE TABLE logged (id text PRIMARY KEY, value text);
    SELECT redis_migrate.create_migration('live', 'live', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'plain', 'a:{id}', 'plain', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'parted', 'p:{id:int}', 'parted', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'logged', 'c:{id}', 'logged', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')});
$redis->cli_lines(join '', map { "SET a:$_ v\nSET p:$_ v\nSET c:$_ v\n" } 1 .. 10);

# A run that was stopped, with some keys stored.
rows(q{ALTER TABLE logged ADD CHECK (id <> 'bad')});
$redis->cli('SET', 'c:bad', 'v');
like(sql_error($node, q{CALL redis_migrate.run('live', on_error => 'stop')}), qr/ERROR:  22000/, 'a run is stopped');
crash();
is(rows('SELECT count(*) FROM plain'), '0', 'a crash empties the table');
$redis->cli('DEL', 'c:bad');
like(notices(q{CALL redis_migrate.run('live')}), qr/WARNING:  target public\.p\w+ of mapping "\w+" has lost rows: what was stored in it is read again\nDETAIL:  It is or was unlogged, or is made of tables that are\./, 'the next run says so');
is(counts(), '10 10 10', 'and reads all keys');
is(rows(q{SELECT string_agg(state, ' ' ORDER BY run_id) FROM redis_migrate.runs}), 'superseded completed', 'from the beginning');

# A run that was stopped after a run that lost no rows goes on.
rows(q{DELETE FROM plain; DELETE FROM parted; VACUUM plain});
$redis->cli('SET', 'c:bad', 'v');
like(sql_error($node, q{CALL redis_migrate.run('live', on_error => 'stop')}), qr/ERROR:  22000/, 'another');
$redis->cli('DEL', 'c:bad');
like(notices(q{CALL redis_migrate.run('live')}), qr/NOTICE:  resuming run/, 'goes on without a crash');
is(counts(), '10 10 10', 'with all rows');

# What is empty for another reason is not read again.
rows(q{CREATE TABLE mixed (id int PRIMARY KEY, value text) PARTITION BY RANGE (id);
    CREATE TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO (100);
    CREATE UNLOGGED TABLE mixed_2 PARTITION OF mixed FOR VALUES FROM (100) TO (200);
    SELECT redis_migrate.add_mapping('live', 'mixed', 'm:{id:int}', 'mixed', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')});
$redis->cli('MSET', map { ("m:$_", 'v') } 1 .. 5);
$redis->cli('SET', 'c:bad', 'v');
like(sql_error($node, q{CALL redis_migrate.run('live', on_error => 'stop')}), qr/ERROR:  22000/, 'a run that was stopped');
rows(q{DELETE FROM plain; VACUUM plain});
is(rows(q{SELECT pg_relation_size('plain') + pg_relation_size('mixed_2')}), '0', 'with tables that have no rows');
$node->restart;
$redis->cli('DEL', 'c:bad');
my $said = notices(q{CALL redis_migrate.run('live')});
like($said, qr/NOTICE:  resuming run/, 'goes on after a restart');
unlike($said, qr/WARNING/, 'without a warning');
is(rows(q{SELECT count(*) FROM mixed}) . ' ' . counts(), '5 0 10 10', 'and leaves alone what somebody has deleted');
$redis->cli('DEL', map { "m:$_" } 1 .. 5);
rows(q{SELECT redis_migrate.drop_mapping('live', 'mixed'); CALL redis_migrate.run('live')});
is(counts(), '10 10 10', 'until the next run');

# Live sync.
rows(q{SELECT redis_migrate.alter_migration('live', source => 'replication')});
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
$redis->cli_lines("SET a:11 v\nDEL p:1\n");
is(wait_for($node) . counts(), '11 9 10', 'follows');
my $run = live($node, 'run_id');
rows('CHECKPOINT');
crash();
wait_until('a new snapshot', sub { rows(q{SELECT max(run_id) FROM redis_migrate.runs}) > $run });
is(wait_for($node) . counts(), '11 9 10', 'after a crash it takes a new snapshot, and all rows are there');
is(rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live'); SELECT verified FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT 1}), 't', 'which is proved');
$run = live($node, 'run_id');
$node->restart;
$redis->cli('SET', 'a:12', 'v');
is(wait_for($node) . counts() . ' ' . (live($node, 'run_id') - $run), '12 9 10 0', 'after a restart it goes on where it was');

# Rows that go with their keys are not lost.
$redis->cli('MSET', map { ("a:$_", 'w') } 1 .. 12);
$redis->cli('DEL', map { "a:$_" } 1 .. 12);
is(wait_for($node) . counts(), '0 9 10', 'rows go with their keys');
rows('VACUUM plain');
is(rows(q{SELECT pg_relation_size('plain')}), '0', 'and leave a table without a page');
$node->restart;
$redis->cli('MSET', map { ("a:$_", 'v') } 1 .. 12);
is(wait_for($node) . counts() . ' ' . (live($node, 'run_id') - $run), '12 9 10 0', 'after which it goes on, too');

# Rows of a family that is PostgreSQL's are not those of Redis.
rows(q{SELECT redis_migrate.set_family_state('live', 'a:{id}', 'postgres'); SELECT redis_migrate.set_family_state('live', 'p:{id:int}', 'postgres')});
crash();
$redis->cli('SET', 'c:11', 'v');
is(wait_for($node) . counts() . ' ' . (live($node, 'run_id') - $run), '0 0 11 0', 'what is the application\'s does not come back');
rows(q{SELECT redis_migrate.stop('live')});

# A standby that is promoted has no rows of unlogged tables, either.
rows(q{SELECT redis_migrate.create_migration('other', 'live', databases => '{0}', unmapped => 'reject');
    CREATE UNLOGGED TABLE held (id text PRIMARY KEY, value text);
    SELECT redis_migrate.add_mapping('other', 'held', 'h:{id}', 'held', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.skip_keys('other', p || ':{id}') FROM unnest(ARRAY['a', 'p']) AS p});
$redis->cli('MSET', map { ("h:$_", 'v') } 1 .. 10);
like(sql_error($node, q{CALL redis_migrate.run('other', on_error => 'stop')}), qr/ERROR:  22000/, 'a run that is stopped');
is(rows('SELECT count(*) FROM held'), '10', 'with rows');
$node->backup('held');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'held', has_streaming => 1);
$copy->start;
$node->wait_for_catchup($copy);
$node->stop;
$copy->promote;
$redis->cli('DEL', map { "c:$_" } 'bad', 1 .. 20);
my $err = '';
$copy->psql('postgres', q{CALL redis_migrate.run('other')}, stderr => \$err);
like($err, qr/WARNING:  target public\.held of mapping "held" has lost rows/, 'which a run says, too');
is($copy->safe_psql('postgres', 'SELECT count(*) FROM held'), '10', 'and reads again');
$copy->stop;
done_testing();
