#include "cutover/barrier.h"

#include "live/live_moment.h"
#include "mapping/catalog.h"
#include "pg/background.h"
#include "pg/wait.h"

namespace prm {

namespace {

constexpr long kLookAgainMs = 2;

}  // namespace

void Barrier::WaitForNow(Masters &masters, int64 until_ms) const { WaitFor(masters.FetchPoints(), until_ms); }

void Barrier::WaitFor(const std::vector<redis::ReplicationPoint> &points, int64 until_ms) const {
  LiveMoment moment(migration_.name, migration_.source, owner_, points);
  while (!moment.IsReached()) {
    if (pg::MonotonicMs() >= until_ms)
      throw pg::Failure(
          ERRCODE_QUERY_CANCELED, "live sync did not apply all changes in time",
          "It must be in step for a moment while writes are held back.",
          "SELECT * FROM redis_migrate.live_sync shows how far it is behind; a longer max_pause "
          "gives it more time.");
    pg::Sleep(kLookAgainMs);
  }
}

std::vector<redis::ReplicationPoint> Barrier::WaitForStandstill(Masters &masters, int64 until_ms) const {
  for (std::vector<redis::ReplicationPoint> before = masters.FetchPoints();;) {
    WaitFor(before, until_ms);
    std::vector<redis::ReplicationPoint> after = masters.FetchPoints();
    if (after == before) return after;
    before = std::move(after);
  }
}

}  // namespace prm
