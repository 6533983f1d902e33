// The worker of the replication link of a live run. It ends by itself when the background run has no worker
// any more; however it ends, the worker of the run starts another one.
#include "worker/link_worker.h"

#include "pg/arguments.h"
#include "pg/wait.h"
#include "worker/job.h"
#include "worker/launch.h"
#include "worker/worker_main.h"

namespace prm::worker {
namespace {

constexpr int64 kStopTimeoutMs = 5000;

Task TaskOf(int64 run_id, int link) { return {Kind::kLink, MyDatabaseId, GetUserId(), run_id, link}; }

class Links : public LinkWorkers {
 public:
  bool Exists(int64 run_id, int link) override { return FindSlot(TaskOf(run_id, link)).has_value(); }

  std::optional<std::string> Start(int64 run_id, int link) override {
    LaunchOutcome const outcome = Launch(TaskOf(run_id, link));
    if (outcome == LaunchOutcome::kStarted || outcome == LaunchOutcome::kDuplicate) return std::nullopt;
    return Describe(outcome).message;
  }

  void Stop(int64 run_id, int link) override {
    pg::WithoutCancel hold;
    if (std::optional<Ticket> ticket = Ask(TaskOf(run_id, link), Request::kStop))
      End(*ticket, kStopTimeoutMs);
  }

  bool IsWanted(const std::string &migration) override {
    std::optional<Job> const job = FindJob(migration);
    return job && job->live && FindSlot({Kind::kMigration, MyDatabaseId, job->owner, job->id});
  }
};

}  // namespace

std::unique_ptr<LinkWorkers> NewLinkWorkers() { return std::make_unique<Links>(); }

void RunLinkWorker(const Slot &slot) {
  CallForRun(slot, "receive_stream", "replication link", std::to_string(slot.number));
}

}  // namespace prm::worker
