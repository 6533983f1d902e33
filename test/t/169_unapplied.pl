# After a cutover an old client writes to Redis, which forgets that before live sync has come to it, because it is flushed or
# comes back without its keys: the replication link has received it.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('unapplied', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub keys_there { chomp(my $count = $redis->cli('EVAL', q{return #redis.call('KEYS', 'a:*') + #redis.call('KEYS', 'h:*')}, '0')); return $count; }
# Without a value where nobody knows it.
sub late { return rows(q{SELECT string_agg(concat_ws(' ', key, kind, substring(encode(payload, 'escape') FROM 'late\d*'), to_char(expires_at - now(), 'HH24')), ', ' ORDER BY key) FROM redis_migrate.late_writes WHERE settled_at IS NULL}); }
# What is written while those that apply the changes stand still, and is not there any more when they go on.
sub forgets
{
    my ($workers, $commands, $forget, $what) = @_;
    my @held = map { hold_worker($node, $_, idle => 1) } 'migration', ('live applier') x ($workers - 1);
    $redis->cli_lines($commands);
    chomp(my $offset = $redis->cli('INFO', 'replication') =~ s/.*master_repl_offset:(\d+).*/$1/sr);
    wait_until("$what: the link", sub { rows("SELECT received_offset >= $offset FROM redis_migrate.live_sync") eq 't' });
    $forget->();
    $_->release for @held;
    wait_until("$what: all rows in Redis again", sub { keys_there() == 40 });
    return is(wait_for($node), '', "$what: live sync");
}

rows(q{
    CREATE TABLE strings (id text PRIMARY KEY, value text, expires_at timestamptz);
    CREATE TABLE hashes (id text PRIMARY KEY, fields jsonb);
    SELECT redis_migrate.create_migration('live', 'live', source => 'replication', databases => '{0,1}');
    SELECT redis_migrate.add_mapping('live', 'strings', 'a:{id}', 'strings', 'SELECT id, value, expires_at FROM redis_batch', '{id}', databases => '{0}', types => '{string}');
    SELECT redis_migrate.add_mapping('live', 'hashes', 'h:{id}', 'hashes', 'SELECT id, json AS fields FROM redis_batch', '{id}', databases => '{0}', types => '{hash}')});
$redis->cli_lines(join '', map { "SET a:$_ v\nHSET h:$_ f v\n" } 1 .. 20);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SELECT redis_migrate.start_reverse('live')});
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live'); CALL redis_migrate.cutover('live', 'confirmed', max_pause => '30 s')});

my $commands = "HSET h:2 f late\nSET a:1 late1\nHSET h:1 f late\nSET a:2 late\nAPPEND a:2 2\nSET a:3 late3 EX 7500\nSET a:4 late4\nEXPIRE a:4 7500\nDEL a:5\nSET a:21 late21\nSELECT 1\nSET a:1 other\nSELECT 0\n";
my $wanted = 'a:1 written late1, a:2 written late2, a:21 written late21, a:3 written late3 02, a:4 written late4 02, a:5 deleted, h:1 written, h:2 written';
# One had been read, and the late write is settled.
my $ahead = q{INSERT INTO redis_migrate.live_key (run_id, link, db, key_bytes, slot, read_offset, is_absent, is_unread)
    SELECT run_id, link, 0, 'a:19', 0, applied_offset + 1000000, false, false FROM redis_migrate.live_position ORDER BY run_id DESC LIMIT 1};
forgets(1, "${commands}SET a:19 late19\n", sub { rows($ahead); $redis->cli('FLUSHALL') }, 'flushed');
is(late(), $wanted, 'what was written before is late');
is(rows(q{SELECT (SELECT string_agg(DISTINCT value, ' ') FROM strings) || (SELECT count(*) FROM strings)}), 'v20', 'the rows stay');
rows(q{SELECT redis_migrate.settle_late_writes('live')});

# A key that was gone when it was read again, and nothing has told why yet.
rows(q{SELECT redis_migrate.stop('live');
    INSERT INTO redis_migrate.live_key (run_id, link, db, key_bytes, slot, read_offset, is_absent, is_unread)
    SELECT run_id, link, 0, 'h:30', 0, applied_offset + 1000000, true, false FROM redis_migrate.live_position ORDER BY run_id DESC LIMIT 1;
    SELECT redis_migrate.start('live', live => true)});
wait_until('live sync', sub { rows('SELECT state FROM redis_migrate.live_sync') =~ /^(streaming|in step)$/m });
$redis->cli('FLUSHALL');
wait_until('another run', sub { rows(q{SELECT count(*) FROM redis_migrate.live_key WHERE key_bytes = 'h:30' AND run_id = (SELECT max(run_id) FROM redis_migrate.run)}) eq '0' });
wait_until('all rows in Redis again', sub { keys_there() == 40 });
is(wait_for($node) . late(), 'h:30 written', 'what was absent is late, too');
rows(q{SELECT redis_migrate.settle_late_writes('live')});

forgets(1, "MULTI\n${commands}EXEC\nSET a:22 late22\n", sub { $redis->restart('KILL') }, 'without its keys');
is(late(), $wanted =~ s/(late21),/$1, a:22 written late22,/r, 'what was written before is late');
rows(q{SELECT redis_migrate.settle_late_writes('live'); SELECT redis_migrate.stop('live'); SELECT redis_migrate.start('live', live => true, workers => 2)});
is(wait_for($node), '', 'two appliers');
forgets(2, $commands, sub { $redis->restart('KILL') }, 'without its keys');
is(late(), $wanted, 'what was written before is late');

rows(q{SELECT redis_migrate.settle_late_writes('live')});

# They cannot be kept.
rows(q{CREATE SEQUENCE tries;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
        BEGIN
            IF nextval('tries') < 3 THEN RAISE 'locked' USING ERRCODE = '40P01'; END IF;
            IF TG_ARGV[0] = 'always' THEN RAISE 'refused'; END IF;
            RETURN NEW;
        END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON redis_migrate.late_write FOR EACH ROW EXECUTE FUNCTION refuse('once')});
my $message = q{SELECT message FROM redis_migrate.runs WHERE state = 'superseded' ORDER BY run_id DESC LIMIT 1};
forgets(2, $commands, sub { $redis->cli('FLUSHALL') }, 'after deadlocks');
is(late(), $wanted, 'they are kept after some tries');
is(rows($message), 'a new snapshot is needed: FLUSHALL', 'which the run does not tell');
rows(q{SELECT redis_migrate.settle_late_writes('live');
    DROP TRIGGER refuse ON redis_migrate.late_write;
    CREATE TRIGGER refuse BEFORE INSERT ON redis_migrate.late_write FOR EACH ROW EXECUTE FUNCTION refuse('always')});
forgets(2, $commands, sub { $redis->cli('FLUSHALL') }, 'refused');
is(late(), '', 'they are not kept');
is(rows($message), 'a new snapshot is needed: FLUSHALL; late writes that were received before are not known: refused', 'which the run tells');
rows(q{DROP TRIGGER refuse ON redis_migrate.late_write});

# No worker runs live sync, which is wanted.
$node->append_conf('postgresql.conf', "pg_redis_migrate.databases = ''");
$node->restart;
rows(q{INSERT INTO redis_migrate.outbox_gap (mapping_id, reason) SELECT mapping_id, 'test' FROM redis_migrate.reverse_mapping});
like(sql_error($node, q{SET statement_timeout = '60 s'; CALL redis_migrate.feed_redis('live', until_drained => true)}),
    qr/ERROR:  55000: all rows are to be written, but live sync has not seen yet .*\nDETAIL:  No worker .*\nHINT:  .*redis_migrate\.stop\('live'\)/, 'the feed does not wait for it');
rows(q{SELECT redis_migrate.stop('live')});
is(sql_error($node, q{SET statement_timeout = '60 s'; CALL redis_migrate.feed_redis('live', until_drained => true)}), '', 'once it is not wanted, all rows are written');

$node->stop;
done_testing();
