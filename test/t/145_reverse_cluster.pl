# The reverse feed to a cluster whose nodes answer wrongly, and under kill -9 of the feed and of masters: in the end every
# key is what its row says.

use strict;
use warnings;

use HostileRedis;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = srand($ENV{PRM_SEED} // time);
note("seed $seed");
# Without an append-only file a master loses what it has acknowledged.
my $cluster = start_cluster(masters => 3, replicas => 0);
my @masters = map { $_->{node} } $cluster->masters;
my $node = new_node('reverse', conf => "pg_redis_migrate.reconnect_timeout = 0\nrestart_after_crash = on\nsynchronous_commit = off");
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# The file names a command, how many of them are answered rightly, whether it is done all the same, and the answer, which
# is given once.
my $file = PostgreSQL::Test::Utils::tempdir() . '/hostile';
my @answers = (HostileRedis::wrong_answers(), HostileRedis::CUT, "-NOPERM x \xff\r\n", "-MOVED 1 127.0.0.1:1\r\n", "-ASK 1 127.0.0.1:1\r\n", "-ASK 1 \xff:99999\r\n", "-ASK\r\n", "-ASK 1 :0\r\n",
    "-TRYAGAIN x\r\n", "-CLUSTERDOWN x\r\n", "-READONLY x\r\n", "+QUEUED\r\n", "*1\r\n-ERR no\r\n");
my @proxies = map {
    HostileRedis->new($_->port, sub {
        my ($count, @command) = @_;
        return if !-e $file;
        open my $told, '<', $file or return;  # which may go at any moment
        chomp(my ($wanted, $spared, $is_done, $number) = <$told>);
        return if uc $command[0] ne $wanted;
        append_to_file("$file.seen", 'x');
        return if -s "$file.seen" <= $spared || !unlink $file;
        return $is_done ? \$answers[$number] : $answers[$number];
    })
} @masters;
$masters[$_]->cli('CONFIG', 'SET', 'cluster-announce-port', $proxies[$_]->port) for 0 .. 2;
for my $master (@masters)
{
    wait_until('nodes to be known by their proxies', sub { my $nodes = $master->cli('CLUSTER', 'NODES'); return !grep { $nodes !~ /:$_\@/ } map { $_->port } @proxies; });
}
my $seeds = join ', ', map { '127.0.0.1:' . $_->port } @proxies;
rows(qq{CREATE SERVER club FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on');
    CREATE USER MAPPING FOR PUBLIC SERVER club;
    CREATE TABLE sessions (id text PRIMARY KEY, data text, expires_at timestamptz);
    CREATE TABLE tags (id bigint, tag text, PRIMARY KEY (id, tag));
    SELECT redis_migrate.create_migration('club', 'club');
    SELECT redis_migrate.add_mapping('club', 'sessions', 'session:{id}', 'sessions', 'SELECT id, value AS data, expires_at FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.add_mapping('club', 'tags', 'tags:{id:int}', 'tags', 'SELECT id, member AS tag FROM redis_batch', '{id,tag}', databases => '{0}', types => '{set}', expand => 'elements');
    SELECT redis_migrate.start_reverse('club')});
my $feed = q{CALL redis_migrate.feed_redis('club', until_drained => true)};
my $change = q{
    INSERT INTO sessions SELECT (random() * 300)::int, random(), CASE WHEN random() < 0.5 THEN '2100-01-01'::timestamptz + (random() * 1000000)::int * interval '1 second' END FROM generate_series(1, 40)
    ON CONFLICT (id) DO NOTHING;
    UPDATE sessions SET data = random() WHERE random() < 0.1;
    DELETE FROM sessions WHERE random() < 0.1;
    INSERT INTO tags SELECT (random() * 50)::int, (random() * 9)::int FROM generate_series(1, 20) ON CONFLICT DO NOTHING;
    DELETE FROM tags WHERE random() < 0.2;};

# Every key of every master, and every row.
sub is_fed
{
    my ($what) = @_;
    is(sql_error($node, $feed), '', "$what: the feed ends");
    my %wanted = map { split /=/, $_, 2 } split /\n/, rows(q{
        SELECT 'session:' || id || '=' || data || ' ' || coalesce((extract(epoch FROM expires_at) * 1000)::bigint, -1) FROM sessions
        UNION ALL SELECT 'tags:' || id || '=' || string_agg(tag, ' ' ORDER BY tag COLLATE "C") FROM tags GROUP BY id});
    my %found;
    for my $master (@masters)
    {
        my @keys = grep { !/^redis_migrate:/ } split /\n/, $master->cli('KEYS', '*');
        my @values = split /\n/, $master->cli_lines(join '', map { /^tags/ ? "EVAL 'local t = redis.call(\"SMEMBERS\", KEYS[1]); table.sort(t); return table.concat(t, \" \")' 1 $_\n" : "EVAL 'return redis.call(\"GET\", KEYS[1]) .. \" \" .. redis.call(\"PEXPIRETIME\", KEYS[1])' 1 $_\n" } @keys), -1;
        @found{@keys} = @values[ 0 .. $#keys ];
    }
    is_deeply(\%found, \%wanted, "$what: every key is what its row says") or diag("seed $seed");
    return;
}

rows($change) for 1 .. 3;
is_fed('a sound cluster');

# One wrong answer, now to the first such command, now to a later one.
my @wrong;
for my $case ([ 'GET', 0 ], [ 'GET', 16390 ], [ 'WATCH', 0 ], [ 'WATCH', 9 ], [ 'MULTI', 0 ], [ 'MULTI', 8 ], [ 'SET', 0 ], [ 'SET', 5 ], [ 'UNLINK', 2 ], [ 'SADD', 0 ], [ 'EXEC', 3 ], [ 'EXEC', 9 ], [ 'EXEC', 20 ], [ 'CLUSTER', 0 ])
{
    my ($command, $spared) = @$case;
    my ($is_done, $number) = (int rand 2, int rand @answers);
    rows($change);
    unlink "$file.seen";
    append_to_file("$file.new", join("\n", $command, $spared, $is_done, $number));
    rename "$file.new", $file or die;
    my $began = time;
    my $error = sql_error($node, $feed);
    my $took = time - $began;
    my $what = "$command after $spared " . ($is_done ? 'done' : 'not done') . ', answered by ' . ($answers[$number] =~ s/([^\x20-\x7e])/sprintf '\\x%02x', ord $1/ger);
    push @wrong, "$what: it was not asked" if unlink $file;
    push @wrong, "$what: it took $took s" if $took > 20;
    push @wrong, "$what: $error" if $error =~ /XX000|closed the connection unexpectedly|[^\n\t\x20-\x7e]/;
}
ok(!@wrong, 'wrong answers are errors, or it goes on') or diag(join("\n", @wrong, "seed $seed"));
is_fed('after wrong answers');

# The feed or a master is killed while changes are on their way.
for my $kind ('feed', 'master', 'feed', 'both')
{
    for my $master (@masters) { wait_until('the cluster', sub { (eval { $master->cli('CLUSTER', 'INFO') } // '') =~ /cluster_state:ok/ }); }
    my $load = start_sql($node, "DO \$do\$ BEGIN FOR n IN 1 .. 300 LOOP $change COMMIT; PERFORM pg_sleep(0.002); END LOOP; END \$do\$", name => 'load');
    my $feeding = start_sql($node, q{CALL redis_migrate.feed_redis('club')}, name => 'feed');
    wait_until('batches', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('feed', 'load')}) eq '2' });
    usleep(rand 500_000);
    my $pid = rows(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'feed'});
    $masters[ rand @masters ]->restart('KILL') if $kind ne 'feed';
    my $killed = $kind ne 'master' && $pid;
    kill 'KILL', $killed if $killed;
    usleep(rand 300_000);
    undef $_ for $load, $feeding;
    wait_until('PostgreSQL', sub { answers($node, $killed) });
    rows(q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name IN ('feed', 'load')});
    note($kind);
}
for my $master (@masters) { wait_until('the cluster', sub { (eval { $master->cli('CLUSTER', 'INFO') } // '') =~ /cluster_state:ok/ }); }
is_fed('after kills');
cmp_ok(rows('SELECT count(*) FROM sessions'), '>', 100, 'there are many');

done_testing();
