-- How Threadr's keys become rows of the tables in schema.sql. Needs a server named threadr_redis:
--
--   CREATE SERVER threadr_redis FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '…', port '6379');
--   CREATE USER MAPPING FOR CURRENT_USER SERVER threadr_redis OPTIONS (username '…', password '…');
--
-- Overlaps of patterns are reported as notices: threadr:user:{user_id} and threadr:user:email:{email}, for instance.
-- They are meant, and the more specific pattern has the key.
SET client_min_messages = warning;
SET search_path = threadr, redis_migrate, pg_catalog;

-- Functions that the queries below share; needed as long as the migration is. ----------------------------------------

-- Threadr's times: 2025-08-07T09:15:22.123456, with a blank instead of the T, without zone. Words that
-- PostgreSQL would take for a time, such as yesterday, are none here.
CREATE FUNCTION as_time(value text) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN value ~ '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d' THEN value::timestamptz END;

-- An address as text, in the one way of writing it; NULL for what is none, such as the None of a missing address.
CREATE FUNCTION as_ip(value text) RETURNS inet
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN input_is_valid(value, 'inet') THEN value::inet END;

-- A counter of INCR, as the text that Redis keeps. The constraints are tried in the order of their names.
CREATE DOMAIN redis_counter AS text
    CONSTRAINT integer CHECK (VALUE ~ '^-?[0-9]+$')
    CONSTRAINT range CHECK (VALUE !~ '^-?[0-9]+$' OR VALUE::numeric BETWEEN -9223372036854775808 AND 9223372036854775807);

CREATE FUNCTION looks_like_email(value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN value ~ '^[^@[:space:]]+@[^@[:space:]]+\.[^@[:space:]]+$';

SELECT create_migration('threadr', 'threadr_redis');

-- A key that fails several checks is rejected by the first in the order of their names, and only rows that pass meet
-- the constraints of the table: where a column is NOT NULL, the name of the column is the rule.

-- Critical: what has been paid for. ---------------------------------------------------------------------------------

SELECT add_mapping('threadr', 'premium_ip', 'threadr:premium:ip:{ip}', 'subscriptions', $$
    SELECT 'premium' AS product, 'ip' AS identity_kind, host(as_ip(ip)) AS identity,
           json->>'plan' AS plan_name, 2 AS tier_level, 'active' AS status, 'one_time' AS billing_cycle,
           coalesce((json->'payment_info'->>'amount')::integer, 499) AS amount_cents,
           coalesce(json->'payment_info'->>'currency', 'usd') AS currency,
           as_time(json->>'granted_at') AS starts_at, as_time(json->>'expires_at') AS expires_at,
           true AS cancel_at_period_end, as_ip(json->>'client_ip') AS client_ip, lower(json->>'email') AS email,
           coalesce(json->'payment_info', '{}') AS payment,
           json - '{plan,granted_at,expires_at,client_ip,email,payment_info}'::text[] AS details,
           expires_at AS delete_after
    FROM redis_batch $$,
    '{product, identity_kind, identity}', priority => 'critical', types => '{string}');

SELECT add_mapping('threadr', 'premium_email', 'threadr:premium:email:{email}', 'subscriptions', $$
    SELECT 'premium' AS product, 'email' AS identity_kind, lower(email) AS identity,
           json->>'plan' AS plan_name, 2 AS tier_level, 'active' AS status, 'one_time' AS billing_cycle,
           coalesce((json->'payment_info'->>'amount')::integer, 499) AS amount_cents,
           coalesce(json->'payment_info'->>'currency', 'usd') AS currency,
           as_time(json->>'granted_at') AS starts_at, as_time(json->>'expires_at') AS expires_at,
           true AS cancel_at_period_end, as_ip(json->>'client_ip') AS client_ip, lower(email) AS email,
           coalesce(json->'payment_info', '{}') AS payment,
           json - '{plan,granted_at,expires_at,client_ip,email,payment_info}'::text[] AS details,
           expires_at AS delete_after
    FROM redis_batch $$,
    '{product, identity_kind, identity}', priority => 'critical', types => '{string}');

-- By user id or, written by the webhook of Stripe, by e-mail.
SELECT add_mapping('threadr', 'subscription_user', 'threadr:subscription:user:{subscriber}', 'subscriptions', $$
    SELECT 'subscription' AS product,
           CASE WHEN input_is_valid(subscriber, 'uuid') THEN 'user' ELSE 'email' END AS identity_kind,
           CASE WHEN input_is_valid(subscriber, 'uuid') THEN subscriber::uuid::text
                WHEN looks_like_email(subscriber) THEN lower(subscriber) END AS identity,
           json->>'plan_name' AS plan_name, (json->>'tier_level')::smallint AS tier_level,
           CASE json->>'status' WHEN 'cancelled' THEN 'canceled' ELSE json->>'status' END AS status,
           CASE WHEN (json->>'is_annual')::boolean THEN 'yearly' ELSE 'monthly' END AS billing_cycle,
           CASE WHEN (json->>'is_annual')::boolean THEN coalesce((json->>'annual_price')::integer, 19190)
                ELSE coalesce((json->>'monthly_price')::integer, 1999) END AS amount_cents,
           as_time(json->>'current_period_start') AS starts_at, as_time(json->>'current_period_end') AS expires_at,
           coalesce((json->>'cancel_at_period_end')::boolean, false) AS cancel_at_period_end,
           json->>'subscription_id' AS stripe_subscription_id,
           CASE WHEN looks_like_email(subscriber) THEN lower(subscriber) END AS email,
           (json->>'thread_limit')::integer AS thread_limit,
           ARRAY(SELECT jsonb_array_elements_text(json->'features')) AS features,
           jsonb_build_object('monthly_price', json->'monthly_price', 'annual_price', json->'annual_price') AS payment,
           json - '{plan_name,tier_level,status,is_annual,monthly_price,annual_price,current_period_start,current_period_end,cancel_at_period_end,subscription_id,thread_limit,features}'::text[] AS details,
           expires_at AS delete_after
    FROM redis_batch $$,
    '{product, identity_kind, identity}', priority => 'critical', types => '{string}');

SELECT add_check('threadr', mapping, check_name, condition)
FROM (VALUES ('premium_ip', 'ip_address_is_valid', 'identity IS NOT NULL'),
             ('premium_email', 'email_is_valid', 'looks_like_email(identity)'),
             ('premium_ip', 'expires_at', 'expires_at IS NOT NULL'),
             ('premium_email', 'expires_at', 'expires_at IS NOT NULL'),
             ('subscription_user', 'user_id', 'identity IS NOT NULL'),
             ('subscription_user', 'subscription_id', 'stripe_subscription_id IS NOT NULL'),
             ('subscription_user', 'status', $$status IN ('active', 'trialing', 'past_due', 'unpaid', 'paused', 'canceled',
                                                          'incomplete', 'incomplete_expired')$$),
             ('premium_ip', 'plan_name', $$plan_name IN ('premium', 'pro')$$),
             ('premium_email', 'plan_name', $$plan_name IN ('premium', 'pro')$$),
             ('subscription_user', 'plan_name', $$plan_name IN ('threadr_starter', 'threadr_pro', 'threadr_team')$$))
     AS checks (mapping, check_name, condition);

SELECT add_mapping('threadr', 'subscriptions_active', 'threadr:subscriptions:active', 'active_subscribers', $$
    SELECT member AS subscriber FROM redis_batch $$,
    '{subscriber}', priority => 'critical', types => '{set}', expand => 'elements', databases => '{0}', exclusive => true);

-- High: accounts, e-mails, usage. -----------------------------------------------------------------------------------

SELECT add_mapping('threadr', 'user', 'threadr:user:{user_id:uuid}', 'users', $$
    SELECT user_id, lower(json->>'email') AS email, json->>'email' AS registered_as,
           json->>'password_hash' AS password_hash, json->>'role' AS role, json->>'status' AS status,
           (json->>'is_email_verified')::boolean AS is_email_verified,
           sha256(convert_to(json->>'email_verification_token', 'UTF8')) AS verification_token_hash,
           sha256(convert_to(json->>'password_reset_token', 'UTF8')) AS reset_token_hash,
           as_time(json->>'password_reset_expires') AS reset_token_expires_at,
           (json->>'login_count')::bigint AS login_count, as_time(json->>'last_login_at') AS last_login_at,
           (json->>'failed_login_attempts')::integer AS failed_login_attempts,
           as_time(json->>'last_failed_login') AS last_failed_login_at, json->'metadata' AS metadata,
           as_time(json->>'created_at') AS created_at, as_time(json->>'updated_at') AS updated_at, expires_at
    FROM redis_batch $$,
    '{email}', priority => 'high', types => '{string}');

-- Somebody who only left an e-mail gets an id made from it. Where the row exists, its id and account stay as they are.
SELECT add_mapping('threadr', 'email', 'threadr:email:{email}', 'users', $$
    SELECT md5(lower(email))::uuid AS user_id, lower(email) AS email, email AS subscribed_as,
           as_time(json->>'subscribed_at') AS subscribed_at, as_ip(json->>'client_ip') AS signup_ip,
           json->>'user_agent' AS user_agent, json->>'referrer' AS referrer, json->>'source' AS source,
           expires_at AS subscription_expires_at
    FROM redis_batch $$,
    '{email}', priority => 'high', types => '{string}', depends_on => '{user}', on_delete => 'keep',
    on_conflict => 'subscribed_as = excluded.subscribed_as, subscribed_at = excluded.subscribed_at,
                    signup_ip = excluded.signup_ip, user_agent = excluded.user_agent, referrer = excluded.referrer,
                    source = excluded.source, subscription_expires_at = excluded.subscription_expires_at');

SELECT add_mapping('threadr', 'user_email', 'threadr:user:email:{email}', 'user_emails', $$
    SELECT lower(email) AS email, value::uuid AS user_id FROM redis_batch $$,
    '{email}', priority => 'high', types => '{string}', depends_on => '{user}');

SELECT add_check('threadr', mapping, 'email_is_valid', 'looks_like_email(email)')
FROM unnest('{user, email, user_email}'::text[]) AS mapping;
SELECT add_check('threadr', 'user', 'created_at', 'created_at IS NOT NULL'),
       add_check('threadr', 'email', 'subscribed_at', 'subscribed_at IS NOT NULL');

SELECT add_mapping('threadr', 'emails_list', 'threadr:emails:list', 'mailing_list', $$
    SELECT member AS email FROM redis_batch $$,
    '{email}', priority => 'high', types => '{set}', expand => 'elements', databases => '{0}', exclusive => true);

-- Counters per day and per month, of addresses, e-mails and users. They expire in Redis and are history here: what is
-- gone from Redis stays.
SELECT add_mapping('threadr', 'usage_' || kind || '_' || period, format('threadr:usage:%s:{%s}:%s:{%s}', kind, capture, period, date_capture),
    ('usage_' || period)::regclass, format($$
    SELECT %L AS identity_kind, %s AS identity, %s, value::redis_counter::bigint AS threads, expires_at
    FROM redis_batch $$, kind, identity, date_column),
    ARRAY['identity_kind', 'identity', day_or_month], priority => 'high', types => '{string}', on_delete => 'keep')
FROM (VALUES ('ip', 'ip', 'host(as_ip(ip))'),
             ('email', 'email', 'lower(email)'),
             ('user', 'user_id:uuid', 'user_id::text')) AS who (kind, capture, identity),
     (VALUES ('daily', 'date:date', 'date AS day', 'day'),
             ('monthly', 'month:month', 'month', 'month')) AS per (period, date_capture, date_column, day_or_month);

SELECT add_check('threadr', 'usage_' || kind || '_' || period, check_name, condition)
FROM (VALUES ('ip', 'ip_address_is_valid', 'identity IS NOT NULL'),
             ('email', 'email_is_valid', 'looks_like_email(identity)'),
             ('ip', 'positive', 'threads > 0'),
             ('email', 'positive', 'threads > 0'),
             ('user', 'positive', 'threads > 0')) AS checks (kind, check_name, condition),
     unnest('{daily, monthly}'::text[]) AS period;

SELECT add_mapping('threadr', 'usage_log', 'threadr:usage:log:{ip:inet}:{epoch:number}', 'usage_log', $$
    SELECT ip, to_timestamp(epoch::double precision) AS logged_at, as_time(json->>'timestamp') AS used_at,
           lower(json->>'email') AS email, (json->>'date')::date AS day, expires_at
    FROM redis_batch $$,
    '{ip, logged_at}', priority => 'high', types => '{string}', on_delete => 'keep');

-- total_threads, threads_2025-08-07, premium_grants_2025-08.
SELECT add_mapping('threadr', 'usage_stats', 'threadr:usage:stats', 'usage_totals', $$
    SELECT field AS name, regexp_replace(field, '_\d{4}-\d\d(-\d\d)?$', '') AS metric,
           CASE WHEN field ~ '_\d{4}-\d\d-\d\d$' THEN 'day' WHEN field ~ '_\d{4}-\d\d$' THEN 'month' ELSE 'all' END AS period,
           CASE WHEN field ~ '_\d{4}-\d\d-\d\d$' THEN right(field, 10)::date
                WHEN field ~ '_\d{4}-\d\d$' THEN (right(field, 7) || '-01')::date END AS starts_on,
           value::redis_counter::bigint AS value
    FROM redis_batch $$,
    '{name}', priority => 'high', types => '{hash}', expand => 'elements', databases => '{0}', exclusive => true);

-- Medium: threads, cache, teams, analytics. -------------------------------------------------------------------------

SELECT add_mapping('threadr', 'thread', 'threadr:thread:{thread_id:uuid}', 'threads', $$
    SELECT thread_id, (json->>'user_id')::uuid AS user_id, json->>'title' AS title,
           json->>'original_content' AS original_content, json->'tweets' AS tweets,
           json->'metadata'->>'source_type' AS source_type, json->'metadata'->>'source_url' AS source_url,
           json->'metadata'->>'ai_model' AS ai_model, (json->'metadata'->>'generation_time_ms')::integer AS generation_time_ms,
           (json->'metadata'->>'content_length')::integer AS content_length,
           ARRAY(SELECT jsonb_array_elements_text(json->'metadata'->'tags')) AS tags,
           (json->>'view_count')::integer AS view_count, (json->>'copy_count')::integer AS copy_count,
           (json->>'is_favorite')::boolean AS is_favorite, (json->>'is_archived')::boolean AS is_archived,
           as_time(json->>'created_at') AS created_at, as_time(json->>'updated_at') AS updated_at, expires_at
    FROM redis_batch $$,
    '{thread_id}', types => '{string}', depends_on => '{user}');

-- The string holds a JSON array: one row for each of its ids.
SELECT add_mapping('threadr', 'user_threads', 'threadr:user_threads:{user_id:uuid}', 'user_threads', $$
    SELECT user_id, id::uuid AS thread_id, n AS position
    FROM redis_batch, jsonb_array_elements_text(json) WITH ORDINALITY AS list (id, n) $$,
    '{user_id, thread_id}', types => '{string}', no_row => 'skip', depends_on => '{user}');

SELECT add_mapping('threadr', 'thread_stats', 'threadr:thread_stats:{user_id:uuid}', 'thread_stats', $$
    SELECT user_id, (json->>'created')::integer AS created, (json->>'viewed')::integer AS viewed,
           (json->>'updated')::integer AS updated, (json->>'deleted')::integer AS deleted,
           (json->>'copied')::integer AS copied, expires_at
    FROM redis_batch $$,
    '{user_id}', types => '{string}', depends_on => '{user}');

-- _cached_at counts the seconds of an event loop and is no time: it stays in details.
SELECT add_mapping('threadr', 'cache', 'threadr:cache:{source_type}:{source}', 'cached_threads', $$
    SELECT source_type, source, json->>'title' AS title, json->'thread' AS tweets,
           json - '{thread,title,source_type}'::text[] AS details, expires_at
    FROM redis_batch $$,
    '{source_type, source}', types => '{string}', databases => '{0}', exclusive => true);

SELECT add_check('threadr', 'cache', 'source_type', $$source_type IN ('url', 'text')$$),
       add_check('threadr', 'cache', 'thread_data', $$CASE jsonb_typeof(tweets) WHEN 'array' THEN jsonb_array_length(tweets) > 0 END$$),
       add_check('threadr', 'thread', 'thread_data', $$CASE jsonb_typeof(tweets) WHEN 'array' THEN jsonb_array_length(tweets) > 0 END$$);

SELECT add_mapping('threadr', 'team_data', 'team:data:{team_id:uuid}', 'teams', $$
    SELECT team_id, json->>'name' AS name, json->>'slug' AS slug, (json->>'owner_id')::uuid AS owner_id,
           json->>'plan' AS plan, json - '{id,name,slug,owner_id,plan}'::text[] AS details
    FROM redis_batch $$,
    '{team_id}', types => '{hash}', depends_on => '{user}');

-- Indexes of teams say again what team_data says: they only add what it does not know.
SELECT add_mapping('threadr', 'team_all', 'team:all', 'teams', $$
    SELECT member::uuid AS team_id FROM redis_batch $$,
    '{team_id}', types => '{set}', expand => 'elements', on_conflict => 'nothing', on_delete => 'keep', depends_on => '{team_data}');
SELECT add_mapping('threadr', 'team_slug', 'team:slug:{slug}', 'teams', $$
    SELECT value::uuid AS team_id, slug FROM redis_batch $$,
    '{team_id}', types => '{string}', on_conflict => 'fill', on_delete => 'keep', depends_on => '{team_data}');

SELECT add_mapping('threadr', 'team_membership', 'team:membership:{team_id:uuid}:{user_id:uuid}', 'team_members', $$
    SELECT team_id, user_id, json - '{team_id,user_id}'::text[] AS details FROM redis_batch $$,
    '{team_id, user_id}', types => '{hash}', depends_on => '{team_all}');
SELECT add_mapping('threadr', 'team_members', 'team:members:{team_id:uuid}', 'team_members', $$
    SELECT team_id, member::uuid AS user_id FROM redis_batch $$,
    '{team_id, user_id}', types => '{set}', expand => 'elements', on_conflict => 'nothing', on_delete => 'keep',
    depends_on => '{team_membership}');
SELECT add_mapping('threadr', 'user_teams', 'user:teams:{user_id:uuid}', 'team_members', $$
    SELECT member::uuid AS team_id, user_id FROM redis_batch $$,
    '{team_id, user_id}', types => '{set}', expand => 'elements', on_conflict => 'nothing', on_delete => 'keep',
    depends_on => '{team_membership}');

SELECT add_mapping('threadr', 'team_invite', 'team:invite:{invite_id}', 'team_invites', $$
    SELECT invite_id, (json->>'team_id')::uuid AS team_id, json - '{id,team_id,token}'::text[] AS details
    FROM redis_batch $$,
    '{invite_id}', types => '{hash}', depends_on => '{team_all}');
SELECT add_mapping('threadr', 'team_invites', 'team:invites:{team_id:uuid}', 'team_invites', $$
    SELECT member AS invite_id, team_id FROM redis_batch $$,
    '{invite_id}', types => '{set}', expand => 'elements', on_conflict => 'fill', on_delete => 'keep', depends_on => '{team_invite}');
SELECT add_mapping('threadr', 'team_invite_token', 'team:invite_token:{token}', 'team_invites', $$
    SELECT value AS invite_id, sha256(convert_to(token, 'UTF8')) AS token_hash FROM redis_batch $$,
    '{invite_id}', types => '{string}', on_conflict => 'fill', on_delete => 'keep', depends_on => '{team_invites}');

-- The list is trimmed at one end: ordinal stays in order when its ends move.
SELECT add_mapping('threadr', 'team_activity', 'team:activity:{team_id:uuid}', 'team_activities', $$
    SELECT team_id, ordinal, json->>'action' AS action, (json->>'user_id')::uuid AS user_id,
           json - '{action,user_id}'::text[] AS activity
    FROM redis_batch $$,
    '{team_id, ordinal}', types => '{list}', expand => 'elements', depends_on => '{team_all}');

SELECT add_mapping('threadr', 'analytics_thread', 'analytics:{user_id:uuid}:thread:{thread_id:uuid}', 'thread_analytics', $$
    SELECT user_id, thread_id, json AS metrics, expires_at FROM redis_batch $$,
    '{user_id, thread_id}', types => '{string}');
SELECT add_mapping('threadr', 'analytics_threads', 'analytics:{user_id:uuid}:threads', 'analysed_threads', $$
    SELECT user_id, member::uuid AS thread_id, to_timestamp(score) AS at, expires_at FROM redis_batch $$,
    '{user_id, thread_id}', types => '{zset}', expand => 'elements');
SELECT add_mapping('threadr', 'analytics_timeseries', 'analytics:{user_id:uuid}:timeseries:{metric}:{period}', 'analytics_timeseries', $$
    SELECT user_id, metric, period, to_timestamp(score) AS at, member::numeric AS value, expires_at FROM redis_batch $$,
    '{user_id, metric, period, at, value}', types => '{zset}', expand => 'elements');

SELECT add_mapping('threadr', name, pattern, 'counters', format($$
    SELECT %L AS subject_kind, subject, field AS counter, value::numeric AS value, expires_at FROM redis_batch $$, kind),
    '{subject_kind, subject, counter}', types => '{hash}', expand => 'elements')
FROM (VALUES ('thread_counters', 'thread_analytics:{subject}', 'thread'),
             ('tweet_counters', 'tweet_metrics:{subject}', 'tweet'),
             ('user_counters', 'user_stats:{subject}', 'user')) AS hashes (name, pattern, kind);

-- Low: what is gone in an hour. -------------------------------------------------------------------------------------

-- A value that is not JSON is a pickled session: it is not opened. access_token_hash is Python's hash(), which differs
-- from process to process and identifies nothing.
SELECT add_mapping('threadr', 'session', 'threadr:session:{user_id:uuid}', 'user_sessions', $$
    SELECT s.user_id, u.user_id AS account_id, lower(session->>'email') AS email, session->>'role' AS role,
           session->>'status' AS status, as_ip(session->>'client_ip') AS ip,
           as_time(session->>'login_timestamp') AS login_at, as_time(session->>'last_activity') AS last_activity_at,
           session - '{user_id,email,role,status,client_ip,login_timestamp,last_activity,access_token_hash}'::text[] AS details,
           s.expires_at
    FROM (SELECT entry, user_id, expires_at,
                 CASE WHEN input_is_valid(bytes_as_text(value_bytes), 'jsonb') THEN bytes_as_text(value_bytes)::jsonb END AS session
          FROM redis_batch) AS s
    LEFT JOIN users AS u ON u.email = lower(session->>'email') $$,
    '{user_id}', priority => 'low', types => '{string}', depends_on => '{user, email}');
SELECT add_check('threadr', 'session', 'decoder', 'details IS NOT NULL');

SELECT add_mapping('threadr', 'ratelimit', 'threadr:ratelimit:{ip}', 'rate_limits', $$
    SELECT as_ip(ip) AS ip, value::redis_counter::bigint AS hits, expires_at FROM redis_batch $$,
    '{ip}', priority => 'low', types => '{string}');
SELECT add_check('threadr', 'ratelimit', 'ip_address_is_valid', 'ip IS NOT NULL'),
       add_check('threadr', 'ratelimit', 'positive', 'hits > 0');

SELECT add_mapping('threadr', 'failed_login', 'threadr:failed_login:{email:email}:{ip:inet}', 'failed_logins', $$
    SELECT lower(email) AS email, ip, (json->>'attempts')::integer AS attempts,
           as_time(json->>'last_attempt') AS last_attempt_at, expires_at
    FROM redis_batch $$,
    '{email, ip}', priority => 'low', types => '{string}');
SELECT add_check('threadr', 'failed_login', 'positive', 'attempts > 0');

RESET search_path;
RESET client_min_messages;
