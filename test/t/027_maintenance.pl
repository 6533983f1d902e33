# What defines work and what does it, together: expiry policies and refreshes are served by workers that nobody
# starts, as their owners, and an idle database has none of them.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

my $node = new_node('maintenance', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
sub sql { return $node->safe_psql('postgres', join ';', @_); }
sub as { my ($user, @sql) = @_; return $node->safe_psql('postgres', join(';', @sql), extra_params => [ '-U', $user ]); }
sub connected { return sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'redis_migrate%' AND datname IS NOT NULL}); }

sql(q{CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT CREATE ON SCHEMA public TO alice, bob});
wait_until('a launcher', sub { pid_of($node, 'launcher') });
for my $who ('alice', 'bob')
{
    as($who, "CREATE TABLE session_$who (id int PRIMARY KEY, expires timestamptz)", "CREATE INDEX ON session_$who (expires)",
        "INSERT INTO session_$who SELECT n, now() + CASE WHEN n <= 100 THEN interval '-1 hour' ELSE interval '1 hour' END FROM generate_series(1, 200) AS n",
        "SELECT redis_migrate.add_expiry('session_$who', 'expires', every => '2 seconds')");
}
wait_until('both are swept', sub { sql('SELECT (SELECT count(*) FROM session_alice), (SELECT count(*) FROM session_bob)') eq '100|100' });
is(sql(q{SELECT string_agg(owner::text, ' ' ORDER BY owner::text) FROM redis_migrate.workers WHERE kind = 'sweeper'}), 'alice bob', 'a sweeper for each owner, nobody started them');
as('alice', q{UPDATE session_alice SET expires = now()});
wait_until('and again', sub { sql('SELECT count(*) FROM session_alice') eq '0' });
is(sql(q{SELECT count(*) > 0 AND bool_and(outcome = 'completed') FROM redis_migrate.job_history WHERE owner = 'alice'::regrole}), 't', 'the history has it');
as('alice', q{SELECT redis_migrate.drop_expiry('session_alice')});
as('bob', q{SELECT redis_migrate.drop_expiry('session_bob')});
wait_until('all leave', sub { connected() == 0 });
ok(1, 'without policies the database is left alone');

# A view that is marked stale by a trigger is refreshed after the commit.
as('alice', 'CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM session_alice', 'CREATE UNIQUE INDEX ON counted (n)',
    q{SELECT redis_migrate.add_refresh('counted', every => '1 hour', debounce => '1 second')},
    q{CREATE TRIGGER stale AFTER INSERT ON session_alice FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.mark_stale_trigger('counted')});
wait_until('its first refresh', sub { sql(q{SELECT count(*) FROM redis_migrate.job_history WHERE kind = 'refresh'}) == 1 });
wait_until('all leave', sub { connected() == 0 });
as('alice', q{INSERT INTO session_alice VALUES (1, now() + interval '1 hour')});
wait_until('it is refreshed', sub { sql('SELECT n FROM counted') eq '1' });
ok(1, 'a stale view is refreshed by itself');
as('alice', q{SELECT redis_migrate.drop_refresh('counted')});

# Background runs are in the history too.
my $redis = start_redis();
fill($redis, 10);
shop($node, 'shop', $redis->port);
sql(q{SELECT redis_migrate.start('shop')});
sql(q{CALL redis_migrate.wait_for('shop', '1 minute')});
is(sql(q{SELECT name, outcome, rows, batches > 0, duration > '0' FROM redis_migrate.job_history WHERE kind = 'migration'}), 'shop|completed|10|t|t', 'a background run is in the history');

done_testing();
