// Limits as text: "10/s", "100 per 15 minutes", "1 per 3 hour; 1 per second".
#pragma once

#include <string_view>
#include <vector>

#include "core/status.h"

namespace prm {

struct RateText {
  int64_t quota;
  int64_t period;  // nanoseconds
  bool operator==(const RateText& other) const { return quota == other.quota && period == other.period; }
};

// The grammar: items separated by ";" or ","; an item is a number, "/" or "per", an optional number, and a
// unit (ms, s, sec, second, m, min, minute, h, hour, d, day, week, month, year; plural or not, any case),
// with or without spaces. A month has 30 days, a year 12 months. Each number is at least 1. Errors:
// kInvalidArgument naming the item.
Result<std::vector<RateText>> ParseRates(std::string_view text);

}  // namespace prm
