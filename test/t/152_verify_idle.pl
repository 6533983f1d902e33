# A verification beside live sync of a cluster, whose keys it reads again by a scan, waits for what live sync has yet to apply.
# Meanwhile the masters close its links, which are idle for longer than they allow: it connects again, and goes on.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('idle', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nmax_worker_processes = 20\npg_redis_migrate.batch_rows = 200");
my $cluster = start_cluster(masters => 3, replicas => 0);
my $seeds = join ', ', map { '127.0.0.1:' . $_->port } $cluster->nodes;
$cluster->set(map { ("k:$_" => "value $_") } 1 .. 1000);
sub sql { return $node->safe_psql('postgres', join(';', @_)); }
sql(qq{CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on')}, 'CREATE USER MAPPING FOR PUBLIC SERVER shop',
    'CREATE TABLE item (id bigint PRIMARY KEY, v text)', q{SELECT redis_migrate.create_migration('shop', 'shop', source => 'replication')},
    q{SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}')},
    q{SELECT redis_migrate.start('shop', live => true)});
is(wait_for($node, 'shop'), '', 'it follows');

my $applier = hold_worker($node, 'migration');
$cluster->set(map { ("k:$_" => "changed $_") } 1 .. 1000);
$_->{node}->cli('CONFIG', 'SET', 'timeout', '1') for $cluster->masters;
$_->{node}->cli('CONFIG', 'RESETSTAT') for $cluster->masters;
my $verify = start_sql($node, q{CALL redis_migrate.verify('shop', source => 'scan', workers => 1)}, name => 'verify');
# Who scans, waits, and is then closed.
sub scans { return scalar grep { /cmd=scan/ } map { split /\n/, $_->{node}->cli('CLIENT', 'LIST') } $cluster->masters; }
wait_until('it has read keys of all', sub { 3 == grep { $_->{node}->cli('INFO', 'commandstats') =~ /cmdstat_scan:/ } $cluster->masters });
wait_until('its links are closed', sub { $verify->running && scans() == 0 && sql(q{SELECT wait_event_type FROM pg_stat_activity WHERE application_name = 'verify'}) eq 'Extension' });
usleep(500_000);
is($verify->running . ' ' . scans(), '1 0', 'the verification waits, without links');
$applier->release;
my (undef, $err) = $verify->finish;
unlike($err, qr/ERROR/, 'it goes on');
like($err, qr/verified, 1000 keys read, 1000 rows equal/, 'and finds every row');

# Keys of a cluster are not watched, which is told.
sub last_unwatched { return sql(q{SELECT keys_unwatched FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT 1}); }
sql(q{UPDATE item SET v = 'other' WHERE id IN (7, 8)}, q{SET client_min_messages = error}, q{CALL redis_migrate.verify('shop', source => 'scan', workers => 1)});
is(last_unwatched(), '2', 'keys that differ were not watched');
sql(q{SELECT redis_migrate.stop('shop')}, q{SET client_min_messages = error}, q{CALL redis_migrate.verify('shop', source => 'scan', workers => 1)});
is(last_unwatched(), '', 'without live sync no key is, and none is counted');

done_testing();
