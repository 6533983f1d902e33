// The generic cell rate algorithm: a token bucket whose only state is the time at which it will be full again
// (the theoretical arrival time of a cell that comes exactly at the rate). ITU-T I.371, "virtual scheduling";
// seen from the other side it is a leaky bucket.
#pragma once

#include "core/rate_limit.h"

namespace prm::gcra {

RateDecision Decide(const RateLimit& limit, RateState* state, int64_t now, int64_t cost);
bool Refund(const RateLimit& limit, RateState* state, int64_t now, int64_t cost);

}  // namespace prm::gcra
