# Source scan after a cutover: live sync does not tell what the reverse feed has deleted. The value that an old client has
# written before stays known.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis();
my $node = new_node('gone', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
create_server($node, 'live', $redis);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub cli { my (@command) = @_; chomp(my $answer = $redis->cli(@command)); return $answer; }
sub late { return rows(q{SELECT string_agg(concat_ws(' ', key, kind, substring(encode(payload, 'escape') FROM 'late\d*')), ', ' ORDER BY key) FROM redis_migrate.late_writes WHERE settled_at IS NULL}); }

rows(q{
    CREATE TABLE strings (id text PRIMARY KEY, value text, expires_at timestamptz);
    SELECT redis_migrate.create_migration('live', 'live', source => 'scan', databases => '{0}');
    SELECT redis_migrate.add_mapping('live', 'strings', 'a:{id}', 'strings', 'SELECT id, value, expires_at FROM redis_batch', '{id}', databases => '{0}', types => '{string}')});
$redis->cli_lines(join '', map { "SET a:$_ v\n" } 1 .. 5);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node), '', 'live sync');
rows(q{SELECT redis_migrate.start_reverse('live')});
rows(q{SET client_min_messages = error; CALL redis_migrate.verify('live'); CALL redis_migrate.cutover('live', 'confirmed', max_pause => '10 s')});

$redis->cli_lines("SET a:1 late1\nSET a:8 late8\nSET a:9 late9 PX 1500\n");
is(wait_for($node) . late(), 'a:1 written late1, a:8 written late8, a:9 written late9', 'late writes');
rows(q{DELETE FROM strings WHERE id = '1'; INSERT INTO strings VALUES ('8', 'mine'); DELETE FROM strings WHERE id = '8'});
wait_until('the reverse feed', sub { cli('EXISTS', 'a:1', 'a:8') eq '0' });
wait_until('one to expire', sub { cli('EXISTS', 'a:9') eq '0' });
wait_until('live sync to see it', sub { wait_for($node) eq '' && late() !~ /a:9 written/ });
is(late(), 'a:1 written late1, a:8 written late8', 'stay so until somebody has looked at them, unless they expire');
like(sql_error($node, q{CALL redis_migrate.cutback('live')}), qr/2 keys were written to or deleted in Redis/, 'a cutback asks');

$node->stop;
done_testing();
