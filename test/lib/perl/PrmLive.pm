# More for the tests of live sync: a migration with every kind of mapping, commands that change its keys in every way,
# and a comparison of the tables with Redis that asks redis-server itself.

package PrmLive;

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();
use PrmTest;
use PrmTools;

our @EXPORT = qw(archived_lines compare_lines create_live differences hold_worker live load_commands lua_expiry send_newer single_keys start_load stop_idle wait_for worker_pid);

# Tables and the migration 'live' of a server of that name, by the owner of the session.
sub create_live
{
    my ($node) = @_;
    $node->safe_psql('postgres', q{
        CREATE TABLE strings (id text PRIMARY KEY, value text, expires_at timestamptz);
        CREATE TABLE hashes (id text PRIMARY KEY, fields jsonb, expires_at timestamptz);
        CREATE TABLE items (id text, position bigint, value text, PRIMARY KEY (id, position));
        CREATE TABLE scores (id text, member text, score float8, PRIMARY KEY (id, member));
        CREATE TABLE members (id text, member text, PRIMARY KEY (id, member));
        SELECT redis_migrate.create_migration('live', 'live', source => 'replication', databases => '{0}');
        SELECT redis_migrate.add_mapping('live', 'strings', 's:{id}', 'strings', 'SELECT id, value, expires_at FROM redis_batch', '{id}', databases => '{0}', exclusive => true);
        SELECT redis_migrate.add_mapping('live', 'hashes', 'h:{id}', 'hashes', 'SELECT id, json AS fields, expires_at FROM redis_batch', '{id}', databases => '{0}');
        SELECT redis_migrate.add_mapping('live', 'items', 'l:{id}', 'items', 'SELECT id, position, value FROM redis_batch', '{id,position}', databases => '{0}', expand => 'elements');
        SELECT redis_migrate.add_mapping('live', 'scores', 'z:{id}', 'scores', 'SELECT id, member, score FROM redis_batch', '{id,member}', databases => '{0}', expand => 'elements', exclusive => true);
        SELECT redis_migrate.add_mapping('live', 'members', 't:{id}', 'members', 'SELECT id, member FROM redis_batch', '{id,member}', databases => '{0}', expand => 'elements');
    });
    return;
}

# Lua: a function that returns when a key expires, in Unix milliseconds, or -1, as text. Redis before 7.0 tells it less
# exactly, with a tilde, and its replicas have other times than their master.
sub lua_expiry
{
    return q{
    local function expiry(key)
        local at = redis.pcall('PEXPIRETIME', key)
        if type(at) == 'number' then return string.format('%d', at) end
        local left, now = redis.call('PTTL', key), redis.call('TIME')
        return left < 0 and '-1' or '~' .. string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000) + left)
    end
    };
}

# The keys of a Redis, as lines that the tables must have, too; those that no mapping has, as the archive must have them: with
# all that they hold, streams with their groups, what is pending, and what no longer shows otherwise. Of a stream's consumers
# Redis does not tell its replicas when they were seen.
my $script = lua_expiry() . q{
    local unstable = { ['seen-time'] = 1, ['active-time'] = 1, ['radix-tree-keys'] = 1, ['radix-tree-nodes'] = 1 }
    local function flat(value)
        if type(value) == 'number' then return string.format('%d', value) end
        if type(value) ~= 'table' then return (string.gsub(tostring(value), '[^%w%p]', function(byte) return string.format('\\\\x%02x', string.byte(byte)) end)) end
        local parts, is_name_of_unstable = {}, false
        for _, part in ipairs(value) do
            if is_name_of_unstable then
                is_name_of_unstable = false
            elseif unstable[part] then
                is_name_of_unstable = true
            else
                table.insert(parts, flat(part))
            end
        end
        return '(' .. table.concat(parts, ' ') .. ')'
    end
    local function sorted(values)
        table.sort(values)
        return flat(values)
    end
    local function fields(key)
        local parts, all = {}, redis.call('HGETALL', key)
        for i = 1, #all, 2 do
            local at = redis.pcall('HPEXPIRETIME', key, 'FIELDS', 1, all[i])
            table.insert(parts, flat({ all[i], all[i + 1], at.err and -1 or at[1] }))
        end
        return sorted(parts)
    end
    local function vectors(key)
        local parts = {}
        for _, member in ipairs(redis.call('VRANDMEMBER', key, redis.call('VCARD', key))) do
            table.insert(parts, flat({ member, redis.call('VEMB', key, member), redis.call('VGETATTR', key, member) }))
        end
        return sorted(parts)
    end
    local function content(key, kind)
        if kind == 'string' then return flat(redis.call('GET', key)) end
        if kind == 'hash' then return fields(key) end
        if kind == 'list' then return flat(redis.call('LRANGE', key, 0, -1)) end
        if kind == 'zset' then return flat(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')) end
        if kind == 'set' then return sorted(redis.call('SMEMBERS', key)) end
        if kind == 'vectorset' then return vectors(key) end
        if kind ~= 'stream' then return redis.sha1hex(redis.call('DUMP', key)) end
        local info = redis.pcall('XINFO', 'STREAM', key, 'FULL', 'COUNT', 0)
        return flat(info.err and redis.call('XRANGE', key, '-', '+') or info)
    end
    local noted = {}  -- of keys that were restored here
    local expiries = redis.pcall('HGETALL', '(expiries)')
    for i = 1, #expiries, 2 do noted[expiries[i]] = expiries[i + 1] end
    local lines = {}
    for _, key in ipairs(redis.call('KEYS', '*')) do
        local kind, expiry = redis.call('TYPE', key).ok, noted[key] or expiry(key)
        if string.find(key, 'redis_migrate:', 1, true) == 1 or key == '(expiries)' then
            -- the reverse feed's own
        elseif not string.find(key, '^[shlzt]:') then
            table.insert(lines, flat(key) .. ' is a ' .. kind .. ' ' .. content(key, kind) .. ' ' .. expiry)
        elseif kind == 'string' then
            table.insert(lines, key .. ' ' .. redis.call('GET', key) .. ' ' .. expiry)
        elseif kind == 'hash' then
            local fields = redis.call('HGETALL', key)
            for i = 1, #fields, 2 do table.insert(lines, key .. ' ' .. fields[i] .. '=' .. fields[i + 1] .. ' ' .. expiry) end
        elseif kind == 'list' then
            for i, value in ipairs(redis.call('LRANGE', key, 0, -1)) do table.insert(lines, key .. ' ' .. (i - 1) .. ' ' .. value) end
        elseif kind == 'zset' then
            local pairs = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
            for i = 1, #pairs, 2 do table.insert(lines, key .. ' ' .. pairs[i] .. ' ' .. pairs[i + 1]) end
        elseif kind == 'set' then
            for _, member in ipairs(redis.call('SMEMBERS', key)) do table.insert(lines, key .. ' ' .. member) end
        else
            table.insert(lines, key .. ' is a ' .. kind .. ' ' .. content(key, kind) .. ' ' .. expiry)
        end
    end
    return lines
};

my $rows = q{
    SELECT 's:' || id || ' ' || value || ' ' || coalesce((extract(epoch FROM expires_at) * 1000)::bigint, -1) FROM strings
    UNION ALL SELECT 'h:' || id || ' ' || f.key || '=' || f.value || ' ' || coalesce((extract(epoch FROM expires_at) * 1000)::bigint, -1)
              FROM hashes, jsonb_each_text(fields) AS f
    UNION ALL SELECT 'l:' || id || ' ' || position || ' ' || value FROM items
    UNION ALL SELECT 'z:' || id || ' ' || member || ' ' || score FROM scores
    UNION ALL SELECT 't:' || id || ' ' || member FROM members
    UNION ALL SELECT DISTINCT 'archived ' || encode(key_bytes, 'hex') || ' ' || encode(payload, 'hex') || ' ' || coalesce((extract(epoch FROM expires_at) * 1000)::bigint, -1)
              FROM redis_migrate.archive WHERE db = 0
};

# The first lines in which the tables differ from database 0 of Redis, or of several together; empty if they do not.
sub differences
{
    my ($node, @servers) = @_;
    my (@found, @archived);
    for my $line (split /\n/, $node->safe_psql('postgres', $rows))
    {
        if ($line =~ /^archived (\w*) (\w*) (-?\d+)$/) { push @archived, [ $1, $2, $3 ]; }
        else { push @found, $line; }
    }
    return compare_lines([ map { split /\n/, $_->cli('EVAL', $script, 0) } @servers ], [ @found, archived_lines(@archived) ]);
}

# The lines of archived keys, each with the hex digits of its name and payload, and its expiry: what a Redis says that has
# restored them.
my $restored;
sub archived_lines
{
    my (@keys) = @_;
    return if !@keys;
    $restored //= start_redis(unix => 1);
    my $quoted = sub { return '"' . $_[0] =~ s/(..)/\\x$1/gr . '"'; };
    my $replies = $restored->cli_lines(join '', "FLUSHALL\n", map {
        my ($key, $payload, $expiry) = @$_;
        sprintf "RESTORE %s 0 %s\nHSET (expiries) %s %s\n", $quoted->($key), $quoted->($payload), $quoted->($key), $expiry } @keys);
    die "RESTORE: $replies" if $replies =~ /^(?!OK$|\d+$|$)/m;
    return split /\n/, $restored->cli('EVAL', $script, 0);
}

# Likewise, of lines that there must be, which may end with an expiry that is not exact, and those that there are.
sub compare_lines
{
    my ($wanted, $found) = @_;
    my (%lines, %about);
    for my $line (@$wanted)
    {
        $lines{$line} = "missing: $line";
        $about{$1} = $2 if $line =~ /^(.*) ~(\d+)$/;
    }
    for my $line (@$found)
    {
        next if delete $lines{$line};
        next if $line =~ /^(.*) (\d+)$/ && defined $about{$1} && abs($about{$1} - $2) <= 1000 && delete $lines{"$1 ~$about{$1}"};
        $lines{$line} = "too much: $line";
    }
    my @differences = sort values %lines;
    splice @differences, 10 if @differences > 10;
    return join "\n", @differences;
}

# Random commands over so many keys of each type, one a line. Transactions are not divided.
sub load_commands
{
    my ($count, $keys) = @_;
    my $n = sub { return int rand $_[0] };
    my @kinds = (
        sub { return "SET s:" . $n->($keys) . ' v' . $n->(1_000_000) },
        sub { return "SET s:" . $n->($keys) . ' v' . $n->(1_000_000) . ' EX ' . (1000 + $n->(1000)) },
        sub { return "SET s:" . $n->($keys) . ' v' . $n->(1_000_000) . ' KEEPTTL' },
        sub { return "DEL s:" . $n->($keys) . ' h:' . $n->($keys) },
        sub { return "INCR s:c" . $n->($keys) },
        sub { return "APPEND s:" . $n->($keys) . ' x' },
        sub { return "EXPIRE s:" . $n->($keys) . ' ' . (1000 + $n->(1000)) },
        sub { return "PERSIST h:" . $n->($keys) },
        sub { return "HSET h:" . $n->($keys) . ' a ' . $n->(100) . ' b' . $n->(5) . ' ' . $n->(100) },
        sub { return "HDEL h:" . $n->($keys) . ' a' },
        sub { return "EXPIRE h:" . $n->($keys) . ' 5000' },
        sub { return "LPUSH l:" . $n->($keys) . ' ' . $n->(1000) },
        sub { return "RPOP l:" . $n->($keys) },
        sub { return "LTRIM l:" . $n->($keys) . ' 0 5' },
        sub { return "ZADD z:" . $n->($keys) . ' ' . $n->(100) . ' m' . $n->(5) },
        sub { return "ZREM z:" . $n->($keys) . ' m' . $n->(5) },
        sub { return "SADD t:" . $n->($keys) . ' m' . $n->(8) },
        sub { return "SPOP t:" . $n->($keys) },
        sub { my $from = $n->($keys); return "SET s:$from r\nRENAME s:$from s:" . $n->($keys) },
        sub { return "MULTI\nINCR s:c" . $n->($keys) . "\nHSET h:" . $n->($keys) . " a 1\nSET s:" . $n->($keys) . " t\nEXEC" },
        sub { return "XADD x:" . $n->($keys) . " * f v" },
        sub { return "DEL x:" . $n->($keys) },
        sub { return "PUBLISH channel message" },
    );
    return join '', map { $kinds[ $n->(scalar @kinds) ]->() . "\n" } 1 .. $count;
}

# Such commands without those that change several keys at once.
sub single_keys
{
    my ($commands) = @_;
    $commands =~ s/^MULTI\n.*?^EXEC\n//gms;
    $commands =~ s/^RENAME .*\n//gm;
    $commands =~ s/^(DEL \S+) .*$/$1/gm;
    return $commands;
}

# Sends a command. Before it may stand with which versions of Redis and of Valkey it came, "8.4/8.1", and "-" where it never
# did. Returns it without that, and whether the server has it. Dies if the server says something else. A server of no release
# calls itself 255.255.255, and may lack what came after 8.9.
sub send_newer
{
    my ($redis, $line) = @_;
    my ($since, $command) = $line =~ m{^([\d.]+/[\d.]+|[\d.]+/-|-/[\d.]+)? ?(.*)$};
    my $version = ($since // '0/0') =~ m{^(.*)/(.*)$} && (is_valkey() ? $2 : $1);
    my $own = redis_version() eq '255.255' ? '8.9' : redis_version();
    my $is_there = $version ne '-' && version_number($own) >= version_number($version);
    my $reply = $redis->cli_lines("$command\n");
    die "$command: $reply" if ($reply !~ /^(ERR|Invalid)/) != $is_there;
    return ($command, $is_there);
}
sub version_number { my ($version) = @_; my ($major, $minor) = split /\./, $version; return $major * 1000 + ($minor // 0); }

# A process that sends such commands until the object goes or finish is called. Of several servers those that are
# masters get them.
sub start_load
{
    my ($redis, $keys, $pause) = @_;
    my @servers = ref $redis eq 'ARRAY' ? @$redis : $redis;
    my $pid = fork() // die "fork: $!\n";
    if ($pid == 0)
    {
        my $ended = 0;
        $SIG{TERM} = sub { $ended = 1 };
        srand $$;
        while (!$ended) { for my $server (@servers) { eval { $server->cli_lines(load_commands(300, $keys)) if @servers == 1 || $server->cli('INFO', 'replication') =~ /role:master/ }; } select undef, undef, undef, $pause // 0.05; }
        POSIX::_exit(0);
    }
    return bless { pid => $pid }, 'PrmLive::Load';
}

# Columns of the view live_sync for the migration.
sub live
{
    my ($node, $columns) = @_;
    return try_sql($node, "SELECT $columns FROM redis_migrate.live_sync WHERE migration = 'live'") // '';
}

# The process of a kind of worker, once there is one.
sub worker_pid
{
    my ($node, $kind) = @_;
    my $pid = '';
    wait_until("a $kind", sub {
        $pid = try_sql($node, "SELECT pid FROM redis_migrate.workers WHERE kind = '$kind' AND pid IS NOT NULL") // '';
        $pid ne '' });
    return $pid;
}

# Stops a worker where it is, or with idle => 1 as stop_idle does, until release is called or the object goes.
sub hold_worker
{
    my ($node, $kind, %options) = @_;
    my $pid = worker_pid($node, $kind);
    if ($options{idle}) { stop_idle($node, $pid); }
    else { kill 'STOP', $pid; }
    return bless { pid => $pid }, 'PrmLive::Held';
}

# Stops a process at a moment when it has no relation locked, so that others need not wait for it.
sub stop_idle
{
    my ($node, $pid) = @_;
    return wait_until('a moment without locks', sub {
        kill 'STOP', $pid;
        return 1 if $node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype = 'relation'") eq '0';
        kill 'CONT', $pid;
        return 0; });
}

sub wait_for { my ($node, $migration) = @_; $migration //= 'live'; return sql_error($node, qq{CALL redis_migrate.wait_for('$migration', '$PostgreSQL::Test::Utils::timeout_default s')}); }

package PrmLive::Held;

use strict;
use warnings;

sub release { my ($self) = @_; my $pid = delete $self->{pid} or return; kill 'CONT', $pid; return; }
sub DESTROY { my ($self) = @_; $self->release; return; }

package PrmLive::Load;

use strict;
use warnings;

sub finish
{
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill 'TERM', $pid;
    waitpid $pid, 0;
    return;
}

sub DESTROY { my ($self) = @_; my $status = $?; $self->finish; $? = $status; return; }

1;
