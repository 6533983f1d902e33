# Rate limits under load: what many connections are admitted together, and policies that change meanwhile.
# PRM_LOAD_SECONDS says how long each load lasts, 3 by default; a minute takes PRM_LOAD_SECONDS=60.

use strict;
use warnings;

use lib 'lib';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $seconds = $ENV{PRM_LOAD_SECONDS} // 3;
my $node = new_node('main', preload => 1, conf => "max_connections = 60\nlog_statement = none\nfsync = off");
my $dir = PostgreSQL::Test::Utils::tempdir();

# Runs the statement in so many connections for so long; returns what pgbench prints.
sub load
{
    my ($sql, %options) = @_;
    my $clients = $options{clients} // 8;
    my $script = "$dir/load.sql";
    unlink $script;
    append_to_file($script, $sql);
    my @command = ('pgbench', '-n', '-M', 'prepared', '-c', $clients, '-j', 2, '-D', 'n=0', '-f', $script,
        $options{transactions} ? ('-t', $options{transactions}) : ('-T', $seconds), $node->connstr('postgres'));
    my ($out, $err) = ('', '');
    IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err) or $out .= "pgbench gave up\n";
    return "$out$err";
}

# Twenty first hits on a limit of 1 admit exactly one, in every kind of storage and by every algorithm.
for my $storage ('memory', 'table', 'unlogged table')
{
    for my $algorithm (qw(gcra fixed_window_first_hit sliding_window))
    {
        my $policy = "$storage $algorithm";
        $node->safe_psql('postgres', "SELECT redis_migrate.create_rate_limit('$policy', 1, '1 day', algorithm => '$algorithm', storage => '$storage');
            CREATE TABLE \"$policy\" (key int, allowed bool)");
        # Each round has a key of its own: the number of the transaction in its connection.
        my $printed = load(qq{\\set n :n + 1
            INSERT INTO "$policy" SELECT :n::int, redis_migrate.rate_limit_allowed('$policy', 'key ' || :n::int);}, clients => 20, transactions => 20);
        like($printed, qr/number of transactions actually processed: 400\/400/, "$policy: all were decided");
        is($node->safe_psql('postgres', qq{SELECT count(*), min(allowed), max(allowed) FROM
            (SELECT count(*) FILTER (WHERE allowed) AS allowed FROM "$policy" GROUP BY key HAVING count(*) = 20) AS x}), '20|1|1', "$policy: exactly one of twenty");
    }
}

# Eight connections on one key admit what one would: the whole burst and then the rate. GCRA says at any time how
# much it has admitted: burst - remaining + what has come back since the first request.
for my $storage ('memory', 'unlogged table')
{
    my ($burst, $rate) = (50, 200);
    $node->safe_psql('postgres', "SELECT redis_migrate.create_rate_limit('hot $storage', $rate, '1 second', burst => $burst, storage => '$storage');
        CREATE UNLOGGED TABLE \"hot $storage\" (before timestamptz, allowed bool, after timestamptz)");
    my $printed = load(qq{INSERT INTO "hot $storage" SELECT clock_timestamp(), redis_migrate.rate_limit_allowed('hot $storage', 'key'), clock_timestamp();});
    unlike($printed, qr/gave up|ERROR/, "hot key in $storage: no errors");
    my ($admitted, $refused, $longest, $shortest) = split /\|/, $node->safe_psql('postgres', qq{
        SELECT count(*) FILTER (WHERE allowed), count(*) FILTER (WHERE NOT allowed), 
            extract(epoch FROM max(after) - min(before)), extract(epoch FROM max(before) - min(after)) FROM "hot $storage"});
    note("$admitted admitted and $refused refused in $shortest to $longest s");
    cmp_ok($refused, '>', 0, "hot key in $storage: it was asked for more than it admits");
    cmp_ok($admitted, '<=', $burst + $rate * $longest, "hot key in $storage: never more than burst + rate * time");
    # While nobody asks, what comes back above the burst is lost.
    my $silent = $node->safe_psql('postgres', qq{SELECT coalesce(extract(epoch FROM sum(gap)), 0) FROM
        (SELECT before - lag(after) OVER (ORDER BY before) AS gap FROM "hot $storage") AS x WHERE gap > interval '50 ms'});
    cmp_ok($admitted, '>=', $burst + $rate * ($shortest - $silent - 0.2), "hot key in $storage: and no less");
}

# A limit that nothing comes back from while the test lasts: the count is exact.
$node->safe_psql('postgres', q{SELECT redis_migrate.create_rate_limit('exact', 20000, '70 years', burst => 20000)});
load(q{SELECT count(*) FILTER (WHERE redis_migrate.rate_limit_allowed('exact', 'key', 2)) FROM generate_series(1, 100);}, transactions => 20);
is($node->safe_psql('postgres', q{SELECT allowed, limited FROM redis_migrate.rate_limit_stats WHERE policy = 'exact'}), '10000|6000', 'exactly the limit of 16000 requests');

# All or nothing in any order of the arguments: no deadlock, and both are charged alike.
$node->safe_psql('postgres', q{
    SELECT redis_migrate.create_rate_limit(p, 100000, '70 years', storage => s)
    FROM (VALUES ('one', 'memory'), ('two', 'memory'), ('row one', 'unlogged table'), ('row two', 'unlogged table')) AS v (p, s)});
like(load(q{\set n random(0, 1)
    SELECT redis_migrate.rate_limits(CASE :n::int WHEN 0 THEN '{one,two,row one,row two}' ELSE '{row two,two,row one,one}' END::text[], ARRAY['key ' || :n::int]);},
    transactions => 50), qr/processed: 400\/400/, 'several policies in opposite orders: no deadlock');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT remaining), min(r) FROM (SELECT key, sum(100000 - remaining) AS r, min(remaining) AS remaining FROM
    unnest('{one,two,row one,row two}'::text[]) AS p, unnest('{key 0,key 1}'::text[]) AS key, redis_migrate.rate_limit(p, key, 0) GROUP BY p, key) AS x GROUP BY key ORDER BY min(r)}) =~ s/^1\|.*$//gmr =~ s/\n//gr, '', 'and each was charged as often as the others');

# A policy that is changed, dropped and created anew while it is used: every answer is a decision or says that there
# is no such policy.
$node->safe_psql('postgres', q{SELECT redis_migrate.create_rate_limit('moving', 10, '1 second')});
my $changes = start_sql($node, join("\n", map { (
    "SELECT redis_migrate.alter_rate_limit('moving', quota => $_, burst => $_ + 5);",
    "SELECT redis_migrate.set_rate_limit_override('moving', 'key $_', 7), redis_migrate.add_rate_limit_deny('moving', 'key $_', '1 second');",
    "SELECT redis_migrate.alter_rate_limit('moving', algorithm => 'sliding_window'), redis_migrate.alter_rate_limit('moving', storage => 'unlogged table');",
    "SELECT redis_migrate.drop_rate_limit('moving');",
    "SELECT redis_migrate.create_rate_limit('moving', 10, '1 second');") } 1 .. 200));
my $moving = load(q{
    \set n random(1, 200)
    DO $$ BEGIN PERFORM redis_migrate.rate_limit('moving', 'key 1'); EXCEPTION WHEN undefined_object THEN NULL; END $$;
    SELECT (redis_migrate.rate_limit_adhoc('moving', 'key ' || :n::int, :n::int || '/s')).allowed;});
unlike($moving, qr/gave up|ERROR/, 'change and drop under load');
my (undef, $error) = $changes->finish;
is($error, '', 'the changes went through');
is($node->safe_psql('postgres', q{SELECT allowed FROM redis_migrate.rate_limit('moving', 'another')}), 't', 'the last one counts');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'no crash');

done_testing();
