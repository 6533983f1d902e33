# A Redis that answers one command wrongly while a cutover, a cutback or a reverse feed is under way: an error that says
# so, or it goes on; the next call completes or undoes it; writers have their rights, and nothing that was written is lost.

use strict;
use warnings;

use HostileRedis;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(time usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('hostile', conf => 'pg_redis_migrate.reconnect_timeout = 0');
my $file = PostgreSQL::Test::Utils::tempdir() . '/hostile';
my @answers = (HostileRedis::wrong_answers(), HostileRedis::CUT, "-NOPERM topsecret \xff\r\n", "-READONLY x\r\n", "-LOADING x\r\n", "+QUEUED\r\n",
    "*1\r\n-ERR no\r\n", "\$13\r\n\xfftopsecret\nx\xff\r\n");

# The file names a command, the last connection before that, how many of them are answered rightly, whether it is done all
# the same, and the answer. So live sync, which has its connections, is left alone.
my $is_known = 0;
my $hostile = HostileRedis->new($redis->port, sub {
    my ($count, @command) = @_;
    my $name = uc $command[0];
    $name .= ' ' . uc $command[1] if $name =~ /^(ACL|CLIENT|MEMORY)$/;
    append_to_file("$file.connections", "$count\n") if !$is_known++;
    open my $told, '<', $file or return;  # which may go at any moment
    chomp(my ($wanted, $last, $spared, $is_done, $number) = <$told>);
    return if $name ne $wanted || $count <= $last;
    append_to_file("$file.seen", 'x');
    return if -s "$file.seen" <= $spared;
    return $is_done ? \$answers[$number] : $answers[$number];
});
my $port = $hostile->port;
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
$redis->cli('ACL', 'SETUSER', 'migrator', 'on', '>topsecret', '~*', '&*', '+@all');
$redis->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all');
my $rules = $redis->cli('ACL', 'LIST');
rows(qq{CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
    CREATE USER MAPPING FOR PUBLIC SERVER live OPTIONS (username 'migrator', password 'topsecret')});
create_live($node);
$redis->cli_lines(join '', map { "SET s:$_ $_\n" } 1 .. 9);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
$redis->cli('APPEND', 's:1', '+');  # such keys are read again
is(wait_for($node) . differences($node, $redis), '', 'with all its connections');
my $started = rows('SELECT pg_postmaster_start_time()');

# Notes that the case went wrong.
my ($case, @wrong);
sub wrong { my ($what) = @_; push @wrong, "$case: $what"; return; }

# The error of the statements, and the state of the family afterwards.
sub run_sql
{
    my ($sql) = @_;
    my ($out, $err) = ('', '');
    $node->psql('postgres', "\\set VERBOSITY verbose\nSET client_min_messages = error;\n$sql;\nSELECT state FROM redis_migrate.families WHERE pattern = 's:{id}'",
        stdout => \$out, stderr => \$err, on_error_stop => 0);
    return ($err, (split /\n/, $out)[-1]);
}

# Calls it while the command is answered wrongly.
sub try
{
    my ($sql, $command, $spared, $is_done, $number) = @_;
    unlink "$file.seen";
    my $last = (sort { $a <=> $b } split /\n/, slurp_file("$file.connections"))[-1];
    append_to_file("$file.new", join("\n", $command, $last, $spared, $is_done ? 1 : 0, $number));
    rename "$file.new", $file or die;
    my $began = time;
    my ($err, $state) = run_sql($sql);
    unlink $file;
    wrong('it took ' . (time - $began) . ' s') if time - $began > 15;
    wrong($err) if $err =~ /XX000|closed the connection unexpectedly|topsec|[^\n\t\x20-\x7e]/;
    return ($err, $state);
}

# Runs SQL that must not fail. Returns the state.
sub soundly
{
    my ($sql) = @_;
    my ($err, $state) = run_sql($sql);
    wrong("$sql: $err") if $err ne '';
    return $state;
}

sub as_app { my (@command) = @_; return eval { $redis->cli('--user', 'app', '--pass', 'app', '--no-auth-warning', @command) } // $@; }

# One answer after the other for the commands: each has one wrong answer, and those that have an effect have several.
my $number = 0;
sub each_case
{
    my ($what, $run, @commands) = @_;
    for my $one (@commands)
    {
        my ($command, $spared, $times) = @$one;
        for (1 .. $times // 1)
        {
            my $answer = 7 * $number % @answers;
            my $is_done = $number++ % 2;
            $case = "$what, $command after $spared " . ($is_done ? 'done' : 'not done') . ', answered by ' . ($answers[$answer] =~ s/([^\x20-\x7e])/sprintf '\\x%02x', ord $1/ger);
            $run->($command, $spared, $is_done, $answer);
        }
    }
    my @found = splice @wrong;
    return ok(!@found, $what) || diag(join "\n", @found);
}

my $cutover = q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', compare_keys => 5, max_pause => '20 s', force => true)};
my $cutback = q{CALL redis_migrate.cutback('live', pattern => 's:{id}')};
my $feed = q{CALL redis_migrate.feed_redis('live', until_drained => true)};
my $undo = q{CALL redis_migrate.undo_cutover('live')};
my $value = 0;

# The family is Redis', and the application writes there.
sub is_redis_again
{
    my ($state) = @_;
    wrong("state $state") if $state ne 'redis';
    my $began = time;
    my $said = as_app('SET', 's:app', ++$value);
    wrong("the application: $said") if $said ne 'OK';
    wrong('the pause lasts') if time - $began > 8;
    my $now = $redis->cli('ACL', 'LIST');
    wrong("rights: $now") if $now ne $rules;
    return;
}

each_case('cutovers', sub {
    my ($err, $state) = try($cutover, @_);
    $redis->cli('CLIENT', 'UNPAUSE') if $_[0] eq 'CLIENT UNPAUSE';  # the pause ends by itself, which takes long
    wrong('no error, and no cutover') if $err eq '' && $state ne 'postgres';
    wrong('no fence') if $state eq 'postgres' && as_app('SET', 's:app', 'late') !~ /NOPERM/;
    $state = soundly($undo);
    $state = soundly($cutback =~ s/\)$/, discard_changes => true)/r) if $state eq 'postgres';
    is_redis_again($state);
}, [ 'AUTH', 0 ], [ 'ROLE', 0 ], [ 'INFO', 0 ], [ 'DISCARD', 0 ], [ 'MULTI', 0 ], [ 'ACL WHOAMI', 1 ], [ 'ACL GETUSER', 1 ], [ 'ACL SETUSER', 1, 4 ], [ 'ACL GETUSER', 3 ], [ 'CLIENT PAUSE', 1, 2 ],
    [ 'CLIENT UNPAUSE', 1, 3 ], [ 'RANDOMKEY', 0 ], [ 'SELECT', 0 ], [ 'EXEC', 2 ], [ 'TYPE', 0 ]);
is(wait_for($node) . differences($node, $redis), '', 'the tables follow Redis');

# Rows that are changed here come to Redis.
sub is_fed
{
    my $rows = rows(q{SELECT string_agg(id || '=' || value, ' ' ORDER BY id) FROM strings WHERE id < 'a'});
    my @values = split /\n/, $redis->cli('MGET', map { "s:$_" } 1 .. 9), -1;
    my $keys = join ' ', map { $values[ $_ - 1 ] eq '' ? () : "$_=$values[ $_ - 1 ]" } 1 .. 9;
    wrong("rows $rows, keys $keys") if $rows ne $keys;
    return;
}
sub change { return soundly('DELETE FROM strings WHERE id = (SELECT min(id) FROM strings); UPDATE strings SET value = ' . ++$value . q{ WHERE id < '5'; INSERT INTO strings SELECT i, 'new' FROM generate_series(1, 9) AS i ON CONFLICT DO NOTHING}); }

$case = 'reverse feeds';
soundly("$cutover;\nSELECT redis_migrate.start_reverse('live', 's:{id}');\n$feed");
each_case('reverse feeds', sub {
    change();
    try($feed, @_);
    soundly($feed);
    is_fed();
}, [ 'WATCH', 0 ], [ 'GET', 0 ], [ 'MULTI', 0 ], [ 'MULTI', 1 ], [ 'SET', 0 ], [ 'SET', 2 ], [ 'UNLINK', 0 ], [ 'EXEC', 1, 4 ], [ 'SELECT', 1 ]);
# Live sync cannot tell whose writes without MULTI are.
is(wait_for($node), '', 'live sync');
rows(q{SELECT redis_migrate.settle_late_writes('live')});

each_case('cutbacks', sub {
    change();
    try($cutback, @_);
    my $state = soundly($undo);
    $state = soundly($cutback) if $state eq 'postgres';
    is_redis_again($state);
    is_fed();
    soundly($cutover);
}, [ 'SET', 0 ], [ 'EXEC', 1, 2 ], [ 'INFO', 0 ], [ 'ACL GETUSER', 0 ], [ 'ACL SETUSER', 0, 3 ]);

is(rows('SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');
my $shown = rows(q{SELECT c::text FROM redis_migrate.cutover AS c}) . rows(q{SELECT f::text FROM redis_migrate.fenced_user AS f}) . rows(q{SELECT f::text FROM redis_migrate.reverse_feeds AS f}) .
    slurp_file($node->logfile) =~ s/^.*(?:CREATE SERVER|CREATE USER MAPPING).*\n(?:\t.*\n)*//mgr;
unlike($shown, qr/topsec|[^\n\t\x20-\x7e]/, 'no password and no byte of the peer in what is kept and logged');

done_testing();
