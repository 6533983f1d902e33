#include "mapping/migration_lock.h"

#include "mapping/live_run.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/wait.h"

namespace prm {

namespace {

// The process that leads has kLeading, which only one can have, beside any number of kTakingPart. A change,
// and the beginning of a run, need kChanging, which conflicts with both. What runs need not know of has
// kBeside, which conflicts with that alone.
constexpr LOCKMODE kLeading = ShareUpdateExclusiveLock;
constexpr LOCKMODE kTakingPart = RowExclusiveLock;
constexpr LOCKMODE kChanging = ExclusiveLock;
constexpr LOCKMODE kBeside = RowShareLock;

constexpr long kLookAgainMs = 20;
// A transaction that has committed holds its locks for a moment more, in which others see already what it
// did: the worker that start asks for, for example.
constexpr int64 kEndOfTransactionMs = 200;

uint64 HashOf(const void *bytes, size_t size) {
  return DatumGetUInt64(
      hash_any_extended(static_cast<const unsigned char *>(bytes), static_cast<int>(size), 0));
}

LOCKTAG TagOf(const std::string &migration) { return pg::LockTagOfName(pg::kMigrationLocks, migration); }

LOCKTAG TagOf(int64 id, int level, int part) {
  const int64 name[] = {id, level, part};
  return pg::LockTag(pg::kPartLocks, HashOf(name, sizeof name));
}

[[noreturn]] void ThrowInUse(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  auto rows = pg::Spi::Execute(
      R"sql(SELECT r.pid::text
            FROM redis_migrate.run AS r
            JOIN pg_locks AS l USING (pid)
            WHERE r.migration = $1 AND r.state = 'running' AND l.locktype = 'advisory'
                AND l.objsubid = $2 AND l.granted
            ORDER BY r.run_id DESC
            LIMIT 1)sql",
      {pg::SqlParam::Text(migration), pg::SqlParam::Int4(pg::kMigrationLocks)});
  if (rows.size() > 0)
    throw pg::Failure(ERRCODE_OBJECT_IN_USE, "migration \"" + migration + "\" is already running",
                      "The process that runs it is " + rows[0].Text(0) + ".",
                      "SELECT * FROM redis_migrate.progress shows how far it is.");
  LOCKTAG const tag = TagOf(migration);
  auto members = pg::Spi::Execute(
      R"sql(SELECT pid::text
            FROM pg_locks
            WHERE locktype = 'advisory' AND database = $1 AND classid = $2 AND objid = $3
                AND objsubid = $4 AND mode = 'RowExclusiveLock' AND granted
            LIMIT 1)sql",
      {pg::SqlParam::OidOf(MyDatabaseId), pg::SqlParam::OidOf(tag.locktag_field2),
       pg::SqlParam::OidOf(tag.locktag_field3), pg::SqlParam::Int4(pg::kMigrationLocks)});
  if (members.size() > 0)
    throw pg::Failure(
        ERRCODE_OBJECT_IN_USE, "a part of migration \"" + migration + "\" is still being read",
        "The process that reads it is " + members[0].Text(0) + "; no process leads the run any more.",
        "It ends with its batch. SELECT redis_migrate.stop(" + pg::QuoteLiteral(migration) +
            ") ends it at once.");
  throw pg::Failure(ERRCODE_OBJECT_IN_USE, "migration \"" + migration + "\" is in use by another session",
                    "It is about to run, or another transaction is changing it.");
}

}  // namespace

MigrationLock::MigrationLock(const std::string &migration, bool waits) : lock_(TagOf(migration), kLeading) {
  auto take = [&] {
    // With this lock, the processes that took part in an earlier run are gone, and no transaction changes the
    // migration.
    pg::SessionLock alone(TagOf(migration), kChanging);
    return alone.TryTake() && lock_.TryTake();
  };
  int64 const end = pg::MonotonicMs() + kEndOfTransactionMs;
  while (!take()) {
    if (!waits && pg::MonotonicMs() >= end) ThrowInUse(migration);
    pg::Sleep(kLookAgainMs);
  }
}

MemberLock::MemberLock(const std::string &migration)
    : migration_(migration), lock_(TagOf(migration), kTakingPart) {
  if (!lock_.TakeWithin(kEndOfTransactionMs)) ThrowInUse(migration);
}

bool MemberLock::HasLeader() const { return !pg::SessionLock(TagOf(migration_), kLeading).TryTake(); }

PartLock::PartLock(int64 id, int level, int part) : lock_(TagOf(id, level, part), ExclusiveLock) {
  (void)lock_.TryTake();
}

void LockForChange(const std::string &migration) {
  if (!pg::TryLockInTransaction(TagOf(migration), kChanging)) ThrowInUse(migration);
}

bool LockBesideLiveRun(const std::string &migration) {
  bool is_followed = false;
  {
    pg::AsExtensionOwner as_owner;
    is_followed = pg::Spi::Execute(
                      R"sql(SELECT
                            FROM redis_migrate.live_position AS p
                            WHERE p.run_id = )sql" PRM_LIVE_RUN R"sql(
                            HAVING bool_and(p.is_loaded))sql",
                      {pg::SqlParam::Text(migration)})
                      .size() > 0;
  }
  if (is_followed)
    pg::LockInTransaction(TagOf(migration), kChanging);
  else
    LockForChange(migration);
  return is_followed;
}

void LockBesideRuns(const std::string &migration) {
  if (!pg::TryLockInTransaction(TagOf(migration), kBeside)) ThrowInUse(migration);
}

void LockMapping(int64 mapping_id) {
  pg::LockInTransaction(pg::LockTag(pg::kMappingLocks, static_cast<uint64>(mapping_id)), ExclusiveLock);
}

}  // namespace prm
