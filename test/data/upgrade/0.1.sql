-- The records of version 0.1 (commit 5285740) after a run: pg_dump of a database in which the role app ran setup.sql of this
-- directory on the keys of keys.sh, without its comments, and with VERSION '0.1' in CREATE EXTENSION.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA redis_migrate;

ALTER SCHEMA redis_migrate OWNER TO postgres;

CREATE EXTENSION IF NOT EXISTS pg_redis_migrate WITH SCHEMA redis_migrate VERSION '0.1';

COMMENT ON EXTENSION pg_redis_migrate IS 'retires Redis: pulls its keys into tables and takes over what it did';

CREATE SERVER shop FOREIGN DATA WRAPPER redis_migrate OPTIONS (
    host '127.0.0.1',
    port '7908'
);

ALTER SERVER shop OWNER TO postgres;

CREATE USER MAPPING FOR app SERVER shop;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE public.prices (
    id integer NOT NULL,
    cents integer NOT NULL
);

ALTER TABLE public.prices OWNER TO app;

CREATE TABLE public.sessions (
    id integer NOT NULL,
    expires timestamp with time zone
);

ALTER TABLE public.sessions OWNER TO app;

CREATE TABLE public.tags (
    id integer NOT NULL,
    tag text NOT NULL
);

ALTER TABLE public.tags OWNER TO app;

CREATE TABLE public.users (
    id integer NOT NULL,
    name text NOT NULL,
    mail text
);

ALTER TABLE public.users OWNER TO app;

CREATE MATERIALIZED VIEW public.user_count AS
 SELECT count(*) AS count
   FROM public.users
  WITH NO DATA;

ALTER TABLE public.user_count OWNER TO app;

CREATE TABLE public.visits (
    id integer NOT NULL,
    visits integer NOT NULL
);

ALTER TABLE public.visits OWNER TO app;

COPY public.prices (id, cents) FROM stdin;
1000	1
1	100
10	1000
11	1100
12	1200
13	1300
14	1400
15	1500
16	1600
17	1700
18	1800
19	1900
2	200
20	2000
21	2100
22	2200
23	2300
24	2400
25	2500
26	2600
27	2700
28	2800
29	2900
3	300
30	3000
4	400
5	500
6	600
7	700
8	800
9	900
\.

COPY public.sessions (id, expires) FROM stdin;
\.

COPY public.tags (id, tag) FROM stdin;
1000	mine
1	b
1	a
10	b
10	a
11	b
11	a
12	b
12	a
13	b
13	a
14	b
14	a
15	b
15	a
16	b
16	a
17	b
17	a
18	b
18	a
19	b
19	a
2	b
2	a
20	b
20	a
3	b
3	a
4	b
4	a
5	b
5	a
6	b
6	a
7	b
7	a
8	b
8	a
9	b
9	a
\.

COPY public.users (id, name, mail) FROM stdin;
1000	not from Redis	\N
1	user 1	1@example.org
10	user 10	10@example.org
11	user 11	11@example.org
12	user 12	12@example.org
13	user 13	13@example.org
14	user 14	14@example.org
15	user 15	15@example.org
16	user 16	16@example.org
17	user 17	17@example.org
18	user 18	18@example.org
19	user 19	19@example.org
2	user 2	2@example.org
20	user 20	20@example.org
21	user 21	21@example.org
22	user 22	22@example.org
23	user 23	23@example.org
24	user 24	24@example.org
25	user 25	25@example.org
26	user 26	26@example.org
27	user 27	27@example.org
28	user 28	28@example.org
29	user 29	29@example.org
3	user 3	3@example.org
30	user 30	30@example.org
31	user 31	31@example.org
32	user 32	32@example.org
33	user 33	33@example.org
34	user 34	34@example.org
35	user 35	35@example.org
36	user 36	36@example.org
37	user 37	37@example.org
38	user 38	38@example.org
39	user 39	39@example.org
4	user 4	4@example.org
40	user 40	40@example.org
5	user 5	5@example.org
6	user 6	6@example.org
7	user 7	7@example.org
8	user 8	8@example.org
9	user 9	9@example.org
\.

COPY public.visits (id, visits) FROM stdin;
10	10
11	11
12	12
13	13
14	14
15	15
16	16
17	17
18	18
19	19
1	1
20	20
2	2
3	3
4	4
5	5
6	6
7	7
8	8
9	9
\.

COPY redis_migrate.archived_key (migration, db, index_key, key_bytes, type, payload, payload_size, expires_at) FROM stdin;
shop	0	\\x73657373696f6e2d6f662d6e6f626f6479	\\x73657373696f6e2d6f662d6e6f626f6479	string	\\x00046b6570740600b4a16fc93b9a67eb	16	\N
\.

COPY redis_migrate.archive_chunk (migration, db, index_key, chunk_no, bytes) FROM stdin;
\.

COPY redis_migrate.audit (audit_id, server, owner, state, started_at, updated_at, finished_at, pid, sample, max_duration, databases, max_rate, redis_version, maxmemory_policy, dbsize, keys, asked, vanished, odd, odd_reasons, families, bytes, notes, sqlstate, message) FROM stdin;
\.

COPY redis_migrate.audit_family (audit_id, db, pattern, type, types, keys, asked, bytes, with_ttl, without_ttl, min_ttl, max_ttl, ttl_spread, min_idle, max_idle, min_freq, max_freq, encodings, odd, odd_reasons, example, framework, layout, advice, priority, create_table, suggestion) FROM stdin;
\.

COPY redis_migrate.audit_key (audit_id, db, rank, pattern, key, type, bytes, ttl) FROM stdin;
\.

COPY redis_migrate.run (run_id, migration, owner, source, dry_run, priority, mapping, on_error, prune, force, state, started_at, updated_at, finished_at, pid, active_time, level, "position", keys_estimated, bytes_read, batches, restarts, evicted, sqlstate, message) FROM stdin;
1	shop	app/16384/5/d7a61f74-e988-44ad-9d2d-94da8d509002	scan	f	\N	\N	continue	f	f	completed	2026-11-29 03:41:49.454778+00	2026-11-29 03:41:49.538539+00	2026-11-29 03:41:49.538539+00	28643	00:00:00.083761	0	run_id=66a62d49e2c033301f92541b43bf5b9ec3efc60a db=0 cursor=end	112	3621	1	0	0	\N	\N
\.

COPY redis_migrate.deferred (run_id, level, part, db, index_key, key_bytes, payload, expires_at) FROM stdin;
\.

COPY redis_migrate.job (job_id, kind, name, relation, owner, every, enabled, scheduled_at, next_run, search_path, timezone, datestyle, intervalstyle, runs, empty_runs, failed_runs, failures, last_started_at, last_finished_at, last_rows, last_sqlstate, last_message, last_error_at, stats_reset) FROM stdin;
2	expiry	redis_migrate.job_history	16864	postgres/10/5/d7a61f74-e988-44ad-9d2d-94da8d509002	01:00:00	t	2026-11-29 03:41:49.552372+00	2026-11-29 03:41:49.552372+00	pg_catalog, pg_temp	Etc/UTC	ISO, MDY	postgres	0	0	0	0	\N	\N	\N	\N	\N	\N	2026-11-29 03:41:49.552377+00
1	expiry	public.sessions	17140	app/16384/5/d7a61f74-e988-44ad-9d2d-94da8d509002	00:05:00	t	2026-11-29 03:41:49.695641+00	2026-11-29 03:46:49.675573+00	"$user", public	Etc/UTC	ISO, MDY	postgres	1	0	0	0	2026-11-29 03:41:49.675573+00	2026-11-29 03:41:49.695641+00	3	\N	\N	\N	2026-11-29 03:41:49.551698+00
3	refresh	public.user_count	17145	app/16384/5/d7a61f74-e988-44ad-9d2d-94da8d509002	00:05:00	t	2026-11-29 03:41:49.712173+00	2026-11-29 03:41:49.712173+00	"$user", public	Etc/UTC	ISO, MDY	postgres	0	0	0	0	\N	\N	\N	\N	\N	\N	2026-11-29 03:41:49.712173+00
5	expiry	redis_migrate.rate_limit_state	16943	postgres/10/5/d7a61f74-e988-44ad-9d2d-94da8d509002	01:00:00	t	2026-11-29 03:41:49.726307+00	2026-11-29 03:41:49.726308+00	pg_catalog, pg_temp	Etc/UTC	ISO, MDY	postgres	0	0	0	0	\N	\N	\N	\N	\N	\N	2026-11-29 03:41:49.726308+00
7	expiry	redis_migrate.login_attempt	17037	postgres/10/5/d7a61f74-e988-44ad-9d2d-94da8d509002	01:00:00	t	2026-11-29 03:41:49.752942+00	2026-11-29 03:41:49.752942+00	pg_catalog, pg_temp	Etc/UTC	ISO, MDY	postgres	0	0	0	0	\N	\N	\N	\N	\N	\N	2026-11-29 03:41:49.752942+00
\.

COPY redis_migrate.expiry_policy (job_id, expires_column, expires_attnum, unit, column_timezone, lifetime, grace, condition, soft_delete, notify_channel, notify_column, drop_partitions, batch_time, max_rate, max_replication_lag, max_xmin_age) FROM stdin;
2	finished_at	0	\N	\N	00:00:00	00:00:00	\N	\N	\N	\N	f	00:00:00.1	0	00:00:30	10000000
1	expires	2	\N	\N	00:00:00	00:00:00	\N	\N	\N	\N	f	00:00:00.1	0	00:00:30	10000000
5	expires_at	6	\N	\N	00:00:00	00:00:00	\N	\N	\N	\N	f	00:00:00.1	0	00:00:30	10000000
7	attempted_at	2	\N	\N	7 days	00:00:00	\N	\N	\N	\N	f	00:00:00.1	0	00:00:30	10000000
\.

COPY redis_migrate.expiry_state (job_id, started_at, leaf, sweep_order, watermark, next_page, end_page, batch_rows, batch_pages, rows, batches, rows_total, batches_total, skipped_total, partitions_dropped, backlog, oldest_expired_at, paused_since, pause_reason) FROM stdin;
2	\N	\N	\N	\N	\N	\N	1000	64	0	0	0	0	0	0	\N	\N	\N	\N
1	\N	\N	\N	\N	\N	\N	1000	128	3	1	3	1	0	0	0	\N	\N	\N
5	\N	\N	\N	\N	\N	\N	1000	64	0	0	0	0	0	0	\N	\N	\N	\N
7	\N	\N	\N	\N	\N	\N	1000	64	0	0	0	0	0	0	\N	\N	\N	\N
\.

COPY redis_migrate.job_history (history_id, job_id, kind, name, owner, started_at, finished_at, rows, batches, outcome, sqlstate, message) FROM stdin;
1	1	expiry	public.sessions	app/16384/5/d7a61f74-e988-44ad-9d2d-94da8d509002	2026-11-29 03:41:49.675573+00	2026-11-29 03:41:49.695641+00	3	1	completed	\N	\N
\.

COPY redis_migrate.migration (migration, owner, server, file, source, unmapped, databases, created_at, changed_at) FROM stdin;
shop	app/16384/5/d7a61f74-e988-44ad-9d2d-94da8d509002	shop	\N	scan	archive	\N	2026-11-29 03:41:49.415227+00	2026-11-29 03:41:49.45303+00
\.

COPY redis_migrate.mapping (mapping_id, migration, mapping, pattern, target, query, key_columns, priority, on_conflict, on_delete, mode, no_row, atomic, expand, types, databases, depends_on, exclusive, ledger, search_path, timezone, datestyle, intervalstyle) FROM stdin;
1	shop	users	user:{id:int}	public.users	SELECT id, json->>'name' AS name, json->>'mail' AS mail FROM redis_batch	{id}	medium	update	delete	upsert	reject	key	\N	\N	\N	{}	f	t	"$user", public	UTC	ISO, MDY	postgres
2	shop	prices	price:{id:int}	public.prices	SELECT id, value::integer AS cents FROM redis_batch	{id}	medium	update	delete	upsert	reject	key	\N	\N	{0}	{}	f	t	"$user", public	UTC	ISO, MDY	postgres
3	shop	tags	tags:{id:int}	public.tags	SELECT id, member AS tag FROM redis_batch	{id,tag}	medium	update	delete	upsert	reject	key	elements	\N	\N	{}	f	t	"$user", public	UTC	ISO, MDY	postgres
4	shop	visits	visits:{id:int}:page	public.visits	SELECT id, value::integer AS visits FROM redis_batch	{id}	medium	update	delete	upsert	reject	key	\N	\N	{0}	{}	t	f	"$user", public	UTC	ISO, MDY	postgres
\.

COPY redis_migrate.ledger (mapping_id, row_key, db, key_bytes) FROM stdin;
2	{1}	0	\\x70726963653a31
2	{10}	0	\\x70726963653a3130
2	{11}	0	\\x70726963653a3131
2	{12}	0	\\x70726963653a3132
2	{13}	0	\\x70726963653a3133
2	{14}	0	\\x70726963653a3134
2	{15}	0	\\x70726963653a3135
2	{16}	0	\\x70726963653a3136
2	{17}	0	\\x70726963653a3137
2	{18}	0	\\x70726963653a3138
2	{19}	0	\\x70726963653a3139
2	{2}	0	\\x70726963653a32
2	{20}	0	\\x70726963653a3230
2	{21}	0	\\x70726963653a3231
2	{22}	0	\\x70726963653a3232
2	{23}	0	\\x70726963653a3233
2	{24}	0	\\x70726963653a3234
2	{25}	0	\\x70726963653a3235
2	{26}	0	\\x70726963653a3236
2	{27}	0	\\x70726963653a3237
2	{28}	0	\\x70726963653a3238
2	{29}	0	\\x70726963653a3239
2	{3}	0	\\x70726963653a33
2	{30}	0	\\x70726963653a3330
2	{4}	0	\\x70726963653a34
2	{5}	0	\\x70726963653a35
2	{6}	0	\\x70726963653a36
2	{7}	0	\\x70726963653a37
2	{8}	0	\\x70726963653a38
2	{9}	0	\\x70726963653a39
3	{1,b}	0	\\x746167733a31
3	{1,a}	0	\\x746167733a31
3	{10,b}	0	\\x746167733a3130
3	{10,a}	0	\\x746167733a3130
3	{11,b}	0	\\x746167733a3131
3	{11,a}	0	\\x746167733a3131
3	{12,b}	0	\\x746167733a3132
3	{12,a}	0	\\x746167733a3132
3	{13,b}	0	\\x746167733a3133
3	{13,a}	0	\\x746167733a3133
3	{14,b}	0	\\x746167733a3134
3	{14,a}	0	\\x746167733a3134
3	{15,b}	0	\\x746167733a3135
3	{15,a}	0	\\x746167733a3135
3	{16,b}	0	\\x746167733a3136
3	{16,a}	0	\\x746167733a3136
3	{17,b}	0	\\x746167733a3137
3	{17,a}	0	\\x746167733a3137
3	{18,b}	0	\\x746167733a3138
3	{18,a}	0	\\x746167733a3138
3	{19,b}	0	\\x746167733a3139
3	{19,a}	0	\\x746167733a3139
3	{2,b}	0	\\x746167733a32
3	{2,a}	0	\\x746167733a32
3	{20,b}	0	\\x746167733a3230
3	{20,a}	0	\\x746167733a3230
3	{3,b}	0	\\x746167733a33
3	{3,a}	0	\\x746167733a33
3	{4,b}	0	\\x746167733a34
3	{4,a}	0	\\x746167733a34
3	{5,b}	0	\\x746167733a35
3	{5,a}	0	\\x746167733a35
3	{6,b}	0	\\x746167733a36
3	{6,a}	0	\\x746167733a36
3	{7,b}	0	\\x746167733a37
3	{7,a}	0	\\x746167733a37
3	{8,b}	0	\\x746167733a38
3	{8,a}	0	\\x746167733a38
3	{9,b}	0	\\x746167733a39
3	{9,a}	0	\\x746167733a39
1	{1}	0	\\x757365723a31
1	{10}	0	\\x757365723a3130
1	{11}	0	\\x757365723a3131
1	{12}	0	\\x757365723a3132
1	{13}	0	\\x757365723a3133
1	{14}	0	\\x757365723a3134
1	{15}	0	\\x757365723a3135
1	{16}	0	\\x757365723a3136
1	{17}	0	\\x757365723a3137
1	{18}	0	\\x757365723a3138
1	{19}	0	\\x757365723a3139
1	{2}	0	\\x757365723a32
1	{20}	0	\\x757365723a3230
1	{21}	0	\\x757365723a3231
1	{22}	0	\\x757365723a3232
1	{23}	0	\\x757365723a3233
1	{24}	0	\\x757365723a3234
1	{25}	0	\\x757365723a3235
1	{26}	0	\\x757365723a3236
1	{27}	0	\\x757365723a3237
1	{28}	0	\\x757365723a3238
1	{29}	0	\\x757365723a3239
1	{3}	0	\\x757365723a33
1	{30}	0	\\x757365723a3330
1	{31}	0	\\x757365723a3331
1	{32}	0	\\x757365723a3332
1	{33}	0	\\x757365723a3333
1	{34}	0	\\x757365723a3334
1	{35}	0	\\x757365723a3335
1	{36}	0	\\x757365723a3336
1	{37}	0	\\x757365723a3337
1	{38}	0	\\x757365723a3338
1	{39}	0	\\x757365723a3339
1	{4}	0	\\x757365723a34
1	{40}	0	\\x757365723a3430
1	{5}	0	\\x757365723a35
1	{6}	0	\\x757365723a36
1	{7}	0	\\x757365723a37
1	{8}	0	\\x757365723a38
1	{9}	0	\\x757365723a39
\.

COPY redis_migrate.lockout_policy (policy, policy_id, owner, time_window, cool_off, cool_off_mode, extend_on_attempt, reset_on_success, fold_case, ipv6_prefix, allowed_networks, pending_timeout, notify_channel) FROM stdin;
login	3223acb9-b1d7-4945-b47a-3a241b6d60ce	app/16384/5/d7a61f74-e988-44ad-9d2d-94da8d509002	00:15:00	\N	fixed	f	t	t	64	{}	00:01:00	\N
\.

COPY redis_migrate.lockout_scope (policy, scope, failures, cool_off) FROM stdin;
login	address	15	\N
login	user_name	5	\N
\.

COPY redis_migrate.login_attempt (attempt_id, attempted_at, policy, owner, user_name, address, user_agent, attempt_type, success, reason, locks, locked_by, locked_until) FROM stdin;
\.

COPY redis_migrate.mapping_check (migration, mapping, check_name, condition) FROM stdin;
shop	users	has_mail	mail IS NOT NULL
\.

COPY redis_migrate.mapping_count (run_id, part, mapping, inserted, updated, unchanged, folded, deleted, prune, prune_detail) FROM stdin;
1	0	(archive)	1	0	0	0	0	\N	\N
1	0	prices	30	0	0	0	0	\N	\N
1	0	tags	40	0	0	0	0	\N	\N
1	0	users	40	0	0	0	0	\N	\N
1	0	visits	20	0	0	0	0	\N	\N
\.

COPY redis_migrate.page_key (run_id, part, db, key_bytes) FROM stdin;
\.

COPY redis_migrate.rate_limit_policy (policy_id, policy, owner, quota, period, burst, algorithm, storage, key_type, ipv6_prefix, shadow, fail_open, created_at, changed_at) FROM stdin;
1	api	app/16384/5/d7a61f74-e988-44ad-9d2d-94da8d509002	5	00:01:00	\N	gcra	table	text	64	f	f	2026-11-29 03:41:49.725036+00	2026-11-29 03:41:49.725036+00
\.

COPY redis_migrate.rate_limit_exception (policy_id, kind, key, network, quota, period, burst, expires_at) FROM stdin;
\.

COPY redis_migrate.rate_limit_state (policy_id, key, time_ns, count, previous, expires_at) FROM stdin;
1	somebody	1795923721751992482	0	0	2026-11-29 03:42:02+00
\.

COPY redis_migrate.rate_limit_unlogged_state (policy_id, key, time_ns, count, previous, expires_at) FROM stdin;
\.

COPY redis_migrate.refresh_policy (job_id, "concurrently", debounce) FROM stdin;
3	f	00:00:05
\.

COPY redis_migrate.reject (reject_id, run_id, level, part, db, key_bytes, type, pattern, mapping, rule, sqlstate, message, partial, payload, expires_at, created_at) FROM stdin;
1	1	0	0	0	\\x70726963653a3939	string	price:{id:int}	prices	cents	22P02	invalid input syntax for type integer: "much"	f	\\x00046d75636806009397fc0cab2047e5	\N	2026-11-29 03:41:49.521416+00
\.

COPY redis_migrate.run_count (run_id, level, part, pattern, outcome, reason, keys) FROM stdin;
1	0	0	\N	read	\N	1
1	0	0	price:{id:int}	read	\N	31
1	0	0	tags:{id:int}	read	\N	20
1	0	0	user:{id:int}	read	\N	40
1	0	0	visits:{id:int}:page	read	\N	20
1	0	0	\N	archived	inserted	1
1	0	0	price:{id:int}	rejected	cents	1
1	0	0	price:{id:int}	migrated	inserted	30
1	0	0	tags:{id:int}	migrated	inserted	20
1	0	0	user:{id:int}	migrated	inserted	40
1	0	0	visits:{id:int}:page	migrated	inserted	20
\.

COPY redis_migrate.run_part (run_id, level, part, slots, "position", done, pid, updated_at, bytes_read, batches, repeated_slots, readers, sqlstate, message) FROM stdin;
\.

COPY redis_migrate.seen_row (run_id, mapping_id, row_key, lost) FROM stdin;
\.

COPY redis_migrate.skip_pattern (migration, pattern) FROM stdin;
\.

COPY redis_migrate.stale_mark (job_id, marked_at) FROM stdin;
\.

SELECT pg_catalog.setval('redis_migrate.audit_audit_id_seq', 1, false);

SELECT pg_catalog.setval('redis_migrate.job_history_history_id_seq', 1, true);

SELECT pg_catalog.setval('redis_migrate.job_job_id_seq', 8, true);

SELECT pg_catalog.setval('redis_migrate.mapping_mapping_id_seq', 4, true);

SELECT pg_catalog.setval('redis_migrate.rate_limit_policy_policy_id_seq', 1, true);

SELECT pg_catalog.setval('redis_migrate.reject_reject_id_seq', 1, true);

SELECT pg_catalog.setval('redis_migrate.run_run_id_seq', 1, true);

ALTER TABLE ONLY public.prices
    ADD CONSTRAINT prices_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_pkey PRIMARY KEY (id, tag);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.visits
    ADD CONSTRAINT visits_pkey PRIMARY KEY (id);

GRANT CREATE ON SCHEMA public TO app;

GRANT ALL ON FUNCTION redis_migrate.create_lockout(policy text, scopes jsonb, time_window interval, cool_off interval, cool_off_mode text, extend_on_attempt boolean, reset_on_success boolean, fold_case boolean, ipv6_prefix integer, allowed_networks cidr[], pending_timeout interval, notify_channel text) TO app;

GRANT ALL ON FUNCTION redis_migrate.create_rate_limit(policy text, quota bigint, period interval, burst bigint, algorithm text, storage text, key_type text, ipv6_prefix integer, shadow boolean, fail_open boolean) TO app;

GRANT ALL ON FUNCTION redis_migrate.rate_limit_allowed(policy text, key text, cost bigint) TO app;

GRANT ALL ON FOREIGN DATA WRAPPER redis_migrate TO app;

GRANT ALL ON FOREIGN SERVER shop TO app;

GRANT SELECT(owner_1) ON TABLE redis_migrate.definition_owners TO app;

REFRESH MATERIALIZED VIEW public.user_count;

