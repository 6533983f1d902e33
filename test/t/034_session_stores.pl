# Session tables of real frameworks as targets, unchanged: Django and connect-pg-simple with their own clients, the tables
# of Flask-Session, Spring Session, Laravel and scs as their own definitions make them.

use strict;
use warnings;

use PrmClients;
use PrmTest;
use PrmTools;
use Test::More;

# The clocks of application and server are in different zones.
my $node = new_node('stores', conf => "timezone = 'Asia/Tokyo'");
$ENV{PGUSER} = $node->safe_psql('postgres', 'SELECT current_user');

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

# --- Django
sub django { return run_client('/usr/bin/python3', 'lib/python/django_sessions.py', $node->host, $node->port, @_); }

django('migrate');
sql(q{SELECT redis_migrate.add_session_expiry('django')});
is(sql(q{SELECT target, every, expires_column, lifetime, grace FROM redis_migrate.expiry_policies WHERE target LIKE '%django%'}),
    'public.django_session|06:00:00|expire_date|00:00:00|00:00:00', 'the preset of Django: every six hours');
my @expired = django('create', 20, -5);
my @alive = django('create', 10, 3600);
my @soon = django('create', 1, 12);
my $end = sql(q{SELECT max(expire_date) FROM django_session WHERE expire_date < clock_timestamp() + interval '1 minute'});
django('extend', $soon[0], 3600);
is(sql(q{SELECT * FROM redis_migrate.sweep_preview('django_session')}), '31|20|11', 'preview: what Django calls expired');
sql(q{CALL redis_migrate.sweep('django_session')});
is(join(' ', django('load', @alive)), '0 1 2 3 4 5 6 7 8 9', 'Django finds its live sessions after the sweep');
is(join(' ', django('load', @expired[ 0, 19 ])), '- -', 'and no expired one');
wait_until('the time at which it would have expired', sub { sql("SELECT clock_timestamp() > '$end'") eq 't' });
sql(q{CALL redis_migrate.sweep('django_session')});
is(join(' ', django('load', @soon)), '0', 'a session that was extended stays');
my $before = sql('SELECT count(*) FROM django_session');
django('clearsessions');
is(sql('SELECT count(*) FROM django_session'), $before, 'clearsessions finds nothing more to delete');
@expired = django('create', 5, -1);
django('clearsessions');
is(sql(q{SELECT would_delete FROM redis_migrate.sweep_preview('django_session')}), '0', 'nor does a sweep find more than clearsessions');

# --- connect-pg-simple
my $packages = install_npm('session_stores', 'connect_sessions.js');
sub connect_js { return run_client('node', "$packages/connect_sessions.js", $node->host, $node->port, @_); }

connect_js('table');
sql(q{TRUNCATE session}, q{SELECT redis_migrate.add_session_expiry('connect-pg-simple')});
is(sql(q{SELECT column_timezone FROM redis_migrate.expiry_policies WHERE target = 'public.session'}), 'Asia/Tokyo',
    'its times are in the zone of its connections');
my @short = connect_js('create', 12, 1);
my @long = connect_js('create', 6, 3600);
wait_until('sessions have expired', sub { sql(q{SELECT count(*) FROM session WHERE expire < localtimestamp - interval '1 second'}) == 12 });
is(sql(q{SELECT * FROM redis_migrate.sweep_preview('session')}), '18|12|6', 'preview of connect-pg-simple');
sql(q{CALL redis_migrate.sweep('session')});
is(join(' ', connect_js('visit', @long)), '2 2 2 2 2 2', 'live sessions are found by their cookies');
is(join(' ', connect_js('visit', @short[ 0, 1 ])), '1 1', 'expired ones begin anew');
$before = sql('SELECT count(*) FROM session');
connect_js('prune');
is(sql('SELECT count(*) FROM session'), $before, 'the pruning of the package finds nothing more');

# --- the others, by the definitions that their documentation gives
my $now = 'extract(epoch FROM clock_timestamp())';
my @stores = (
    [ 'flask-session', 'sessions', q{CREATE TABLE sessions (id serial PRIMARY KEY, session_id varchar(255) UNIQUE, data bytea, expiry timestamp)},
        q{INSERT INTO sessions (session_id, data, expiry) SELECT 'session:' || g, '\x80', (clock_timestamp() AT TIME ZONE 'UTC') + interval '1 minute' * (g - 5) FROM generate_series(1, 10) AS g} ],
    [ 'spring-session', 'spring_session', q{CREATE TABLE spring_session (primary_id char(36) NOT NULL PRIMARY KEY, session_id char(36) NOT NULL UNIQUE, creation_time bigint NOT NULL,
            last_access_time bigint NOT NULL, max_inactive_interval int NOT NULL, expiry_time bigint NOT NULL, principal_name varchar(100));
        CREATE TABLE spring_session_attributes (session_primary_id char(36) NOT NULL REFERENCES spring_session ON DELETE CASCADE, attribute_name varchar(200) NOT NULL,
            attribute_bytes bytea NOT NULL, PRIMARY KEY (session_primary_id, attribute_name))},
        q{CREATE INDEX ON spring_session (expiry_time)},
        qq{INSERT INTO spring_session SELECT g, g, 0, 0, 1800, ($now * 1000)::bigint + 60000 * (g - 5), 'user' FROM generate_series(1, 10) AS g;
        INSERT INTO spring_session_attributes SELECT g, 'a' || a, '' FROM generate_series(1, 10) AS g, generate_series(1, 3) AS a} ],
    [ 'laravel', 'laravel.sessions', q{CREATE SCHEMA laravel; CREATE TABLE laravel.sessions (id varchar(255) PRIMARY KEY, user_id bigint, ip_address varchar(45), user_agent text,
            payload text NOT NULL, last_activity int NOT NULL)},
        q{CREATE INDEX ON laravel.sessions (last_activity)},
        qq{INSERT INTO laravel.sessions SELECT g, g, '::1', 'test', '', ${now}::int - 7230 + 60 * (g - 5) FROM generate_series(1, 10) AS g} ],
    [ 'scs', 'scs.sessions', q{CREATE SCHEMA scs; CREATE TABLE scs.sessions (token text PRIMARY KEY, data bytea NOT NULL, expiry timestamptz NOT NULL)},
        q{CREATE INDEX ON scs.sessions (expiry)},
        q{INSERT INTO scs.sessions SELECT g, '', clock_timestamp() + interval '1 minute' * (g - 5) FROM generate_series(1, 10) AS g} ]);
for my $each (@stores)
{
    my ($store, $table, @statements) = @$each;
    sql(@statements);
    my $err = '';
    $node->psql('postgres', "SELECT redis_migrate.add_session_expiry('$store', '$table')", stderr => \$err);
    # Only the package of Flask-Session has no index.
    if ($store eq 'flask-session') { like($err, qr/WARNING:  no index serves column "expiry".*\nDETAIL.*\nHINT:  CREATE INDEX CONCURRENTLY ON public\.sessions \(expiry\);/, "$store: the index that is missing is named"); }
    else { is($err, '', "$store: nothing to complain about"); }
    # One of them expires just as it is made.
    is(sql("SELECT * FROM redis_migrate.sweep_preview('$table')"), '10|5|5', "preview of $store");
    sql("CALL redis_migrate.sweep('$table')");
    is(sql("SELECT count(*) FROM $table"), '5', "$store is swept");
}
is(sql('SELECT count(*), count(DISTINCT session_primary_id) FROM spring_session_attributes'), '15|5', 'the attributes of Spring sessions went with them');
like(sql_error($node, q{SELECT redis_migrate.add_session_expiry('rails')}), qr/22023: invalid store "rails"/, 'another store is refused');
like(sql_error($node, q{SET search_path = laravel; SELECT redis_migrate.add_session_expiry('django')}), qr/42P01: there is no table "django_session" of django/, 'and one without its table');

done_testing();
