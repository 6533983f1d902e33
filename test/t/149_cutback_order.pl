# Live sync by several processes: of late deletions one may commit a smaller number later. A cutback that has looked at those
# with greater numbers looks at it, too, before it refuses.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('order', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
# A session that has an advisory lock until it ends.
sub gate
{
    my ($number) = @_;
    my $gate = start_sql($node, "SELECT pg_advisory_lock($number); SELECT pg_sleep(120)", name => "gate$number");
    wait_until("gate $number", sub { rows("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gate$number' AND wait_event = 'PgSleep'") eq '1' });
    return $gate;
}
sub open_gate { my ($number) = @_; return rows("SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = 'gate$number'"); }
sub waiting { my ($number) = @_; return rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $number AND NOT granted") eq '1'; }
sub late { return rows(q{SELECT count(*) FROM redis_migrate.late_writes WHERE settled_at IS NULL}); }

$redis->cli_lines(join '', map { "SET s:$_ $_\n" } 1 .. 30);
rows(q{SELECT redis_migrate.start('live', live => true, workers => 2)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
is(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}', max_pause => '30 s', force => true)}), '', 'cutover');
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}')});
wait_until('the feed', sub { rows(q{SELECT state FROM redis_migrate.reverse_feeds}) eq 'running' });
my $feed = hold_worker($node, 'reverse feed', idle => 1);  # which would settle them, too
rows(q{DELETE FROM strings;
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint); RETURN NULL; END';
    CREATE TRIGGER hold_note AFTER INSERT ON redis_migrate.late_write FOR EACH ROW WHEN (NEW.key_bytes = 's:2') EXECUTE FUNCTION hold(82);
    CREATE TRIGGER hold_settle AFTER UPDATE ON redis_migrate.late_write FOR EACH ROW WHEN (NEW.key_bytes = 's:1' AND NEW.settled_at IS NOT NULL) EXECUTE FUNCTION hold(81)});
my @gates = map { gate($_) } 81, 82;

# It stands at the fence, after it has settled those that were there before.
my $writer = start_sql($node, q{BEGIN; INSERT INTO strings VALUES ('99', ''); SELECT pg_sleep(120)}, name => 'gate0');
wait_until('a writer', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gate0' AND wait_event = 'PgSleep'}) eq '1' });
my $back = start_sql($node, q{SET client_min_messages = warning; CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}, name => 'back');
wait_until('the cutback at the fence', sub { rows(q{SELECT count(*) FROM pg_locks WHERE relation = 'strings'::regclass AND NOT granted}) eq '1' });
$redis->cli('DEL', 's:1');
wait_until('a late deletion', sub { late() eq '1' });
open_gate(0);
wait_until('the cutback to settle it', sub { waiting(81) });
# One that is not committed, and greater ones of the other process that are.
$redis->cli('DEL', 's:2');
wait_until('one that is not committed', sub { waiting(82) });
$redis->cli('DEL', "s:$_") for 3 .. 30;
wait_until('others', sub { late() > 3 });
open_gate(81);
wait_until('the cutback to wait for live sync', sub { rows(q{SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'back' AND NOT granted}) eq '1' });
open_gate(82);
is(($back->finish)[1], '', 'the family goes back');
is(rows(q{SELECT state FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}) . late(), 'completed0', 'with all late deletions settled');

done_testing();
