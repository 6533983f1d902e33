# What a cutback waits for, and how long: a Redis that does not answer, the lock of families, what live sync notes for the
# reverse feed, rows that go; and what it does not wait for: a pass over all rows of another family, late deletions of keys
# whose rows are gone, too.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--hz', '100' ]);
my $node = new_node('waits');
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub last_cutover { my ($columns) = @_; return rows("SELECT $columns FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1"); }
sub cutback { my ($wait, $more) = @_; return "CALL redis_migrate.cutback('live', pattern => 's:{id}', max_wait => '$wait'" . ($more // '') . ')'; }
# A statement that stands at a place.
sub standing { my ($name, $where) = @_; return wait_until($name, sub { rows("SELECT count(*) FROM pg_stat_activity WHERE application_name = '$name' AND $where") eq '1' }); }
sub end_of { my ($name) = @_; return rows("SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = '$name'"); }
sub fence { return rows(q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'redis_migrate_fence%'}); }

rows(q{CREATE TABLE parted (id text PRIMARY KEY, value text) PARTITION BY HASH (id); CREATE TABLE part0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    SELECT redis_migrate.add_mapping('live', 'parted', 'p:{id}', 'parted', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}');
    CREATE TABLE counters (id text, kind text, n bigint, PRIMARY KEY (id, kind));
    SELECT redis_migrate.add_mapping('live', k, k || ':{id}', 'counters', format('SELECT id, %L AS kind, value::bigint AS n FROM redis_batch', k), '{id,kind}', databases => '{0}') FROM unnest('{visits,likes}'::text[]) AS k});
$redis->cli_lines(join '', (map { "SET s:$_ $_\n" } 1 .. 6), "ZADD z:first 1 m\nSET p:1 x\nSET visits:7 1\nSET likes:7 1\n");
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
my $cutover = q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}', to_state => 'both', max_pause => '30 s', force => true)};
is(sql_error($node, $cutover), '', 'cutover');
my $drain = q{CALL redis_migrate.feed_redis('live', until_drained => true)};
rows("SELECT redis_migrate.start_reverse('live', 's:{id}')");
rows($drain);

# Nobody else feeds, and Redis holds the batch of the cutback back.
rows(q{UPDATE strings SET value = 'x' WHERE id = '1'});
$redis->cli('CLIENT', 'PAUSE', 30000, 'WRITE');
my $error;
cmp_ok(elapsed(sub { $error = sql_error($node, cutback('2 s')); }), '<', 15, 'a Redis that does not answer is waited for no longer than max_wait');
like($error, qr/ERROR:  57014: the cutback took longer than max_wait/, 'which is an error');
is(last_cutover('state, step') . fence(), 'undone|draining0', 'and undoes it');
$redis->cli('CLIENT', 'UNPAUSE');
rows($drain);
is($redis->cli('GET', 's:1'), 'x', 'what it had on its way arrives');

# Somebody changes the state of another family, and does not commit.
my $changing = start_sql($node, q{BEGIN; SELECT redis_migrate.set_family_state('live', 't:{id}', 'postgres'); SELECT pg_sleep(60)}, name => 'changing');
standing('changing', q{wait_event = 'PgSleep'});
cmp_ok(elapsed(sub { $error = sql_error($node, cutback('2 s', ', discard_changes => true')); }), '<', 15, 'nor is the lock of the families');
like($error, qr/ERROR:  (?:55P03|57014)/, 'which is an error');
is(last_cutover('state') . fence(), 'undone0', 'and undoes it');
end_of('changing');
undef $changing;

# Live sync is behind, and then notes for the reverse feed, which is behind, too, that a key expires later than Redis says.
rows(q{UPDATE strings SET expires_at = now() + interval '5000 s' WHERE id = '2'});
rows($drain);
my $feed = start_sql($node, q{CALL redis_migrate.feed_redis('live')}, name => 'feed');
wait_until('the feed', sub { rows(q{SELECT state FROM redis_migrate.reverse_feed}) eq 'running' });
my $live = hold_worker($node, 'migration', idle => 1);
$redis->cli('EXPIRE', 's:2', 50);
my $back = start_sql($node, cutback('1 minute'), name => 'back');
wait_until('the cutback to wait for live sync', sub { last_cutover('state, step') eq 'running|waiting' });
my $pid = rows(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'feed'});
stop_idle($node, $pid);
$live->release;
wait_until('live sync', sub { rows('SELECT count(*) FROM redis_migrate.outbox') eq '1' });
usleep(300_000);
is(last_cutover('state'), 'running', 'a cutback waits for what live sync has noted');
kill 'CONT', $pid;
$back->finish;
is(last_cutover('state'), 'completed', 'until it is sent');
cmp_ok($redis->cli('TTL', 's:2'), '>', 1000, 'to Redis');

# A partition was truncated a moment ago, which no trigger tells.
is(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 'p:{id}', no_way_back => true, max_pause => '30 s', force => true)}) . sql_error($node, q{SELECT redis_migrate.start_reverse('live', 'p:{id}')}), '', 'cutover');
rows(q{INSERT INTO parted VALUES ('2', 'x'), ('3', 'x')});
wait_until('the feed', sub { $redis->cli('EXISTS', 'p:2', 'p:3') == 2 && rows('SELECT count(*) FROM redis_migrate.outbox_gap') eq '0' });
stop_idle($node, $pid);
rows(q{DELETE FROM parted WHERE id <> '2'; TRUNCATE part0; INSERT INTO parted VALUES ('3', 'y')});
$back = start_sql($node, q{CALL redis_migrate.cutback('live', pattern => 'p:{id}')}, name => 'back');
wait_until('the cutback', sub { last_cutover('patterns[1], step') eq 'p:{id}|draining' || !$back->running });
kill 'CONT', $pid;
$back->finish;
is(last_cutover('state') . $redis->cli('EXISTS', 'p:1', 'p:2') . $redis->cli('GET', 'p:3'), 'completed0y', 'a cutback looks at partitions');

# A family that shares a table with others goes over and back: the rows of those, and of the application, stay.
rows(q{SELECT redis_migrate.set_family_state('live', 'visits:{id}', 'postgres'); INSERT INTO counters VALUES ('7', 'own', 1)});
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'visits:{id}', discard_changes => true)}), '', 'cutback');
$redis->cli('INCR', 'visits:7');
is(wait_for($node) . rows(q{SELECT string_agg(kind || n, ' ' ORDER BY kind) FROM counters}), 'likes1 own1 visits2', 'a change of one of its keys leaves the rows of others alone');
$redis->cli('DEL', 'visits:7');
is(wait_for($node) . rows(q{SELECT string_agg(kind || n, ' ' ORDER BY kind) FROM counters}), 'likes1 own1', 'so does its end');

# A row that goes after it was chosen for the comparison is as gone as its key.
rows(q{SELECT redis_migrate.unfence('live', 's:{id}')});
is(wait_for($node) . sql_error($node, $cutover), '', 'cutover');
my $holder = start_sql($node, q{SELECT pg_advisory_lock(77); SELECT pg_sleep(60)}, name => 'holder');
standing('holder', q{wait_event = 'PgSleep'});
my $writer = start_sql($node, q{BEGIN; DELETE FROM strings WHERE id = '3'; SELECT pg_advisory_lock(77); COMMIT}, name => 'writer');
standing('writer', q{wait_event = 'advisory'});
$back = start_sql($node, cutback('1 minute'), name => 'back');
standing('back', q{wait_event = 'relation'});
end_of('holder');
$_->finish for $holder, $writer, $back;
is(last_cutover('state') . $redis->cli('EXISTS', 's:3'), 'completed0', 'a row that goes after it was chosen is compared as one that is gone');

# Late deletions. Whose rows have expired, or are gone, too, those need no attention. The feed, which settles them as well, stands.
rows(q{SELECT redis_migrate.unfence('live', 's:{id}')});
is(wait_for($node) . sql_error($node, $cutover), '', 'cutover');
rows(q{UPDATE strings SET expires_at = clock_timestamp() + interval '8 s' WHERE id = '4'});
wait_until('the expiry', sub { $redis->cli('TTL', 's:4') > 0 && rows('SELECT count(*) FROM redis_migrate.outbox') eq '0' });
stop_idle($node, $pid);
$redis->cli('DEL', 's:5', 's:6');
sub late { return rows(q{SELECT string_agg(key || ' ' || kind, ' ' ORDER BY key) FROM redis_migrate.late_writes WHERE settled_at IS NULL}); }
wait_until('late deletions', sub { late() eq 's:4 deleted s:5 deleted s:6 deleted' });
rows(q{DELETE FROM strings WHERE id = '5'});
like(sql_error($node, cutback('1 minute')), qr/ERROR:  55000: 1 keys were written to or deleted in Redis after the cutover/, 'a key that was deleted, and whose row is there, speaks against a cutback');
is(late(), 's:6 deleted', 'those without rows do not, and are settled');
kill 'CONT', $pid;
rows(q{DELETE FROM strings WHERE id = '6'});
is(sql_error($node, cutback('1 minute')), '', 'when its row is gone, it may go back');

# A pass over all rows of another family, which takes long, and before that waits for somebody.
rows(q{SELECT redis_migrate.unfence('live', 's:{id}')});
is(wait_for($node) . sql_error($node, $cutover), '', 'cutover');
stop_idle($node, $pid);
rows(q{SELECT redis_migrate.set_family_state('live', 'z:{id}', 'postgres');
    SELECT redis_migrate.set_reverse_query('live', 'scores', $$SELECT id, 'zset' AS type, jsonb_object_agg(member, score) AS value, NULL AS expires_at FROM redis_rows WHERE (SELECT pg_sleep(0.5)) IS NOT NULL GROUP BY id$$);
    INSERT INTO scores SELECT i, 'm', i FROM generate_series(1, 30000) AS i;
    SELECT redis_migrate.start_reverse('live', 'z:{id}')});
my $noting = start_sql($node, q{BEGIN; UPDATE scores SET score = 0 WHERE id = '1'; SELECT pg_sleep(60)}, name => 'noting');
standing('noting', q{wait_event = 'PgSleep'});
kill 'CONT', $pid;
wait_until('the feed to go on beside a pass that waits', sub { rows(q{UPDATE strings SET value = 'beside' WHERE id = '1'}); $redis->cli('GET', 's:1') eq 'beside' });
end_of('noting');
undef $noting;
wait_until('the pass', sub { $redis->cli('EXISTS', 'z:2') });
rows(q{UPDATE strings SET value = 'meanwhile' WHERE id = '1'});
wait_until('the feed to go on beside a pass', sub { $redis->cli('GET', 's:1') eq 'meanwhile' });
my $passes = q{SELECT in_full_pass FROM redis_migrate.reverse_mapping AS r JOIN redis_migrate.mapping USING (mapping_id) WHERE mapping = 'scores'};
is(rows($passes), 't', 'which goes on');
end_of('feed');
undef $feed;
rows(q{UPDATE strings SET value = 'last' WHERE id = '1'});
is(sql_error($node, cutback('20 s')) . $redis->cli('GET', 's:1'), 'last', 'nor does a cutback that feeds itself wait for a pass of another family');
is(rows($passes), 't', 'which is not at its end');
rows(q{SELECT redis_migrate.set_reverse_query('live', 'scores', NULL)});
rows($drain);
is($redis->cli('ZSCORE', 'z:30000', 'm') . $redis->cli('ZSCORE', 'z:1', 'm') . rows($passes), '300001f', 'and comes there');

done_testing();
