# undo_run through kill -9 of its session at random moments, and undone live sessions: after that every row is as it was
# before. PRM_UNDO_KILLS says how many ends there are.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(usleep);

my $kills = $ENV{PRM_UNDO_KILLS} // 2;
srand($ENV{PRM_UNDO_SEED} // time);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('undo', conf => "restart_after_crash = on\nlog_statement = none\npg_redis_migrate.live_delete_limit = 100");
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
my $fill = q{for i = 1, 6000 do redis.call('SET', 's:' .. i, ARGV[1] .. i) redis.call('HSET', 'h:' .. i, 'a', ARGV[1]) redis.call('RPUSH', 'l:' .. i % 100, ARGV[1]) end};
my @tables = qw(strings hashes items scores members);
sub keep { my ($name) = @_; rows(join ';', map { "DROP TABLE IF EXISTS ${name}_$_; CREATE TABLE ${name}_$_ AS TABLE $_" } @tables); return; }
sub same
{
    my ($name) = @_;
    return join ' ', map { rows("SELECT count(*) FROM (((TABLE $_ EXCEPT ALL TABLE ${name}_$_) UNION ALL (TABLE ${name}_$_ EXCEPT ALL TABLE $_))) AS x") } @tables;
}
sub run { my ($more) = @_; rows("SET client_min_messages = error; CALL redis_migrate.run('live', source => 'scan'" . ($more // '') . ')'); return rows('SELECT max(run_id) FROM redis_migrate.runs'); }

# Rows that the application had before.
rows(q{INSERT INTO strings SELECT 'own' || i, 'own', '2030-01-02 03:04:05.678901+00' FROM generate_series(1, 50) AS i; INSERT INTO hashes VALUES ('1', '{"a": "own"}'), ('own', NULL)});
rows(q{SELECT redis_migrate.alter_mapping('live', 'strings', exclusive => false)});
keep('first');
$redis->cli('EVAL', $fill, 0, 'old');
my $first = run();
keep('second');
$redis->cli_lines(join '', map { "DEL s:$_ h:$_\n" } 1 .. 500);
$redis->cli('EVAL', q{for i = 501, 6500 do redis.call('SET', 's:' .. i, 'new') redis.call('HSET', 'h:' .. i, 'b', 1) end for i = 0, 50 do redis.call('LPUSH', 'l:' .. i, 'x') redis.call('RPOP', 'l:' .. i) end}, 0);
my $second = run(', prune => true, force => true');
isnt(same('second'), '0 0 0 0 0', 'the second run changes rows');
cmp_ok(rows("SELECT count(*) FROM redis_migrate.journal_entries WHERE run_id = $second AND operation = 'update'"), '>', 1000, 'updates are in the journal');
is(rows("SELECT count(*) FROM redis_migrate.journal_entries WHERE run_id = $second AND operation = 'delete'"), rows("SELECT sum(deleted) FROM redis_migrate.mapping_counts WHERE run_id = $second"), 'and deletes');
is(rows("SELECT count(*) FROM redis_migrate.journal_entries WHERE run_id = $first AND operation = 'insert'"), '0', 'inserts of packed ledgers are not');
keep('third');

# A dry run says what happens, and changes nothing.
my $err;
$node->psql('postgres', "CALL redis_migrate.undo_run($second, dry_run => true)", stderr => \$err);
like($err, qr/would be undone: (\d+) rows restored, (\d+) put back, (\d+) removed, 0 left alone/, 'a dry run');
(my $told = $err) =~ s/.*?(\d+ rows restored.*?)\n.*/$1/s;
is(same('third'), '0 0 0 0 0', 'changes nothing');

# Ended at a row that somebody holds, at random moments, and once more.
my ($hits, $left) = (0, "SELECT count(*) FROM redis_migrate.journal WHERE run_id = $second");
sub ended { my ($pid) = @_; kill 'KILL', $pid if $pid; wait_until('the server', sub { answers($node, $pid) }); ++$hits if $pid && rows("SELECT state FROM redis_migrate.undos WHERE run_id = $second ORDER BY started_at DESC LIMIT 1") eq 'interrupted'; return; }
my $holding = start_sql($node, q{BEGIN; SELECT FROM strings WHERE id = '3000' FOR UPDATE; SELECT pg_sleep(60)}, name => 'holding');
wait_until('the row to be held', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holding' AND wait_event = 'PgSleep'}) eq '1' });
my $waiting = start_sql($node, "CALL redis_migrate.undo_run($second)", name => 'undo');
my $waiter = q{SELECT pid FROM pg_stat_activity WHERE application_name = 'undo' AND wait_event_type = 'Lock'};
wait_until('the undo to wait', sub { rows($waiter) ne '' });
ended(rows($waiter));
$_->finish for $waiting, $holding;
is($hits, 1, 'a kill that has met an undo');
cmp_ok(rows($left), '>', 0, 'has left work');
# At each step, when it stores that: it begins, takes back what the journal has, sorts what was inserted, takes that back, and ends.
for my $step ([ undo => 'INSERT OR UPDATE', q{NEW.state = 'running'} ], [ journal => 'UPDATE OR DELETE', 'true' ], [ journal_insert => 'INSERT', 'true' ], [ journal_insert => 'UPDATE OR DELETE', 'true' ], [ undo => 'UPDATE', q{NEW.state = 'completed'} ])
{
    my ($table, $event, $when) = @$step;
    rows(qq{CREATE OR REPLACE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(77); RETURN NULL; END \$\$;
        CREATE CONSTRAINT TRIGGER hold AFTER $event ON redis_migrate.$table DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ($when) EXECUTE FUNCTION public.hold()});
    my $holder = start_sql($node, 'BEGIN; SELECT pg_advisory_xact_lock(77); SELECT pg_sleep(60)', name => 'holder');
    wait_until('the lock', sub { rows(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND granted}) eq '1' });
    my $undo = start_sql($node, "CALL redis_migrate.undo_run($second)", name => 'undo');
    wait_until("$table, $event", sub { rows(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted}) eq '1' || !$undo->running });
    my $pid = rows(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'undo'});
    ok($pid, "an undo stands at $table, $event");
    ended($pid);
    $_->finish for $undo, $holder;
    rows("DROP TRIGGER hold ON redis_migrate.$table");
}
for my $kill (1 .. $kills)
{
    my $undo = start_sql($node, "CALL redis_migrate.undo_run($second)", name => 'undo');
    usleep(10_000 + int rand 400_000);
    my $pid = rows(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'undo' AND state = 'active'});
    ended($pid);
    $undo->finish;
}
note("$hits of the kills have met an undo");
# Two operators at once; and PostgreSQL itself ends.
my @undos = map { start_sql($node, "CALL redis_migrate.undo_run($second)", name => "undo$_") } 1, 2;
usleep(50_000);
$node->stop('immediate');
$_->finish for @undos;
$node->start;
@undos = map { start_sql($node, "CALL redis_migrate.undo_run($second)", name => "undo$_") } 1, 2;
$_->finish for @undos;
$node->psql('postgres', "CALL redis_migrate.undo_run($second)", stderr => \$err);
like($err, qr/is undone: \Q$told\E/, 'after kills the sums are those that the dry run told');
is(same('second'), '0 0 0 0 0', 'and every row is as before');
is(rows("SELECT string_agg(DISTINCT state, ',') FROM redis_migrate.undos WHERE run_id = $second"), 'completed', 'it is completed');
is(rows("SELECT count(*) FROM redis_migrate.journal WHERE run_id = $second"), '0', 'and its journal is used up');

# The ledger is right: the next run does the same again, without a warning of rows that were changed here.
$node->psql('postgres', q{CALL redis_migrate.run('live', source => 'scan', prune => true, force => true)}, stderr => \$err);
unlike($err, qr/changed here/, 'a run after an undo finds no rows that were changed here');
is(same('third'), '0 0 0 0 0', 'and does the same again');
my $third = rows('SELECT max(run_id) FROM redis_migrate.runs');
rows("SET client_min_messages = error; CALL redis_migrate.undo_run($third)");
my $scans = q{SELECT seq_scan FROM pg_stat_all_tables WHERE relid = 'hashes'::regclass};
sessions_over($node);
my $before = rows($scans);
rows("SET client_min_messages = error; CALL redis_migrate.undo_run($first); SELECT pg_stat_force_next_flush()");
cmp_ok(rows($scans) - $before, '<=', 2, 'inserts that are known by hash are undone in one scan of the target, beside that of the journal');
is(same('first'), '0 0 0 0 0', 'undone one after the other, nothing is left of any run');

# Two operators, and a run that is under way.
my $run = start_sql($node, q{SET pg_redis_migrate.batch_rows = 20; CALL redis_migrate.run('live', source => 'scan')}, name => 'run');
wait_until('a run', sub { rows(q{SELECT count(*) FROM strings}) > 60 });
my $lock = start_sql($node, 'BEGIN; LOCK TABLE strings IN SHARE MODE; SELECT pg_sleep(2)');
wait_until('a lock', sub { rows(q{SELECT count(*) FROM pg_locks WHERE relation = 'strings'::regclass AND mode = 'ShareLock' AND granted}) });
my (undef, undef, $busy) = $node->psql('postgres', "\\set VERBOSITY verbose\nCALL redis_migrate.undo_run($first)");
like($busy, qr/55006/, 'not while a run is under way');
rows(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'run'});
$run->finish;
$lock->finish;
my $stopped = rows('SELECT max(run_id) FROM redis_migrate.runs');
rows("SET client_min_messages = error; CALL redis_migrate.undo_run($stopped)");
is(same('first'), '0 0 0 0 0', 'an interrupted run is undone');
is(rows("SELECT state FROM redis_migrate.runs WHERE run_id = $stopped"), 'superseded', 'and not resumed');

# A live session: rows that it changes many times, deletes and inserts again.
rows(q{INSERT INTO strings VALUES ('3', 'mine'), ('c1', 'mine')});
$redis->cli('FLUSHALL');
$redis->cli_lines(load_commands(1000, 30));
keep('fourth');
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
$redis->cli_lines(load_commands(400, 30)) for 1 .. 10;
is(wait_for($node), '', 'follows');
rows(q{SELECT redis_migrate.stop('live')});
my $live = rows('SELECT max(run_id) FROM redis_migrate.runs');
isnt(same('fourth'), '0 0 0 0 0', 'it has changed rows');
$node->psql('postgres', "CALL redis_migrate.undo_run($live)", stderr => \$err);
like($err, qr/ 0 left alone/, 'all rows are undone') or diag($err, rows("SELECT mapping, row_key, reason FROM redis_migrate.undo_leftovers WHERE run_id = $live LIMIT 10"));
is(same('fourth'), '0 0 0 0 0', 'every row is as before the live session');

# Live sync goes on after that: with a new snapshot.
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync after an undo');
is(differences($node, $redis), join("\n", map { "too much: $_" } ()), 'has everything again') if rows(q{SELECT count(*) FROM strings WHERE value = 'own'}) == 0;
is(rows("SELECT run_id > $live FROM redis_migrate.live_sync LIMIT 1"), 't', 'in another run');
rows(q{SELECT redis_migrate.stop('live')});

done_testing();
