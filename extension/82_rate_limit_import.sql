-- Import of rate limits from other limiters.

CREATE FUNCTION redis_migrate.import_rate_limit(policy text, key text, used bigint DEFAULT NULL, reset_at timestamptz DEFAULT NULL,
        previous bigint DEFAULT NULL, tat bigint DEFAULT NULL, no_ttl text DEFAULT 'reject') RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'prm_import_rate_limit';
COMMENT ON FUNCTION redis_migrate.import_rate_limit(text, text, bigint, timestamptz, bigint, bigint, text) IS
    'Starts a key with what another limiter counted, and returns what remains. Window algorithms need used and reset_at; sliding_window also takes previous, the count of the window before. gcra needs tat, the theoretical arrival time in nanoseconds since 1970. no_ttl says what to do with a counter without reset_at: reject, forever, full_window. See docs/importing-limits.md';
