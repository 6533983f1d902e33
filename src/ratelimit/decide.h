// Decisions: a policy, a key and a cost become an answer, in shared memory or in a table.
#pragma once

#include "ratelimit/policy.h"

namespace prm::ratelimit {

enum class Reason {
  kOk,
  kLimited,
  kCostExceedsLimit,
  kAllowlisted,
  kDenylisted,
  kBlocked,      // on the deny list for a time
  kShadow,       // would have been refused; the policy only counts
  kUnavailable,  // nobody could tell, and the policy fails open
};

struct Outcome {
  bool allowed = false;
  Reason reason = Reason::kOk;
  int64 quota = 0;  // the most that can remain
  int64 remaining = 0;
  int64 retry = -1;  // nanoseconds until the same request passes; -1 where that says nothing
  int64 reset = 0;   // nanoseconds until all of it remains; -1: never
  int64 now = 0;     // when it was decided, in nanoseconds since 1970
};

// The key of a request: a text, or an address folded to the prefix of the policy.
struct Key {
  Bytes text;
  pg::Network address;
  bool is_address = false;
};

struct Request {
  const Policy *policy = nullptr;
  Key key;
  int64 cost = 1;
  // When, in nanoseconds since 1970; nothing for now: the clock is then read with the key's lock held, so
  // that among all who ask for a key it never runs backwards.
  std::optional<int64> at = std::nullopt;
};

// A text key of a policy: an address where the policy says so. Errors: 22P02 for what is no address.
Key TextKey(const Policy &policy, Bytes text);
Key AddressKey(const Policy &policy, const inet *address);

// Decides and counts. Errors: 55000 when the policy's memory is not there, 25006 when its table cannot be
// written; neither when it fails open. 22023 for a negative cost.
Outcome Decide(const Request &request);

// All or nothing: when one request is refused no other is charged either; each learns what it would have been
// told alone. Rows are locked in one order everywhere, tables before memory.
// Errors: those of Decide, 22023 for more than StateTable::KeyLocks::kMostKeys requests or the same key
// twice.
std::vector<Outcome> DecideTogether(const std::vector<Request> &requests);

// Gives cost back, at most until all of it remains. Returns what remains.
int64 GiveBack(const Request &request);

// The key goes on from what another system remembers, unless its own state leaves less. Returns what remains.
int64 Import(const Request &request, const RateState &imported);

// Forgets the key's state. Returns whether there was one.
bool Forget(const Request &request);

}  // namespace prm::ratelimit
