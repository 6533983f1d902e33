# Redis servers that are more than one process, or that are hard to reach: TLS.
#
#   use RedisNodes;
#   my $certificates = make_certificates();
#   $certificates->make('server', names => 'IP:127.0.0.1');          # $certificates->crt('server'), ->key('server')
#   my $redis = start_tls_redis($certificates, 'server', clients => 'yes');    # $redis->{tls_port}
#   my $replica = start_replica($redis);
#   my $second = start_tls_redis($certificates, 'server', replicaof => $redis);
#   my @sentinels = start_sentinels($redis, 'shop', count => 3);               # ports
#   my $cluster = start_cluster(masters => 3, replicas => 1);
#   $cluster->set(map { ("k:$_" => "value $_") } 1 .. 1000);

package RedisNodes;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use PrmTest;
use PrmTools;

our @EXPORT = qw(make_certificates start_tls_redis start_replica start_sentinels start_cluster);

# An authority "ca" and its certificates, made by the openssl command.
sub make_certificates { return RedisNodes::Certificates->new; }

# A Redis with a port for TLS beside the plain one, with the certificate of that name. Options:
#   clients => 'yes'     whether clients must show a certificate: yes, no, optional
#   replicaof => $redis  whose replica it is, over TLS
sub start_tls_redis
{
    my ($certificates, $name, %options) = @_;
    my $port = PostgreSQL::Test::Cluster::get_free_port();
    my %tls = _tls_settings($certificates, $name, %options);
    my $master = $options{replicaof};
    my $redis = start_redis(args => [ '--tls-port', $port, (map { ("--$_", $tls{$_}) } sort keys %tls),
        $master ? ('--replicaof', '127.0.0.1', $master->{tls_port}) : () ]);
    $redis->{tls_port} = $port;
    _wait_for_master($redis) if $master;
    return $redis;
}

# Settings that servers and Sentinels have in common.
sub _tls_settings
{
    my ($certificates, $name, %options) = @_;
    return ('tls-cert-file' => $certificates->crt($name), 'tls-key-file' => $certificates->key($name),
        'tls-ca-cert-file' => $certificates->crt('ca'), 'tls-auth-clients' => $options{clients} // 'no', 'tls-replication' => 'yes');
}

sub _wait_for_master { my ($replica) = @_; return wait_until('the replica', sub { $replica->cli('INFO', 'replication') =~ /master_link_status:up/ }); }

# A replica of a server, in step with it.
sub start_replica
{
    my ($master, %options) = @_;
    my $replica = start_redis(args => [ '--replicaof', '127.0.0.1', $master->port, @{ $options{args} // [] } ]);
    _wait_for_master($replica);
    return $replica;
}

# Sentinels that watch a master and know each other; returns their ports. Options:
#   count => 3
#   password => ''  that they ask for
#   replicas => 2   how many replicas they must have found
#   certificates => $certificates, certificate => 'name'   they speak TLS only, also with the servers; clients as above
my @sentinels;

sub start_sentinels
{
    my ($master, $name, %options) = @_;
    my $count = $options{count} // 3;
    my $quorum = int($count / 2) + 1;
    my $certificates = $options{certificates};
    my %tls = $certificates ? _tls_settings($certificates, $options{certificate}, %options) : ();
    my @ports;
    for (1 .. $count)
    {
        my $port = PostgreSQL::Test::Cluster::get_free_port();
        my $directory = PostgreSQL::Test::Utils::tempdir_short();
        my $lines = ($certificates ? "port 0\ntls-port $port\n" : "port $port\n") . (join '', map { "$_ $tls{$_}\n" } sort keys %tls)
          . "bind 127.0.0.1\ndir $directory\nlogfile $directory/sentinel.log\n"
          . "sentinel monitor $name 127.0.0.1 " . ($certificates ? $master->{tls_port} : $master->port) . " $quorum\n"
          . "sentinel down-after-milliseconds $name 1500\nsentinel failover-timeout $name 4000\n";
        $lines .= "requirepass $options{password}\nsentinel sentinel-pass $options{password}\n" if defined $options{password};
        append_to_file("$directory/sentinel.conf", $lines);
        my $pid = fork() // die "fork: $!\n";
        if ($pid == 0) { exec(redis_server(), "$directory/sentinel.conf", '--sentinel') or POSIX::_exit(127); }
        push @sentinels, { pid => $pid, owner => $$ };
        push @ports, $port;
    }
    my @auth = defined $options{password} ? ('--no-auth-warning', '-a', $options{password}) : ();
    push @auth, '--tls', '--cacert', $tls{'tls-ca-cert-file'}, '--cert', $tls{'tls-cert-file'}, '--key', $tls{'tls-key-file'} if $certificates;
    for my $port (@ports)
    {
        wait_until("the Sentinel at $port", sub {
            my $out = '';
            IPC::Run::run([ 'redis-cli', '-p', $port, @auth, 'SENTINEL', 'MASTER', $name ], '<', \undef, '>', \$out, '2>&1');
            my %fields = split /\n/, $out;
            return ($fields{'num-other-sentinels'} // -1) == $count - 1
              && ($fields{'num-slaves'} // -1) == ($options{replicas} // 2);
        });
    }
    return @ports;
}

END
{
    my $status = $?;
    for my $sentinel (@sentinels)
    {
        next if $sentinel->{owner} != $$;
        kill 'KILL', $sentinel->{pid};
        waitpid $sentinel->{pid}, 0;
    }
    $? = $status;
}

# A Redis Cluster whose nodes know each other. Options:
#   masters => 3
#   replicas => 1   of each master
#   clocks => [ 0, 3600000, ... ]   by how many milliseconds the clock of each node is ahead
sub start_cluster { my (%options) = @_; return RedisNodes::Cluster->new(%options); }

package RedisNodes::Cluster;

use strict;
use warnings;

use FindBin;
use IPC::Run ();
use PrmTest;
use PrmTools;

sub new
{
    my ($class, %options) = @_;
    my $masters = $options{masters} // 3;
    my $count = $masters * (1 + ($options{replicas} // 1));
    my @nodes = map { start_node($options{clocks} ? $options{clocks}[ $_ - 1 ] : undef) } 1 .. $count;
    my $out = '';
    IPC::Run::run([ 'redis-cli', '--cluster', 'create', (map { _address($_) } @nodes),
            '--cluster-replicas', $options{replicas} // 1, '--cluster-yes' ], '<', \undef, '>&', \$out)
      or die "redis-cli --cluster create: $out\n";
    my $self = bless { nodes => \@nodes }, $class;
    $self->wait_until_agreed;
    return $self;
}

# A node that has not joined a cluster, with a clock that is so many milliseconds ahead.
sub start_node
{
    my ($ahead_ms) = @_;
    my $clock = "$FindBin::Bin/../modules/bridge/other_clock.so";
    die "make -C test/modules/bridge has to be run first\n" if defined $ahead_ms && !-e $clock;
    local @ENV{qw(LD_PRELOAD PRM_CLOCK_AHEAD_MS)} = ($clock, $ahead_ms) if defined $ahead_ms;
    # The port of the cluster's bus is 10000 higher by default: there any client's connection may have its end.
    my $bus = PostgreSQL::Test::Cluster::get_free_port();
    my $node = start_redis(args => [ '--cluster-enabled', 'yes', '--cluster-port', $bus, '--cluster-node-timeout', '3000', '--cluster-replica-validity-factor', '0' ]);
    $node->{bus} = $bus;
    return $node;
}

sub _address { my ($node) = @_; return '127.0.0.1:' . $node->port . "\@$node->{bus}"; }

# One more replica of a node of masters().
sub add_replica
{
    my ($self, $master) = @_;
    my $node = start_node();
    $node->cli('CLUSTER', 'MEET', '127.0.0.1', $master->{node}->port, $master->{node}{bus});
    wait_until('a node that joins', sub { $node->cli('CLUSTER', 'NODES') =~ /^$master->{id} /m });
    $node->cli('CLUSTER', 'REPLICATE', $master->{id});
    push @{ $self->{nodes} }, $node;
    $self->wait_until_agreed;
    return $node;
}

# Replicas of a node of masters().
sub replicas
{
    my ($self, $master) = @_;
    return grep { $_->pid && $_->cli('CLUSTER', 'NODES') =~ /myself,slave $master->{id} / } $self->nodes;
}

sub nodes { my ($self) = @_; return @{ $self->{nodes} }; }

# The masters that have slots, in the order of their first slot: { node, id, slots => {slot => 1} }.
sub masters
{
    my ($self) = @_;
    my ($alive) = grep { $_->pid } $self->nodes;
    my @masters;
    for my $line (split /\n/, $alive->cli('CLUSTER', 'NODES'))
    {
        my ($id, $address, $flags, undef, undef, undef, undef, undef, @ranges) = split / /, $line;
        next if $flags !~ /master/ || $flags =~ /fail/ || !@ranges;
        my ($port) = $address =~ /:(\d+)@/;
        my ($node) = grep { $_->port == $port } $self->nodes;
        my %slots = map { $_ => 1 } map { my ($first, $last) = split /-/; $first .. ($last // $first) } grep { !/^\[/ } @ranges;
        push @masters, { node => $node, id => $id, slots => \%slots };
    }
    return sort { (sort { $a <=> $b } keys %{ $a->{slots} })[0] <=> (sort { $a <=> $b } keys %{ $b->{slots} })[0] } @masters;
}

# Until every living node sees every slot served, and every replica is in step.
sub wait_until_agreed
{
    my ($self) = @_;
    for my $node (grep { $_->pid } $self->nodes)
    {
        wait_until('the cluster', sub {
            my $info = $node->cli('CLUSTER', 'INFO');
            my $replication = eval { $node->cli('INFO', 'replication') } // '';  # a new replica drops its clients
            $info =~ /cluster_state:ok/ && $info =~ /cluster_slots_ok:16384/
              && ($replication =~ /role:master/ || $replication =~ /master_link_status:up/) });
    }
    return;
}

# CRC16 (XMODEM) of the key or its hash tag.
sub slot
{
    my ($key) = @_;
    $key = $1 if $key =~ /\{([^}]+)\}/;
    my $crc = 0;
    for my $byte (unpack 'C*', $key)
    {
        $crc ^= $byte << 8;
        $crc = (($crc << 1) ^ ($crc & 0x8000 ? 0x1021 : 0)) & 0xffff for 1 .. 8;
    }
    return $crc % 16384;
}

# Sets keys where they belong.
sub set { my ($self, %values) = @_; return $self->lines(map { ($_ => qq{SET "$_" "$values{$_}"}) } keys %values); }

# Sends lines as redis-cli reads them, by their keys, to where these belong.
sub lines
{
    my ($self, %commands) = @_;
    my @masters = $self->masters;
    my %owners = map { my $i = $_; map { ($_ => $i) } keys %{ $masters[$i]{slots} } } 0 .. $#masters;
    my %lines;
    $lines{ $owners{ slot($_) } } .= "$commands{$_}\n" for sort keys %commands;
    for my $owner (keys %lines)
    {
        my $replies = $masters[$owner]{node}->cli_lines($lines{$owner});
        die "redis-cli: $replies\n" if $replies =~ /^(ERR|MOVED|WRONGTYPE) /m;
    }
    return;
}

# Removes keys.
sub remove
{
    my ($self, @keys) = @_;
    my @masters = $self->masters;
    for my $key (@keys)
    {
        my ($owner) = grep { $_->{slots}{ slot($key) } } @masters;
        $owner->{node}->cli('DEL', $key);
    }
    return;
}

# Keys in all masters.
sub dbsize { my ($self) = @_; my $sum = 0; $sum += $_->{node}->cli('DBSIZE') for $self->masters; return $sum; }

# Moves a slot from one of masters() to another, in two steps: what is between them is an open move.
sub begin_move
{
    my ($self, $slot, $from, $to, %options) = @_;
    $to->{node}->cli('CLUSTER', 'SETSLOT', $slot, 'IMPORTING', $from->{id});
    $from->{node}->cli('CLUSTER', 'SETSLOT', $slot, 'MIGRATING', $to->{id});
    my @keys = split /\n/, $from->{node}->cli('CLUSTER', 'GETKEYSINSLOT', $slot, 100000);
    @keys = splice @keys, 0, int(@keys / 2) if $options{half};
    $from->{node}->cli('MIGRATE', '127.0.0.1', $to->{node}->port, '', 0, 5000, 'KEYS', @keys) if @keys;
    return;
}

sub finish_move
{
    my ($self, $slot, $from, $to) = @_;
    my @keys = split /\n/, $from->{node}->cli('CLUSTER', 'GETKEYSINSLOT', $slot, 100000);
    $from->{node}->cli('MIGRATE', '127.0.0.1', $to->{node}->port, '', 0, 5000, 'KEYS', @keys) if @keys;
    $_->{node}->cli('CLUSTER', 'SETSLOT', $slot, 'NODE', $to->{id}) for $to, $from;
    return;
}

sub move { my ($self, @arguments) = @_; $self->begin_move(@arguments); return $self->finish_move(@arguments); }

package RedisNodes::Certificates;

use strict;
use warnings;

use IPC::Run ();

sub new
{
    my ($class) = @_;
    my $self = bless { directory => PostgreSQL::Test::Utils::tempdir_short() }, $class;
    $self->make_authority('ca');
    return $self;
}

sub crt { my ($self, $name) = @_; return "$self->{directory}/$name.crt"; }
sub key { my ($self, $name) = @_; return "$self->{directory}/$name.key"; }

sub make_authority
{
    my ($self, $name) = @_;
    return $self->_openssl('req', '-x509', _new_key(), '-keyout', $self->key($name), '-out', $self->crt($name),
        '-subj', "/CN=Authority $name", '-days', 2);
}

# Subject CN=$name. Options:
#   names => 'DNS:localhost,IP:127.0.0.1'
#   authority => 'ca'
#   days => 2          how long it is valid; a negative number makes one that has expired
sub make
{
    my ($self, $name, %options) = @_;
    my $request = "$self->{directory}/$name.csr";
    my $authority = $options{authority} // 'ca';
    $self->_openssl('req', _new_key(), '-keyout', $self->key($name), '-out', $request, '-subj', "/CN=$name",
        defined $options{names} ? ('-addext', "subjectAltName=$options{names}") : ());
    return $self->_openssl('x509', '-req', '-in', $request, '-CA', $self->crt($authority), '-CAkey', $self->key($authority),
        '-CAcreateserial', '-copy_extensions', 'copyall', '-days', $options{days} // 2, '-out', $self->crt($name));
}

sub _new_key { return ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'); }

sub _openssl
{
    my ($self, @arguments) = @_;
    my $out = '';
    IPC::Run::run([ 'openssl', @arguments ], '<', \undef, '>&', \$out) or die "openssl @arguments: $out\n";
    return;
}

1;
