# The examples of README.md and docs/*.md run as written, in order. Each page has an empty database, an empty Redis and
# no roles but those that it creates. psql runs the blocks marked sql, as a superuser, and those marked sh that use
# redis-cli. A block marked text is the output of the sql block before it: errors and notices, and the results. An error
# that no such block announces fails the page, and so does a block without a mark, or SQL under another mark. The server
# authenticates by peer, so the pages can become their roles only by SET ROLE.

use strict;
use warnings;

use File::Basename qw(basename);
use FindBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use PrmTest;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $node = new_node('docs', preload => 1, conf => "timezone = 'UTC'");
my $redis = start_redis();
my $port = $redis->port;
my $dump = $redis->directory . '/dump.rdb';
unlink $node->data_dir . '/pg_hba.conf';
$node->append_conf('pg_hba.conf', 'local all all peer');
$node->reload;

# A redis-cli that reaches the tests' Redis, before the real one.
my $bin = PostgreSQL::Test::Utils::tempdir();
my ($real) = grep { -x } map { "$_/redis-cli" } split /:/, $ENV{PATH};
# Redis refuses a SAVE while it makes a snapshot for a replica.
append_to_file("$bin/redis-cli", "#!/bin/sh\n[ \"\$1\" != SAVE ] || while $real -p $port INFO persistence | grep -q rdb_bgsave_in_progress:1; do sleep 0.1; done\n"
      . "exec $real -p $port \"\$@\"\n");
chmod 0755, "$bin/redis-cli";

# The blocks of a page: { kind, line, text }, with the port and the dump file of the tests' Redis. A block of a list is
# indented as the item is.
sub blocks
{
    my ($file) = @_;
    my (@blocks, $block, $indent);
    my $line = 0;
    for (split /\n/, slurp_file($file))
    {
        ++$line;
        if ($block && /^ *```$/) { push @blocks, $block; undef $block; }
        elsif ($block) { s/^$indent//; $block->{text} .= "$_\n"; }
        elsif (/^( *)```(.*)$/) { $indent = $1; $block = { kind => $2, line => $line, text => '' }; }
    }
    push @blocks, $block if $block;
    $_->{text} =~ s/\b6379\b/$port/g for @blocks;
    $_->{text} =~ s!'/var/(?:lib|backups)/redis/dump\.rdb'!'$dump'!g for @blocks;
    # A busy machine may take longer than writes are held back by default.
    $_->{text} =~ s/^(CALL redis_migrate\.cutover\([^;]*)\);$/$1, max_pause => '30 s');/mg, $_->{text} =~ s/paused_ms < 2000/paused_ms < 30000/g for @blocks;
    return @blocks;
}

sub runs { my ($block) = @_; return $block->{kind} eq 'sql' || ($block->{kind} eq 'sh' && $block->{text} =~ /^redis-cli/); }

# The lines of the blocks that would not be run or compared, and should be.
sub unmarked
{
    my @blocks = @_;
    my @lines;
    for my $i (0 .. $#blocks)
    {
        my ($kind, $text) = @{ $blocks[$i] }{qw(kind text)};
        my $is_good =
            $kind eq 'sql' ? 1
            : $kind eq 'text' ? $i > 0 && $blocks[ $i - 1 ]{kind} eq 'sql'
            : $kind =~ /^(?:sh|output|signature|conf|redis|diagram)$/ && $text !~ /^\s*(?:SELECT|CALL|CREATE|ALTER|DROP|GRANT|INSERT|UPDATE|DELETE|SET)\b.*;/m;
        push @lines, $blocks[$i]{line} if !$is_good;
    }
    return @lines;
}

# Lines without what differs between two runs.
sub comparable
{
    my ($text) = @_;
    $text =~ s/\d+ keys\/s/N keys\/s/g;
    $text =~ s/at most about \d+ MB if all of them/at most about N MB if all of them/g;  # pages before leave a backlog
    $text =~ s/\d+\.\d+ s (?:ahead of|behind) this/N s from this/g;
    $text =~ s/^psql:\S+:\d+: //mg;
    $text =~ s/ +$//mg;
    return grep { $_ ne '' } split /\n/, $text;
}

# The lines that do not follow in the order of the page.
sub missing
{
    my ($told, $met) = @_;
    my @left = @$met;
    my @missing;
    for my $line (@$told)
    {
        my ($at) = grep { $left[$_] eq $line } 0 .. $#left;
        if (defined $at) { splice @left, 0, $at + 1; }
        else { push @missing, $line; }
    }
    return @missing;
}

my $message = qr/^(?:ERROR|WARNING|NOTICE|DETAIL|HINT|CONTEXT):|^drop cascades to /;

sub run_page
{
    my ($page, $file) = @_;
    my @blocks = blocks($file);
    is(join(' ', unmarked(@blocks)), '', "$page: each block is run, compared, or has a mark that exempts it");
    @blocks = grep { $_->{kind} eq 'text' || runs($_) } @blocks;
    return pass("$page has no examples") if !grep { $_->{kind} eq 'sql' } @blocks;
    $redis->cli('FLUSHALL');
    $node->safe_psql('postgres', 'CREATE DATABASE page');
    $node->safe_psql('page', 'CREATE EXTENSION pg_redis_migrate') if $page !~ /^(?:README|quickstart|install)/;
    my $script = "$bin/$page.sql";
    my $sh = 0;
    for my $block (@blocks)
    {
        next if $block->{kind} eq 'text';
        my $mark = "== $block->{line}";
        append_to_file($script, "\\echo $mark\n\\warn $mark\n");
        if ($block->{kind} eq 'sql') { append_to_file($script, $block->{text}); next; }
        my $commands = "$bin/$page." . ++$sh;
        append_to_file($commands, "set -e\n$block->{text}");
        append_to_file($script, "\\! bash $commands >/dev/null || echo 'ERROR:  the shell commands failed' >&2\n");
    }
    my ($out, $err) = ('', '');
    local $ENV{PATH} = "$bin:$ENV{PATH}";
    IPC::Run::run([ 'psql', '-Xq', '-d', $node->connstr('page'), '-f', $script ], '<', \undef, '>', \$out, '2>', \$err);
    my (%out, %err);
    for ([ \%out, $out ], [ \%err, $err ])
    {
        my ($of, $text) = @$_;
        my $line = 0;
        for (split /\n/, $text) { if (/^(?:psql:\S+ )?== (\d+)$/) { $line = $1; } else { $of->{$line} .= "$_\n"; } }
    }
    my $faults = '';
    for my $i (0 .. $#blocks)
    {
        my $block = $blocks[$i];
        next if $block->{kind} eq 'text';
        my $next = $blocks[ $i + 1 ];
        my @told = $next && $next->{kind} eq 'text' ? comparable($next->{text}) : ();
        my @messages = grep { $_ =~ $message } comparable($err{ $block->{line} } // '');
        my %announced = map { ($_ => 1) } @told;
        my @bad = grep { /^ERROR:/ && !$announced{$_} } @messages;
        $faults .= "line $block->{line}: " . join("\n", @bad) . "\n" if @bad;
        next if !@told;
        my @results = comparable($out{ $block->{line} } // '');
        my @missing = (missing([ grep { $_ =~ $message } @told ], \@messages), missing([ grep { $_ !~ $message } @told ], \@results));
        $faults .= "line $next->{line}: does not come, or not in this order:\n" . join("\n", @missing) . "\nwhat comes:\n" . join("\n", @messages, @results) . "\n" if @missing;
    }
    is($faults, '', "$page: examples run as written");
    $node->safe_psql('postgres', 'DROP DATABASE page WITH (FORCE)');
    my $roles = $node->safe_psql('postgres', q{SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE oid >= 16384});
    $node->safe_psql('postgres', "DROP ROLE $roles") if $roles ne '';
    return;
}

my (undef, undef, $refusal) = $node->psql('postgres', '', extra_params => [ '-U', 'pg_monitor' ]);
like($refusal, qr/Peer authentication failed/, 'the server says peer');

for my $file ("$root/README.md", sort glob "$root/docs/*.md")
{
    my $page = basename($file, '.md');
    next if $ENV{PRM_PAGES} && $page !~ /^(?:$ENV{PRM_PAGES})$/;
    run_page($page, $file);
}

# The reference names everything that the extension has for users.
$node->safe_psql('postgres', 'CREATE DATABASE reference');
$node->safe_psql('reference', 'CREATE EXTENSION pg_redis_migrate');
my $named = slurp_file("$root/docs/reference.md");
for (
    [ 'functions', q{SELECT DISTINCT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'redis_migrate'::regnamespace AND p.proname !~ '^(owner_role_|fdw_)' ORDER BY 1} ],
    [ 'views', q{SELECT relname FROM pg_class WHERE relnamespace = 'redis_migrate'::regnamespace AND relkind = 'v' AND has_table_privilege('public', oid, 'SELECT') ORDER BY 1} ],
    [ 'settings', q{SELECT name FROM pg_settings WHERE name LIKE 'pg_redis_migrate.%' ORDER BY 1} ])
{
    my ($what, $query) = @$_;
    my @all = split /\n/, $node->safe_psql('reference', $query);
    is(join(' ', grep { $named !~ /\b\Q$_\E\b/ } @all), '', scalar(@all) . " $what are in the reference");
}

done_testing();
