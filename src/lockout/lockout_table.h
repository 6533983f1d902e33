// The counters of lockouts in shared memory, where they survive a rollback of the login's transaction. The
// postmaster saves them at shutdown, the launcher every few seconds; a crash goes back to the last save.
#pragma once

#include "core/lockout.h"
#include "lockout/lockout_policy.h"
#include "pg/shared_table.h"

namespace prm::lockout {

using pg::kNever;
using pg::Seconds;

extern pg::SharedArea lockout_area;

// One counter: its state, and hashes of its user name, address and policy, so that a reset finds it by one
// component.
struct LockoutEntry {
  LockoutState state;
  uint64 user_name;  // 0: the scope has no user name
  uint64 address;
  uint32 policy;         // a hash, see LockoutTable::PolicyHash
  Seconds locked_until;  // 0: not locked
};

// Whom a counter is charged to: a place in a list of the policies of all databases.
struct PolicySlot {
  Oid database;  // 0: free
  Oid role;      // the policy's owner
};

// Databases share a full bucket, then the roles of a database, then the policies of a role. Within a policy
// locks are evicted last; locks of user names and locks of addresses have a share each.
struct LockoutShares {
  using Owner = uint16;
  PolicySlot (*slot)(const void *memory, Owner owner);
  const void *memory;

  static constexpr int kLevels = 3;
  uint64 Group(int level, Owner owner) const {
    const PolicySlot of = slot(memory, owner);
    if (level == 0) return of.database;
    if (level == 1) return uint64{of.database} << 32 | of.role;
    return owner;
  }
  static bool IsPrecious(const LockoutEntry &entry, Seconds now) { return entry.locked_until > now; }
  static int KindOf(const LockoutEntry &entry) { return entry.user_name != 0; }
  static uint32 Worth(const LockoutEntry &entry) {
    return static_cast<uint32>(entry.state.failures) + static_cast<uint32>(entry.state.reserved);
  }
};

// Statistics of one policy since the server was first started or they were reset.
enum LockoutStatistic {
  kChecks,     // login_check
  kAllowed,    // of these
  kLocked,     // refused by a lock
  kPending,    // refused because attempts in flight leave no room
  kExempt,     // allowed without counting: allowed network, or nothing to count by
  kNoRoom,     // refused because memory is full
  kSuccesses,  // login_result
  kFailures,
  kUncounted,       // of these failures, those for which memory had no room
  kTimeouts,        // attempts without a result
  kLocks,           // locks that began
  kEvicted,         // counters that were evicted before they expired
  kLocksEvicted,    // of these, counters that were locking
  kSharedCounters,  // counters for a whole network, begun because memory was full
  kDropped,         // attempts that the full queue dropped
  kStatistics
};

class LockoutTable {
 public:
  using Table = pg::SharedTable<LockoutEntry, LockoutShares>;

  // Errors: 55000, with a hint, if the library is not preloaded.
  static void Require();
  static const Table &table();
  static LockoutShares Shares();
  // Inserts an entry and counts what was evicted for it; see SharedTable::Insert.
  static Table::Place Insert(const Hash128 &key, Table::Owner slot, const LockoutEntry &entry, Seconds now,
                             Seconds expires, Table::Spare spare);

  // A hash that tells the policies of all databases apart in the entries.
  static uint32 PolicyHash(const pg_uuid_t &policy);
  // Forgets the counters of a policy when the current transaction has committed.
  static void ForgetAtCommit(const pg_uuid_t &policy);

  // The slot of a policy of this database. A database may take as many slots as it leaves free, so that there
  // is always one for another database; further policies share the last slot.
  static constexpr int kSlots = 1024;
  static Table::Owner SlotOf(const pg_uuid_t &policy, Oid role);
  // Gives a new policy a slot; if there is none, that of a policy for which exists() is false. exists() is
  // called without a lock and may raise errors.
  static void TakeSlot(const pg_uuid_t &policy, Oid role,
                       bool (*exists)(Oid database, const pg_uuid_t &policy));
  // The slot of the largest holder: the database that holds most, then its role, then the role's policy.
  // `newcomer` has one more than `held` says; of equal holders it is chosen.
  static Table::Owner LargestShare(const uint32 *held, Table::Owner newcomer);
  // The policy of this database in that slot; nullopt for the shared one.
  static std::optional<pg_uuid_t> PolicyOf(int slot);
  static void Count(Table::Owner slot, LockoutStatistic what, uint64 times = 1);
  static uint64 Counted(Table::Owner slot, LockoutStatistic what);
  static TimestampTz CountedSince(Table::Owner slot);
  static void ResetCounts(Table::Owner slot);

  // One background process calls it now and then: saves when something has changed and five seconds have
  // passed. Returns the milliseconds until it is due, -1 while there is nothing to save: the first change
  // calls pg::signal_save. Raises no errors.
  static long SaveIfDue();
};

// Times are PostgreSQL's: microseconds since 2000.
inline pg::Seconds SecondsOf(int64 time) {
  return static_cast<pg::Seconds>(std::clamp<int64>(time / USECS_PER_SEC, 0, int64{pg::kNever} - 1));
}
inline pg::Seconds SecondsAfter(int64 time) { return SecondsOf(time > 0 ? time - 1 : 0) + 1; }

}  // namespace prm::lockout
