# Targets of many kinds: indexes of every access method, columns that came and went, partitions and children with other
# columns, triggers, publications. After each of a run, another run, changes with a prune, an undo and live sync, every row
# is what INSERT ... ON CONFLICT and DELETE leave in a twin of the table; indexes agree with their tables; and a subscriber
# has what the published tables have.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

use constant KEYS => 1100;  # more than are inserted at a time

my $conf = 'wal_level = logical';
my $node = new_node('main', preload => 1, init => { allows_streaming => 'logical' }, conf => "$conf\npg_redis_migrate.databases = 'postgres'\npg_redis_migrate.batch_rows = 1200");
my $subscriber = new_node('subscriber', conf => $conf);
my $redis = start_redis();
create_server($node, 'shop', $redis);
sub sql { return $node->safe_psql('postgres', join(';', @_)); }

sql('CREATE EXTENSION amcheck', 'CREATE EXTENSION citext',
    q{CREATE COLLATION ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)},
    'CREATE TYPE pair AS (a int, b text)',
    'CREATE DOMAIN amount AS int CHECK (value >= 0)',
    'CREATE TABLE noted (relation regclass, operation text, row_count bigint)',
    q{CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'DELETE' THEN INSERT INTO noted SELECT TG_RELID, TG_OP, count(*) FROM old_rows;
        ELSE INSERT INTO noted SELECT TG_RELID, TG_OP, count(*) FROM new_rows; END IF;
        RETURN NULL; END $$},
    q{CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted VALUES (TG_RELID, TG_OP, 1); RETURN NULL; END $$},
    'CREATE TABLE keys (id text PRIMARY KEY, json jsonb)');

# Name => [statements, what the query yields more than id, v and n; options]. %s is the table's name.
my $plain = 'id text PRIMARY KEY, v text, n int';
my %kinds = (
    with_gin => [ "CREATE TABLE %s ($plain, a int[], j jsonb); CREATE INDEX ON %s USING gin (a); CREATE INDEX ON %s USING gin (j) WITH (fastupdate = off)",
        q{, ARRAY[(json->>'n')::int, 7] AS a, json AS j}, through => 'a @> ARRAY[1004]' ],
    with_gist => [ "CREATE TABLE %s ($plain, p point, r int4range); CREATE INDEX ON %s USING gist (p); CREATE INDEX ON %s USING gist (r) INCLUDE (id)",
        q{, point((json->>'n')::int, 1) AS p, int4range((json->>'n')::int, (json->>'n')::int + 5) AS r}, through => 'r @> 1004' ],
    with_brin => [ "CREATE TABLE %s ($plain) WITH (fillfactor = 30); CREATE INDEX ON %s USING brin (n) WITH (pages_per_range = 1)", '', through => 'n > 1004' ],
    with_spgist => [ "CREATE TABLE %s ($plain); CREATE INDEX ON %s USING spgist (v)", '', through => q{v = 'value 1004'} ],
    with_hash => [ "CREATE TABLE %s ($plain); CREATE INDEX ON %s USING hash (v)", '', through => q{v = 'value 1004'} ],
    with_btrees => [ "CREATE TABLE %s ($plain); CREATE INDEX ON %s (n DESC NULLS LAST); CREATE INDEX ON %s (n) INCLUDE (v); CREATE INDEX ON %s (v DESC); CREATE INDEX ON %s (lower(v)) WHERE n > 100",
        '', through => 'n = 1004' ],
    nulls_are_equal => [ 'CREATE TABLE %s (id text, v text, n int, c int, UNIQUE NULLS NOT DISTINCT (c, id))', q{, (json->>'c')::int AS c}, keys => 'id,c' ],
    added_columns => [ qq{CREATE TABLE %s (id text PRIMARY KEY, v text); INSERT INTO %s SELECT i::text, 'old' FROM generate_series(1, 40) AS i;
        ALTER TABLE %s ADD n int DEFAULT 7, ADD e text DEFAULT 'as before' NOT NULL, ADD f text DEFAULT repeat('x', 50)},
        q{, CASE WHEN (json->>'n')::int % 2 = 0 THEN 'as before' ELSE 'otherwise' END AS e} ],
    dropped_columns => [ q{CREATE TABLE %s (a int DEFAULT 5, id text PRIMARY KEY, b text NOT NULL DEFAULT 'a', v text, c amount DEFAULT 1, n int, d float8); INSERT INTO %s (id, v) VALUES ('3', 'c'), ('2', 'value 2');
        ALTER TABLE %s DROP a, DROP b, DROP c, DROP d, ADD e int} ],
    external => [ "CREATE TABLE %s ($plain, w text, x text); ALTER TABLE %s ALTER w SET STORAGE EXTERNAL",
        q{, repeat(md5(json->>'v'), (json->>'n')::int % 200) AS w, repeat(json->>'v', (json->>'n')::int % 2000) AS x} ],
    composite => [ "CREATE TABLE %s ($plain, c pair, m timestamptz, d amount, h char(8)); CREATE INDEX ON %s (c); CREATE INDEX ON %s (m)",
        q{, ROW((json->>'n')::int, json->>'v')::pair AS c, to_timestamp((json->>'n')::int) AS m, (json->>'n')::int AS d, left(json->>'v', 8) AS h} ],
    of_citext => [ 'CREATE TABLE %s (id citext PRIMARY KEY, v citext, n int)', '', id => q{(CASE WHEN (json->>'n')::int % 2 = 0 THEN 'A' ELSE 'a' END || id)::citext} ],
    ignoring_case => [ 'CREATE TABLE %s (id text COLLATE ignoring_case PRIMARY KEY, v text COLLATE ignoring_case, n int)', '', id => q{CASE WHEN (json->>'n')::int % 2 = 0 THEN 'A' ELSE 'a' END || id} ],
    child => [ 'CREATE TABLE %s_parent (id text, v text, n int); CREATE TABLE %s (w int, PRIMARY KEY (id)) INHERITS (%s_parent)' ],
    in_other_places => [ q{CREATE TABLE %s (id text, v text, n int, PRIMARY KEY (id)) PARTITION BY HASH (id); CREATE INDEX ON %s (n);
        CREATE TABLE %s_0 (x int, n int, v text, id text NOT NULL); ALTER TABLE %s_0 DROP x; CREATE TABLE %s_1 (id text NOT NULL, v text, n int);
        ALTER TABLE %s ATTACH PARTITION %s_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0); ALTER TABLE %s ATTACH PARTITION %s_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)} ],
    transitions => [ "CREATE TABLE %s ($plain); "
        . join('; ', map { "CREATE TRIGGER note_$_->[0] AFTER $_->[0] ON %s REFERENCING $_->[1] TABLE AS $_->[1]_rows FOR EACH STATEMENT EXECUTE FUNCTION note()" } [ INSERT => 'new' ], [ UPDATE => 'new' ], [ DELETE => 'old' ]) ],
    always => [ "CREATE TABLE %s ($plain); CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION note_row(); ALTER TABLE %s ENABLE ALWAYS TRIGGER note" ],
    of_replicas => [ "CREATE TABLE %s ($plain); CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION note_row(); ALTER TABLE %s ENABLE REPLICA TRIGGER note" ],
    deferred => [ "CREATE TABLE %s ($plain, c text UNIQUE DEFERRABLE INITIALLY DEFERRED)", ', id AS c' ],
    excluding => [ "CREATE TABLE %s ($plain, r int4range, EXCLUDE USING gist (r WITH &&))", ', int4range(id::int * 2, id::int * 2 + 1) AS r' ],
    not_valid => [ "CREATE TABLE %s ($plain); INSERT INTO %s VALUES ('x', 'bad', -6); ALTER TABLE %s ADD CHECK (n >= 0) NOT VALID" ],
    unlogged => [ "CREATE UNLOGGED TABLE %s ($plain)" ],
    published => [ "CREATE TABLE %s ($plain, w text, x text); ALTER TABLE %s ALTER w SET STORAGE EXTERNAL", q{, repeat(md5(id), 200) AS w, repeat(json->>'v', 300) AS x}, published => '%s' ],
    published_rows => [ "CREATE TABLE %s ($plain); ALTER TABLE %s REPLICA IDENTITY FULL", '', published => '%s WHERE (n > 700)', subscribed => 'SELECT * FROM %s WHERE n > 700' ],
    published_columns => [ "CREATE TABLE %s ($plain)", '', published => '%s (id, n)', subscribed => 'SELECT id, n FROM %s' ],
    published_by_index => [ 'CREATE TABLE %s (id text NOT NULL, v text, n int, c text NOT NULL); CREATE UNIQUE INDEX %s_c ON %s (c); ALTER TABLE %s REPLICA IDENTITY USING INDEX %s_c; CREATE UNIQUE INDEX ON %s (id)',
        q{, (json->>'v') || id AS c}, published => '%s' ]);
my @kinds = sort keys %kinds;
my @published;
my %kind;
sql(q{SELECT redis_migrate.create_migration('shop', 'shop', source => 'replication')});
for my $table (@kinds)
{
    my ($statements, $more, %options) = @{ $kinds{$table} };
    my $keys = $options{keys} // 'id';
    my $query = 'SELECT ' . ($options{id} ? "$options{id} AS id" : 'id') . q{, json->>'v' AS v, (json->>'n')::int AS n} . ($more // '') . ' FROM';
    my @columns = qw(id v n);
    push @columns, $more =~ / AS (\w+)(?=,|$)/g if $more;
    my %is_key = map { $_ => 1 } split /,/, $keys;
    my $image = join " || ' ' || ", map { "coalesce(lower($_\::text), '') COLLATE \"C\"" } split /,/, $keys;
    sql($statements =~ s/%s/$_/gr) for $table, "${table}_twin";
    $kind{$table} = {
        %options,
        upsert => "INSERT INTO ${table}_twin (" . join(', ', @columns) . ") $query keys ON CONFLICT ($keys) DO UPDATE SET " . join(', ', map { "$_ = excluded.$_" } grep { !$is_key{$_} } @columns),
        delete => "DELETE FROM ${table}_twin WHERE id <> 'x' AND $image NOT IN (SELECT $image FROM ($query keys) AS k)" };
    sql("SELECT redis_migrate.add_mapping('shop', '$table', 'k:{id}', '$table', \$q\$$query redis_batch\$q\$, key_columns => '{$keys}', databases => '{0}')");
    next unless $options{published};
    push @published, $table;
    sql("CREATE PUBLICATION of_$table FOR TABLE " . $options{published} =~ s/%s/$table/gr);
    $subscriber->safe_psql('postgres', $statements =~ s/%s/$table/gr);
}
my $publisher = $node->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION all_of_them CONNECTION '$publisher' PUBLICATION " . join(', ', map { "of_$_" } @published));
$subscriber->wait_for_subscription_sync($node, 'all_of_them');

# Images of rows, whatever their types think of equality.
sub rows_of { my ($table) = @_; return "SELECT $table.*::text COLLATE \"C\" AS r FROM $table"; }
sub different
{
    my ($of) = @_;
    return sql(join ' UNION ALL ', map { my ($a, $b) = (rows_of($_), rows_of($of->($_)));
        "SELECT '$_ ' || r FROM ((($a) EXCEPT ALL ($b)) UNION ALL (($b) EXCEPT ALL ($a))) AS d" } @kinds);
}
sub compare
{
    my ($when) = @_;
    is(substr(different(sub { "$_[0]_twin" }), 0, 1000), '', "$when: every row is that of INSERT or DELETE");
    is(sql(q{SELECT bt_index_parent_check(c.oid, true, true) FROM pg_class AS c JOIN pg_index AS i ON i.indexrelid = c.oid JOIN pg_class AS t ON t.oid = i.indrelid
        WHERE c.relkind = 'i' AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree') AND t.relnamespace = 'public'::regnamespace}) =~ s/\n//gr, '', "$when: B-trees have every row");
    my $count = join ' UNION ALL ', map { "SELECT '$_', count(*) FROM $_ WHERE $kind{$_}{through}" } grep { $kind{$_}{through} } @kinds;
    $count .= ' ORDER BY 1';
    is(sql("SET enable_seqscan = off; SET enable_indexonlyscan = off; $count"), sql("SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; $count"), "$when: and so have others");
    $node->wait_for_catchup('all_of_them');
    my $published = join '; ', map { 'SELECT * FROM (' . ($kind{$_}{subscribed} // 'SELECT * FROM %s') =~ s/%s/$_/gr . ') AS r ORDER BY id COLLATE "C"' } @published;
    is($subscriber->safe_psql('postgres', $published), sql($published), "$when: a subscriber has what is published");
    return;
}
sub load
{
    my ($change) = @_;
    sql($change);
    my @pairs = map { split /\|/, $_, 2 } split /\n/, sql(q{SELECT 'k:' || id, json FROM keys});
    $redis->cli('FLUSHALL');
    $redis->cli('MSET', @pairs);
    return;
}
sub follow { return sql(map { ($kind{$_}{upsert}, $kind{$_}{delete}) } @kinds); }
sub run { my ($options) = @_; return sql_error($node, "CALL redis_migrate.run('shop', source => 'scan'" . ($options // '') . ')') . last_run($node, 'shop', 'state, rejected, balanced'); }

load('INSERT INTO keys SELECT i, jsonb_build_object($$v$$, $$value $$ || i, $$n$$, i, $$c$$, CASE WHEN i % 3 = 0 THEN i END) FROM generate_series(1, ' . KEYS . ') AS i');
is(run(), 'completed|0|t', 'a run');
follow();
compare('a run');

my $versions = join ' UNION ALL ', map { "SELECT '$_', md5(string_agg(r.ctid || ' ' || r.xmin, ',' ORDER BY tableoid, r.ctid)) FROM $_ AS r" } @kinds;
$versions .= ' ORDER BY 1';
my $before = sql($versions);
is(run(), 'completed|0|t', 'another run');
is(sql($versions), $before, 'writes nothing');

sql("CREATE TABLE ${_}_before AS SELECT * FROM $_") for 'keys', @kinds;
load(q{UPDATE keys SET json = json || jsonb_build_object('v', 'VALUE ' || id, 'n', 2 * id::int) WHERE id::int % 3 = 1; UPDATE keys SET json = json || '{"c": 5}' WHERE id::int % 9 = 3;
    DELETE FROM keys WHERE id::int % 20 = 0; INSERT INTO keys SELECT i, jsonb_build_object('v', 'new ' || i, 'n', i, 'c', i) FROM generate_series(2001, 2100) AS i});
is(run(q{, prune => true, force => true}), 'completed|0|t', 'changes');
follow();
compare('changes');
like(sql_error($node, q{CALL redis_migrate.verify('shop', source => 'scan')}) . sql('SELECT extra_rows FROM (SELECT sum(missing + different + extra) AS extra_rows FROM redis_migrate.verification_counts) AS c'), qr/0$/, 'a verification finds no difference');
is(sql(q{SELECT string_agg(n::text, ' ' ORDER BY relation::text, operation) FROM (SELECT relation, operation, sum(row_count) AS n FROM noted WHERE relation IN ('always'::regclass, 'transitions'::regclass) GROUP BY 1, 2) AS s}),
    join(' ', (55, 1200, 349) x 2), 'triggers have seen every row');
is(sql(q{SELECT count(*) FROM noted WHERE relation = 'of_replicas'::regclass}), 0, 'but for those of replicas');

my $run = last_run($node, 'shop', 'run_id');
is(sql_error($node, "CALL redis_migrate.undo_run($run)"), '', 'an undo');
is(different(sub { "$_[0]_before" }), '', 'every row is what it was');

load('TRUNCATE keys; INSERT INTO keys SELECT * FROM keys_before');
$before = sql($versions);
is(run(), 'completed|0|t', 'a run with the keys of before');
is(sql($versions), $before, 'writes nothing');

# Live sync, while keys are deleted and written.
sql(q{SELECT redis_migrate.start('shop', live => true)});
$redis->cli('DEL', map { "k:$_" } 1 .. 30);
$redis->cli('MSET', map { ("k:$_", qq({"v": "live $_", "n": $_, "c": $_})) } 41 .. 70, 2090 .. 2120);
sql(q{DELETE FROM keys WHERE id::int <= 30; INSERT INTO keys SELECT i, jsonb_build_object('v', 'live ' || i, 'n', i, 'c', i) FROM generate_series(41, 2120) AS i WHERE i <= 70 OR i >= 2090
    ON CONFLICT (id) DO UPDATE SET json = excluded.json});
is(sql_error($node, q{CALL redis_migrate.wait_for('shop', '50 s')}), '', 'live sync');
follow();
compare('live sync');
sql(q{SELECT redis_migrate.stop('shop')});

# Two keys yield rows whose key columns are equal, though not spelt alike. The lower one has the row, in whatever order and
# batches they are read, and whoever remains keeps it.
$redis->cli('FLUSHALL');
sub set { my ($keys, $value) = @_; return $redis->cli('EVAL', "for i = 1, 1500 do redis.call('SET', $keys, '$value ' .. i) end", 0); }
sub set_lower { set(q{'a:K' .. i}, 'lower'); return set(q{'b:' .. i}, 'lower'); }
sub set_higher { set(q{'a:k' .. i}, 'higher'); return set(q{'b:' .. i .. '.0'}, 'higher'); }
sub drop { my ($letter, $end) = @_; return $redis->cli('EVAL', "for i = 1, 1500 do redis.call('DEL', 'a:$letter' .. i, 'b:' .. i .. '$end') end", 0); }
set_lower();
set_higher();
my %alike = (alike_citext => [ 'citext', 'a:{id}' ], alike_collated => [ 'text COLLATE ignoring_case', 'a:{id}' ], alike_numbers => [ 'numeric', 'b:{id:number}' ]);
sql(q{SELECT redis_migrate.create_migration('alike', 'shop')});
for my $table (sort keys %alike)
{
    my ($type, $pattern) = @{ $alike{$table} };
    sql("CREATE TABLE $table (id $type PRIMARY KEY, v text)");
    sql("SELECT redis_migrate.add_mapping('alike', '$table', '$pattern', '$table', 'SELECT id::" . $type =~ s/ .*//r . " AS id, value AS v FROM redis_batch', '{id}', databases => '{0}')");
}
sub is_alike
{
    my ($when, $options, $value, $counts) = @_;
    sql("SET client_min_messages = error; SET pg_redis_migrate.batch_rows = 100; CALL redis_migrate.run('alike'$options)");
    is(sql(join ' UNION ALL ', map { "SELECT count(*), count(*) FILTER (WHERE v LIKE '$value %') FROM $_" } sort keys %alike), join("\n", ('1500|1500') x 3), "$when: the rows");
    is(sql(q{SELECT updated, unchanged, folded, deleted FROM redis_migrate.mapping_counts WHERE migration = 'alike' AND run_id = (SELECT max(run_id) FROM redis_migrate.runs)}), join("\n", ($counts) x 3), "$when: the counts") if $counts;
    return;
}
is_alike('both keys', '', 'lower');
is_alike('both keys again', '', 'lower', '0|1500|1500|0');
drop('k', '.0');
is_alike('the lower keys', ', prune => true', 'lower', '0|1500|0|0');
set_higher();
drop('K', '');
is_alike('the higher keys', ', prune => true, force => true', 'lower', '0|0|1500|0');
is_alike('the higher keys again', '', 'higher', '1500|0|0|0');
set_lower();
is_alike('the lower keys are back', '', 'lower');
drop('k', '.0');
is_alike('the lower keys remain', ', prune => true', 'lower', '0|1500|0|0');

done_testing();
