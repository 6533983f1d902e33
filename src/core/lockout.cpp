#include "core/lockout.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace prm {
namespace {

int64_t Later(int64_t time, int64_t duration) {
  int64_t sum;
  return __builtin_add_overflow(time, duration, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

int64_t StepLength(const LockoutRule& rule) {
  return std::max<int64_t>(1, (rule.window + LockoutState::kSteps - 1) / LockoutState::kSteps);
}

// The step of `recent` with this index is forgotten at this time.
int64_t StepForgottenAt(int64_t length, int64_t window, int64_t last, int index) {
  return Later((last / length - index + 1) * length, window);
}

int64_t CoolOff(const LockoutRule& rule, int32_t failures) {
  int64_t cool_off = rule.tiers.front().cool_off;
  for (const LockoutTier& tier : rule.tiers)
    if (failures >= tier.failures) cool_off = tier.cool_off;
  return cool_off;
}

// When failures of a rule that does not roll are forgotten.
int64_t WindowEnd(const LockoutRule& rule, int32_t failures, int64_t first, int64_t last) {
  if (failures < rule.threshold()) return Later(rule.mode == CoolOffMode::kFixed ? first : last, rule.window);
  int64_t end = Later(last, CoolOff(rule, failures));
  return rule.progressive() ? Later(end, rule.window) : end;
}

void Clear(LockoutState* state) {
  state->failures = 0;
  state->first = state->last = 0;
  memset(state->recent, 0, sizeof state->recent);
}

void Forget(const LockoutRule& rule, int64_t now, LockoutState* state) {
  if (state->failures == 0) return;
  if (rule.mode == CoolOffMode::kRolling) {
    int64_t length = StepLength(rule);
    state->failures = 0;
    for (int i = 0; i <= LockoutState::kSteps; ++i) {
      if (now >= StepForgottenAt(length, rule.window, state->last, i)) state->recent[i] = 0;
      state->failures += state->recent[i];
    }
  } else if (now >= WindowEnd(rule, state->failures, state->first, state->last)) {
    state->failures = 0;
  }
  if (state->failures == 0) Clear(state);
}

// Moves the steps so that the first is that of `last`, and returns the index of the step of `time`.
int64_t MakeStep(int64_t length, int64_t time, LockoutState* state) {
  int64_t ahead = time / length - state->last / length;
  if (ahead <= 0) return -ahead;
  for (int i = LockoutState::kSteps; i >= 0; --i)
    state->recent[i] = i >= ahead ? state->recent[i - ahead] : 0;
  return 0;
}

void Add(const LockoutRule& rule, int32_t count, int64_t time, LockoutState* state) {
  Forget(rule, time, state);
  if (state->failures == 0) {
    state->first = state->last = time;
  } else {
    state->first = std::min(state->first, time);
  }
  // Kept in every mode, so that changing the mode of a policy loses no count.
  int64_t step = MakeStep(StepLength(rule), time, state);
  if (step <= LockoutState::kSteps) {
    int64_t sum = int64_t{state->recent[step]} + count;
    state->recent[step] = static_cast<uint16_t>(std::min<int64_t>(sum, UINT16_MAX));
  }
  int64_t failures = int64_t{state->failures} + count;
  state->failures = static_cast<int32_t>(std::min<int64_t>(failures, INT32_MAX));
  state->last = std::max(state->last, time);
}

// If the clock is set back by less than this, what was counted ahead of it stays: processes read the clock
// before they lock a state.
constexpr int64_t kClockStep = 1000000;

// The clock was ahead and was set back: all times move with it, so that nothing lasts longer than if it had
// happened now. Rolling windows move by whole steps, since failures must not be forgotten early.
void SetBack(const LockoutRule& rule, int64_t now, LockoutState* state) {
  int64_t by = state->clock - now;
  if (rule.mode == CoolOffMode::kRolling) by -= by % StepLength(rule);
  for (int64_t* time : {&state->first, &state->last, &state->reserved_since, &state->last_check})
    *time = std::max<int64_t>(*time - by, 0);
  state->clock = now;
}

}  // namespace

int32_t Advance(const LockoutRule& rule, int64_t now, LockoutState* state) {
  if (state->clock > Later(now, kClockStep)) SetBack(rule, now, state);
  state->clock = std::max(state->clock, now);
  int32_t timed_out = 0;
  if (state->reserved > 0 && state->clock >= Later(state->last_check, rule.pending_timeout)) {
    timed_out = std::exchange(state->reserved, 0);
    Add(rule, timed_out, state->last_check, state);
  }
  Forget(rule, state->clock, state);
  return timed_out;
}

WindowCount CountWithin(const LockoutRule& rule, const LockoutState& state, int64_t window,
                        int32_t threshold) {
  const int64_t length = StepLength(rule);
  WindowCount count{0, 0};
  // From the newest to the oldest: the step that completes the threshold is the one to wait for.
  for (int i = 0; i <= LockoutState::kSteps; ++i) {
    int64_t forgotten = StepForgottenAt(length, window, state.last, i);
    if (state.clock >= forgotten) break;
    count.failures += state.recent[i];
    if (count.until == 0 && count.failures >= threshold) count.until = forgotten;
  }
  return count;
}

LockoutStatus StatusOf(const LockoutRule& rule, const LockoutState& state) {
  LockoutStatus status{};
  int32_t threshold = rule.threshold();
  if (state.failures >= threshold) {
    status.until = rule.mode == CoolOffMode::kRolling ? CountWithin(rule, state, rule.window, threshold).until
                                                      : Later(state.last, CoolOff(rule, state.failures));
    status.locked = state.clock < status.until;
    if (status.locked) return status;
  }
  // Between the locks of a progressive rule there is room for one attempt at a time.
  status.room = std::max(0, std::max(threshold - state.failures, 1) - state.reserved);
  status.until = status.room > 0 ? 0 : Later(state.last_check, rule.pending_timeout);
  return status;
}

void Reserve(LockoutState* state) {
  if (state->reserved++ == 0) state->reserved_since = state->clock;
  state->last_check = state->clock;
}

void Refuse(const LockoutRule& rule, LockoutState* state) {
  if (!rule.extend_on_attempt) return;
  if (rule.mode == CoolOffMode::kRolling) {
    Add(rule, 1, state->clock, state);
  } else {
    MakeStep(StepLength(rule), state->clock, state);
    state->last = std::max(state->last, state->clock);
  }
}

bool Settle(const LockoutRule& rule, std::optional<int64_t> reserved_at, bool success, bool reset,
            LockoutState* state) {
  bool counted = false;
  if (reserved_at && state->reserved > 0 && *reserved_at >= state->reserved_since) {
    --state->reserved;
  } else if (reserved_at) {
    // A younger one cannot have timed out: its reservation was lost, by a reset or to make room.
    counted = state->clock >= Later(*reserved_at, rule.pending_timeout);
  }
  if (StatusOf(rule, *state).locked) {
    if (!success) Refuse(rule, state);
    return false;
  }
  if (success) {
    if (reset) Clear(state);
    return false;
  }
  if (!counted) Add(rule, 1, state->clock, state);
  return !counted && StatusOf(rule, *state).locked;
}

void ImportFailures(const LockoutRule& rule, int32_t failures, int64_t last, LockoutState* state) {
  if (last > state->clock) {
    failures = std::max(failures, state->failures);
    Clear(state);
  }
  if (failures > state->failures) Add(rule, failures - state->failures, last, state);
  Forget(rule, state->clock, state);
}

int64_t ForgottenAt(const LockoutRule& rule, const LockoutState& state) {
  int64_t end = 0;
  if (state.failures > 0)
    end = rule.mode == CoolOffMode::kRolling ? StepForgottenAt(StepLength(rule), rule.window, state.last, 0)
                                             : WindowEnd(rule, state.failures, state.first, state.last);
  if (state.reserved == 0) return end;
  // Attempts in flight may still become failures, dated when they were reserved.
  LockoutState settled = state;
  settled.reserved = 0;
  Add(rule, state.reserved, state.last_check, &settled);
  return std::max({end, ForgottenAt(rule, settled), Later(state.last_check, rule.pending_timeout)});
}

}  // namespace prm
