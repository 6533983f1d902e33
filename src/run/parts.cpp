#include "run/parts.h"

#include "mapping/migration_lock.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/own_write.h"
#include "pg/spi.h"

namespace prm {

using pg::Failure;
using pg::Spi;

namespace {

constexpr char kTakesOver[] = "This process continues from the part's last position.";

// Reads a part of the level from its last position. first, between: as those of Pass::Read.
void ReadPart(Pass &pass, RunRecord &record, int level, bool first, const PartTable::Part &part,
              const SourcePart &source, const std::function<void()> &between) {
  record.SetPart(part.number);
  pass.Read(level, part.position, first, source, between);
  record.SetPart(0);
}

// The error that ended the reading of a part in another process, if it was that of a reject.
void ThrowRejectOf(const RunRecord &record, const std::vector<PartTable::Part> &parts) {
  for (const PartTable::Part &part : parts)
    if (part.sqlstate && pg::SqlStateCode(*part.sqlstate) == ERRCODE_DATA_EXCEPTION)
      throw StoppedByReject(record.id(), part.message.value_or(""),
                            "The key was in part " + std::to_string(part.number) + ".");
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
    reading_.emplace(record_.PartsOf(record_.level()), kTakesOver);
    Spi::Commit();
  }

  void Execute() {
    auto require_leader = [this] { RequireLeader(); };
    reading_->TakePart(
        [&](const PartTable::Part &part, const SourcePart &source) {
          ReadPart(*pass_, record_, record_.level(), false, part, source, require_leader);
        },
        [this] { return lock_->HasLeader(); }, require_leader);
  }

 private:
  void RequireLeader() {
    if (!lock_->HasLeader())
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
  std::optional<PartReading> reading_;
};

}  // namespace

uint64 LeadParts(Pass &pass, RunRecord &record, int level, bool first, bool stops_at_rejects) {
  PartTable const table = record.PartsOf(level);
  TimestampTz touched_at = 0;
  auto look = [&] {
    std::vector<PartTable::Part> const parts = table.Read();
    if (stops_at_rejects) ThrowRejectOf(record, parts);
    int const left = CountUndone(parts);
    TimestampTz const now = GetCurrentTimestamp();
    if (left == 0 || TimestampDifferenceExceeds(touched_at, now, kTouchEveryMs)) {
      record.Touch();
      touched_at = now;
    }
    return left;
  };
  PartReading(table, kTakesOver)
      .ReadAll(
          [&](const PartTable::Part &part, const SourcePart &source) {
            ReadPart(pass, record, level, std::exchange(first, false), part, source, look);
          },
          look);
  return record.CountRepeatedSlots(level);
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
  Member(PG_GETARG_INT64(0)).Execute();
  PG_RETURN_VOID();
}
