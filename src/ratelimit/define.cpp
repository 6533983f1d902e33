// The SQL functions that define policies and their exceptions for single keys. Triggers on the two tables
// notify every session of a change (policy.cpp).
#include "core/rate_text.h"
#include "pg/address.h"
#include "pg/argument_ranges.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/policy_limit.h"
#include "pg/spi.h"
#include "ratelimit/memory.h"
#include "ratelimit/policy.h"

namespace prm::ratelimit {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

template <typename T>
SqlParam Optional(const std::optional<T> &value, SqlParam (*make)(T), Oid type) {
  return value ? make(*value) : SqlParam{type, 0, true};
}

std::optional<int64> OptionalInt8(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) return std::nullopt;
  return PG_GETARG_INT64(n);
}
std::optional<int32> OptionalInt4(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) return std::nullopt;
  return PG_GETARG_INT32(n);
}
std::optional<bool> OptionalBool(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) return std::nullopt;
  return PG_GETARG_BOOL(n);
}

// The properties to set; those that are absent keep their value.
struct Definition {
  std::optional<int64> quota;
  SqlParam period{INTERVALOID, 0, true};
  std::optional<int64> burst;
  std::optional<std::string> algorithm, storage, key_type;
  std::optional<int32> ipv6_prefix;
  std::optional<bool> shadow, fail_open;
};

// The arguments from burst on: burst, algorithm, storage, key_type, ipv6_prefix, shadow, fail_open.
void ReadOptions(FunctionCallInfo fcinfo, int n, Definition *definition) {
  definition->burst = OptionalInt8(fcinfo, n);
  definition->algorithm = pg::OptionalTextArgument(fcinfo, n + 1);
  definition->storage = pg::OptionalTextArgument(fcinfo, n + 2);
  definition->key_type = pg::OptionalTextArgument(fcinfo, n + 3);
  definition->ipv6_prefix = OptionalInt4(fcinfo, n + 4);
  definition->shadow = OptionalBool(fcinfo, n + 5);
  definition->fail_open = OptionalBool(fcinfo, n + 6);
}

void SetPeriod(FunctionCallInfo fcinfo, int n, Definition *definition) {
  if (!PG_ARGISNULL(n)) definition->period = {INTERVALOID, PG_GETARG_DATUM(n), false};
}

// Sets quota and period from a limit as text.
void SetLimit(const std::string &text, Definition *definition) {
  std::vector<RateText> rates = pg::ValueOrThrow(ParseRates(text));
  if (rates.size() != 1)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "limit \"" + text + "\" is a list", "",
                  "Create a policy for each, and ask for them together with redis_migrate.rate_limits.");
  definition->quota = rates[0].quota;
  definition->period = {INTERVALOID, pg::IntervalDatum(rates[0].period / pg::kMicrosecondNs), false};
}

void CheckName(const std::string &name) {
  bool printable = !name.empty() && name.size() <= 128 &&
                   std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (!printable)
    throw Failure(ERRCODE_INVALID_NAME, "invalid rate limit policy name",
                  "The name goes into HTTP headers and must have 1 to 128 printable ASCII characters.");
}

struct Owned {
  int64 id;
};

// Locks a policy against other definitions, if the caller has the rights of its owner. Runs as the
// extension's owner. Errors: 42704, 42501.
Owned LockPolicy(const std::string &name, Oid user) {
  auto rows = Spi::Execute(
      "SELECT policy_id, owner FROM redis_migrate.rate_limit_policy WHERE policy = $1 FOR UPDATE",
      {SqlParam::Text(name)});
  if (rows.size() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, "rate limit policy \"" + name + "\" does not exist", "",
                  "Create it with redis_migrate.create_rate_limit.");
  pg::Owner const owner(rows[0].Value(1));
  if (!pg::HasOwnerRights(owner, user))
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of rate limit policy \"" + name + "\"",
                  pg::OwnerDetail(owner), pg::OwnerHint(owner, "rate limit", name));
  return {rows[0].Int8(0)};
}

// Checks the policy as it is in the table now. Errors: 22023, 55000.
void CheckPolicy(const std::string &name) {
  auto rows = Spi::Execute(
      R"sql(SELECT algorithm, quota, period, burst, storage, key_type, ipv6_prefix
            FROM redis_migrate.rate_limit_policy
            WHERE policy = $1)sql",
      {SqlParam::Text(name)});
  const pg::Row row = rows[0];
  const int64 period = pg::IntervalNs(row.Value(2));
  if (period > kLongestDrain)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "period must not be longer than 73 years");
  if (!row.IsNull(3) && row.Int8(3) < 1)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "burst must be at least 1");
  pg::ThrowIfError(
      MakeRateLimit(AlgorithmNamed(row.Text(0)), row.Int8(1), period, row.IsNull(3) ? 0 : row.Int8(3)));
  auto overrides = Spi::Execute(
      R"sql(SELECT e.quota, e.period, e.burst
            FROM redis_migrate.rate_limit_exception AS e
              JOIN redis_migrate.rate_limit_policy USING (policy_id)
            WHERE policy = $1 AND kind = 'override')sql",
      {SqlParam::Text(name)});
  for (uint64 i = 0; i < overrides.size(); i++)
    pg::ThrowIfError(MakeRateLimit(AlgorithmNamed(row.Text(0)), overrides[i].Int8(0),
                                   pg::IntervalNs(overrides[i].Value(1)),
                                   overrides[i].IsNull(2) ? 0 : overrides[i].Int8(2)));
  pg::CheckKeyword(row.Text(5), "key_type", {"text", "inet"});
  pg::CheckNumber("ipv6_prefix", row.Int4(6), 1, 128);
  if (StorageNamed(row.Text(4)) == Storage::kMemory && !MemoryAvailable())
    throw Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "storage memory is not available for rate limit policy \"" + name + "\"",
        "It needs the library to be loaded when the server starts.",
        "Add pg_redis_migrate to shared_preload_libraries and restart the server, or use storage => "
        "'table'.");
}

// A new algorithm cannot use states of another, and only GCRA has a burst.
void BeginAnew(int64 policy_id, const std::string &algorithm) {
  for (const char *table : {"rate_limit_state", "rate_limit_unlogged_state"})
    Spi::Execute(std::string("DELETE FROM redis_migrate.") + table +
                     R"sql( AS s USING redis_migrate.rate_limit_policy AS p
                            WHERE s.policy_id = $1 AND p.policy_id = $1 AND p.algorithm <> $2)sql",
                 {SqlParam::Int8(policy_id), SqlParam::Text(algorithm)});
  if (algorithm != "gcra")
    Spi::Execute("UPDATE redis_migrate.rate_limit_exception SET burst = NULL WHERE policy_id = $1",
                 {SqlParam::Int8(policy_id)});
}

// An expiry policy deletes expired rows. The first policy with the storage adds it;
// redis_migrate.alter_expiry changes it. Runs as the extension's owner.
void EnsureExpiry(const std::string &policy) {
  auto rows = Spi::Execute("SELECT storage FROM redis_migrate.rate_limit_policy WHERE policy = $1",
                           {SqlParam::Text(policy)});
  const Storage storage = StorageNamed(rows[0].Text(0));
  if (storage == Storage::kMemory) return;
  const SqlParam table =
      SqlParam::Text(storage == Storage::kTable ? "redis_migrate.rate_limit_state"
                                                : "redis_migrate.rate_limit_unlogged_state");
  if (Spi::Execute("SELECT FROM redis_migrate.rate_limit_policy WHERE storage = $1 AND policy <> $2 LIMIT 1",
                   {SqlParam::Text(rows[0].Text(0)), SqlParam::Text(policy)})
          .size() > 0)
    return;
  Spi::Execute(
      R"sql(SELECT redis_migrate.add_expiry($1::regclass, 'expires_at', every => '1 hour')
            WHERE NOT EXISTS (SELECT FROM redis_migrate.expiry_policies WHERE target = $1))sql",
      {table});
}

void Create(const std::string &name, const Definition &definition) {
  CheckName(name);
  if (!definition.quota) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "quota must not be NULL");
  if (definition.period.null) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "period must not be NULL");
  Oid user = GetUserId();
  pg::ClaimOwnership(user);
  pg::AsExtensionOwner as_owner;
  Spi spi;
  pg::CheckPolicyLimit("rate limit", "rate_limit_policy", user);
  auto inserted = Spi::Execute(
      R"sql(INSERT INTO redis_migrate.rate_limit_policy
                (policy, owner, quota, period, burst, algorithm, storage, key_type, ipv6_prefix,
                 shadow, fail_open)
            VALUES ($1, redis_migrate.stamp_owner($2), $3, $4, $5, coalesce($6, 'gcra'),
                    coalesce($7, 'memory'), coalesce($8, 'text'), coalesce($9, 64),
                    coalesce($10, false), coalesce($11, false))
            ON CONFLICT DO NOTHING)sql",
      {SqlParam::Text(name), SqlParam::OidOf(user), SqlParam::Int8(*definition.quota), definition.period,
       Optional(definition.burst, SqlParam::Int8, INT8OID), SqlParam::OptionalText(definition.algorithm),
       SqlParam::OptionalText(definition.storage), SqlParam::OptionalText(definition.key_type),
       Optional(definition.ipv6_prefix, SqlParam::Int4, INT4OID),
       Optional(definition.shadow, SqlParam::Bool, BOOLOID),
       Optional(definition.fail_open, SqlParam::Bool, BOOLOID)});
  if (inserted.processed() == 0)
    throw Failure(ERRCODE_DUPLICATE_OBJECT, "rate limit policy \"" + name + "\" already exists", "",
                  "Change it with redis_migrate.alter_rate_limit.");
  CheckPolicy(name);
  EnsureExpiry(name);
}

// The subject of a list entry: a text key or a network.
struct Subject {
  SqlParam key{TEXTOID, 0, true};
  SqlParam network{INETOID, 0, true};
};

// Argument 1, of type text or inet; text is an address where the policy's keys are addresses. Runs as the
// extension's owner.
Subject SubjectOf(FunctionCallInfo fcinfo, bool address, int64 policy_id) {
  Subject subject;
  if (PG_ARGISNULL(1)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "key must not be NULL");
  if (address) {
    subject.network = {INETOID, PG_GETARG_DATUM(1), false};
    return subject;
  }
  const std::string key = pg::TextArgument(fcinfo, 1, "key");
  auto rows =
      Spi::Execute("SELECT key_type = 'inet' FROM redis_migrate.rate_limit_policy WHERE policy_id = $1",
                   {SqlParam::Int8(policy_id)});
  if (rows[0].Bool(0)) {
    const char *text = pg::CString(key);
    Datum network = pg::Call([&] { return DirectFunctionCall1(inet_in, CStringGetDatum(text)); });
    subject.network = {INETOID, network, false};
  } else {
    subject.key = SqlParam::Text(key);
  }
  return subject;
}

// The networks that are the same: an IPv4 network may stand inside IPv6 in two ways.
SqlParam SpellingsOf(const SqlParam &network) {
  if (network.null) return SqlParam::TextArray({});
  const pg::Network one = pg::NetworkOf(pg::Call([&] { return DatumGetInetPP(network.value); }));
  const bool ipv4 = one.family == 4;
  char buffer[80];
  const char *printed = pg::Call([&] {
    return pg_inet_net_ntop(ipv4 ? PGSQL_AF_INET : PGSQL_AF_INET6, one.bytes, one.max_bits(), buffer,
                            sizeof buffer);
  });
  if (printed == nullptr) return SqlParam::TextArray({});
  const std::string address = printed, bits = "/" + std::to_string(one.bits);
  if (!ipv4) return SqlParam::TextArray({address + bits});
  const std::string inside = "/" + std::to_string(96 + one.bits);
  return SqlParam::TextArray({address + bits, "::ffff:" + address + inside, "64:ff9b::" + address + inside});
}

// Drops the exceptions of a policy for one key, and returns how many there were. Runs as the extension's
// owner.
uint64 DropExceptions(int64 policy_id, const char *kind, const Subject &subject) {
  return Spi::Execute(
             R"sql(DELETE FROM redis_migrate.rate_limit_exception
                            WHERE policy_id = $1 AND kind = $2
                                AND (key = $3 OR network(network) = ANY ($4::inet[])))sql",
             {SqlParam::Int8(policy_id), SqlParam::Text(kind), subject.key, SpellingsOf(subject.network)})
      .processed();
}

// Adds or replaces the exception of a policy for one key. Runs in SPI, as the extension's owner.
void PutException(int64 policy_id, const char *kind, const Subject &subject, const Definition &definition,
                  SqlParam expires_at) {
  DropExceptions(policy_id, kind, subject);
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.rate_limit_exception AS e
                (policy_id, kind, key, network, quota, period, burst, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            ON CONFLICT (policy_id, kind, key, network)
            DO UPDATE SET quota = excluded.quota, period = excluded.period, burst = excluded.burst,
                expires_at = excluded.expires_at, added_at = excluded.added_at)sql",
      {SqlParam::Int8(policy_id), SqlParam::Text(kind), subject.key, subject.network,
       Optional(definition.quota, SqlParam::Int8, INT8OID), definition.period,
       Optional(definition.burst, SqlParam::Int8, INT8OID), expires_at});
}

SqlParam ForEver() { return {TIMESTAMPTZOID, 0, true}; }

void PutOnList(FunctionCallInfo fcinfo, const char *kind, bool address, SqlParam expires_at) {
  const std::string name = pg::TextArgument(fcinfo, 0, "policy");
  Oid user = GetUserId();
  pg::AsExtensionOwner as_owner;
  Spi spi;
  const Owned policy = LockPolicy(name, user);
  Spi::Execute(
      R"sql(DELETE FROM redis_migrate.rate_limit_exception
            WHERE policy_id = $1 AND expires_at < clock_timestamp())sql",
      {SqlParam::Int8(policy.id)});
  PutException(policy.id, kind, SubjectOf(fcinfo, address, policy.id), Definition{}, expires_at);
}

// When an entry ends that is made now for the time of argument 2; never if it is NULL. Errors: 22023.
SqlParam EndOf(FunctionCallInfo fcinfo) {
  constexpr char kHint[] = "Leave it out to refuse the key for ever; drop_rate_limit_deny ends that.";
  if (!pg::OptionalDurationArgument(fcinfo, 2, "for_time", pg::kMillisecond, pg::kHundredYears, kHint))
    return ForEver();
  TimestampTz const now = GetCurrentTimestamp();
  Datum const for_time = PG_GETARG_DATUM(2);
  TimestampTz const end = pg::Call([&] {
    return DatumGetTimestampTz(
        DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now), for_time));
  });
  // A month less 29 days is longer than nothing, except in February.
  if (end <= now) pg::ThrowOutOfRange("for_time", pg::kMillisecond.text, pg::kHundredYears.text, kHint);
  return {TIMESTAMPTZOID, TimestampTzGetDatum(end), false};
}

void AddToDenyList(FunctionCallInfo fcinfo, bool address) {
  PutOnList(fcinfo, "deny", address, EndOf(fcinfo));
}

bool DropException(FunctionCallInfo fcinfo, const char *kind, bool address) {
  const std::string name = pg::TextArgument(fcinfo, 0, "policy");
  Oid user = GetUserId();
  pg::AsExtensionOwner as_owner;
  Spi spi;
  const Owned policy = LockPolicy(name, user);
  return DropExceptions(policy.id, kind, SubjectOf(fcinfo, address, policy.id)) > 0;
}

}  // namespace

void DenyForEver(FunctionCallInfo fcinfo) { PutOnList(fcinfo, "deny", false, ForEver()); }

// create_rate_limit(policy, quota, period, burst, algorithm, storage, key_type, ipv6_prefix, shadow,
// fail_open). Errors: 42602 for a bad name, 42710 for a duplicate, 22023 for invalid numbers and keywords,
// 53400 when the role owns too many, 55000 for storage memory without shared memory.
PRM_FUNCTION(create_rate_limit) {
  Definition definition;
  definition.quota = OptionalInt8(fcinfo, 1);
  SetPeriod(fcinfo, 2, &definition);
  ReadOptions(fcinfo, 3, &definition);
  Create(pg::TextArgument(fcinfo, 0, "policy"), definition);
  PG_RETURN_VOID();
}

// create_rate_limit with quota and period as text.
PRM_FUNCTION(create_rate_limit_text) {
  Definition definition;
  SetLimit(pg::TextArgument(fcinfo, 1, "limit"), &definition);
  ReadOptions(fcinfo, 2, &definition);
  Create(pg::TextArgument(fcinfo, 0, "policy"), definition);
  PG_RETURN_VOID();
}

// alter_rate_limit(policy, quota, period, burst, algorithm, storage, key_type, ipv6_prefix, shadow,
// fail_open, limit): NULL leaves a property as it is. A new algorithm without burst drops the old burst.
PRM_FUNCTION(alter_rate_limit) {
  const std::string name = pg::TextArgument(fcinfo, 0, "policy");
  Definition definition;
  definition.quota = OptionalInt8(fcinfo, 1);
  SetPeriod(fcinfo, 2, &definition);
  ReadOptions(fcinfo, 3, &definition);
  if (auto text = pg::OptionalTextArgument(fcinfo, 10)) {
    if (definition.quota || !definition.period.null)
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "limit cannot be combined with quota or period", "",
                    "Give either limit or quota and period.");
    SetLimit(*text, &definition);
  }
  Oid user = GetUserId();
  pg::AsExtensionOwner as_owner;
  Spi spi;
  const Owned policy = LockPolicy(name, user);
  if (definition.algorithm) BeginAnew(policy.id, *definition.algorithm);
  Spi::Execute(
      R"sql(UPDATE redis_migrate.rate_limit_policy
            SET quota = coalesce($2, quota), period = coalesce($3, period),
                burst = coalesce($4, CASE WHEN $5 IS NULL OR $5 = algorithm THEN burst END),
                algorithm = coalesce($5, algorithm), storage = coalesce($6, storage),
                key_type = coalesce($7, key_type), ipv6_prefix = coalesce($8, ipv6_prefix),
                shadow = coalesce($9, shadow), fail_open = coalesce($10, fail_open),
                changed_at = clock_timestamp()
            WHERE policy = $1)sql",
      {SqlParam::Text(name), Optional(definition.quota, SqlParam::Int8, INT8OID), definition.period,
       Optional(definition.burst, SqlParam::Int8, INT8OID), SqlParam::OptionalText(definition.algorithm),
       SqlParam::OptionalText(definition.storage), SqlParam::OptionalText(definition.key_type),
       Optional(definition.ipv6_prefix, SqlParam::Int4, INT4OID),
       Optional(definition.shadow, SqlParam::Bool, BOOLOID),
       Optional(definition.fail_open, SqlParam::Bool, BOOLOID)});
  CheckPolicy(name);
  if (definition.storage) EnsureExpiry(name);
  PG_RETURN_VOID();
}

// drop_rate_limit(policy): with its lists and its states. States in memory are dropped when the transaction
// commits.
PRM_FUNCTION(drop_rate_limit) {
  const std::string name = pg::TextArgument(fcinfo, 0, "policy");
  Oid user = GetUserId();
  pg::AsExtensionOwner as_owner;
  Spi spi;
  const Owned policy = LockPolicy(name, user);
  ForgetAtCommit(policy.id);
  for (const char *table :
       {"rate_limit_state", "rate_limit_unlogged_state", "rate_limit_exception", "rate_limit_policy"})
    Spi::Execute(std::string("DELETE FROM redis_migrate.") + table + " WHERE policy_id = $1",
                 {SqlParam::Int8(policy.id)});
  PG_RETURN_VOID();
}

// set_rate_limit_override(policy, key text | inet, quota, period, burst): other numbers for one key, or for
// each key of a network. Errors: those of create_rate_limit.
static Datum SetOverride(FunctionCallInfo fcinfo, bool address) {
  const std::string name = pg::TextArgument(fcinfo, 0, "policy");
  Definition definition;
  definition.quota = OptionalInt8(fcinfo, 2);
  SetPeriod(fcinfo, 3, &definition);
  definition.burst = OptionalInt8(fcinfo, 4);
  if (!definition.quota) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "quota must not be NULL");
  Oid user = GetUserId();
  pg::AsExtensionOwner as_owner;
  Spi spi;
  const Owned policy = LockPolicy(name, user);
  auto rows = Spi::Execute(
      R"sql(SELECT algorithm, coalesce($2, period)
            FROM redis_migrate.rate_limit_policy
            WHERE policy_id = $1)sql",
      {SqlParam::Int8(policy.id), definition.period});
  const int64 period = pg::IntervalNs(rows[0].Value(1));
  if (definition.burst && *definition.burst < 1)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "burst must be at least 1");
  pg::ThrowIfError(MakeRateLimit(AlgorithmNamed(rows[0].Text(0)), *definition.quota, period,
                                 definition.burst.value_or(0)));
  definition.period = {INTERVALOID, rows[0].Value(1), false};
  PutException(policy.id, "override", SubjectOf(fcinfo, address, policy.id), definition,
               {TIMESTAMPTZOID, 0, true});
  PG_RETURN_VOID();
}
PRM_FUNCTION(set_rate_limit_override) { return SetOverride(fcinfo, false); }
PRM_FUNCTION(set_rate_limit_override_inet) { return SetOverride(fcinfo, true); }

// add_rate_limit_allow(policy, key text | inet), add_rate_limit_deny(policy, key text | inet, for_time
// interval). Errors: 22004, 22023 for a for_time that is no length of time, 42704, 42501.
PRM_FUNCTION(add_rate_limit_allow) {
  PutOnList(fcinfo, "allow", false, ForEver());
  PG_RETURN_VOID();
}
PRM_FUNCTION(add_rate_limit_allow_inet) {
  PutOnList(fcinfo, "allow", true, ForEver());
  PG_RETURN_VOID();
}
PRM_FUNCTION(add_rate_limit_deny) {
  AddToDenyList(fcinfo, false);
  PG_RETURN_VOID();
}
PRM_FUNCTION(add_rate_limit_deny_inet) {
  AddToDenyList(fcinfo, true);
  PG_RETURN_VOID();
}

// drop_rate_limit_override, _allow, _deny(policy, key text | inet) → boolean: whether there was one.
PRM_FUNCTION(drop_rate_limit_override) { PG_RETURN_BOOL(DropException(fcinfo, "override", false)); }
PRM_FUNCTION(drop_rate_limit_override_inet) { PG_RETURN_BOOL(DropException(fcinfo, "override", true)); }
PRM_FUNCTION(drop_rate_limit_allow) { PG_RETURN_BOOL(DropException(fcinfo, "allow", false)); }
PRM_FUNCTION(drop_rate_limit_allow_inet) { PG_RETURN_BOOL(DropException(fcinfo, "allow", true)); }
PRM_FUNCTION(drop_rate_limit_deny) { PG_RETURN_BOOL(DropException(fcinfo, "deny", false)); }
PRM_FUNCTION(drop_rate_limit_deny_inet) { PG_RETURN_BOOL(DropException(fcinfo, "deny", true)); }

// Statement trigger of rate_limit_policy and rate_limit_exception: every session reads the policies again
// once this transaction has committed, those of standbys once they have replayed it.
PRM_FUNCTION(rate_limit_changed) {
  if (!CALLED_AS_TRIGGER(fcinfo))
    throw Failure(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "rate_limit_changed is a trigger function");
  Relation relation = reinterpret_cast<TriggerData *>(fcinfo->context)->tg_relation;
  pg::Call([&] { CacheInvalidateRelcache(relation); });
  return Datum{0};
}

}  // namespace prm::ratelimit
