# Real client libraries, as programs that a test runs.
#
#   use PrmClients;
#   my $packages = install_npm('session_stores', 'connect_sessions.js');
#   run_client('node', "$packages/connect_sessions.js", $port);

package PrmClients;

use strict;
use warnings;

use Exporter qw(import);
use File::Copy qw(copy);
use IPC::Run ();
use PostgreSQL::Test::Utils;

our @EXPORT = qw(install_npm run_client);

# Installs the packages of data/$name, exactly as its lock file says, beside the program lib/js/$program. Returns the
# directory.
sub install_npm
{
    my ($name, $program) = @_;
    my $packages = PostgreSQL::Test::Utils::tempdir();
    copy("data/$name/$_", "$packages/$_") or die "$_: $!\n" for 'package.json', 'package-lock.json';
    copy("lib/js/$program", "$packages/$program") or die "$!\n";
    local $ENV{HOME} = $packages;
    # npm trusts whom the system trusts.
    local $ENV{NODE_EXTRA_CA_CERTS} = $ENV{NODE_EXTRA_CA_CERTS} // '/etc/ssl/certs/ca-certificates.crt';
    my ($out, $err) = ('', '');
    IPC::Run::run([ 'npm', 'ci', '--prefix', $packages, '--cache', "$packages/cache", '--no-audit', '--no-fund', '--ignore-scripts' ],
        '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180)) or die "npm ci: $out$err";
    return $packages;
}

# Runs a program to its end and returns the words that it printed.
sub run_client
{
    my (@command) = @_;
    my ($out, $err) = ('', '');
    IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err) or die "@command: $out$err\n";
    return split ' ', $out;
}

1;
