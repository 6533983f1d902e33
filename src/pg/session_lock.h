// Advisory locks of the extension: those of a session, held for a scope, and those of a transaction.
#pragma once

#include "pg/lock_spaces.h"

namespace prm::pg {

// The tag of a lock in the current database. Ids may be hashes.
LOCKTAG LockTag(LockSpace space, uint64 id);

// Likewise, by a name.
LOCKTAG LockTagOfName(LockSpace space, const std::string &name);

// The tag of a lock that belongs to a database but is taken from any other, too.
LOCKTAG DatabaseLockTag(LockSpace space, Oid database);

// A lock of the session: held across transactions until the scope ends, also by an error.
class SessionLock {
 public:
  SessionLock(const LOCKTAG &tag, LOCKMODE mode) : tag_(tag), mode_(mode) {}
  SessionLock(const SessionLock &) = delete;
  SessionLock &operator=(const SessionLock &) = delete;
  ~SessionLock();

  // Does not wait. False when another session is in the way, or when this one has the lock already: what it
  // protects is not to be entered a second time by a trigger or procedure that the first calls. Errors: 53200
  // when the lock table is full.
  bool TryTake();
  // Likewise, but tries again for so long.
  bool TakeWithin(int64 wait_ms);
  bool held() const { return held_; }

  // Whether somebody waits for a lock that this one, which is held, is in the way of.
  bool HasWaiters() const;

 private:
  LOCKTAG tag_;
  LOCKMODE mode_;
  bool held_ = false;
};

// Takes a lock until the end of the transaction. Errors: 57014, 55P03, 40P01, as for any wait for a lock.
void LockInTransaction(const LOCKTAG &tag, LOCKMODE mode);

// Those who have a lock now.
class LockHolders {
 public:
  explicit LockHolders(const LOCKTAG &tag);

  // Whether all of them have ended their transactions. Neither waits nor takes the lock.
  bool HaveEnded();

 private:
  std::vector<VirtualTransactionId> left_;
};

// As LockInTransaction, but without waiting. False when another session is in the way.
bool TryLockInTransaction(const LOCKTAG &tag, LOCKMODE mode);

}  // namespace prm::pg
