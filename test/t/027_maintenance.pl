# Definitions of work and the workers that do it, together: expiry policies and refreshes are served by workers that
# nobody starts, as their owners, and an idle database has none of them.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('maintenance', preload => 1, conf => "pg_redis_migrate.databases = 'postgres, second'\nmax_prepared_transactions = 5\nmax_worker_processes = 12");
sub sql { return $node->safe_psql('postgres', join ';', @_); }
sub as { my ($user, @sql) = @_; return $node->safe_psql('postgres', join(';', @sql), extra_params => [ '-U', $user ]); }
sub connected { return sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'redis_migrate%' AND datname IS NOT NULL}); }

sql(q{CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT CREATE ON SCHEMA public TO alice, bob});
wait_until('a launcher', sub { pid_of($node, 'launcher') });
sql('CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION pg_redis_migrate; CREATE TABLE session_alice (id int PRIMARY KEY, expires timestamptz); CREATE INDEX ON session_alice (expires);
    ALTER TABLE session_alice OWNER TO alice');
for my $who ('alice', 'bob')
{
    as($who, "CREATE TABLE session_$who (id int PRIMARY KEY, expires timestamptz)", "CREATE INDEX ON session_$who (expires)",
        "INSERT INTO session_$who SELECT n, now() + CASE WHEN n <= 100 THEN interval '-1 hour' ELSE interval '1 hour' END FROM generate_series(1, 200) AS n",
        "SELECT redis_migrate.add_expiry('session_$who', 'expires', every => '2 seconds')");
}
wait_until('both are swept', sub { sql('SELECT (SELECT count(*) FROM session_alice), (SELECT count(*) FROM session_bob)') eq '100|100' });
$node->reload;  # so that the launcher sees the other database
$node->safe_psql('second', q{SET ROLE alice; INSERT INTO session_alice VALUES (1, '2000-01-01'), (2, 'infinity');
    SELECT redis_migrate.add_expiry('session_alice', 'expires', every => '2 seconds')});
wait_until('the other database is swept', sub { $node->safe_psql('second', 'SELECT count(*) FROM session_alice') eq '1' });
is(sql(q{SELECT string_agg(database || ' ' || owner, ', ' ORDER BY database::text, owner::text) FROM redis_migrate.workers
         WHERE kind = 'sweeper' AND owner::text IN ('alice', 'bob')}),
    'postgres alice, postgres bob, second alice', 'one sweeper for each database and owner, nobody started them');
as('alice', q{UPDATE session_alice SET expires = now()});
wait_until('and again', sub { sql('SELECT count(*) FROM session_alice') eq '0' });
is(sql(q{SELECT count(*) > 0 AND bool_and(outcome = 'completed') FROM redis_migrate.job_history WHERE redis_migrate.owner_name(owner) = 'alice'}), 't', 'the history has it');
as('alice', q{SELECT redis_migrate.drop_expiry('session_alice')});
as('bob', q{SELECT redis_migrate.drop_expiry('session_bob')});
$node->safe_psql('second', q{SELECT redis_migrate.drop_expiry('session_alice')});
wait_until('all leave', sub { connected() == 0 });
ok(1, 'without policies the database is left alone');

# Two databases that have work some milliseconds apart: while the launcher waits for the fork of one scheduler it must not
# forget the other.
my $swept = q{SELECT count(*) FROM redis_migrate.expiry_stats WHERE runs > 0 AND target = 'public.session_alice'};
for my $round (1 .. 3)
{
    my $at = time + 1.5;
    my @calls = map {
        my ($database, $delay) = @$_;
        start_sql($node, "\\c $database\nBEGIN; SELECT redis_migrate.add_expiry('session_alice', 'expires', every => '2 seconds');
            SELECT pg_sleep(($at + $delay - extract(epoch FROM clock_timestamp()))::float8); COMMIT;", user => 'alice')
    } ([ 'postgres', 0 ], [ 'second', $round / 1000 ]);
    $_->finish for @calls;
    my $seconds = elapsed(sub {
        wait_until('both are swept', sub { $node->safe_psql('postgres', $swept) + $node->safe_psql('second', $swept) == 2 });
    });
    cmp_ok($seconds, '<', 20, "work that comes $round ms after that of another database is not forgotten");
    $node->safe_psql($_, q{SELECT redis_migrate.drop_expiry('public.session_alice')}) for 'postgres', 'second';
    wait_until('all leave', sub { connected() == 0 });
}

# Work defined in a prepared transaction counts from COMMIT PREPARED on.
as('bob', q{UPDATE session_bob SET expires = now()}, 'BEGIN', q{SELECT redis_migrate.add_expiry('session_bob', 'expires')}, q{PREPARE TRANSACTION 'work'});
sleep 1;
is(connected(), 0, 'until then nobody comes');
as('bob', q{COMMIT PREPARED 'work'});
wait_until('it is swept', sub { sql('SELECT count(*) FROM session_bob') eq '0' });
ok(1, 'COMMIT PREPARED wakes the schedule');
as('bob', q{SELECT redis_migrate.drop_expiry('session_bob')});
wait_until('all leave', sub { connected() == 0 });

# A view that is marked stale by a trigger is refreshed after the commit.
as('alice', 'CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM session_alice', 'CREATE UNIQUE INDEX ON counted (n)',
    q{SELECT redis_migrate.add_refresh('counted', every => '1 hour', debounce => '1 second')},
    q{CREATE TRIGGER stale AFTER INSERT ON session_alice FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.mark_stale_trigger('counted')});
wait_until('its first refresh', sub { sql(q{SELECT count(*) FROM redis_migrate.job_history WHERE kind = 'refresh'}) == 1 });
wait_until('all leave', sub { connected() == 0 });
as('alice', q{INSERT INTO session_alice VALUES (1, now() + interval '1 hour')});
wait_until('it is refreshed', sub { sql('SELECT n FROM counted') eq '1' });
ok(1, 'a stale view is refreshed by itself');
my $runs = sql(q{SELECT runs FROM redis_migrate.refreshes});
my $seconds = elapsed(sub { as('alice', "INSERT INTO session_alice VALUES ($_, now())") for 2 .. 31 });
wait_until('it has them all', sub { sql('SELECT n FROM counted') eq '31' });
my $most = int($seconds) + 2;
cmp_ok(sql(q{SELECT runs FROM redis_migrate.refreshes}) - $runs, '<=', $most, "thirty marks are debounced to $most refreshes at most");
as('alice', q{SELECT redis_migrate.drop_refresh('counted')});

# Background runs are in the history too.
my $redis = start_redis();
fill($redis, 10);
shop($node, 'shop', $redis->port);
sql(q{SELECT redis_migrate.start('shop')});
sql(q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(sql(q{SELECT name, outcome, rows, batches > 0, duration > '0' FROM redis_migrate.job_history WHERE kind = 'migration'}), 'shop|completed|10|t|t', 'a background run is in the history');

# Work that is due while the extension is being dropped finds nothing afterwards, which is not an error.
as('bob', q{SELECT redis_migrate.add_expiry('session_bob', 'expires', every => '1 second')});
wait_until('a sweeper', sub { pid_of($node, 'sweeper') });
my $log_size = -s $node->logfile;
start_sql($node, 'BEGIN; DROP EXTENSION pg_redis_migrate CASCADE; SELECT pg_sleep(3); COMMIT;')->finish;
wait_until('the workers leave', sub { connected() == 0 });
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile, $log_size), qr/WARNING/, 'DROP EXTENSION with work that is due leaves no warning');

done_testing();
