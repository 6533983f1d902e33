# Triggers of a reverse feed on a table that another role owns by now stay, and a warning says so and how to drop them. A drop
# that fails says nothing of the kind.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
$redis->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all', '-@dangerous');
my $node = new_node('former', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
$node->safe_psql('postgres', 'CREATE ROLE mig LOGIN SUPERUSER; CREATE ROLE other LOGIN; GRANT ALL ON SCHEMA public TO other');
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
local $ENV{PGUSER} = 'mig';
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql, @options) = @_; return $node->safe_psql('postgres', $sql, @options); }
sub as_superuser { my ($sql) = @_; local $ENV{PGUSER} = $superuser; return rows($sql); }
sub said { my ($sql) = @_; my $err = ''; $node->psql('postgres', $sql, stderr => \$err); return $err; }
rows(q{CREATE TABLE more (id text PRIMARY KEY, value text);
    SELECT redis_migrate.add_mapping('live', 'more', 'm:{id}', 'more', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')});

$redis->cli_lines("SET s:1 1\nSET m:1 1\n");
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
is(sql_error($node, "CALL redis_migrate.cutover('live', 'acl', users => '{app}', max_pause => '30 s', force => true, pattern => '$_:{id}')"), '', "cutover of $_") for 's', 'm';
my ($s, $m) = map { "SELECT redis_migrate.start_reverse('live', '$_:{id}')" } 's', 'm';
rows("$s; $m");
my %id = map { $_ => rows("SELECT mapping_id FROM redis_migrate.mapping WHERE mapping = '$_'") } 'strings', 'more';
sub triggers { my ($table) = @_; return rows("SELECT count(*) FROM pg_trigger WHERE tgrelid = '$table'::regclass AND tgname LIKE 'redis_migrate_outbox%'"); }
is(triggers('strings') . triggers('more'), '22', 'both tables have triggers');

# From now on the owner of the migration is an ordinary role. Another one has taken a table over, and the mapping has a new one.
as_superuser(q{GRANT USAGE ON SCHEMA redis_migrate TO mig; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA redis_migrate TO mig; GRANT ALL ON SCHEMA public TO mig;
    ALTER TABLE strings RENAME TO older; ALTER TABLE older OWNER TO other; CREATE TABLE strings (LIKE older INCLUDING ALL); ALTER TABLE strings OWNER TO mig;
    ALTER ROLE mig NOSUPERUSER});
my $stay = sub {
    my ($table, $id) = @_;
    return qr/WARNING:  triggers of the reverse feed stay on public\.$table, which belongs to others\nDETAIL:  They do nothing any more\. Its owner can drop them: (DROP TRIGGER redis_migrate_outbox_$id ON public\.$table; DROP TRIGGER redis_migrate_outbox_${id}_truncate ON public\.$table)\.$/m;
};
my $err = said($s);
like($err, $stay->('older', $id{strings}), 'a former target that another role owns');
is(triggers('older') . triggers('strings'), '22', 'its triggers stay');
is(as_superuser(q{SET ROLE other; INSERT INTO older VALUES ('9', 'x'); DELETE FROM older; SELECT count(*) FROM older}), '0', 'and hinder nobody');
my ($drop) = $err =~ $stay->('older', $id{strings});
as_superuser("SET ROLE other; $drop");
is(triggers('older'), '0', 'until their owner drops them');
is(said($s), '', 'nothing is said then');

# A drop that has to wait for a table too long has done nothing, and so warns of nothing.
as_superuser('ALTER TABLE more OWNER TO other');
my $reader = start_sql($node, 'BEGIN; SELECT count(*) FROM strings; SELECT pg_sleep(120)', name => 'reader');
wait_until('the reader', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reader' AND wait_event = 'PgSleep'}) eq '1' });
$err = said(q{\set VERBOSITY verbose
    SET lock_timeout = '500ms'; SELECT redis_migrate.drop_migration('live')});
like($err, qr/ERROR:  55P03/, 'a drop that waits for a reader fails');
unlike($err, qr/WARNING/, 'and warns of nothing');
is(triggers('strings') . triggers('more') . rows('SELECT count(*) FROM redis_migrate.migrations'), '221', 'all is as it was');
as_superuser(q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = 'reader'});
$reader->finish;

$err = said(q{SELECT redis_migrate.drop_migration('live')});
like($err, $stay->('more', $id{more}), 'the drop tells what stays');
like($err, qr/WARNING:  users of Redis stay without their rights to write: "app"/, 'of users, too');
unlike($err, qr/stay on public\.strings/, 'and nothing of its own table');
is(triggers('strings') . triggers('more') . rows('SELECT count(*) FROM redis_migrate.migrations'), '020', 'which has no triggers any more');
($drop) = $err =~ $stay->('more', $id{more});
is(as_superuser(qq{SET ROLE other; INSERT INTO more VALUES ('9'); $drop; SELECT count(*) FROM more WHERE id = '9'}), '1', 'they hinder nobody, and their owner drops them');

done_testing();
