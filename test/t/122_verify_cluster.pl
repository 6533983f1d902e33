# Verifications side by side: of a cluster, whose keys are read again by another scan, of a server and of a file; with
# exact sums and no difference twice, whatever happens to the processes meanwhile.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('cluster', conf => "pg_redis_migrate.batch_rows = 100\nmax_worker_processes = 20\nrestart_after_crash = on");
my $cluster = start_cluster(masters => 3, replicas => 0);
$cluster->set(map { ("k:$_" => "value $_") } 1 .. 3000);
my $seeds = join ', ', map { '127.0.0.1:' . $_->{node}->port } $cluster->masters;
$node->safe_psql('postgres', qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on');
    CREATE TABLE item (id bigint PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}', exclusive => true);});
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub verify
{
    return sql_error($node, q{CALL redis_migrate.verify('shop')})
        . rows(q{SELECT equal, missing, extra, different, unsettled FROM redis_migrate.verification_counts ORDER BY verification_id DESC LIMIT 1});
}

rows(q{CALL redis_migrate.run('shop')});
is(verify(), '3000|0|0|0|0', 'all is equal');
my $last = '(SELECT max(verification_id) FROM redis_migrate.verifications)';
sub parts { my ($columns, $where) = @_; $where //= 'true';
    return rows("SELECT $columns FROM redis_migrate.verification_parts WHERE verification_id = $last AND $where"); }
is(parts(q{string_agg(share, ', ' ORDER BY part), bool_and(done), sum(keys_read), min(readers)}), 'slots 0-5460, slots 5461-10922, slots 10923-16383|t|3000|3', 'a part for each master');
like(rows(q{SELECT verified, reasons FROM redis_migrate.verifications}), qr/^f\|\{"whether keys were written to meanwhile is not known/, 'but nobody knows whether keys were written to');
rows(q{DELETE FROM item WHERE id = 7; UPDATE item SET v = 'other' WHERE id IN (8, 9); INSERT INTO item VALUES (4711, 'x')});
is(verify(), '2997|1|1|2|0', 'differences are found');
is(rows(q{SELECT kind, key, row_key FROM redis_migrate.verification_differences ORDER BY row_key}), "extra||{4711}\nmissing|k:7|{7}\ndifferent|k:8|{8}\ndifferent|k:9|{9}", 'and named');
is(rows(q{SELECT keys_read_again FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT 1}), '9', 'these keys alone were read again');
is(parts('sum(keys_read_again), count(*)'), '9|3', 'each by the process that reads its master');

# A server and a file, with the same differences. The check stops each process in its third batch while the test holds
# the gate, so that all of them take part, and what is ended has committed something. -------------------------------------

my $redis = start_redis();
$redis->cli('EVAL', q{for i = 1, 4000 do redis.call('SET', 'k:' .. i, 'value ' .. i) end
    for i = 1, 40 do redis.call('SET', 'k:' .. 90000 + i, 'x') redis.call('SET', 'other:' .. i, i) end}, 0);
$redis->cli('SAVE');
chmod 0644, $redis->directory . '/dump.rdb';
chmod 0755, $redis->directory;
create_server($node, 'single', $redis);
rows(q{
    CREATE TABLE gate ();
    CREATE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM set_config('gate.rows', (coalesce(nullif(current_setting('gate.rows', true), ''), '0')::int + 1)::text, false);
            IF current_setting('gate.rows')::int = 250 THEN PERFORM FROM public.gate; END IF;
            RETURN true;
        END $$;
    SET client_min_messages = error;});
for my $name (qw(server file))
{
    rows(qq{
        SET client_min_messages = error;
        CREATE TABLE $name (id bigint PRIMARY KEY, v text, n int);
        SELECT redis_migrate.create_migration('$name', 'single', source => '} . ($name eq 'file' ? 'rdb' : 'scan') . qq{', file => '} . $redis->directory . qq{/dump.rdb');
        SELECT redis_migrate.add_mapping('$name', 'm', 'k:{id:int}', '$name', 'SELECT id, value AS v, split_part(value, '' '', 2)::int AS n FROM redis_batch', '{id}', databases => '{0}', exclusive => true);
        CALL redis_migrate.run('$name', workers => 1);
        SELECT redis_migrate.add_check('$name', 'm', 'gate', 'public.gate()');
        DELETE FROM $name WHERE id % 100 = 1;
        UPDATE $name SET v = 'wrong' WHERE id % 100 = 2;
        INSERT INTO $name SELECT 5000 + n, 'x' FROM generate_series(1, 30) AS n;
        DELETE FROM redis_migrate.archived_key WHERE migration = '$name' AND key_bytes IN ('other:7', 'other:8')});
}

# What each verification finds, however it is divided. Of 40 missing, 40 different and 30 extra rows and 40 rejected keys as
# many lines are kept as were asked for.
our $reasons = '42 rows are missing; 40 rows are different; 30 rows have no key; 40 keys cannot be compared, by rule: n 40';
sub is_exact
{
    my ($name, $kept) = @_;
    $kept //= 100;
    is(rows(qq{
        SELECT keys_read, keys_rejected, verified, array_to_string(reasons, '; ') FROM redis_migrate.verifications WHERE verification_id = $last;
        SELECT mapping, checked, equal, missing, different, expiry_differs, extra, unsettled FROM redis_migrate.verification_counts WHERE verification_id = $last;
        SELECT count(*), count(DISTINCT (kind, db, key, row_key)), count(*) + (SELECT not_kept FROM redis_migrate.verification_counts WHERE verification_id = $last AND mapping = 'm')
        FROM redis_migrate.verification_differences WHERE verification_id = $last AND mapping = 'm';
        SELECT count(*) FROM redis_migrate.verification_met}),
        "4080|40|f|$reasons\n(archive)|40|38|2|0|0||0\nm|4000|3920|40|40|0|30|0\n$kept|$kept|150\n0",
        "$name: the sums, no difference twice, and nothing is left");
    return;
}

# Starts a verification, and returns it with the gate when all of its processes are stopped.
sub start_held
{
    my ($name, $options) = @_;
    my $gate = start_sql($node, 'BEGIN; LOCK TABLE gate; SELECT pg_sleep(600)', name => 'gate');
    wait_until('the gate', sub { rows(q{SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND granted}) == 1 });
    my $call = start_sql($node, "CALL redis_migrate.verify('$name', workers => 3, max_differences => 200" . ($options // '') . ')', name => 'call');
    wait_until('three processes', sub { rows(q{SELECT count(*) FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted}) == 3 });
    return ($call, sub { rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gate'}); $gate->finish; return; });
}
sub workers_gone { return wait_until('the end of the workers', sub { rows(q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'verification part'}) == 0 }); }

for my $name (qw(server file))
{
    for my $workers (1, 4)
    {
        rows("SET client_min_messages = error; CALL redis_migrate.verify('$name', workers => $workers)");
        is_exact("$name, $workers workers");
        is(parts('count(*), coalesce(bool_and(done), true), coalesce(sum(keys_read), 4080)'), $workers == 1 ? '0|t|4080' : '4|t|4080', "$name, $workers workers: the parts");
    }
    my ($call, $open) = start_held($name);
    is(rows(q{SELECT count(*), count(DISTINCT pid), string_agg(DISTINCT migration, ''), bool_and(keys_read > 0) FROM redis_migrate.workers WHERE kind = 'verification part'}), "2|2|$name|t", "$name: two workers beside the session");
    # One is terminated, the other cancelled.
    rows(q{SELECT CASE row_number() OVER () WHEN 1 THEN pg_terminate_backend(pid) ELSE pg_cancel_backend(pid) END FROM redis_migrate.workers WHERE kind = 'verification part'});
    workers_gone();
    $open->();
    like(($call->finish)[1], qr/process \d+ ended before it had read part \d of verification.*This process reads the part again.*process \d+ ended/s, "$name: workers that ended are told of");
    is_exact("$name, after workers ended", 150);
    is(parts('count(DISTINCT pid)'), '1', "$name: the session has read all parts");

    # Cancel ends all of them.
    ($call, $open) = start_held($name);
    rows(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
    like(($call->finish)[1], qr/57014: canceling statement/, "$name: cancelled");
    is(rows(q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'verification part'}), '0', "$name: with its workers");
    is(rows("SELECT state, sqlstate FROM redis_migrate.verifications WHERE verification_id = $last"), 'failed|57014', "$name: and says so");
    $open->();
}

# The session ends: so do the workers, and another verification does not mind.
my ($call, $open) = start_held('server');
rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'call'});
$call->finish;
$open->();
workers_gone();
is(rows("SELECT state FROM redis_migrate.verifications WHERE verification_id = $last"), 'interrupted', 'a session that ends');

# kill -9 takes the server along.
($call, $open) = start_held('server');
my $killed = rows(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'verification part' LIMIT 1});
kill 'KILL', $killed;
wait_until('the server', sub { answers($node, $killed) });
rows("SET client_min_messages = error; CALL redis_migrate.verify('server', workers => 2)");
is_exact('after a crash');

# Processes that no longer read their parts: what they have found does not count, nor does their error.
($call, $open) = start_held('server');
rows(qq{UPDATE redis_migrate.verification_part SET pid = 1, restarts = 1 WHERE verification_id = $last AND pid IN (SELECT pid FROM redis_migrate.workers WHERE kind = 'verification part')});
$open->();
unlike(($call->finish)[1], qr/ERROR/, 'processes left over do not fail a verification');
{
    local $reasons = "$reasons; Redis was restarted or replaced meanwhile";
    is_exact('with processes left over, and a part that began again', 150);
}
is(parts('count(*), count(DISTINCT pid), min(pid) > 1'), '4|1|t', 'another has read their parts');

# Two at once, and processes that end at random moments.
for my $round (1 .. 4)
{
    my $name = $round % 2 ? 'file' : 'server';
    my @calls = map { start_sql($node, "CALL redis_migrate.verify('$name', workers => 3)", name => 'call') } 1 .. 1 + $round % 3 % 2;
    for (1 .. 3) { usleep(rand(60_000)); rows(q{SELECT pg_terminate_backend(pid) FROM redis_migrate.workers WHERE kind = 'verification part' ORDER BY random() LIMIT 1}); }
    unlike(($_->finish)[1], qr/ERROR/, "round $round: no error") for @calls;
    is_exact("round $round");
    is(rows(q{SELECT count(DISTINCT (keys_read, keys_rejected, reasons)) FROM (SELECT * FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT } . @calls . ') AS v'), '1', "round $round: each says the same");
}

# An error of one ends all of them, as it was.
rows(q{CREATE OR REPLACE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN IF pg_backend_pid() <> ALL (ARRAY(SELECT pid FROM pg_stat_activity WHERE application_name = 'call')) THEN RAISE 'no room' USING ERRCODE = '53100'; END IF; PERFORM pg_sleep(0.001); RETURN true; END $$});
like((start_sql($node, q{CALL redis_migrate.verify('server', workers => 3)}, name => 'call')->finish)[1], qr/ERROR:  53100: .*no room/, 'an error of a worker');
is(rows("SELECT state, sqlstate FROM redis_migrate.verifications WHERE verification_id = $last"), 'failed|53100', 'is that of the verification');
workers_gone();
rows(q{CREATE OR REPLACE FUNCTION gate() RETURNS boolean LANGUAGE sql AS 'SELECT true'});

# Another process of Redis has other hashes: everything is compared anew.
rows(q{CREATE OR REPLACE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM set_config('gate.rows', (coalesce(nullif(current_setting('gate.rows', true), ''), '0')::int + 1)::text, false);
        IF current_setting('gate.rows')::int = 250 THEN PERFORM FROM public.gate; END IF;
        RETURN true;
    END $$});
($call, $open) = start_held('server');
$redis->restart('KILL');
$open->();
like(($call->finish)[1], qr/NOTICE:  00000: the Redis server was restarted or replaced: the verification begins again/, 'a Redis that was restarted is told of');
is_exact('after a restart of Redis', 150);

# One process alone.
sub said { my ($sql) = @_; $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \my $err); return $err; }
unlike(said(q{SET pg_redis_migrate.max_value_size = '1MB'; CALL redis_migrate.verify('server', workers => 2)}), qr/is read by one process/, 'a setting of the session: not alone');
is_exact('with a setting of the session');
like(said(q{
    CREATE TEMP TABLE here (id text PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('temp', 'single');
    SELECT redis_migrate.add_mapping('temp', 'm', 'other:{id}', 'here', 'SELECT id, value AS v FROM redis_batch', '{id}', databases => '{0}');
    CALL redis_migrate.verify('temp', workers => 2);
    SELECT redis_migrate.drop_migration('temp');}), qr/is read by one process: target .*here of mapping "m" is temporary/, 'a temporary target');
like(said(q{CALL redis_migrate.verify('server', workers => 0)}), qr/22023: workers must be between 1 and 64/, 'workers is a number of processes');
my $done = rows("SELECT $last");
like(said("CALL redis_migrate.join_verification($done)"), qr/55000: verification $done is not in progress/, 'nobody joins one that has ended');
like(said('CALL redis_migrate.join_verification(0)'), qr/42704: verification 0 does not exist/, 'nor one that is not there');

# DROP EXTENSION does not wait for ever, nor does anybody else.
($call, $open) = start_held('server');
my $drop = start_sql($node, 'SET client_min_messages = error; DROP EXTENSION pg_redis_migrate CASCADE', name => 'drop');
wait_until('DROP EXTENSION', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'drop' AND wait_event_type = 'Lock'}) == 1 });
$open->();
is(($drop->finish)[1], '', 'the extension is dropped');
like(($call->finish)[1], qr/ERROR:  55000: extension pg_redis_migrate was dropped/, 'which the verification says');
wait_until('the end of the workers', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'redis_migrate%'}) == 0 });
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/deadlock detected|PANIC|TRAP/, 'and nobody was ended by a deadlock');

done_testing();
