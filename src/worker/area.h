// The layout of the workers' shared memory. Only slots.cpp, databases.cpp and area.cpp know it.
#pragma once

#include "pg/guard.h"
#include "worker/slots.h"

namespace prm::worker {

constexpr int kMaxDatabases = 64;

// The launcher's note of a database whose scheduler has ended.
struct DatabaseEntry {
  Oid database;   // InvalidOid: the entry is free
  bool wanted;    // something has changed since the scheduler last looked, or the scheduler died
  bool is_told;   // a process was signalled and has not looked yet
  bool prepares;  // transactions that define work have been prepared there
  bool has_due;   // whether there is something to do at `due`
  TimestampTz due;
  TimestampTz parked_at;  // by the same clock
  uint32 changes;         // counts what sets `wanted`
  uint32 failures;        // failed launches in a row
  int64 not_before_ms;    // monotonic
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

// The area's lock for a scope. Held only for plain stores, so that no process can exit while it holds the
// lock. If a process is killed, the postmaster resets all shared memory.
class Locked {
 public:
  explicit Locked(LWLockMode mode) {
    pg::Call([&] { LWLockAcquire(&area->lock, mode); });
  }
  ~Locked() { LWLockRelease(&area->lock); }
  Locked(const Locked &) = delete;
  Locked &operator=(const Locked &) = delete;
};

// Wakes the process that launches workers: the database's scheduler, or else the launcher. Needs the lock;
// raises no errors. Without `again` the launcher only looks, and there is no work in the database.
void WakeManagersLocked(Oid database, bool again);

}  // namespace prm::worker
