# The bridge between C++ and PostgreSQL: whatever fails, destructors run, nothing leaks, no exception stays behind and
# errors arrive unchanged.

use strict;
use warnings;

use FindBin;
use IPC::Run ();
use PostgreSQL::Test::Utils ();
use PrmTest;
use PrmTools;
use Test::More;

my $module = "$FindBin::Bin/../modules/bridge/bridge.so";
die "make -C test/modules/bridge has to be run first\n" if !-e $module;

my $node = new_node('bridge');
$node->safe_psql(
    'postgres', qq{
    CREATE FUNCTION raise(kind text, sqlstate text, message text, detail text, hint text) RETURNS void
        LANGUAGE c AS '$module', 'prm_bridge_raise';
    CREATE FUNCTION raise_without_memory() RETURNS void LANGUAGE c AS '$module', 'prm_bridge_raise_without_memory';
    CREATE PROCEDURE roll_back(sql text, times int) LANGUAGE c AS '$module', 'prm_bridge_roll_back';
    CREATE FUNCTION execute(sql text, depth int) RETURNS void LANGUAGE c AS '$module', 'prm_bridge_execute';
    CREATE FUNCTION try(sql text, depth int) RETURNS text LANGUAGE c AS '$module', 'prm_bridge_try';
    CREATE FUNCTION alive() RETURNS int LANGUAGE c AS '$module', 'prm_bridge_alive';
    CREATE FUNCTION sleep(timeout_ms int, times int) RETURNS void LANGUAGE c AS '$module', 'prm_bridge_sleep';
    CREATE FUNCTION is_clean() RETURNS boolean LANGUAGE c AS '$module', 'prm_bridge_is_clean';
    CREATE FUNCTION rss_kb() RETURNS int LANGUAGE sql AS
        \$\$ SELECT substring(pg_read_file('/proc/self/status') FROM 'VmRSS:\\s*(\\d+)')::int \$\$;
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int CONSTRAINT child_fk REFERENCES parent);

    -- Raises every kind n times; the SQLSTATEs that were caught.
    CREATE FUNCTION raise_all(n int) RETURNS text LANGUAGE plpgsql AS \$\$
    DECLARE
        kind text;
        caught text[] := '{}';
    BEGIN
        FOREACH kind IN ARRAY ARRAY['failure', 'postgres', 'runtime_error', 'bad_alloc', 'int'] LOOP
            FOR i IN 1..n LOOP
                BEGIN
                    PERFORM raise(kind, 'PR001', repeat('m', 1000), repeat('d', 1000), repeat('h', 1000));
                    RAISE EXCEPTION 'nothing was raised';
                EXCEPTION WHEN OTHERS THEN
                    IF i = n THEN caught := caught || SQLSTATE::text; END IF;
                END;
            END LOOP;
        END LOOP;
        FOR i IN 1..n LOOP
            BEGIN
                PERFORM execute('SELECT 1/0', 3);
                RAISE EXCEPTION 'nothing was raised';
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
        END LOOP;
        RETURN caught::text;
    END\$\$;});

# Every kind in one session.
is($node->safe_psql('postgres', 'SELECT raise_all(1)'), '{PR001,PR001,XX000,53200,XX000}', 'SQLSTATE of each kind');
my $measured = $node->safe_psql(
    'postgres', q{
    SELECT raise_all(200);
    CREATE TEMP TABLE before AS SELECT rss_kb();
    SELECT raise_all(2000);
    SELECT rss_kb() - before.rss_kb FROM before;
    SELECT alive(), is_clean();});
my (undef, undef, $growth, $state) = split /\n/, $measured;
cmp_ok($growth, '<', 4096, "12,000 caught errors leak nothing: $growth kB");
is($state, '0|t', 'every object is destroyed and no exception is left');

# An error of which there is no memory for a copy.
my $memory = sql_error($node, 'SELECT raise_without_memory()');
like($memory, qr/ERROR:  53200: out of memory/, 'an error that cannot be copied is one of memory');
is($node->safe_psql('postgres', q{
    DO $$ BEGIN PERFORM raise_without_memory(); EXCEPTION WHEN out_of_memory THEN NULL; END $$;
    SELECT alive(), is_clean()}), '0|t', 'and passes no destructor');

# An error that leaves a function's connection to SPI behind.
$node->safe_psql('postgres', q{
    CREATE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1 / (SELECT count(*) FROM child); END $$;
    CREATE FUNCTION fail_in_ours() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM execute('SELECT fail()', 1); RETURN 1; END $$});
for my $call ('fail()', 'fail_in_ours()')
{
    my ($stdout, $stderr) = ('', '');
    $node->psql('postgres', qq{
        SELECT execute('SELECT $call', 3);
        SELECT try('SELECT $call', 3);
        CALL roll_back('SELECT $call', 1);
        SELECT * FROM went_on;
        DROP TABLE went_on;
        CREATE TEMP TABLE before AS SELECT rss_kb();
        CALL roll_back('SELECT $call', 2000);
        SELECT rss_kb() - before.rss_kb < 4096 FROM before}, on_error_stop => 0, stdout => \$stdout, stderr => \$stderr);
    is($stdout, "22012\n22012\nt", "$call: after its error a procedure rolls back and goes on, and leaks nothing");
    unlike($stderr, qr/WARNING/, "$call: rows of the calling function are not freed before its turn");
    $node->safe_psql('postgres', 'DROP TABLE went_on');
}

# As above, as separate statements, each of which ends its transaction.
my $statements = '';
for my $kind (qw(failure postgres runtime_error bad_alloc int))
{
    $statements .= "SELECT raise('$kind', 'PR001', repeat('m', 1000), 'd', 'h');\nSELECT execute('SELECT 1/0', 3);\n" x 200;
}
my ($out, $err);
$node->psql(
    'postgres',
    "SELECT raise_all(1);\nCREATE TEMP TABLE before AS SELECT rss_kb();\n$statements"
      . 'SELECT rss_kb() - before.rss_kb FROM before; SELECT alive(), is_clean();',
    stdout => \$out, stderr => \$err, on_error_stop => 0);
(undef, $growth, $state) = split /\n/, $out;
is(scalar(() = $err =~ /ERROR:/g), 2000, 'each of 2,000 statements fails');
cmp_ok($growth, '<', 4096, "2,000 failed statements leak nothing: $growth kB");
is($state, '0|t', 'every object is destroyed and no exception is left after failed statements');

# An error of PostgreSQL below C++ frames.
is($node->safe_psql('postgres', q{SELECT try('SELECT 1/0', 5), alive(), is_clean()}),
    '22012|0|t', 'an SPI error runs the destructors of the frames above it');
is($node->safe_psql('postgres', q{SELECT try('SELECT 1', 5), alive()}), '00000|0', 'no error, nothing left');
$node->safe_psql('postgres', q{SELECT try('INSERT INTO parent VALUES (1)', 0), try('INSERT INTO parent VALUES (2), (2)', 0)});
is($node->safe_psql('postgres', 'SELECT array_agg(id) FROM parent'), '{1}', 'a failed subtransaction is rolled back alone');

# The error that arrives at the client.
$err = sql_error($node, q{SELECT raise('failure', 'PR042', 'the message', 'the detail', 'the hint')});
like($err, qr/ERROR:  PR042: the message\nDETAIL:  the detail\nHINT:  the hint\n/, 'a Failure arrives whole');
$err = sql_error($node, q{SELECT raise('postgres', 'PR043', 'the message', 'the detail', 'the hint')});
like($err, qr/ERROR:  PR043: the message\nDETAIL:  the detail\nHINT:  the hint\n/, 'a PostgreSQL error arrives whole');
like($err, qr/LOCATION:  .*bridge\.cpp/, 'with the place where it was raised');
my $direct = sql_error($node, 'INSERT INTO child VALUES (7)');
my $through = sql_error($node, q{SELECT execute('INSERT INTO child VALUES (7)', 3)});
for my $field (qr/ERROR:  \S+: .*/, qr/DETAIL:  .*/, qr/SCHEMA NAME:  .*/, qr/TABLE NAME:  .*/, qr/CONSTRAINT NAME:  .*/, qr/LOCATION:  .*/)
{
    my ($expected) = $direct =~ /($field)/;
    my ($got) = $through =~ /($field)/;
    ok(defined $expected && $expected eq ($got // ''), "passed through unchanged: $expected");
}
$err = sql_error($node, q{SELECT execute('SELECT nothing FROM parent', 3)});
like($err, qr/ERROR:  42703: .*\n.*LINE 1: SELECT nothing FROM parent/s, 'the position in an inner statement stays');
$err = sql_error($node, q{SELECT raise('failure', 'PR001', repeat('ä', 5000), repeat('ö', 5000), repeat('ü', 5000))});
like($err, qr/ERROR:  PR001: (?:ä){1000,}\nDETAIL:  (?:ö){1000,}\nHINT:  (?:ü){1000,}\n/, 'what is too long is cut between characters');

# A wait whose time is over as it begins, at whatever microsecond, must not last for ever.
is(sql_error($node, q{SET statement_timeout = '1min'; SELECT sleep(0, 100000)}), '', 'no time to wait is none');

# A CALL with parameters of the protocol, whose plan goes with its transaction, passes our hooks when it fails after that.
$node->safe_psql('postgres', q{CREATE PROCEDURE gone(n int) LANGUAGE plpgsql AS $$BEGIN ROLLBACK; RAISE EXCEPTION 'gone %', n USING ERRCODE = '42501'; END$$});
my $script = PostgreSQL::Test::Utils::tempdir() . '/call.sql';
PostgreSQL::Test::Utils::append_to_file($script, "LOAD 'pg_redis_migrate';\nCALL gone(:n);\n");
for my $mode ('extended', 'prepared')
{
    my $out = '';
    IPC::Run::run([ 'pgbench', '-n', '-M', $mode, '-t', 1, '-D', 'n=7', '-f', $script, $node->connstr('postgres') ], '<', \undef, '>', \$out, '2>&1');
    like($out, qr/ERROR:  gone 7/, "a CALL that rolls back and fails, $mode");
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/was terminated by signal/, 'no process has crashed');

done_testing();
