#include "ratelimit/table_storage.h"

#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/kept_statement.h"
#include "pg/time.h"
#include "ratelimit/memory.h"

namespace prm::ratelimit {
namespace {

constexpr size_t kLongestStoredKey = 512;
constexpr int64 kSimulatedSeconds = 60;

enum Statement { kRead, kUpdate, kInsert, kDelete, kStatements };

// All names are qualified: the statements run with the caller's search_path and the rights of the extension's
// owner.
std::string StatementText(Statement statement, bool unlogged) {
  const std::string table =
      unlogged ? "redis_migrate.rate_limit_unlogged_state" : "redis_migrate.rate_limit_state";
  const std::string is_key = "policy_id OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";
  switch (statement) {
    case kRead:
      return "SELECT time_ns, count, previous FROM " + table + " WHERE " + is_key;
    case kUpdate:
      return "UPDATE " + table +
             R"sql( SET time_ns = redis_migrate.rate_limit_stepped(0),
                        count = redis_migrate.rate_limit_stepped(1),
                        previous = redis_migrate.rate_limit_stepped(2),
                        expires_at = pg_catalog.to_timestamp(redis_migrate.rate_limit_stepped(3))
                    WHERE )sql" +
             is_key + " AND redis_migrate.rate_limit_step(policy_id, key, time_ns, count, previous)";
    case kInsert:
      return "INSERT INTO " + table +
             " (policy_id, key, time_ns, count, previous, expires_at) VALUES ($1, $2, $3, $4, $5, "
             "pg_catalog.to_timestamp($6)) ON CONFLICT DO NOTHING";
    default:
      return "DELETE FROM " + table + " WHERE " + is_key;
  }
}

// When the row may be deleted, in seconds since 1970. The state of a simulation must outlive it, even if its
// times are in the past.
int64 ExpirySeconds(const TableKey &key, const RateState &state) {
  const int64 seconds = ForgetAt(*key.limit, state) / pg::kSecondNs + 1;
  return key.simulated ? std::max(seconds, ClockNow() / pg::kSecondNs + kSimulatedSeconds) : seconds;
}

// Runs a statement whose first arguments are the key.
pg::Rows Run(Statement statement, const TableKey &key, const RateState *state) {
  static pg::KeptStatement *statements[kStatements][2];
  const bool unlogged = key.policy->storage == Storage::kUnloggedTable;
  pg::KeptStatement *&kept = statements[statement][unlogged];
  if (kept == nullptr)
    kept = new pg::KeptStatement(StatementText(statement, unlogged), pg::KeptStatement::Planning::kByIndex);
  const auto id = pg::SqlParam::Int8(key.policy->id);
  const auto text = pg::SqlParam::Text(key.key);
  if (state == nullptr) return kept->Execute({id, text});
  const double expires = static_cast<double>(ExpirySeconds(key, *state));
  return kept->Execute({id, text, pg::SqlParam::Int8(state->time), pg::SqlParam::Int8(state->count),
                        pg::SqlParam::Int8(state->previous),
                        pg::SqlParam{FLOAT8OID, Float8GetDatum(expires), false}});
}

// Acts as the extension's owner for a scope. pg::AsExtensionOwner would look the owner up and set search_path
// for each decision, which takes longer than the decision.
class AsOwner {
 public:
  explicit AsOwner(const Policy &policy) {
    GetUserIdAndSecContext(&user_, &security_context_);
    SetUserIdAndSecContext(policy.extension_owner, security_context_ | SECURITY_LOCAL_USERID_CHANGE);
  }
  ~AsOwner() { SetUserIdAndSecContext(user_, security_context_); }
  AsOwner(const AsOwner &) = delete;
  AsOwner &operator=(const AsOwner &) = delete;

 private:
  Oid user_;
  int security_context_;
};

// The step that the running UPDATE calls for each version of the row that it meets, and its last result.
struct Running {
  const TableKey *key;
  Step step;
  void *context;
  RateState state;
  bool store;
  bool asked;
};
Running *running = nullptr;

class RunningScope {
 public:
  explicit RunningScope(Running *inner) : outer_(std::exchange(running, inner)) {}
  ~RunningScope() { running = outer_; }
  RunningScope(const RunningScope &) = delete;
  RunningScope &operator=(const RunningScope &) = delete;

 private:
  Running *outer_;
};

}  // namespace

std::string StoredKey(Bytes text, const pg::Network *address) {
  if (address != nullptr) {
    char buffer[80];
    const bool ipv4 = address->family == 4;
    const char *printed = pg_inet_net_ntop(ipv4 ? PGSQL_AF_INET : PGSQL_AF_INET6, address->bytes,
                                           address->bits, buffer, sizeof buffer);
    return printed != nullptr ? printed : "";
  }
  if (text.size() <= kLongestStoredKey) return std::string(text);
  uint8 digest[PG_SHA256_DIGEST_LENGTH];
  pg::Call([&] {
    pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
    bool done =
        context != nullptr && pg_cryptohash_init(context) >= 0 &&
        pg_cryptohash_update(context, reinterpret_cast<const uint8 *>(text.data()), text.size()) >= 0 &&
        pg_cryptohash_final(context, digest, sizeof digest) >= 0;
    if (context != nullptr) pg_cryptohash_free(context);
    if (!done) elog(ERROR, "could not compute a SHA-256 digest");
  });
  std::string stored = "sha256:";
  for (uint8 byte : digest) {
    char hex[3];
    snprintf(hex, sizeof hex, "%02x", byte);
    stored += hex;
  }
  return stored;
}

RateState ReadState(const TableKey &key, bool *found) {
  AsOwner as_owner(*key.policy);
  pg::Spi spi;
  const pg::Rows rows = Run(kRead, key, nullptr);
  *found = rows.size() > 0;
  if (!*found) return RateState{};
  const pg::Row row = rows[0];
  return RateState{row.Int8(0), row.Int8(1), row.Int8(2)};
}

bool ChangeState(const TableKey &key, Step step, void *context) {
  AsOwner as_owner(*key.policy);
  pg::Spi spi;
  Running inner{&key, step, context, {}, false, false};
  for (bool known = true;; known = !known) {
    pg::Call([] { CHECK_FOR_INTERRUPTS(); });
    if (known) {
      RunningScope scope(&inner);
      inner.asked = false;
      if (Run(kUpdate, key, nullptr).processed() > 0) return true;
      if (inner.asked && !inner.store) return false;
      // The row is missing, or was deleted while this statement waited for it.
    } else {
      inner.state = RateState{};
      if (!step(context, &inner.state)) return false;
      if (Run(kInsert, key, &inner.state).processed() > 0) return true;
    }
  }
}

bool DeleteState(const TableKey &key) {
  AsOwner as_owner(*key.policy);
  pg::Spi spi;
  return Run(kDelete, key, nullptr).processed() > 0;
}

// Calls the running step for a version of the row: rate_limit_step(policy_id, key, time_ns, count, previous)
// → whether to update it. In a sequential scan the executor calls it for other rows, too, before it compares
// their keys. Errors: 55000 outside of a decision.
PRM_FUNCTION(rate_limit_step) {
  if (running == nullptr)
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "no rate limit is being decided");
  const TableKey &key = *running->key;
  if (PG_GETARG_INT64(0) != key.policy->id || pg::DatumBytes(PG_GETARG_DATUM(1)) != key.key)
    PG_RETURN_BOOL(false);
  running->state = RateState{PG_GETARG_INT64(2), PG_GETARG_INT64(3), PG_GETARG_INT64(4)};
  running->asked = true;
  running->store = running->step(running->context, &running->state);
  PG_RETURN_BOOL(running->store);
}

// The state after the step: rate_limit_stepped(field): time_ns, count, previous, seconds since 1970 of the
// expiry.
PRM_FUNCTION(rate_limit_stepped) {
  if (running == nullptr)
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "no rate limit is being decided");
  switch (PG_GETARG_INT32(0)) {
    case 0:
      PG_RETURN_INT64(running->state.time);
    case 1:
      PG_RETURN_INT64(running->state.count);
    case 2:
      PG_RETURN_INT64(running->state.previous);
    default:
      PG_RETURN_INT64(ExpirySeconds(*running->key, running->state));
  }
}

}  // namespace prm::ratelimit
