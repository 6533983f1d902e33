# What else is done to roles, databases and tables while a migration is cut over, and after that: the targets are renamed or
# moved to another schema between the steps, the database is renamed, the owner is dropped. What happens is told, and nothing is
# lost.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
$redis->cli('ACL', 'SETUSER', 'migrator', 'on', '>secret', '~*', '&*', '+@all');
$redis->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all');
my $rules = $redis->cli('ACL', 'LIST');
my $node = new_node('objects', preload => 1, conf => "pg_redis_migrate.databases = 'postgres, renamed'");
my $database = 'postgres';
sub as_superuser { my ($sql) = @_; return $node->safe_psql($database, $sql); }
sub rows { my ($sql) = @_; local $ENV{PGUSER} = 'mig'; return as_superuser($sql); }
sub error_of { my ($sql, $user) = @_; my $err = ''; local $ENV{PGUSER} = $user // 'mig'; $node->psql($database, "\\set VERBOSITY verbose\nSET client_min_messages = error;\n$sql", stderr => \$err, on_error_stop => 0); return $err; }
sub said { my ($sql) = @_; my $err = ''; local $ENV{PGUSER} = 'mig'; $node->psql($database, $sql, stderr => \$err); return $err; }
my $superuser = as_superuser('SELECT current_user');
as_superuser(q{CREATE SCHEMA elsewhere; CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '} . $redis->port . q{');
    CREATE USER MAPPING FOR PUBLIC SERVER live OPTIONS (username 'migrator', password 'secret')});
# Also after its workers have ended: what a link says that has ended stands until the next one says more.
sub follows
{
    as_superuser(q{UPDATE redis_migrate.background_run SET crashes = 0, failures = 0, not_before = NULL});
    wait_until('live sync', sub { as_superuser(q{SELECT EXISTS (SELECT FROM pg_stat_activity JOIN redis_migrate.run USING (pid) WHERE live AND backend_start <= updated_at)
        AND EXISTS (SELECT FROM pg_stat_activity AS a JOIN redis_migrate.workers AS w USING (pid), redis_migrate.live_link AS l WHERE w.kind = 'replication link' AND l.state = 'streaming' AND l.updated_at > a.backend_start)}) eq 't' });
    return error_of(q{CALL redis_migrate.wait_for('live', '50 s')});
}
sub set_up
{
    as_superuser(q{CREATE ROLE mig LOGIN; GRANT ALL ON SCHEMA public, elsewhere TO mig; GRANT USAGE ON FOREIGN SERVER live TO mig});
    { local $ENV{PGUSER} = 'mig'; create_live($node); }
    $redis->cli_lines("SET s:a 1\nSET s:b 2\nSET s:c 3\nHSET h:a f 1\n");
    rows(q{SELECT redis_migrate.start('live', live => true)});
    is(follows(), '', 'live sync');
    rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
    return;
}
set_up();
sub state_now { return as_superuser(q{SELECT state FROM redis_migrate.families WHERE pattern = 's:{id}'}); }
sub last_one { my ($columns) = @_; return as_superuser("SELECT $columns FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1"); }
sub can_write { return (eval { $redis->cli('--user', 'app', '--pass', 'app', '--no-auth-warning', 'SET', 'probe', '1') } // '') eq 'OK' ? 'may write' : 'may not write'; }
my $cutover = q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', force => true, max_pause => '20 s')};
my $cutback = q{CALL redis_migrate.cutback('live', pattern => 's:{id}')};
my %move = (name => [ 'ALTER TABLE strings RENAME TO moved', 'ALTER TABLE moved RENAME TO strings', 'moved' ],
    schema => [ 'ALTER TABLE strings SET SCHEMA elsewhere', 'ALTER TABLE elsewhere.strings SET SCHEMA public', 'elsewhere.strings' ]);

# Calls a procedure, and does something once it stands at a step, as a trigger holds it at the commit of that.
sub do_at
{
    my ($step, $sql, $action) = @_;
    as_superuser(qq{CREATE OR REPLACE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(77); RETURN NULL; END \$\$;
        CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON redis_migrate.cutover DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.step = '$step' AND OLD.step <> NEW.step) EXECUTE FUNCTION public.hold()});
    my $holder = start_sql($node, 'BEGIN; SELECT pg_advisory_xact_lock(77); SELECT pg_sleep(120)', name => 'holder');
    wait_until('the lock', sub { as_superuser(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND granted}) eq '1' });
    my $call = start_sql($node, $sql, name => 'cutover', user => 'mig');
    wait_until("step $step", sub { !$call->running || as_superuser(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted}) eq '1' });
    $action->();
    as_superuser(q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = 'holder'});
    my (undef, $err) = $call->finish;
    as_superuser('DROP TRIGGER hold ON redis_migrate.cutover');
    return $err;
}

# The target is renamed, or moved, at each step. ----------------------------------------------------------------------------

for my $step ('pausing', 'waiting', 'comparing', 'fencing', 'committing', 'resuming')
{
    my $way = $step =~ /^(?:waiting|fencing|resuming)$/ ? 'schema' : 'name';
    my ($there, $back) = @{ $move{$way} };
    my $refusal = '';
    my $err = do_at($step, $cutover, sub { $refusal = error_of("SET lock_timeout = '3s'; $there"); });
    my $state = state_now();
    note("$step: $state, $refusal $err");
    like($refusal, qr/^(?:ERROR:  55P03: .*)?$/s, "$step: the target gets another $way, or that waits");
    if ($state eq 'redis') { like($err, qr/ERROR:  (?:42P01|55000|55P03|57014)/, "$step: the cutover says what is wrong"); }
    else { unlike($err, qr/ERROR/, "$step: the cutover goes on"); }
    is(last_one('state'), $state eq 'redis' ? 'undone' : 'completed', "$step: it is settled");
    is(can_write(), $state eq 'redis' ? 'may write' : 'may not write', "$step: writers can do what the state says");
    is(error_of($back), '', 'the target is back') if $refusal eq '';
    if ($state ne 'redis')
    {
        rows(q{UPDATE strings SET value = 'of PostgreSQL'});
        is(error_of(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true); SELECT redis_migrate.unfence('live', 's:{id}')}) . state_now(), 'redis', 'it is given back');
    }
    $redis->cli_lines("SET s:a $step\nSET s:b 2\nSET s:c 3\n");
    is(follows(), '', "$step: live sync goes on");
    is(as_superuser(q{SELECT string_agg(id || value, ' ' ORDER BY id) FROM strings}), "a$step b2 c3", "$step: and has everything");
    is($redis->cli('ACL', 'LIST'), $rules, "$step: the rules are those from before");
    rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
}

# In state both, and then after the cutover, with a reverse feed. -----------------------------------------------------------

sub drained { return wait_until('the reverse feed', sub { as_superuser(q{SELECT state = 'running' AND waiting = 0 AND NOT needs_full FROM redis_migrate.reverse_feeds}) eq 't' }); }
for my $state ('both', 'postgres')
{
    is(error_of($cutover =~ s/\)$/, to_state => '$state')/r) . state_now(), $state, "cutover to $state");
    rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}')});
    drained();
    for my $way ('name', 'schema')
    {
        my ($there, $back, $table) = @{ $move{$way} };
        is(error_of("$there; UPDATE $table SET value = '$state $way' WHERE id = 'a'; INSERT INTO $table VALUES ('$state', '$way')"), '', "$state: the target gets another $way, and is written to");
        my $err = error_of(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', max_wait => '3 s')});
        note($err);
        like($err, qr/ERROR:  (?:42P01|55000|55P03|57014)/, 'it is not given back meanwhile');
        is(state_now() . ' ' . can_write(), "$state may not write", 'which changes nothing');
        is(error_of("UPDATE $table SET value = value"), '', 'nor is it fenced');
        wait_until('the feed to tell it', sub { as_superuser(q{SELECT message IS NOT NULL FROM redis_migrate.reverse_feeds}) eq 't' });
        note(as_superuser(q{SELECT sqlstate, message FROM redis_migrate.reverse_feeds}));
        is(error_of($back), '', 'the target is back');
        wait_until('Redis to have it', sub { $redis->cli('MGET', 's:a', "s:$state") eq "$state $way\n$way" });
        drained();
        rows("DELETE FROM strings WHERE id = '$state'");
        drained();
    }
    # And given back.
    is(error_of($cutback) . state_now() . ' ' . can_write(), 'redis may write', "$state: given back");
    is($redis->cli('MGET', 's:a', 's:b', 's:c'), "$state schema\n2\n3", 'Redis has what the table has');
    for my $way ('name', 'schema')
    {
        my ($there, $back, $table) = @{ $move{$way} };
        is(error_of($there), '', "given back, the target gets another $way");
        like(error_of("UPDATE $table SET value = 'x'"), qr/ERROR:  25006: /, 'the fence stands');
        my $err = error_of(q{SELECT redis_migrate.unfence('live', 's:{id}')});
        note($err);
        like($err, qr/^(?:ERROR:  (?:42P01|55000): .*)?$/s, 'unfence goes on, or says what is missing');
        is(error_of($back), '', 'the target is back');
    }
    is(error_of(q{SELECT redis_migrate.unfence('live', 's:{id}'); UPDATE strings SET value = value}), '', 'the fence ends');
    is(follows(), '', 'live sync goes on');
    rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
}

# The database is renamed. --------------------------------------------------------------------------------------------------

sub rename_database
{
    my ($to, $error) = @_;
    my $err = '';
    $node->psql('template1', "\\set VERBOSITY verbose\nALTER DATABASE $database RENAME TO $to", stderr => \$err);
    $database = $to if $err eq '';
    return like($err, $error // qr/^$/, "the database becomes $to" . ($error ? ', which is refused' : ''));
}
# A session cuts it over.
my $err = do_at('waiting', $cutover, sub { rename_database('renamed', qr/ERROR:  55006: database "postgres" is being accessed by other users/); });
note($err);
is(last_one('state'), state_now() eq 'redis' ? 'undone' : 'completed', 'the cutover is completed or undone');
is(follows(), '', 'the workers come back');
is(error_of(q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true); SELECT redis_migrate.unfence('live', 's:{id}')}), '', 'it is given back') if state_now() ne 'redis';
is(follows(), '', 'live sync');
# It was interrupted, and nobody looks after it.
sub set_databases { my ($list) = @_; as_superuser("ALTER SYSTEM SET pg_redis_migrate.databases = '$list'"); as_superuser('SELECT pg_reload_conf()'); return; }
do_at('committing', $cutover, sub { set_databases(''); $node->stop('immediate'); $node->start; });
is(last_one('state') . ' ' . state_now(), 'interrupted cutting', 'a cutover is interrupted');
is(can_write(), 'may not write', 'with the users fenced');
rename_database('renamed');
is(error_of(q{SET client_min_messages = error; CALL redis_migrate.undo_cutover('live')}) . state_now() . ' ' . can_write(), 'redis may write', 'it is undone under the new name');
set_databases('postgres, renamed');
is(follows(), '', 'live sync goes on there');
for my $state ('both', 'postgres', 'redis')
{
    if ($state eq 'redis') { is(error_of($cutback), '', 'given back'); }
    else
    {
        is(error_of($cutover =~ s/\)$/, to_state => '$state')/r), '', "cutover to $state");
        rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}')});
        rows("UPDATE strings SET value = 'before $state' WHERE id = 'a'");
    }
    rename_database($database eq 'postgres' ? 'renamed' : 'postgres');
    is(state_now(), $state, 'the state stays');
    if ($state eq 'redis')
    {
        like(error_of(q{UPDATE strings SET value = 'x'}), qr/ERROR:  25006: /, 'so does the fence');
        rows(q{SELECT redis_migrate.unfence('live', 's:{id}')});
        $redis->cli('SET', 's:a', 'again');
        is(follows() . rows(q{SELECT value FROM strings WHERE id = 'a'}), 'again', 'and live sync goes on');
    }
    else
    {
        rows("INSERT INTO strings VALUES ('$state', '$database')");
        wait_until('Redis to have it', sub { $redis->cli('MGET', 's:a', "s:$state") eq "before $state\n$database" });
        is(follows(), '', 'live sync goes on');
        is(error_of($cutback) . state_now() . ' ' . can_write(), 'redis may write', "$state: given back under another name") if $state eq 'both';
        rows(q{SELECT redis_migrate.unfence('live', 's:{id}'); SET client_min_messages = error; CALL redis_migrate.verify('live')}) if $state eq 'both';
    }
}
rename_database('postgres') if $database ne 'postgres';
is(follows(), '', 'live sync, as before');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});

# The owner is dropped. -----------------------------------------------------------------------------------------------------

# A superuser gives the migration to somebody else, who undoes what was interrupted, though the tables are gone.
sub dropped
{
    my (@calls) = @_;
    like(error_of('DROP ROLE mig', $superuser), qr/ERROR:  2BP01: role "mig" cannot be dropped because some objects depend on it/, 'an owner is not dropped by the way');
    is(error_of('DROP OWNED BY mig', $superuser), '', 'DROP OWNED takes the tables');
    my $hint = qr/ERROR:  42501: must be owner of migration "live"\nDETAIL:  It has none: .*\nHINT:  A superuser can give it to another role: SELECT redis_migrate\.take_over\('migration', 'live', '\.\.\.'\)\./;
    like(error_of($_, $superuser), $hint, "$_: nobody owns it") for @calls;
    is(error_of('DROP ROLE mig', $superuser), '', 'the role goes then');
    like(error_of($_, $superuser), $hint, "$_: nobody does") for @calls;
    wait_until('a superuser to take the migration over, once its workers have ended', sub { error_of(qq{SELECT redis_migrate.take_over('migration', 'live', '$superuser')}, $superuser) eq '' });
    return;
}
my $undo = q{CALL redis_migrate.undo_cutover('live')};
do_at('committing', $cutover, sub { set_databases(''); $node->stop('immediate'); $node->start; });
is(last_one('state') . ' ' . state_now() . ' ' . can_write(), 'interrupted cutting may not write', 'interrupted once more');
dropped($undo);
is(error_of($undo, $superuser) . state_now() . ' ' . can_write(), 'redis may write', 'and undoes it');
is($redis->cli('ACL', 'LIST'), $rules, 'with the rules from before');
as_superuser(q{SELECT redis_migrate.drop_migration('live')});
set_databases('postgres, renamed');

# After a cutover, with live sync and a reverse feed at work.
set_up();
is(error_of($cutover) . state_now(), 'postgres', 'cutover');
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}'); UPDATE strings SET value = 'sent' WHERE id = 'a'});
wait_until('Redis to have it', sub { $redis->cli('GET', 's:a') eq 'sent' });
drained();
sub all_keys { return join ' ', map { "$_ " . $redis->cli('DUMP', $_) } sort split /\n/, $redis->cli('KEYS', '[sh]:*'); }
my $keys = all_keys();
dropped($cutback, q{SELECT redis_migrate.unfence('live')}, q{SELECT redis_migrate.start_reverse('live')}, q{CALL redis_migrate.verify('live')}, $undo);
# Long enough for the feed, which looks each second.
sleep 3;
is(all_keys(), $keys, 'Redis keeps all keys and values');
like(error_of($cutback, $superuser), qr/ERROR:  (?:42P01: target public\.strings of mapping "strings" does not exist|55000)/, 'without the table it is not given back');
is(state_now() . ' ' . can_write(), 'postgres may not write', 'which changes nothing');
$err = '';
$node->psql('postgres', q{SELECT redis_migrate.drop_migration('live')}, stderr => \$err);
like($err, qr/WARNING:  users of Redis stay without their rights to write: "app"\nDETAIL:  .*\n.*ACL SETUSER app/, 'who drops the migration is told whose rights are gone');
is(as_superuser('SELECT count(*) FROM redis_migrate.migration'), '0', 'and it goes');
is(all_keys(), $keys, 'Redis keeps all keys and values');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal|XX000/, 'nothing has crashed');

done_testing();
