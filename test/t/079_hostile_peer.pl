# A Redis that answers wrongly, shows the password and leads elsewhere: an error each time, and the server stays up.

use strict;
use warnings;

use HostileRedis;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

my $node = new_node('hostile', conf => 'pg_redis_migrate.reconnect_timeout = 0');
my $redis = start_redis();
$redis->cli('SET', 'k:1', 'value');
$redis->cli('HSET', 'h:1', 'a', 'b');
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $id = 'a' x 40;

sub sql { return join "\n", map { $node->safe_psql('postgres', $_) } @_; }

# The errors of the statements, each printable ASCII.
sub errors
{
    my ($what, @statements) = @_;
    my $err = sql_error($node, join ";\n", @statements);
    unlike($err, qr/[^\n\t\x20-\x7e\xc2-\xf4\x80-\xbf]/, "$what: printable");
    return $err;
}

# Commands get every wrong answer, one connection after the other. (Every command does in source_hostile_test.cpp.)
my @commands = qw(AUTH INFO ROLE TIME SCAN PEXPIRETIME CLUSTER SENTINEL);
my @answers = HostileRedis::wrong_answers();
my $all = @commands * @answers;

sub port_text { my ($port) = @_; return '$' . length($port) . "\r\n$port\r\n"; }

sub slots { my ($host, $port) = @_; return "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n\$" . length($host) . "\r\n$host\r\n:$port\r\n\$40\r\n$id\r\n"; }

my $hostile = HostileRedis->new($redis->port, sub {
    my ($count, @command) = @_;
    my $name = uc $command[0];
    return $answers[ $count / @commands % @answers ] if $name eq $commands[ $count % @commands ];
    return slots('127.0.0.1', $redis->port) if $name eq 'CLUSTER' && uc $command[1] eq 'SLOTS';
    return "*2\r\n\$9\r\n127.0.0.1\r\n" . port_text($redis->port) if $name eq 'SENTINEL';
    return;
});
my $port = $hostile->port;
sql("CREATE SERVER one FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port', command_timeout '1', connect_timeout '1', read_from 'master')",
    "CREATE SERVER many FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port', cluster 'on', command_timeout '1', connect_timeout '1')",
    "CREATE SERVER watched FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinels '127.0.0.1:$port', sentinel_master 'm', command_timeout '1', connect_timeout '1')",
    # The user has nopass: any password will do.
    'CREATE USER MAPPING FOR CURRENT_USER SERVER one OPTIONS (username $$default$$, password $$topsecret$$)',
    'CREATE TABLE item (id bigint PRIMARY KEY, value text)',
    map { ("SELECT redis_migrate.create_migration('$_', '$_')",
           "SELECT redis_migrate.add_mapping('$_', 'm', 'k:{id:int}', 'item', 'SELECT id, value FROM redis_batch', '{id}')") } qw(one many watched));
# A backend that died shows in its session; what was not meant shows as XX000.
sub try_all
{
    my ($what, $statement, $times) = @_;
    my $err = errors($what, ("SET client_min_messages = error", ($statement) x $times));
    return unlike($err, qr/server closed the connection unexpectedly|XX000/, "$what: each an error that is meant");
}

try_all('preflight', q{SELECT count(*) FROM redis_migrate.preflight('one')}, $all);
try_all('preflight of a cluster', q{SELECT count(*) FROM redis_migrate.preflight('many')}, @answers);
try_all('preflight by Sentinels', q{SELECT count(*) FROM redis_migrate.preflight('watched')}, @answers);
try_all('runs', q{CALL redis_migrate.run('one')}, $all);
try_all('runs of a cluster', q{CALL redis_migrate.run('many')}, @answers);
try_all('audits', q{CALL redis_migrate.audit('one')}, $all / 2);
is(sql('SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');

# The same for what verifies, and what writes to Redis.
my @asked = qw(SCAN DUMP GETRANGE EXISTS RESTORE WATCH EXEC ROLE PEXPIRETIME SET);
my $doubtful = HostileRedis->new($redis->port, sub {
    my ($count, @command) = @_;
    return uc $command[0] eq $asked[ $count % @asked ] ? $answers[ $count / @asked % @answers ] : undef;
});
my $sound = $redis->port;
my $doubted = $doubtful->port;
sql("CREATE SERVER two FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$sound', command_timeout '1', connect_timeout '1')",
    'CREATE TABLE copy (LIKE item INCLUDING ALL)', q{SELECT redis_migrate.create_migration('two', 'two')},
    q{SELECT redis_migrate.add_mapping('two', 'm', 'k:{id:int}', 'copy', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')},
    q{CALL redis_migrate.run('two')}, q{SELECT redis_migrate.start_reverse('two')}, "ALTER SERVER two OPTIONS (SET port '$doubted')");
$all = @asked * @answers;
try_all('verifications', q{CALL redis_migrate.verify('two')}, $all / 2);
try_all('restores', q{CALL redis_migrate.restore('two', 'two', replace => true)}, $all / 2);
try_all('comparisons with rows', q{CALL redis_migrate.check_reverse('two')}, @answers);
try_all('reverse feeds', join(";\n", q{UPDATE copy SET value = value || 'x'}, q{CALL redis_migrate.feed_redis('two', until_drained => true)}), $all / 2);
is(sql('SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');

# Commands that are answered by OK, or another status. Any other answer does not count as one.
for my $case ([ RESTORE => q{CALL redis_migrate.restore('two', 'two', replace => true)} ], [ SELECT => q{CALL redis_migrate.run('two', max_keys => 1)} ],
    [ TYPE => q{CALL redis_migrate.check_reverse('two')} ])
{
    my ($command, $statement) = @$case;
    for my $answer (":1\r\n", "\$-1\r\n", "*0\r\n")
    {
        my $odd = HostileRedis->new($redis->port, sub { return uc $_[1] eq $command ? $answer : undef; })->port;
        sql("ALTER SERVER two OPTIONS (SET port '$odd')");
        like(errors($command, $statement), qr/ERROR:  08P01: Redis at \S+ answered $command in an unknown form/, "$command is not answered by OK");
    }
}

# Without transactions nothing of a batch is done.
my $forbidding = HostileRedis->new($redis->port, sub { return uc $_[1] eq 'MULTI' ? "-NOPERM no\r\n" : undef; });
my $forbidden = $forbidding->port;
sql("ALTER SERVER two OPTIONS (SET port '$forbidden')", q{UPDATE copy SET value = 'unsent'});
like(errors('MULTI', q{CALL redis_migrate.feed_redis('two', until_drained => true)}), qr/ERROR:  42501: Redis at \S+ refused command "MULTI"/, 'a feed needs MULTI');
isnt($redis->cli('GET', 'k:1'), 'unsent', 'and writes nothing without');

# A server that shows the password, forges lines of the log and sends invalid UTF-8, wherever it describes itself.
my $words = "7.0 topsecret \\\"topsec\\\" \xff\xfe\nLOG:  forged";
my $said = $words =~ s/\n/\x01/r;
my $info = join "\r\n", "redis_version:$said", "maxmemory_policy:$said", "run_id:$said", "role:$said", 'maxmemory:100000000', 'used_memory:1000',
    'db0:keys=1,expires=0';
my $talker = HostileRedis->new($redis->port, sub {
    my ($count, @command) = @_;
    my $name = uc $command[0];
    return '$' . length($info) . "\r\n$info\r\n" if $name eq 'INFO';
    return "+$said\r\n" if $name eq 'TYPE';
    return "-ERR $said\r\n" if $name eq 'DUMP' || $name eq 'GETRANGE' || $name eq 'CLUSTER';
    return;
});
my $talking = $talker->port;
sql("ALTER SERVER one OPTIONS (SET port '$talking', DROP read_from)");
my $shown = sql(q{SELECT * FROM redis_migrate.preflight('one')});
my $failed = errors('words', q{CALL redis_migrate.run('one')}, q{CALL redis_migrate.audit('one')});
$shown .= sql(q{SELECT r::text FROM redis_migrate.runs r}, q{SELECT r::text FROM redis_migrate.rejects r}, q{SELECT a::text FROM redis_migrate.audits a},
    q{SELECT f::text FROM redis_migrate.audit_families f});
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
for my $place ([ 'rows', $shown ], [ 'errors', $failed ], [ 'the log', $log =~ s/^.*(?:CREATE|ALTER) (?:USER MAPPING|SERVER).*$//mgr ])
{
    unlike($place->[1], qr/topsec/, "the password is not in $place->[0]");
    unlike($place->[1], qr/^LOG:  forged|[\x80-\xff]/m, "no forged line and no raw byte in $place->[0]");
}
like($shown, qr/Redis 7\.0 \*\*\*/, 'what is left of the words is shown');

# A server that answers DUMP in a version of the future: preflight and the run tell that, and values come in pieces.
my $future = HostileRedis->new($redis->port, sub {
    my ($count, @command) = @_;
    return uc $command[0] eq 'DUMP' ? "\$15\r\n\x00\x03new" . pack('v', 999) . "\0" x 8 . "\r\n" : undef;
});
my $ahead = $future->port;
sql("CREATE SERVER future FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$ahead')",
    'CREATE TABLE fields (id text, field text, value text, PRIMARY KEY (id, field))', q{SELECT redis_migrate.create_migration('future', 'future')},
    q{SELECT redis_migrate.add_mapping('future', 'fields', 'h:{id}', 'fields', 'SELECT id, field, value FROM redis_batch', '{id,field}', types => '{hash}', expand => 'elements')});
is(sql(q{SELECT status, detail, hint FROM redis_migrate.preflight('future') WHERE check_name = 'payloads'}),
    'warn|DUMP answers in RDB version 999, which this release does not know: values are read in pieces, which costs Redis more, and those of modules are rejected|Update pg_redis_migrate.',
    'preflight tells a version of DUMP that is not known');
is(() = errors('future', 'SET client_min_messages = warning', q{CALL redis_migrate.run('future')}) =~ /WARNING: .*Redis answers DUMP in RDB version 999, which this release does not know: values are read in pieces/g,
    1, 'and so does the run, once');
is(sql(q{SELECT id, field, value FROM fields}) . last_run($node, 'future', 'rejected, balanced'), '1|a|b0|t', 'which reads hashes in pieces');

# All of it was stored as text that another database can read.
$node->safe_psql('postgres', 'CREATE DATABASE restored');
my $copied = '';
my @count = map { "SELECT '$_', count(*), md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM redis_migrate.$_ AS t" } qw(run reject archived_key audit audit_family);
ok(IPC::Run::run([ 'pg_dump', '-d', $node->connstr('postgres') ], '|',
        [ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored') ], '>', \$copied, '2>&1'), 'pg_dump, and psql into another database')
    or diag($copied);
is($node->safe_psql('restored', $_), $node->safe_psql('postgres', $_), (split /'/)[1] . ' is the same there') for @count;

# Where a cluster and a Sentinel may lead.
for my $host ('169.254.169.254', '10.99.99.99', '0.0.0.0')
{
    my $leader = HostileRedis->new($redis->port, sub {
        my ($count, @command) = @_;
        my $name = uc $command[0];
        return "-ERR unknown command\r\n" if $name eq 'CLUSTER' && uc $command[1] eq 'SHARDS';
        return slots($host, 6379) if $name eq 'CLUSTER';
        return "*2\r\n\$" . length($host) . "\r\n$host\r\n\$4\r\n6379\r\n" if $name eq 'SENTINEL';
        return;
    });
    my $to = $leader->port;
    sql("ALTER SERVER many OPTIONS (SET port '$to')", "ALTER SERVER watched OPTIONS (SET sentinels '127.0.0.1:$to')");
    for my $server ('many', 'watched')
    {
        like(errors($server, qq{CALL redis_migrate.run('$server')}),
            qr/ERROR:  42501: redirect to \Q$host\E:6379 was refused\n.*HINT:.*redirects_to '\Q$host\E'/s, "$server leads to $host: refused");
    }
}
# The option decides by itself.
my $guide = HostileRedis->new($redis->port, sub { my ($count, @command) = @_; return uc $command[0] eq 'SENTINEL' ? "*2\r\n\$9\r\n127.0.0.1\r\n" . port_text($sound) : undef; });
sql("ALTER SERVER watched OPTIONS (SET sentinels '127.0.0.1:" . $guide->port . q{', ADD redirects_to '10.0.0.0/8')});
like(errors('redirects_to', q{CALL redis_migrate.run('watched')}), qr/ERROR:  42501: redirect to 127\.0\.0\.1:$sound was refused/, 'a redirect to an address that the option leaves out: refused');
sql(q{ALTER SERVER watched OPTIONS (SET redirects_to '10.0.0.0/8,127.0.0.1')}, q{CALL redis_migrate.run('watched')});
is(last_run($node, 'watched', 'state'), 'completed', 'to one that it has: followed');

# A server that has more keys than can be counted.
my $boast = join "\r\n", 'redis_version:7.0.0', "run_id:$id", 'role:master', map { "db$_:keys=18446744073709551615,expires=0" } 0 .. 2;
my $boaster = HostileRedis->new($redis->port, sub {
    my ($count, @command) = @_;
    return uc $command[0] eq 'INFO' ? '$' . length($boast) . "\r\n$boast\r\n" : undef;
});
my $boasting = $boaster->port;
sql("CREATE SERVER boaster FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$boasting')",
    q{SELECT redis_migrate.create_migration('boaster', 'boaster')}, q{CALL redis_migrate.run('boaster', workers => 1)});
is(sql(q{SELECT state, keys_estimated FROM redis_migrate.run WHERE migration = 'boaster'}), 'completed|' . (1 << 60), 'an absurd number of keys is cut');

done_testing();
