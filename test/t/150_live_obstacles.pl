# What keeps a migration from being cut over, and back, before anything else: live sync that does not follow. What its processes
# have noted is changed while they stand.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use Test::More;

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('obstacles');
create_server($node, 'live', $redis);
create_live($node);
sub rows { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
# The obstacle; '': the checks have gone on to the verification, which there was none of.
sub obstacle
{
    my $error = sql_error($node, q{CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}')});
    return $1 if $error =~ /ERROR:  55000: migration "live" cannot be cut over now\nDETAIL:  Because (.*)\.\nHINT:  SELECT redis_migrate\.start/;
    return $error =~ /no verification of late/ ? '' : $error;
}
# A link that has written nothing for ten seconds counts as one that is not up.
sub renew { return rows('UPDATE redis_migrate.live_link SET updated_at = clock_timestamp()'); }
# The obstacle while a column of a table is something else.
sub with
{
    my ($table, $column, $value) = @_;
    renew();
    rows("CREATE TABLE kept AS SELECT ctid AS place, $column AS was FROM redis_migrate.$table; UPDATE redis_migrate.$table SET $column = $value");
    my ($found, $state) = (obstacle(), live($node, 'state'));
    rows("UPDATE redis_migrate.$table SET $column = (SELECT was FROM kept); DROP TABLE kept");
    return ($found, $state);
}

is(obstacle(), 'live sync is not under way', 'none');
$redis->cli('SET', 's:1', 1);
rows(q{SELECT redis_migrate.start('live', live => true)});
is(wait_for($node) . obstacle(), '', 'one that is in step');
my @held = map { hold_worker($node, $_, idle => 1) } 'migration', 'replication link';
renew();
is(obstacle(), '', 'and that stands for a moment');
my $another = 'no worker of this database applies its changes now; a copy of a database has none';
is_deeply([ map { [ with(@$_) ] } (
            [ 'background_run', 'state', q{'paused'} ],
            [ 'background_run', 'instance', q{'another'} ],
            [ 'run', 'pid', 'pg_backend_pid()' ],
            [ 'live_link', 'state', q{'connecting'} ],
            [ 'live_link', 'state', q{'spool full'} ],
            [ 'live_link', 'updated_at', q{updated_at - interval '1 hour'} ],
            [ 'live_position', 'is_loaded', 'false' ],
            [ 'live_link', 'doubt', q{'it says so'} ]) ],
    [   [ 'live sync is in state "paused"', 'paused' ],
        [ 'live sync belongs to another server, of which this one is a copy', 'in step' ],
        [ $another, 'in step' ],
        [ 'a replication link is not up', 'connecting' ],
        [ 'a replication link is not up', 'spool full' ],
        [ 'a replication link is not up', 'connecting' ],
        [ 'live sync is still loading its snapshot', 'loading' ],
        [ 'live sync may have missed changes: it says so', 'streaming' ] ], 'each obstacle, as live_sync has it');
renew();
is(obstacle(), '', 'none is left');
rows('DELETE FROM redis_migrate.live_link');
is(obstacle(), 'a replication link is not up', 'a run without a link');
$_->release for @held;
rows(q{SELECT redis_migrate.stop('live')});
is(obstacle(), 'live sync is in state "stopped"', 'one that was stopped');

done_testing();
