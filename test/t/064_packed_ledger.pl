# The packed ledger: whose rows are known by hashes, appended by each batch and merged at the end of a run. What belongs
# to nobody survives, what a key had goes with it, and a crash loses neither rows nor whose they are.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('packed', conf => "autovacuum = off\nrestart_after_crash = on");
my $redis = start_redis();
create_server($node, 'shop', $redis);

sub sql { return $node->safe_psql('postgres', join(';', @_)); }
# How many rows are whose, and how many batches are not merged.
sub ledger
{
    return sql(q{SELECT (SELECT coalesce(sum(octet_length(entries)), 0) / 24 FROM redis_migrate.ledger_segment)
        || '|' || (SELECT count(*) FROM redis_migrate.ledger_batch WHERE NOT merged)});
}

# The messages that psql prints beside the result.
sub warned
{
    my ($call) = @_;
    my ($status, $out, $err) = $node->psql('postgres', $call);
    return $err;
}

# Rows that were there before are not Redis' to delete, unless Redis has overwritten them: as with a full ledger.
for my $on_conflict ('nothing', 'fill', 'update')
{
    $redis->cli('FLUSHALL');
    $redis->cli('MSET', 'n:1', 'new', 'n:2', 'new', 'n:3', 'same');
    sql("CREATE TABLE before_$on_conflict (id int PRIMARY KEY, v text)",
        "INSERT INTO before_$on_conflict VALUES (1, 'old'), (3, 'same'), (9, 'mine')",
        "SELECT redis_migrate.create_migration('$on_conflict', 'shop')",
        "SELECT redis_migrate.add_mapping('$on_conflict', 'n', 'n:{id:int}', 'before_$on_conflict',
            'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}', on_conflict => '$on_conflict')");
    is(sql("SELECT ledger, ledger_reason FROM redis_migrate.mappings WHERE migration = '$on_conflict'"),
        'packed|no two keys yield the same row: id = id', 'the ledger is packed, and the view says why');
    sql("CALL redis_migrate.run('$on_conflict')");
    is(sql("SELECT count(*) FROM before_$on_conflict"), 4, 'four rows');
    $redis->cli('FLUSHALL');
    like(sql_error($node, "SET client_min_messages = error; CALL redis_migrate.run('$on_conflict', prune => true)") // '', qr/^$/, 'prune of an emptied Redis');
    is(sql("SELECT prune FROM redis_migrate.mapping_counts WHERE migration = '$on_conflict' ORDER BY run_id DESC LIMIT 1"), 'refused', 'is refused');
    sql("CALL redis_migrate.run('$on_conflict', prune => true, force => true)");
    is(sql("SELECT * FROM before_$on_conflict ORDER BY 1"), $on_conflict eq 'update' ? '9|mine' : "1|old\n3|same\n9|mine", "prune after on_conflict '$on_conflict'");
    sql("SELECT redis_migrate.drop_migration('$on_conflict')");
}
is(ledger(), '0|0', 'dropped migrations leave no entries');

# Runs in a session, in batches of 100 rows, and returns how many times a relation was scanned from end to end meanwhile,
# and how many of its rows were fetched.
sub scans
{
    my ($relation, $call) = @_;
    my $counts = "SELECT seq_scan, coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_all_tables WHERE relid = '$relation'::regclass";
    sessions_over($node);
    my @before = split /\|/, sql($counts);
    $node->safe_psql('postgres', "SET pg_redis_migrate.batch_rows = 100;\n$call;\nSELECT pg_stat_force_next_flush();");
    my @after = split /\|/, sql($counts);
    return map { $after[$_] - $before[$_] } 0, 1;
}

is(sql(q{SELECT attstorage FROM pg_attribute WHERE attrelid = 'redis_migrate.ledger_segment'::regclass AND attname = 'entries'}), 'e',
    'the entries of segments are stored out of line, not compressed');

# Keys that are gone, rejected, filtered, and come back.
$redis->cli('EVAL', 'for i = 1, 3000 do redis.call("SET", "k:" .. i, "v" .. i) end', 0);
sql('CREATE TABLE kept (id smallint, tenant text, db int, v text, gone boolean NOT NULL DEFAULT false, PRIMARY KEY (tenant, id, db))',
    q{INSERT INTO kept VALUES (7, 'other', 0, 'mine')},
    q{SELECT redis_migrate.create_migration('keys', 'shop')},
    q{SELECT redis_migrate.add_mapping('keys', 'k', '{tenant}:{id:int}', 'kept',
        $$SELECT id::smallint, tenant, db, value AS v FROM redis_batch WHERE value <> 'hidden'$$, '{tenant,id,db}', no_row => 'skip')},
    q{SELECT redis_migrate.add_check('keys', 'k', 'good', $$v <> 'bad'$$)});
$node->safe_psql('postgres', "SET pg_redis_migrate.batch_rows = 100;\nCALL redis_migrate.run('keys');");
is(ledger(), '3000|0', 'all rows are known, all batches merged');
is(sql('SELECT count(*) > 1, max(octet_length(entries)) <= 48000 FROM redis_migrate.ledger_segment'), 't|t', 'in several segments');
my (undef, $unchanged) = scans('redis_migrate.ledger_segment', q{CALL redis_migrate.run('keys')});
is(ledger(), '3000|0', 'an unchanged run changes nothing');
cmp_ok($unchanged, '<=', 2, 'and looks no row up in the ledger, whose segments its end reads once');
$redis->cli('SET', 'k:1', 'bad');
$redis->cli('SET', 'k:2', 'hidden');
$redis->cli('SET', 'other:7', 'hidden');
$redis->cli('DEL', 'k:3', 'k:4');
$redis->cli('SET', 'k:70000', 'bad');
sql(q{CALL redis_migrate.run('keys')});
is(sql(q{SELECT id FROM kept WHERE id < 5 ORDER BY 1}), "1\n3\n4", 'a filtered key loses its row at once');
is(sql(q{SELECT v FROM kept WHERE tenant = 'other'}), 'mine', 'but not the row of another');
is(ledger(), '2999|0', 'and is struck off');
my ($run) = scans('kept', q{CALL redis_migrate.run('keys')});
my ($run_and_prune) = scans('kept', q{CALL redis_migrate.run('keys', prune => true)});
is($run_and_prune - $run, 2, 'prune scans the target once for the journal and once to delete');
is(sql(q{SELECT tenant, id, v FROM kept WHERE id < 5 OR tenant <> 'k' ORDER BY 1, 2}), "k|1|v1\nother|7|mine",
    'prune deletes the rows of keys that are gone, not that of a rejected one');
is(last_run($node, 'keys', 'read, rejected, balanced, rows_deleted'), '3000|2|t|2', 'accounted for');
is(sql('SELECT count(*) FROM redis_migrate.seen_batch'), 0, 'what was met is forgotten');

# Marked instead of deleted, again and again.
sql(q{SELECT redis_migrate.alter_mapping('keys', 'k', on_delete => 'gone = true')});
is(ledger(), '2997|0', 'another on_delete keeps the ledger');
for my $round (1, 2)
{
    $redis->cli('DEL', 'k:10');
    sql(q{CALL redis_migrate.run('keys', prune => true)});
    is(sql(q{SELECT id FROM kept WHERE gone}), 10, "round $round: marked");
    sql(q{UPDATE kept SET gone = false});
    $redis->cli('SET', 'k:10', 'v10');
    sql(q{CALL redis_migrate.run('keys')});
}

# Definitions by which entries would stand for other rows begin anew.
like(warned(q{SELECT redis_migrate.alter_mapping('keys', 'k', pattern => '{tenant}:{id:int}', query =>
    'SELECT id::smallint, lower(tenant) AS tenant, db, value AS v FROM redis_batch', databases => '{0}')}),
    qr/NOTICE:  the ledger of mapping "k" begins anew/, 'a notice says so');
is(sql(q{SELECT ledger FROM redis_migrate.mappings}) . '|' . ledger(), 'full|0|0', 'a computed key column needs a full ledger');
sql(q{SELECT redis_migrate.drop_migration('keys')});

# Elements: the rows of a key are found by an index that its captures lead, and those that it has left go at once.
$redis->cli('FLUSHALL');
$redis->cli('SADD', 't:1', 'a', 'b', 'c');
$redis->cli('SADD', 't:2', 'x', 'y');
$redis->cli('SADD', 't:3', 'z');
sql('CREATE TABLE tags (id text, tag text CHECK (length(tag) < 9), own text, PRIMARY KEY (id, tag))',
    q{INSERT INTO tags VALUES ('1', 'mine'), ('9', 'mine')}, q{SELECT redis_migrate.create_migration('tags', 'shop')},
    q{SELECT redis_migrate.add_mapping('tags', 't', 't:{id}', 'tags', $$SELECT id, member AS tag FROM redis_batch WHERE member <> 'hidden'$$, '{id,tag}',
        databases => '{0}', expand => 'elements', atomic => 'element', no_row => 'skip')});
sub kind { return sql("SELECT ledger, ledger_reason FROM redis_migrate.mappings WHERE migration = '$_[0]'"); }
sub tags { return sql(q{SELECT string_agg(id || tag, ' ' ORDER BY id, tag) FROM tags}); }
is(kind('tags'), 'packed|no two keys yield the same row: id = id', 'elements have a packed ledger');
sql(q{CALL redis_migrate.run('tags')});
is(tags() . ' ' . ledger(), '1a 1b 1c 1mine 2x 2y 3z 9mine 6|0', 'each element is known');
$redis->cli('SREM', 't:1', 'b');
$redis->cli('SADD', 't:1', 'd');
$redis->cli('SADD', 't:2', 'hidden');
$redis->cli('DEL', 't:3');
sql(q{UPDATE tags SET own = 'x' WHERE id = '2'}, q{CALL redis_migrate.run('tags')});
is(tags() . ' ' . ledger(), '1a 1c 1d 1mine 2x 2y 3z 9mine 6|0', 'an element that left loses its row, but not that of nobody');
is(last_run($node, 'tags', 'read, migrated, balanced, rows_deleted'), '2|2|t|1', 'accounted for');
$redis->cli('SREM', 't:2', 'x', 'y');
$redis->cli('SREM', 't:1', 'a', 'c');
$redis->cli('SADD', 't:1', 'too long a tag');
sql(q{CALL redis_migrate.run('tags')});
is(tags() . ' ' . ledger(), '1a 1c 1d 1mine 3z 9mine 4|0', 'a key without rows loses all of them, one with a bad element none');
sql(q{CALL redis_migrate.run('tags', prune => true)});
is(tags() . ' ' . ledger(), '1a 1c 1d 1mine 9mine 3|0', 'prune deletes those of a key that is gone, not those of a rejected one');
$redis->cli('SREM', 't:1', 'too long a tag');
sql(q{CALL redis_migrate.run('tags')});
is(tags() . ' ' . ledger(), '1d 1mine 9mine 1|0', 'which go when it is good again');
sql(q{ALTER TABLE tags DROP CONSTRAINT tags_pkey, ADD PRIMARY KEY (tag, id)});
like(sql_error($node, q{CALL redis_migrate.run('tags')}), qr/ERROR:  55000: the packed ledger of mapping "t" no longer fits.*\n.*Now: a key can have several rows, and no index of the target begins with \(id\)\./,
    'without the index a run does not begin to search');
sql('CREATE INDEX ON tags (id)', q{CALL redis_migrate.run('tags')});
is(last_run($node, 'tags', 'state, migrated'), 'completed|1', 'with it, it goes on');
sql(q{SELECT redis_migrate.drop_migration('tags')});

# A key may have another row than before: also without elements.
$redis->cli('FLUSHALL');
$redis->cli('MSET', 'm:1', 'red', 'm:2', 'blue');
sql('CREATE TABLE moved (id int, colour text, PRIMARY KEY (id, colour))', q{INSERT INTO moved VALUES (1, 'own')}, q{SELECT redis_migrate.create_migration('moved', 'shop')},
    q{SELECT redis_migrate.add_mapping('moved', 'm', 'm:{id:int}', 'moved', 'SELECT id, value AS colour FROM redis_batch', '{id,colour}', databases => '{0}')},
    q{CALL redis_migrate.run('moved')});
$redis->cli('SET', 'm:1', 'green');
sql(q{CALL redis_migrate.run('moved')});
is(kind('moved') . ' ' . sql(q{SELECT string_agg(id || colour, ' ' ORDER BY id, colour) FROM moved}) . ' ' . ledger(),
    'packed|no two keys yield the same row: id = id 1green 1own 2blue 2|0', 'what a key no longer yields goes');
sql(q{SELECT redis_migrate.drop_migration('moved')});

# Where rows cannot be found by a key's name, the ledger is full and says so.
for my $case ([ 't:{id}', '{id,tag}', 'PRIMARY KEY (tag, id)', 'a key can have several rows, and no index of the target begins with (id)' ],
    [ 'alone', '{tag}', 'PRIMARY KEY (tag)', 'a key can have several rows, and key_columns have nothing of its name by which to find them' ])
{
    my ($pattern, $keys, $constraint, $reason) = @$case;
    sql("CREATE TABLE unfound (id text NOT NULL DEFAULT '', tag text, $constraint)", q{SELECT redis_migrate.create_migration('unfound', 'shop')},
        "SELECT redis_migrate.add_mapping('unfound', 'u', '$pattern', 'unfound', 'SELECT member AS tag" . ($pattern =~ /id/ ? ', id' : '')
            . " FROM redis_batch', '$keys', databases => '{0}', expand => 'elements')");
    is(kind('unfound'), "full|$reason", "a full ledger: $reason");
    sql(q{SELECT redis_migrate.drop_migration('unfound')}, 'DROP TABLE unfound');
}
sql('CREATE TABLE ruled (id text PRIMARY KEY, v text)', 'CREATE RULE stays AS ON DELETE TO ruled DO INSTEAD NOTHING', q{SELECT redis_migrate.create_migration('ruled', 'shop')},
    q{SELECT redis_migrate.add_mapping('ruled', 'r', 'r:{id}', 'ruled', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}')});
is(kind('ruled'), 'full|the target has rules', 'a full ledger where rules decide what is stored');
sql(q{SELECT redis_migrate.drop_migration('ruled')});

# An exclusive mapping has one, too: it need not ask it whose a row is, but knows what was changed here.
$redis->cli('FLUSHALL');
my ($one, $two, $three, $four) = map { "$_" x 8 . '-0000-0000-0000-000000000000' } 1 .. 4;
$redis->cli('MSET', "o:$one", 'a', "o:$two", 'b', "o:$three", 'hidden', "o:$four", 'd');
sql('CREATE TABLE owned (id uuid PRIMARY KEY, v text, gone int NOT NULL DEFAULT 0)',
    qq{INSERT INTO owned VALUES ('$three', 'left'), (gen_random_uuid(), 'left')}, q{SELECT redis_migrate.create_migration('owned', 'shop')},
    q{SELECT redis_migrate.add_mapping('owned', 'o', 'o:{id:uuid}', 'owned', $$SELECT id, value AS v FROM redis_batch WHERE value <> 'hidden'$$, '{id}',
        databases => '{0}', exclusive => true, no_row => 'skip', types => '{string}')}, q{CALL redis_migrate.run('owned')});
is(kind('owned'), 'packed|no two keys yield the same row: id = id', 'an exclusive mapping has a packed ledger');
is(sql(q{SELECT string_agg(v, ' ' ORDER BY v) FROM owned}) . ' ' . ledger(), 'a b d left 3|0', 'a filtered key loses its row, though the ledger does not know it');
sql(q{CALL redis_migrate.run('owned')});
is(sql(q{SELECT count(*) FROM redis_migrate.ledger_batch}), 1, 'a run that changes nothing writes nothing down');
sql(q{UPDATE owned SET v = 'mine' WHERE v IN ('a', 'd')});
$redis->cli('DEL', "o:$one", "o:$four");
$redis->cli('RPUSH', "o:$four", 'no string');
like(warned(q{CALL redis_migrate.run('owned', prune => true)}), qr/WARNING:  prune removed 1 rows of mapping "o" that were changed here/, 'prune warns of what was changed here');
is(sql(q{SELECT string_agg(v, ' ' ORDER BY v) FROM owned}) . ' ' . ledger(), 'b mine 2|0', 'and removes every row but those of keys, rejected ones among them');
is(sql(q{SELECT deleted, changed_here, prune FROM redis_migrate.mapping_counts WHERE migration = 'owned' ORDER BY run_id DESC LIMIT 1}), '2|1|pruned', 'all of them counted');
sql(q{SELECT redis_migrate.alter_mapping('owned', 'o', on_delete => 'gone = target.gone + 1')}, q{INSERT INTO owned VALUES (gen_random_uuid(), 'left')});
$redis->cli('DEL', "o:$two");
sql(q{CALL redis_migrate.run('owned', prune => true)});
is(sql(q{SELECT string_agg(v || gone, ' ' ORDER BY v) FROM owned}), 'b1 left1 mine0', 'each of them is marked once');
is(warned(q{SELECT redis_migrate.alter_mapping('owned', 'o', on_delete => 'keep')}) . kind('owned') . ledger(),
    'packed|no two keys yield the same row: id = id1|0', q{on_delete 'keep' keeps the ledger});
$redis->cli('DEL', "o:$four");
$redis->cli('SET', "o:$four", 'mine');
sql(q{CALL redis_migrate.run('owned')}) for 1, 2;
is(ledger() . sql(q{ SELECT max(run_id) < (SELECT max(run_id) FROM redis_migrate.run) FROM redis_migrate.ledger_batch}), '1|0t', 'and rows that stay need no new entries');
sql(q{SELECT redis_migrate.drop_migration('owned')});

# Look-ups do not read the same news again and again: when they have cost as much as a merge, there is one.
$redis->cli('FLUSHALL');
$redis->cli('EVAL', 'for i = 1, 8000 do redis.call("SET", "l:" .. i, "v" .. i) end', 0);
sql('CREATE TABLE looked (id int PRIMARY KEY, v text)', q{SELECT redis_migrate.create_migration('looked', 'shop')},
    q{SELECT redis_migrate.add_mapping('looked', 'l', 'l:{id:int}', 'looked',
        $$SELECT id::int, value AS v FROM redis_batch WHERE value <> 'hidden'$$, '{id}', databases => '{0}', no_row => 'skip')},
    q{CALL redis_migrate.run('looked')});
$redis->cli('EVAL', 'for i = 1, 8000 do redis.call("SET", "l:" .. i, "hidden") end', 0);
$node->safe_psql('postgres', "SET pg_redis_migrate.batch_rows = 50;\nCALL redis_migrate.run('looked');");
is(sql('SELECT count(*) FROM looked') . '|' . ledger(), '0|0|0', 'a run of deletes leaves no row and no entry');
cmp_ok(sql(q{SELECT count(DISTINCT b.xmin::text) FROM redis_migrate.ledger_batch AS b JOIN redis_migrate.run USING (run_id)
    WHERE run_id = (SELECT max(run_id) FROM redis_migrate.run)}), '>', 1, 'its news was merged on the way, too');
sql(q{SELECT redis_migrate.drop_migration('looked')});

# The image of a row tells what the application has changed since it was stored; whoever meets the row counts it.
sub here
{
    my ($migration) = @_;
    return sql("SELECT deleted, changed_here, deleted_here FROM redis_migrate.mapping_counts WHERE migration = '$migration' ORDER BY run_id DESC LIMIT 1");
}
$redis->cli('FLUSHALL');
$redis->cli('MSET', map { ("h:$_", "v$_") } 1 .. 60);
sql(q{CREATE TYPE mood AS ENUM ('sad', 'ok')}, q{CREATE TYPE pair AS (a mood, b text)},
    q{CREATE TABLE here (id int PRIMARY KEY, v text, moods mood[], pair pair, n numeric, own text)},
    q{SELECT redis_migrate.create_migration('here', 'shop')},
    q{SELECT redis_migrate.add_mapping('here', 'h', 'h:{id:int}', 'here',
        $$SELECT id::int, value AS v, '{ok,sad}'::mood[] AS moods, ROW('ok', repeat(value, 2000))::pair AS pair, 1.50 AS n FROM redis_batch
          WHERE value <> 'hidden'$$, '{id}', databases => '{0}', no_row => 'skip')});
sql(q{CALL redis_migrate.run('here')});
is(here('here'), '0|0|0', 'a first run finds nothing changed');
sql(q{UPDATE here SET v = 'mine' WHERE id IN (1, 2, 3)}, q{UPDATE here SET n = 1.5 WHERE id = 4}, q{UPDATE here SET pair.a = 'sad' WHERE id = 5},
    q{UPDATE here SET own = 'x' WHERE id = 6}, q{UPDATE here SET v = v || '' WHERE id = 7}, 'DELETE FROM here WHERE id IN (8, 9)',
    'VACUUM FULL here');
$redis->cli('DEL', 'h:1', 'h:6', 'h:7', 'h:10');
$redis->cli('SET', 'h:2', 'hidden');
like(warned(q{CALL redis_migrate.run('here')}), qr/WARNING:  run \d+ has written over 4 rows of mapping "h" that were changed here, and put back 2 that were deleted/,
    'a run warns of what it does to rows that were changed here');
is(here('here'), '1|4|2', 'changed: a value, a scale, an element of a composite and the row that a filtered key lost; deleted: two');
is(sql('SELECT count(*) FROM here') . '|' . sql(q{SELECT string_agg(v, ',' ORDER BY id) FROM here WHERE id IN (3, 8, 9)}), '59|v3,v8,v9', 'all are as Redis has them again');
is(sql('CALL redis_migrate.run($$here$$)') . here('here'), '0|0|0', 'which is stored: a further run finds nothing');
like(warned(q{CALL redis_migrate.run('here', prune => true)}), qr/WARNING:  prune removed 1 rows of mapping "h" that were changed here/, 'prune warns of what was changed here');
is(here('here'), '4|1|0', 'and counts it, but not a column that is not the mapping\'s, nor an update that changes nothing');
sql(q{ALTER TABLE here ALTER n TYPE numeric(10, 3)}, q{CALL redis_migrate.run('here')});
$redis->cli('DEL', 'h:20');
sql(q{CALL redis_migrate.run('here', prune => true)});
is(here('here'), '1|0|0', 'after ALTER TYPE nobody is suspected');
sql(q{CREATE TYPE grown AS (a text)}, q{CREATE TABLE grows (id int PRIMARY KEY, v grown)}, q{SELECT redis_migrate.create_migration('grows', 'shop')},
    q{SELECT redis_migrate.add_mapping('grows', 'g', 'h:{id:int}', 'grows',
        $$SELECT id::int, jsonb_populate_record(NULL::grown, jsonb_build_object('a', value)) AS v FROM redis_batch$$, '{id}', databases => '{0}')},
    q{CALL redis_migrate.run('grows')}, 'ALTER TYPE grown ADD ATTRIBUTE b text');
$redis->cli('DEL', 'h:21');
sql(q{CALL redis_migrate.run('grows', prune => true)});
is(here('grows'), '1|0|0', 'nor after a composite type has got another attribute');
$redis->cli('SET', 'h:21', 'v21');
sql(q{SELECT redis_migrate.drop_migration('grows')});

# The stored row is the one that a trigger, or a SET list, has made.
sql(q{CREATE TABLE shouts (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0)},
    q{CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.v := upper(new.v); RETURN new; END'},
    'CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON shouts FOR EACH ROW EXECUTE FUNCTION shout()',
    q{SELECT redis_migrate.create_migration('shouts', 'shop')},
    q{SELECT redis_migrate.add_mapping('shouts', 's', 'h:{id:int}', 'shouts', 'SELECT id::int, value AS v, 1 AS n FROM redis_batch', '{id}',
        databases => '{0}', on_conflict => 'v = excluded.v, n = target.n + excluded.n')});
sql(q{CALL redis_migrate.run('shouts')}) for 1, 2;
is(here('shouts'), '0|0|0', 'a trigger and a SET list do not look like the application');
sql(q{UPDATE shouts SET n = 7 WHERE id = 30});
$redis->cli('DEL', 'h:30', 'h:31');
sql(q{CALL redis_migrate.run('shouts', prune => true)});
is(here('shouts'), '2|1|0', 'whose changes are found');

# The journal of what runs inserted outlives its merge, and is kept for a time.
like(sql(q{SELECT count(*), sum(octet_length(b.inserted)) / 24, bool_and(merged) FROM redis_migrate.ledger_batch AS b JOIN redis_migrate.mapping USING (mapping_id)
    WHERE mapping = 's' AND run_id = (SELECT min(run_id) FROM redis_migrate.run WHERE migration = 'shouts')}), qr/^1\|55\|t$/, 'it names the rows of a run');
$node->append_conf('postgresql.conf', "pg_redis_migrate.journal_retention = 0\n");
$node->reload;
wait_until('the setting is read', sub { sql('SHOW pg_redis_migrate.journal_retention') eq '0' });
sql(q{CALL redis_migrate.run('shouts')});
is(sql(q{SELECT count(*) FROM redis_migrate.ledger_batch JOIN redis_migrate.mapping USING (mapping_id) WHERE mapping = 's'}), 0, 'with no retention it ends with the run');

# Damaged and foreign entries are not guessed at.
sql(q{UPDATE redis_migrate.ledger_segment SET entries = substr(entries, 2)});
like(sql_error($node, q{CALL redis_migrate.run('shouts', prune => true)}), qr/ERROR:  XX001: a packed ledger is damaged/, 'entries that are cut');
sql(q{UPDATE redis_migrate.ledger_segment SET format = 2});
like(sql_error($node, q{CALL redis_migrate.run('shouts', prune => true)}), qr/ERROR:  0A000: a packed ledger has format 2/, 'entries of a later version');

# A target by which entries would stand for other rows ends the run, and says what to do.
sql(q{CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)},
    'CREATE TABLE fits (id text PRIMARY KEY, v text)', q{SELECT redis_migrate.create_migration('fits', 'shop')},
    q{SELECT redis_migrate.add_mapping('fits', 'f', 'h:{id}', 'fits', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}')},
    q{CALL redis_migrate.run('fits')}, 'ALTER TABLE fits ALTER id TYPE text COLLATE nocase');
like(sql_error($node, q{CALL redis_migrate.run('fits')}), qr/ERROR:  55000: the packed ledger of mapping "f" no longer fits target public.fits\n.*Now: two keys could yield the same row.*\n.*alter_mapping/,
    'a target that no longer fits');
like(warned(q{SELECT redis_migrate.alter_mapping('fits', 'f')}), qr/NOTICE:  the ledger of mapping "f" begins anew/, 'alter_mapping begins anew');
sql(q{CALL redis_migrate.run('fits')});
is(last_run($node, 'fits', 'state, balanced'), 'completed|t', 'and the run goes on');
sql(q{SELECT redis_migrate.drop_migration('fits')});

# Without its secret a packed ledger means nothing: no run begins, and it is said what to do.
sub checked { return sql("SELECT status, detail FROM redis_migrate.preflight('shop') WHERE check_name = '$_[0]' ORDER BY 2"); }
is(checked('ledger secret'), '', 'a secret that is there is no matter');
my $secret = sql('SELECT secret FROM redis_migrate.ledger_secret');
for my $loss ('DELETE FROM redis_migrate.ledger_secret', q{INSERT INTO redis_migrate.ledger_secret (secret) VALUES ('\x00112233445566778899aabbccddeeff')})
{
    sql($loss);
    like(sql_error($node, "CALL redis_migrate.run('here'$_)"), qr/ERROR:  55000: the packed ledger of mapping "h" was made with another secret\n.*\n.*Restore .*alter_mapping\('here', 'h'\)/,
        'a lost secret ends a run') for '', ', dry_run => true';
    like(sql_error($node, "CALL redis_migrate.verify('here')"), qr/ERROR:  55000: the packed ledger of mapping "h" was made with another secret/, 'and a verification');
    is(checked('ledger secret'), qq{fail|the packed ledger of mapping "h" of migration "here" was made with another secret\n}
            . q{fail|the packed ledger of mapping "s" of migration "shouts" was made with another secret}, 'which preflight knows');
}
sql("UPDATE redis_migrate.ledger_secret SET secret = '$secret'", q{CALL redis_migrate.run('here')});
is(ledger() . sql(q{ SELECT claims_unchanged FROM redis_migrate.mapping_count ORDER BY run_id DESC LIMIT 1}), '106|1f', 'with its secret it goes on');
sql(q{UPDATE redis_migrate.ledger_secret SET secret = '\x00112233445566778899aabbccddeeff'});
like(warned(q{SELECT redis_migrate.alter_mapping('here', 'h')}), qr/NOTICE:  the ledger of mapping "h" begins anew/, 'or it begins anew');
sql(q{CALL redis_migrate.run('here')}, q{SELECT redis_migrate.drop_migration('shouts')});
is(ledger(), '52|0', 'and the rows are the mapping\'s again');
sql(q{SELECT redis_migrate.drop_migration('here')});

# A full ledger is said, with the reason, and becomes a packed one when the reason goes. It needs no secret to do so.
$redis->cli('FLUSHALL');
$redis->cli('MSET', 'v:a b:1', 'x', 'v:"q,{}\\:2', 'x', 'v:c:3', 'x', 'v:NULL:4', 'x', "v:\xc3\xa9:5", 'x');
sql('CREATE TABLE converted (id text, n int, v text, PRIMARY KEY (id, n))', q{INSERT INTO converted VALUES ('c', 9, 'mine')}, q{SELECT redis_migrate.create_migration('converted', 'shop')});
my $because = 'keys of two databases could yield the same row: databases does not name a single one, and db does not stand in key_columns';
like(warned(q{SELECT redis_migrate.add_mapping('converted', 'c', 'v:{id}:{n:int}', 'converted', 'SELECT id, n::int AS n, value AS v FROM redis_batch', '{id,n}')}),
    qr/NOTICE:  mapping "c" has a full ledger\nDETAIL:  It records which key each row came from, and one process at a time stores rows, because $because\.\nHINT:  If all keys are in one database, say databases => '\{0\}'/,
    'add_mapping says that the ledger is full');
is(warned(q{SELECT redis_migrate.alter_mapping('converted', 'c', on_delete => 'delete')}), '', 'once');
is(checked('ledger'), qq{warn|mapping "c" of migration "converted" has a full ledger: $because}, 'and so does preflight');
sub full { return sql('SELECT count(*), count(DISTINCT row_hash) FROM redis_migrate.ledger'); }
sql(q{CALL redis_migrate.run('converted')});
is(full(), '5|5', 'it has an entry for each row');
sql("UPDATE redis_migrate.ledger_secret SET secret = '$secret'");
like(warned(q{CALL redis_migrate.run('converted')}), qr/NOTICE:  the full ledger of mapping "c" was hashed with another secret/, 'with another secret it is hashed anew');
sql(q{UPDATE converted SET v = 'y' WHERE n = 2}, q{CALL redis_migrate.run('converted')});
is(full() . ' ' . sql(q{SELECT count(*) FROM redis_migrate.ledger WHERE row_hash = ('x' || encode(substr(redis_migrate.row_hash(mapping_id, row_key), 1, 8), 'hex'))::bit(64)::bigint}),
    '5|5 5', 'so that entries are found and none is written twice');
is(warned(q{SELECT redis_migrate.alter_mapping('converted', 'c', databases => '{0}')}) . kind('converted'), 'packed|no two keys yield the same row: id = id, n = n',
    'without the reason the ledger is packed, and nothing is forgotten');
is(checked('ledger'), 'ok|no mapping has a full ledger', 'preflight has nothing to say');
$redis->cli('DEL', 'v:c:3');
sql(q{CALL redis_migrate.run('converted', dry_run => true)});
is(full() . ' ' . ledger(), '5|5 0|0', 'a dry run converts nothing for good');
sql(q{CALL redis_migrate.run('converted')});
is(full() . ' ' . ledger(), '0|0 5|0', 'the next run converts the entries');
sql(q{CALL redis_migrate.run('converted', prune => true)});
is(sql(q{SELECT string_agg(n || v, ' ' ORDER BY n) FROM converted}) . ' ' . ledger(), '1x 2x 4x 5x 9mine 4|0', 'and each of them stands for its row');
sql(q{SELECT redis_migrate.drop_migration('converted')});

# kill -9 in the middle, again and again: the same rows are there, and all of them are the mapping's.
$redis->cli('FLUSHALL');
$redis->cli('EVAL', 'for i = 1, 6000 do redis.call("SET", "c:" .. i, "v" .. i) end', 0);
sql('CREATE TABLE crash (id text PRIMARY KEY, v text)', q{SELECT redis_migrate.create_migration('crash', 'shop')},
    q{SELECT redis_migrate.add_mapping('crash', 'c', 'c:{id}', 'crash', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}')});
sub crashes { return scalar(() = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g); }
for my $rows (500, 2000, 4000)
{
    my $call = start_sql($node, "SET pg_redis_migrate.batch_rows = 50;\nCALL redis_migrate.run('crash', prune => true);");
    my $pid;
    wait_until("$rows rows", sub {
        my ($status, $out) = $node->psql('postgres', q{SELECT count(*), (SELECT max(pid) FROM pg_stat_activity WHERE query LIKE 'CALL redis_migrate.run%') FROM crash});
        return 0 unless $status == 0 && $out =~ /^(\d+)\|(\d*)/;
        $pid = $2;
        return $1 >= $rows;
    });
    my $crashes = crashes();
    my $killed = $pid ? kill('KILL', $pid) : 0;  # the run may have ended
    $call->finish;
    # For a moment it still answers.
    wait_until('the server recovers', sub { my ($status) = $node->psql('postgres', 'SELECT 1'); return $status == 0 && (!$killed || crashes() > $crashes); });
}
sql(q{CALL redis_migrate.run('crash', prune => true)});
is(last_run($node, 'crash', 'state, read, migrated, balanced'), 'completed|6000|6000|t', 'the run goes on to its end');
is(sql(q{SELECT count(*), count(*) FILTER (WHERE v = 'v' || id) FROM crash}) . '|' . ledger(), '6000|6000|6000|0', 'each row is there once, and known');
$redis->cli('EVAL', 'for i = 1, 2999 do redis.call("DEL", "c:" .. i) end', 0);
sql(q{INSERT INTO crash VALUES ('mine', '')}, q{CALL redis_migrate.run('crash', prune => true, force => true)});
is(sql('SELECT count(*) FROM crash') . '|' . ledger(), '3002|3001|0', 'and prune removes those whose keys are gone');

# Batches that were divided, since rows were refused, append many rows of few entries. They are merged some at a time, in their
# order: what is removed by a later one was inserted by one of the first.
sql(q{INSERT INTO redis_migrate.ledger_batch (mapping_id, run_id, format, columns, takes_changed, in_journal, inserted, changed, removed)
      SELECT mapping_id, NULL, format, columns, false, false,
          CASE WHEN n <= 35000 THEN decode(md5(n::text), 'hex') || int8send(0) ELSE '' END, '',
          CASE WHEN n <= 35000 THEN '' ELSE decode(md5((n - 35000)::text), 'hex') END
      FROM (SELECT mapping_id, format, columns FROM redis_migrate.ledger_segment LIMIT 1) AS s, generate_series(1, 40000) AS n ORDER BY n},
    q{CALL redis_migrate.run('crash')});
is(ledger(), 3001 + 30_000 . '|0', '40,000 batches are merged, each once');

# A dump carries the ledger and its secret: the restored one knows the same rows.
is(sql(q{SELECT count(*) FROM crash AS c WHERE EXISTS (SELECT FROM redis_migrate.ledger_segment AS s
    WHERE position(redis_migrate.row_hash(c.id) IN s.entries) % 24 = 1)}), 3001, 'rows are found by row_hash');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok(['pg_dump', '-Fc', '-f', $node->basedir . '/packed.dump', $node->connstr('postgres')], 'pg_dump');
$node->command_ok(['pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $node->basedir . '/packed.dump'], 'pg_restore');
is($node->safe_psql('restored', q{SELECT count(*) FROM crash AS c WHERE EXISTS (SELECT FROM redis_migrate.ledger_segment AS s
    WHERE position(redis_migrate.row_hash(c.id) IN s.entries) % 24 = 1)}), 3001, 'also in a restored database');

# Several processes restore tables in any order, which foreign keys between them do not permit.
$node->safe_psql('postgres', 'CREATE DATABASE aside');
{
    local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
    $node->command_ok(['pg_restore', '--exit-on-error', '-j', 3, '-d', $node->connstr('aside'), $node->basedir . '/packed.dump'], 'pg_restore -j');
}
my $counts = 'SELECT ' . join ', ', map { "(SELECT count(*) FROM redis_migrate.$_)" } qw(migration mapping run run_count ledger_segment journal_insert);
is($node->safe_psql('aside', $counts), $node->safe_psql('postgres', $counts), 'pg_restore -j: every row');

# A live run goes on for long. Every few hundred batches it merges the ledgers of which that pays: what was appended is much
# beside what is known, or is in many batches.
$redis->cli('FLUSHALL');
$redis->cli('CONFIG', 'SET', 'repl-diskless-sync-delay', '0');
$redis->cli('EVAL', 'for i = 1, 20000 do redis.call("SET", "big:" .. i, "v" .. i) end', 0);
sql('CREATE TABLE big (id int PRIMARY KEY, v text)', 'CREATE TABLE small (id int PRIMARY KEY, v text)',
    q{SELECT redis_migrate.create_migration('live', 'shop', source => 'replication', databases => '{0}')},
    map { "SELECT redis_migrate.add_mapping('live', '$_', '$_:{id:int}', '$_', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}')" } qw(big small));
sql(q{SELECT redis_migrate.start('live', live => true)}, q{LOAD 'pg_redis_migrate'});
sql(q{CALL redis_migrate.wait_for('live', '50 s')});
sub batches { my ($mapping, $which) = @_; return sql("SELECT count(*) FROM redis_migrate.ledger_batch AS b JOIN redis_migrate.mapping AS m USING (mapping_id) WHERE m.mapping = '$mapping' AND $which"); }
sub known { my ($mapping) = @_; return sql("SELECT coalesce(sum(octet_length(entries)), 0) / 24 FROM redis_migrate.ledger_segment JOIN redis_migrate.mapping AS m USING (mapping_id) WHERE m.mapping = '$mapping'"); }
sub change { my ($mapping, $value, @ids) = @_; $redis->cli_lines(join '', map { "SET $mapping:$_ $value\n" } @ids); sql(q{CALL redis_migrate.wait_for('live', '3 min')}); return; }
# Batches of four keys each, until something is so.
sub let_batches_pass
{
    my ($what, $is_so) = @_;
    my $n = 0;
    wait_until($what, sub { ++$n; change('small', $n, map { 1 + $_ % 16 } 1 .. 600); return $is_so->(); });
    return;
}
$node->safe_psql('postgres', q{LOAD 'pg_redis_migrate'; ALTER SYSTEM SET pg_redis_migrate.batch_rows = 1});
$node->reload;
is(known('big') . batches('big', 'NOT merged'), '200000', 'what a live run has loaded is known');
change('big', 'few', 1 .. 50);
let_batches_pass('a small ledger is merged', sub { known('small') eq '16' });
cmp_ok(batches('big', 'NOT merged'), '>', 0, 'what is little beside a large one waits');
change('big', 'many', 1 .. 6000); # in 1,500 batches
let_batches_pass('a large one is merged', sub { batches('big', 'NOT merged') < 1000 });
sql(q{INSERT INTO redis_migrate.ledger_batch (mapping_id, format, columns, takes_changed, in_journal, inserted, changed, removed)
      SELECT mapping_id, format, columns, false, false, '', '', ''
      FROM (SELECT mapping_id, format, columns FROM redis_migrate.ledger_segment JOIN redis_migrate.mapping AS m USING (mapping_id) WHERE m.mapping = 'big' LIMIT 1) AS s, generate_series(1, 4200)});
let_batches_pass('many small batches are merged', sub { batches('big', 'NOT merged') eq '0' });
change('big', 'last', 1 .. 4);
sql(q{SELECT redis_migrate.stop('live')});
is(known('big') . sql('SELECT count(*) FILTER (WHERE v = $$last$$), count(*) FILTER (WHERE v = $$many$$), count(*) FROM big'), '200004|5996|20000', 'each row is known once');

done_testing();
