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

// One counter: its state, and whose it is, so that a reset finds it by one component. Names and addresses are
// kept as hashes only.
struct LockoutEntry {
  LockoutState state;
  uint64 user_name;  // 0: the scope has no user name
  uint64 address;
  uint32 policy;         // a hash, see LockoutTable::PolicyHash
  Seconds locked_until;  // 0: not locked
};

// Where the counters of a policy are counted: a place in a list of all databases' policies.
struct PolicySlot {
  Oid database;  // 0: free
  Oid role;      // the policy's owner
};

// Databases share a full bucket, then the roles of a database, then the policies of a role. Within a policy
// locks go last, and those of user names and those of addresses have a share each.
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
  kSuccesses,  // login_result
  kFailures,
  kTimeouts,        // attempts without a result
  kLocks,           // locks that began
  kEvicted,         // counters that had to make room before their time
  kLocksEvicted,    // of these, counters that were locking
  kSharedCounters,  // counters for a whole network that began because memory was full
  kDropped,         // attempts that the full queue did not keep
  kStatistics
};

class LockoutTable {
 public:
  using Table = pg::SharedTable<LockoutEntry, LockoutShares>;

  // Errors: 55000 with a hint where the library is not preloaded.
  static void Require();
  static const Table &table();
  static LockoutShares Shares();
  // Makes an entry and counts what had to go for it; see SharedTable::Insert.
  static Table::Place Insert(const Hash128 &key, Table::Owner slot, const LockoutEntry &entry, Seconds now,
                             Seconds expires, Table::Spare spare);

  // Tells the policies of this server's databases apart in their entries.
  static uint32 PolicyHash(const pg_uuid_t &policy);
  // Forgets the counters of a policy when the current transaction has committed.
  static void ForgetAtCommit(const pg_uuid_t &policy);

  // Where a policy of this database is counted. A database may take as many slots as it leaves free, so that
  // there is always one for another database; policies beyond share the last.
  static constexpr int kSlots = 1024;
  static Table::Owner SlotOf(const pg_uuid_t &policy, Oid role);
  // For a new policy: where there is no slot for it, it gets that of one for which exists() is false.
  // exists() is called without a lock and may raise errors.
  static void TakeSlot(const pg_uuid_t &policy, Oid role,
                       bool (*exists)(Oid database, const pg_uuid_t &policy));
  // The slot that has most of something: of the database that has most, of its roles, of their policies.
  // `newcomer` has one more than `held` says; where others have as many, it is the one.
  static Table::Owner LargestShare(const uint32 *held, Table::Owner newcomer);
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
