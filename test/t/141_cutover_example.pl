# examples/cutover as a whole: an application that knows nothing of PostgreSQL writes all the while, and what Redis has
# acknowledged is in the table when it is fenced; what the table gets afterwards comes back to Redis.

use strict;
use warnings;

use FindBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $example = "$FindBin::Bin/../../examples/cutover";
my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('cutover', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'");
my $port = $redis->port;
$redis->cli('ACL', 'SETUSER', 'shop', 'on', '>secret', '~*', '+@all');

my $file = PostgreSQL::Test::Utils::tempdir() . '/carts.json';
my $said = '';
my $shopper = IPC::Run::start([ '/usr/bin/python3', "$example/shopper.py", '--port', $port ], '>', $file, '2>', \$said);
wait_until('some carts', sub { $redis->cli('DBSIZE') > 500 });
my ($out, $err);
is($node->psql('postgres', "\\set port $port\n\\i $example/move.sql", stdout => \$out, stderr => \$err, timeout => 300), 0, 'the move') or diag $err;
like($err, qr/verification 1 of migration "carts": verified/, 'is verified while the application writes');
like($out, qr/cart:\{customer:int\}\|postgres/, 'and the family is PostgreSQL\'s');
$shopper->finish;
like($said, qr/\d{3,} writes, then Redis refused one/, 'the application was refused');
my $carts = slurp_file($file);
cmp_ok(length $carts, '>', 10000, 'it remembers its carts');
# As a file: a command line may not be that long.
my $answer = $node->safe_psql('postgres', "\\set carts `cat $file`\n\\i $example/compare.sql");
is($answer, '', 'the table has each write that Redis has acknowledged, and nothing else');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM carts'), '>', 500, 'which are many');

$node->safe_psql('postgres', q{INSERT INTO carts VALUES (0, '{"apples": "1"}')});
wait_until('the way back', sub { $redis->cli('HGET', 'cart:0', 'apples') eq '1' });
pass('what the table gets comes to Redis');
done_testing();
