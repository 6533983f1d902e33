// The locks of running migrations: one process leads a run, others may take part in it, each reading a part
// of its own.
#pragma once

#include "pg/session_lock.h"

namespace prm {

// The lock of the process that leads.
class MigrationLock {
 public:
  // waits: until nobody has it any more, or changes the migration. Otherwise the wait is as short as the end
  // of a transaction, and then 55006 is raised when another session leads or takes part in a run of the
  // migration, or changes it; the detail says which.
  explicit MigrationLock(const std::string &migration, bool waits = false);

  // Whether somebody waits to change the migration, see LockBesideLiveRun.
  bool HasWaiters() const { return lock_.HasWaiters(); }

 private:
  pg::SessionLock lock_;
};

// The lock of a process that takes part: as long as one has it, nobody else can begin a run or change the
// migration.
class MemberLock {
 public:
  // Errors: 55006, likewise, when another transaction changes the migration.
  explicit MemberLock(const std::string &migration);

  // Whether somebody leads a run of the migration at this moment.
  bool HasLeader() const;

 private:
  std::string migration_;
  pg::SessionLock lock_;
};

// The lock of the process that reads a part of a run or of a verification.
class PartLock {
 public:
  // In place of the level of a run: the id is that of a verification. Its part 0 is the process that leads.
  static constexpr int kVerification = -1;

  PartLock(int64 id, int level, int part);
  // False: somebody else reads it.
  bool taken() const { return lock_.held(); }

 private:
  pg::SessionLock lock_;
};

// Keeps runs away until the end of the transaction, for a change that must not happen during a run. Errors:
// 55006.
void LockForChange(const std::string &migration);

// Likewise; but a live run that has loaded its snapshot makes way, and goes on with what the caller has
// changed when the transaction ends. True: there is such a run. Waits for it. Errors: 55006, and those of a
// wait for a lock.
bool LockBesideLiveRun(const std::string &migration);

// Keeps others from changing the migration until the end of the transaction; runs may go on, but none begins.
// Errors: 55006.
void LockBesideRuns(const std::string &migration);

// Keeps others from storing rows of the mapping until the end of the transaction. A mapping whose rows may
// come from several keys needs that: otherwise the lowest key could be missed.
void LockMapping(int64 mapping_id);

}  // namespace prm
