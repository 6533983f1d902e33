// A worker that reads parts of a run beside the leader. However it ends, the leader sees which parts are
// left.
#include "worker/worker_main.h"

namespace prm::worker {

void RunPartWorker(const Slot &slot) {
  std::string const run_id = std::to_string(slot.job);
  std::optional<Problem> problem = Try([&] {
    if (MyRequest() != Request::kNone || !Extension().exists()) return;
    SetState(State::kRunning);
    CountWakeup();
    CountRun();
    pg::RunCommand("CALL redis_migrate.join_run(" + run_id + ")");
  });
  if (problem && MyRequest() == Request::kNone) Log(WARNING, *problem, "part of run " + run_id);
}

}  // namespace prm::worker
