# Cutover: a family changes hands while clients write, and afterwards the tables have everything that Redis has; or
# everything is as it was before.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Digest::SHA qw(sha256_hex);
use HostileRedis;
use IO::Select;
use IO::Socket::INET;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
# Whatever the default of the database: procedures and workers must see what others commit.
my $node = new_node('cutover', conf => "default_transaction_isolation = 'serializable'");
create_server($node, 'live', $redis);
$redis->cli('ACL', 'SETUSER', 'migrator', 'on', '>topsecret', '~*', '&*', '+@all');
$redis->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all', '-@dangerous', '+info');
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
rows(q{ALTER USER MAPPING FOR CURRENT_USER SERVER live OPTIONS (ADD username 'migrator', ADD password 'topsecret')});
create_live($node);
$redis->cli_lines(load_commands(2000, 100));
my $verify = q{SET client_min_messages = error; CALL redis_migrate.verify('live')};
sub state_of { my ($pattern) = @_; return rows("SELECT state FROM redis_migrate.families WHERE pattern = '$pattern'"); }
sub last_cutover { my ($columns) = @_; return rows("SELECT $columns FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1"); }
sub as_app { my (@command) = @_; return $redis->cli('--user', 'app', '--pass', 'app', '--no-auth-warning', @command); }
sub refused { my (@command) = @_; return eval { as_app(@command) } // $@; }
sub notices { my ($sql) = @_; my $err = ''; $node->psql('postgres', $sql, stderr => \$err); return $err; }

# Where a procedure needs a transaction of its own, it does not commit what the caller has written without a word.
rows(q{CREATE TABLE written (n int); CREATE PROCEDURE write_and_verify() LANGUAGE plpgsql AS 'BEGIN INSERT INTO written VALUES (1); CALL redis_migrate.verify($$live$$); END'});
like(sql_error($node, q{CALL write_and_verify()}), qr/ERROR:  25001: this procedure needs READ COMMITTED, and the transaction has written already\n/, 'a caller that has written');
is(rows('SELECT count(*) FROM written'), '0', 'is undone as a whole');

# Obstacles.
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed')}), qr/ERROR:  55000: migration "live" cannot be cut over now\nDETAIL:  Because live sync is not under way\.\nHINT:  SELECT redis_migrate.start/, 'not without live sync');
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}')}), qr/ERROR:  55000: migration "live" should not be cut over\nDETAIL:  Because no verification of late has proved that mappings "strings" are equal\./, 'nor without a verification');
rows($verify);
$redis->cli_lines(qq{SET s:bad "\\x00"\n});
is(wait_for($node), '', 'a key that the table does not take');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}')}), qr/ERROR:  55000: migration "live" should not be cut over\nDETAIL:  Because 1 keys are rejected\.\nHINT:  .*redis_migrate\.rejects/, 'nor while a key is rejected');
$redis->cli('DEL', 's:bad');
is(wait_for($node), '', 'it goes');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}', verified_within => '1 ms')}), qr/Because no verification of late/, 'an old one does not count');
rows(q{UPDATE strings SET value = 'other' WHERE id IN (SELECT id FROM strings ORDER BY id LIMIT 5)});  # a sample may miss one
rows($verify);
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}')}), qr/Because no verification of late/, 'nor one before another that found a difference');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 'h:{id}')}), qr/ERROR:  55000: the cutover of migration "live" would have no way back\nDETAIL:  Mapping "hashes": /, 'nor without a way back');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl')}), qr/22023: fence 'acl' needs the users/, 'acl needs users');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'kill', users => '{app}')}), qr/22023: users are only for fence 'acl'/, 'others do not');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'kill', pattern => 'nothing')}), qr/42704: migration "live" has no mapping of pattern nothing/, 'a pattern that is none');
like(sql_error($node, q{BEGIN; CALL redis_migrate.cutover('live', 'kill')}), qr/2D000/, 'not in a transaction block');
$redis->cli('ACL', 'SETUSER', 'migrator', '-client', '-acl');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', force => true)}), qr/ERROR:  42501: the user of this migration may not do at Redis at \S+ what a cutover does\nDETAIL:  Redis says: NOPERM .*\nHINT:  .*ACL SETUSER <user> \+client\|pause \+client\|unpause \+acl\|whoami \+acl\|getuser \+acl\|setuser\./, 'nor without the rights for it');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'kill', pattern => 's:{id}', force => true)}), qr/ACL SETUSER <user> \+client\|pause \+client\|unpause \+client\|kill\./, 'of each kind of fence');
$redis->cli('ACL', 'SETUSER', 'migrator', '+@all');
is(state_of('s:{id}'), 'redis', 'nothing has changed');
is(rows('SELECT count(*) FROM redis_migrate.cutovers'), '0', 'nor was anything begun');

# The keys that are compared under the pause show what verify was told to overlook.
my $err = sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', max_pause => '1 minute', force => true, no_way_back => true)});
like($err, qr/ERROR:  55000: [1-5] of \d+ keys are not as the tables have them\nDETAIL:  Mapping "strings", row \{.*\}: different in column "value"/, 'a difference undoes it');
is(last_cutover('state, step, sqlstate'), 'undone|comparing|55000', 'which is recorded');
is(rows(q{SELECT string_agg(state, ' ' ORDER BY change_id) FROM redis_migrate.family_changes}), 'cutting redis', 'as are the states');
cmp_ok(elapsed(sub { is(as_app('SET', 's:app', '1'), 'OK', 'writers go on') }), '<', 10, 'at once');
$redis->cli('SET', "s:$_", 'new') for split /\n/, rows('SELECT id FROM strings ORDER BY id LIMIT 5');
is(wait_for($node), '', 'the difference goes');
rows($verify);

# It is handed over while clients write.
my $load = start_load($redis, 100, 0.01);
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{migrator}')}), qr/22023: "migrator" is the user with whom this migration connects to Redis/, 'its own user is not fenced');
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{nobody}')}), qr/42704: Redis at .* has no user "nobody"/, 'nor one who does not exist');
for my $case ([ "-\@all \xff", '' ], [ '-@all +TopSecret', qr/\nDETAIL:  The rules contain the password of the migration's own user/ ])
{
    my ($commands, $detail) = @$case;
    my $answer = "*2\r\n\$8\r\ncommands\r\n\$" . length($commands) . "\r\n$commands\r\n";
    my $hostile = HostileRedis->new($redis->port, sub { return uc(join ' ', grep { defined } @_[1, 2]) eq 'ACL GETUSER' ? $answer : undef; });
    rows("ALTER SERVER live OPTIONS (SET port '" . $hostile->port . "')");
    like(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}')}), qr/08P01: Redis at .* answered ACL GETUSER in an unknown form$detail/, 'rules that are none are not kept');
}
# An answer other than OK does not tell what was done.
for my $case ([ 'CLIENT PAUSE', ":1\r\n" ], [ 'CLIENT PAUSE', "\$-1\r\n" ], [ 'ACL SETUSER', "*0\r\n" ])
{
    my ($command, $answer) = @$case;
    my $doubtful = HostileRedis->new($redis->port, sub { return uc(join ' ', grep { defined } @_[1, 2]) eq $command && !grep({ $_ eq '?' } @_) ? $answer : undef; });
    rows("ALTER SERVER live OPTIONS (SET port '" . $doubtful->port . "')");
    like(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', max_pause => '30 s')}), qr/08P01: Redis at .* answered $command in an unknown form/, "$command without OK");
    is(state_of('s:{id}'), 'redis', 'nothing changes hands');
}
rows("ALTER SERVER live OPTIONS (SET port '" . $redis->port . "')");
$err = notices(q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app,default}', max_pause => '20 s')});
like($err, qr/NOTICE:  cutover \d+ of migration "live": s:\{id\} is now in state postgres; writes were held back for \d+ ms/, 'cutover');
$load->finish;
is(last_cutover('state, step, fence, users, to_state'), 'completed|resuming|acl|{app,default}|postgres', 'it is recorded');
cmp_ok(last_cutover('keys_compared'), '>', 50, 'keys were compared');
like(rows(q{SELECT redis_migrate.report('live')}), qr/\nCutovers\n.*\n.*\n +\d+ +postgres +completed +[\d-]+ [\d:]+ +[\d.]+ +[\d.]+ +\d+ +s:\{id\}\n.* undone /, 'the report has its times, and those of earlier ones');
cmp_ok(last_cutover('paused_ms'), '<', 10000, 'the pause ended before its time');
is(state_of('s:{id}') . state_of('h:{id}'), 'postgresredis', 'one family has changed hands');
like(refused('SET', 's:app', '2'), qr/NOPERM/, 'its writers are fenced');
is(as_app('GET', 's:app'), '1', 'and may read');
like(refused('EVAL', q{return redis.call('SET', 's:app', '2')}, 0), qr/NOPERM|can't run this command|no permissions to run/, 'scripts, too');
is(wait_for($node) . differences($node, $redis), '', 'the tables have all that Redis has: nothing was written between');
my $secrets = join '|', map { ($_, unpack 'H*', $_) } 'topsecret', map { sha256_hex($_) } 'app', 'topsecret';
my @tables = split /\n/, rows(q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'redis_migrate'::regnamespace AND relkind = 'r'});
is(rows(join(' UNION ALL ', map { "SELECT '$_' FROM $_ AS t WHERE t::text ~* '$secrets'" } @tables)), '', 'no table has a password of a user, or its hash');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ s/^.*(?:USER MAPPING|SELECT 'redis_migrate).*\n(?:\t.*\n)*//mgr, qr/$secrets/i, 'nor has the log');
$err = sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}')});
like($err, qr/ERROR:  55000: family s:\{id\} of migration "live" is in state postgres/, 'it is not cut over twice');

# A run, a start and a prune leave its rows alone.
rows(q{UPDATE strings SET value = 'mine'});
rows(q{SELECT redis_migrate.stop('live')});
rows(q{SET client_min_messages = error; CALL redis_migrate.run('live', source => 'scan', prune => true)});
my $holder = start_sql($node, 'BEGIN; LOCK TABLE redis_migrate.run IN SHARE MODE; SELECT pg_sleep(60)', name => 'holder');
wait_until('the lock', sub { rows(q{SELECT count(*) FROM pg_locks WHERE relation = 'redis_migrate.run'::regclass AND mode = 'ShareLock' AND granted}) eq '1' });
rows(q{SELECT redis_migrate.start('live', live => true)});
like(sql_error($node, q{CALL redis_migrate.wait_for('live', '0.5 s')}), qr/57014: migration "live" is not in step yet/, 'what an earlier run has applied does not count');
rows(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'});
undef $holder;
is(wait_for($node), '', 'live sync goes on');
is(rows('SELECT min(value), max(value) FROM strings'), 'mine|mine', 'a run, a prune and a start leave its rows alone');

# The pause ends by itself, and time that is up undoes everything.
$redis->cli('--user', 'migrator', '--pass', 'topsecret', '--no-auth-warning', 'ACL', 'SETUSER', 'default', '+@all');
$redis->cli('SET', 's:late', '1');
is(wait_for($node), '', 'a late write');
like(rows(q{SELECT redis_migrate.report('live')}), qr/\nLate writes: \d+ keys are not settled$/m, 'is in the report');
rows(q{SELECT redis_migrate.settle_late_writes('live')});
rows($verify);
my $held = hold_worker($node, 'migration', idle => 1);
$redis->cli('SET', 's:more', '1');
$err = sql_error($node, q{CALL redis_migrate.cutover('live', 'kill', pattern => 'h:{id}', no_way_back => true, max_pause => '1 s')});
like($err, qr/ERROR:  57014: live sync did not apply all changes in time/, 'live sync that is behind stops it before the pause');
$held->release;
is(wait_for($node), '', 'live sync goes on');
# Connections are closed with what they have sent: a write that waits for the end of the pause is not executed.
my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $redis->port) or die "connect: $!\n";
sub answer { my $bytes; return !IO::Select->new($client)->can_read(10) ? '' : sysread($client, $bytes, 100) ? $bytes : 'closed'; }
syswrite $client, "AUTH migrator topsecret\r\n";
is(answer(), "+OK\r\n", 'a client');
# Once it is committed, nobody who cancels it is told that nothing has changed.
my $cancelling = HostileRedis->new($redis->port, sub {
    local $SIG{CHLD} = 'DEFAULT';
    my $command = uc join ' ', map { $_ // '' } @_[ 1 .. 4 ];
    if ($command eq 'CLIENT KILL TYPE NORMAL') { syswrite $client, "HSET h:waiting f 1\r\n"; usleep(100_000); }
    rows(q{SELECT pg_cancel_backend(pid) FROM redis_migrate.cutover WHERE state = 'running' AND step = 'resuming'}) if $command =~ /^CLIENT UNPAUSE/;
    return undef;
});
rows("ALTER SERVER live OPTIONS (SET port '" . $cancelling->port . "')");
my $told = notices(q{CALL redis_migrate.cutover('live', 'kill', pattern => 'h:{id}', no_way_back => true, max_pause => '30 s')});
like($told, qr/h:\{id\} is now in state postgres/, 'a cutover that closes connections');
is(answer() . $redis->cli('EXISTS', 'h:waiting'), 'closed0', 'has closed that of the client, whose write has not come');
unlike($told, qr/ERROR/, 'and nobody is told otherwise');
rows("ALTER SERVER live OPTIONS (SET port '" . $redis->port . "')");
is(wait_for($node), '', 'also those of live sync, which goes on');

# Keys that never hold still are compared while writes are held back.
my $hot = fork() // die;
exec 'sh', '-c', 'exec "$@" >/dev/null', 'sh', 'timeout', '120', $redis->_cli, '--user', 'migrator', '--pass', 'topsecret', '--no-auth-warning', '-r', '100000', '-i', '0.002', 'EVAL', q{for i = 1, 20 do redis.call('ZINCRBY', 'z:hot' .. i, 1, 'm') end}, '0' if $hot == 0;
wait_until('a verification that meets them', sub { rows($verify); rows(q{SELECT cardinality(reasons) = 1 AND reasons[1] ~ 'never held still' FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT 1}) eq 't' });
is(rows(q{SELECT verified FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT 1}), 'f', 'does not verify them');
my $over_hot = q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 'z:{id}', no_way_back => true, max_pause => '10 s', compare_keys => };
like(sql_error($node, $over_hot . '0)'), qr/55000: .*\nDETAIL:  Because \d+ keys never held still while they were verified, and compare_keys are fewer/, 'they have to be compared');
like(notices($over_hot . '500)'), qr/z:\{id\} is now in state postgres/, 'a cutover compares them');
kill 'TERM', $hot;
waitpid $hot, 0;

done_testing();
