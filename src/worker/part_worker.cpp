// A worker that reads parts of a run, or of a verification, beside the leader. However it ends, the leader
// sees which parts are left.
#include "worker/worker_main.h"

namespace prm::worker {

void RunPartWorker(const Slot &slot) { CallForJob(slot, "join_run", "part of run"); }

void RunVerificationPartWorker(const Slot &slot) {
  CallForJob(slot, "join_verification", "part of verification");
}

}  // namespace prm::worker
