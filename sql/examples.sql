-- Usual tasks for mappings: sessions, two tables from one hash, a queue, counters, a leaderboard, a stream.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\pset null NULL
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT redis_migrate.create_migration('guide', 'shop', unmapped => 'reject');

\echo == sessions, into the table of connect-pg-simple
\! $R set sess:a1 '{"cookie":{"maxAge":3600000},"user":7}' pxat 4102444800000 >/dev/null
\! $R set sess:b2 '{"cookie":{}}' >/dev/null
CREATE TABLE session (
    sid    varchar NOT NULL PRIMARY KEY,
    sess   json NOT NULL,
    expire timestamp(6) NOT NULL
);
-- expire has no time zone: source_timezone is that of the application's connections. Sessions without an expiry are
-- refused by the column's NOT NULL.
SELECT redis_migrate.add_mapping('guide', 'sessions', 'sess:{sid}', 'session',
    'SELECT sid, value::json AS sess, expires_at AS expire FROM redis_batch',
    key_columns => '{sid}', priority => 'critical', types => '{string}', source_timezone => 'Europe/Berlin');
CALL redis_migrate.run('guide');
SELECT * FROM session;
SELECT * FROM last_rejects('guide');
\! $R del sess:b2 >/dev/null

\echo == a hash, into two tables
\! $R hset user:7 name Ada email ada@example.org theme dark >/dev/null
\! $R hset user:8 name Bob email bob@example.org >/dev/null
CREATE TABLE account (id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE);
CREATE TABLE preference (account bigint PRIMARY KEY REFERENCES account, theme text NOT NULL);
SELECT redis_migrate.add_mapping('guide', 'accounts', 'user:{id:int}', 'account',
    $$SELECT id, json->>'name' AS name, json->>'email' AS email FROM redis_batch$$,
    key_columns => '{id}', types => '{hash}');
-- Both mappings have the same pattern: a key is stored by both or by none. Accounts come first, for the foreign key.
SELECT redis_migrate.add_mapping('guide', 'preferences', 'user:{id:int}', 'preference',
    $$SELECT id AS account, coalesce(redis_migrate.field(payload, 'theme'), 'light') AS theme FROM redis_batch$$,
    key_columns => '{account}', types => '{hash}', depends_on => '{accounts}');
SELECT redis_migrate.add_check('guide', 'accounts', 'email_has_at', $$email LIKE '%@%'$$);
CALL redis_migrate.run('guide');
SELECT * FROM account JOIN preference ON account = id ORDER BY id;

\echo == a queue, in its order
\! $R rpush queue:mail '{"to": "ada@example.org"}' '{"to": "bob@example.org"}' '{"to": "eve@example.org"}' >/dev/null
CREATE TABLE job (queue text, place bigint, task jsonb NOT NULL, PRIMARY KEY (queue, place));
SELECT redis_migrate.add_mapping('guide', 'queues', 'queue:{queue}', 'job',
    'SELECT queue, ordinal AS place, json AS task FROM redis_batch',
    key_columns => '{queue,place}', expand => 'elements', types => '{list}');
CALL redis_migrate.run('guide');
SELECT queue, task->>'to' AS next FROM job ORDER BY place;
\! $R lrange queue:mail 0 -1

\echo == daily and monthly counters, into one row
\! $R set usage:ada:day 37 pxat 4102444800000 >/dev/null; $R set usage:ada:month 512 pxat 4105123200000 >/dev/null; $R set usage:bob:month 3 >/dev/null
CREATE TABLE usage (
    account         text PRIMARY KEY,
    day_used        integer NOT NULL DEFAULT 0,
    day_resets_at   timestamptz,
    month_used      integer NOT NULL DEFAULT 0,
    month_resets_at timestamptz
);
-- Each mapping fills its own columns. The row outlives either counter, so on_delete resets instead of deleting.
SELECT redis_migrate.add_mapping('guide', 'daily', 'usage:{account}:day', 'usage',
    'SELECT account, value::int AS day_used, expires_at AS day_resets_at FROM redis_batch',
    key_columns => '{account}', on_delete => 'day_used = 0, day_resets_at = NULL');
SELECT redis_migrate.add_mapping('guide', 'monthly', 'usage:{account}:month', 'usage',
    'SELECT account, value::int AS month_used, expires_at AS month_resets_at FROM redis_batch',
    key_columns => '{account}', on_delete => 'month_used = 0, month_resets_at = NULL');
CALL redis_migrate.run('guide');
SELECT * FROM usage ORDER BY account;
\! $R del usage:ada:day >/dev/null
CALL redis_migrate.run('guide', prune => true, force => true);
SELECT * FROM usage ORDER BY account;

\echo == a leaderboard
\! $R zadd board:chess 2100 ada 1850.5 bob 2100 cyd >/dev/null
CREATE TABLE score (game text, player text, points numeric NOT NULL, rank integer NOT NULL, PRIMARY KEY (game, player));
SELECT redis_migrate.add_mapping('guide', 'boards', 'board:{game}', 'score',
    'SELECT game, member AS player, score::numeric AS points,
            (row_number() OVER (PARTITION BY entry ORDER BY position DESC))::int AS rank
     FROM redis_batch',
    key_columns => '{game,player}', expand => 'elements', types => '{zset}');
CALL redis_migrate.run('guide');
SELECT * FROM score ORDER BY rank;
\! $R zrevrange board:chess 0 -1 withscores

\echo == a stream with its consumer groups
\! $R xadd events 1700000000000-0 kind signup user 7 >/dev/null; $R xadd events 1700000000000-1 kind login user 7 >/dev/null; $R xadd events 1700000001000-0 kind logout user 7 >/dev/null
\! $R xgroup create events mailer 0 >/dev/null; $R xreadgroup group mailer worker-1 count 2 streams events '>' >/dev/null; $R xack events mailer 1700000000000-0 >/dev/null
CREATE TABLE event (id text PRIMARY KEY, at timestamptz NOT NULL, fields jsonb NOT NULL);
CREATE TABLE event_group (name text PRIMARY KEY, last_delivered text NOT NULL);
CREATE TABLE event_pending (name text, id text, consumer text NOT NULL, deliveries bigint NOT NULL, PRIMARY KEY (name, id));
SELECT redis_migrate.add_mapping('guide', 'events', 'events', 'event',
    $$SELECT entry_id AS id, to_timestamp(split_part(entry_id, '-', 1)::bigint / 1000.0) AS at, json AS fields FROM redis_batch$$,
    key_columns => '{id}', expand => 'elements');
SELECT redis_migrate.add_mapping('guide', 'event_groups', 'events', 'event_group',
    'SELECT group_name AS name, last_delivered_id AS last_delivered FROM redis_batch',
    key_columns => '{name}', expand => 'groups', no_row => 'skip');
SELECT redis_migrate.add_mapping('guide', 'event_pending', 'events', 'event_pending',
    'SELECT group_name AS name, entry_id AS id, consumer, delivery_count AS deliveries FROM redis_batch',
    key_columns => '{name,id}', expand => 'pending', no_row => 'skip');
CALL redis_migrate.run('guide');
SELECT * FROM event ORDER BY id;
SELECT * FROM event_group;
SELECT * FROM event_pending;

\echo == and all of it again: nothing changes
CALL redis_migrate.run('guide');
SELECT * FROM last_run('guide');
SELECT sum(inserted) AS inserted, sum(updated) AS updated, sum(deleted) AS deleted FROM last_rows('guide');

SELECT redis_migrate.drop_migration('guide');
DROP TABLE session, preference, account, job, usage, score, event, event_group, event_pending;
