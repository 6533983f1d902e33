# New rows of plain tables are inserted many at a time, as the WAL shows; where an INSERT does more than store rows, an
# INSERT is used. What is stored, counted and rejected is the same.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('main', conf => 'log_statement = none');
my $redis = start_redis();
create_server($node, 'shop', $redis);
sub sql { return $node->safe_psql('postgres', $_[0]); }

# The tables that the statements filled with records for many rows.
sub filled_in_bulk
{
    my ($statements) = @_;
    my $begin = sql('SELECT pg_current_wal_insert_lsn()');
    sql($statements);
    # pg_waldump ends at a record that begins behind the end.
    my $end = sql(q{SELECT pg_current_wal_insert_lsn() FROM pg_logical_emit_message(false, 'end', 'end')});
    sql(q{SELECT pg_switch_wal()});
    my ($out, $err) = run_command([ 'pg_waldump', '--path', $node->data_dir . '/pg_wal', '--rmgr', 'Heap2', '--start', $begin, '--end', $end ]);
    my %table = split /[|\n]/, sql(q{SELECT pg_relation_filenode(oid), relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'});
    my %found;
    for (grep { /MULTI_INSERT/ } split /\n/, $out)
    {
        $found{ $table{$1} } = 1 if m{blkref #0: rel \d+/\d+/(\d+)} && $table{$1};
    }
    return join ' ', sort keys %found;
}

# Name => [definition, what holds of each row, with INSERT's work done].
my %by_insert = (
    with_before_trigger => [ 'id text PRIMARY KEY, v text', q{v = id || '!'} ],
    with_after_trigger => [ 'id text PRIMARY KEY, v text', q{id IN (SELECT id FROM noted)} ],
    with_foreign_key => [ 'id text PRIMARY KEY, v text REFERENCES known', 'true' ],
    with_deferrable => [ 'id text PRIMARY KEY, v text UNIQUE DEFERRABLE', 'true' ],
    with_rule => [ 'id text PRIMARY KEY, v text', q{id IN (SELECT id FROM ruled)} ],
    with_row_security => [ 'id text PRIMARY KEY, v text', 'true' ],
    partitioned => [ 'id text PRIMARY KEY, v text', 'true', 'PARTITION BY HASH (id)' ],
    parent => [ 'id text PRIMARY KEY, v text', 'true' ],
    with_generated => [ q{id text PRIMARY KEY, v text, g text GENERATED ALWAYS AS (id || v) STORED}, 'g = id || v' ],
    with_identity => [ 'id text PRIMARY KEY, v text, n int GENERATED ALWAYS AS IDENTITY', 'n BETWEEN 1 AND 30' ],
    with_default => [ 'id text PRIMARY KEY, v text, d int DEFAULT 7', 'd = 7' ],
    with_domain => [ 'id text PRIMARY KEY, v text, d seven', 'd = 7' ],
    with_type_default => [ 'id text PRIMARY KEY, v text, d int_of_type', q{d::text = '7'} ],
    with_expression => [ 'id text PRIMARY KEY, v text', 'true' ],
    with_predicate => [ 'id text PRIMARY KEY, v text', 'true' ],
    with_exclusion => [ 'id text PRIMARY KEY, v text, EXCLUDE USING btree (v WITH =)', 'true' ],
    with_volatile_check => [ 'id text PRIMARY KEY, v text CHECK (is_good(v))', 'true' ]);
my %in_bulk = (
    plain => [ 'id text PRIMARY KEY, v text', 'true' ],
    reordered => [ 'gone int, v text, empty int, id text PRIMARY KEY', 'empty IS NULL' ],
    with_indexes => [ 'id text PRIMARY KEY, v text CHECK (length(v) > 0) NOT NULL', 'true' ],
    descending => [ 'id text NOT NULL, v text', 'true' ],
    filled_default => [ q{id text PRIMARY KEY, v text DEFAULT 'x'}, 'true' ],
    referencing_nobody => [ 'id text COLLATE german PRIMARY KEY, v text', 'true' ]);

# Tables that an INSERT also fills, but without WAL that would show it.
my %unseen = (no_wal => [ 'id text PRIMARY KEY, v text', 'true' ]);
my %tables = (%by_insert, %in_bulk, %unseen);

sql(q{
    CREATE TABLE noted (id text);
    CREATE TABLE ruled (id text);
    CREATE TABLE known (v text PRIMARY KEY);
    INSERT INTO known SELECT 'value ' || i FROM generate_series(1, 30) AS i;
    CREATE DOMAIN seven AS int DEFAULT 7;
    CREATE TYPE int_of_type;
    CREATE FUNCTION int_of_type_in(cstring) RETURNS int_of_type LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
    CREATE FUNCTION int_of_type_out(int_of_type) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
    CREATE TYPE int_of_type (input = int_of_type_in, output = int_of_type_out, like = int4, default = '7');
    CREATE FUNCTION is_good(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN $1 <> 'bad'; END $$;
    CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.id || '!'; RETURN NEW; END $$;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted VALUES (NEW.id); RETURN NULL; END $$;
    CREATE COLLATION german FROM "C";
    SELECT redis_migrate.create_migration('shop', 'shop')});
for my $table (sort keys %tables)
{
    my ($columns, undef, $kind) = (@{ $tables{$table} }, '');
    my $unlogged = $table eq 'no_wal' ? 'UNLOGGED' : '';
    sql("CREATE $unlogged TABLE $table ($columns) $kind");
}
sql(q{
    CREATE TRIGGER mark BEFORE INSERT ON with_before_trigger FOR EACH ROW EXECUTE FUNCTION mark();
    CREATE TRIGGER note AFTER INSERT ON with_after_trigger FOR EACH ROW EXECUTE FUNCTION note();
    CREATE RULE also AS ON INSERT TO with_rule DO ALSO INSERT INTO ruled VALUES (NEW.id);
    ALTER TABLE with_row_security ENABLE ROW LEVEL SECURITY;
    CREATE TABLE partition_0 PARTITION OF partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE partition_1 PARTITION OF partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE child () INHERITS (parent);
    CREATE INDEX ON with_expression (lower(v));
    CREATE INDEX ON with_predicate (v) WHERE v > 'a';
    CREATE INDEX ON with_indexes (v);
    CREATE INDEX ON with_indexes USING hash (v);
    CREATE INDEX ON with_indexes USING brin (v);
    CREATE UNIQUE INDEX ON descending (id DESC) INCLUDE (v);
    ALTER TABLE reordered DROP COLUMN gone});
# Ten of them are exclusive, the rest keep a ledger.
my $count = 0;
for my $table (sort keys %tables)
{
    my $exclusive = $count++ < 10 ? 'true' : 'false';
    sql(qq{SELECT redis_migrate.add_mapping('shop', '$table', 'v:{id}', '$table', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}',
        databases => '{0}', exclusive => $exclusive)});
}
$redis->cli('MSET', map { ("v:$_", "value $_") } 1 .. 30);
is(filled_in_bulk(q{CALL redis_migrate.run('shop')}), join(' ', sort keys %in_bulk), 'the tables that are filled in bulk are the plain ones');
is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'the run completed');
my @stored;
for my $table (sort keys %tables)
{
    my $right = $tables{$table}[1];
    my $v = $table eq 'with_before_trigger' ? 'id' : 'v';
    push @stored, qq{SELECT '$table', count(*), count($v), count(*) FILTER (WHERE $right) FROM $table};
}
is(sql(join ' UNION ALL ', @stored), join("\n", map { "$_|30|30|30" } sort keys %tables), 'every row is there as an INSERT leaves it');
is(sql(q{SELECT mapping, inserted, updated, unchanged FROM redis_migrate.mapping_counts ORDER BY mapping COLLATE "C"}),
    join("\n", map { "$_|30|0|0" } sort keys %tables), 'and is counted');

# Constraints reject the same keys, with the same names, whether rows would have come in bulk or not.
sql(q{SELECT redis_migrate.drop_migration($$shop$$)});
my @strict = qw(strict strict_by_insert);
for my $table (@strict)
{
    my $more = $table eq 'strict' ? '' : ', more int DEFAULT 1';
    sql(qq{CREATE TABLE $table (id text PRIMARY KEY, n int NOT NULL CONSTRAINT small CHECK (n < 1000), u text CONSTRAINT ${table}_once UNIQUE$more);
        SELECT redis_migrate.create_migration('$table', 'shop');
        SELECT redis_migrate.add_mapping('$table', 'rows', 's:{id}', '$table', 'SELECT id, NULLIF(value, '''')::int AS n, CASE WHEN value::text = ''7'' THEN value ELSE id END AS u FROM redis_batch',
            key_columns => '{id}', databases => '{0}', exclusive => true)});
}
$redis->cli('MSET', map { ("s:$_", $_ % 50) } 100 .. 199);
$redis->cli('MSET', 's:110', '', 's:120', 2000, 's:130', '3000', 's:140', 'x');
is(filled_in_bulk(qq{CALL redis_migrate.run('$_')}), '', "no row of a batch with bad rows is stored in bulk in $_") for @strict;
my %outcome;
for my $table (@strict)
{
    $outcome{$table} = sql(qq{SELECT string_agg(replace(concat_ws(' ', r.key, r.rule, r.sqlstate, r.message), '$table', 'table'), ', ' ORDER BY r.key)
        FROM redis_migrate.rejects AS r JOIN redis_migrate.runs AS u USING (run_id) WHERE u.migration = '$table'})
        . sql(qq{SELECT string_agg(concat_ws(' ', outcome, replace(reason, '$table', 'table'), keys), ', ' ORDER BY outcome, reason) FROM redis_migrate.run_counts WHERE migration = '$table'})
        . sql(qq{SELECT inserted, updated, unchanged FROM redis_migrate.mapping_counts WHERE migration = '$table'})
        . sql(qq{SELECT md5(string_agg(id || n, ',' ORDER BY id)) FROM $table});
}
is($outcome{strict}, $outcome{strict_by_insert}, 'both tables have the same rows, counts and rejects');
like($outcome{strict}, qr/s:157 table_once 23505/, 'a unique constraint is named');
like($outcome{strict}, qr/s:110 n 23502.*s:120 small 23514.*s:130 small 23514.*s:140 n 22P02/s, 'and so are a column and a check');

# A change counts that comes while a run waits for the table.
sql(q{CREATE TABLE changing (id text PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('changing', 'shop');
    SELECT redis_migrate.add_mapping('changing', 'rows', 'v:{id}', 'changing', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}', databases => '{0}', exclusive => true)});
sub run_beside
{
    my ($statements) = @_;
    my $other = $node->background_psql('postgres');
    $other->query_safe($statements->[0]);
    my $run = start_sql($node, q{CALL redis_migrate.run('changing')});
    wait_until('the run waits', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'}) == 1 });
    $other->query_safe($_) for @{$statements}[ 1 .. $#{$statements} ];
    $other->quit;
    my (undef, $err) = $run->finish;
    unlike($err, qr/ERROR/, 'the run goes on');
    return;
}
run_beside([ q{BEGIN; LOCK TABLE changing IN SHARE MODE}, q{CREATE TRIGGER mark BEFORE INSERT ON changing FOR EACH ROW EXECUTE FUNCTION mark()}, 'COMMIT' ]);
is(sql(q{SELECT count(*), count(*) FILTER (WHERE v = id || '!') FROM changing}), '30|30', 'a trigger made before the first row fires for each');
sql('DROP TRIGGER mark ON changing; TRUNCATE changing');
run_beside([ q{BEGIN; INSERT INTO changing VALUES ('5', 'another')}, 'COMMIT' ]);
is(sql(q{SELECT inserted, updated FROM redis_migrate.mapping_counts WHERE migration = 'changing' ORDER BY run_id DESC LIMIT 1}), '29|1', 'a row that another session inserted meanwhile is updated');
is(sql(q{SELECT v FROM changing WHERE id = '5'}), 'value 5', 'to what the key has');

# Rights: of columns they suffice; without them nothing is stored.
sql(q{CREATE ROLE mover; GRANT USAGE ON FOREIGN SERVER shop TO mover; CREATE USER MAPPING FOR mover SERVER shop;
    CREATE TABLE granted (id text PRIMARY KEY, v text, w text);
    GRANT SELECT, INSERT (id, v), UPDATE, DELETE ON granted TO mover;
    SET ROLE mover;
    SELECT redis_migrate.create_migration('granted', 'shop');
    SELECT redis_migrate.add_mapping('granted', 'rows', 'v:{id}', 'granted', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}', databases => '{0}')});
is(filled_in_bulk(q{SET ROLE mover; CALL redis_migrate.run('granted')}), 'granted', 'rights on the columns suffice');
sql('TRUNCATE granted; REVOKE INSERT (v) ON granted FROM mover');
like(sql_error($node, q{SET ROLE mover; CALL redis_migrate.run('granted')}), qr/ERROR:  42501: .*permission denied for table granted/, 'without one the run ends');
is(sql('SELECT count(*) FROM granted'), 0, 'and nothing is stored');

# Rows out of order, and larger than a page.
sql(q{CREATE TABLE wide (part int NOT NULL, id text NOT NULL, v text, n int); CREATE UNIQUE INDEX ON wide (part DESC, id); CREATE INDEX ON wide (n DESC NULLS LAST);
    CREATE TABLE narrow (part int NOT NULL, id text NOT NULL); CREATE UNIQUE INDEX ON narrow (part DESC, id);  -- rows of one size: the heap fills no gaps
    SELECT redis_migrate.create_migration('wide', 'shop');
    SELECT redis_migrate.add_mapping('wide', 'rows', 'w:{id}', 'wide', 'SELECT (id::int * 7919 % 97)::int AS part, id, value AS v, NULLIF(id::int % 50, 0) AS n FROM redis_batch', key_columns => '{part,id}', databases => '{0}', exclusive => true);
    SELECT redis_migrate.add_mapping('wide', 'narrow rows', 'w:{id}', 'narrow', 'SELECT (id::int * 7919 % 97)::int AS part, id FROM redis_batch', key_columns => '{part,id}', databases => '{0}', exclusive => true)});
$redis->cli('EVAL', q{for i = 1001, 3500 do redis.call('SET', 'w:' .. i, string.rep(tostring(i), i % 100 == 0 and 5000 or 20)) end}, 0);
is(filled_in_bulk(q{CALL redis_migrate.run('wide')}), 'narrow wide', 'more rows than are inserted at a time, some of them large');
is(sql(q{SELECT count(*), count(*) FILTER (WHERE v = repeat(id, CASE WHEN id::int % 100 = 0 THEN 5000 ELSE 20 END)) FROM wide}), '2500|2500', 'are all there');
is(sql(q{SELECT count(*) FROM (SELECT part, lag(part) OVER (PARTITION BY xmin::text ORDER BY ctid) AS before FROM narrow) AS w WHERE part > before}), 0, 'each batch in the order of the key');
is(sql(q{SET enable_seqscan = off; SELECT count(*) FROM generate_series(1001, 3500) AS i JOIN wide ON wide.part = (i * 7919 % 97) AND wide.id = i::text}), 2500, 'and in its index');
is(sql(q{SET enable_seqscan = off; SELECT count(*) FILTER (WHERE id::int % 50 = i) FROM generate_series(1, 49) AS i JOIN wide ON n = i UNION ALL SELECT count(*) FROM wide WHERE n IS NULL}), "2450\n50", 'and in another one, which is filled afterwards');
sql(q{CALL redis_migrate.run('wide')});
is(sql(q{SELECT inserted, unchanged FROM redis_migrate.mapping_counts WHERE mapping = 'rows' AND migration = 'wide' ORDER BY run_id DESC LIMIT 1}), '0|2500', 'a second run finds them unchanged');

# Rows of all widths and alignments, with and without NULLs, are stored as an INSERT stores them.
my @kinds = qw(kinds kinds_by_insert);
for my $table (@kinds)
{
    my $more = $table eq 'kinds' ? '' : ', more int DEFAULT 1';
    sql(qq{CREATE TABLE $table (id int PRIMARY KEY, b bool, n numeric, s smallint, t text, plain text, c char(30), at timestamptz, f float8, long text$more);
        ALTER TABLE $table ALTER plain SET STORAGE PLAIN, ALTER long SET STORAGE EXTERNAL;
        SELECT redis_migrate.create_migration('$table', 'shop');
        SELECT redis_migrate.add_mapping('$table', 'rows', 'k:{id:int}', '$table', \$\$SELECT id::int AS id, (json->>'b')::bool AS b, (json->>'n')::numeric AS n,
                (json->>'s')::smallint AS s, json->>'t' AS t, json->>'t' AS plain, json->>'t' AS c, (json->>'at')::timestamptz AS at, (json->>'f')::float8 AS f,
                repeat(md5(json->>'t'), (json->>'s')::int) AS long FROM redis_batch\$\$, key_columns => '{id}', types => '{hash}', databases => '{0}')});
}
my %field = (b => 'true', n => '12345.678', s => 900, t => 'word', at => '2026-01-02 03:04:05+00', f => 0.5);
for my $id (1 .. 12)
{
    my %of = (%field, s => $id == 5 ? 900 : $id, t => 'x' x (2 * $id));
    delete $of{ (sort keys %of)[ $id % 7 ] } if $id > 6;
    $redis->cli('HSET', "k:$id", %of);
}
is(filled_in_bulk(q{CALL redis_migrate.run('kinds')}), 'kinds', 'rows of many types are stored in bulk');
sql(q{CALL redis_migrate.run('kinds_by_insert')});
my $stored_as = q{SELECT string_agg(concat_ws(' ', id, b, n, s, t, plain, c, at, f, md5(long), pg_column_size(n), pg_column_size(t), pg_column_size(plain),
    pg_column_size(c), pg_column_size(long), num_nulls(b, n, s, t, at, f, long)), E'\n' ORDER BY id) FROM };
my ($in_bulk, $by_insert) = map { sql($stored_as . $_) } @kinds;
is($in_bulk, $by_insert, 'each value is stored as an INSERT stores it');
is(scalar(split /\n/, $in_bulk), 12, 'and every row is there');

done_testing();
