// The locks of running migrations: one process leads a run, others may take part in it, each reading a part
// of its own.
#pragma once

#include "pg/pg.h"

namespace prm {

// A lock of the session for a scope: held across transactions, and released also by an error.
class RunLock {
 public:
  RunLock(const RunLock &) = delete;
  RunLock &operator=(const RunLock &) = delete;
  ~RunLock();

 protected:
  RunLock(const LOCKTAG &tag, LOCKMODE mode) : tag_(tag), mode_(mode) {}
  // False when the session has it already, or when it would have to wait.
  bool Take();

 private:
  LOCKTAG tag_;
  LOCKMODE mode_;
  bool held_ = false;
};

// The lock of the process that leads. Errors: 55006 when another session leads or takes part in a run of the
// migration, or changes it; the detail says which.
class MigrationLock : public RunLock {
 public:
  explicit MigrationLock(const std::string &migration);
};

// The lock of a process that takes part: as long as one has it, nobody else can begin a run or change the
// migration.
class MemberLock : public RunLock {
 public:
  // Errors: 55006 when another transaction changes the migration.
  explicit MemberLock(const std::string &migration);

  // Whether somebody leads a run of the migration at this moment.
  bool HasLeader() const;

 private:
  std::string migration_;
};

// The lock of the process that reads a part.
class PartLock : public RunLock {
 public:
  PartLock(int64 run_id, int level, int part);
  // False: somebody else reads it.
  bool taken() const { return taken_; }

 private:
  bool taken_;
};

// For a change that a run must not meet half way: keeps runs away until the end of the transaction. Errors:
// 55006.
void LockForChange(const std::string &migration);

// Until the end of the transaction: nobody else stores rows of the mapping. For those whose rows may come
// from several keys: with another process in between, the lowest key would not be found.
void LockMapping(int64 mapping_id);

}  // namespace prm
