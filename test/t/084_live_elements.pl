# Live sync of hashes, sets, sorted sets, streams and lists whose elements have rows of their own: random commands of every
# kind, alone, in transactions and in scripts, and the ends of processes between them. At the end each row is compared
# with what redis-server itself says. Changes of single elements are stored without reading their keys again.

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

use constant KEYS => 12;

my $rounds = $ENV{PRM_LIVE_ROUNDS} // 4;
my $seed = $ENV{PRM_LIVE_SEED} // time;
srand $seed;
note("PRM_LIVE_SEED=$seed");

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '64mb' ]);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('elements', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on\npg_redis_migrate.live_delete_limit = 100");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $proxy->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
$node->safe_psql('postgres', q{
    CREATE TABLE fields (id text, field text, value text NOT NULL, expires timestamptz, PRIMARY KEY (id, field));
    CREATE TABLE numbers (id text, field text, n int NOT NULL CHECK (n < 1000), PRIMARY KEY (id, field));
    CREATE TABLE lengths (id text, field bytea, bytes int NOT NULL, PRIMARY KEY (id, field));
    CREATE TABLE members (id text, member bytea, PRIMARY KEY (id, member));
    CREATE TABLE scores (id text, member text, score float8, PRIMARY KEY (id, member));
    CREATE TABLE either (id text, member text, score float8, type text, PRIMARY KEY (id, member));
    CREATE TABLE entries (id text, entry_id text, fields jsonb, PRIMARY KEY (id, entry_id));
    CREATE TABLE items (id text, position bigint, value text, PRIMARY KEY (id, position));
    CREATE TABLE queued (id text, ordinal bigint, value text, PRIMARY KEY (id, ordinal));
    CREATE TABLE parts (id text, field text, value text, PRIMARY KEY (id, field));
    CREATE TABLE wholes (id text PRIMARY KEY, fields jsonb);
    CREATE TABLE timed (id text, field text, value text, expires_at timestamptz, PRIMARY KEY (id, field));
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'fields', 'h:{id}', 'fields', 'SELECT id, field, value, field_expires_at AS expires FROM redis_batch', '{id,field}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('live', 'numbers', 'h:{id}', 'numbers', $$SELECT id, field, value::int AS n FROM redis_batch WHERE field LIKE 'n%'$$, '{id,field}', databases => '{0}', expand => 'elements', no_row => 'skip');
    SELECT redis_migrate.add_mapping('live', 'lengths', 'h:{id}', 'lengths', 'SELECT id, field_bytes AS field, length(value_bytes) AS bytes FROM redis_batch WHERE length(value_bytes) > 1', '{id,field}', databases => '{0}', expand => 'elements', no_row => 'skip', exclusive => true);
    SELECT redis_migrate.add_mapping('live', 'members', 's:{id}', 'members', 'SELECT id, member_bytes AS member FROM redis_batch', '{id,member}', databases => '{0}', expand => 'elements', types => '{set}');
    SELECT redis_migrate.add_mapping('live', 'scores', 'z:{id}', 'scores', 'SELECT id, member, score FROM redis_batch', '{id,member}', databases => '{0}', expand => 'elements', exclusive => true);
    SELECT redis_migrate.add_mapping('live', 'either', 'y:{id}', 'either', 'SELECT id, member, score, type FROM redis_batch', '{id,member}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('live', 'entries', 'x:{id}', 'entries', 'SELECT id, entry_id, json AS fields FROM redis_batch', '{id,entry_id}', databases => '{0}', expand => 'elements', no_row => 'skip');
    SELECT redis_migrate.add_mapping('live', 'items', 'l:{id}', 'items', 'SELECT id, position, value FROM redis_batch', '{id,position}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('live', 'queued', 'l:{id}', 'queued', 'SELECT id, ordinal, value FROM redis_batch', '{id,ordinal}', databases => '{0}', expand => 'elements', exclusive => true);
    SELECT redis_migrate.add_mapping('live', 'parts', 'w:{id}', 'parts', 'SELECT id, field, value FROM redis_batch', '{id,field}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('live', 'wholes', 'w:{id}', 'wholes', 'SELECT id, json AS fields FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'timed', 't:{id}', 'timed', 'SELECT id, field, value, expires_at FROM redis_batch', '{id,field}', databases => '{0}', expand => 'elements');
});

# The lines that the tables must have, by redis-server. A key with a number that is too large is rejected, see below.
my $script = lua_expiry() . q{
    local function field_expiry(key, field)
        local at = redis.pcall('HPEXPIRETIME', key, 'FIELDS', 1, field)
        return at[1] and at[1] > 0 and string.format('%d', at[1]) or ''
    end
    local lines = {}
    local function add(...) table.insert(lines, table.concat({...}, ' ')) end
    for _, key in ipairs(redis.call('KEYS', '*')) do
        local kind, expiry = redis.call('TYPE', key).ok, expiry(key)
        local family = string.sub(key, 1, 2)
        if kind == 'hash' then
            local all = redis.call('HGETALL', key)
            for i = 1, #all, 2 do
                local field, value = all[i], all[i + 1]
                add(key, field, value, family == 't:' and expiry or family == 'h:' and field_expiry(key, field) or '')
                if family == 'h:' and string.sub(field, 1, 1) == 'n' then add('number', key, field, value) end
                if family == 'h:' and #value > 1 then add('length', key, field, #value) end
                if family == 'w:' then add('whole', key, field, value) end
            end
        elseif kind == 'set' then
            for _, member in ipairs(redis.call('SMEMBERS', key)) do add(key, member, family == 'y:' and 'set' or '') end
        elseif kind == 'zset' then
            local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
            for i = 1, #all, 2 do add(key, all[i], all[i + 1], family == 'y:' and 'zset' or '') end
        elseif kind == 'stream' then
            for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do add(key, entry[1], entry[2][1] .. '=' .. entry[2][2]) end
        elseif kind == 'list' then
            for i, value in ipairs(redis.call('LRANGE', key, 0, -1)) do add(key, i - 1, value) add('ordinal', key, i * 1024, value) end
        end
    end
    return lines
};
my $rows = q{
    SELECT 'h:' || id || ' ' || field || ' ' || value || ' ' || coalesce(((extract(epoch FROM expires) * 1000)::bigint)::text, '') FROM fields
    UNION ALL SELECT 'number h:' || id || ' ' || field || ' ' || n FROM numbers
    UNION ALL SELECT 'length h:' || id || ' ' || convert_from(field, 'UTF8') || ' ' || bytes FROM lengths
    UNION ALL SELECT 's:' || id || ' ' || convert_from(member, 'UTF8') || ' ' FROM members
    UNION ALL SELECT 'z:' || id || ' ' || member || ' ' || score || ' ' FROM scores
    UNION ALL SELECT 'y:' || id || ' ' || member || ' ' || CASE WHEN type = 'zset' THEN score || ' ' ELSE '' END || type FROM either
    UNION ALL SELECT 'x:' || id || ' ' || entry_id || ' ' || (fields #>> '{}') FROM (SELECT id, entry_id, to_jsonb((SELECT key || '=' || value FROM jsonb_each_text(fields) LIMIT 1)) AS fields FROM entries) AS e
    UNION ALL SELECT 'l:' || id || ' ' || position || ' ' || value FROM items
    UNION ALL SELECT 'ordinal l:' || id || ' ' || ordinal || ' ' || value FROM queued
    UNION ALL SELECT 'w:' || id || ' ' || field || ' ' || value || ' ' FROM parts
    UNION ALL SELECT 'whole w:' || id || ' ' || f.key || ' ' || f.value FROM wholes, jsonb_each_text(fields) AS f
    UNION ALL SELECT 't:' || id || ' ' || field || ' ' || value || ' ' || coalesce((extract(epoch FROM expires_at) * 1000)::bigint, -1) FROM timed
};
sub rows_differ
{
    return compare_lines([ split /\n/, $redis->cli('EVAL', $script, 0) ], [ split /\n/, $node->safe_psql('postgres', $rows) ]);
}
sub problem { return wait_for($node) . rows_differ(); }
sub read_again { return live($node, 'keys_read_again'); }

my $last_id = 0;
sub commands
{
    my ($count) = @_;
    my $n = sub { return int rand $_[0] };
    my $hash = sub { return (qw(h: h: w: t:))[ $n->(4) ] . $n->(KEYS) };
    my $field = sub { return (qw(a b c nu nv))[ $n->(5) ] };
    my $value = sub { return 1 + $n->(99) };
    my $member = sub { return 'm' . $n->(7) };
    my $y = sub { return 'y:' . $n->(KEYS) };
    my @kinds = (
        sub { return "HSET " . $hash->() . ' ' . $field->() . ' ' . $value->() },
        sub { return "HSET " . $hash->() . ' ' . $field->() . ' ' . $value->() . ' ' . $field->() . ' ' . $value->() . ' ' . $field->() . ' ' . $value->() },
        sub { return "HMSET " . $hash->() . ' ' . $field->() . ' ' . $value->() },
        sub { return "HSETNX " . $hash->() . ' ' . $field->() . ' ' . $value->() },
        sub { return "HINCRBY " . $hash->() . ' ' . $field->() . ' 1' },
        sub { return "HDEL " . $hash->() . ' ' . $field->() },
        sub { return "HDEL " . $hash->() . ' a b c nu nv' },
        sub { return "DEL " . $hash->() },
        sub { my $key = $hash->(); return "DEL $key\nHSET $key " . $field->() . ' ' . $value->() },
        sub { my $key = $hash->(); return "MULTI\nDEL $key\nHSET $key " . $field->() . ' ' . $value->() . "\nHDEL $key " . $field->() . "\nEXEC" },
        sub { return "EXPIRE " . $hash->() . ' 5000' },
        sub { return "PERSIST " . $hash->() },
        sub { return "PEXPIRE " . $hash->() . ' ' . (1 + $n->(50)) },
        sub { my $kind = (qw(h: w: t:))[ $n->(3) ]; return "HSET $kind" . "0 a 1\nRENAME $kind" . '0 ' . $kind . (1 + $n->(KEYS - 1)) },
        sub { return 'COPY h:' . $n->(KEYS) . ' h:' . $n->(KEYS) . ' REPLACE' },
        sub { return 'EVAL "redis.call(\'HSET\', KEYS[1], \'a\', 7); redis.call(\'HDEL\', KEYS[1], \'b\'); redis.call(\'SADD\', KEYS[2], \'m1\', \'m2\'); redis.call(\'HINCRBY\', KEYS[1], \'a\', 1)" 2 ' . $hash->() . ' s:' . $n->(KEYS) },
        # Of newer servers.
        sub { return "HSETEX " . $hash->() . ' PX ' . (5_000_000 + $n->(1000)) . ' FIELDS 2 ' . $field->() . ' ' . $value->() . ' ' . $field->() . ' ' . $value->() },
        sub { return "HSETEX " . $hash->() . ' KEEPTTL FIELDS 1 ' . $field->() . ' ' . $value->() },
        sub { return "HSETEX " . $hash->() . ' FXX FIELDS 1 ' . $field->() . ' ' . $value->() },
        sub { return "HGETEX " . $hash->() . ' EX ' . (5000 + $n->(1000)) . ' FIELDS 1 ' . $field->() },
        sub { return "HGETDEL " . $hash->() . ' FIELDS 2 ' . $field->() . ' ' . $field->() },
        sub { return "HPEXPIRE " . $hash->() . ' ' . (5_000_000 + $n->(1000)) . ' GT FIELDS 2 ' . $field->() . ' ' . $field->() },
        sub { return "HPEXPIREAT " . $hash->() . ' 1 FIELDS 1 ' . $field->() },
        sub { return "HPERSIST " . $hash->() . ' FIELDS 2 ' . $field->() . ' ' . $field->() },
        sub { return "HINCRBYFLOAT " . $hash->() . ' nv 1' },
        sub { return "XADD x:idmp IDMP p " . $n->(20) . ' * f ' . $value->() },
        sub { return "XDELEX x:" . $n->(KEYS) . ' ' . (qw(KEEPREF DELREF ACKED))[ $n->(3) ] . ' IDS 10 ' . join(' ', map { (1 + $n->($last_id + 1)) . '-1' } 1 .. 10) },
        sub { return "XACKDEL x:" . $n->(KEYS) . ' g IDS 10 ' . join(' ', map { (1 + $n->($last_id + 1)) . '-1' } 1 .. 10) },
        sub { return "XADD x:" . $n->(KEYS) . ' DELREF MAXLEN 5 ' . ++$last_id . '-1 f ' . $value->() },
        sub { return "SADD s:" . $n->(KEYS) . ' ' . $member->() . ' ' . $member->() },
        sub { return "SREM s:" . $n->(KEYS) . ' ' . $member->() . ' ' . $member->() },
        sub { return "SPOP s:" . $n->(KEYS) },
        sub { return "SMOVE s:" . $n->(KEYS) . ' s:' . $n->(KEYS) . ' ' . $member->() },
        sub { return "SUNIONSTORE s:" . $n->(KEYS) . ' s:' . $n->(KEYS) . ' s:' . $n->(KEYS) },
        sub { return "UNLINK s:" . $n->(KEYS) },
        sub { return "ZADD z:" . $n->(KEYS) . ' ' . $value->() . ' ' . $member->() . ' ' . $value->() . ' ' . $member->() },
        sub { return "ZADD z:" . $n->(KEYS) . ' ' . (qw(NX XX GT LT CH INCR))[ $n->(6) ] . ' ' . $value->() . ' ' . $member->() },
        sub { return "ZADD z:" . $n->(KEYS) . ' 1e2 ' . $member->() . ' 0x10 ' . $member->() },
        sub { return "ZREM z:" . $n->(KEYS) . ' ' . $member->() . ' ' . $member->() },
        sub { return "ZINCRBY z:" . $n->(KEYS) . ' 3 ' . $member->() },
        sub { return "ZPOPMIN z:" . $n->(KEYS) },
        sub { return "ZUNIONSTORE z:" . $n->(KEYS) . ' 2 z:' . $n->(KEYS) . ' s:' . $n->(KEYS) },
        sub { return "SADD " . $y->() . ' ' . $member->() },
        sub { return "ZADD " . $y->() . ' ' . $value->() . ' ' . $member->() },
        sub { return "SREM " . $y->() . ' m0 m1 m2 m3 m4 m5 m6' },
        sub { return "ZREM " . $y->() . ' m0 m1 m2 m3 m4 m5 m6' },
        sub { my $key = $y->(); return "DEL $key\nSADD $key " . $member->() },
        sub { my $key = $y->(); return "MULTI\nDEL $key\nZADD $key 5 " . $member->() . "\nEXEC" },
        sub { my $key = $y->(); return "MULTI\nDEL $key\nSADD $key " . $member->() . "\nDEL $key\nZADD $key 5 " . $member->() . "\nEXEC" },
        sub { return "XADD x:" . $n->(KEYS) . ' ' . ++$last_id . '-1 f ' . $value->() },
        sub { return "XADD x:" . $n->(KEYS) . ' ' . ++$last_id . '-* f ' . $value->() },
        sub { return "XADD x:" . $n->(KEYS) . ' NOMKSTREAM ' . ++$last_id . '-1 f ' . $value->() },
        sub { return "XADD x:" . $n->(KEYS) . ' MAXLEN 5 ' . ++$last_id . '-1 f ' . $value->() },
        sub { return "XDEL x:" . $n->(KEYS) . ' ' . join(' ', map { (1 + $n->($last_id + 1)) . '-1' } 1 .. 30) },
        sub { return "XADD x:" . $n->(KEYS) . ' MINID ' . $n->($last_id + 1) . ' ' . ++$last_id . '-1 f ' . $value->() },
        sub { return "XREADGROUP GROUP g c COUNT 2 STREAMS x:" . $n->(KEYS) . ' >' },
        sub { return "XTRIM x:" . $n->(KEYS) . ' MINID ' . $n->($last_id + 1) },
        sub { return "XTRIM x:" . $n->(KEYS) . ' MAXLEN ' . $n->(5) },
        sub { return "DEL x:" . $n->(KEYS) },
        sub { return "XGROUP CREATE x:" . $n->(KEYS) . ' g 0 MKSTREAM' },
        sub { return "RPUSH l:" . $n->(KEYS) . ' ' . $value->() },
        sub { return "RPUSH l:" . $n->(KEYS) . ' ' . $value->() . ' ' . $value->() },
        sub { return "RPUSHX l:" . $n->(KEYS) . ' ' . $value->() },
        sub { return "RPOP l:" . $n->(KEYS) . ' ' . (1 + $n->(3)) },
        sub { return "RPOPLPUSH l:" . $n->(KEYS) . ' l:' . $n->(KEYS) },
        sub { return "DEL l:" . $n->(KEYS) },
        sub { my $key = 'l:' . $n->(KEYS); return "MULTI\nDEL $key\nRPUSH $key 1 2\nRPOP $key\nEXEC" },
        sub { return "LPUSH l:" . $n->(KEYS) . ' ' . $value->() },
        sub { return "LPOP l:" . $n->(KEYS) },
        sub { return "LTRIM l:" . $n->(KEYS) . ' 0 3' },
    );
    return join '', map { $kinds[ $n->(scalar @kinds) ]->() . "\n" } 1 .. $count;
}
# Some of the commands are errors, and of no effect.
sub load { my ($lines) = @_; my $out; IPC::Run::run([ $redis->_cli ], '<', \$lines, '>&', \$out); return; }
load(commands(3000));
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(problem(), '', 'the snapshot');

# Each command by itself, and whether it had to read the key again: 1 at the end. send_newer says what the
# numbers before it mean.
for (
    'HSET h:e a 1 nu 2 0', 'HSET h:e a 22 0', 'HSET h:e a 3 b 44 0', 'HMSET h:e c 5 0', 'EXPIRE h:e 1000 0', 'PERSIST h:e 0', 'HDEL h:e b nope 0', 'HINCRBY h:e a 1 1', 'HDEL h:e a c nu 0',
    'HSET h:e a 1 0', 'UNLINK h:e 0', 'SADD s:e a b 0', 'SREM s:e a 0', 'SPOP s:e 0', 'ZADD z:e 1 a 2.5 b 0', 'ZADD z:e CH 3 a 0', '6.2/7.2 ZADD z:e GT 4 a 1', 'ZREM z:e a 0', 'ZPOPMIN z:e 1',
    'SADD y:e a b 0', 'SREM y:e a b 0', 'ZADD y:e 1 a 0', 'DEL y:e 0', 'XADD x:e 999999999-1 f 1 0', 'XADD x:e * f 2 0', 'XDEL x:e 999999999-1 0', 'XTRIM x:e MAXLEN 0 1', 'XADD x:e 8888888888888-1 f 1 0',
    'XADD x:e 8888888888888-2 f 2 0', 'XADD x:e MAXLEN 2 8888888888888-3 f 3 0', '6.2/7.2 XADD x:e MINID 8888888888888-3 8888888888888-4 f 4 0', 'XADD x:e MAXLEN ~ 1 8888888888888-5 f 5 0', 'XGROUP CREATE x:e g 0 1',
    'XREADGROUP GROUP g c STREAMS x:e > 0', 'XACK x:e g 8888888888888-4 0', '6.2/7.2 XTRIM x:e MINID 8888888888888-4 0', 'XTRIM x:e MAXLEN 1 0', 'DEL x:e 0', 'XADD x:e MAXLEN 1 5-1 f 1 0', 'DEL x:e 0',
    'RPUSH l:e a 1', 'RPUSH l:e b c 0', 'RPOP l:e 0', 'LPUSH l:e x 1', 'RPUSHX l:e d e 0', '6.2/7.2 RPOP l:e 2 0', 'LPOP l:e 1', 'RPUSH l:e f 0', '6.2/7.2 RPOP l:e 9 0', 'RPUSH l:e g 0', 'BRPOP l:e 1 0', 'RPUSH l:e h i 0', 'DEL l:e 0',
    'RPUSH l:e j 0', 'DEL l:e 0', 'HSET w:e a 1 1',
    'HSET t:e a 1 1', 'HSET h:0 a 9 0',
    # Of newer servers.
    'HSET h:e a 1 b 2 0', '7.4/9.0 HPEXPIRE h:e 5000000 FIELDS 1 a 1', '7.4/9.0 HPERSIST h:e FIELDS 1 a 1', '8.0/9.0 HSETEX h:e FIELDS 1 a 1 0', '8.0/9.0 HSETEX h:e PX 5000000 FIELDS 2 a 1 b 2 0', 'HSET h:e b 3 0', '8.0/9.0 HSETEX h:e KEEPTTL FIELDS 1 a 4 1', '8.0/9.0 HSETEX h:e FXX FIELDS 1 a 5 0', '8.0/9.0 HGETEX h:e EX 5000 FIELDS 1 a 1',
    '7.4/9.0 HPEXPIREAT h:e 1 FIELDS 1 a 0', '8.0/9.1 HGETDEL h:e FIELDS 1 b 0', 'XADD x:n 8888888888888-1 f 1 0',
    '8.6/- XADD x:n IDMP p i * f 1 1', '8.2/- XADD x:n DELREF MAXLEN 3 8888888888888-3 f 1 0', '8.2/- XDELEX x:n IDS 1 8888888888888-2 0', 'XGROUP CREATE x:n g 0 1', 'XREADGROUP GROUP g c STREAMS x:n > 0',
    '8.8/- XNACK x:n g FAIL IDS 1 8888888888888-1 0', '8.2/- XACKDEL x:n g IDS 1 8888888888888-1 1', 'XACK x:n g 8888888888888-3 0', '8.2/- XDELEX x:n ACKED IDS 1 8888888888888-3 1', 'DEL x:n 0')
{
    my ($line, $reads) = /^(.*) (\d)$/;
    my $before = read_again();
    my ($command, $is_there) = send_newer($redis, $line);
    SKIP:
    {
        skip "$command: other servers have it", 1 if !$is_there;
        is(problem() . '; read again: ' . (read_again() - $before), "; read again: $reads", $command);
    }
}

# An element that is refused is refused with its key, and the key comes back when it is good.
$redis->cli('HSET', 'h:bad', 'a', '1', 'nu', '1');
is(problem(), '', 'a key');
$redis->cli_lines("HSET h:bad nu 5000\nHSET h:0 b 5\n");
is(wait_for($node) . $node->safe_psql('postgres', q{SELECT key, rule FROM redis_migrate.rejects WHERE settled_at IS NULL}), 'h:bad|numbers_n_check', 'a bad element is rejected');
is($node->safe_psql('postgres', q{SELECT string_agg(e->>'field' || '=' || (e->>'value'), ',' ORDER BY e->>'field') FROM redis_migrate.reject AS r, LATERAL (SELECT to_jsonb(e) FROM redis_migrate.elements(r.payload) AS e) AS e (e)}), 'a=1,nu=5000', 'with its whole key');
is($node->safe_psql('postgres', q{SELECT n FROM numbers WHERE id = 'bad'}), '1', 'which is as it was');
$redis->cli('HSET', 'h:bad', 'b', '2');
is(wait_for($node) . $node->safe_psql('postgres', q{SELECT count(*) FROM fields WHERE id = 'bad'}), '2', 'whatever else comes');
$redis->cli('HSET', 'h:bad', 'nu', '7');
is(problem() . $node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.rejects WHERE settled_at IS NULL'), '0', 'until it is good');

# A reject has its key's expiry, also if the key has got that, or lost it, at once. Expected values are those that are sent.
$redis->cli_lines("MULTI\nSET z:timed x\nPEXPIREAT z:timed 4102444800000\nSET z:lasting x EX 5000\nPERSIST z:lasting\nEXEC\n");
is(wait_for($node) . $node->safe_psql('postgres', q{SELECT key, rule, (extract(epoch FROM expires_at) * 1000)::bigint FROM redis_migrate.rejects WHERE settled_at IS NULL ORDER BY key}),
    "z:lasting|wrong_type|\nz:timed|wrong_type|4102444800000", 'rejects have the expiries of their keys');
$redis->cli('DEL', 'z:timed', 'z:lasting');

# Random commands, and what happens to processes meanwhile.
my @events = (
    [ 'nothing' => sub { } ],
    [ 'kill -9 of the applier' => sub { my $pid; wait_until('an applier', sub { $pid = $node->safe_psql('postgres', q{SELECT pid FROM redis_migrate.workers WHERE kind = 'migration' AND pid IS NOT NULL}) }); kill 'KILL', $pid } ],
    [ 'a cut link' => sub { $proxy->tell('drop') } ],
    [ 'a stop and a start' => sub { $node->safe_psql('postgres', q{SELECT redis_migrate.stop('live')}); $node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)}) } ],
);
for my $round (1 .. $rounds)
{
    my ($name, $event) = @{ $events[ ($round - 1) % @events ] };
    my @loads = map { commands(150) } 1 .. 10;
    my $pid = fork() // die "fork: $!\n";
    if ($pid == 0)
    {
        for (@loads) { load($_); usleep(20_000); }
        POSIX::_exit(0);
    }
    usleep(rand 200_000);
    $event->();
    waitpid $pid, 0;
    wait_until('it answers', sub { answers($node) });
    $node->safe_psql('postgres', 'UPDATE redis_migrate.background_run SET crashes = 0, failures = 0, not_before = NULL');
    usleep(60_000);    # what expires has expired
    $redis->cli_lines(join '', map { ("EXISTS h:$_\n", "EXISTS w:$_\n", "EXISTS t:$_\n") } 0 .. KEYS - 1);
    my $problem = problem();
    is($problem, '', "random commands, $name (round $round)");
    last if $problem ne '';
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.rejects WHERE settled_at IS NULL}), '0', 'nothing else was rejected');
is($node->safe_psql('postgres', 'SELECT count(*) FROM redis_migrate.runs WHERE NOT balanced'), '0', 'the sums of all runs agree');

done_testing();
