// One run of a migration at a time.
#pragma once

#include "pg/pg.h"

namespace prm::migrate {

// Held for a scope, across transactions, and released also by an error. Errors: 55006 when another session
// holds it; the detail says which.
class MigrationLock {
 public:
  explicit MigrationLock(const std::string &migration);
  ~MigrationLock();
  MigrationLock(const MigrationLock &) = delete;
  MigrationLock &operator=(const MigrationLock &) = delete;

 private:
  LOCKTAG tag_;
};

// For a change that a run must not meet half way: keeps runs away until the end of the transaction. Errors:
// 55006.
void LockForChange(const std::string &migration);

}  // namespace prm::migrate
