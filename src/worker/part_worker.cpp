// A worker that reads parts of a run beside the one that leads it. Whatever ends it, the leader sees what is
// left.
#include "worker/worker_main.h"

namespace prm::worker {

void RunPartWorker(const Slot &slot) {
  if (!Extension().exists()) return;
  SetState(State::kRunning);
  CountWakeup();
  CountRun();
  std::optional<Problem> problem =
      Try([&] { pg::RunCommand("CALL redis_migrate.join_run(" + std::to_string(slot.job) + ")"); });
  if (problem && MyRequest() == Request::kNone)
    Log(WARNING, *problem, "part of run " + std::to_string(slot.job));
}

}  // namespace prm::worker
