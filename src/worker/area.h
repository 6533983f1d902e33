// The shared memory of the workers as it lies there. Only slots.cpp, databases.cpp and area.cpp know it.
#pragma once

#include "pg/guard.h"
#include "worker/slots.h"

namespace prm::worker {

constexpr int kMaxDatabases = 64;

// The launcher's note of a database whose scheduler has ended.
struct DatabaseEntry {
  Oid database;   // InvalidOid: the entry is free
  bool wanted;    // something has changed since the scheduler looked last, or it ended without telling
  bool is_told;   // somebody was signalled and has not looked yet
  bool prepares;  // transactions that define work have been prepared there
  bool has_due;   // whether there is something to do at `due`
  TimestampTz due;
  uint32 changes;       // counts what sets `wanted`
  uint32 failures;      // launches in a row that came to nothing
  int64 not_before_ms;  // monotonic
};

struct Area {
  LWLock lock;
  int64 incarnation;
  bool after_crash;
  int slot_count;
  int worker_limit;  // slots for others than launcher and schedulers
  DatabaseEntry databases[kMaxDatabases];
  Slot slots[FLEXIBLE_ARRAY_MEMBER];
};

extern Area *area;  // nullptr before RequireSlots

// The area's lock for a scope. Held over plain stores only, so that no process can end while it has it; a
// process that is killed takes the whole cluster's shared memory with it.
class Locked {
 public:
  explicit Locked(LWLockMode mode) {
    pg::Call([&] { LWLockAcquire(&area->lock, mode); });
  }
  ~Locked() { LWLockRelease(&area->lock); }
  Locked(const Locked &) = delete;
  Locked &operator=(const Locked &) = delete;
};

// Makes whoever launches workers look again: the database's scheduler, or else the launcher. Under the lock;
// raises no errors. Without `again` the launcher looks, and nothing is to be done in the database.
void WakeManagersLocked(Oid database, bool again);

}  // namespace prm::worker
