# The reverse feed of mappings whose rows do not name their keys: the full ledger does. Rows that it does not know are
# not sent, and a cutback does not lose them silently.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PrmLive;
use PrmTest;
use PrmTools;
use RedisNodes;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = start_redis(args => [ '--repl-diskless-sync-delay', '0' ]);
my $node = new_node('names', preload => 1, conf => "pg_redis_migrate.databases = 'postgres'\nrestart_after_crash = on");
my $port = $redis->port;
sub sql { my ($text) = @_; return $node->safe_psql('postgres', $text); }
sub notices { my ($text) = @_; my $err = ''; $node->psql('postgres', $text, stderr => \$err); return $err; }

# Every key of both databases, with its type, value and whether it expires.
sub all_keys
{
    my $lua = q{
        local lines = {}
        for _, db in ipairs({0, 3}) do
            redis.call('SELECT', db)
            for _, key in ipairs(redis.call('KEYS', '*')) do
                local kind = redis.call('TYPE', key)['ok']
                local value = 'of type ' .. kind
                if kind == 'string' then value = redis.call('GET', key) end
                if kind == 'hash' then value = redis.call('HGET', key, 'name') .. '/' .. (redis.call('HGET', key, 'mail') or '-') end
                if not string.find(key, '^redis_migrate:') then
                    lines[#lines + 1] = db .. ' ' .. key .. '=' .. value .. (redis.call('PTTL', key) > 0 and ' expires' or '')
                end
            end
        end
        table.sort(lines)
        return table.concat(lines, '\n')};
    return $redis->cli('EVAL', $lua, 0);
}
sub unfit { return sql(q{SELECT unfit FROM redis_migrate.reverse_feeds}); }
sub drained
{
    my ($what) = @_;
    wait_until("$what: all is sent", sub { sql(q{SELECT state = 'running' AND waiting = 0 AND NOT needs_full FROM redis_migrate.reverse_feeds}) eq 't' });
    return;
}
# What Redis should have, as a copy that this program keeps.
my %want;
sub compare
{
    my ($what) = @_;
    drained($what);
    return is(all_keys(), join("\n", sort map { "$_=$want{$_}" } keys %want), $what);
}
sub set_want { my (%values) = @_; @want{ keys %values } = values %values; return; }

sql(qq{
    CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '$port');
    CREATE USER MAPPING FOR PUBLIC SERVER shop;
    CREATE TABLE sessions (token text PRIMARY KEY, data text, expires_at timestamptz);
    CREATE TABLE people (id bigint PRIMARY KEY, name text, mail text);
    CREATE TABLE flags (id boolean, at timestamptz, v text, PRIMARY KEY (id, at));
    CREATE TABLE cards (code text PRIMARY KEY, name text);
    CREATE TABLE parts (id text, field text, v text, PRIMARY KEY (id, field));
    CREATE TABLE words (word text, v text);
    CREATE UNIQUE INDEX ON words (word) NULLS NOT DISTINCT;
    CREATE TABLE sums (amount numeric PRIMARY KEY, v text);
    SELECT redis_migrate.create_migration('shop', 'shop', source => 'replication', databases => '{0,3}');
    SELECT redis_migrate.add_mapping('shop', 'sessions', 'session:{id}', 'sessions', 'SELECT md5(id) AS token, value AS data, expires_at FROM redis_batch', '{token}', databases => '{0}', types => '{string}');
    SELECT redis_migrate.add_mapping('shop', 'people', 'person:{id:int}', 'people', 'SELECT id, json->>''name'' AS name, json->>''mail'' AS mail FROM redis_batch', '{id}', databases => '{0,3}', types => '{hash}');
    SELECT redis_migrate.add_mapping('shop', 'cards', 'card:{id}', 'cards', 'SELECT upper(id) AS code, json->>''name'' AS name FROM redis_batch', '{code}', databases => '{0}', types => '{hash}');
    SELECT redis_migrate.add_mapping('shop', 'flags', 'flag:{id}:{at:int}', 'flags', 'SELECT id = ''on'' AS id, to_timestamp(at) AS at, value AS v FROM redis_batch', '{id,at}', databases => '{0}', types => '{string}');
});

# What the ledger cannot name.
sql(q{
    SELECT redis_migrate.create_migration('odd', 'shop');
    SELECT redis_migrate.add_mapping('odd', 'parts', 'parts:{id}', 'parts', 'SELECT lower(id) AS id, field, value AS v FROM redis_batch', '{id,field}', databases => '{0}', expand => 'elements');
    SELECT redis_migrate.add_mapping('odd', 'several', 'several:{id}', 'words', 'SELECT lower(w) AS word, b.value AS v FROM redis_batch AS b, regexp_split_to_table(b.id, '' '') AS w', '{word}', databases => '{0}');
    SELECT redis_migrate.add_mapping('odd', 'nested', 'nested:{id}', 'words', 'SELECT lower(id) AS word, upper(w) AS v FROM (SELECT id, entry, regexp_split_to_table(value, '' '') AS w FROM redis_batch) AS b', '{word}', databases => '{0}');
    SELECT redis_migrate.add_mapping('odd', 'word', 'word:{id}', 'words', 'SELECT lower(id) AS word, value AS v FROM redis_batch', '{word}', databases => '{0}');
    SELECT redis_migrate.add_mapping('odd', 'sums', 'sum:{id}', 'sums', 'SELECT id::numeric * 2 AS amount, value AS v FROM redis_batch', '{amount}', databases => '{0}');
    CREATE TABLE places (db int, id bigint, v text, PRIMARY KEY (db, id));
    SELECT redis_migrate.add_mapping('odd', 'places', 'place:{id:int}', 'places', 'SELECT db, id, value AS v FROM redis_batch', '{db,id}', databases => '{0,3}');
});
my $why = 'the name of the key does not stand unchanged in key_columns';
is(sql(q{SELECT mapping, problem FROM redis_migrate.reverse_problems('odd') ORDER BY 1}), join("\n",
    "nested|$why, and the ledger does not tell whether it has all rows of a key, as the query may yield none or several",
    "parts|$why, and the ledger does not tell whether it has all rows of a key, as the mapping is expanded",
    'places|databases does not name a single one',
    "several|$why, and the ledger does not tell whether it has all rows of a key, as the query may yield none or several",
    "sums|$why, and values of key column \"amount\", by which the ledger knows rows, can be equal and yet differ",
    "word|$why, and key column \"word\", by which the ledger knows rows, can be NULL"), 'what the ledger cannot name is told');
sql(q{SELECT redis_migrate.drop_migration('odd')});

# A reverse query names the key as redis_rows does. Plain copies need none.
is(sql(q{SELECT mapping, problem FROM redis_migrate.reverse_problems('shop') WHERE mapping <> 'cards'}), 'people|the columns are no plain copies of the value, and it has no reverse query', 'plain copies need no reverse query');
like(sql_error($node, q{SELECT redis_migrate.set_reverse_query('shop', 'people', 'SELECT id, ''hash'' AS type, jsonb_build_object(''name'', name) AS value, NULL AS expires_at FROM redis_rows')}), qr/column r\.redis_db does not exist/, 'a reverse query names database and key');
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'cards', 'SELECT redis_db, redis_key, ''hash'' AS type, jsonb_build_object(''name'', name) AS value, NULL AS expires_at FROM redis_rows')});
sql(q{SELECT redis_migrate.set_reverse_query('shop', 'people', 'SELECT redis_db, redis_key, ''hash'' AS type, jsonb_strip_nulls(jsonb_build_object(''name'', name, ''mail'', mail)) AS value, NULL AS expires_at FROM redis_rows')});

set_want((map { ("0 session:$_" => "data$_") } 1 .. 20), (map { ("0 person:$_" => "zero$_/-") } 1 .. 10), (map { ("3 person:$_" => "three$_/-") } 5, 11 .. 20),
    '0 card:a' => 'A/-', '0 card:b' => 'B/-', '0 flag:on:0' => 'a', '0 flag:off:86400' => 'b', '0 flag:off:86401' => 'c', '0 other' => 'stays');
$redis->cli_lines(join '', map { my ($db, $key) = split / /; my ($value) = $want{$_}; "SELECT $db\n"
    . ($value =~ m{^(.*)/-} ? "HSET $key name $1" : "SET $key $value") . "\n" } sort keys %want);
$redis->cli_lines("PEXPIRE session:1 5000000\n"); $want{'0 session:1'} .= ' expires';
sql(q{SELECT redis_migrate.start('shop', live => true)});
is(sql_error($node, q{CALL redis_migrate.wait_for('shop', '50 s')}), '', 'live sync');
is(sql(q{SELECT count(*) FROM people}) . sql(q{SELECT name FROM people WHERE id = 5}), '20zero5', 'a row of two keys is that of the lower');
is(sql(q{SELECT string_agg(mapping || ' ' || ledger, ', ' ORDER BY mapping) FROM redis_migrate.mappings WHERE migration = 'shop'}), 'cards full, flags full, people full, sessions full', 'ledgers');
is(sql(q{CALL redis_migrate.check_reverse('shop', keys => 1000)}), '45|0', 'the round trip');

# Look-ups go by the indexes of the ledger, however small it is.
# What live sync has read to load the keys it tells with its first commit a second later.
sessions_over($node);
my $told = '';
wait_until('live sync to tell what it has read', sub {
    my $before = $told;
    usleep(1_100_000);
    $redis->cli_lines("SET tick 1\nDEL tick\n");
    sql(q{CALL redis_migrate.wait_for('shop', '50 s')});
    return ($told = sql(q{SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'ledger'})) eq $before; });
sql(q{CREATE TABLE scans AS SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'ledger'});

# The cutover says what has no way back.
sql(q{SET client_min_messages = error; CALL redis_migrate.verify('shop')});
my $said = notices(q{CALL redis_migrate.cutover('shop', 'confirmed', max_pause => '30 s', force => true)});
like($said, qr/WARNING:  rows that are inserted after the cutover will have no way back, of mappings .*"sessions"/, 'the cutover tells it before');
is(sql(q{SELECT string_agg(DISTINCT state, ' ') FROM redis_migrate.families WHERE migration = 'shop'}), 'postgres', 'cutover') or diag $said;
like(notices(q{SELECT redis_migrate.start_reverse('shop')}), qr/NOTICE:  rows that are inserted here do not go to Redis, of mappings .*\nDETAIL:  The ledger names the keys of rows that came from Redis\./, 'so does start_reverse');
compare('a pass over all rows changes nothing');
is(unfit(), '0', 'and all rows have a name');

# The application.
sql(q{
    UPDATE sessions SET data = 'new', expires_at = '2100-01-01' WHERE token = md5('2');
    DELETE FROM sessions WHERE token = md5('3');
    BEGIN; DELETE FROM sessions WHERE token = md5('4'); INSERT INTO sessions VALUES (md5('4'), 'again'); COMMIT;
    DELETE FROM sessions WHERE token = md5('5');
    UPDATE people SET mail = 'm' WHERE id IN (1, 5, 11);
    DELETE FROM people WHERE id IN (2, 12);
    UPDATE flags SET v = 'changed' WHERE NOT id AND at = '1970-01-02 00:00:01+00';
    DELETE FROM flags WHERE id;
    UPDATE cards SET name = 'ace' WHERE code = 'A';
    DELETE FROM cards WHERE code = 'B';
});
set_want('0 session:2' => 'new expires', '0 session:4' => 'again', '0 person:1' => 'zero1/m', '0 person:5' => 'zero5/m', '3 person:11' => 'three11/m', '0 flag:off:86401' => 'changed');
$want{'0 card:a'} = 'ace/-';
delete @want{ '0 card:b', '0 session:3', '0 session:5', '0 person:2', '3 person:12', '0 flag:on:0' };
compare('changes and deletions, in both databases');
is(unfit(), '0', 'of which all had a name');
sql(q{SET timezone = 'America/New_York'; SET datestyle = 'German'; UPDATE flags SET v = 'abroad' WHERE at = '1970-01-02 00:00:00+00'});
$want{'0 flag:off:86400'} = 'abroad';
compare('whatever the settings of the session');
sql(q{INSERT INTO sessions VALUES (md5('5'), 'back')});
$want{'0 session:5'} = 'back';
compare('a row that comes back has its key');
is(unfit(), '0', 'and a name');
my ($seq, $idx) = split /\|/, sql(q{SELECT pg_stat_force_next_flush(); SELECT t.seq_scan - s.seq_scan, t.idx_scan - s.idx_scan FROM pg_stat_user_tables AS t JOIN scans AS s USING (relname)}) =~ s/^\n//r;
cmp_ok($idx, '>', 0, 'the ledger was looked up by its indexes');
is($seq, 0, 'and by nothing else');

# A cutback, as long as there is nothing without a name.
my $cutback = q{CALL redis_migrate.cutback('shop')};
is(sql_error($node, $cutback), '', 'cutback');
compare('it changes no key');
sql(q{SELECT redis_migrate.unfence('shop')});
$redis->cli_lines("SET session:6 redis\n"); $want{'0 session:6'} = 'redis';
is(sql_error($node, q{CALL redis_migrate.wait_for('shop', '50 s')}) . sql(q{SELECT data FROM sessions WHERE token = md5('6')}), 'redis', 'live sync writes to the tables again');
# A key whose row a lower one had, until both were deleted here.
$redis->cli_lines("SELECT 3\nHSET person:2 name third\n"); $want{'3 person:2'} = 'third/-';
is(sql_error($node, q{CALL redis_migrate.wait_for('shop', '50 s')}) . sql(q{SELECT name FROM people WHERE id = 2}), 'third', 'and gives a row to the key that is there');
sql(q{SET client_min_messages = error; CALL redis_migrate.verify('shop')});
$said = notices(q{CALL redis_migrate.cutover('shop', 'confirmed', max_pause => '30 s', force => true)});
is(sql(q{SELECT string_agg(DISTINCT state, ' ') FROM redis_migrate.families WHERE migration = 'shop'}), 'postgres', 'another cutover') or diag $said;

# Rows without a name: inserted ones, and those whose key columns change.
sql(q{
    INSERT INTO sessions VALUES (md5('unknown'), 'u');
    UPDATE people SET id = 107 WHERE id = 7;
    UPDATE sessions SET data = 'seven' WHERE token = md5('7');
});
delete $want{'0 person:7'}; $want{'0 session:7'} = 'seven';
compare('rows without a name are not sent');
is(unfit(), '2', 'and counted');
like(sql_error($node, $cutback), qr/ERROR:  55000: rows of mappings "sessions", "people" have no key in Redis\nDETAIL:  The ledger names .*\nHINT:  .*discard_changes => true/, 'a cutback does not lose them silently');
like(sql_error($node, q{CALL redis_migrate.cutback('shop', pattern => 'person:{id:int}')}), qr/rows of mappings "people" have no key/, 'nor does one of a family');
sql(q{UPDATE redis_migrate.family_change SET changed_at = changed_at + interval '1 day'});
like(sql_error($node, $cutback), qr/rows of mappings "sessions", "people" have no key/, 'nor where the clock has been set back since the cutover');
is(sql_error($node, q{CALL redis_migrate.cutback('shop', pattern => 'flag:{id}:{at:int}')}), '', 'another family goes back');
sql(q{SELECT redis_migrate.unfence('shop', 'flag:{id}:{at:int}')});

# A pass over all rows: keys that are gone go, others of the pattern stay.
sql(q{BEGIN; ALTER TABLE people DISABLE TRIGGER USER; UPDATE people SET mail = 'unnoted' WHERE id = 8; DELETE FROM people WHERE id IN (9, 14); INSERT INTO people VALUES (900, 'nine'); SELECT redis_migrate.start_reverse('shop', 'person:{id:int}'); COMMIT});
wait_until('the pass', sub { sql(q{SELECT count(*) FROM redis_migrate.outbox_gap}) eq '0' && all_keys() !~ /person:14/ });
$want{'0 person:8'} = 'zero8/unnoted'; delete @want{ '0 person:9', '3 person:14' };
$redis->cli_lines("HSET person:555 name unmapped\nSELECT 3\nHSET person:5 name loser\n");
set_want('0 person:555' => 'unmapped/-', '3 person:5' => 'loser/-');
compare('a pass over all rows');
is(unfit() > 2, 1, 'counts rows without a name');
sql(q{TRUNCATE sessions; INSERT INTO sessions VALUES (md5('10'), 'ten')});
delete @want{ grep { /^0 session:\d/ } keys %want }; $want{'0 session:10'} = 'ten';
compare('TRUNCATE removes the keys that had rows, and no other');

# Redis loses what it has confirmed, deletions too.
$redis->cli('SAVE');
sql(q{DELETE FROM people WHERE id = 15; UPDATE people SET mail = 'kept' WHERE id = 16});
delete $want{'3 person:15'}; $want{'3 person:16'} = 'three16/kept';
compare('changes');
$redis->restart('KILL');
sql(q{UPDATE people SET mail = 'noticed' WHERE id = 17}); $want{'3 person:17'} = 'three17/noticed';
wait_until('Redis lacks nothing', sub { my $keys = all_keys(); $keys !~ /person:15/ && $keys =~ m{three16/kept} });
compare('what Redis has lost is written again, and deleted again');

# kill -9 of the feed, of backends and of the server in mid work.
my $load = q{DO $$ BEGIN FOR n IN 1 .. 3000 LOOP
    UPDATE people SET name = 'n' || n WHERE id = (random() * 20)::int;
    DELETE FROM people WHERE id = (random() * 20)::int AND random() < 0.2;
    INSERT INTO people SELECT i, 'i' || n FROM (SELECT (random() * 20)::int AS i) AS x WHERE i IN (3, 4, 10, 16, 17, 18, 19, 20) ON CONFLICT DO NOTHING;
    IF random() < 0.1 THEN ROLLBACK; ELSE COMMIT; END IF; PERFORM pg_sleep(0.001); END LOOP; END $$};
for my $round (1 .. 4)
{
    my $session = start_sql($node, $load, name => 'load');
    usleep(600_000);
    my $pid = eval { sql(q{SELECT pid FROM redis_migrate.workers WHERE kind = 'reverse feed' AND pid IS NOT NULL}) };
    if ($round < 4) { kill 'KILL', $pid if $pid }
    else { kill_postgres($node) }
    wait_until('PostgreSQL is back', sub { answers($node) });
    undef $session;
}
wait_until('the load has ended', sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'load'}) eq '0' });
drained('kills');
for my $id (1 .. 20)
{
    my $db = $id <= 10 && $id != 2 ? 0 : 3;
    my $row = sql(qq{SELECT name || '/' || coalesce(mail, '-') FROM people WHERE id = $id});
    if ($row ne '') { $want{"$db person:$id"} = $row } else { delete $want{"$db person:$id"} }
}
compare('kill -9 in mid work');

# Rows without a name are left behind if that is said.
sql(q{SELECT redis_migrate.settle_late_writes('shop')});
is(sql_error($node, q{CALL redis_migrate.cutback('shop', pattern => 'person:{id:int}', discard_changes => true)}), '', 'a cutback that leaves rows behind');
compare('changes no key');

# Rows can be brought to another Redis by the ledger's names.
my $other = start_redis();
$other->cli('SET', 'x', 'y');
like(notices('CREATE SERVER other FOREIGN DATA WRAPPER redis_migrate OPTIONS (host $$127.0.0.1$$, port $$' . $other->port . q{$$); CREATE USER MAPPING FOR PUBLIC SERVER other; CALL redis_migrate.restore('shop', 'other', source => 'rows')}),
    qr/WARNING:  rows of mappings .*"people".* that did not come from Redis are left out/, 'restore says what it leaves out');
is($other->cli('-n', '3', 'HGET', 'person:16', 'name'), sql(q{SELECT name FROM people WHERE id = 16}), 'and has the others');

# A cluster, and a slot of it that takes no transaction while the pass comes to a key without a row.
my $cluster = start_cluster(masters => 3, replicas => 0);
my @masters = $cluster->masters;
my %club = map { ("tok:$_" => "v$_") } 1 .. 40;
$cluster->set(%club);
sub club { return join "\n", sort map { my $master = $_->{node}; map { "$_=" . $master->cli('GET', $_) } grep { /^tok/ } split /\n/, $master->cli('KEYS', 'tok:*') } @masters; }
sub club_state { return sql(q{SELECT concat_ws(' ', waiting = 0 AND NOT needs_full AND state = 'running', message) FROM redis_migrate.reverse_feeds WHERE migration = 'club'}); }
sub club_is { my ($what) = @_; wait_until($what, sub { club_state() eq 't' }); return is(club(), join("\n", sort map { "$_=$club{$_}" } keys %club), $what); }
my $seeds = join ', ', map { '127.0.0.1:' . $_->{node}->port } @masters;
sql(qq{CREATE SERVER club FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '$seeds', cluster 'on'); CREATE USER MAPPING FOR PUBLIC SERVER club;
    CREATE TABLE toks (a text, b boolean, v text, PRIMARY KEY (a, b));
    SELECT redis_migrate.create_migration('club', 'club');
    SELECT redis_migrate.add_mapping('club', 'toks', 'tok:{id}', 'toks', 'SELECT md5(id) AS a, id = ''7'' AS b, value AS v FROM redis_batch', '{a,b}', databases => '{0}', types => '{string}');
    CALL redis_migrate.run('club');
    SELECT redis_migrate.set_family_state('club', 'tok:{id}', 'postgres');
    SELECT redis_migrate.start_reverse('club')});
club_is('a pass over all rows of a cluster');
sql(q{UPDATE toks SET v = 'seven' WHERE b; DELETE FROM toks WHERE a = md5('8')});
$club{'tok:7'} = 'seven'; delete $club{'tok:8'};
club_is('changes and deletions in a cluster');
my $slot = RedisNodes::Cluster::slot('tok:5');
my ($from) = grep { $_->{slots}{$slot} } @masters;
my ($to) = grep { !$_->{slots}{$slot} } @masters;
$cluster->begin_move($slot, $from, $to, half => 1);
sql(q{BEGIN; ALTER TABLE toks DISABLE TRIGGER USER; DELETE FROM toks WHERE a = md5('5'); SELECT redis_migrate.start_reverse('club'); COMMIT; UPDATE toks SET v = 'nine' WHERE a = md5('9')});
wait_until('the slot is held', sub { club_state() =~ /slot/ && club() =~ /tok:9=nine/ });
is(sql(q{SELECT count(*) FROM redis_migrate.outbox WHERE cardinality(name) = 3 AND name[2] = 'tok:5'}), '1', 'a key that has to wait is noted by its name');
$cluster->finish_move($slot, $from, $to);
delete $club{'tok:5'}; $club{'tok:9'} = 'nine';
club_is('and is deleted once its slot has moved');
is(sql(q{SELECT unfit FROM redis_migrate.reverse_feeds WHERE migration = 'club'}), '0', 'all rows had a name');

done_testing();
