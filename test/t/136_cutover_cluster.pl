# Cutover of a cluster: writes to all masters are held back, and the writers are fenced on each.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use POSIX ();
use RedisNodes;
use Test::More;

my $cluster = start_cluster(masters => 3, replicas => 0);
my $node = new_node('cutover', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nmax_worker_processes = 20\npg_redis_migrate.max_workers = 12");
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
my @masters = map { $_->{node} } $cluster->masters;
for my $master (@masters)
{
    $master->cli('ACL', 'SETUSER', 'migrator', 'on', '>secret', '~*', '&*', '+@all');
    $master->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all');
}
my $seeds = join ', ', map { '127.0.0.1:' . $_->port } @masters;
rows(qq{CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on'); CREATE USER MAPPING FOR PUBLIC SERVER live OPTIONS (username 'migrator', password 'secret')});
create_live($node);

# Sends commands as the application, one a line, following redirects.
sub send_lines
{
    my ($lines) = @_;
    my $out = '';
    IPC::Run::run([ 'redis-cli', '-c', '--user', 'app', '--pass', 'app', '--no-auth-warning', '-p', $masters[0]->port ], '<', \$lines, '>', \$out, '2>&1');
    return $out;
}
send_lines(load_commands(1000, 80));
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live', source => 'scan')});
like(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}')}), qr/ERROR:  55000: .* would have no way back\nDETAIL:  Mapping "strings": the server is a Redis Cluster, to which no reverse feed writes\.\nHINT:  .*no_way_back => true/, 'nothing brings changes back to a cluster, which is said before');
like(sql_error($node, q{SELECT redis_migrate.start_reverse('live', 's:{id}')}), qr/55000: .*the server is a Redis Cluster/, 'start_reverse says so, too');
my $pid = fork() // die "fork: $!\n";
if ($pid == 0) { my $ended = 0; $SIG{TERM} = sub { $ended = 1 }; srand $$; while (!$ended) { eval { send_lines(load_commands(100, 80)) }; } POSIX::_exit(0); }
my $load = bless { pid => $pid }, 'PrmLive::Load';
is(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', max_pause => '10 s', no_way_back => true)}), '', 'cutover while clients write');
$load->finish;
is(rows(q{SELECT state, users FROM redis_migrate.cutovers}), 'completed|{app}', 'it is recorded');
is(rows(q{SELECT count(DISTINCT node) FROM redis_migrate.fenced_user}), '3', 'with the rules of each master');
cmp_ok(rows(q{SELECT keys_compared FROM redis_migrate.cutovers}), '>', 30, 'keys of all masters were compared');
my @refused = (send_lines(join '', map { "SET s:$_ late\n" } 1 .. 30) =~ /NOPERM/g);
is(scalar @refused, 30, 'writers are fenced on all of them');
is(wait_for($node) . differences($node, @masters), '', 'and nothing was written between');
# A master that does not tell of its users keeps nobody from looking at the others.
my @fenced = map { $_->cli('ACL', 'GETUSER', 'app') } @masters;
$masters[0]->cli('ACL', 'SETUSER', 'migrator', '-acl|getuser');
$_->cli('ACL', 'SETUSER', 'app', '+@all') for @masters[1, 2];
# As after a restart. A look in between would take the rules for somebody's wish.
wait_until('the fences of the others', sub { rows(q{UPDATE redis_migrate.fenced_user SET run_id = 'earlier', trouble = NULL}); return $masters[1]->cli('ACL', 'GETUSER', 'app') eq $fenced[1] && $masters[2]->cli('ACL', 'GETUSER', 'app') eq $fenced[2] });
wait_until('it is told', sub { slurp_file($node->logfile) =~ /WARNING:  the fences of users of Redis cannot be looked at: Redis at \S+ refused command "ACL"/ });
pass('one master refuses, and the others are looked at');
$masters[0]->cli('ACL', 'SETUSER', 'migrator', '+@all');
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), qr/ERROR:  55000: no reverse feed writes mappings "strings" back to Redis\nDETAIL:  .*\nMapping "strings": the server is a Redis Cluster.*\nHINT:  discard_changes => true/, 'what does not exist is not advised');
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}', discard_changes => true)}), '', 'cutback');
unlike(send_lines(join '', map { "SET s:$_ back\n" } 1 .. 30), qr/NOPERM/, 'gives the rights back on all of them');
is(wait_for($node) . differences($node, @masters), '', 'and live sync follows');

# A cutover that fails is undone at every master that lets it, whatever happens at others.
my @rules = map { $_->cli('ACL', 'GETUSER', 'app') } @masters;
rows(q{CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(1); RAISE EXCEPTION $$no$$; END';
    CREATE TRIGGER fail BEFORE INSERT ON redis_migrate.family_change FOR EACH ROW WHEN (NEW.state = 'postgres') EXECUTE FUNCTION fail()});
my $call = start_sql($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', max_pause => '10 s', no_way_back => true, force => true)}, name => 'cutover');
wait_until('the fence', sub { $masters[0]->cli('ACL', 'GETUSER', 'app') =~ /-\@write/ && $masters[1]->cli('ACL', 'GETUSER', 'app') =~ /-\@write/ });
$masters[0]->cli('ACL', 'SETUSER', 'migrator', '-acl|setuser');
$call->finish;
like(join('', $call->output), qr/ERROR:  42501: cutover \d+ of migration "live" cannot be undone yet: .*\n.*DETAIL:  Users of Redis may lack their rights to write\. It failed because of this: no/s, 'one master refuses');
is(join(' ', map { $masters[$_]->cli('ACL', 'GETUSER', 'app') eq $rules[$_] ? 'back' : 'fenced' } 0 .. 2), 'fenced back back', 'the others have it undone');
cmp_ok(elapsed(sub { ok(scalar(grep { (eval { $masters[2]->cli('SET', "k$_", '1') } // '') eq 'OK' } 1 .. 20), 'and take writes') }), '<', 5, 'at once');
$masters[0]->cli('ACL', 'SETUSER', 'migrator', '+acl|setuser');
is(sql_error($node, q{CALL redis_migrate.undo_cutover('live')}), '', 'then it is undone there, too');
is($masters[0]->cli('ACL', 'GETUSER', 'app') . rows(q{SELECT state FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1}), "$rules[0]undone", 'for good');

done_testing();
