# A run prepares a mapping once, and again only if the catalogs, the role or a setting have changed between two batches:
# by another session while Redis is stopped, or by a trigger of the target.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

use constant KEYS => 4000;

my $node = new_node('main', conf => "pg_redis_migrate.batch_rows = 10\nautovacuum = off\nlog_statement = none");
my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
create_server($node, 'shop', $redis);
sub sql { return $node->safe_psql('postgres', $_[0]); }

# planned() counts how often the query is planned: the planner runs an immutable function. The trigger executes what is
# due at the nth batch with new rows.
$redis->cli('EVAL', q{for i = 1, tonumber(ARGV[1]) do redis.call('SET', 'v:' .. i, i % 2) end}, 0, KEYS);
sql(q{
    CREATE ROLE mig; CREATE ROLE other; CREATE ROLE stranger;
    GRANT CREATE ON SCHEMA public TO mig, other, stranger;
    GRANT USAGE ON FOREIGN SERVER shop TO mig;
    GRANT pg_read_all_stats TO mig;
    CREATE SCHEMA elsewhere;
    CREATE SEQUENCE plans;
    GRANT USAGE ON SEQUENCE plans TO PUBLIC;
    CREATE FUNCTION planned() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM nextval('public.plans'); RETURN ''; END $$;
    SET ROLE mig;
    CREATE USER MAPPING FOR mig SERVER shop;
    CREATE DOMAIN smallest AS int;
    CREATE DOMAIN small AS smallest;
    CREATE TYPE bit_text AS ENUM ('0', '1');
    CREATE FUNCTION double(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1::int * 2';
    CREATE TABLE label (n int PRIMARY KEY, name text NOT NULL);
    INSERT INTO label VALUES (0, 'even'), (1, 'odd');
    CREATE TABLE item (id int CONSTRAINT item_key PRIMARY KEY, n small, doubled int, label text);
    CREATE SEQUENCE batch;
    CREATE TABLE due (batch int, statement text);
    CREATE TABLE sample (bytes bigint);
    CREATE FUNCTION execute_due() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            now_due text := (SELECT statement FROM public.due WHERE batch = nextval('public.batch'));
        BEGIN
            IF now_due IS NOT NULL THEN EXECUTE now_due; END IF;
            RETURN NULL;
        END $$;
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'item', 'v:{id:int}', 'item', key_columns => '{id}', databases => '{0}', exclusive => true,
        query => 'SELECT b.id, b.value::bit_text::text::int AS n, double(b.value) AS doubled, l.name || planned() AS label FROM redis_batch AS b JOIN label AS l ON l.n = b.value::int')});

# Runs the migration slowly. Does each of the changes after some more batches; then how many rows there are is noted.
# Returns the error of the run, and the notes.
sub run_with
{
    my (@changes) = @_;
    sql(q{ALTER SERVER shop OPTIONS (ADD max_rate '1000')});
    my $run = start_sql($node, q{SET ROLE mig; SET client_min_messages = warning; CALL redis_migrate.run('shop');});
    my @notes;
    for my $change (@changes)
    {
        my $stored = sql('SELECT count(*) FROM item');
        wait_until('more batches', sub { return !$run->running || sql('SELECT count(*) FROM item') > $stored; });
        kill 'STOP', $redis->pid;
        sql("SET ROLE mig; BEGIN; $change; COMMIT");
        push @notes, sql('SELECT count(*) FROM item');
        kill 'CONT', $redis->pid;
    }
    my (undef, $err) = $run->finish;
    sql(q{ALTER SERVER shop OPTIONS (DROP max_rate)});
    return ($err, @notes);
}

# As above, at full speed, after the target was emptied, with statements that are due at batches.
sub run_with_due
{
    my (%due) = @_;
    sql(qq{SET ROLE mig; TRUNCATE item, due; SELECT setval('batch', 1, false)});
    sql(qq{INSERT INTO due VALUES ($_, \$due\$$due{$_}\$due\$)}) for keys %due;
    return sql_error($node, q{SET ROLE mig; CALL redis_migrate.run('shop')});
}

my $rows = sub { return sql(qq{SELECT count(*) FROM item WHERE $_[0]}); };
my $state = sub { return last_run($node, 'shop', 'state, balanced'); };

# Changes under which the run goes on.
my ($err, @notes) = run_with(
    'ALTER TABLE item ALTER doubled TYPE bigint',
    q{DROP FUNCTION double(text); CREATE FUNCTION double(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1::bigint * 2 + 1000'},
    q{CREATE OR REPLACE FUNCTION double(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1::bigint * 2 + 2000'},
    'ALTER TABLE item DROP CONSTRAINT item_key; CREATE UNIQUE INDEX item_new_key ON item (id)',
    q{DROP TYPE bit_text; CREATE TYPE bit_text AS ENUM ('1', '0')},
    'CREATE INDEX item_label ON item (label)',
    'DROP INDEX item_label; ALTER DOMAIN small RENAME TO smaller; ALTER TABLE item ADD more int',
    q{ALTER TABLE label RENAME TO old_label; CREATE TABLE label (name varchar(10), n int PRIMARY KEY); INSERT INTO label VALUES ('EVEN', 0), ('ODD', 1)});
is($err, '', 'a run goes on while its target, its functions and what it joins change');
is($state->(), 'completed|t', 'and completes');
is($rows->('true'), KEYS, 'every key has its row');
is($rows->('n <> id % 2 OR doubled % 1000 <> n * 2'), 0, 'all of them right');
my $old = $rows->('doubled < 1000');
ok($old >= $notes[0] && $old <= $notes[1], "the old function gave the rows up to its end ($old)");
is($rows->('doubled >= 2000'), KEYS - $notes[2], 'the last function all rows since it was made');
is($rows->(q{label IN ('EVEN', 'ODD')}), KEYS - $notes[7], 'and the new table of labels all rows since');

# Changes that must end the run at once, although the mapping was prepared before.
sql('SET ROLE mig; TRUNCATE item');
($err) = run_with('DROP FUNCTION double(text)');
like($err, qr/42883.*mapping "item"|42883/s, 'a function that is gone ends the run');
cmp_ok($rows->('true'), '<', KEYS, 'before its end');
sql(q{SET ROLE mig; CREATE FUNCTION double(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1::bigint * 2'});
is(sql_error($node, q{SET ROLE mig; CALL redis_migrate.run('shop')}), '', 'which goes on when there is one');
is($rows->('true'), KEYS, 'to the last key');

sql('SET ROLE mig; TRUNCATE item');
(undef, @notes) = run_with('ALTER DOMAIN smallest ADD CONSTRAINT zero CHECK (VALUE = 0) NOT VALID');
is($rows->('n = 1 AND ctid > (SELECT ctid FROM item ORDER BY ctid OFFSET ' . $notes[0] . ' LIMIT 1)'), 0, 'a constraint of a domain of a domain holds from then on');
sql('SET ROLE mig; ALTER DOMAIN smallest DROP CONSTRAINT zero; TRUNCATE item');
($err) = run_with('RESET ROLE; CREATE TABLE child () INHERITS (item); ALTER TABLE child OWNER TO stranger');
like($err, qr/55000: target public.item .* would run SQL of role "stranger"/, 'a child of another owner ends the run');
sql('DROP TABLE child');
($err) = run_with('RESET ROLE; ALTER TABLE item RENAME TO item_of_mig; CREATE TABLE item (LIKE item_of_mig INCLUDING ALL); ALTER TABLE item OWNER TO stranger');
like($err, qr/55000: target public.item .* was replaced by one of another owner/, 'and so does a target of another owner');
is($rows->('true'), 0, 'into which nothing was written');
sql('DROP TABLE item; ALTER TABLE item_of_mig RENAME TO item');

# Over many batches a mapping is prepared only a few times, memory does not grow, and rows are found by the index.
sql('SET ROLE mig; CREATE TRIGGER execute_due AFTER INSERT ON item FOR EACH STATEMENT EXECUTE FUNCTION execute_due()');
my $sample = 'INSERT INTO sample SELECT sum(total_bytes) FROM pg_backend_memory_contexts';
sql(q{SELECT setval('plans', 1, false)});
is(run_with_due(20 => $sample, 150 => $sample), '', 'a run of many batches');
cmp_ok(sql('SELECT batches FROM redis_migrate.runs ORDER BY run_id DESC LIMIT 1'), '>=', 150, 'has many batches');
cmp_ok(sql('SELECT last_value FROM plans'), '<=', 12, 'and plans its query a few times');
cmp_ok(sql('SELECT max(bytes) - min(bytes) FROM sample'), '<=', 128 * 1024, 'its memory stays as it was');
sql(q{SET ROLE mig; UPDATE item SET label = 'old'});
sessions_over($node);
my $scans = sql(q{SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'item'});
is(sql_error($node, q{SET ROLE mig; CALL redis_migrate.run('shop')}), '', 'a run that updates every row');
is($rows->(q{label <> 'old'}), KEYS, 'updates every row');
cmp_ok(sql(q{SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'item'}) - $scans, '<=', 5, 'and does not read the whole target for each batch');

# A trigger changes the session between two batches.
is(run_with_due(10 => 'SET search_path = elsewhere'), '', 'another search_path of the session is not that of the mapping');
is($rows->('true'), KEYS, 'all rows are there');
sql('GRANT ALL ON item, label, due, sample, batch TO other');
like(run_with_due(10 => 'SET ROLE other'), qr/55000: target public.item .* would run SQL of role "mig"/, 'another role has not confirmed the target');
sql('SET ROLE mig; ALTER TABLE label ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY all_rows ON label USING (true)');
is(run_with_due(), '', 'a policy that shows all rows');
like(run_with_due(10 => 'SET row_security = off'), qr/42501: .*row-level security policy/, 'is an error for a session without row_security');
is(sql_error($node, q{SET ROLE mig; CALL redis_migrate.run('shop')}), '', 'but not for the next session');
sql('SET ROLE mig; CREATE POLICY odd_rows ON label AS RESTRICTIVE USING (n = 1)');
is(run_with_due(), '', 'another policy');
is($rows->('true'), KEYS / 2, 'hides rows of what the query joins');

# No statement of ours is compiled, whatever the session says. The first that is would make PostgreSQL look for its JIT
# provider, installed or not.
{
    sql(q{
        CREATE TABLE compiled (id int PRIMARY KEY, value text, expires_at timestamptz);
        SELECT redis_migrate.create_migration('compiled', 'shop', source => 'replication', databases => '{0}');
        SELECT redis_migrate.add_mapping('compiled', 'compiled', 'c:{id:int}', 'compiled', 'SELECT id, value, expires_at FROM redis_batch', '{id}', databases => '{0}');
        SELECT redis_migrate.add_expiry('compiled', 'expires_at', every => '1 day')});
    $redis->cli_lines(join '', map { "SET c:$_ x PX 100000\n" } 1 .. 200);
    my $jit = "SET jit = on; SET jit_above_cost = 0; SET client_min_messages = debug1;";
    my $err = '';
    $node->psql('postgres', "SELECT 1; $jit SELECT count(*) FROM pg_catalog.pg_class", stderr => \$err);
    like($err, qr/JIT provider/, 'a statement of the session is compiled');
    my $calls_succeed = sub {
        for my $call (@_)
        {
            is($node->psql('postgres', "$jit CALL redis_migrate.$call", stderr => \$err), 0, $call);
            unlike($err, qr/JIT provider/, 'is not compiled');
        }
    };
    $calls_succeed->(q{run('compiled', prune => true)}, q{audit('shop', sample => 1)}, q{sweep('compiled')}, q{maintain()});
    sql(q{SELECT redis_migrate.start('compiled', live => true)});
    $calls_succeed->(q{wait_for('compiled', '50 s')}, q{verify('compiled')}, q{cutover('compiled', 'confirmed', max_pause => '20 s')},
        q{cutback('compiled', discard_changes => true)});
    sql(q{SELECT redis_migrate.stop('compiled')});
}

# A function that a statement of ours calls may set jit. SET LOCAL ends with the statement, SET stays, and so does what
# else it sets.
sql(q{
    CREATE TABLE jit (id int PRIMARY KEY, value text);
    CREATE FUNCTION set_jit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER set_jit BEFORE INSERT ON jit FOR EACH ROW EXECUTE FUNCTION set_jit();
    SELECT redis_migrate.create_migration('jit', 'shop', databases => '{0}');
    SELECT redis_migrate.add_mapping('jit', 'jit', 'j:{id:int}', 'jit', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')});
$redis->cli('SET', 'j:1', 'x');
for (['SET LOCAL', 'off', 'on', 'on'], ['SET LOCAL', 'on', 'on', 'on'], ['SET LOCAL', 'on', 'off', 'off'], ['SET', 'on', 'off', 'on'], ['SET', 'off', 'on', 'off'])
{
    my ($set, $value, $session, $after) = @$_;
    sql(qq{TRUNCATE jit; CREATE OR REPLACE FUNCTION set_jit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN $set jit = $value; SET work_mem = ''77MB''; RETURN NEW; END'});
    is(sql(qq{SET jit = $session; CALL redis_migrate.run('jit'); SHOW jit; SHOW work_mem}), "$after\n77MB", "$set jit = $value where it is $session");
}

done_testing();
