# Rows of plain tables are changed without a statement; where an UPDATE does more than store rows, an UPDATE is used. What
# is stored, counted and rejected is the same.

use strict;
use warnings;
use feature qw(state);

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('main', conf => "log_statement = none\nlog_autovacuum_min_duration = -1\nautovacuum = off");
my $redis = start_redis();
create_server($node, 'shop', $redis);
sub sql { return $node->safe_psql('postgres', $_[0]); }

# The tables that a statement of a run updated, as auto_explain tells.
sub updated_by_statements
{
    my ($run) = @_;
    my $begin = -s $node->logfile;
    sql(qq{LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; $run});
    my $log = substr slurp_file($node->logfile), $begin;
    my %found = map { $_ => 1 } $log =~ /UPDATE public\.(\w+) AS target/g;
    return join ' ', sort keys %found;
}

# Name => [definition, what holds of each row, with UPDATE's work done].
my %by_update = (
    with_before_trigger => [ 'id text PRIMARY KEY, v text', q{v = id || '!'} ],
    with_after_trigger => [ 'id text PRIMARY KEY, v text', q{id IN (SELECT id FROM noted)} ],
    with_foreign_key => [ 'id text PRIMARY KEY, v text REFERENCES known', 'true' ],
    with_rule => [ 'id text PRIMARY KEY, v text', q{id IN (SELECT id FROM ruled)} ],
    with_row_security => [ 'id text PRIMARY KEY, v text', 'true' ],
    partitioned => [ 'id text PRIMARY KEY, v text', 'true', 'PARTITION BY HASH (id)' ],
    with_generated => [ q{id text PRIMARY KEY, v text, g text GENERATED ALWAYS AS (id || v) STORED}, 'g = id || v' ],
    with_expression => [ 'id text PRIMARY KEY, v text', 'true' ],
    with_predicate => [ 'id text PRIMARY KEY, v text', 'true' ],
    with_exclusion => [ 'id text PRIMARY KEY, v text, EXCLUDE USING btree (v WITH =)', 'true' ],
    with_volatile_check => [ 'id text PRIMARY KEY, v text CHECK (is_good(v))', 'true' ]);
my %in_bulk = (
    plain => [ 'id text PRIMARY KEY, v text', 'true' ],
    reordered => [ 'gone int, v text, other text DEFAULT $$kept$$, id text PRIMARY KEY', q{other = 'kept'} ],
    with_indexes => [ 'id text PRIMARY KEY, v text CHECK (length(v) > 0) NOT NULL', 'true' ],
    with_identity => [ 'id text PRIMARY KEY, v text, n int GENERATED ALWAYS AS IDENTITY', 'n BETWEEN 1 AND 30' ],
    with_default => [ 'id text PRIMARY KEY, v text, d int DEFAULT 7', 'd = 7' ],
    spelled => [ 'id text COLLATE any_case PRIMARY KEY, v text', 'true' ]);
my %tables = (%by_update, %in_bulk);

sql(q{
    CREATE TABLE noted (id text);
    CREATE TABLE ruled (id text);
    CREATE TABLE known (v text PRIMARY KEY);
    INSERT INTO known SELECT word || i FROM generate_series(1, 30) AS i, unnest('{"value ", "new "}'::text[]) AS word;
    CREATE FUNCTION is_good(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN $1 <> 'bad'; END $$;
    CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.id || '!'; RETURN NEW; END $$;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted VALUES (NEW.id); RETURN NULL; END $$;
    CREATE COLLATION any_case FROM "C";
    SELECT redis_migrate.create_migration('shop', 'shop')});
for my $table (sort keys %tables)
{
    my ($columns, undef, $kind) = (@{ $tables{$table} }, '');
    sql("CREATE TABLE $table ($columns) $kind");
}
sql(q{
    CREATE TRIGGER mark BEFORE UPDATE ON with_before_trigger FOR EACH ROW EXECUTE FUNCTION mark();
    CREATE TRIGGER note AFTER UPDATE ON with_after_trigger FOR EACH ROW EXECUTE FUNCTION note();
    CREATE RULE also AS ON UPDATE TO with_rule DO ALSO INSERT INTO ruled VALUES (NEW.id);
    ALTER TABLE with_row_security ENABLE ROW LEVEL SECURITY;
    CREATE TABLE partition_0 PARTITION OF partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE partition_1 PARTITION OF partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE INDEX ON with_expression (lower(v));
    CREATE INDEX ON with_predicate (v) WHERE v > 'a';
    CREATE INDEX ON with_indexes (v);
    CREATE INDEX ON with_indexes USING hash (v);
    CREATE INDEX ON with_indexes USING brin (v);
    ALTER TABLE reordered DROP COLUMN gone});
# Some of them are exclusive, the rest keep a ledger.
my $count = 0;
for my $table (sort keys %tables)
{
    my $exclusive = $count++ < 8 ? 'true' : 'false';
    sql(qq{SELECT redis_migrate.add_mapping('shop', '$table', 'v:{id}', '$table', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}',
        databases => '{0}', exclusive => $exclusive)});
}
$redis->cli('MSET', map { ("v:$_", "value $_") } 1 .. 30);
is(updated_by_statements(q{CALL redis_migrate.run('shop')}), '', 'a first run updates nothing');
$redis->cli('MSET', map { ("v:$_", "new $_") } 1 .. 29);
is(updated_by_statements(q{CALL redis_migrate.run('shop')}), join(' ', sort keys %by_update), 'statements update the tables that are not plain');
is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'the run completed');
is(sql(q{SELECT DISTINCT inserted, updated, unchanged FROM redis_migrate.mapping_counts WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs)}), '0|29|1', 'and counts each row');
for my $table (sort keys %tables)
{
    my ($right, $v) = ($tables{$table}[1], $table eq 'with_before_trigger' ? q{(id || '!')} : q{('new ' || id)});
    is(sql(qq{SELECT count(*), count(*) FILTER (WHERE ($right) AND v = $v) FROM $table WHERE id <> '30'}), '29|29', "$table is as an UPDATE leaves it");
}
is(sql(q{SET enable_seqscan = off; SELECT (SELECT count(*) FROM generate_series(1, 29) AS i JOIN with_indexes ON v = 'new ' || i), (SELECT count(*) FROM with_indexes WHERE v BETWEEN 'new' AND 'new~')}), '29|29', 'and so are its indexes');

# Values larger than a page, which were and are stored out of line; a row that grows and one that shrinks.
sql(q{CREATE TABLE wide (id text PRIMARY KEY, v text, kept text); ALTER TABLE wide ALTER v SET STORAGE EXTERNAL, ALTER kept SET STORAGE EXTERNAL;
    SELECT redis_migrate.create_migration('wide', 'shop');
    SELECT redis_migrate.add_mapping('wide', 'rows', 'w:{id}', 'wide', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}', databases => '{0}', exclusive => true)});
my $fill = q{for i = 1, 300 do redis.call('SET', 'w:' .. i, string.rep(tostring(i), (i + tonumber(ARGV[1])) % 3 == 0 and 5000 or 20)) end};
$redis->cli('EVAL', $fill, 0, 0);
sql(q{CALL redis_migrate.run('wide'); UPDATE wide SET kept = repeat(id, 3000)});
$redis->cli('EVAL', $fill, 0, 1);
is(updated_by_statements(q{CALL redis_migrate.run('wide')}), '', 'large rows are changed without a statement');
is(sql(q{SELECT count(*), count(*) FILTER (WHERE v = repeat(id, CASE WHEN (id::int + 1) % 3 = 0 THEN 5000 ELSE 20 END) AND kept = repeat(id, 3000)) FROM wide}), '300|300', 'to what the keys have');

# Constraints reject the same keys as an UPDATE does.
my %outcome;
for my $table (qw(strict strict_by_update))
{
    my $more = $table eq 'strict' ? '' : ', EXCLUDE USING btree (id WITH =)';
    sql(qq{CREATE TABLE $table (id text PRIMARY KEY, n int NOT NULL CONSTRAINT small CHECK (n < 1000), u int CONSTRAINT ${table}_once UNIQUE$more);
        SELECT redis_migrate.create_migration('$table', 'shop');
        SELECT redis_migrate.add_mapping('$table', 'rows', 's:{id}', '$table', 'SELECT id, NULLIF(value, '''')::int AS n, NULLIF(value, '''')::int AS u FROM redis_batch',
            key_columns => '{id}', databases => '{0}', exclusive => true)});
    $redis->cli('MSET', map { ("s:$_", $_) } 1 .. 50);
    sql(qq{CALL redis_migrate.run('$table')});
    $redis->cli('MSET', (map { ("s:$_", $_ + 100) } 1 .. 50), 's:10', '', 's:20', 2000, 's:30', 131);
    is(updated_by_statements(qq{CALL redis_migrate.run('$table')}), $table, "with bad rows $table is updated by statements");
    $outcome{$table} = sql(qq{SELECT string_agg(replace(concat_ws(' ', r.key, r.rule, r.sqlstate, r.message), '$table', 'table'), ', ' ORDER BY r.key)
        FROM redis_migrate.rejects AS r JOIN redis_migrate.runs AS u USING (run_id) WHERE u.migration = '$table'})
        . sql(qq{SELECT inserted, updated, unchanged FROM redis_migrate.mapping_counts WHERE migration = '$table' ORDER BY run_id})
        . sql(qq{SELECT md5(string_agg(id || ' ' || n, ',' ORDER BY id)) FROM $table});
}
is($outcome{strict}, $outcome{strict_by_update}, 'both tables have the same rows, counts and rejects');
like($outcome{strict}, qr/s:10 n 23502.*s:20 small 23514.*s:31 table_once 23505/s, 'the constraints are named');

# Somebody else changes, or deletes, a row between its look-up and its change.
sql(q{CREATE TABLE changing (id text PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('changing', 'shop');
    SELECT redis_migrate.add_mapping('changing', 'rows', 'v:{id}', 'changing', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}', databases => '{0}', exclusive => true);
    CALL redis_migrate.run('changing')});
for my $case ([ q{UPDATE changing SET v = 'theirs' WHERE id = '5'}, '0|30|0' ], [ q{DELETE FROM changing WHERE id = '6'}, '1|29|0' ])
{
    my ($statement, $counts) = @$case;
    state $round = 0;
    $round++;
    $redis->cli('MSET', map { ("v:$_", "round $round $_") } 1 .. 30);
    my $other = $node->background_psql('postgres');
    $other->query_safe("BEGIN; $statement");
    my $run = start_sql($node, q{CALL redis_migrate.run('changing')});
    wait_until('the run waits', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'}) == 1 });
    $other->query_safe('COMMIT');
    $other->quit;
    my (undef, $err) = $run->finish;
    unlike($err, qr/ERROR/, "$statement: the run goes on");
    is(sql(q{SELECT inserted, updated, unchanged FROM redis_migrate.mapping_counts WHERE migration = 'changing' ORDER BY run_id DESC LIMIT 1}), $counts, 'it counts');
    is(sql(qq{SELECT count(*), count(*) FILTER (WHERE v = 'round $round ' || id) FROM changing}), '30|30', 'and every row is what its key has');
}

# Rights: of columns they suffice; without them nothing is stored.
sql(q{CREATE ROLE mover; GRANT USAGE ON FOREIGN SERVER shop TO mover; CREATE USER MAPPING FOR mover SERVER shop;
    CREATE TABLE granted (id text PRIMARY KEY, v text, w text);
    GRANT SELECT, INSERT, UPDATE (v), DELETE ON granted TO mover;
    SET ROLE mover;
    SELECT redis_migrate.create_migration('granted', 'shop');
    SELECT redis_migrate.add_mapping('granted', 'rows', 'v:{id}', 'granted', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}', databases => '{0}');
    CALL redis_migrate.run('granted')});
$redis->cli('MSET', map { ("v:$_", "granted $_") } 1 .. 30);
sql(q{SET ROLE mover; CALL redis_migrate.run('granted')});
is(sql(q{SELECT count(*) FILTER (WHERE v = 'granted ' || id) FROM granted}), 30, 'rights on the columns suffice');
sql('REVOKE UPDATE (v) ON granted FROM mover');
$redis->cli('MSET', map { ("v:$_", "refused $_") } 1 .. 30);
like(sql_error($node, q{SET ROLE mover; CALL redis_migrate.run('granted')}), qr/ERROR:  42501: .*permission denied for table granted/, 'without one the run ends');
is(sql(q{SELECT count(*) FILTER (WHERE v = 'granted ' || id) FROM granted}), 30, 'and nothing is stored');

# A publication that lacks what identifies the row refuses the change, as it refuses an UPDATE.
sql(q{ALTER TABLE plain REPLICA IDENTITY NOTHING; CREATE PUBLICATION all_of_it FOR TABLE plain});
like(sql_error($node, q{CALL redis_migrate.run('shop')}), qr/55000.*cannot update table "plain" because it does not have a replica identity/, 'a publication refuses the change');

done_testing();
