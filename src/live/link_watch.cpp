#include "live/link_watch.h"

#include "connect/outage.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/memory.h"
#include "pg/spi.h"

namespace prm {

std::unique_ptr<LiveWorkers> (*new_link_workers)() = nullptr;

namespace {

constexpr int64 kLookEveryMs = 100;
constexpr int64 kStartEveryMs = 2000;

}  // namespace

void LinkWatch::Look() {
  int64 const now = pg::MonotonicMs();
  if (now - looked_ms_ < kLookEveryMs) return;
  looked_ms_ = now;
  pg::ReloadIfAsked();
  pg::Context context("redis_migrate link watch");  // the procedure's own is never reset
  pg::SwitchContext in_context(context.get());
  if (std::optional<LinkStatus> status = record_.ReadLink()) status_ = std::move(*status);
  if (!left_at_) left_at_ = status_.noted_at;
  pg::Spi::Commit();
  if (beside_) beside_();
  if (status_.state == "full sync needed") throw FullSyncNeeded{status_.message};
  if (!record_.share().is_first() || workers_->Exists(record_.run_id(), record_.link())) return;
  // A link that has ended with an error for good says so; whoever starts the run again starts it again.
  bool const has_failed =
      status_.sqlstate && !MayComeBack(*status_.sqlstate) && !IsRefusal(*status_.sqlstate);
  if (started_ms_ != 0 && has_failed)
    throw pg::Failure(*status_.sqlstate, status_.message, "The replication link ended with this error.");
  if (started_ms_ != 0 && now - started_ms_ < kStartEveryMs) return;
  started_ms_ = now;
  std::optional<std::string> const problem = workers_->Start(record_.run_id(), record_.link());
  pg::Spi::Commit();
  if (problem && !std::exchange(told_, true))
    pg::Report(WARNING, "the replication link of run " + std::to_string(record_.run_id()) +
                            " waits for a worker: " + *problem);
}

}  // namespace prm
