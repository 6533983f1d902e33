# The base of the TAP tests: PostgreSQL nodes with the extension and real Redis servers. Both disappear when the test
# ends, also when it dies or is interrupted.
#
#   use PrmTest;
#   my $redis = start_redis(args => [ '--maxmemory', '10mb' ]);
#   $redis->cli('SET', 'key', 'value');
#   my $node = new_node('main', preload => 1, conf => "work_mem = '1MB'");
#   create_server($node, 'shop', $redis);

package PrmTest;

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(start_redis redis_server redis_version is_valkey known_rights new_node create_server);

# So that END blocks run.
$SIG{TERM} = $SIG{INT} = $SIG{HUP} = sub { die "interrupted\n" };

# A process that a test has forked leaves the test's servers alone, also when it is ended before it has begun, or dies.
# This runs before the END block of PostgreSQL::Test::Cluster, which stops all servers, whoever runs it.
my $test = $$;
END { POSIX::_exit($? || 1) if $$ != $test; }

# Starts an empty redis-server on a free port of 127.0.0.1, without snapshots and append-only file. Options:
#   args => [...]  more arguments for redis-server
#   unix => 1      listen on the unix socket $redis->socket only
#   password => '' what requirepass says
sub start_redis
{
    my %options = @_;
    return PrmTest::Redis->new(%options);
}

# The program that tests start as Redis: redis-server, or what the environment names.
sub redis_server { return $ENV{REDIS_SERVER} // 'redis-server'; }

# Its version: 7.0 of 7.0.15. Valkey's are higher than those of the Redis that it has come from.
my $version;
sub redis_version
{
    $version //= qx(${\redis_server()} --version) =~ /v=(\d+\.\d+)/ ? $1 : die "no version\n";
    return $version;
}

# Whether it is a Valkey.
sub is_valkey { return qx(${\redis_server()} --version) =~ /^Valkey/; }

# Rights of a user as the server knows them: key patterns for reading alone and PEXPIRETIME came with Redis 7.0.
sub known_rights
{
    my (@rights) = @_;
    return redis_version() < 7 ? map { s/^%R~/~/r =~ s/^\+pexpiretime$/+pttl/r } @rights : @rights;
}

# A started node in whose database postgres the extension is created. Options:
#   preload => 1  with shared_preload_libraries
#   conf => ''    lines for postgresql.conf
#   init => {...} arguments of init()
sub new_node
{
    my ($name, %options) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);
    $node->init(%{ $options{init} // {} });
    $node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_redis_migrate'\n") if $options{preload};
    $node->append_conf('postgresql.conf', "$options{conf}\n") if defined $options{conf};
    $node->start;
    $node->safe_psql('postgres', 'CREATE EXTENSION pg_redis_migrate');
    return $node;
}

# The foreign server $name for $redis, with a user mapping for the user that tests run as, in the database postgres.
sub create_server
{
    my ($node, $name, $redis) = @_;
    my $password = $redis->{password};
    my $options = defined $password ? "OPTIONS (password '$password')" : '';
    my ($host, $port) = ($redis->host, $redis->port);
    $node->safe_psql(
        'postgres', qq{
        CREATE SERVER $name FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$host', port '$port');
        CREATE USER MAPPING FOR CURRENT_USER SERVER $name $options;});
    return;
}

package PrmTest::Redis;

use strict;
use warnings;

use IPC::Run ();
use POSIX    ();
use Time::HiRes qw(usleep);

my @servers;

sub new
{
    my ($class, %options) = @_;
    my $directory = PostgreSQL::Test::Utils::tempdir_short();
    my $self = bless {
        directory => $directory,
        port      => $options{unix} ? 0 : PostgreSQL::Test::Cluster::get_free_port(),
        socket    => "$directory/redis.sock",
        password  => $options{password},
        args      => $options{args} // [],
        owner     => $$,
    }, $class;
    push @servers, $self;
    $self->start;
    return $self;
}

# The value for the option host of a foreign server: an address, or the path of the unix socket.
sub host { my ($self) = @_; return $self->{port} ? '127.0.0.1' : $self->{socket}; }
sub port { my ($self) = @_; return $self->{port}; }
sub socket { my ($self) = @_; return $self->{socket}; }
sub pid { my ($self) = @_; return $self->{pid}; }
sub directory { my ($self) = @_; return $self->{directory}; }

# Starts a stopped server again: same port and directory, so that it loads what SAVE left there. A connection of somebody
# else may have been given the port meanwhile: then it takes another the first time, and later waits.
sub start
{
    my ($self) = @_;
    die "redis-server runs already\n" if $self->{pid};
    for (my $tries = 100; !$self->_start; --$tries)
    {
        my $log = PostgreSQL::Test::Utils::slurp_file($self->log_file);
        die "redis-server does not start:\n$log" if !$tries || $log !~ /Address already in use[^\n]*\n(?:[^\n]*Failed listening[^\n]*\n)?\z/;
        $self->{port} = PostgreSQL::Test::Cluster::get_free_port() if $self->{port} && !$self->{has_port};
        usleep(100_000);
    }
    $self->{has_port} = 1;
    return;
}

# Whether it has started.
sub _start
{
    my ($self) = @_;
    my @command = (
        PrmTest::redis_server(), '--bind', '127.0.0.1', '--port', $self->{port}, '--unixsocket', $self->{socket},
        '--dir', $self->{directory}, '--logfile', $self->log_file, '--save', '', '--appendonly', 'no');
    push @command, '--requirepass', $self->{password} if defined $self->{password};
    my $pid = fork() // die "fork: $!\n";
    if ($pid == 0)
    {
        # Before 7.0 the values of an option are words of their own, DEBUG is always there, and no setting is protected.
        my @args = map { /^[-\w.]+( [-\w.]+)+$/ ? split / / : $_ } @{ $self->{args} };
        splice @args, $_, 2 for grep { PrmTest::redis_version() < 7 && $args[$_] =~ /^--enable-(?:debug-command|protected-configs)$/ } reverse 0 .. $#args;
        exec(@command, @args) or POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    for (1 .. 600)
    {
        if (waitpid($pid, POSIX::WNOHANG()) == $pid)
        {
            delete $self->{pid};
            return 0;
        }
        # Loading a file it answers to INFO already, but not to DBSIZE.
        my ($out, $err) = ('', '');
        return 1 if -S $self->{socket} && IPC::Run::run([ $self->_cli, '-e', 'DBSIZE' ], '<', \undef, '>', \$out, '2>', \$err);
        usleep(50_000);
    }
    die "redis-server does not answer\n";
}

# Ends it with SIGTERM: it saves when it is configured to.
sub stop { my ($self) = @_; return $self->_end('TERM'); }

# Ends it with SIGKILL.
sub kill9 { my ($self) = @_; return $self->_end('KILL'); }

# Ends it with SIGTERM, or the signal given, and starts it again.
sub restart { my ($self, $signal) = @_; $self->_end($signal // 'TERM'); return $self->start; }

# Runs one command through redis-cli and returns the reply, in redis-cli's raw format without the last newline. Dies
# when the reply is an error.
sub cli
{
    my ($self, @command) = @_;
    my ($out, $err) = ('', '');
    IPC::Run::run([ $self->_cli, '-e', @command ], '<', \undef, '>', \$out, '2>', \$err)
      or die "redis-cli @command: $out$err\n";
    chomp $out;
    return $out;
}

# Sends many commands, one per line as redis-cli reads them. Returns the replies.
sub cli_lines
{
    my ($self, $lines) = @_;
    my ($out, $err) = ('', '');
    IPC::Run::run([ $self->_cli, '-e' ], '<', \$lines, '>', \$out, '2>', \$err) or die "redis-cli: $out$err\n";
    return $out;
}

sub log_file { my ($self) = @_; return "$self->{directory}/redis.log"; }

# redis-cli with what it needs to reach this server. The socket is there in any case.
sub _cli
{
    my ($self) = @_;
    my @command = ('redis-cli', '-s', $self->{socket});
    push @command, '--no-auth-warning', '-a', $self->{password} if defined $self->{password};
    return @command;
}

sub _end
{
    my ($self, $signal) = @_;
    my $pid = delete $self->{pid} or return;
    kill $signal, $pid;
    waitpid($pid, 0);
    return;
}

END
{
    my $status = $?;  # of the test: waitpid changes it
    for my $server (@servers) { $server->kill9 if $server->{owner} == $$; }
    $? = $status;
}

1;
