// The procedures that sweep and refresh: one table on demand, or everything that is due.
#include <deque>

#include "expiry/predicate.h"
#include "expiry/refresh.h"
#include "expiry/sweep.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/transaction.h"
#include "pg/wait.h"

namespace prm::expiry {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

// How long one table has its turn while others wait.
constexpr int64 kSliceMs = 1000;
// When a paused or blocked job is looked at again.
constexpr int64 kRetryMs = 10000;
constexpr int kMostBlocked = 20;

const char *OrderText(Order order) {
  return order == Order::kPages   ? ", by ranges of pages"
         : order == Order::kIndex ? ", in the order of expiry"
                                  : "";
}

// Counts the expired rows of a table whose condition fails for some of them: pages are halved until the rows
// of one can be looked at one by one.
class DividedCount {
 public:
  DividedCount(const Statements &statements, const Cutoff &cutoff)
      : statements_(statements), cutoff_(cutoff) {
    ChoosePlan(settings_, Order::kPages);
  }

  int64 Pages(int64 begin, int64 end) {
    int64 count = 0;
    try {
      pg::InSubtransaction([&] {
        count =
            Spi::Execute(statements_.CountInPages(), {cutoff_.param(), TidOf(begin), TidOf(end)})[0].Int8(0);
      });
      return count;
    } catch (const pg::PgError &error) {
      if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
      last_ = {error.sqlstate(), error.what()};
    }
    if (end - begin == 1) return Rows(begin);
    int64 const middle = begin + (end - begin) / 2;
    count = Pages(begin, middle);
    return count + Pages(middle, end);
  }

  int64 failed() const { return failed_; }
  const pg::Problem &last() const { return last_; }

 private:
  int64 Rows(int64 page) {
    auto const rows = Spi::Execute(
        statements_.ByTime().FindInPages(),
        {cutoff_.param(), TidOf(page), TidOf(page + 1), SqlParam::TidArray({}), SqlParam::Int4(kMostRows)});
    int64 count = 0;
    for (uint64 i = 0; i < rows.size(); ++i) {
      try {
        pg::InSubtransaction([&] {
          ItemPointerData const tid = *reinterpret_cast<ItemPointer>(DatumGetPointer(rows[i].Value(0)));
          count += static_cast<int64>(
              Spi::Execute(statements_.FindNamed(), {cutoff_.param(), SqlParam::TidArray({tid})}).size());
        });
      } catch (const pg::PgError &error) {
        if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer || ++failed_ > StuckRows::kMost) throw;
        last_ = {error.sqlstate(), error.what()};
      }
    }
    return count;
  }

  pg::LocalSettings settings_;
  const Statements &statements_;
  const Cutoff &cutoff_;
  int64 failed_ = 0;
  pg::Problem last_;
};

// (all, expired) of one table.
std::pair<int64, int64> CountRows(const std::string &table, Oid oid, const Statements &statements,
                                  const Cutoff &cutoff) {
  std::pair<int64, int64> counts;
  auto count = [&](const std::string &statement) {
    auto rows = Spi::Execute(statement, {cutoff.param()});
    counts = {rows[0].Int8(0), rows[0].Int8(1)};
  };
  try {
    pg::InSubtransaction([&] { count(statements.Count()); });
    return counts;
  } catch (const pg::PgError &error) {
    if (!statements.has_condition() || pg::FaultOf(error.sqlstate()) == pg::Fault::kServer ||
        FailureOfCondition({}, statements, cutoff) != 0)
      throw;
  }
  count(statements.ByTime().Count());
  DividedCount divided(statements, cutoff);
  counts.second = divided.Pages(0, std::max<int64>(Pages(oid), 1));
  if (divided.failed() > 0)
    pg::Report(NOTICE,
               "the condition fails for " + std::to_string(divided.failed()) + " rows of " + table +
                   ", which would stay",
               "The last: " + divided.last().SqlState() + ": " + divided.last().message + ".");
  return counts;
}

// (before, expired) over all tables of a policy, in one snapshot each unless the condition fails for some
// rows.
std::pair<int64, int64> CountRows(int64 job_id) {
  Policy policy;
  State state;
  LoadPolicy(job_id, false, policy, state);
  PolicySettings settings(policy);
  Target const target = ResolveTarget(policy);
  CheckCode(policy, target.kind);
  Cutoff const cutoff(policy, target.kind, GetCurrentTimestamp());
  std::pair<int64, int64> counts;
  for (const auto &leaf : FindLeaves(target.relation).tables) {
    auto const [before, expired] =
        CountRows(leaf.first, leaf.second, Statements(policy, target.kind, leaf.first), cutoff);
    counts.first += before;
    counts.second += expired;
  }
  return counts;
}

// In a session: waits until a pause ends, with a NOTICE, and gives up on a lock after a while.
void SweepToTheEnd(Sweep &sweep) {
  std::string told;
  int blocked = 0;
  int64 rows = 0;
  for (;;) {
    switch (sweep.Next()) {
      case Step::kMore:
        if (std::exchange(rows, sweep.run().rows) != sweep.run().rows) blocked = 0;
        break;
      case Step::kDone:
        return;
      case Step::kPaused:
        if (told != sweep.pause_reason())
          pg::Report(NOTICE, "sweep of " + sweep.name() + " is waiting: " + sweep.pause_reason());
        told = sweep.pause_reason();
        pg::Sleep(1000);
        break;
      case Step::kBlocked:
        if (++blocked == kMostBlocked)
          throw Failure(ERRCODE_LOCK_NOT_AVAILABLE,
                        "another session holds locks on rows or on table " + sweep.name() + " locked",
                        sweep.run().message + ".",
                        "CALL redis_migrate.sweep again: it continues where it stopped.");
        pg::Sleep(100);
    }
    if (sweep.WaitMs() > 0) pg::Sleep(sweep.WaitMs());
  }
}

template <typename Job, typename Body>
void RecordingErrors(Job &job, Body body) {
  try {
    body();
  } catch (...) {
    job.Fail(pg::CurrentProblem());
    throw;
  }
}

void SweepNow(const std::string &target) {
  JobName const job = FindJob(JobKind::kExpiry, target, false);
  if (job.restored)
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "the expiry policy of " + job.name + " was restored and does not sweep yet",
                  "Foreign keys, triggers and row security of the table may still be missing.",
                  "When the restore has ended: CALL redis_migrate.resume_restored();");
  Spi::Commit();
  Sweep sweep(job.id, false);
  if (!sweep.held())
    throw Failure(ERRCODE_OBJECT_IN_USE, "table " + job.name + " is being swept by another session", "",
                  "SELECT * FROM redis_migrate.expiry_stats shows how far it is.");
  RecordingErrors(sweep, [&] { SweepToTheEnd(sweep); });
  const JobRun &run = sweep.run();
  pg::Report(
      NOTICE,
      "sweep of " + job.name + ": " + std::to_string(run.rows) + " rows in " + std::to_string(run.batches) +
          " batches" + OrderText(sweep.order()) + ", " +
          std::to_string((GetCurrentTimestamp() - run.started) / 1000) + " ms",
      (sweep.partitions_dropped() > 0
           ? std::to_string(sweep.partitions_dropped()) + " partitions were dropped. "
           : "") +
          (sweep.stuck().failed() > 0 ? std::to_string(sweep.stuck().failed()) +
                                            " rows or partitions could not be removed, the last: " +
                                            sweep.stuck().last_problem() + (sweep.skipped() > 0 ? ". " : "")
                                      : "") +
          (sweep.skipped() > 0 ? "About " + std::to_string(sweep.skipped()) +
                                     " expired rows were locked by others and are left for the next sweep."
                               : ""),
      sweep.stuck().failed() > 0
          ? "SELECT * FROM redis_migrate.stuck_rows shows which, and when they are tried again."
          : "");
}

// Whether an error may be caught and recorded; any other ends the procedure.
bool IsOfTheJob(const pg::Problem &problem) {
  return ERRCODE_TO_CATEGORY(problem.sqlstate) != ERRCODE_OPERATOR_INTERVENTION && !problem.out_of_memory();
}

class Maintenance {
 public:
  void Run() {
    Oid const user = GetUserId();
    for (;;) {
      std::vector<DueJob> const due = DueJobs(user);
      Spi::Commit();
      bool found = false;
      for (const DueJob &job : due) {
        if (tried_.count(job.id)) continue;
        found = true;
        Begin(job);
        TakeTurn();  // between two that begin, one that goes on
      }
      if (sweeps_.empty() && (!found || due.size() < kMostDueJobs)) return;
      for (size_t turns = sweeps_.size(); turns > 0; --turns) TakeTurn();
    }
  }

 private:
  void Begin(const DueJob &job) {
    tried_.insert(job.id);
    if (job.kind == JobKind::kRefresh) {
      Refresh refresh(job.id);
      if (!refresh.held()) return Retry(job.id);
      if (!IsDue(job.id)) return;
      Guarded(refresh, [&] {
        if (!refresh.Run()) Retry(job.id);
      });
      return;
    }
    auto sweep = std::make_unique<Sweep>(job.id, true);
    if (!sweep->held()) return Retry(job.id);
    Slice(std::move(sweep));
  }

  void TakeTurn() {
    if (sweeps_.empty()) return;
    std::unique_ptr<Sweep> sweep = std::move(sweeps_.front());
    sweeps_.pop_front();
    Slice(std::move(sweep));
  }

  // Goes on with a sweep until its time is over, and puts it behind the others.
  void Slice(std::unique_ptr<Sweep> sweep) {
    TimestampTz const begin = GetCurrentTimestamp();
    Step step = Step::kMore;
    bool ok = Guarded(*sweep, [&] {
      while (step == Step::kMore && GetCurrentTimestamp() - begin < kSliceMs * 1000) {
        if (int64 wait = sweep->WaitMs(); wait > 0) {
          // Other jobs go first; without any it is time to sleep.
          if (!sweeps_.empty() && sweeps_.front()->WaitMs() == 0) break;
          pg::Sleep(std::min(wait, kSliceMs));
          continue;
        }
        step = sweep->Next();
      }
    });
    if (!ok || step == Step::kDone) return;
    if (step == Step::kMore)
      sweeps_.push_back(std::move(sweep));
    else
      Retry(sweep->job_id());
  }

  void Retry(int64 job_id) {
    Postpone(job_id, kRetryMs);
    Spi::Commit();
  }

  // One job's error does not stop the others.
  template <typename Job, typename Body>
  bool Guarded(Job &job, Body body) {
    try {
      body();
      return true;
    } catch (...) {
      pg::Problem const problem = pg::CurrentProblem();
      job.Fail(problem);
      if (!IsOfTheJob(problem)) throw;
    }
    return false;
  }

  std::deque<std::unique_ptr<Sweep>> sweeps_;  // that are not finished
  std::set<int64> tried_;                      // each job once, so that this ends
};

}  // namespace
}  // namespace prm::expiry

// redis_migrate.sweep(target text, dry_run boolean): see the SQL comment. Locks: ROW EXCLUSIVE on the table,
// in each batch. Errors: 2D000 in a transaction block, 42704 no policy, 42501 not its owner, 55000 it was
// restored and waits for resume_restored, 55006 swept by another session, 55P03 a lock was not to be had, and
// those of the policy and its table.
PRM_FUNCTION(sweep) {
  using namespace prm;
  using namespace prm::expiry;
  RequireProcedure(fcinfo, "sweep");
  std::string const target = pg::TextArgument(fcinfo, 0, "target");
  bool const dry_run = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  pg::Spi spi(true);
  if (dry_run) {
    JobName const job = FindJob(JobKind::kExpiry, target, false);
    auto [before, expired] = CountRows(job.id);
    pg::Report(NOTICE, "dry run of the sweep of " + job.name + ": before " + std::to_string(before) +
                           ", would delete " + std::to_string(expired) + ", after " +
                           std::to_string(before - expired));
  } else {
    SweepNow(target);
  }
  PG_RETURN_VOID();
}

// redis_migrate.sweep_preview(target text): see the SQL comment. Reads the whole table under ACCESS SHARE.
PRM_FUNCTION(sweep_preview) {
  using namespace prm;
  using namespace prm::expiry;
  std::string const target = pg::TextArgument(fcinfo, 0, "target");
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  pg::Spi spi;
  auto [before, expired] = CountRows(FindJob(JobKind::kExpiry, target, false).id);
  Datum values[3] = {Int64GetDatum(before), Int64GetDatum(expired), Int64GetDatum(before - expired)};
  bool nulls[3] = {false, false, false};
  pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
  return Datum(0);
}

// redis_migrate.maintain(): see the SQL comment. Errors: 2D000 in a transaction block; those of jobs are
// recorded.
PRM_FUNCTION(maintain) {
  using namespace prm;
  using namespace prm::expiry;
  RequireProcedure(fcinfo, "maintain");
  pg::Spi spi(true);
  Maintenance().Run();
  PG_RETURN_VOID();
}
