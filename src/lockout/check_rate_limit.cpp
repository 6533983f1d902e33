// The interface that YOUTILITY3 and its successors call: check_rate_limit, log_rate_limit_attempt and
// cleanup_old_rate_limit_attempts, with their names, arguments and results, over the lockout policy
// auth_rate_limit.
#include "lockout/login.h"
#include "pg/argument_ranges.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm::lockout {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

constexpr char kPolicy[] = "auth_rate_limit";
constexpr char kCreate[] =
    "SELECT redis_migrate.create_lockout('auth_rate_limit', scopes => '{\"user_name\": 5, \"address\": 15}', "
    "time_window => '15 minutes', cool_off_mode => 'rolling', extend_on_attempt => true)";
constexpr int kAddressFactor = 3;  // an address may fail so many times as often as a user name

Login LoginOf(FunctionCallInfo fcinfo, int address, int user_name, int user_agent) {
  Login login;
  if (!PG_ARGISNULL(address)) login.address = HostOf(PG_GETARG_DATUM(address));
  login.user_name = pg::OptionalTextArgument(fcinfo, user_name).value_or("");
  if (user_agent >= 0) login.user_agent = pg::OptionalTextArgument(fcinfo, user_agent).value_or("");
  return login;
}

// Errors: 55000, with the statement that creates the policy, where the policy is missing or unsuitable.
void CheckPolicy(const LockoutPolicy &policy) {
  int scopes = 0;
  bool fits = true;
  for (const LockoutScope &scope : policy.scopes) {
    scopes |= 1 << scope.components;
    // Every failure counts, so that p_max_attempts may be above the policy's own threshold.
    fits = fits && scope.rule.mode == CoolOffMode::kRolling && scope.rule.extend_on_attempt;
  }
  if (fits && (scopes & 1 << kUserName) && (scopes & 1 << kAddress)) return;
  throw Failure(
      ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
      std::string("lockout policy \"") + kPolicy + "\" does not suit check_rate_limit",
      "It must have the scopes user_name and address, cool_off_mode rolling, and extend_on_attempt.",
      kCreate);
}

LoginCounters CountersOf(Login login) {
  bool exists;
  {
    pg::AsExtensionOwner as_owner;
    exists = Spi::Execute("SELECT FROM redis_migrate.lockout_policy WHERE policy = $1",
                          {SqlParam::Text(kPolicy)}, true)
                 .size() > 0;
  }
  if (!exists)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, std::string("lockout policy \"") + kPolicy + "\" does not exist",
                  "check_rate_limit and log_rate_limit_attempt count by this policy.", kCreate);
  return LoginCounters(kPolicy, std::move(login));
}

}  // namespace
}  // namespace prm::lockout

using namespace prm;
using namespace prm::lockout;
using pg::Failure;
using pg::Spi;
using pg::SqlParam;

// redis_migrate.check_rate_limit(p_ip_address inet, p_username varchar, p_time_window interval,
// p_max_attempts int) returns json: a user name is blocked at p_max_attempts failures within the window, an
// address at three times as many. Has the keys of all versions of the original. Errors: 42704 and 55000 if
// the policy auth_rate_limit is missing or unsuitable, 22023 for a window longer than the policy's, 42501.
PRM_FUNCTION(check_rate_limit) {
  int64 const window = pg::DurationArgument(fcinfo, 2, "p_time_window", pg::kMillisecond);
  int const most = pg::IntegerArgument(fcinfo, 3, "p_max_attempts", 1, INT32_MAX / kAddressFactor);
  pg::Spi spi;
  LoginCounters counters = CountersOf(LoginOf(fcinfo, 0, 1, -1));
  CheckPolicy(counters.policy());
  if (window > counters.policy().scopes.front().rule.window)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "p_time_window must be within the policy's window",
                  "Older attempts are not counted.",
                  "SELECT redis_migrate.alter_lockout('auth_rate_limit', time_window => ...)");
  int64 now = GetCurrentTimestamp();
  auto nobody = LoginCounters::Judged{{0, 0}, 0, false};
  auto user = counters.Judge(kUserName, window, most, now).value_or(nobody);
  auto address = counters.Judge(kAddress, window, most * kAddressFactor, now).value_or(nobody);
  const char *strategy = user.count.until > 0      ? "username"
                         : address.count.until > 0 ? "ip"
                         : user.full               ? "username"
                         : address.full            ? "ip"
                                                   : "none";
  int64 until = user.count.until > 0 ? user.count.until : address.count.until;
  int64 last = std::max(user.last_failure, address.last_failure);
  auto rows = Spi::Execute(
      R"sql(SELECT pg_catalog.json_build_object(
                'is_blocked', $1 OPERATOR(pg_catalog.<>) 'none',
                'ip_attempts', $2, 'user_attempts', $3, 'username_attempts', $3,
                'total_attempts', greatest($2, $3), 'max_attempts', $4,
                'block_reason', CASE $1 WHEN 'username' THEN 'Too many failed attempts for this user name'
                                        WHEN 'ip' THEN 'Too many failed attempts from this address' END,
                'blocking_strategy', $1,
                'time_window_minutes', pg_catalog.trim_scale($5 OPERATOR(pg_catalog./) 60000000.0),
                'time_window', $6, 'last_attempt', $7, 'time_until_reset', $8))sql",
      {SqlParam::Text(strategy), SqlParam::Int4(address.count.failures), SqlParam::Int4(user.count.failures),
       SqlParam::Int4(most), SqlParam::Int8(window), SqlParam{INTERVALOID, PG_GETARG_DATUM(2), false},
       SqlParam{TIMESTAMPTZOID, TimestampTzGetDatum(last), last == 0},
       SqlParam::Int8(until == 0 ? 0 : pg::DivideUp(until - now, USECS_PER_SEC))},
      true);
  std::string json = rows[0].Text(0);
  pg::SwitchContext result_memory(pg::EntryContext());
  return pg::TextDatum(json);
}

// redis_migrate.log_rate_limit_attempt(p_ip_address inet, p_username varchar, p_user_agent text,
// p_attempt_type varchar, p_success boolean, p_failure_reason varchar) returns int: counts and records an
// attempt; returns 1, or 0 where the full queue dropped its record. Errors: as check_rate_limit.
PRM_FUNCTION(log_rate_limit_attempt) {
  std::string type = pg::OptionalTextArgument(fcinfo, 3).value_or("login");
  bool success = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
  std::string reason = pg::OptionalTextArgument(fcinfo, 5).value_or("");
  pg::Spi spi;
  LoginCounters counters = CountersOf(LoginOf(fcinfo, 0, 1, 2));
  CheckPolicy(counters.policy());
  PG_RETURN_INT32(counters.Result(GetCurrentTimestamp(), success, std::nullopt, type, reason).recorded);
}

// redis_migrate.cleanup_old_rate_limit_attempts(p_keep_duration interval) returns int: deletes older attempts
// of policies whose owner's rights the caller has, in the caller's transaction; returns how many. Errors:
// 22004, 22023.
PRM_FUNCTION(cleanup_old_rate_limit_attempts) {
  int64 const keep_us = pg::DurationArgument(fcinfo, 0, "p_keep_duration", pg::kNoTime);
  Oid const user = GetUserId();
  pg::Spi spi;
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(DELETE FROM redis_migrate.login_attempt
            WHERE attempted_at < clock_timestamp() - $1 * interval '1 microsecond'
                AND pg_has_role($2, redis_migrate.owner_oid(owner), 'USAGE'))sql",
      {SqlParam::Int8(keep_us), SqlParam::OidOf(user)});
  PG_RETURN_INT32(static_cast<int32>(std::min<uint64>(rows.processed(), INT32_MAX)));
}
