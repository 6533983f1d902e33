-- Threadr's tables in PostgreSQL: where mappings.sql stores what Redis holds.
--
-- Whoever pays, posts or is limited is known to Redis by an address, an e-mail or a user id, often without an account
-- behind it. Such rows carry an identity: its kind and its canonical text. Only what cannot exist without an account
-- has a foreign key to users.
--
-- Times are timestamptz; expires_at is when the row stops to matter, which Redis kept as a TTL. All keys are natural
-- or derived from the Redis key, never drawn at random: running the migration again meets the same rows.

CREATE SCHEMA threadr;
SET search_path = threadr, pg_catalog;

-- The canonical text of an identity, so that one identity is one text.
CREATE FUNCTION identity_is_canonical(kind text, identity text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE kind WHEN 'ip' THEN host(identity::inet) = identity
                     WHEN 'user' THEN identity::uuid::text = identity
                     WHEN 'email' THEN lower(identity) = identity
                     ELSE false END;

-- Accounts. --------------------------------------------------------------------------------------------------------

-- One row per e-mail. Somebody who only left an e-mail has an id made from it and no created_at; registering later
-- gives the row its real id. What concerns the account and what concerns the mailing list are columns of their own.
CREATE TABLE users (
    user_id                 uuid PRIMARY KEY,
    email                   text NOT NULL UNIQUE CONSTRAINT email_is_folded CHECK (email = lower(email)),
    -- The account.
    registered_as           text,
    password_hash           text,
    role                    text NOT NULL DEFAULT 'user' CONSTRAINT role CHECK (role IN ('user', 'premium', 'admin')),
    status                  text NOT NULL DEFAULT 'active' CONSTRAINT status CHECK (status IN ('active', 'inactive', 'suspended')),
    is_email_verified       boolean NOT NULL DEFAULT false,
    -- Only hashes of tokens are kept: who reads the table must not be able to use them.
    verification_token_hash bytea,
    reset_token_hash        bytea,
    reset_token_expires_at  timestamptz,
    login_count             bigint NOT NULL DEFAULT 0 CHECK (login_count >= 0),
    last_login_at           timestamptz,
    failed_login_attempts   integer NOT NULL DEFAULT 0 CHECK (failed_login_attempts >= 0),
    last_failed_login_at    timestamptz,
    metadata                jsonb,
    created_at              timestamptz,
    updated_at              timestamptz,
    expires_at              timestamptz,
    -- The mailing list.
    subscribed_as           text,
    subscribed_at           timestamptz,
    signup_ip               inet,
    user_agent              text,
    referrer                text,
    source                  text,
    subscription_expires_at timestamptz,
    CHECK (created_at IS NOT NULL OR subscribed_at IS NOT NULL)
);

-- The login index of Redis: which account an e-mail belongs to.
CREATE TABLE user_emails (
    email   text PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE INDEX ON user_emails (user_id);

-- Members of the mailing list as the set says, which need not agree with users.
CREATE TABLE mailing_list (email text PRIMARY KEY);

-- user_id is the id in the session; account_id the account that it belongs to, where there is one.
CREATE TABLE user_sessions (
    user_id          uuid PRIMARY KEY,
    account_id       uuid REFERENCES users ON UPDATE CASCADE ON DELETE CASCADE,
    email            text,
    role             text,
    status           text,
    ip               inet,
    login_at         timestamptz,
    last_activity_at timestamptz,
    details          jsonb NOT NULL,
    expires_at       timestamptz
);
CREATE INDEX ON user_sessions (account_id);
CREATE INDEX ON user_sessions (expires_at);

-- Money. -----------------------------------------------------------------------------------------------------------

-- Grants of premium access by e-mail or address, and Stripe subscriptions by user id or e-mail. A grant by both has
-- two rows, as it has two keys. Several rows may name one Stripe subscription.
CREATE TABLE subscriptions (
    product                text NOT NULL CHECK (product IN ('premium', 'subscription')),
    identity_kind          text NOT NULL,
    identity               text NOT NULL,
    plan_name              text NOT NULL,
    tier_level             smallint NOT NULL CHECK (tier_level BETWEEN 0 AND 3),
    status                 text NOT NULL CONSTRAINT status CHECK (status IN ('active', 'trialing', 'past_due', 'unpaid',
                               'paused', 'canceled', 'incomplete', 'incomplete_expired')),
    billing_cycle          text NOT NULL CHECK (billing_cycle IN ('monthly', 'yearly', 'one_time')),
    amount_cents           integer NOT NULL CHECK (amount_cents >= 0),
    currency               char(3) NOT NULL DEFAULT 'usd',
    starts_at              timestamptz NOT NULL,
    expires_at             timestamptz NOT NULL,
    cancel_at_period_end   boolean NOT NULL,
    stripe_subscription_id text,
    client_ip              inet,
    email                  text,
    thread_limit           integer,
    features               text[] NOT NULL DEFAULT '{}',
    payment                jsonb NOT NULL,
    details                jsonb NOT NULL,
    delete_after           timestamptz,
    PRIMARY KEY (product, identity_kind, identity),
    CONSTRAINT identity CHECK (identity_is_canonical(identity_kind, identity)),
    CONSTRAINT period CHECK (starts_at <= expires_at)
);
CREATE INDEX ON subscriptions (identity_kind, identity);
CREATE INDEX ON subscriptions (stripe_subscription_id) WHERE stripe_subscription_id IS NOT NULL;
COMMENT ON COLUMN subscriptions.expires_at IS 'When the paid access ends. Redis keeps the key longer: until delete_after';

-- Whether access is paid for depends on the time of asking, so it is asked for and not stored.
CREATE VIEW paid_access AS
    SELECT DISTINCT ON (identity_kind, identity) identity_kind, identity, tier_level, plan_name, expires_at
    FROM subscriptions
    WHERE status IN ('active', 'trialing') AND tier_level > 0 AND expires_at > now()
    ORDER BY identity_kind, identity, tier_level DESC, expires_at DESC;

-- The set of active subscribers, user ids and e-mails, which need not agree with subscriptions.
CREATE TABLE active_subscribers (subscriber text PRIMARY KEY);

-- Usage. -----------------------------------------------------------------------------------------------------------

CREATE TABLE usage_daily (
    identity_kind text NOT NULL,
    identity      text NOT NULL,
    day           date NOT NULL,
    threads       bigint NOT NULL CONSTRAINT positive CHECK (threads > 0),
    expires_at    timestamptz,
    PRIMARY KEY (identity_kind, identity, day),
    CONSTRAINT identity CHECK (identity_is_canonical(identity_kind, identity))
);

-- A month is a table of its own: dated on its first day it would collide with that day.
CREATE TABLE usage_monthly (
    identity_kind text NOT NULL,
    identity      text NOT NULL,
    month         date NOT NULL CONSTRAINT month CHECK (extract(day FROM month) = 1),
    threads       bigint NOT NULL CONSTRAINT positive CHECK (threads > 0),
    expires_at    timestamptz,
    PRIMARY KEY (identity_kind, identity, month),
    CONSTRAINT identity CHECK (identity_is_canonical(identity_kind, identity))
);

CREATE TABLE usage_log (
    ip         inet NOT NULL,
    logged_at  timestamptz NOT NULL,
    used_at    timestamptz NOT NULL,
    email      text,
    day        date NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (ip, logged_at)
);
CREATE INDEX ON usage_log (email, used_at) WHERE email IS NOT NULL;

-- Totals of the service; starts_on is NULL for those of all time.
CREATE TABLE usage_totals (
    name      text PRIMARY KEY,
    metric    text NOT NULL,
    period    text NOT NULL CHECK (period IN ('all', 'month', 'day')),
    starts_on date CHECK ((starts_on IS NULL) = (period = 'all')),
    value     bigint NOT NULL
);

-- Limits. ----------------------------------------------------------------------------------------------------------

CREATE TABLE rate_limits (
    ip         inet PRIMARY KEY,
    hits       bigint NOT NULL CONSTRAINT positive CHECK (hits > 0),
    expires_at timestamptz
);
CREATE INDEX ON rate_limits (expires_at);

CREATE TABLE failed_logins (
    email           text NOT NULL,
    ip              inet NOT NULL,
    attempts        integer NOT NULL CONSTRAINT positive CHECK (attempts > 0),
    last_attempt_at timestamptz NOT NULL,
    expires_at      timestamptz,
    PRIMARY KEY (email, ip)
);
CREATE INDEX ON failed_logins (expires_at);

-- Threads. ---------------------------------------------------------------------------------------------------------

CREATE TABLE threads (
    thread_id          uuid PRIMARY KEY,
    user_id            uuid NOT NULL REFERENCES users ON UPDATE CASCADE,
    title              varchar(200) NOT NULL,
    original_content   text NOT NULL,
    tweets             jsonb NOT NULL CONSTRAINT thread_data CHECK (jsonb_array_length(tweets) > 0),
    source_type        text NOT NULL CHECK (source_type IN ('url', 'text')),
    source_url         text,
    ai_model           text,
    generation_time_ms integer,
    content_length     integer,
    tags               text[] NOT NULL,
    view_count         integer NOT NULL CHECK (view_count >= 0),
    copy_count         integer NOT NULL CHECK (copy_count >= 0),
    is_favorite        boolean NOT NULL,
    is_archived        boolean NOT NULL,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    expires_at         timestamptz
);
CREATE INDEX ON threads (user_id, created_at);

-- The list of a user's threads in its order. It may name threads that have expired.
CREATE TABLE user_threads (
    user_id   uuid NOT NULL REFERENCES users ON UPDATE CASCADE,
    thread_id uuid NOT NULL,
    position  integer NOT NULL CHECK (position > 0),
    PRIMARY KEY (user_id, thread_id)
);

CREATE TABLE thread_stats (
    user_id    uuid PRIMARY KEY REFERENCES users ON UPDATE CASCADE,
    created    integer NOT NULL,
    viewed     integer NOT NULL,
    updated    integer NOT NULL,
    deleted    integer NOT NULL,
    copied     integer NOT NULL,
    expires_at timestamptz
);

-- Answers of the generator, by the URL or the hash of the text that was asked for.
CREATE TABLE cached_threads (
    source_type text NOT NULL CHECK (source_type IN ('url', 'text')),
    source      text NOT NULL,
    title       text,
    tweets      jsonb NOT NULL,
    details     jsonb NOT NULL,
    expires_at  timestamptz,
    PRIMARY KEY (source_type, source)
);
CREATE INDEX ON cached_threads (expires_at);

-- Teams. -----------------------------------------------------------------------------------------------------------

-- A team that only the set of all teams names has nothing but its id.
CREATE TABLE teams (
    team_id  uuid PRIMARY KEY,
    name     text,
    slug     text UNIQUE,
    owner_id uuid REFERENCES users ON UPDATE CASCADE,
    plan     text,
    details  jsonb
);

CREATE TABLE team_members (
    team_id uuid NOT NULL REFERENCES teams ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON UPDATE CASCADE ON DELETE CASCADE,
    details jsonb,
    PRIMARY KEY (team_id, user_id)
);
CREATE INDEX ON team_members (user_id);

CREATE TABLE team_invites (
    invite_id  text PRIMARY KEY,
    team_id    uuid REFERENCES teams ON DELETE CASCADE,
    token_hash bytea UNIQUE,
    details    jsonb
);

CREATE TABLE team_activities (
    team_id  uuid NOT NULL REFERENCES teams ON DELETE CASCADE,
    ordinal  bigint NOT NULL,
    action   text NOT NULL,
    user_id  uuid,
    activity jsonb NOT NULL,
    PRIMARY KEY (team_id, ordinal)
);

-- Analytics. -------------------------------------------------------------------------------------------------------

CREATE TABLE thread_analytics (
    user_id    uuid NOT NULL,
    thread_id  uuid NOT NULL,
    metrics    jsonb NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (user_id, thread_id)
);

CREATE TABLE analysed_threads (
    user_id    uuid NOT NULL,
    thread_id  uuid NOT NULL,
    at         timestamptz NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (user_id, thread_id)
);

CREATE TABLE analytics_timeseries (
    user_id    uuid NOT NULL,
    metric     text NOT NULL,
    period     text NOT NULL CONSTRAINT period CHECK (period IN ('hour', 'day', 'week', 'month')),
    at         timestamptz NOT NULL,
    value      numeric NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (user_id, metric, period, at, value)
);

-- Hashes of counters of a thread, a tweet or a user.
CREATE TABLE counters (
    subject_kind text NOT NULL CHECK (subject_kind IN ('thread', 'tweet', 'user')),
    subject      text NOT NULL,
    counter      text NOT NULL,
    value        numeric NOT NULL,
    expires_at   timestamptz,
    PRIMARY KEY (subject_kind, subject, counter)
);

RESET search_path;
