# A server or a file is read side by side: by the session or worker that leads the run and by workers beside it, each
# with a checkpoint of its own, in one run with one set of counts, whatever happens to processes and server meanwhile.

use strict;
use warnings;

use File::Copy qw(copy);
use HostileRedis;
use POSIX ();
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(usleep);

use constant KEYS => 6000;

my $redis = start_redis();
fill($redis, KEYS);
my $port = $redis->port;
my $dumps = PostgreSQL::Test::Utils::tempdir();
chmod 0755, $dumps;

sub save
{
    my ($name) = @_;
    $redis->cli('SAVE');
    copy($redis->directory . '/dump.rdb', "$dumps/$name") or die "copy: $!\n";
    return "$dumps/$name";
}

my $node = new_node('parts', conf => "pg_redis_migrate.batch_rows = 100\nmax_worker_processes = 20\nrestart_after_crash = on");
my $file = save('all.rdb');
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# The messages of a statement that raises NOTICEs or WARNINGs.
sub said { my ($sql) = @_; $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \my $err); return $err; }

# The statement trigger makes a batch take as long as the test wants, for scans and files alike.
sql(qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
    CREATE USER MAPPING FOR PUBLIC SERVER shop;
    CREATE TABLE shop (id bigint PRIMARY KEY, v text);
    CREATE TABLE file (id bigint PRIMARY KEY, v text);
    CREATE TABLE pace (seconds float8);
    INSERT INTO pace VALUES (0);
    CREATE FUNCTION pace() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(seconds) FROM public.pace WHERE seconds > 0; RETURN NULL; END';
    CREATE TRIGGER pace BEFORE INSERT ON shop FOR EACH STATEMENT EXECUTE FUNCTION pace();
    CREATE TRIGGER pace BEFORE INSERT ON file FOR EACH STATEMENT EXECUTE FUNCTION pace();
    SELECT redis_migrate.create_migration('shop', 'shop', databases => '{0}');
    SELECT redis_migrate.skip_keys('shop', 'x:*');
    SELECT redis_migrate.create_migration('file', NULL, source => 'rdb', file => '$file', databases => '{0}');});
# One of them with a packed ledger.
sql(qq{SELECT redis_migrate.add_mapping('$_', 'm', 'k:{id:int}', '$_', 'SELECT id, value AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}', exclusive => '$_' = 'shop')}) for qw(shop file);

sub pace { my ($seconds) = @_; return sql("UPDATE pace SET seconds = $seconds"); }
sub parts { my ($columns, $where) = @_; $where //= 'true';
    return sql("SELECT $columns FROM redis_migrate.run_parts WHERE run_id = (SELECT max(run_id) FROM redis_migrate.runs) AND $where"); }
sub wait_for { my ($migration) = @_; return sql("CALL redis_migrate.wait_for('$migration', '2 minutes')"); }
sub workers_gone { return wait_until('the end of the workers', sub { sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE 'migration%'}) == 0 }); }

# A finished run must show this: nothing read twice, nothing left out.
sub is_whole
{
    my ($migration, $name, $keys) = @_;
    $keys //= KEYS;
    is(last_run($node, $migration, 'state, read, migrated, balanced'), "completed|$keys|$keys|t", "$name: the sums");
    is(compare($node, $migration, KEYS), '', "$name: every key");
    return;
}

# CALL run leads workers in a server that has not preloaded the library. -------------------------------------------------

for my $migration (qw(shop file))
{
    for my $workers (1, 2, 4)
    {
        # Whoever has finished takes a part that nobody has begun: slow enough for every worker to have started.
        pace($workers == 1 ? 0 : 0.1);
        sql(qq{TRUNCATE $migration; CALL redis_migrate.run('$migration', workers => $workers)});
        pace(0);
        is_whole($migration, "$migration, $workers workers");
        is(parts('count(*), count(DISTINCT pid), coalesce(min(readers), 0)'), $workers == 1 ? '0|0|0' : "$workers|$workers|$workers",
            "$migration, $workers workers: the parts");
    }
    my $unit = $migration eq 'shop' ? 'cursors' : 'names';
    is(parts(q{string_agg(share, ', ' ORDER BY part)}), join(', ', map { "$unit $_ of 4" } 1 .. 4), "$migration: what each part is");
    is(parts('bool_and(done AND read > 1000 AND batches > 5)'), 't', "$migration: parts of about the same size");
    is(sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE 'migration%'}), 0, "$migration: no worker is left");
    sql(qq{CALL redis_migrate.run('$migration')});
    is(parts('count(*)'), 0, "$migration: few keys are not worth another process");
    like(sql_error($node, qq{CALL redis_migrate.run('$migration', workers => 0)}), qr/ERROR:  22023: workers must be between 1 and 64/, 'workers must be a number of processes');
    is(said(qq{CALL redis_migrate.run('$migration', dry_run => true, workers => 4)}) =~ /WARNING|alone/ ? 1 : 0, 0, 'a dry run is single');
}

# The session alone sees its temporary tables.
my $said = said(q{
    CREATE TEMP TABLE here (id bigint PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('temp', 'shop');
    SELECT redis_migrate.add_mapping('temp', 'm', 'k:{id:int}', 'here', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}', databases => '{0}');
    CALL redis_migrate.run('temp', workers => 2);
    SELECT redis_migrate.drop_migration('temp');});
like($said, qr/NOTICE:  00000: run \d+ is read by one process: target .*here of mapping "m" is temporary/, 'a temporary target: alone');
like($said, qr/completed: 6000 read/, 'a temporary target: all keys');
$said = said(q{
    CREATE TEMP TABLE factor AS SELECT 1 AS f;
    CREATE TABLE scaled (id bigint PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('temp', 'shop');
    SELECT redis_migrate.add_mapping('temp', 'm', 'k:{id:int}', 'scaled', 'SELECT id * (SELECT f FROM factor) AS id, value AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}');
    CALL redis_migrate.run('temp', workers => 2);
    SELECT redis_migrate.drop_migration('temp');});
like($said, qr/is read by one process: the query or a check of mapping "m" may use "factor", which is temporary/, 'a temporary table in the query: alone');

unlike(said(q{SET pg_redis_migrate.max_value_size = '1MB'; CALL redis_migrate.run('shop', workers => 2)}), qr/is read by one process/, 'a setting of the session: not alone');

# No worker connects as a role without LOGIN, before PostgreSQL 17.
sql(q{
    CREATE ROLE clerk NOLOGIN;
    GRANT USAGE ON FOREIGN SERVER shop TO clerk;
    CREATE TABLE clerks (id bigint PRIMARY KEY, v text);
    ALTER TABLE clerks OWNER TO clerk;
    SET client_min_messages = error;
    SET ROLE clerk;
    SELECT redis_migrate.create_migration('clerk', 'shop');
    SELECT redis_migrate.add_mapping('clerk', 'm', 'k:{id:int}', 'clerks', 'SELECT id, value AS v FROM redis_batch', key_columns => '{id}', databases => '{0}');});
$said = said(q{SET ROLE clerk; CALL redis_migrate.run('clerk', workers => 2)});
my $old = sql('SHOW server_version_num') < 170000;
like($said, $old ? qr/is read by one process: its owner, role "clerk", is not permitted to log in/ : qr/completed: 6000 read/, 'a role without LOGIN');
is(parts('count(*)'), $old ? 0 : 2, 'a role without LOGIN: its parts');
is(last_run($node, 'clerk', 'state, migrated'), 'completed|6000', 'a role without LOGIN: all keys');

# Cancel ends all of them, and the next run goes on.
pace(0.15);
for my $migration (qw(shop file))
{
    sql("TRUNCATE $migration");
    my $call = start_sql($node, "CALL redis_migrate.run('$migration', workers => 3)", name => 'call');
    wait_until('three readers', sub { parts('count(DISTINCT pid)', 'read > 0 AND NOT done') == 3 });
    is(sql(q{SELECT count(*), count(DISTINCT migration) FROM redis_migrate.workers WHERE kind = 'migration part' AND keys_read > 0}), '2|1', "$migration: the view of workers shows the helpers");
    cmp_ok(sql(q{SELECT keys_estimated FROM redis_migrate.progress}), '>', KEYS / 2, "$migration: progress knows how much there is");
    sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
    like(($call->finish)[1], qr/57014: canceling statement/, "$migration: cancelled");
    is(sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE 'migration%'}), 0, "$migration: cancel ends the workers, too");
    my $before = parts('sum(read)');
    pace(0);
    like(said("CALL redis_migrate.run('$migration', workers => 1)"), qr/resuming run/, "$migration: resumed");
    is_whole($migration, "$migration, after cancel");
    is(parts('count(*), min(readers)'), $migration eq 'shop' ? '4|1' : '3|1', "$migration, after cancel: the division stays");
    pace(0.15);
}

# Another process of Redis has other hashes: what was read in parts is read again, once.
$redis->cli('SAVE');
pace(0.15);
sql('TRUNCATE shop');
my $restarted = start_sql($node, q{CALL redis_migrate.run('shop', workers => 4)}, name => 'call');
wait_until('four readers', sub { parts('count(DISTINCT pid)', 'read > 0 AND NOT done') == 4 });
$redis->restart('KILL');
pace(0);
like(($restarted->finish)[1], qr/NOTICE:  00000: the parts of level 1 are no longer those of the source: it is read again/, 'Redis was restarted: the run says so');
is_whole('shop', 'Redis was restarted');
is(last_run($node, 'shop', 'restarts'), 1, 'Redis was restarted: once for all parts');

# Lasting keys are met once while the table of Redis grows and shrinks.
pace(0.01);
my $writer = fork() // die "fork: $!\n";
if (!$writer)
{
    my $go = 1;
    local $SIG{TERM} = sub { $go = 0; };
    while ($go)
    {
        $redis->cli('EVAL', "for i = 1, 30000 do redis.call('$_', 'x:' .. i) end", 0) for 'INCR', 'UNLINK';
    }
    POSIX::_exit(0);
}
for my $workers (2, 4)
{
    sql(qq{TRUNCATE shop; CALL redis_migrate.run('shop', workers => $workers)});
    is(last_run($node, 'shop', 'state, migrated, balanced'), 'completed|6000|t', "keys come and go, $workers workers: the sums");
    is(compare($node, 'shop', KEYS), '', "keys come and go, $workers workers: every key");
}
kill 'TERM', $writer;
waitpid $writer, 0;
$redis->cli('EVAL', "for i = 1, 30000 do redis.call('UNLINK', 'x:' .. i) end", 0);

# Prune knows what all processes have met: with a ledger of rows seen, and with a packed one.
pace(0);
$redis->cli('DEL', 'k:1', 'k:2', 'k:3');
my $less = save('less.rdb');
sql(qq{SELECT redis_migrate.alter_migration('file', file => '$less')});
for my $migration (qw(shop file))
{
    sql(qq{CALL redis_migrate.run('$migration', prune => true, workers => 4)});
    is(last_run($node, $migration, 'state, read, rows_deleted, balanced'), 'completed|5997|3|t', "$migration: prune");
    is(sql("SELECT min(id), count(*) FROM $migration"), '4|5997', "$migration: prune deletes what is gone");
}
fill($redis, KEYS);
sql(qq{SELECT redis_migrate.alter_migration('file', file => '$file')});

# Rows that several keys yield, and children that wait for their parents.
$redis->cli('-n', 1, 'EVAL', 'for i = 1, 400 do for _, l in ipairs({"a", "b", "c"}) do redis.call("SET", "n:" .. i .. ":" .. l, l) end end', 0);
$redis->cli('-n', 2, 'EVAL', 'for i = 1, 600 do redis.call("SET", "c:" .. i, i) if i <= 500 then redis.call("SET", "p:" .. i, i) end end', 0);
sql(q{
    CREATE TABLE named (row int PRIMARY KEY, v text);
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
    SELECT redis_migrate.create_migration('named', 'shop', databases => '{1}');
    SELECT redis_migrate.add_mapping('named', 'm', 'n:{row:int}:{letter}', 'named', 'SELECT row, value AS v FROM redis_batch', key_columns => '{row}');
    SELECT redis_migrate.create_migration('kin', 'shop', databases => '{2}');
    SELECT redis_migrate.add_mapping('kin', 'parent', 'p:{id:int}', 'parent', 'SELECT id FROM redis_batch', key_columns => '{id}');
    SELECT redis_migrate.add_mapping('kin', 'child', 'c:{id:int}', 'child', 'SELECT id, value::int AS parent FROM redis_batch', key_columns => '{id}');
    CALL redis_migrate.run('named', workers => 4);
    CALL redis_migrate.run('kin', workers => 4)});
is(last_run($node, 'named', 'state, read, migrated + skipped, balanced'), 'completed|1200|1200|t', 'a full ledger: the sums');
is(sql(q{SELECT count(*), string_agg(DISTINCT v, '') FROM named}), '400|a', 'a full ledger: the lowest key has the row');
is(last_run($node, 'kin', 'state, read, migrated, rejected, balanced'), 'completed|1100|1000|100|t', 'foreign keys: the sums');
is(sql('SELECT count(*), (SELECT count(*) FROM redis_migrate.deferred) FROM child'), '500|0', 'foreign keys: no child waits any more');

# A reject stops all of them.
$redis->cli('-n', 2, 'MSET', 'c:1001', 'x', 'c:1002', 'x', 'c:1003', 'x');
like(sql_error($node, q{CALL redis_migrate.run('kin', workers => 4, on_error => 'stop')}), qr/ERROR:  22000: run \d+ stopped: \d+ keys were rejected/, 'on_error stop');
is(last_run($node, 'kin', 'state'), 'stopped', 'on_error stop: the run says so');
sql(q{CALL redis_migrate.run('kin', workers => 2)});
is(last_run($node, 'kin', 'state, read, migrated, rejected, balanced'), 'completed|1103|1000|103|t', 'on_error stop: it goes on');

# The end of a worker is reported, and another process continues its part.
pace(0.2);
sql('TRUNCATE file');
my $call = start_sql($node, q{CALL redis_migrate.run('file', workers => 3)}, name => 'call');
wait_until('three readers', sub { parts('count(DISTINCT pid)', 'read > 0 AND NOT done') == 3 });
my $gone = sql(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'migration part' LIMIT 1});
sql("SELECT pg_terminate_backend($gone)");
wait_until('the worker ends', sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $gone") eq '0' });
pace(0);
# By whichever process goes on with its part: to the client, or in the log.
like(($call->finish)[1] . PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/WARNING:  (01000: )?process $gone ended before it had read part \d of run/,
    'a worker that ended is told of');
is_whole('file', 'after a worker was terminated');

# If the session that leads ends, so do the processes beside it.
pace(0.15);
sql('TRUNCATE shop');
$call = start_sql($node, q{CALL redis_migrate.run('shop', workers => 3)}, name => 'call');
wait_until('three readers', sub { parts('count(DISTINCT pid)', 'read > 0 AND NOT done') == 3 });
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
workers_gone();
pace(0);
sql(q{CALL redis_migrate.run('shop', workers => 2)});
is_whole('shop', 'after the session that leads was terminated');

# Room for no other process.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_redis_migrate'\npg_redis_migrate.databases = 'postgres'\nmax_worker_processes = 4");
$node->restart;
sql('TRUNCATE file');
like(said(q{CALL redis_migrate.run('file', workers => 8)}), qr/WARNING:  01000: run \d+ is read by \d processes instead of 8: the server has no free slot for a background worker\n.*HINT:  Raise max_worker_processes/s,
    'max_worker_processes is too small');
is_whole('file', 'max_worker_processes is too small');
my $of = parts('count(*)');
cmp_ok($of, '<', 8, 'max_worker_processes is too small: as many parts as there are processes');
$node->append_conf('postgresql.conf', "max_worker_processes = 20\npg_redis_migrate.max_workers = 2");
$node->restart;
sql('TRUNCATE file');
like(said(q{CALL redis_migrate.run('file', workers => 2)}), qr/WARNING:  01000: run \d+ is read by 1 processes instead of 2: pg_redis_migrate.max_workers, 2, allows no more/, 'max_workers is too small');
is_whole('file', 'max_workers is too small');
is(parts('count(*)'), 0, 'max_workers is too small: not in parts');
$node->append_conf('postgresql.conf', 'pg_redis_migrate.max_workers = 12');
$node->restart;

# Unless `workers` says how many: a process for each core, one less beside a local Redis, as far as the keys are worth it;
# one if all ledgers are full. -----------------------------------------------------------------------------------------

chomp(my $cores = `getconf _NPROCESSORS_ONLN`);
my $large = start_redis(args => [ '--rdbcompression', 'no' ]);
$large->cli('EVAL', q{for i = 1, 60000 do redis.call('SET', 'm:' .. i, string.rep('v', 150)) end}, 0);
$large->cli('SAVE');
copy($large->directory . '/dump.rdb', "$dumps/large.rdb") or die "copy: $!\n";
create_server($node, 'large', $large);
sql(qq{SELECT redis_migrate.create_migration('large', 'large', file => '$dumps/large.rdb', databases => '{0}');
    SELECT redis_migrate.skip_keys('large', 'm:*')});
my $of_file = $cores > 1 ? 2 : 0;  # parts; 0: one process
my $of_server = $cores > 2 ? 2 : 0;
sql(q{CALL redis_migrate.run('large')});
is(parts('count(*)'), $of_server, 'a local server of 60,000 keys: its readers leave a core to it, and are two at most');
sql(q{CALL redis_migrate.run('large', source => 'rdb')});
is(parts('count(*)'), $of_file, 'a file of 60,000 keys: two readers at most');
sql(q{CREATE TABLE of_keys (key text PRIMARY KEY, v text);
    SELECT redis_migrate.add_mapping('large', 'm', 'of:{id}', 'of_keys', 'SELECT key, value AS v FROM redis_batch', '{key}');
    CALL redis_migrate.run('large', source => 'rdb')});
is(parts('count(*)') . sql(q{SELECT ledger FROM redis_migrate.mappings WHERE migration = 'large'}), '0full', 'with full ledgers alone: one reader');

# In the background; processes die at random moments. ------------------------------------------------------------------

for my $round (1 .. 8)
{
    my $migration = $round % 2 ? 'file' : 'shop';
    my $kind = $round % 4 < 2 ? 'migration part' : 'migration';
    my $signal = $round > 4 ? 'KILL' : 'TERM';
    pace(0.1);
    sql(qq{TRUNCATE $migration; SELECT redis_migrate.start('$migration', workers => 3)});
    wait_until('workers', sub { sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind LIKE 'migration%' AND pid IS NOT NULL}) == 3 });
    usleep(rand(400_000));
    my $pid = sql(qq{SELECT pid FROM redis_migrate.workers WHERE kind = '$kind' LIMIT 1});
    kill $signal, $pid if $pid ne '';
    wait_until('the server', sub { answers($node, $pid) });
    pace(0);
    wait_for($migration);
    is_whole($migration, "round $round: SIG$signal of a $kind");
}

# Keys of every outcome. Three at a time compete for a row of o, which the first name gets, so that its ledger is full. --

$redis->cli('-n', 5, 'EVAL', <<'LUA', 0);
for i = 1, 500 do for _, letter in ipairs({'a', 'b', 'c'}) do redis.call('SET', 'o:' .. i .. ':' .. letter, letter .. i) end end
for i = 1, 200 do
  redis.call('HSET', 'h:' .. i, 'f', i * 2, 'g', 'x')
  redis.call('PEXPIREAT', 'h:' .. i, 4102444800000 + i)
  redis.call('SET', 'b:' .. i, i % 10 == 0 and 'bad' or i)
  redis.call('RPUSH', 'u:' .. i, i)
  redis.call('SET', 'x:' .. i, i)
end
LUA
$redis->cli('SAVE');
sql(q{
    CREATE TABLE o (id int PRIMARY KEY, v text);
    CREATE TABLE h (id int PRIMARY KEY, f int, until timestamptz);
    CREATE TABLE b (id int PRIMARY KEY, v int);
    CREATE TRIGGER pace BEFORE INSERT ON o FOR EACH STATEMENT EXECUTE FUNCTION pace()});

# Empty tables, and a migration that knows of nothing.
sub define
{
    my ($port) = @_;
    return sql(qq{
        SELECT redis_migrate.drop_migration('mixed') FROM redis_migrate.migrations WHERE migration = 'mixed';
        TRUNCATE o, h, b;
        ALTER SERVER shop OPTIONS (SET port '$port');
        SELECT redis_migrate.create_migration('mixed', 'shop', databases => '{5}');
        SELECT redis_migrate.skip_keys('mixed', 'x:*');
        SELECT redis_migrate.add_mapping('mixed', 'o', 'o:{id:int}:{letter}', 'o', 'SELECT id, value AS v FROM redis_batch', '{id}');
        SELECT redis_migrate.add_mapping('mixed', 'h', 'h:{id:int}', 'h', \$\$SELECT id, (json->>'f')::int AS f, expires_at AS until FROM redis_batch\$\$, '{id}');
        SELECT redis_migrate.add_mapping('mixed', 'b', 'b:{id:int}', 'b', 'SELECT id, value::int AS v FROM redis_batch', '{id}')});
}

# The numbers of its last run, and each row and archived value that differs from what its key says.
sub is_mixed
{
    my ($name) = @_;
    is(last_run($node, 'mixed', 'state, read, rejected, archived, vanished, migrated + skipped, balanced'), 'completed|2300|20|200|0|2080|t', "$name: the sums");
    is(sql(q{
        SELECT coalesce(id, n), v FROM generate_series(1, 500) AS n FULL JOIN o ON id = n WHERE v IS DISTINCT FROM 'a' || n
        UNION ALL SELECT coalesce(id, n), f || ' ' || until FROM generate_series(1, 200) AS n FULL JOIN h ON id = n
            WHERE (f, until) IS DISTINCT FROM (n * 2, to_timestamp(4102444800) + n * interval '1 millisecond')
        UNION ALL SELECT coalesce(id, n), v::text FROM (SELECT n FROM generate_series(1, 200) AS n WHERE n % 10 <> 0) AS good FULL JOIN b ON id = n
            WHERE v IS DISTINCT FROM n
        UNION ALL SELECT n, value FROM generate_series(1, 200) AS n
            FULL JOIN (SELECT a.key, e.value FROM redis_migrate.archive AS a, redis_migrate.elements(a.payload) AS e WHERE a.migration = 'mixed') AS kept
                ON key = 'u:' || n WHERE value IS DISTINCT FROM n::text
        LIMIT 5}), '', "$name: every row");
    return is(sql(q{SELECT count(*), count(DISTINCT key) FROM redis_migrate.rejects WHERE migration = 'mixed' AND key ~ '^b:\d*0$' AND sqlstate = '22P02'}), '20|20',
        "$name: every bad key, once");
}

# A server that is not known to be one Redis: each process reads a share of the names. Without a run_id a lost connection
# might lead to another server from then on, so that a share is read again.
my $id = 'f' x 40;
my $keys = "# Keyspace\r\ndb5:keys=2300,expires=200\r\n";
my %strangers = (
    'another server' => "# Server\r\nredis_version:7.4.0\r\nredis_mode:standalone\r\ndragonfly_version:df-v1.30.0\r\nrun_id:$id\r\n$keys",
    'a proxy' => "# Server\r\nredis_version:7.2.4\r\nredis_mode:standalone\r\nredis_build_id:0\r\nrun_id:$id\r\n$keys",
    'a proxy that loses connections' => "# Server\r\nredis_version:7.2.4\r\n$keys");
for my $stranger (sort keys %strangers)
{
    my ($info, $asked, $loses) = ($strangers{$stranger}, 0, $stranger =~ /loses/);
    my $peer = HostileRedis->new($port, sub {
        my ($count, @command) = @_;
        # Whoever divides the source has the first connection; those after it are of no use.
        return HostileRedis::CUT if $loses && $count > 0 && $count < 10 && ++$asked > ($count < 5 ? 0 : 1500);
        return '$' . length($info) . "\r\n$info\r\n" if uc $command[0] eq 'INFO';
        return "-ERR unknown command 'HPEXPIRETIME'\r\n" if uc $command[0] eq 'HPEXPIRETIME';
        return;
    });
    for my $workers ($loses ? 3 : (2, 8))
    {
        my $shares = $workers > 4 ? 4 : $workers;
        define($peer->port);
        $said = said(qq{CALL redis_migrate.run('mixed', workers => $workers)});
        is_mixed("$stranger, $workers workers");
        is(parts(q{string_agg(share, ', ' ORDER BY part)}), join(', ', map { "names $_ of $shares" } 1 .. $shares), "$stranger, $workers workers: shares of the names");
        is(parts('sum(read)'), 2300, "$stranger, $workers workers: their sums");
    }
}

# Processes, PostgreSQL and Redis end at random moments.
for my $what ('a process beside the leader', 'the leader', 'the postmaster', 'Redis')
{
    pace(0.6);
    define($port);
    sql(q{SELECT redis_migrate.start('mixed', workers => 3)});
    wait_until('workers', sub { parts('count(DISTINCT pid)') == 3 });
    pace(0.03);
    usleep(rand(300_000));
    my $kind = { 'a process beside the leader' => 'migration part', 'the leader' => 'migration' }->{$what};
    my $pid = $kind ? sql("SELECT pid FROM redis_migrate.workers WHERE kind = '$kind' LIMIT 1") : '';
    kill $what eq 'the leader' ? 'TERM' : 'KILL', $pid if $pid ne '';
    kill_postgres($node) if $what eq 'the postmaster';
    $redis->restart('KILL') if $what eq 'Redis';
    wait_until('the server', sub { answers($node, $pid) });
    pace(0);
    wait_for('mixed');
    is_mixed("the end of $what");
}

done_testing();
