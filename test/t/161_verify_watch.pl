# A verification beside live sync: large values that live sync reads later, keys that cannot be watched, and a master that is
# another one in mid work.

use strict;
use warnings;

use HostileRedis;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

my @options = ('--repl-diskless-sync-delay', '0', '--repl-backlog-size', '64mb');
my $first = start_redis(args => \@options);
my $second = start_replica($first, args => \@options);
# A Sentinel that names the master that the file has.
my $names = PostgreSQL::Test::Utils::tempdir() . '/master';
sub name_master { my ($redis) = @_; append_to_file("$names.new", $redis->port); rename "$names.new", $names or die; return; }
name_master($first);
my $sentinel = HostileRedis->new($first->port, sub {
    my (undef, $command) = @_;
    return if uc $command ne 'SENTINEL';
    my $port = slurp_file($names);
    return "*2\r\n\$9\r\n127.0.0.1\r\n\$" . length($port) . "\r\n$port\r\n";
});

my $node = new_node('watch', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\npg_redis_migrate.live_large_value_rate = '4kB'\nmax_worker_processes = 20");
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
rows(q{CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (sentinel_master 'shop', sentinels '127.0.0.1:} . $sentinel->port . q{');
    CREATE USER MAPPING FOR CURRENT_USER SERVER live});
create_live($node);
my $last = '(SELECT max(verification_id) FROM redis_migrate.verifications)';
sub last_one { my ($columns) = @_; return rows("SELECT $columns FROM redis_migrate.verifications WHERE verification_id = $last"); }
sub verdict { return last_one(q{verified, array_to_string(reasons, '; ')}); }
sub found
{
    return rows("SELECT mapping, missing, extra, different, expiry_differs FROM redis_migrate.verification_counts
                 WHERE verification_id = $last AND missing + coalesce(extra, 0) + different + expiry_differs > 0 ORDER BY 1");
}
my $verify = q{SET client_min_messages = error; CALL redis_migrate.verify('live', source => 'scan', workers => 1)};

# A large value that keeps changing waits. ----------------------------------------------------------------------------------

$first->cli('EVAL', q{for i = 1, 200 do redis.call('SET', 's:n' .. i, i) end
    local t = {} for i = 1, 64 * 1024 do t[i] = string.format('%08x', math.random(0, 2147483647)) end redis.call('SET', KEYS[1], table.concat(t))}, 1, 's:big');
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . differences($node, $first), '', 'live sync');
sub waits { return live($node, 'keys_deferred') . (rows(q{SELECT length(value) FROM strings WHERE id = 'big'}) < $first->cli('STRLEN', 's:big') ? ' behind' : ''); }
sub keep_waiting
{
    wait_until('the large value to wait', sub { $first->cli('APPEND', 's:big', 'y'); waits() eq '1 behind' });
    return;
}
keep_waiting();
for my $workers (1, 2)
{
    is(sql_error($node, "CALL redis_migrate.verify('live', source => 'scan', workers => $workers)") . found(), '', "a value that waits is no difference, by $workers");
    is(waits(), '1 behind', 'it still waits');
    is(verdict(), 'f|1 key never held still', 'but it is not proved to be equal');
    is(rows("SELECT kind, key FROM redis_migrate.verification_differences WHERE verification_id = $last"), 'unsettled|s:big', 'and is named');
}
# Another one is still found.
rows(q{UPDATE strings SET value = 'wrong' WHERE id = 'n7'});
is(sql_error($node, $verify) . found(), 'strings|0|0|1|0', 'a difference beside it');
is(waits(), '1 behind', 'while it waits');
$first->cli('SET', 's:n7', '7');
wait_until('it is made good', sub { rows(q{SELECT value FROM strings WHERE id = 'n7'}) eq '7' });
# It is read while the verification looks at it again.
my $before = last_one('verification_id');
keep_waiting();
my $verifying = start_sql($node, $verify, name => 'verifying');
wait_until('it is looked at again', sub { last_one('verification_id > ' . $before . ' AND keys_read_again > 0') eq 't' });
my ($backend) = rows(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'verifying'});
stop_idle($node, $backend);
is(wait_for($node), '', 'live sync reads it meanwhile');
kill 'CONT', $backend;
$verifying->finish;
is(verdict(), 't|', 'it is equal then');
# One that does not wait.
rows(q{UPDATE strings SET value = overlay(value PLACING 'x' FROM 123456) WHERE id = 'big'});
is(sql_error($node, $verify) . found(), 'strings|0|0|1|0', 'if it does not wait, a difference is one');
is(last_one('keys_unwatched'), '0', 'which was watched');
$first->cli('DEL', 's:big');
is(wait_for($node), '', 'without it');

# Keys that cannot be watched are counted. ----------------------------------------------------------------------------------

rows(q{UPDATE strings SET value = 'wrong' WHERE id IN ('n1', 'n2', 'n3')});
for my $rights ('-watch', '+watch')
{
    $first->cli('ACL', 'SETUSER', 'default', $rights);
    for my $workers (1, 2)
    {
        is(sql_error($node, "CALL redis_migrate.verify('live', source => 'scan', workers => $workers)") . found(), 'strings|0|0|3|0', "$rights, $workers processes: differences");
        is(last_one('keys_unwatched'), $rights eq '-watch' ? '3' : '0', "$rights, $workers processes: keys that were not watched");
        is(rows("SELECT sum(keys_unwatched) FROM redis_migrate.verification_parts WHERE verification_id = $last"), $workers == 1 ? '' : $rights eq '-watch' ? '3' : '0', 'in all parts');
    }
}
$first->cli_lines("SET s:n1 1\nSET s:n2 2\nSET s:n3 3\n");
is(wait_for($node), '', 'made good');

# A field that has expired, and that the server has not removed yet, as Redis has such fields from 7.4 on. That it goes is yet to
# come, and would be the change.
sub checksum
{
    my ($bytes) = @_;
    my $crc = 0;
    for my $byte (unpack 'C*', $bytes) { $crc ^= $byte; $crc = $crc & 1 ? $crc >> 1 ^ (0x95ac9329 << 32 | 0xac4bc9b5) : $crc >> 1 for 1 .. 8; }
    return pack 'Q<', $crc;
}
my $hash = "\x18" . pack('Q<', 1_000_000_000_000) . "\x02" . "\x00\x01a\x011" . "\x01\x01b\x012" . "\x0c\x00";
$hash .= checksum($hash);
my ($is_in_multi, $is_asked) = (0, 0);
my $newer = HostileRedis->new($first->port, sub {
    my (undef, $command, $key) = @_;
    $command = uc $command;
    $is_in_multi = 1 if $command eq 'MULTI';
    my $bulk = sub { return '$' . length($_[0]) . "\r\n$_[0]\r\n"; };
    return "*1\r\n:-2\r\n" if $command eq 'HPEXPIRETIME';
    if ($command eq 'DUMP' && $key eq 'h:x')
    {
        return $bulk->($hash) if !$is_in_multi;
        $is_asked = 1;
    }
    return if $command ne 'EXEC';
    ($is_in_multi, my $was_asked) = (0, $is_asked);
    $is_asked = 0;
    return if !$was_asked;
    local $SIG{CHLD} = 'DEFAULT';
    return \("*3\r\n" . $bulk->($first->cli('INFO', 'replication')) . ":-1\r\n" . $bulk->($hash));
});
$first->cli('HSET', 'h:x', 'a', 1, 'b', 2);
is(wait_for($node) . rows(q{SELECT fields FROM hashes WHERE id = 'x'}), '{"a": "1", "b": "2"}', 'a hash');
name_master($newer);
is(sql_error($node, $verify) . found(), 'hashes|0|0|1|0', 'a field that has expired, and has a row') or diag verdict(), rows("SELECT * FROM redis_migrate.verification_differences WHERE verification_id = $last");
is(last_one('keys_unwatched'), '1', 'is none that has held still by what a watch says');
name_master($first);
is(sql_error($node, $verify) . verdict(), 't|', 'which it has otherwise');

# Another master. -----------------------------------------------------------------------------------------------------------

# A row that differs for good, whatever live sync writes.
rows(q{CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.value = NEW.value || ' here'; RETURN NEW; END $$;
    CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON strings FOR EACH ROW WHEN (NEW.id = 'odd') EXECUTE FUNCTION spoil()});
$first->cli('SET', 's:odd', 'value');
is(wait_for($node) . rows(q{SELECT value FROM strings WHERE id = 'odd'}), 'value here', 'a row that differs');
sub watches { my ($redis) = @_; return $redis->cli('INFO', 'commandstats') =~ /cmdstat_watch:calls=(\d+)/ ? $1 : 0; }
sub clients { my ($redis, $command) = @_; return map { /^id=(\d+) / } grep { /\bcmd=$command\b/ } split /\n/, $redis->cli('CLIENT', 'LIST'); }
sub offset { my ($redis) = @_; return $redis->cli('INFO', 'replication') =~ /master_repl_offset:(\d+)/ ? $1 : die 'no offset'; }
# The other server has all, and is a master, too.
sub promote
{
    my ($redis, $former) = @_;
    my $offset = offset($former);
    wait_until('it has all', sub { offset($redis) >= $offset });
    return $redis->cli('REPLICAOF', 'NO', 'ONE');
}
# A verification that waits for live sync, which is held, before it has looked at the row.
sub verify_held
{
    my $held = hold_worker($node, 'migration', idle => 1);
    $first->cli('SET', 's:n9', 'more');
    my %before = map { $_ => 1 } clients($first, 'exec');
    my $verifying = start_sql($node, $verify, name => 'verifying');
    wait_until('it reads a key again', sub { grep { !$before{$_} } clients($first, 'exec') });
    return ($held, $verifying);
}

# The Sentinel names the other one, before a connection for watching was opened. Keys are still read from the first.
my ($held, $waiting) = verify_held();
promote($second, $first);
name_master($second);
my $watches = watches($second);
$held->release;
$waiting->finish;
is(found(), 'strings|0|0|1|0', 'another process than is read from: the difference is found by reading');
is(last_one('keys_unwatched'), '1', 'as the key is not watched');
is(watches($second), $watches, 'and not elsewhere');
name_master($first);
$second->cli('REPLICAOF', '127.0.0.1', $first->port);
wait_until('a replica again', sub { $second->cli('INFO', 'replication') =~ /role:slave.*master_link_status:up/s });
is(wait_for($node), '', 'live sync');

# Reading goes on at the other one; the first is still there, and watches what nobody writes to.
($held, $waiting) = verify_held();
wait_until('it watches', sub { clients($first, 'watch') > 0 });
$first->cli('SET', 's:odd', 'value');  # it does not hold still this time
promote($second, $first);
name_master($second);
$watches = watches($second);
for my $id (grep { my $id = $_; !grep { $_ == $id } clients($first, 'watch') } $first->cli('CLIENT', 'LIST') =~ /^id=(\d+) /mg) { eval { $first->cli('CLIENT', 'KILL', 'ID', $id) }; }
$held->release;
$waiting->finish;
is(found(), 'strings|0|0|1|0', 'a fail-over: the difference is found');
is(last_one('keys_unwatched'), '0', 'by a watch');
cmp_ok(watches($second), '>', $watches, 'at the master that is read from');
is(wait_for($node) . rows(q{SELECT value FROM strings WHERE id = 'n9'}), 'more', 'live sync has gone over, too');

done_testing();
