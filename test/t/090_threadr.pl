# examples/threadr as a whole: each damaged key of the sample is refused by the rule that its damage asks for, everything
# else is stored with its value, the sums agree, and a second run writes nothing. What is expected stands in the generator:
# which keys it damages and how, and what it counts itself.

use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use FindBin;
use JSON::PP ();
use PrmTest;
use PrmTools;
use Test::More;

my $example = "$FindBin::Bin/../../examples/threadr";
my $now = '2025-08-20T12:00:00';
my $today = '2025-08-20';

my $node = new_node('threadr', init => { extra => [ '--encoding=UTF8', '--locale=C' ] });
$node->safe_psql(
    'postgres', q{
    CREATE ROLE threadr_owner LOGIN;
    GRANT USAGE ON FOREIGN DATA WRAPPER redis_migrate TO threadr_owner;
    GRANT CREATE ON DATABASE postgres TO threadr_owner;});

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql, extra_params => [ '-U', 'threadr_owner' ]); }

# Everything anew: the sample in Redis, empty tables, the migration.
sub prepare
{
    my ($redis, $proxy, @options) = @_;
    my @generate = ('/usr/bin/python3', "$example/generate.py", '--now', $now, @options);
    my ($out, $manifest) = ('', '');
    IPC::Run::run([@generate], '|', [ 'redis-cli', '-s', $redis->socket, '--pipe' ], '>', \$out) or die "loading: $out";
    IPC::Run::run([ @generate, '--manifest' ], '>', \$manifest) or die 'manifest';
    my ($host, $port) = ($proxy->host, $proxy->port);
    sql(qq{
        SET client_min_messages = error;
        SELECT redis_migrate.drop_migration(migration) FROM redis_migrate.migrations;
        DROP SERVER IF EXISTS threadr_redis CASCADE;
        DROP SCHEMA IF EXISTS threadr CASCADE;
        CREATE SERVER threadr_redis FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$host', port '$port');
        CREATE USER MAPPING FOR CURRENT_USER SERVER threadr_redis;
        \\i $example/schema.sql
        \\i $example/mappings.sql
    });
    return JSON::PP::decode_json($manifest);
}

# Runs the migration. Returns how many row versions each table has seen written so far, also in vain, and a fingerprint
# of those that are there.
sub run
{
    my $written = sql(q{
        SET client_min_messages = error;
        CALL redis_migrate.run('threadr');
        SELECT pg_stat_force_next_flush() \g /dev/null
        SELECT string_agg(relname || ':' || n_tup_ins + n_tup_upd + n_tup_del, ' ' ORDER BY relname)
        FROM pg_stat_user_tables WHERE schemaname = 'threadr';});
    return ($written, sql("\\i $example/row_versions.sql"));
}

sub sums { return last_run($node, 'threadr', 'state, balanced, read, vanished, rejected, migrated, archived, skipped'); }

sub rejects
{
    my %rule;
    for (split /\n/, sql(q{SELECT encode(key_bytes, 'escape'), rule FROM redis_migrate.rejects
                           WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs)}))
    {
        my ($key, $rule) = split /\|/;
        $rule{$key} = $rule;
    }
    return \%rule;
}

my $money = q{pattern IN ('threadr:premium:ip:{ip}', 'threadr:premium:email:{email}', 'threadr:subscription:user:{subscriber}')};

sub money
{
    my ($outcome) = @_;
    return sql(qq{SELECT coalesce(sum(keys), 0) FROM redis_migrate.run_counts
                  WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) AND outcome = '$outcome' AND $money});
}

my $none = 'threadr:premium:ip:None';

# Valid keys only. --------------------------------------------------------------------------------------------------

{
    my $redis = start_redis();
    my $manifest = prepare($redis, $redis, '--users', 40, '--no-bad');
    my %family = %{ $manifest->{families} };
    is($redis->cli('DBSIZE'), $manifest->{keys}, 'the sample is loaded');
    is($family{premium_email} + $family{premium_ip} + $family{subscription_user}, 37, 'keys that are worth money');

    my ($written, $versions) = run();
    is(sums(), "completed|t|$manifest->{keys}|0|1|" . ($manifest->{keys} - 1) . '|0|0', 'valid keys: the sums');
    is_deeply(rejects(), { $none => 'ip_address_is_valid' }, 'valid keys: only the address None is refused');
    is(money('read'), 37, 'money: read');
    is(money('migrated'), 36, 'money: stored');
    is(sql('SELECT count(*) FROM threadr.subscriptions'), 36, 'money: rows');

    # Each table against the generator's own count of what it wrote.
    my %rows = (
        "subscriptions WHERE product = 'premium' AND identity_kind = 'email'" => $family{premium_email},
        "subscriptions WHERE product = 'premium' AND identity_kind = 'ip'"    => $family{premium_ip} - 1,
        "subscriptions WHERE product = 'subscription'"                        => $family{subscription_user},
        'users'                                                               => 40,
        'users WHERE created_at IS NOT NULL'                                  => $family{user},
        'users WHERE subscribed_at IS NOT NULL'                               => $family{email},
        'users WHERE user_id = md5(email)::uuid'                              => $family{email} - $family{user},
        'user_emails'                                                         => $family{user_email_index},
        'mailing_list'                                                        => 40,
        'mailing_list WHERE email NOT IN (SELECT email FROM threadr.users)'   => 1,
        "usage_daily WHERE identity_kind = 'ip'"                              => $family{usage_ip_daily},
        "usage_daily WHERE identity_kind = 'email'"                           => $family{usage_email_daily},
        "usage_daily WHERE identity_kind = 'user'"                            => $family{usage_user_daily},
        "usage_monthly WHERE identity_kind = 'ip'"                            => $family{usage_ip_monthly},
        "usage_monthly WHERE identity_kind = 'email'"                         => $family{usage_email_monthly},
        "usage_monthly WHERE identity_kind = 'user'"                          => $family{usage_user_monthly},
        usage_log                                                             => $family{usage_log},
        rate_limits                                                           => $family{ratelimit},
        failed_logins                                                         => $family{failed_login},
        cached_threads                                                        => $family{cache},
        user_sessions                                                         => $family{session},
        'user_sessions WHERE account_id IS NOT NULL'                          => $family{session},
        threads                                                               => $family{thread},
        user_threads                                                          => $family{thread},
        thread_stats                                                          => $family{thread_stats},
        teams                                                                 => 1,
        team_members                                                          => 3,
        team_activities                                                       => 2,
        thread_analytics                                                      => 1,
        analysed_threads                                                      => 2,
        analytics_timeseries                                                  => 2);
    is(sql("SELECT count(*) FROM threadr.$_"), $rows{$_}, "rows: $_") for sort keys %rows;

    # The sums of the generator.
    for my $field (qw(total_threads total_premium_grants))
    {
        is(sql("SELECT value FROM threadr.usage_totals WHERE name = '$field'"),
            $redis->cli('HGET', 'threadr:usage:stats', $field), "usage_totals: $field");
    }
    my $total = $redis->cli('HGET', 'threadr:usage:stats', 'total_threads');
    for my $table (qw(usage_daily usage_monthly))
    {
        is(sql("SELECT sum(threads) FROM threadr.$table WHERE identity_kind = 'ip'"), $total, "$table: the sum of all");
    }
    is(sql("SELECT metric, period, starts_on FROM threadr.usage_totals WHERE name IN ('threads_$today', 'premium_grants_2025-08') ORDER BY 1"),
        "premium_grants|month|2025-08-01\nthreads|day|$today", 'usage_totals: the periods');

    # Values, row by row.
    my @keys = sort split /\n/, $redis->cli('--scan', '--pattern', 'threadr:usage:ip:*:daily:*');
    my @values = split /\n/, $redis->cli('MGET', @keys);
    is(sql(q{SELECT 'threadr:usage:ip:' || identity || ':daily:' || day, threads FROM threadr.usage_daily
             WHERE identity_kind = 'ip' ORDER BY 1}),
        join("\n", map { "$keys[$_]|$values[$_]" } 0 .. $#keys), 'usage per address and day: key and value');

    for my $key (split /\n/, $redis->cli('--scan', '--pattern', 'threadr:premium:email:*'))
    {
        my $json = JSON::PP::decode_json($redis->cli('GET', $key));
        my $payment = $json->{payment_info};
        my ($email) = $key =~ /([^:]+)$/;
        is(sql(qq{SET timezone = 'UTC'; SELECT to_char(expires_at, 'YYYY-MM-DD"T"HH24:MI:SS.US'),
                  to_char(starts_at, 'YYYY-MM-DD"T"HH24:MI:SS.US'), plan_name, amount_cents, currency, client_ip::text,
                  payment->>'stripe_session_id', (extract(epoch FROM delete_after) * 1000)::bigint
                  FROM threadr.subscriptions WHERE product = 'premium' AND identity_kind = 'email' AND identity = '$email'}),
            join('|', @$json{qw(expires_at granted_at plan)}, @$payment{qw(amount currency)},
                ($json->{client_ip} ? $json->{client_ip} . ($json->{client_ip} =~ /:/ ? '/128' : '/32') : ''),
                $payment->{stripe_session_id}, $redis->cli('PEXPIRETIME', $key)),
            "premium grant of $email");
    }
    for my $key (split /\n/, $redis->cli('--scan', '--pattern', 'threadr:subscription:user:*'))
    {
        my $json = JSON::PP::decode_json($redis->cli('GET', $key));
        my ($identity) = $key =~ /([^:]+)$/;
        my $annual = $json->{is_annual};
        is(sql(qq{SET timezone = 'UTC'; SELECT stripe_subscription_id, plan_name, tier_level, status, billing_cycle, amount_cents,
                  to_char(starts_at, 'YYYY-MM-DD HH24:MI:SS'), to_char(expires_at, 'YYYY-MM-DD HH24:MI:SS'),
                  thread_limit, array_to_string(features, ',')
                  FROM threadr.subscriptions WHERE product = 'subscription' AND identity = '$identity'}),
            join('|', @$json{qw(subscription_id plan_name tier_level)}, $json->{status} =~ s/cancelled/canceled/r,
                $annual ? 'yearly' : 'monthly', $json->{ $annual ? 'annual_price' : 'monthly_price' },
                @$json{qw(current_period_start current_period_end thread_limit)}, join(',', @{ $json->{features} })),
            "subscription of $identity");
    }

    my ($thread) = split /\n/, $redis->cli('--scan', '--pattern', 'threadr:thread:*');
    my $json = JSON::PP::decode_json($redis->cli('GET', $thread));
    is(sql("SELECT user_id, title, original_content, tweets->1->>'content', view_count FROM threadr.threads WHERE thread_id = '$json->{id}'"),
        join('|', @$json{qw(user_id title original_content)}, $json->{tweets}[1]{content}, $json->{view_count}), 'a thread');
    my ($list) = split /\n/, $redis->cli('--scan', '--pattern', 'threadr:user_threads:*');
    is(sql("SELECT string_agg(thread_id::text, ',' ORDER BY position) FROM threadr.user_threads WHERE user_id = right('$list', 36)::uuid"),
        join(',', @{ JSON::PP::decode_json($redis->cli('GET', $list)) }), 'the threads of a user, in order');
    my ($log) = split /\n/, $redis->cli('--scan', '--pattern', 'threadr:usage:log:2001:*');
    my ($ip, $epoch) = $log =~ /log:(.*):([\d.]+)$/;
    is(sql("SELECT count(*) FROM threadr.usage_log WHERE ip = '$ip' AND extract(epoch FROM logged_at) = $epoch"), 1,
        'a line of the usage log, by IPv6 address and time to the microsecond');
    is(sql(q{SELECT string_agg(at || ' ' || value, ', ' ORDER BY at) FROM (SELECT extract(epoch FROM at)::bigint AS at, value
             FROM threadr.analytics_timeseries) AS s}), '1754550000 1200, 1754636400 1500', 'a time series');

    my ($written_again, $versions_again) = run();
    is($written_again, $written, 'the second run writes no row, nor tries to');
    is($versions_again, $versions, 'the second run leaves every row version where it was');
    is(sums(), "completed|t|$manifest->{keys}|0|1|" . ($manifest->{keys} - 1) . '|0|0', 'the second run: the sums');

    # Families that Threadr's code writes and the sample lacks.
    my $team = sql('SELECT team_id FROM threadr.teams');
    my $user = sql('SELECT user_id FROM threadr.users WHERE created_at IS NOT NULL ORDER BY 1 LIMIT 1');
    $redis->cli_lines(<<~KEYS);
        HSET team:membership:$team:$user team_id $team user_id $user role editor
        HSET team:invite:i1 id i1 team_id $team email guest\@example.com status pending
        SADD team:invites:$team i1 i2
        SET team:invite_token:s3cret i1
        HSET thread_analytics:t1 impressions 12 likes 3
        HSET tweet_metrics:w1 likes 4
        HSET user_stats:u1 threads 5
        SET elsewhere:1 x
        KEYS
    run();
    is(sums(), 'completed|t|' . ($manifest->{keys} + 8) . '|0|1|' . ($manifest->{keys} + 6) . '|1|0', 'more families: the sums');
    is(sql("SELECT details->>'role' FROM threadr.team_members WHERE user_id = '$user'"), 'editor', 'a membership');
    is(sql('SELECT invite_id, team_id, token_hash, details FROM threadr.team_invites ORDER BY 1'),
        join("\n", "i1|$team|\\x" . sha256_hex('s3cret') . '|{"email": "guest@example.com", "status": "pending"}', "i2|$team||"), 'invites: a hash of the token only');
    is(sql('SELECT subject_kind, subject, counter, value FROM threadr.counters ORDER BY 1, 2, 3'),
        "thread|t1|impressions|12\nthread|t1|likes|3\ntweet|w1|likes|4\nuser|u1|threads|5", 'counters');
    is(sql('SELECT key FROM redis_migrate.archive'), 'elsewhere:1', 'a key without a family is archived');
    $redis->stop;
}

# With the damaged keys. ---------------------------------------------------------------------------------------------

{
    my $redis = start_redis();
    my $proxy = PrmTools::Proxy->new($redis->port);
    my $manifest = prepare($redis, $proxy, '--users', 40);
    is($manifest->{families}{bad}, 23, 'damaged keys');

    # In the sample this key lives for a second. Here it goes between the scan, which names it, and the read.
    my $brief = 'threadr:ratelimit:198.51.100.250';
    $redis->cli('SET', $brief, 12, 'EX', 1000);
    $proxy->tell("hold_on $brief");
    my $call = start_sql($node, "CALL redis_migrate.run('threadr')", user => 'threadr_owner');
    wait_until('the read of the key', sub { $proxy->holds });
    is($redis->cli('DEL', $brief), 1, 'the key was there when it was named');
    $proxy->tell('pass');
    $call->finish;

    my ($user1) = map { /user:(.*)x$/ } split /\n/, $redis->cli('--scan', '--pattern', 'threadr:subscription:user:*x');
    my ($pickled) = grep { $redis->cli('STRLEN', $_) < 30 } split /\n/, $redis->cli('--scan', '--pattern', 'threadr:session:*');
    my %expected = (
        $none                                            => 'ip_address_is_valid',
        'threadr:premium:email:broken.json@example.com'  => 'invalid_json',
        'threadr:premium:email:bad.date@example.com'     => 'expires_at',
        'threadr:premium:email:not-an-address'           => 'email_is_valid',
        'threadr:premium:ip:999.1.2.3'                   => 'ip_address_is_valid',
        'threadr:premium:email:wrong.type@example.com'   => 'wrong_type',
        'threadr:email:nul@example.com'                  => 'value_encoding',
        'threadr:email:latin1-\351@example.org'          => 'key_encoding',
        'threadr:email:empty@example.com'                => 'empty_value',
        'threadr:usage:ip:192.0.2.250:daily:2025-02-30'  => 'date',
        "threadr:usage:ip:192.0.2.251:daily:$today"      => 'integer',
        "threadr:usage:ip:192.0.2.252:daily:$today"      => 'positive',
        "threadr:usage:ip:192.0.2.253:daily:$today"      => 'range',
        'threadr:subscription:user:not-a-uuid'           => 'user_id',
        "threadr:subscription:user:${user1}x"            => 'plan_name',
        'threadr:cache:text:0000000000000000'            => 'thread_data',
        $pickled                                         => 'decoder');
    is_deeply(rejects(), \%expected, 'the damaged keys that are refused, and by which rule');
    is(sums(), join('|', 'completed|t', $manifest->{keys}, 1, 17, $manifest->{keys} - 19, 0, 1), 'damaged keys: the sums')
        or diag($call->output);
    is(sql(q{SELECT keys FROM redis_migrate.run_counts WHERE pattern = 'threadr:ratelimit:{ip}' AND outcome = 'vanished'}), 1,
        'the brief key vanished');
    is(sql(q{SELECT keys FROM redis_migrate.run_counts WHERE pattern = 'threadr:email:{email}' AND outcome = 'skipped' AND reason = 'folded'}),
        1, 'one of the two spellings was folded');
    is(sql(q{SELECT email, subscribed_as FROM threadr.users WHERE email LIKE 'mixed%'}), 'mixed.case@example.com|Mixed.Case@Example.com',
        'both spellings are one user');
    is(sql(q{SELECT plan_name, delete_after IS NULL FROM threadr.subscriptions WHERE identity = 'no.ttl@example.com'}), 'pro|t',
        'a grant without TTL is stored');
    is(sql(qq{SELECT count(*) FROM threadr.users WHERE email IN ('j\x{c3}\x{b6}rg\@example.org', 'star*[x]?\@example.com')}), 2,
        'an e-mail beyond ASCII and one with glob characters are stored');
    is(sql(q{SELECT length(tweets->0->>'content') FROM threadr.cached_threads WHERE source = 'https://big.example.com/'}), 1048576,
        'a value of a MiB is stored');
    is(money('migrated'), 37, 'money: the 36 and the grant without TTL');
    is(JSON::PP::decode_json($redis->cli('GET', $none))->{email}, sql(q{SELECT email FROM threadr.subscriptions
        WHERE product = 'premium' AND identity_kind = 'email' AND identity = 'ada.0@example.com'}),
        'the grant under the address None is stored under its e-mail');

    my ($written, $versions) = run();
    my ($written_again, $versions_again) = run();
    is($written_again, $written, 'damaged keys: a further run writes no row, nor tries to');
    is($versions_again, $versions, 'damaged keys: a further run leaves every row version where it was');
    is_deeply(rejects(), \%expected, 'damaged keys: a further run refuses the same');
    $redis->stop;
}

# Many. ---------------------------------------------------------------------------------------------------------------

{
    my $redis = start_redis();
    my $manifest = prepare($redis, $redis, '--users', 5000);
    is($manifest->{keys}, 110353, 'many keys');
    # None may expire while the test runs, and the one that lives for a second is gone.
    $redis->cli('EVAL', q{for _, key in ipairs(redis.call('KEYS', 'threadr:[rsf]*')) do
        if redis.call('TTL', key) >= 0 and redis.call('TTL', key) < 3600 then redis.call('EXPIRE', key, 3600) end end}, 0);
    $redis->cli('DEL', 'threadr:ratelimit:198.51.100.250');
    my $keys = $manifest->{keys} - 1;

    my ($written, $versions) = run();
    # Two spellings of an e-mail fold to one row; met in different batches, the first was stored before the second came.
    like(sums(), qr/^completed\|t\|$keys\|0\|17\|(?:@{[$keys - 18]}\|0\|1|@{[$keys - 17]}\|0\|0)$/, 'many keys: the sums');
    note last_run($node, 'threadr', q{read / extract(epoch FROM active_time)}) . ' keys/s';
    is(money('read') - money('migrated'), 8, 'many keys, money: all but the address None and seven damaged keys');
    is(sql(q{SELECT sum(threads) FROM threadr.usage_monthly WHERE identity_kind = 'ip'}),
        $redis->cli('HGET', 'threadr:usage:stats', 'total_threads'), 'many keys: the sum of all usage');

    my ($written_again, $versions_again) = run();
    is($written_again, $written, 'many keys: the second run writes no row, nor tries to');
    is($versions_again, $versions, 'many keys: the second run leaves every row version where it was');
    is(sums(), join('|', 'completed|t', $keys, 0, 17, $keys - 18, 0, 1), 'many keys, the second run: the sums');
}

done_testing();
