#include "core/sliding_window.h"

#include <algorithm>

namespace prm::sliding_window {
namespace {

using int128 = __int128;

// The weight of a window's `count` when `left` of the next window is left, rounded down.
int64_t Weight(const RateLimit& limit, int64_t count, int64_t left) {
  if (count == 0) return 0;
  return static_cast<int64_t>(int128{count} * std::min(left, limit.period) / limit.period);
}

// The longest remainder of the window after it at which `count` weighs no more than `room`.
int64_t LeftFor(const RateLimit& limit, int64_t count, int64_t room) {
  const int128 left = (int128{room + 1} * limit.period + count - 1) / count - 1;
  return static_cast<int64_t>(std::min<int128>(left, limit.period));
}

// Brings the state to the window that `now` is in, and returns whether it had to be clamped. A clock that
// steps back by at most a window stays at the start of the later one: *now is moved there.
bool Advance(const RateLimit& limit, RateState* state, int64_t* now) {
  const int64_t start = *now - *now % limit.period;
  const int64_t end = start + limit.period;
  if (state->time > end) {
    if (state->time - end <= limit.period && state->time % limit.period == 0) {
      *now = state->time - limit.period;
      return false;
    }
    state->time = end;
    return true;
  }
  if (state->time > start) {
    const bool clamped = state->time != end;  // of a window of another length
    state->time = end;
    return clamped;
  }
  *state = RateState{end, 0, state->time > start - limit.period ? state->count : 0};
  return false;
}

}  // namespace

RateDecision Decide(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  RateDecision decision;
  const int64_t asked_at = now;
  decision.store = Advance(limit, state, &now);
  const int64_t left = state->time - now;
  // With a clock that was set back the previous window weighs again: together the two may exceed either.
  const auto used = static_cast<int64_t>(
      std::min<int128>(int128{state->count} + Weight(limit, state->previous, left), INT64_MAX));
  decision.remaining = std::max<int64_t>(limit.quota - used, 0);
  decision.never = cost > limit.quota;
  decision.allowed = cost == 0 || cost <= decision.remaining;
  if (decision.allowed && cost > 0) {
    state->count += cost;
    decision.remaining -= cost;
    decision.store = true;
  }
  if (state->count > 0)
    decision.reset = state->time + limit.period - asked_at;
  else if (state->previous > 0)
    decision.reset = state->time - asked_at;
  if (!decision.allowed && !decision.never) {
    const int64_t room = limit.quota - cost;  // for what is there already
    if (state->count <= room)
      decision.retry = state->time - LeftFor(limit, state->previous, room - state->count) - asked_at;
    else  // only in the next window, where the current count is the one that weighs
      decision.retry = state->time + limit.period - LeftFor(limit, state->count, room) - asked_at;
  }
  return decision;
}

bool Refund(const RateLimit& limit, RateState* state, int64_t now, int64_t cost) {
  Advance(limit, state, &now);
  if (cost == 0 || (state->count == 0 && state->previous == 0)) return false;
  const int64_t from_current = std::min(cost, state->count);
  state->count -= from_current;
  state->previous -= std::min(cost - from_current, state->previous);
  return true;
}

}  // namespace prm::sliding_window
