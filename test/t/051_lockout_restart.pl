# Lockouts and recorded attempts survive the end of servers and sessions: a restart, a crash, a writer that is killed
# before and after its commit, a full queue, other databases, a standby.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(stat);

my $node = new_node(
    'restart', preload => 1,
    init => { allows_streaming => 1 },
    conf => "pg_redis_migrate.attempt_queue_size = 40\npg_redis_migrate.lockout_memory = '64kB'\nrestart_after_crash = on\nlog_statement = none");

sub sql { my ($sql, $database) = @_; return $node->safe_psql($database // 'postgres', $sql); }
sub fail_once { my ($user, $database) = @_; return sql("SELECT allowed FROM redis_migrate.login_result('login', '$user', NULL, false)", $database); }
sub locked { my ($user) = @_; return sql("SELECT locked FROM redis_migrate.lockout_status('login', '$user', NULL)"); }
sub write_attempts { return sql('CALL redis_migrate.write_login_attempts()'); }
sub recorded { my ($database) = @_; return sql('SELECT count(*) FROM redis_migrate.login_attempt', $database); }

sql(q{SELECT redis_migrate.create_lockout('login', '{"user_name": 2}', cool_off => '1 day', notify_channel => 'locks')});

# An orderly restart keeps locks, attempts in flight, statistics, and attempts that were not written.
fail_once('ada') for 1 .. 2;
my $token = sql(q{SELECT token FROM redis_migrate.login_check('login', 'bob', NULL)});
$node->restart;
is(locked('ada'), 't', 'a lock survives a restart');
is(sql(q{SELECT failures, locks FROM redis_migrate.lockout_stats}), '2|1', 'so do statistics');
is(sql(qq{SELECT remaining FROM redis_migrate.login_result('login', 'bob', NULL, false, $token)}), 1, 'and an attempt in flight');
is(recorded(), 0, 'nothing is written yet');
my $out = sql(q{LISTEN locks; CALL redis_migrate.write_login_attempts(); SELECT user_name, success, locks FROM redis_migrate.login_attempts ORDER BY attempt_id});
like($out, qr/^ada\|f\|f\nada\|f\|t\nbob\|f\|f$/m, 'the queue survives a restart');
like($out, qr/Asynchronous notification "locks" with payload "\{"policy" : "login", "user_name" : "ada", "address" : null, "locked_by" : "user_name", "locked_until" : "[^"]+"\}"/,
    'whoever listens hears of the lock when its row is written');

# A crash: the last save, which the launcher makes every few seconds; what waited in the queue is lost.
fail_once('cyd') for 1 .. 2;
write_attempts();
my $file = $node->data_dir . '/pg_stat/pg_redis_migrate.lockouts';
my $counted = Time::HiRes::time;
# Something changes all the time, so that a save begins after what was counted.
wait_until('the counters are saved', sub { sql(q{SELECT redis_migrate.import_lockout('login', 'zed', NULL, 1, now())}); return (stat $file)[9] > $counted; });
fail_once('dan') for 1 .. 2;
my $victim = start_sql($node, 'SELECT pg_sleep(3600);', name => 'victim');
wait_until('there is a backend to kill', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'victim'}) });
my $killed = sql(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'});
kill 'KILL', $killed;
$victim->finish;
wait_until('the server is back', sub { answers($node, $killed) });
is(locked('ada') . locked('cyd'), 'tt', 'locks that were saved survive a crash');
is(sql('SELECT waiting FROM redis_migrate.login_attempt_queue()'), 0, 'the queue is empty after a crash');
is(recorded(), 5, 'what was written stays, and nothing comes twice');

# A writer that is killed before its commit.
fail_once("eve$_") for 1 .. 3;
my $lock = start_sql($node, 'BEGIN; LOCK TABLE redis_migrate.login_attempt; SELECT pg_sleep(3600);', name => 'lock');
wait_until('the table is locked', sub { sql(q{SELECT count(*) FROM pg_locks WHERE relation = 'redis_migrate.login_attempt'::regclass AND mode = 'AccessExclusiveLock' AND granted}) });
my $writer = start_sql($node, 'CALL redis_migrate.write_login_attempts();', name => 'writer');
wait_until('the writer waits', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writer' AND wait_event_type = 'Lock'}) });
is(sql('SELECT allowed FROM redis_migrate.login_check(\'login\', \'fay\', NULL)'), 't', 'logins go on while the writer waits');
is(write_attempts() . 'done', 'done', 'a second writer returns at once');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'writer'});
$writer->finish;
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'});
$lock->finish;
is(recorded(), 5, 'nothing of a killed writer is there');
write_attempts();
is(recorded(), 8, 'the next one writes it');

# One that is killed in its commit, while it waits for a standby that does not exist: its rows are there.
fail_once('guy') for 1 .. 2;
sql(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()});
wait_until('commits wait', sub { sql('SHOW synchronous_standby_names') eq 'nobody' });
$writer = start_sql($node, 'CALL redis_migrate.write_login_attempts();', name => 'writer');
wait_until('the writer has committed', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writer' AND wait_event = 'SyncRep'}) });
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'writer'});
$writer->finish;
$node->safe_psql('postgres', q{ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()});
wait_until('commits do not wait', sub { sql('SHOW synchronous_standby_names') eq '' });
is(recorded(), 10, 'its rows are there');
$out = sql('LISTEN locks; CALL redis_migrate.write_login_attempts()');
is(recorded(), 10, 'the next one does not write them again');
unlike($out, qr/notification/, 'nor tells of their lock again');
is(sql('SELECT redis_migrate.attempts_due() <= clock_timestamp() IS TRUE'), 'f', 'the queue is done with them');

# A full queue: logins are counted as ever, what is not recorded is counted as dropped.
my $waiting = sql('SELECT waiting FROM redis_migrate.login_attempt_queue()');  # in flight
sql(q{SELECT redis_migrate.reset_lockout_stats('login')});
my $let_in = sql(q{SELECT count(*) FROM generate_series(1, 60) AS n, LATERAL redis_migrate.login_result('login', 'hal' || n, NULL, false)});
is($let_in, 60, 'a full queue stops no login');
is(sql('SELECT capacity, waiting, dropped FROM redis_migrate.login_attempt_queue()'), '40|40|' . (20 + $waiting), 'a full queue drops, and counts');
is(sql('SELECT failures, dropped FROM redis_migrate.lockout_stats'), '60|' . (20 + $waiting), 'also by policy');
fail_once('hal60');
is(locked('hal60'), 't', 'what is not recorded still locks');

# Full memory: counters that would disappear first go early, which is counted; those that were just made are there.
sql(q{SELECT count(redis_migrate.login_result('login', 'name' || n, NULL, false)) FROM generate_series(1, 5000) AS n});
fail_once('jay') for 1 .. 2;
is(locked('jay'), 't', 'locks are made in full memory, too');
my ($entries, $evicted) = split /\|/, sql('SELECT entries, evicted FROM redis_migrate.lockout_stats');
cmp_ok($entries, '<=', 64 * 1024 / 120 + 32, 'memory is bounded');
cmp_ok($entries + $evicted, '>=', 5000, "what had to go is counted: $evicted");

# Each database has its own: attempts of another one wait for its writer.
sql('CREATE DATABASE other');
sql('CREATE EXTENSION pg_redis_migrate', 'other');
write_attempts();
sql(q{SELECT redis_migrate.create_lockout('login', '{"user_name": 2}', cool_off => '1 day')}, 'other');
my $before = recorded();
is(sql(q{SELECT failures FROM redis_migrate.lockout_status('login', 'ada', NULL)}, 'other'), 0, 'a policy of the same name in another database counts for itself');
fail_once('ada', 'other') for 1 .. 2;
is(sql('SELECT redis_migrate.attempts_due() <= clock_timestamp() IS TRUE') . sql('SELECT redis_migrate.attempts_due() <= clock_timestamp() IS TRUE', 'other'), 'ft', 'attempts are wanted where they were made');
write_attempts();
is(recorded() . '|' . recorded('other'), "$before|0", 'the writer of one database leaves those of the other');
$node->restart;
sql('CALL redis_migrate.write_login_attempts()', 'other');
is(recorded('other'), 2, 'which are there for its own, also after a restart');

# A standby has its own memory: it locks, and records when it is promoted.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "pg_redis_migrate.attempt_queue_size = 40\n");
$standby->start;
is($standby->safe_psql('postgres', q{SELECT allowed FROM generate_series(1, 3) AS n, LATERAL redis_migrate.login_result('login', CASE WHEN n > 0 THEN 'ivy' END, NULL, false)}),
    "t\nf\nf", 'a standby counts and locks');
is($standby->safe_psql('postgres', q{SELECT allowed, reason FROM redis_migrate.login_check('login', 'ivy', NULL)}), 'f|locked', 'and refuses');
like(sql_error($standby, 'CALL redis_migrate.write_login_attempts()'), qr/ERROR:  25006: cannot execute CALL redis_migrate\.write_login_attempts\(\) in a read-only|ERROR:  25006: /, 'it cannot record');
$standby->promote;
$standby->safe_psql('postgres', 'CALL redis_migrate.write_login_attempts()');
is($standby->safe_psql('postgres', q{SELECT count(*), bool_or(locks) FROM redis_migrate.login_attempts WHERE user_name = 'ivy'}), '4|t', 'until it is promoted');

# Without the library in shared_preload_libraries there is no memory: nothing is done quietly in another way.
my $late = new_node('late');
for my $statement (q{SELECT redis_migrate.create_lockout('login')}, q{CALL redis_migrate.write_login_attempts()})
{
    like(sql_error($late, $statement),
        qr/ERROR:  55000: lockouts need pg_redis_migrate in shared_preload_libraries.*HINT:  Add it to shared_preload_libraries in postgresql\.conf and restart the server\./s,
        "not preloaded: $statement");
}
is($late->safe_psql('postgres', 'SELECT count(checks) FROM redis_migrate.lockout_stats; SELECT count(*) FROM redis_migrate.lockouts; SELECT redis_migrate.attempts_due() <= clock_timestamp() IS TRUE'), "0\n0\nf", 'views are empty then');

done_testing();
