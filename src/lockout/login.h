// The counters of one login under a policy.
#pragma once

#include "lockout/attempt_queue.h"
#include "lockout/lockout_table.h"

namespace prm::lockout {

// A login as the application describes it. An empty user name has no counter, because anybody can send it;
// neither has a missing address. A missing user agent counts as a user agent of its own.
struct Login {
  std::string user_name;
  std::optional<pg::Network> address;
  std::string user_agent;
};

// The answer to the application.
struct Answer {
  bool allowed = true;
  const char *reason = "ok";       // ok, locked, pending, exempt, no_room
  int blocked_by = 0;              // the scope that refuses, or whose lock began
  int64 until = 0;                 // of blocked_by: end of the lock, or of the wait for a result
  std::optional<int32> remaining;  // failures that are left before a lock
  std::optional<int64> token;      // of an attempt that was reserved
  bool recorded = true;            // whether the queue has the attempt
};

// One counter of a login.
struct Counter {
  int components;
  LockoutStatus status;
  int32 failures;
  int32 reserved;
  int64 clock;
};

class LoginCounters {
 public:
  // Errors: those of LoadLockoutPolicy; 55000 where the library is not preloaded. Needs an SPI connection.
  LoginCounters(const std::string &policy, Login login);

  const LockoutPolicy &policy() const { return policy_; }

  // Reserves an attempt in all counters, or in none when one refuses. `now` in microseconds since 2000.
  Answer Check(int64 now, std::string_view attempt_type);
  // Settles an attempt. A failure for which memory has no room is counted as such, and refused.
  Answer Result(int64 now, bool success, std::optional<int64> token, std::string_view attempt_type,
                std::string_view reason);
  // Reads the counters without changing them.
  std::vector<Counter> Look(int64 now) const;
  // Reads one counter by another window and threshold; see prm::CountWithin. Nothing where the
  // login has no such counter.
  struct Judged {
    WindowCount count;
    int64 last_failure;  // 0: none
    bool full;           // memory has no room for the counter, and the policy refuses then
  };
  std::optional<Judged> Judge(int components, int64 window, int32 threshold, int64 now) const;
  // Imports failures that another system counted for exactly these components. With `for_ever` a lock by them
  // ends in a hundred years. Errors: 22023 without such a scope, 53400 without room.
  void Import(int components, int32 failures, int64 last, bool for_ever, int64 now);

  // Drops counters of the policy: all, or those of this login's user name, address or both. Returns how many.
  uint64 Reset(bool everything, int64 now) const;

  // A new attempt for the queue, with the data of this login.
  Attempt NewAttempt(int64 now, std::string_view attempt_type, std::string_view reason) const;
  bool Put(Attempt *attempt) const;

 private:
  using Table = LockoutTable::Table;
  // The counter of this login in a scope. Where memory is full of locks, addresses without a counter share
  // one for their network, unless the policy refuses them.
  struct Scope {
    const LockoutScope *scope;
    Hash128 key;
    std::optional<Hash128> network_key;
  };
  static constexpr int kMostKeys = 2 * kMostScopes;
  static_assert(kMostKeys <= Table::KeyLocks::kMostKeys);

  Hash128 KeyOf(std::string_view text) const;
  int Given() const;
  Hash128 ScopeKey(int components, const pg::Network &network) const;
  Scope ScopeOf(const LockoutScope &scope) const;
  // The caller holds the locks of the keys.
  static Table::Place Find(const Scope &scope, int64 now);
  // No place if memory is full and the policy refuses then. A new counter that is left empty is gone within a
  // second.
  Table::Place FindOrInsert(const Scope &scope, int64 now) const;
  // A scope whose counter has no room; nullptr if there is none.
  const LockoutScope *FullScope(int64 now) const;
  static void SetEnd(const Scope &scope, Table::Place place);
  int64 ReserveAll(int64 now) const;
  uint64 Who() const { return user_name_hash_ ^ address_hash_; }
  static void SetBlockedBy(const Answer &answer, Attempt *attempt);

  LockoutPolicy policy_;
  Login login_;
  pg::Network network_;  // the address as it is counted
  uint64 user_name_hash_ = 0;
  pg::Network shared_network_;  // shares a counter when memory is full
  uint64 address_hash_ = 0;
  uint64 shared_network_hash_ = 0;
  Table::Owner slot_;
  int count_ = 0;  // scopes that have a counter for this login
  Scope scopes_[kMostScopes];
  int key_count_ = 0;
  Hash128 keys_[kMostKeys];  // those of the scopes, for KeyLocks
};

}  // namespace prm::lockout
