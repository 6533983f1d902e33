# After a cutover Redis comes back without its keys, or is told to forget them, or to exchange databases: the reverse feed
# writes all rows once more, so that the way back stays one.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('flush', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub cli { my (@command) = @_; chomp(my $answer = $redis->cli('-n', '3', @command)); return $answer; }
# How many keys of each family Redis has.
sub keys_there { return cli('EVAL', q{return #redis.call('KEYS', 'a:*') .. ' ' .. #redis.call('KEYS', 'h:*') .. ' ' .. #redis.call('KEYS', 'c:*')}, '0'); }

# Of database 3: where the feed notes its position, in database 0, nothing is lost but by FLUSHALL.
rows(q{
    CREATE TABLE strings (id text PRIMARY KEY, value text, expires_at timestamptz);
    CREATE TABLE fields (id text, field text, value text, PRIMARY KEY (id, field));
    CREATE TABLE cache (id text PRIMARY KEY, value text);
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication', databases => '{3}');
    SELECT redis_migrate.add_mapping('live', 'strings', 'a:{id}', 'strings', 'SELECT id, value, expires_at FROM redis_batch', '{id}', databases => '{3}', types => '{string}');
    SELECT redis_migrate.add_mapping('live', 'fields', 'h:{id}', 'fields', 'SELECT id, field, value FROM redis_batch', '{id,field}', databases => '{3}', types => '{hash}', expand => 'elements');
    SELECT redis_migrate.add_mapping('live', 'cache', 'c:{id}', 'cache', 'SELECT id, value FROM redis_batch', '{id}', databases => '{3}', types => '{string}', on_flush => 'delete')});
$redis->cli_lines("SELECT 3\n" . join '', map { "SET a:$_ v\nHSET h:$_ f 1 g 2\nSET c:$_ v\n" } 1 .. 50);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SELECT redis_migrate.start_reverse('live')});
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
rows(qq{SET client_min_messages = error; CALL redis_migrate.cutover('live', 'confirmed', pattern => '$_', max_pause => '30 s')}) for 'a:{id}', 'h:{id}';

# A Redis that comes back without its keys, before the feed has sent anything.
cli('EVAL', q{return redis.call('DEL', unpack(redis.call('KEYS', 'c:*')))}, '0');
is(wait_for($node) . keys_there(), '50 50 0', 'no keys of the family of Redis');
$redis->restart('KILL');
wait_until('a restart: all rows to be written again', sub { keys_there() eq '50 50 0' });
is(wait_for($node) . rows('SELECT count(*) FROM cache'), '0', 'live sync goes on');

# What is written to such a Redis before live sync has read it is noted as late before the rows cover it, whoever finds first
# that Redis has lost something: live sync, or the feed.
sub is_held { return rows(q{SELECT count(*) FROM pg_locks WHERE relation = 'redis_migrate.late_write'::regclass AND NOT granted}) ne '0'; }
for my $first ('live sync', 'the feed')
{
    rows(qq{UPDATE strings SET value = '$first'});
    wait_until("$first: the feed", sub { cli('GET', 'a:50') eq $first });
    my $feed = hold_worker($node, 'reverse feed', idle => 1);
    my $held = $node->background_psql('postgres');
    $held->query_safe('BEGIN; LOCK TABLE redis_migrate.late_write IN SHARE MODE');
    if ($first eq 'the feed') { $redis->restart('KILL'); }
    else
    {
        # Another history at a server that goes on.
        rows(q{SELECT redis_migrate.stop('live')});
        my $history = $redis->cli('INFO', 'replication') =~ s/.*master_replid:(\w+).*/$1/sr;
        $redis->cli('CONFIG', 'SET', 'repl-backlog-ttl', '1');
        wait_until("$first: another history", sub { $redis->cli('INFO', 'replication') !~ /$history/ });
        $redis->cli('CONFIG', 'SET', 'repl-backlog-ttl', '3600');
        rows(q{SELECT redis_migrate.start('live', live => true)});
    }
    cli('SET', "a:$_", 'late') for 3, 4;
    $feed->release;
    wait_until("$first: live sync to read what is in Redis", \&is_held);
    wait_until("$first: the feed to say what it waits for",
        sub { rows(q{SELECT message FROM redis_migrate.reverse_feeds}) eq 'all rows are to be written, but live sync has not seen yet what Redis has: see redis_migrate.live_sync' });
    is(cli('MGET', 'a:3', 'a:4'), "late\nlate", "$first: what was written stays until then");
    $held->quit;
    wait_until("$first: all rows to be written", sub { rows('SELECT bool_and(state = $$running$$ AND NOT needs_full AND waiting = 0) FROM redis_migrate.reverse_feeds') eq 't' });
    is(wait_for($node) . keys_there() . ' ' . cli('MGET', 'a:3', 'a:4', 'a:5'), "50 50 0 $first\n$first\n$first", "$first: all rows are written");
    is(rows(q{SELECT string_agg(key || ' ' || kind, ',' ORDER BY key) FROM redis_migrate.late_writes WHERE settled_at IS NULL AND kind = 'written'}), 'a:3 written,a:4 written', "$first: and what they cover is late");
    rows(q{SELECT redis_migrate.settle_late_writes('live')});
}

for my $command ('FLUSHDB', 'SWAPDB 3 5', 'FLUSHALL')
{
    cli(split / /, $command);
    wait_until("$command: all rows to be written again", sub { keys_there() eq '50 50 0' });
    is(wait_for($node) . rows('SELECT count(*) FROM cache'), '0', "$command: the rows of a family of Redis go");
    cli('SET', 'c:1', 'v');
    is(wait_for($node) . keys_there() . rows('SELECT count(*) FROM cache'), '50 50 11', "$command: which is followed");
}
is(rows(q{SELECT count(*) FROM redis_migrate.late_writes WHERE settled_at IS NULL}), '0', 'nothing of that is a late write');
rows(q{UPDATE strings SET value = 'w' WHERE id = '7'; UPDATE fields SET value = 'w' WHERE id = '7'});
is(sql_error($node, qq{CALL redis_migrate.cutback('live', pattern => '$_')}), '', "cutback of $_") for 'a:{id}', 'h:{id}';
is(cli('GET', 'a:7') . cli('HGET', 'h:7', 'g') . cli('HGET', 'h:8', 'g') . ' ' . keys_there(), 'ww2 50 50 1', 'Redis has everything');
# Keys of families that are Redis' again are gone when they are flushed.
cli('FLUSHDB');
like(wait_for($node), qr/would lose \d+ of its \d+ rows/, 'live sync asks whether the rows are to go');
is(keys_there() . rows('SELECT count(*) FROM redis_migrate.outbox_gap'), '0 0 00', 'and nothing is written to Redis');
$node->stop;
done_testing();
