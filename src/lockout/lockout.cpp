// The SQL functions that an application calls at a login, and those that read or change its counters.
#include "lockout/login.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/spi.h"
#include "pg/time.h"

namespace prm::lockout {
namespace {

using pg::Failure;

constexpr int kLongestType = 50;

Login LoginArguments(FunctionCallInfo fcinfo, int user_name, int address, int user_agent) {
  Login login;
  login.user_name = pg::OptionalTextArgument(fcinfo, user_name).value_or("");
  if (!PG_ARGISNULL(address)) login.address = HostOf(PG_GETARG_DATUM(address));
  if (user_agent >= 0) login.user_agent = pg::OptionalTextArgument(fcinfo, user_agent).value_or("");
  return login;
}

std::string TypeArgument(FunctionCallInfo fcinfo, int n) {
  std::string type = pg::TextArgument(fcinfo, n, "attempt_type");
  if (type.size() > kLongestType)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "attempt_type is too long",
                  "It has " + std::to_string(type.size()) + " bytes; the limit is 50.");
  return type;
}

// The time argument of the _at functions. Errors: 42501 unless the caller owns the policy, 22004, 22008.
int64 TimeArgument(FunctionCallInfo fcinfo, int n, const LockoutPolicy &policy) {
  if (policy.owner.role() != GetUserId() && !pg::Call([] { return superuser(); }))
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of lockout policy \"" + policy.name + "\"",
                  "A role that can set the time can end a lock.");
  if (PG_ARGISNULL(n)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "at must not be NULL");
  TimestampTz at = PG_GETARG_TIMESTAMPTZ(n);
  if (TIMESTAMP_NOT_FINITE(at) || at <= 0)
    throw Failure(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "at must be a time after the year 2000");
  return at;
}

Datum RowDatum(FunctionCallInfo fcinfo, Datum *values, bool *nulls) {
  return pg::Call([&] {
    TupleDesc desc;
    if (get_call_result_type(fcinfo, nullptr, &desc) != TYPEFUNC_COMPOSITE)
      elog(ERROR, "not a composite result");
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
  });
}

// (allowed, reason, blocked_by, retry_after, retry_after_seconds, locked_until, remaining, token). Called
// after SPI has ended: the result must be in the caller's memory.
Datum AnswerDatum(FunctionCallInfo fcinfo, const Answer &answer, int64 now) {
  Datum values[8] = {};
  bool nulls[8] = {false, false, true, true, true, true, true, true};
  values[0] = BoolGetDatum(answer.allowed);
  values[1] = pg::TextDatum(answer.reason);
  auto set = [&](int column, Datum value) {
    values[column] = value;
    nulls[column] = false;
  };
  if (!answer.allowed) {
    set(2, pg::TextDatum(ScopeName(answer.blocked_by)));
    if (answer.until > 0) {
      set(3, pg::IntervalDatum(answer.until - now));
      set(4, Float8GetDatum(pg::SecondsOfUs(answer.until - now)));
    }
    if (answer.reason == std::string_view("locked")) set(5, TimestampTzGetDatum(answer.until));
  }
  if (answer.remaining) set(6, Int32GetDatum(*answer.remaining));
  if (answer.token) set(7, Int64GetDatum(*answer.token));
  return RowDatum(fcinfo, values, nulls);
}

// at: the number of the time argument, if there is one.
Datum AnswerCheck(FunctionCallInfo fcinfo, std::optional<int> at) {
  std::string policy = pg::TextArgument(fcinfo, 0, "policy");
  Login login = LoginArguments(fcinfo, 1, 2, 3);
  std::string type = TypeArgument(fcinfo, 4);
  Answer answer;
  int64 now;
  {
    pg::Spi spi;
    LoginCounters counters(policy, std::move(login));
    now = at ? TimeArgument(fcinfo, *at, counters.policy()) : GetCurrentTimestamp();
    answer = counters.Check(now, type);
  }
  return AnswerDatum(fcinfo, answer, now);
}

Datum AnswerResult(FunctionCallInfo fcinfo, std::optional<int> at) {
  std::string policy = pg::TextArgument(fcinfo, 0, "policy");
  if (PG_ARGISNULL(3)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "success must not be NULL");
  std::optional<int64> token;
  if (!PG_ARGISNULL(4)) token = PG_GETARG_INT64(4);
  Login login = LoginArguments(fcinfo, 1, 2, 5);
  std::string reason = pg::OptionalTextArgument(fcinfo, 6).value_or("");
  std::string type = TypeArgument(fcinfo, 7);
  Answer answer;
  int64 now;
  {
    pg::Spi spi;
    LoginCounters counters(policy, std::move(login));
    now = at ? TimeArgument(fcinfo, *at, counters.policy()) : GetCurrentTimestamp();
    answer = counters.Result(now, PG_GETARG_BOOL(3), token, type, reason);
  }
  return AnswerDatum(fcinfo, answer, now);
}

Datum ShowStatus(FunctionCallInfo fcinfo, std::optional<int> at) {
  std::string policy = pg::TextArgument(fcinfo, 0, "policy");
  Login login = LoginArguments(fcinfo, 1, 2, 3);
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  pg::Spi spi;
  LoginCounters counters(policy, std::move(login));
  int64 now = at ? TimeArgument(fcinfo, *at, counters.policy()) : GetCurrentTimestamp();
  for (const Counter &counter : counters.Look(now)) {
    bool refuses = counter.status.room == 0;
    Datum values[] = {pg::TextDatum(ScopeName(counter.components)),
                      Int32GetDatum(counter.failures),
                      Int32GetDatum(counter.reserved),
                      Int32GetDatum(counter.status.room),
                      BoolGetDatum(counter.status.locked),
                      TimestampTzGetDatum(counter.status.until),
                      refuses ? pg::IntervalDatum(counter.status.until - now) : 0,
                      Float8GetDatum(pg::SecondsOfUs(counter.status.until - now))};
    bool nulls[] = {false, false, false, false, false, !counter.status.locked, !refuses, !refuses};
    pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
  }
  return 0;
}

}  // namespace
}  // namespace prm::lockout

using namespace prm;
using namespace prm::lockout;
using pg::Failure;

// redis_migrate.login_check(policy text, user_name text, address inet, user_agent text, attempt_type text):
// whether an attempt may be made; reserves it. Errors: 42704 no such policy, 42501 no rights of its owner,
// 55000 not preloaded, 22004, 22023.
PRM_FUNCTION(login_check) { return AnswerCheck(fcinfo, std::nullopt); }

// login_check at a given time, for the owner. Errors: also 42501 for others, 22008.
PRM_FUNCTION(login_check_at) { return AnswerCheck(fcinfo, 5); }

// redis_migrate.login_result(policy text, user_name text, address inet, success boolean, token bigint,
// user_agent text, reason text, attempt_type text): settles the attempt, or counts one that was not checked.
// Errors: as login_check.
PRM_FUNCTION(login_result) { return AnswerResult(fcinfo, std::nullopt); }

PRM_FUNCTION(login_result_at) { return AnswerResult(fcinfo, 8); }

// redis_migrate.lockout_status(policy text, user_name text, address inet, user_agent text): a row per
// counter. Errors: as login_check.
PRM_FUNCTION(lockout_status) { return ShowStatus(fcinfo, std::nullopt); }

PRM_FUNCTION(lockout_status_at) { return ShowStatus(fcinfo, 4); }

// redis_migrate.reset_lockout(policy text, user_name text, address inet, everything boolean): drops counters
// and records the role that asked for it. Errors: as login_check; 22023 for a wrong combination of arguments.
PRM_FUNCTION(reset_lockout) {
  std::string policy = pg::TextArgument(fcinfo, 0, "policy");
  Login login = LoginArguments(fcinfo, 1, 2, -1);
  bool everything = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
  if (everything == (!login.user_name.empty() || login.address.has_value()))
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "invalid combination of arguments of reset_lockout",
                  "A reset applies to a user name, an address or both, or to everything.",
                  "Give user_name, address, or everything => true.");
  pg::Spi spi;
  LoginCounters counters(policy, std::move(login));
  int64 now = GetCurrentTimestamp();
  uint64 removed = counters.Reset(everything, now);
  std::string who = pg::Call([&] { return GetUserNameFromId(GetUserId(), false); });
  Attempt attempt = counters.NewAttempt(now, "reset", "by " + who);
  attempt.has_success = false;
  counters.Put(&attempt);
  PG_RETURN_INT64(static_cast<int64>(removed));
}

// redis_migrate.import_lockout(policy text, user_name text, address inet, failures integer, last_failure
// timestamptz, user_agent text, no_ttl text): raises the counter of exactly the given columns to what another
// system counted. last_failure NULL: the counter has no end, and no_ttl says what to do. Errors: as
// login_check; 22023 for an unknown scope or a rejected counter without an end; 22008.
PRM_FUNCTION(import_lockout) {
  std::string policy = pg::TextArgument(fcinfo, 0, "policy");
  Login login = LoginArguments(fcinfo, 1, 2, 5);
  if (PG_ARGISNULL(3)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "failures must not be NULL");
  const std::string no_ttl = pg::TextArgument(fcinfo, 6, "no_ttl");
  pg::CheckKeyword(no_ttl, "no_ttl", {"reject", "forever", "full_window"});
  const bool endless = PG_ARGISNULL(4);
  if (!endless && TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(4)))
    throw Failure(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "last_failure must not be infinite");
  if (endless && no_ttl == "reject")
    throw Failure(
        ERRCODE_INVALID_PARAMETER_VALUE, "a counter for lockout policy \"" + policy + "\" has no end",
        "last_failure is NULL: in Redis the counter had no expiry, so it would lock for ever.",
        "Give no_ttl => 'full_window' to count its failures as of now, or no_ttl => 'forever' to lock "
        "for ever.");
  int components = (login.user_name.empty() ? 0 : kUserName) | (login.address ? kAddress : 0) |
                   (PG_ARGISNULL(5) ? 0 : kUserAgent);
  if (components == 0)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "user_name, address and user_agent must not all be NULL",
                  "", "Give user_name, address, user_agent, or several of them.");
  pg::Spi spi;
  LoginCounters counters(policy, std::move(login));
  const int64 now = GetCurrentTimestamp();
  const int64 last = endless ? now : std::max<int64>(PG_GETARG_TIMESTAMPTZ(4), 1);
  counters.Import(components, PG_GETARG_INT32(3), last, endless && no_ttl == "forever", now);
  PG_RETURN_VOID();
}

static bool IsCounted(int slot) {
  for (int i = 0; i < kStatistics; i++)
    if (LockoutTable::Counted(slot, static_cast<LockoutStatistic>(i)) > 0) return true;
  return false;
}

// redis_migrate.lockout_counts(): statistics of the policies of this database; rows for the view
// lockout_stats. policy_id is NULL for the policies of all databases that share a place.
PRM_FUNCTION(lockout_counts) {
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  if (lockout_area.memory() == nullptr) return 0;
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  std::vector<int64> entries(LockoutTable::kSlots);
  LockoutTable::table().ForEach(SecondsOf(GetCurrentTimestamp()),
                                [&](const Hash128 &, const LockoutEntry &, LockoutTable::Table::Owner owner,
                                    pg::Seconds) { entries[owner]++; });
  for (int slot = 0; slot < LockoutTable::kSlots; slot++) {
    std::optional<pg_uuid_t> policy = LockoutTable::PolicyOf(slot);
    const bool shared = slot == LockoutTable::kSlots - 1 && (entries[slot] > 0 || IsCounted(slot));
    if (!policy && !shared) continue;
    Datum values[kStatistics + 3];
    bool nulls[kStatistics + 3] = {!policy};
    values[0] = policy ? UUIDPGetDatum(&*policy) : 0;
    for (int i = 0; i < kStatistics; i++)
      values[1 + i] =
          Int64GetDatum(static_cast<int64>(LockoutTable::Counted(slot, static_cast<LockoutStatistic>(i))));
    values[kStatistics + 1] = Int64GetDatum(entries[slot]);
    values[kStatistics + 2] = TimestampTzGetDatum(LockoutTable::CountedSince(slot));
    pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
  }
  return 0;
}

// redis_migrate.reset_lockout_stats(policy text): Errors: as login_check.
PRM_FUNCTION(reset_lockout_stats) {
  pg::Spi spi;
  LockoutPolicy policy = LoadLockoutPolicy(pg::TextArgument(fcinfo, 0, "policy"));
  LockoutTable::Require();
  LockoutTable::ResetCounts(LockoutTable::SlotOf(policy.id, policy.owner.role()));
  PG_RETURN_VOID();
}
