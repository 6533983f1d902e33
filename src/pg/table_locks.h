// Waits for locks with a limit, and locks on several tables at once, beside those who write to them in
// another order.
#pragma once

#include "pg/identity.h"
#include "pg/wait.h"

namespace prm::pg {

struct TableLock {
  std::string table;  // schema-qualified and quoted; no foreign table
  const char *mode;   // as in LOCK TABLE: SHARE ROW EXCLUSIVE
};

// Takes these locks until the end of the transaction, with those on partitions, before a moment of the
// monotonic clock. While it waits longer for one it has none of the others, be they partitions: whoever has
// written to one table and is about to write to another waits for a moment at most, and neither ends in a
// deadlock. That does not hold for what the transaction has locked before, nor for partitions that the caller
// may not lock but with their parents: a deadlock in which this call is the one that ends is tried again, but
// it may be the other one. Needs SPI. Errors: 55P03, naming the table, if one of them is not to be had in
// time; 42501 without the right to lock it; 57014.
void LockTables(const std::vector<TableLock> &locks, int64 until_ms);

// Runs take(), which waits for locks, for so many milliseconds at most, also where cancels are held. The
// caller is in a subtransaction, in which 55P03 ends the wait. Errors: 55P03, those of `take`.
template <typename Take>
void LockWithin(int64 wait_ms, Take take) {
  CancelAllowed const allowed;  // lock_timeout ends a wait by the same means
  LocalSettings patience;
  patience.Set("lock_timeout", std::to_string(std::max(wait_ms, int64{1})));
  take();
  CheckInterrupts();  // lock_timeout may have come with the lock
}

// As LockInTransaction (pg/session_lock.h), but waits no longer than so many milliseconds; false then.
// Errors: 40P01, 57014.
bool LockInTransactionWithin(const LOCKTAG &tag, LOCKMODE mode, int64 wait_ms);

// Until when a call waits for locks that has no limit of its own: for lock_timeout, or ten seconds if that is
// not set. Who comes after a call that waits for a lock waits, too.
int64 EndOfPatience();

}  // namespace prm::pg
