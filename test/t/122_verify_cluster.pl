# Verifications of a cluster, whose keys are read again by another scan.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

my $node = new_node('cluster');
my $cluster = start_cluster(masters => 3, replicas => 0);
$cluster->set(map { ("k:$_" => "value $_") } 1 .. 3000);
my $seeds = join ', ', map { '127.0.0.1:' . $_->{node}->port } $cluster->masters;
$node->safe_psql('postgres', qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on');
    CREATE TABLE item (id bigint PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}', exclusive => true);});
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub verify
{
    return sql_error($node, q{CALL redis_migrate.verify('shop')})
        . rows(q{SELECT equal, missing, extra, different, unsettled FROM redis_migrate.verification_counts ORDER BY verification_id DESC LIMIT 1});
}

rows(q{CALL redis_migrate.run('shop')});
is(verify(), '3000|0|0|0|0', 'all is equal');
like(rows(q{SELECT verified, reasons FROM redis_migrate.verifications}), qr/^f\|\{"whether keys were written to meanwhile is not known/, 'but nobody knows whether keys were written to');
rows(q{DELETE FROM item WHERE id = 7; UPDATE item SET v = 'other' WHERE id IN (8, 9); INSERT INTO item VALUES (4711, 'x')});
is(verify(), '2997|1|1|2|0', 'differences are found');
is(rows(q{SELECT kind, key, row_key FROM redis_migrate.verification_differences ORDER BY row_key}), "extra||{4711}\nmissing|k:7|{7}\ndifferent|k:8|{8}\ndifferent|k:9|{9}", 'and named');
is(rows(q{SELECT keys_read_again FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT 1}), '9', 'these keys alone were read again');

done_testing();
