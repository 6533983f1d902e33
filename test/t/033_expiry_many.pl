# A thousand policies: what is due is found without looking at the others, all of them are swept, and nothing due costs
# little.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

use constant POLICIES => 1000;

my $node = new_node('many', conf => "autovacuum = off\nmax_locks_per_transaction = 256\nfsync = off");

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

$node->safe_psql('postgres', 'CREATE SCHEMA many');
for my $first (map { $_ * 100 + 1 } 0 .. POLICIES / 100 - 1)
{
    my $last = $first + 99;
    sql(qq{DO \$\$ BEGIN
        FOR i IN $first .. $last LOOP
            EXECUTE format('CREATE TABLE many.t%s (id int, expires_at timestamptz)', i);
            EXECUTE format('CREATE INDEX ON many.t%s (expires_at)', i);
            EXECUTE format('INSERT INTO many.t%s SELECT g, clock_timestamp() + (g - 5) * interval ''1 hour'' FROM generate_series(1, 10) AS g', i);
            PERFORM redis_migrate.add_expiry(format('many.t%s', i)::regclass, 'expires_at', every => '1 hour');
        END LOOP;
    END \$\$});
}
my $seconds = elapsed(sub { sql('CALL redis_migrate.maintain()') });
is(sql(q{SELECT count(*), sum(rows_deleted), sum(failed_runs) FROM redis_migrate.expiry_stats WHERE target LIKE 'many.%'}),
    POLICIES . '|' . POLICIES * 5 . '|0', 'a thousand tables are swept');
note sprintf '%.2f ms per sweep of five rows', $seconds * 1000 / POLICIES;

# One is due: it is found by index, the 999 others are not touched.
sql('ANALYZE redis_migrate.job');
sql(q{UPDATE redis_migrate.job SET next_run = clock_timestamp() WHERE name = 'many.t500'}, q{INSERT INTO many.t500 VALUES (0, '2000-01-01')});
my $plan = sql(q{EXPLAIN (COSTS off) SELECT job_id FROM redis_migrate.job WHERE enabled AND redis_migrate.stamped_role(owner) = 'postgres'::regrole AND next_run <= now()});
like($plan, qr/Index.* job_due|Bitmap Index Scan on job_due/, 'the schedule has an index of what is due');
my $runs = sql(q{SELECT sum(runs) FROM redis_migrate.job});
sql('CALL redis_migrate.maintain()');
is(sql(q{SELECT sum(runs) FROM redis_migrate.job}), $runs + 1, 'one of a thousand was due, one was run');
is(sql('SELECT count(*) FROM many.t500 WHERE expires_at < now()'), '0', 'it is swept');

# Nothing is due: no table is touched.
my $scans = q{SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_user_tables WHERE schemaname = 'many'};
sessions_over($node);
my $scanned = sql($scans);
my $out = $node->safe_psql('postgres', "\\timing on\n" . "CALL redis_migrate.maintain();\n" x 20);
my @idle = sort { $a <=> $b } $out =~ /^Time: ([\d.]+) ms/mg;
note "maintain with nothing due, of a thousand policies: median $idle[10] ms";
is(sql($scans), $scanned, 'with nothing due no table is read');
cmp_ok($scanned, '>', POLICIES, 'as those are that were swept');

# Another owner's policies are not run by this one.
sql('CREATE ROLE other', 'GRANT USAGE ON SCHEMA many TO other', 'CREATE TABLE many.others (id int, expires_at timestamptz)',
    'ALTER TABLE many.others OWNER TO other', q{INSERT INTO many.others VALUES (1, '2000-01-01')}, 'SET ROLE other',
    'SET client_min_messages = error', q{SELECT redis_migrate.add_expiry('many.others', 'expires_at')});
sql('CALL redis_migrate.maintain()');
is(sql('SELECT count(*) FROM many.others'), '1', 'the policy of another owner waits for its owner');
is(sql(q{SELECT owner::regrole::text, next_run <= clock_timestamp() FROM redis_migrate.maintenance_owners() ORDER BY 1}), "other|t\npostgres|f",
    'the scheduler sees whose turn it is');
sql('SET ROLE other', 'CALL redis_migrate.maintain()');
is(sql('SELECT count(*) FROM many.others'), '0', 'as its owner it is run');

done_testing();
