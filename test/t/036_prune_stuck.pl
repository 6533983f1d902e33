# A prune removes what can go. Rows to which others refer, or that a trigger keeps, stay, are counted, and go with a later
# prune: with every kind of ledger.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('prune');
my $redis = start_redis();
create_server($node, 'shop', $redis);

sub sql { return $node->safe_psql('postgres', "SET client_min_messages = error;\n$_[0]"); }

# Runs a migration and returns what it says.
sub run
{
    my ($migration, $options) = @_;
    my (undef, undef, $said) = $node->psql('postgres', "CALL redis_migrate.run('$migration'" . ($options ? ", $options" : '') . ')');
    return $said;
}

sub prune
{
    my ($migration, $options) = @_;
    my $said = run($migration, 'prune => true' . ($options ? ", $options" : ''));
    return $said;
}

sub outcome
{
    my ($migration) = @_;
    return sql("SELECT deleted, prune, prune_detail FROM redis_migrate.mapping_counts
        WHERE migration = '$migration' AND mapping <> '(archive)' ORDER BY run_id DESC LIMIT 1");
}

sub last_id { return sql("SELECT max(run_id) FROM redis_migrate.runs WHERE migration = '$_[0]'"); }

my $gone = '(SELECT count(*) FROM generate_series(1, 150) AS g (id) WHERE NOT EXISTS (SELECT FROM base AS b WHERE b.id = g.id))';

for (
    ['full', 'base', ''],
    ['packed', 'base', q{, databases => '{0}'}],
    ['packed', 'base', q{, databases => '{0}', exclusive => true}],
    ['none', 'face', q{, databases => '{0}', exclusive => true}],
    ['full', 'face', ''])
{
    my ($ledger, $target, $options) = @$_;
    my $name = "$ledger ledger, $target$options";
    $redis->cli('FLUSHALL');
    sql(qq{CREATE TABLE base (id int PRIMARY KEY, v text); CREATE VIEW face AS SELECT id, v FROM base;
        CREATE TABLE fan (id int CONSTRAINT fan_id REFERENCES base);
        SELECT redis_migrate.create_migration('m', 'shop');
        SELECT redis_migrate.add_mapping('m', 'm', 'k:{id:int}', '$target', 'SELECT id::int AS id, value AS v FROM redis_batch', '{id}'$options)});
    is(sql(q{SELECT ledger FROM redis_migrate.mappings WHERE migration = 'm'}), $ledger, $name);
    $redis->cli_lines(join '', map { "SET k:$_ v$_\n" } 1 .. 2000);
    run('m');
    sql('INSERT INTO fan VALUES (7), (70), (150)');
    $redis->cli('DEL', map { "k:$_" } 1 .. 150);
    my $said = prune('m');
    like($said, qr/WARNING:  mapping "m" was not pruned completely: 3 rows cannot go, first \(id\)=\(x{1,3}\) \(23503: .*"fan_id"/m, "$name: what stays is named");
    unlike($said, qr/\((7|70|150)\)/, 'without its key');
    is(sql("SELECT $gone, (SELECT string_agg(id::text, ' ' ORDER BY id) FROM base WHERE id <= 150)"), '147|7 70 150', 'the others go');
    like(outcome('m'), qr/^147\|pruned\|3 rows cannot go, first/, 'as the outcome says');
    is(last_run($node, 'm', 'state'), 'completed', 'the run completes');
    my $first = last_id('m');
    prune('m');
    like(outcome('m'), qr/^0\|refused\|3 rows cannot go/, 'nothing else goes then');
    sql('TRUNCATE fan');
    unlike(prune('m'), qr/WARNING/, 'no warning');
    is(sql("SELECT $gone"), 150, 'they go when they can');
    is(outcome('m'), '3|pruned|', 'and the outcome says so');

    sql("CALL redis_migrate.undo_run($_)") for last_id('m'), $first;
    is(sql("SELECT $gone, (SELECT count(*) FROM base WHERE v = 'v' || id)"), '0|2000', 'undone, all are as they were');

    # A limit is one of what goes.
    $redis->cli('MSET', map { ("k:$_", "w$_") } 1 .. 150);
    run('m');
    $redis->cli('DEL', map { "k:$_" } 1 .. 230);
    sql('INSERT INTO fan SELECT id FROM generate_series(1, 200, 10) AS id');
    like(prune('m'), qr/would have deleted 210 of its 2000 rows, more than/, 'more than a tenth does not go');
    is(sql('SELECT count(*) FROM base'), 2000, 'not one of them');
    like(outcome('m'), qr/^0\|refused\|the run would have deleted 210/, 'which the outcome says');
    sql('INSERT INTO fan SELECT id FROM generate_series(201, 215) AS id');
    prune('m');
    like(outcome('m'), qr/^195\|pruned\|35 rows cannot go/, 'a tenth does') or diag(outcome('m'));
    sql(q{SELECT redis_migrate.drop_migration('m'); DROP TABLE base CASCADE; DROP TABLE fan});
}

# Rows that refer to one another, some deep: those that nothing keeps go.
for my $databases ('', q{, databases => '{0}'})
{
    $redis->cli('FLUSHALL');
    sql(qq{CREATE TABLE person (id int PRIMARY KEY, boss int);
        SELECT redis_migrate.create_migration('m', 'shop');
        SELECT redis_migrate.add_mapping('m', 'm', 'k:{id:int}', 'person', 'SELECT id, nullif(value, '''')::int AS boss FROM redis_batch', '{id}'$databases)});
    $redis->cli_lines(join '', map { "SET k:$_ " . ($_ <= 150 && int($_ / 5) || '""') . "\n" } 1 .. 2000);
    run('m');
    sql('ALTER TABLE person ADD FOREIGN KEY (boss) REFERENCES person; CREATE TABLE fan (id int REFERENCES person); INSERT INTO fan VALUES (75)');
    $redis->cli('DEL', map { "k:$_" } 1 .. 150);
    prune('m');
    is(sql(q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM person WHERE id <= 150}), '3 15 75', "one that stays, and those that it refers to$databases");
    sql('TRUNCATE fan');
    unlike(prune('m'), qr/WARNING/, 'the others');
    is(sql('SELECT count(*) FROM person'), 1850, 'go when they can');
    sql(q{SELECT redis_migrate.drop_migration('m'); DROP TABLE person CASCADE; DROP TABLE fan});
}

# A row that is to be marked, and a session that ends meanwhile.
$redis->cli('FLUSHALL');
sql(q{CREATE TABLE base (id int PRIMARY KEY, v text, gone boolean);
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.gone AND OLD.id = 7 THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER keep BEFORE UPDATE ON base FOR EACH ROW EXECUTE FUNCTION keep();
    SELECT redis_migrate.create_migration('m', 'shop');
    SELECT redis_migrate.add_mapping('m', 'm', 'k:{id:int}', 'base', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}', on_delete => 'gone = true')});
$redis->cli_lines(join '', map { "SET k:$_ v$_\n" } 1 .. 2000);
run('m');
$redis->cli('DEL', map { "k:$_" } 1 .. 20);
my $holder = start_sql($node, q{BEGIN; SELECT FROM base WHERE id = 20 FOR UPDATE; SELECT pg_sleep(100)}, name => 'holder');
wait_until('the lock', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holder' AND wait_event = 'PgSleep'}) eq '1' });
my $call = start_sql($node, q{CALL redis_migrate.run('m', prune => true)}, name => 'call');
wait_until('the prune', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'call' AND wait_event_type = 'Lock'}) eq '1' });
sql(q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name IN ('call', 'holder') ORDER BY application_name});
$_->finish for $call, $holder;
is(sql('SELECT count(*) FROM base WHERE gone') . last_run($node, 'm', 'state'), '0interrupted', 'a prune that ends with its session has done nothing');
like(prune('m'), qr/not pruned completely: 1 row cannot go: \(id\)=\(x\) \(P0001: not this one\)/, 'the run goes on with it');
is(sql('SELECT count(*), count(*) FILTER (WHERE gone) FROM base'), '2000|19', 'and marks the others');

# An error of the server ends it, and what it has done is undone.
sql(q{UPDATE base SET gone = NULL; CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.gone AND OLD.id IN (7, 19) THEN RAISE EXCEPTION 'state' USING ERRCODE = CASE OLD.id WHEN 7 THEN 'P0001' ELSE '53100' END; END IF; RETURN NEW; END $$});
$redis->cli('MSET', map { ("k:$_", "w$_") } 1 .. 20);
run('m');
$redis->cli('DEL', map { "k:$_" } 1 .. 20);
like(prune('m'), qr/ERROR:  state/, 'an error of the server ends the prune');
is(sql('SELECT count(*) FROM base WHERE gone'), 0, 'with nothing done');

# Keys of several columns, with characters that mean something elsewhere, in partitions.
for my $options (q{, databases => '{0}'}, '')
{
    $redis->cli('FLUSHALL');
    sql(qq{CREATE TABLE odd (name text, day date, v text, PRIMARY KEY (name, day)) PARTITION BY RANGE (day);
        CREATE TABLE odd_1 PARTITION OF odd FOR VALUES FROM ('2024-01-01') TO ('2025-01-01'); CREATE TABLE odd_2 PARTITION OF odd DEFAULT;
        CREATE TABLE fan (name text, day date, FOREIGN KEY (name, day) REFERENCES odd);
        SELECT redis_migrate.drop_migration('m'); SELECT redis_migrate.create_migration('m', 'shop'); SET datestyle = 'German';
        SELECT redis_migrate.add_mapping('m', 'm', 'k:{day:date}:{name}', 'odd', 'SELECT name, day, value AS v FROM redis_batch', '{name,day}'$options)});
    my @odd = ('NULL', 'a,b', '{}', 'q"q', 'b\\\\b', "it's", ' ', 'ü');
    my %line = map { ("k:2024-02-01:$_" => 1, "k:2025-03-04:$_" => 1) } @odd;
    my $quoted = sub { my ($key) = @_; $key =~ s/([\\"])/\\$1/g; return qq("$key"); };
    $redis->cli_lines(join '', map { 'SET ' . $quoted->($_) . " x\n" } sort(keys %line), map { "k:2024-01-01:$_" } 1 .. 500);
    run('m');
    is(sql('SELECT count(*) FROM odd'), 516, "odd keys$options");
    sql(q{INSERT INTO fan SELECT name, day FROM odd WHERE name !~ '^[0-9]' AND day < '2025-01-01' AND name <> ' '});
    $redis->cli_lines(join '', map { 'DEL ' . $quoted->($_) . "\n" } sort(keys %line));
    like(prune('m'), qr/: 7 rows cannot go, first \(name, day\)=\([^a-z0-9]*(?:[x\\".,{}' ]|[^a-z0-9])*,xxxx-xx-xx\) \(23503: /, 'those that stay');
    is(sql(q{SELECT count(*), count(*) FILTER (WHERE name ~ '^[0-9]'), (SELECT count(*) FROM fan JOIN odd USING (name, day)) FROM odd}), '507|500|7', 'the others go');
    sql('TRUNCATE fan');
    unlike(prune('m'), qr/WARNING/, 'later these, too');
    is(sql('SELECT count(*) FROM odd'), 500, 'all of them');
    sql('DROP TABLE fan; DROP TABLE odd');
}

done_testing();
