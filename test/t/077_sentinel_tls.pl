# Sentinels and servers that speak TLS only: both are verified with the options of the server object, and shown the client
# certificate of the user mapping.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

use constant KEYS => 6000;

my $certificates = make_certificates();
$certificates->make($_, names => 'DNS:redis.example,IP:127.0.0.1') for 'server', 'sentinel';
$certificates->make('client');
$certificates->make_authority('other');
$certificates->make('foreign', authority => 'other', names => 'IP:127.0.0.1');
my ($ca, $other) = ($certificates->crt('ca'), $certificates->crt('other'));

my $node = new_node('sentinel_tls', conf => "pg_redis_migrate.batch_rows = 200\nlog_statement = none");
my $master = start_tls_redis($certificates, 'server', clients => 'yes');
$master->cli('EVAL', 'for i = 1, tonumber(ARGV[1]) do redis.call("SET", "k:" .. i, "value " .. i) end', 0, KEYS);
my $replica = start_tls_redis($certificates, 'server', clients => 'yes', replicaof => $master);
my @sentinels = start_sentinels($master, 'shop', replicas => 1, certificates => $certificates, certificate => 'sentinel', clients => 'yes');
# Plain text is refused from here on: what is read now went through TLS.
$_->cli('CONFIG', 'SET', 'port', '0') for $master, $replica;
my $list = join ', ', map { "127.0.0.1:$_" } @sentinels;
my ($crt, $key) = ($certificates->crt('client'), $certificates->key('client'));

$node->safe_psql('postgres', qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinel_master 'shop', sentinels '$list', tls 'on', ca_file '$ca');
    CREATE USER MAPPING FOR CURRENT_USER SERVER shop OPTIONS (tls_cert '$crt', tls_key '$key');
    CREATE TABLE item (id bigint PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}', exclusive => true);});

sub missing
{
    return $node->safe_psql('postgres',
        'SELECT count(*) FROM generate_series(1, ' . KEYS . q{) AS i LEFT JOIN item ON id = i WHERE v IS DISTINCT FROM 'value ' || i});
}
sub refused { return sql_error($node, q{CALL redis_migrate.run('shop')}); }
sub reachable { return $node->safe_psql('postgres', q{SELECT status || ': ' || detail FROM redis_migrate.preflight('shop') WHERE check_name = 'reachable'}); }
sub alter { my ($options) = @_; return $node->safe_psql('postgres', "ALTER SERVER shop OPTIONS ($options)"); }

# Verified by default, the Sentinels as well as the master that they name.
like(reachable(), qr/^ok: connected to 127\.0\.0\.1:$master->{tls_port}, TLSv1\.[23]/, 'the master is found and reached over TLS');
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop')});
is(missing(), 0, 'and read');
alter(q{ADD tls_server_name 'redis.example'});
like(reachable(), qr/^ok: /, 'tls_server_name is the name that is verified of both');
alter(q{SET tls_server_name 'elsewhere.example'});
like(refused(), qr/08006: no Sentinel says where.*\nDETAIL:  could not establish TLS with Redis at 127\.0\.0\.1:$sentinels[0]: .*hostname mismatch.*CN=sentinel.*:$sentinels[2]: /,
    'Sentinels with another name are refused, each with its reason');
alter(q{DROP tls_server_name});

# Another authority.
alter("SET ca_file '$other'");
like(refused(), qr/08006: no Sentinel says where master "shop" is\nDETAIL:  could not establish TLS with Redis at 127\.0\.0\.1:$sentinels[0]: .*certificate was refused: self-signed certificate in certificate chain.*Authority ca.*:$sentinels[2]: .*refused.*\nHINT:  Set option ca_file/,
    'Sentinels of another authority are refused');
like(reachable(), qr/^fail: no Sentinel says where/, 'preflight says so');
alter("SET ca_file '$ca'");
$master->cli('CONFIG', 'SET', 'tls-cert-file', $certificates->crt('foreign'), 'tls-key-file', $certificates->key('foreign'));
like(refused(), qr/ERROR:  08006: could not establish TLS with Redis at 127\.0\.0\.1:$master->{tls_port}\nDETAIL:  .*certificate was refused: .*CN=foreign/,
    'so is a master of another authority, whatever the Sentinels say');
$master->cli('CONFIG', 'SET', 'tls-cert-file', $certificates->crt('server'), 'tls-key-file', $certificates->key('server'));
like(reachable(), qr/^ok: /, 'until it shows the right certificate');

# Without TLS, and without a certificate of the client.
alter('DROP ca_file, DROP tls');
like(refused(), qr/08006: no Sentinel says where.*\nDETAIL: .*\nHINT:  If the port expects TLS, set the server's option tls 'on'/, 'plain text to Sentinels that speak TLS');
alter("ADD tls 'on', ADD ca_file '$ca'");
$node->safe_psql('postgres', 'ALTER USER MAPPING FOR CURRENT_USER SERVER shop OPTIONS (DROP tls_cert, DROP tls_key)');
like(refused(), qr/08006: no Sentinel says where.*\nDETAIL: .*\nHINT:  .*tls_cert and tls_key/, 'Sentinels that ask for a certificate');
$node->safe_psql('postgres', qq{ALTER USER MAPPING FOR CURRENT_USER SERVER shop OPTIONS (ADD tls_cert '$crt', ADD tls_key '$key')});

# A replica on request.
alter(q{ADD read_from 'replica'});
like(reachable(), qr/^ok: connected to 127\.0\.0\.1:$replica->{tls_port}, TLSv1\.[23]/, 'a replica is found and reached over TLS');
alter(q{DROP read_from, ADD max_rate '1500'});

# The master dies in the middle of a run.
$node->safe_psql('postgres', 'TRUNCATE item');
my $call = start_sql($node, q{CALL redis_migrate.run('shop');});
wait_until('the first batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM item') > 0 });
$master->kill9;
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM item'), '<', KEYS, 'the master dies in the middle');
my (undef, $err) = $call->finish;
like(last_run($node, 'shop', 'state, restarts, read, balanced'), qr/^completed\|[1-9]\|6000\|t$/, 'the run goes on with the replica, over TLS') or diag($err);
is(missing(), 0, 'and no key is missing');
like(reachable(), qr/^ok: connected to 127\.0\.0\.1:$replica->{tls_port}, TLSv1\.[23]/, 'which is the master now');

unlike(slurp_file($node->logfile), qr/PRIVATE KEY/, 'no key in the log');

done_testing();
