# Late writes, and the way back: what is written to Redis after a cutover is kept, and a cutback gives the family to Redis
# with everything that the reverse feed has written.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('cutback', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nwal_writer_delay = 10s");
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub notices { my ($sql) = @_; my $err = ''; $node->psql('postgres', $sql, stderr => \$err); return $err; }
$redis->cli('ACL', 'SETUSER', 'migrator', 'on', '>secret', '~*', '&*', '+@all');
$redis->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all');
my $rules = $redis->cli('ACL', 'LIST');
rows('CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $redis->port . q{$$); CREATE USER MAPPING FOR PUBLIC SERVER live OPTIONS (username 'migrator', password 'secret')});
create_live($node);
$redis->cli_lines("SET s:a 1\nSET s:b 2\nSET s:c 3\nSET s:d 4\nHSET h:a f 1\n");
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
sub as_app { my (@command) = @_; return eval { $redis->cli('--user', 'app', '--pass', 'app', '--no-auth-warning', @command) } // $@; }

# Nobody is fenced: the application goes on writing.
like(notices(q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}', max_pause => '30 s')}), qr/s:\{id\} is now in state postgres/, 'cutover');
rows(q{UPDATE strings SET value = 'mine'});
is(as_app('SET', 's:a', 'late'), 'OK', 'a late write');
is(as_app('SET', 's:a', 'later'), 'OK', 'and another');
is(as_app('SET', 's:new', 'late', 'EX', '1000'), 'OK', 'of a new key');
is(as_app('DEL', 's:b'), '1', 'a late deletion');
is(as_app('HSET', 'h:a', 'f', '2'), '0', 'another family is written to');
is(wait_for($node), '', 'live sync goes on');
is(rows(q{SELECT string_agg(id || value, ' ' ORDER BY id) FROM strings}), 'amine bmine cmine dmine', 'the rows are left alone');
is(rows(q{SELECT fields FROM hashes}), '{"f": "2"}', 'the other family follows');
is(rows(q{SELECT key, kind, changes > 0, expires_at > now() + '900 s' FROM redis_migrate.late_writes ORDER BY key}), "s:a|written|t|\ns:b|deleted|t|\ns:new|written|t|t", 'late writes are kept');
my $payload = rows(q{SELECT encode(payload, 'hex') FROM redis_migrate.late_writes WHERE key = 's:a'});
is($redis->cli('EVAL', q{redis.call('RESTORE', 'copy', 0, (ARGV[1]:gsub('..', function (x) return string.char(tonumber(x, 16)) end))); return redis.call('GET', 'copy')}, 0, $payload), 'later', 'with the newest value');
$redis->cli('DEL', 'copy');

# A client that stays connected is named.
my $as_app = join(' ', map { "'$_'" } $redis->_cli, '--user', 'app', '--pass', 'app', '--no-auth-warning') . ' >/dev/null';
my %cli;
for my $command ('CLIENT SETNAME checkout', 'SELECT 1', 'XGROUP CREATE s:jobs g $ MKSTREAM', 'XREADGROUP GROUP g c STREAMS s:jobs >', 'XACK s:jobs g 0-1')
{
    open $cli{$command}, '|-', $as_app or die;
    $cli{$command}->autoflush(1);
    print { $cli{$command} } "$command\n";
}
my $cli = $cli{'CLIENT SETNAME checkout'};
rows(q{INSERT INTO redis_migrate.late_writer SELECT migration, 'old ' || i, NULL, NULL, 'set', '2000-01-01', '2000-01-01' FROM redis_migrate.migration, generate_series(1, 2000) AS i});
wait_until('the client to be named', sub { print $cli "SET s:d late\n"; select undef, undef, undef, 0.2; rows(q{SELECT count(*) FROM redis_migrate.late_writers WHERE username = 'app' AND client_name = 'checkout' AND command = 'set'}) eq '1' });
wait_until('clients of groups to be named', sub { print $cli "SET s:d late\n"; select undef, undef, undef, 0.2; rows(q{SELECT string_agg(DISTINCT split_part(command, '|', 1), ' ') FROM redis_migrate.late_writers WHERE username = 'app' AND command ~ '^x'}) eq 'xack xgroup xreadgroup' });
is(rows(q{SELECT count(*), bool_or(username = 'app') FROM redis_migrate.late_writers}), '1000|t', 'those that were seen last are kept');
is(rows(q{SELECT count(*) FROM redis_migrate.late_writers WHERE command = 'select'}), '0', 'clients that have not written are not named');
close $_ for values %cli;
is(wait_for($node), '', 'live sync');

# They keep the family from being done, and from going back.
my $done = q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'done')};
like(sql_error($node, $done), qr/ERROR:  55000: 4 keys of family s:\{id\} were written to in Redis after it became PostgreSQL's/, 'it is not done');
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), qr/ERROR:  55000: 5 keys were written to or deleted in Redis after the cutover\nDETAIL:  .*\nHINT:  .*settle_late_writes\('live', 's:\{id\}'\)\./, 'nor given back');
is(rows(q{SELECT redis_migrate.settle_late_writes('live')}), '5', 'somebody looks at them');
is(sql_error($node, $done), '', 'then it may be done');
rows(q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'redis')});

# Back, without a reverse feed.
$redis->cli_lines("SET s:a 1\nSET s:b 2\nSET s:c 3\nSET s:d 4\nDEL s:new s:jobs\n");
is(wait_for($node) . differences($node, $redis), '', 'live sync');
my $cutover = q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', max_pause => '30 s', force => true)};
is(sql_error($node, $cutover), '', 'cutover with a fence');
like(as_app('SET', 's:a', '2'), qr/NOPERM/, 'writers are fenced');
like(sql_error($node, q{CALL redis_migrate.cutback('live')}), qr/ERROR:  55000: family h:\{id\} of migration "live" is in state redis/, 'only families of PostgreSQL are given back');
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), qr/ERROR:  55000: no reverse feed writes mappings "strings" back to Redis\nDETAIL:  .*\nHINT:  SELECT redis_migrate.start_reverse\('live', 's:\{id\}'\)/, 'not without a reverse feed');
like(notices(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), qr/NOTICE:  cutback \d+ of migration "live": the families belong to Redis, and the tables are fenced\nHINT:  .*unfence\('live', 's:\{id\}'\)/, 'unless it is said');
is(rows(q{SELECT state FROM redis_migrate.families WHERE pattern = 's:{id}'}), 'redis', 'it is back');
is($redis->cli('ACL', 'LIST'), $rules, 'writers have their rights');
like(sql_error($node, q{UPDATE strings SET value = 'lost'}), qr/ERROR:  25006: table "strings" belongs to Redis again/, 'nobody writes to the table');
like(sql_error($node, q{INSERT INTO strings VALUES ('x', 'y')}), qr/25006/, 'no row');
like(sql_error($node, q{DELETE FROM strings}), qr/25006/, 'no deletion');
like(sql_error($node, q{TRUNCATE strings}), qr/25006/, 'no truncation');
like(sql_error($node, q{SET session_replication_role = replica; DELETE FROM strings}), qr/25006/, 'whatever the role of the session');
is(as_app('SET', 's:a', 'back'), 'OK', 'the application writes to Redis');
is(wait_for($node) . differences($node, $redis), '', 'and live sync to the table');
rows(q{SELECT redis_migrate.unfence('live', 's:{id}')});
is(sql_error($node, q{BEGIN; UPDATE strings SET value = 'x'; ROLLBACK}), '', 'the fence ends');

# Back with the reverse feed: nothing is lost.
is(sql_error($node, $cutover), '', 'cutover');
rows(q{UPDATE strings SET value = 'before' WHERE id = 'd'});
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}')});
sub drained { return wait_until('the reverse feed', sub { rows(q{SELECT state = 'running' AND waiting = 0 AND NOT needs_full FROM redis_migrate.reverse_feeds}) eq 't' }); }
drained();
rows(q{INSERT INTO redis_migrate.reverse_reject (mapping_id, name_hash, name, key, sqlstate, message) SELECT mapping_id, 1, '{x}', 's:x', '22P02', 'a test' FROM redis_migrate.mapping WHERE mapping = 'strings'});
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), qr/ERROR:  55000: 1 rows cannot be written back to Redis/, 'not while a row cannot be written back');
rows('DELETE FROM redis_migrate.reverse_reject');
rows(q{UPDATE redis_migrate.reverse_feed SET instance = instance || '0'});
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), qr/ERROR:  55000: no reverse feed writes mappings "strings"/, 'nor in a copy of the database, where the feed is paused');
rows(q{UPDATE redis_migrate.reverse_feed SET instance = left(instance, -1)});
# A change that is in none of the notes of the reverse feed. The comparison sees it.
rows(q{BEGIN; UPDATE strings SET value = 'unseen' WHERE id = 'c'; DELETE FROM redis_migrate.outbox; COMMIT});
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), qr/ERROR:  55000: the rows of 1 of \d+ keys would write something else to Redis than it has\nDETAIL:  Mapping "strings": 1 keys, .*\nHINT:  .*discard_changes => true/,
    'nor while a row and its key differ');
is(rows(q{SELECT state, step, to_state FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}) . sql_error($node, q{UPDATE strings SET value = 'seen' WHERE id = 'c'}), 'undone|comparing|redis', 'which undoes it');
rows(q{UPDATE strings SET value = 'of PostgreSQL' WHERE id = 'a'; INSERT INTO strings SELECT 'n' || i, i FROM generate_series(1, 500) AS i; DELETE FROM strings WHERE id = 'b'});
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), '', 'cutback');
is($redis->cli('GET', 's:a') . $redis->cli('EXISTS', 's:b') . $redis->cli('GET', 's:n500') . $redis->cli('GET', 's:d'), 'of PostgreSQL0500before', 'Redis has everything, also from before the feed was started');
is(as_app('APPEND', 's:a', '!'), '14', 'the application goes on there');
is(as_app('INCR', 's:n500'), '501', 'with the values of PostgreSQL');
# Redis is written to by nobody else from now on, also if it seems to have lost what the feed has written.
sub watches { return $redis->cli('INFO', 'commandstats') =~ /cmdstat_watch:calls=(\d+)/ ? $1 : 0; }
my $held_sync = hold_worker($node, 'migration', idle => 1);
is(as_app('SET', 's:fresh', '1'), 'OK', 'live sync has not come to the newest');
$redis->cli('DEL', 'redis_migrate:position:{live}');
my $watches = watches();
rows(q{SELECT pg_terminate_backend(pid) FROM redis_migrate.workers WHERE kind = 'reverse feed'});
wait_until('the next reverse feed', sub { watches() > $watches });
usleep(500_000);
is($redis->cli('EXISTS', 's:fresh', 'redis_migrate:position:{live}'), '1', 'after a cutback the reverse feed writes nothing');
$held_sync->release;
is(wait_for($node) . differences($node, $redis), '', 'and live sync follows');
is(rows(q{SELECT count(*) FROM redis_migrate.late_writes WHERE settled_at IS NULL AND kind = 'written'}), '0', 'what the reverse feed writes is no late write');

# And over again, with the fence of the table still there.
is(sql_error($node, $cutover), '', 'cutover again');
is(sql_error($node, q{UPDATE strings SET value = 'again' WHERE id = 'a'}), '', 'ends the fence');

# A feed that has nothing to write does not see that Redis has lost what it had. The cutback does.
drained();
$redis->cli('DEL', 's:a', 'redis_migrate:position:{live}');
wait_until('live sync to see it', sub { rows(q{SELECT kind FROM redis_migrate.late_writes WHERE key = 's:a' AND settled_at IS NULL}) eq 'deleted' });
rows(q{SELECT redis_migrate.settle_late_writes('live')});
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}) . $redis->cli('GET', 's:a'), 'again', 'a cutback brings back what Redis has lost');
is(sql_error($node, $cutover), '', 'cutover once more');

# Both: readable on both sides. Counters have one writer.
rows(q{CREATE TABLE hits (page text PRIMARY KEY, hits bigint); SELECT redis_migrate.stop('live');
    CREATE VIEW more_strings AS SELECT id, value FROM strings;
    CREATE TABLE names (id text PRIMARY KEY, name text); CREATE TABLE ages (id text PRIMARY KEY, age text);
    SELECT redis_migrate.add_mapping('live', 'names', 'p:{id}', 'names', 'SELECT id, json->>$$name$$ AS name FROM redis_batch', '{id}', databases => '{0}', types => '{hash}'),
        redis_migrate.add_mapping('live', 'more', 'more:{id}', 'more_strings', 'SELECT $$more $$ || id AS id, value FROM redis_batch', '{id}', databases => '{0}'),
        redis_migrate.add_mapping('live', 'ages', 'p:{id}', 'ages', 'SELECT id, json->>$$age$$ AS age FROM redis_batch', '{id}', databases => '{0}', types => '{hash}');
    SELECT redis_migrate.set_reverse_query('live', 'names', 'SELECT id, $$hash$$ AS type, jsonb_build_object($$name$$, name, $$age$$, (SELECT age FROM ages AS a WHERE a.id = r.id)) AS value, NULL AS expires_at FROM redis_rows AS r');
    SELECT redis_migrate.add_mapping('live', 'hits', 'hits:{page}', 'hits', 'SELECT page, value::bigint AS hits FROM redis_batch', '{page}', databases => '{0}', types => '{string}')});
$redis->cli('SET', 'hits:home', 5);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 'hits:{page}', to_state => 'both', no_way_back => true, verified_within => '0')}), qr/mappings "hits" may be of counters/, 'a counter is not readable on both sides');
is(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 'h:{id}', users => '{app}', to_state => 'both', no_way_back => true, max_pause => '30 s', force => true)}), '', 'others are');
$redis->cli('HSET', 'h:a', 'late', 1);
is(wait_for($node) . rows(q{SELECT state FROM redis_migrate.families WHERE pattern = 'h:{id}'}), 'both', 'state both');
is(rows(q{SELECT key, kind FROM redis_migrate.late_writes WHERE settled_at IS NULL AND pattern = 'h:{id}'}), 'h:a|written', 'what is changed in Redis is kept');

# Of several mappings of a family one knows the whole value, and its table alone is watched.
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 'p:{id}')}), qr/ERROR:  55000: .* would have no way back\nDETAIL:  Mapping "ages": its table is not watched.*\nHINT:  .*discard_changes => true alone\. Or: no_way_back => true/, 'which a cutover tells before');
rows(q{SELECT redis_migrate.set_family_state('live', 'p:{id}', 'postgres'), redis_migrate.start_reverse('live', 'p:{id}'); INSERT INTO ages VALUES ('a', 9); INSERT INTO names VALUES ('a', 'Ann')});
drained();
is($redis->cli('HGET', 'p:a', 'age') . $redis->cli('HGET', 'p:a', 'name'), '9Ann', 'what was changed here is in Redis');
rows(q{UPDATE ages SET age = 10});
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'p:{id}')}), qr/ERROR:  55000: changes of the tables of mappings "ages" are not noted\nDETAIL:  .*\nHINT:  .*discard_changes/, 'a family of several tables does not go back as if all were');
rows(q{UPDATE names SET name = name});
drained();
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'p:{id}', discard_changes => true)}), '', 'unless it is said');
is($redis->cli('HGET', 'p:a', 'age') . $redis->cli('HGET', 'p:a', 'name'), '10Ann', 'with what was changed here');

# A cutback that fails, or is killed, is undone.
my $writer = start_sql($node, q{BEGIN; UPDATE strings SET value = 'open' WHERE id = 'c'; SELECT pg_sleep(60)}, name => 'writer');
wait_until('the writer', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writer' AND wait_event = 'PgSleep'}) eq '1' });
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', max_wait => '300 ms')}), qr/ERROR:  55P03/, 'a transaction that does not end');
is(rows(q{SELECT state, step, to_state FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}), 'undone|fencing|redis', 'undoes it');
rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'writer'});
is(sql_error($node, q{UPDATE strings SET value = 'again' WHERE id = 'c'}), '', 'and the table is not fenced');
drained();
$redis->cli('CLIENT', 'PAUSE', 60000, 'WRITE');
rows(q{UPDATE strings SET value = 'noted' WHERE id = 'c'});
# The worker feeds: otherwise the cutback would itself.
wait_until('a batch of the worker', sub { rows(q{SELECT batch > acknowledged FROM redis_migrate.reverse_feed}) eq 't' });
my $draining = start_sql($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}, name => 'draining');
wait_until('the cutback to drain', sub { rows(q{SELECT step FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}) eq 'draining' });
rows(q{SELECT redis_migrate.stop_reverse('live')});
$draining->finish;
$redis->cli('CLIENT', 'UNPAUSE');
is(rows(q{SELECT state, sqlstate, message FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}), 'undone|55000|the reverse feed was stopped meanwhile', 'a reverse feed that is stopped undoes it');
# A fence is of a whole table, which other families may have rows in.
rows(q{SELECT redis_migrate.set_family_state('live', 'more:{id}', 'postgres')});
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), qr/ERROR:  55000: the tables have rows of families that stay PostgreSQL's: more:\{id\} of migration "live"\nDETAIL:  .*\nHINT:  .*force => true/, 'the writers of another family are not refused by the way');
is(sql_error($node, q{UPDATE strings SET value = value}), '', 'nor fenced');
like(notices(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true, force => true)}), qr/WARNING:  the tables have rows of families that stay PostgreSQL's: more:\{id\} .*NOTICE:  cutback \d+/s, 'unless it is said');
rows(q{SELECT redis_migrate.set_family_state('live', 'more:{id}', 'redis')});
is(rows(q{SELECT state FROM redis_migrate.families WHERE pattern = 's:{id}'}), 'redis', 'at last it is given back');
like(as_app('SET', 's:a', '1'), qr/NOPERM/, 'a user whom another family has fenced, too, stays so');
rows(q{SELECT redis_migrate.settle_late_writes('live')});
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'h:{id}', discard_changes => true)}), '', 'until that is given back');
is($redis->cli('ACL', 'LIST'), $rules, 'with the rights that it had before both');

# Changes that the feed had on their way are in Redis when a cutback is complete, or never come.
rows(q{SELECT redis_migrate.settle_late_writes('live')});
is(wait_for($node), '', 'live sync');
my $told = notices($cutover);
like($told, qr/WARNING:  the tables have rows of other families, too: more:\{id\} of migration "live"\n/, 'a cutover tells which families share a table');
unlike($told, qr/ERROR/, 'cutover');
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}')});
drained();
rows(q{UPDATE strings SET value = value WHERE id = 'c'});  # a feed that runs may not yet be connected, and one that has sent something is
drained();
$redis->cli('CLIENT', 'PAUSE', 60000, 'WRITE');
rows(q{UPDATE strings SET value = 'discarded' WHERE id = 'a'});
wait_until('a batch on its way', sub { rows(q{SELECT batch > acknowledged FROM redis_migrate.reverse_feed}) eq 't' });
my $back = start_sql($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}, name => 'back');
wait_until('the families to be given back', sub { rows(q{SELECT to_state || ' ' || step FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}) eq 'redis resuming' });
usleep(300_000);
is(rows(q{SELECT state FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}), 'running', 'a cutback is not complete while a batch may still come');
$redis->cli('CLIENT', 'UNPAUSE');
$back->finish;
is(rows(q{SELECT state FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}) . as_app('SET', 's:a', 'app'), 'completedOK', 'and then it is');
is(wait_for($node) . rows(q{SELECT value FROM strings WHERE id = 'a'}) . $redis->cli('GET', 's:a'), 'appapp', 'the application writes what lasts');

# Nor does a batch that was about to be sent when the family went back.
sub set_state { my ($state) = @_; return rows("SELECT redis_migrate.set_family_state('live', 's:{id}', '$state')"); }
rows(q{SELECT redis_migrate.unfence('live', 's:{id}')});
set_state('postgres');
rows(q{UPDATE strings SET value = value WHERE id = 'c'});
drained();
my $before = $redis->cli('GET', 's:c');
my $locking = start_sql($node, q{BEGIN; SELECT FROM redis_migrate.reverse_feed FOR UPDATE; SELECT pg_sleep(60)}, name => 'locking');
wait_until('the lock', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'locking' AND wait_event = 'PgSleep'}) eq '1' });
rows(q{UPDATE strings SET value = 'unsent' WHERE id IN ('a', 'c')});
wait_until('the feed to wait', sub { rows(q{SELECT count(*) FROM pg_locks JOIN redis_migrate.workers USING (pid) WHERE kind = 'reverse feed' AND NOT granted}) eq '1' });
set_state('redis');
is(as_app('SET', 's:a', 'newer'), 'OK', 'the application goes on in Redis');
rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'locking'});
wait_until('the feed to rest', sub { rows(q{SELECT count(*) FROM redis_migrate.outbox}) eq '0' });
is($redis->cli('GET', 's:a') . $redis->cli('GET', 's:c'), "newer$before", 'what waited is not sent');
is(wait_for($node), '', 'live sync');

# Changes that are noted while a cutover is being committed, and gaps, are not forgotten.
my $gaps = q{SELECT count(*) FROM redis_migrate.outbox_gap};
my $committing = start_sql($node, q{BEGIN; SELECT redis_migrate.set_family_state('live', 's:{id}', 'postgres'); SELECT pg_sleep(60)}, name => 'committing');
wait_until('the change of the state', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'committing' AND wait_event = 'PgSleep'}) eq '1' });
rows(q{INSERT INTO redis_migrate.outbox_gap (mapping_id, reason) SELECT mapping_id, 'a test' FROM redis_migrate.mapping WHERE mapping = 'strings'});
usleep(1_000_000);
is(rows($gaps), '1', 'a feed that rests waits for the change of a state');
rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'committing'});
wait_until('the gap to be forgotten', sub { rows($gaps) eq '0' });

# Rejects from before a rest do not stop the next cutback.
rows(q{INSERT INTO redis_migrate.reverse_reject (mapping_id, name_hash, name, key, sqlstate, message) SELECT mapping_id, 1, '{x}', 's:x', '22P02', 'a test' FROM redis_migrate.mapping WHERE mapping = 'strings'});
wait_until('the reject to be forgotten', sub { rows('SELECT count(*) FROM redis_migrate.reverse_reject') eq '0' });

# Nothing proves that rows and Redis are equal when somebody says that the family is PostgreSQL's again.
set_state('postgres');
drained();
is($redis->cli('GET', 's:a') . $redis->cli('GET', 's:c'), 'newerunsent', 'then all rows are written, also those that were forgotten');
set_state('redis');

# A crash does not forget who is fenced, though commits need not reach the disk.
# Changes that were discarded may have been on their way to Redis, or not.
$redis->cli_lines("SET s:c 3\n");
is(wait_for($node), '', 'tables and Redis are equal again');
is(sql_error($node, "SET synchronous_commit = off; $cutover"), '', 'cutover');
$node->stop('immediate');
$node->start;
is(rows(q{SELECT state, users FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}), 'completed|{app}', 'it is known after a crash');

# A copy of the database does not give rights back that the original has taken.
wait_until('live sync to go on', sub { rows(q{SELECT (SELECT state FROM redis_migrate.background_run WHERE live) = 'running' AND (SELECT bool_and(state IN ('streaming', 'in step')) FROM redis_migrate.live_sync WHERE migration = 'live') AND EXISTS (SELECT FROM pg_stat_activity JOIN redis_migrate.run USING (pid) WHERE live AND backend_start <= updated_at)}) eq 't' });
rows(q{UPDATE redis_migrate.cutover SET instance = instance || '0'});
like(notices(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), qr/WARNING:  users of Redis stay without their rights to write: "app"/, 'a copy says who stays fenced');
like(as_app('SET', 's:a', '1'), qr/NOPERM/, 'and leaves them so');

# The files of live sync go with the extension.
my $files = $node->data_dir . '/base/' . rows(q{SELECT oid FROM pg_database WHERE datname = 'postgres'}) . '/pg_redis_migrate';
cmp_ok(scalar(my @there = glob "$files/*"), '>', 0, 'live sync keeps files');
rows('DROP EXTENSION pg_redis_migrate CASCADE');
wait_until('the workers to remove them', sub { my @left = glob "$files/*"; !@left });
pass('DROP EXTENSION leaves no files');

done_testing();
