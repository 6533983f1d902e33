# After a cutover an old client writes to Redis, and the reverse feed writes over it before live sync has come to that: a late
# write all the same.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('over', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub cli { my ($command) = @_; chomp(my $answer = $redis->cli_lines("$command\n")); return $answer; }
# Without a value where nobody knows it.
sub late { return rows(q{SELECT string_agg(concat_ws(' ', key, kind, substring(encode(payload, 'escape') FROM 'late\d*')), ', ' ORDER BY key) FROM redis_migrate.late_writes WHERE settled_at IS NULL}); }
sub settle { return rows(q{SELECT redis_migrate.settle_late_writes('live')}); }
# Lets live sync come to what happens meanwhile at once.
sub at_once
{
    my ($happens) = @_;
    my $held = hold_worker($node, 'migration', idle => 1);
    $happens->();
    $held->release;
    return wait_for($node);
}

rows(q{
    CREATE TABLE strings (id text PRIMARY KEY, value text, expires_at timestamptz);
    CREATE TABLE hashes (id text PRIMARY KEY, fields jsonb);
    CREATE TABLE fields (id text, field text, value text, PRIMARY KEY (id, field));
    CREATE TABLE others (id text PRIMARY KEY, value text);
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'strings', 'a:{id}', 'strings', 'SELECT id, value, expires_at FROM redis_batch', '{id}', databases => '{0}', types => '{string}');
    SELECT redis_migrate.add_mapping('live', 'hashes', 'h:{id}', 'hashes', 'SELECT id, json AS fields FROM redis_batch', '{id}', databases => '{0}', types => '{hash}');
    SELECT redis_migrate.add_mapping('live', 'fields', 'e:{id}', 'fields', 'SELECT id, field, value FROM redis_batch', '{id,field}', databases => '{0}', types => '{hash}', expand => 'elements');
    SELECT redis_migrate.add_mapping('live', 'others', 'r:{id}', 'others', 'SELECT id, value FROM redis_batch', '{id}', databases => '{0}', types => '{string}')});
$redis->cli_lines(join '', map { "SET a:$_ v\nHSET h:$_ f v\nHSET e:$_ f v\nSET r:$_ v\n" } 1 .. 5);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SELECT redis_migrate.start_reverse('live')});
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
rows(qq{SET client_min_messages = error; CALL redis_migrate.cutover('live', 'confirmed', pattern => '$_', max_pause => '30 s')}) for 'a:{id}', 'h:{id}', 'e:{id}';

is(at_once(sub {
    $redis->cli_lines("SET a:1 late1\nHSET h:1 f late\nHSET e:1 f late\nSET a:2 late1\nAPPEND a:2 late2\nDEL a:3\nSET a:8 late8\nHSET h:8 f late\nSET r:1 w\n");
    rows(q{
        UPDATE strings SET value = 'mine' WHERE id IN ('1', '2', '3');
        UPDATE hashes SET fields = '{"f": "mine"}' WHERE id = '1';
        UPDATE fields SET value = 'mine' WHERE id = '1';
        INSERT INTO strings VALUES ('8', 'mine');
        INSERT INTO hashes VALUES ('8', '{"f": "mine"}')});
    wait_until('the reverse feed', sub { cli("GET a:1\nGET a:2\nGET a:3\nGET a:8\nHGET h:1 f\nHGET h:8 f\nHGET e:1 f") eq join "\n", ('mine') x 7 }) }), '', 'live sync');
is(late(), 'a:1 written late1, a:2 written late1, a:8 written late8, e:1 written, h:1 written, h:8 written', 'what it has written over is late, but for a deletion');
is(rows(q{SELECT string_agg(value, ' ' ORDER BY id) FROM strings} ) . rows(q{SELECT value FROM others WHERE id = '1'}), 'mine mine mine v v minew', 'the rows stay, and those of Redis follow');
settle();

# Nothing but the expiry of what the feed had written, then: at once with the value before, and later.
sub written_over { my ($value) = @_; rows("UPDATE strings SET value = '$value' WHERE id = '5'"); return wait_until('the reverse feed', sub { cli('GET a:5') eq $value }); }
is(at_once(sub { cli('SET a:5 late5'); written_over('mine1'); cli('EXPIRE a:5 5000'); written_over('mine2') }), '', 'live sync');
is(late(), 'a:5 written late5', 'a value that was written over stays known when an expiry is written over, too');
is(at_once(sub { cli('EXPIRE a:5 5000'); written_over('mine3') }), '', 'live sync');
is(late(), 'a:5 written late5', 'and when another one is');
cli('EXPIRE a:5 5000');
is(wait_for($node) . late(), 'a:5 written late5', 'and when one changes that of what the feed has written');
# Live sync reads the key for the expiry, and what comes after it is of another batch: those are full before.
my $filler = 'SET r:2 ' . 'w' x (9 << 20);
is(at_once(sub { written_over('mine4'); cli("EXPIRE a:5 5000\n$filler\nSET a:5 late55") }), '', 'live sync');
is(late(), 'a:5 written late55', 'but no longer once a client writes another one after it');
is(at_once(sub { written_over('mine5'); cli("EXPIRE a:5 5000\n$filler\nSET a:5 late56"); written_over('mine6') }), '', 'live sync');
is(late(), 'a:5 written late56', 'though the feed has written over that, too');
settle();

# The key is gone when live sync reads it.
is(at_once(sub {
    $redis->cli_lines("HSET h:9 f late\nSET a:9 late9\n");
    rows(q{INSERT INTO strings VALUES ('9', 'mine'); INSERT INTO hashes VALUES ('9', '{"f": "mine"}')});
    wait_until('the reverse feed', sub { cli("GET a:9\nHGET h:9 f") eq "mine\nmine" });
    rows(q{DELETE FROM strings WHERE id = '9'; DELETE FROM hashes WHERE id = '9'});
    wait_until('the reverse feed', sub { cli("EXISTS a:9\nEXISTS h:9") eq "0\n0" }) }), '', 'live sync');
is(late(), 'a:9 written late9, h:9 written', 'what the reverse feed has deleted');
like(sql_error($node, q{CALL redis_migrate.cutback('live', pattern => 'a:{id}')}), qr/1 keys were written to or deleted in Redis/, 'a cutback asks');
settle();

# Readers that extend the life of a key.
rows(q{SELECT redis_migrate.set_family_state('live', 'a:{id}', 'both')});
rows(q{UPDATE strings SET expires_at = date_trunc('second', now()) + '2000 s' WHERE id = '4'});
wait_until('the reverse feed', sub { cli('TTL a:4') > 1900 });
cli('PEXPIREAT a:4 ' . cli('PEXPIRETIME a:4'));
is(wait_for($node), '', 'live sync, which knows the value then');
is(at_once(sub {
    cli('EXPIRE a:4 5000');
    rows(q{UPDATE strings SET value = 'mine' WHERE id = '4'});
    wait_until('the reverse feed', sub { cli('GET a:4') eq 'mine' && cli('TTL a:4') < 2001 }) }), '', 'live sync');
is(rows(q{SELECT expires_at > now() + '4900 s' FROM strings WHERE id = '4'}) . late(), 't', 'the later expiry');
wait_until('the reverse feed', sub { cli('TTL a:4') > 4900 });
is(cli('GET a:4'), 'mine', 'which comes back to Redis');
is(at_once(sub { cli("EXPIRE a:4 6000\n$filler\nSET a:4 late4") }), '', 'live sync');
is(late(), 'a:4 written late4', 'a value that is written after such an expiry is late');
settle();

# Live sync has read keys when the feed had written over them.
rows(q{SELECT redis_migrate.stop('live'); SELECT redis_migrate.set_family_state('live', 'h:{id}', 'both');
    INSERT INTO redis_migrate.late_write (migration, pattern, db, key_bytes, kind, payload) VALUES ('live', 'h:{id}', 0, 'h:3', 'written', 'late3');
    INSERT INTO redis_migrate.live_key (run_id, link, db, key_bytes, slot, read_offset, is_absent, is_unread)
    SELECT run_id, link, 0, key, 0, applied_offset + 1000000, false, false FROM (SELECT * FROM redis_migrate.live_position ORDER BY run_id DESC LIMIT 1) AS p, unnest(ARRAY['h:2', 'h:3', 'e:2']::bytea[]) AS key;
    SELECT redis_migrate.start('live', live => true);
    UPDATE hashes SET fields = '{"f": "mine"}' WHERE id IN ('2', '3', '4'); UPDATE fields SET value = 'mine' WHERE id = '2'});
wait_until('late writes', sub { rows(q{SELECT sum(changes) FROM redis_migrate.late_write WHERE settled_at IS NULL}) eq '3' });
is(late(), 'h:2 written, h:3 written late3', 'what it had written over is late in state both, and what is known already stays');

$node->stop;
done_testing();
