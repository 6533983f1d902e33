# Owners of definitions in a dump that is restored where roles have other numbers, one is missing and another has its
# number; copies of a database; too many owners, and many at a time.

use strict;
use warnings;

use IPC::Run ();
use PostgreSQL::Test::Utils ();
use PrmTest;
use PrmTools;
use Test::More;

my $from = new_node('from', preload => 1);
my $to = new_node('to', preload => 1, conf => "pg_redis_migrate.databases = 'app, copy'");
my $redis = start_redis();

sub from { return $from->safe_psql('postgres', join(";\n", @_)); }
sub app { return $to->safe_psql('app', join(";\n", @_)); }

# --- what there is to dump
create_server($from, 'shop', $redis);
from('CREATE ROLE alice LOGIN', 'CREATE ROLE bob LOGIN', 'CREATE ROLE carol_before LOGIN');
my $alice = from(q{SELECT 'alice'::regrole::oid});
from('GRANT USAGE ON FOREIGN SERVER shop TO alice, bob',
    'CREATE TABLE parent (id int PRIMARY KEY, expires_at timestamptz)', 'CREATE TABLE child (id int REFERENCES parent)',
    'CREATE INDEX ON parent (expires_at)',
    q{INSERT INTO parent VALUES (1, '2000-01-01'), (2, '2100-01-01')}, 'GRANT ALL ON parent TO alice');
for my $role ('alice', 'bob', 'carol_before')
{
    from("GRANT USAGE ON FOREIGN SERVER shop TO $role", "CREATE TABLE of_$role (id int PRIMARY KEY, expires_at timestamptz)", "CREATE INDEX ON of_$role (expires_at)",
        "ALTER TABLE of_$role OWNER TO $role", "INSERT INTO of_$role VALUES (1, '2000-01-01')",
        'GRANT EXECUTE ON FUNCTION redis_migrate.create_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean), redis_migrate.create_lockout TO ' . $role,
        "SET ROLE $role", "SELECT redis_migrate.create_migration('of_$role', 'shop')",
        "SELECT redis_migrate.create_lockout('of_$role')", "SELECT redis_migrate.create_rate_limit('of_$role', 1, '1 day', storage => 'table')",
        "SELECT redis_migrate.add_expiry('of_$role', 'expires_at', every => '1 day')");
}
from('CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM of_alice', 'ALTER MATERIALIZED VIEW counted OWNER TO alice');
from('SET ROLE alice', q{SELECT redis_migrate.add_expiry('parent', 'expires_at', every => '1 s')},
    q{SELECT redis_migrate.add_refresh('counted', every => '1 s', concurrently => false)});
from('ALTER ROLE carol_before RENAME TO carol');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/owners.dump';
$from->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $from->connstr('postgres') ], 'pg_dump');

# --- default privileges of the role that creates the extension give nobody anything of it

my $privileges = q{
    SELECT o.kind, o.name, a.grantee::regrole, a.privilege_type, a.is_grantable
    FROM (SELECT 'relation', oid::regclass::text, relnamespace, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
          FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'S')
          UNION ALL SELECT 'routine', oid::regprocedure::text, pronamespace, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
          UNION ALL SELECT 'type', oid::regtype::text, typnamespace, coalesce(typacl, acldefault('T', typowner)) FROM pg_type
          UNION ALL SELECT 'schema', nspname, oid, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace) AS o (kind, name, namespace, acl),
         aclexplode(o.acl) AS a
    WHERE o.namespace = 'redis_migrate'::regnamespace ORDER BY 1, 2, 3, 4, 5};
$from->safe_psql('postgres', 'CREATE DATABASE plain');
$from->safe_psql('postgres', 'CREATE DATABASE generous');
$from->safe_psql('plain', 'CREATE EXTENSION pg_redis_migrate');
for my $kind (qw(SCHEMAS TABLES SEQUENCES ROUTINES TYPES))
{
    $from->safe_psql('generous', "ALTER DEFAULT PRIVILEGES GRANT ALL ON $kind TO bob, pg_monitor WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES GRANT ALL ON $kind TO PUBLIC");
}
for my $creator (1 .. 3)
{
    $from->psql('generous', 'CREATE EXTENSION pg_redis_migrate', stderr => \my $complaint);
    like($complaint, qr/ERROR:  others may create objects in schema redis_migrate/, "default privileges: nobody may create objects ($creator)");
    $from->safe_psql('generous', ($complaint =~ /HINT:  (.*)/)[0]);
}
$from->safe_psql('generous', 'CREATE EXTENSION pg_redis_migrate');
my $plain = $from->safe_psql('plain', $privileges);
like($plain, qr/^relation\|redis_migrate.rate_limit_stats\|pg_monitor\|SELECT\|f$/m, 'the extension grants some privileges');
is($from->safe_psql('generous', $privileges), $plain, 'default privileges: the extension grants what it says, and nothing else');

# --- elsewhere: alice has another number, hers is a superuser's, and bob is not there
$to->safe_psql('postgres', 'CREATE DATABASE app');
my $number = 0;
for (my $n = 0; $number < $alice && $n < 1000; $n++)
{
    $to->safe_psql('postgres', "CREATE ROLE shuffle_$n SUPERUSER");
    $number = $to->safe_psql('postgres', "SELECT 'shuffle_$n'::regrole::oid");
}
$to->safe_psql('postgres', 'CREATE ROLE carol LOGIN; CREATE ROLE alice LOGIN');
isnt($to->safe_psql('postgres', q{SELECT 'alice'::regrole::oid}), $alice, 'alice has another number');
# As far as the data: a restore that has not ended. The grants and foreign keys come last.
my @restore = ('pg_restore', '-d', $to->connstr('app'));
$to->run_log([ @restore, '--section=pre-data', '--section=data', $dump ]);
is(app('SELECT count(*) FROM redis_migrate.job'), '8', 'no policy is lost');
my $waits = sub {
    $to->poll_query_until('app', 'SELECT true');
    return PostgreSQL::Test::Utils::slurp_file($to->logfile) =~ /WARNING:.*restored definitions wait for CALL redis_migrate.resume_restored\(\)/;
};
wait_until('the scheduler looks', $waits);
is(app('SELECT count(*) FROM parent'), '2', 'nothing is swept before the restore has ended');
$to->run_log([ @restore, '--section=post-data', $dump ]);
my $owners = q{SELECT kind, owner_name, coalesce(owner::text, '-') FROM redis_migrate.definitions
    WHERE owner_name <> 'postgres' AND name LIKE '%of_%' ORDER BY owner_name, kind};
is(app(q{SELECT count(*) FROM redis_migrate.definitions WHERE owner::text LIKE 'shuffle%'}), '0', 'nothing belongs to whoever has the number of the owner');

# pg_restore has given alice and carol the grant of owners, by their names in the dump; it could not do that for bob.
is(app($owners), join("\n", map { my $r = $_; my $o = $r eq 'bob' ? '-' : $r; map { "$_|$r|$o" } 'expiry', 'lockout', 'migration', 'rate limit' } 'alice', 'bob', 'carol'),
    'owners are known by name, and a role that is missing costs its own definitions alone');
like(app(q{SELECT DISTINCT problem FROM redis_migrate.definitions WHERE owner_name = 'bob'}), qr/^its owner, role "bob", does not exist$/, 'the view says why');
is(app(q{SELECT allowed FROM redis_migrate.rate_limit('of_bob', 'k')}, q{SELECT allowed FROM redis_migrate.rate_limit('of_bob', 'k')}), "t\nf", 'a rate limit applies at once, whoever owns it');
app('GRANT EXECUTE ON FUNCTION redis_migrate.login_check TO alice');
is(app('SET ROLE alice', q{SELECT allowed FROM redis_migrate.login_check('of_alice', 'u', '192.0.2.1')}), 't', 'so does a lockout');
is(app('SELECT count(*) FROM parent'), '2', 'sweeps still wait');
is(app(q{SELECT count(*) FROM redis_migrate.definitions WHERE kind = 'expiry' AND problem LIKE 'restored: %'}), '6', 'and the view says for what');
app(q{INSERT INTO of_alice VALUES (2, '2100-01-01'), (3, '2100-01-01')}, 'SET ROLE alice', 'CALL redis_migrate.maintain()');
is(app('SELECT n FROM counted', q{SELECT problem FROM redis_migrate.definitions WHERE kind = 'refresh'}) =~ s/(restored): .*/$1/r, "1\nrestored", 'and so do refreshes');

app('CALL redis_migrate.resume_restored()');
wait_until('the refresh', sub { app('SELECT n FROM counted') eq '2' });
wait_until('the sweeper', sub { app('SELECT count(*) FROM parent') eq '1' && app('SELECT count(*) FROM of_carol_before') eq '0' });
ok(1, 'after resume_restored the scheduler sweeps');
is(app('SELECT count(*) FROM of_bob'), '1', 'not for a role that is missing');
app('CREATE ROLE bob LOGIN');
is(app(q{SELECT count(*) FROM redis_migrate.definitions WHERE owner::text = 'bob'}), '0', 'a role of that name that comes later owns nothing');
app(q{SELECT redis_migrate.take_over(kind, name, 'alice') FROM redis_migrate.definitions WHERE owner_name = 'bob'});
is(app(q{SELECT count(*) FROM redis_migrate.definitions WHERE owner::text = 'alice' AND name LIKE '%of_bob'}), '4', 'a superuser gives them to another role');

# --- a copy of the database has the same definitions, which do not run twice
app('CREATE TABLE twice (id int PRIMARY KEY, expires_at timestamptz)', 'CREATE INDEX ON twice (expires_at)', 'GRANT ALL ON twice TO alice', 'SET ROLE alice',
    q{SELECT redis_migrate.add_expiry('twice', 'expires_at', every => '1 s')});
$to->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE app');
$to->safe_psql('copy', q{INSERT INTO twice VALUES (1, '2000-01-01')});
is($to->safe_psql('copy', q{SELECT count(*) FROM redis_migrate.definitions WHERE NOT restored}), '0', 'in the copy all is restored');
is($to->safe_psql('copy', 'SELECT count(*) FROM redis_migrate.maintenance_owners()'), '0', 'nothing is due in the copy');
is(app(q{SELECT count(*) FROM redis_migrate.definitions WHERE restored}), '0', 'the original is as before');

# --- roles that become owners at the same time
my $create = 'redis_migrate.create_rate_limit(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean)';
app(map { ("CREATE ROLE many_$_", "GRANT EXECUTE ON FUNCTION $create TO many_$_") } 1 .. 4);
my @sessions;
for my $n (1 .. 4)
{
    my $definition = "SET ROLE many_$n; BEGIN; SELECT redis_migrate.create_rate_limit('many_$n', 1, '1 s', storage => 'table'); SELECT pg_sleep(0.2); COMMIT";
    my $error = '';
    push @sessions, [ IPC::Run::start([ 'psql', '-Xq', '-d', $to->connstr('app') ], '<', \$definition, '>', \my $output, '2>', \$error), \$error ];
}
IPC::Run::finish($_->[0]) for @sessions;
is(join('', map { ${ $_->[1] } } @sessions), '', 'none of them fails');
is(app(q{SELECT count(*) FROM redis_migrate.definitions WHERE name LIKE 'many_%' AND problem IS NULL}), '4', 'roles may become owners at the same time');

# --- and more of them than there is room for
my $refused = app(qq{
    DO \$\$
    DECLARE message text; hint text;
    BEGIN
        FOR n IN 1 .. 260 LOOP
            EXECUTE format('CREATE ROLE crowd_%s', n);
            EXECUTE format('GRANT EXECUTE ON FUNCTION $create TO crowd_%s', n);
            EXECUTE format('SET LOCAL ROLE crowd_%s', n);
            PERFORM redis_migrate.create_rate_limit(format('crowd_%s', n), 1, '1 s', storage => 'table');
            RESET ROLE;
        END LOOP;
    EXCEPTION WHEN program_limit_exceeded THEN
        GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
        CREATE TABLE told AS SELECT message, hint;
    END \$\$;
    SELECT message, hint FROM told});
like($refused, qr/^too many roles own definitions of pg_redis_migrate in this database\|Let roles share an owner: GRANT a common role to them/,
    'too many owners are refused, by name, with a hint');

done_testing();
