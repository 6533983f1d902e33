// The arithmetic of rate limits: limits, the state per key, and the answer to a request. All times are
// nanoseconds since 1970, all durations nanoseconds; nothing here reads a clock.
#pragma once

#include <cstdint>

#include "core/status.h"

namespace prm {

enum class RateAlgorithm : uint8_t { kGcra, kFixedWindow, kFixedWindowFirstHit, kSlidingWindow };

// quota per period; GCRA: quota / period is the rate, burst the number that may pass at once.
struct RateLimit {
  RateAlgorithm algorithm = RateAlgorithm::kGcra;
  int64_t quota = 0;
  int64_t period = 0;
  int64_t burst = 0;     // GCRA only; the windows have quota
  int64_t interval = 0;  // GCRA: period / quota, rounded down to whole nanoseconds

  // The most that one request may cost, and what an unused key has remaining.
  int64_t most() const { return algorithm == RateAlgorithm::kGcra ? burst : quota; }
};

// All zero for a new key.
struct RateState {
  int64_t time = 0;   // GCRA: the theoretical arrival time; the windows: the end of the current window
  int64_t count = 0;  // the windows: cost admitted in the current window
  int64_t previous =
      0;  // sliding window: cost admitted in the one before; fixed windows: the window's length
};

struct RateDecision {
  bool allowed = false;
  bool never = false;  // the cost is above most(): waiting does not help
  bool store = false;  // the state has changed: an admission, or a clamp
  int64_t remaining = 0;
  int64_t retry = 0;  // when refused and not never: the first moment at which this request would pass
  int64_t reset = 0;  // until all of it remains again, if nothing more is asked for
};

constexpr int64_t kLongestDrain = int64_t{1} << 61;  // 73 years: sums with it fit until the year 2100

// Checks the numbers and completes a limit. Burst 0 means the default, quota. Errors: kInvalidArgument for
// numbers below 1, a rate above one per nanosecond, a period or a burst that takes more than 73 years to be
// restored.
Result<RateLimit> MakeRateLimit(RateAlgorithm algorithm, int64_t quota, int64_t period, int64_t burst);

// Decides on a request at `now` of cost `cost` (0: charges nothing, always allowed; never negative) and
// updates the state. Store the state only if decision.store is set. A refusal stores nothing, unless the
// state had to be clamped because no history under this limit explains it (the limit was changed, or the
// clock ran ahead and was set back).
RateDecision Decide(const RateLimit& limit, RateState* state, int64_t now, int64_t cost);

// Refunds `cost`, at most until the whole limit remains. Returns whether the state has changed.
bool Refund(const RateLimit& limit, RateState* state, int64_t now, int64_t cost);

// When a state expires and the key may be forgotten.
int64_t ForgetAt(const RateLimit& limit, const RateState& state);

}  // namespace prm
