#include "cutover/unfinished.h"

#include "cutover/table_fence.h"
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

constexpr int64 kUnfenceWaitMs = 10 * 1000;

LOCKTAG TagOf(const std::string &migration) {
  uint64 const name = DatumGetUInt64(hash_any_extended(
      reinterpret_cast<const unsigned char *>(migration.data()), static_cast<int>(migration.size()), 0));
  return pg::LockTag(pg::kCutoverLocks, name);
}

std::string Name(const CutoverRecord &record) {
  return "cutover " + std::to_string(record.id()) + " of migration \"" + record.parameters().migration + "\"";
}

// The users whom the cutovers of these families have fenced get their rights back, but for those whom the
// cutover of another family that is still PostgreSQL's has fenced, too.
void CompleteCutback(const Migration &migration, CutoverRecord &record) {
  std::map<int64, CutoverRecord> cutovers;
  for (const std::string &pattern : record.parameters().patterns)
    if (auto const last = CutoverRecord::FindLast(migration.name, pattern))
      cutovers.emplace(last->id(), *last);
  std::set<std::pair<std::string, std::string>> kept;
  for (const Mapping &mapping : migration.mappings) {
    std::string const state = FamilyState(migration.name, mapping.pattern);
    if (state != "postgres" && state != "both") continue;
    if (auto const other = CutoverRecord::FindLast(migration.name, mapping.pattern))
      for (const FencedUser &user : other->ReadUsers()) kept.emplace(user.node, user.name);
  }
  // The first cutover knows the rules from before all of them.
  std::vector<FencedUser> users;
  std::string left;
  for (const auto &[id, cutover] : cutovers)
    for (const FencedUser &user : cutover.ReadUsers()) {
      if (!kept.emplace(user.node, user.name).second) continue;
      if (cutover.IsOfHere())
        users.push_back(user);
      else
        left += (left.empty() ? "\"" : ", \"") + user.name + "\"";
    }
  if (!left.empty())
    pg::Report(WARNING, "users of Redis stay without their rights to write: " + left,
               "Another server or database, of which this one is a copy, has fenced them.",
               "If that one is gone, give them the rules in redis_migrate.fenced_user with ACL SETUSER.");
  Spi::Commit();
  if (!users.empty()) {
    try {
      Masters(migration.server, GetUserId()).GiveBack(users);
    } catch (const Failure &failure) {
      throw Failure(failure.sqlstate(), Name(record) + " is not complete: " + failure.message(),
                    "The families belong to Redis again, but users of Redis may lack their rights to write.",
                    "CALL redis_migrate.undo_cutover(" + pg::QuoteLiteral(migration.name) +
                        ") once Redis can be reached.");
    }
  }
  record.Finish("completed");
  Spi::Commit();
}

}  // namespace

std::vector<std::string> PatternsOf(const Migration &migration, const std::optional<std::string> &pattern) {
  std::vector<std::string> patterns;
  for (const Mapping &mapping : migration.mappings)
    if ((!pattern || mapping.pattern == *pattern) &&
        std::count(patterns.begin(), patterns.end(), mapping.pattern) == 0)
      patterns.push_back(mapping.pattern);
  if (patterns.empty())
    throw Failure(ERRCODE_UNDEFINED_OBJECT,
                  "migration \"" + migration.name + "\" has no mapping" +
                      (pattern ? " of pattern " + *pattern : std::string()),
                  "",
                  "SELECT pattern, mappings FROM redis_migrate.families WHERE migration = " +
                      pg::QuoteLiteral(migration.name) + ".");
  return patterns;
}

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
  if (record.parameters().to_state == "redis")
    UnfenceTables(migration, record.parameters().patterns, kUnfenceWaitMs);
  LockFamiliesForChange(migration.name);
  for (const std::string &pattern : record.parameters().patterns)
    if (FamilyState(migration.name, pattern) == "cutting")
      ChangeFamilyState(migration.name, pattern, "redis",
                        "cutover " + std::to_string(record.id()) + " undone");
  record.Finish("undone", problem.SqlState(), problem.message);
  Spi::Commit();
}

void CompleteCutover(const Migration &migration, CutoverRecord &record, Masters *masters) {
  if (record.parameters().to_state == "redis") return CompleteCutback(migration, record);
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
