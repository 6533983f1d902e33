# The reverse feed under load and kill -9 of all that takes part: in the end every key is what its rows say.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

use constant ROUNDS => $ENV{PRM_KILLS} // 8;

my $seed = srand($ENV{PRM_SEED} // time);
note("seed $seed");
# Without an append-only file Redis loses what it has acknowledged since the last SAVE.
my $redis = start_redis();
my $node = new_node('kills', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on\nsynchronous_commit = off\npg_redis_migrate.max_outbox_rows = 2000");
my $port = $redis->port;

$node->safe_psql('postgres', qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
    CREATE TABLE sessions (id text PRIMARY KEY, data text, expires_at timestamptz);
    CREATE TABLE tags (id bigint, tag text, PRIMARY KEY (id, tag));
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'sessions', 'session:{id}', 'sessions', 'SELECT id, value AS data, expires_at FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('shop', 'tags', 'tags:{id:int}', 'tags', 'SELECT id, member AS tag FROM redis_batch', '{id,tag}', databases => '{0}', types => '{set}', expand => 'elements');
    SELECT redis_migrate.start_reverse('shop');
});

# Changes in transactions of their own, some of which are rolled back.
my $load = q{
    DO $$
    BEGIN
        FOR n IN 1 .. 3000 LOOP
            INSERT INTO sessions VALUES ((random() * 300)::int, n, CASE WHEN random() < 0.5 THEN '2100-01-01'::timestamptz + n * interval '1 second' END)
            ON CONFLICT (id) DO UPDATE SET data = excluded.data, expires_at = excluded.expires_at;
            DELETE FROM sessions WHERE id = (random() * 300)::int::text AND random() < 0.3;
            UPDATE sessions SET id = (random() * 100 + 1000)::int WHERE id = (random() * 300)::int::text AND random() < 0.1
                AND NOT EXISTS (SELECT FROM sessions WHERE id::bigint >= 1000);
            INSERT INTO tags VALUES ((random() * 50)::int, (random() * 9)::int) ON CONFLICT DO NOTHING;
            DELETE FROM tags WHERE id = (random() * 50)::int AND random() < 0.5;
            IF random() < 0.1 THEN ROLLBACK; ELSE COMMIT; END IF;
            IF random() < 0.002 THEN TRUNCATE tags; COMMIT; END IF;
            PERFORM pg_sleep(0.001);
        END LOOP;
    END
    $$};

my %kill = (
    worker => sub { my $pid = try_sql($node, q{SELECT pid FROM redis_migrate.workers WHERE kind = 'reverse feed' AND pid IS NOT NULL}); kill 'KILL', $pid if $pid; return $pid; },
    backend => sub { my $pid = try_sql($node, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'load' LIMIT 1}); kill 'KILL', $pid if $pid; return $pid; },
    postgres => sub { $node->stop('immediate'); $node->start; return; },
    postmaster => sub { kill_postgres($node); return; },
    redis => sub { $redis->restart('KILL'); return; },
);
for my $round (1 .. ROUNDS)
{
    my $session = start_sql($node, $load, name => 'load');
    usleep(rand 1_500_000);
    eval { $redis->cli('SAVE') } if rand() < 0.5;
    usleep(rand 500_000);
    my @kinds = sort keys %kill;
    my $kind = $round <= @kinds ? $kinds[ $round - 1 ] : $kinds[ rand @kinds ];
    note("round $round: $kind");
    my $killed = $kill{$kind}->();
    wait_until('PostgreSQL is back', sub { answers($node, $killed) });
    usleep(rand 500_000);
    undef $session;
}
# The last load may go on without its client.
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = 'load'});
wait_until('all is sent', sub { (try_sql($node, q{SELECT waiting = 0 AND NOT needs_full AND state = 'running' FROM redis_migrate.reverse_feeds}) // '') eq 't' });

my %wanted = map { split /=/, $_, 2 } split /\n/, $node->safe_psql('postgres', q{
    SELECT 'session:' || id || '=' || data || ' ' || coalesce((extract(epoch FROM expires_at) * 1000)::bigint, -1) FROM sessions
    UNION ALL SELECT 'tags:' || id || '=' || string_agg(tag, ' ' ORDER BY tag COLLATE "C") FROM tags GROUP BY id});
my %found;
for my $key (grep { !/^redis_migrate:/ } split /\n/, $redis->cli('KEYS', '*'))
{
    $found{$key} = $key =~ /^tags/ ? join(' ', sort split /\n/, $redis->cli('SMEMBERS', $key)) : $redis->cli('GET', $key) . ' ' . $redis->cli('PEXPIRETIME', $key);
}
is_deeply(\%found, \%wanted, 'every key is what its rows say') or diag("seed $seed");
cmp_ok(scalar keys %wanted, '>', 100, 'there are many');
$redis->stop;
done_testing();
