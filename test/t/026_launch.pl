# The launch protocol: a postmaster that cannot fork, a worker that waits longer than its starter lives, and two that
# start at the same time.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant KEYS => 1_000;

my $redis = start_redis();
fill($redis, KEYS);
my $proxy = PrmTools::Proxy->new($redis->port);

for my $preload (0, 1)
{
    my $how = $preload ? 'preloaded' : 'not preloaded';
    my $node = new_node("launch$preload", preload => $preload, conf => "pg_redis_migrate.databases = 'postgres'");
    shop($node, 'shop', $proxy->port);
    my ($postmaster) = split /\n/, PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/postmaster.pid');

    # No more processes for the postmaster's user: fork fails. The starter checks that itself before it commits: after
    # that others claim places for the run.
    my $call = start_sql($node, q{SELECT pg_sleep(4); BEGIN; SELECT redis_migrate.start('shop');
        SELECT 'claims: ' || count(*) FROM redis_migrate.worker_slots() WHERE kind = 'migration'; COMMIT; SELECT pg_sleep(1);}, name => 'starter');
    wait_until('the session', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'starter' AND query LIKE '%pg_sleep(4)%'}) == 1 });
    PostgreSQL::Test::Utils::system_or_bail('prlimit', '--pid', $postmaster, '--nproc=1:');
    wait_until('the fork fails', sub { PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /could not fork (?:background )?worker process/ });
    my ($hard) = qx(prlimit --pid $postmaster --nproc --noheadings --output HARD) =~ /(\S+)/;
    PostgreSQL::Test::Utils::system_or_bail('prlimit', '--pid', $postmaster, "--nproc=$hard:");
    my ($out, $err) = $call->finish;
    like($err, qr/WARNING: .*waits for a worker: the server could not start a worker process\nDETAIL:  .*\nHINT:  The server's log says why/, "$how: a fork that fails is a WARNING");
    like($out, qr/^claims: 0$/m, "$how: the claim is given back");
    $node->safe_psql('postgres', q{SELECT redis_migrate.start('shop')}) if !$preload;
    $node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
    is(compare($node, 'shop', KEYS), '', $preload ? "$how: the scheduler starts it later" : "$how: start can be called again");

    # The starter is gone before it commits.
    $node->safe_psql('postgres', 'TRUNCATE shop');
    $call = start_sql($node, q{BEGIN; SELECT redis_migrate.start('shop'); SELECT pg_sleep(100);}, name => 'starter');
    wait_until('the worker waits', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.worker_slots() WHERE state = 'waiting for a transaction'}) == 1 });
    $node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'starter'});
    $call->finish;
    wait_until('the worker leaves', sub { !workers($node, 'pid') });
    is($node->safe_psql('postgres', 'SELECT count(*) FROM shop'), 0, "$how: a start that never committed runs nothing");

    # A start in a subtransaction that is rolled back, within a transaction that commits.
    $node->safe_psql('postgres', q{BEGIN; SAVEPOINT s; SELECT redis_migrate.start('shop'); ROLLBACK TO s; COMMIT;});
    wait_until('the worker leaves', sub { !workers($node, 'pid') });
    is($node->safe_psql('postgres', 'SELECT count(*) FROM shop'), 0, "$how: nor one that was rolled back to a savepoint");

    # Two sessions: one wins, the other one is told.
    $proxy->tell('hold');
    my @calls = map { start_sql($node, q{SELECT redis_migrate.start('shop');}) } 1 .. 4;
    my $errors = join '', map { my (undef, $text) = $_->finish; $text } @calls;
    is(() = $errors =~ /ERROR:  55006: /g, 3, "$how: of four that start at once three are refused");
    is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.worker_slots() WHERE kind = 'migration'}), 1, "$how: one worker runs");
    $proxy->tell('pass');
    $node->safe_psql('postgres', q{CALL redis_migrate.wait_for('shop', '1 minute')});
    is(compare($node, 'shop', KEYS), '', "$how: and does it all");
    $node->stop('fast');
}

done_testing();
