# Guesses in parallel: however many connections try, no more attempts are let in than the threshold allows, whether their
# transactions commit or roll back; and policies may change and disappear meanwhile.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

use constant { CONNECTIONS => 24, THRESHOLD => 5, USERS => 10 };

my $node = new_node('parallel', preload => 1, conf => "max_connections = 60\nlog_statement = none\npg_redis_migrate.attempt_queue_size = 100000");

# Runs the same statements in all connections at once and returns what they wrote.
sub everywhere
{
    my ($sql) = @_;
    my @calls = map { start_sql($node, $sql) } 1 .. CONNECTIONS;
    my @results = map { [ $_->finish ] } @calls;
    return (join('', map { $_->[0] } @results), join('', map { $_->[1] } @results));
}

$node->safe_psql('postgres', q{
    SELECT redis_migrate.create_lockout('login', '{"user_name": 5}');
    -- Guesses passwords of all users again and again; which were let in.
    CREATE FUNCTION guess(policy text, users int, rounds int) RETURNS SETOF text LANGUAGE plpgsql AS $$
    DECLARE
        a redis_migrate.login_answer;
    BEGIN
        FOR round IN 1 .. rounds LOOP
            FOR n IN 1 .. users LOOP
                a := redis_migrate.login_check(policy, 'user' || n, '192.0.2.1');
                CONTINUE WHEN NOT a.allowed;
                PERFORM pg_sleep(random() * 0.002);
                PERFORM redis_migrate.login_result(policy, 'user' || n, '192.0.2.1', false, a.token);
                RETURN NEXT 'user' || n;
            END LOOP;
        END LOOP;
    END $$});
my $guess = "SELECT guess('login', @{[USERS]}, 20);";
my ($out, $err) = everywhere($guess);
is($err, '', 'no errors');
my %let_in;
$let_in{$_}++ for split /\n/, $out;
is_deeply(\%let_in, { map { ("user$_" => THRESHOLD) } 1 .. USERS }, 'exactly the threshold per user name was let in');
is($node->safe_psql('postgres', q{SELECT allowed, failures, locks, checks = allowed + locked + pending FROM redis_migrate.lockout_stats}),
    USERS * THRESHOLD . '|' . USERS * THRESHOLD . '|' . USERS . '|t', 'statistics agree: one lock per user name');

# Rolled back, every one of them.
$node->safe_psql('postgres', q{SELECT redis_migrate.reset_lockout('login', everything => true)});
($out, $err) = everywhere("BEGIN;\n$guess\nROLLBACK;");
%let_in = ();
$let_in{$_}++ for split /\n/, $out;
is_deeply(\%let_in, { map { ("user$_" => THRESHOLD) } 1 .. USERS }, 'the same when the transactions roll back');

# In flight for ever: nobody gets a result.
$node->safe_psql('postgres', q{SELECT redis_migrate.reset_lockout('login', everything => true)});
($out, $err) = everywhere(q{SELECT allowed FROM generate_series(1, 20) AS n, LATERAL redis_migrate.login_check('login', CASE WHEN n > 0 THEN 'ada' END, NULL);});
is(scalar(grep { $_ eq 't' } split /\n/, $out), THRESHOLD, 'attempts in flight count');

# Right passwords are let in, one after the other and beside each other, as long as there is room.
$node->safe_psql('postgres', q{
    CREATE FUNCTION log_in(users int) RETURNS SETOF text LANGUAGE plpgsql AS $$
    DECLARE
        a redis_migrate.login_answer;
    BEGIN
        FOR n IN 1 .. users LOOP
            LOOP
                a := redis_migrate.login_check('login', 'right' || n, NULL);
                EXIT WHEN a.allowed;
                IF a.reason <> 'pending' THEN RAISE 'refused: %', a.reason; END IF;
                PERFORM pg_sleep(0.001);
            END LOOP;
            PERFORM redis_migrate.login_result('login', 'right' || n, NULL, true, a.token);
            RETURN NEXT 'in';
        END LOOP;
    END $$});
($out, $err) = everywhere("SELECT log_in(20);");
is($err, '', 'nobody with the right password is locked');
is(scalar(() = $out =~ /in/g), 20 * CONNECTIONS, 'and all come in');

# Two scopes: an address with a higher threshold, all at once or nothing.
$node->safe_psql('postgres', q{SELECT redis_migrate.create_lockout('both', '{"user_name": 5, "address": 23}')});
($out, $err) = everywhere(q{SELECT guess('both', 10, 20);});
%let_in = ();
$let_in{$_}++ for split /\n/, $out;
my $sum = 0;
$sum += $_ for values %let_in;
is($sum, 23, 'the address locks at its own threshold');
is(scalar(grep { $_ > THRESHOLD } values %let_in), 0, 'and no user name was tried more often than its own allows');

# Every attempt is recorded once, whatever was rolled back.
$node->safe_psql('postgres', 'CALL redis_migrate.write_login_attempts()');
is($node->safe_psql('postgres', q{
    SELECT count(*) FILTER (WHERE locks) FROM redis_migrate.login_attempts WHERE policy = 'login';
    SELECT count(*) = (SELECT checks - 5 FROM redis_migrate.lockout_stats WHERE policy = 'login') FROM redis_migrate.login_attempts
    WHERE policy = 'login' AND success IS NOT NULL}), 2 * USERS . "\nt", 'every attempt that has its result is recorded once');

# The policy changes and disappears under load.
$node->safe_psql('postgres', q{
    CREATE FUNCTION storm() RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        a redis_migrate.login_answer;
        done int := 0;
        gone int := 0;
    BEGIN
        WHILE NOT pg_try_advisory_lock_shared(1) LOOP
            BEGIN
                a := redis_migrate.login_check('storm', 'user' || done % 50, '192.0.2.1');
                IF a.allowed THEN PERFORM redis_migrate.login_result('storm', 'user' || done % 50, '192.0.2.1', false, a.token); END IF;
                done := done + 1;
            EXCEPTION WHEN undefined_object THEN
                gone := gone + 1;
            END;
        END LOOP;
        RETURN CASE WHEN done > 0 AND gone > 0 THEN 'both' ELSE format('%s %s', done, gone) END;
    END $$});
my $go = start_sql($node, q{SELECT pg_advisory_lock(1); SELECT pg_sleep(3600);}, name => 'go');
wait_until('the signal', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}) == 1 });
my @storm = map { start_sql($node, 'SELECT storm();', name => 'storm') } 1 .. CONNECTIONS;
wait_until('the storm', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storm' AND query = 'SELECT storm();'}) == CONNECTIONS });
for my $round (1 .. 20)
{
    $node->safe_psql('postgres', qq{
        SELECT redis_migrate.create_lockout('storm', '{"user_name": $round, "address": {"3": "1 ms", "5": "2 ms"}}', cool_off => '1 ms');
        SELECT pg_sleep(0.02);
        SELECT redis_migrate.alter_lockout('storm', '{"user_name+address": $round}', cool_off_mode => 'inactivity', extend_on_attempt => true);
        SELECT pg_sleep(0.02);
        SELECT redis_migrate.drop_lockout('storm')});
}
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'go'});
my @ended = map { [ $_->finish ] } @storm;
is(join(' ', sort map { $_->[0] } @ended), join(' ', ("both\n") x CONNECTIONS), 'with the policy they work, without it they get 42704');
is(join('', map { $_->[1] } @ended), '', 'and nothing else');

done_testing();
