-- Where a Redis is: servers and user mappings of this wrapper. It has no handler: foreign tables are refused.

CREATE FUNCTION redis_migrate.fdw_validator(options text[], catalog oid) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'prm_fdw_validator';
COMMENT ON FUNCTION redis_migrate.fdw_validator(text[], oid) IS 'Checks the options of redis_migrate servers and user mappings';

CREATE FOREIGN DATA WRAPPER redis_migrate VALIDATOR redis_migrate.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER redis_migrate IS
    'Redis servers that migrations read. Options of a server include host (a path is a unix socket), port, connect_timeout and command_timeout; options of a user mapping include username, password and password_file. See docs/connections.md';
