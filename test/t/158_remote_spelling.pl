# Rows in foreign tables, in partitions on other servers and behind views that two keys yield, spelt differently: the lower
# key has the row, in whatever order and batches they are read, and whoever remains keeps it.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

use constant KEYS => 300;

my $redis = start_redis();
my $node = new_node('main', conf => 'pg_redis_migrate.batch_rows = 40');
create_server($node, 'shop', $redis);
my ($host, $port) = ($node->host, $node->port);
sub sql { my @statements = @_; return $node->safe_psql('postgres', join(';', @statements)); }

sql('CREATE EXTENSION postgres_fdw', 'CREATE EXTENSION citext', 'CREATE SCHEMA far',
    q{CREATE COLLATION ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)},
    "CREATE SERVER loopback FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres', batch_size '100')",
    'CREATE USER MAPPING FOR CURRENT_USER SERVER loopback',
    q{SELECT redis_migrate.create_migration('alike', 'shop')});
my %types = (citext => 'citext', collated => 'text COLLATE ignoring_case', numbers => 'numeric');
my %kinds = (
    foreign => 'CREATE TABLE far.%s (id %t PRIMARY KEY, v text); CREATE FOREIGN TABLE %s (id %t NOT NULL, v text) SERVER loopback OPTIONS (schema_name $$far$$)',
    part    => 'CREATE TABLE far.%s (id %t PRIMARY KEY, v text); CREATE TABLE %s (id %t NOT NULL, v text) PARTITION BY LIST (v); CREATE FOREIGN TABLE %s_all PARTITION OF %s DEFAULT SERVER loopback OPTIONS (schema_name $$far$$, table_name $$%s$$)',
    view    => 'CREATE TABLE far.%s (id %t PRIMARY KEY, v text, other text DEFAULT $$kept$$); CREATE VIEW %s AS SELECT id, v FROM far.%s');
my @tables;
for my $kind (sort keys %kinds)
{
    for my $name (sort keys %types)
    {
        my ($table, $type, $pattern) = ("${kind}_$name", $types{$name}, $name eq 'numbers' ? 'b:{id:number}' : 'a:{id}');
        sql($kinds{$kind} =~ s/%s/$table/gr =~ s/%t/$type/gr,
            "SELECT redis_migrate.add_mapping('alike', '$table', '$pattern', '$table', 'SELECT id::" . $type =~ s/ .*//r . " AS id, value AS v FROM redis_batch', '{id}', databases => '{0}')");
        push @tables, $table;
    }
}
is(sql(q{SELECT count(*), count(DISTINCT ledger) FROM redis_migrate.mappings WHERE ledger = 'full'}), '9|1', 'full ledgers');

my $keys = KEYS;
sub set { my ($names, $value) = @_; return $redis->cli('EVAL', "for i = 1, $keys do redis.call('SET', $names, '$value ' .. i) end", 0); }
sub set_lower { set(q{'a:K' .. i}, 'lower'); return set(q{'b:' .. i}, 'lower'); }
sub set_higher { set(q{'a:k' .. i}, 'higher'); return set(q{'b:' .. i .. '.0'}, 'higher'); }
sub drop { my ($letter, $end) = @_; return $redis->cli('EVAL', "for i = 1, $keys do redis.call('DEL', 'a:$letter' .. i, 'b:' .. i .. '$end') end", 0); }
sub is_alike
{
    my ($when, $options, $value, $counts) = @_;
    is(sql_error($node, "CALL redis_migrate.run('alike'$options)"), '', $when);
    is(sql(join ' UNION ALL ', map { "SELECT '$_', count(*), count(*) FILTER (WHERE v LIKE '$value %') FROM $_" } @tables), join("\n", map { "$_|$keys|$keys" } @tables), "$when: the rows");
    is(sql(q{SELECT mapping, updated, unchanged, folded, deleted FROM redis_migrate.mapping_counts WHERE migration = 'alike' AND run_id = (SELECT max(run_id) FROM redis_migrate.runs) ORDER BY mapping COLLATE "C"}),
        join("\n", map { "$_|$counts" } @tables), "$when: the counts") if $counts;
    return;
}

set_lower();
set_higher();
is_alike('both keys', '', 'lower');
is_alike('both keys again', '', 'lower', "0|$keys|$keys|0");
drop('k', '.0');
is_alike('the lower keys', ', prune => true', 'lower', "0|$keys|0|0");
set_higher();
drop('K', '');
is_alike('the higher keys', ', prune => true, force => true', 'lower', "0|0|$keys|0");
is_alike('the higher keys again', '', 'higher', "$keys|0|0|0");
set_lower();
is_alike('the lower keys are back', '', 'lower');
drop('k', '.0');
is_alike('the lower keys remain', ', prune => true', 'lower', "0|$keys|0|0");

done_testing();
