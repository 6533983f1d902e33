// Imports counters of other rate limiters, so that clients limited there stay limited here.
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/time.h"
#include "ratelimit/decide.h"
#include "ratelimit/memory.h"

namespace prm::ratelimit {
namespace {

using pg::Failure;

[[noreturn]] void RefuseArguments(const Policy &policy, const char *needs) {
  throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                "rate limit policy \"" + policy.name + "\" cannot import these numbers",
                std::string("Its algorithm needs ") + needs + ".",
                "Import window counters into policies with algorithm fixed_window, fixed_window_first_hit or "
                "sliding_window, and theoretical arrival times into gcra.");
}

// The end of the window of a counter without an end: one window from now or, for aligned windows that count
// in the next one, the end of the current one.
int64 FullWindowEnd(const RateLimit &limit) {
  const int64 now = ClockNow();
  if (limit.algorithm == RateAlgorithm::kSlidingWindow) return now - now % limit.period + limit.period;
  return now + limit.period;
}

// The state that the imported numbers describe, in the algorithm of the policy. Without reset_at it ends
// after a full window.
RateState StateOf(const Policy &policy, const RateLimit &limit, std::optional<int64> used,
                  std::optional<TimestampTz> reset_at, std::optional<int64> previous,
                  std::optional<int64> tat) {
  RateState state;
  if (policy.limit.algorithm == RateAlgorithm::kGcra) {
    if (!tat || used || reset_at || previous) RefuseArguments(policy, "tat alone");
    state.time = std::max<int64>(*tat, 0);  // a past arrival time means an unused key
    return state;
  }
  if (!used || tat) RefuseArguments(policy, "used and reset_at");
  if (previous && policy.limit.algorithm != RateAlgorithm::kSlidingWindow)
    RefuseArguments(policy, "used and reset_at, and no previous");
  if (reset_at) {
    if (TIMESTAMP_NOT_FINITE(*reset_at) || *reset_at <= 0)
      throw Failure(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "reset_at must be a time after the year 2000");
    state.time = std::min(pg::UnixNs(*reset_at), kLatestTime);
  } else {
    state.time = FullWindowEnd(limit);
    // The latest end of a window of this length, see fixed_window.cpp.
    if (limit.algorithm == RateAlgorithm::kFixedWindow) state.previous = limit.period;
  }
  state.count = std::max<int64>(*used, 0);
  if (policy.limit.algorithm == RateAlgorithm::kSlidingWindow)
    state.previous = std::max<int64>(previous.value_or(0), 0);
  else if (policy.limit.algorithm == RateAlgorithm::kFixedWindowFirstHit)
    state.previous = limit.period;
  return state;
}

std::string NoTtlArgument(FunctionCallInfo fcinfo, int n) {
  std::string no_ttl = pg::TextArgument(fcinfo, n, "no_ttl");
  pg::CheckKeyword(no_ttl, "no_ttl", {"reject", "forever", "full_window"});
  return no_ttl;
}

std::optional<int64> OptionalInt8Argument(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) return std::nullopt;
  return PG_GETARG_INT64(n);
}

}  // namespace
}  // namespace prm::ratelimit

using namespace prm;
using namespace prm::ratelimit;

// redis_migrate.import_rate_limit(policy text, key text, used bigint, reset_at timestamptz, previous bigint,
// tat bigint, no_ttl text) returns bigint: starts a key from what another limiter counted, unless it has used
// more here; returns what remains. tat: nanoseconds since 1970. reset_at NULL: the counter has no end, and
// no_ttl says what to do. Errors: 42704, 22004, 22023 for numbers of another algorithm or a rejected counter
// without an end, 22008, 42501 for forever unless the caller owns the policy, and those of rate_limit.
PRM_FUNCTION(import_rate_limit) {
  const std::string no_ttl = NoTtlArgument(fcinfo, 6);
  RefreshPolicies();
  Request request;
  request.policy = &PolicyNamed(pg::TextArgument(fcinfo, 0, "policy"));
  const Policy &policy = *request.policy;
  const std::string key = pg::TextArgument(fcinfo, 1, "key");
  request.key = TextKey(policy, key);
  const KeyRule *rule = policy.RuleFor(request.key.text, request.key.listed());
  const RateLimit &limit = rule != nullptr && rule->limit ? *rule->limit : policy.limit;
  const auto used = OptionalInt8Argument(fcinfo, 2), reset_at = OptionalInt8Argument(fcinfo, 3);
  const RateState state = StateOf(policy, limit, used, reset_at, OptionalInt8Argument(fcinfo, 4),
                                  OptionalInt8Argument(fcinfo, 5));
  const bool endless = used && !reset_at;
  if (endless && no_ttl == "reject")
    throw Failure(
        ERRCODE_INVALID_PARAMETER_VALUE, "a counter for rate limit policy \"" + policy.name + "\" has no end",
        "It counts " + std::to_string(*used) +
            " and reset_at is NULL: in Redis the counter had no expiry, so it would count for ever.",
        "Give no_ttl => 'full_window' to let it end after a window, or no_ttl => 'forever' to put keys "
        "that have used all of it on the deny list.");
  if (endless && no_ttl == "forever" && *used >= limit.most()) {
    DenyForEver(fcinfo);
    PG_RETURN_INT64(0);
  }
  PG_RETURN_INT64(Import(request, state));
}
