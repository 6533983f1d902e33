-- Moves the carts of shopper.py into a table that follows its writes. psql -v port=6379 -f move.sql, with
-- shared_preload_libraries = 'pg_redis_migrate' and this database among pg_redis_migrate.databases.
\set ON_ERROR_STOP on
\if :{?port}
\else
\set port 6379
\endif

-- Prepare: the server, the table, and how keys become rows.
CREATE SERVER carts_redis FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port :'port');
SELECT check_name, status, detail FROM redis_migrate.preflight('carts_redis') WHERE status <> 'ok';
CREATE TABLE carts (customer bigint PRIMARY KEY, items jsonb NOT NULL, expires_at timestamptz);
SELECT redis_migrate.create_migration('carts', 'carts_redis', source => 'replication');
SELECT redis_migrate.add_mapping('carts', 'carts', 'cart:{customer:int}', 'carts', $$
    SELECT customer, json AS items, expires_at FROM redis_batch $$,
    key_columns => '{customer}', types => '{hash}', databases => '{0}', exclusive => true);

-- Rehearse: what would be stored, and what would be refused.
CALL redis_migrate.run('carts', dry_run => true, source => 'scan');

-- Migrate, and follow every change from then on.
SELECT redis_migrate.start('carts', live => true);
CALL redis_migrate.wait_for('carts', '5 minutes');
