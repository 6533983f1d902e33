# The memory of a run, and of each process of a verification, grows neither with the keys, since what a batch needs is gone
# with it, nor with the elements of a key, which are worked on in parts; only the value itself is held.

use strict;
use warnings;

use List::Util qw(max);
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

use constant KEYS => 6000;  # of each kind
use constant ELEMENTS => 200_000;  # several pieces, of 65,536 at most

# What a process that works on all of them may grow by, in kB: the libraries, caches and batches of any run take some 30 to 34 MB
# of it, the value itself 22 bytes for each element. What is left holds some 40 bytes more for each: a run once kept half a
# kilobyte of each, a verification 60 bytes.
use constant {
    RUN => 45 * 1024,
    RUN_WITH_ROWS => 52 * 1024,  # with a full ledger rows are read back
};

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

# How much memory grew from a third of a run to its end, in kB. Of the process the largest step between two samples is no matter:
# some 10 MB are allocated once, and when that is depends on the time that things take. What leaks with the keys grows by many steps.
sub grown
{
    my (@samples) = @_;
    my @later = @samples[ @samples / 3 .. $#samples ];
    my $step = max(0, map { $later[$_][1] - $later[ $_ - 1 ][1] } 1 .. $#later);
    return ($later[-1][0] - $later[0][0], $later[-1][1] - $later[0][1] - $step);
}

# The same of a call.
sub growth
{
    my ($call) = @_;
    my $stderr;
    $node->psql('postgres', $call, stderr => \$stderr, on_error_die => 1);
    my @samples;
    while ($stderr =~ /contexts (\d+) heap (\d+)/g) { push @samples, [ $1, $2 ]; }
    note(join ', ', map { "$_->[0]/$_->[1]" } @samples);
    cmp_ok(scalar @samples, '>=', 12, 'there are samples');
    return grown(@samples);
}

# A third of two kinds is rejected; many a child waits for the row that it refers to. The names that a scan has returned
# lately are kept, in 32 to 64 bytes each, up to 16 MB: 28,000 of them come after the first third, in a table that doubles.
for my $call (
    q{CALL redis_migrate.run('shop')},
    q{UPDATE ledger SET v = ''; CALL redis_migrate.run('shop', prune => true)})
{
    my ($contexts, $heap) = growth($call);
    cmp_ok($contexts, '<', 512, "memory contexts grow by $contexts kB");
    cmp_ok($heap, '<', 2048 + 7 * KEYS * 64 / 1024, "the process grows by $heap kB, without shared memory");
    is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'the run is complete');
    is(last_run($node, 'shop', 'rejected'), 2 * KEYS / 3, 'bad keys are rejected');
}

# What the processes have written about their memory to the log, from an offset on: of each the figures of its lines.
sub logged
{
    my ($server, $offset) = @_;
    my %of;
    for my $line (split /\n/, substr PostgreSQL::Test::Utils::slurp_file($server->logfile), $offset)
    {
        push @{ $of{$1} }, [ $2, $3, $4 ] if $line =~ /memory of (\d+): contexts (\d+) heap (\d+) highest (\d+)/;
    }
    return values %of;
}

# A condition of a check that writes such a line now and then. It lets nobody go on before as many processes as test.processes
# says, or two, have come to it once: one that starts late finds its part of the keys untaken. The locks of sessions say who has
# come, and who need not wait again; no rollback takes them.
my $logging = q{
    CREATE FUNCTION logs(is_time boolean) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        IF is_time THEN
            IF NOT EXISTS (SELECT FROM pg_locks WHERE (locktype, classid, objid) = ('advisory', 0, 190019) AND pid = pg_backend_pid()) THEN PERFORM pg_advisory_lock_shared(190019); END IF;
            IF NOT EXISTS (SELECT FROM pg_locks WHERE (locktype, classid, objid) = ('advisory', 0, 190020) AND pid = pg_backend_pid()) THEN
                FOR i IN 1 .. 6000 LOOP
                    EXIT WHEN (SELECT count(*) FROM pg_locks WHERE (locktype, classid, objid) = ('advisory', 0, 190019)) >= coalesce(current_setting('test.processes', true), '2')::int;
                    PERFORM pg_sleep(0.01);
                END LOOP;
                PERFORM pg_advisory_lock_shared(190020);
            END IF;
            RAISE LOG 'memory of %: contexts % heap % highest %', pg_backend_pid(),
                (SELECT sum(total_bytes)::bigint / 1024 FROM pg_backend_memory_contexts),
                substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\s*(\d+)'), substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s*(\d+)');
        END IF;
        RETURN true; END $$};

# Verifications. Every second hash lacks a row here. Of the keys that runs reject, those that the query cannot take are
# rejected here, too; what a constraint refuses is missing.
$node->safe_psql('postgres', "$logging; SELECT redis_migrate.add_check('shop', 'ledger', 'memory', 'public.logs(id % 50 = 0)'); DELETE FROM hash WHERE id % 2 = 0 AND field = 'a'");
for my $workers (1, 2)
{
    my $offset = -s $node->logfile;
    $node->safe_psql('postgres', "SET client_min_messages = error; SET test.processes = $workers; CALL redis_migrate.verify('shop', workers => $workers)");
    is($node->safe_psql('postgres', q{SELECT state, keys_read, keys_rejected, missing FROM redis_migrate.verifications JOIN redis_migrate.verification_counts USING (verification_id)
        WHERE verification_counts.mapping = 'hash' ORDER BY verification_id DESC LIMIT 1}), join('|', 'completed', 7 * KEYS, KEYS / 3, KEYS / 2), "verify, $workers processes: what it finds");
    my @processes = logged($node, $offset);
    is(scalar @processes, $workers, "verify, $workers processes: each has keys");
    for my $samples (@processes)
    {
        note(join ', ', map { "$_->[0]/$_->[1]" } @$samples);
        cmp_ok(scalar @$samples, '>=', 30, 'there are samples');
        my ($contexts, $heap) = grown(@$samples);
        cmp_ok($contexts, '<', 512, "verify, $workers processes: memory contexts grow by $contexts kB");
        cmp_ok($heap, '<', 2048 + 7 * KEYS * 64 / 1024, "verify, $workers processes: each grows by $heap kB, without shared memory");
    }
}

# One huge hash. Few shared buffers and no JIT, since the system counts the buffers and libraries that a process has touched.
my $huge = new_node('huge', conf => "shared_buffers = 2MB\njit = off\nmax_wal_size = 4GB");
create_server($huge, 'shop', $redis);
$redis->cli('FLUSHALL');
for my $from (map { 2000 * $_ } 0 .. ELEMENTS / 2000 - 1)
{
    $redis->cli('EVAL', q{for i = ARGV[1], ARGV[1] + 1999 do redis.call('HSET', 'h:1', 'field ' .. i, i) end}, 0, $from);
}
my %options = (
    shared => '',
    packed => q{, databases => '{0}'},
    exclusive => q{, databases => '{0}', exclusive => true},
    elements => q{, databases => '{0}', atomic => 'element'});
for my $kind (sort keys %options)
{
    $huge->safe_psql('postgres', qq{CREATE TABLE $kind (id int, field text, v text, PRIMARY KEY (id, field));
        SELECT redis_migrate.create_migration('$kind', 'shop');
        SELECT redis_migrate.add_mapping('$kind', '$kind', 'h:{id:int}', '$kind',
            'SELECT id, field, value AS v FROM redis_batch', '{id,field}', expand => 'elements'$options{$kind})});
}

# The most memory that a session has had after statements, in kB.
sub highest
{
    my ($statements) = @_;
    return (split /\n/, $huge->safe_psql('postgres',
        qq{SELECT redis_migrate.preview('shared', max_keys => 1) LIMIT 0;\n$statements;\nSELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\\s*(\\d+)')}))[-1];
}

is($huge->safe_psql('postgres', 'SELECT mapping, ledger FROM redis_migrate.mappings ORDER BY 1'), "elements|packed\nexclusive|packed\npacked|packed\nshared|full", 'ledgers of every kind');
my $idle = highest('SELECT');
for my $kind (qw(exclusive packed shared))
{
    my $total = q{SELECT sum(v::int), count(*) FROM } . $kind;
    # A third of the rows is changed here, then a third is deleted.
    for my $change ('SELECT', "UPDATE $kind SET v = 0 WHERE v::int % 3 = 0", "DELETE FROM $kind WHERE v::int % 3 = 1")
    {
        my $grown = highest("$change;\nCALL redis_migrate.run('$kind', workers => 1)") - $idle;
        # With a full ledger, inserted rows are read back for the journal.
        cmp_ok($grown, '<', $kind eq 'shared' ? RUN_WITH_ROWS : RUN, "$kind, after $change: the process grows by $grown kB");
        is($huge->safe_psql('postgres', "SELECT state, balanced, rejected FROM redis_migrate.runs ORDER BY run_id DESC LIMIT 1"), 'completed|t|0', 'the run is complete');
        is($huge->safe_psql('postgres', $total), ELEMENTS * (ELEMENTS - 1) / 2 . '|' . ELEMENTS, 'all elements are there');
    }
    # Rows that are others and rows that are missing, so that the key is read again and again.
    $huge->safe_psql('postgres', "UPDATE $kind SET v = 0 WHERE v::int % 100 = 3; DELETE FROM $kind WHERE v::int % 100 = 7");
    my $grown = highest("CALL redis_migrate.verify('$kind', workers => 1)") - $idle;
    cmp_ok($grown, '<', $kind eq 'shared' ? RUN_WITH_ROWS : RUN, "$kind, verify: the process grows by $grown kB");
    is($huge->safe_psql('postgres', 'SELECT different, missing, not_kept FROM redis_migrate.verification_counts ORDER BY verification_id DESC LIMIT 1'),
        join('|', ELEMENTS / 100, ELEMENTS / 100, ELEMENTS / 50 - 100), "$kind, verify: what it finds");
    $huge->safe_psql('postgres', "CALL redis_migrate.run('$kind', workers => 1)");
}

# Every second field leaves: a ledger knows by itself which, and deletes them with its key.
for my $from (map { 10000 * $_ } 0 .. ELEMENTS / 10000 - 1)
{
    $redis->cli('EVAL', q{for i = ARGV[1], ARGV[1] + 9999, 2 do redis.call('HDEL', 'h:1', 'field ' .. i) end}, 0, $from);
}
for my $kind (qw(packed shared))
{
    my $grown = highest("CALL redis_migrate.run('$kind', workers => 1)") - $idle;
    cmp_ok($grown, '<', RUN_WITH_ROWS + 6 * 1024, "$kind, elements that leave: the process grows by $grown kB");
    is($huge->safe_psql('postgres', "SELECT sum(v::int), count(*) FROM $kind"), (ELEMENTS / 2)**2 . '|' . ELEMENTS / 2, 'their rows are deleted');
}

# All or none: a value in the last part that the target refuses.
$redis->cli('HSET', 'h:1', 'zzz', 'bad');
$huge->safe_psql('postgres', 'ALTER TABLE exclusive ADD CHECK (v <> \'bad\'); ALTER TABLE elements ADD CHECK (v <> \'bad\'); TRUNCATE exclusive, elements');
for my $case ([ exclusive => '0', 'a key is stored whole or not at all' ], [ elements => ELEMENTS / 2, 'or without its bad elements' ])
{
    my ($kind, $rows, $name) = @$case;
    $huge->safe_psql('postgres', "CALL redis_migrate.run('$kind', workers => 1)");
    is($huge->safe_psql('postgres', "SELECT count(*) FROM $kind"), $rows, $name);
    is($huge->safe_psql('postgres', "SELECT read, rejected, balanced FROM redis_migrate.runs ORDER BY run_id DESC LIMIT 1"), '1|1|t', 'and has one outcome');
}

# Hashes that two processes verify, with rows that are others and rows that are missing in each.
$redis->cli('FLUSHALL');
for my $key (1 .. 16)
{
    $redis->cli('EVAL', q{for i = 1, ARGV[2] do redis.call('HSET', 'h:' .. ARGV[1], 'field ' .. i, i) end}, 0, $key, ELEMENTS / 20);
}
$huge->safe_psql('postgres', qq{SET client_min_messages = error;
    CALL redis_migrate.run('packed', workers => 1);
    UPDATE packed SET v = 0 WHERE v::int % 100 = 3;
    DELETE FROM packed WHERE v::int % 100 = 7;
    $logging;
    SELECT redis_migrate.add_check('packed', 'packed', 'memory', 'public.logs(v::int % 5000 = 0)')});
my $offset = -s $huge->logfile;
$huge->safe_psql('postgres', q{SET client_min_messages = error; CALL redis_migrate.verify('packed', workers => 2)});
is($huge->safe_psql('postgres', 'SELECT checked, different, missing FROM redis_migrate.verification_counts ORDER BY verification_id DESC LIMIT 1'),
    join('|', 16 * ELEMENTS / 20, 16 * ELEMENTS / 2000, 16 * ELEMENTS / 2000), 'two processes verify huge hashes: what they find');
my @verifying = logged($huge, $offset);
is(scalar @verifying, 2, 'each has some of them');
for my $samples (@verifying)
{
    my $grown = $samples->[-1][2] - $idle;
    cmp_ok($grown, '<', RUN, "a process grows by $grown kB");
}

done_testing();
