# Families that are handed over while live sync and runs are under way: nothing of Redis is written over the rows any more
# once the change has committed.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('families');
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

$redis->cli_lines(load_commands(2000, 100));
$redis->cli_lines("SET s:gone 1\nSET s:kept 1\nSET s:c 0\n");
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . differences($node, $redis), '', 'live sync');

# The application moves while it writes.
my $load = start_load($redis, 50, 0.01);
rows(q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'postgres', 'moved'); UPDATE strings SET value = 'of PostgreSQL'});
my $strings = rows('SELECT id, value, expires_at FROM strings ORDER BY id');
$redis->cli_lines("DEL s:gone\nSET s:new 1\nINCR s:c\nHSET h:marker a 1\n");
is(wait_for($node), '', 'the stream goes on');
is(rows(q{SELECT fields FROM hashes WHERE id = 'marker'}), '{"a": "1"}', 'other families follow');
is(rows('SELECT id, value, expires_at FROM strings ORDER BY id'), $strings, 'that one is left alone');
cmp_ok(rows(q{SELECT sum(keys) FROM redis_migrate.run_counts WHERE pattern = 's:{id}' AND reason = 'owned'}), '>', 0, 'and counted');
is(rows('SELECT bool_and(balanced) FROM redis_migrate.runs'), 't', 'the sums add up');

# A restart, which takes a new snapshot, does not prune it, either.
rows(q{SELECT redis_migrate.stop('live')});
$load->finish;
$redis->cli_lines("FLUSHALL\nSET s:only 1\nHSET h:only a 1\nRPUSH l:only x\nZADD z:only 1 m\nSADD t:only m\n");
rows(q{ALTER DATABASE postgres SET pg_redis_migrate.live_delete_limit = 100});
rows(q{SELECT redis_migrate.start('live', live => true, force => true)});
is(wait_for($node) . rows('SELECT id FROM hashes'), 'only', 'after a new snapshot');
is(rows('SELECT id, value, expires_at FROM strings ORDER BY id'), $strings, 'it is left alone, though live sync was started with force');
rows(q{SELECT redis_migrate.stop('live')});

# Handed over in the middle of a run: whatever has been stored by then stays, and nothing comes after it.
rows(q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'redis')});
$redis->cli('EVAL', q{for i = 1, 20000 do redis.call('SET', 's:n' .. i, 'redis') end}, 0);
my $run = start_sql($node, q{SET pg_redis_migrate.batch_rows = 200; CALL redis_migrate.run('live', source => 'scan')});
wait_until('rows come', sub { rows(q{SELECT count(*) FROM strings WHERE value = 'redis'}) > 0 });
rows(q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'postgres')});
my $stored = rows(q{UPDATE strings SET value = 'of PostgreSQL'; SELECT count(*) FROM strings});
$run->finish;
is(rows(q{SELECT count(*), min(value), max(value) FROM strings}), "$stored|of PostgreSQL|of PostgreSQL", 'a run stops writing');
is(rows(q{SELECT state, balanced FROM redis_migrate.runs ORDER BY run_id DESC LIMIT 1}), 'completed|t', 'and completes');

# Nor does a prune by force take what is the application's.
rows(q{SET client_min_messages = error; CALL redis_migrate.run('live', source => 'scan', prune => true, force => true)});
is(rows(q{SELECT count(*), min(value), max(value) FROM strings}), "$stored|of PostgreSQL|of PostgreSQL", 'a prune by force leaves it alone');
is(rows(q{SELECT prune, prune_detail FROM redis_migrate.mapping_counts WHERE mapping = 'strings' ORDER BY run_id DESC LIMIT 1}), 'kept|its family belongs to PostgreSQL', 'and says so');

# A run that writes over what was changed here says so, and so does a prune that would take too much.
rows(q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'redis')});
$redis->cli_lines("FLUSHALL\n" . join '', map { "SET s:n$_ 1\n" } 1 .. 300);
rows(q{SET client_min_messages = error; CALL redis_migrate.run('live', source => 'scan', prune => true, force => true); UPDATE strings SET value = 'mine' WHERE id IN ('n1', 'n2'); DELETE FROM strings WHERE id = 'n3'});
my $err;
$node->psql('postgres', q{CALL redis_migrate.run('live', source => 'scan')}, stderr => \$err);
like($err, qr/WARNING:  run \d+ has written over 2 rows of mapping "strings" that were changed here, and put back 1 that were deleted here/, 'a run says what it has written over');
like($err, qr/set_family_state\('live', 's:\{id\}', 'postgres'\)/, 'and what to do');
like($err, qr/NOTICE:  rows of run \d+\nDETAIL:  +mapping +target +inserted +updated +unchanged +deleted\n.*\n +strings +public\.strings +1 +2 +297 +0/, 'and tells the rows of each mapping');
$redis->cli_lines(join '', map { "DEL s:n$_\n" } 1 .. 150);
$node->psql('postgres', q{CALL redis_migrate.run('live', source => 'scan', dry_run => true, prune => true)}, stderr => \$err);
like($err, qr/NOTICE:  prune would remove 150 rows of mapping "strings"/, 'a dry run says what a prune would remove');
is(rows('SELECT count(*) FROM strings'), '300', 'and removes nothing');
$node->psql('postgres', q{CALL redis_migrate.run('live', source => 'scan', prune => true)}, stderr => \$err);
like($err, qr/WARNING:  mapping "strings" was not pruned: the run would have deleted 150 of its 300 rows, more than pg_redis_migrate.prune_limit, 10 %/, 'a prune of half of the rows is refused');
is(rows('SELECT count(*) FROM strings'), '300', 'and removes nothing');

# Progress, as the client hears it.
$redis->cli('EVAL', q{for i = 1, 30000 do redis.call('SET', 's:p' .. i, i) end}, 0);
rows(q{ALTER SERVER live OPTIONS (ADD max_rate '10000')});
$node->psql('postgres', q{SET pg_redis_migrate.progress_interval = '1s'; CALL redis_migrate.run('live', source => 'scan')}, stderr => \$err);
like($err, qr{NOTICE:  run \d+: \d+ of about 30150 keys, \d+\.\d %, \d+\.\d keys/s, about \d\d:\d\d:\d\d left}, 'progress is told');
$node->psql('postgres', q{SET pg_redis_migrate.progress_interval = 0; CALL redis_migrate.run('live', source => 'scan')}, stderr => \$err);
unlike($err, qr{keys/s, about}, 'or not');

done_testing();
