# The workers that a scheduler starts when something is due: a sweeper for each owner of policies, and the writer of
# login attempts. The procedures that they call are replaced by ones that note who called them when; the rest is real.

use strict;
use warnings;

use IO::Socket::INET;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

my $clock = fake_clock('+0');
my $node;
{
    local %ENV = (%ENV, $clock->environment);
    $node = new_node('schedule', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
}
my $pg_major = $node->pg_version;
$node->safe_psql(
    'postgres', q{
    CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE mute;
    CREATE TABLE due (owner oid PRIMARY KEY, next_run timestamptz, every interval NOT NULL DEFAULT '1 hour', broken boolean NOT NULL DEFAULT false);
    CREATE TABLE called (n bigint GENERATED ALWAYS AS IDENTITY, who name NOT NULL DEFAULT session_user, kind text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE attempt (waiting boolean NOT NULL);
    INSERT INTO attempt VALUES (false);
    GRANT ALL ON due, called, attempt TO PUBLIC;
    CREATE OR REPLACE FUNCTION redis_migrate.maintenance_owners() RETURNS TABLE (owner oid, next_run timestamptz) LANGUAGE sql AS
        'SELECT owner, next_run FROM public.due';
    CREATE OR REPLACE FUNCTION redis_migrate.next_maintenance() RETURNS timestamptz LANGUAGE sql AS
        'SELECT next_run FROM public.due WHERE owner = current_user::regrole';
    CREATE OR REPLACE PROCEDURE redis_migrate.maintain() LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT next_run > clock_timestamp() FROM public.due WHERE owner = current_user::regrole) THEN RETURN; END IF;
            INSERT INTO public.called (kind) VALUES ('maintain');
            COMMIT;
            IF (SELECT broken FROM public.due WHERE owner = current_user::regrole) THEN RAISE EXCEPTION 'policy % is broken', session_user; END IF;
            UPDATE public.due SET next_run = clock_timestamp() + every WHERE owner = current_user::regrole;
        END $$;
    CREATE OR REPLACE FUNCTION redis_migrate.attempts_due() RETURNS timestamptz LANGUAGE sql AS 'SELECT now() FROM public.attempt WHERE waiting';
    CREATE OR REPLACE PROCEDURE redis_migrate.write_login_attempts() LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT (SELECT waiting FROM public.attempt) THEN RETURN; END IF;
            INSERT INTO public.called (kind) VALUES ('attempts');
            UPDATE public.attempt SET waiting = false;
            COMMIT;
        END $$;
    CREATE TRIGGER wake AFTER INSERT OR UPDATE OR DELETE ON due FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers();
    CREATE TRIGGER wake AFTER UPDATE ON attempt FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.wake_workers();});

sub sql { return $node->safe_psql('postgres', join ';', @_); }
sub calls { my ($who, $kind) = @_; return sql("SELECT count(*) FROM called WHERE who = '$who' AND kind = '" . ($kind // 'maintain') . "'"); }
sub due { my ($who, $when, $every) = @_; return sql("INSERT INTO due VALUES ('$who'::regrole, clock_timestamp() + '$when', '" . ($every // '1 hour') . "')"); }
sub connected { return sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'redis_migrate%' AND datname IS NOT NULL}); }

# Due now: a worker as the owner; afterwards the database is left alone.
wait_until('a launcher', sub { pid_of($node, 'launcher') });
is(connected(), 0, 'nothing is scheduled, nobody is connected');
due('alice', '0 s');
wait_until('alice is served', sub { calls('alice') == 1 });
wait_until('all leave', sub { connected() == 0 });
is(calls('alice'), 1, 'a sweeper runs as its owner, once; the next time is far, so nobody stays');

# Due soon: scheduler and sweeper wait for it and are on time. Two owners, two workers.
due('bob', '3 s');
sql(q{UPDATE due SET next_run = clock_timestamp() + '3 s' WHERE owner = 'alice'::regrole});
wait_until('both are served', sub { calls('bob') == 1 && calls('alice') == 2 });
is(sql(q{SELECT bool_and(at - d.next_run + d.every < '4 s') FROM called AS c JOIN due AS d ON d.owner = who::regrole WHERE n > 1}), 't', 'what is due is called in time');
wait_until('all leave', sub { connected() == 0 });

# Due every second: the sweeper stays, and the scheduler does not wake for it.
sql(q{UPDATE due SET next_run = clock_timestamp(), every = '1 s' WHERE owner = 'bob'::regrole});
wait_until('bob is served', sub { calls('bob') >= 3 });
my $bob = sql(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'sweeper'});
my $looks = sql(q{SELECT wakeups FROM redis_migrate.workers WHERE kind = 'scheduler'});
my $before = calls('bob');
wait_until('bob is served again and again', sub { calls('bob') >= $before + 3 });
is(sql(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'sweeper'}), $bob, 'what is due soon again keeps its sweeper');
cmp_ok(sql(q{SELECT wakeups FROM redis_migrate.workers WHERE kind = 'scheduler'}) - $looks, '<=', 1, 'and the scheduler sleeps');

# A policy that fails is tried again, later and later, and shown; others go on.
sql(q{UPDATE due SET next_run = clock_timestamp(), broken = true WHERE owner = 'alice'::regrole});
wait_until('alice fails', sub { sql(q{SELECT last_error FROM redis_migrate.workers WHERE owner = 'alice'::regrole}) eq 'policy alice is broken' });
wait_until('the view to show it', sub { sql(q{SELECT state, sqlstate FROM redis_migrate.workers WHERE owner = 'alice'::regrole}) eq 'retrying|P0001' });
$before = calls('bob');
wait_until('bob goes on', sub { calls('bob') >= $before + 2 });
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/WARNING:  CALL redis_migrate\.maintain\(\) is tried again in 1 s: policy alice is broken/, 'so does the log');
sql(q{UPDATE due SET broken = false});
wait_until('alice is served', sub { sql(q{SELECT next_run > clock_timestamp() FROM due WHERE owner = 'alice'::regrole}) eq 't' });
ok(1, 'fixed, it is served');

# An owner who cannot log in: told, and nobody else suffers.
if ($pg_major < 17)
{
    due('mute', '0 s');
    wait_until('it is told', sub { PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /WARNING:  the sweeper of a role cannot be started: its owner, role "mute", is not permitted to log in/ });
    $before = calls('bob');
    wait_until('bob goes on', sub { calls('bob') >= $before + 2 });
    sql(q{ALTER ROLE mute LOGIN});
}
else { due('mute', '0 s'); }
wait_until('mute is served', sub { calls('mute') == 1 });
ok(1, 'an owner is served as soon as it can log in');

# A sweeper that is terminated while something is due comes back.
$node->safe_psql('postgres', "SELECT pg_terminate_backend($bob)");
$before = calls('bob');
wait_until('bob is served', sub { calls('bob') >= $before + 2 });
ok(1, 'a sweeper that was terminated is replaced');

# The clock is set back by a day while scheduler and sweepers wait: nobody stalls for a day, nobody runs in circles.
$looks = sql(q{SELECT wakeups FROM redis_migrate.workers WHERE kind = 'scheduler'});
$clock->set('-86400');
my $now = sql('SELECT clock_timestamp()');
cmp_ok(sql('SELECT extract(epoch FROM clock_timestamp())::bigint'), '<', time - 80_000, 'the clock was set back');
sql(q{UPDATE due SET next_run = clock_timestamp() WHERE owner = 'bob'::regrole});  # what maintain() does with times in the future is its own matter
$before = calls('bob');
wait_until('bob is served', sub { calls('bob') >= $before + 2 });
cmp_ok(sql(q{SELECT wakeups FROM redis_migrate.workers WHERE kind = 'scheduler'}) - $looks, '<', 10, "after the clock was set back to $now the scheduler does not run in circles");
$clock->set('+0');
sql(q{DELETE FROM due});
wait_until('all leave', sub { connected() == 0 });
ok(1, 'without policies nobody stays');

# A background run that waits for its next try does not wait longer for a clock that was set back.
my $nobody = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
my $port = $nobody->sockport;
close $nobody;
my $redis = start_redis();
fill($redis, 100);
shop($node, 'shop', $port);
sql(q{ALTER SYSTEM SET pg_redis_migrate.reconnect_timeout = 0}, q{SELECT pg_reload_conf()}, q{SELECT redis_migrate.start('shop')});
wait_until('it retries', sub { workers($node, 'state') eq 'retrying' });
$clock->set('-86400');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM redis_migrate.workers WHERE kind = 'migration'});
sql('ALTER SERVER shop OPTIONS (SET port \'' . $redis->port . '\')');
sql(q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(compare($node, 'shop', 100), '', 'a wait that the clock made a day long is cut short');
$clock->set('+0');

# The writer of login attempts: started when attempts wait, as the owner of the extension.
wait_until('all leave', sub { connected() == 0 });
sql('UPDATE attempt SET waiting = true');
my $owner = sql(q{SELECT extowner::regrole FROM pg_extension WHERE extname = 'pg_redis_migrate'});
wait_until('attempts are written', sub { calls($owner, 'attempts') == 1 });
is(sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'attempt writer'}), 1, 'it stays for the next ones');
$node->stop('fast');

done_testing();
