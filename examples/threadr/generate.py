#!/usr/bin/env python3
"""Write a synthetic Threadr-style Redis data set as RESP, for `redis-cli --pipe`.

All data is invented: example.com/.org/.net addresses and documentation IP
ranges only (beyond 600 users also 198.18/15).  Deterministic for a given --seed, --now and --users.

  generate.py --users 40 --now 2025-08-07T12:00:00 > sample.resp
  redis-cli -p PORT --pipe < sample.resp
  generate.py --manifest                    # expected counts, JSON
"""
import argparse, datetime as dt, hashlib, json, random, sys, uuid

ap = argparse.ArgumentParser()
ap.add_argument("--users", type=int, default=40)
ap.add_argument("--seed", type=int, default=20250807)
ap.add_argument("--now", default=None, help="naive ISO time; default: the present, UTC")
ap.add_argument("--no-bad", action="store_true", help="leave the deliberate bad keys out")
ap.add_argument("--manifest", action="store_true")
a = ap.parse_args()

R = random.Random(a.seed)
now = dt.datetime.fromisoformat(a.now) if a.now else dt.datetime.utcnow().replace(microsecond=0)
DAY, YEAR = 86400, 365 * 86400
out, counts = [], {}


def iso(t):            # what datetime.now().isoformat() writes: no time zone
    return (t + dt.timedelta(microseconds=R.randrange(1, 999999))).isoformat()


def b(x):
    return x if isinstance(x, bytes) else str(x).encode()


def cmd(*xs):
    out.append(b"*%d\r\n" % len(xs) + b"".join(b"$%d\r\n%s\r\n" % (len(b(x)), b(x)) for x in xs))


def put(fam, key, val, ttl=None):
    counts[fam] = counts.get(fam, 0) + 1
    if isinstance(val, (dict, list)):
        val = json.dumps(val)
    if ttl is None:
        cmd("SET", key, val)
    else:
        cmd("SETEX", key, int(ttl), val)


def coll(fam, key, ttl, *c):
    counts[fam] = counts.get(fam, 0) + 1
    cmd(*c)
    if ttl:
        cmd("EXPIRE", key, int(ttl))


def uid():
    return str(uuid.UUID(int=R.getrandbits(128), version=4))


FIRST = "ada bruno chen dalia emeka farah goran hana ivo june kofi lena milan nadia omar priya quinn rosa sven tala".split()
DOM = ["example.com", "example.org", "example.net"]
UA = ["Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36", "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5)",
      "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X)"]
NETS = ["192.0.2.", "198.51.100.", "203.0.113."]
users = []
for i in range(a.users):
    u = dict(id=uid(), email="%s.%d@%s" % (FIRST[i % len(FIRST)], i, DOM[i % 3]),
             ip="2001:db8::%x" % (0x10 + i) if i % 9 == 0 else
                NETS[i % 3] + str(10 + i % 200) if i < 600 else
                "198.%d.%d.%d" % (18 + (i >> 16 & 1), i >> 8 & 255, i & 255),     # RFC 2544 range
             joined=now - dt.timedelta(days=R.randrange(5, 300), seconds=R.randrange(DAY)))
    users.append(u)
n = len(users)

# 1-2 threadr:premium:email / :ip  (grant_premium_access; TTL = duration + 7 days)
def premium(email, ip, granted, days, plan="premium", ref=None, ipkey=None):
    exp = granted + dt.timedelta(days=days)
    v = {"granted_at": iso(granted), "expires_at": iso(exp), "plan": plan, "duration_days": days,
         "client_ip": ip, "email": email,
         "payment_info": {"payment_reference": "stripe_session_" + ref, "granted_at": iso(granted),
                          "granted_by": "stripe_webhook" if ip is None else "api",
                          "client_ip": "stripe_webhook" if ip is None else ip,
                          "stripe_session_id": ref, "amount": 499, "currency": "usd"} if ref else {}}
    ttl = int((exp - now).total_seconds()) + 7 * DAY
    if ttl <= 0:
        return
    if email:
        put("premium_email", "threadr:premium:email:" + email, v, ttl)
    put("premium_ip", "threadr:premium:ip:%s" % ip, v, ttl) if ipkey is None else None


npe = max(6, n * 3 // 10)
for i in range(npe):
    u = users[i]
    age = 33 if i % 4 == 3 else R.randrange(1, 28)          # 33 days: expired, still in Redis
    webhook = i % 3 == 0                                      # Stripe webhook: client_ip None
    premium(u["email"], None if webhook else u["ip"], now - dt.timedelta(days=age), 30,
            ref="cs_test_%s" % hashlib.md5(u["email"].encode()).hexdigest()[:20],
            ipkey="skip" if webhook and i else None)          # i == 0 writes premium:ip:None once
for i in range(npe, npe + 4):                                 # IP-only legacy grants, no e-mail
    premium(None, users[i]["ip"], now - dt.timedelta(days=R.randrange(1, 20)), 30)

# 3-4 threadr:subscription:user:{uuid | e-mail}, threadr:subscriptions:active
PLANS = {"threadr_starter": ("Starter", 1, 100, 999, 9590, ["basic_analytics", "email_support", "100_threads_per_month", "basic_templates"]),
         "threadr_pro": ("Pro", 2, -1, 1999, 19190, ["unlimited_threads", "advanced_analytics", "premium_templates", "priority_support", "custom_scheduling", "export_threads"]),
         "threadr_team": ("Team", 3, -1, 4999, 47990, ["unlimited_threads", "team_collaboration", "admin_dashboard", "dedicated_support", "custom_branding", "api_access"])}
STAT = ["active", "active", "active", "trialing", "past_due", "cancelled", "active", "incomplete"]
active = []
for i in range(max(12, n * 3 // 10)):
    u = users[(npe + 4 + i) % n]
    name = list(PLANS)[i % 3]
    disp, tier, lim, mo, yr, feats = PLANS[name]
    annual = i % 5 == 4
    start = now.replace(microsecond=0) - dt.timedelta(days=R.randrange(1, 28))
    end = start + dt.timedelta(days=365 if annual else 30)
    st = STAT[i % len(STAT)]
    who = u["email"] if i % 3 == 2 else u["id"]               # webhook path keys by e-mail
    put("subscription_user", "threadr:subscription:user:" + who,
        {"subscription_id": "sub_1Demo%018d" % i, "plan_name": name, "plan_display_name": disp, "tier_level": tier,
         "status": st, "current_period_start": str(start), "current_period_end": str(end),
         "cancel_at_period_end": st == "cancelled", "thread_limit": lim, "features": feats,
         "is_annual": annual, "monthly_price": mo, "annual_price": yr}, YEAR - R.randrange(20 * DAY))
    if st == "active":
        active.append(who)
coll("subscriptions_active", "threadr:subscriptions:active", None, "SADD", "threadr:subscriptions:active", *active)

# 5-6 threadr:email:{email}, threadr:emails:list
for u in users:
    put("email", "threadr:email:" + u["email"],
        {"email": u["email"], "subscribed_at": iso(u["joined"]), "client_ip": u["ip"], "user_agent": R.choice(UA),
         "referrer": R.choice(["", "https://news.example.com/", "https://t.example/x"]), "source": "web_app"},
        2 * YEAR - (now - u["joined"]).total_seconds())
coll("emails_list", "threadr:emails:list", 2 * YEAR, "SADD", "threadr:emails:list",
     *[u["email"] for u in users[:-1]], "orphan.in.set@example.com")   # last e-mail key not in the set; one member without a key

# 7-13 threadr:usage:*
tot, per_day = 0, {}
for i, u in enumerate(users):
    month = {}
    for d in range(0, 10):
        c = R.choice([0, 0, 1, 2, 3, 5])
        if not c:
            continue
        day = (now - dt.timedelta(days=d)).date()
        per_day[day] = per_day.get(day, 0) + c
        month[day.strftime("%Y-%m")] = month.get(day.strftime("%Y-%m"), 0) + c
        put("usage_ip_daily", "threadr:usage:ip:%s:daily:%s" % (u["ip"], day), c, 30 * DAY - d * DAY)
        if i % 2 == 0:
            put("usage_email_daily", "threadr:usage:email:%s:daily:%s" % (u["email"], day), c, 30 * DAY - d * DAY)
        if d == 0 and i % 3 == 0:
            put("usage_user_daily", "threadr:usage:user:%s:daily:%s" % (u["id"], day), c, DAY)
        if d < 7:
            t = now - dt.timedelta(days=d, seconds=R.randrange(1, 3600))
            put("usage_log", "threadr:usage:log:%s:%.6f" % (u["ip"], t.replace(tzinfo=dt.timezone.utc).timestamp() + R.random()),
                {"timestamp": iso(t), "client_ip": u["ip"], "email": u["email"] if i % 2 == 0 else None,
                 "date": str(t.date()), "month": t.strftime("%Y-%m")}, 7 * DAY - d * DAY)
        tot += c
    for m, c in month.items():
        put("usage_ip_monthly", "threadr:usage:ip:%s:monthly:%s" % (u["ip"], m), c, YEAR - R.randrange(20 * DAY))
        if i % 2 == 0:
            put("usage_email_monthly", "threadr:usage:email:%s:monthly:%s" % (u["email"], m), c, YEAR - R.randrange(20 * DAY))
        if i % 3 == 0:
            put("usage_user_monthly", "threadr:usage:user:%s:monthly:%s" % (u["id"], m), c, 2678400)
h = ["total_threads", tot, "total_premium_grants", npe + 4, "premium_grants_" + now.strftime("%Y-%m"), npe]
for d, c in sorted(per_day.items()):
    h += ["threads_%s" % d, c]
coll("usage_stats", "threadr:usage:stats", YEAR, "HSET", "threadr:usage:stats", *h)

# 14 threadr:ratelimit:{ip}: counter, window 3600 s, limit 10
for i in range(max(6, n // 5)):
    put("ratelimit", "threadr:ratelimit:" + users[i]["ip"], [1, 3, 7, 10, 11, 14][i % 6], R.randrange(60, 3600))

# 15 threadr:failed_login:{email}:{ip}: limit 5 in 30 min; TTL 1800+3600
for i in range(max(5, n // 8)):
    u = users[i]
    put("failed_login", "threadr:failed_login:%s:%s" % (u["email"], u["ip"]),
        {"attempts": [1, 2, 4, 5, 9][i % 5], "last_attempt": iso(now - dt.timedelta(minutes=R.randrange(1, 50))),
         "email": u["email"], "client_ip": u["ip"]}, R.randrange(600, 5400))

# 16 threadr:cache:url:{url} and :text:{sha256[:16]}: 24 h
for i in range(max(10, n // 3)):
    tw = [{"number": k + 1, "total": 4, "content": "%d/4 Sample tweet %d about topic %d. \u2728" % (k + 1, k, i)} for k in range(4)]
    for t in tw:
        t["character_count"] = len(t["content"])
    v = {"success": True, "thread": tw, "source_type": "url" if i % 2 else "text", "title": "Topic %d" % i if i % 2 else None,
         "error": None, "_cached_at": 12345.678 + i, "_ttl": DAY}      # event-loop seconds, not an epoch
    k = "url:https://blog.example.com/a/%d?x=1:2" % i if i % 2 else "text:" + hashlib.sha256(b"text %d" % i).hexdigest()[:16]
    put("cache", "threadr:cache:" + k, v, R.randrange(600, DAY))

# 17 threadr:session:{user_id}: TTL 3600+300
for i in range(0, n, 3):
    u = users[i]
    put("session", "threadr:session:" + u["id"],
        {"user_id": u["id"], "email": u["email"], "role": "user", "status": "active", "login_timestamp": iso(now - dt.timedelta(minutes=20)),
         "client_ip": u["ip"], "last_activity": iso(now - dt.timedelta(minutes=2)), "access_token_hash": R.randrange(-2**62, 2**62)},
        R.randrange(300, 3900))

# 18-19 threadr:user:{id}, threadr:user:email:{email}
for i, u in enumerate(users):
    if i % 4 == 3:
        continue
    put("user", "threadr:user:" + u["id"],
        {"user_id": u["id"], "email": u["email"], "password_hash": "$2b$12$" + "x" * 53, "role": ["user", "premium", "admin"][0 if i % 7 else 1],
         "status": "active" if i % 11 else "suspended", "created_at": iso(u["joined"]), "updated_at": iso(now), "last_login_at": iso(now),
         "login_count": R.randrange(1, 90), "failed_login_attempts": 0, "last_failed_login": None, "is_email_verified": False,
         "email_verification_token": None, "password_reset_token": None, "password_reset_expires": None,
         "metadata": {"registration_ip": u["ip"], "registration_timestamp": iso(u["joined"])}}, 2 * YEAR)
    put("user_email_index", "threadr:user:email:" + u["email"], u["id"], 2 * YEAR)

# 20-22 saved threads, list per user (JSON array in a string), statistics
for i in range(0, n, 4):
    u, ids = users[i], []
    for j in range(1 + i % 3):
        t = uid(); ids.append(t)
        put("thread", "threadr:thread:" + t,
            {"id": t, "user_id": u["id"], "title": "Saved thread %d.%d" % (i, j), "original_content": "Lorem ipsum " * 20,
             "tweets": [{"id": uid(), "content": "1/2 hello", "order": 1, "character_count": 9}, {"id": uid(), "content": "2/2 bye", "order": 2, "character_count": 7}],
             "metadata": {"source_url": None, "source_type": "text", "generation_time_ms": 900, "ai_model": "gpt-3.5-turbo", "content_length": 240, "tags": []},
             "created_at": str(now), "updated_at": str(now), "view_count": j, "copy_count": 0, "is_favorite": False, "is_archived": False}, YEAR)
    put("user_threads", "threadr:user_threads:" + u["id"], ids, YEAR)
    put("thread_stats", "threadr:thread_stats:" + u["id"], {"created": len(ids), "viewed": 2, "updated": 0, "deleted": 0, "copied": 1}, 30 * DAY)

# 23 keys of other types and prefixes (hash, set, list, sorted set), outside the mapping
tid, u0 = uid(), users[0]
coll("team", "t", None, "HSET", "team:data:" + tid, "id", tid, "name", "Demo team", "slug", "demo-team", "owner_id", u0["id"], "plan", "pro")
put("team", "team:slug:demo-team", tid)
coll("team", "t", None, "SADD", "team:all", tid)
coll("team", "t", None, "SADD", "team:members:" + tid, *[u["id"] for u in users[:3]])
coll("team", "t", None, "SADD", "user:teams:" + u0["id"], tid)
coll("team", "t", None, "RPUSH", "team:activity:" + tid, json.dumps({"action": "thread.created", "user_id": u0["id"]}), json.dumps({"action": "member.invited"}))
k = "analytics:%s:threads" % u0["id"]
coll("analytics", k, 90 * DAY, "ZADD", k, 1754550000, uid(), 1754560000, uid())
k = "analytics:%s:timeseries:impressions:day" % u0["id"]
coll("analytics", k, 90 * DAY, "ZADD", k, 1754550000, "1200", 1754636400, "1500")
put("analytics", "analytics:%s:thread:%s" % (u0["id"], uid()), {"total_impressions": 1200, "engagement_rate": 0.043}, 90 * DAY)

# 24 deliberate bad or awkward keys
if not a.no_bad:
    bad = "bad"
    put(bad, "threadr:premium:email:broken.json@example.com", '{"granted_at": "2025-08-01T00:00:00", "expires_at": ', 9 * DAY)
    put(bad, "threadr:premium:email:bad.date@example.com", {"granted_at": "yesterday", "expires_at": "soon", "plan": "premium", "client_ip": "192.0.2.9", "email": "bad.date@example.com", "payment_info": {}}, 9 * DAY)
    put(bad, "threadr:premium:email:not-an-address", {"granted_at": iso(now), "expires_at": iso(now + dt.timedelta(days=3)), "plan": "premium", "client_ip": None, "email": "not-an-address", "payment_info": {}}, 9 * DAY)
    put(bad, "threadr:premium:ip:999.1.2.3", {"granted_at": iso(now), "expires_at": iso(now + dt.timedelta(days=3)), "plan": "premium", "client_ip": "999.1.2.3", "email": None, "payment_info": {}}, 9 * DAY)
    coll(bad, "threadr:premium:email:wrong.type@example.com", 9 * DAY, "HSET", "threadr:premium:email:wrong.type@example.com", "plan", "premium")
    put(bad, "threadr:premium:email:no.ttl@example.com", {"granted_at": iso(now), "expires_at": iso(now + dt.timedelta(days=300)), "plan": "pro", "client_ip": "192.0.2.77", "email": "no.ttl@example.com", "payment_info": {}})
    put(bad, "threadr:email:nul@example.com", '{"email": "nul@example.com", "subscribed_at": "2025-01-02T03:04:05", "source": "a\\u0000b"}', 9 * DAY)
    put(bad, "threadr:email:Mixed.Case@Example.com", {"email": "Mixed.Case@Example.com", "subscribed_at": iso(now), "source": "web_app"}, 9 * DAY)
    put(bad, "threadr:email:mixed.case@example.com", {"email": "mixed.case@example.com", "subscribed_at": iso(now), "source": "web_app"}, 9 * DAY)
    put(bad, "threadr:email:j\u00f6rg@example.org", {"email": "j\u00f6rg@example.org", "subscribed_at": iso(now), "source": "web_app"}, 9 * DAY)
    put(bad, b"threadr:email:latin1-\xe9@example.org", {"email": "x", "subscribed_at": iso(now)}, 9 * DAY)
    put(bad, "threadr:email:empty@example.com", "", 9 * DAY)
    put(bad, "threadr:usage:ip:192.0.2.250:daily:2025-02-30", 4, 9 * DAY)
    put(bad, "threadr:usage:ip:192.0.2.251:daily:%s" % now.date(), "many", 9 * DAY)
    put(bad, "threadr:usage:ip:192.0.2.252:daily:%s" % now.date(), -3, 9 * DAY)
    put(bad, "threadr:usage:ip:192.0.2.253:daily:%s" % now.date(), "99999999999999999999", 9 * DAY)
    put(bad, "threadr:subscription:user:not-a-uuid", {"subscription_id": "sub_bad", "plan_name": "threadr_pro", "status": "active", "current_period_start": str(now), "current_period_end": str(now)}, 9 * DAY)
    put(bad, "threadr:subscription:user:" + users[1]["id"] + "x", {"plan_name": "mystery", "status": "??"}, 9 * DAY)
    put(bad, "threadr:cache:text:0000000000000000", {"success": True, "thread": []}, DAY)
    put(bad, "threadr:cache:url:https://big.example.com/", {"success": True, "thread": [{"number": 1, "total": 1, "content": "x" * 1048576, "character_count": 1048576}]}, DAY)
    put(bad, "threadr:session:" + uid(), b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.", 900)   # a pickled value
    put(bad, "threadr:email:star*[x]?@example.com", {"email": "star*[x]?@example.com", "subscribed_at": iso(now)}, 9 * DAY)
    put(bad, "threadr:ratelimit:198.51.100.250", 12, 1)          # expires within a second of loading

if a.manifest:
    json.dump({"now": str(now), "users": n, "keys": sum(counts.values()), "families": counts}, sys.stdout, indent=2)
    print()
else:
    sys.stdout.buffer.write(b"".join(out))
