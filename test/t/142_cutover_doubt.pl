# Obstacles of a cutover or a cutback, and changes under it: rows that would not come back to Redis, keys that changed
# since the verification, time that is up at the last moment, users whose rules somebody has changed, two families that
# fence one user, writes that live sync has not seen yet.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('doubt', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub notices { my ($sql) = @_; my $err = ''; $node->psql('postgres', $sql, stderr => \$err); return $err; }
$redis->cli('ACL', 'SETUSER', $_, 'on', ">$_", '~*', '&*', '+@all') for 'migrator', 'app', 'other';
sub acl { my ($user) = @_; return (grep { /^user $user / } split /\n/, $redis->cli('ACL', 'LIST'))[0] // ''; }
sub last_cutover { my ($columns) = @_; return rows("SELECT $columns FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1"); }
sub state_of { my ($pattern) = @_; return rows("SELECT state FROM redis_migrate.families WHERE migration = 'live' AND pattern = '$pattern'"); }
sub set_state { my ($pattern, $state) = @_; return rows("SELECT redis_migrate.set_family_state('live', '$pattern', '$state')"); }
rows('CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $redis->port . q{$$); CREATE USER MAPPING FOR PUBLIC SERVER live OPTIONS (username 'migrator', password 'migrator')});
create_live($node);
rows(q{CREATE TABLE base (id text PRIMARY KEY, value text); CREATE VIEW view AS SELECT id, value FROM base; CREATE TABLE parted (id text PRIMARY KEY, value text) PARTITION BY HASH (id);
    CREATE TABLE part0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0); CREATE VIEW joined AS SELECT b.id, b.value FROM base AS b JOIN parted AS p USING (id);
    CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO base VALUES (NEW.id, NEW.value) ON CONFLICT (id) DO UPDATE SET value = excluded.value; RETURN NEW; END';
    CREATE TRIGGER put INSTEAD OF INSERT OR UPDATE ON joined FOR EACH ROW EXECUTE FUNCTION put()});
my ($host, $port) = ($node->host, $node->port);
rows(qq{CREATE EXTENSION postgres_fdw; CREATE SERVER loopback FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER loopback;
    CREATE FOREIGN TABLE far (id text NOT NULL, value text) SERVER loopback OPTIONS (table_name 'base')});
for (qw(view parted joined far)) { rows("SELECT redis_migrate.add_mapping('live', '$_', '$_:{id}', '$_', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')"); }
$redis->cli_lines(join '', (map { "SET s:$_ $_\n" } 1 .. 2000), "HSET h:a f 1\nZADD z:a 1 x\nSET view:a 1\nSET parted:a 1\n");
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
my $verify = q{SET client_min_messages = error; CALL redis_migrate.verify('live')};
rows($verify);
sub cutover { my ($pattern, $more) = @_; return "CALL redis_migrate.cutover('live', 'acl', pattern => '$pattern', users => '{app}'" . (($more // '') =~ /max_pause/ ? $more : ", max_pause => '30 s'" . ($more // '')) . ')'; }

# Rows go back to Redis as what it has: not those of this reverse query.
rows(q{SELECT redis_migrate.set_reverse_query('live', 'hashes', $$SELECT id, 'hash' AS type, fields || '{"g": "2"}' AS value, expires_at FROM redis_rows$$)});
like(sql_error($node, cutover('h:{id}')), qr/ERROR:  55000: the rows of 1 of 1 keys would write something else to Redis than it has\nDETAIL:  Mapping "hashes": 1 keys, with letters and digits masked: h:x\.\nHINT:  .*check_reverse.*no_way_back/, 'a row that does not go back as it came speaks against it');
is(state_of('h:{id}'), 'redis', 'before anything is changed');
like(sql_error($node, cutover('view:{id}')), qr/ERROR:  55000: .* no way back\nDETAIL:  Mapping "view": the target is a foreign table, has foreign partitions, or is a view/, 'as does a target that cannot be followed');
like(sql_error($node, cutover('far:{id}')), qr/ERROR:  55000: .* no way back\nDETAIL:  Mapping "far": the target is a foreign table/, 'such as a foreign table');
is(sql_error($node, cutover('h:{id}', ', no_way_back => true')), '', 'unless it is said');
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'h:{id}', discard_changes => true)}), '', 'back');

# Keys that changed since the verification are all compared, and not only those that are met by chance.
$redis->cli('SET', 's:1234', 'new');
is(wait_for($node), '', 'live sync');
rows(q{UPDATE strings SET value = 'broken' WHERE id = '1234'});
like(sql_error($node, cutover('s:{id}', ', compare_keys => 5, no_way_back => true')), qr/ERROR:  55000: 1 of \d keys are not as the tables have them\nDETAIL:  Mapping "strings", row \{1234\}: different/, 'a key that changed since the verification is compared');
is(last_cutover(q{keys_touched, keys_compared IS NULL, steps_ms ?& '{pausing,waiting}'}), '|t|t', 'and the steps know how long they took');
$redis->cli('SET', 's:1234', 'newer');
is(wait_for($node), '', 'the difference goes');
$redis->cli('SET', "s:$_", 'new') for 1 .. 6;
is(wait_for($node), '', 'live sync');
like(notices(cutover('s:{id}', ', compare_keys => 5')), qr/NOTICE:  keys that changed since the last verification were compared only at random/, 'more of them than are to be compared are not, and it says so');
is(last_cutover('keys_touched'), '7', 'and how many there are');
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), '', 'back');
rows($verify);
is(sql_error($node, cutover('s:{id}')), '', 'after a verification');
is(last_cutover('keys_touched'), '0', 'none of them counts any more');
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), '', 'back');

# Time that is up at the last moment. Meanwhile somebody gives the user other rules.
my $rules = acl('app');
rows(q{CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(3.2); RETURN NULL; END';
    CREATE TRIGGER late AFTER INSERT ON redis_migrate.family_change FOR EACH ROW WHEN (NEW.state = 'postgres') EXECUTE FUNCTION late()});
like(sql_error($node, cutover('s:{id}', q{, max_pause => '3 s'})), qr/ERROR:  57014: the cutover took longer than writes can be held back, 3000 ms/, 'a commit that would come too late is none');
is(state_of('s:{id}') . acl('app'), "redis$rules", 'and is undone');
my $slow = start_sql($node, cutover('s:{id}', q{, max_pause => '3 s'}), name => 'slow');
wait_until('the fence', sub { acl('app') ne $rules });
$redis->cli('ACL', 'SETUSER', 'app', '-@all', '+@read');
my $changed = acl('app');
$slow->finish;
is(state_of('s:{id}') . acl('app'), "redis$changed", 'rules that somebody has set meanwhile stay');
rows(q{DROP TRIGGER late ON redis_migrate.family_change});
$redis->cli('ACL', 'SETUSER', 'app', '+@all');
$rules = acl('app');

# A cutover that is undone leaves users fenced whom another one has fenced; so does a cutback of another migration.
is(sql_error($node, cutover('s:{id}')), '', 'cutover of one family');
my $fenced = acl('app');
rows(q{CREATE TRIGGER late BEFORE INSERT ON redis_migrate.family_change FOR EACH ROW WHEN (NEW.state = 'postgres') EXECUTE FUNCTION late()});
like(sql_error($node, cutover('z:{id}', q{, max_pause => '200 ms'})), qr/ERROR:  57014/, 'that of another is undone');
is(acl('app'), $fenced, 'whom the first has fenced stays so');
rows(q{DROP TRIGGER late ON redis_migrate.family_change; SELECT redis_migrate.create_migration('second', 'live');
    INSERT INTO redis_migrate.cutover (migration, patterns, to_state, fence, state, step, instance) SELECT 'second', ARRAY['q:{id}'], 'postgres', 'acl', 'completed', 'resuming', max(instance) FROM redis_migrate.cutover;
    INSERT INTO redis_migrate.fenced_user (cutover_id, node, address, username, rules, fenced_rules) SELECT (SELECT max(cutover_id) FROM redis_migrate.cutover), '', max(address), 'app', '+@all', max(fenced_rules) FROM redis_migrate.fenced_user;
    INSERT INTO redis_migrate.family_change (migration, pattern, state) VALUES ('second', 'q:{id}', 'postgres')});
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), '', 'cutback');
is(acl('app'), $fenced, 'a user whom another migration has fenced, too, stays so');
rows(q{SELECT redis_migrate.drop_migration('second')});
$redis->cli('ACL', 'SETUSER', 'app', '+@all');
is(sql_error($node, cutover('s:{id}') =~ s/\{app\}/{app,other}/r), '', 'cutover');
$redis->cli('ACL', 'SETUSER', 'app', '+set');
$redis->cli('ACL', 'DELUSER', 'other');
my $err = notices(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)});
like($err, qr/WARNING:  users of Redis stay as they are: "app"/, 'rules that somebody has changed since are told');
like($err, qr/WARNING:  users of Redis may stay without their rights to write: "other"/, 'and users that are gone');
like(acl('app'), qr/-\@write.*\+set/, 'and left alone');
is($redis->cli('ACL', 'GETUSER', 'other'), '', 'nobody is created');
$redis->cli('ACL', 'SETUSER', 'app', '+@all');

# A fail-over between two cutovers: the first has fenced the user at another master, and needs him fenced at this one.
sub elsewhere { my ($pattern) = @_; return rows("UPDATE redis_migrate.fenced_user AS u SET address = '127.0.0.1:1' FROM redis_migrate.cutover AS c WHERE c.cutover_id = u.cutover_id AND u.returned_at IS NULL AND c.patterns = ARRAY['$pattern']"); }
sub unreturned { return rows(q{SELECT count(*) FROM redis_migrate.fenced_user WHERE returned_at IS NULL AND cutover_id > (SELECT max(cutover_id) - 4 FROM redis_migrate.cutover)}); }
$rules = acl('app');
is(sql_error($node, cutover('s:{id}')), '', 'cutover of one family');
elsewhere('s:{id}');
$redis->cli('ACL', 'SETUSER', 'app', '+@all');
is(sql_error($node, cutover('z:{id}')), '', 'and of another');
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'z:{id}', discard_changes => true)}), '', 'which goes back');
like(acl('app'), qr/-\@write/, 'a user whom another family needs fenced, there or here, stays so');
notices(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)});
is(acl('app') . unreturned(), "${rules}0", 'until that goes back, too');

# A fence that is about to be put up again does not cross a cutback. Selectors at the new master are told.
is(sql_error($node, cutover('s:{id}')), '', 'cutover');
rows(q{CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(77); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON redis_migrate.fenced_user DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()});
my $holder = start_sql($node, 'BEGIN; SELECT pg_advisory_xact_lock(77); SELECT pg_sleep(60)', name => 'holder');
wait_until('the lock', sub { rows(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND granted}) eq '1' });
elsewhere('s:{id}');
my $has_selectors = eval { $redis->cli('ACL', 'SETUSER', 'app', '+@all', '(+set ~x)') } // '';
$redis->cli('ACL', 'SETUSER', 'app', '+@all') if $has_selectors ne 'OK';
wait_until('the fence to be put up again', sub { rows(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted}) eq '1' });
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), qr/ERROR:  55006: another session cuts migration "live" over/, 'a cutback waits for it');
rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'});
undef $holder;
wait_until('the fence', sub { acl('app') =~ /-\@write/ });
SKIP:
{
    skip 'no selectors', 1 if $has_selectors ne 'OK';
    wait_until('what selectors permit', sub { last_cutover('fence_trouble') =~ /^app at \S+: It has selectors, which may permit writes by themselves\.$/ });
    pass('selectors are told');
    $redis->cli('ACL', 'SETUSER', 'app', 'clearselectors');
}
rows(q{DROP TRIGGER hold ON redis_migrate.fenced_user});
like(notices(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), qr/WARNING:  users of Redis may stay without their rights to write: "app"/, 'and then it names the master that is gone');
is(acl('app') . unreturned(), "${rules}0", 'and leaves nobody fenced');

# Checks do not end somebody's own pause.
$redis->cli('CLIENT', 'PAUSE', 60000, 'WRITE');
like(sql_error($node, cutover('s:{id}') =~ s/\{app\}/{nobody}/r), qr/has no user "nobody"/, 'a cutover that does not begin');
my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $redis->port) or die;
print $client "SET other 1\r\n";
ok(!IO::Select->new($client)->can_read(0.3), 'leaves the pause of an administrator');
$redis->cli('CLIENT', 'UNPAUSE');
like(scalar <$client>, qr/^\+OK/, 'which ends when that ends it');
close $client;
$redis->cli('DEL', 'other');

# A write that live sync has not come to when the cutback begins. It is seen before anything is given back.
is(sql_error($node, cutover('s:{id}') =~ s/'acl'(.*), users => '\{app\}'/'confirmed'$1/r), '', 'cutover without a fence');
my $held = hold_worker($node, 'migration', idle => 1);
$redis->cli('SET', 's:7', 'late');
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true, max_wait => '2 s')}), qr/ERROR:  57014: live sync did not apply all changes in time/, 'a cutback waits for live sync');
my $waiting = start_sql($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}, name => 'waiting');
wait_until('the cutback to wait', sub { last_cutover('state, step') eq 'running|waiting' });
$held->release;
$waiting->finish;
is(last_cutover('state, message'), 'undone|1 keys were written to or deleted in Redis after the cutover', 'and ends with what was written meanwhile');
is(state_of('s:{id}') . rows(q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'redis_migrate_fence%' AND tgrelid = 'strings'::regclass}), 'postgres0', 'it is undone');
rows(q{SELECT redis_migrate.settle_late_writes('live')});
set_state('s:{id}', 'redis');
$redis->cli('SET', 's:7', '7');

# Elements that are added late, at several times, are all kept.
set_state('z:{id}', 'postgres');
for my $member ('y', 'w') { $redis->cli('ZADD', 'z:a', '2', $member); is(wait_for($node), '', 'live sync'); }
my $payload = rows(q{SELECT encode(payload, 'hex') FROM redis_migrate.late_writes WHERE key = 'z:a' AND settled_at IS NULL});
is($redis->cli('EVAL', q{redis.call('RESTORE', 'copy', 0, (ARGV[1]:gsub('..', function (x) return string.char(tonumber(x, 16)) end))); return redis.call('ZRANGE', 'copy', 0, -1)}, 0, $payload), "x\nw\ny", 'a late write has all elements');
rows(q{SELECT redis_migrate.settle_late_writes('live')});
set_state('z:{id}', 'redis');
$redis->cli('ZADD', 'z:a', '3', 'v');
is(wait_for($node) . rows(q{SELECT count(*) FROM scores WHERE id = 'a'}), '4', 'once it is Redis\' again, its elements are stored');

# Both: of two expiries the later wins, on both sides.
is(sql_error($node, cutover('s:{id}', q{, to_state => 'both', force => true})), '', 'both');
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}'); UPDATE strings SET expires_at = date_trunc('second', now()) + '2000 s' WHERE id IN ('1', '2', '3')});
wait_until('the reverse feed', sub { rows(q{SELECT state = 'running' AND waiting = 0 AND NOT needs_full FROM redis_migrate.reverse_feeds}) eq 't' && $redis->cli('TTL', 's:3') > 1000 });
$redis->cli_lines("EXPIRE s:1 5000\nEXPIRE s:2 50\nPERSIST s:3\nGETEX s:4 EX 100\n");
is(wait_for($node) . rows(q{SELECT string_agg(id || coalesce(round(extract(epoch FROM expires_at - now()) / 100)::text, 'never'), ' ' ORDER BY id) FROM strings WHERE id IN ('1', '2', '3', '4') AND (expires_at IS NULL OR expires_at > now())}), '150 220 3never 4never', 'the rows have the later ones');
wait_until('the later expiry to come to Redis', sub { $redis->cli('TTL', 's:2') > 1000 && $redis->cli('TTL', 's:4') == -1 });
is(rows(q{SELECT count(*) FROM redis_migrate.late_writes WHERE settled_at IS NULL}), '0', 'and no write is late');
$redis->cli('SET', 's:5', 'late', 'EX', '100');
is(wait_for($node) . rows(q{SELECT l.key, s.value, s.expires_at FROM redis_migrate.late_writes AS l, strings AS s WHERE l.settled_at IS NULL AND s.id = '5'}), 's:5|new|', 'another value is');
# The row is what counts; as long as Redis has the other value, a cutback may come upon it.
rows(q{SELECT redis_migrate.settle_late_writes('live'); UPDATE strings SET value = 'newest' WHERE id = '5'});
wait_until('it to come to Redis', sub { $redis->cli('GET', 's:5') eq 'newest' });
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), '', 'cutback');

$redis->cli('SET', 's:5', '5');
is(wait_for($node), '', 'tables and Redis are equal again');

# Writes to Redis while live sync was away for so long that it takes a new snapshot.
is(sql_error($node, cutover('s:{id}', q{, force => true})), '', 'cutover');
rows(q{UPDATE strings SET value = 'mine' WHERE id = '10'});
wait_until('the reverse feed', sub { $redis->cli('GET', 's:10') eq 'mine' });
rows(q{SELECT redis_migrate.stop('live')});
my $history = $redis->cli('INFO', 'replication') =~ s/.*master_replid:(\w+).*/$1/sr;
$redis->cli('CONFIG', 'SET', 'repl-backlog-ttl', '1');
$redis->cli('SET', 's:11', 'unseen');
wait_until('another history', sub { $redis->cli('INFO', 'replication') !~ /$history/ });
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . rows(q{SELECT key, kind FROM redis_migrate.late_writes WHERE settled_at IS NULL}), 's:11|written', 'a new snapshot shows what was written meanwhile');
is(rows(q{SELECT value FROM strings WHERE id = '11'}), '11', 'and the row stays');
rows(q{SELECT redis_migrate.settle_late_writes('live'); SELECT redis_migrate.stop_reverse('live')});
set_state('s:{id}', 'redis');
$redis->cli('SET', 's:11', '11');

# Without PSYNC: once live sync has settled, and knows that it has missed nothing.
rows(q{SELECT redis_migrate.stop('live'); SELECT redis_migrate.alter_migration('live', source => 'scan'); SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync by the names of changed keys');
rows($verify);
my $link = hold_worker($node, 'replication link', idle => 1);
rows(q{UPDATE redis_migrate.live_link SET doubt = 'a test'});
like(sql_error($node, cutover('s:{id}', q{, max_pause => '30 s'})), qr/ERROR:  55000: .* cannot be cut over now\nDETAIL:  Because live sync may have missed changes: a test/, 'not while it may have missed changes');
$link->release;
wait_until('live sync to settle', sub { rows(q{SELECT state FROM redis_migrate.live_sync}) eq 'settled' });
$redis->cli('SET', 's:12', 'in time');
is(sql_error($node, cutover('s:{id}', q{, max_pause => '30 s'})), '', 'cutover');
is(state_of('s:{id}') . rows(q{SELECT value FROM strings WHERE id = '12'}), 'postgresin time', 'with the last write');
# Such live sync takes what the reverse feed deletes for a late deletion. No row is there, either, so that it is settled.
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}'); DELETE FROM strings WHERE id = '12'});
wait_until('the late deletion', sub { rows(q{SELECT kind FROM redis_migrate.late_writes WHERE key = 's:12'}) eq 'deleted' });
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), '', 'cutback');
rows(q{SELECT redis_migrate.unfence('live', 's:{id}'), redis_migrate.stop_reverse('live')});

# Tables behind views, and partitions.
set_state("$_:{id}", 'postgres') for qw(view parted);
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'view:{id}', discard_changes => true)}), '', 'cutback of a view');
like(sql_error($node, q{INSERT INTO view VALUES ('x', 'y')}), qr/25006: table "base" belongs to Redis again/, 'fences the table that it stands for');
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'parted:{id}', discard_changes => true)}), '', 'cutback of a partitioned table');
like(sql_error($node, 'TRUNCATE part0') . sql_error($node, 'DELETE FROM part0'), qr/25006.*25006/s, 'fences its partitions');
set_state('joined:{id}', 'postgres');
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'joined:{id}', discard_changes => true)}), qr/ERROR:  0A000: target .*joined.* cannot be fenced\nDETAIL:  .*\nHINT:  .*set_family_state/, 'another view is refused');
rows(q{SELECT redis_migrate.unfence('live', 'view:{id}'), redis_migrate.unfence('live', 'parted:{id}')});
is(rows(q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'redis_migrate_fence%' AND tgrelid IN ('base'::regclass, 'parted'::regclass, 'part0'::regclass)}), '0', 'unfence');

# A copy of the database begins neither.
set_state('h:{id}', 'postgres');
$node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')});
$node->append_conf('postgresql.conf', "pg_redis_migrate.databases = ''");
$node->restart;
$node->safe_psql('template1', q{CREATE DATABASE copy TEMPLATE postgres});
$node->safe_psql('copy', q{UPDATE redis_migrate.background_run SET state = 'running'});
for my $call (cutover('s:{id}', ', force => true'), q{CALL redis_migrate.cutback('live', pattern => 'h:{id}', discard_changes => true)})
{
    my ($status, $out, $error) = $node->psql('copy', $call);
    like($error, qr/no worker of this database applies its changes now/, 'a copy does not begin');
}

done_testing();
