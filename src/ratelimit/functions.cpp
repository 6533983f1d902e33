// The SQL functions that decide. In the ordinary case they allocate no heap memory and use neither catalogs
// nor SPI.
#include "core/rate_text.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/time.h"
#include "ratelimit/decide.h"
#include "ratelimit/memory.h"

namespace prm::ratelimit {
namespace {

using pg::Failure;

// The bytes of a text argument, copied only when they are compressed or out of line.
Bytes TextBytes(FunctionCallInfo fcinfo, int n, const char *name) {
  if (PG_ARGISNULL(n)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be NULL");
  auto *value = reinterpret_cast<struct varlena *>(DatumGetPointer(PG_GETARG_DATUM(n)));
  if (VARATT_IS_4B_U(value)) return Bytes(VARDATA(value), VARSIZE(value) - VARHDRSZ);
  if (VARATT_IS_1B(value) && !VARATT_IS_1B_E(value))
    return Bytes(VARDATA_1B(value), VARSIZE_1B(value) - VARHDRSZ_SHORT);
  return pg::DatumBytes(PG_GETARG_DATUM(n));
}

// A NULL element is an error, like a NULL argument: no request may pass because its policy or key got lost.
std::vector<std::string> TextsArgument(FunctionCallInfo fcinfo, int n, const char *name) {
  auto texts = pg::OptionalTextArrayArgument(fcinfo, n);
  const bool has_null = texts && pg::Call([&] { return array_contains_nulls(PG_GETARG_ARRAYTYPE_P(n)); });
  if (!texts || has_null)
    throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be NULL or contain NULL");
  return std::move(*texts);
}

int64 CostArgument(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "cost must not be NULL");
  return PG_GETARG_INT64(n);
}

const inet *AddressArgument(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "key must not be NULL");
  Datum address = PG_GETARG_DATUM(n);
  return pg::Call([&] { return DatumGetInetPP(address); });
}

// (policy, key text or inet, cost, …)
Request RequestOf(FunctionCallInfo fcinfo, bool address) {
  RefreshPolicies();
  Request request;
  request.policy = &PolicyNamed(TextBytes(fcinfo, 0, "policy"));
  request.key = address ? AddressKey(*request.policy, AddressArgument(fcinfo, 1))
                        : TextKey(*request.policy, TextBytes(fcinfo, 1, "key"));
  return request;
}

Outcome DecideArguments(FunctionCallInfo fcinfo, bool address) {
  Request request = RequestOf(fcinfo, address);
  request.cost = CostArgument(fcinfo, 2);
  return Decide(request);
}

// A reason as a text datum, created once.
Datum ReasonText(Reason reason) {
  static constexpr const char *kNames[] = {
      "ok", "limited", "cost_exceeds_limit", "allowlisted", "denylisted", "blocked", "shadow", "unavailable"};
  static struct {
    int32 header;
    char text[28];
  } texts[std::size(kNames)];
  auto &text = texts[static_cast<int>(reason)];
  if (text.header == 0) {
    const char *name = kNames[static_cast<int>(reason)];
    memcpy(text.text, name, strlen(name));
    SET_VARSIZE(&text, VARHDRSZ + strlen(name));
  }
  return PointerGetDatum(&text);
}

Interval IntervalOf(int64 ns) { return pg::IntervalOfUs(pg::DivideUp(ns, pg::kMicrosecondNs)); }

// The row type of the calling function's result, kept while the same function asks. The copy lives as long as
// the session.
TupleDesc ResultDesc(FunctionCallInfo fcinfo, int columns) {
  struct Known {
    Oid function;
    TupleDesc desc;
  };
  static Known known[8];
  static int next = 0;
  const Oid function = fcinfo->flinfo->fn_oid;
  for (const Known &one : known)
    if (one.function == function) return one.desc;
  TupleDesc desc = pg::Call([&] {
    TupleDesc found;
    if (get_call_result_type(fcinfo, nullptr, &found) != TYPEFUNC_COMPOSITE || found->natts != columns)
      ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("unexpected result type"),
                      errhint("Run ALTER EXTENSION pg_redis_migrate UPDATE.")));
    MemoryContext previous = MemoryContextSwitchTo(TopMemoryContext);
    TupleDesc kept = BlessTupleDesc(CreateTupleDescCopy(found));
    MemoryContextSwitchTo(previous);
    return kept;
  });
  known[next] = {function, desc};
  next = (next + 1) % static_cast<int>(std::size(known));
  return desc;
}

// (allowed, [policy,] quota, remaining, retry_after, retry_after_seconds, reset_after, reset_at, reason)
Datum RowOf(FunctionCallInfo fcinfo, const Outcome &outcome, const Datum *policy) {
  Interval retry = IntervalOf(outcome.retry), reset = IntervalOf(outcome.reset);
  Datum values[9];
  bool nulls[9] = {};
  int n = 0;
  values[n++] = BoolGetDatum(outcome.allowed);
  if (policy != nullptr) values[n++] = *policy;
  values[n++] = Int64GetDatum(outcome.quota);
  values[n++] = Int64GetDatum(outcome.remaining);
  nulls[n] = outcome.retry < 0;
  values[n++] = IntervalPGetDatum(&retry);
  nulls[n] = outcome.retry < 0;
  values[n++] = Float8GetDatum(pg::SecondsOfUs(retry.time));
  nulls[n] = outcome.reset < 0;
  values[n++] = IntervalPGetDatum(&reset);
  nulls[n] = outcome.reset < 0;
  values[n++] = TimestampTzGetDatum(pg::FromUnixNsUp(outcome.now + outcome.reset));
  values[n++] = ReasonText(outcome.reason);
  TupleDesc desc = ResultDesc(fcinfo, n);
  return pg::Call([&] { return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)); });
}

// The policy for a limit given in the call.
const Policy &AdHocPolicy(Bytes name, const std::string &text, std::optional<int64> burst,
                          const std::string &algorithm) {
  static Policy *policy = nullptr;  // of the last call
  static std::string *last_text = nullptr, *last_algorithm = nullptr;
  static std::optional<int64> last_burst;
  if (policy == nullptr) {
    policy = new Policy;
    last_text = new std::string;
    last_algorithm = new std::string;
  }
  if (!MemoryAvailable())
    throw Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "rate limits without a policy need shared memory", "",
        "Add pg_redis_migrate to shared_preload_libraries and restart the server, or create a policy "
        "with storage => 'table'.");
  if (policy->id == 0 || text != *last_text || algorithm != *last_algorithm || burst != last_burst) {
    policy->id = 0;
    std::vector<RateText> rates = pg::ValueOrThrow(ParseRates(text));
    if (rates.size() != 1)
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "limit \"" + text + "\" is a list", "",
                    "Ask for one limit at a time, or create policies and use redis_migrate.rate_limits.");
    if (burst && *burst < 1) throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "burst must be at least 1");
    policy->limit = pg::ValueOrThrow(
        MakeRateLimit(AlgorithmNamed(algorithm), rates[0].quota, rates[0].period, burst.value_or(0)));
    policy->slot = SlotOf(PolicyKey{MyDatabaseId, kAdHocPolicy}, InvalidOid, nullptr);
    *last_text = text;
    *last_algorithm = algorithm;
    last_burst = burst;
    policy->id = kAdHocPolicy;
  }
  policy->name = "(ad hoc)";
  policy->key_secret =
      KeySecret("ad hoc " + std::to_string(MyDatabaseId) + " " + algorithm + " " + std::string(name));
  return *policy;
}

// Errors: 42501 unless the caller has the rights of the policy's owner.
void CheckOwner(const Policy &policy) {
  if (!pg::HasOwnerRights(policy.owner, GetUserId()))
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE,
                  "must be owner of rate limit policy \"" + policy.name + "\"", pg::OwnerDetail(policy.owner),
                  pg::OwnerHint(policy.owner, "rate limit", policy.name));
}

// How long an answer refuses the request, for comparison with others; -1 if it passes.
int64 Severity(const Outcome &outcome) {
  if (outcome.allowed) return -1;
  return outcome.retry >= 0 ? outcome.retry : INT64_MAX;
}

// The one to report of several: the refusal with the longest wait or, if all passed, the least remaining.
size_t MostTelling(const std::vector<Outcome> &outcomes) {
  size_t chosen = 0;
  for (size_t i = 1; i < outcomes.size(); i++) {
    const Outcome &best = outcomes[chosen], &other = outcomes[i];
    const int64 worse = Severity(other), so_far = Severity(best);
    if (worse > so_far || (worse == -1 && so_far == -1 && other.remaining < best.remaining)) chosen = i;
  }
  return chosen;
}

}  // namespace

// rate_limit_allowed(policy text, key text | inet, cost bigint) → boolean. Errors of all that decide: 42704
// for an unknown policy, 22004 for NULL, 22023 for a negative cost, 22P02 for an invalid address where the
// policy wants one, 55000 and 25006 where the policy cannot be decided and does not fail open.
PRM_FUNCTION(rate_limit_allowed) { PG_RETURN_BOOL(DecideArguments(fcinfo, false).allowed); }
PRM_FUNCTION(rate_limit_allowed_inet) { PG_RETURN_BOOL(DecideArguments(fcinfo, true).allowed); }

// rate_limit(policy text, key text | inet, cost bigint) → redis_migrate.rate_limit_result
PRM_FUNCTION(rate_limit) { return RowOf(fcinfo, DecideArguments(fcinfo, false), nullptr); }
PRM_FUNCTION(rate_limit_inet) { return RowOf(fcinfo, DecideArguments(fcinfo, true), nullptr); }

// rate_limit_at(policy text, key text, cost bigint, at timestamptz) → redis_migrate.rate_limit_result. For
// the policy's owner. Errors: 22008 for a time before 1970 or after 2099.
PRM_FUNCTION(rate_limit_at) {
  if (PG_ARGISNULL(3)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "at must not be NULL");
  const int64 at = pg::UnixNs(PG_GETARG_TIMESTAMPTZ(3));
  if (at < 0 || at >= kLatestTime)
    throw Failure(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "at must be between the years 1970 and 2099");
  Request request = RequestOf(fcinfo, false);
  CheckOwner(*request.policy);
  request.cost = CostArgument(fcinfo, 2);
  request.at = at;
  return RowOf(fcinfo, Decide(request), nullptr);
}

// rate_limit_adhoc(name text, key text, limit text, cost bigint, burst bigint, algorithm text) →
// redis_migrate.rate_limit_result. The state belongs to name, key and algorithm; other numbers in the next
// call change the limit of a live key. Errors: 22023 for an invalid limit, 55000 without shared memory.
PRM_FUNCTION(rate_limit_adhoc) {
  const Bytes name = TextBytes(fcinfo, 0, "name");
  const std::string text(TextBytes(fcinfo, 2, "limit"));
  const std::string algorithm(TextBytes(fcinfo, 5, "algorithm"));
  std::optional<int64> burst;
  if (!PG_ARGISNULL(4)) burst = PG_GETARG_INT64(4);
  Request request;
  request.policy = &AdHocPolicy(name, text, burst, algorithm);
  request.key.text = TextBytes(fcinfo, 1, "key");
  request.cost = CostArgument(fcinfo, 3);
  return RowOf(fcinfo, Decide(request), nullptr);
}

// rate_limits(policies text[], keys text[], cost bigint) → redis_migrate.rate_limits_result. A single key
// applies to all policies. Errors: 22004 for a NULL in them, 2202E when the lengths of the arrays do not
// match.
PRM_FUNCTION(rate_limits) {
  const auto policies = TextsArgument(fcinfo, 0, "policies"), keys = TextsArgument(fcinfo, 1, "keys");
  if (policies.empty() || (keys.size() != policies.size() && keys.size() != 1))
    throw Failure(ERRCODE_ARRAY_SUBSCRIPT_ERROR, "there must be a key for each policy, or one for all",
                  std::to_string(policies.size()) + " policies and " + std::to_string(keys.size()) +
                      " keys were given.");
  const int64 cost = CostArgument(fcinfo, 2);
  RefreshPolicies();
  std::vector<Request> requests;
  for (size_t i = 0; i < policies.size(); i++) {
    const Policy &policy = PolicyNamed(policies[i]);
    requests.push_back(Request{&policy, TextKey(policy, keys[keys.size() == 1 ? 0 : i]), cost});
  }
  const std::vector<Outcome> outcomes = DecideTogether(requests);
  const size_t chosen = MostTelling(outcomes);
  const Datum name = pg::TextDatum(policies[chosen]);
  return RowOf(fcinfo, outcomes[chosen], &name);
}

// rate_limit_refund(policy text, key text, cost bigint) → bigint: what remains afterwards.
PRM_FUNCTION(rate_limit_refund) {
  Request request = RequestOf(fcinfo, false);
  request.cost = CostArgument(fcinfo, 2);
  PG_RETURN_INT64(GiveBack(request));
}

// rate_limit_headers(policy text, result redis_migrate.rate_limit_result) → jsonb, after draft-ietf-httpapi-
// ratelimit-headers-10. Seconds are rounded up, so that a client that waits that long passes. Errors: 42704.
PRM_FUNCTION(rate_limit_headers) {
  RefreshPolicies();
  const Policy &policy = PolicyNamed(TextBytes(fcinfo, 0, "policy"));
  if (PG_ARGISNULL(1)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "result must not be NULL");
  HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(1);
  struct Field {
    Datum value;
    bool null;
  };
  auto field = [&](const char *name) {
    return pg::Call([&] {
      Field found = {};
      found.value = GetAttributeByName(row, name, &found.null);
      return found;
    });
  };
  auto seconds = [](const Field &interval) {
    return std::to_string(pg::DivideUp(pg::IntervalUs(interval.value), USECS_PER_SEC));
  };
  const Field remaining = field("remaining"), reset = field("reset_after"), retry = field("retry_after");
  std::string name = "\\\"";  // a quoted string of the header inside a string of JSON
  for (char c : policy.name) {
    if (c == '"' || c == '\\') name += std::string("\\\\") + (c == '"' ? "\\" : "\\");
    name += c;
  }
  name += "\\\"";
  std::string json = "{\"RateLimit-Policy\": \"" + name + ";q=" + std::to_string(policy.limit.quota) +
                     ";w=" + std::to_string(pg::DivideUp(policy.limit.period, pg::kSecondNs)) + "\"";
  if (!remaining.null)
    json += ", \"RateLimit\": \"" + name + ";r=" + std::to_string(DatumGetInt64(remaining.value)) +
            (reset.null ? "" : ";t=" + seconds(reset)) + "\"";
  if (!retry.null) json += ", \"Retry-After\": \"" + seconds(retry) + "\"";
  json += "}";
  return pg::Call([&] { return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.c_str())); });
}

// reset_rate_limit(policy text, key text) → boolean: whether there was something to forget.
PRM_FUNCTION(reset_rate_limit) { PG_RETURN_BOOL(Forget(RequestOf(fcinfo, false))); }

}  // namespace prm::ratelimit
