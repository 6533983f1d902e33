#include "core/fixed_window.h"

#include <algorithm>

namespace prm::fixed_window {
namespace {

// The end of a window that contains `now` if it began now.
int64_t EndOfNew(const RateLimit& limit, int64_t now) {
  if (limit.algorithm == RateAlgorithm::kFixedWindowFirstHit) return now + limit.period;
  return now - now % limit.period + limit.period;
}

// Brings the state to the window that `now` is in. A clock that steps back by less than a window stays in the
// later one; a window of another length, or further ahead, is cut to what a new one would have.
bool Advance(const RateLimit& limit, RateState* state, int64_t now) {
  if (state->time <= now) {
    *state = RateState{EndOfNew(limit, now), 0, limit.period};
    return false;
  }
  const bool stepped_back = state->previous == limit.period && state->time - now <= 2 * limit.period;
  if (stepped_back || state->time <= EndOfNew(limit, now)) return false;
  state->time = EndOfNew(limit, now);
  state->previous = limit.period;
  return true;
}

}  // namespace

RateDecision Decide(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  RateDecision decision;
  decision.store = Advance(limit, state, now);
  decision.remaining = std::max<int64_t>(limit.quota - state->count, 0);
  decision.never = cost > limit.quota;
  decision.allowed = cost == 0 || cost <= decision.remaining;
  if (decision.allowed && cost > 0) {
    state->count += cost;
    decision.remaining -= cost;
    decision.store = true;
  }
  if (state->count > 0) decision.reset = state->time - now;
  if (!decision.allowed && !decision.never) decision.retry = decision.reset;
  return decision;
}

bool Refund(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  Advance(limit, state, now);
  if (cost == 0 || state->count == 0) return false;
  state->count = std::max<int64_t>(state->count - cost, 0);
  return true;
}

}  // namespace prm::fixed_window
