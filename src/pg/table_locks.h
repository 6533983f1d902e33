// Locks on several tables at once, beside those who write to them in another order.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

struct TableLock {
  std::string table;  // schema-qualified and quoted; no foreign table
  const char *mode;   // as in LOCK TABLE: SHARE ROW EXCLUSIVE
};

// Takes these locks until the end of the transaction, with those on partitions, before a moment of the
// monotonic clock. While it waits longer for one it has none of the others: whoever has written to one table
// and is about to write to another waits for a moment at most, and neither ends in a deadlock. That does not
// hold for what the transaction has locked before, nor between a table and its partitions: a deadlock in
// which this call is the one that ends is tried again, but it may be the other one. Needs SPI. Errors: 55P03,
// naming the table, if one of them is not to be had in time; 42501 without the right to lock it; 57014.
void LockTables(std::vector<TableLock> locks, int64 until_ms);

// Until when a call waits for locks that has no limit of its own: for lock_timeout, or ten seconds if that is
// not set. Who comes after a call that waits for a lock waits, too.
int64 EndOfPatience();

}  // namespace prm::pg
