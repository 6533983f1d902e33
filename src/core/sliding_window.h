// The sliding-window counter: two fixed windows. The previous one counts by the share of it that a window
// ending now would cover. Described by Cloudflare in "How we built rate limiting capable of scaling to
// millions of domains" (2017).
#pragma once

#include "core/rate_limit.h"

namespace prm::sliding_window {

RateDecision Decide(const RateLimit& limit, RateState* state, int64_t now, int64_t cost);
bool Refund(const RateLimit& limit, RateState* state, int64_t now, int64_t cost);

}  // namespace prm::sliding_window
