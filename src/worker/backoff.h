// The wait after failures in a row.
#pragma once

#include "pg/pg.h"

namespace prm::worker {

constexpr int64 kLeastBackoffMs = 1000;
constexpr int64 kMostBackoffMs = 5 * 60 * 1000;
constexpr int64 kMostLiveBackoffMs = 30 * 1000;  // of a live run: meanwhile its tables fall behind

// A worker that ran this long was healthy: earlier failures no longer count.
constexpr int64 kHealthyMs = 10 * 60 * 1000;

// 1 s, 2 s, 4 s … 5 min for the 1st, 2nd, 3rd … failure in a row.
constexpr int64 BackoffMs(uint32 failures) {
  if (failures == 0) return 0;
  return failures > 9 ? kMostBackoffMs : std::min(kLeastBackoffMs << (failures - 1), kMostBackoffMs);
}

}  // namespace prm::worker
