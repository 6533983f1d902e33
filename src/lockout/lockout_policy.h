// Policies of login lockouts, from the tables lockout_policy and lockout_scope.
#pragma once

#include "core/lockout.h"
#include "pg/address.h"
#include "pg/owner.h"
#include "pg/pg.h"

namespace prm::lockout {

using pg::Network;

// The parts of a login that a scope may count by, as bits. Each combination of their values has a counter.
enum Component : int { kUserName = 1, kAddress = 2, kUserAgent = 4 };
constexpr int kMostScopes = 7;  // combinations of three components

// "user_name", "user_name+address", ...
std::string ScopeName(int components);
// Errors: 22023, naming the invalid component.
int ParseScope(const std::string &name);

struct LockoutScope {
  int components;
  LockoutRule rule;
};

struct LockoutPolicy {
  std::string name;
  pg_uuid_t id;  // new for each create_lockout, so that nothing is inherited from a dropped policy
  pg::Owner owner;
  std::vector<LockoutScope> scopes;  // at least one
  bool reset_on_success;
  bool fold_case;
  int ipv6_prefix;
  std::string notify_channel;  // "": none
  bool refuse_when_full;       // a login that cannot be counted is refused
  bool address_allowed;        // whether the given address is in allowed_networks
};

// Reads a policy, with an address to compare with its allowed_networks; needs an SPI connection. Errors:
// 42704 no such policy, 42501 without the rights of its owner.
LockoutPolicy LoadLockoutPolicy(const std::string &name, const pg::Network *address = nullptr);

// The host of an inet datum, whatever its netmask.
pg::Network HostOf(Datum address);

}  // namespace prm::lockout
