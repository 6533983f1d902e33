#include "core/rate_limit.h"

#include "core/fixed_window.h"
#include "core/gcra.h"
#include "core/sliding_window.h"

namespace prm {

Result<RateLimit> MakeRateLimit(RateAlgorithm algorithm, int64_t quota, int64_t period, int64_t burst) {
  auto refuse = [](const char* message, const char* detail) {
    return Error{ErrorCode::kInvalidArgument, message, detail, ""};
  };
  if (quota < 1) return refuse("quota must be at least 1", "");
  if (period < 1) return refuse("period must be longer than zero", "");
  if (burst < 0) return refuse("burst must be at least 1", "");
  if (period > kLongestDrain) return refuse("period must not be longer than 73 years", "");
  RateLimit limit{algorithm, quota, period, burst != 0 ? burst : quota, 0};
  if (algorithm != RateAlgorithm::kGcra) {
    if (burst != 0)
      return refuse("only algorithm gcra has a burst", "Window algorithms admit their whole quota at once.");
    limit.burst = 0;
    return limit;
  }
  limit.interval = period / quota;
  if (limit.interval < 1) return refuse("the rate must not be above one per nanosecond", "");
  if (limit.burst > kLongestDrain / limit.interval)
    return refuse("burst is too large for the rate", "It must be restored within 73 years.");
  return limit;
}

namespace {

RateDecision Dispatch(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  switch (limit.algorithm) {
    case RateAlgorithm::kGcra:
      return gcra::Decide(limit, state, now, cost);
    case RateAlgorithm::kSlidingWindow:
      return sliding_window::Decide(limit, state, now, cost);
    default:
      return fixed_window::Decide(limit, state, now, cost);
  }
}

}  // namespace

RateDecision Decide(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  RateDecision decision = Dispatch(limit, state, now, cost);
  if (cost == 0) decision.store = false;
  return decision;
}

bool Refund(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  switch (limit.algorithm) {
    case RateAlgorithm::kGcra:
      return gcra::Refund(limit, state, now, cost);
    case RateAlgorithm::kSlidingWindow:
      return sliding_window::Refund(limit, state, now, cost);
    default:
      return fixed_window::Refund(limit, state, now, cost);
  }
}

int64_t ForgetAt(const RateLimit& limit, const RateState& state) {
  // A sliding window also counts in the next one.
  return limit.algorithm == RateAlgorithm::kSlidingWindow ? state.time + limit.period : state.time;
}

}  // namespace prm
