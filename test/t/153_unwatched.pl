# Somebody disables, drops or makes anew the triggers of a reverse feed, or the target: what was changed meanwhile comes to
# Redis all the same, or the family does not go back.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('unwatched', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub sent { my ($key, $value) = @_; return wait_until("$key to be $value", sub { $redis->cli('GET', $key) eq $value }); }
rows(q{CREATE TABLE parted (id text PRIMARY KEY, value text) PARTITION BY LIST (id);
    CREATE TABLE part1 PARTITION OF parted FOR VALUES IN ('1'); CREATE TABLE part2 PARTITION OF parted FOR VALUES IN ('2');
    SELECT redis_migrate.add_mapping('live', 'parted', 'p:{id}', 'parted', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')});
$redis->cli_lines(join "", (map { "SET s:$_ $_\n" } 1 .. 3), "SET p:1 1\nSET p:2 2\n");
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
my ($s, $p) = map { ", pattern => '$_:{id}'" } 's', 'p';
my $cutover = q{CALL redis_migrate.cutover('live', 'confirmed', max_pause => '30 s', force => true};
is(sql_error($node, "$cutover$s)") . sql_error($node, "$cutover$p)"), '', 'cutover');
my $start = q{SELECT redis_migrate.start_reverse('live', 's:{id}'); SELECT redis_migrate.start_reverse('live', 'p:{id}')};
rows($start);
sub settled { return wait_until('the feed', sub { rows(q{SELECT needs_full OR waiting > 0 OR message IS NOT NULL FROM redis_migrate.reverse_feeds WHERE state = 'running'}) eq 'f' }); }
settled();
my %trigger = map { $_ => 'redis_migrate_outbox_' . rows("SELECT mapping_id FROM redis_migrate.mapping WHERE mapping = '$_'") } 'strings', 'parted';
my $cutback = q{CALL redis_migrate.cutback('live'};
sub refused { my ($table, $what) = @_; return like(sql_error($node, $cutback . ($table eq 'strings' ? $s : $p) . ')'), qr/ERROR:  55000: changes of table public\.$table are not noted\nDETAIL:  .*\nHINT:  .*start_reverse/, $what); }

rows('ALTER TABLE parted ATTACH PARTITION part3 FOR VALUES IN (\'3\')') if rows('CREATE TABLE part3 (id text PRIMARY KEY, value text)') eq '';
rows(q{SET session_replication_role = replica; UPDATE strings SET value = 'replica' WHERE id = '1'; UPDATE part1 SET value = 'replica'; INSERT INTO part3 VALUES ('3', 'replica')});
sent($_, 'replica') for 's:1', 'p:1', 'p:3';
wait_until('the feed to find the partition', sub { rows(q{SELECT string_agg(partitions, ' ') LIKE '%' || 'part3'::regclass::oid || ':%' FROM redis_migrate.reverse_mapping}) eq 't' });
settled();
is(rows("BEGIN; $start; SELECT count(*) FROM redis_migrate.outbox_gap; COMMIT"), "\n\n0", 'start_reverse once more leaves out nothing');
settled();

like(sql_error($node, "BEGIN ISOLATION LEVEL $_; $start"), qr/ERROR:  25001: redis_migrate\.start_reverse needs READ COMMITTED\n/, "not in $_, where it would not see what was not noted") for 'REPEATABLE READ', 'SERIALIZABLE';

# For a moment, so that nobody sees it. They are enabled then, but not for all sessions.
rows(q{BEGIN; ALTER TABLE strings DISABLE TRIGGER ALL; UPDATE strings SET value = 'unnoted' WHERE id = '1'; ALTER TABLE strings ENABLE TRIGGER ALL; COMMIT});
sent('s:1', 'unnoted');
wait_until('the feed to tell it', sub { rows('SELECT message FROM redis_migrate.reverse_feeds') eq 'changes of table public.strings are not noted' });
refused('strings', 'a family whose changes are not noted does not go back');
rows(q{UPDATE redis_migrate.reverse_feed SET wanted = false});  # so that its worker makes way
wait_until('the feed to end', sub { rows(q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'reverse feed' AND pid IS NOT NULL}) eq '0' });
like(sql_error($node, q{CALL redis_migrate.feed_redis('live', until_drained => true)}), qr/ERROR:  55000: changes of table public\.strings are not noted\nDETAIL:  .*\nHINT:  SELECT redis_migrate\.start_reverse\('live', 's:\{id\}'\)/, 'nor is it drained, which says what to do');
rows(q{SET session_replication_role = replica; UPDATE strings SET value = 'unnoted too' WHERE id = '1'});
rows($start);
sent('s:1', 'unnoted too');
settled();

# Of one partition.
rows("ALTER TABLE part2 DISABLE TRIGGER $trigger{parted}; UPDATE part2 SET value = 'unnoted'");
refused('part2', 'nor one of a partition');
rows($start);
sent('p:2', 'unnoted');
settled();
is(sql_error($node, "$cutback$p)"), '', 'it goes back then');

# Dropped, and the table, too.
rows("DROP TRIGGER $trigger{strings} ON strings; UPDATE strings SET value = 'dropped' WHERE id = '1'");
refused('strings', 'nor one without triggers');
rows($start);
sent('s:1', 'dropped');
settled();
# Others of their names.
for my $row ([ 'AFTER INSERT OR UPDATE OR DELETE', 'FOR EACH ROW WHEN (pg_trigger_depth() > 9)', 'note_change' ], [ 'AFTER INSERT OR DELETE', 'FOR EACH ROW', 'note_change' ],
    [ 'AFTER INSERT OR UPDATE OF expires_at OR DELETE', 'FOR EACH ROW', 'note_change' ], [ 'AFTER INSERT OR UPDATE OR DELETE', 'FOR EACH ROW', 'nothing' ])
{
    my ($when, $each, $function) = @$row;
    rows(q{CREATE OR REPLACE FUNCTION redis_migrate.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'}) if $function eq 'nothing';
    my ($id) = $trigger{strings} =~ /(\d+)$/;
    rows("BEGIN; DROP TRIGGER $trigger{strings} ON strings; CREATE TRIGGER $trigger{strings} $when ON strings $each EXECUTE FUNCTION redis_migrate.$function('$id', 'id'); ALTER TABLE strings ENABLE ALWAYS TRIGGER $trigger{strings}; COMMIT");
    refused('strings', "nor one with another trigger of that name: $when $each $function");
}
rows($start);
settled();
rows(q{BEGIN; ALTER TABLE strings RENAME TO older; CREATE TABLE strings (LIKE older INCLUDING ALL); INSERT INTO strings VALUES ('1', 'another'); COMMIT});
wait_until('the feed to tell it', sub { rows('SELECT message FROM redis_migrate.reverse_feeds') eq 'changes of table public.strings are not noted' });
refused('strings', 'nor one that has another table');
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}')});
is(rows(q{SELECT string_agg(DISTINCT tgrelid::regclass::text, ' ') FROM pg_trigger WHERE tgname LIKE 'redis_migrate_outbox_' || (SELECT mapping_id FROM redis_migrate.mapping WHERE mapping = 'strings') || '%'}), 'strings', 'whose triggers are gone then');
sent('s:1', 'another');
settled();
is($redis->cli('EXISTS', 's:2') . sql_error($node, "$cutback$s)"), '0', 'what another table has is in Redis when its family goes back');

# A family that is Redis' still, and followed: all rows would write over what the application writes to Redis.
$redis->cli_lines("SADD t:1 a\nSADD t:2 a\nZADD z:1 1 a\n");
is(wait_for($node), '', 'live sync');
rows(q{SELECT redis_migrate.set_reverse_query('live', 'members', 'SELECT id, ''set'' AS type, jsonb_agg(member) AS value, NULL AS expires_at FROM redis_rows GROUP BY id');
    SELECT redis_migrate.start_reverse('live', 't:{id}'); SELECT redis_migrate.start_reverse('live', 'z:{id}')});
rows(q{TRUNCATE members});
for my $score (2, 3)
{
    rows("UPDATE scores SET score = $score");
    wait_until('the feed of another family', sub { $redis->cli('ZSCORE', 'z:1', 'a') eq $score });
}
is(sql_error($node, q{SET statement_timeout = '30 s'; CALL redis_migrate.feed_redis('live', until_drained => true)}), '', 'whoever waits for the feed does not wait for that');
is($redis->cli('EXISTS', 't:1', 't:2') . rows(q{SELECT needs_full FROM redis_migrate.reverse_feeds}), '2t', 'they are not written');
rows(q{SELECT redis_migrate.set_family_state('live', 't:{id}', 'postgres')});
wait_until('all rows, once it is PostgreSQL\'s', sub { $redis->cli('EXISTS', 't:1', 't:2') eq '0' });
settled();
rows(q{SELECT redis_migrate.set_family_state('live', 't:{id}', 'redis')});

# The fence that is left refuses the application, not who takes a run back.
$redis->cli('SET', 'p:1', 'after');
is(wait_for($node) . rows(q{SELECT value FROM parted WHERE id = '1'}), 'after', 'live sync goes on');
rows(q{SELECT redis_migrate.stop('live')});
my $run = rows(q{SELECT max(run_id) FROM redis_migrate.runs WHERE migration = 'live'});
is(sql_error($node, "CALL redis_migrate.undo_run($run)") . rows(q{SELECT value FROM parted WHERE id = '1'}) . rows(q{SELECT count(*) FROM redis_migrate.undo_leftovers WHERE sqlstate = '25006'}), 'replica0', 'it is undone beside the fence');
like(sql_error($node, q{UPDATE parted SET value = 'x'}), qr/25006/, 'which stands');

done_testing();
