# Values in pieces: too large for one reply, or where DUMP is forbidden; and a Redis that is nearly full, from which
# reading must not evict keys.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib/perl";

use IO::Socket::UNIX ();
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('main', conf => 'max_wal_size = 4GB');

# A migration of everything in a Redis that keeps it in the archive.
sub archive
{
    my ($name, $redis, $user) = @_;
    my ($host, $port) = ($redis->host, $redis->port);
    $user = $user ? "OPTIONS ($user)" : '';
    $node->safe_psql('postgres', qq{
        CREATE SERVER $name FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$host', port '$port');
        CREATE USER MAPPING FOR CURRENT_USER SERVER $name $user;
        SELECT redis_migrate.create_migration('$name', '$name')});
}

sub stat_of
{
    my ($redis, $field) = @_;
    return $redis->cli('INFO') =~ /^$field:(\d+)/m ? $1 : die "no $field\n";
}

sub calls { my ($redis, $command) = @_; return $redis->cli('INFO', 'commandstats') =~ /^cmdstat_$command:calls=(\d+)/m ? $1 : 0; }

# Values of several megabytes of every type, by reply of at most 100 kB.
my $redis = start_redis();
$redis->cli('EVAL', q{
    local noise = {} for i = 1, 1024 do noise[i] = string.char(math.random(32, 126)) end noise = table.concat(noise)
    for i = 1, 20000 do
        local v = string.sub(noise, 1 + i % 900, 100 + i % 900) .. i
        redis.call('APPEND', 'large:string', v) redis.call('RPUSH', 'large:list', v) redis.call('SADD', 'large:set', v)
        redis.call('HSET', 'large:hash', 'field ' .. i, v) redis.call('ZADD', 'large:zset', i / 3, v)
        redis.call('XADD', 'large:stream', i .. '-0', 'f', v)
    end
    redis.call('XGROUP', 'CREATE', 'large:stream', 'g', '0')}, 0);
$redis->cli('PEXPIREAT', 'large:hash', '4102444800123');
$redis->cli_lines("XREADGROUP GROUP g c COUNT 3 STREAMS large:stream >\n");
archive('large', $redis);
$node->safe_psql('postgres', q{SET pg_redis_migrate.max_reply_size = '100kB'; CALL redis_migrate.run('large')});
is(last_run($node, 'large', 'state, read, archived, evicted, balanced'), 'completed|6|6|0|t', 'values of every type are read in pieces');
is(calls($redis, 'dump'), 0, 'and none by DUMP');
cmp_ok(calls($redis, 'hscan'), '>', 15, 'in many pieces');

# Restoring their archived payloads into another Redis yields the same values.
my $copy = start_redis();
my $rows = $node->safe_psql('postgres', q{SELECT key, encode(payload, 'hex') FROM redis_migrate.archive WHERE migration = 'large'});
for my $row (split /\n/, $rows)
{
    my ($key, $hex) = split /\|/, $row;
    my $file = PostgreSQL::Test::Utils::tempdir() . '/restore';
    open my $handle, '>:raw', $file or die;
    my $payload = pack 'H*', $hex;
    printf $handle "*4\r\n\$7\r\nRESTORE\r\n\$%d\r\n%s\r\n\$1\r\n0\r\n\$%d\r\n%s\r\n", length $key, $key, length $payload, $payload;
    close $handle;
    system("redis-cli -s " . $copy->socket . " --pipe < $file > /dev/null") == 0 or die "restore of $key\n";
    my %digest = (
        'large:string' => q{return redis.sha1hex(redis.call('GET', KEYS[1]))},
        'large:list'   => q{return redis.sha1hex(table.concat(redis.call('LRANGE', KEYS[1], 0, -1), ','))},
        'large:set'    => q{local m = redis.call('SMEMBERS', KEYS[1]) table.sort(m) return redis.sha1hex(table.concat(m, ','))},
        'large:hash'   => q{local h, m = redis.call('HGETALL', KEYS[1]), {} for i = 1, #h, 2 do m[#m + 1] = h[i] .. '=' .. h[i + 1] end
            table.sort(m) return redis.sha1hex(table.concat(m, ','))},
        'large:zset'   => q{return redis.sha1hex(table.concat(redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), ','))},
        'large:stream' => q{local t = {} for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do t[#t + 1] = e[1] .. e[2][2] end
            local p = redis.call('XPENDING', KEYS[1], 'g') return redis.sha1hex(table.concat(t, ',')) .. p[1] .. p[2] .. p[3]});
    my ($expected) = $redis->cli('EVAL', $digest{$key}, 1, $key);
    is($copy->cli('EVAL', $digest{$key}, 1, $key), $expected, "$key can be restored");
}

# The same elements through a mapping.
$node->safe_psql('postgres', q{
    CREATE TABLE element (key text, field text, v text, PRIMARY KEY (key, field));
    SELECT redis_migrate.add_mapping('large', 'hash', 'large:hash', 'element', 'SELECT key, field, value AS v FROM redis_batch',
        key_columns => '{key,field}', expand => 'elements');
    SET pg_redis_migrate.max_reply_size = '100kB';
    CALL redis_migrate.run('large', mapping => 'hash')});
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT field), min(length(v)) FROM element}), '20000|20000|101', 'mappings see no difference');

# A key that is always written to is rejected by name; all others are there.
my $writer = fork() // die "fork: $!\n";
if ($writer == 0)
{
    open STDOUT, '>', '/dev/null';
    exec('redis-cli', '-s', $redis->socket, '-r', '-1', 'HSET', 'large:hash', 'field 1', 'again') or POSIX::_exit(127);
}
$node->safe_psql('postgres', q{SET pg_redis_migrate.max_reply_size = '100kB'; CALL redis_migrate.run('large')});
kill 'KILL', $writer;
waitpid $writer, 0;
is(last_run($node, 'large', 'state, read, rejected, archived, balanced'), 'completed|6|1|5|t', 'a key that always changes is counted');
is($node->safe_psql('postgres', q{SELECT key, rule, payload IS NULL FROM redis_migrate.rejects WHERE migration = 'large'}), 'large:hash|changed_while_read|t',
    'as changed_while_read, without half a value');

# DUMP forbidden, as on some services.
$redis->cli('ACL', 'SETUSER', 'poor', 'on', '>pw', '~*', '+@all', '-dump');
archive('nodump', $redis, "username 'poor', password 'pw'");
is($node->safe_psql('postgres', q{SELECT status FROM redis_migrate.preflight('nodump') WHERE check_name = 'right to DUMP'}), 'warn', 'preflight: DUMP can be done without');
$node->safe_psql('postgres', q{CALL redis_migrate.run('nodump')});
is(last_run($node, 'nodump', 'state, read, archived, balanced'), 'completed|6|6|t', 'and so it is');

# The rights that docs/security.md names are enough for everything.
$redis->cli('ACL', 'SETUSER', 'migrator', 'on', '>s3cret', 'resetkeys', '%R~*', 'resetchannels', split / /,
    '-@all +select +scan +getrange +dump +pexpiretime +memory|usage +info +time '
      . '+type +strlen +llen +lrange +scard +sscan +hlen +hscan +zcard +zrevrange +xrange +xinfo +xpending +watch +multi +exec');
archive('least', $redis, "username 'migrator', password 's3cret'");
is($node->safe_psql('postgres', q{SELECT * FROM redis_migrate.preflight('least') WHERE status <> 'ok'}), '', 'preflight is content with the least rights');
my ($dumps, $watches) = (calls($redis, 'dump'), calls($redis, 'watch'));
$node->safe_psql('postgres', q{SET pg_redis_migrate.max_reply_size = '100kB'; CALL redis_migrate.run('least')});
is(last_run($node, 'least', 'state, read, archived, balanced'), 'completed|6|6|t', 'and a run reads everything with them');
is(calls($redis, 'dump'), $dumps, 'in pieces');
cmp_ok(calls($redis, 'watch'), '>', $watches, 'that are watched');

# A nearly full cache. Replies that wait to be read count towards maxmemory.
sub fill
{
    my ($full, $room) = @_;
    $full->cli('EVAL', q{local i = redis.call('DBSIZE')
        local block = string.rep('x', 1000)
        while tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)')) < tonumber(ARGV[1]) do
            for _ = 1, 50 do i = i + 1 redis.call('SET', 'small:' .. i, block .. i) end
        end}, 0, stat_of($full, 'maxmemory') - $room);
}

my $full = start_redis(args => [ '--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru', '--rdbcompression', 'no' ]);
$full->cli('EVAL', q{local block = string.rep('0123456789', 1000)
    redis.call('SET', 'large:string', string.rep(block, 2000))
    for i = 1, 1500 do redis.call('RPUSH', 'large:list', i .. block) redis.call('HSET', 'large:hash', i, block) end}, 0);
fill($full, 3 * 1024 * 1024);
$full->cli('ACL', 'SETUSER', 'poor', 'on', '>pw', '~*', '+@all', '-dump');
archive('brim', $full);
archive('brim_poor', $full, "username 'poor', password 'pw'");
is($node->safe_psql('postgres', q{SELECT status FROM redis_migrate.preflight('brim') WHERE check_name = 'memory'}), 'fail', 'preflight fails on thin headroom');
my ($keys, $evicted) = ($full->cli('DBSIZE'), stat_of($full, 'evicted_keys'));
is($evicted, 0, 'nothing has been evicted yet');
for my $case ([ 'brim', '', 'with DUMP' ], [ 'brim', "SET pg_redis_migrate.max_reply_size = '1000MB'; SET pg_redis_migrate.bytes_in_flight = '1GB';", 'with replies of any size allowed' ],
    [ 'brim_poor', '', 'with pieces alone' ])
{
    my ($migration, $settings, $what) = @$case;
    $node->safe_psql('postgres', "$settings CALL redis_migrate.run('$migration')");
    is(stat_of($full, 'evicted_keys'), 0, "a run against a nearly full server evicts nothing, $what");
    is(last_run($node, $migration, 'read, archived, evicted, balanced'), "$keys|$keys|0|t", 'and reads every key');
}
# The test can fail: a client that asks for the same keys carelessly makes Redis evict.
my $careless = IO::Socket::UNIX->new(Peer => $full->socket) or die "connect: $!\n";
syswrite $careless, "DUMP large:string\r\nDUMP large:list\r\nPING\r\n";
wait_until('an eviction', sub { stat_of($full, 'evicted_keys') > 0 });
ok(1, 'a client that asks for two large values at once makes it evict keys');
close $careless;

# Full.
$full->cli('CONFIG', 'SET', 'maxmemory', stat_of($full, 'used_memory') + 600_000);
$evicted = stat_of($full, 'evicted_keys');
my $err = sql_error($node, q{CALL redis_migrate.run('brim')});
like($err, qr/ERROR:  53000: Redis at \S+ has too little memory left to be read\nDETAIL:  It is \d+ kB below maxmemory/, 'a run refuses to read from a full cache');
is(stat_of($full, 'evicted_keys'), $evicted, 'and evicts nothing');
my ($command) = $err =~ /HINT: .*: (CONFIG SET maxmemory \d+)\.$/m;
$full->cli(split / /, $command);
is(sql_error($node, q{CALL redis_migrate.run('brim')}), '', 'the command that the hint names fixes it');
is(stat_of($full, 'evicted_keys'), $evicted, 'and still nothing is evicted');

# Evictions that happen during a run are reported.
my $proxy = PrmTools::Proxy->new($full->port);
$node->safe_psql('postgres', 'ALTER SERVER brim OPTIONS (SET port \'' . $proxy->port . '\')');
$proxy->tell('hold_on large:new');
$full->cli('SET', 'large:new', 'x' x 1000);
my $call = start_sql($node, q{CALL redis_migrate.run('brim');});
wait_until('the reading of a key', sub { $proxy->holds });
$full->cli('CONFIG', 'SET', 'maxmemory', stat_of($full, 'used_memory') - 5_000_000);
$full->cli('PING');
cmp_ok(stat_of($full, 'evicted_keys'), '>', $evicted, 'Redis evicts keys during a run');
$proxy->tell('pass');
(undef, $err) = $call->finish;
like($err, qr/WARNING: .*Redis evicted \d+ keys while it was read/, 'the run says so') or diag($err);
cmp_ok(last_run($node, 'brim', 'evicted'), '>', 0, 'and notes it');

# CLIENT NO-TOUCH, new in Redis 7.2: without it reading makes keys look used.
my $idle = start_redis();
my ($major, $minor) = $idle->cli('INFO', 'server') =~ /^redis_version:(\d+)\.(\d+)/m;
for my $key (qw(short list))
{
    $idle->cli($key eq 'list' ? ('RPUSH', 'from', 'a', 'b') : ('SET', 'from', 'value'));
    $idle->cli('EVAL', q{redis.call('RESTORE', KEYS[2], 0, redis.call('DUMP', KEYS[1]), 'IDLETIME', 10000) redis.call('DEL', KEYS[1])}, 2, 'from', $key);
}
archive('idle', $idle);
$proxy = PrmTools::Proxy->new($idle->port);
$node->safe_psql('postgres', 'ALTER SERVER idle OPTIONS (SET port \'' . $proxy->port . '\')');
my $reads = calls($idle, 'dump') + calls($idle, 'getrange');
$proxy->tell("hold_on NO-TOUCH\r\n\$2\r\nON");
$call = start_sql($node, q{CALL redis_migrate.run('idle')});
wait_until('a run asks for CLIENT NO-TOUCH', sub { $proxy->holds });
is(calls($idle, 'dump') + calls($idle, 'getrange'), $reads, 'CLIENT NO-TOUCH is asked for before any key is read');
$proxy->tell('pass');
$call->finish;
is(last_run($node, 'idle', 'read, archived'), '2|2', 'a server without CLIENT NO-TOUCH is read all the same');
my $has_no_touch = $major > 7 || ($major == 7 && $minor >= 2);
is($idle->cli('OBJECT', 'IDLETIME', $_) >= 10000 ? 1 : 0, $has_no_touch ? 1 : 0, "idle time of $_: kept from Redis 7.2 on, lost before") for qw(short list);

done_testing();
