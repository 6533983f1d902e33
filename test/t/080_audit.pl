# Audits of real keyspaces: the sample application beside the list of its families, names by the hundred thousand, a
# huge key, cancelling, and two audits compared.

use strict;
use warnings;

use FindBin;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('audit');
my $generate = "$FindBin::Bin/../../examples/threadr/generate.py";

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }

# The last audit of a server.
sub audits { my ($server, $columns) = @_; return sql("SELECT $columns FROM redis_migrate.audits WHERE server = '$server' ORDER BY audit_id DESC LIMIT 1"); }

sub load
{
    my ($redis, @options) = @_;
    my ($out, $manifest) = ('', '');
    my @generate = ('/usr/bin/python3', $generate, '--now', '2026-11-21T12:00:00', @options);
    IPC::Run::run([@generate], '|', [ 'redis-cli', '-s', $redis->socket, '--pipe' ], '>', \$out) or die "loading: $out";
    IPC::Run::run([ @generate, '--manifest' ], '>', \$manifest) or die 'manifest';
    return JSON::PP::decode_json($manifest);
}

# The sample application, whose families are known. Each is written here as the application's code writes its keys; a
# pattern belongs to the family whose expression its text fits, and to no other.
my %known = (
    premium_email        => qr/^threadr:premium:email:/,
    premium_ip           => qr/^threadr:premium:ip:/,
    subscription_user    => qr/^threadr:subscription:user:/,
    subscriptions_active => qr/^threadr:subscriptions:active$/,
    email                => qr/^threadr:email:/,
    emails_list          => qr/^threadr:emails:list$/,
    usage_ip_daily       => qr/^threadr:usage:ip:.*:daily:/,
    usage_ip_monthly     => qr/^threadr:usage:ip:.*:monthly:/,
    usage_email_daily    => qr/^threadr:usage:email:.*:daily:/,
    usage_email_monthly  => qr/^threadr:usage:email:.*:monthly:/,
    usage_user_daily     => qr/^threadr:usage:user:.*:daily:/,
    usage_user_monthly   => qr/^threadr:usage:user:.*:monthly:/,
    usage_log            => qr/^threadr:usage:log:/,
    usage_stats          => qr/^threadr:usage:stats$/,
    ratelimit            => qr/^threadr:ratelimit:/,
    failed_login         => qr/^threadr:failed_login:/,
    cache                => qr/^threadr:cache:(url|text):/,
    session              => qr/^threadr:session:/,
    user                 => qr/^threadr:user:(?!email:)/,
    user_email_index     => qr/^threadr:user:email:/,
    thread               => qr/^threadr:thread:/,
    user_threads         => qr/^threadr:user_threads:/,
    thread_stats         => qr/^threadr:thread_stats:/,
    team                 => qr/^(team:(data|members|activity|slug|all)|user:teams:)/,
    analytics            => qr/^analytics:/);

# The types of captures, which the expressions above cannot state.
my %types = (
    'threadr:premium:email:{email:email}'                => 'JSON by e-mail',
    'threadr:usage:ip:{ip:inet}:daily:{day:date}'        => 'counters by address, IPv6 too',
    'threadr:usage:ip:{ip:inet}:monthly:{month:month}'   => 'counters by address and month',
    'threadr:usage:email:{email:email}:daily:{day:date}' => 'counters by e-mail',
    'threadr:usage:log:{ip:inet}:{number:number}'        => 'entries by address and time',
    'threadr:failed_login:{email:email}:{ip:inet}'       => 'attempts by e-mail and address',
    'threadr:cache:text:{hash:hex}'                      => 'cached texts',
    'threadr:cache:url:{url}'                            => 'cached pages',
    'threadr:user:{user_id:uuid}'                        => 'accounts',
    'threadr:user:email:{email:email}'                   => 'the index of accounts');

for my $users (40, 1000)
{
    my $redis = start_redis();
    my $server = "threadr$users";
    create_server($node, $server, $redis);
    my $manifest = load($redis, '--users', $users, '--no-bad');
    sql("CALL redis_migrate.audit('$server')");
    is(audits($server, 'state, complete, keys, dbsize, asked'), join('|', 'completed', 't', ($manifest->{keys}) x 3),
        "$users users: every key is counted once");
    my (%found, %keys);
    for my $row (split /\n/, sql("SELECT pattern, keys FROM redis_migrate.audit_families WHERE server = '$server'"))
    {
        my ($pattern, $keys) = $row =~ /^(.*)\|(\d+)$/;
        my @families = grep { $pattern =~ $known{$_} } keys %known;
        is(scalar @families, 1, "$users users: $pattern is of one family") or diag("@families");
        $keys{ $families[0] // '' } += $keys;
        $found{$pattern} = 1;
    }
    is_deeply(\%keys, $manifest->{families}, "$users users: each family of the application is found, with its keys");
    ok($found{$_}, "$users users: $types{$_}: $_") for sort keys %types;
    cmp_ok(scalar keys %found, '<=', 45, "$users users: and no family is in pieces");
    next if $users != 40;

    # Suggestions as they stand, one after another.
    sql("SELECT redis_migrate.create_migration('$server', '$server')");
    my $statements = sql("SELECT string_agg(create_table || ';' || suggestion || ';', E'\\n' ORDER BY pattern)
        FROM redis_migrate.audit_families WHERE server = '$server'");
    is(sql("SELECT count(*) FROM redis_migrate.audit_families WHERE server = '$server' AND suggestion IS NULL"), 0, 'each family has a suggestion');
    sql("SET client_min_messages = error; $statements");
    sql("CALL redis_migrate.run('$server')");
    my $odd = audits($server, 'odd');
    is(last_run($node, $server, 'state, balanced, read, archived, skipped, rejected'), "completed|t|$manifest->{keys}|0|0|$odd",
        'the mappings take every key but the odd ones, which the audit has counted');
    is($odd, 1, 'the odd one is the grant without an address');
    is(sql("SELECT odd_reasons FROM redis_migrate.audit_families WHERE server = '$server' AND odd > 0"), '{"ip is not inet": 1}', 'and why');
    is(sql('SELECT count(*) FROM threadr_usage_ip_daily'), $manifest->{families}{usage_ip_daily}, 'a target has its rows');
    is(sql(q{SELECT string_agg(DISTINCT priority, ',' ORDER BY priority) FROM redis_migrate.audit_families WHERE pattern ~ 'premium|subscription'}),
        'critical', 'what is paid for is critical');
}

# Damaged and odd keys.
{
    my $redis = start_redis();
    create_server($node, 'bad', $redis);
    my $manifest = load($redis, '--users', 40);
    $redis->cli('SETRANGE', 'huge', 100_000_000, 'x');
    sql("CALL redis_migrate.audit('bad')");
    my ($state, $keys, $vanished, $reasons) = split /\|/, audits('bad', 'state, keys, vanished, odd_reasons');
    is($state, 'completed', 'no key stops an audit');
    cmp_ok($keys, '>=', $manifest->{keys}, 'damaged keys are counted');
    like($reasons, qr/"name is not valid text": 1/, 'a name that is no text is odd');
    like($reasons, qr/"capture day is not date": 1/, 'so is a day that is none');
    is(sql("SELECT keys, odd_reasons FROM redis_migrate.audit_families WHERE server = 'bad' AND pattern = 'threadr:premium:ip:{ip:inet}'"),
        ($manifest->{families}{premium_ip} + 1) . '|{"ip is not inet": 2}', 'an address that is none makes no family of its own');
    is(sql("SELECT pattern, bytes > 100000000 FROM redis_migrate.audit_largest_keys WHERE server = 'bad' AND rank = 1"), 'huge|t', 'the huge key is the largest');
    is(sql("SELECT encodings ? 'python pickle', encodings ? 'json object' FROM redis_migrate.audit_families WHERE server = 'bad' AND pattern ~ ':session:'"),
        't|t', 'a pickled session is told from the others');
    unlike(sql("SELECT string_agg(example || coalesce(suggestion, ''), ' ') FROM redis_migrate.audit_families WHERE server = 'bad' AND pattern ~ 'email:\\{'"),
        qr/ada|example\.com/, 'examples are masked');
}

# How values are encoded, with what encodes them where that is at hand, otherwise as the specifications say.
{
    my $redis = start_redis();
    create_server($node, 'encoded', $redis);
    my $encode = q{
import gzip, json, pickle, sys, zlib
data = {"user": "ada", "n": [1, 2.5, None]}
values = {
    "json object": json.dumps(data).encode(), "json array": json.dumps([data]).encode(), "json scalar": b'"ada"', "integer": b"-17",
    "python pickle": pickle.dumps(data), "gzip": gzip.compress(b"text" * 50), "zlib": zlib.compress(b"text" * 50),
    "php": b'a:1:{s:4:"user";s:3:"ada";}', "java": b"\xac\xed\x00\x05t\x00\x03ada", "ruby marshal": b"\x04\x08\x7b\x06:\x09useri\x06",
    "msgpack": b"\x81\xa4user\xa3ada", "zstd": b"\x28\xb5\x2f\xfd\x04\x58\x19\x00\x00ada", "text": "Ada \u2013 user".encode(), "binary": b"\xff\x00\xfe\x01"}
for kind, value in values.items():
    for command in ([b"SET", b"string:" + kind.encode(), value], [b"RPUSH", b"list:" + kind.encode(), value]):
        sys.stdout.buffer.write(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in command))
};
    my $out = '';
    IPC::Run::run([ '/usr/bin/python3', '-c', $encode ], '|', [ 'redis-cli', '-s', $redis->socket, '--pipe' ], '>', \$out) or die "loading: $out";
    sql("CALL redis_migrate.audit('encoded')");
    my @kinds = sort 'json object', 'json array', 'json scalar', 'integer', 'python pickle', 'gzip', 'zlib', 'php', 'java', 'ruby marshal', 'msgpack', 'zstd', 'text', 'binary';
    for my $type ('string', 'list')
    {
        is(sql(qq{SELECT string_agg(kind, ',' ORDER BY kind COLLATE "C") FROM redis_migrate.audit_families, jsonb_each(encodings) AS e (kind, keys)
                  WHERE server = 'encoded' AND type = '$type' AND e.keys = '1'}), join(',', @kinds), "how values are encoded: $type");
    }
}

# A hundred thousand names that nobody knows.
{
    my $redis = start_redis();
    create_server($node, 'random', $redis);
    $redis->cli('EVAL', q{
        local letters = 'abcdefghijklmnopqrstuvwxyz'
        for i = 1, 100000 do
            local name = redis.sha1hex(i):gsub('.', function(c) local n = tonumber(c, 16) * 3 % 26 return letters:sub(n + 1, n + 1) end)
            redis.call('SET', name:sub(1, 9) .. ':' .. name:sub(10, 20), i)
        end}, 0);
    my $memory = sql(q{SELECT pg_backend_pid() AS pid \gset
        \setenv BACKEND :pid
        \! awk '/RssAnon/ {print $2}' /proc/$BACKEND/status
        CALL redis_migrate.audit('random');
        \! awk '/RssAnon/ {print $2}' /proc/$BACKEND/status});
    my ($before, $after) = $memory =~ /^(\d+)\n(\d+)$/;
    cmp_ok($after - $before, '<', 65536, 'the memory of an audit is bounded');
    is(audits('random', 'state, keys'), 'completed|100000', 'names that are all different');
    cmp_ok(audits('random', 'families'), '<', 100, 'are few families');
}

# Two audits: what was touched meanwhile.
{
    my $redis = start_redis();
    create_server($node, 'twice', $redis);
    $redis->cli_lines(join '', map { "SET read:$_ text\nSET quiet:$_ text\nSET renewed:$_ text EX 10000\n" } 1 .. 50);
    sql("CALL redis_migrate.audit('twice')");
    wait_until('keys to be idle', sub { $redis->cli('OBJECT', 'IDLETIME', 'quiet:1') >= 5 });
    $redis->cli('GET', 'read:7');
    $redis->cli('EXPIRE', 'renewed:7', 20000);
    $redis->cli('SET', 'grown:1', 'text');
    sql("CALL redis_migrate.audit('twice')");
    is(sql(q{SELECT pattern, change, touched, renewed FROM redis_migrate.compare_audits(
            (SELECT min(audit_id) FROM redis_migrate.audits WHERE server = 'twice'), (SELECT max(audit_id) FROM redis_migrate.audits WHERE server = 'twice'))}),
        "grown:{grown_id:int}|new|t|\nquiet:{quiet_id:int}|same|f|\nread:{read_id:int}|same|t|\nrenewed:{renewed_id:int}|same|t|t",
        'an audit does not hide what the application has touched');
}

# Interrupted.
{
    my $redis = start_redis();
    $redis->cli('EVAL', 'for i = 1, 20000 do redis.call("SET", "k:" .. i, "v") end', 0);
    my $proxy = PrmTools::Proxy->new($redis->port);
    create_server($node, 'slow', $proxy);
    for my $signal ('cancel', 'terminate')
    {
        $proxy->tell('rate 200000');
        my $call = start_sql($node, "CALL redis_migrate.audit('slow');");
        wait_until('progress', sub { (audits('slow', "CASE WHEN state = 'running' THEN keys ELSE 0 END") || 0) > 0 });
        $proxy->tell('hold');
        # It may be at work on what has arrived.
        ok(wait_until('a wait', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE query ~ '^CALL redis_migrate.audit' AND wait_event_type = 'Extension' AND backend_xid IS NULL AND backend_xmin IS NULL}) == 1 }),
            "before $signal: no transaction id and no snapshot while waiting");
        my $seconds = elapsed(sub {
            sql("SELECT pg_${signal}_backend(pid) FROM pg_stat_activity WHERE query ~ '^CALL redis_migrate.audit'");
            $call->finish;
        });
        cmp_ok($seconds, '<', 10, "$signal takes effect although Redis is silent");
        wait_until('the end', sub { audits('slow', 'state') ne 'running' });
        my ($state, $sqlstate, $complete, $some) = split /\|/, audits('slow', 'state, sqlstate, complete, keys BETWEEN 1 AND 19999');
        is("$state|$complete|$some", ($signal eq 'cancel' ? 'stopped' : 'interrupted') . '|f|t', "$signal: the audit says so and keeps its counts");
        is($sqlstate, $signal eq 'cancel' ? '57014' : '', "$signal: SQLSTATE");
        is(sql(q{SELECT sum(keys) = (SELECT keys FROM redis_migrate.audits ORDER BY audit_id DESC LIMIT 1) FROM redis_migrate.audit_families
                 WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits)}), 't', 'what was found until then can be read') if $signal eq 'cancel';
        $proxy->tell('drop');
    }
}

done_testing();
