-- Import of rate limits from other limiters.

CREATE FUNCTION redis_migrate.import_rate_limit(policy text, key text, used bigint DEFAULT NULL, reset_at timestamptz DEFAULT NULL,
        previous bigint DEFAULT NULL, tat bigint DEFAULT NULL, no_ttl text DEFAULT 'reject') RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_import_rate_limit';
COMMENT ON FUNCTION redis_migrate.import_rate_limit(text, text, bigint, timestamptz, bigint, bigint, text) IS
    'Starts a key from what another limiter counted: used until reset_at (and in the previous window, for sliding_window), or the theoretical arrival time in nanoseconds since 1970 for gcra; returns what remains. no_ttl is for a counter without reset_at: reject, forever or full_window. See docs/importing-limits.md';
