# Live sync: bad rows are left aside and shown until their keys are good; a mapping that can store nothing any more pauses
# the run, and nothing that came meanwhile is lost.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--repl-backlog-size', '16mb' ]);
my $node = new_node('rejects');
create_server($node, 'live', $redis);
$node->safe_psql('postgres', q{
    CREATE TABLE totals (id text PRIMARY KEY, total numeric);
    CREATE TABLE names (id text PRIMARY KEY, name text);
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication');
    SELECT redis_migrate.add_mapping('live', 'totals', 'total:{id}', 'totals', 'SELECT id, value::numeric AS total FROM redis_batch', '{id}');
    SELECT redis_migrate.add_mapping('live', 'names', 'name:{id}', 'names', 'SELECT id, value AS name FROM redis_batch', '{id}');
    SELECT redis_migrate.add_check('live', 'names', 'short', 'length(name) < 10');
    CREATE TABLE odds (id text PRIMARY KEY, v text);
    CREATE FUNCTION odd(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
        IF value LIKE 'state %' THEN RAISE EXCEPTION '%', value USING ERRCODE = substr(value, 7); END IF; RETURN value; END $$;
    SELECT redis_migrate.add_mapping('live', 'odds', 'odd:{id}', 'odds', 'SELECT id, odd(value) AS v FROM redis_batch', '{id}');
    SELECT redis_migrate.start('live', live => true)});
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub sets { my ($value, @ids) = @_; return join '', map { "SET total:$_ $value\n" } @ids; }
is(wait_for($node), '', 'it follows');
my $open = q{SELECT count(*) FROM redis_migrate.rejects WHERE settled_at IS NULL};

# A bad row, again and again, and a good one.
$redis->cli_lines("SET total:1 none\nSET total:2 2\n");
is(wait_for($node) . rows($open), '1', 'a bad row is shown');
$redis->cli_lines("SET total:1 never\n");
is(wait_for($node) . rows($open), '1', 'once');
$redis->cli_lines("SET total:1 10\n");
is(wait_for($node) . rows($open) . '|' . rows(q{SELECT key, mapping, sqlstate, settled_at > created_at FROM redis_migrate.rejects}), '0|total:1|totals|22P02|t', 'with a good one it is settled');
$redis->cli_lines("SET total:1 none\n");
is(wait_for($node) . rows($open) . rows('SELECT count(*) FROM redis_migrate.rejects'), '12', 'and open again');
$redis->cli_lines("DEL total:1\n");
is(wait_for($node) . rows($open) . rows('SELECT count(*) FROM redis_migrate.rejects'), '01', 'or when its key is gone');

# A row that may not go costs its key alone, whatever the trigger says.
$node->safe_psql('postgres', q{
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF OLD.name = 'kept' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '42501'; END IF; RETURN OLD; END $$;
    CREATE TRIGGER keep BEFORE DELETE ON names FOR EACH ROW EXECUTE FUNCTION keep()});
$redis->cli_lines("SET name:k kept\nSET name:g gone\n");
is(wait_for($node), '', 'a row that its table keeps');
$redis->cli_lines("DEL name:k\nDEL name:g\n");
is(wait_for($node) . rows(q{SELECT name FROM names}), 'kept', 'stays');
is(rows(q{SELECT key, mapping, sqlstate, message FROM redis_migrate.rejects WHERE settled_at IS NULL}), 'name:k|names|42501|not this one', 'and is shown');
$node->safe_psql('postgres', 'DROP TRIGGER keep ON names');
$redis->cli_lines("SET name:k kept\nDEL name:k\n");
is(wait_for($node) . rows($open) . rows('SELECT count(*) FROM names'), '00', 'until it can go');

# Errors that could be the mapping's: it has stored nothing yet, and the keys come one by one.
for my $state ('0A000', '42P01', '55000')
{
    $redis->cli('SET', 'odd:1', "state $state");
    is(wait_for($node) . rows(q{SELECT key, sqlstate FROM redis_migrate.rejects WHERE settled_at IS NULL}), "odd:1|$state", "$state of a single key is that key's");
}
$node->safe_psql('postgres', 'ALTER FUNCTION odd(text) RENAME TO even');
$redis->cli('SET', 'odd:2', 'x');
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
like(job($node, 'live', 'sqlstate, message'), qr/^42883\|.*function odd\(text\) does not exist/, 'an error without any key is that of the mapping');
$node->safe_psql('postgres', q{ALTER FUNCTION even(text) RENAME TO odd; SELECT redis_migrate.start('live', live => true)});
$redis->cli('DEL', 'odd:1', 'odd:2');
is(wait_for($node) . rows($open), '0', 'corrected');

# One key that is bad a hundred times, and bad ones among good ones, are no reason to pause.
for (1 .. 120) { $redis->cli('SET', 'total:1', "none$_"); select undef, undef, undef, 0.025; }
is(wait_for($node) . rows($open), '1', 'one bad key');
for my $part (1 .. 3) { $redis->cli_lines(sets('none', map { "$part-$_" } 1 .. 60) . "SET total:good $part\n"); is(wait_for($node), '', "part $part"); }
is(rows($open) . rows(q{SELECT total FROM totals WHERE id = 'good'}), '1813', 'bad ones among good ones') or diag live($node, '*');

# A hundred in a row of one mapping.
$redis->cli_lines(sets('x', 1 .. 40) . "SET name:1 ann\n");
is(wait_for($node), '', 'forty bad ones');
my $offset = live($node, 'applied_offset');
$redis->cli_lines("SET name:2 bob\n" . sets('x', 41 .. 400) . "SET name:3 cyd\n");
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
is(job($node, 'live', 'sqlstate, message'), '22P02|mapping "totals" rejects every key, by rule "total"', 'a mapping that stores nothing pauses the run') or diag live($node, '*');
cmp_ok(live($node, 'received_offset'), '>=', $offset, 'what is received stays');
is(rows(q{SELECT string_agg(name, ',' ORDER BY id) FROM names WHERE id IN ('1', '2')}) =~ /^ann/ && 'ann', 'ann', 'what came before is stored');
like(wait_for($node), qr/22P02.*rejects every key/, 'wait_for says so');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
wait_until('it fails again', sub { job($node, 'live', 'state') eq 'failed' });
is(job($node, 'live', 'sqlstate'), '22P02', 'a start alone does not help');
$redis->cli_lines(sets('7', 1 .. 400) . "SET name:4 dan\n");
$node->safe_psql('postgres', q{SELECT redis_migrate.alter_mapping('live', 'totals', query => $$SELECT id, CASE WHEN redis_migrate.input_is_valid(value, 'numeric') THEN value::numeric END AS total FROM redis_batch$$); SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . rows(q{SELECT count(*), sum(total) FROM totals WHERE id ~ '^\d+$'}) . rows(q{SELECT string_agg(name, ',' ORDER BY id) FROM names}), '400|2800ann,bob,cyd,dan', 'corrected, it goes on and has lost nothing');

# By a check, which has no SQLSTATE.
$redis->cli_lines(join '', map { "SET name:long$_ 0123456789\n" } 1 .. 100);
wait_until('the run fails', sub { job($node, 'live', 'state') eq 'failed' });
is(job($node, 'live', 'sqlstate, message'), '22000|mapping "names" rejects every key, by rule "short"', 'a check that nothing passes');

done_testing();
