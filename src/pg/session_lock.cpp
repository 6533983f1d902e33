#include "pg/session_lock.h"

#include "pg/background.h"
#include "pg/guard.h"
#include "pg/wait.h"

namespace prm::pg {

namespace {

constexpr long kLookAgainMs = 20;

}  // namespace

LOCKTAG LockTag(LockSpace space, uint64 id) {
  LOCKTAG tag = {};
  SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(id >> 32), static_cast<uint32>(id), space);
  return tag;
}

LOCKTAG LockTagOfName(LockSpace space, const std::string &name) {
  return LockTag(space, DatumGetUInt64(hash_any_extended(reinterpret_cast<const unsigned char *>(name.data()),
                                                         static_cast<int>(name.size()), 0)));
}

LOCKTAG DatabaseLockTag(LockSpace space, Oid database) {
  LOCKTAG tag = {};
  SET_LOCKTAG_ADVISORY(tag, InvalidOid, database, 0, space);
  return tag;
}

bool SessionLock::TryTake() {
  LockAcquireResult const result = Call([&] { return LockAcquire(&tag_, mode_, true, true); });
  if (result == LOCKACQUIRE_OK)
    held_ = true;
  else if (result != LOCKACQUIRE_NOT_AVAIL)
    Call([&] { LockRelease(&tag_, mode_, true); });  // the lock counts how often the session has taken it
  return result == LOCKACQUIRE_OK;
}

bool SessionLock::TakeWithin(int64 wait_ms) {
  int64 const end = MonotonicMs() + wait_ms;
  while (!TryTake()) {
    if (MonotonicMs() >= end) return false;
    Sleep(kLookAgainMs);
  }
  return true;
}

bool SessionLock::HasWaiters() const {
  return Call([&] { return LockHasWaiters(&tag_, mode_, true); });
}

SessionLock::~SessionLock() {
  if (held_) LockRelease(&tag_, mode_, true);
}

void LockInTransaction(const LOCKTAG &tag, LOCKMODE mode) {
  Call([&] { (void)LockAcquire(&tag, mode, false, false); });
}

LockHolders::LockHolders(const LOCKTAG &tag) {
  int count = 0;
  const VirtualTransactionId *const holders =
      Call([&] { return GetLockConflicts(&tag, ExclusiveLock, &count); });
  left_.assign(holders, holders + count);
}

bool LockHolders::HaveEnded() {
  while (!left_.empty()) {
    VirtualTransactionId const holder = left_.back();
    if (!Call([&] { return VirtualXactLock(holder, false); })) return false;
    left_.pop_back();
  }
  return true;
}

bool TryLockInTransaction(const LOCKTAG &tag, LOCKMODE mode) {
  return Call([&] { return LockAcquire(&tag, mode, false, true); }) != LOCKACQUIRE_NOT_AVAIL;
}

}  // namespace prm::pg
