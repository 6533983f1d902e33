#include "discover/framework_layout.h"

#include <algorithm>
#include <initializer_list>

#include "core/pattern.h"

namespace prm {
namespace {

// Kinds of values as bits.
constexpr uint32_t Bit(ValueKind kind) { return uint32_t{1} << static_cast<size_t>(kind); }
constexpr uint32_t kAny = ~uint32_t{0};
constexpr uint32_t kInt = Bit(ValueKind::kInteger);
constexpr uint32_t kDecimal = kInt | Bit(ValueKind::kJsonScalar);
constexpr uint32_t kJson = Bit(ValueKind::kJsonObject) | Bit(ValueKind::kJsonArray);
constexpr uint32_t kPickled = Bit(ValueKind::kPickle) | Bit(ValueKind::kZlib) | Bit(ValueKind::kZstd);
constexpr uint32_t kRuby = Bit(ValueKind::kMarshal) | Bit(ValueKind::kRails);
constexpr uint32_t kBytes = Bit(ValueKind::kBinary);

struct Entry {
  const char* pattern;
  const char* type;      // as TYPE names it
  uint32_t kinds;        // kinds that its values may have
  int64_t least_digits;  // of integers
  const char* field;     // that some hash of it has
  FrameworkLayout layout;
  size_t capture_bytes = 0;  // that the last capture has in every key; 0: any
};

constexpr char kCounter[] =
    "a rate limit policy of this extension; counters of windows that end soon can be skipped";
constexpr char kSessions[] = "a table of sessions with expires_at and an expiry policy";
constexpr char kQueue[] =
    "a table of jobs; stop the producers and let the workers empty the queue if possible";

constexpr FrameworkLayout kLaravelCache = {
    "Laravel cache", "cache entries, PHP serialised; numbers are plain",
    "table cache of Laravel's database store: key, value, expiration; a cache may as well begin empty"};
constexpr FrameworkLayout kLaravelSessions = {
    "Laravel sessions", "PHP serialised: a string that holds an array",
    "table sessions of Laravel's database driver, payload is base64 of the inner string"};
constexpr size_t kLaravelSessionBytes = 40;

// The most specific first: the first that fits is returned.
constexpr Entry kEntries[] = {
    {"scs:session:{token}",
     "string",
     kAny,
     0,
     "",
     {"scs (Go)", "sessions, gob",
      "table sessions (token text, data bytea, expiry timestamptz) of scs's postgresstore; the bytes stay as "
      "they are"}},
    {"spring:session:{app_name}:sessions:expires:{session_id}",
     "string",
     kAny,
     0,
     "",
     {"Spring Session", "expiry markers of sessions", "nothing: skip_keys"}},
    {"spring:session:sessions:expires:{session_id}",
     "string",
     kAny,
     0,
     "",
     {"Spring Session", "expiry markers of sessions", "nothing: skip_keys"}},
    {"spring:session:expirations:{minute}",
     "set",
     kAny,
     0,
     "",
     {"Spring Session", "sessions by the minute in which they expire", "nothing: skip_keys"}},
    {"spring:session:index:{index_name}",
     "set",
     kAny,
     0,
     "",
     {"Spring Session", "sessions by principal", "column PRINCIPAL_NAME of SPRING_SESSION"}},
    {"spring:session:sessions:{session_id}",
     "hash",
     kAny,
     0,
     "",
     {"Spring Session", "sessions; attributes are Java objects",
      "tables SPRING_SESSION and SPRING_SESSION_ATTRIBUTES; attribute bytes stay as they are"}},
    {"rlflx:{limited_key}",
     "string",
     kInt,
     0,
     "",
     {"rate-limiter-flexible", "points used in the current window", kCounter}},
    {"*rack::attack:{bucket:int}:{rule}",
     "string",
     kInt,
     0,
     "",
     {"rack-attack", "requests in a window, by its number, rule and discriminator", kCounter}},
    {"*rack::attack:{rule}",
     "string",
     kAny,
     0,
     "",
     {"rack-attack", "bans and counts of fail2ban and allow2ban",
      "a lockout policy of this extension; bans end with expires_at"}},
    {"@upstash/ratelimit:{identifier}",
     "string",
     kInt,
     0,
     "",
     {"Upstash Ratelimit", "requests in a window", kCounter}},
    {"@upstash/ratelimit:{identifier}",
     "hash",
     kAny,
     0,
     "",
     {"Upstash Ratelimit", "token buckets", kCounter}},
    {"request_rate_limiter.\\{{client}\\}.{part}",
     "string",
     kAny,
     0,
     "",
     {"Spring Cloud Gateway", "token buckets: tokens and timestamp", kCounter}},
    {"LIMITS:{limit}", "string", kInt, 0, "", {"limits (Flask-Limiter)", "requests in a window", kCounter}},
    {"LIMITS:{limit}",
     "list",
     kAny,
     0,
     "",
     {"limits (Flask-Limiter)", "times of requests in a moving window", kCounter}},
    {"LIMITER/{limit}", "string", kInt, 0, "", {"limits (Flask-Limiter)", "requests in a window", kCounter}},
    {"rl:{client}", "string", kInt, 0, "", {"express-rate-limit", "requests in a window", kCounter}},
    {"*:axes-{digest:hex}",
     "string",
     kAny,
     0,
     "",
     {"django-axes", "failed logins; the key is a hash of the user or address, which cannot be reversed",
      "nothing: let them expire, and start with empty lockouts"}},
    {"{prefix}:failed:{kind}:{subject}",
     "string",
     kInt,
     0,
     "",
     {"django-defender", "failed logins by address or user", "a lockout policy of this extension"}},
    {"{prefix}:blocked:{kind}:{subject}",
     "string",
     kAny,
     0,
     "",
     {"django-defender", "blocked addresses or users", "a lockout policy of this extension"}},
    {"*:{version:int}:django.contrib.sessions.cache{session_key}",
     "string",
     kAny,
     0,
     "",
     {"Django sessions in the cache", "sessions, pickled",
      "with cached_db, django_session already has the rows; with cache, Django's database cache, whose value "
      "is base64 of the same bytes"}},
    {"spring:{name}",
     "hash",
     Bit(ValueKind::kJava),
     0,
     "",
     {"Spring", "Java objects", "bytea, or let the application convert them"}},
    {"PHPREDIS_SESSION:{session_id}",
     "string",
     kAny,
     0,
     "",
     {"PHP sessions (phpredis)", "sessions in PHP's session encoding",
      "table sessions of Symfony's PdoSessionHandler, or one with bytea and expires_at"}},
    {"sf_s{session_id}",
     "string",
     kAny,
     0,
     "",
     {"Symfony sessions", "sessions in PHP's session encoding",
      "table sessions of Symfony's PdoSessionHandler"}},
    {"celery-task-meta-{task_id}",
     "string",
     kJson,
     0,
     "",
     {"Celery", "results of tasks",
      "table django_celery_results_taskresult, or one with jsonb and expires_at"}},
    {"_kombu.binding.{queue}", "set", kAny, 0, "", {"Celery", "bindings of queues", "nothing: skip_keys"}},
    {"unacked", "hash", kAny, 0, "", {"Celery", "tasks that workers have taken and not finished", kQueue}},
    {"unacked_index",
     "zset",
     kAny,
     0,
     "",
     {"Celery", "when unfinished tasks were taken", "nothing: skip_keys"}},
    {"celery*", "list", kAny, 0, "", {"Celery", "tasks that wait; body is base64 of JSON", kQueue}},
    {"rq:job:{job_id}",
     "hash",
     kAny,
     0,
     "",
     {"RQ", "jobs; data is zlib of a pickle", "opaque bytes; let the workers finish first"}},
    {"rq:queue:{queue}", "list", kAny, 0, "", {"RQ", "ids of jobs that wait, head first", kQueue}},
    {"rq:results:{job_id}",
     "stream",
     kAny,
     0,
     "",
     {"RQ", "results of jobs", "a table with the stream's entries, or let them expire"}},
    {"rq:{registry}", "zset", kAny, 0, "", {"RQ", "registries: finished, failed, scheduled jobs", kQueue}},
    {"rq:{registry}", "set", kAny, 0, "", {"RQ", "names of queues and workers", "nothing: skip_keys"}},
    {"resque:queue:{queue}", "list", kAny, 0, "", {"Resque", "jobs that wait, head first: JSON", kQueue}},
    {"resque:queues", "set", kAny, 0, "", {"Resque", "names of queues", "nothing: skip_keys"}},
    {"resque:failed", "list", kAny, 0, "", {"Resque", "jobs that failed: JSON", "a table of failed jobs"}},
    {"resque:{name}", "string", kAny, 0, "", {"Resque", "statistics and workers", "nothing: skip_keys"}},
    {"bull:{queue}:{id:int}",
     "hash",
     kAny,
     0,
     "data",
     {"BullMQ", "jobs: name, data and opts as JSON", kQueue}},
    {"bull:{queue}:{state}", "list", kAny, 0, "", {"BullMQ", "ids of jobs by state", kQueue}},
    {"bull:{queue}:{state}",
     "zset",
     kAny,
     0,
     "",
     {"BullMQ", "ids of jobs by state; a delayed job's score is its time in ms times 4096", kQueue}},
    {"bull:{queue}:events", "stream", kAny, 0, "", {"BullMQ", "events", "nothing: skip_keys"}},
    {"bull:{queue}:{state}",
     "string",
     kAny,
     0,
     "",
     {"BullMQ", "counters and locks of a queue", "nothing: skip_keys"}},
    {"bull:{queue}:{id}", "hash", kAny, 0, "", {"BullMQ", "jobs and settings of a queue", kQueue}},
    {"*queues:{queue}:{state}",
     "zset",
     kJson,
     0,
     "",
     {"Laravel queue", "jobs that are delayed or reserved; the score is when they are due",
      "table jobs of Laravel's database queue: queue, payload, attempts, available_at"}},
    {"*queues:{queue}",
     "list",
     kJson,
     0,
     "",
     {"Laravel queue", "jobs that wait",
      "table jobs of Laravel's database queue: queue, payload, attempts, available_at"}},
    {"queue:{queue}",
     "list",
     kJson,
     0,
     "",
     {"Sidekiq", "jobs that wait, the oldest at the tail: JSON", kQueue}},
    {"queues", "set", kAny, 0, "", {"Sidekiq", "names of queues", "nothing: skip_keys"}},
    {"schedule", "zset", kJson, 0, "", {"Sidekiq", "jobs by the time when they are due", kQueue}},
    {"retry", "zset", kJson, 0, "", {"Sidekiq", "jobs that will be tried again", kQueue}},
    {"dead", "zset", kJson, 0, "", {"Sidekiq", "jobs that were given up", "a table of failed jobs"}},
    {"stat:{counter}",
     "string",
     kInt,
     0,
     "",
     {"Sidekiq", "jobs processed and failed, in all and by day", "a table of counters"}},
    {"processes", "set", kAny, 0, "", {"Sidekiq", "running processes", "nothing: skip_keys"}},
    {"*laravel_database_{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions,
     kLaravelSessionBytes},
    {"*laravel_cache:{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions,
     kLaravelSessionBytes},
    {"*laravel_cache_{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions,
     kLaravelSessionBytes},
    {"*laravel_cache{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions,
     kLaravelSessionBytes},
    {"*-database-{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions,
     kLaravelSessionBytes},
    {"*-cache-{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions, kLaravelSessionBytes},
    {"*_cache_{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions, kLaravelSessionBytes},
    {"*_cache:{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions, kLaravelSessionBytes},
    {"*_database_{session_id}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelSessions,
     kLaravelSessionBytes},
    {"*laravel_cache{cache_key}:timer",
     "string",
     kAny,
     0,
     "",
     {"Laravel rate limiter", "when a limit is reset, in seconds since 1970", kCounter}},
    {"*-cache-{cache_key}:timer",
     "string",
     kAny,
     0,
     "",
     {"Laravel rate limiter", "when a limit is reset, in seconds since 1970", kCounter}},
    {"*-cache-{cache_key}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelCache},
    {"*_cache_{cache_key}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelCache},
    {"*_cache:{cache_key}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelCache},
    {"*-database-{cache_key}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelCache},
    {"*laravel_database_{cache_key}", "string", Bit(ValueKind::kPhp), 0, "", kLaravelCache},
    {"*laravel_cache{cache_key}", "string", Bit(ValueKind::kPhp) | kInt, 0, "", kLaravelCache},
    {"sess:{session_id}",
     "string",
     kJson,
     0,
     "",
     {"express-session (connect-redis)", "sessions",
      "table session (sid, sess json, expire timestamp) of connect-pg-simple: sid is the capture, expire is "
      "expires_at"}},
    {"session:{session_id}",
     "string",
     Bit(ValueKind::kMsgpack) | Bit(ValueKind::kPickle),
     0,
     "",
     {"Flask-Session", "sessions, msgpack or pickle",
      "table sessions of Flask-Session: session_id is the whole key, data the same bytes, expiry"}},
    {"session_{session_id}",
     "string",
     kBytes | Bit(ValueKind::kText),
     0,
     "",
     {"gorilla/sessions (redistore)", "sessions, gob", kSessions}},
    {"*session:2::{digest:hex}",
     "string",
     kRuby,
     0,
     "",
     {"Rails sessions", "sessions, Ruby Marshal",
      "table sessions of activerecord-session_store: data is base64 of the same bytes"}},
    {"rate:{limited_key}",
     "string",
     kDecimal,
     9,
     "",
     {"redis_rate (Go)", "GCRA: seconds since 2017", kCounter}},
    {"{limited_key}",
     "string",
     kInt,
     19,
     "",
     {"redis-cell or throttled", "GCRA: nanoseconds since 1970", kCounter}},
    {"*",
     "hash",
     kAny,
     0,
     "sldexp",
     {"ASP.NET Core distributed cache", "cache entries and sessions: absexp and sldexp in ticks, data",
      kSessions}},
    {"*",
     "hash",
     kAny,
     0,
     "absexp",
     {"ASP.NET Core distributed cache", "cache entries and sessions: absexp and sldexp in ticks, data",
      kSessions}},
    {"*:{version:int}:{cache_key}",
     "string",
     kPickled,
     0,
     "",
     {"Django cache", "cache entries, pickled, perhaps compressed",
      "table of createcachetable: cache_key, value (base64 of the same bytes), expires; a cache may as well "
      "begin empty"}},
    {":{version:int}:{cache_key}",
     "string",
     kInt,
     0,
     "",
     {"Django cache", "numbers in the cache", "table of createcachetable; numbers have to be pickled"}},
    {"*",
     "string",
     Bit(ValueKind::kRails),
     0,
     "",
     {"Rails cache", "cache entries of Rails 7.1 and later",
      "table solid_cache_entries: key and value are the same bytes; a cache may as well begin empty"}},
    {"*",
     "string",
     Bit(ValueKind::kMarshal),
     0,
     "",
     {"Rails cache", "Ruby objects, as Rails before 7.1 caches them",
      "table solid_cache_entries: key and value are the same bytes; a cache may as well begin empty"}},
};

bool Fits(const Entry& entry, const FamilyStats& stats) {
  if (stats.Type() != entry.type) return false;
  // At least nine of ten values must match; if none was read, only layouts for any value match.
  uint64_t fitting = 0;
  for (size_t i = 0; i < kValueKinds; ++i) {
    if ((entry.kinds >> i & 1) != 0) fitting += stats.kinds[i];
  }
  if (entry.kinds != kAny && (stats.values == 0 || fitting * 10 < stats.values * 9)) return false;
  if (entry.least_digits > 0 && stats.integer_digits.count > 0 &&
      stats.integer_digits.least < entry.least_digits)
    return false;
  if (entry.least_digits > 9 && stats.integer_digits.count == 0) return false;
  if (entry.field[0] != '\0' &&
      std::find(stats.fields.begin(), stats.fields.end(), entry.field) == stats.fields.end()) {
    return false;
  }
  const auto pattern = KeyPattern::Parse(entry.pattern);
  Match match;
  return pattern.ok() && !stats.examples.empty() &&
         std::all_of(stats.examples.begin(), stats.examples.end(), [&](const std::string& key) {
           if (pattern.value().MatchKey(key, match) != Fit::kFits) return false;
           if (entry.capture_bytes == 0) return true;
           const Bytes id = match.values.back();
           return id.size() == entry.capture_bytes && std::all_of(id.begin(), id.end(), [](char c) {
                    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
                  });
         });
}

}  // namespace

const FrameworkLayout* FindFrameworkLayout(const FamilyStats& stats) {
  for (const Entry& entry : kEntries) {
    if (Fits(entry, stats)) return &entry.layout;
  }
  return nullptr;
}

}  // namespace prm
