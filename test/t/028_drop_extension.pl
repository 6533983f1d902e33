# DROP EXTENSION while a background run stores a batch: it waits for the batch, and the two never wait for each other. It begins
# while the batch sleeps: without the lock on the extension, each round fails.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant ROUNDS => 3;

my $redis = start_redis();
# Values of which few fit into a batch: batches end within a page of SCAN, and say so in a table of their own.
$redis->cli('EVAL', 'for i = 1, 1000 do redis.call("SET", "k:" .. i, string.rep("v", 3000)) end', 0);
my $node = new_node('drop', preload => 1, conf => "pg_redis_migrate.batch_size = '128kB'\ndeadlock_timeout = '50ms'");

# A mapping with a ledger: its batches use the extension's tables before and after they write rows, which takes a while.
sub start_slow_run
{
    my ($port) = @_;
    $node->safe_psql('postgres', qq{
        CREATE EXTENSION IF NOT EXISTS pg_redis_migrate;
        DROP TABLE IF EXISTS shop;
        CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
        CREATE USER MAPPING FOR PUBLIC SERVER shop;
        CREATE TABLE shop (id text PRIMARY KEY, v text);
        CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
        CREATE TRIGGER slow AFTER INSERT ON shop FOR EACH STATEMENT EXECUTE FUNCTION slow();
        SELECT redis_migrate.create_migration('shop', 'shop');
        SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id}', 'shop', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}');
        SELECT redis_migrate.start('shop');});
    return;
}

for my $round (1 .. ROUNDS)
{
    start_slow_run($redis->port);
    wait_until('a batch is being stored', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}) eq '1' });
    my ($status, undef, $error) = $node->psql('postgres', 'DROP EXTENSION pg_redis_migrate CASCADE');
    is($status, 0, "round $round: the extension is dropped") or diag $error;
    wait_until('the workers leave', sub {
        $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'redis_migrate%' AND datname = 'postgres'}) eq '0';
    });
    is($node->safe_psql('postgres', 'SELECT count(*) > 0 FROM shop'), 't', 'the batch was stored');
}
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/deadlock detected/, 'nobody was ended by a deadlock');
unlike($log, qr/(?:PANIC|terminated by signal)/, 'and no process crashed');

$node->stop('fast');
done_testing();
