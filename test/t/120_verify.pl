# Verifications: differences in large data are found, and none is invented while a run or live sync writes; a cluster
# and a dump file; a cancel, and a Redis that goes away.

use strict;
use warnings;

use HostileRedis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('verify');
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
my $last = '(SELECT max(verification_id) FROM redis_migrate.verifications)';
sub verdict { return rows("SELECT verified, array_to_string(reasons, '; ') FROM redis_migrate.verifications WHERE verification_id = $last"); }
sub found
{
    return rows("SELECT mapping, missing, extra, different, expiry_differs FROM redis_migrate.verification_counts
                 WHERE verification_id = $last AND missing + coalesce(extra, 0) + different + expiry_differs > 0 ORDER BY 1");
}
sub verify { my ($options) = @_; return sql_error($node, "CALL redis_migrate.verify('live'" . ($options // '') . ')'); }

# Many keys, values of a megabyte, a long list, by a run from the server.
$redis->cli_lines(load_commands(6000, 400));
$redis->cli('EVAL', q{for i = 1, 20000 do redis.call('SET', 's:n' .. i, i) end
    for i = 1, 3 do redis.call('SET', 's:big' .. i, string.rep('x', 1024 * 1024)) end
    for i = 1, 30000 do redis.call('RPUSH', 'l:long', i) end
    for i = 1, 3000 do redis.call('ZADD', 'z:long', i, 'm' .. i) end
    redis.call('ZADD', 'z:odd', 'inf', 'inf', '-inf', '-inf', '-0', 'zero', '0.10000000000000001', 'tenth', '1e-300', 'small')
    redis.call('XADD', 'stream', '1-1', 'f', 'v')}, 0);
is(sql_error($node, q{CALL redis_migrate.run('live', source => 'scan')}), '', 'a run');
is(verify(q{, source => 'scan'}), '', 'a verification');
is(verdict(), 't|', 'proves that all is equal') or diag found();

# That a verification cannot keep which rows it has met is no fault of a key.
$redis->cli('EVAL', q{for i = 1, 60000 do redis.call('HSET', 'big:1', 'f' .. i, i) end}, 0);
rows(q{CREATE TABLE big (id int, field text, v text, PRIMARY KEY (id, field));
    SELECT redis_migrate.create_migration('big', 'live');
    SELECT redis_migrate.add_mapping('big', 'big', 'big:{id:int}', 'big', 'SELECT id, field, value AS v FROM redis_batch', '{id,field}', databases => '{0}', expand => 'elements');
    ALTER TABLE redis_migrate.verification_met ADD CONSTRAINT of_test CHECK (octet_length(hashes) < 400000)});
like(sql_error($node, q{CALL redis_migrate.verify('big')}), qr/ERROR:  23514: new row for relation "verification_met" violates check constraint "of_test"/, 'it ends with an error');
rows(q{ALTER TABLE redis_migrate.verification_met DROP CONSTRAINT of_test; SELECT redis_migrate.drop_migration('big')});
$redis->cli('DEL', 'big:1');

# One of each.
rows(q{UPDATE strings SET value = overlay(value PLACING 'y' FROM 777777) WHERE id = 'big2'});
rows(q{UPDATE items SET value = CASE position WHEN 15000 THEN '15002' ELSE '15001' END WHERE id = 'long' AND position IN (15000, 15001)});
rows(q{DELETE FROM scores WHERE id = 'long' AND member = 'm1500'});
rows(q{UPDATE scores SET score = score + 1e-9 WHERE id = 'long' AND member = 'm1000'});
rows(q{DELETE FROM strings WHERE id = 'n777'; UPDATE strings SET expires_at = now() + interval '1 day' WHERE id = 'n778'});
rows(q{INSERT INTO strings VALUES ('nobody', 'x')});
$redis->cli('DEL', 's:n779');
$redis->cli('HSET', 'h:new', 'a', '1');
rows(q{UPDATE scores SET score = CASE member WHEN 'inf' THEN '1e308' WHEN '-inf' THEN 'inf' WHEN 'zero' THEN -5e-324 WHEN 'tenth' THEN 0.1 + 1.4e-17 ELSE 0 END WHERE id = 'odd'});
rows(q{UPDATE redis_migrate.archived_key SET payload = set_byte(payload, 12, get_byte(payload, 12) # 1) WHERE key_bytes = 'stream'});
# By each source, of one moment.
$redis->cli('SAVE');
chmod 0644, $redis->directory . '/dump.rdb';
chmod 0755, $redis->directory;
rows(q{SELECT redis_migrate.alter_migration('live', file => '} . $redis->directory . q{/dump.rdb')});
my $differing = "(archive)|0||1|0\nhashes|1|0|0|0\nitems|0|0|2|0\nscores|1|0|6|0\nstrings|1|2|1|1";
for my $source ('rdb', 'replication') { is(verify(", source => '$source'") . found(), $differing, "$source: each difference is found"); }
is(verify(q{, source => 'scan'}), '', 'with differences');
is(found(), $differing, 'each is found') or diag rows("SELECT mapping, kind, key, row_key, column_name, redis_value, stored_value FROM redis_migrate.verification_differences WHERE verification_id = $last");
is(rows(qq{SELECT kind, row_key FROM redis_migrate.verification_differences WHERE verification_id = $last AND mapping = 'strings' ORDER BY 1, 2}),
    "different|{big2}\nexpiry_differs|{n778}\nextra|{n779}\nextra|{nobody}\nmissing|{n777}", 'and named');
like(rows(qq{SELECT redis_value, stored_value FROM redis_migrate.verification_differences WHERE verification_id = $last AND kind = 'different' AND mapping = 'strings'}),
    qr/^\.\.\.x{200}\.\.\. \(from byte 777737 of 1048576\)\|\.\.\.x{40}yx+\.\.\. \(from byte/, 'by the part that differs');

# Nothing is invented while the same run goes on again and again.
$redis->cli('HDEL', 'h:new', 'a');
is(sql_error($node, q{CALL redis_migrate.run('live', source => 'scan', prune => true, force => true)}), '', 'a run makes it good');
my $runs = start_sql($node, q{CALL redis_migrate.run('live', source => 'scan'); } x 10);
is(verify(", source => 'scan', workers => $_") . found(), '', "beside runs nothing differs, $_ processes") for 1 .. 2;
$runs->finish;

# A dump file of that moment, and what has changed since.
$redis->cli('SAVE');
is(verify(q{, source => 'rdb'}) . verdict(), 't|', 'the file is equal') or diag found();
$redis->cli('SET', 's:n5', 'changed');
is(verify(q{, source => 'rdb'}) . verdict(), 't|', 'it is compared with the file');
is(verify(q{, source => 'scan'}) . found(), 'strings|0|0|1|0', 'and here with the server');
like(verdict(), qr/^f\|1 row is different$/, 'to which nobody has written meanwhile');
is(sql_error($node, q{CALL redis_migrate.run('live', source => 'scan')}) . verify(q{, source => 'rdb'}) . found(), 'strings|0|0|1|0', 'and the other way round');

# A snapshot that Redis writes to its disk first: it counts changes anew from there.
$redis->cli('CONFIG', 'SET', 'repl-diskless-sync', 'no');
sleep 1;    # the time of a save is given in seconds
is(verify(q{, source => 'replication'}) . verdict(), 'f|whether keys were written to meanwhile is not known, and live sync is not under way', 'nobody knows what was written');
$redis->cli('CONFIG', 'SET', 'repl-diskless-sync', 'yes');

# Live sync, and an application that goes on writing.
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
# An element that goes before a reading and comes back behind it, in one batch, whose row nobody touches.
$redis->cli('SADD', 't:twice', 'a', 'b');
is(wait_for($node), '', 'a set');
my $held = hold_worker($node, 'migration');
$redis->cli('SREM', 't:twice', 'b');
my $verifying = start_sql($node, 'SET client_min_messages = error; CALL redis_migrate.verify(\'live\')');
sleep 3;
$redis->cli('SADD', 't:twice', 'b');
$held->release;
$verifying->finish;
is(verdict(), 't|', 'it has its row');

my $load = start_load($redis, 300, 0.02);
for my $n (1 .. 4)
{
    is(verify(", source => '" . ($n > 1 ? 'scan' : 'replication') . "', workers => $n"), '', "verification $n under load, by so many processes");
    is(found(), '', 'invents no difference') or diag rows("SELECT * FROM redis_migrate.verification_differences WHERE verification_id = $last LIMIT 5");
}
is(rows("SELECT count(DISTINCT part) FROM redis_migrate.verification_parts WHERE verification_id = $last"), '4', 'with as many parts');
cmp_ok(rows("SELECT max(keys_read_again) FROM redis_migrate.verifications"), '>', 0, 'keys were read again');
# A difference among all that is still found.
rows(q{UPDATE strings SET value = 'wrong' WHERE id = 'n4242'; INSERT INTO members VALUES ('nobody', 'm')});
is(verify() . rows("SELECT mapping, kind, row_key FROM redis_migrate.verification_differences WHERE verification_id = $last AND kind <> 'unsettled'"),
    'strings|different|{n4242}', 'a difference is found under load');
$load->finish;
$redis->cli('SET', 's:n4242', '4242');
rows(q{DELETE FROM members WHERE id = 'nobody'});
is(wait_for($node) . verify() . verdict(), 't|', 'in the end it is proved') or diag found();

# A user who may not watch keys.
$redis->cli('ACL', 'SETUSER', 'default', '-watch');
rows(q{UPDATE strings SET value = 'wrong' WHERE id = 'n4242'});
is(verify() . found(), 'strings|0|0|1|0', 'a difference is found without the right to WATCH');
is(rows("SELECT keys_unwatched FROM redis_migrate.verifications WHERE verification_id = $last"), '1', 'by a key that was not watched');
$redis->cli('ACL', 'SETUSER', 'default', '+watch');
$redis->cli('SET', 's:n4242', '4242');
is(wait_for($node) . verify() . found(), '', 'and made good');

# Keys that go back and forth between two values, and a live sync that comes to them late: a value that is read twice
# may have been the other in between.
my $swing = fork() // die "fork: $!\n";
if ($swing == 0) { while (1) { eval { $redis->cli('MSET', map { ("s:swing$_", int rand 2) } 1 .. 300) }; select undef, undef, undef, 0.01; } }
wait_until('they swing', sub { rows(q{SELECT count(*) FROM strings WHERE id LIKE 'swing%'}) > 250 });
my $worker = worker_pid($node, 'migration');
my $halting = fork() // die "fork: $!\n";
if ($halting == 0) { while (1) { for my $signal ('STOP', 'CONT') { kill $signal, $worker; select undef, undef, undef, $signal eq 'STOP' ? 0.3 : 0.1; } } }
for (1 .. 2) { is(verify() . found(), '', 'no difference is invented') or diag rows("SELECT * FROM redis_migrate.verification_differences WHERE verification_id = $last AND kind <> 'unsettled' LIMIT 5"); }
for my $pid ($halting, $swing) { kill 'KILL', $pid; waitpid $pid, 0; }
kill 'CONT', $worker;

# A key that never holds still. It is written to by one connection, a thousand times a second.
my $busy = fork() // die "fork: $!\n";
if ($busy == 0) { exec 'redis-benchmark', '-q', '-h', $redis->host, '-p', $redis->port, '-c', '1', '-n', '100000000', 'INCR', 's:busy' if open STDOUT, '>', '/dev/null'; POSIX::_exit(1); }
wait_until('it is busy', sub { rows(q{SELECT count(*) FROM strings WHERE id = 'busy'}) eq '1' });
is(verify() . found(), '', 'nothing differs');
like(verdict(), qr/^(f\|1 key never held still|t\|)$/, 'but one may never have held still');
kill 'KILL', $busy;
waitpid $busy, 0;

# Cancelled.
my ($before, $error) = rows("SELECT $last");
for my $ms (50, 100, 200, 400, 800)    # on a busy machine it takes a while to begin
{
    $error = sql_error($node, qq{SET statement_timeout = '${ms}ms'; CALL redis_migrate.verify('live', source => 'scan')});
    last if rows("SELECT $last") ne $before;
}
like($error, qr/57014/, 'it can be cancelled');
is(rows("SELECT state, sqlstate FROM redis_migrate.verifications WHERE verification_id = $last"), 'failed|57014', 'and says so');
is(rows('SELECT count(*) FROM redis_migrate.verification_met'), '0', 'and leaves nothing');

# What happens while it reads, and then stands in the way of a proof. Its first SCAN is held back meanwhile.
sub verify_while
{
    my ($action) = @_;
    my $is_done = 0;
    my $acting = HostileRedis->new($redis->port, sub {
        local $SIG{CHLD} = 'DEFAULT';
        $action->() if uc $_[1] eq 'SCAN' && !$is_done++;
        return undef;
    });
    rows("ALTER SERVER live OPTIONS (SET port '" . $acting->port . "')");
    my $error = verify(q{, source => 'scan'});
    rows("ALTER SERVER live OPTIONS (SET port '" . $redis->port . "')");
    return $error . verdict();
}
# With fewer keys.
$redis->cli('EVAL', q{for i = 1, 20000 do redis.call('DEL', 's:n' .. i) end redis.call('DEL', 's:big1', 's:big2', 's:big3', 'l:long', 'z:long')}, 0);
is(wait_for($node), '', 'live sync');
is(verify_while(sub {
    $redis->cli('ACL', 'SETUSER', 'default', '-psync');
    $redis->cli('CLIENT', 'KILL', 'TYPE', 'replica');
    wait_until('the link to be refused', sub { live($node, 'state') eq 'connecting' });
}), 'f|live sync was not following the server at the end, see redis_migrate.live_sync', 'a link that is down');
$redis->cli('ACL', 'SETUSER', 'default', '+psync');
$redis->cli('SET', 's:link', 'linked');
wait_until('the link', sub { rows(q{SELECT value FROM strings WHERE id = 'link'}) eq 'linked' });
is(wait_for($node), '', 'live sync goes on');
is(verify_while(sub { rows(q{SELECT redis_migrate.stop('live')}) }), 'f|live sync ended meanwhile', 'live sync that is stopped');
is(verify_while(sub { $redis->cli_lines("SET nobody x\nDEL nobody\n") }), 'f|keys were written to meanwhile, and live sync is not under way', 'writes that nobody follows');
like(verify_while(sub { rows(q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'postgres')}) }), qr/^f\|.*a family has changed hands meanwhile$/, 'a family that changes hands');
rows(q{SELECT redis_migrate.set_family_state('live', 's:{id}', 'redis')});
is(verify_while(sub { rows(q{SELECT redis_migrate.skip_keys('live', 'nothing:*')}) }), 'f|the definition of the migration was changed meanwhile', 'a definition that changes');
# A clock that is set back hides neither.
is(verify_while(sub { rows(q{SELECT redis_migrate.skip_keys('live', 'nobody:*'); UPDATE redis_migrate.migration SET changed_at = '2001-01-01';
    SELECT redis_migrate.set_family_state('live', 's:{id}', 'postgres'), redis_migrate.set_family_state('live', 's:{id}', 'redis'); UPDATE redis_migrate.family_change SET changed_at = '2001-01-01'}) }),
    'f|a family has changed hands meanwhile; the definition of the migration was changed meanwhile', 'whatever the clock says');
is(verify(q{, source => 'scan'}) . verdict(), 't|', 'without any of that it is proved');

# At a ceiling of all these keys a second.
my ($keys, $took) = split /\|/, rows("SELECT keys_read, extract(epoch FROM finished_at - started_at) FROM redis_migrate.verifications WHERE verification_id = $last");
rows("ALTER SERVER live OPTIONS (ADD max_rate '$keys')");
is(verify(q{, source => 'scan'}) . verdict(), 't|', 'at a ceiling it is proved, too');
cmp_ok(rows("SELECT extract(epoch FROM finished_at - started_at) FROM redis_migrate.verifications WHERE verification_id = $last"), '>', 0.5, "and takes longer than $took s");
rows(q{ALTER SERVER live OPTIONS (DROP max_rate)});

# A Redis that goes away.
$redis->stop;
like(sql_error($node, q{CALL redis_migrate.verify('live', source => 'scan')}), qr/08006/, 'without a Redis');

done_testing();
