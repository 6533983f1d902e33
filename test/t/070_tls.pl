# TLS to Redis: what is encrypted and verified by default, what is refused and how the error names it, and that a run over
# TLS survives what one without it survives.

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

use constant KEYS => 4000;

my $certificates = make_certificates();
$certificates->make('server', names => 'DNS:redis.example,IP:127.0.0.1');
$certificates->make('elsewhere', names => 'DNS:elsewhere.example');
$certificates->make('old', names => 'IP:127.0.0.1', days => -1);
$certificates->make('client');
$certificates->make_authority('other');
my ($ca, $other) = ($certificates->crt('ca'), $certificates->crt('other'));

my $node = new_node('tls', conf => "pg_redis_migrate.batch_rows = 100\npg_redis_migrate.reconnect_timeout = '10s'");

# Files that are no files, or too large or empty ones, are refused at once; nothing waits for them.
my $odd = PostgreSQL::Test::Utils::tempdir();
POSIX::mkfifo("$odd/fifo", 0600) or die "mkfifo: $!\n";
PostgreSQL::Test::Utils::append_to_file("$odd/empty", '');
PostgreSQL::Test::Utils::append_to_file("$odd/newline", "\n");
PostgreSQL::Test::Utils::append_to_file("$odd/large", 'x' x (2 << 20));
chmod 0600, "$odd/empty", "$odd/newline", "$odd/large";
my $listening = start_redis();
my $plain = $listening->port;
for my $option ('ca_file', 'tls_cert', 'tls_key', 'password_file')
{
    my %reasons = (
        "$odd/fifo" => qr/It is not a regular file/, '/dev/zero' => qr/It is not a regular file/, $odd => qr/It is not a regular file/,
        "$odd/large" => qr/It has more than \d+ bytes/, "$odd/none" => qr/No such file/);
    @reasons{"$odd/empty", "$odd/newline"} = (qr/empty/) x 2 if $option eq 'password_file';
    for my $path (sort keys %reasons)
    {
        my %options = (ca_file => '', tls_cert => ", tls_key '" . $certificates->key('client') . "'",
            tls_key => ", tls_cert '" . $certificates->crt('client') . "'", password_file => '');
        my $of_server = $option eq 'ca_file' ? ", ca_file '$path'" : $option eq 'password_file' ? '' : ", ca_file '$ca'";
        $of_server .= ", tls 'on'" if $option ne 'password_file';
        my $of_user = $option eq 'ca_file' ? '' : "OPTIONS ($option '$path'$options{$option})";
        my $said;
        my $took = elapsed(sub {
            $said = join ' ', map { $_ // '' } $node->psql('postgres', "SET statement_timeout = '30s'; BEGIN;
                CREATE SERVER odd FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$plain'$of_server);
                CREATE USER MAPPING FOR CURRENT_USER SERVER odd $of_user;
                SELECT status, detail FROM redis_migrate.preflight('odd') WHERE check_name = 'reachable'");
        });
        like($said, qr/(?:ERROR:|fail).*\Q$option\E.*$reasons{$path}/s, "$option names $path");
        cmp_ok($took, '<', 10, 'which is told at once');
    }
}
$listening->stop;

# A server over TLS with a migration of the keys k:<number>; all of it again for another port.
sub server
{
    my ($name, $port, $options, $mapping) = @_;
    $options = $options ? ", $options" : '';
    $mapping = $mapping ? "OPTIONS ($mapping)" : '';
    $node->safe_psql('postgres', qq{
        CREATE SERVER $name FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port'$options);
        CREATE USER MAPPING FOR CURRENT_USER SERVER $name $mapping;
        CREATE TABLE $name (id bigint PRIMARY KEY, v text);
        SELECT redis_migrate.create_migration('$name', '$name');
        SELECT redis_migrate.add_mapping('$name', 'm', 'k:{id:int}', '$name', 'SELECT id, value AS v FROM redis_batch',
            key_columns => '{id}', databases => '{0}', exclusive => true);});
    return;
}

# The error of a run, and what preflight says.
sub refused { my ($name) = @_; return sql_error($node, "CALL redis_migrate.run('$name')"); }
sub reachable
{
    my ($name) = @_;
    return $node->safe_psql('postgres',
        "SELECT status || ': ' || detail || coalesce(' HINT: ' || hint, '') FROM redis_migrate.preflight('$name') WHERE check_name = 'reachable'");
}

sub missing
{
    my ($table, $count) = @_;
    return $node->safe_psql('postgres',
        "SELECT count(*) FROM generate_series(1, $count) AS i LEFT JOIN $table ON id = i WHERE v IS DISTINCT FROM 'value ' || i");
}

my $redis = start_tls_redis($certificates, 'server');
my $tls_port = $redis->{tls_port};
$redis->cli('EVAL', 'for i = 1, tonumber(ARGV[1]) do redis.call("SET", "k:" .. i, "value " .. i) end', 0, KEYS);
# Plain text is refused from here on: what is read now went through TLS.
$redis->cli('CONFIG', 'SET', 'port', '0');

# Verified by default.
server('shop', $tls_port, "tls 'on', ca_file '$ca'");
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop')});
is(missing('shop', KEYS), 0, 'a run over TLS');
like(reachable('shop'), qr/^ok: connected to 127\.0\.0\.1:$tls_port, TLSv1\.[23]/, 'preflight says how it is encrypted');

# The system's authorities do not know this one.
server('system', $tls_port, "tls 'verify-full'");
like(refused('system'), qr/ERROR:  08006: could not establish TLS with Redis at 127\.0\.0\.1:$tls_port\nDETAIL:  .*self-signed certificate.*CN=Authority ca.*\nHINT:  Set option ca_file/, 'an unknown authority is refused');
server('wrong_ca', $tls_port, "tls 'verify-ca', ca_file '$other'");
like(refused('wrong_ca'), qr/08006: could not establish TLS.*\nDETAIL:  .*self-signed certificate.*CN=Authority ca/, 'another authority is refused');
like(reachable('wrong_ca'), qr/^fail: could not establish TLS .*certificate was refused.*HINT: Set option ca_file/, 'preflight says so');
server('trusting', $tls_port, "tls 'require'");
like(reachable('trusting'), qr/^ok: /, 'require takes any certificate');

# Names.
server('by_name', $tls_port, "tls 'on', ca_file '$ca', tls_server_name 'redis.example'");
like(reachable('by_name'), qr/^ok: /, 'tls_server_name is the name that is verified');
$node->safe_psql('postgres', q{ALTER SERVER by_name OPTIONS (SET tls_server_name 'other.example')});
like(refused('by_name'), qr/DETAIL:  .*hostname mismatch.*redis\.example.*should be issued for "other\.example".*\nHINT:  .*tls_server_name/, 'a wrong name is refused');
my $elsewhere = start_tls_redis($certificates, 'elsewhere');
server('elsewhere', $elsewhere->{tls_port}, "tls 'on', ca_file '$ca'");
like(refused('elsewhere'), qr/08006.*\nDETAIL:  .*IP address mismatch.*elsewhere\.example.*"127\.0\.0\.1"/, 'a certificate of another server is refused');
$node->safe_psql('postgres', q{ALTER SERVER elsewhere OPTIONS (SET tls 'verify-ca')});
like(reachable('elsewhere'), qr/^ok: /, 'verify-ca takes it');

my $old = start_tls_redis($certificates, 'old');
server('old', $old->{tls_port}, "tls 'on', ca_file '$ca'");
like(refused('old'), qr/08006.*\nDETAIL:  .*certificate has expired.*CN=old/, 'an expired certificate is refused');

# Certificates of clients.
my $strict = start_tls_redis($certificates, 'server', clients => 'yes');
server('strict', $strict->{tls_port}, "tls 'on', ca_file '$ca'");
like(refused('strict'), qr/08006.*\nDETAIL:  .*\nHINT:  .*tls_cert and tls_key/, 'a server that asks for a certificate');
my ($crt, $key) = ($certificates->crt('client'), $certificates->key('client'));
$node->safe_psql('postgres', qq{ALTER USER MAPPING FOR CURRENT_USER SERVER strict OPTIONS (ADD tls_cert '$crt', ADD tls_key '$key')});
like(reachable('strict'), qr/^ok: /, 'is shown one');
chmod 0644, $key or die;
like(refused('strict'), qr/22023: could not use tls_key "\Q$key\E"\nDETAIL:  Others may read or write it/, 'a key that others may read is refused');
chmod 0600, $key or die;
$node->safe_psql('postgres', 'CREATE ROLE plain LOGIN; GRANT USAGE ON FOREIGN SERVER strict TO plain;
    CREATE USER MAPPING FOR plain SERVER strict OPTIONS (' . "tls_cert '$crt', tls_key '$key')");
like(sql_error($node, q{SELECT * FROM redis_migrate.preflight('strict')}, extra_params => [ '-U', 'plain' ]),
    qr/42501: permission denied to read the tls_cert of the user mapping/, 'whoever uses the files needs the right to');

# The wrong port.
server('plain_port', $elsewhere->port, "tls 'on', ca_file '$ca', connect_timeout '1'");
like(refused('plain_port'), qr/ERROR:  080.*\n(DETAIL.*\n)?HINT:  If the port does not expect TLS/, 'TLS to a port without it');
server('tls_port', $tls_port);
like(refused('tls_port'), qr/HINT:  If the port expects TLS, set the server's option tls 'on'/, 'plain text to a port with TLS');

# Cancelled while shaking hands.
my $proxy = PrmTools::Proxy->new($tls_port);
server('slow', $proxy->port, "tls 'on', ca_file '$ca'");
$proxy->tell('hold');
my $call = start_sql($node, q{CALL redis_migrate.run('slow');}, name => 'slow');
wait_until('the run waits', sub {
    $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'slow' AND wait_event_type = 'Extension'}) });
cmp_ok(elapsed(sub {
    $node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'slow' AND query LIKE 'CALL%'});
    $call->finish; }), '<', 5, 'a handshake is cancelled at once');
is(last_run($node, 'slow', 'sqlstate'), '57014', 'and the run says so');
$proxy->tell('pass');

# Cut in the middle of what the server says.
$proxy->tell('rate 300000');
$call = start_sql($node, q{CALL redis_migrate.run('slow');});
wait_until('the first batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM slow') > 0 });
$proxy->tell('drop');
$proxy->tell('pass');
my (undef, $err) = $call->finish;
is(last_run($node, 'slow', 'state, restarts, balanced'), 'completed|0|t', 'a connection that was cut is opened again') or diag($err);
is(missing('slow', KEYS), 0, 'and no key is missing');

# A session that itself came by TLS shares OpenSSL's state of the process.
my $conf = $node->data_dir;
$certificates->make('postgres', names => 'DNS:localhost,IP:127.0.0.1');
PostgreSQL::Test::Utils::system_or_bail('cp', $certificates->crt('postgres'), "$conf/server.crt");
PostgreSQL::Test::Utils::system_or_bail('cp', $certificates->key('postgres'), "$conf/server.key");
chmod 0600, "$conf/server.key";
$node->append_conf('postgresql.conf', "ssl = on\nlisten_addresses = '127.0.0.1'");
$node->append_conf('pg_hba.conf', 'hostssl all all 127.0.0.1/32 trust');
$node->restart;
my $over_tls = $node->connstr('postgres') =~ s/host=\S+//r . ' host=127.0.0.1 sslmode=require';
my ($out, $failed) = ('', '');
IPC::Run::run([ 'psql', '-XAtq', '-d', $over_tls, '-c', q{SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()},
        '-c', q{TRUNCATE shop}, '-c', q{CALL redis_migrate.run('wrong_ca')}, '-c', q{CALL redis_migrate.run('shop')},
        '-c', q{SELECT repeat('x', 3000000) IS NOT NULL, count(*) FROM shop} ], '<', \undef, '>', \$out, '2>', \$failed);
is($out, "t\nt|" . KEYS . "\n", 'a session over TLS runs over TLS, after a handshake that failed') or diag($failed);

unlike(slurp_file($node->logfile), qr/PRIVATE KEY/, 'no key in the log');

done_testing();
