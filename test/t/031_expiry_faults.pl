# Obstacles of a sweep: locks, other sweeps, changes of its definition, its end. The trouble of one policy does not
# affect another.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('faults', conf => "max_prepared_transactions = 5\nlog_min_messages = warning\nautovacuum = off");

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sub stats { my ($table, $columns) = @_; return sql("SELECT $columns FROM redis_migrate.expiry_stats WHERE target = 'public.$table'"); }

# A table of sessions, the first $expired of them expired, with a policy.
sub sessions
{
    my ($table, $expired, $alive, %options) = @_;
    my $index = $options{pages} ? '' : "CREATE INDEX ON $table (expires_at);";
    my $policy = $options{policy} ? ", $options{policy}" : '';
    my $with = $options{fillfactor} ? "WITH (fillfactor = $options{fillfactor})" : '';
    sql("CREATE TABLE $table (id int PRIMARY KEY, expires_at timestamptz NOT NULL) $with",
        "INSERT INTO $table SELECT g, clock_timestamp() + CASE WHEN g > $expired THEN interval '1 day' ELSE interval '-1 day' END
            FROM generate_series(1, $expired + $alive) AS g",
        "$index SET client_min_messages = error", "SELECT redis_migrate.add_expiry('$table', 'expires_at' $policy)");
    return;
}

# A session that holds a transaction open until release().
sub hold
{
    my (@statements) = @_;
    my $held = $node->background_psql('postgres');
    $held->query_safe("BEGIN;\n" . join(";\n", @statements) . ';');
    return $held;
}

# --- rows that others have locked are left for the next sweep, and counted
for my $pages (0, 1)
{
    my $table = $pages ? 'locked_pages' : 'locked_index';
    my $order = $pages ? 'page order' : 'expiry order';
    sessions($table, 900, 10, pages => $pages);
    my $held = hold("UPDATE $table SET expires_at = expires_at WHERE id IN (7, 899)");
    my $seconds = elapsed(sub { sql("CALL redis_migrate.sweep('$table')") });
    is(sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM $table WHERE id <= 900"), '7 899', "$order: what is locked stays");
    is(stats($table, 'rows_deleted, skipped_locked, backlog_estimate'), '898|2|2', "$order: and is counted");
    is(stats($table, q{oldest_expired_at + interval '1 day' < clock_timestamp(), oldest_expired_age BETWEEN '1 day' AND '1 day 1 minute'}), 't|t', "$order: as old as it is")
      if !$pages;  # which only an index tells
    cmp_ok($seconds, '<', 30, "$order: the sweep does not wait for it");
    $held->query_safe('COMMIT;');
    $held->quit;
    sql("CALL redis_migrate.sweep('$table')");
    is(sql("SELECT count(*), min(id) FROM $table"), '10|901', "$order: the next sweep takes it");
}

# --- the whole table is locked: the sweep waits in short attempts, and then says so; a schedule comes back later
sessions('blocked', 10, 10);
sessions('free', 10, 10);
my $held = hold('LOCK TABLE blocked IN ACCESS EXCLUSIVE MODE');
sql('CALL redis_migrate.maintain()');
is(stats('free', 'rows_deleted'), '10', 'maintain goes on with other tables');
is(stats('blocked', 'failed_runs, rows_deleted'), '0|0', 'a lock is no failure');
is(sql(q{SELECT next_run BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 minute' FROM redis_migrate.expiry_policies WHERE target = 'public.blocked'}),
    't', 'and is due again soon');
like(sql_error($node, q{CALL redis_migrate.sweep('blocked')}), qr/ERROR:  55P03: another session holds locks on rows or on table public\.blocked locked/,
    'in a session the sweep gives up after some seconds');
my $call = start_sql($node, q{CALL redis_migrate.sweep('blocked')});
wait_until('the sweep waits', sub { sql(q{SELECT count(*) FROM pg_locks WHERE relation = 'blocked'::regclass AND NOT granted}) });
$held->query_safe('COMMIT;');
$held->quit;
$call->finish;
is(sql('SELECT count(*) FROM blocked'), '10', 'once the lock is gone the sweep goes on');

# --- others do not wait for a sweep: it works for many seconds here, in batches of about a tenth of one
sessions('slow', 20_000, 10, policy => 'max_rate => 1000');
$call = start_sql($node, q{CALL redis_migrate.sweep('slow')}, name => 'slow_sweep');
wait_until('the first batch', sub { stats('slow', 'rows_deleted') > 0 });
my ($alter) = sort { $a <=> $b } map { my $column = "note$_"; elapsed(sub { sql("ALTER TABLE slow ADD COLUMN $column text") }) } 1 .. 3;
cmp_ok($alter, '<', 2, 'ALTER TABLE does not wait for the end of the sweep');
ok($call->running, 'which is still under way');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'slow_sweep' AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL) AND wait_event_type = 'Extension'}),
    '0', 'between batches it holds no transaction id and no snapshot');
is(stats('slow', q{sweeping, sweeping_since <= clock_timestamp(), sweep_order, backlog_estimate BETWEEN 2000 AND 40000}), 'public.slow|t|pages|t',
    'the view shows how far it is, and about how much is left');
like(sql_error($node, q{CALL redis_migrate.sweep('slow')}), qr/ERROR:  55006: table public\.slow is being swept by another session/, 'one sweep of a table at a time');
sql('CALL redis_migrate.maintain()');
is(stats('slow', 'failed_runs'), '0', 'maintain leaves it to that session');

# --- a change of the policy holds from the next batch on
sql(q{SELECT redis_migrate.alter_expiry('slow', condition => 'id > 19900', max_rate => 0)});
$call->finish;
is(sql('SELECT count(*) FROM slow WHERE id > 19900 AND id <= 20000'), '0', 'alter_expiry reaches the sweep that is under way');
cmp_ok(sql('SELECT count(*) FROM slow WHERE id <= 19900'), '>', 500, 'which spares what the new condition spares');

# --- a paused policy stops at once, and goes on where it was
sql(q{SELECT redis_migrate.alter_expiry('slow', condition => '', max_rate => 300)});
sql(q{UPDATE redis_migrate.job SET next_run = clock_timestamp() WHERE name = 'public.slow'});
$call = start_sql($node, 'CALL redis_migrate.maintain()');
my $before = stats('slow', 'rows_deleted');
wait_until('a batch', sub { stats('slow', 'rows_deleted') > $before });
sql(q{SELECT redis_migrate.pause_expiry('slow')});
$call->finish;
cmp_ok(sql('SELECT count(*) FROM slow'), '>', 100, 'pause_expiry stops it');
sql(q{SELECT redis_migrate.alter_expiry('slow', max_rate => 0)}, q{SELECT redis_migrate.resume_expiry('slow')});
sql('CALL redis_migrate.maintain()');
is(sql('SELECT count(*) FROM slow'), '10', 'resume_expiry lets it go on');

# --- ended in the middle: the lock is gone, the next sweep goes on, nothing is counted twice
sessions('ended', 4000, 10, policy => 'max_rate => 500');
for my $end ('pg_terminate_backend', 'pg_cancel_backend')
{
    $before = stats('ended', 'rows_deleted');
    $call = start_sql($node, q{CALL redis_migrate.sweep('ended')}, name => 'ended_sweep');
    wait_until('a batch', sub { stats('ended', 'rows_deleted') > $before });
    sql("SELECT $end(pid) FROM pg_stat_activity WHERE application_name = 'ended_sweep'");
    $call->finish;
    is(sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', "$end: no lock is left");
}
is(sql(q{SELECT outcome, sqlstate FROM redis_migrate.job_runs WHERE name = 'public.ended'}), 'failed|57014', 'a cancelled sweep is in the history');
sql(q{SELECT redis_migrate.alter_expiry('ended', max_rate => 0)});
sql(q{CALL redis_migrate.sweep('ended')});
is(sql('SELECT count(*), min(id) FROM ended'), '10|4001', 'the next sweep removes the rest');
is(stats('ended', 'rows_deleted'), '4000', 'each row was counted once');
# An error in the session that caused it: its lock is released, too.
is($node->safe_psql('postgres', qq{
    \\set ON_ERROR_STOP 0
    ALTER TABLE ended RENAME TO gone;
    CALL redis_migrate.sweep('public.ended');
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';}), '0', 'an error leaves no lock in its session');
sql('ALTER TABLE gone RENAME TO ended');

# --- trouble of one policy: recorded, retried later and later; the others go on
sessions("trouble_$_", 10, 5) for 1 .. 4;
sql('DROP TABLE trouble_1', 'ALTER TABLE trouble_2 RENAME expires_at TO expiry',
    'CREATE TABLE child (id int REFERENCES trouble_3)', 'INSERT INTO child VALUES (3)');
sql('CALL redis_migrate.maintain()');
is(sql(q{SELECT string_agg(concat_ws(' ', target, consecutive_failures, last_sqlstate, rows_deleted), E'\n' ORDER BY target)
         FROM redis_migrate.expiry_stats WHERE target LIKE '%trouble%'}),
    "public.trouble_1 1 42P01 0\npublic.trouble_2 1 42703 0\npublic.trouble_3 0 9\npublic.trouble_4 0 10", 'errors are recorded, the others go on');
my @waits;
for my $failures (1 .. 12)
{
    push @waits, sql(q{SELECT round(extract(epoch FROM next_run - last_finished_at)) FROM redis_migrate.expiry_stats WHERE target = 'public.trouble_1'});
    sql(q{UPDATE redis_migrate.job SET next_run = clock_timestamp() WHERE name = 'public.trouble_1'});
    sql('CALL redis_migrate.maintain()');
}
is("@waits", '10 20 40 80 160 320 640 1280 2560 3600 3600 3600', 'the pauses grow to an hour');

# --- fair: a large table does not keep a small one waiting
sessions('large', 200_000, 10, policy => q{batch_time => '5 ms', max_rate => 60000});
sessions('small', 10, 10);
sql(q{UPDATE redis_migrate.job SET next_run = clock_timestamp() - interval '1 hour' WHERE name = 'public.large'});
sql('CALL redis_migrate.maintain()');
is(sql(q{SELECT string_agg(name, ' ' ORDER BY finished_at) FROM redis_migrate.job_runs WHERE name IN ('public.large', 'public.small') AND outcome = 'completed'}),
    'public.small public.large', 'the small table is done first though it was due later');
is(stats('large', 'rows_deleted'), '200000', 'and the large one as well');

# --- the ceiling: so many rows a second, in either order
for my $pages (0, 1)
{
    sessions("rated_$pages", 4000, 10, pages => $pages, policy => 'max_rate => 2000');
    my $seconds = elapsed(sub { sql("CALL redis_migrate.sweep('rated_$pages')") });
    is(stats("rated_$pages", 'rows_deleted, batches > 1'), '4000|t', 'with a ceiling everything goes, in several batches');
    # The last batch is not waited for.
    cmp_ok($seconds, '>', 0.9, "4000 rows at 2000 rows per second took $seconds s");
}

# --- batches of about batch_time; a trigger makes every row take 0.1 ms at least, on fast machines too, and a low
# fillfactor makes many pages, since a first batch reads 64
sql(q{CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.0001); RETURN OLD; END'});
for my $batch_time (1, 1000)
{
    my $table = "sized_$batch_time";
    sessions($table, 5000, 10, fillfactor => 10, policy => "batch_time => '$batch_time ms'");
    sql("CREATE TRIGGER take_time BEFORE DELETE ON $table FOR EACH ROW EXECUTE FUNCTION take_time()", "CALL redis_migrate.sweep('$table')");
}
my ($small, $large) = map { stats("sized_$_", 'batches') } 1, 1000;
is(stats('sized_1', 'rows_deleted') + stats('sized_1000', 'rows_deleted'), 10_000, 'both tables are swept');
cmp_ok($small, '>', 5 * $large, "short batches are many ($small), long ones few ($large)");

# --- where little has expired little is read, and nothing of what has not
sessions('few', 10, 100_000);
my $blocks = q{SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_user_tables WHERE relname = 'few'};
sub counted { my ($what) = @_; return wait_until("statistics of $what", sub { sql("SELECT $what FROM pg_stat_user_tables WHERE relname = 'few'") eq 't' }); }
counted('n_tup_ins = 100010');  # a session tells them as it ends
my $blocks_before = sql($blocks);
sql(q{CALL redis_migrate.sweep('few')});
counted('n_tup_del = 10');
my $read = sql($blocks) - $blocks_before;
is(stats('few', 'rows_deleted'), '10', 'ten of many have expired');
cmp_ok($read, '<', 100, "$read of " . sql(q{SELECT (pg_table_size('few') + pg_indexes_size('few')) / 8192}) . ' blocks are looked at');

# --- NOTIFY: one per batch, bounded
sessions('notified', 3000, 10, policy => q{notify_channel => 'expired', notify_column => 'expires_at'});
my $out = $node->safe_psql('postgres', "LISTEN expired;\nCALL redis_migrate.sweep('notified');\nSELECT 1;");
my @payloads = $out =~ /payload "(\{.*\})"/g;
cmp_ok(scalar(@payloads), '>=', 2, 'a notification for each batch');
is(eval { my $sum = 0; $sum += /"rows": (\d+)/ ? $1 : 0 for @payloads; $sum }, 3000, 'they add up');
like($payloads[0], qr/^\{"table": "public\.notified", "rows": \d+, "keys": \["\d\d\d\d-[^"]+"(, "[^"]+")*\], "more": true\}$/, 'with as many keys as fit');

# The same without keys, by either order and of either kind.
sub heard { my ($table) = @_; return join ' ', $node->safe_psql('postgres', "LISTEN $table;\nCALL redis_migrate.sweep('$table');\nSELECT 1;") =~ /"$table" with payload "(\{.*\})"/g; }
sessions('told', 30, 10, policy => q{notify_channel => 'told'});
is(heard('told'), '{"table": "public.told", "rows": 30}', 'without a column a notification has a number');
sessions('told_pages', 30, 10, pages => 1, policy => q{notify_channel => 'told_pages'});
is(heard('told_pages'), '{"table": "public.told_pages", "rows": 30}', 'in page order, too');
for my $pages (0, 1)
{
    my $table = "told_softly_$pages";
    sessions($table, 2, 10, pages => $pages);
    sql("ALTER TABLE $table ADD COLUMN gone boolean NOT NULL DEFAULT false", 'SET client_min_messages = error',
        "SELECT redis_migrate.alter_expiry('$table', soft_delete => 'gone = true', condition => 'NOT gone', notify_channel => '$table', notify_column => 'id')");
    is(heard($table), qq({"table": "public.$table", "rows": 2, "keys": ["1", "2"]}), 'a soft delete is an expiry as well');
    is(sql("SELECT count(*) FILTER (WHERE gone), count(*) FROM $table"), '2|12', 'after which the rows are there, marked');
    is(heard($table), '', 'and what was marked is not told again');
}

# --- history is kept as long as the setting says
$node->append_conf('postgresql.conf', "pg_redis_migrate.history_retention = '10min'");
$node->reload;
wait_until('the setting', sub { sql('SHOW pg_redis_migrate.history_retention') eq '10min' });
sql(q{UPDATE redis_migrate.job_history SET finished_at = finished_at - interval '9 minutes' WHERE name = 'public.told'},
    q{UPDATE redis_migrate.job_history SET finished_at = finished_at - interval '11 minutes' WHERE name = 'public.told_pages'},
    q{SELECT redis_migrate.resume_expiry('redis_migrate.job_history')}, q{CALL redis_migrate.sweep('redis_migrate.job_history')});
is(sql(q{SELECT string_agg(DISTINCT name, ' ') FROM redis_migrate.job_runs WHERE name IN ('public.told', 'public.told_pages')}), 'public.told',
    'what is older than history_retention has gone from the history');

# --- a horizon that is held back
sessions('horizon', 100, 10, policy => 'max_xmin_age => 20');
$held = hold('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM horizon');
my $pid = $held->query_safe('SELECT pg_backend_pid();');
chomp $pid;
sql("SELECT txid_current()") for 1 .. 30;
sql('CALL redis_migrate.maintain()');
like(stats('horizon', 'pause_reason'), qr/^process $pid \(\S+\) holds back the xmin horizon by \d+ transactions, more than max_xmin_age 20$/,
    'the pause names the process');
is(stats('horizon', 'rows_deleted, paused_since IS NOT NULL, failed_runs'), '0|t|0', 'nothing is deleted meanwhile');
$call = start_sql($node, q{CALL redis_migrate.sweep('horizon')});
wait_until('the notice', sub { ((eval { $call->output })[1] // '') =~ /waiting: process $pid/ });
$held->query_safe('COMMIT;');
$held->quit;
$call->finish;
is(stats('horizon', 'rows_deleted, pause_reason IS NULL, paused_since IS NULL'), '100|t|t', 'it goes on by itself');
sql('BEGIN', 'SELECT txid_current()', q{PREPARE TRANSACTION 'forgotten'});
sql("SELECT txid_current()") for 1 .. 30;
sql(q{UPDATE redis_migrate.job SET next_run = clock_timestamp() WHERE name = 'public.horizon'},
    q{INSERT INTO horizon VALUES (1, '2000-01-01')});
sql('CALL redis_migrate.maintain()');
like(stats('horizon', 'pause_reason'), qr/^prepared transaction forgotten holds back/, 'a forgotten prepared transaction is named');
sql(q{ROLLBACK PREPARED 'forgotten'});

# --- a batch writes as much WAL as makes nobody wait
for my $beside (0, 1)
{
    my $table = $beside ? 'beside' : 'alone';
    sessions($table, 60000, 10, pages => 1, policy => "batch_time => '1 minute'");
    my $busy = $beside && start_sql($node, 'SELECT pg_sleep(600)');
    my $others = q{EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query <> '')};
    wait_until('the other session', sub { sql("SELECT $others") eq ($beside ? 't' : 'f') });
    my $before = sql('CHECKPOINT', 'SELECT pg_current_wal_insert_lsn()');
    # Those that have just disconnected may still be on their way out.
    sql(q{DO $$ BEGIN FOR i IN 1 .. 1000 LOOP PERFORM pg_stat_clear_snapshot(); }
          . "EXIT WHEN $beside = 1 OR NOT $others; PERFORM pg_sleep(0.01); END LOOP; END \$\$",
        "CALL redis_migrate.sweep('$table')");
    my $batches = stats($table, 'batches');
    my $kilobytes = sql("SELECT round((pg_current_wal_insert_lsn() - '$before') / 1024 / $batches)");
    if ($beside)
    {
        cmp_ok($kilobytes, '<', 256, 'beside another session that works: 128 kB');
        sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'});
        $busy->finish;
    }
    else
    {
        cmp_ok($kilobytes, '>', 512, 'alone: up to 2 MB');
    }
}

done_testing();
