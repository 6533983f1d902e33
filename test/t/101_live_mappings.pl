# Live sync: a mapping that is added to a run, stopped or not, gets the keys that are there already, without another
# snapshot; the keys of one that is dropped go to the archive; any other change of the migration takes a snapshot. The same
# for links to the masters of a cluster, and for a run that scans and follows a feed.

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use RedisNodes;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb' ]);
my $node = new_node('mappings', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on\nmax_worker_processes = 20\npg_redis_migrate.max_workers = 12\npg_redis_migrate.batch_rows = 500");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $redis->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
$node->safe_psql('postgres', q{
    CREATE TABLE names (id text PRIMARY KEY, name text);
    CREATE TABLE visits (db int, id text, count bigint, PRIMARY KEY (db, id));
    CREATE TABLE visits_without_index (id text, member text, PRIMARY KEY (member, id));
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication');
    SELECT redis_migrate.add_mapping('live', 'names', 'name:{id}', 'names', 'SELECT id, value AS name FROM redis_batch', '{id}')});
$redis->cli('EVAL', q{for i = 1, 20000 do redis.call('SET', 'visits:' .. i, i) redis.call('SET', 'name:' .. i, 'n' .. i) end redis.call('SELECT', 1) redis.call('SET', 'visits:other', 7)}, 0);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub start { $node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)}); return wait_for($node); }
sub stop { $node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')}); return; }
sub full_syncs { my ($count) = $redis->cli('INFO', 'stats') =~ /sync_full:(\d+)/; return $count; }
my $add = q{SELECT redis_migrate.add_mapping('live', 'visits', 'visits:{id}', 'visits', 'SELECT db, id, value::bigint AS count FROM redis_batch', '{db,id}')};
my $archived = q{SELECT count(*) FROM redis_migrate.archive};

is(start(), '', 'without the mapping');
is(rows('SELECT count(*) FROM names') . '|' . rows($archived), '20000|20001', 'its keys are archived');
$redis->cli_lines(join '', map { "INCR visits:$_\n" } 1 .. 100);

# Without a stop, under load, with an end of the worker in between.
my $pid = fork() // die "fork: $!\n";
if ($pid == 0)
{
    for my $round (1 .. 200) { $redis->cli_lines(join '', map { 'INCR visits:' . (1 + int rand 20000) . "\nDEL visits:" . (19000 + $round) . "\nSET name:$round x$round\n" } 1 .. 20); select undef, undef, undef, 0.01; }
    POSIX::_exit(0);
}
sub worker { return rows(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'migration'}); }
my $worker = worker();
is(sql_error($node, q{SELECT redis_migrate.alter_mapping('live', 'names', priority => 'low')}) =~ /ERROR:  55006/, 1, 'a mapping is not changed while it is followed');
like(sql_error($node, q{SELECT redis_migrate.add_mapping('live', 'visits', 'visits:{id}', 'visits_without_index', 'SELECT id, member FROM redis_batch', '{id,member}', databases => '{0}', expand => 'elements')}), qr/ERROR:  0A000/, 'nor one added that cannot be');
rows("BEGIN; $add; SELECT pg_sleep(0.2); ROLLBACK");
rows($add);
wait_until('the keys are being looked for', sub { answers($node) && rows('SELECT count(*) > 500 FROM visits') eq 't' });
is(worker(), $worker, 'the worker has made way, and is the same');
is(live($node, 'reconnects'), '0', 'the link went on');
kill 'KILL', $worker;
waitpid $pid, 0;
wait_until('it answers', sub { answers($node, $worker) });
is(wait_for($node), '', 'with the mapping');
my $truth = $redis->cli('EVAL', q{local n, sum = 0, 0 for _, key in ipairs(redis.call('KEYS', 'visits:*')) do n = n + 1 sum = sum + redis.call('GET', key) end return n .. '|' .. string.format('%d', sum)}, 0);
is(rows('SELECT count(*), sum(count) FROM visits WHERE db = 0'), $truth, 'its keys that were there already are here, as they are now');
is(rows('SELECT id, count FROM visits WHERE db = 1'), 'other|7', 'of every database');
is(rows($archived), '0', 'and no longer in the archive');
is(rows('SELECT count(*) FROM names') . rows(q{SELECT name FROM names WHERE id = '200'}), '20000x200', 'the others went on');
# The stream does not select the database again after a cut.
$redis->cli_lines("SELECT 2\nINCR visits:cut\n");
is(wait_for($node), '', 'another database');
my $reconnects = live($node, 'reconnects');
$redis->cli(qw(CLIENT KILL TYPE replica));
wait_until('the link is back', sub { live($node, 'reconnects') > $reconnects });
$redis->cli_lines("SELECT 2\nINCR visits:cut\n");
is(wait_for($node) . rows(q{SELECT db, count FROM visits WHERE id = 'cut'}), '2|2', 'is still selected after a cut of the link');
is(full_syncs(), '1', 'without another snapshot');
is(rows('SELECT count(*) FROM redis_migrate.runs'), '1', 'in the same run');
is(last_run($node, 'live', 'balanced'), 't', 'whose sums agree');
is(live($node, 'mappings_unfilled'), '0', 'nothing is being looked for');

# Another mapping of the same keys, of which single elements are stored.
$redis->cli('EVAL', q{for i = 1, 3000 do redis.call('SADD', 'tags:' .. i, 'a', 'b', 'c' .. i) end}, 0);
rows('CREATE TABLE tags (id text, tag text, PRIMARY KEY (id, tag)); CREATE TABLE tag_counts (id text PRIMARY KEY, tags bigint)');
stop();
rows(q{SELECT redis_migrate.add_mapping('live', 'tags', 'tags:{id}', 'tags', 'SELECT id, member AS tag FROM redis_batch', '{id,tag}', expand => 'elements')});
is(start(), '', 'a mapping of elements');
my $tags = q{SELECT count(*), count(*) FILTER (WHERE tag = 'd') FROM tags};
is(rows($tags), '9000|0', 'with those that were there');
rows(q{SELECT redis_migrate.add_mapping('live', 'tag_counts', 'tags:{id}', 'tag_counts', 'SELECT id, jsonb_array_length(json) AS tags FROM redis_batch', '{id}')});
$redis->cli_lines(join '', map { "SADD tags:$_ d\n" } 1 .. 3000);
is(wait_for($node), '', 'and another of its keys, without a stop');
is(rows($tags), '12000|3000', 'changes that came meanwhile are here');
is(rows('SELECT count(*), sum(tags) FROM tag_counts'), '3000|12000', 'also in the other, which counts them whole');

# Mappings that are dropped: one of two, and the last of its keys.
rows(q{SELECT redis_migrate.drop_mapping('live', 'names'); SELECT redis_migrate.drop_mapping('live', 'tag_counts')});
$redis->cli_lines("SET name:1 changed\nSADD tags:1 e\nSET visits:1 1000\n");
is(wait_for($node), '', 'without two others');
is(rows(q{SELECT name FROM names WHERE id = '1'}) . rows(q{SELECT count(*) FROM names}), 'x120000', 'rows of a dropped mapping stay as they are');
is(rows($archived), '20000', 'its keys are archived');
$redis->cli_lines("DEL name:1 name:2\n");
is(wait_for($node) . rows($archived), '19998', 'and leave the archive when they go');
is(rows($tags) . ' ' . rows(q{SELECT tags FROM tag_counts WHERE id = '1'}) . ' ' . rows(q{SELECT count FROM visits WHERE db = 0 AND id = '1'}), '12001|3000 4 1000', 'the others went on');
is(rows('SELECT count(*) FROM redis_migrate.live_mapping WHERE NOT is_filled') . rows('SELECT count(*) FROM redis_migrate.live_mapping'), '02', 'nothing is being looked for');
is(full_syncs(), '1', 'without another snapshot');

# A mapping that comes back takes the rows that it had.
stop();
rows(q{SELECT redis_migrate.add_mapping('live', 'names', 'name:{id}', 'names', 'SELECT id, value AS name FROM redis_batch', '{id}')});
is(start(), '', 'a mapping that comes back');
$redis->cli_lines("DEL name:3\n");
is(wait_for($node) . rows(q{SELECT string_agg(id, ' ' ORDER BY id::int) FROM names WHERE id::int < 5}) . rows($archived), '1 2 40', 'owns the rows of its keys again');
is(full_syncs(), '1', 'without another snapshot');

# One that takes keys from another pattern, or was changed: only a snapshot can tell what is whose.
stop();
rows(q{SELECT redis_migrate.add_mapping('live', 'special', 'visits:vip:{id}', 'names', 'SELECT id, value AS name FROM redis_batch', '{id}')});
is(start(), '', 'a mapping that takes keys of another');
is(full_syncs(), '2', 'takes a snapshot');
is(rows('SELECT state FROM redis_migrate.runs ORDER BY run_id'), "superseded\nrunning", 'in another run');
stop();

# A run that scans reads all keys whenever it starts.
rows(q{CREATE TABLE scanned (id text PRIMARY KEY, name text); CREATE TABLE scanned_visits (id text PRIMARY KEY, count bigint);
    SELECT redis_migrate.create_migration('feed', 'live', source => 'scan', databases => '{0}');
    SELECT redis_migrate.add_mapping('feed', 'names', 'name:{id}', 'scanned', 'SELECT id, value AS name FROM redis_batch', '{id}')});
sub feed { $node->safe_psql('postgres', q{SELECT redis_migrate.start('feed', live => true)}); return sql_error($node, q{CALL redis_migrate.wait_for('feed', '50 s')}); }
is(feed(), '', 'a run that scans');
rows(q{SELECT redis_migrate.add_mapping('feed', 'visits', 'visits:{id}', 'scanned_visits', 'SELECT id, value::bigint AS count FROM redis_batch', '{id}')});
is(sql_error($node, q{CALL redis_migrate.wait_for('feed', '50 s')}), '', 'with another mapping');
is(rows('SELECT (SELECT count(*) FROM scanned), (SELECT count(*) FROM scanned_visits) = (SELECT count(*) FROM visits WHERE db = 0)'), '19997|t', 'has the keys of both');
rows(q{SELECT redis_migrate.stop('feed')});

# The links of a cluster look for keys each at its own master.
SKIP: {
    skip 'a cluster of the tests needs cluster-port, which came with Redis 7.0', 5 if redis_version() < 7;
    my $cluster = start_cluster(masters => 3, replicas => 0);
    my $seeds = join ', ', map { '127.0.0.1:' . $_->port } $cluster->nodes;
    rows(qq{CREATE SERVER many FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on'); CREATE USER MAPPING FOR PUBLIC SERVER many;
        CREATE TABLE sharded (id text PRIMARY KEY, name text); CREATE TABLE sharded_visits (id text PRIMARY KEY, count bigint);
        SELECT redis_migrate.create_migration('many', 'many', source => 'replication');
        SELECT redis_migrate.add_mapping('many', 'names', 'name:{id}', 'sharded', 'SELECT id, value AS name FROM redis_batch', '{id}')});
    sub many { $node->safe_psql('postgres', q{SELECT redis_migrate.start('many', live => true)}); return sql_error($node, q{CALL redis_migrate.wait_for('many', '50 s')}); }
    $cluster->set(map { ("name:$_" => "n$_", "visits:$_" => $_) } 1 .. 2000);
    is(many(), '', 'a cluster');
    rows(q{SELECT redis_migrate.add_mapping('many', 'visits', 'visits:{id}', 'sharded_visits', 'SELECT id, value::bigint AS count FROM redis_batch', '{id}')});
    $cluster->set(map { ("visits:$_" => 5) } 1 .. 100);
    is(sql_error($node, q{CALL redis_migrate.wait_for('many', '50 s')}), '', 'with another mapping');
    is(rows('SELECT (SELECT count(*) FROM sharded), count(*), sum(count) FROM sharded_visits'), '2000|2000|' . (500 + 2001000 - 5050), 'has the keys of both');
    is(rows(q{SELECT count(*) FROM redis_migrate.runs WHERE migration = 'many'}), '1', 'in the same run');

    # Only replication follows clusters.
    rows(q{SELECT redis_migrate.create_migration('scans', 'many', source => 'scan')});
    is(rows(q{SELECT status, detail, hint FROM redis_migrate.preflight('many') WHERE check_name = 'change feed'}), q{ok|a live run with source scan follows neither clusters nor the masters of Sentinels|For live sync use source 'replication'.}, 'a cluster is not followed by a scan');
}

done_testing();
