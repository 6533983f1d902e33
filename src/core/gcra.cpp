#include "core/gcra.h"

#include <algorithm>

namespace prm::gcra {
namespace {

// If the clock is set back by less than this, what was admitted ahead of it stays.
constexpr int64_t kClockStep = 1000000000;

}  // namespace

RateDecision Decide(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  const int64_t whole = limit.burst * limit.interval;  // the time in which an empty bucket fills
  RateDecision decision;
  // No history under this limit leads further ahead than an empty bucket.
  if (state->time > now + whole + kClockStep) {
    state->time = now + whole;
    decision.store = true;
  }
  int64_t used = std::max<int64_t>(state->time - now, 0);
  decision.never = cost > limit.burst;
  decision.allowed = !decision.never && cost * limit.interval <= whole - used;
  if (decision.allowed) {
    used += cost * limit.interval;
    if (cost > 0) {
      state->time = now + used;
      decision.store = true;
    }
  } else if (!decision.never) {
    decision.retry = cost * limit.interval - (whole - used);
  }
  decision.remaining = std::max<int64_t>(whole - used, 0) / limit.interval;
  decision.reset = used;
  return decision;
}

bool Refund(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  if (cost == 0 || state->time <= now) return false;
  state->time = std::max(now, state->time - std::min(cost, limit.burst) * limit.interval);
  return true;
}

}  // namespace prm::gcra
