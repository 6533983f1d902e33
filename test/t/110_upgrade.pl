# ALTER EXTENSION UPDATE from version 0.1: the catalog is that of a new installation, and what the old version recorded in
# a run is known to the next one. test/data/upgrade says how the old records came about.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use PrmTest;
use PrmTools;
use Test::More;

my $data = 'data/upgrade';
my $node = new_node('upgrade', preload => 1, conf => "autovacuum = off\npg_redis_migrate.databases = ''");

# --- what the extension's script makes, line by line

my $catalog = q{
WITH member AS (
    SELECT d.classid, d.objid FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pg_redis_migrate'),
relation AS (SELECT c.* FROM member AS m JOIN pg_class AS c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid),
inner_object AS (
    SELECT classid, objid FROM member
    UNION SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index AS i JOIN relation AS r ON r.oid = i.indrelid
    UNION SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint AS c JOIN relation AS r ON r.oid = c.conrelid
    UNION SELECT 'pg_trigger'::regclass, t.oid FROM pg_trigger AS t JOIN relation AS r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal)
SELECT format('%s: %s', pg_describe_object(o.classid, o.objid, 0), coalesce(obj_description(o.objid, o.classid::regclass::name), 'no comment'))
FROM inner_object AS o
UNION ALL SELECT format('%s.%s %s null:%s default:%s identity:%s storage:%s comment:%s acl:%s', r.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        NOT a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attstorage, col_description(r.oid, a.attnum), a.attacl)
    FROM relation AS r JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL SELECT format('%s kind:%s persistence:%s replica identity:%s options:%s security:%s acl:%s', r.relname, r.relkind, r.relpersistence, r.relreplident, r.reloptions,
        r.relrowsecurity, (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(r.relacl, acldefault(CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner))) AS a))
    FROM relation AS r
UNION ALL SELECT format('index %s', pg_get_indexdef(i.indexrelid)) FROM pg_index AS i JOIN relation AS r ON r.oid = i.indrelid
UNION ALL SELECT format('constraint %s on %s: %s', c.conname, r.relname, pg_get_constraintdef(c.oid)) FROM pg_constraint AS c JOIN relation AS r ON r.oid = c.conrelid
UNION ALL SELECT format('trigger %s', pg_get_triggerdef(t.oid)) FROM pg_trigger AS t JOIN relation AS r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL SELECT format('view %s: %s', r.relname, pg_get_viewdef(r.oid)) FROM relation AS r WHERE r.relkind = 'v'
UNION ALL SELECT format('%s acl:%s', pg_get_functiondef(p.oid), (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) AS a))
    FROM member AS m JOIN pg_proc AS p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
UNION ALL SELECT format('dumped: %s %s', c::regclass, k) FROM pg_extension AS e, unnest(e.extconfig, e.extcondition) AS d (c, k) WHERE e.extname = 'pg_redis_migrate'
UNION ALL SELECT format('schema %s', (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(n.nspacl) AS a)) FROM pg_namespace AS n WHERE n.nspname = 'redis_migrate'
UNION ALL SELECT format('version %s', e.extversion) FROM pg_extension AS e WHERE e.extname = 'pg_redis_migrate'
};

# Without what tells installations apart.
sub catalog
{
    my ($database) = @_;
    my $lines = $node->safe_psql($database, "WITH l (line) AS ($catalog) SELECT regexp_replace(line, '\\s+', ' ', 'g') FROM l ORDER BY 1");
    return map { s/'[-0-9a-f]{36}'::pg_catalog.uuid/an uuid/r } split /\n/, $lines;
}

$node->safe_psql('postgres', 'CREATE DATABASE empty');
$node->safe_psql('empty', q{CREATE EXTENSION pg_redis_migrate VERSION '0.1'; ALTER EXTENSION pg_redis_migrate UPDATE});
my %fresh = map { $_ => 1 } catalog('postgres');
my %updated = map { $_ => 1 } catalog('empty');
ok(keys %fresh > 500, 'there is something to compare');
is(join("\n", grep { !$updated{$_} } sort keys %fresh), '', 'the upgrade makes all that an installation makes');
is(join("\n", grep { !$fresh{$_} } sort keys %updated), '', 'and nothing else');

# What the upgrade makes anew is nobody's by default privileges.
$node->safe_psql('postgres', 'CREATE DATABASE generous');
$node->safe_psql('postgres', 'CREATE ROLE favourite');
$node->safe_psql('generous', join ';', q{CREATE EXTENSION pg_redis_migrate VERSION '0.1'},
    (map { ("ALTER DEFAULT PRIVILEGES GRANT ALL ON $_ TO favourite, pg_monitor WITH GRANT OPTION", "ALTER DEFAULT PRIVILEGES GRANT ALL ON $_ TO PUBLIC") }
        qw(TABLES SEQUENCES ROUTINES)), 'ALTER EXTENSION pg_redis_migrate UPDATE');
my %generous = map { $_ => 1 } catalog('generous');
is(join("\n", grep { !$updated{$_} } sort keys %generous), '', 'default privileges grant nothing of it');
is(join("\n", grep { !$generous{$_} } sort keys %updated), '', 'and take nothing');

# --- what version 0.1 recorded

my $redis = start_redis();
system_or_bail('sh', "$data/keys.sh", $redis->port);
$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('old', q{CREATE ROLE app LOGIN;
    DO $$ BEGIN IF to_regrole('postgres') IS NULL THEN CREATE ROLE postgres SUPERUSER; END IF; END $$});
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('old'), '-f', "$data/0.1.sql" ], 'the old records are loaded');
# As if the database had been here all the time.
$node->safe_psql('old', q{
    DO $$
    DECLARE c record;
    BEGIN
        FOR c IN SELECT attrelid::regclass AS relation, attname AS name FROM pg_attribute
                 WHERE atttypid = 'redis_migrate.owner_role'::regtype AND attrelid IN (SELECT oid FROM pg_class WHERE relkind = 'r') LOOP
            EXECUTE format('UPDATE %s SET %I = redis_migrate.stamp_owner(redis_migrate.owner_name(%2$I)::regrole)', c.relation, c.name);
        END LOOP;
    END $$;
    UPDATE redis_migrate.job SET relation = to_regclass(name);
    ALTER SERVER shop OPTIONS (SET port '} . $redis->port . q{')});
my $err;
$node->psql('old', 'ALTER EXTENSION pg_redis_migrate UPDATE', stderr => \$err, on_error_stop => 1);
unlike($err, qr/ERROR/, 'the upgrade succeeds');
like($err, qr/privilege on .*create_lockout.* was not kept\n.*GRANT EXECUTE ON ROUTINE .*create_lockout.* TO app;/, 'a grant that is lost is told');

sub app { return $node->safe_psql('old', join(';', 'SET SESSION AUTHORIZATION app', @_)); }
is(app('SELECT mapping, ledger, ledger_reason FROM redis_migrate.mappings ORDER BY 1'),
    join("\n", map { "$_|the mapping was defined with version 0.1" } 'prices|full', 'tags|full', 'users|full', 'visits|none'), 'the ledger of each mapping');
is(app('SELECT outcome, sum(keys) FROM redis_migrate.run_counts GROUP BY 1 ORDER BY 1'), "archived|1\nmigrated|110\nread|112\nrejected|1",
    'the counts of the old run');
is(app('SELECT rule, key FROM redis_migrate.rejects'), 'cents|price:99', 'its rejects');
is(app('SELECT key FROM redis_migrate.archive'), 'session-of-nobody', 'the archive');

my $counts = 'SELECT mapping, inserted, updated, unchanged, deleted FROM redis_migrate.mapping_counts WHERE run_id = '
    . q{(SELECT max(run_id) FROM redis_migrate.runs) AND mapping <> '(archive)' ORDER BY 1};
$node->safe_psql('old', qq{SET SESSION AUTHORIZATION app;\nCALL redis_migrate.run('shop')});
is(app($counts), "prices|0|0|30|0\ntags|0|0|40|0\nusers|0|0|40|0\nvisits|0|0|20|0", 'a run after the upgrade finds every row unchanged');
my $databases = 'keys of two databases could yield the same row: databases does not name a single one, and db does not stand in key_columns';
is(app('SELECT mapping, ledger, ledger_reason FROM redis_migrate.mappings ORDER BY 1'),
    "prices|packed|no two keys yield the same row: id = id\ntags|full|$databases\nusers|full|$databases\nvisits|packed|no two keys yield the same row: id = id",
    'and has chosen the ledgers anew');
is($node->safe_psql('old', q{SELECT mapping, (SELECT count(*) FROM redis_migrate.ledger AS l WHERE l.mapping_id = m.mapping_id),
        (SELECT sum(octet_length(entries)) / 24 FROM redis_migrate.ledger_segment AS s WHERE s.mapping_id = m.mapping_id) FROM redis_migrate.mapping AS m ORDER BY 1}),
    "prices|0|30\ntags|40|\nusers|40|\nvisits|0|20", 'with what was recorded');

$redis->cli('DEL', 'user:1', 'price:2', 'tags:3', 'visits:4:page');
$redis->cli('SREM', 'tags:5', 'b');
$redis->cli('SET', 'price:6', 1);
$redis->cli('SET', 'price:41', 41);
$node->safe_psql('old', "SET SESSION AUTHORIZATION app;\nCALL redis_migrate.run('shop', prune => true);");
is(app($counts), "prices|1|1|28|1\ntags|0|0|37|3\nusers|0|0|39|1\nvisits|0|0|19|1", 'what went from Redis goes here, by the old ledger');
is(app('SELECT id FROM users WHERE id IN (1, 1000)', 'SELECT id, cents FROM prices WHERE id IN (2, 6, 41, 1000) ORDER BY 1',
        'SELECT id, tag FROM tags WHERE id IN (3, 5, 1000) ORDER BY 1'),
    "1000\n6|1\n41|41\n1000|1\n5|a\n1000|mine", 'rows of nobody stay');

# --- the rest goes on

$node->safe_psql('old', q{SET SESSION AUTHORIZATION app;
INSERT INTO sessions VALUES (1, '2020-01-01');
CALL redis_migrate.sweep('sessions');
CALL redis_migrate.maintain();});
is(app('SELECT count(*) FROM sessions', 'SELECT rows_deleted, pause_reason FROM redis_migrate.expiry_stats', 'SELECT last_sqlstate, pause_reason FROM redis_migrate.refreshes',
        q{SELECT redis_migrate.rate_limit_allowed('api', 'somebody')},
        'SELECT policy, when_full FROM redis_migrate.lockout_policies'),
    "0\n4|\n|\nt\nlogin|share", 'sweeps, refreshes, limits and lockouts go on');
is($node->safe_psql('old', 'SELECT count(*) FROM redis_migrate.definitions WHERE problem IS NOT NULL'), 0, 'no definition has a problem');

# A dump from after the upgrade can be restored.
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'pg_dump', '-d', $node->connstr('old'), '-f', $node->basedir . '/dump.sql' ], 'it can be dumped');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $node->basedir . '/dump.sql' ], 'and restored');
is($node->safe_psql('restored', 'SELECT count(*) FROM redis_migrate.ledger'), $node->safe_psql('old', 'SELECT count(*) FROM redis_migrate.ledger'), 'with the ledger');

done_testing();
