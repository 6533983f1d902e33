-- Verifies the carts while the application writes, and hands them over to PostgreSQL. psql -f cutover.sql, after move.sql, or
-- once more after a cutback.
\set ON_ERROR_STOP on

CALL redis_migrate.verify('carts');

-- Keep a way back: what changes in the table from now on goes back to Redis.
SELECT redis_migrate.start_reverse('carts');

-- Redis holds the application's writes for a moment, and refuses them afterwards. The moment is as short as it can be; on a
-- busy machine, 2 s, the default, may be too little for live sync to catch up.
CALL redis_migrate.cutover('carts', fence => 'acl', users => '{shop}', max_pause => '10 s');
SELECT pattern, state FROM redis_migrate.families WHERE migration = 'carts';

-- From here on the application writes to the table.
