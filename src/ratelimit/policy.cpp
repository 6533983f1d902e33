#include "ratelimit/policy.h"

#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"
#include "ratelimit/memory.h"

namespace prm::ratelimit {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

// The session's policies. The map's keys are the names inside the policies.
struct Cache {
  std::unordered_map<std::string_view, std::unique_ptr<Policy>> policies;
  const Policy *last = nullptr;
  Oid policy_relation = InvalidOid;
  Oid exception_relation = InvalidOid;
  TimestampTz checked_in = 0;  // the last statement that looked for changes
};
Cache *cache = nullptr;
bool changed = false;

void OnRelationChange(Datum, Oid relation) {
  if (!OidIsValid(relation) || relation == cache->policy_relation || relation == cache->exception_relation)
    changed = true;
}

void MakeCache() {
  cache = new Cache;
  pg::Call([] { CacheRegisterRelcacheCallback(OnRelationChange, 0); });
}

int64 DenyUntil(const pg::Row &row, int column) {
  if (row.IsNull(column)) return 0;
  const TimestampTz at = DatumGetTimestampTz(row.Value(column));
  return TIMESTAMP_IS_NOEND(at) ? 0 : pg::UnixNs(at);
}

bool PolicyExists(const PolicyKey &policy) {
  if (policy.database != MyDatabaseId)
    return pg::Call([&] { return SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(policy.database)); });
  return policy.policy_id == kAdHocPolicy ||
         Spi::Execute("SELECT FROM redis_migrate.rate_limit_policy WHERE policy_id = $1",
                      {SqlParam::Int8(policy.policy_id)}, true)
                 .size() > 0;
}

// What was added while the clock was ahead lasts as long as it was to, from now on.
void MoveBack(int64 policy_id) {
  // Who cannot write, or could fail by it, moves only what is in the cache.
  if (pg::Call([] { return XactReadOnly || RecoveryInProgress() || IsInParallelMode(); }) ||
      IsolationUsesXactSnapshot())
    return;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.rate_limit_exception AS e
            SET expires_at = e.expires_at - make_interval(secs => extract(epoch FROM e.added_at - c.now)::float8),
                added_at = c.now
            FROM (SELECT clock_timestamp() AS now OFFSET 0) AS c,
                (SELECT policy_id, kind, key, network FROM redis_migrate.rate_limit_exception
                 WHERE policy_id = $1 AND added_at > clock_timestamp() + interval '1 second'
                 FOR UPDATE SKIP LOCKED) AS ahead
            WHERE e.policy_id = ahead.policy_id AND e.kind = ahead.kind
                AND e.key IS NOT DISTINCT FROM ahead.key AND e.network IS NOT DISTINCT FROM ahead.network)sql",
      {SqlParam::Int8(policy_id)});
}

void LoadExceptions(Policy *policy) {
  int64 const now = pg::UnixNs(GetCurrentTimestamp());
  bool was_ahead = false;
  auto rows = Spi::Execute(
      R"sql(SELECT kind, key, network, quota, period, burst, expires_at, added_at
            FROM redis_migrate.rate_limit_exception
            WHERE policy_id = $1 AND (expires_at > clock_timestamp()) IS NOT FALSE)sql",
      {SqlParam::Int8(policy->id)}, true);
  for (uint64 i = 0; i < rows.size(); i++) {
    const pg::Row row = rows[i];
    KeyRule *rule = nullptr;
    if (!row.IsNull(1)) {
      rule = &policy->keys[row.Text(1)];
    } else {
      pg::Network network = pg::NetworkOf(DatumGetInetPP(row.Value(2)));
      auto known = std::find_if(policy->networks.begin(), policy->networks.end(), [&](const NetworkRule &n) {
        return n.network.bits == network.bits && n.network.Contains(network);
      });
      if (known == policy->networks.end()) known = policy->networks.insert(known, NetworkRule{network, {}});
      rule = &known->rule;
    }
    const std::string kind = row.Text(0);
    if (kind == "allow") {
      rule->allow = true;
    } else if (kind == "deny") {
      rule->deny = true;
      rule->deny_until = DenyUntil(row, 6);
      rule->deny_from = pg::UnixNs(DatumGetTimestampTz(row.Value(7)));
      if (int64 const ahead = rule->AheadBy(now); ahead > 0 && rule->deny_until != 0) {
        rule->deny_until -= ahead;
        rule->deny_from = now;
        was_ahead = true;
      }
    } else {
      rule->limit =
          pg::ValueOrThrow(MakeRateLimit(policy->limit.algorithm, row.Int8(3), pg::IntervalNs(row.Value(4)),
                                         row.IsNull(5) ? 0 : row.Int8(5)));
    }
  }
  std::stable_sort(
      policy->networks.begin(), policy->networks.end(),
      [](const NetworkRule &a, const NetworkRule &b) { return a.network.bits > b.network.bits; });
  if (was_ahead) MoveBack(policy->id);
}

// Reads the latest committed version of a policy, not that of the transaction's snapshot: it stays in the
// cache until the next change.
std::unique_ptr<Policy> Load(Bytes name) {
  pg::AsExtensionOwner as_owner;
  Spi spi;
  auto oids = Spi::Execute(
      R"sql(SELECT 'redis_migrate.rate_limit_policy'::regclass::oid,
                'redis_migrate.rate_limit_exception'::regclass::oid)sql");
  cache->policy_relation = DatumGetObjectId(oids[0].Value(0));
  cache->exception_relation = DatumGetObjectId(oids[0].Value(1));
  // Invalidations from here on concern the version that is read.
  pg::LatestSnapshotScope snapshot;
  auto rows = Spi::Execute(
      R"sql(SELECT policy_id, owner, algorithm, quota, period, burst, storage, key_type, ipv6_prefix,
                shadow, fail_open, created_at
            FROM redis_migrate.rate_limit_policy
            WHERE policy = $1)sql",
      {SqlParam::Text(name)}, true);
  if (rows.size() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, "rate limit policy \"" + std::string(name) + "\" does not exist",
                  "", "Create it with redis_migrate.create_rate_limit.");
  const pg::Row row = rows[0];
  auto policy = std::make_unique<Policy>();
  policy->name = std::string(name);
  policy->id = row.Int8(0);
  policy->owner = pg::Owner(row.Value(1));
  policy->extension_owner = GetUserId();
  policy->limit =
      pg::ValueOrThrow(MakeRateLimit(AlgorithmNamed(row.Text(2)), row.Int8(3), pg::IntervalNs(row.Value(4)),
                                     row.IsNull(5) ? 0 : row.Int8(5)));
  policy->storage = StorageNamed(row.Text(6));
  policy->inet_keys = row.Text(7) == "inet";
  policy->ipv6_prefix = row.Int4(8);
  policy->shadow = row.Bool(9);
  policy->fail_open = row.Bool(10);
  LoadExceptions(policy.get());
  if (MemoryAvailable()) {
    policy->slot = SlotOf(PolicyKey{MyDatabaseId, policy->id}, policy->owner.role(), PolicyExists);
    // This algorithm cannot use states of another, nor those of a policy with the same number before the
    // extension was dropped and created again.
    policy->key_secret =
        KeySecret("policy " + std::to_string(MyDatabaseId) + " " + std::to_string(policy->id) + " " +
                  std::to_string(pg::UnixUs(DatumGetTimestampTz(row.Value(11)))) + " " + row.Text(2));
  }
  return policy;
}

}  // namespace

const KeyRule *Policy::RuleFor(Bytes key, const pg::Network *address) const {
  if (address != nullptr) {
    for (const NetworkRule &rule : networks)
      if (rule.network.Contains(*address)) return &rule.rule;
    return nullptr;
  }
  if (keys.empty()) return nullptr;
  auto found = keys.find(std::string(key));
  return found != keys.end() ? &found->second : nullptr;
}

void RefreshPolicies() {
  if (cache == nullptr) MakeCache();
  // Within a transaction, invalidations are processed only when a relation is locked.
  if (TimestampTz statement = GetCurrentStatementStartTimestamp(); statement != cache->checked_in) {
    pg::Call([] { AcceptInvalidationMessages(); });
    cache->checked_in = statement;
  }
  if (!changed) return;
  changed = false;
  cache->last = nullptr;
  cache->policies.clear();
}

void ForgetPolicies() { changed = true; }

const Policy &PolicyNamed(Bytes name) {
  if (cache->last != nullptr && cache->last->name == name) return *cache->last;
  auto found = cache->policies.find(name);
  if (found == cache->policies.end()) {
    std::unique_ptr<Policy> policy = Load(name);
    std::string_view key = policy->name;
    found = cache->policies.emplace(key, std::move(policy)).first;
  }
  cache->last = found->second.get();
  return *cache->last;
}

SipKey KeySecret(Bytes identity) {
  Hash128 hash = SipHash128(state_table.secret(), identity);
  return SipKey{hash.low, hash.high};
}

RateAlgorithm AlgorithmNamed(const std::string &name) {
  pg::CheckKeyword(name, "algorithm", {"gcra", "fixed_window", "fixed_window_first_hit", "sliding_window"});
  if (name == "gcra") return RateAlgorithm::kGcra;
  if (name == "fixed_window") return RateAlgorithm::kFixedWindow;
  if (name == "fixed_window_first_hit") return RateAlgorithm::kFixedWindowFirstHit;
  return RateAlgorithm::kSlidingWindow;
}

Storage StorageNamed(const std::string &name) {
  pg::CheckKeyword(name, "storage", {"memory", "table", "unlogged table"});
  if (name == "memory") return Storage::kMemory;
  return name == "table" ? Storage::kTable : Storage::kUnloggedTable;
}

}  // namespace prm::ratelimit
