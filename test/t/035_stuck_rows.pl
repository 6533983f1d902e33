# Expired rows that cannot be removed: all others are removed; these are listed, left out for an hour, and tried again.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('stuck', conf => "log_min_messages = warning\nautovacuum = off");

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

sub stats { my ($table, $columns) = @_; return sql("SELECT $columns FROM redis_migrate.expiry_stats WHERE target = 'public.$table'"); }

sub stuck { my ($table, $columns) = @_; return sql("SELECT $columns FROM redis_migrate.stuck_rows WHERE target = 'public.$table' ORDER BY row_tid"); }

# A table of expired rows with a policy.
sub expired
{
    my ($table, $rows, %options) = @_;
    my $policy = $options{policy} ? ", $options{policy}" : '';
    sql("CREATE TABLE $table (id int PRIMARY KEY, bad boolean, expires_at timestamptz NOT NULL)",
        "INSERT INTO $table SELECT g, " . ($options{bad} // 'false') . ", clock_timestamp() - interval '1 day' + g * interval '1 millisecond' FROM generate_series(1, $rows) AS g",
        $options{pages} ? () : "CREATE INDEX ON $table (expires_at)", 'SET client_min_messages = error',
        "SELECT redis_migrate.add_expiry('$table', 'expires_at' $policy)");
    return;
}

sub raising
{
    my ($table, $sqlstate) = @_;
    sql("CREATE OR REPLACE FUNCTION raise_$sqlstate() RETURNS trigger LANGUAGE plpgsql AS
            \$\$BEGIN IF OLD.bad THEN RAISE EXCEPTION 'row % is needed', OLD.id USING ERRCODE = '$sqlstate'; END IF; RETURN OLD; END\$\$",
        "CREATE TRIGGER raising BEFORE DELETE ON $table FOR EACH ROW EXECUTE FUNCTION raise_$sqlstate()");
    return;
}

sub later { my ($table) = @_; sql(qq{UPDATE redis_migrate.stuck_row SET next_try = clock_timestamp() WHERE table_name = 'public.$table'}); return; }

# --- one row of 1,000, by either order
for my $pages (0, 1)
{
    my $table = "one_$pages";
    expired($table, 1000, pages => $pages);
    sql("CREATE TABLE child_$pages (id int REFERENCES $table)", "INSERT INTO child_$pages VALUES (500)");
    my (undef, undef, $notice) = $node->psql('postgres', "CALL redis_migrate.sweep('$table')");
    like($notice, qr/1 rows or partitions could not be removed, the last: 23503: update or delete on table "$table" violates foreign key/, 'the sweep says so');
    is(sql("SELECT string_agg(id::text, ' ') FROM $table"), '500', '999 of 1,000 go');
    is(stats($table, 'rows_deleted, stuck_rows, failed_runs, skipped_locked, backlog_estimate'), '999|1|0|0|1', 'and are counted');
    is(stuck($table, q{table_name, row_tid IS NOT NULL, row_key, sqlstate, tries, round(extract(epoch FROM next_try - last_try) / 3600)}),
        "public.$table|t|(id)=(500)|23503|1|1", 'the one is named');
    my $runs = sql("SELECT count(*) FROM redis_migrate.job_runs WHERE name = 'public.$table'");
    sql("CALL redis_migrate.sweep('$table')");
    is(stuck($table, 'tries'), '1', 'it is left alone before its time');
    is(sql("SELECT count(*) FROM redis_migrate.job_runs WHERE name = 'public.$table'"), $runs, 'by sweeps that find nothing to do');
    my @hours;
    for (2 .. 7)
    {
        later($table);
        sql("CALL redis_migrate.sweep('$table')");
        push @hours, stuck($table, q{tries || ':' || round(extract(epoch FROM next_try - last_try) / 3600)});
    }
    is("@hours", '2:2 3:4 4:8 5:16 6:24 7:24', 'then it is tried again, later and later');
    sql("INSERT INTO $table SELECT g, false, clock_timestamp() - interval '1 hour' FROM generate_series(2001, 2010) AS g", "CALL redis_migrate.sweep('$table')");
    is(sql("SELECT string_agg(id::text, ' ') FROM $table"), '500', 'rows that expire meanwhile go');
    if ($pages) { sql("UPDATE $table SET bad = bad", "CALL redis_migrate.sweep('$table')"); is(stuck($table, 'tries'), '1', 'a row that was changed begins anew'); }
    sql("DELETE FROM child_$pages", "SELECT redis_migrate.resume_expiry('$table')", "CALL redis_migrate.sweep('$table')");
    is(sql("SELECT count(*) FROM $table") . stuck($table, 'count(*) OVER ()'), '0', 'resume_expiry has it tried at once; it leaves the list as it goes');
}

# --- what is deleted or extended by others leaves the list
expired('changed', 100, bad => 'g <= 3');
raising('changed', 'P0001');
sql(q{CALL redis_migrate.sweep('changed')});
is(sql(q{SELECT string_agg(row_key || ' ' || message, ', ' ORDER BY row_tid) FROM redis_migrate.stuck_rows WHERE target = 'public.changed'}),
    '(id)=(1) row 1 is needed, (id)=(2) row 2 is needed, (id)=(3) row 3 is needed', 'a trigger that raises');
sql(q{ALTER TABLE changed DISABLE TRIGGER raising}, q{DELETE FROM changed WHERE id = 1}, q{ALTER TABLE changed ENABLE TRIGGER raising},
    q{UPDATE changed SET expires_at = clock_timestamp() + interval '1 day' WHERE id = 2}, q{CALL redis_migrate.sweep('changed')});
is(stuck('changed', 'row_key'), '(id)=(3)', 'only what is still there as it was stays');
sql(q{CREATE ROLE watcher IN ROLE pg_monitor}, q{CREATE ROLE stranger});
is(sql(q{SET ROLE watcher}, q{SELECT row_key IS NULL, message IS NULL, sqlstate FROM redis_migrate.stuck_rows WHERE target = 'public.changed'}), 't|t|P0001', 'pg_monitor sees no keys');
is(sql(q{SET ROLE stranger}, q{SELECT count(*) FROM redis_migrate.stuck_rows}), '0', 'others see nothing');

# --- which errors cost a row, and which end the sweep
for my $case (['53400', 0], ['XX000', 0], ['42P01', 1], ['23514', 1], ['44000', 1], ['42501', 1], ['ZZ123', 1], ['38000', 1])
{
    my ($sqlstate, $costs) = @$case;
    my $table = lc "state_$sqlstate";
    expired($table, 100, bad => 'g = 50');
    raising($table, $sqlstate);
    sql(q{CALL redis_migrate.maintain()});
    is(stats($table, 'rows_deleted, stuck_rows, last_sqlstate'), $costs ? '99|1|' : "0|0|$sqlstate", "$sqlstate " . ($costs ? 'costs the row' : 'ends the sweep'));
}
expired('always', 10, bad => 'true');
raising('always', '42P02');
sql(q{CALL redis_migrate.maintain()});
is(stats('always', 'rows_deleted, stuck_rows, last_sqlstate'), '0|0|42P02', 'what three rows raise alike is the fault of none');

# --- locks of other rows: passed over, not stuck
expired('parent', 300);
sql('CREATE TABLE locked_child (id int PRIMARY KEY REFERENCES parent ON DELETE CASCADE)', 'INSERT INTO locked_child VALUES (7), (200)');
my $held = $node->background_psql('postgres');
$held->query_safe('BEGIN; SELECT * FROM locked_child WHERE id IN (7, 200) FOR UPDATE;');
sql(q{CALL redis_migrate.sweep('parent')});
is(sql(q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM parent}), '7 200', 'rows whose children are locked stay');
is(stats('parent', 'rows_deleted, stuck_rows, skipped_locked'), '298|0|2', 'and are counted as locked');
$held->query_safe('COMMIT;');
$held->quit;
sql(q{CALL redis_migrate.sweep('parent')});
is(sql(q{SELECT count(*) FROM parent}), '0', 'the next sweep takes them');

# --- a partition that cannot be dropped, and a soft delete
sql(q{CREATE TABLE part (id int, expires_at timestamptz NOT NULL) PARTITION BY RANGE (expires_at)},
    q{CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2000-01-01') TO ('2001-01-01')},
    q{CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2001-01-01') TO ('2002-01-01')},
    q{INSERT INTO part SELECT g, '2000-06-01' FROM generate_series(1, 10) AS g}, q{INSERT INTO part VALUES (11, '2001-06-01')},
    q{CREATE VIEW needs_it AS SELECT * FROM part_1}, q{SET client_min_messages = error}, q{SELECT redis_migrate.add_expiry('part', 'expires_at', drop_partitions => true)},
    q{CALL redis_migrate.sweep('part')});
is(sql(q{SELECT count(*), to_regclass('part_1'), to_regclass('part_2') FROM part}), '0|part_1|', 'its rows go one by one, and the next partition is dropped');
is(stuck('part', 'table_name, row_tid, sqlstate, tries'), 'public.part_1||2BP01|1', 'it is listed');
sql(q{CALL redis_migrate.sweep('part')});
is(stuck('part', 'tries'), '1', 'and left alone');
sql(q{DROP VIEW needs_it}, q{SELECT redis_migrate.resume_expiry('part')}, q{CALL redis_migrate.sweep('part')});
is(sql(q{SELECT to_regclass('part_1') IS NULL, count(*) FROM redis_migrate.stuck_rows WHERE target = 'public.part'}), 't|0', 'until it can be dropped');
expired('soft', 50, policy => q{soft_delete => 'id = -abs(id)', condition => 'id > 0'});
sql(q{INSERT INTO soft VALUES (-20, false, clock_timestamp())}, q{CALL redis_migrate.sweep('soft')});
is(stuck('soft', 'row_key, sqlstate') . '|' . stats('soft', 'rows_deleted'), '(id)=(20)|23505|49', 'a soft delete that collides');

# --- a condition that fails for some rows: they are named, and the others go
for my $pages (0, 1)
{
    my $table = "condition_$pages";
    sql("CREATE TABLE $table (id int PRIMARY KEY, age text, expires_at timestamptz NOT NULL)",
        "INSERT INTO $table SELECT g, CASE WHEN g IN (1, 500, 501, 1000) THEN 'old' WHEN g % 10 = 0 THEN '-1' ELSE '1' END,
            clock_timestamp() - interval '1 day' + g * interval '1 millisecond' FROM generate_series(1, 1000) AS g",
        $pages ? () : "CREATE INDEX ON $table (expires_at)", 'SET client_min_messages = error',
        "SELECT redis_migrate.add_expiry('$table', 'expires_at', condition => 'age::int > 0 -- seconds')");
    my (undef, $preview, $notice) = $node->psql('postgres', "SELECT * FROM redis_migrate.sweep_preview('$table')");
    is($preview, '1000|898|102', 'a preview counts the others');
    like($notice, qr/NOTICE:  the condition fails for 4 rows of public.$table, which would stay\nDETAIL:  The last: 22P02: invalid input syntax/, 'and tells of them');
    (undef, undef, $notice) = $node->psql('postgres', "CALL redis_migrate.sweep('$table')");
    like($notice, qr/4 rows or partitions could not be removed, the last: 22P02: invalid input syntax for type integer: "old"/, 'a condition that fails for rows');
    is(sql("SELECT count(*), count(*) FILTER (WHERE age = '1') FROM $table"), '102|0', 'all others go that meet it');
    is(stats($table, 'rows_deleted, stuck_rows, failed_runs, skipped_locked, backlog_estimate'), '898|4|0|0|4', 'and are counted');
    is(sql("SELECT string_agg(row_key || ' ' || sqlstate || ' ' || tries, ', ' ORDER BY row_tid) FROM redis_migrate.stuck_rows WHERE target = 'public.$table'"),
        '(id)=(1) 22P02 1, (id)=(500) 22P02 1, (id)=(501) 22P02 1, (id)=(1000) 22P02 1', 'they are named');
    my $runs = sql("SELECT count(*) FROM redis_migrate.job_runs WHERE name = 'public.$table'");
    sql("CALL redis_migrate.sweep('$table')");
    is(join(' ', split /\n/, stuck($table, 'tries')) . '|' . sql("SELECT count(*) FROM redis_migrate.job_runs WHERE name = 'public.$table'"), "1 1 1 1|$runs",
        'they are left alone before their time, by sweeps that find nothing to do');
    sql("INSERT INTO $table SELECT g, '1', clock_timestamp() - interval '2 days' FROM generate_series(2001, 2010) AS g", "CALL redis_migrate.sweep('$table')");
    is(sql("SELECT count(*) FROM $table") . '|' . join(' ', split /\n/, stuck($table, 'tries')), '102|1 1 1 1', 'rows that expire meanwhile go');
    later($table);
    sql("UPDATE $table SET age = '1' WHERE id = 500", "UPDATE $table SET age = '-1' WHERE id = 501", "CALL redis_migrate.sweep('$table')");
    is(stuck($table, q{row_key || ' ' || tries || ':' || round(extract(epoch FROM next_try - last_try) / 3600)}), "(id)=(1) 2:2\n(id)=(1000) 2:2", 'then they are tried again');
    is(sql("SELECT count(*), count(*) FILTER (WHERE id = 500) FROM $table"), '101|0', 'one that was put right goes');
    sql("SELECT redis_migrate.alter_expiry('$table', condition => 'CASE WHEN age ~ ''^[0-9]+\$'' THEN age::int > 0 END')",
        "SELECT redis_migrate.resume_expiry('$table')", "CALL redis_migrate.sweep('$table')");
    is(sql("SELECT count(*) FROM $table") . stuck($table, 'count(*) OVER ()'), '101', 'those that the condition leaves alone leave the list');
}

# --- a preview looks at few rows more than once, however they are read
sql(q{CREATE SEQUENCE looked}, q{CREATE FUNCTION looks(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS 'BEGIN PERFORM nextval(''looked''); RETURN $1::int > 0; END'},
    q{CREATE TABLE looked_at (age text, pad text, expires_at timestamptz NOT NULL)},
    q{INSERT INTO looked_at SELECT CASE g WHEN 2000 THEN 'old' ELSE '1' END, repeat('x', 200), now() - interval '1 day' FROM generate_series(1, 2000) AS g},
    q{SET client_min_messages = error}, q{SELECT redis_migrate.add_expiry('looked_at', 'expires_at', condition => 'looks(age)')});
for my $method ('enable_tidscan', 'enable_seqscan')
{
    sql(q{ALTER SEQUENCE looked RESTART});
    is(sql("SET $method = off", q{SELECT * FROM redis_migrate.sweep_preview('looked_at')}), '2000|1999|1', "without $method a preview counts the others");
    cmp_ok(sql('SELECT last_value FROM looked'), '<', 12000, 'and looks at each row a few times at most');
}

# --- a row for which the condition fails behind many that it leaves alone
sql(q{CREATE TABLE behind (id int PRIMARY KEY, age text, deleted_at timestamptz, expires_at timestamptz NOT NULL)}, q{CREATE INDEX ON behind (expires_at)},
    q{INSERT INTO behind SELECT g, CASE g WHEN 4001 THEN 'old' ELSE '1' END, CASE WHEN g <= 4000 THEN now() END, now() - interval '1 day' + g * interval '1 millisecond' FROM generate_series(1, 4100) AS g},
    q{SET client_min_messages = error}, q{SELECT redis_migrate.add_expiry('behind', 'expires_at', soft_delete => 'deleted_at = now()', condition => 'deleted_at IS NULL AND age::int > 0')},
    q{CALL redis_migrate.sweep('behind')});
is(sql('SELECT count(*) FROM behind WHERE deleted_at IS NULL') . '|' . stats('behind', 'rows_deleted, stuck_rows'), '1|99|1', 'one behind many that the condition leaves alone');
cmp_ok(stats('behind', 'batches'), '<', 40, 'costs few batches');

# --- one that fails in a way that says little of whose fault it is, tried again by itself
sql(q{CREATE FUNCTION is_old(id int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN IF id <> 7 THEN RETURN true; END IF; END'});
expired('unclear', 100, policy => q{condition => 'is_old(id)'});
sql(q{CALL redis_migrate.sweep('unclear')});
is(sql('SELECT count(*) FROM unclear') . '|' . stuck('unclear', 'row_key, sqlstate'), '1|(id)=(7)|2F005', 'a function that ends without RETURN');
later('unclear');
sql(q{INSERT INTO unclear VALUES (101, false, now() - interval '1 day')}, q{CALL redis_migrate.sweep('unclear')});
is(sql('SELECT count(*) FROM unclear') . '|' . stats('unclear', 'rows_deleted, failed_runs') . '|' . stuck('unclear', 'tries'), '1|100|0|2', 'keeps no others when it is tried again');

# --- one that fails for every row, and for rows that are locked or many
sql(q{CREATE TABLE hopeless (id int PRIMARY KEY, divisor int NOT NULL, expires_at timestamptz NOT NULL)}, q{CREATE INDEX ON hopeless (expires_at)},
    q{INSERT INTO hopeless SELECT g, 0, '2020-01-01' FROM generate_series(1, 30000) AS g}, q{SET client_min_messages = error},
    q{SELECT redis_migrate.add_expiry('hopeless', 'expires_at', condition => '1 / divisor = 1')});
my $hopeless = elapsed(sub { sql(q{CALL redis_migrate.maintain()}) });
cmp_ok($hopeless, '<', 120, "a sweep of which no row can be judged ends, after $hopeless s");
is(stats('hopeless', 'rows_deleted, stuck_rows, last_sqlstate, last_message'), '0|20000|54000|20000 expired rows of table public.hopeless could not be removed, and the sweep gave up', 'with its reason');
sql(q{UPDATE hopeless SET divisor = 1}, (q{CALL redis_migrate.sweep('hopeless')}) x 2);
is(sql(q{SELECT count(*) FROM hopeless}) . '|' . stats('hopeless', 'rows_deleted, stuck_rows'), '0|30000|0', 'and goes on when it can');

# --- rows that a trigger keeps without an error, all of one time
expired('kept', 3000);
sql(q{UPDATE kept SET expires_at = '2020-01-01'}, q{CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'},
    q{CREATE TRIGGER keep BEFORE DELETE ON kept FOR EACH ROW EXECUTE FUNCTION keep()});
sql(q{SET statement_timeout = '60s'}, q{CALL redis_migrate.sweep('kept')});
is(stats('kept', 'rows_deleted, stuck_rows, sweeping IS NULL'), '0|0|t', 'the sweep of what nobody can remove ends');

# --- many: one row of 100
for my $pages (0, 1)
{
    my $table = "many_$pages";
    expired($table, 30_000, pages => $pages, bad => 'g % 100 = 0');
    raising($table, 'P0002');
    my $seconds = elapsed(sub { sql("CALL redis_migrate.sweep('$table')") });
    is(sql("SELECT count(*) FROM $table") . '|' . stats($table, 'rows_deleted, stuck_rows'), '300|29700|300', 'all of many bad rows are found');
    cmp_ok($seconds, '<', 60, "in $seconds s");
    my $size = stats($table, 'batches');
    sql("CALL redis_migrate.sweep('$table')");
    cmp_ok(stats($table, 'batches') - $size, '<', $size / 4, 'the next sweep passes them by');
}

done_testing();
