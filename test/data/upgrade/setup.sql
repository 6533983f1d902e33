CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL, mail text);
CREATE TABLE prices (id integer PRIMARY KEY, cents integer NOT NULL);
CREATE TABLE tags (id integer, tag text, PRIMARY KEY (id, tag));
CREATE TABLE visits (id integer PRIMARY KEY, visits integer NOT NULL);
INSERT INTO users VALUES (1000, 'not from Redis', NULL);
INSERT INTO prices VALUES (1000, 1);
INSERT INTO tags VALUES (1000, 'mine');
SELECT redis_migrate.create_migration('shop', 'shop');
SELECT redis_migrate.add_mapping('shop', 'users', 'user:{id:int}', 'users',
    $$SELECT id, json->>'name' AS name, json->>'mail' AS mail FROM redis_batch$$, '{id}');
SELECT redis_migrate.add_mapping('shop', 'prices', 'price:{id:int}', 'prices', 'SELECT id, value::integer AS cents FROM redis_batch', '{id}',
    databases => '{0}');
SELECT redis_migrate.add_mapping('shop', 'tags', 'tags:{id:int}', 'tags', 'SELECT id, member AS tag FROM redis_batch', '{id,tag}',
    expand => 'elements');
SELECT redis_migrate.add_mapping('shop', 'visits', 'visits:{id:int}:page', 'visits', 'SELECT id, value::integer AS visits FROM redis_batch', '{id}',
    databases => '{0}', exclusive => true);
SELECT redis_migrate.add_check('shop', 'users', 'has_mail', 'mail IS NOT NULL');
CALL redis_migrate.run('shop');

CREATE TABLE sessions (id integer PRIMARY KEY, expires timestamptz);
INSERT INTO sessions SELECT g, '2020-01-01' FROM generate_series(1, 3) AS g;
SELECT redis_migrate.add_expiry('sessions', 'expires');
CALL redis_migrate.sweep('sessions');
CREATE MATERIALIZED VIEW user_count AS SELECT count(*) FROM users;
SELECT redis_migrate.add_refresh('user_count', concurrently => false);
SELECT redis_migrate.create_rate_limit('api', 5, '1 minute', storage => 'table');
SELECT redis_migrate.rate_limit_allowed('api', 'somebody');
SELECT redis_migrate.create_lockout('login');
