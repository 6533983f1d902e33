#include "run/parts.h"

#include "mapping/migration_lock.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/own_write.h"
#include "pg/rollback.h"
#include "pg/spi.h"
#include "pg/wait.h"

namespace prm {

using pg::Failure;
using pg::Spi;

std::unique_ptr<Helpers> (*new_helpers)() = nullptr;

namespace {

constexpr long kLookAgainMs = 20;
constexpr long kLookForPartsMs = 5;
constexpr int kTouchEveryMs = 1000;

// Reads parts that nobody else reads until there are none. first, between: as those of Pass::Read. The lock
// of a part whose reading ends in an error is left to the caller.
void ReadFreeParts(Pass &pass, RunRecord &record, int level, bool first, std::optional<PartLock> &lock,
                   const std::function<void()> &between) {
  for (const RunRecord::Part &seen : record.ReadParts(level)) {
    if (seen.done || seen.sqlstate) continue;
    lock.emplace(record.id(), level, seen.number);
    if (!lock->taken()) continue;
    record.SetPart(seen.number);
    std::optional<RunRecord::Part> const part = record.TakePart(level);
    Spi::Commit();
    if (!part) continue;
    if (part->pid != 0)
      pg::Report(WARNING,
                 "process " + std::to_string(part->pid) + " ended before it had read part " +
                     std::to_string(part->number) + " of run " + std::to_string(record.id()),
                 "This process continues from the part's last position.");
    SourcePart source = SourcePart::Parse(part->share);
    source.readers = part->readers;
    pass.Read(level, part->position, std::exchange(first, false), source, between);
    record.FinishPart(level);
    Spi::Commit();
  }
  lock.reset();
  record.SetPart(0);
}

// The error that ended the reading of a part in another process.
void ThrowFailureOf(const RunRecord &record, const std::vector<RunRecord::Part> &parts,
                    bool stops_at_rejects) {
  for (const RunRecord::Part &part : parts) {
    if (!part.sqlstate) continue;
    int const code = pg::SqlStateCode(*part.sqlstate);
    if (stops_at_rejects && code == ERRCODE_DATA_EXCEPTION)
      throw StoppedByReject(record.id(), part.message.value_or(""),
                            "The key was in part " + std::to_string(part.number) + ".");
    throw Failure(code, part.message.value_or(""),
                  "Part " + std::to_string(part.number) + " was being read.");
  }
}

// Takes part in a run that another process leads.
class Member {
 public:
  explicit Member(int64 run_id) : record_(RunRecord::Join(run_id, &name_, &parameters_)) {
    lock_.emplace(name_);
    record_ = RunRecord::Join(run_id, &name_, &parameters_);  // it may have ended meanwhile
    migration_.emplace(LoadMigration(name_));
    routing_.emplace(*migration_, parameters_.priority, parameters_.mapping);
    pass_.emplace(*migration_, parameters_, *routing_, record_);
    Spi::Commit();
  }

  void Execute() {
    // The leader divides the level when it knows how many processes there are.
    for (RequireLeader(); record_.ReadParts(record_.level()).empty(); RequireLeader()) {
      Spi::Commit();
      pg::Sleep(kLookForPartsMs);
    }
    ReadFreeParts(*pass_, record_, record_.level(), false, part_lock_, [this] { RequireLeader(); });
    Spi::Commit();
  }

  // Tells the leader, if there is one, unless only this process was asked to end.
  void Fail(const pg::Problem &problem) {
    pg::WithoutCancel hold;
    pg::RollBackAfter(problem);
    if (problem.cancelled() || !HasLeader()) return;
    record_.FailPart(record_.level(), problem.SqlState(), problem.message);
    Spi::Commit();
  }

 private:
  bool HasLeader() { return lock_ && lock_->HasLeader(); }

  void RequireLeader() {
    if (!HasLeader())
      throw Failure(
          ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
          "no process leads run " + std::to_string(record_.id()) + " of migration \"" + name_ + "\"",
          "The keys read so far are stored, with a checkpoint.",
          "CALL redis_migrate.run or redis_migrate.start continues it.");
  }

  std::string name_;
  RunParameters parameters_;
  RunRecord record_;
  std::optional<Migration> migration_;
  std::optional<MemberLock> lock_;
  std::optional<Routing> routing_;
  std::optional<Pass> pass_;
  std::optional<PartLock> part_lock_;
};

}  // namespace

uint64 LeadParts(Pass &pass, RunRecord &record, int level, bool first, bool stops_at_rejects) {
  int64 repeated_slots = 0;
  TimestampTz touched_at = 0;
  // How many parts have not been read.
  auto look = [&] {
    int left = 0;
    std::vector<RunRecord::Part> const parts = record.ReadParts(level);
    ThrowFailureOf(record, parts, stops_at_rejects);
    repeated_slots = 0;
    for (const RunRecord::Part &part : parts) {
      if (!part.done) ++left;
      repeated_slots += part.repeated_slots;
    }
    TimestampTz const now = GetCurrentTimestamp();
    if (left == 0 || TimestampDifferenceExceeds(touched_at, now, kTouchEveryMs)) {
      record.Touch();
      touched_at = now;
    }
    return left;
  };
  std::optional<PartLock> lock;
  for (int left = look(); left > 0;) {
    ReadFreeParts(pass, record, level, first, lock, [&] { look(); });
    left = look();
    Spi::Commit();
    if (left > 0) pg::Sleep(kLookAgainMs);  // others read what is left
  }
  return static_cast<uint64>(repeated_slots);
}

}  // namespace prm

// redis_migrate.join_run(run_id bigint): see the SQL comment. Takes the lock of a member of the migration's
// run and, one after the other, those of parts. Errors: 2D000 in a transaction block, 42704, 42501 not the
// owner, 55000 when the run is not in progress or nobody leads it, 55006, and those of redis_migrate.run,
// which are noted for the leader.
PRM_FUNCTION(join_run) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.join_run commits after each batch");
  if (PG_ARGISNULL(0)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "run_id must not be NULL");
  pg::Spi spi(true);
  pg::OwnWrite const own_write;
  Member member(PG_GETARG_INT64(0));
  try {
    member.Execute();
  } catch (...) {
    member.Fail(pg::CurrentProblem());
    throw;
  }
  PG_RETURN_VOID();
}
