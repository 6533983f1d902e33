# Audits of a whole Redis Cluster: each key of each master once, also when slots move and a master fails in the middle.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;

my $node = new_node('audit_cluster', conf => "pg_redis_migrate.reconnect_timeout = '60s'");
my $cluster = start_cluster(masters => 3, replicas => 1);

# Its keys by pattern: their number, and the command that creates each.
my %families = (
    'user:{user_id:int}'           => [ 1800, sub { "user:$_[0]" => qq{SET user:$_[0] '{"id":$_[0]}'} } ],
    'cart:{cart_id:int}'           => [ 500, sub { "cart:$_[0]" => "HSET cart:$_[0] item $_[0]" } ],
    'cache:page:{page_id:int}'     => [ 400, sub { "cache:page:$_[0]" => "SET cache:page:$_[0] '<p>$_[0]</p>' EX 100000" } ],
    'queue:{queue_id:int}:waiting' => [ 280, sub { "queue:$_[0]:waiting" => "RPUSH queue:$_[0]:waiting a b c" } ],
    'seen:{seen_id:int}'           => [ 20, sub { "seen:$_[0]" => "SADD seen:$_[0] " . join ' ', map { "member$_" } 1 .. 40 } ]);
my $keys = 0;
for my $family (values %families)
{
    my ($count, $make) = @$family;
    $cluster->lines(map { $make->($_) } 1 .. $count);
    $keys += $count;
}
# A large one for each master.
my ($low) = grep { RedisNodes::Cluster::slot("big$_") < 5000 } 1 .. 1000;
my ($middle) = grep { my $slot = RedisNodes::Cluster::slot("big$_"); $slot > 6000 && $slot < 10000 } 1 .. 1000;
my ($high) = grep { RedisNodes::Cluster::slot("big$_") > 12000 } 1 .. 1000;
$cluster->lines("big$low" => "SETRANGE big$low 100000 x", "big$middle" => "SETRANGE big$middle 300000 x", "big$high" => "SETRANGE big$high 200000 x");
$keys += 3;
$cluster->wait_until_agreed;

my $seeds = join ', ', map { '127.0.0.1:' . $_->port } $cluster->nodes;
sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query); }
sql("CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on')");

# The last audit.
sub audits { my ($columns) = @_; return sql("SELECT $columns FROM redis_migrate.audits ORDER BY audit_id DESC LIMIT 1"); }

sub families
{
    return { map { split /\|/ } split /\n/, sql(q{SELECT pattern, keys FROM redis_migrate.audit_families
        WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits) AND pattern !~ '^big'}) };
}

sub expect_whole
{
    my ($what) = @_;
    is(audits('state, complete, keys, vanished, odd'), "completed|t|$keys|0|0", "$what: every key is counted once")
      or diag(audits('sqlstate, message, notes, odd_reasons'));
    is_deeply(families(), { map { $_ => $families{$_}[0] } keys %families }, "$what: in its family");
    return;
}

# Starts an audit under a ceiling, and stops its backend in the middle of the second master. Returns what lets it go on and
# waits for its end.
sub hold_audit
{
    my @masters = $cluster->masters;
    my ($first, $second) = map { $_->{node}->cli('DBSIZE') } @masters;
    my $call = start_sql($node, q{CALL redis_migrate.audit('shop', max_rate => 300);}, name => 'audit');
    wait_until('the audit', sub { audits('state') eq 'running' });
    my $pid = audits('pid');
    wait_until('the second master', sub { audits('keys') > $first + 20 });
    kill 'STOP', $pid;
    cmp_ok(audits('keys'), '<', $first + $second - 300, 'the second master is being read, and will be for more than a second');
    return sub { kill 'CONT', $pid; return $call->finish; };
}

# A quiet cluster.
is($cluster->dbsize, $keys, 'the keys are in the cluster');
# Before the audit reads an element of each set: that would go on with resizing it.
my $bytes = 0;
for my $i (1 .. 20)
{
    my $slot = RedisNodes::Cluster::slot("seen:$i");
    my ($owner) = grep { $_->{slots}{$slot} } $cluster->masters;
    $bytes += $owner->{node}->cli('MEMORY', 'USAGE', "seen:$i");
}
sql(q{CALL redis_migrate.audit('shop')});
expect_whole('a quiet cluster');
is(audits('dbsize, asked, redis_version ~ $$^\d+\.\d+\.\d+$$'), "$keys|$keys|t", 'the masters together say how many there are');
is(audits('notes'), '{}', 'nothing was missing') if $cluster->{nodes}[0]->cli('INFO', 'server') =~ /redis_version:(7\.[2-9]|[89])/;
is(sql(q{SELECT db, type, keys, with_ttl, without_ttl, (encodings->>'text')::int BETWEEN 200 AND 230, priority FROM redis_migrate.audit_families WHERE pattern LIKE 'cache:%'}),
    '0|string|400|400|0|t|low', 'a family is one, wherever its keys are: about 200 values were read in all');
is(sql(q{SELECT max_ttl <= '100000 s' AND min_ttl > '99000 s' AND max_idle < '300 s' FROM redis_migrate.audit_families WHERE pattern LIKE 'cache:%'}), 't', 'expiries and idle times');
is(sql(q{SELECT bytes FROM redis_migrate.audit_families WHERE pattern LIKE 'seen:%'}), $bytes, 'sizes are added up over the masters');
is(sql(q{SELECT string_agg(rank || ' ' || (bytes / 100000), ', ' ORDER BY rank) FROM redis_migrate.audit_largest_keys WHERE rank <= 3}),
    '1 3, 2 2, 3 1', 'the largest keys are those of all masters');

# Suggestions as they stand.
sql(q{SELECT redis_migrate.create_migration('shop', 'shop')});
sql('SET client_min_messages = error; ' . sql(q{SELECT string_agg(create_table || ';' || suggestion || ';', E'\n' ORDER BY pattern) FROM redis_migrate.audit_families}));
sql(q{CALL redis_migrate.run('shop')});
is(last_run($node, 'shop', 'state, balanced, read, archived, rejected'), "completed|t|$keys|0|0", 'mappings as suggested take every key');

# Sampling, ceiling, time limit.
sql(q{CALL redis_migrate.audit('shop', sample => 50)});
expect_whole('a sample');
is(sql(q{SELECT asked BETWEEN 50 AND 150 FROM redis_migrate.audit_families WHERE pattern LIKE 'user:%' ORDER BY audit_id DESC LIMIT 1}), 't',
    'a family is sampled once, not for each master');
cmp_ok(elapsed(sub { sql(q{CALL redis_migrate.audit('shop', max_rate => 1000)}) }), '>', 2.8, 'the ceiling is that of the cluster');
sql(q{CALL redis_migrate.audit('shop', max_rate => 300, max_duration => '4 s')});
is(audits(q{state, complete, keys BETWEEN 1 AND 1900, finished_at - started_at < '14 s'}), 'stopped|f|t|t', 'a time limit');

# Refused.
like(sql_error($node, q{CALL redis_migrate.audit('shop', databases => '{0,1}')}), qr/22023: a Redis Cluster has database 0 only/, 'there is only database 0');
my $port = $cluster->{nodes}[0]->port;
sql("CREATE SERVER one FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port')");
like(sql_error($node, q{CALL redis_migrate.audit('one')}),
    qr/22023: Redis at 127\.0\.0\.1:$port is a node of a cluster\nDETAIL:  It has only some of the keys\.\nHINT:  ALTER SERVER one OPTIONS \(ADD cluster 'on'\)/,
    'a node alone is refused');

# From replicas.
wait_until('the replicas', sub {
    my %is_master = map { $_->{node} => 1 } $cluster->masters;
    my $sum = 0;
    $sum += $_->cli('DBSIZE') for grep { !$is_master{$_} } $cluster->nodes;
    $sum == $keys });
$_->{node}->cli('CONFIG', 'RESETSTAT') for $cluster->masters;
sql(q{ALTER SERVER shop OPTIONS (ADD read_from 'replica'); CALL redis_migrate.audit('shop')});
expect_whole('replicas');
is(scalar(grep { $_->{node}->cli('INFO', 'commandstats') =~ /cmdstat_scan:/ } $cluster->masters), 0, 'no master was scanned');
sql(q{ALTER SERVER shop OPTIONS (DROP read_from)});

# Slots move: from the master that is being read, and from the last one, to the first, which is done.
my @slots = map { RedisNodes::Cluster::slot("user:$_") } 1 .. 200;
my @masters = $cluster->masters;
my $go_on = hold_audit();
for my $from (1, 2)
{
    my %seen;
    my @some = (grep { $masters[$from]{slots}{$_} && !$seen{$_}++ } @slots)[ 0 .. 9 ];
    $cluster->move($_, $masters[$from], $masters[0]) for @some;
}
my (undef, $err) = $go_on->();
expect_whole('slots that move');
like($err, qr/DETAIL: .*parts of the cluster were read again, [1-9]\d* times, and each key counted once/, 'what was read again is told');
like(audits('notes'), qr/the last time because (slots [\d,-]+ moved while Redis at|Redis at 127\.0\.0\.1:\d+ answered (MOVED|ASK))/, 'and why');
is($cluster->dbsize, $keys, 'the keys are still there');

# A move that stands open: everything else is read, and it is waited for.
$cluster->wait_until_agreed;
@masters = $cluster->masters;
my ($slot) = grep { $masters[2]{slots}{$_} } @slots;
my $in_slot = $masters[2]{node}->cli('CLUSTER', 'COUNTKEYSINSLOT', $slot);
$cluster->begin_move($slot, @masters[ 2, 0 ], half => 1);
$err = sql_error($node, q{SET pg_redis_migrate.reconnect_timeout = '2s'; CALL redis_migrate.audit('shop')});
like($err, qr/ERROR:  57P03: slots $slot of the cluster are being moved\nHINT:  The families found so far are kept\. CALL redis_migrate\.audit again/, 'not for ever');
is(audits('state, complete, sqlstate, keys'), 'failed|f|57P03|' . ($keys - $in_slot), 'what else there is was counted');
is(sql('SELECT sum(keys) FROM redis_migrate.audit_families WHERE audit_id = (SELECT max(audit_id) FROM redis_migrate.audits)'), $keys - $in_slot, 'and is kept');
my $call = start_sql($node, q{CALL redis_migrate.audit('shop');});
wait_until('everything else', sub { audits('state, keys') eq 'running|' . ($keys - $in_slot) });
ok($call->running, 'it waits for the move');
$cluster->finish_move($slot, @masters[ 2, 0 ]);
$call->finish;
expect_whole('a move that is completed');

# A master dies in the middle.
$cluster->wait_until_agreed;
@masters = $cluster->masters;
$go_on = hold_audit();
$masters[1]{node}->kill9;
$go_on->();
expect_whole('a master that fails');
like(audits('notes'), qr/parts of the cluster were read again/, 'it is told');
is(scalar(grep { $_->{id} eq $masters[1]{id} } $cluster->masters), 0, 'its replica has taken over');
$masters[1]{node}->start;
$cluster->wait_until_agreed;

# The memory of an audit is bounded: 10,000 names that are all different.
my @letters = ('a' .. 'z');
srand 1;
sub word { return join '', map { $letters[ rand 26 ] } 1 .. $_[0]; }
my %names = map { (word(9) . ':' . word(10) => 'x') } 1 .. 10000;
$cluster->set(%names);
my ($before, $after) = sql(q{SELECT pg_backend_pid() AS pid \gset
    \setenv BACKEND :pid
    \! awk '/RssAnon/ {print $2}' /proc/$BACKEND/status
    CALL redis_migrate.audit('shop');
    \! awk '/RssAnon/ {print $2}' /proc/$BACKEND/status}) =~ /^(\d+)\n(\d+)$/;
is(audits('state, keys'), 'completed|' . ($keys + keys %names), 'many names');
cmp_ok($after - $before, '<', 131072, 'do not take much memory') or diag(audits('notes'));

# Cancelled while a node is silent.
my $id = audits('audit_id');
kill 'STOP', $masters[0]{node}->pid;
$call = start_sql($node, q{CALL redis_migrate.audit('shop');}, name => 'silent');
ok(wait_until('the audit waits', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'silent' AND wait_event_type = 'Extension' AND backend_xid IS NULL AND backend_xmin IS NULL}) == 1 }),
    'no transaction id and no snapshot while waiting');
my $seconds = elapsed(sub {
    sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'silent' AND query LIKE 'CALL%'});
    $call->finish; });
kill 'CONT', $masters[0]{node}->pid;
cmp_ok($seconds, '<', 5, 'a cancel takes effect at once');
is(audits("state, sqlstate, audit_id > $id"), 'stopped|57014|t', 'and the audit says so');

done_testing();
