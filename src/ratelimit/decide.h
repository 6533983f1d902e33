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
  kUnavailable,  // the policy is unavailable and fails open
};

struct Outcome {
  bool allowed = false;
  Reason reason = Reason::kOk;
  int64 quota = 0;  // the most that can remain
  int64 remaining = 0;
  int64 retry = -1;  // nanoseconds until the same request passes; -1: not applicable
  int64 reset = 0;   // nanoseconds until all of it remains; -1: never
  int64 now = 0;     // when it was decided, in nanoseconds since 1970
};

// The key of a request: a text, or an address folded to the prefix of the policy.
struct Key {
  Bytes text;
  pg::Network address;
  bool is_address = false;
  pg::Network host = {};  // the address as it was given, for the lists

  const pg::Network *listed() const { return is_address ? &host : nullptr; }
};

struct Request {
  const Policy *policy = nullptr;
  Key key;
  int64 cost = 1;
  // The time in nanoseconds since 1970. Without it the clock is read with the key's lock held, so that it
  // never runs backwards for a key.
  std::optional<int64> at = std::nullopt;
};

// A text key of a policy, parsed as an address if the policy's key_type is inet. Errors: 22P02 for an invalid
// address.
Key TextKey(const Policy &policy, Bytes text);
Key AddressKey(const Policy &policy, const inet *address);

// Decides and counts. Errors: 55000 when the policy's memory is missing, 25006 when its table cannot be
// written, unless the policy fails open. 22023 for a negative cost.
Outcome Decide(const Request &request);

// All or nothing: if one request is refused, none is charged. Each gets the answer it would have had alone.
// Rows are locked in one order everywhere, tables before memory. Errors: those of Decide, 22023 for more than
// StateTable::KeyLocks::kMostKeys requests or the same key twice.
std::vector<Outcome> DecideTogether(const std::vector<Request> &requests);

// Gives cost back, at most until all of it remains. Returns what remains.
int64 GiveBack(const Request &request);

// Imports the state of another system, unless the key's own state leaves less. Returns what remains.
int64 Import(const Request &request, const RateState &imported);

// Forgets the key's state. Returns whether there was one.
bool Forget(const Request &request);

}  // namespace prm::ratelimit
