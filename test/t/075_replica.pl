# Reading from a replica on request: its role is verified, its link, and what it has not been told to expire yet.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

my $node = new_node('replica', conf => "pg_redis_migrate.reconnect_timeout = '500ms'");
my $master = start_redis(args => [ '--enable-debug-command', 'yes' ]);
my $replica = start_replica($master);
my ($port, $master_port) = ($replica->port, $master->port);
$master->cli('SET', "k:$_", "value $_") for 1 .. 20;
$master->cli('WAIT', 1, 5000);
$node->safe_psql('postgres', qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port', read_from 'replica');
    SELECT redis_migrate.create_migration('shop', 'shop');});

sub run { return sql_error($node, q{CALL redis_migrate.run('shop')}) . last_run($node, 'shop', 'state, read, archived, vanished'); }

is(run(), 'completed|20|20|0', 'a replica is read');
is($node->safe_psql('postgres', q{SELECT status, detail FROM redis_migrate.preflight('shop') WHERE check_name = 'role'}),
    'warn|replica: it may lag behind its master', 'preflight says that it may lag');

# The role is verified, either way.
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (SET read_from 'master')});
like(run(), qr/57P03: Redis at 127\.0\.0\.1:$port is a replica, not a master/, 'a replica is no master');
$node->safe_psql('postgres', qq{ALTER SERVER shop OPTIONS (SET read_from 'replica', SET port '$master_port')});
like(run(), qr/57P03: Redis at 127\.0\.0\.1:$master_port is a master, not a replica\nHINT:  Set host and port to those of a replica/, 'nor the other way round');
$node->safe_psql('postgres', qq{ALTER SERVER shop OPTIONS (SET port '$port')});

# Keys whose time is over, while the master, stopped, does not say so: a replica holds on to them and shows them to nobody.
# Their link stays up, because TCP does not notice.
$replica->cli('CONFIG', 'SET', 'repl-timeout', '3600');
$master->cli('DEBUG', 'SET-ACTIVE-EXPIRE', '0');  # nor does it before it is stopped
$master->cli('SET', "e:$_", 'soon over', 'PX', 1500) for 1 .. 10;
$master->cli('WAIT', 1, 5000);
kill 'STOP', $master->pid;
wait_until('the keys to be over', sub { $replica->cli('EXISTS', 'e:1', 'e:10') == 0 });
is($replica->cli('DBSIZE'), 30, 'the replica still holds what is over');
my $result = run();
kill 'CONT', $master->pid;
like($result, qr/^completed\|(\d+)\|20\|/, 'but no key whose time is over is stored');
my ($read, $vanished) = $result =~ /completed\|(\d+)\|20\|(\d+)$/;
is($read - $vanished, 20, 'and if it was named, it is counted as vanished');

# Without its master it shows the past.
$replica->cli('CONFIG', 'SET', 'repl-timeout', '60');
$master->kill9;
wait_until('the link to be down', sub { $replica->cli('INFO', 'replication') =~ /master_link_status:down/ });
like(run(), qr/57P03: Redis at 127\.0\.0\.1:$port is a replica without a link to its master\nHINT:  .*stale_replica 'on'/, 'a replica without its master is refused');
is($node->safe_psql('postgres', q{SELECT check_name, status FROM redis_migrate.preflight('shop')}), 'reachable|fail', 'by preflight, too');
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (ADD stale_replica 'on')});
like(run(), qr/^completed\|\d+\|20\|/, 'unless it is allowed');

done_testing();
