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
my $node = new_node('unlogged', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
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
like(notices(q{CALL redis_migrate.run('live')}), qr/WARNING:  target public\.p\w+ of mapping "\w+" is empty: what was stored in it is read again\nDETAIL:  It is unlogged\./, 'the next run says so');
is(counts(), '10 10 10', 'and reads all keys');
is(rows(q{SELECT string_agg(state, ' ' ORDER BY run_id) FROM redis_migrate.runs}), 'superseded completed', 'from the beginning');

# A run that was stopped after a run that lost no rows goes on.
rows(q{DELETE FROM plain; DELETE FROM parted; VACUUM plain});
$redis->cli('SET', 'c:bad', 'v');
like(sql_error($node, q{CALL redis_migrate.run('live', on_error => 'stop')}), qr/ERROR:  22000/, 'another');
$redis->cli('DEL', 'c:bad');
like(notices(q{CALL redis_migrate.run('live')}), qr/NOTICE:  resuming run/, 'goes on without a crash');
is(counts(), '10 10 10', 'with all rows');

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

# Rows of a family that is PostgreSQL's are not those of Redis.
rows(q{SELECT redis_migrate.set_family_state('live', 'a:{id}', 'postgres'); SELECT redis_migrate.set_family_state('live', 'p:{id:int}', 'postgres')});
crash();
$redis->cli('SET', 'c:11', 'v');
is(wait_for($node) . counts() . ' ' . (live($node, 'run_id') - $run), '0 0 11 0', 'what is the application\'s does not come back');
$node->stop;
done_testing();
