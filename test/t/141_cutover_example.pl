# examples/cutover as a whole: an application that knows nothing of PostgreSQL writes all the while. What Redis has
# acknowledged is in the table when the application is fenced; what the table gets afterwards comes to Redis; the
# application goes back to Redis with that, and moves once more.

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
my $file = PostgreSQL::Test::Utils::tempdir() . '/carts.json';
$redis->cli('ACL', 'SETUSER', 'shop', 'on', '>secret', '~*', '+@all');

# The output and the messages of psql for a file of the example.
sub script
{
    my ($name, %variables) = @_;
    my $set = join '', map { "\\set $_ '$variables{$_}'\n" } keys %variables;
    my ($out, $err);
    is($node->psql('postgres', "$set\\i $example/$name", stdout => \$out, stderr => \$err, timeout => 300), 0, $name) or diag $err;
    return ($out, $err);
}

# Starts the application; $$said is what it says in the end.
sub start_shopper
{
    my ($said) = @_;
    unlink $file;
    return IPC::Run::start([ '/usr/bin/python3', "$example/shopper.py", '--port', $port ], '>', $file, '2>', $said, IPC::Run::timeout(180));
}

# Cuts over while the application writes, and compares.
sub cut_over
{
    my ($shopper, $said) = @_;
    my ($out, $err) = script('cutover.sql');
    like($err, qr/verification \d+ of migration "carts": verified/, 'is verified while the application writes');
    like($out, qr/cart:\{customer:int\}\|postgres/, 'and the family is PostgreSQL\'s');
    $shopper->finish;
    like($$said, qr/\d{3,} writes, then Redis refused one/, 'the application was refused');
    cmp_ok(-s $file, '>', 10000, 'it remembers its carts');
    ($out) = script('compare.sql', file => $file);
    is($out, '', 'the table has each write that Redis has acknowledged, and nothing else');
}

my $said = '';
my $shopper = start_shopper(\$said);
wait_until('some carts', sub { $redis->cli('DBSIZE') > 500 });
script('move.sql', port => $port);
cut_over($shopper, \$said);
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM carts'), '>', 500, 'which are many');

$node->safe_psql('postgres', q{INSERT INTO carts VALUES (0, '{"apples": "1"}')});
wait_until('the way back', sub { $redis->cli('HGET', 'cart:0', 'apples') eq '1' });
pass('what the table gets comes to Redis');

# Changes of the table until the last moment are in Redis when it takes the application's writes again.
$node->safe_psql('postgres', q{UPDATE carts SET items = items || '{"figs": "7"}' WHERE customer % 2 = 0});
$node->safe_psql('postgres', q{DELETE FROM carts WHERE customer % 10 = 1});
my $carts = $node->safe_psql('postgres', 'SELECT count(*) FROM carts');
my $figs = $node->safe_psql('postgres', q{SELECT count(*) FROM carts WHERE items ? 'figs'});
$node->safe_psql('postgres', q{CALL redis_migrate.cutback('carts')});
my @keys = split /\n/, $redis->cli('KEYS', 'cart:*');
is(scalar(@keys), $carts, 'Redis has the carts of the table');
my @answers = split /\n/, $redis->cli_lines(join '', map { "HGET $_ figs\n" } @keys);
is(scalar(grep { $_ eq '7' } @answers), $figs, 'with what was put into them there');
like(sql_error($node, 'DELETE FROM carts'), qr/25006/, 'which takes no writes of the application any more');

$said = '';
$redis->cli('CONFIG', 'RESETSTAT');
$shopper = start_shopper(\$said);
wait_until('a write', sub { $redis->cli('INFO', 'commandstats') =~ /cmdstat_hincrby/ });
cut_over($shopper, \$said);
is($node->safe_psql('postgres', q{SELECT items->>'apples' FROM carts WHERE customer = 0}), '1', 'nor is anything lost that the table had before');
done_testing();
