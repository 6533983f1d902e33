// A worker that reads parts of a run beside the leader. However it ends, the leader sees which parts are
// left.
#include "worker/worker_main.h"

namespace prm::worker {

void RunPartWorker(const Slot &slot) { CallForRun(slot, "join_run", "part"); }

}  // namespace prm::worker
