# undo_run of every kind of run, with every kind of ledger, of rows in every state since, beside a model: exactly what the run
# did to rows that are as it left them is taken back, and others are reported. Forced, everything is as before.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('matrix', conf => 'pg_redis_migrate.batch_rows = 7');
create_server($node, 'shop', $redis);
sub sql { my @statements = @_; return $node->safe_psql('postgres', join ';', 'SET client_min_messages = error', @statements); }

my %ledgers = (p => 'packed', e => 'packed', f => 'full', n => 'none');
our @mappings = sort keys %ledgers;
sub create
{
    sql(q{SELECT redis_migrate.create_migration('m', 'shop', source => 'replication')});
    for my $mapping (@mappings)
    {
        my ($has_elements, $exclusive) = ($mapping eq 'n', $mapping =~ /[en]/ ? 'true' : 'false');
        my $columns = $mapping eq 'f' ? q{'k_' || id AS id} : $has_elements ? 'id, field' : 'id';
        my ($key, $expand) = $has_elements ? ('id,field', q{'elements'}) : ('id', 'NULL');
        sql("CREATE TABLE $mapping (id text, value text, note text DEFAULT 'none', field text DEFAULT 'f', PRIMARY KEY (" . ($has_elements ? 'field, id' : 'id') . '))',
            "SELECT redis_migrate.add_mapping('m', '$mapping', '$mapping:{id}', '$mapping', \$q\$SELECT $columns, value FROM redis_batch\$q\$, '{$key}', databases => '{0}', exclusive => $exclusive, expand => $expand)");
        is(sql("SELECT ledger FROM redis_migrate.mappings WHERE mapping = '$mapping'"), $ledgers{$mapping}, "$mapping: ledger");
    }
    return;
}
sub drop { sql(q{SELECT redis_migrate.drop_migration('m')}, map { "DROP TABLE $_" } @mappings); $redis->cli('FLUSHALL'); return; }
sub row_of { my ($mapping, $name) = @_; return $mapping eq 'f' ? "k_$name" : $name; }
# The rows of a table, by their key.
sub table
{
    my ($mapping) = @_;
    return map { my ($id, $row) = split /\|/, $_, 2; $id => $row } split /\n/, sql("SELECT id, value, note FROM $mapping");
}

# What somebody does to a row after the run, by what the run has done to it.
my %states = (
    insert => [qw(untouched changed noted deleted same other)],
    update => [qw(untouched changed noted deleted same other)],
    delete => [qw(untouched same other)],
    nothing => [qw(untouched changed noted deleted same other)]);
sub touch
{
    my ($mapping, $id, $state, $before, $now) = @_;
    my ($value, $note) = split /\|/, $now // $before;
    return "UPDATE $mapping SET value = 'mine' WHERE id = '$id'" if $state eq 'changed';
    return "UPDATE $mapping SET note = 'mine' WHERE id = '$id'" if $state eq 'noted';
    return "DELETE FROM $mapping WHERE id = '$id'" if $state eq 'deleted';
    return "DELETE FROM $mapping WHERE id = '$id'; INSERT INTO $mapping VALUES ('$id', '$value', '$note')" if $state eq 'same';
    return "DELETE FROM $mapping WHERE id = '$id'; INSERT INTO $mapping VALUES ('$id', 'mine', '$note')" if $state eq 'other';
    return;
}
# What becomes of it: restored, put_back, removed, already, left (alone, and reported), or nothing. Of rows that were inserted
# the journal has a hash of what the mapping fills; live sync notes the whole row.
sub model
{
    my ($kind, $operation, $state) = @_;
    return 'nothing' if $operation eq 'nothing';
    return 'left' if $state =~ /^(?:changed|other)$/;
    return $state eq 'same' ? 'already' : 'put_back' if $operation eq 'delete';
    return $state eq 'noted' || $state eq 'deleted' ? 'left' : 'restored' if $operation eq 'update';
    return 'already' if $state eq 'deleted';
    return $state eq 'noted' && $kind eq 'live' ? 'left' : 'removed';
}

# A hash of one field where the mapping has elements.
sub commands
{
    my ($command, $what, @names) = @_;
    return join '', map { my $mapping = $_; map { $mapping eq 'n' && $command eq 'SET' ? "HSET n:$_ f $what\n" : "$command $mapping:$_ $what\n" } @names } @mappings;
}
sub names { my @operations = @_; return map { my $operation = $_; map { "$operation-$_" } @{ $states{$operation} } } @operations; }

my %operations = (first => [qw(insert update)], unchanged => ['nothing'], changed => [qw(insert update nothing)],
    prune => [qw(insert update delete nothing)], live => [qw(insert update delete nothing)]);
for my $kind (qw(first unchanged changed prune live))
{
    local @mappings = grep { $_ ne 'n' } @mappings if $kind eq 'live';  # no index leads with the name of its keys, so it cannot be followed
    create();
    my @operations = @{ $operations{$kind} };
    my @has = grep { $_ ne 'insert' } @operations;  # what is there before
    if ($kind eq 'first')
    {
        sql(map { my $mapping = $_; map { "INSERT INTO $mapping VALUES ('" . row_of($mapping, $_) . "', 'old', 'own')" } names(@has) } @mappings);
    }
    else
    {
        $redis->cli_lines(commands('SET', 'old', names(@has)));
        sql(q{CALL redis_migrate.run('m', source => 'scan')}, map { "UPDATE $_ SET note = 'own'" } @mappings);
    }
    my %before = map { $_ => { table($_) } } @mappings;
    if ($kind eq 'live')
    {
        sql(q{SELECT redis_migrate.start('m', live => true)});
        is(wait_for($node, 'm'), '', 'live sync');
    }
    $redis->cli_lines(commands('SET', 'new', names(grep { /insert|update/ } @operations)) . commands('DEL', '', names(grep { $_ eq 'delete' } @operations)));
    if ($kind eq 'live')
    {
        is(wait_for($node, 'm'), '', 'it follows');
        sql(q{SELECT redis_migrate.stop('m')});
    }
    else
    {
        sql(q{CALL redis_migrate.run('m', source => 'scan'} . ($kind eq 'prune' ? ', prune => true, force => true)' : ')'));
    }
    my $run = sql('SELECT max(run_id) FROM redis_migrate.runs');
    my %now = map { $_ => { table($_) } } @mappings;

    # What the run has done, what somebody does since, and what is to be afterwards.
    my %expected;
    for my $mapping (@mappings)
    {
        my %counts = map { $_ => 0 } qw(restored put_back removed already left);
        my (%rows, @left);
        for my $operation (@operations)
        {
            for my $state (@{ $states{$operation} })
            {
                my $id = row_of($mapping, "$operation-$state");
                my ($before, $now) = ($before{$mapping}{$id}, $now{$mapping}{$id});
                my $wanted = { insert => 'new|none', update => 'new|own', delete => undef, nothing => 'old|own' }->{$operation};
                is($now // 'gone', $wanted // 'gone', "$kind, $mapping: the run has done $operation to $id") if ($now // '') ne ($wanted // '');
                if (my $touch = touch($mapping, $id, $state, $before, $now)) { sql($touch); }
                my $outcome = model($kind, $operation, $state);
                ++$counts{$outcome} if $outcome ne 'nothing';
                push @left, $id if $outcome eq 'left';
                my $stays = sql("SELECT value, note FROM $mapping WHERE id = '$id'");
                my $then = $outcome =~ /^(?:nothing|left|already)$/ ? $stays : $before // '';
                $rows{$id} = $then if $then ne '';
            }
        }
        $expected{$mapping} = { rows => \%rows, left => join(' ', sort @left), counts => join ' ', map { "$_ $counts{$_}" } qw(restored put_back removed already left) };
    }

    my $lines = sub { my (%rows) = @_; return join "\n", map { "$_ $rows{$_}" } sort keys %rows; };
    my $counted = sub { my ($mapping, $state) = @_; return sql("SELECT concat_ws(' ', 'restored', restored, 'put_back', put_back, 'removed', removed, 'already', already, 'left', left_alone) FROM redis_migrate.undos WHERE run_id = $run AND mapping = '$mapping' AND state = '$state'"); };
    my %touched = map { $_ => $lines->(table($_)) } @mappings;
    my $none = 'restored 0 put_back 0 removed 0 already 0 left 0';
    for my $dry (1, 0)
    {
        is(sql_error($node, "CALL redis_migrate.undo_run($run, dry_run => " . ($dry ? 'true' : 'false') . ')'), '', "$kind: undo_run, dry $dry");
        for my $mapping (@mappings)
        {
            is($lines->(table($mapping)), $dry ? $touched{$mapping} : $lines->(%{ $expected{$mapping}{rows} }), "$kind, $ledgers{$mapping} ledger of $mapping, dry $dry: rows");
            is($counted->($mapping, $dry ? 'dry_run' : 'completed') || $none, $expected{$mapping}{counts}, "$kind, $ledgers{$mapping} ledger of $mapping, dry $dry: counts");
            is(sql("SELECT string_agg(row_key[1], ' ' ORDER BY row_key[1] COLLATE \"C\") FROM redis_migrate.undo_leftovers WHERE run_id = $run AND mapping = '$mapping'"), $expected{$mapping}{left}, "$kind, $ledgers{$mapping} ledger of $mapping: what is left") if !$dry;
        }
    }
    is(sql_error($node, "CALL redis_migrate.undo_run($run, force => true)"), '', "$kind: forced");
    for my $mapping (@mappings)
    {
        my %wanted = %{ $expected{$mapping}{rows} };
        for my $id (split / /, $expected{$mapping}{left}) { delete $wanted{$id}; $wanted{$id} = $before{$mapping}{$id} if defined $before{$mapping}{$id}; }
        is($lines->(table($mapping)), $lines->(%wanted), "$kind, $ledgers{$mapping} ledger of $mapping: forced, rows that were left are as before, too");
        is(sql("SELECT count(*) FROM redis_migrate.undo_leftovers WHERE run_id = $run AND mapping = '$mapping'"), '0', "$kind, $ledgers{$mapping} ledger of $mapping: nothing is left");
    }
    drop();
}

done_testing();
