# The background worker writes login attempts by itself, and an expiry policy deletes those that are a week old.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('attempts', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nlog_statement = none");

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub fail_once { my ($user) = @_; return sql("SELECT allowed FROM redis_migrate.login_result('login', '$user', NULL, false)"); }

sql(q{SELECT redis_migrate.create_lockout('login', '{"user_name": 2}', notify_channel => 'locks')});
my $listener = start_sql($node, "LISTEN locks;\n" . "SELECT pg_sleep(0.2);\n" x 200, name => 'listener');
wait_until('somebody listens', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'listener'}) });

fail_once('ada') for 1 .. 2;
wait_until('the worker has written the attempts', sub { sql('SELECT count(*) FROM redis_migrate.login_attempts') == 2 });
pass('attempts are written without anybody asking for it');
wait_until('the listener hears of the lock', sub { ($listener->output)[0] =~ /notification "locks"/ });
pass('and a listener hears of the lock');
undef $listener;

# The worker is there now, and is woken by each attempt.
my $waited = elapsed(sub {
    fail_once('bob');
    wait_until('the next attempt', sub { sql('SELECT count(*) FROM redis_migrate.login_attempts') == 3 });
});
cmp_ok($waited, '<', 5, "the next attempt is written at once ($waited s)");

# An attempt without a result is a failure after pending_timeout: it is written then, though no writer is there any more and
# nobody makes another attempt.
sql(q{SELECT redis_migrate.create_lockout('slow', '{"user_name": 2}', pending_timeout => '6 seconds')});
my $writer = sql(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'attempt writer'});
sql("SELECT pg_terminate_backend($writer)");
wait_until('the writer has ended', sub { sql(q{SELECT count(*) = 0 FROM redis_migrate.workers WHERE kind = 'attempt writer'}) eq 't' });
sql(q{SELECT token FROM redis_migrate.login_check('slow', 'cyd', NULL)});
is(sql(q{SELECT count(*) FROM redis_migrate.login_attempts WHERE user_name = 'cyd'}), 0, 'an attempt waits for its result');
wait_until('the attempt without a result', sub { sql(q{SELECT count(*) FROM redis_migrate.login_attempts WHERE user_name = 'cyd'}) });
pass('one that never gets it is written without another attempt');
sql(q{DELETE FROM redis_migrate.login_attempt WHERE user_name = 'cyd'});

# Retention: a week, by the expiry policy that came with the first lockout policy.
is(sql(q{SELECT expires_column, lifetime FROM redis_migrate.expiry_policies WHERE target = 'redis_migrate.login_attempt'}), 'attempted_at|7 days',
    'attempts have an expiry policy');
sql(q{UPDATE redis_migrate.login_attempt SET attempted_at = attempted_at - interval '8 days' WHERE user_name = 'ada'});
sql(q{CALL redis_migrate.sweep('redis_migrate.login_attempt')});
is(sql('SELECT string_agg(user_name, \',\') FROM redis_migrate.login_attempts'), 'bob', 'it deletes what is older and keeps what is younger');
sql(q{SELECT redis_migrate.alter_expiry('redis_migrate.login_attempt', lifetime => '30 days')});
sql(q{SELECT redis_migrate.create_lockout('second')});
is(sql(q{SELECT lifetime FROM redis_migrate.expiry_policies WHERE target = 'redis_migrate.login_attempt'}), '30 days', 'a DBA changes it, and it stays so');

done_testing();
