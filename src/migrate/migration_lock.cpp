#include "migrate/migration_lock.h"

#include "pg/guard.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm::migrate {

namespace {

// Advisory locks of SQL use 1 and 2 here.
constexpr uint16 kLockSpace = 29;

LOCKTAG TagOf(const std::string &migration) {
  uint64 id = DatumGetUInt64(hash_any_extended(reinterpret_cast<const unsigned char *>(migration.data()),
                                               static_cast<int>(migration.size()), 0));
  LOCKTAG tag = {};
  SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(id >> 32), static_cast<uint32>(id), kLockSpace);
  return tag;
}

[[noreturn]] void ThrowInUse(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  auto rows = pg::Spi::Execute(
      "SELECT r.pid::text FROM redis_migrate.run AS r JOIN pg_locks AS l USING (pid) WHERE r.migration = $1 "
      "AND "
      "r.state = 'running' AND l.locktype = 'advisory' AND l.objsubid = $2 AND l.granted ORDER BY r.run_id "
      "DESC "
      "LIMIT 1",
      {pg::SqlParam::Text(migration), pg::SqlParam::Int4(kLockSpace)});
  if (rows.size() > 0)
    throw pg::Failure(ERRCODE_OBJECT_IN_USE, "migration \"" + migration + "\" is being run already",
                      "The process that runs it is " + rows[0].Text(0) + ".",
                      "SELECT * FROM redis_migrate.progress shows how far it is.");
  throw pg::Failure(ERRCODE_OBJECT_IN_USE, "migration \"" + migration + "\" is in use by another session",
                    "It is about to be run, or another transaction changes it.");
}

}  // namespace

MigrationLock::MigrationLock(const std::string &migration) : tag_(TagOf(migration)) {
  LockAcquireResult result = pg::Call([&] { return LockAcquire(&tag_, ExclusiveLock, true, true); });
  if (result == LOCKACQUIRE_OK) return;
  if (result != LOCKACQUIRE_NOT_AVAIL) pg::Call([&] { LockRelease(&tag_, ExclusiveLock, true); });
  ThrowInUse(migration);
}

MigrationLock::~MigrationLock() { LockRelease(&tag_, ExclusiveLock, true); }

void LockForChange(const std::string &migration) {
  LOCKTAG tag = TagOf(migration);
  LockAcquireResult result = pg::Call([&] { return LockAcquire(&tag, ExclusiveLock, false, true); });
  if (result == LOCKACQUIRE_NOT_AVAIL) ThrowInUse(migration);
}

}  // namespace prm::migrate
