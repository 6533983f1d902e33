// Fixed windows: a count that restarts with each window. The windows either lie on multiples of their length
// since 1970, for all keys alike, or begin with a key's first request.
#pragma once

#include "core/rate_limit.h"

namespace prm::fixed_window {

RateDecision Decide(const RateLimit& limit, RateState* state, int64_t now, int64_t cost);
bool Refund(const RateLimit& limit, RateState* state, int64_t now, int64_t cost);

}  // namespace prm::fixed_window
