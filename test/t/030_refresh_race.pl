# The refresh race: a session that is being extended while a sweep runs survives. A thousand rounds in each order, with
# real connections, and the same rounds for a statement that is often written by hand and loses sessions.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use Test::More;

my $seed = $ENV{PRM_SEED} // time % 100_000;
note "PRM_SEED=$seed";

my $node = new_node('race', conf => 'autovacuum = off');
$node->safe_psql('postgres', q{
    CREATE TABLE by_index (id int PRIMARY KEY, expires_at timestamptz NOT NULL);
    CREATE INDEX ON by_index (expires_at);
    CREATE TABLE by_pages (id int PRIMARY KEY, expires_at timestamptz NOT NULL);
    CREATE TABLE careless (LIKE by_index INCLUDING ALL);
    SELECT redis_migrate.add_expiry('by_index', 'expires_at');
    SELECT redis_migrate.add_expiry('by_pages', 'expires_at');});

sub race
{
    my ($table, $rounds, $sweep) = @_;
    my ($out, $err) = ('', '');
    IPC::Run::run([ '/usr/bin/python3', 'lib/python/refresh_race.py', $node->connstr('postgres'), $table, $rounds, $seed, $sweep ],
        '<', \undef, '>', \$out, '2>', \$err) or die "refresh_race.py: $err\n";
    note "$table: rounds touched overlapped lost = $out";
    return split ' ', $out;
}

for my $table ('by_index', 'by_pages')
{
    my ($rounds, $touched, $overlapped, $lost) = race($table, 1000, "CALL redis_migrate.sweep('$table')");
    cmp_ok($overlapped, '>', 200, "$table: the session was being extended while the sweep worked, in $overlapped of $rounds rounds");
    is($lost, 0, "$table: none of $touched sessions that were extended is lost");
}
my %order = (by_index => 'in the order of expiry', by_pages => 'by ranges of pages');
for my $table (sort keys %order)
{
    my $err = '';
    $node->psql('postgres', "CALL redis_migrate.sweep('$table')", stderr => \$err);
    $node->psql('postgres', "INSERT INTO $table VALUES (0, '2000-01-01')");
    $node->psql('postgres', "CALL redis_migrate.sweep('$table')", stderr => \$err);
    like($err, qr/NOTICE:  sweep of public\.$table: 1 rows in \d+ batches, $order{$table}/, "$table is swept $order{$table}");
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.expiry_stats WHERE target LIKE 'public.by%' AND rows_deleted > 30000 AND failed_runs = 0}),
    '2', 'both tables were swept all the time');

# The rounds can tell: without a lock and without the predicate outside, live sessions are deleted.
my (undef, undef, undef, $lost) = race('careless', 300,
    'DELETE FROM careless WHERE id IN (SELECT id FROM careless WHERE expires_at < clock_timestamp() LIMIT 1000)');
cmp_ok($lost, '>', 0, "a statement written by hand loses $lost sessions in 300 rounds");

done_testing();
