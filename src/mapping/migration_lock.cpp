#include "mapping/migration_lock.h"

#include "pg/guard.h"
#include "pg/identity.h"
#include "pg/lock_spaces.h"
#include "pg/spi.h"

namespace prm {

namespace {

// Whoever leads has kLeading, which one process can have beside any number of kTakingPart. A change needs
// kChanging, and so does the beginning of a run: it meets neither.
constexpr LOCKMODE kLeading = ShareUpdateExclusiveLock;
constexpr LOCKMODE kTakingPart = RowExclusiveLock;
constexpr LOCKMODE kChanging = ExclusiveLock;

LOCKTAG TagOf(uint16 space, uint64 id) {
  LOCKTAG tag = {};
  SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(id >> 32), static_cast<uint32>(id), space);
  return tag;
}

LOCKTAG TagOf(const std::string &migration) {
  return TagOf(pg::kMigrationLocks,
               DatumGetUInt64(hash_any_extended(reinterpret_cast<const unsigned char *>(migration.data()),
                                                static_cast<int>(migration.size()), 0)));
}

LOCKTAG TagOf(int64 run_id, int level, int part) {
  const int64 name[] = {run_id, level, part};
  return TagOf(pg::kPartLocks, DatumGetUInt64(hash_any_extended(reinterpret_cast<const unsigned char *>(name),
                                                                sizeof name, 0)));
}

[[noreturn]] void ThrowInUse(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  auto rows = pg::Spi::Execute(
      "SELECT r.pid::text FROM redis_migrate.run AS r JOIN pg_locks AS l USING (pid) WHERE r.migration = $1 "
      "AND "
      "r.state = 'running' AND l.locktype = 'advisory' AND l.objsubid = $2 AND l.granted ORDER BY r.run_id "
      "DESC "
      "LIMIT 1",
      {pg::SqlParam::Text(migration), pg::SqlParam::Int4(pg::kMigrationLocks)});
  if (rows.size() > 0)
    throw pg::Failure(ERRCODE_OBJECT_IN_USE, "migration \"" + migration + "\" is already being run",
                      "The process that runs it is " + rows[0].Text(0) + ".",
                      "SELECT * FROM redis_migrate.progress shows how far it is.");
  LOCKTAG const tag = TagOf(migration);
  auto members = pg::Spi::Execute(
      "SELECT pid::text FROM pg_locks WHERE locktype = 'advisory' AND database = $1 AND classid = $2 AND "
      "objid = "
      "$3 AND objsubid = $4 AND mode = 'RowExclusiveLock' AND granted LIMIT 1",
      {pg::SqlParam::OidOf(MyDatabaseId), pg::SqlParam::OidOf(tag.locktag_field2),
       pg::SqlParam::OidOf(tag.locktag_field3), pg::SqlParam::Int4(pg::kMigrationLocks)});
  if (members.size() > 0)
    throw pg::Failure(
        ERRCODE_OBJECT_IN_USE, "a part of migration \"" + migration + "\" is still being read",
        "The process that reads it is " + members[0].Text(0) + "; nobody leads the run any more.",
        "It ends with its batch. SELECT redis_migrate.stop(" + pg::QuoteLiteral(migration) +
            ") ends it at once.");
  throw pg::Failure(ERRCODE_OBJECT_IN_USE, "migration \"" + migration + "\" is in use by another session",
                    "It is about to be run, or another transaction changes it.");
}

class ChangeLock : public RunLock {
 public:
  explicit ChangeLock(const std::string &migration) : RunLock(TagOf(migration), kChanging) {
    if (!Take()) ThrowInUse(migration);
  }
};

}  // namespace

bool RunLock::Take() {
  LockAcquireResult result = pg::Call([&] { return LockAcquire(&tag_, mode_, true, true); });
  held_ = result == LOCKACQUIRE_OK;
  // A procedure that the session's own run has called.
  if (result != LOCKACQUIRE_OK && result != LOCKACQUIRE_NOT_AVAIL)
    pg::Call([&] { LockRelease(&tag_, mode_, true); });
  return held_;
}

RunLock::~RunLock() {
  if (held_) LockRelease(&tag_, mode_, true);
}

MigrationLock::MigrationLock(const std::string &migration) : RunLock(TagOf(migration), kLeading) {
  ChangeLock alone(migration);  // those that took part in an earlier run are gone
  if (!Take()) ThrowInUse(migration);
}

MemberLock::MemberLock(const std::string &migration)
    : RunLock(TagOf(migration), kTakingPart), migration_(migration) {
  if (!Take()) ThrowInUse(migration);
}

bool MemberLock::HasLeader() const {
  LOCKTAG tag = TagOf(migration_);
  return pg::Call([&] {
    if (LockAcquire(&tag, kLeading, true, true) == LOCKACQUIRE_NOT_AVAIL) return true;
    LockRelease(&tag, kLeading, true);
    return false;
  });
}

PartLock::PartLock(int64 run_id, int level, int part)
    : RunLock(TagOf(run_id, level, part), ExclusiveLock), taken_(Take()) {}

void LockForChange(const std::string &migration) {
  LOCKTAG tag = TagOf(migration);
  LockAcquireResult result = pg::Call([&] { return LockAcquire(&tag, kChanging, false, true); });
  if (result == LOCKACQUIRE_NOT_AVAIL) ThrowInUse(migration);
}

void LockMapping(int64 mapping_id) {
  LOCKTAG tag = TagOf(pg::kMappingLocks, static_cast<uint64>(mapping_id));
  pg::Call([&] { (void)LockAcquire(&tag, ExclusiveLock, false, false); });
}

}  // namespace prm
