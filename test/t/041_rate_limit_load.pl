# Rate limits under load: what many connections are admitted together, and policies that change meanwhile.
# PRM_LOAD_SECONDS says how long each load lasts, 2 by default; a minute takes PRM_LOAD_SECONDS=60.

use strict;
use warnings;

use lib 'lib';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $seconds = $ENV{PRM_LOAD_SECONDS} // 2;
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

# Eight connections on one key are answered as one would be that asked at the same moments. Each answer tells its moment
# (reset_at - reset_after, to a microsecond) and the state it left, so the algorithm can be replayed over the answers
# without a clock of the test's own. These are the answers that the algorithm would not have given, for 20 per 200 ms
# (GCRA: one per 10 ms, 20 at once).
my $tick = q{interval '2 microseconds'};
my %wrong = (
    # Each state was made by one admission, 10 ms after the one before or after the moment itself, and refuses until
    # another fits below 200 ms.
    gcra => qq{
        SELECT count(*) FROM (
            SELECT count(*) FILTER (WHERE allowed) AS admissions, min(at) FILTER (WHERE allowed) AS charged_at, min(at) AS first, max(at) AS last,
                reset_at - lag(reset_at) OVER states AS step, reset_at - min(at) FILTER (WHERE allowed) AS used, lag(max(at)) OVER states AS last_before, bool_and(in_order) AS in_order,
                bool_or(allowed AND (reset_after > '200 ms' OR remaining <> 20 - ceil(extract(epoch FROM reset_after) * 100))) AS too_many,
                bool_or(NOT allowed AND (reset_after <= '190 ms' OR retry_after <> reset_after - interval '190 ms')) AS too_few
            FROM moment GROUP BY reset_at WINDOW states AS (ORDER BY reset_at)) AS state
        WHERE admissions <> 1 OR too_many OR too_few OR step <> '10 ms' AND NOT (step > '10 ms' AND used = '10 ms')
            OR in_order AND (charged_at > first + $tick OR first < last_before - $tick)},
    # A window admits its quota, counting down, before it refuses.
    fixed_window_first_hit => qq{
        SELECT count(*) FROM (
            SELECT count(*) AS asked, count(*) FILTER (WHERE allowed) AS admitted, count(DISTINCT remaining) FILTER (WHERE allowed) AS counts,
                min(remaining) FILTER (WHERE allowed) AS least, max(reset_after) AS longest, min(at) AS first, lag(reset_at) OVER windows AS end_before,
                max(at) FILTER (WHERE allowed) AS last_admitted, min(at) FILTER (WHERE NOT allowed) AS first_refused,
                bool_or(NOT allowed AND retry_after <> reset_after) AS wrong_wait
            FROM moment GROUP BY reset_at WINDOW windows AS (ORDER BY reset_at)) AS "window"
        WHERE admitted <> least(asked, 20) OR counts <> admitted OR least <> 20 - admitted OR longest <> '200 ms' OR wrong_wait
            OR first < end_before - $tick OR first_refused < last_admitted - $tick},
    # The same, and it ends on a multiple of its length.
    fixed_window => qq{
        SELECT count(*) FROM (
            SELECT reset_at, count(*) AS asked, count(*) FILTER (WHERE allowed) AS admitted, count(DISTINCT remaining) FILTER (WHERE allowed) AS counts,
                min(remaining) FILTER (WHERE allowed) AS least, min(at) AS first, max(at) FILTER (WHERE allowed) AS last_admitted,
                min(at) FILTER (WHERE NOT allowed) AS first_refused
            FROM moment GROUP BY reset_at) AS "window"
        WHERE admitted <> least(asked, 20) OR counts <> admitted OR least <> 20 - admitted OR first_refused < last_admitted - $tick
            OR reset_at <> date_bin('200 ms', reset_at, 'epoch') OR first < reset_at - interval '200 ms' - $tick},
    # The requests admitted in a window plus its share of the window before never exceed 20; with a refused one they
    # would.
    sliding_window => qq{
        WITH answer AS (SELECT *, CASE WHEN reset_after > '200 ms' THEN reset_at - interval '200 ms' ELSE reset_at END AS ends FROM moment)
        SELECT count(*) FROM (
            SELECT *, coalesce(before, 0) * extract(epoch FROM ends - at) / 0.2 AS weight, row_number() OVER (PARTITION BY ends, allowed ORDER BY at, remaining DESC) AS admission,
                count(*) FILTER (WHERE allowed) OVER (PARTITION BY ends ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND $tick FOLLOWING) AS admitted
            FROM answer LEFT JOIN (SELECT ends + interval '200 ms' AS ends, count(*) AS before FROM answer WHERE allowed GROUP BY ends) AS previous USING (ends)) AS answer
        WHERE allowed AND remaining NOT BETWEEN 20 - admission - floor(weight + 0.001) AND 20 - admission - floor(weight - 0.001)
            OR NOT allowed AND admitted + 1 + floor(weight + 0.001) <= 20
            OR ends <> date_bin('200 ms', ends, 'epoch') OR at < ends - interval '200 ms' - $tick OR at > ends + $tick});
for my $storage ('memory', 'unlogged table')
{
    # A refusal by a table goes by the state that its statement sees, others may have been charged meanwhile.
    my $in_order = $storage eq 'memory' ? 'true' : 'false';
    for my $algorithm (sort keys %wrong)
    {
        my $policy = "hot $algorithm in $storage";
        $node->safe_psql('postgres', "SELECT redis_migrate.create_rate_limit('$policy', '20/200ms', algorithm => '$algorithm', storage => '$storage');
            DROP TABLE IF EXISTS answer CASCADE;
            CREATE UNLOGGED TABLE answer OF redis_migrate.rate_limit_result;
            CREATE VIEW moment AS SELECT *, reset_at - reset_after AS at, $in_order AS in_order FROM answer");
        my $printed = load("INSERT INTO answer SELECT * FROM redis_migrate.rate_limit('$policy', 'key');");
        unlike($printed, qr/gave up|ERROR/, "$policy: no errors");
        my ($admitted, $refused) = split /\|/, $node->safe_psql('postgres', 'SELECT count(*) FILTER (WHERE allowed), count(*) FILTER (WHERE NOT allowed) FROM answer');
        note("$admitted admitted, $refused refused");
        cmp_ok($refused, '>', 0, "$policy: it was asked for more than it admits");
        is($node->safe_psql('postgres', $wrong{$algorithm}), 0, "$policy: every answer is the algorithm's");
    }
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
