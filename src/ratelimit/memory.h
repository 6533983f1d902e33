// The shared memory of rate limits: the states of keys, and counters per policy. It exists only if the
// library was preloaded.
#pragma once

#include "core/rate_limit.h"
#include "pg/shared_table.h"

namespace prm::ratelimit {

extern pg::SharedArea memory_area;

// Identifies the counters of a policy.
using Slot = uint16;

// The owner of the policy that a slot counts.
struct SlotOwner {
  Oid database;  // InvalidOid: nobody's
  Oid role;      // of the policy; InvalidOid for the limits of a database that have no policy
};

// Databases share a full bucket, then the roles of a database, then the policies of a role. Within a policy
// the key that recovers first is evicted first.
struct RateShares {
  SlotOwner (*owner)(const void *memory, Slot slot);
  const void *memory;

  static constexpr int kLevels = 3;
  uint64 Group(int level, Slot slot) const {
    const SlotOwner of = owner(memory, slot);
    if (level == 0) return of.database;
    if (level == 1) return uint64{of.database} << 32 | of.role;
    return slot;
  }
  static constexpr bool IsPrecious(const RateState &, pg::Seconds) { return false; }
  static constexpr int KindOf(const RateState &) { return 0; }
  static constexpr uint32 Worth(const RateState &) { return 0; }
};

using StateTable = pg::SharedTable<RateState, RateShares>;
extern StateTable state_table;
RateShares Shares();

inline bool MemoryAvailable() { return memory_area.memory() != nullptr; }

// The counters of a policy.
enum Counter { kAllowed, kLimited, kShadowed, kBlocked, kEvicted, kCounters };

// Policies without a slot share the first.
constexpr int kSlots = 1024;
constexpr Slot kSharedSlot = 0;

// A policy of a database; ad-hoc limits are counted as policy kAdHocPolicy of theirs.
struct PolicyKey {
  Oid database;
  int64 policy_id;
};
constexpr int64 kAdHocPolicy = -1;

// The slot of a policy; takes one if it has none. A database may take as many slots as it leaves free, so
// that there is always one for another database. If none is left and exists is given, frees those of policies
// for which exists() is false. kSharedSlot when that does not help. Takes a lock; calls exists() without it.
Slot SlotOf(const PolicyKey &policy, Oid role, bool (*exists)(const PolicyKey &));

// Forgets the states of a policy of this database when the current transaction has committed, unless it
// shares its slot.
void ForgetAtCommit(int64 policy_id);

// Adds to a counter. Cheap: the counters of a slot lie in several cache lines, of which each process uses
// one.
void Count(Slot slot, Counter counter, uint64 by = 1);
// The sums of a slot's counters.
void ReadCounters(Slot slot, uint64 (&counts)[kCounters]);
void ResetCounters(Slot slot);
// Reads the policy of a slot; false for a free one.
bool SlotPolicy(Slot slot, PolicyKey *policy);

// True at most once per minute and slot; *refused is then the number of refusals since the last time.
bool TimeToLogRefusals(Slot slot, int64 now, uint64 *refused);

// Saves the states to pg_stat/ below the data directory; false, with a LOG line, when that fails. One process
// saves at a time; decisions do not wait for it.
bool SaveShared();

// A background process calls it now and then: saves when something has changed and the interval of
// pg_redis_migrate.rate_limit_save_interval has passed. Returns the milliseconds until it is due, -1 while
// there is nothing to save: the first change calls pg::signal_save. Raises no errors.
long SaveIfDue();

// Nanoseconds since 1970.
inline int64 ClockNow() {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * pg::kSecondNs + now.tv_nsec;
}

}  // namespace prm::ratelimit
