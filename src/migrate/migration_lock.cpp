#include "migrate/migration_lock.h"

#include "pg/guard.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm::migrate {

namespace {

// Advisory locks of SQL use 1 and 2 here.
constexpr uint16 kLockSpace = 29;

}  // namespace

MigrationLock::MigrationLock(const std::string &migration) : tag_() {
  uint64 id = DatumGetUInt64(hash_any_extended(reinterpret_cast<const unsigned char *>(migration.data()),
                                               static_cast<int>(migration.size()), 0));
  SET_LOCKTAG_ADVISORY(tag_, MyDatabaseId, static_cast<uint32>(id >> 32), static_cast<uint32>(id),
                       kLockSpace);
  LockAcquireResult result = pg::Call([&] { return LockAcquire(&tag_, ExclusiveLock, true, true); });
  if (result == LOCKACQUIRE_OK) return;
  if (result != LOCKACQUIRE_NOT_AVAIL) pg::Call([&] { LockRelease(&tag_, ExclusiveLock, true); });
  std::string pid;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = pg::Spi::Execute(
        "SELECT pid::text FROM redis_migrate.run WHERE migration = $1 AND state = 'running' ORDER BY run_id "
        "DESC LIMIT 1",
        {pg::SqlParam::Text(migration)});
    if (rows.size() > 0) pid = rows[0].Text(0);
  }
  throw pg::Failure(ERRCODE_OBJECT_IN_USE, "migration \"" + migration + "\" is being run already",
                    pid.empty() ? "" : "The process that runs it is " + pid + ".",
                    "SELECT * FROM redis_migrate.progress shows how far it is.");
}

MigrationLock::~MigrationLock() { LockRelease(&tag_, ExclusiveLock, true); }

}  // namespace prm::migrate
