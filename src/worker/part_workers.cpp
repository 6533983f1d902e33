#include "worker/part_workers.h"

#include "pg/arguments.h"
#include "pg/session_settings.h"
#include "pg/shared_text.h"
#include "pg/wait.h"
#include "pg/worker_role.h"
#include "worker/launch.h"

namespace prm::worker {
namespace {

constexpr int64 kStopTimeoutMs = 5000;

class PartWorkers : public Helpers {
 public:
  explicit PartWorkers(const Work &work) : Helpers(work) {}

  void Stop() override {
    pg::WithoutCancel hold;
    std::vector<Ticket> alive;
    for (const Task &task : tasks_)
      if (std::optional<Ticket> ticket = Ask(task, Request::kStop)) alive.push_back(*ticket);
    tasks_.clear();
    for (Ticket ticket : alive) End(ticket, kStopTimeoutMs);
    settings_.reset();
  }

 protected:
  std::optional<std::string> Problem() override {
    if (auto problem = pg::FindRoleProblem(GetUserId())) return problem->message;
    try {
      RequireSlots();
    } catch (const pg::Failure &failure) {
      return failure.message();
    }
    return std::nullopt;
  }

  int Start(int count, int report_level) override {
    Kind const kind = work_.kind == Work::Kind::kRun ? Kind::kPart : Kind::kVerificationPart;
    try {
      settings_.emplace(pg::SessionSettings());
    } catch (const pg::Failure &failure) {
      pg::Report(report_level, work_.ToString() + " is read by one process: " + failure.message());
      return 0;
    }
    int started = 0;
    while (started < count) {
      Task const task = {kind, MyDatabaseId, GetUserId(), work_.id, ++last_number_};
      LaunchOutcome const outcome = Launch(task, InvalidTransactionId, settings_->handle());
      if (outcome == LaunchOutcome::kDuplicate) continue;  // a member of an earlier leader
      if (outcome != LaunchOutcome::kStarted) {
        LaunchProblem problem = Describe(outcome);
        if (outcome == LaunchOutcome::kNoSlot)
          problem.message = "pg_redis_migrate.max_workers, " + std::to_string(WorkerLimit()) +
                            ", allows no more: two are reserved for other work";
        pg::Report(report_level,
                   work_.ToString() + " is read by " + std::to_string(started + 1) +
                       " processes instead of " + std::to_string(count + 1) + ": " + problem.message,
                   "", problem.hint);
        break;
      }
      tasks_.push_back(task);
      ++started;
    }
    return started;
  }

 private:
  int32 last_number_ = 0;
  std::vector<Task> tasks_;
  std::optional<pg::SharedText> settings_;  // while workers may begin
};

}  // namespace

std::unique_ptr<Helpers> NewPartWorkers(const Work &work) { return std::make_unique<PartWorkers>(work); }

}  // namespace prm::worker
