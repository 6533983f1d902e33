# A crash of the server in the middle of a sweep, a standby that falls behind, a standby as such, and a dump: on a cluster
# of its own, as kill -9 of a session restarts all of it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('crash', init => { allows_streaming => 1 }, conf => "restart_after_crash = on\nautovacuum = off");

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }
sub stats { my ($table, $columns) = @_; return sql("SELECT $columns FROM redis_migrate.expiry_stats WHERE target = 'public.$table'"); }

use constant { EXPIRED => 60_000, ALIVE => 60_000 };
sql('CREATE TABLE by_pages (id int PRIMARY KEY, expires_at timestamptz NOT NULL, filler text)',
    'CREATE TABLE by_index (id int PRIMARY KEY, expires_at timestamptz NOT NULL, filler text)',
    "INSERT INTO by_pages SELECT g, now() + interval '1 day' * CASE WHEN g % 2 = 0 THEN 1 ELSE -1 END, repeat('x', 100) FROM generate_series(1, 120000) AS g",
    "INSERT INTO by_index SELECT g, now() + interval '1 day' * CASE WHEN g <= 3000 THEN -1 ELSE 1 END, repeat('x', 100) FROM generate_series(1, 120000) AS g",
    'CREATE INDEX ON by_pages (expires_at)', 'CREATE INDEX ON by_index (expires_at)',
    q{SELECT redis_migrate.add_expiry('by_pages', 'expires_at', batch_time => '5 ms', max_rate => 8000)},
    q{SELECT redis_migrate.add_expiry('by_index', 'expires_at', batch_time => '1 ms', max_rate => 400)});
my $alive = sql(q{SELECT md5(string_agg(id::text, ',' ORDER BY id)) FROM by_pages WHERE expires_at > now()});

my %expired = (by_pages => EXPIRED, by_index => 3000);
for my $table ('by_pages', 'by_index')
{
    for my $round (1 .. 3)
    {
        my $call = start_sql($node, "CALL redis_migrate.sweep('$table')", name => 'swept');
        my $before = stats($table, 'rows_deleted');
        wait_until('some batches', sub { stats($table, 'rows_deleted') > $before + $expired{$table} / 12 });
        my $order = stats($table, 'sweep_order');
        my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'swept'});
        kill 'KILL', $pid;
        $call->finish;
        wait_until('the server is back', sub { answers($node, $pid) });
        is($order, $table eq 'by_pages' ? 'pages' : 'index', "$table, crash $round: it was swept in the order of the $order");
        my ($deleted, $left) = split /\|/, sql("SELECT (SELECT rows_deleted FROM redis_migrate.expiry_stats WHERE target = 'public.$table'),
            (SELECT count(*) FROM $table WHERE expires_at < now())");
        is($deleted + $left, $expired{$table}, "$table, crash $round: what is counted is what is gone");
    }
    my $position = stats($table, 'sweeping_since IS NOT NULL');
    is($position, 't', "$table: the position outlives the crash");
    sql("SELECT redis_migrate.alter_expiry('$table', max_rate => 0)") if $table eq 'by_index';
    sql("UPDATE redis_migrate.expiry_policy SET max_rate = 0");
    sql("CALL redis_migrate.sweep('$table')");
    sql("CALL redis_migrate.sweep('$table')");
    is(sql("SELECT count(*) FROM $table WHERE expires_at < now()"), '0', "$table: the next sweeps remove the rest");
    is(stats($table, 'rows_deleted'), $expired{$table}, "$table: each row is counted once");
    sql('UPDATE redis_migrate.expiry_policy SET max_rate = 400');
}
is(sql(q{SELECT md5(string_agg(id::text, ',' ORDER BY id)) FROM by_pages}), $alive, 'nothing that has not expired is gone');
is(sql('SELECT count(*) FROM by_index'), 117_000, 'from neither table');
sql('UPDATE redis_migrate.expiry_policy SET max_rate = 0');

# --- a standby that applies an hour late, and wants its rows kept
sql(q{SELECT pg_create_physical_replication_slot('kept')});
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "recovery_min_apply_delay = '1h'\nprimary_slot_name = 'kept'\nhot_standby_feedback = on\nwal_receiver_status_interval = '1s'");
$standby->start;
sql('CREATE TABLE lagging (id int, expires_at timestamptz)', 'CREATE INDEX ON lagging (expires_at)',
    q{SELECT redis_migrate.add_expiry('lagging', 'expires_at', max_replication_lag => '100 ms')},
    q{INSERT INTO lagging VALUES (1, '2000-01-01')});
wait_until('the standby is behind', sub { sql('SELECT count(*) FROM pg_stat_replication WHERE replay_lag > interval \'0.2 s\'') });
sql('CALL redis_migrate.maintain()');
like(stats('lagging', 'pause_reason'), qr/^standby standby \(process \d+\) is \S+ behind, more than max_replication_lag 00:00:00\.1$/,
    'a standby that is behind pauses the sweep, by name');
is(sql('SELECT count(*) FROM lagging'), '1', 'nothing is deleted meanwhile');
is(sql(q{SELECT next_run < clock_timestamp() + interval '15 seconds' FROM redis_migrate.expiry_policies WHERE target = 'public.lagging'}), 't',
    'it is looked at again soon');
like(sql_error($standby, q{CALL redis_migrate.maintain()}), qr/ERROR:  25006: redis_migrate\.maintain cannot run on a standby/, 'nothing is swept on a standby');
is($standby->safe_psql('postgres', q{SELECT count(*) > 0 FROM redis_migrate.expiry_policies}), 't', 'but its views can be read');
sql('SELECT txid_current()') for 1 .. 30;
wait_until('the slot holds the horizon back', sub { sql(q{SELECT age(xmin) > 20 FROM pg_replication_slots}) eq 't' });
sql(q{SELECT redis_migrate.alter_expiry('lagging', max_replication_lag => '0', max_xmin_age => 20)}, 'CALL redis_migrate.maintain()');
like(stats('lagging', 'pause_reason'), qr/^replication slot kept holds back the xmin horizon by \d+ transactions, more than max_xmin_age 20$/,
    'a slot that holds back the horizon pauses it, by name');
is(sql('SELECT count(*) FROM lagging'), '1', 'nothing is deleted meanwhile');
$standby->stop;
wait_until('the standby is gone', sub { !sql('SELECT count(*) FROM pg_stat_replication') });
sql(q{SELECT pg_drop_replication_slot('kept')}, q{SELECT redis_migrate.resume_expiry('lagging')});
sql('CALL redis_migrate.maintain()');
is(sql('SELECT count(*) FROM lagging'), '0', 'it goes on without the standby');

# --- dump and restore: policies are there, and run
sql(q{INSERT INTO lagging VALUES (1, '2000-01-01')}, 'CREATE ROLE sweeper', 'GRANT SELECT, UPDATE, DELETE ON lagging TO sweeper',
    q{SELECT redis_migrate.drop_expiry('lagging')}, 'SET ROLE sweeper', q{SELECT redis_migrate.add_expiry('lagging', 'expires_at', every => '1 day', grace => '1 hour')});
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'restored');
my $policies = q{SELECT target, owner::regrole, every, expires_column, grace FROM redis_migrate.expiry_policies ORDER BY 1};
is($node->safe_psql('restored', $policies), sql($policies), 'the restored database has the same policies');
my ($status, $output, $error) = $node->psql('restored', "SET ROLE sweeper;\nCALL redis_migrate.sweep('lagging')");
like($error, qr/was restored and does not sweep yet/, 'which wait until somebody says that the restore has ended');
$node->safe_psql('restored', 'CALL redis_migrate.resume_restored()');
$node->safe_psql('restored', "SET ROLE sweeper;\nCALL redis_migrate.sweep('lagging')");
is($node->safe_psql('restored', 'SELECT count(*) FROM lagging'), '0', 'then they sweep');

# --- the role is gone: its policies do not stop others
sql('REVOKE ALL ON lagging FROM sweeper', 'DROP TABLE lagging');
$node->safe_psql('restored', 'REVOKE ALL ON lagging FROM sweeper');
my ($refused, undef, $why) = $node->psql('postgres', 'DROP ROLE sweeper');
like($why, qr/privileges for column owner_1 of table redis_migrate.definition_owners/, 'a role with policies is not dropped');
sql('DROP OWNED BY sweeper');
$node->safe_psql('restored', 'DROP OWNED BY sweeper');
sql('DROP ROLE sweeper');
is(sql(q{SELECT count(*) FROM redis_migrate.maintenance_owners()}), '1', 'a role that is gone has no work');
sql(q{SELECT redis_migrate.drop_expiry('public.lagging')});
is(sql(q{SELECT count(*) FROM redis_migrate.expiry_policies WHERE target = 'public.lagging'}), '0', 'a superuser can drop its policies');

done_testing();
