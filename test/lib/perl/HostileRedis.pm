# A Redis that answers as a test likes, or as the real one behind it does.
#
#   use HostileRedis;
#   my $hostile = HostileRedis->new($redis->port, sub { my ($count, @command) = @_; return "+OK\r\n" or undef; });
#   $hostile->port
#
# The code is called for each command, in a process of its own; $count is the number of the connection, from 0. For undef
# the command goes to the real Redis, and for a reference, too: it has been done then, but is answered by what is referred
# to. An answer that ends with HostileRedis::CUT is sent without that, and the connection closed; HostileRedis::SILENCE
# is none. After PSYNC or SUBSCRIBE everything passes.

package HostileRedis;

use strict;
use warnings;

use IO::Select       ();
use IO::Socket::INET ();
use POSIX            ();
use Socket           qw(IPPROTO_TCP TCP_NODELAY);

use constant CUT => "\0cut";
use constant SILENCE => "\0silence";

my @started;

sub new
{
    my ($class, $port, $answer) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64, ReuseAddr => 1) or die "listen: $!\n";
    my $pid = fork() // die "fork: $!\n";
    if ($pid == 0)
    {
        $SIG{TERM} = $SIG{INT} = 'DEFAULT';
        $SIG{CHLD} = 'IGNORE';
        for (my $count = 0; my $client = $listener->accept; ++$count)
        {
            next if fork();
            close $listener;
            eval { _serve($client, $port, sub { $answer->($count, @_) }) };
            POSIX::_exit(0);
        }
        POSIX::_exit(0);
    }
    my $self = bless { pid => $pid, port => $listener->sockport, owner => $$ }, $class;
    push @started, $self;
    return $self;
}

sub port { my ($self) = @_; return $self->{port}; }

# Each kind of reply, and what is none.
sub wrong_answers
{
    return (
        "+OK\r\n", "+\xff\n\r\n", ":1\r\n", ":-9223372036854775808\r\n", "\$-1\r\n", "*-1\r\n", "\$0\r\n\r\n", "\$2\r\n17\r\n",
        "*0\r\n", "*2\r\n:1\r\n:2\r\n", "*2\r\n\$1\r\n0\r\n*1\r\n*1\r\n*0\r\n", "*2\r\n*2\r\n:0\r\n:16383\r\n*0\r\n",
        "-ERR no\r\n", "%1\r\n+a\r\n:1\r\n", "_\r\n", ">2\r\n+a\r\n+b\r\n", "HTTP/1.1 400\r\n\r\n", "*2147483647\r\n" x 6,
        "\$9223372036854775807\r\nx", "*2\r\n\$1\r\n0\r\n" . CUT,
    );
}

sub _read
{
    my ($socket, $buffer) = @_;
    my $bytes = sysread $socket, $$buffer, 65536, length $$buffer;
    return $bytes;
}

# The end of the first whole reply in the buffer, or undef.
sub _end
{
    my ($buffer, $at) = @_;
    my $eol = index $$buffer, "\r\n", $at;
    return if $eol < 0;
    my ($type, $number) = (substr($$buffer, $at, 1), substr($$buffer, $at + 1, $eol - $at - 1));
    my $end = $eol + 2;
    if ($type eq '$' && $number >= 0) { $end += $number + 2; return $end <= length $$buffer ? $end : undef; }
    if ($type eq '*') { for (1 .. $number) { $end = _end($buffer, $end) // return; } }
    return $end;
}

# Bytes in both directions, until one side closes.
sub _pass
{
    my ($client, $server) = @_;
    my $both = IO::Select->new($client, $server);
    for (;;)
    {
        for my $from ($both->can_read)
        {
            my $bytes = '';
            _read($from, \$bytes) or return;
            my $to = $from == $client ? $server : $client;
            while (length $bytes) { my $sent = syswrite $to, $bytes or return; substr($bytes, 0, $sent) = ''; }
        }
    }
}

sub _serve
{
    my ($client, $port, $answer) = @_;
    my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or return;
    setsockopt $_, IPPROTO_TCP, TCP_NODELAY, 1 for $client, $server;
    my ($requests, $replies) = ('', '');
    for (;;)
    {
        my $end;
        while (!defined($end = _end(\$requests, 0))) { _read($client, \$requests) or return; }
        my $raw = substr $requests, 0, $end, '';
        my @command;
        my $rest = substr $raw, index($raw, "\r\n") + 2;
        while ($rest =~ s/^\$(\d+)\r\n//) { push @command, substr($rest, 0, $1); substr($rest, 0, $1 + 2) = ''; }
        my $reply = $answer->(@command);
        if (!defined $reply || ref $reply)
        {
            syswrite $server, $raw;
            return _pass($client, $server) if !defined $reply && $command[0] =~ /^P?SYNC$|SUBSCRIBE$/i;
            while (!defined($end = _end(\$replies, 0))) { _read($server, \$replies) or return; }
            my $real = substr $replies, 0, $end, '';
            $reply = ref $reply ? $$reply : $real;
        }
        next if $reply eq SILENCE;
        my $is_cut = length $reply >= length CUT && substr($reply, -length CUT) eq CUT;
        $reply = substr $reply, 0, -length CUT if $is_cut;
        syswrite $client, $reply or return;
        return if $is_cut;
    }
}

END
{
    my $status = $?;
    for my $one (@started)
    {
        next if $one->{owner} != $$;
        kill 'KILL', $one->{pid};
        waitpid $one->{pid}, 0;
    }
    $? = $status;
}

1;
