// The session's cache of rate limit policies: read once, and again after a change.
#pragma once

#include "core/rate_limit.h"
#include "core/siphash.h"
#include "pg/address.h"
#include "pg/owner.h"
#include "pg/pg.h"
#include "pg/time.h"

namespace prm::ratelimit {

// The year 2100 in nanoseconds since 1970. A time before it and the duration of any limit add up without
// overflow.
constexpr int64 kLatestTime = INT64CONST(4102444800) * pg::kSecondNs;

enum class Storage { kMemory, kTable, kUnloggedTable };

// An exception of a policy for some keys: an allow or deny list, or other numbers.
struct KeyRule {
  bool allow = false;
  bool deny = false;
  int64 deny_until = 0;  // nanoseconds since 1970; 0: for ever
  int64 deny_from = 0;   // when it was put on the list

  // For how long the clock has been ahead, and was set back, since the key was put on the list: it is denied
  // for so much less. 0: it has not, by more than a second.
  int64 AheadBy(int64 now) const { return deny_from - now > pg::kSecondNs ? deny_from - now : 0; }
  std::optional<RateLimit> limit;  // an override
};

struct NetworkRule {
  pg::Network network;
  KeyRule rule;
};

struct Policy {
  int64 id = 0;
  std::string name;
  pg::Owner owner;
  Oid extension_owner = InvalidOid;  // who may write the states' tables
  RateLimit limit;
  Storage storage = Storage::kMemory;
  bool inet_keys = false;  // text keys are addresses
  int ipv6_prefix = 64;
  bool shadow = false;
  bool fail_open = false;
  uint16 slot = 0;      // where it is counted, if there is shared memory
  SipKey key_secret{};  // for the fingerprints of its keys
  std::unordered_map<std::string, KeyRule> keys;
  std::vector<NetworkRule> networks;  // the longest prefix first

  // The rule for this key; nullptr if there is none.
  const KeyRule *RuleFor(Bytes key, const pg::Network *address) const;
};

// Processes changes of policies, at most once per statement. Invalidates policies found before.
void RefreshPolicies();
// Makes the next RefreshPolicies read all policies again.
void ForgetPolicies();

// The policy of that name; valid until RefreshPolicies.
// Errors: 42704 when there is none.
const Policy &PolicyNamed(Bytes name);

// The secret for fingerprints of keys, derived from an identity and its database.
SipKey KeySecret(Bytes identity);

// Puts the key, argument 1, on the deny list of the policy, argument 0. Errors: 42501 unless the caller has
// the rights of the policy's owner.
void DenyForEver(FunctionCallInfo fcinfo);

// Errors: 22023 for an unknown name.
RateAlgorithm AlgorithmNamed(const std::string &name);
Storage StorageNamed(const std::string &name);

}  // namespace prm::ratelimit
