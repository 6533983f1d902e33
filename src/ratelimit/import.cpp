// Counters of other rate limiters, so that whoever was limited there stays limited here.
#include "pg/arguments.h"
#include "pg/entry.h"
#include "ratelimit/decide.h"
#include "ratelimit/memory.h"

namespace prm::ratelimit {
namespace {

using pg::Failure;

[[noreturn]] void RefuseArguments(const Policy &policy, const char *needs) {
  throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                "rate limit policy \"" + policy.name + "\" cannot go on from these numbers",
                std::string("Its algorithm needs ") + needs + ".",
                "Counters of windows go into policies with algorithm fixed_window, fixed_window_first_hit or "
                "sliding_window, theoretical arrival times into gcra.");
}

// The state that the numbers describe, in the algorithm of the policy.
RateState StateOf(const Policy &policy, std::optional<int64> used, std::optional<TimestampTz> reset_at,
                  std::optional<int64> previous, std::optional<int64> tat) {
  RateState state;
  if (policy.limit.algorithm == RateAlgorithm::kGcra) {
    if (!tat || used || reset_at || previous) RefuseArguments(policy, "tat alone");
    state.time = std::max<int64>(*tat, 0);  // one of the past says nothing, whatever it is
    return state;
  }
  if (!used || !reset_at || tat) RefuseArguments(policy, "used and reset_at");
  if (previous && policy.limit.algorithm != RateAlgorithm::kSlidingWindow)
    RefuseArguments(policy, "used and reset_at, and no previous");
  if (TIMESTAMP_NOT_FINITE(*reset_at) || *reset_at <= 0)
    throw Failure(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "reset_at must be a time after the year 2000");
  state.time =
      std::min(*reset_at / USECS_PER_SEC, INT64CONST(4102444800) - pg::kEpochSeconds) * pg::kNanoseconds +
      *reset_at % USECS_PER_SEC * 1000 + pg::kEpochSeconds * pg::kNanoseconds;
  state.count = std::max<int64>(*used, 0);
  if (policy.limit.algorithm == RateAlgorithm::kSlidingWindow)
    state.previous = std::max<int64>(previous.value_or(0), 0);
  else if (policy.limit.algorithm == RateAlgorithm::kFixedWindowFirstHit)
    state.previous = policy.limit.period;
  return state;
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
// tat bigint) returns bigint: the key goes on from what another limiter counted, unless it has used more
// here; what remains. tat: nanoseconds since 1970. Errors: 42704, 22004, 22023 where the numbers are not
// those of the policy's algorithm, 22008, and those of rate_limit.
PRM_FUNCTION(import_rate_limit) {
  RefreshPolicies();
  Request request;
  request.policy = &PolicyNamed(pg::TextArgument(fcinfo, 0, "policy"));
  const std::string key = pg::TextArgument(fcinfo, 1, "key");
  request.key = TextKey(*request.policy, key);
  const RateState state =
      StateOf(*request.policy, OptionalInt8Argument(fcinfo, 2), OptionalInt8Argument(fcinfo, 3),
              OptionalInt8Argument(fcinfo, 4), OptionalInt8Argument(fcinfo, 5));
  PG_RETURN_INT64(Import(request, state));
}
