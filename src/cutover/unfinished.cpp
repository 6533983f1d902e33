#include "cutover/unfinished.h"

#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/rollback.h"
#include "pg/spi.h"
#include "pg/wait.h"

namespace prm {

using pg::Failure;
using pg::Spi;

namespace {

LOCKTAG TagOf(const std::string &migration) {
  uint64 const name = DatumGetUInt64(hash_any_extended(
      reinterpret_cast<const unsigned char *>(migration.data()), static_cast<int>(migration.size()), 0));
  return pg::LockTag(pg::kCutoverLocks, name);
}

std::string Name(const CutoverRecord &record) {
  return "cutover " + std::to_string(record.id()) + " of migration \"" + record.parameters().migration + "\"";
}

}  // namespace

CutoverLock::CutoverLock(const std::string &migration) : lock_(TagOf(migration), ExclusiveLock) {
  if (!lock_.TryTake())
    throw Failure(ERRCODE_OBJECT_IN_USE, "another session cuts migration \"" + migration + "\" over", "",
                  "SELECT * FROM redis_migrate.cutovers shows how far it is.");
}

void UndoCutover(const Migration &migration, CutoverRecord &record, const pg::Problem &problem) {
  pg::WithoutCancel without_cancel;
  std::vector<FencedUser> const users = record.ReadUsers();
  Spi::Commit();
  if (!users.empty() || record.MayBePaused()) {
    try {
      Masters masters(migration.server, GetUserId());
      masters.GiveBack(users);
      if (record.MayBePaused()) masters.Resume();
    } catch (const Failure &failure) {
      if (!users.empty())
        throw Failure(
            failure.sqlstate(), Name(record) + " cannot be undone yet: " + failure.message(),
            "Users of Redis may lack their rights to write. It failed because of this: " + problem.message,
            "CALL redis_migrate.undo_cutover(" + pg::QuoteLiteral(migration.name) +
                ") once Redis can be reached.");
      pg::Report(WARNING, "the pause of Redis ends by itself: " + failure.message());
    }
  }
  LockFamiliesForChange(migration.name);
  for (const std::string &pattern : record.parameters().patterns)
    if (FamilyState(migration.name, pattern) == "cutting")
      ChangeFamilyState(migration.name, pattern, "redis",
                        "cutover " + std::to_string(record.id()) + " undone");
  record.Finish("undone", problem.SqlState(), problem.message);
  Spi::Commit();
}

void CompleteCutover(const Migration &migration, CutoverRecord &record, Masters *masters) {
  std::string trouble;
  try {
    if (masters != nullptr)
      masters->Resume();
    else if (record.MayBePaused())
      Masters(migration.server, GetUserId()).Resume();
  } catch (const Failure &failure) {
    trouble = failure.message();
    pg::Report(WARNING, "the pause of Redis ends by itself: " + trouble);
  }
  record.Finish("completed", "", trouble);
  Spi::Commit();
}

void SettleUnfinished(const Migration &migration) {
  std::optional<CutoverRecord> record = CutoverRecord::FindUnfinished(migration.name);
  Spi::Commit();
  if (!record) return;
  bool const is_committed = record->step() == "resuming";
  if (is_committed)
    CompleteCutover(migration, *record, nullptr);
  else
    UndoCutover(migration, *record,
                {ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "it was interrupted at step " + record->step()});
  pg::Report(NOTICE,
             Name(*record) + " was interrupted, and is now " + (is_committed ? "completed" : "undone"));
}

}  // namespace prm

// redis_migrate.undo_cutover(migration text): see the SQL comment. Errors: 2D000 in a transaction block;
// 42704, 42501; 55006 while another session cuts over; those of SettleUnfinished.
PRM_FUNCTION(undo_cutover) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.undo_cutover commits after each step");
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  pg::Spi spi(true);
  Migration const migration = LoadMigration(name);
  CutoverLock const lock(name);
  SettleUnfinished(migration);
  PG_RETURN_VOID();
}
