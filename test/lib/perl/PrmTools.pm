# More for the TAP tests: statements that run beside the test, and a proxy that treats a Redis badly.
#
#   use PrmTools;
#   my $call = start_sql($node, "CALL redis_migrate.run('shop')");
#   wait_until('the first batch', sub { ... });
#   my ($stdout, $stderr) = $call->finish;
#   my $proxy = PrmTools::Proxy->new($redis->port);      # listens on $proxy->port
#   $proxy->tell('hold');                                # nothing passes from now on

package PrmTools;

use strict;
use warnings;

use Cwd ();
use Exporter qw(import);
use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(answers try_sql start_sql sessions_over wait_until elapsed sql_error last_run kill_postgres fake_clock);

# Starts psql with the statements, each a transaction of its own. Ends it when the object goes.
my $started = 0;

sub start_sql
{
    my ($node, $sql, %options) = @_;
    my $file = PostgreSQL::Test::Utils::tempdir() . '/sql' . ++$started;
    append_to_file($file, "\\set VERBOSITY verbose\n$sql\n");
    my $self = bless { file => $file, name => $options{name} // 'prm' }, 'PrmTools::Sql';
    local $ENV{PGAPPNAME} = $self->{name};
    my @command = ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $file);
    push @command, '-U', $options{user} if $options{user};
    $self->{pid} = fork() // die "fork: $!\n";
    return $self if $self->{pid};
    # Files, not pipes: nobody has to read while it runs.
    open STDOUT, '>', "$file.out" or POSIX::_exit(126);
    open STDERR, '>', "$file.err" or POSIX::_exit(126);
    exec(@command) or POSIX::_exit(127);
}

# What psql prints for statements that may meet a server that is down or recovers; undef if they fail. A psql that is
# refused may be gone before it is given its input, which is an exception of IPC::Run.
sub try_sql
{
    my ($node, $sql) = @_;
    my ($status, $out) = eval { $node->psql('postgres', $sql) };
    return defined $status && $status == 0 ? $out : undef;
}

# Whether the server takes connections. killed: the process of a backend, until whose end is noticed the server goes on as
# if nothing had happened, and then restarts.
sub answers
{
    my ($node, $killed) = @_;
    return 0 if $killed && kill 0, $killed;
    return defined try_sql($node, 'SELECT 1');
}

# Waits until no other session is there. Each tells what it has read as it ends, which may be after its client has gone.
sub sessions_over
{
    my ($node) = @_;
    return wait_until('the end of other sessions', sub {
        $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()}) eq '0' });
}

# Polls until the condition holds; dies after as many seconds as PostgreSQL's own tests wait, PG_TEST_TIMEOUT_DEFAULT. A look
# by psql takes as much of a core as the pause before it is long, from what is waited for: later ones come less often.
sub wait_until
{
    my ($what, $condition) = @_;
    my $end = time + $PostgreSQL::Test::Utils::timeout_default;
    for (my $pause = 10_000; time < $end; $pause = $pause * 1.2 > 50_000 ? 50_000 : $pause * 1.2)
    {
        return 1 if $condition->();
        usleep($pause);
    }
    die "waited in vain for: $what\n";
}

# Seconds that the code took.
sub elapsed
{
    my ($code) = @_;
    my $start = time;
    $code->();
    return time - $start;
}

# Ends the postmaster by SIGKILL, and starts the server again once its other processes have noticed. Calls $meanwhile, if
# given, before that.
sub kill_postgres
{
    my ($node, $meanwhile) = @_;
    my ($pid) = PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
    $node->kill9;
    wait_until('the postmaster to be gone', sub { !kill 0, $pid });  # its lock files name it
    my $directory = Cwd::realpath($node->data_dir);
    wait_until('its processes to notice', sub { !grep { (readlink($_) // '') eq $directory } glob '/proc/[0-9]*/cwd' });
    $meanwhile->() if $meanwhile;
    return $node->start;
}

# The stderr of psql for the statements, verbose: SQLSTATE, DETAIL, HINT. NOTICEs are not shown.
sub sql_error
{
    my ($node, $sql, %options) = @_;
    my $err = '';
    $node->psql('postgres', "\\set VERBOSITY verbose\nSET client_min_messages = error;\n$sql",
        stderr => \$err, on_error_stop => 0, %options);
    return $err;
}

# Columns of the last run of a migration, as psql prints them.
sub last_run
{
    my ($node, $migration, $columns) = @_;
    return $node->safe_psql('postgres',
        "SELECT $columns FROM redis_migrate.runs WHERE migration = '$migration' ORDER BY run_id DESC LIMIT 1");
}

# A clock for servers that are started with its environment. It is as far ahead, in seconds, as it was last set to be.
#   my $clock = fake_clock('+86400');
#   local %ENV = (%ENV, $clock->environment);
#   $clock->set('+0');
sub fake_clock
{
    my ($offset) = @_;
    my ($library) = glob '/usr/lib/*/faketime/libfaketime.so.1';
    die "libfaketime is missing: scripts/install-packages\n" if !$library;
    my $self = bless { library => $library, file => PostgreSQL::Test::Utils::tempdir() . '/clock' }, 'PrmTools::Clock';
    $self->set($offset);
    return $self;
}

package PrmTools::Clock;

use strict;
use warnings;

sub file { my ($self) = @_; return $self->{file}; }

sub environment
{
    my ($self) = @_;
    return (LD_PRELOAD => $self->{library}, FAKETIME_TIMESTAMP_FILE => $self->{file}, FAKETIME_NO_CACHE => 1, FAKETIME_DONT_FAKE_MONOTONIC => 1);
}

sub set
{
    my ($self, $offset) = @_;
    # Servers read the file whenever they ask for the time: it is never empty.
    PostgreSQL::Test::Utils::append_to_file("$self->{file}.new", "$offset\n");
    rename "$self->{file}.new", $self->{file} or die "$self->{file}: $!";
    return;
}

package PrmTools::Sql;

use strict;
use warnings;

# Whether psql still runs.
sub running
{
    my ($self) = @_;
    delete $self->{pid} if $self->{pid} && waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid};
    return defined $self->{pid};
}

# The output of psql to stdout and stderr so far.
sub output { my ($self) = @_; return map { PostgreSQL::Test::Utils::slurp_file("$self->{file}.$_") } 'out', 'err'; }

# The same when it has ended.
sub finish
{
    my ($self) = @_;
    my $pid = delete $self->{pid};
    waitpid $pid, 0 if $pid;
    return $self->output;
}

sub DESTROY
{
    my ($self) = @_;
    my $status = $?;
    my $pid = delete $self->{pid} or return;
    kill 'KILL', $pid;
    waitpid $pid, 0;
    $? = $status;
    return;
}

package PrmTools::Proxy;

use strict;
use warnings;

use Errno            ();
use IO::Select       ();
use IO::Socket::INET ();
use POSIX            ();
use Socket           qw(AF_UNIX SOCK_STREAM PF_UNSPEC);
use Time::HiRes      ();

my @proxies;

# Forwards connections to 127.0.0.1:$port, in a process of its own. It obeys:
#   pass            forward everything (as at first)
#   hold            forward nothing
#   hold_on TEXT    forward until a request contains TEXT; hold that and all that follows
#   rate BYTES      forward so many bytes of replies per second
#   cut BYTES       forward so many bytes more of a replication stream, and close its connection
#   drop            close all connections
sub new
{
    my ($class, $port) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16, ReuseAddr => 1) or die "listen: $!\n";
    socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!\n";
    $ours->autoflush(1);
    my $pid = fork() // die "fork: $!\n";
    if ($pid == 0)
    {
        close $ours;
        $SIG{TERM} = $SIG{INT} = 'DEFAULT';
        eval { _serve($listener, $theirs, $port) };
        POSIX::_exit(0);
    }
    close $theirs;
    my $self = bless { pid => $pid, control => $ours, port => $listener->sockport, owner => $$ }, $class;
    push @proxies, $self;
    return $self;
}

sub port { my ($self) = @_; return $self->{port}; }
sub host { return '127.0.0.1'; }

# Gives an order and waits until it is in force.
sub tell
{
    my ($self, $order) = @_;
    syswrite $self->{control}, "$order\n" or die "the proxy is gone\n";
    my $answer = readline $self->{control};
    chomp $answer;
    return $answer;
}

# Whether hold_on has met its text.
sub holds { my ($self) = @_; return $self->tell('holds?') eq 'yes'; }

sub _serve
{
    my ($listener, $control, $port) = @_;
    my ($mode, $text, $rate, $holds, $cut) = ('pass', '', 0, 0, undef);
    my ($select, $waiting) = (IO::Select->new($listener, $control), IO::Select->new);
    my (%peer, %is_client, %is_stream, %pending);
    my $allowance = 0;
    my $last = Time::HiRes::time();
    my $close = sub {
        my ($handle) = @_;
        my $other = delete $peer{$handle} or return;
        delete $peer{$other};
        # A later socket may be given the address, and so the key, of one that is gone.
        delete @is_client{ $handle, $other };
        delete @is_stream{ $handle, $other };
        delete @pending{ $handle, $other };
        for my $end ($handle, $other) { $select->remove($end); $waiting->remove($end); close $end; }
        return;
    };
    # Who does not read does not keep the others waiting.
    my $write = sub {
        my ($to) = @_;
        my $written = syswrite $to, $pending{$to};
        if (defined $written) { substr($pending{$to}, 0, $written) = ''; }
        elsif (!$!{EAGAIN}) { $pending{$to} = ''; }
        if ($pending{$to} eq '') { $waiting->remove($to) }
        else { $waiting->add($to) }
        return;
    };
    for (;;)
    {
        my $now = Time::HiRes::time();
        $allowance += ($now - $last) * $rate;
        $allowance = $rate / 10 if $allowance > $rate / 10;
        $last = $now;
        my ($readable, $writable) = IO::Select->select($select, $waiting, undef, 0.02);
        for my $to (@{ $writable // [] }) { $write->($to) if $peer{$to}; }
        for my $handle (@{ $readable // [] })
        {
            if ($handle == $listener)
            {
                my $client = $listener->accept or next;
                my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
                if (!$server) { close $client; next; }
                $_->blocking(0) for $client, $server;
                ($peer{$client}, $peer{$server}, $is_client{$client}) = ($server, $client, 1);
                @pending{ $client, $server } = ('', '');
                $select->add($client, $server);
            }
            elsif ($handle == $control)
            {
                sysread($control, my $order, 1000) or return;
                chomp $order;
                my $answer = 'ok';
                if ($order eq 'holds?') { $answer = $holds ? 'yes' : 'no'; }
                elsif ($order =~ /^cut (\d+)/) { $cut = $1; }
                elsif ($order eq 'drop') { $close->($_) for grep { $peer{$_} && $is_client{$_} } $select->handles; }
                else
                {
                    ($mode, my $argument) = split / /, $order, 2;
                    ($holds, $text, $rate) = ($mode eq 'hold', '', 0);
                    $text = $argument if $mode eq 'hold_on';
                    $rate = $argument if $mode eq 'rate';
                    $allowance = 0;  # what passed freely is no debt
                }
                syswrite $control, "$answer\n";
            }
            elsif ($peer{$handle})
            {
                my $to = $peer{$handle};
                if ($holds || $pending{$to} ne '') { Time::HiRes::usleep($holds ? 4000 : 1000); next; }
                my $from_client = $is_client{$handle};
                my $limit = 65536;
                if ($rate && !$from_client)
                {
                    if ($allowance < 1) { Time::HiRes::usleep(4000); next; }
                    $limit = int $allowance;
                }
                if ($text ne '' && $from_client)
                {
                    recv($handle, my $peek, 65536, Socket::MSG_PEEK());
                    if (index($peek, $text) >= 0) { $holds = 1; next; }
                }
                my $is_cut = defined $cut && !$from_client && $is_stream{$handle};
                $limit = $cut if $is_cut && $cut < $limit;
                if ($is_cut && $cut == 0) { undef $cut; $close->($handle); next; }
                my $bytes = sysread($handle, my $data, $limit);
                if (!$bytes) { $close->($handle); next; }
                $cut -= $bytes if $is_cut;
                $is_stream{$to} = 1 if $from_client && $data =~ /PSYNC/;
                $allowance -= $bytes if !$from_client;
                $pending{$to} = $data;
                $write->($to);
            }
        }
    }
}

END
{
    my $status = $?;
    for my $proxy (@proxies)
    {
        next if $proxy->{owner} != $$;
        kill 'KILL', $proxy->{pid};
        waitpid $proxy->{pid}, 0;
    }
    $? = $status;
}

1;
