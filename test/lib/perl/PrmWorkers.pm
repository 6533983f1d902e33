# More for the tests of background workers: migrations of numbered keys, what the views say of them, and whether every
# key arrived.

package PrmWorkers;

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT = qw(fill shop workers job compare pid_of);

# Keys k:1 … k:N with values that tell them apart.
sub fill
{
    my ($redis, $keys) = @_;
    $redis->cli('EVAL', 'for i = 1, tonumber(ARGV[1]) do redis.call("SET", "k:" .. i, "value " .. i) end', 0, $keys);
    return;
}

# A server, a table and a migration of that name for those keys. Options: owner, database.
sub shop
{
    my ($node, $name, $port, %options) = @_;
    my $role = $options{owner} ? "SET ROLE $options{owner};" : '';
    my $grant = $options{owner} ? "GRANT USAGE ON FOREIGN SERVER $name TO $options{owner}; ALTER TABLE $name OWNER TO $options{owner};" : '';
    $node->safe_psql(
        $options{database} // 'postgres', qq{
        CREATE SERVER $name FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
        CREATE USER MAPPING FOR PUBLIC SERVER $name;
        CREATE TABLE $name (id bigint PRIMARY KEY, v text);
        $grant
        $role
        SELECT redis_migrate.create_migration('$name', '$name');
        SELECT redis_migrate.add_mapping('$name', 'm', 'k:{id:int}', '$name', 'SELECT id, value AS v FROM redis_batch',
            key_columns => '{id}', databases => '{0}', exclusive => true);});
    return;
}

# Columns of redis_migrate.workers without launcher and schedulers, as psql prints them.
sub workers
{
    my ($node, $columns, $database) = @_;
    $columns //= 'pid, kind, state';
    return $node->safe_psql($database // 'postgres',
        "SELECT $columns FROM redis_migrate.workers WHERE kind NOT IN ('launcher', 'scheduler') ORDER BY migration");
}

# Columns of the job of a migration.
sub job
{
    my ($node, $migration, $columns, $database) = @_;
    return $node->safe_psql($database // 'postgres', "SELECT $columns FROM redis_migrate.background_runs WHERE migration = '$migration'");
}

# The differences from the keys k:1 … k:N; empty if there are none.
sub compare
{
    my ($node, $table, $keys, $database) = @_;
    return $node->safe_psql(
        $database // 'postgres', qq{
        SELECT coalesce(t.id, n) AS id, t.v FROM generate_series(1, $keys) AS n FULL JOIN $table AS t ON t.id = n
        WHERE t.v IS DISTINCT FROM 'value ' || n ORDER BY 1 LIMIT 5});
}

# The process of a kind of worker, or nothing.
sub pid_of
{
    my ($node, $kind) = @_;
    return $node->safe_psql('postgres', "SELECT pid FROM redis_migrate.workers WHERE kind = '$kind'");
}

1;
