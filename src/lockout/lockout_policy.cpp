#include "lockout/lockout_policy.h"

#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"

namespace prm::lockout {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

namespace {

bool IsIn(Datum networks, const pg::Network &address) {
  Datum *elements = nullptr;
  int count = 0;
  pg::Call([&] {
    deconstruct_array(DatumGetArrayTypeP(networks), CIDROID, -1, false, TYPALIGN_INT, &elements, nullptr,
                      &count);
  });
  return std::any_of(elements, elements + count, [&](Datum network) {
    return pg::NetworkOf(pg::Call([&] { return DatumGetInetPP(network); })).Contains(address);
  });
}

constexpr struct {
  int component;
  const char *name;
} kComponents[] = {{kUserName, "user_name"}, {kAddress, "address"}, {kUserAgent, "user_agent"}};

CoolOffMode ParseMode(const std::string &name) {
  if (name == "rolling") return CoolOffMode::kRolling;
  return name == "inactivity" ? CoolOffMode::kInactivity : CoolOffMode::kFixed;
}

}  // namespace

std::string ScopeName(int components) {
  std::string name;
  for (const auto &component : kComponents)
    if (components & component.component) name += (name.empty() ? "" : "+") + std::string(component.name);
  return name;
}

int ParseScope(const std::string &name) {
  int components = 0;
  for (size_t begin = 0; begin <= name.size();) {
    size_t end = std::min(name.find('+', begin), name.size());
    std::string word = name.substr(begin, end - begin);
    int found = 0;
    for (const auto &component : kComponents)
      if (word == component.name) found = component.component;
    if (found == 0 || (components & found))
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "invalid scope \"" + name + "\"", "",
                    "A scope is user_name, address, user_agent, or several of them joined by +.");
    components |= found;
    begin = end + 1;
  }
  return components;
}

LockoutPolicy LoadLockoutPolicy(const std::string &name, const pg::Network *address) {
  Oid const user = GetUserId();
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::ExecuteKept(
      R"sql(SELECT p.policy_id, p.owner, p.reset_on_success, p.fold_case, p.ipv6_prefix,
                p.notify_channel, array_remove(p.allowed_networks, NULL), p.cool_off_mode,
                p.extend_on_attempt, p.time_window, p.pending_timeout, s.scope, s.failures,
                coalesce(s.cool_off, p.cool_off, p.time_window), p.when_full = 'refuse'
            FROM redis_migrate.lockout_policy AS p JOIN redis_migrate.lockout_scope AS s USING (policy)
            WHERE p.policy = $1
            ORDER BY s.scope, s.failures)sql",
      {SqlParam::Text(name)});
  if (rows.size() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, "lockout policy \"" + name + "\" does not exist", "",
                  "SELECT policy FROM redis_migrate.lockout_policies lists those you may use; "
                  "redis_migrate.create_lockout makes one.");
  pg::Row first = rows[0];
  pg::Owner const owner(first.Value(1));
  if (!pg::HasOwnerRights(owner, user)) {
    Oid const role = owner.role();
    const bool of_superuser = OidIsValid(role) && pg::Call([&] { return superuser_arg(role); });
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for lockout policy \"" + name + "\"",
                  pg::OwnerDetail(owner),
                  !OidIsValid(role) ? pg::OwnerHint(owner, "lockout", name)
                  : of_superuser
                      ? "Drop it, create it as a role that is not a superuser, and GRANT that role to the "
                        "role that needs the policy."
                      : "GRANT " + pg::QuoteIdentifier(owner.name()) + " TO the role that needs it.");
  }
  LockoutPolicy policy;
  policy.name = name;
  policy.id = *DatumGetUUIDP(first.Value(0));
  policy.owner = owner;
  policy.reset_on_success = first.Bool(2);
  policy.fold_case = first.Bool(3);
  policy.ipv6_prefix = first.Int4(4);
  policy.notify_channel = first.Text(5);
  policy.refuse_when_full = first.Bool(14);
  policy.address_allowed = address != nullptr && IsIn(first.Value(6), *address);
  for (uint64 i = 0; i < rows.size(); ++i) {
    int components = ParseScope(rows[i].Text(11));
    if (policy.scopes.empty() || policy.scopes.back().components != components) {
      LockoutScope &scope = policy.scopes.emplace_back();
      scope.components = components;
      scope.rule.mode = ParseMode(first.Text(7));
      scope.rule.extend_on_attempt = first.Bool(8);
      scope.rule.window = pg::IntervalUs(first.Value(9));
      scope.rule.pending_timeout = pg::IntervalUs(first.Value(10));
    }
    policy.scopes.back().rule.tiers.push_back({rows[i].Int4(12), pg::IntervalUs(rows[i].Value(13))});
  }
  return policy;
}

pg::Network HostOf(Datum address) {
  inet *host = pg::Call(
      [&] { return DatumGetInetPP(DirectFunctionCall2(inet_set_masklen, address, Int32GetDatum(-1))); });
  return pg::NetworkOf(host);
}

}  // namespace prm::lockout
