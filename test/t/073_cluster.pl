# A Redis Cluster: every master is read, also when slots move and nodes fail in the middle of a run.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

use constant KEYS => 9000;

my $node = new_node('cluster', conf => "pg_redis_migrate.batch_rows = 200\nlog_statement = none");
my $cluster = start_cluster(masters => 3, replicas => 1);
my %values = map { ("k:$_" => "value $_") } 1 .. KEYS;
$cluster->set(%values);
my @masters = $cluster->masters;
my $dead = PostgreSQL::Test::Cluster::get_free_port();
my @seeds = ($dead, map { $_->{node}->port } @masters);
my $seeds = join ', ', map { "127.0.0.1:$_" } @seeds;

$node->safe_psql('postgres', qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on');
    CREATE TABLE item (id bigint PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'm', 'k:{id:int}', 'item', 'SELECT id, value AS v FROM redis_batch',
        key_columns => '{id}', databases => '{0}', exclusive => true);});

sub missing
{
    return $node->safe_psql('postgres',
        'SELECT count(*) FROM generate_series(1, ' . KEYS . q{) AS i LEFT JOIN item ON id = i WHERE v IS DISTINCT FROM 'value ' || i});
}

sub stored { return $node->safe_psql('postgres', 'SELECT count(*) FROM item'); }

# The id of the node that the run reads now, and the slots that are done, by its position.
sub position { return last_run($node, 'shop', 'position'); }
sub reads { my ($id) = @_; return position() =~ / node=$id /; }

# Stops a run when it has come to a node: its next batch finds the table locked. Returns what lets it go on.
sub hold_at
{
    my ($id) = @_;
    wait_until('the node', sub { reads($id) });
    my $lock = start_sql($node, 'BEGIN; LOCK TABLE item; SELECT pg_sleep(100);', name => 'lock');
    wait_until('the lock', sub {
        $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass AND mode = 'AccessExclusiveLock' AND granted}) });
    return sub {
        $node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'});
        $lock->finish; };
}

sub empty { $node->safe_psql('postgres', 'TRUNCATE item'); return; }

# A quiet cluster: what was read is what there is.
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop', workers => 1)});
is(last_run($node, 'shop', 'state, read, migrated, balanced'), 'completed|' . $cluster->dbsize . '|' . KEYS . '|t',
    'read is the sum of DBSIZE of the masters');
is(missing(), 0, 'every key is there');

# The rows of preflight about the nodes.
my $report = $node->safe_psql('postgres', q{SELECT check_name, status, detail FROM redis_migrate.preflight('shop')});
like($report, qr/^cluster\|ok\|3 masters and 3 replicas/m, 'preflight counts the nodes');
like($report, qr/^databases\|ok\|127\.0\.0\.1:$_: db0: \d+ keys/m, "and looks at each: $_") for map { $_->{node}->port } @masters;
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.preflight('shop') WHERE status <> 'ok'}), 0, 'and is content');

# Servers that are not what the option says.
my $plain = start_redis();
my ($plain_port, $node_port) = ($plain->port, $masters[1]{node}->port);
$node->safe_psql('postgres', qq{
    CREATE SERVER plain FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$plain_port', cluster 'on');
    CREATE SERVER one FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$node_port');
    SELECT redis_migrate.create_migration('plain', 'plain');
    SELECT redis_migrate.create_migration('one', 'one');
    SELECT redis_migrate.create_migration('other_db', 'shop', databases => '{0,1}');});
like(sql_error($node, q{CALL redis_migrate.run('plain')}), qr/22023: Redis at 127\.0\.0\.1:$plain_port is not a node of a cluster\nHINT:  Drop the server's option cluster/, 'a server that is no cluster');
like(sql_error($node, q{CALL redis_migrate.run('one')}), qr/22023: Redis at 127\.0\.0\.1:$node_port is a node of a cluster\nDETAIL:  It has only some of the keys\.\nHINT:  ALTER SERVER one OPTIONS \(ADD cluster 'on'\)/, 'a node alone is refused: it has only some of the keys');
like(sql_error($node, q{CALL redis_migrate.run('other_db')}), qr/22023: a Redis Cluster has database 0 only/, 'and there is only database 0');

# A run that was interrupted in a cluster, and goes on where there is none, begins again.
$plain->cli('SET', 'k:1', 'value 1');
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (ADD max_rate '1500'); TRUNCATE item});
my $moved = start_sql($node, q{CALL redis_migrate.run('shop', workers => 1);}, name => 'moved');
wait_until('the first batches', sub { stored() > 0 });
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'moved' AND query LIKE 'CALL%'});
$moved->finish;
$node->safe_psql('postgres', qq{ALTER SERVER shop OPTIONS (SET host '127.0.0.1', ADD port '$plain_port', SET cluster 'off')});
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop', workers => 1)});
is(last_run($node, 'shop', 'state, restarts, read, balanced'), 'completed|1|1|t', 'a position in a cluster means nothing to a single server');
$node->safe_psql('postgres', qq{ALTER SERVER shop OPTIONS (SET host '$seeds', DROP port, SET cluster 'on')});

# Slots move while the run reads: from the third node, not yet read, to the first, which is done; and from the second, while
# it is read, to the first. A scan of one node after the other would miss their keys.
empty();
my %seen;
my @slots = grep { !$seen{$_}++ } map { RedisNodes::Cluster::slot("k:$_") } 1 .. 60;
my $call = start_sql($node, q{CALL redis_migrate.run('shop', workers => 1);});
my $go_on = hold_at($masters[1]{id});
my @from_third = (grep { $masters[2]{slots}{$_} } @slots)[ 0 .. 3 ];
my @from_second = (grep { $masters[1]{slots}{$_} } @slots)[ 0 .. 3 ];
$cluster->move($_, $masters[2], $masters[0]) for @from_third;
$cluster->move($_, $masters[1], $masters[0]) for @from_second;
ok(reads($masters[1]{id}), 'slots have moved while the second node is read');
$go_on->();
my (undef, $err) = $call->finish;
is(last_run($node, 'shop', 'state, restarts, balanced'), 'completed|0|t', 'a run while slots move') or diag($err);
is(missing(), 0, 'misses no key');
like($err, qr/NOTICE:.*\d+ slots of the cluster were read again.*\n.*DETAIL:  Keys of these slots are counted each time/, 'and says that it read some slots twice');
cmp_ok(last_run($node, 'shop', 'read'), '>=', KEYS, 'which the counts show');

# A move that stands open, with half of the keys on either side, so that those which have moved answer ASK: the run waits
# for its end.
@masters = $cluster->masters;
my ($slot) = grep { $masters[2]{slots}{$_} } map { RedisNodes::Cluster::slot("k:$_") } 1 .. KEYS;
$cluster->begin_move($slot, @masters[ 2, 0 ], half => 1);
empty();
$err = sql_error($node, q{SET pg_redis_migrate.reconnect_timeout = '2s'; CALL redis_migrate.run('shop', workers => 1)});
like($err, qr/ERROR:  57P03: slots $slot of the cluster are being moved\nHINT:  The run keeps its position: CALL redis_migrate\.run again/, 'but not for ever');
my $in_slot = grep { RedisNodes::Cluster::slot("k:$_") == $slot } 1 .. KEYS;
is(last_run($node, 'shop', 'state, sqlstate, read'), 'failed|57P03|' . (KEYS - $in_slot), 'nothing of the slot was read, and the run does not pass for complete');
$call = start_sql($node, q{CALL redis_migrate.run('shop', workers => 1);});
wait_until('everything else', sub { position() =~ /^cluster of=\S+ done=(\S+)$/ && $1 eq "0-@{[$slot - 1]},@{[$slot + 1]}-16383" });
ok($call->running, 'a slot whose move stands open is waited for');
is($node->safe_psql('postgres', q{SELECT detail FROM redis_migrate.preflight('shop') WHERE check_name = 'slots'}) =~ s/.*: //sr, "slots $slot are being moved", 'preflight says so');
$cluster->finish_move($slot, @masters[ 2, 0 ]);
(undef, $err) = $call->finish;
is(last_run($node, 'shop', 'state, read, balanced'), 'completed|' . KEYS . '|t', 'and read when it is complete, each key once') or diag($err);
is(missing(), 0, 'with every key');

# A master dies while it is read; its replica takes over.
@masters = $cluster->masters;
$cluster->wait_until_agreed;
empty();
$call = start_sql($node, q{CALL redis_migrate.run('shop', workers => 1);});
$go_on = hold_at($masters[1]{id});
$masters[1]{node}->kill9;
$go_on->();
(undef, $err) = $call->finish;
is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'a run while a master dies') or diag($err);
is(missing(), 0, 'loses no key');
my @after = $cluster->masters;
is(scalar(grep { $_->{id} eq $masters[1]{id} } @after), 0, 'its replica has taken over');

# A replica takes over in order, while its master is read: that stays, with its connections, and has no slots any more.
$masters[1]{node}->start;
$cluster->wait_until_agreed;
@masters = $cluster->masters;
my ($heir) = $cluster->replicas($masters[1]);
empty();
$call = start_sql($node, q{CALL redis_migrate.run('shop', workers => 1);});
$go_on = hold_at($masters[1]{id});
is($heir->cli('CLUSTER', 'FAILOVER'), 'OK', 'a replica is told to take over');
wait_until('the new master', sub { $masters[1]{node}->cli('ROLE') =~ /^slave/ });
my $takes = elapsed(sub { $go_on->(); (undef, $err) = $call->finish; });
is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'a run while a replica takes over') or diag($err);
is(missing(), 0, 'loses no key');
is(($err =~ /NOTICE: .* (\d+) slots of the cluster were read again/)[0], keys %{ $masters[1]{slots} }, 'reads the slots of that master again');
cmp_ok($takes, '<', 60, "all at once: in $takes s");

# From replicas, on request.
@after = $cluster->masters;
$node->safe_psql('postgres', q{ALTER SERVER shop OPTIONS (DROP max_rate, ADD read_from 'replica')});
empty();
$_->{node}->cli('CONFIG', 'RESETSTAT') for @after;
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop', workers => 1)});
is(last_run($node, 'shop', 'state, read, balanced'), 'completed|' . KEYS . '|t', 'a run that reads from replicas');
is(missing(), 0, 'has every key');
is(scalar(grep { $_->{node}->cli('INFO', 'commandstats') =~ /cmdstat_scan:/ } @after), 0, 'and no master was scanned');

# Large values in pieces: WATCH holds keys of many slots at a time.
use constant LARGE => 60;
$cluster->set(map { ("k:@{[KEYS + $_]}" => $_ x 4000) } 1 .. LARGE);
$cluster->wait_until_agreed;
for my $kind ('replica', 'master')
{
    my %is_master = map { $_->{node} => 1 } $cluster->masters;
    my @readers = grep { $kind eq 'master' ? $is_master{$_} : !$is_master{$_} } $cluster->nodes;
    wait_until('the replicas', sub { my $keys = 0; $keys += $_->cli('DBSIZE') for @readers; $keys == KEYS + LARGE });
    $node->safe_psql('postgres', "ALTER SERVER shop OPTIONS (SET read_from '$kind')");
    empty();
    $_->cli('CONFIG', 'RESETSTAT') for @readers;
    $node->safe_psql('postgres', q{SET pg_redis_migrate.max_reply_size = '1kB'; CALL redis_migrate.run('shop', workers => 1)});
    is(last_run($node, 'shop', 'state, read, migrated, balanced, evicted IS NULL'), join('|', 'completed', (KEYS + LARGE) x 2, 't', 't'), "large values from each $kind");
    is($node->safe_psql('postgres', 'SELECT count(*) FROM item WHERE id > ' . KEYS . q{ AND v = repeat((id - 9000)::text, 4000)}), LARGE, 'are whole');
    my @stats = map { scalar $_->cli('INFO', 'commandstats') } @readers;
    is(scalar(grep { /cmdstat_watch:/ } @stats), 3, 'were watched');
    is(scalar(grep { /cmdstat_dump:|cmdstat_watch:.*(?:rejected|failed)_calls=[1-9]/ } @stats), 0, 'and read by nothing else');
}

# Each node has its own memory.
@masters = $cluster->masters;
my $full = $masters[2]{node};
my ($used) = $full->cli('INFO', 'memory') =~ /^used_memory:(\d+)/m;
$full->cli('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
$full->cli('CONFIG', 'SET', 'maxmemory', $used + 500_000);
my $full_port = $full->port;
like(sql_error($node, q{CALL redis_migrate.run('shop', workers => 1)}), qr/53000: Redis at 127\.0\.0\.1:$full_port has too little memory left to be read/, 'a node that is nearly full is not read');
$full->cli('CONFIG', 'SET', 'maxmemory', $used + 4_000_000);
$node->safe_psql('postgres', q{CALL redis_migrate.run('shop', workers => 1)});
is(last_run($node, 'shop', 'state, balanced'), 'completed|t', 'with room for small replies it is');

done_testing();
