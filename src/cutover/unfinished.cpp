#include "cutover/unfinished.h"

#include "cutover/table_fence.h"
#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/rollback.h"
#include "pg/spi.h"
#include "pg/table_locks.h"
#include "pg/wait.h"
#include "reverse/reverse_feed.h"

namespace prm {

using pg::Failure;
using pg::Spi;

namespace {

constexpr int64 kLockWaitMs = 10 * 1000;  // which nobody can cancel
// The worker that settles an interrupted cutover may be at it when somebody calls undo_cutover or the like.
constexpr int64 kSettleWaitMs = 1000;
constexpr char kSeeCutovers[] = "SELECT * FROM redis_migrate.cutovers shows how far it is.";

// By their names, each once.
std::string ListOf(const std::vector<FencedUser> &users) {
  std::set<std::string> names;
  for (const FencedUser &user : users) names.insert(user.name);
  std::string list;
  for (const std::string &name : names) list += (list.empty() ? "\"" : ", \"") + name + "\"";
  return list;
}

void WarnOf(const ReturnedUsers &returned, const std::vector<std::string> &of_others) {
  if (!returned.changed.empty())
    pg::Report(WARNING, "users of Redis stay as they are: " + ListOf(returned.changed),
               "Somebody has given them other rules since they lost the right to write.",
               "redis_migrate.fenced_users has the rules from before; ACL SETUSER sets them.");
  if (!returned.gone.empty())
    pg::Report(WARNING, "users of Redis may stay without their rights to write: " + ListOf(returned.gone),
               "They, or the masters that fenced them, are not there any more, such as after a fail-over.",
               "redis_migrate.fenced_users has the rules from before; ACL SETUSER sets them.");
  std::string list;
  for (const std::string &name : of_others) list += (list.empty() ? "\"" : ", \"") + name + "\"";
  if (!of_others.empty())
    pg::Report(WARNING, "users of Redis stay without their rights to write: " + list,
               "Another server or database, of which this one is a copy, has fenced them.",
               "If that one is gone, give them the rules in redis_migrate.fenced_users with ACL SETUSER.");
}

std::string MessagesOf(const std::vector<Failure> &failures) {
  std::set<std::string> messages;
  for (const Failure &failure : failures) messages.insert(failure.message());
  std::string list;
  for (const std::string &message : messages) list += (list.empty() ? "" : "; ") + message;
  return list;
}

// Gives users their rights back and ends the pause, as far as masters let it. Commits. Throws, when all has
// been tried, if users may still lack rights: `what` has happened, and `why`.
void ReturnToWriters(const Migration &migration, const CutoverRecord &record, const std::string &what,
                     const std::string &why) {
  UsersToReturn const found = FindUsersToReturn(record);
  Spi::Commit();
  if (found.users.empty() && !record.MayBePaused()) return WarnOf({}, found.of_others);
  std::vector<Failure> failures;
  ReturnedUsers returned;
  try {
    Masters masters(migration.server, GetUserId(), failures);
    returned = masters.GiveBack(found.users, failures);
    if (record.MayBePaused())
      for (const Failure &failure : masters.Resume()) failures.push_back(failure);
  } catch (const Failure &failure) {
    failures.push_back(failure);
  }
  for (const auto *users : {&returned.done, &returned.changed, &returned.gone}) SetReturned(record, *users);
  Spi::Commit();
  WarnOf(returned, found.of_others);
  if (failures.empty()) return;
  if (returned.done.size() + returned.changed.size() + returned.gone.size() < found.users.size())
    throw Failure(failures.front().sqlstate(), record.Name() + " " + what + ": " + MessagesOf(failures), why,
                  "CALL redis_migrate.undo_cutover(" + pg::QuoteLiteral(migration.name) +
                      ") once Redis can be reached.");
  pg::Report(WARNING, "the pause of Redis ends by itself: " + MessagesOf(failures));
}

Failure CannotUndo(const Migration &migration, const CutoverRecord &record, const pg::Problem &problem,
                   const pg::Problem &why, const std::string &what_stands) {
  return {why.sqlstate, record.Name() + " cannot be undone yet: " + why.message,
          what_stands + " It failed because of this: " + problem.message,
          "CALL redis_migrate.undo_cutover(" + pg::QuoteLiteral(migration.name) +
              ") once the transactions that are in the way have ended."};
}

void CompleteCutback(const Migration &migration, CutoverRecord &record) {
  try {
    EndBatches(migration);
  } catch (const Failure &failure) {
    throw Failure(
        failure.sqlstate(), record.Name() + " is not complete: " + failure.message(),
        "The families belong to Redis again, but what the reverse feed had on its way may still come "
        "there, and users of Redis may lack their rights to write.",
        "CALL redis_migrate.undo_cutover(" + pg::QuoteLiteral(migration.name) +
            ") once Redis can be reached.");
  }
  ReturnToWriters(migration, record, "is not complete",
                  "The families belong to Redis again, but users of Redis may lack their rights to write.");
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

std::string ArgumentsFor(const Migration &migration, const std::vector<std::string> &patterns) {
  bool const are_all = patterns.size() == PatternsOf(migration, std::nullopt).size();
  return pg::QuoteLiteral(migration.name) + (are_all ? "" : ", " + pg::QuoteLiteral(patterns.front()));
}

namespace {

Failure IsCutOverNow(const std::string &migration) {
  return {ERRCODE_OBJECT_IN_USE, "another session cuts migration \"" + migration + "\" over",
          "It cuts over or back, or takes rights once more after a fail-over.", kSeeCutovers};
}

}  // namespace

CutoverLock::CutoverLock(const std::string &migration, const std::string &server)
    : lock_(CutoverLockTag(migration), ExclusiveLock),
      server_lock_(CutoverServerLockTag(server), ExclusiveLock) {
  if (!lock_.TakeWithin(kSettleWaitMs)) throw IsCutOverNow(migration);
  if (!server.empty() && !server_lock_.TakeWithin(kSettleWaitMs))
    throw Failure(ERRCODE_OBJECT_IN_USE, "another session cuts over a migration of server \"" + server + "\"",
                  "A pause holds the writes of all migrations back, and its end lets all of them go on.",
                  kSeeCutovers);
}

void UndoCutover(const Migration &migration, CutoverRecord &record, const pg::Problem &problem) {
  pg::WithoutCancel without_cancel;
  bool const is_back = record.parameters().to_state == "redis";
  if (!is_back)
    ReturnToWriters(
        migration, record, "cannot be undone yet",
        "Users of Redis may lack their rights to write. It failed because of this: " + problem.message);
  try {
    if (is_back)
      UnfenceTables(migration, record.parameters().patterns, pg::MonotonicMs() + kLockWaitMs);
    else if (!LockFamiliesWithin(migration.name, kLockWaitMs))
      throw Failure(ERRCODE_LOCK_NOT_AVAILABLE, "another session keeps the states of its families");
  } catch (...) {
    // Whoever cancels the call while it waits has to know what stands, too.
    pg::Problem const why = pg::CurrentProblem();
    if (why.sqlstate != ERRCODE_LOCK_NOT_AVAILABLE && why.sqlstate != ERRCODE_QUERY_CANCELED &&
        why.sqlstate != ERRCODE_T_R_DEADLOCK_DETECTED)
      throw;
    throw CannotUndo(migration, record, problem, why,
                     is_back ? "Its tables are fenced." : "Users of Redis have their rights to write.");
  }
  if (!is_back)
    for (const std::string &pattern : record.parameters().patterns)
      if (FamilyState(migration.name, pattern) == "cutting")
        ChangeFamilyState(migration.name, pattern, "redis",
                          "cutover " + std::to_string(record.id()) + " undone");
  record.Finish("undone", problem.SqlState(), problem.message);
  Spi::Commit();
}

void CompleteCutover(const Migration &migration, CutoverRecord &record,
                     std::optional<std::vector<Failure>> failed) {
  if (record.parameters().to_state == "redis") return CompleteCutback(migration, record);
  std::vector<Failure> failures = failed.value_or(std::vector<Failure>());
  if (!failed && record.MayBePaused()) try {
      Masters masters(migration.server, GetUserId(), failures);
      for (const Failure &failure : masters.Resume()) failures.push_back(failure);
    } catch (const Failure &failure) {
      failures.push_back(failure);
    }
  std::string const trouble = MessagesOf(failures);
  if (!failures.empty()) pg::Report(WARNING, "the pause of Redis ends by itself: " + trouble);
  record.Finish("completed", "", trouble);
  Spi::Commit();
}

void SettleUnfinished(const Migration &migration) {
  std::optional<CutoverRecord> record = CutoverRecord::FindUnfinished(migration.name);
  Spi::Commit();
  if (!record) return;
  bool const is_committed = record->step() == "resuming";
  if (is_committed)
    CompleteCutover(migration, *record, std::nullopt);
  else
    UndoCutover(migration, *record,
                {ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "it was interrupted at step " + record->step()});
  pg::Report(WARNING,
             record->Name() + " was interrupted, and is now " + (is_committed ? "completed" : "undone"));
}

void RequireNoCutover(const std::string &migration) {
  if (!pg::LockInTransactionWithin(CutoverLockTag(migration), ExclusiveLock, kSettleWaitMs))
    throw IsCutOverNow(migration);
  for (const CutoverRecord::Unfinished &unfinished : CutoverRecord::FindAllUnfinished())
    if (unfinished.migration == migration)
      throw Failure(
          ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
          "a cutover or cutback of migration \"" + migration + "\" was interrupted",
          "Users of Redis may lack their rights to write, and only the migration knows which they had.",
          "As the owner of the migration: CALL redis_migrate.undo_cutover(" + pg::QuoteLiteral(migration) +
              "). If Redis is gone for good, keep what redis_migrate.fenced_users has and, as a superuser: "
              "UPDATE redis_migrate.cutover SET state = 'undone' WHERE cutover_id = " +
              std::to_string(unfinished.id) + ".");
}

void WarnOfUsersLeft(const UsersLeft &left) {
  auto const commands = [](const std::vector<FencedUser> &users) {
    std::string list;
    for (const FencedUser &user : users)
      list += "\nAt " + user.address + ": ACL SETUSER " + user.name + " " + user.rules;
    return list;
  };
  if (!left.users.empty())
    pg::Report(WARNING, "users of Redis stay without their rights to write: " + ListOf(left.users),
               "Their rules from before have gone with the migration." + commands(left.users),
               "If they are to write again, as an administrator of Redis: these commands.");
  if (!left.of_others.empty())
    pg::Report(WARNING, "users of Redis stay without their rights to write: " + ListOf(left.of_others),
               "Another server or database, of which this one is a copy, has fenced them. Their rules from "
               "before have gone with the migration here." +
                   commands(left.of_others),
               "Only if that one is gone, as an administrator of Redis: these commands.");
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
  CutoverLock const lock(name, migration.server);
  SettleUnfinished(migration);
  PG_RETURN_VOID();
}
