#include "pg/policy_limit.h"

#include "pg/guard.h"
#include "pg/identity.h"
#include "pg/session_lock.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm::pg {

void CheckPolicyLimit(const char *kind, const char *table, Oid role) {
  LockInTransaction(LockTag(kPolicyLocks, role), ExclusiveLock);
  // Policies that others committed before the lock was free count, whatever the transaction's isolation
  // level.
  LatestSnapshotScope snapshot;
  auto rows = Spi::Execute(std::string("SELECT count(*) FROM redis_migrate.") + table +
                               " WHERE redis_migrate.owner_oid(owner) = $1",
                           {SqlParam::OidOf(role)}, true);
  const int64 owned = rows[0].Int8(0);
  if (owned < settings::max_policies_per_role) return;
  throw Failure(
      ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, std::string("too many ") + kind + " policies of one role",
      "Role " + QuoteIdentifier(Call([&] { return GetUserNameFromId(role, false); })) + " owns " +
          std::to_string(owned) + " in this database, and pg_redis_migrate.max_policies_per_role is " +
          std::to_string(settings::max_policies_per_role) + ".",
      "Drop unused ones, or let a superuser raise the setting, for the role by ALTER ROLE ... SET.");
}

}  // namespace prm::pg
