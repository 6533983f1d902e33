# Ends of processes at each step of a cutover, and two operators at once: what is left is completed or undone by a worker, or
# by the next call, and nothing is lost between Redis and the tables.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

# A restart of Redis reads the users from a file.
my $acl = PostgreSQL::Test::Utils::tempdir() . '/users.acl';
append_to_file($acl, join '', map { "user $_ ~* &* +\@all\n" } 'default on nopass', 'migrator on >secret', 'app on >app');
my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--appendonly', 'yes', '--appendfsync', 'always', '--aclfile', $acl ]);
my $node = new_node('kills', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on");
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
my $rules = $redis->cli('ACL', 'LIST');
rows('CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $redis->port . q{$$); CREATE USER MAPPING FOR PUBLIC SERVER live OPTIONS (username 'migrator', password 'secret')});
create_live($node);
$redis->cli_lines(load_commands(1000, 50));
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{
    CREATE TABLE others (id text PRIMARY KEY, value text);
    SELECT redis_migrate.create_migration('other', 'live');
    SELECT redis_migrate.add_mapping('other', 'others', 'o:{id}', 'others', 'SELECT id, value FROM redis_batch', '{id}')});

sub cutover { my ($more) = @_; return "CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', force => true, max_pause => '10 s'" . ($more // '') . ')'; }
sub last_cutover { my ($columns) = @_; return rows("SELECT $columns FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1"); }
sub state_now { return rows(q{SELECT state FROM redis_migrate.families WHERE pattern = 's:{id}'}); }
sub can_write { return (eval { $redis->cli('--user', 'app', '--pass', 'app', '--no-auth-warning', 'SET', 's:probe', '1') } // '') eq 'OK'; }

# Kills a process of PostgreSQL, which takes connections for a moment, until it notices.
sub crash
{
    my ($pid) = @_;
    my $crashes = sub { return scalar(() = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g) };
    my $before = $crashes->();
    kill 'KILL', $pid;
    return wait_until('a restart', sub { $crashes->() > $before && answers($node) });
}
my %kills = (
    'the session' => \&crash,
    'a worker' => sub { crash(worker_pid($node, 'migration')); },
    'PostgreSQL' => sub { $node->stop('immediate'); $node->start; },
    'the postmaster' => sub { kill_postgres($node); },
    'Redis' => sub { $redis->restart('KILL'); },
    'a cancel' => sub { my ($pid) = @_; rows("SELECT pg_cancel_backend($pid)"); },
    'a termination' => sub { my ($pid) = @_; rows("SELECT pg_terminate_backend($pid)"); },
    'a fast shutdown' => sub { $node->stop('fast'); $node->start; },
);

# Calls a procedure, and ends something when it stands at a step: a trigger holds the session at the commit of that step. The
# one that comes next is taken only afterwards. The end: it is noted that it is completed, or undone.
sub end_at
{
    my ($what, $step, $sql) = @_;
    my $when = $step eq 'the end' ? 'NEW.state <> OLD.state' : "NEW.step = '$step' AND OLD.step <> NEW.step";
    rows(qq{CREATE OR REPLACE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(77); RETURN NULL; END \$\$;
        CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON redis_migrate.cutover DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ($when) EXECUTE FUNCTION public.hold()});
    my $holder = start_sql($node, 'BEGIN; SELECT pg_advisory_xact_lock(77); SELECT pg_sleep(60)', name => 'holder');
    wait_until('the lock', sub { rows(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND granted}) eq '1' });
    my $call = start_sql($node, $sql, name => 'cutover');
    wait_until("step $step", sub { rows(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted}) eq '1' });
    if ($step eq 'waiting')
    {
        like(sql_error($node, cutover()), qr/ERROR:  55006: another session cuts migration "live" over/, 'two operators at once');
        like(sql_error($node, q{CALL redis_migrate.cutover('other', 'confirmed', force => true)}), qr/ERROR:  55006: another session cuts over a migration of server "live"/, 'also of two migrations of a server');
    }
    $kills{$what}->(rows(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'cutover'}));
    rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'}) if $what =~ /^(?:Redis|a cancel|a termination)$/;
    $call->finish;
    undef $holder;
    rows(q{DROP TRIGGER hold ON redis_migrate.cutover; UPDATE redis_migrate.background_run SET crashes = 0, failures = 0, not_before = NULL});
    # Nobody calls anything.
    wait_until("$what at $step: it is settled", sub { rows(q{SELECT count(*) FROM redis_migrate.cutovers WHERE state IN ('running', 'interrupted')}) eq '0' });
    return;
}
# Until live sync is under way again after a crash. What a link says that has ended stands until the next one says more.
sub follows
{
    rows(q{UPDATE redis_migrate.background_run SET crashes = 0, failures = 0, not_before = NULL});
    return wait_until('live sync', sub { live($node, 'state') eq 'in step' && rows(q{SELECT count(*) FROM pg_stat_activity JOIN redis_migrate.run USING (pid) WHERE live AND backend_start <= updated_at}) > 0
        && rows(q{SELECT count(*) FROM pg_stat_activity AS a JOIN redis_migrate.workers AS w USING (pid), redis_migrate.live_link AS l WHERE w.kind = 'replication link' AND l.state = 'streaming' AND l.updated_at > a.backend_start}) > 0 });
}

for my $what ('PostgreSQL', 'Redis', 'the session')
{
    for my $step ('pausing', 'waiting', 'comparing', 'fencing', 'committing', 'resuming')
    {
        end_at($what, $step, cutover());
        # With Redis gone after the last look at it, the session goes on, and commits.
        is(state_now(), $what eq 'Redis' && $step eq 'resuming' ? 'postgres' : 'redis', "$what at $step: what was not committed is undone");
        rows(q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'redis')});
        ok(can_write(), 'writers have their rights');
        is($redis->cli('ACL', 'LIST'), $rules, 'the same as before');
        is(wait_for($node) . differences($node, $redis), '', "$what at $step: live sync goes on");
    }
}

# Ended otherwise. What is cancelled undoes itself.
for my $end ((map { [ 'a cancel', $_ ] } 'pausing', 'waiting', 'comparing', 'fencing', 'committing', 'resuming'), [ 'a termination', 'fencing' ], [ 'a fast shutdown', 'committing' ], [ 'a worker', 'comparing' ])
{
    my ($what, $step) = @$end;
    follows();
    end_at($what, $step, cutover());
    is(state_now() . $redis->cli('ACL', 'LIST'), "redis$rules", "$what at $step undoes it");
    ok(can_write(), 'writers go on');
}
follows();
like(sql_error($node, 'SET statement_timeout = 20; ' . cutover()), qr/ERROR:  57014: canceling statement due to statement timeout/, 'a timeout');
is(state_now() . $redis->cli('ACL', 'LIST'), "redis$rules", 'undoes it, too');

# While it is being undone: the tables are not as Redis.
follows();
rows(q{UPDATE strings SET value = value || '?'});
end_at('the session', 'the end', cutover(', no_way_back => true'));
is(last_cutover('state') . state_now() . $redis->cli('ACL', 'LIST'), "undoneredis$rules", 'the session while it undoes: it is undone');
rows(q{UPDATE strings SET value = left(value, -1)});

# After the commit: completed.
for my $what ('the session', 'the postmaster')
{
    follows();
    end_at($what, 'the end', cutover());
    is(last_cutover('state') . state_now(), 'completedpostgres', "$what at the end: what was committed is completed");
    ok(!can_write(), 'and the fence stays');
    follows();
    is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), '', 'back');
}
is($redis->cli('ACL', 'LIST'), $rules, 'with all rights');
is(sql_error($node, cutover()), '', 'at last it is cut over');
is(last_cutover('state') . state_now(), 'completedpostgres', 'for good');
ok(!can_write(), 'writers are fenced');
$redis->restart('KILL');
wait_until('Redis has its rules from the file, and the writers lose theirs once more', sub { (eval { $redis->cli('ACL', 'GETUSER', 'app') } // '') =~ /-\@write/ });
wait_until('the log says so', sub { slurp_file($node->logfile) =~ /user "app" of Redis at \S+ had the right to write again/ });
rows(q{ALTER SYSTEM SET pg_redis_migrate.databases = ''});
$node->restart;
rows(q{UPDATE redis_migrate.cutover SET state = 'running', finished_at = NULL WHERE cutover_id = (SELECT max(cutover_id) FROM redis_migrate.cutover)});
is(last_cutover('state'), 'interrupted', 'as if it had been killed before the pause ended, where no worker looks after it');
my $err = '';
$node->psql('postgres', q{CALL redis_migrate.undo_cutover('live')}, stderr => \$err);
like($err, qr/WARNING:  cutover \d+ of migration "live" was interrupted, and is now completed/, 'what was committed is completed');
is(state_now(), 'postgres', 'and not undone');
ok(!can_write(), 'the fence stays');
rows(q{ALTER SYSTEM RESET pg_redis_migrate.databases; SELECT pg_reload_conf()});

# The way back.
my $cutback = q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)};
for my $end ((map { [ 'the session', $_ ] } 'fencing', 'draining', 'waiting', 'resuming', 'the end'), [ 'the postmaster', 'waiting' ], [ 'a worker', 'draining' ], [ 'Redis', 'draining' ], [ 'a cancel', 'resuming' ])
{
    my ($what, $step) = @$end;
    follows();
    end_at($what, $step, $cutback);
    if ($what eq 'Redis' || $step eq 'the end')
    {
        # Redis is reached again, and the cutback goes on; what was committed is completed.
        is(last_cutover('state') . state_now(), 'completedredis', "$what at $step does not undo it");
        ok(can_write(), 'and gives rights back');
        follows();
        is(sql_error($node, cutover()), '', 'over again');
        next;
    }
    is(state_now(), 'postgres', "$what at $step of a cutback: undone");
    is(sql_error($node, q{UPDATE strings SET value = value}), '', 'the tables are not fenced');
    ok(!can_write(), 'the writers of Redis are');
}
# With a reverse feed at work, nothing that was changed here is lost.
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}'); INSERT INTO strings VALUES ('way1', 'x'), ('way2', 'x')});
$cutback = q{CALL redis_migrate.cutback('live', pattern => 's:{id}')};
for my $end ([ 'the session', 'draining' ], [ 'the session', 'comparing' ], [ 'the session', 'the end' ], [ 'the postmaster', 'comparing' ])
{
    my ($what, $step) = @$end;
    follows();
    rows(qq{UPDATE strings SET value = '$what ' || id});
    # What was not noted undoes it, when it is compared.
    rows(q{BEGIN; UPDATE strings SET value = 'unseen' WHERE id = 'way2'; DELETE FROM redis_migrate.outbox WHERE name = '{way2}'; COMMIT}) if $step eq 'the end';
    end_at($what, $step, $cutback);
    is(state_now() . sql_error($node, q{UPDATE strings SET value = value || '!' WHERE id = 'way1'}), 'postgres', "$what at $step of a cutback with a reverse feed: undone");
}
follows();
is(sql_error($node, $cutback), '', 'a cutback');
is($redis->cli('MGET', 's:way1', 's:way2'), "the postmaster way1!\nthe postmaster way2", 'Redis has what the tables have');
ok(can_write(), 'gives rights back');
is(sql_error($node, cutover()), '', 'and may be followed by a cutover');

# A copy of the database does not touch Redis.
rows(q{UPDATE redis_migrate.cutover SET state = 'running', step = 'fencing' WHERE cutover_id = (SELECT max(cutover_id) FROM redis_migrate.cutover); SELECT redis_migrate.stop('live')});
$node->append_conf('postgresql.conf', "pg_redis_migrate.databases = ''");
$node->restart;
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
my ($status, $out, $copied) = $node->psql('copy', q{CALL redis_migrate.undo_cutover('live')});
like($copied, qr/ERROR:  another server or database has begun cutover \d+ of migration "live"/, 'a copy does not undo what the original has begun');
ok(!can_write(), 'and leaves Redis alone');

done_testing();
