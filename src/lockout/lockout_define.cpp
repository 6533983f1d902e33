// The SQL functions that define policies of lockouts.
#include "lockout/lockout_table.h"
#include "pg/argument_ranges.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/policy_limit.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm::lockout {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

constexpr int kMostFailures = 10000;
constexpr size_t kLongestPolicy = 128;  // the size of the field in the queue of attempts

// The properties that create_lockout and alter_lockout take, from argument 2 on, as columns.
struct Property {
  const char *column;
  Oid type;
};
constexpr Property kProperties[] = {{"time_window", INTERVALOID},
                                    {"cool_off", INTERVALOID},
                                    {"cool_off_mode", TEXTOID},
                                    {"extend_on_attempt", BOOLOID},
                                    {"reset_on_success", BOOLOID},
                                    {"fold_case", BOOLOID},
                                    {"ipv6_prefix", INT4OID},
                                    {"allowed_networks", CIDRARRAYOID},
                                    {"pending_timeout", INTERVALOID},
                                    {"notify_channel", TEXTOID},
                                    {"when_full", TEXTOID}};

[[noreturn]] void Refuse(const std::string &message, const std::string &detail = "",
                         const std::string &hint = "") {
  throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, message, detail, hint);
}

void CheckPolicy(const LockoutPolicy &policy) {
  for (const LockoutScope &scope : policy.scopes) {
    const LockoutRule &rule = scope.rule;
    std::string name = ScopeName(scope.components);
    pg::CheckDuration("time_window", rule.window, pg::kMillisecond);
    pg::CheckDuration("pending_timeout", rule.pending_timeout, pg::kSecond);
    for (const LockoutTier &tier : rule.tiers) {
      if (tier.failures < 1 || tier.failures > kMostFailures)
        Refuse("scope " + name + " has a threshold of " + std::to_string(tier.failures) + " failures",
               "It must be between 1 and " + std::to_string(kMostFailures) + ".");
      pg::CheckDuration("cool_off", tier.cool_off, pg::kMillisecond);
    }
    if (rule.mode == CoolOffMode::kRolling && rule.progressive())
      Refuse("scope " + name + " cannot have several thresholds with cool_off_mode rolling",
             "A rolling lock ends when enough failures have left the window.", "Use fixed or inactivity.");
  }
  pg::CheckNumber("ipv6_prefix", policy.ipv6_prefix, 1, 128);
  if (policy.notify_channel.size() >= NAMEDATALEN) Refuse("notify_channel is longer than 63 bytes");
}

// {"user_name": 5, "user_name+address": {"3": "15 minutes", "6": "2 hours"}}
void InsertScopes(const std::string &policy, Datum scopes) {
  auto rows = Spi::Execute(
      R"sql(SELECT s.key, jsonb_typeof(s.value), t.key, t.value
            FROM jsonb_each($1) AS s
              LEFT JOIN LATERAL jsonb_each_text(
                  CASE jsonb_typeof(s.value) WHEN 'object' THEN s.value
                                             WHEN 'number' THEN jsonb_build_object(s.value #>> '{}', NULL)
                  END) AS t ON true)sql",
      {SqlParam{JSONBOID, scopes, false}});
  if (rows.size() == 0)
    Refuse("scopes must not be empty", "", "Write, for example, '{\"user_name\": 5, \"address\": 15}'.");
  std::set<int> seen;
  std::string last;
  for (uint64 i = 0; i < rows.size(); ++i) {
    std::string name = rows[i].Text(0);
    int components = ParseScope(name);
    if (name != last && !seen.insert(components).second)
      Refuse("scope " + ScopeName(components) + " is given twice");
    last = name;
    if (rows[i].IsNull(2))
      Refuse(
          "scope " + name + " needs a number of failures", "Its value is a JSON " + rows[i].Text(1) + ".",
          "Give a number, or several with how long each locks: {\"3\": \"15 minutes\", \"6\": \"2 hours\"}.");
    Spi::Execute(
        R"sql(INSERT INTO redis_migrate.lockout_scope (policy, scope, failures, cool_off)
              VALUES ($1, $2, $3::integer, $4::interval))sql",
        {SqlParam::Text(policy), SqlParam::Text(ScopeName(components)), SqlParam::Text(rows[i].Text(2)),
         SqlParam::OptionalText(rows[i].OptionalText(3))});
  }
}

// The record of attempts is kept for a week unless a DBA says otherwise: with the first policy it gets an
// expiry policy, which redis_migrate.alter_expiry changes. Runs as the extension's owner.
void EnsureRetention() {
  if (Spi::Execute("SELECT FROM redis_migrate.lockout_policy LIMIT 1").size() > 0) return;
  if (Spi::Execute("SELECT FROM redis_migrate.expiry_policies WHERE target = $1",
                   {SqlParam::Text("redis_migrate.login_attempt")})
          .size() > 0)
    return;
  Spi::Execute(
      R"sql(SELECT redis_migrate.add_expiry('redis_migrate.login_attempt', 'attempted_at',
                                            every => '1 hour', lifetime => '7 days'))sql");
}

bool PolicyExists(Oid database, const pg_uuid_t &policy) {
  if (database != MyDatabaseId)
    return pg::Call([&] { return SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database)); });
  return Spi::Execute("SELECT FROM redis_migrate.lockout_policy WHERE policy_id = $1",
                      {SqlParam{UUIDOID, UUIDPGetDatum(&policy), false}}, true)
             .size() > 0;
}

// Reads the latest snapshot, so that policies which others have committed exist.
void TakeSlot(const LockoutPolicy &policy) {
  {
    pg::AsExtensionOwner as_owner;
    pg::LatestSnapshotScope snapshot;
    LockoutTable::TakeSlot(policy.id, policy.owner.role(), PolicyExists);
  }
  if (LockoutTable::SlotOf(policy.id, policy.owner.role()) < LockoutTable::kSlots - 1) return;
  pg::Report(WARNING, "lockout policy \"" + policy.name + "\" has no statistics of its own",
             "This database has reached the limit of policies with statistics. Further policies are counted "
             "together and share the memory of one.",
             "Drop unused lockout policies.");
}

SqlParam PropertyParam(FunctionCallInfo fcinfo, size_t property) {
  int n = static_cast<int>(property) + 2;
  return {kProperties[property].type, PG_ARGISNULL(n) ? 0 : PG_GETARG_DATUM(n),
          static_cast<bool>(PG_ARGISNULL(n))};
}

void CheckArguments(FunctionCallInfo fcinfo) {
  if (auto mode = pg::OptionalTextArgument(fcinfo, 4))
    pg::CheckKeyword(*mode, "cool_off_mode", {"fixed", "rolling", "inactivity"});
  if (auto when_full = pg::OptionalTextArgument(fcinfo, 12))
    pg::CheckKeyword(*when_full, "when_full", {"share", "refuse"});
  bool rolling = !PG_ARGISNULL(4) && pg::TextArgument(fcinfo, 4, "cool_off_mode") == "rolling";
  if (rolling && !PG_ARGISNULL(3))
    Refuse("cool_off cannot be set with cool_off_mode rolling",
           "A rolling lock ends when enough failures have left the window.", "Omit cool_off.");
}

}  // namespace
}  // namespace prm::lockout

using namespace prm;
using namespace prm::lockout;
using pg::Failure;
using pg::Spi;
using pg::SqlParam;

// redis_migrate.create_lockout(policy text, scopes jsonb, …): see the SQL comment. Errors: 42710 it exists,
// 53400 the role owns too many, 55000 not preloaded, 22023, 22004, 22P02 and 22007 for numbers and intervals
// in scopes.
PRM_FUNCTION(create_lockout) {
  std::string policy = pg::TextArgument(fcinfo, 0, "policy");
  if (PG_ARGISNULL(1)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "scopes must not be NULL");
  if (policy.empty() || policy.size() > kLongestPolicy)
    Refuse("the name of a lockout policy must have 1 to " + std::to_string(kLongestPolicy) + " bytes");
  LockoutTable::Require();
  CheckArguments(fcinfo);
  Oid owner = GetUserId();
  pg::Spi spi;
  pg::ClaimOwnership(owner);
  {
    pg::AsExtensionOwner as_owner;
    if (Spi::Execute("SELECT FROM redis_migrate.lockout_policy WHERE policy = $1", {SqlParam::Text(policy)})
            .size() > 0)
      throw Failure(
          ERRCODE_DUPLICATE_OBJECT, "lockout policy \"" + policy + "\" already exists", "",
          "Use redis_migrate.alter_lockout to change it; names are shared by all users of a database.");
    pg::CheckPolicyLimit("lockout", "lockout_policy", owner);
    EnsureRetention();
    std::string columns = "policy, owner", values = "$1, redis_migrate.stamp_owner($2)";
    std::vector<SqlParam> params = {SqlParam::Text(policy), SqlParam::OidOf(owner)};
    for (size_t i = 0; i < std::size(kProperties); ++i) {
      params.push_back(PropertyParam(fcinfo, i));
      if (params.back().null && kProperties[i].column != std::string_view("cool_off") &&
          kProperties[i].column != std::string_view("notify_channel"))
        throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED,
                      std::string(kProperties[i].column) + " must not be NULL");
      columns += std::string(", ") + kProperties[i].column;
      values += ", $" + std::to_string(params.size());
    }
    Spi::Execute("INSERT INTO redis_migrate.lockout_policy (" + columns + ") VALUES (" + values + ")",
                 params);
    InsertScopes(policy, PG_GETARG_DATUM(1));
  }
  const LockoutPolicy created = LoadLockoutPolicy(policy);
  CheckPolicy(created);
  TakeSlot(created);
  PG_RETURN_VOID();
}

// redis_migrate.alter_lockout(policy text, scopes jsonb, …): NULL leaves a property as it is. The new rules
// apply to existing counters at once. Errors: as create_lockout; 42704, 42501.
PRM_FUNCTION(alter_lockout) {
  std::string policy = pg::TextArgument(fcinfo, 0, "policy");
  CheckArguments(fcinfo);
  pg::Spi spi;
  LoadLockoutPolicy(policy);
  {
    pg::AsExtensionOwner as_owner;
    std::string sets;
    std::vector<SqlParam> params = {SqlParam::Text(policy)};
    for (size_t i = 0; i < std::size(kProperties); ++i) {
      params.push_back(PropertyParam(fcinfo, i));
      sets += std::string(i > 0 ? ", " : "") + kProperties[i].column + " = coalesce($" +
              std::to_string(params.size()) + ", " + kProperties[i].column + ")";
    }
    Spi::Execute("UPDATE redis_migrate.lockout_policy SET " + sets + " WHERE policy = $1", params);
    if (!PG_ARGISNULL(1)) {
      Spi::Execute("DELETE FROM redis_migrate.lockout_scope WHERE policy = $1", {SqlParam::Text(policy)});
      InsertScopes(policy, PG_GETARG_DATUM(1));
    }
  }
  CheckPolicy(LoadLockoutPolicy(policy));
  PG_RETURN_VOID();
}

// redis_migrate.drop_lockout(policy text): its counters go when the transaction commits; recorded attempts
// stay. Errors: 42704, 42501.
PRM_FUNCTION(drop_lockout) {
  std::string policy = pg::TextArgument(fcinfo, 0, "policy");
  pg::Spi spi;
  const pg_uuid_t id = LoadLockoutPolicy(policy).id;
  LockoutTable::ForgetAtCommit(id);
  pg::AsExtensionOwner as_owner;
  Spi::Execute("DELETE FROM redis_migrate.lockout_policy WHERE policy = $1", {SqlParam::Text(policy)});
  PG_RETURN_VOID();
}
