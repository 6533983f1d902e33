// The fourth field of our advisory lock tags, so that no two uses collide. The SQL functions use 1 and 2.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

enum LockSpace : uint16 {
  kMigrationLocks = 29,  // by the name of a migration
  kDatabaseLocks = 30,   // by database
  kPartLocks = 31,       // by run, level and part, or by verification and part
  kMappingLocks = 32,    // by mapping
  kJobLocks = 33,        // by job of expiry
  kAttemptLocks = 34,    // one for each database
  kPolicyLocks = 35,     // by owner of policies that take shared memory
  kFamilyLocks = 36,     // by the name of a migration
  kOutboxLocks = 37,     // by mapping
  kReverseLocks = 38,    // by reverse feed
  kCutoverLocks = 40,    // by the name of a migration
  kRestoreLocks = 41,    // by the name of a migration
};

}  // namespace prm::pg
