# Prunes of rows that refer to one another, and of very many rows that cannot go.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('prune');
my $redis = start_redis();
create_server($node, 'shop', $redis);

sub sql { return $node->safe_psql('postgres', "SET client_min_messages = error;\n$_[0]"); }
sub prune
{
    my (undef, undef, $said) = $node->psql('postgres', q{CALL redis_migrate.run('m', prune => true, force => true)});
    return $said;
}
sub gone { return sql(q{SELECT deleted || ' ' || coalesce(prune_detail, '') FROM redis_migrate.mapping_counts WHERE migration = 'm' AND mapping = 'm' ORDER BY run_id DESC LIMIT 1}); }

use constant ROWS => 2_500;

# A table whose rows refer to others of it as a function of the id says, and of which the keys up to so many are gone.
sub make
{
    my ($options, $boss, $gone) = @_;
    $redis->cli('FLUSHALL');
    sql(qq{CREATE TABLE person (id int PRIMARY KEY, boss int);
        SELECT redis_migrate.create_migration('m', 'shop');
        SELECT redis_migrate.add_mapping('m', 'm', 'k:{id:int}', 'person', 'SELECT id, nullif(value, '''')::int AS boss FROM redis_batch', '{id}'$options)});
    $redis->cli_lines(join '', map { "SET k:$_ " . ($boss->($_) || '""') . "\n" } 1 .. ROWS);
    sql(q{CALL redis_migrate.run('m')});
    sql('ALTER TABLE person ADD FOREIGN KEY (boss) REFERENCES person; CREATE INDEX ON person (boss); CREATE TABLE fan (id int REFERENCES person)');
    $redis->cli_lines(join '', map { "DEL k:$_\n" } 1 .. $gone);
    return;
}

sub drop { sql(q{SELECT redis_migrate.drop_migration('m'); DROP TABLE fan; DROP TABLE person}); return; }

for my $options ('', q{, databases => '{0}'}, q{, databases => '{0}', exclusive => true})
{
    # One chain, in which a row in the middle stays: so do all to which it refers, and the others go at once.
    make($options, sub { my ($id) = @_; return $id <= 1400 ? $id - 1 : 0; }, 1400);
    sql('INSERT INTO fan VALUES (400)');
    my $said = prune();
    like($said, qr/WARNING:  mapping "m" was not pruned completely: 400 rows cannot go, first \(id\)=\(x+\) \(23503: /, "a chain$options");
    is(sql('SELECT count(*), max(id) FILTER (WHERE id <= 1400) FROM person'), ROWS - 1000 . '|400', 'goes down to the row that stays');
    like(gone(), qr/^1000 400 rows cannot go/, 'as the outcome says');
    sql('TRUNCATE fan');
    unlike(prune(), qr/WARNING/, 'all of it');
    is(sql('SELECT count(*) FROM person'), ROWS - 1400, 'goes when it can');
    drop();

    # Rows could go in turn, and one statement that removes them all cannot: then those go that can go by themselves.
    make($options, sub { my ($id) = @_; return $id <= 3 ? $id - 1 : 0; }, 20);
    sql(q{CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM public.person WHERE boss = OLD.id) THEN RAISE 'has others below'; END IF;
            RETURN OLD;
        END $$;
        CREATE TRIGGER guard BEFORE DELETE ON person FOR EACH ROW EXECUTE FUNCTION guard()});
    # Where the statement comes to the later ones first, all go.
    $said = prune();
    my $left = sql('SELECT string_agg(id::text, $$ $$ ORDER BY id) FROM person WHERE id <= 20');
    like($left, qr/^(?:1 2)?$/, "a trigger that guards others$options keeps these alone");
    like($said, qr/: 2 rows cannot go, first \(id\)=\(x+\) \(P0001: has others below\)/, 'as the prune says') if $left ne '';
    prune();
    unlike(prune(), qr/WARNING/, 'which go');
    is(sql('SELECT count(*) FROM person'), ROWS - 20, 'one after the other');
    sql('DROP FUNCTION guard CASCADE');
    drop();

    # The other way round, the rows that refer come first.
    make($options, sub { my ($id) = @_; return $id < 900 ? $id + 1 : 0; }, 900);
    sql('INSERT INTO fan VALUES (500)');
    like(prune(), qr/: 401 rows cannot go, first/, 'a chain in the other direction');
    is(sql('SELECT count(*), min(id) FROM person'), ROWS - 499 . '|500', 'goes as well');
    drop();

    # So many that not all are tried: these stay as well, and are counted.
    make($options, sub { return 0; }, 1500);
    sql('INSERT INTO fan SELECT id FROM generate_series(1, 1500) AS id');
    $said = prune();
    like($said, qr/: 1000 rows cannot go, first \(id\)=\(x+\) \(23503: [^\n]*\); others were not tried: 500$/m, "more than a thousand$options");
    is(sql('SELECT count(*) FROM person') . gone() =~ s/ .*//sr, ROWS . '0', 'none goes');
    sql('DELETE FROM fan WHERE id > 900');
    prune();
    is(sql('SELECT count(*), count(*) FILTER (WHERE id <= 1500) FROM person'), ROWS - 600 . '|900', 'with fewer, all others go');
    sql('TRUNCATE fan');
    prune();
    is(sql('SELECT count(*) FROM person'), ROWS - 1500, 'and later these');
    drop();
}

done_testing();
