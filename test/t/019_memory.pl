# The memory of a run does not grow with its keys: that of a batch is freed with it.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

use constant KEYS => 6000;  # of each kind

my $node = new_node('main', conf => "pg_redis_migrate.batch_rows = 1000\nmax_wal_size = 4GB\nlog_statement = none");
my $redis = start_redis();
create_server($node, 'shop', $redis);
$redis->cli('EVAL', q{for i = 1, tonumber(ARGV[1]) do
    redis.call('SET', 'ledger:' .. i, 'value ' .. i)
    redis.call('SET', 'exclusive:' .. i, 'value ' .. i)
    redis.call('HSET', 'hash:' .. i, 'a', i, 'b', i, 'c', i)
    redis.call('SET', 'unmapped:' .. i, i)
    redis.call('SET', 'query:' .. i, i % 3 == 0 and 'bad' or i)
    redis.call('SET', 'check:' .. i, i % 3 == 0 and -i or i)
    redis.call('SET', 'child:' .. i, i)
end}, 0, KEYS);

# The mapping that samples has keys in every batch. A NOTICE survives what is rolled back.
$node->safe_psql('postgres', q{
    CREATE FUNCTION sample() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE NOTICE 'contexts % heap %', (SELECT sum(total_bytes)::bigint / 1024 FROM pg_backend_memory_contexts),
            substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\s*(\d+)');
        RETURN NULL; END $$;
    CREATE TABLE ledger (id int PRIMARY KEY, v text);
    CREATE TRIGGER sample AFTER INSERT OR UPDATE ON ledger FOR EACH STATEMENT EXECUTE FUNCTION sample();
    CREATE TABLE exclusive (LIKE ledger INCLUDING ALL);
    CREATE TABLE hash (id int, field text, v int, PRIMARY KEY (id, field));
    CREATE TABLE query (id int PRIMARY KEY, v int);
    CREATE TABLE "check" (id int PRIMARY KEY, v int CHECK (v >= 0));
    CREATE TABLE child (id int PRIMARY KEY, v int REFERENCES ledger);
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', kind, kind || ':{id:int}', quote_ident(kind)::regclass, 'SELECT id, ' || v || ' FROM redis_batch', key_columns => keys, exclusive => kind = 'exclusive',
        databases => '{0}', types => CASE kind WHEN 'hash' THEN '{hash}'::text[] ELSE '{string}' END, expand => CASE kind WHEN 'hash' THEN 'elements' END)
      FROM (VALUES ('ledger', 'value AS v', '{id}'::text[]), ('exclusive', 'value AS v', '{id}'), ('hash', 'field, value::int AS v', '{id,field}'),
        ('query', 'value::int AS v', '{id}'), ('check', 'value::int AS v', '{id}'), ('child', 'value::int AS v', '{id}')) AS m (kind, v, keys)});

# How much memory grew from a third of a run to its end, in kB.
sub growth
{
    my ($call) = @_;
    my $stderr;
    $node->psql('postgres', $call, stderr => \$stderr, on_error_die => 1);
    my @samples;
    while ($stderr =~ /contexts (\d+) heap (\d+)/g) { push @samples, [ $1, $2 ]; }
    note(join ', ', map { "$_->[0]/$_->[1]" } @samples);
    cmp_ok(scalar @samples, '>=', 12, 'there are samples');
    my ($third, $end) = @samples[ @samples / 3, -1 ];
    return ($end->[0] - $third->[0], $end->[1] - $third->[1]);
}

# A third of two kinds is rejected; many a child waits for the row that it refers to.
for my $call (
    q{CALL redis_migrate.run('shop')},
    q{UPDATE ledger SET v = ''; CALL redis_migrate.run('shop', prune => true)})
{
    my ($contexts, $heap) = growth($call);
    cmp_ok($contexts, '<', 512, "memory contexts grow by $contexts kB");
    cmp_ok($heap, '<', 2048, "the process grows by $heap kB, without shared memory");
    is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'the run is complete');
    is(last_run($node, 'shop', 'rejected'), 2 * KEYS / 3, 'bad keys are rejected');
}

done_testing();
