# Roles that workers work as: those that no worker can work as, and those that want all workers.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

my $redis = start_redis();
fill($redis, 100);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('roles', preload => 1,
    conf => "pg_redis_migrate.databases = 'postgres'\npg_redis_migrate.max_workers = 5\nmax_worker_processes = 16");
$node->safe_psql('postgres', 'CREATE ROLE busy LOGIN; CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO busy, other');

# One role does not take all workers.
shop($node, "busy$_", $proxy->port, owner => 'busy') for 1 .. 5;
shop($node, 'other', $redis->port, owner => 'other');
$proxy->tell('hold');
my $warnings = '';
for my $i (1 .. 5) { $node->psql('postgres', "SELECT redis_migrate.start('busy$i')", stderr => \my $err); $warnings .= $err; }
is(() = $warnings =~ /waits for a worker: its owner has 3 of the 5 workers/g, 2, 'of five migrations of a role three run at a time');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('other'); CALL redis_migrate.wait_for('other', '1 minute')});
is(compare($node, 'other', 100), '', 'another role is served meanwhile');
$proxy->tell('pass');
$node->safe_psql('postgres', "CALL redis_migrate.wait_for('busy$_', '1 minute')") for 1 .. 5;
is(job($node, 'busy5', 'state'), 'completed', 'and the others of the first role come after');

# Each way in which a role cannot work: told at definition, told by start, shown where a run was already wanted.
my $cannot = sub {
    my ($what, $break, $fix, $sqlstate, $message, $hint) = @_;
    $node->safe_psql('postgres', $break);
    my (undef, undef, $err) = $node->psql('postgres', q{SET ROLE other; SELECT redis_migrate.create_migration('m', 'other')},
        extra_params => [ '-v', 'VERBOSITY=verbose' ]);
    like($err, qr/WARNING: .*migration "m" cannot be run by a background worker: $message\nDETAIL: .*\nHINT:  \Q$hint\E/, "$what: told when a migration is created");
    like(sql_error($node, q{SELECT redis_migrate.start('other')}), qr/ERROR:  $sqlstate: migration "other" cannot be run in the background: $message\nDETAIL: .*\nHINT:  \Q$hint\E/, "$what: start refuses");
    # A run that is wanted already, as after a restart.
    $node->safe_psql('postgres', q{UPDATE redis_migrate.background_run SET wanted = true, state = 'starting', marked_at = NULL, sqlstate = NULL WHERE migration = 'other'});
    wait_until('it has failed', sub { job($node, 'other', 'state') eq 'failed' });
    like(job($node, 'other', 'wanted, sqlstate, message'), qr/^f\|$sqlstate\|$message$/, "$what: the run fails and says why");
    # A policy that is due.
    $node->safe_psql('postgres', q{UPDATE redis_migrate.job SET next_run = clock_timestamp(), failures = 0 WHERE name = 'public.sessions'});
    wait_until('the policy has failed', sub { $node->safe_psql('postgres', q{SELECT consecutive_failures > 0 FROM redis_migrate.expiry_stats WHERE target = 'public.sessions'}) eq 't' });
    like($node->safe_psql('postgres', q{SELECT last_sqlstate, next_run > clock_timestamp() - interval '1 second', last_message FROM redis_migrate.expiry_stats WHERE target = 'public.sessions'}),
        qr/^$sqlstate\|t\|$message$/, "$what: the policy says why and is tried again later");
    $node->safe_psql('postgres', "SET ROLE other; SELECT redis_migrate.drop_migration('m'); RESET ROLE; $fix");
    return;
};
$node->safe_psql('postgres', q{CREATE TABLE sessions (id int PRIMARY KEY, expires_at timestamptz); CREATE INDEX ON sessions (expires_at);
    ALTER TABLE sessions OWNER TO other; SET ROLE other; SELECT redis_migrate.add_expiry('sessions', 'expires_at', every => '1 hour')});
my $version = $node->safe_psql('postgres', q{SELECT current_setting('server_version_num')::int});
$cannot->('NOLOGIN', 'ALTER ROLE other NOLOGIN', 'ALTER ROLE other LOGIN', '28000', 'its owner, role "other", is not permitted to log in', 'ALTER ROLE other LOGIN;') if $version < 170000;
$cannot->('no CONNECT', 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC', 'GRANT CONNECT ON DATABASE postgres TO PUBLIC', '42501',
    'its owner, role "other", must not connect to database "postgres"', 'GRANT CONNECT ON DATABASE postgres TO other;');
$cannot->('read-only', 'ALTER ROLE other SET default_transaction_read_only = on', 'ALTER ROLE other RESET default_transaction_read_only', '25006',
    'transactions of its owner, role "other", are read-only by default', 'ALTER ROLE other SET default_transaction_read_only = off;');
$cannot->('read-only here', 'ALTER ROLE other IN DATABASE postgres SET default_transaction_read_only = true', 'ALTER ROLE other IN DATABASE postgres RESET ALL', '25006',
    'transactions of its owner, role "other", are read-only by default', 'ALTER ROLE other SET default_transaction_read_only = off;');

# The more specific setting wins.
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET default_transaction_read_only = on; ALTER ROLE other SET default_transaction_read_only = off');
is($node->safe_psql('postgres', q{SET default_transaction_read_only = off; SELECT sqlstate FROM redis_migrate.worker_role_problem('other'::regrole)}), '', 'a setting of the role overrides that of the database');
is($node->safe_psql('postgres', q{SELECT sqlstate FROM redis_migrate.worker_role_problem('busy'::regrole)}), '25006', 'and that of the database counts for the others');
is($node->safe_psql('postgres', q{SELECT sqlstate, message FROM redis_migrate.worker_role_problem(4294967)}), '28000|its owner, role 4294967, was dropped', 'a role that is gone');
$node->stop('fast');
done_testing();
