# Locks of tables and families beside sessions that write to several tables in another order, or do not end: nobody ends in a
# deadlock, no call waits without limit, and what could not be undone is undone once it can be.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('locks', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub last_cutover { my ($columns) = @_; return rows("SELECT $columns FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1"); }
sub fence { return rows(q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'redis_migrate_fence%'}); }
sub end_of { my ($name) = @_; return rows("SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = '$name'"); }
# A transaction that uses one table and then, unless it only holds that, another one; it stands at the sleep between them, for
# some time after somebody has begun to wait for a table.
rows(q{CREATE FUNCTION stand() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    FOR i IN 1 .. 3000 LOOP
        IF EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND NOT granted AND relation IN ('scores'::regclass, 'strings'::regclass, to_regclass('part0'), to_regclass('parted'))) THEN
            PERFORM pg_sleep(1.2);
            RETURN;
        END IF;
        PERFORM pg_sleep(0.02);
    END LOOP;
    RAISE 'nobody waits for a table';
END $$});
sub using
{
    my ($name, $first, $then) = @_;
    my $session = start_sql($node, "BEGIN; $first; SELECT " . ($then ? 'stand()' : 'pg_sleep(120)') . '; ' . ($then // 'SELECT 1') . '; COMMIT', name => $name);
    wait_until($name, sub { rows("SELECT count(*) FROM pg_stat_activity WHERE application_name = '$name' AND wait_event = 'PgSleep'") eq '1' });
    return $session;
}
# A call beside a transaction that uses the tables in one order, and beside one that uses them in the other.
sub crossed
{
    my ($what, $use, $call, $back) = @_;
    for my $order ([ 'scores', 'strings' ], [ 'strings', 'scores' ])
    {
        my $session = using('crossed', map { $use->($_) } @$order);
        is(sql_error($node, $call), '', "$what beside one who uses $order->[0], and then $order->[1]");
        my (undef, $err) = $session->finish;
        is($err, '', 'who goes on, too');
        $back->();
    }
    return;
}

$redis->cli_lines((join '', map { "SET s:$_ $_\nZADD z:$_ 1 m\n" } 1 .. 3));
rows(q{SELECT redis_migrate.drop_mapping('live', m) FROM unnest('{hashes,items,members}'::text[]) AS m; SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});

my $live_sync = worker_pid($node, 'migration');

# Triggers of the reverse feed.
my $write = sub { my ($table) = @_; return "UPDATE $table SET id = id WHERE id = '1'"; };
my $read = sub { my ($table) = @_; return "SELECT FROM $table LIMIT 1"; };
my ($start, $stop) = map { "SELECT redis_migrate.${_}_reverse('live')" } 'start', 'stop';
crossed('start_reverse', $write, $start, sub { rows($stop) });
rows($start);
crossed('start_reverse once more', $write, $start, sub { });
crossed('stop_reverse', $read, $stop, sub { rows($start) });
# A partitioned table, and one of its partitions.
rows(q{CREATE TABLE parted (id text PRIMARY KEY, value text) PARTITION BY HASH (id);
    CREATE TABLE part0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0); INSERT INTO parted VALUES ('1', 'x');
    SELECT redis_migrate.create_migration('parted', 'live', databases => '{0}');
    SELECT redis_migrate.add_mapping('parted', 'parted', 'p:{id}', 'parted', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')});
my $parted = $start =~ s/live/parted/r;
for my $order ([ 'parted', 'part0' ], [ 'part0', 'parted' ])
{
    my $session = using('crossed', map { $write->($_) } @$order);
    is(sql_error($node, $parted), '', "start_reverse beside one who writes to $order->[0], and then to $order->[1]");
    is(($session->finish)[1], '', 'who goes on, too');
    rows($stop =~ s/live/parted/r);
}
rows(q{SELECT redis_migrate.drop_migration('parted')});
my $holder = using('holder', $write->('scores'));
like(sql_error($node, "SET lock_timeout = '300ms'; $stop"), qr/ERROR:  55P03: table public\.scores could not be locked in time\nDETAIL:  .*\nHINT:  .*pg_locks/, 'lock_timeout bounds the wait');
my $run = q{SELECT state || ' ' || wanted FROM redis_migrate.background_run};
like(sql_error($node, q{SET lock_timeout = '300ms'; SELECT redis_migrate.drop_migration('live')}), qr/ERROR:  55P03: table public\.scores could not be locked in time\nDETAIL:  Transactions that write to it, or read it, have not ended\.\nHINT/, 'a migration is not dropped meanwhile');
is(rows($run) . worker_pid($node, 'migration'), "running true$live_sync", 'which stops nothing');
cmp_ok(elapsed(sub { like(sql_error($node, $start), qr/ERROR:  55P03: table public\.scores could not be locked in time/, 'without one there is a bound, too') }), '<', 40, 'of ten seconds');
is(rows(q{SELECT string_agg(state, ' ') FROM redis_migrate.reverse_feeds}), 'running', 'the feed goes on');
end_of('holder');
undef $holder;
is(rows(q{BEGIN; SELECT FROM redis_migrate.unfence('live'); SHOW lock_timeout; COMMIT}), '0', 'the rest of the transaction waits as long as it says');

# A pass over all rows waits for a transaction that may have changed some without noting them, and looks for its end no more
# often than for changes; those of another mapping are sent meanwhile.
rows(q{SELECT redis_migrate.set_family_state('live', pattern, 'postgres') FROM redis_migrate.families});
wait_until('the feed', sub { rows(q{SELECT needs_full OR waiting > 0 FROM redis_migrate.reverse_feeds WHERE state = 'running'}) eq 'f' });
my $feed = worker_pid($node, 'reverse feed');
stop_idle($node, $feed);
rows(q{INSERT INTO redis_migrate.outbox_gap (mapping_id, reason) SELECT mapping_id, 'a test' FROM redis_migrate.mapping WHERE mapping = 'scores'});
my $noting = using('noting', q{UPDATE scores SET score = 5 WHERE id = '1'});
kill 'CONT', $feed;
rows(q{UPDATE strings SET value = 'beside' WHERE id = '1'});
wait_until('a change of another mapping', sub { $redis->cli('GET', 's:1') eq 'beside' });
sub wake_ups { return slurp_file("/proc/$feed/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die; }
SKIP:
{
    skip 'no /proc', 1 unless -r "/proc/$feed/status";
    my $before = wake_ups();
    usleep(2_000_000);
    cmp_ok(wake_ups() - $before, '<', 50, 'the feed sleeps meanwhile');
}
is(rows(q{SELECT needs_full FROM redis_migrate.reverse_feeds}), 't', 'the pass has not begun');
my $drained = start_sql($node, q{CALL redis_migrate.feed_redis('live', until_drained => true)}, name => 'drained');
end_of('noting');
undef $noting;
is(($drained->finish)[1] . rows(q{SELECT needs_full FROM redis_migrate.reverse_feeds}), 'f', 'and is waited for');

# The feed is ended while it forgets what it has sent.
rows(q{CREATE FUNCTION hold_outbox() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(78); RETURN NULL; END $$;
    CREATE TRIGGER hold AFTER DELETE ON redis_migrate.outbox FOR EACH ROW EXECUTE FUNCTION hold_outbox()});
my $forgetting = using('forgetting', 'SELECT pg_advisory_xact_lock(78)');
rows(q{UPDATE strings SET value = 'forgotten' WHERE id = '1'});
wait_until('the feed to forget', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'}) eq '1' });
my $stopping = start_sql($node, $stop, name => 'stopping');
wait_until('stop_reverse', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stopping' AND wait_event_type = 'Lock'}) eq '1' });
end_of('forgetting');
undef $forgetting;
is(($stopping->finish)[1] . rows('SELECT count(*) FROM redis_migrate.reverse_mapping'), '0', 'stop_reverse beside a feed that forgets');
rows("DROP TRIGGER hold ON redis_migrate.outbox; $start");
rows(q{SELECT redis_migrate.set_family_state('live', pattern, 'redis') FROM redis_migrate.families});

# The fence.
my $cutover = q{CALL redis_migrate.cutover('live', 'confirmed', max_pause => '30 s', force => true)};
my $cutback = q{CALL redis_migrate.cutback('live', max_wait => '30 s')};
my $over = sub { rows(q{SELECT redis_migrate.unfence('live')}); wait_for($node); return sql_error($node, $cutover); };
is($over->(), '', 'cutover');
crossed('cutback', $write, $cutback, sub { is($over->(), '', 'cutover') });
is(sql_error($node, $cutback), '', 'cutback');
crossed('unfence', $read, q{SELECT redis_migrate.unfence('live')}, sub { $over->(); is(sql_error($node, $cutback), '', 'cutback') });
crossed('cutover', $read, $cutover, sub { is(sql_error($node, $cutback), '', 'cutback') });
is(join('', grep { /deadlock detected/ } split /^/, slurp_file($node->logfile)), '', 'nobody has ended in a deadlock');

# A cutback fails while somebody reads a table, so that the fence cannot go, also if the call is cancelled while it waits.
my $error;
for my $why ('table public\.strings could not be locked in time', 'canceling statement due to user request')
{
    is($over->(), '', 'cutover');
    $redis->cli('CLIENT', 'PAUSE', 60000, 'WRITE');
    rows(q{UPDATE strings SET value = 'x' WHERE id = '1'});
    my $reader = using('reader', $read->('strings'));
    my $call = start_sql($node, q{CALL redis_migrate.cutback('live', max_wait => '500 ms')}, name => 'cutback');
    if ($why =~ /canceling/)
    {
        wait_until('the end of the fence', sub { rows(q{SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'cutback' AND NOT granted AND mode = 'AccessExclusiveLock'}) eq '1' });
        rows(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'cutback'});
    }
    cmp_ok(elapsed(sub { (undef, $error) = $call->finish }), '<', 40, 'the end of a fence is not waited for without limit');
    like($error, qr/ERROR:  (?:\w{5}: )?cutback \d+ of migration "live" cannot be undone yet: $why\nDETAIL:  Its tables are fenced\. It failed because of this: .*\nHINT:  CALL redis_migrate\.undo_cutover/, 'which is an error');
    isnt(fence(), '0', 'the fence stands');
    # The bound of ten seconds has been met before.
    like(sql_error($node, q{SET lock_timeout = '1s'; CALL redis_migrate.undo_cutover('live')}), qr/ERROR:  (?:55P03|55006)/, 'and does not go as long as the table is read');
    $redis->cli('CLIENT', 'UNPAUSE');
    end_of('reader');
    undef $reader;
    wait_until('a worker to undo it', sub { last_cutover('state') eq 'undone' });
    is(fence() . sql_error($node, q{UPDATE strings SET value = 'y' WHERE id = '1'}), '0', 'then a worker undoes it');
    is(sql_error($node, $cutback), '', 'and another goes through');
}

# A cutover fails while somebody keeps the states of families.
rows(q{SELECT redis_migrate.unfence('live')});
rows(q{CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(77); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON redis_migrate.cutover DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.step = 'waiting' AND OLD.step <> NEW.step) EXECUTE FUNCTION hold()});
my $gate = using('gate', 'SELECT pg_advisory_xact_lock(77)');
my $call = start_sql($node, $cutover =~ s/30 s/10 s/r, name => 'cutover');
wait_until('the cutover', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cutover' AND wait_event = 'advisory'}) eq '1' });
my $keeper = using('keeper', q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'cutting', 'kept')});
rows(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'cutover'});
cmp_ok(elapsed(sub { (undef, $error) = $call->finish }), '<', 40, 'nor is the lock of the families waited for without limit');
like($error, qr/ERROR:  (?:55P03: )?cutover \d+ of migration "live" cannot be undone yet: another session keeps the states of its families/, 'which is an error');
is(rows(q{SELECT string_agg(DISTINCT state, ' ') FROM redis_migrate.families}), 'cutting', 'the states are those of the cutover');
end_of($_) for 'keeper', 'gate';
$_->finish for $keeper, $gate;
rows('DROP TRIGGER hold ON redis_migrate.cutover');
wait_until('a worker to undo it, too', sub { last_cutover('state') eq 'undone' });
is(rows(q{SELECT string_agg(DISTINCT state, ' ') FROM redis_migrate.families}), 'redis', 'which a worker undoes');
is($over->(), '', 'and another goes through');

done_testing();
