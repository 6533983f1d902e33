# A migration is not dropped while it is cut over, nor after that was interrupted: it alone knows which rights users of Redis
# had. After a cutover it says which users stay without.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
$redis->cli('ACL', 'SETUSER', 'migrator', 'on', '>topsecret', '~*', '&*', '+@all');
$redis->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all', '-@dangerous');
my $node = new_node('dropped');
create_server($node, 'live', $redis);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
rows(q{ALTER USER MAPPING FOR CURRENT_USER SERVER live OPTIONS (ADD username 'migrator', ADD password 'topsecret')});
create_live($node);
$redis->cli('SET', 's:1', 1);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
sub may_write { return $redis->cli('ACL', 'GETUSER', 'app') =~ /-\@write/ ? 'may not' : 'may'; }
my $cutover = q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', max_pause => '30 s')};
my $drop = q{SELECT redis_migrate.drop_migration('live')};
my $run = q{SELECT state FROM redis_migrate.background_run};

# It stands before it commits, with the user fenced.
rows(q{CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(77); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON redis_migrate.cutover DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.step = 'committing' AND OLD.step <> NEW.step) EXECUTE FUNCTION hold()});
my $gate = start_sql($node, q{SELECT pg_advisory_lock(77); SELECT pg_sleep(120)}, name => 'gate');
wait_until('the gate', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gate' AND wait_event = 'PgSleep'}) eq '1' });
my $call = start_sql($node, $cutover, name => 'cutover');
wait_until('the cutover', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cutover' AND wait_event = 'advisory'}) eq '1' });
is(may_write(), 'may not', 'a user is fenced');
like(sql_error($node, $drop), qr/ERROR:  55006: another session cuts migration "live" over/, 'no drop meanwhile');
rows(q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = 'cutover'});
$call->finish;
like(sql_error($node, $drop), qr/ERROR:  55000: a cutover or cutback of migration "live" was interrupted\nDETAIL:  .*\nHINT:  As the owner of the migration: CALL redis_migrate\.undo_cutover\('live'\)\. If Redis is gone for good, .*, as a superuser: UPDATE redis_migrate\.cutover SET state = 'undone' WHERE cutover_id = \d+\.$/m, 'nor after it was interrupted');
is(rows($run), 'running', 'which stops nothing');
rows(q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = 'gate'; DROP TRIGGER hold ON redis_migrate.cutover});
$gate->finish;
is(sql_error($node, q{SET client_min_messages = error; CALL redis_migrate.undo_cutover('live')}) . may_write(), 'may', 'it is undone');

is(sql_error($node, $cutover) . may_write(), 'may not', 'cutover');

# Where Redis is gone for good, a superuser does what the hint says.
rows(q{SELECT redis_migrate.create_migration('gone', 'live');
    INSERT INTO redis_migrate.cutover (migration, patterns, to_state, fence, step, instance, state)
        SELECT 'gone', patterns, to_state, fence, 'pausing', instance, 'running' FROM redis_migrate.cutover WHERE migration = 'live' ORDER BY cutover_id DESC LIMIT 1});
my ($way_out) = sql_error($node, q{SELECT redis_migrate.drop_migration('gone')}) =~ /as a superuser: (UPDATE .*)\.$/m;
rows($way_out);
is(sql_error($node, q{BEGIN; SELECT redis_migrate.drop_migration('gone'); ROLLBACK}), '', 'an interrupted cutover whose Redis is gone keeps no migration');

# Whom another migration has fenced, too, here or at another master, it gives the rights back. Whom the original of a copy has
# fenced is to stay so.
rows(q{UPDATE redis_migrate.cutover SET state = 'completed' WHERE migration = 'gone';
    INSERT INTO redis_migrate.family_change (migration, pattern, state) VALUES ('gone', 's:{id}', 'postgres');
    INSERT INTO redis_migrate.fenced_user (cutover_id, node, address, username, rules)
        SELECT g.cutover_id, u.node, coalesce(a.elsewhere, u.address), a.name, '+@all'
        FROM redis_migrate.fenced_user AS u JOIN redis_migrate.cutover AS c USING (cutover_id), redis_migrate.cutover AS g, (VALUES ('app', NULL), ('app', '127.0.0.1:1'), ('third', NULL)) AS a (name, elsewhere)
        WHERE c.migration = 'live' AND u.returned_at IS NULL AND g.migration = 'gone'});
my $err = '';
$node->psql('postgres', q{BEGIN; UPDATE redis_migrate.cutover SET instance = instance || '0' WHERE migration = 'gone'; SELECT redis_migrate.drop_migration('gone'); ROLLBACK}, stderr => \$err);
like($err, qr/WARNING:  (?:01000: )?users of Redis stay without their rights to write: "third"\nDETAIL:  Another server .* is a copy, .*\nAt \S+: ACL SETUSER third \+\@all\nHINT:  Only if that one is gone/, 'a copy says whose fence that is');
unlike($err, qr/app/, 'and nothing of users whom another migration has fenced');
$node->psql('postgres', q{SELECT redis_migrate.drop_migration('gone')}, stderr => \$err);
like($err, qr/WARNING:  (?:01000: )?users of Redis stay without their rights to write: "third"\nDETAIL:  Their rules from before have gone with the migration\.\nAt \S+: ACL SETUSER third \+\@all\nHINT:  If they/, 'nor does the drop, which says who stays without rights');
unlike($err, qr/app/, 'but for those of another migration');
is(rows(q{DELETE FROM redis_migrate.fenced_user WHERE username = 'app' AND address = '127.0.0.1:1' RETURNING (SELECT migration FROM redis_migrate.cutover AS c WHERE c.cutover_id = fenced_user.cutover_id)}), 'live', 'which has them all now');

$node->psql('postgres', $drop, stderr => \$err);
like($err, qr/WARNING:  (?:01000: )?users of Redis stay without their rights to write: "app"\nDETAIL:  .*\n.*ACL SETUSER app (\S.*)\n/, 'the drop says who stays without rights');
my ($rules) = $err =~ /ACL SETUSER app (.*)/;
$redis->cli('ACL', 'SETUSER', 'app', split ' ', $rules);
is(may_write() . rows('SELECT count(*) FROM redis_migrate.migrations'), 'may0', 'and what gives them back');

done_testing();
