# Cutover of a cluster: writes to all masters are held back, and the writers are fenced on each. The way back: the reverse
# feed writes to all masters while slots move and a master fails.

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
use Time::HiRes qw(usleep);

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
my $pid = fork() // die "fork: $!\n";
if ($pid == 0) { my $ended = 0; $SIG{TERM} = sub { $ended = 1 }; srand $$; while (!$ended) { eval { send_lines(load_commands(100, 80)) }; } POSIX::_exit(0); }
my $load = bless { pid => $pid }, 'PrmLive::Load';
is(sql_error($node, q{CALL redis_migrate.cutover('live', 'acl', pattern => 's:{id}', users => '{app}', max_pause => '10 s')}), '', 'cutover while clients write');
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
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), qr/ERROR:  55000: no reverse feed writes mappings "strings" back to Redis\nDETAIL:  .*\nHINT:  SELECT redis_migrate.start_reverse/, 'no way back without a reverse feed');

# The feed: at first all rows, and no key that has none.
sub drained { my ($what) = @_; return wait_until("$what: all is sent", sub { rows(q{SELECT state = 'running' AND waiting = 0 AND NOT needs_full FROM redis_migrate.reverse_feeds}) eq 't' }); }
sub owner_of { my ($key) = @_; my ($master) = grep { $_->{slots}{ RedisNodes::Cluster::slot($key) } } $cluster->masters; return $master; }
sub compared { return differences($node, map { $_->{node} } $cluster->masters); }
sub open_late_writes { return rows(q{SELECT coalesce(string_agg(key || ' ' || kind, ' '), '') FROM redis_migrate.late_writes WHERE settled_at IS NULL}); }
rows(q{INSERT INTO strings SELECT 'new' || i, i FROM generate_series(1, 200) AS i; DELETE FROM strings WHERE id ~ '^[1-3].$'; UPDATE strings SET value = 'mine' WHERE id ~ '^[4-5].$'});
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}')});
drained('the first pass');
is(compared(), '', 'all rows are written to a cluster, and keys without rows are gone');
is(wait_for($node) . open_late_writes(), '', 'what the reverse feed writes is no late write');
my $key = 's:1';
my $writes = 0;
wait_until('the late write', sub { owner_of($key)->{node}->cli('SET', $key, 'late ' . ++$writes); return open_late_writes() ne ''; });
is(open_late_writes(), "$key written", 'a key that somebody goes on writing to is a late write at once');
cmp_ok($writes, '<', 20, "after $writes writes");
rows(q{SELECT redis_migrate.settle_late_writes('live')}) if wait_for($node) eq '';
rows(q{UPDATE strings SET value = value WHERE id = '1'});
drained('the late write');
like(rows(q{SET client_min_messages = error; CALL redis_migrate.check_reverse('live', 's:{id}', 1000)}), qr/^[1-9]\d+\|0$/, 'the round trip');

# Changes flow back while slots move, and a master fails.
my ($victim) = $cluster->masters;
my $heir = $cluster->add_replica($victim);
$heir->cli('ACL', 'SETUSER', 'migrator', 'on', '>secret', '~*', '&*', '+@all');
$heir->cli('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all');
my $changes = q{
    DO $$
    BEGIN
        FOR n IN 1 .. 100000 LOOP
            INSERT INTO strings VALUES ('k' || n % 97, n, CASE WHEN n % 3 = 0 THEN timestamptz '2100-01-01' + n * interval '1 s' END)
            ON CONFLICT (id) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at;
            IF n % 5 = 0 THEN DELETE FROM strings WHERE id = 'k' || (n / 5) % 97; END IF;
            COMMIT;
            PERFORM pg_sleep(0.002);
        END LOOP;
    END $$};
my $writer = start_sql($node, $changes, name => 'writer');
for my $key (map { "s:k$_" } 1 .. 6)
{
    my $of = owner_of($key);
    my ($to) = grep { $_->{id} ne $of->{id} } $cluster->masters;
    $cluster->begin_move(RedisNodes::Cluster::slot($key), $of, $to, half => 1);
    select undef, undef, undef, 0.1;
    $cluster->finish_move(RedisNodes::Cluster::slot($key), $of, $to);
}
# The last of these keys is written before the feed has to wait.
my $sent = rows(q{SELECT sent FROM redis_migrate.reverse_feeds});
wait_until('the feed to write what has moved', sub { rows('SELECT sent FROM redis_migrate.reverse_feeds') > $sent + 200 });
$sent = rows(q{SELECT sent FROM redis_migrate.reverse_feeds});
$victim->{node}->kill9;
wait_until('the fail-over', sub { (eval { $heir->cli('INFO', 'replication') } // '') =~ /role:master/ });
$cluster->wait_until_agreed;
@masters = map { $_->{node} } $cluster->masters;
wait_until('the feed to go on', sub { rows('SELECT sent FROM redis_migrate.reverse_feeds') > $sent + 100 });
rows(q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = 'writer'});
undef $writer;
drained('changes');
is(compared(), '', 'every key is what its row says');
is(wait_for($node) . open_late_writes(), '', 'slots that moved bring no late writes');

# A move that is not completed holds up the changes of its slot alone, and keeps no feed from starting.
rows(q{INSERT INTO strings SELECT '{open}' || i, i FROM generate_series(1, 9) AS i});
rows(q{SELECT redis_migrate.set_reverse_query('live', 'strings', 'SELECT id, $$string$$ AS type, CASE WHEN value ~ $$^bad$$ THEN (1 / (expires_at IS NOT NULL)::int)::text ELSE value END AS value, expires_at FROM redis_rows')});
wait_until('rows that cannot be written back', sub { rows(q{UPDATE strings SET value = 'bad' WHERE id IN ('{open}8', '{open}9')}); rows('SELECT string_agg(key, $$ $$ ORDER BY key) FROM redis_migrate.reverse_rejects') eq 's:{open}8 s:{open}9' });
drained('rows of one slot');
my @move = (RedisNodes::Cluster::slot('open'), owner_of('s:{open}'), (grep { !$_->{slots}{ RedisNodes::Cluster::slot('open') } } $cluster->masters)[0]);
my %without_rows = map { ($_ => owner_of($_)->{node}) } 's:stale', 's:{open}stale';
$without_rows{$_}->cli('SET', $_, 'x') for keys %without_rows;
$cluster->begin_move(@move);
# Changes that become visible when those behind them have been passed over are sent, too.
my $late = start_sql($node, q{BEGIN; INSERT INTO strings VALUES ('late', 'late'); SELECT pg_sleep(2); COMMIT}, name => 'late');
wait_until('the open transaction', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'late' AND wait_event = 'PgSleep'}) eq '1' });
rows(q{INSERT INTO strings SELECT 'many' || i, i FROM generate_series(1, 1500) AS i});
rows(q{UPDATE strings SET value = 'many' WHERE id ~ 'open' OR id ~ 'many'}), usleep(200_000) for 1 .. 12;
$late->finish;
wait_until('changes that became visible late', sub { owner_of('s:late')->{node}->cli('GET', 's:late') eq 'late' });
rows(q{SELECT pg_terminate_backend(pid, 20000) FROM redis_migrate.workers WHERE kind = 'reverse feed'});
rows(q{UPDATE strings SET value = 'open' WHERE id ~ 'open|new' AND id !~ '3'; DELETE FROM strings WHERE id ~ 'open.*3'; INSERT INTO strings VALUES ('{open}0', 'new')});
sub are_others_written { return !grep { owner_of("s:new$_")->{node}->cli('GET', "s:new$_") ne 'open' } 1, 2, 24; }
wait_until('changes of other slots', \&are_others_written);
wait_until('what waits', sub { rows(q{SELECT f.waiting = count(s.id) + 1 AND f.sqlstate = '57P03' FROM redis_migrate.reverse_feeds AS f, strings AS s WHERE s.id ~ 'open' GROUP BY f.waiting, f.sqlstate}) eq 't' });
like(rows('SELECT message FROM redis_migrate.reverse_feeds'), qr/^changes of slots $move[0] of the cluster wait: Redis at \S+ refused command "\w+"$/, 'it is told which');
rows(q{UPDATE strings SET value = 'again' WHERE id = '{open}1'; UPDATE strings SET value = 'open' WHERE id ~ 'new.*3'});
wait_until('later changes of other slots', sub { owner_of('s:new3')->{node}->cli('GET', 's:new3') eq 'open' });
# Nor does it hold up a pass over all rows.
my $pass = q{INSERT INTO redis_migrate.outbox_gap (mapping_id, reason) SELECT mapping_id, 'a test' FROM redis_migrate.reverse_mapping};
rows($pass);
wait_until('keys without rows', sub { $without_rows{'s:stale'}->cli('EXISTS', 's:stale') eq '0' });
wait_until('what is left', sub { rows(q{SELECT message FROM redis_migrate.reverse_feeds WHERE needs_full AND state = 'failed'}) =~ /^changes of slots $move[0] of the cluster wait: .*; keys without rows are not looked for yet: slots $move[0] of the cluster are being moved$/ });
my $sets = sub { my $count = 0; $count += $_->cli('INFO', 'commandstats') =~ /cmdstat_set:calls=(\d+)/ ? $1 : 0 for @masters; return $count; };
my $sets_before = $sets->();
rows(q{UPDATE strings SET value = 'beside' WHERE id = 'new5'});
wait_until('changes beside it', sub { owner_of('s:new5')->{node}->cli('GET', 's:new5') eq 'beside' });
usleep(1_500_000);
cmp_ok($sets->() - $sets_before, '<', 500, 'the rows are not written over and over');
# What waits of rows that were rejected is their newest state.
rows(q{UPDATE strings SET value = 'well' WHERE id ~ 'open.[89]'; UPDATE strings SET value = 'better' WHERE id = '{open}8'; UPDATE strings SET value = 'bad' WHERE id = '{open}9'});
$cluster->finish_move(@move);
drained('the end of the move');
is(rows('SELECT string_agg(key, $$ $$) FROM redis_migrate.reverse_rejects'), 's:{open}9', 'a row that was rejected before the move is written with its newest value');
is(owner_of('s:{open}stale')->{node}->cli('EXISTS', 's:{open}stale'), '0', 'what was left is looked for');
rows(q{UPDATE strings SET value = 'good' WHERE id = '{open}9'});
drained('the other');
is(compared(), '', 'then all are written, too');
rows(q{SELECT redis_migrate.set_reverse_query('live', 'strings', NULL)});
is(wait_for($node) . rows(q{SELECT coalesce(string_agg(key || ' ' || kind, ' '), '') FROM redis_migrate.late_writes WHERE settled_at IS NULL AND key !~ 'stale'}), '', 'and bring no late writes');
rows(q{SELECT redis_migrate.settle_late_writes('live')});

# Somebody writes a position, and a master loses what it had.
sub position_of { my ($key) = @_; my $tag = 0; ++$tag while RedisNodes::Cluster::slot($tag) != RedisNodes::Cluster::slot($key); return "redis_migrate:position:{$tag}:live"; }
owner_of('s:new1')->{node}->cli('SET', position_of('s:new1'), rows(q{SELECT instance || ':0' FROM redis_migrate.reverse_feed}));
owner_of('s:new2')->{node}->cli('DEL', 's:new2');
rows(q{UPDATE strings SET value = 'again' WHERE id = 'new1'});
wait_until('the key is back', sub { owner_of('s:new2')->{node}->cli('GET', 's:new2') eq 'open' });
drained('a position that is older than what was confirmed');
is(compared(), '', 'all rows are written again');
rows(q{SELECT redis_migrate.settle_late_writes('live')}) if wait_for($node) eq '';

# A slot that has neither rows nor keys has lost its position.
rows(q{INSERT INTO strings VALUES ('once', 1)});
drained('a row');
rows(q{DELETE FROM strings WHERE id = 'once'});
drained('its end');
my $once = owner_of('s:once')->{node};
$once->cli('DEL', position_of('s:once'));
my @gaps = rows(my $gaps = q{SELECT last_value FROM redis_migrate.outbox_gap_gap_id_seq});
for my $start (1, 2)
{
    rows(q{SELECT pg_terminate_backend(pid, 20000) FROM redis_migrate.workers WHERE kind = 'reverse feed'});
    rows(q{UPDATE strings SET value = value WHERE id = 'new3'});
    drained("start $start");
    push @gaps, rows($gaps);
}
cmp_ok($gaps[1], '>', $gaps[0], 'the feed finds that when it starts');
is($gaps[2], $gaps[1], 'and only once');

# An ended feed has left a batch on its way to that slot, and one of its masters loses what it had, while nothing is written.
my $slot = RedisNodes::Cluster::slot('s:once');
rows("UPDATE redis_migrate.reverse_feed SET slots = '$slot'");
rows(q{UPDATE strings SET value = value WHERE id = 'new3'});
drained('a batch of another slot');
is(rows('SELECT slots, batch = acknowledged FROM redis_migrate.reverse_feed'), "$slot|t", 'leaves the earlier one open');
owner_of('s:new2')->{node}->cli('DEL', 's:new2', position_of('s:new2'));
wait_until('live sync to see it', sub { open_late_writes() eq 's:new2 deleted' });
rows(q{SELECT redis_migrate.settle_late_writes('live')});
is(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 's:{id}')}), '', 'cutback');
is(compared(), '', 'Redis has everything');
is($once->cli('GET', position_of('s:once')), rows(q{SELECT instance || ':' || batch FROM redis_migrate.reverse_feed}), 'and the batch is ended');
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

# The positions go with the feed.
my $positions = sub { my $count = 0; $count += grep { /^redis_migrate:position:/ } split /\n/, $_->cli('KEYS', 'redis_migrate:*') for @masters; return $count; };
cmp_ok($positions->(), '>', 100, 'many slots have positions');
rows(q{SELECT redis_migrate.stop_reverse('live')});
wait_until('the end of the feed', sub { $positions->() == 0 });
is(rows(q{SELECT f.state, f.acknowledged, (SELECT count(*) FROM redis_migrate.reverse_slot) FROM redis_migrate.reverse_feed AS f}) . wait_for($node) . open_late_writes(), 'stopped|0|0', 'a feed that is stopped removes its positions, which is no late write');

done_testing();
