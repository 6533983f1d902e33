# The entries of a packed ledger are hashes of key columns: where these get another type, no run takes rows for others or
# leaves them behind without a word.

use strict;
use warnings;

use PrmTest;
use PrmTools;
use Test::More;

my $node = new_node('keys');
my $redis = start_redis();
create_server($node, 'shop', $redis);

sub sql { return $node->safe_psql('postgres', join(';', @_)); }

# The messages that psql prints beside the result.
sub warned
{
    my ($call) = @_;
    my ($status, $out, $err) = $node->psql('postgres', $call);
    return $err;
}

# Makes a mapping of one row per key or per field, and stores its rows.
sub define
{
    my ($name, $columns, $query, %of) = @_;
    sql("CREATE TABLE $name ($columns, v text)", "SELECT redis_migrate.create_migration('$name', 'shop')",
        "SELECT redis_migrate.add_mapping('$name', 'm', '$of{pattern}', '$name', \$\$$query\$\$, '$of{key}', databases => '{0}'"
            . ($of{expand} ? ", expand => 'elements', types => '{hash}'" : '') . ')');
    is(sql("SELECT ledger FROM redis_migrate.mappings WHERE migration = '$name'"), 'packed', "$name: the ledger is packed");
    sql("CALL redis_migrate.run('$name')");
}

sub prune { return warned("SET client_min_messages = warning; CALL redis_migrate.run('$_[0]', prune => true)"); }

# Changes that change no hash: a row still goes with its key.
my @harmless = (
    [ wider => 'id int PRIMARY KEY', 'n:{id:int}', 'ALTER TABLE wider ALTER id TYPE bigint' ],
    [ narrower => 'id bigint PRIMARY KEY', 'n:{id:int}', 'ALTER TABLE narrower ALTER id TYPE smallint' ],
    [ longer => 'id text PRIMARY KEY', 'n:{id}', 'ALTER TABLE longer ALTER id TYPE varchar' ],
    [ collated => 'id text PRIMARY KEY', 'n:{id}', 'ALTER TABLE collated ALTER id TYPE text COLLATE "POSIX"' ]);
for my $case (@harmless)
{
    my ($name, $columns, $pattern, $change) = @$case;
    $redis->cli('FLUSHALL');
    $redis->cli('MSET', 'n:1', 'a', 'n:2', 'b', 'n:3', 'c');
    define($name, $columns, 'SELECT id, value AS v FROM redis_batch', pattern => $pattern, key => '{id}');
    sql("INSERT INTO $name VALUES ('9', 'mine')", $change);
    $redis->cli('DEL', 'n:2');
    is(prune($name), '', "$name: prune goes on");
    is(sql("SELECT string_agg(id || v, ' ' ORDER BY id) FROM $name"), '1a 3c 9mine', "$name: it removes the row of the key that is gone, and no other");
}

# Changes by which the entries are of no row.
sql(q{CREATE TYPE mood AS ENUM ('sad', 'ok')}, q{CREATE TYPE size AS ENUM ('small')});
my $refused = 'no longer fits the key columns of public';
my @harmful = (
    [ zoned => 'at timestamp', 'field::timestamp AS at', [ '2024-01-01', '2024-01-02', '2024-01-03' ], 'ALTER TABLE zoned ALTER at TYPE timestamptz',
        'at timestamp without time zone. Now: id text, at timestamp with time zone' ],
    [ rounded => 'at timestamptz', 'field::timestamptz AS at', [ '2024-01-01 00:00:00.5Z', '2024-01-02', '2024-01-03' ], 'ALTER TABLE rounded ALTER at TYPE timestamptz(0)',
        'at timestamp with time zone. Now: id text, at timestamp\(0\) with time zone' ],
    [ texts => 'f int', 'field::int AS f', [ 1, 2, 3 ], 'ALTER TABLE texts ALTER f TYPE text', 'f integer. Now: id text, f text' ],
    [ moods => 'f mood', 'field::mood AS f', [ 'sad', 'ok' ], q{ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'},
        q{f enum label 'sad'. Now: id text, f enum, f enum label 'blue', f enum label 'ok'} ],
    # This label is younger than the mapping.
    [ sizes => 'f size', 'field::size AS f', [ 'small' ], sub {
            sql(q{ALTER TYPE size ADD VALUE 'large'});
            $redis->cli('HSET', 'h:sizes', 'large', 'v');
            sql(q{CALL redis_migrate.run('sizes')}, q{ALTER TYPE size RENAME VALUE 'large' TO 'big'});
        }, q{f enum label 'large'. Now: id text, f enum, f enum label 'small', f enum label 'big'} ]);
for my $case (@harmful)
{
    my ($name, $column, $expression, $fields, $change, $detail) = @$case;
    $redis->cli('FLUSHALL');
    $redis->cli('HSET', "h:$name", map { ($_, 'v') } @$fields);
    $redis->cli('HSET', "h:gone", $fields->[0], 'v');
    my ($field) = split / /, $column;
    define($name, "id text, $column, PRIMARY KEY (id, $field)", "SELECT id, $expression, value AS v FROM redis_batch", pattern => 'h:{id}', key => "{id,$field}", expand => 1);
    ref($change) ? $change->() : sql($change);
    $redis->cli('DEL', 'h:gone');
    my $before = sql("SELECT count(*) FROM $name");
    like(sql_error($node, "CALL redis_migrate.run('$name'$_)"),
        qr/ERROR:  55000: the packed ledger of mapping "m" $refused\.$name\nDETAIL:  When its entries were made: $detail\. Nothing.*\nHINT:  Undo the change, or .*alter_mapping\('$name', 'm'\)/,
        "$name: a run is refused" . ($_ ? " ($_)" : '')) for '', ', prune => true', ', dry_run => true';
    is(sql("SELECT count(*) FROM $name"), $before, "$name: nothing has changed");
    like(warned("SELECT redis_migrate.alter_mapping('$name', 'm')"), qr/NOTICE:  the ledger of mapping "m" begins anew/, "$name: alter_mapping begins anew");
    $redis->cli('RENAME', "h:$name", 'h:other') if $name eq 'moods' || $name eq 'sizes';
    $redis->cli('DEL', 'h:other');
    $redis->cli('HSET', 'h:last', $_, 'v') for $name eq 'moods' ? 'ok' : $fields->[0];
    sql("CALL redis_migrate.run('$name')");
    is(last_run($node, $name, 'state, balanced'), 'completed|t', "$name: then runs go on");
    $redis->cli('DEL', 'h:last');
    $redis->cli('HSET', 'h:next', $_, 'v') for $name eq 'moods' ? 'ok' : $fields->[0];
    is(prune($name), '', "$name: so does prune");
    is(sql("SELECT count(*) FROM $name WHERE id IN ('last', 'next')"), 1, "$name: which removes rows that were stored since");
}

# With these types the ledger would be another one.
my @types = ('CREATE DOMAIN kind AS text CHECK (length(VALUE) < 9)');
push @types, 'CREATE EXTENSION citext; CREATE DOMAIN kind AS citext' if sql(q{SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'}) eq '1';
for my $type (@types)
{
    $redis->cli('FLUSHALL');
    $redis->cli('MSET', 'n:a', 'x');
    sql($type);
    define('other', 'id text PRIMARY KEY', 'SELECT id, value AS v FROM redis_batch', pattern => 'n:{id}', key => '{id}');
    sql('ALTER TABLE other ALTER id TYPE kind');
    like(sql_error($node, q{CALL redis_migrate.run('other')}), qr/ERROR:  55000: the packed ledger of mapping "m" no longer fits target public\.other\n/, "a run ends: $type");
    sql(q{SELECT redis_migrate.drop_migration('other')}, 'DROP TABLE other', 'DROP DOMAIN kind');
}

# The change comes during a run, which has prepared the mapping already.
$redis->cli('FLUSHALL');
$redis->cli('EVAL', 'for i = 1, 3000 do redis.call("HSET", "h:" .. i, "small", "v") end', 0);
my $proxy = PrmTools::Proxy->new($redis->port);
sql("ALTER SERVER shop OPTIONS (SET port '" . $proxy->port . "')");
sql('CREATE TABLE during (id text, f size, v text, PRIMARY KEY (id, f))', q{SELECT redis_migrate.create_migration('during', 'shop')},
    q{SELECT redis_migrate.add_mapping('during', 'm', 'h:{id}', 'during', 'SELECT id, field::size AS f, value AS v FROM redis_batch', '{id,f}',
        databases => '{0}', expand => 'elements', types => '{hash}')});
$proxy->tell('rate 30000');
my $session = start_sql($node, "SET pg_redis_migrate.batch_rows = 50;\nCALL redis_migrate.run('during', workers => 1);");
wait_until('some rows', sub { sql('SELECT count(*) FROM during') > 0 });
sql(q{ALTER TYPE size RENAME VALUE 'small' TO 'tiny'});
$proxy->tell('pass');
my ($out, $err) = $session->finish;
like($err, qr/ERROR:  55000: the packed ledger of mapping "m" $refused/, 'a change during a run ends it');
cmp_ok(sql('SELECT count(*) FROM during'), '<', 3000, 'before its end');

done_testing();
