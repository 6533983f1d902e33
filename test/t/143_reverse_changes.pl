# The reverse feed: whatever statement changes rows, whatever is in them, and beside live sync; a row that cannot be written.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--proto-max-bulk-len', '300mb' ]);
my $node = new_node('changes', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nwal_level = logical\nmax_wal_senders = 4\nmax_replication_slots = 4");
my $port = $redis->port;
sub sql { my ($text) = @_; return $node->safe_psql('postgres', $text); }
sub cli { my ($command) = @_; chomp(my $answer = $redis->cli_lines("$command\n")); return $answer; }
sub get { return join ' ', map { cli("GET $_") } @_; }

sub drained
{
    my ($what) = @_;
    wait_until("$what: all is sent", sub { sql(q{SELECT bool_and(waiting = 0 AND NOT needs_full AND state = 'running') FROM redis_migrate.reverse_feeds WHERE wanted}) eq 't' });
    return;
}

sql(qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
    CREATE USER MAPPING FOR PUBLIC SERVER shop;
    CREATE TABLE groups (id int PRIMARY KEY);
    CREATE TABLE items (id bigint PRIMARY KEY, v bytea, expires_at timestamptz, parent int REFERENCES groups ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE copies (id text PRIMARY KEY, v text, expires_at timestamptz);
    CREATE TABLE ages (id int PRIMARY KEY, age text);
    CREATE TABLE live (id text PRIMARY KEY, v text, expires_at timestamptz);
    SELECT redis_migrate.create_migration('shop', 'shop');
    SELECT redis_migrate.add_mapping('shop', 'items', 'item:{id:int}', 'items', 'SELECT id, value_bytes AS v, expires_at FROM redis_batch', '{id}', databases => '{0}', types => '{string}');
    SELECT redis_migrate.add_mapping('shop', 'copies', 'copy:{id}', 'copies', 'SELECT id, value AS v, expires_at FROM redis_batch', '{id}', databases => '{0}', types => '{string}');
    SELECT redis_migrate.add_mapping('shop', 'ages', 'age:{id:int}', 'ages', 'SELECT id, json->>''age'' AS age FROM redis_batch', '{id}', databases => '{0}');
    SELECT redis_migrate.set_reverse_query('shop', 'ages', 'SELECT id, ''hash'' AS type, jsonb_build_object(''age'', age::int) AS value, NULL AS expires_at FROM redis_rows');
    SELECT redis_migrate.start_reverse('shop');
});
wait_until('the feed', sub { sql(q{SELECT state FROM redis_migrate.reverse_feeds}) eq 'running' });

# A commit wakes the feed. Without that, it would look again a quarter of a second after it has sent the last change, each
# time but the first. On a busy machine some of the changes take as long.
my $lag = sql(q{
    CREATE TABLE lags (lag interval);
    CREATE PROCEDURE measure() LANGUAGE plpgsql AS $$
    DECLARE
        changed timestamptz;
        sent timestamptz;
    BEGIN
        FOR n IN 1 .. 9 LOOP
            changed = clock_timestamp();
            INSERT INTO copies VALUES ('lag', n) ON CONFLICT (id) DO UPDATE SET v = excluded.v;
            COMMIT;
            LOOP
                SELECT last_sent_at INTO sent FROM redis_migrate.reverse_mapping JOIN redis_migrate.mapping USING (mapping_id) WHERE mapping = 'copies';
                EXIT WHEN sent > changed OR clock_timestamp() > changed + interval '30 s';
                PERFORM pg_sleep(0.005);
                COMMIT;
            END LOOP;
            INSERT INTO lags VALUES (CASE WHEN sent > changed THEN sent ELSE clock_timestamp() END - changed);
            PERFORM pg_sleep(0.02);
            COMMIT;
        END LOOP;
    END $$;
    CALL measure();
    SELECT extract(epoch FROM percentile_disc(0.2) WITHIN GROUP (ORDER BY lag)) FROM lags;
    DROP TABLE lags});
cmp_ok($lag, '<', 0.15, 'a commit wakes the feed');

# Statements.
sql(q{
    INSERT INTO groups VALUES (1), (2);
    INSERT INTO items SELECT i, 'v', NULL, 1 + i % 2 FROM generate_series(1, 9) AS i;
    INSERT INTO items VALUES (1, 'conflict'), (10, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
    INSERT INTO items VALUES (2, 'nothing') ON CONFLICT DO NOTHING;
    MERGE INTO items AS i USING (VALUES (3, 'merged'::bytea), (4, NULL), (11, 'merged')) AS s (id, v) ON i.id = s.id
        WHEN MATCHED AND s.v IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v);
    BEGIN; DELETE FROM items WHERE id = 5; INSERT INTO items VALUES (5, 'replaced', NULL, 1); COMMIT;
    BEGIN; INSERT INTO items VALUES (12, 'a'); UPDATE items SET id = 13 WHERE id = 12; UPDATE items SET id = 14 WHERE id = 13; COMMIT;
    BEGIN; SAVEPOINT a; UPDATE items SET v = 'undone' WHERE id = 6; SAVEPOINT b; UPDATE items SET id = 60 WHERE id = 7; ROLLBACK TO a; UPDATE items SET v = 'done' WHERE id = 8; COMMIT;
    DO $$ BEGIN BEGIN UPDATE items SET v = 'undone' WHERE id = 9; RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN NULL; END; UPDATE items SET v = 'after' WHERE id = 10; END $$;
    WITH moved AS (DELETE FROM items WHERE id = 11 RETURNING v) INSERT INTO copies SELECT 'moved', convert_from(v, 'UTF8') FROM moved;
});
drained('statements');
is(get(map { "item:$_" } 1 .. 14), 'conflict v merged  replaced v v done v after    a', 'INSERT, ON CONFLICT, MERGE, keys that change, and rows that are replaced');
is(cli('EXISTS item:60') . get('copy:moved'), '0merged', 'what is rolled back is not sent; WITH');
sql(q{DELETE FROM groups WHERE id = 2; UPDATE groups SET id = 3 WHERE id = 1});
drained('cascades');
is(join(' ', map { cli("EXISTS item:$_") } 1 .. 9), '0 1 0 0 1 1 0 1 0', 'cascades');

# Values.
sql(q{INSERT INTO items VALUES (20, '\x00ff0d0a00', '2100-01-01'), (21, '', NULL), (22, 'past', now() - interval '1 hour'), (23, NULL, NULL), (24, 'x', 'infinity'), (25, 'y', '-infinity')});
cli('SET item:23 old'); cli('SET item:22 old');
sql(q{UPDATE items SET parent = NULL WHERE id IN (22, 23)});
drained('values');
is($redis->cli('EVAL', q{return (redis.call('GET', 'item:20'):gsub('.', function (c) return string.format('%02x', string.byte(c)) end))}, 0), '00ff0d0a00', 'bytes');
is(join(' ', map { cli("EXISTS item:$_") } 20 .. 25), '1 1 0 0 1 0', 'empty, past, NULL, infinite and long gone');
is(cli('PTTL item:24'), '-1', 'infinity is no expiry');
# The last times that there are, which are later than what fits microseconds since 1970.
sql(q{INSERT INTO items VALUES (26, 'late', '294250-01-01 00:00:00Z'), (27, 'last', '294276-12-31 23:59:59.999Z')});
drained('late expiries');
is(cli('PEXPIRETIME item:26') . ' ' . cli('PEXPIRETIME item:27'), '9223465939200000 9224318015999999', 'expiries of the last years');
cli('PEXPIREAT item:27 9223372036854775807');
is(sql(q{SET client_min_messages = error; CALL redis_migrate.check_reverse('shop', 'item:{id:int}', 1000)}) =~ s/^\d+//r, '|0', 'one that is later still is as good as the last');
sql(q{
    CREATE TABLE ranks (id text, member text, score float8, PRIMARY KEY (id, member));
    SELECT redis_migrate.create_migration('ranks', 'shop');
    SELECT redis_migrate.add_mapping('ranks', 'ranks', 'rank:{id}', 'ranks', 'SELECT id, member, score FROM redis_batch', '{id,member}', databases => '{0}', expand => 'elements', types => '{zset}');
    SELECT redis_migrate.start_reverse('ranks');
    INSERT INTO ranks VALUES ('a', 'first', '-Infinity'), ('a', 'second', '-0'), ('a', 'third', 4.9e-324), ('a', 'fourth', 0.1), ('a', 'last', 'Infinity')});
drained('scores');
is($redis->cli('ZRANGE', 'rank:a', '0', '-1', 'WITHSCORES') =~ tr/\n/ /r =~ s/-0 /0 /r, 'first -inf second 0 third 4.9406564584124654e-324 fourth 0.10000000000000001 last inf', 'scores');
is(sql(q{CALL redis_migrate.check_reverse('ranks')}), '1|0', 'which are those of the rows');
sql(q{SELECT redis_migrate.drop_migration('ranks')});

# A row that cannot be written back.
sql(q{INSERT INTO ages SELECT i, CASE WHEN i = 77 THEN 'secret' ELSE i::text END FROM generate_series(1, 500) AS i});
drained('a row at fault');
is(cli('HGET age:76 age') . cli('HGET age:500 age') . cli('EXISTS age:77'), '765000', 'the others are sent');
is(sql(q{SELECT f.rejected, r.key, r.sqlstate, r.message FROM redis_migrate.reverse_feeds AS f, redis_migrate.reverse_rejects AS r}), '1|age:77|22P02|invalid input syntax for type integer: "secret"', 'it is counted, and shown');
sql(q{CREATE ROLE stranger; GRANT USAGE ON SCHEMA redis_migrate TO stranger});
is(sql(q{SET ROLE stranger; SELECT count(*) FROM redis_migrate.reverse_rejects}), '0', 'to the owner');
sql(q{UPDATE ages SET age = 'worse' WHERE id IN (77, 78)});
drained('two');
is(sql(q{SELECT count(*) FROM redis_migrate.reverse_rejects}) . cli('HGET age:78 age'), '278', 'what is in Redis stays');
sql(q{UPDATE ages SET age = 7 WHERE id = 77; DELETE FROM ages WHERE id = 78});
drained('rows that are well again');
is(sql(q{SELECT count(*) FROM redis_migrate.reverse_rejects}) . cli('HGET age:77 age') . cli('EXISTS age:78'), '070', 'when they change they are sent');
sql(q{UPDATE ages SET age = 'eighty' WHERE id = 80});
drained('another');
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'ages', 'SELECT id, ''hash'' AS type, jsonb_build_object(''age'', age) AS value, NULL AS expires_at FROM redis_rows')});
wait_until('another query', sub { sql(q{SELECT count(*) FROM redis_migrate.reverse_rejects}) eq '0' });
is(cli('HGET age:80 age'), 'eighty', 'another query tries them again');
sql(q{TRUNCATE ages});
drained('TRUNCATE');
is(cli('EXISTS age:80 age:1'), '0', 'TRUNCATE');

# Triggers of others with the function of ours note nothing that could be taken for a row's name.
my $copies = sql(q{SELECT mapping_id FROM redis_migrate.mapping WHERE mapping = 'copies'});
my ($function, $each, $n) = ('EXECUTE FUNCTION redis_migrate.note_change', 'AFTER INSERT ON copies FOR EACH', 0);
for my $trigger ("$each STATEMENT $function($copies, id)", "BEFORE INSERT ON copies FOR EACH ROW $function($copies, id)", "$each ROW $function($copies)", "$each ROW $function($copies, v, id)")
{
    ++$n;
    sql(qq{CREATE TRIGGER odd $trigger; INSERT INTO copies VALUES ('odd$n', 'v'); DROP TRIGGER odd ON copies});
    drained($trigger);
}
is(get('copy:odd1', 'copy:odd2', 'copy:odd3', 'copy:odd4'), 'v v v v', 'odd triggers: the rows are stored and sent');

# Fields that expire, which not every server takes.
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'ages', 'SELECT id, ''hash'' AS type, jsonb_build_array(jsonb_build_object(''field'', ''age'', ''value'', age, ''expires_at'', timestamptz ''2100-01-01'')) AS value, NULL AS expires_at FROM redis_rows');
    INSERT INTO ages VALUES (1, '1')});
drained('fields that expire');
my $warning = ($node->psql('postgres', q{CALL redis_migrate.check_reverse('shop', 'age:{id:int}')}))[2];
my $takes_them = cli('HPEXPIREAT none 1 FIELDS 1 f') !~ /unknown command/;
is($warning =~ /WARNING:  Redis at \S+ takes no HPEXPIREAT, and mappings "ages" have rows of fields that expire\nDETAIL:  .*rejects/ ? 0 : 1, $takes_them ? 1 : 0, 'check_reverse says whether the server takes them');
wait_until('the feed rejects them then', sub { sql(q{UPDATE ages SET age = age}); sql(q{SELECT count(*) FROM redis_migrate.reverse_rejects}) eq '1' }) if !$takes_them;
sql(q{DELETE FROM ages});
drained('no such rows');

# A value in Redis that is larger than the feed's own, and than what a run would take.
sql(q{INSERT INTO copies VALUES ('huge', 'x')});
drained('a row');
$redis->cli('EVAL', q{return redis.call('SET', KEYS[1], string.rep('x', 70000000))}, 1, 'copy:huge');
like(sql(q{SET client_min_messages = error; CALL redis_migrate.check_reverse('shop', 'copy:{id}', 100000)}), qr/^[1-9]\d*\|1$/, 'a value of 70 MB is compared');
like(sql_error($node, q{SET pg_redis_migrate.max_value_size = '1kB'; CALL redis_migrate.check_reverse('shop', 'copy:{id}', 100000)}),
    qr/ERROR:  54000: .*answered command "GET" with more than the limit\nDETAIL:  The key is copy:xxxx, with letters and digits masked, of mapping "copies"\.\nHINT:  Raise pg_redis_migrate\.max_value_size/,
    'a larger one is named');
sql(q{DELETE FROM copies WHERE id = 'huge'});
drained('no such row');

# Sweeps, where Redis does not know when the key expires.
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'copies', 'SELECT id, ''string'' AS type, v AS value, NULL::timestamptz AS expires_at FROM redis_rows');
    INSERT INTO copies VALUES ('swept', 'x', now() - interval '1 minute')});
wait_until('the other query', sub { sql(q{UPDATE copies SET v = v WHERE id = 'swept'}); cli('GET copy:swept') eq 'x' });
drained('the other query');
sql(q{SELECT redis_migrate.add_expiry('copies', 'expires_at')});
wait_until('a sweep', sub { cli('EXISTS copy:swept') eq '0' });
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'copies', NULL)});

# Logical replication.
sql(q{CREATE DATABASE other});
$node->safe_psql('other', q{CREATE TABLE copies (id text PRIMARY KEY, v text, expires_at timestamptz); CREATE PUBLICATION p FOR TABLE copies});
$node->safe_psql('other', q{SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
sql("CREATE SUBSCRIPTION s CONNECTION 'host=" . $node->host . ' port=' . $node->port . " dbname=other' PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)");
$node->safe_psql('other', q{INSERT INTO copies VALUES ('applied', 'a')});
wait_until('the apply worker', sub { cli('GET copy:applied') eq 'a' });
$node->safe_psql('other', q{UPDATE copies SET id = 'moved2', v = 'b'});
wait_until('the apply worker', sub { cli('GET copy:moved2') eq 'b' });
drained('logical replication');
is(cli('EXISTS copy:applied'), '0', 'what logical replication applies is sent');
sql(q{DROP SUBSCRIPTION s});

# A large value.
my $pid = sql(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'reverse feed'});
sql(q{INSERT INTO copies VALUES ('large', repeat('0123456789', 10000000)), ('small', 's')});
drained('100 MB');
is(cli('STRLEN copy:large') . get('copy:small'), '100000000s', '100 MB');
my ($peak) = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status") =~ /VmHWM:\s+(\d+)/;
note("$peak kB at most");
cmp_ok($peak, '<', 600000, 'memory is bounded');

# The feed tries again what Redis refuses; if somebody touches the position, it passes over all rows.
for my $case ([ 'CONFIG SET maxmemory 1', 'CONFIG SET maxmemory 0' ], [ 'ACL SETUSER default -set', 'ACL SETUSER default +@all' ])
{
    my ($break, $fix) = @$case;
    cli($break);
    sql("UPDATE copies SET v = '$break' WHERE id = 'small'");
    wait_until($break, sub { sql(q{SELECT state || ' ' || message FROM redis_migrate.reverse_feeds}) =~ /^failed .*SET/s });
    cli($fix);
    wait_until($fix, sub { cli('GET copy:small') eq $break });
}
drained('refusals');
for my $break ('DEL redis_migrate:position:{shop}', 'SET redis_migrate:position:{shop} 1234/1:99999')
{
    cli('DEL copy:moved2'); cli($break);
    sql(q{UPDATE copies SET v = v WHERE id = 'small'});
    wait_until($break, sub { cli('GET copy:moved2') eq 'b' });
    drained($break);
}
pass('after refusals, and another position');

# Beside live sync: each side writes, and neither gets its own writes back.
sql(q{
    SELECT redis_migrate.stop_reverse('shop');
    SELECT redis_migrate.create_migration('live', 'shop', source => 'replication');
    SELECT redis_migrate.add_mapping('live', 'live', 'live:{id}', 'live', 'SELECT id, value AS v, expires_at FROM redis_batch', '{id}', databases => '{0}', types => '{string}');
    SELECT redis_migrate.start('live', live => true);
    CALL redis_migrate.wait_for('live', '50 s');
    SELECT redis_migrate.start_reverse('live')});
wait_until('both', sub { sql(q{SELECT state FROM redis_migrate.reverse_feeds WHERE migration = 'live'}) eq 'running' });
my $versions = q{SELECT md5(string_agg(id || ' ' || xmin || ' ' || ctid, ',' ORDER BY id)) FROM live};
for my $n (1 .. 40)
{
    $n % 2 ? cli("SET live:r$n $n EX 5000") : sql("INSERT INTO live VALUES ('p$n', $n, now() + interval '1 hour')");
}
wait_until('p2', sub { cli('GET live:p2') eq '2' });  # else the feed passes it over, and its end
cli('DEL live:r1'); sql(q{DELETE FROM live WHERE id = 'p2'});
sql(q{UPDATE live SET v = 'from here' WHERE id = 'r3'}) if wait_until('r3', sub { sql(q{SELECT v FROM live WHERE id = 'r3'}) eq '3' });
wait_until('r3', sub { cli('GET live:r3') eq 'from here' });
sql(q{CALL redis_migrate.wait_for('live', '50 s')});
drained('both');
my $rows = sql(q{SELECT string_agg('live:' || id || '=' || v, ' ' ORDER BY id) FROM live});
is($rows, join(' ', map { "$_=" . cli("GET $_") } sort split /\n/, cli('KEYS live:*')), 'both sides have all');
is(scalar(my @all = $rows =~ /live:/g), 38, 'which are many');
is(sql(q{SELECT sent FROM redis_migrate.reverse_feeds WHERE migration = 'live'}), '22', 'what live sync writes is not sent');
my $before = sql($versions);
usleep(700_000);
is(sql(q{SELECT sent FROM redis_migrate.reverse_feeds WHERE migration = 'live'}) . sql($versions), "22$before", 'and nothing comes back');
is(sql(q{SELECT count(*) FROM redis_migrate.archive WHERE key LIKE 'redis_migrate:%'}), '0', 'the position is no key of its own');
sql(q{SELECT redis_migrate.set_family_state('live', 'live:{id}', 'both')});
sql(q{UPDATE live SET v = 'p' WHERE id = 'p4'}); cli('SET live:p6 late');
wait_until('the change to come to Redis', sub { cli('GET live:p4') eq 'p' });
sql(q{CALL redis_migrate.wait_for('live', '50 s')});
is(sql(q{SELECT string_agg(key, ' ') FROM redis_migrate.late_writes}), 'live:p6', 'both: only what others write in Redis is late');
# However often it was stopped, it begins at once.
cmp_ok(elapsed(sub {
    for (1 .. 5)
    {
        sql(q{SELECT redis_migrate.stop_reverse('live')});
        wait_until('its end', sub { sql(q{SELECT count(*) FROM redis_migrate.workers WHERE kind = 'reverse feed' AND pid IS NOT NULL}) eq '0' });
        usleep(400_000);
        sql(q{SELECT redis_migrate.start_reverse('live')});
        wait_until('the feed', sub { sql(q{SELECT state FROM redis_migrate.reverse_feeds WHERE migration = 'live'}) eq 'running' });
    }
}), '<', 25, 'a feed that is started again begins');
sql(q{SELECT redis_migrate.stop('live'); SELECT redis_migrate.stop_reverse('live')});

# A copy of the database does not feed by itself.
$node->append_conf('postgresql.conf', "pg_redis_migrate.databases = ''");
$node->restart;
$node->safe_psql('template1', q{CREATE DATABASE copy TEMPLATE postgres});
like(($node->psql('copy', q{CALL redis_migrate.feed_redis('live')}))[2], qr/the reverse feed of migration "live" was started in another database/, 'a copy of the database does not feed');

$redis->stop;
done_testing();
