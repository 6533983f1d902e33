# The rows of a run, and what a verification says, are the same for one process and several, whatever the settings of the
# session that calls it: those of SET, of the connection, of its role and of the database.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

use constant KEYS => 2000;

my $redis = start_redis();
fill($redis, KEYS);
my $node = new_node('main', conf => "pg_redis_migrate.batch_rows = 50\nmax_worker_processes = 20\nlog_statement = 'none'\nlog_min_error_statement = 'panic'");
create_server($node, 'shop', $redis);
sub sql { my @statements = @_; return $node->safe_psql('postgres', join(';', @statements)); }
sub said { my ($sql, @options) = @_; $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \my $err, @options); return $err; }

# What depends on the setting: a trigger, a policy, a check, the query, a default.
sql(q{CREATE ROLE app LOGIN}, q{CREATE ROLE other LOGIN}, q{GRANT app TO other},
    q{GRANT CREATE ON SCHEMA public TO app}, q{CREATE USER MAPPING FOR PUBLIC SERVER shop}, q{GRANT USAGE ON FOREIGN SERVER shop TO app},
    q{SET ROLE app},
    q{CREATE TABLE by_trigger (id bigint PRIMARY KEY, v text, tenant text)},
    q{CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tenant = current_setting('app.tenant', true); RETURN NEW; END $$},
    q{CREATE TRIGGER stamp BEFORE INSERT ON by_trigger FOR EACH ROW EXECUTE FUNCTION stamp()},
    q{CREATE TABLE by_policy (id bigint PRIMARY KEY, v text, tenant text)},
    q{ALTER TABLE by_policy ENABLE ROW LEVEL SECURITY}, q{ALTER TABLE by_policy FORCE ROW LEVEL SECURITY},
    q{CREATE POLICY mine ON by_policy USING (tenant = current_setting('app.tenant', true))},
    q{CREATE TABLE by_check (id bigint PRIMARY KEY, v text, tenant text)},
    q{CREATE TABLE by_query (id bigint PRIMARY KEY, v text, tenant text)},
    q{CREATE TABLE by_default (id bigint PRIMARY KEY, v text, tenant text DEFAULT current_setting('app.tenant', true))},
    q{CREATE FUNCTION pace() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(nullif(current_setting('app.pace', true), '')::float8); RETURN NULL; END $$},
    (map { "CREATE TRIGGER pace BEFORE INSERT ON $_ FOR EACH STATEMENT EXECUTE FUNCTION pace()" } qw(by_trigger by_policy by_check by_query by_default)));
my $tenant = q{current_setting('app.tenant', true)};
my %mappings = (
    by_trigger => ['SELECT id, value AS v FROM redis_batch'],
    by_policy  => ["SELECT id, value AS v, coalesce($tenant, 'none') AS tenant FROM redis_batch"],
    by_check   => [ 'SELECT id, value AS v FROM redis_batch', "$tenant = 'red'" ],
    by_query   => ["SELECT id, value AS v, $tenant AS tenant FROM redis_batch"],
    by_default => ['SELECT id, value AS v FROM redis_batch']);
my @names = sort keys %mappings;
for my $name (@names)
{
    my ($query, $check) = @{ $mappings{$name} };
    sql('SET ROLE app', "SELECT redis_migrate.create_migration('$name', 'shop')",
        "SELECT redis_migrate.add_mapping('$name', 'm', 'k:{id:int}', '$name', \$q\$$query\$q\$, '{id}', databases => '{0}')");
    sql('SET ROLE app', "SELECT redis_migrate.add_check('$name', 'm', 'tenant', \$q\$$check\$q\$)") if $check;
}

# What is in the tables, and how the processes that read them worked.
sub outcome
{
    my ($name) = @_;
    return sql("SELECT count(*), count(DISTINCT tenant), min(tenant) FROM $name") . '|' . last_run($node, $name, 'state, migrated, rejected');
}
sub readers { my ($name) = @_; return sql("SELECT count(DISTINCT p.pid) FROM redis_migrate.run_parts AS p WHERE p.run_id = (SELECT max(run_id) FROM redis_migrate.runs WHERE migration = '$name')"); }
sub verified { my ($name) = @_; return sql("SELECT state, verified, array_to_string(reasons, ',') FROM redis_migrate.verifications WHERE migration = '$name' ORDER BY verification_id DESC LIMIT 1"); }

# Runs and verifies with one process and with three: the same.
sub is_same
{
    my ($when, $session, $expected, %options) = @_;
    local $ENV{PGOPTIONS} = $options{pgoptions};
    for my $name (@{ $options{names} // \@names })
    {
        my %outcome;
        for my $workers (1, 3)
        {
            sql("TRUNCATE $name");
            my $pace = $workers > 1 && !$options{alone} ? 'SET app.pace = 0.05;' : '';  # so that workers have started before all is read
            my $said = said("$pace $session; CALL redis_migrate.run('$name', workers => $workers); CALL redis_migrate.verify('$name', workers => $workers);",
                extra_params => $options{user} ? [ '-U', $options{user} ] : []);
            like($said, qr/^(?:(?!is read by one process).)*\z/s, "$when, $name: by $workers") if !$options{alone};
            like($said, qr/NOTICE:  00000: run \d+ is read by one process: $options{alone}.*NOTICE:  00000: verification \d+ is read by one process: $options{alone}/s, "$when, $name: alone") if $options{alone} && $workers > 1;
            $outcome{$workers} = outcome($name) . ' ' . verified($name);
            cmp_ok(readers($name), $options{alone} ? '==' : '>', $options{alone} ? 0 : 1, "$when, $name: processes") if $workers > 1;
            is(sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE '%part'}), 0, "$when, $name: no process is left");
        }
        is($outcome{3}, $outcome{1}, "$when, $name: the same");
        like($outcome{1}, $expected->{$name}, "$when, $name: as the session says") if $expected->{$name};
    }
    return;
}
my $keys = KEYS;
my %red = (by_trigger => qr/^$keys\|1\|red\|completed\|$keys\|0/, by_policy => qr/^$keys\|1\|red\|completed\|$keys\|0/, by_check => qr/^$keys\|0\|\|completed\|$keys\|0/,
    by_query => qr/^$keys\|1\|red\|completed\|$keys\|0/, by_default => qr/^$keys\|1\|red\|completed\|$keys\|0/);
is_same('SET', "SET ROLE app; SET App.Tenant = 'red'", \%red);
is_same('nothing', 'SET ROLE app', { by_trigger => qr/^$keys\|0\|/, by_policy => qr/^0\|0\|\|completed\|0\|$keys/, by_check => qr/^0\|0\|\|completed\|0\|$keys/ }, names => [qw(by_check by_policy by_trigger)]);
my @few = qw(by_check by_trigger);
is_same('RESET', "SET ROLE app; SET app.tenant = 'red'; RESET app.tenant", { by_trigger => qr/^$keys\|1\|\|completed/ }, names => ['by_trigger']);
is_same('the connection', 'SET ROLE app', \%red, pgoptions => '-c app.tenant=red', names => \@few);
sql(q{ALTER DATABASE postgres SET app.tenant = 'red'});
is_same('the database', 'SET ROLE app', \%red, names => \@few);
is_same('another value than that of the database', "SET ROLE app; SET app.tenant = 'blue'", { by_trigger => qr/^$keys\|1\|blue\|/ }, names => ['by_trigger']);
is_same('an empty value', "SET ROLE app; SET app.tenant = ''", { by_trigger => qr/^$keys\|1\|\|completed/ }, names => ['by_trigger']);
sql(q{ALTER DATABASE postgres RESET app.tenant}, q{ALTER ROLE app SET app.tenant = 'red'});
is_same('the role', 'SELECT', \%red, user => 'app', names => \@few);
is_same('the role, as another role', 'SET ROLE app', { by_trigger => qr/^$keys\|0\|/ }, names => ['by_trigger'], alone => 'app\.tenant is set for the role or the database, and not in this session');
is_same('another value than that of the role', "SET ROLE app; SET app.tenant = 'blue'", { by_trigger => qr/^$keys\|1\|blue\|/ }, names => ['by_trigger']);
sql('ALTER ROLE app RESET app.tenant');

# SET LOCAL lasts until the first commit.
sql(q{CREATE PROCEDURE locally(migration text, workers int) LANGUAGE plpgsql AS $$ BEGIN
    PERFORM set_config('app.tenant', 'red', true);
    CALL redis_migrate.run(migration, workers => workers);
END $$});
for my $workers (1, 3)
{
    sql('TRUNCATE by_trigger');
    sql('SET ROLE app', "CALL locally('by_trigger', $workers)");
    is(outcome('by_trigger'), "$keys|1||completed|$keys|0", "SET LOCAL: by $workers");
}

# Settings of the server.
sql('SET ROLE app', q{CREATE OR REPLACE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.tenant = concat_ws(' ', current_setting('application_name'), 0.1::float8 + 0.2::float8, '\x41'::bytea, current_setting('pg_redis_migrate.batch_rows')); RETURN NEW; END $$});
is_same('settings of the server', q{SET ROLE app; SET application_name = 'importer'; SET extra_float_digits = -3; SET bytea_output = escape; SET pg_redis_migrate.batch_rows = 70},
    { by_trigger => qr/^$keys\|1\|importer 0\.3 A 70\|/ }, names => ['by_trigger']);

# A superuser may set what the owner may not.
is_same('a superuser before SET ROLE', q{SET session_replication_role = replica; SET ROLE app}, { by_trigger => qr/^$keys\|0\|/ }, names => ['by_trigger'], alone => 'session_replication_role was changed in this session, and another process may not do that');
is_same('a superuser before SET ROLE, who only logs', q{SET log_min_duration_statement = '1h'; SET ROLE app}, {}, names => ['by_trigger']);
sql('ALTER TABLE by_trigger ENABLE ALWAYS TRIGGER pace');
# What a superuser has set for the role comes with a login of its own, and not by SET ROLE.
sql('ALTER ROLE app SET session_replication_role = replica');
is_same('a setting of the role', 'SELECT', { by_trigger => qr/^$keys\|0\|/ }, user => 'app', names => ['by_trigger']);
is_same('a setting of the role, as another role', "SET ROLE app; SET app.tenant = 'red'", { by_trigger => qr/^$keys\|1\|/ }, names => ['by_trigger'], alone => 'session_replication_role is set for the role, and not in this session');
sql('ALTER ROLE app RESET session_replication_role', 'ALTER ROLE app IN DATABASE postgres SET session_replication_role = replica');
is_same('a setting of the role in the database', 'SET ROLE app', {}, names => ['by_trigger'], alone => 'session_replication_role is set for the role, and not in this session');
sql('ALTER ROLE app IN DATABASE postgres RESET session_replication_role');
sql('RESET ROLE', 'CREATE TABLE of_superuser (LIKE by_trigger INCLUDING ALL)', 'CREATE TRIGGER stamp BEFORE INSERT ON of_superuser FOR EACH ROW EXECUTE FUNCTION stamp()',
    'CREATE TRIGGER pace BEFORE INSERT ON of_superuser FOR EACH STATEMENT EXECUTE FUNCTION pace()', 'ALTER TABLE of_superuser ENABLE ALWAYS TRIGGER pace',
    q{SELECT redis_migrate.create_migration('of_superuser', 'shop')},
    q{SELECT redis_migrate.add_mapping('of_superuser', 'm', 'k:{id:int}', 'of_superuser', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}', trust_target => true)});
is_same('a superuser', q{SET session_replication_role = replica}, { of_superuser => qr/^$keys\|0\|/ }, names => ['of_superuser']);
sql('GRANT SET ON PARAMETER session_replication_role TO app');
is_same('who may', q{SET ROLE app; SET session_replication_role = replica}, { by_trigger => qr/^$keys\|0\|/ }, names => ['by_trigger']);
is_same('what is set before', q{SET session_replication_role = replica; SET ROLE app}, { by_trigger => qr/^$keys\|0\|/ }, names => ['by_trigger']);

# A secret is nowhere but in the sessions.
my $secret = 'sesame-' . $$;
sql('SET ROLE app', q{CREATE OR REPLACE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tenant = length(current_setting('app.secret')); RETURN NEW; END $$});
is_same('a secret', "SET ROLE app; SET app.secret = '$secret'", { by_trigger => qr/^$keys\|1\|${\length $secret}\|/ }, names => ['by_trigger']);
sql('CHECKPOINT');
my ($with_secret) = run_command([ 'grep', '-rlaF', $secret, $node->logfile, $node->data_dir . '/base', $node->data_dir . '/pg_wal', glob('/dev/shm/PostgreSQL.*') ]);
is($with_secret, '', 'a secret is in no file');
my ($with_query) = run_command([ 'grep', '-rlaF', "coalesce($tenant, 'none')", $node->data_dir . '/base' ]);
isnt($with_query, '', 'which would be found');

done_testing();
