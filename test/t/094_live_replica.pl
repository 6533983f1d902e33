# Live sync with a replica: what has gone there by its own clock, but not for its master, keeps its row. The servers have
# other names for some commands.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;
use Time::HiRes qw(sleep);

my @renamed = qw(--rename-command FLUSHALL emptied --rename-command MOVE moved);
my $master = start_redis(args => \@renamed);
my $proxy = PrmTools::Proxy->new($master->port);
my $replica = start_redis(args => [ @renamed, '--replicaof', '127.0.0.1 ' . $proxy->port, '--repl-diskless-sync-delay', '0' ]);
wait_until('the replica has its master', sub { $replica->cli('INFO', 'replication') =~ /master_link_status:up/ });
my $node = new_node('replica', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
$node->safe_psql('postgres', 'CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $replica->port . '$$); CREATE USER MAPPING FOR PUBLIC SERVER live');
create_live($node);
$master->cli_lines("SET s:session x\nSET s:short x\nRPUSH l:1 a\nSET s:other x\n");
$node->safe_psql('postgres', q{SELECT redis_migrate.start('live', live => true)});
sub caught_up { my ($last) = @_; wait_until('the replica has it all', sub { $replica->cli('GET', 's:last') eq $last }); return; }
$master->cli_lines("SET s:last 1\n");
caught_up(1);
is(wait_for($node) . differences($node, $replica), '', 'every key is there');

# The batches wait for a lock while it happens.
$node->safe_psql('postgres', q{CREATE TABLE deleted (id text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO deleted VALUES (OLD.id); RETURN OLD; END$$; CREATE TRIGGER note BEFORE DELETE ON strings FOR EACH ROW EXECUTE FUNCTION note()});
my $lock = start_sql($node, 'BEGIN; LOCK TABLE strings IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(3600);', name => 'lock');
wait_until('the table is locked', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted}) ne '0' });
$master->cli_lines("SET s:other y\n");
wait_until('a batch waits for the lock', sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE NOT granted}) ne '0' });
$master->cli_lines("PEXPIRE s:session 4000\nSET s:last 2\n");
caught_up(2);
$proxy->tell('hold');
is($master->cli('PERSIST', 's:session'), '1', 'the master prolongs a key just before it expires');
ok(wait_until('its expiry', sub { $replica->cli('GET', 's:session') eq '' }), 'its replica, which has not heard of it, has it no more');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'});
$lock->finish;
wait_until('the batch is stored', sub { $node->safe_psql('postgres', q{SELECT value FROM strings WHERE id = 'last'}) eq '2' });
sleep 1.5;
is($node->safe_psql('postgres', q{SELECT value FROM strings WHERE id = 'session'}), 'x', 'its row stays');
$proxy->tell('pass');
$master->cli_lines("SET s:last 3\n");
caught_up(3);
is(wait_for($node) . differences($node, $replica), '', 'and when the replica has heard of it all is as there');
is($node->safe_psql('postgres', 'SELECT count(*) FROM deleted'), '0', 'nothing was deleted meanwhile');

# Keys that really go are deleted, with the command that says it or without.
$master->cli_lines("PEXPIRE s:short 1\nLPOP l:1\nDEL s:other\nSET s:last 4\n");
caught_up(4);
is(wait_for($node) . differences($node, $replica), '', 'a key that has expired, one that lost its last element and one that was deleted are gone');

# Commands that the stream has by the names that the servers have given them.
$master->cli_lines("SET s:there x\nmoved s:there 1\nSELECT 1\nSET s:here x\nmoved s:here 0\nSELECT 0\nSET s:last 5\n");
caught_up(5);
is(wait_for($node) . differences($node, $replica), '', 'keys that were moved by another name than MOVE');
$master->cli_lines("emptied\nSET s:last 6\n");
caught_up(6);
is(wait_for($node) . differences($node, $replica), '', 'and all keys that went by another name than FLUSHALL');
is($node->safe_psql('postgres', q{SELECT string_agg(state, ' ' ORDER BY run_id) FROM redis_migrate.runs}), 'superseded running', 'for which there was another snapshot');

done_testing();
