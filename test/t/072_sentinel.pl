# A master that Sentinels name: found, verified, and found again after a fail-over in the middle of a run.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

use constant KEYS => 6000;

my $node = new_node('sentinel', conf => "pg_redis_migrate.batch_rows = 200\nlog_statement = none");
my $master = start_redis();
$master->cli('EVAL', 'for i = 1, tonumber(ARGV[1]) do redis.call("SET", "k:" .. i, "value " .. i) end', 0, KEYS);
my @replicas = map { start_replica($master) } 1 .. 2;
my $secret = 'sentinel secret';
$secret =~ s/ /-/;
my @sentinels = start_sentinels($master, 'shop', password => $secret);
my $dead = PostgreSQL::Test::Cluster::get_free_port();
my $list = join ', ', map { "127.0.0.1:$_" } $dead, @sentinels;

$node->safe_psql('postgres', qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinel_master 'shop', sentinels '$list');
    CREATE USER MAPPING FOR CURRENT_USER SERVER shop;
    CREATE TABLE item (id bigint PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}', exclusive => true);});

sub missing
{
    return $node->safe_psql('postgres',
        'SELECT count(*) FROM generate_series(1, ' . KEYS . q{) AS i LEFT JOIN item ON id = i WHERE v IS DISTINCT FROM 'value ' || i});
}

# Credentials of the Sentinels are their own.
my $err = sql_error($node, q{CALL redis_migrate.run('shop')});
like($err, qr/ERROR:  08006: no Sentinel says where master "shop" is\nDETAIL:  .*127\.0\.0\.1:$dead: .*refused\. .*NOAUTH/, 'Sentinels that ask for a password: what each said');
$node->safe_psql('postgres', qq{ALTER USER MAPPING FOR CURRENT_USER SERVER shop OPTIONS (ADD sentinel_password '$secret')});
my $master_port = $master->port;
is($node->safe_psql('postgres', q{SELECT detail FROM redis_migrate.preflight('shop') WHERE check_name = 'reachable'}),
    "connected to 127.0.0.1:$master_port", 'the master is found, past a Sentinel that is down');
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop')});
is(missing(), 0, 'and read');

# A name that no Sentinel knows.
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (SET sentinel_master 'nosuch')});
like(sql_error($node, q{CALL redis_migrate.run('shop')}), qr/no Sentinel says where master "nosuch" is\nDETAIL:  .*it knows no such master/, 'a master that no Sentinel knows');
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (SET sentinel_master 'shop')});

# A replica on request.
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (ADD read_from 'replica')});
my $ports = join '|', map { $_->port } @replicas;
like($node->safe_psql('postgres', q{SELECT string_agg(detail, '; ') FROM redis_migrate.preflight('shop') WHERE check_name IN ('reachable', 'role')}),
    qr/connected to 127\.0\.0\.1:($ports); replica/, 'read_from replica finds one');
$node->safe_psql('postgres', q{TRUNCATE item; CALL redis_migrate.run('shop')});
is(missing(), 0, 'and reads it');
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (DROP read_from)});

# The master dies in the middle of a run.
$node->safe_psql('postgres', q{TRUNCATE item; ALTER SERVER shop OPTIONS (ADD max_rate '1500')});
my $call = start_sql($node, q{CALL redis_migrate.run('shop');});
wait_until('the first batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM item') > 0 });
$master->kill9;
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM item'), '<', KEYS, 'the master dies in the middle');
(undef, $err) = $call->finish;
# On a slow machine the Sentinels may fail over more than once.
like(last_run($node, 'shop', 'state, restarts, read, balanced'), qr/^completed\|[1-9]\|6000\|t$/,
    'the run goes on with the new master, from the beginning of its pass') or diag($err);
is(missing(), 0, 'and no key is missing');
my $reached = $node->safe_psql('postgres', q{SELECT detail FROM redis_migrate.preflight('shop') WHERE check_name = 'reachable'});
my ($promoted) = grep { $reached eq 'connected to 127.0.0.1:' . $_->port } @replicas;
ok($promoted, 'it is another server') or diag($reached);

# A fail-over that leaves the old master alive: it stays connected as a replica for a while.
$node->safe_psql('postgres', q{TRUNCATE item});
$master->start;
# Sentinel drops the clients of a server that it makes a replica.
wait_until('the old master is a replica', sub { (eval { $master->cli('INFO', 'replication') } // '') =~ /role:slave.*master_link_status:up/s });
$call = start_sql($node, q{CALL redis_migrate.run('shop');});
wait_until('the first batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM item') > 0 });
wait_until('the fail-over', sub {
    my $out = '';
    IPC::Run::run([ 'redis-cli', '-p', $sentinels[0], '--no-auth-warning', '-a', $secret, 'SENTINEL', 'FAILOVER', 'shop' ], '<', \undef, '>', \$out, '2>&1');
    $out =~ /OK|INPROG/ });
(undef, $err) = $call->finish;
like(last_run($node, 'shop', 'state, restarts, read, balanced'), qr/^completed\|\d\|6000\|t$/, 'a fail-over on demand') or diag($err);
is(missing(), 0, 'loses no key');

unlike(slurp_file($node->logfile) . $err, qr/\Q$secret\E/, 'no secret in messages and the log');

done_testing();
