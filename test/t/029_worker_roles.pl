# The roles of workers: roles as which no worker can work, roles that want all workers, and roles whose targets change
# hands.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use PrmTest;
use PrmTools;
use PrmWorkers;
use Test::More;

my $redis = start_redis();
fill($redis, 100);
my $proxy = PrmTools::Proxy->new($redis->port);
my $node = new_node('roles', preload => 1,
    conf => "pg_redis_migrate.databases = 'postgres'\npg_redis_migrate.max_workers = 5\nmax_worker_processes = 16");
$node->safe_psql('postgres', 'CREATE ROLE busy LOGIN; CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO busy, other');

# One role does not take all workers.
shop($node, "busy$_", $proxy->port, owner => 'busy') for 1 .. 5;
shop($node, 'other', $redis->port, owner => 'other');
$proxy->tell('hold');
my $warnings = '';
for my $i (1 .. 5) { $node->psql('postgres', "SELECT redis_migrate.start('busy$i')", stderr => \my $err); $warnings .= $err; }
is(() = $warnings =~ /waits for a worker: its owner has 3 of the 5 workers/g, 2, 'of five migrations of a role three run at a time');
$node->safe_psql('postgres', q{SELECT redis_migrate.start('other'); CALL redis_migrate.wait_for('other', '1 minute')});
is(compare($node, 'other', 100), '', 'another role is served meanwhile');
$proxy->tell('pass');
$node->safe_psql('postgres', "CALL redis_migrate.wait_for('busy$_', '1 minute')") for 1 .. 5;
is(job($node, 'busy5', 'state'), 'completed', 'and the others of the first role come after');

# Targets that change hands between a definition and a run: nothing of the new owner's runs before the migration's owner
# has confirmed it, whichever way the run begins.
sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }
create_server($node, 'trust', $redis);
$redis->cli('FLUSHALL');
$redis->cli('MSET', map { ("t:$_", "v$_") } 1 .. 60);
my $port = $node->port;
my $host = $node->host;
sql('CREATE ROLE runner LOGIN', 'CREATE ROLE mallory LOGIN', 'GRANT CREATE ON DATABASE postgres TO mallory',
    'GRANT USAGE ON FOREIGN SERVER trust TO runner', 'CREATE USER MAPPING FOR runner SERVER trust',
    'CREATE TABLE ran (who name, what text)', 'GRANT INSERT, SELECT ON ran TO PUBLIC',
    'CREATE EXTENSION postgres_fdw', "CREATE SERVER loopback FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres')",
    'GRANT USAGE ON FOREIGN SERVER loopback TO runner, mallory', q{CREATE USER MAPPING FOR runner SERVER loopback OPTIONS (user 'runner', password_required 'false')},
    'CREATE SCHEMA remote AUTHORIZATION runner', 'SET ROLE runner', 'CREATE TABLE remote.kv (id int PRIMARY KEY, value text)');
sql('GRANT CREATE ON SCHEMA public TO mallory');
sql('SET ROLE mallory', 'CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ran VALUES (current_user, TG_TABLE_NAME); RETURN NEW; END $$');

# The schema app, its table kv of the owner, with a trigger of mallory's if it is his.
my $columns = '(id int PRIMARY KEY, value text)';
sub make
{
    my ($owner, $create) = @_;
    return sql('DROP SCHEMA IF EXISTS app CASCADE', 'CREATE SCHEMA app AUTHORIZATION mallory', 'GRANT ALL ON SCHEMA app TO runner', "SET ROLE $owner",
        $create // "CREATE TABLE app.kv $columns", 'GRANT ALL ON app.kv TO PUBLIC',
        $owner eq 'mallory' ? 'CREATE TRIGGER note BEFORE INSERT ON app.kv FOR EACH ROW EXECUTE FUNCTION public.note()' : 'SELECT');
}
my $replaced = qr/ERROR:  55000: target app\.kv of mapping "kv" was replaced by one of another owner\nDETAIL:  It belonged to role "runner", and belongs to role "mallory" now\. .*\nHINT:  If that is intended: SELECT redis_migrate.alter_mapping\('trust', 'kv', trust_target => true\);/;
sub run_as_runner { return sql_error($node, "SET ROLE runner;\nSET pg_redis_migrate.batch_rows = 5;\nCALL redis_migrate.run('trust');"); }
sub untouched { return sql('SELECT count(*) FROM ran') . ' ' . sql('SELECT count(*) FROM app.kv'); }

make('runner');
sql('SET ROLE runner', q{SELECT redis_migrate.create_migration('trust', 'trust')},
    q{SELECT redis_migrate.add_mapping('trust', 'kv', 't:{id:int}', 'app.kv', 'SELECT id, value FROM redis_batch', '{id}')});
make('mallory');
sql('SET ROLE runner', q{SELECT redis_migrate.start('trust')});
like(sql_error($node, q{CALL redis_migrate.wait_for('trust', '1 minute')}), qr/ERROR:  .*the background run of migration "trust" failed: target app\.kv of mapping "kv" was replaced by one of another owner/, 'a background run on a table that was replaced fails');
like(job($node, 'trust', 'state, sqlstate, message'), qr/^failed\|55000\|target app\.kv of mapping "kv" was replaced by one of another owner$/, 'as shown');
is(untouched(), '0 0', 'nothing is written, and none of its triggers runs');

# A run that ended in the middle, by an error that is no row's.
make('runner');
sql('SET ROLE runner', q{CREATE FUNCTION app.halt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'halt' USING ERRCODE = 'query_canceled'; END $$},
    'CREATE TRIGGER halt BEFORE INSERT ON app.kv FOR EACH ROW WHEN (NEW.id = 30) EXECUTE FUNCTION app.halt()');
like(run_as_runner(), qr/ERROR:  57014: halt/, 'a run ends in the middle');
my $run_id = last_run($node, 'trust', 'run_id');
cmp_ok(last_run($node, 'trust', 'read'), '<', 60, 'so that it can be resumed');
make('mallory');
like(run_as_runner(), $replaced, 'what resumes it does not write to a table that was replaced meanwhile');
is(untouched(), '0 0', 'and runs none of its triggers');
like(sql_error($node, "SET ROLE runner;\n$_"), $replaced, "nor does $_")
    for q{CALL redis_migrate.verify('trust')}, q{SELECT redis_migrate.start_reverse('trust')};
is(untouched(), '0 0', 'which touch nothing, either');

# A schema of the same name, in which all is another's.
sql('DROP SCHEMA app CASCADE', 'SET ROLE mallory', 'CREATE SCHEMA app', "CREATE TABLE app.kv $columns", 'GRANT ALL ON SCHEMA app TO runner', 'GRANT ALL ON app.kv TO runner',
    'CREATE TRIGGER note BEFORE INSERT ON app.kv FOR EACH ROW EXECUTE FUNCTION public.note()');
like(run_as_runner(), $replaced, 'a table in a schema that was replaced is refused');
is(untouched(), '0 0', 'and not touched');
is(last_run($node, 'trust', 'run_id'), $run_id, 'it is still the same run');

# The owner confirms; the run goes on where it was.
sql('SET ROLE runner', q{SELECT redis_migrate.alter_mapping('trust', 'kv', trust_target => true)});
is(run_as_runner(), '', 'confirmed');
is(sql('SELECT count(*) > 0, count(DISTINCT who), min(who) FROM ran'), 't|1|runner', 'now they run, with the rights of the owner, as he said');
sql('TRUNCATE ran');

# A foreign table.
my $foreign = q{CREATE FOREIGN TABLE app.kv (id int NOT NULL, value text) SERVER loopback OPTIONS (schema_name 'remote', table_name 'kv')};
make('runner', $foreign);
sql('SET ROLE runner', q{SELECT redis_migrate.alter_mapping('trust', 'kv', trust_target => true)});
is(run_as_runner(), '', 'a foreign table is a target');
is(sql('SELECT count(*) FROM remote.kv'), 60, 'which takes the rows');
$run_id = last_run($node, 'trust', 'run_id');
$redis->cli('SET', 't:61', 'v61');
make('mallory', $foreign);
like(run_as_runner(), $replaced, 'one of another owner is not');
sql('SET ROLE runner', "CALL redis_migrate.undo_run($run_id)");
is(sql("SELECT DISTINCT reason FROM redis_migrate.undo_leftovers WHERE run_id = $run_id"),
    'target app.kv of mapping "kv" was replaced by one of another owner', 'a run into it is not undone');
is(sql('SELECT count(*) FROM ran') . ' ' . sql('SELECT count(*) FROM remote.kv'), '0 60', 'and nothing is written through it');

# A feed that runs when the table is replaced.
make('runner', "CREATE TABLE app.kv $columns PARTITION BY HASH (id); CREATE TABLE app.kv1 PARTITION OF app.kv FOR VALUES WITH (MODULUS 1, REMAINDER 0)");
sql('SET ROLE runner', q{SELECT redis_migrate.alter_mapping('trust', 'kv', trust_target => true, databases => '{0}')}, q{SELECT redis_migrate.start_reverse('trust')});
sub feed { return sql(q{SELECT state, sqlstate, message FROM redis_migrate.reverse_feeds WHERE migration = 'trust'}); }
wait_until('the feed runs', sub { feed() eq 'running||' });
sql('BEGIN', 'DROP TABLE app.kv CASCADE', 'SET ROLE mallory',
    q{CREATE FUNCTION app.spy() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ran VALUES (current_user, 'spy'); RETURN 1; END $$},
    q{CREATE VIEW app.kv AS SELECT app.spy() AS id, 'mine' AS value}, 'GRANT ALL ON app.kv TO runner', 'COMMIT');
wait_until('it ends', sub { feed() =~ /^failed/ });
like(feed(), qr/^failed\|55000\|target app\.kv of mapping "kv" was replaced by one of another owner$/, 'a feed does not read a table that was replaced');
is(sql('SELECT count(*) FROM ran'), '0', 'and calls no function of its new owner');
sql('SET ROLE runner', q{SELECT redis_migrate.stop_reverse('trust')});

# Restored elsewhere, where the table has another owner.
make('runner');
sql('SET ROLE runner', q{SELECT redis_migrate.alter_mapping('trust', 'kv', trust_target => true)});
sql('CREATE DATABASE copy');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$node->run_log([ 'pg_restore', '-d', $node->connstr('copy'), $dump ]);
$node->safe_psql('copy', 'ALTER TABLE app.kv OWNER TO mallory; GRANT ALL ON app.kv TO runner; CALL redis_migrate.resume_restored()');
my (undef, undef, $refused) = $node->psql('copy', q{SET ROLE runner; CALL redis_migrate.run('trust')});
like($refused, qr/ERROR:  target app\.kv of mapping "kv" was replaced by one of another owner\nDETAIL:  It belonged to role "runner", and belongs to role "mallory" now\./, 'a table that a restore gave to another role is refused');
is($node->safe_psql('copy', 'SELECT count(*) FROM app.kv'), 0, 'and not touched');
$node->safe_psql('copy', 'ALTER TABLE app.kv OWNER TO runner');
$node->safe_psql('copy', q{SET ROLE runner; CALL redis_migrate.run('trust')});
is($node->safe_psql('copy', 'SELECT count(*) FROM app.kv'), 61, 'its owner by name, whatever his number, needs no confirmation');

# Each way in which a role cannot work: told at definition, told by start, shown where a run was already wanted.
my $cannot = sub {
    my ($what, $break, $fix, $sqlstate, $message, $hint) = @_;
    $node->safe_psql('postgres', $break);
    my (undef, undef, $err) = $node->psql('postgres', q{SET ROLE other; SELECT redis_migrate.create_migration('m', 'other')},
        extra_params => [ '-v', 'VERBOSITY=verbose' ]);
    like($err, qr/WARNING: .*migration "m" cannot be run by a background worker: $message\nDETAIL: .*\nHINT:  \Q$hint\E/, "$what: told when a migration is created");
    like(sql_error($node, q{SELECT redis_migrate.start('other')}), qr/ERROR:  $sqlstate: migration "other" cannot be run in the background: $message\nDETAIL: .*\nHINT:  \Q$hint\E/, "$what: start refuses");
    # A run that is wanted already, as after a restart.
    $node->safe_psql('postgres', q{UPDATE redis_migrate.background_run SET wanted = true, state = 'starting', marked_at = NULL, sqlstate = NULL WHERE migration = 'other'});
    wait_until('it has failed', sub { job($node, 'other', 'state') eq 'failed' });
    like(job($node, 'other', 'wanted, sqlstate, message'), qr/^f\|$sqlstate\|$message$/, "$what: the run fails and says why");
    # A reverse feed.
    (undef, undef, $err) = $node->psql('postgres', q{SET ROLE other; SELECT redis_migrate.start_reverse('fed')});
    like($err, qr/WARNING: .*the reverse feed of migration "fed" cannot be run by a background worker: $message\nDETAIL: .*\nHINT:  \Q$hint\E/, "$what: told when a reverse feed is started");
    wait_until('the feed has failed', sub { $node->safe_psql('postgres', q{SELECT state FROM redis_migrate.reverse_feeds WHERE migration = 'fed'}) eq 'failed' });
    like($node->safe_psql('postgres', q{SELECT sqlstate, message FROM redis_migrate.reverse_feeds WHERE migration = 'fed'}), qr/^$sqlstate\|$message$/, "$what: the feed says why");
    $node->safe_psql('postgres', q{SET ROLE other; SELECT redis_migrate.stop_reverse('fed')});
    # A policy that is due.
    $node->safe_psql('postgres', q{UPDATE redis_migrate.job SET next_run = clock_timestamp(), failures = 0 WHERE name = 'public.sessions'});
    wait_until('the policy has failed', sub { $node->safe_psql('postgres', q{SELECT consecutive_failures > 0 FROM redis_migrate.expiry_stats WHERE target = 'public.sessions'}) eq 't' });
    like($node->safe_psql('postgres', q{SELECT last_sqlstate, next_run > clock_timestamp() - interval '1 second', last_message FROM redis_migrate.expiry_stats WHERE target = 'public.sessions'}),
        qr/^$sqlstate\|t\|$message$/, "$what: the policy says why and is tried again later");
    $node->safe_psql('postgres', "SET ROLE other; SELECT redis_migrate.drop_migration('m'); RESET ROLE; $fix");
    return;
};
$node->safe_psql('postgres', q{CREATE TABLE sessions (id int PRIMARY KEY, expires_at timestamptz); CREATE INDEX ON sessions (expires_at);
    ALTER TABLE sessions OWNER TO other; SET ROLE other; SELECT redis_migrate.add_expiry('sessions', 'expires_at', every => '1 hour')});
$node->safe_psql('postgres', q{SET ROLE other; CREATE TABLE fed (id text PRIMARY KEY, value text); SELECT redis_migrate.create_migration('fed', 'other');
    SELECT redis_migrate.add_mapping('fed', 'fed', 'f:{id}', 'fed', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')});
my $version = $node->safe_psql('postgres', q{SELECT current_setting('server_version_num')::int});
$cannot->('NOLOGIN', 'ALTER ROLE other NOLOGIN', 'ALTER ROLE other LOGIN', '28000', 'its owner, role "other", is not permitted to log in', 'ALTER ROLE other LOGIN;') if $version < 170000;
$cannot->('no CONNECT', 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC', 'GRANT CONNECT ON DATABASE postgres TO PUBLIC', '42501',
    'its owner, role "other", may not connect to database "postgres"', 'GRANT CONNECT ON DATABASE postgres TO other;');
$cannot->('read-only', 'ALTER ROLE other SET default_transaction_read_only = on', 'ALTER ROLE other RESET default_transaction_read_only', '25006',
    'transactions of its owner, role "other", are read-only by default', 'ALTER ROLE other SET default_transaction_read_only = off;');
$cannot->('read-only here', 'ALTER ROLE other IN DATABASE postgres SET default_transaction_read_only = true', 'ALTER ROLE other IN DATABASE postgres RESET ALL', '25006',
    'transactions of its owner, role "other", are read-only by default', 'ALTER ROLE other SET default_transaction_read_only = off;');

# A role that is dropped while a live run works as it.
sql('CREATE ROLE leaver LOGIN', 'GRANT USAGE ON FOREIGN SERVER trust TO leaver', 'CREATE USER MAPPING FOR leaver SERVER trust',
    'CREATE TABLE left_behind (id text PRIMARY KEY, value text)', 'ALTER TABLE left_behind OWNER TO leaver', 'SET ROLE leaver',
    q{SELECT redis_migrate.create_migration('leaving', 'trust', source => 'replication', databases => '{0}')},
    q{SELECT redis_migrate.add_mapping('leaving', 'm', 'x:{id}', 'left_behind', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}')},
    q{SELECT redis_migrate.start('leaving', live => true)});
wait_until('it follows', sub { sql(q{SELECT count(*) FROM redis_migrate.live_sync WHERE migration = 'leaving' AND applied_offset IS NOT NULL}) eq '1' });
sql('DROP OWNED BY leaver', 'DROP ROLE leaver');
wait_until('its worker is gone', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'redis_migrate%' AND usesysid IS NOT NULL AND usename IS NULL}) eq '0' && job($node, 'leaving', 'state') eq 'failed' });
like(job($node, 'leaving', 'wanted, sqlstate'), qr/^f\|(?:28000|42P01)$/, 'a live run whose owner was dropped fails, and its workers end');
sql(q{SELECT redis_migrate.drop_migration('leaving')});

# A role that a database gives its sessions is not that of its workers.
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET role = 'busy'});
$node->restart;
sub as_other { return sql('SET ROLE NONE', 'SET ROLE other', @_); }
as_other(q{INSERT INTO sessions VALUES (1, '2000-01-01')}, q{SELECT redis_migrate.resume_expiry('sessions')}, q{SELECT redis_migrate.start('other')},
    q{CALL redis_migrate.wait_for('other', '1 minute')});
ok(wait_until('the sweep', sub { as_other('SELECT count(*) FROM sessions') eq '0' }), 'workers act as the owner, whatever role other sessions begin with');
sql('SET ROLE NONE', 'ALTER DATABASE postgres RESET role');

# The more specific setting wins.
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET default_transaction_read_only = on; ALTER ROLE other SET default_transaction_read_only = off');
is($node->safe_psql('postgres', q{SET default_transaction_read_only = off; SELECT sqlstate FROM redis_migrate.worker_role_problem('other'::regrole)}), '', 'a setting of the role overrides that of the database');
is($node->safe_psql('postgres', q{SELECT sqlstate FROM redis_migrate.worker_role_problem('busy'::regrole)}), '25006', 'and that of the database counts for the others');
is($node->safe_psql('postgres', q{SELECT sqlstate, message FROM redis_migrate.worker_role_problem(4294967)}), '28000|its owner, role 4294967, was dropped', 'a role that is gone');
$node->stop('fast');

done_testing();
