# An audit of keys that real client libraries wrote: each of them is one family of its framework.

use strict;
use warnings;

use PrmClients;
use PrmTest;
use Test::More;

my $keys = 300;
my $redis = start_redis();
my $node = new_node('clients');
create_server($node, 'clients', $redis);

run_client('node', install_npm('audit_clients', 'redis_clients.js') . '/redis_clients.js', $redis->port, $keys);
run_client('/usr/bin/python3', 'lib/python/redis_clients.py', $redis->port, $keys);
$node->safe_psql('postgres', q{CALL redis_migrate.audit('clients')});

# BullMQ keeps a hash "meta" beside its jobs, which may count as an odd one of them.
my $families = sub {
    my ($framework) = @_;
    return $node->safe_psql('postgres',
        "SELECT pattern, type, keys - odd FROM redis_migrate.audit_families WHERE framework = '$framework' ORDER BY keys DESC, pattern");
};
is($families->('express-session (connect-redis)'), "sess:{token}|string|$keys", 'connect-redis: sessions');
is($families->('Django sessions in the cache'), ":1:django.contrib.sessions.cache{token}|string|$keys", 'Django: sessions');
is($families->('Django cache'), ":1:product-{product_id:int}|string|$keys", 'Django: cache');
is($families->('Flask-Session'), "session:{session_id:uuid}|string|$keys", 'Flask-Session');
is($families->('rate-limiter-flexible'), "rlflx:{ip:inet}|string|$keys", 'rate-limiter-flexible');
is((split /\n/, $families->('BullMQ'))[0], "bull:mail:{mail_id:int}|hash|$keys", 'BullMQ: jobs');
is((split /\n/, $families->('RQ'))[0], "rq:job:{job_id:uuid}|hash|$keys", 'RQ: jobs');
is($node->safe_psql('postgres', q{SELECT sum(keys) = (SELECT keys FROM redis_migrate.audits) FROM redis_migrate.audit_families}), 't',
    'the families are all keys');
is($node->safe_psql('postgres', q{SELECT string_agg(pattern, ' ') FROM redis_migrate.audit_families WHERE framework IS NULL}), '',
    'each has a framework');

done_testing();
