// The counters of lockouts in shared memory, so that they stay although the transaction of a login rolls
// back. Saved by the postmaster at shutdown and by the launcher every few seconds; a crash goes back to the
// last save.
#pragma once

#include "core/lockout.h"
#include "lockout/lockout_policy.h"
#include "pg/shared_table.h"

namespace prm::lockout {

using pg::kNever;
using pg::Seconds;

extern pg::SharedArea lockout_area;

// What is kept per counter: its state, and whose it is for resetting by one component. Hashes: no name and no
// address stands here.
struct LockoutEntry {
  LockoutState state;
  uint64 user_name;  // 0: the scope has no user name
  uint64 address;
};

// Statistics of one policy since the server was first started or they were reset.
enum LockoutStatistic {
  kChecks,     // login_check
  kAllowed,    // of these
  kLocked,     // refused by a lock
  kPending,    // refused because attempts in flight leave no room
  kExempt,     // allowed without counting: allowed network, or nothing to count by
  kSuccesses,  // login_result
  kFailures,
  kTimeouts,  // attempts without a result
  kLocks,     // locks that began
  kEvicted,   // counters that had to make room before their time
  kDropped,   // attempts that the full queue did not take
  kStatistics
};

class LockoutTable {
 public:
  using Table = pg::SharedTable<LockoutEntry>;

  // Errors: 55000 with a hint where the library is not preloaded.
  static void Require();
  static const Table &table();

  // Where a policy is counted: its slot among those of all databases. Policies beyond kSlots share the last.
  static constexpr int kSlots = 1024;
  static Table::Owner SlotOf(const pg_uuid_t &policy);
  // For a new policy: when all slots are taken it gets that of one for which exists() is false, whose
  // counters are forgotten. exists() is called without a lock and may raise errors.
  static void TakeSlot(const pg_uuid_t &policy, bool (*exists)(Oid database, const pg_uuid_t &policy));
  // The policy of this database that is counted there.
  static std::optional<pg_uuid_t> PolicyOf(int slot);
  static void Count(Table::Owner slot, LockoutStatistic what, uint64 times = 1);
  static uint64 Counted(Table::Owner slot, LockoutStatistic what);
  static TimestampTz CountedSince(Table::Owner slot);
  static void ResetCounts(Table::Owner slot);

  // To be called now and then by one background process: saves when something has changed and five seconds
  // have passed. Returns the milliseconds until it is due, -1 while there is nothing to save: the first
  // change calls pg::signal_save. Raises no errors.
  static long SaveIfDue();
};

// Times are PostgreSQL's: microseconds since 2000.
inline pg::Seconds SecondsOf(int64 time) {
  return static_cast<pg::Seconds>(std::clamp<int64>(time / USECS_PER_SEC, 0, int64{pg::kNever} - 1));
}
inline pg::Seconds SecondsAfter(int64 time) { return SecondsOf(time > 0 ? time - 1 : 0) + 1; }

}  // namespace prm::lockout
