# A Redis that is gone, comes back, refuses, or holds what no table can take: nothing is lost, and errors say what to do.

use strict;
use warnings;

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

use constant KEYS => 8000;

my $node = new_node('faults', conf => "pg_redis_migrate.batch_rows = 100\nlog_statement = none");

# A migration of the keys k:<number> from a server that listens on a port.
sub migration
{
    my ($name, $port, %options) = @_;
    my $user = $options{user} ? "CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS ($options{user});" : '';
    $node->safe_psql(
        'postgres', qq{
        CREATE SERVER $name FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
        $user
        CREATE TABLE $name (id bigint PRIMARY KEY, v text);
        SELECT redis_migrate.create_migration('$name', '$name');
        SELECT redis_migrate.add_mapping('$name', 'm', 'k:{id:int}', '$name', 'SELECT id, value AS v FROM redis_batch',
            key_columns => '{id}', databases => '{0}', types => '{string}', exclusive => true);});
    return;
}

sub fill
{
    my ($redis, $count) = @_;
    $redis->cli('EVAL', 'for i = 1, tonumber(ARGV[1]) do redis.call("SET", "k:" .. i, "value " .. i) end', 0, $count);
    return;
}

# Keys that are in Redis and not in the table, or there with another value.
sub missing
{
    my ($table, $count) = @_;
    return $node->safe_psql('postgres',
        "SELECT count(*) FROM generate_series(1, $count) AS i LEFT JOIN $table ON id = i WHERE v IS DISTINCT FROM 'value ' || i");
}

sub read_keys { my ($migration) = @_; return last_run($node, $migration, 'read') || 0; }

my $redis = start_redis();
fill($redis, KEYS);
$redis->cli('SAVE');
my $proxy = PrmTools::Proxy->new($redis->port);

# Redis is gone before the run.
my $nobody = PostgreSQL::Test::Cluster::get_free_port();
migration('gone', $nobody);
my $err = sql_error($node, q{CALL redis_migrate.run('gone')});
like($err, qr/ERROR:  08006: could not connect to Redis at 127\.0\.0\.1:$nobody\n/, 'Redis gone before the run: the error names the address');
like($err, qr/HINT:  SELECT \* FROM redis_migrate\.preflight\('gone'\)/, 'with a hint');
is(last_run($node, 'gone', 'state, sqlstate'), 'failed|08006', 'the run is written down as failed');
is($node->safe_psql('postgres', q{SELECT check_name, status FROM redis_migrate.preflight('gone')}), 'reachable|fail', 'preflight says so');

# The connection breaks, the server lives: the run continues where it was.
migration('broken', $proxy->port);
$proxy->tell('rate 60000');
my $call = start_sql($node, q{CALL redis_migrate.run('broken');});
wait_until('the first batches', sub { read_keys('broken') > 0 });
$proxy->tell('drop');
$proxy->tell('pass');
(undef, $err) = $call->finish;
is(last_run($node, 'broken', 'state, restarts, balanced'), 'completed|0|t', 'a lost connection is opened again, from the position')
  or diag($err);
cmp_ok(read_keys('broken'), '<', 2 * KEYS, 'what was done is not done again');
is(missing('broken', KEYS), 0, 'every key is there after a lost connection');

# Killed in the middle and started again in time: a new process, so that its cursors mean nothing.
migration('restarted', $proxy->port);
$proxy->tell('rate 60000');
$call = start_sql($node, q{CALL redis_migrate.run('restarted');});
wait_until('the first batches', sub { read_keys('restarted') > 0 });
$redis->kill9;
my $at = read_keys('restarted');
$proxy->tell('pass');
$redis->start;
(undef, $err) = $call->finish;
cmp_ok($at, '<', KEYS, 'Redis was killed in the middle');
is(last_run($node, 'restarted', 'state, restarts, read, balanced'), 'completed|1|' . KEYS . '|t',
    'after a restart of Redis the scan begins again, counts as well')
  or diag($err);
like($err, qr/NOTICE:.*restarted or replaced/, 'and says so');
is(missing('restarted', KEYS), 0, 'no key is missed');

# The same with sets that have lost a member by then: what this run stored of it goes.
sub fill_sets
{
    my (@members) = @_;
    $redis->cli('-n', 1, 'EVAL', 'for i = 1, tonumber(ARGV[1]) do redis.call("SADD", "s:" .. i, unpack(ARGV, 2)) end', 0, 2000, @members);
    return;
}
fill_sets('a', 'b');
$redis->cli('SAVE');
fill_sets('lost');
$node->safe_psql(
    'postgres', q{
    CREATE TABLE members (id bigint, member text, PRIMARY KEY (id, member));
    SELECT redis_migrate.create_migration('members', 'restarted', databases => '{1}');
    SELECT redis_migrate.add_mapping('members', 'm', 's:{id:int}', 'members', 'SELECT id, member FROM redis_batch',
        key_columns => '{id,member}', databases => '{1}', types => '{set}', expand => 'elements');});
sub members { my ($where) = @_; return $node->safe_psql('postgres', "SELECT count(*) FROM members WHERE $where"); }
$proxy->tell('rate 60000');
$call = start_sql($node, q{CALL redis_migrate.run('members');});
wait_until('rows of members', sub { members(q{member = 'lost'}) > 0 });
$redis->kill9;
$proxy->tell('pass');
$redis->start;
(undef, $err) = $call->finish;
is(last_run($node, 'members', 'state, restarts, read, balanced'), 'completed|1|2000|t', 'sets that have lost members are read again') or diag($err);
is(members(q{member = 'lost'}) . ' of ' . members('true'), '0 of 4000', 'and no row of a lost member stays');
$redis->cli('-n', 1, 'FLUSHDB');
$redis->cli('SAVE');

# Killed and not started again.
migration('later', $proxy->port);
$proxy->tell('rate 60000');
# Pauses double and are shortened at random: at least one try must end between the first second and this.
$call = start_sql($node, q{SET pg_redis_migrate.reconnect_timeout = '5s';
    CALL redis_migrate.run('later');});
wait_until('the first batches', sub { read_keys('later') > 0 });
$redis->kill9;
(undef, $err) = $call->finish;
like($err, qr/ERROR:  08006: .*Redis at 127\.0\.0\.1:\d+/, 'Redis gone during the run: an error after reconnect_timeout');
like($err, qr/WARNING:  \w+: .*Redis at 127\.0\.0\.1:\d+.*HINT:  The run continues by itself .*, 5 s\..*ERROR/s, 'which is told while it waits');
like($err, qr/HINT:  The run keeps its position: CALL redis_migrate\.run again/, 'that says how to go on');
is(last_run($node, 'later', 'state, sqlstate, balanced'), 'failed|08006|t', 'the run is failed, its sums agree');
$at = read_keys('later');
cmp_ok($at, '<', KEYS, 'it was in the middle');
$proxy->tell('pass');
$redis->start;
my (undef, $out) = ('', '');
$node->psql('postgres', q{CALL redis_migrate.run('later')}, stderr => \$err);
like($err, qr/NOTICE:  resuming run \d+ of migration "later"/, 'the next CALL goes on with the run');
is(last_run($node, 'later', 'state, restarts, read'), 'completed|1|' . KEYS, 'and completes it');
is(missing('later', KEYS), 0, 'with every key');

# Gone after the run: what is stored stays.
$redis->stop;
is(missing('later', KEYS), 0, 'Redis gone after the run');
$redis->start;

# A database that has been emptied meanwhile does not stop the run whose position is in it.
my $emptied = start_redis();
$emptied->cli('-n', '3', 'EVAL', 'for i = 1, 2000 do redis.call("SET", "k:" .. i, "value " .. i) end', 0);
$emptied->cli('SET', 'k:1', 'value 1');
my $valve = PrmTools::Proxy->new($emptied->port);
migration('emptied', $valve->port);
$node->safe_psql('postgres', q{SELECT redis_migrate.alter_mapping('emptied', 'm', databases => '{3}')});
$valve->tell('rate 20000');
$call = start_sql($node, q{CALL redis_migrate.run('emptied');}, name => 'emptied');
wait_until('the first batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM emptied') > 0 });
$valve->tell('hold');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'emptied' AND query LIKE 'CALL%'});
$call->finish;
like(last_run($node, 'emptied', 'position, state'), qr/ db=3 cursor=\d+\|failed/, 'a run was stopped within database 3');
$emptied->cli('-n', '3', 'FLUSHDB');
$valve->tell('pass');
is(sql_error($node, q{CALL redis_migrate.run('emptied')}), '', 'it goes on although the database is empty now');
is(last_run($node, 'emptied', 'state, balanced'), 'completed|t', 'to its end');

# Databases other than 0.
$emptied->cli('-n', '7', 'SET', 'k:7', 'seven');
$node->safe_psql('postgres', q{CREATE TABLE by_db (db int, id bigint, v text, PRIMARY KEY (db, id));
    SELECT redis_migrate.create_migration('by_db', 'emptied');
    SELECT redis_migrate.add_mapping('by_db', 'm', 'k:{id:int}', 'by_db', 'SELECT db, id, value AS v FROM redis_batch',
        key_columns => '{db,id}', exclusive => true);
    CALL redis_migrate.run('by_db')});
is($node->safe_psql('postgres', 'SELECT * FROM by_db ORDER BY db'), "0|1|value 1\n7|7|seven", 'all databases are read');

# A wrong password: it appears nowhere.
my $secret = 'correct horse battery';
my $locked = start_redis(password => $secret);
my $wrong = 'Tr0ub4dor-and-3';
migration('locked', $locked->port, user => "password '$wrong'");
$err = sql_error($node, q{CALL redis_migrate.run('locked')});
like($err, qr/ERROR:  28000: authentication with Redis at 127\.0\.0\.1:\d+ failed/, 'a wrong password is 28000');
$node->safe_psql('postgres', q{DROP USER MAPPING FOR CURRENT_USER SERVER locked});
like(sql_error($node, q{CALL redis_migrate.run('locked')}), qr/ERROR:  28000: /, 'and so is none');
$node->safe_psql('postgres', qq{CREATE USER MAPPING FOR CURRENT_USER SERVER locked OPTIONS (username 'nobody', password '$wrong')});
$err .= sql_error($node, q{CALL redis_migrate.run('locked')});
like($err, qr/28000.*28000/s, 'an unknown user is 28000');
my $views = join "\n", map { $node->safe_psql('postgres', "SELECT * FROM redis_migrate.$_") }
  qw(migrations mappings checks runs run_counts mapping_counts rejects progress run migration);
$views .= $node->safe_psql('postgres', q{SELECT * FROM redis_migrate.preflight('locked')});
$views .= $node->safe_psql('postgres', q{SELECT redis_migrate.migration_sql('locked')});
$views .= $node->safe_psql('postgres', q{SELECT * FROM pg_stat_activity});
unlike("$err$views" . slurp_file($node->logfile), qr/\Q$wrong\E|\Q$secret\E/, 'no password in messages, views and the log');

# A right that is missing.
my $guarded = start_redis();
fill($guarded, 10);
$guarded->cli('ACL', 'SETUSER', 'mig', 'on', '>pw', '~*', '+@read', '+@connection', '+info', '-dump', '-getrange');
migration('guarded', $guarded->port, user => "username 'mig', password 'pw'");
is($node->safe_psql('postgres', q{SELECT status, hint FROM redis_migrate.preflight('guarded') WHERE check_name = 'right to DUMP'}),
    'fail|ACL SETUSER mig +dump', 'preflight names the missing right and the command that grants it');
like(sql_error($node, q{CALL redis_migrate.run('guarded')}), qr/ERROR:  42501: Redis at 127\.0\.0\.1:\d+ refused command "DUMP"/, 'the run ends with 42501');
my ($grant) = $node->safe_psql('postgres', q{SELECT hint FROM redis_migrate.preflight('guarded') WHERE check_name = 'right to DUMP'});
$guarded->cli(split / /, $grant);
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.preflight('guarded') WHERE status = 'fail'}), 0, 'granted as told, preflight is content');
$node->safe_psql('postgres', q{CALL redis_migrate.run('guarded')});
is(missing('guarded', 10), 0, 'and the run goes on');

# LOADING: of a real file, slowly.
my $loading = start_redis(args => [ '--key-load-delay', '0', '--loading-process-events-interval-bytes', '1024' ]);
fill($loading, KEYS);
$loading->cli('SELECT', '0');
$loading->cli('SAVE');
migration('loading', $loading->port);
$loading->kill9;
$loading->{args}[1] = '500';  # microseconds for each key
my $ping = 'redis-cli -s ' . $loading->socket . ' PING 2>/dev/null';
$call = start_sql($node, qq{\\! timeout 60 sh -c 'until $ping | grep -q LOADING; do sleep 0.02; done'
    SELECT check_name, status FROM redis_migrate.preflight('loading') WHERE check_name = 'loading';
    CALL redis_migrate.run('loading');}, name => 'loading');
$loading->start;  # returns when everything is loaded
($out, $err) = $call->finish;
like($out, qr/^loading\|fail$/m, 'preflight finds the server loading');
like($err, qr/ERROR:  57P03: .*loading/, 'a run that finds the server loading ends at once with 57P03');
is(last_run($node, 'loading', 'state, read'), 'failed|0', 'and has read nothing');
$node->safe_psql('postgres', q{CALL redis_migrate.run('loading')});
is(missing('loading', KEYS), 0, 'a server that has loaded is read');
$node->safe_psql('postgres', 'TRUNCATE loading');
my $gate = PrmTools::Proxy->new($loading->port);
$node->safe_psql('postgres', 'ALTER SERVER loading OPTIONS (SET port \'' . $gate->port . '\')');
$gate->tell('rate 60000');
$call = start_sql($node, q{CALL redis_migrate.run('loading');});
wait_until('the first batches', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM loading') > 0 });
$loading->kill9;
$gate->tell('pass');
$loading->start;
(undef, $err) = $call->finish;
is(last_run($node, 'loading', 'state, restarts'), 'completed|1', 'a server that restarts and loads during the run is waited for') or diag($err);
is(missing('loading', KEYS), 0, 'and read whole');

# MASTERDOWN: a replica that has lost its master and must not show old data.
my $replica = start_redis();
fill($replica, 10);
migration('replica', $replica->port);
$replica->cli('CONFIG', 'SET', 'replica-serve-stale-data', 'no');
$replica->cli('REPLICAOF', '127.0.0.1', $nobody);
$err = sql_error($node, q{CALL redis_migrate.run('replica')});
like($err, qr/ERROR:  57P03: .*\nDETAIL:  MASTERDOWN/, 'MASTERDOWN is 57P03');
is($node->safe_psql('postgres', q{SELECT status FROM redis_migrate.preflight('replica') WHERE check_name = 'role'}), 'fail', 'preflight says why');
$replica->cli('REPLICAOF', 'NO', 'ONE');
$node->safe_psql('postgres', q{CALL redis_migrate.run('replica')});
is(missing('replica', 10), 0, 'promoted, it is read');

# Keys that vanish or change their type between SCAN and DUMP: the proxy holds the first DUMP back. Without GETRANGE
# each of them is read by DUMP.
my $busy = start_redis(args => [ '--rename-command', 'GETRANGE', 'UNUSED' ]);
fill($busy, 40);
my $hold = PrmTools::Proxy->new($busy->port);
migration('busy', $hold->port);
$hold->tell('hold_on DUMP');
$call = start_sql($node, q{CALL redis_migrate.run('busy');});
wait_until('the first DUMP', sub { $hold->holds });
$busy->cli('DEL', map { "k:$_" } 1 .. 7);
$busy->cli('DEL', map { "k:$_" } 8 .. 10);
$busy->cli('RPUSH', "k:$_", 'x') for 8 .. 10;
$busy->cli('SET', 'k:11', 'new');
$busy->cli('PEXPIRE', 'k:12', '1');
$busy->cli('PEXPIREAT', 'k:13', '4102444800123');
$hold->tell('pass');
(undef, $err) = $call->finish;
is(last_run($node, 'busy', 'state, read, vanished, rejected, migrated, balanced'), 'completed|40|8|3|29|t', 'vanished keys are counted') or diag($err);
is($node->safe_psql('postgres', q{SELECT string_agg(key, ' ' ORDER BY reject_id), min(rule), max(rule), min(type) FROM redis_migrate.rejects WHERE migration = 'busy' HAVING count(DISTINCT key) = 3}) =~ s/^[^|]*//r,
    '|wrong_type|wrong_type|list', 'keys that have another type now are rejected by name');
is($node->safe_psql('postgres', 'SELECT v FROM busy WHERE id = 11'), 'new', 'the value is that of the time it was read');

# Many keys expire during the run.
$busy->cli('FLUSHALL');
fill($busy, 4000);
$node->safe_psql('postgres', 'TRUNCATE busy');
$hold->tell('hold_on MEMORY');
$call = start_sql($node, q{CALL redis_migrate.run('busy');});
wait_until('the first names', sub { $hold->holds });
$busy->cli('EVAL', 'for i = 1, 4000 do redis.call("PEXPIRE", "k:" .. i, i % 10 == 0 and 1 or 1 + i % 1500) end', 0);
$hold->tell('rate 150000');
$call->finish;
is(last_run($node, 'busy', 'balanced, rejected'), 't|0', 'sums agree while keys expire');
is(last_run($node, 'busy', 'migrated'), $node->safe_psql('postgres', 'SELECT count(*) FROM busy'), 'each migrated key is a row');
cmp_ok(last_run($node, 'busy', 'vanished'), '>', 0, 'some have vanished');

# Under a ceiling the position is stored about once a second, though hardly a name is wanted.
my $others = start_redis();
$others->cli('EVAL', 'for i = 1, 9000 do redis.call("SET", "x:" .. i, "") end', 0);
migration('others', $others->port);
$node->safe_psql('postgres', q{ALTER SERVER others OPTIONS (ADD max_rate '1500')});
$node->safe_psql('postgres', q{SELECT redis_migrate.alter_mapping('others', 'm', priority => 'high')});
$node->safe_psql('postgres', q{CREATE TABLE x (LIKE others INCLUDING ALL)});
$node->safe_psql('postgres', q{SELECT redis_migrate.add_mapping('others', 'x', 'x:{id:int}', 'x', 'SELECT id, value AS v FROM redis_batch',
    key_columns => '{id}', priority => 'low')});
$call = start_sql($node, q{CALL redis_migrate.run('others');});
wait_until('a position', sub { last_run($node, 'others', 'position') =~ / cursor=[1-9]/ });
is($node->safe_psql('postgres', 'SELECT count(*) FROM x'), 0, 'a position is stored long before the end of a level that wants nothing');
$call->finish;
is(last_run($node, 'others', 'state, read, balanced'), 'completed|9000|t', 'and the next one has it all');

# Names and values that are hard to take.
my $odd = start_redis();
my $long_key = 'b:' . join '', map { sprintf '%04x', ($_ * 40503) % 65536 } 1 .. 16384;  # 64 kB, not compressible
my $long_plain = 'b:' . 'x' x 65534;
$odd->cli_lines(<<'LINES');
SET "b:a:b::c" 1
SET "b:{tag}:x" 2
SET "b:*?[a-z]\\" 3
SET "b:zero\x00byte" 4
SET "b:bad\xff\xfeutf" 5
SET "b:" 6
SET "b: \t\r\n" 7
SET "j:nul" "{\"a\": \"x\\u0000y\"}"
SET "j:utf" "\"\xff\""
SET "j:big" "1e400"
SET "j:long" "[1e400]"
SET "j:empty" ""
SET "j:raw" "\x00"
SET "t:nul" "a\x00b"
SET "t:utf" "\xc3\x28"
SET "t:ok" "\xc3\xa9"
SET "n:huge" "1e400"
SET "n:good" "12.50"
SET "n:text" "abc"
LINES
$odd->cli('SET', 'n:digits', '9' x 400);
$odd->cli('SET', $long_plain, 'long and plain');
$odd->cli('SET', $long_key, 'long');
$odd->cli('SET', "u:$long_key", 'unmapped');
$odd->cli('SET', 'u:short', 'unmapped');
my $odd_port = $odd->port;
$node->safe_psql(
    'postgres', qq{
    CREATE SERVER odd FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$odd_port');
    CREATE TABLE odd_bytes (k bytea PRIMARY KEY, v bytea);
    CREATE TABLE odd_json (k text PRIMARY KEY, v jsonb);
    CREATE TABLE odd_text (k text PRIMARY KEY, v text);
    CREATE TABLE odd_number (k text PRIMARY KEY, f float8, n numeric, i bigint);
    SELECT redis_migrate.create_migration('odd', 'odd');
    SELECT redis_migrate.add_mapping('odd', 'bytes', 'b:*', 'odd_bytes', 'SELECT key_bytes AS k, value_bytes AS v FROM redis_batch', key_columns => '{k}');
    SELECT redis_migrate.add_mapping('odd', 'json', 'j:{k}', 'odd_json', 'SELECT k, json AS v FROM redis_batch', key_columns => '{k}');
    SELECT redis_migrate.add_mapping('odd', 'text', 't:{k}', 'odd_text', 'SELECT k, value AS v FROM redis_batch', key_columns => '{k}');
    SELECT redis_migrate.add_mapping('odd', 'number', 'n:{k}', 'odd_number',
        \$\$SELECT k, CASE WHEN k <> 'digits' THEN value::float8 END AS f, value::numeric AS n, CASE WHEN k = 'digits' THEN value::bigint END AS i FROM redis_batch\$\$,
        key_columns => '{k}');
    CALL redis_migrate.run('odd');});
is(last_run($node, 'odd', 'state, read, migrated, archived, rejected, balanced'), 'completed|24|12|2|10|t', 'every odd key has an outcome');
is($node->safe_psql('postgres', q{SELECT string_agg(encode(v, 'escape'), ',' ORDER BY v) FROM odd_bytes}),
    '1,2,3,4,5,6,7,long and plain', 'names are bytes: colons, braces, globs, zero bytes, control characters, 64 kB');
is($node->safe_psql('postgres', q{SELECT k FROM odd_bytes WHERE v = '4'}), '\x623a7a65726f0062797465', 'a zero byte stays in the name');
is($node->safe_psql('postgres', q{SELECT k, v FROM odd_json ORDER BY k}), 'big|1' . '0' x 400 . "\nlong|[1" . '0' x 400 . ']', 'JSON numbers may be huge');
is($node->safe_psql('postgres', q{SELECT k, v FROM odd_text}), 'ok|é', 'text is text');
is($node->safe_psql('postgres', q{SELECT k, f, n FROM odd_number}), 'good|12.5|12.50', 'numbers that fit are stored');
is($node->safe_psql('postgres', q{SELECT coalesce(left(key, 10), '-'), rule, sqlstate FROM redis_migrate.rejects WHERE migration = 'odd' ORDER BY key, length(key)}),
    join("\n",
        'b:9e373c6e|54000|54000', 'j:empty|empty_value|', 'j:nul|value_encoding|', 'j:raw|value_encoding|', 'j:utf|value_encoding|',
        'n:digits|i|22003', 'n:huge|f|22003', 'n:text|f|22P02', 't:nul|value_encoding|', 't:utf|value_encoding|'),
    'each reject names its rule') or diag($node->safe_psql('postgres', q{SELECT left(key, 20), rule, sqlstate, left(message, 100) FROM redis_migrate.rejects WHERE migration = 'odd'}));
is($node->safe_psql('postgres', q{SELECT count(*) FROM redis_migrate.rejects WHERE migration = 'odd' AND payload IS NULL}), 0, 'and keeps the payload');

# A value of 100 MB, and what it costs.
my $large = start_redis();
my $mb = 100;
$large->cli('EVAL', q{local t = {} for i = 1, 1048576 do t[i] = string.char(32 + math.random(0, 94)) end
    redis.call('SET', 'k:1', string.rep(table.concat(t), tonumber(ARGV[1])))}, 0, $mb);
migration('large', $large->port);
my ($idle, $peak) = split /\n/, $node->safe_psql(
    'postgres', q{
    CREATE FUNCTION peak_kb() RETURNS int LANGUAGE sql AS $$ SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s*(\d+)')::int $$;
    SELECT peak_kb();
    CALL redis_migrate.run('large');
    SELECT peak_kb();});
is($node->safe_psql('postgres', 'SELECT octet_length(v) FROM large'), $mb * 1024 * 1024, 'a value of 100 MB is stored');
my ($digest) = $large->cli('EVAL', q{return redis.sha1hex(redis.call('GET', 'k:1'))}, 0);
is($node->safe_psql('postgres', q{CREATE EXTENSION IF NOT EXISTS pgcrypto; SELECT encode(digest(v, 'sha1'), 'hex') FROM large}), $digest, 'as it is in Redis');
cmp_ok(($peak - $idle) / 1024, '<', 64 + 4 * $mb, 'with at most 64 MB and four times its size of memory: ' . int(($peak - $idle) / 1024) . ' MB');
($idle, $peak) = split /\n/, $node->safe_psql('postgres', "SELECT peak_kb();\nCALL redis_migrate.run('large');\nSELECT peak_kb();");
cmp_ok(($peak - $idle) / 1024, '<', 64 + 4 * $mb, 'so does a run in which nothing has changed: ' . int(($peak - $idle) / 1024) . ' MB');
$node->safe_psql('postgres', q{SET pg_redis_migrate.max_value_size = '90MB'; TRUNCATE large; CALL redis_migrate.run('large')});
is($node->safe_psql('postgres', q{SELECT rule, payload IS NULL FROM redis_migrate.rejects WHERE migration = 'large'}), 'max_value_size|t', 'above max_value_size it is rejected by name');

done_testing();
