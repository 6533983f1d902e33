// The scheduler of a database: compares the desired state (tables) with the actual one (slots), starts
// missing workers, and ends when nothing is due soon.
#include "cutover/cutover_record.h"
#include "pg/worker_role.h"
#include "worker/backoff.h"
#include "worker/databases.h"
#include "worker/job.h"
#include "worker/launch.h"
#include "worker/worker_main.h"

namespace prm::worker {
namespace {

using pg::Spi;

constexpr int64 kNapMs = 60 * 1000;
constexpr int64 kLeastNapMs = 200;
constexpr int kLookAtCutoversMs = 1000;
constexpr int kMostCrashes = 5;
constexpr int kMostFailedStarts = 5;
constexpr int64 kMostWaitForRoomMs = 10 * 1000;

std::string SqlState(int code) { return pg::SqlStateText(code); }

class Scheduler {
 public:
  explicit Scheduler(const Slot &slot) : database_(slot.database) {}

  void Run() {
    uint32 failures = 0;
    while (MyRequest() == Request::kNone) {
      CountWakeup();
      uint32 const changes = Changes(database_);
      nap_ms_ = kNapMs;
      due_.reset();
      is_needed_ = false;
      bool changed = false;
      SetState(State::kRunning);
      std::optional<Problem> problem = Try([&] {
        pg::InTransaction([&] { changed = !extension_.exists() || extension_.HasChanged(); });
        if (!changed) Reconcile();
      });
      if (problem && extension_.WentAway()) {
        changed = true;
      } else if (problem) {
        SetError(problem->SqlState().c_str(), problem->message);
        nap_ms_ = BackoffMs(++failures);
        is_needed_ = true;
        Log(WARNING, *problem, "scheduler, tried again in " + std::to_string(nap_ms_ / 1000) + " s");
      } else {
        failures = 0;
        LookedAt(database_);
      }
      if (changed) return Leave(changes);
      if (!is_needed_ && nap_ms_ >= kNapMs && Park(database_, changes, due_)) return;
      SetState(State::kSleeping);
      int64 const looked_ms = pg::MonotonicMs();
      if (Changes(database_) == changes) Try([&] { pg::WaitForLatch(nap_ms_); });
      // Waits a moment, to handle changes that come close together at once.
      for (int64 rest;
           (rest = looked_ms + kLeastNapMs - pg::MonotonicMs()) > 0 && MyRequest() == Request::kNone;)
        Try([&] { pg::WaitForLatch(rest); });
    }
  }

 private:
  // The extension was dropped or updated: workers of the old version end.
  void Leave(uint32 changes) {
    for (const Slot &slot : Slots())
      if (slot.database == database_ && slot.kind != Kind::kScheduler) Ask(slot.task(), Request::kRestart);
    if (Extension now; !now.exists()) Park(database_, changes, std::nullopt);
  }

  void Reconcile() {
    std::vector<Job> jobs;
    std::vector<std::pair<Oid, TimestampTz>> owners;
    std::vector<std::pair<Oid, int64>> feeds;  // of the reverse feeds: owner and number
    std::vector<CutoverRecord::Unfinished> cutovers;
    std::optional<TimestampTz> attempts_due;
    int64 restored = 0;
    pg::InTransaction([&] {
      jobs = WantedJobs();
      if (!told_of_restored_) restored = CountRestored();
      if (HasRoutine("redis_migrate.maintenance_owners()")) owners = MaintenanceOwners();
      feeds = FeedsDue();
      cutovers = CutoverRecord::FindAllUnfinished();
      if (HasRoutine("redis_migrate.attempts_due()") && HasRoutine("redis_migrate.write_login_attempts()")) {
        auto rows = Spi::Execute("SELECT redis_migrate.attempts_due()");
        if (!rows[0].IsNull(0)) attempts_due = DatumGetTimestampTz(rows[0].Value(0));
      }
    });
    if (restored > 0) {
      told_of_restored_ = true;
      Log(WARNING,
          {ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
           std::to_string(restored) + " restored definitions wait for CALL redis_migrate.resume_restored()"},
          "scheduler", "Call it once the restore has ended.");
    }
    due_tasks_.clear();
    for (const Job &job : jobs) ReconcileJob(job);
    for (const auto &[owner, feed] : feeds) Repeat({Kind::kReverse, database_, owner, feed}, 0);
    // Who cuts over may be killed without a word.
    for (const CutoverRecord::Unfinished &cutover : cutovers) {
      Task const task = {Kind::kCutover, database_, cutover.owner, cutover.id};
      bool const is_for_later = cutover.is_under_way && !FindSlot(task);
      Repeat(task, is_for_later ? TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kLookAtCutoversMs) : 0);
    }
    for (const auto &[owner, due] : owners) Repeat({Kind::kSweeper, database_, owner}, due);
    if (attempts_due) Repeat({Kind::kAttempts, database_, extension_.owner()}, *attempts_due);
    for (auto it = tries_.begin(); it != tries_.end();)
      it = due_tasks_.count(it->first) > 0 ? std::next(it) : tries_.erase(it);
    for (const Slot &slot : Slots())
      if (slot.database == database_ && slot.kind != Kind::kScheduler) is_needed_ = true;
  }

  static std::vector<std::pair<Oid, TimestampTz>> MaintenanceOwners() {
    std::vector<std::pair<Oid, TimestampTz>> owners;
    auto rows =
        Spi::Execute("SELECT owner::pg_catalog.oid, next_run FROM redis_migrate.maintenance_owners()");
    for (uint64 i = 0; i < rows.size(); ++i)
      if (!rows[i].IsNull(1))
        owners.emplace_back(DatumGetObjectId(rows[i].Value(0)), DatumGetTimestampTz(rows[i].Value(1)));
    return owners;
  }

  static std::vector<std::pair<Oid, int64>> FeedsDue() {
    std::vector<std::pair<Oid, int64>> feeds;
    auto rows = Spi::Execute("SELECT owner, feed_id FROM redis_migrate.reverse_feeds_due()");
    for (uint64 i = 0; i < rows.size(); ++i)
      feeds.emplace_back(DatumGetObjectId(rows[i].Value(0)), rows[i].Int8(1));
    return feeds;
  }

  void NapUntil(int64 wait_ms) { nap_ms_ = std::min(nap_ms_, std::max(wait_ms, int64{1})); }

  void ReconcileJob(const Job &job) {
    Task const task = {Kind::kMigration, database_, job.owner, job.id};
    is_needed_ = true;
    if (FindSlot(task)) {
      // Its owner was dropped while it worked: it ends, and the job fails.
      if (job.owner_problem) Ask(task, Request::kRestart);
      return;
    }
    if (job.marked) return AccountFor(job.id);
    if (job.wait_ms > 0) return NapUntil(job.wait_ms);
    std::optional<pg::RoleProblem> unable;
    bool wanted = false;
    pg::InTransaction([&] {
      unable = job.owner_problem ? pg::RoleProblem{SqlState(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
                                                   *job.owner_problem, ""}
                                 : pg::FindRoleProblem(job.owner);
      if (unable)
        Conclude(job.id, "failed", false, unable->sqlstate, unable->message, unable->hint);
      else
        wanted = MarkLaunch(job.id);
    });
    std::string const what = "background run of migration \"" + job.migration + "\"";
    if (unable)
      return Log(WARNING, {pg::SqlStateCode(unable->sqlstate), unable->message}, what + " failed",
                 unable->hint);
    if (!wanted) return;
    LaunchOutcome const outcome = Launch(task);
    if (outcome == LaunchOutcome::kStarted || outcome == LaunchOutcome::kDuplicate) return;
    LaunchProblem const problem = Describe(outcome);
    int64 const wait_ms = std::min(BackoffMs(job.failures + 1), kMostWaitForRoomMs);
    pg::InTransaction([&] {
      ConcludeForNow(job.id, "waiting for worker", job.crashes, job.failures + 1, wait_ms,
                     SqlState(ERRCODE_INSUFFICIENT_RESOURCES), problem.message, problem.hint);
    });
    NapUntil(wait_ms);
    if (job.state != "waiting for worker")
      Log(WARNING, {ERRCODE_INSUFFICIENT_RESOURCES, problem.message}, what + " waits for a worker",
          problem.hint);
  }

  // A worker commits its record before it releases its slot. So if a job is still marked although its slot is
  // free, its worker died.
  void AccountFor(int64 id) {
    std::vector<Job> jobs;
    pg::InTransaction([&] { jobs = WantedJobs(); });
    for (const Job &job : jobs)
      if (job.id == id && job.marked) return Account(job);
  }

  // A worker was launched and has died.
  void Account(const Job &job) {
    bool const healthy = job.healthy_ms > kHealthyMs;
    bool const in_this_life = job.incarnation == Incarnation();
    int crashes = job.crashes, failures = healthy ? 0 : job.failures;
    int64 wait_ms = 0;
    bool never_begins = false;
    Problem problem;
    if (in_this_life) {
      wait_ms = std::min(BackoffMs(++failures), job.live ? kMostLiveBackoffMs : kMostBackoffMs);
      problem = {ERRCODE_ADMIN_SHUTDOWN, "the worker was terminated; the server's log may say why"};
      // It has never taken up its job, so it cannot connect, for a reason that the catalogs do not show. A
      // live run waits until that has passed, as it does for a disk that is full, whatever it has waited for
      // before.
      bool const cannot_begin = job.state != "running" && failures >= kMostFailedStarts;
      never_begins = !job.live && cannot_begin;
      if (cannot_begin)
        problem.message =
            "no worker could start in " + std::to_string(failures) + " tries; the server's log says why";
    } else if (AfterCrash()) {
      crashes = (healthy ? 0 : crashes) + 1;
      wait_ms = BackoffMs(crashes);
      problem = {ERRCODE_CRASH_SHUTDOWN, "the server crashed while the migration was running"};
    }
    bool const is_last = never_begins || crashes >= kMostCrashes;
    if (crashes >= kMostCrashes)
      problem.message = "failed after " + std::to_string(crashes) + " crashes of the server";
    pg::InTransaction([&] {
      ConcludeForNow(job.id, is_last ? "failed" : "retrying", crashes, failures, wait_ms, problem.SqlState(),
                     problem.message);
      if (is_last) Conclude(job.id, "failed", false, problem.SqlState(), problem.message);
    });
    if (!problem.message.empty())
      Log(WARNING, problem, "background run of migration \"" + job.migration + "\"");
    NapUntil(wait_ms);
  }

  // Launches a worker that calls a procedure when something is due and ends when nothing is due soon.
  void Repeat(const Task &task, TimestampTz due) {
    int64 const wait_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), due);
    bool const alive = FindSlot(task).has_value();
    if (wait_ms > 0) {
      if (!due_ || due < *due_) due_ = due;
      if (!alive) NapUntil(wait_ms);
      return;
    }
    is_needed_ = true;
    TaskId const id = {task.kind, task.owner, task.job};
    due_tasks_.insert(id);
    if (alive) return Nudge(task);
    Tries &tries = tries_[id];
    int64 const now_ms = pg::MonotonicMs();
    if (now_ms < tries.not_before_ms) return NapUntil(tries.not_before_ms - now_ms);
    int64 const backoff = BackoffMs(++tries.count);
    tries.not_before_ms = now_ms + backoff;
    NapUntil(backoff);
    if (RecordRoleProblem(task)) return;
    LaunchOutcome const outcome = Launch(task);
    if (outcome == LaunchOutcome::kStarted || outcome == LaunchOutcome::kDuplicate) return;
    LaunchProblem const problem = Describe(outcome);
    if (tries.count == 1)
      Log(WARNING, {ERRCODE_INSUFFICIENT_RESOURCES, problem.message},
          std::string("the ") + kKindNames[static_cast<int>(task.kind)] + " of a role waits", problem.hint);
    SetError(SqlState(ERRCODE_INSUFFICIENT_RESOURCES).c_str(), problem.message);
  }

  // Whether no worker can work as the owner of a task. Due jobs and feeds are then recorded as failed and
  // retried later.
  bool RecordRoleProblem(const Task &task) {
    std::optional<pg::RoleProblem> problem;
    pg::InTransaction([&] {
      problem = pg::FindRoleProblem(task.owner);
      if (problem && task.kind == Kind::kSweeper)
        Spi::Execute("SELECT redis_migrate.fail_maintenance($1, $2, $3)",
                     {pg::SqlParam::OidOf(task.owner), pg::SqlParam::Text(problem->sqlstate),
                      pg::SqlParam::Text(problem->message)});
      if (problem && task.kind == Kind::kReverse)
        Spi::Execute(
            R"sql(UPDATE redis_migrate.reverse_feed
                  SET state = 'failed', sqlstate = $2, message = $3, since = clock_timestamp()
                  WHERE feed_id = $1)sql",
            {pg::SqlParam::Int8(task.job), pg::SqlParam::Text(problem->sqlstate),
             pg::SqlParam::Text(problem->message)});
    });
    if (!problem) return false;
    SetError(problem->sqlstate.c_str(), problem->message);
    Log(WARNING, {pg::SqlStateCode(problem->sqlstate), problem->message},
        std::string("the ") + kKindNames[static_cast<int>(task.kind)] + " of a role cannot be started",
        problem->hint);
    return true;
  }

  using TaskId = std::tuple<Kind, Oid, int64>;  // kind, owner and job
  struct Tries {
    uint32 count = 0;
    int64 not_before_ms = 0;
  };

  Oid const database_;
  Extension extension_;
  int64 nap_ms_ = 0;
  std::optional<TimestampTz> due_;  // the earliest time in the future at which something is due
  bool told_of_restored_ = false;
  bool is_needed_ = false;  // something runs or is to be run
  std::set<TaskId> due_tasks_;
  std::map<TaskId, Tries> tries_;  // of what is due: a feed that is stopped and started begins anew
};

}  // namespace

void RunScheduler(const Slot &slot) { Scheduler(slot).Run(); }

}  // namespace prm::worker
