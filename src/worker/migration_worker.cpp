// The worker of a background run: CALLs redis_migrate.run as the owner of the migration, until it has
// completed, failed for good or is stopped.
#include "connect/outage.h"
#include "pg/wait.h"
#include "worker/backoff.h"
#include "worker/history.h"
#include "worker/instance.h"
#include "worker/job.h"
#include "worker/worker_main.h"

namespace prm::worker {
namespace {

std::string CallOf(const Job &job) {
  auto literal = [](const std::optional<std::string> &text) {
    return text ? pg::QuoteLiteral(*text) : std::string("NULL");
  };
  if (job.live)
    return "CALL redis_migrate.follow(migration => " + pg::QuoteLiteral(job.migration) + ", force => " +
           (job.force ? "true" : "false") + ")";
  return "CALL redis_migrate.run(migration => " + pg::QuoteLiteral(job.migration) + ", priority => " +
         literal(job.priority) + ", mapping => " + literal(job.mapping) + ", on_error => " +
         pg::QuoteLiteral(job.on_error) + ", prune => " + (job.prune ? "true" : "false") + ", force => " +
         (job.force ? "true" : "false") + ", workers => " +
         (job.workers ? std::to_string(*job.workers) : "NULL") + ")";
}

void WaitForTransaction(TransactionId starter) {
  SetState(State::kWaiting);
  pg::Call([&] {
    StartTransactionCommand();
    XactLockTableWait(starter, nullptr, nullptr, XLTW_None);
    CommitTransactionCommand();
  });
}

class MigrationWorker {
 public:
  explicit MigrationWorker(const Slot &slot) : slot_(slot) {}

  void Run() {
    if (!extension_.exists()) return;
    for (bool first = true; MyRequest() == Request::kNone; first = false) {
      started_at_ = GetCurrentTimestamp();
      int64 const began = pg::MonotonicMs();
      hint_.clear();
      std::optional<Problem> problem = Try([&] {
        if (first && TransactionIdIsValid(slot_.starter)) WaitForTransaction(slot_.starter);
        pg::InTransaction([&] { job_ = TakeUp(slot_.job); });
        if (job_ && job_->live && !BelongsHere()) return Pause();
        if (job_) Execute();
      });
      if (!problem || MyRequest() != Request::kNone) {
        if (!problem && job_) Complete();
        break;
      }
      if (pg::MonotonicMs() - began > kHealthyMs) failures_ = 0;
      if (!Retry(*problem)) return;
    }
    if (MyRequest() == Request::kStop) Stop();
    if (MyRequest() == Request::kRestart) Release();
  }

 private:
  void Execute() {
    SetState(State::kRunning);
    CountWakeup();
    CountRun();
    try {
      pg::RunCommand(CallOf(*job_));
    } catch (const pg::PgError &error) {
      if (error.data()->hint != nullptr) hint_ = error.data()->hint;
      throw;
    }
  }

  bool BelongsHere() {
    bool belongs = false;
    pg::InTransaction([&] { belongs = IsOfThisInstance(*job_); });
    return belongs;
  }

  // Until redis_migrate.confirm_instance.
  void Pause() {
    Problem const problem = {ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                             "it was started on another server, of which this one is a copy, or before this "
                             "one was restored or promoted"};
    Log(WARNING, problem, "live run of migration \"" + job_->migration + "\" is paused",
        "If it is to go on here, and nowhere else: SELECT redis_migrate.confirm_instance(" +
            pg::QuoteLiteral(job_->migration) + ").");
    pg::WithoutCancel hold;
    pg::InTransaction(
        [&] { worker::Conclude(slot_.job, "paused", false, problem.SqlState(), problem.message); });
    job_.reset();
  }

  void Complete() {
    pg::WithoutCancel hold;
    pg::InTransaction([&] {
      worker::Conclude(slot_.job, "completed", false);
      NoteMigrationRun(*job_, started_at_, "completed", {});
    });
    job_.reset();
  }

  void Stop() {
    // Until the worker takes over, the row may be locked by the transaction of start, which may also call
    // stop.
    if (!job_) return;
    pg::WithoutCancel hold;
    SetState(State::kEnding);
    pg::InTransaction([&] {
      if (extension_.HasChanged()) return;
      worker::Conclude(slot_.job, "stopped", false);
      MarkRunStopped(job_->migration);
      NoteMigrationRun(*job_, started_at_, "stopped", {});
    });
  }

  // Still wanted: the process that asked for the end launches another worker.
  void Release() {
    pg::WithoutCancel hold;
    pg::InTransaction([&] {
      if (job_) ConcludeForNow(slot_.job, "starting", job_->crashes, 0, 0, "", "");
    });
  }

  std::optional<std::string> OwnerProblem() {
    std::optional<Job> job;
    pg::WithoutCancel hold;
    pg::InTransaction([&] { job = FindJob(job_->migration); });
    return job ? job->owner_problem : std::nullopt;
  }

  // Records an error. Returns, after a wait, whether to try again.
  bool Retry(Problem problem) {
    bool changed = false;
    {
      pg::WithoutCancel hold;
      pg::InTransaction([&] { changed = extension_.HasChanged(); });
    }
    if (changed) {
      Release();
      return false;
    }
    if (!job_) throw pg::Failure(ERRCODE_INTERNAL_ERROR, problem.message);
    std::string const what = "background run of migration \"" + job_->migration + "\"";
    // By itself, or, of a refusal, by what somebody changes.
    bool may_pass = problem.retryable() || (job_->live && IsRefusal(problem.sqlstate));
    // A role that was dropped is given nothing back. What it met as its rights went says nothing of that.
    if (auto gone = problem.retryable() ? std::nullopt : OwnerProblem()) {
      problem = {ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, *gone};
      may_pass = false;
      hint_.clear();
    }
    SetError(problem.SqlState().c_str(), problem.message);
    if (!may_pass) {
      Log(WARNING, problem, what + " failed",
          hint_.empty() ? "redis_migrate.start resumes it once the cause is fixed." : hint_);
      pg::WithoutCancel hold;
      pg::InTransaction([&] {
        worker::Conclude(slot_.job, "failed", false, problem.SqlState(), problem.message, hint_);
        NoteMigrationRun(*job_, started_at_, "failed", problem);
      });
      return false;
    }
    int64 const wait_ms = std::min(BackoffMs(++failures_), job_->live ? kMostLiveBackoffMs : kMostBackoffMs);
    Log(WARNING, problem, what + " is tried again in " + std::to_string(wait_ms / 1000) + " s");
    NoteRetry(problem, wait_ms);
    SetState(State::kRetrying);
    int64 const end = pg::MonotonicMs() + wait_ms;
    std::optional<Problem> interrupted = Try([&] {
      for (int64 rest; MyRequest() == Request::kNone && (rest = end - pg::MonotonicMs()) > 0;)
        pg::WaitForLatch(rest);
    });
    return true;
  }

  void NoteRetry(const Problem &problem, int64 wait_ms) {
    pg::WithoutCancel hold;
    pg::InTransaction([&] {
      ConcludeForNow(slot_.job, "retrying", job_->crashes, static_cast<int>(failures_), wait_ms,
                     problem.SqlState(), problem.message, hint_);
      NoteMigrationRun(*job_, started_at_, "retrying", problem);
    });
  }

  Slot const slot_;
  Extension extension_;
  std::optional<Job> job_;
  TimestampTz started_at_ = 0;
  uint32 failures_ = 0;
  std::string hint_;  // of the error that ended the command
};

}  // namespace

void RunMigrationWorker(const Slot &slot) {
  std::optional<Problem> problem = Try([&] { MigrationWorker(slot).Run(); });
  if (!problem) return;
  // Without the extension's tables there is nowhere to record the error.
  if (!Extension().exists())
    return pg::Report(LOG, "background worker ends: extension pg_redis_migrate was dropped");
  throw pg::Failure(ERRCODE_INTERNAL_ERROR, "background run: " + problem->message,
                    "SQLSTATE " + problem->SqlState() + ".");
}

}  // namespace prm::worker
