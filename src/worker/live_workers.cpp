// The workers of a live run beside the migration worker. They end by themselves when the background run has
// no worker any more; however they end, the worker of the run starts others.
#include "worker/live_workers.h"

#include "pg/arguments.h"
#include "pg/wait.h"
#include "worker/job.h"
#include "worker/launch.h"
#include "worker/worker_main.h"

namespace prm::worker {
namespace {

constexpr int64 kStopTimeoutMs = 5000;

class WorkersOfKind : public LiveWorkers {
 public:
  explicit WorkersOfKind(Kind kind) : kind_(kind) {}

  bool Exists(int64 run_id, int number) override { return FindSlot(TaskOf(run_id, number)).has_value(); }

  std::optional<std::string> Start(int64 run_id, int number) override {
    LaunchOutcome const outcome = Launch(TaskOf(run_id, number));
    if (outcome == LaunchOutcome::kStarted || outcome == LaunchOutcome::kDuplicate) return std::nullopt;
    return Describe(outcome).message;
  }

  void Stop(int64 run_id, int number) override {
    pg::WithoutCancel hold;
    if (std::optional<Ticket> ticket = Ask(TaskOf(run_id, number), Request::kStop))
      End(*ticket, kStopTimeoutMs);
  }

  void StopAll(int64 run_id) override {
    pg::WithoutCancel hold;
    std::vector<Ticket> alive;
    for (const Slot &slot : Slots()) {
      if (!(slot.task() == TaskOf(run_id, slot.number))) continue;
      if (std::optional<Ticket> ticket = Ask(slot.task(), Request::kStop)) alive.push_back(*ticket);
    }
    for (Ticket ticket : alive) End(ticket, kStopTimeoutMs);
  }

  bool IsWanted(const std::string &migration) override {
    std::optional<Job> const job = FindJob(migration);
    return job && job->live && FindSlot({Kind::kMigration, MyDatabaseId, job->owner, job->id});
  }

 private:
  Task TaskOf(int64 run_id, int number) const { return {kind_, MyDatabaseId, GetUserId(), run_id, number}; }

  Kind kind_;
};

}  // namespace

std::unique_ptr<LiveWorkers> NewLinkWorkers() { return std::make_unique<WorkersOfKind>(Kind::kLink); }
std::unique_ptr<LiveWorkers> NewApplierWorkers() { return std::make_unique<WorkersOfKind>(Kind::kApplier); }

void RunLinkWorker(const Slot &slot) {
  CallForJob(slot, "receive_stream", "replication link of run", std::to_string(slot.number));
}

void RunApplierWorker(const Slot &slot) {
  CallForJob(slot, "apply_stream", "applier " + std::to_string(slot.number) + " of run",
             std::to_string(slot.number));
}

}  // namespace prm::worker
