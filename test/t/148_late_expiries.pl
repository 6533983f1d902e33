# Keys that expire in Redis after a cutover, and rows that the application renews after that: they leave no late write that
# would keep a family from going back. What others delete is one, and so is any deletion of a family of several mappings.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0', '--hz', '100' ]);
my $node = new_node('expiries', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub open_ones { return rows(q{SELECT string_agg(key || ' ' || kind, ' ' ORDER BY key) FROM redis_migrate.late_writes WHERE settled_at IS NULL}); }
rows(q{
    CREATE TABLE names (id text PRIMARY KEY, name text);
    CREATE TABLE ages (id text PRIMARY KEY, age int);
    SELECT redis_migrate.add_mapping('live', 'names', 'p:{id}', 'names', $$SELECT id, json->>'name' AS name FROM redis_batch$$, '{id}', databases => '{0}', types => '{hash}');
    SELECT redis_migrate.add_mapping('live', 'ages', 'p:{id}', 'ages', $$SELECT id, (json->>'age')::int AS age FROM redis_batch$$, '{id}', databases => '{0}', types => '{hash}');
    SELECT redis_migrate.set_reverse_query('live', 'names', $$SELECT id, 'hash' AS type, jsonb_build_object('name', name, 'age', (SELECT age FROM ages AS a WHERE a.id = n.id)) AS value, NULL AS expires_at FROM redis_rows AS n$$)});
$redis->cli_lines(join '', map { "SET s:$_ $_\nHSET p:$_ name n age $_\n" } 1 .. 20);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live')});
my $cutover = q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}', max_pause => '30 s', force => true)};
my $cutback = q{CALL redis_migrate.cutback('live', pattern => 's:{id}')};
is(sql_error($node, $cutover), '', 'cutover');
rows(q{SELECT redis_migrate.start_reverse('live', 's:{id}')});

# Sessions that come back some time after they have expired, on both sides, and after the feed has seen that.
my $sessions = start_sql($node, q{
    DO $$
    BEGIN
        LOOP
            UPDATE strings SET value = clock_timestamp(), expires_at = clock_timestamp() + '1 s' WHERE expires_at < clock_timestamp() - id::int * interval '20 ms'
                AND (expires_at < clock_timestamp() - interval '10 s'
                     OR EXISTS (SELECT FROM redis_migrate.late_write AS l WHERE l.key_bytes = convert_to('s:' || id, 'UTF8') AND l.settled_at > strings.expires_at));
            UPDATE strings SET expires_at = clock_timestamp() + '1 s' WHERE expires_at IS NULL;
            IF EXISTS (SELECT FROM pg_trigger WHERE tgname LIKE 'redis_migrate_fence%') THEN INSERT INTO strings (id, value) VALUES ('99', ''); END IF;
            COMMIT;
            PERFORM pg_sleep(0.02);
        END LOOP;
    END
    $$}, name => 'sessions');
wait_until('many to expire and to come back', sub { rows(q{SELECT count(*) FROM redis_migrate.late_writes WHERE kind = 'deleted'}) > 60 });
wait_until('some that live', sub { rows(q{SELECT count(*) FROM strings WHERE expires_at > clock_timestamp() + '500 ms'}) > 1 });
is(sql_error($node, $cutback), '', 'the family goes back meanwhile');
like(($sessions->finish)[1], qr/25006/, 'as it does for the application');
is(open_ones() . rows(q{SELECT string_agg(DISTINCT kind, ' ') FROM redis_migrate.late_writes}), 'deleted', 'no expiry is open');
is(wait_for($node), '', 'live sync goes on');
wait_until('the rest to expire', sub { $redis->cli('KEYS', 's:*') eq '' });
is(wait_for($node) . rows(q{SELECT count(*) FROM strings WHERE expires_at > clock_timestamp()}), '0', 'and both sides have none in the end');

# They are found by an index, however many were settled.
is(rows(q{SELECT bool_or(idx_scan > 0) FROM pg_stat_user_indexes WHERE indexrelname = 'late_write_open'}), 't', 'open ones are found by an index');
is(rows(q{SET enable_seqscan = off; EXPLAIN (COSTS off) SELECT late_write_id FROM redis_migrate.late_write WHERE migration = 'live' AND settled_at IS NULL AND late_write_id > 7 ORDER BY late_write_id LIMIT 9}) =~ /Index.* using late_write_open/ ? 1 : 0, 1, 'of their own');

# What somebody else deletes stays, as long as the row lives, also if the row is then renewed.
$redis->cli_lines(join '', map { "SET s:$_ $_ EX 1000\n" } 1 .. 3);
rows(q{SELECT redis_migrate.unfence('live', 's:{id}')});
is(wait_for($node) . sql_error($node, $cutover), '', 'cutover');
$redis->cli('DEL', 's:1', 's:2');
wait_until('late deletions', sub { open_ones() eq 's:1 deleted s:2 deleted' });
rows(q{UPDATE strings SET expires_at = clock_timestamp() + '2000 s' WHERE id = '1'; UPDATE strings SET expires_at = clock_timestamp() + '1 s' WHERE id = '2'});
wait_until('the second to be as gone here as there', sub { open_ones() eq 's:1 deleted' });
my $changing = start_sql($node, q{BEGIN; UPDATE redis_migrate.late_write SET changes = changes WHERE settled_at IS NULL; SELECT pg_sleep(2); COMMIT}, name => 'changing');
wait_until('somebody who changes one', sub { rows(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'changing' AND wait_event = 'PgSleep'}) eq '1' });
rows(q{UPDATE strings SET expires_at = clock_timestamp() WHERE id = '1'});
is(sql_error($node, $cutback), '', 'one that is just being changed is settled by a cutback all the same');
$changing->finish;
rows(q{SELECT redis_migrate.unfence('live', 's:{id}')});
$redis->cli('SET', 's:1', 1, 'EX', 1000);
is(wait_for($node) . sql_error($node, $cutover), '', 'cutover');
$redis->cli('DEL', 's:1');
wait_until('a late deletion', sub { open_ones() eq 's:1 deleted' });
rows(q{UPDATE strings SET expires_at = clock_timestamp() + '2000 s' WHERE id = '1'});
like(sql_error($node, $cutback), qr/ERROR:  55000: 1 keys were written to or deleted in Redis after the cutover/, 'a deletion of a key whose row lives speaks against a cutback');
is(rows(q{SELECT redis_migrate.settle_late_writes('live')}) . sql_error($node, $cutback), '1', 'until somebody has settled it');

# Of a family of several mappings no row tells whether those of the others are gone.
is(sql_error($node, $cutover =~ s/s:(.*)\)$/p:$1, no_way_back => true)/r), '', 'cutover of a family of several mappings');
rows(q{SELECT redis_migrate.start_reverse('live', 'p:{id}')});
$redis->cli('DEL', 'p:1', 'p:2', 'p:3');
$redis->cli('PEXPIRE', 'p:4', 1);
wait_until('late deletions', sub { rows(q{SELECT count(*) FROM redis_migrate.late_writes WHERE kind = 'deleted' AND settled_at IS NULL}) eq '4' });
rows(q{DELETE FROM ages WHERE id IN ('2', '3', '4'); DELETE FROM names WHERE id IN ('3', '4')});
usleep(6_000_000);  # the feed has looked at them twice
my $both = q{CALL redis_migrate.cutback('live', pattern => 'p:{id}', discard_changes => true)};
like(sql_error($node, $both), qr/ERROR:  55000: 4 keys were written to or deleted in Redis after the cutover\nDETAIL:  .*\nHINT:  .*settle_late_writes\('live', 'p:\{id\}'\)/, 'its late deletions stay');
is(open_ones(), 'p:1 deleted p:2 deleted p:3 deleted p:4 deleted', 'all of them');
is(rows(q{SELECT redis_migrate.settle_late_writes('live', 'p:{id}')}) . sql_error($node, $both), '4', 'until somebody has settled them');
$redis->cli('HSET', 'p:3', 'name', 'back', 'age', 3);
rows(q{SELECT redis_migrate.unfence('live', 'p:{id}')});
is(wait_for($node) . rows(q{SELECT string_agg(id || coalesce(name, '') || coalesce(age::text, ''), ' ' ORDER BY id) FROM names FULL JOIN ages USING (id) WHERE id IN ('1', '2', '3', '4')}), '1n1 2n 3back3', 'and the tables follow Redis again');

done_testing();
