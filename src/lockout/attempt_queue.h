// A bounded queue in shared memory of attempts to be written to the table redis_migrate.login_attempt. An
// attempt stays in the queue even if the transaction of the login rolls back. An orderly shutdown saves the
// queue, a crash loses it. When the queue is full, databases, the roles of a database and the policies of a
// role have equal shares of it: the largest holder loses its newest attempt, which is counted.
#pragma once

#include "lockout/lockout_table.h"
#include "pg/address.h"
#include "pg/pg.h"
#include "pg/shared_memory.h"

namespace prm::lockout {

using pg::Network;

extern pg::SharedArea attempt_area;

// Text of fixed size, cut between characters where it is longer.
template <int kSize>
struct ShortText {
  uint16 length;
  char bytes[kSize];

  void Set(std::string_view text) {
    int whole = static_cast<int>(std::min<size_t>(text.size(), INT_MAX));
    length = static_cast<uint16>(whole <= kSize ? whole : pg_mbcliplen(text.data(), whole, kSize));
    memcpy(bytes, text.data(), length);
  }
  std::string_view get() const { return {bytes, length}; }
};

// A row of login_attempt.
struct Attempt {
  int64 id;                  // its time in microseconds since 2000, made unique by adding one
  TimestampTz at;            // when it was made, by the clock that the function was given
  TimestampTz locked_until;  // 0: not locked
  TimestampTz result_by;     // 0: the result is there; otherwise when to stop waiting for it
  TimestampTz waits_from;    // when that wait began, in the same clock
  int64 token;               // of an attempt without a result, and whose it is
  uint64 who;
  Oid database;
  Oid owner;                        // of the policy
  LockoutTable::Table::Owner slot;  // where the policy is counted
  bool success;
  bool locks;           // a lock began
  bool has_success;     // false for other rows, such as a reset
  pg::Network address;  // family 0: none
  ShortText<128> policy;
  ShortText<NAMEDATALEN> notify_channel;
  ShortText<50> attempt_type;
  ShortText<32> locked_by;
  ShortText<128> reason;
  ShortText<256> user_name;
  ShortText<512> user_agent;
};

class AttemptQueue {
 public:
  // Puts an attempt of the policy of this slot, in this database, into the queue, gives it its id, and wakes
  // the writer. False when it is full and this policy holds most of it: the attempt is dropped and counted.
  static bool Put(LockoutTable::Table::Owner slot, Attempt *attempt);
  // Gives the result to the attempt of this token, in its place in the queue. False when it is not there: it
  // was dropped, or written without a result.
  static bool Settle(int64 token, uint64 who, const Attempt &result);

  // When the first attempt of this database can be written: 0 (at once) if it has its result, otherwise when
  // the wait for the result times out. nullopt when the queue has none.
  static std::optional<TimestampTz> Due();
  // Copies the oldest of those that can be written now, at most kMostCopied, into `attempts`; returns how
  // many. They stay in the queue until they are released.
  static constexpr int kMostCopied = 500;
  static int Copy(Attempt *attempts);
  static void Release(const Attempt *attempts, int count);

  // Makes the latch of this process be set whenever an attempt of this database comes, until the process ends
  // or another one of the database registers. May raise errors: call it through the guard.
  static void RegisterWriter();

  struct Counts {
    int64 capacity;
    int64 waiting;       // of all databases
    int64 waiting_here;  // of this one
    uint64 dropped;      // of all databases, since the server started
  };
  static Counts GetCounts();
};

}  // namespace prm::lockout
