// The SQL functions that define expiry policies. They check everything, so that a sweep only has to handle
// later changes.
#include "expiry/job.h"
#include "expiry/predicate.h"
#include "expiry/relation.h"
#include "pg/argument_ranges.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/user_sql.h"
#include "pg/worker_role.h"

namespace prm::expiry {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

SqlParam Argument(FunctionCallInfo fcinfo, int n, Oid type) {
  return {type, PG_ARGISNULL(n) ? 0 : PG_GETARG_DATUM(n), PG_ARGISNULL(n)};
}

void RequireArgument(FunctionCallInfo fcinfo, int n, const char *name) {
  if (PG_ARGISNULL(n)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be NULL");
}

bool BoolArgument(FunctionCallInfo fcinfo, int n) { return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n); }

// Whether it is one of the extension's tables, which have the right indexes.
bool IsOurs(Oid relation) {
  return pg::Call([&] { return get_rel_namespace(relation) == get_namespace_oid("redis_migrate", false); });
}

// Warns where no index serves the expiry column, and names the one to create.
void WarnWithoutIndex(const Policy &policy, const Target &target, const Leaves &leaves) {
  if (IsOurs(target.relation)) return;
  std::string without;
  for (const auto &[name, leaf] : leaves.tables) {
    Oid const table = leaf;
    int attnum = pg::Call([&] { return get_attnum(table, policy.expires_column.c_str()); });
    if (!HasIndexOn(leaf, attnum)) {
      without = name;
      break;
    }
  }
  bool const partitioned =
      pg::Call([&] { return get_rel_relkind(target.relation); }) == RELKIND_PARTITIONED_TABLE;
  if (!without.empty())
    pg::Report(WARNING, "no index serves column \"" + policy.expires_column + "\" of table " + without,
               "Each sweep will read the whole table.",
               (partitioned ? "CREATE INDEX ON " + policy.name : "CREATE INDEX CONCURRENTLY ON " + without) +
                   " (" + pg::QuoteIdentifier(policy.expires_column) + ");");
  if (leaves.foreign > 0)
    pg::Report(WARNING,
               "table " + policy.name + " has " + std::to_string(leaves.foreign) + " foreign partitions",
               "Foreign partitions are not swept.", "Add a policy on the server that holds them.");
}

// A sweep silently skips rows that row security hides.
void WarnOfRowSecurity(const Policy &policy, const Leaves &leaves) {
  for (const auto &[name, leaf] : leaves.tables) {
    if (!HidesRows(leaf)) continue;
    std::string const kept = policy.drop_partitions ? ", and do not drop the partition." : ".";
    pg::Report(WARNING, "row security of table " + name + " applies to sweeps",
               "They remove only rows that it shows to the policy's owner" + kept,
               "Roles with BYPASSRLS are shown all rows, and so is the table's owner unless it is forced.");
    return;
  }
}

constexpr TimestampTz kFirstPlausible = pg::FromUnixSeconds(INT64CONST(31536000));    // 1971
constexpr TimestampTz kLastPlausible = pg::FromUnixSeconds(INT64CONST(32503680000));  // 3000
constexpr int64 kEnoughValues = 1000;

// Seconds read as milliseconds are in January 1970, and every row seems to have expired. Milliseconds read as
// seconds are in the year 50000 or later, and no row ever expires.
void WarnOfUnit(const Policy &policy, const Target &target, const Leaves &leaves) {
  if (policy.unit.empty()) return;
  Policy column = policy;
  column.lifetime = column.grace = Interval();
  int64 values = 0;
  std::optional<TimestampTz> first, last;
  for (const auto &[name, leaf] : leaves.tables) {
    auto rows = Spi::Execute(Statements(policy, target.kind, name).Range(),
                             {SamplePercent(SampleShare(Pages(leaf)))});
    if (rows[0].Int8(2) == 0) continue;
    TimestampTz const lowest = ExpiresAt(column, target.kind, rows[0].Int8(0));
    TimestampTz const highest = ExpiresAt(column, target.kind, rows[0].Int8(1));
    first = std::min(first.value_or(lowest), lowest);
    last = std::max(last.value_or(highest), highest);
    values += rows[0].Int8(2);
    if (*last >= kFirstPlausible && *first < kLastPlausible) return;
    if (values >= kEnoughValues) break;
  }
  if (values == 0) return;
  bool const early = *last < kFirstPlausible;
  std::string const time = pg::Call([&] { return timestamptz_to_str(early ? *last : *first); });
  pg::Report(
      WARNING,
      "column \"" + policy.expires_column + "\" of table " + policy.name + " does not seem to count " +
          policy.unit,
      (early ? "Every row seems to have expired: the latest of " : "No row will expire: the earliest of ") +
          std::to_string(values) + " values would be of " + time + ".",
      "SELECT redis_migrate.alter_expiry(" + pg::QuoteLiteral(policy.name) + ", unit => " +
          (policy.unit == "seconds" ? "'milliseconds'" : "'seconds'") + ");");
}

void CheckRights(const Policy &policy, const std::string &table) {
  std::string const remove = policy.soft_delete.empty() ? "DELETE" : "UPDATE";
  auto rows = Spi::Execute(
      R"sql(SELECT pg_catalog.has_table_privilege($1, 'SELECT'),
                pg_catalog.has_any_column_privilege($1, 'UPDATE'),
                pg_catalog.has_table_privilege($1, $2), CURRENT_USER::pg_catalog.text)sql",
      {SqlParam::Text(table), SqlParam::Text("DELETE")});
  if (rows[0].Bool(0) && rows[0].Bool(1) && (rows[0].Bool(2) || remove == "UPDATE")) return;
  std::string const needed = remove == "DELETE" ? "SELECT, UPDATE, DELETE" : "SELECT, UPDATE";
  throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for table " + table,
                "A sweep needs the rights " + needed + "; locking a row takes UPDATE.",
                "GRANT " + needed + " ON " + table + " TO " + pg::QuoteIdentifier(rows[0].Text(3)) + ";");
}

// Checks the stored definition, as the caller. An error rolls it back. `trust`: as for AddPolicy.
void Check(int64 job_id, bool trust) {
  Policy policy;
  State state;
  LoadPolicy(job_id, false, policy, state);
  auto refuse = [](const std::string &message, const std::string &detail = "") {
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, message, detail);
  };
  if (!policy.unit.empty()) pg::CheckKeyword(policy.unit, "unit", {"seconds", "milliseconds"});
  pg::CheckDuration("batch_time", policy.batch_ms * INT64CONST(1000), pg::kMillisecond, pg::kMinute);
  // Field by field: days and hours of different signs could still make a cutoff that lies ahead.
  for (const auto &[name, interval] : {std::pair{"lifetime", policy.lifetime}, {"grace", policy.grace}}) {
    if (interval.month < 0 || interval.day < 0 || interval.time < 0)
      refuse(std::string(name) + " must not be negative", "Rows that have not expired would be removed.");
    pg::CheckDuration(name, pg::IntervalUs(interval), pg::kNoTime);
  }
  if (policy.max_rate < 0) refuse("max_rate must not be negative", "0 means no limit.");
  if (policy.max_xmin_age < 0) refuse("max_xmin_age must not be negative", "0 means no limit.");
  if (!(policy.max_replication_lag_s >= 0 &&
        policy.max_replication_lag_s <= pg::SecondsOfUs(pg::kHundredYears.us)))
    refuse("max_replication_lag must be between 0 and 100 years", "0 means no limit.");
  if (!policy.notify_column.empty() && policy.notify_channel.empty())
    refuse("notify_column needs notify_channel");
  if (policy.notify_channel.size() >= NAMEDATALEN) refuse("notify_channel is too long");
  if (policy.drop_partitions && !(policy.condition.empty() && policy.soft_delete.empty()))
    refuse("drop_partitions cannot be combined with condition or soft_delete",
           "A partition is dropped whole, whatever its rows contain.");
  if (!policy.condition.empty()) pg::CheckExpression(policy.condition, "condition");
  if (!policy.soft_delete.empty())
    pg::CheckSetList(policy.soft_delete, "soft_delete",
                     "Write a SET list such as 'deleted_at = clock_timestamp()'.");
  Target const target = ResolveTarget(policy);
  if (policy.drop_partitions &&
      pg::Call([&] { return get_rel_relkind(target.relation); }) != RELKIND_PARTITIONED_TABLE)
    refuse("drop_partitions is for partitioned tables");
  char persistence = pg::Call([&] { return get_rel_persistence(target.relation); });
  if (persistence == RELPERSISTENCE_TEMP)
    refuse("a temporary table cannot have an expiry policy", "No other session could sweep it.");
  if (!policy.keeps_history && target.relation < FirstNormalObjectId)
    refuse("table " + policy.name + " belongs to PostgreSQL");
  PolicySettings settings(policy);
  for (const auto &leaf : FindLeaves(target.relation).tables) CheckRights(policy, leaf.first);
  policy.accepted.is_confirmed = trust;
  pg::UsedObjects const used = UsedByTexts(policy, target.kind);
  pg::TrustCode(policy.accepted, used, GetUserId());
  if (trust) StoreAccepted(job_id, policy.accepted);
  pg::CheckCode(policy.accepted, used, GetUserId(), "the expiry policy of " + policy.name,
                "the same call with trust_target => true.");
  // The planner finds what the grammar did not: columns, types, functions.
  Cutoff const cutoff(policy, target.kind, GetCurrentTimestamp());
  Statements const statements(policy, target.kind, policy.name);
  bool const is_table = pg::Call([&] { return get_rel_relkind(target.relation); }) == RELKIND_RELATION;
  if (is_table)
    Spi::Execute("EXPLAIN " + statements.IndexBatch(false),
                 {cutoff.param(), cutoff.ParamOf(0), SqlParam::Int4(1)});
  else
    for (const auto &leaf : FindLeaves(target.relation).tables)
      Spi::Execute("EXPLAIN " + Statements(policy, target.kind, leaf.first).IndexBatch(false),
                   {cutoff.param(), cutoff.ParamOf(0), SqlParam::Int4(1)});
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.expiry_policy SET expires_attnum = $2 WHERE job_id = $1",
               {SqlParam::Int8(job_id), SqlParam::Int4(target.attnum)});
}

void Warn(int64 job_id) {
  Policy policy;
  State state;
  LoadPolicy(job_id, false, policy, state);
  Target const target = ResolveTarget(policy);
  Leaves const leaves = FindLeaves(target.relation);
  WarnOfUnit(policy, target, leaves);
  WarnWithoutIndex(policy, target, leaves);
  WarnOfRowSecurity(policy, leaves);
}

// The properties of a policy in the order of add_expiry's arguments.
struct Property {
  const char *column;
  Oid type;
  bool optional;  // an empty text removes it
};
constexpr Property kProperties[] = {{"expires_column", TEXTOID, false},
                                    {"every", INTERVALOID, false},
                                    {"unit", TEXTOID, true},
                                    {"column_timezone", TEXTOID, true},
                                    {"lifetime", INTERVALOID, false},
                                    {"grace", INTERVALOID, false},
                                    {"condition", TEXTOID, true},
                                    {"soft_delete", TEXTOID, true},
                                    {"notify_channel", TEXTOID, true},
                                    {"notify_column", TEXTOID, true},
                                    {"drop_partitions", BOOLOID, false},
                                    {"batch_time", INTERVALOID, false},
                                    {"max_rate", INT4OID, false},
                                    {"max_replication_lag", INTERVALOID, false},
                                    {"max_xmin_age", INT4OID, false}};
constexpr int kPropertyCount = lengthof(kProperties);
constexpr int kEvery = 1;

std::vector<SqlParam> PropertyArguments(FunctionCallInfo fcinfo, int first) {
  std::vector<SqlParam> values;
  for (int i = 0; i < kPropertyCount; ++i) values.push_back(Argument(fcinfo, first + i, kProperties[i].type));
  return values;
}

// `trust`: the role that adds it has confirmed whose SQL may run with its rights.
void AddPolicy(Oid relation, const std::vector<SqlParam> &properties, bool trust) {
  for (int i = 0; i < kPropertyCount; ++i)
    if (properties[i].null && !kProperties[i].optional)
      throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(kProperties[i].column) + " must not be NULL");
  CheckEvery(properties[kEvery]);
  std::string const name = QualifiedName(relation);
  if (name.empty())
    throw Failure(ERRCODE_UNDEFINED_TABLE,
                  "relation with OID " + std::to_string(relation) + " does not exist");
  int64 const job_id = AddJob(JobKind::kExpiry, pg::AcceptRelation(relation, name, GetUserId(), trust), name,
                              properties[kEvery]);
  AddHistoryPolicy();
  {
    pg::AsExtensionOwner as_owner;
    std::string columns, values;
    std::vector<SqlParam> params = {SqlParam::Int8(job_id)};
    for (int i = 0; i < kPropertyCount; ++i) {
      if (i == kEvery) continue;
      params.push_back(properties[i]);
      std::string const value = "$" + std::to_string(params.size());
      columns += std::string(", ") + kProperties[i].column;
      values += ", " + (kProperties[i].optional ? "nullif(" + value + ", '')" : value);
    }
    Spi::Execute("INSERT INTO redis_migrate.expiry_policy (job_id" + columns + ") VALUES ($1" + values + ")",
                 params);
    Spi::Execute("INSERT INTO redis_migrate.expiry_state (job_id) VALUES ($1)", {SqlParam::Int8(job_id)});
  }
  Check(job_id, trust);
  Warn(job_id);
}

void AlterPolicy(int64 job_id, const std::vector<SqlParam> &properties) {
  pg::AsExtensionOwner as_owner;
  std::string list;
  std::vector<SqlParam> params = {SqlParam::Int8(job_id)};
  for (int i = 0; i < kPropertyCount; ++i) {
    if (properties[i].null || i == kEvery) continue;
    params.push_back(properties[i]);
    std::string const value = "$" + std::to_string(params.size());
    list += (list.empty() ? "" : ", ") + std::string(kProperties[i].column) + " = " +
            (kProperties[i].optional ? "nullif(" + value + ", '')" : value);
  }
  if (!list.empty())
    Spi::Execute("UPDATE redis_migrate.expiry_policy SET " + list + " WHERE job_id = $1", params);
  // Statistics of sweeps by another definition do not apply to this one.
  Spi::Execute(
      R"sql(UPDATE redis_migrate.expiry_state
            SET started_at = NULL, leaf = NULL, sweep_order = NULL, backlog = NULL,
                oldest_expired_at = NULL
            WHERE job_id = $1)sql",
      {SqlParam::Int8(job_id)});
}

// The tables in which frameworks keep their sessions, by their own documentation.
struct Preset {
  const char *store;
  const char *table;
  const char *column;
  const char *unit;
  const char *timezone;  // of the column; "session": that of the database
  const char *lifetime;
};
constexpr Preset kPresets[] = {
    // A model of django.contrib.sessions.
    {"django", "django_session", "expire_date", "", "", "0"},
    // table.sql of the package; it writes to_timestamp() into a timestamp, which is in the zone of its
    // connection.
    {"connect-pg-simple", "session", "expire", "", "session", "0"},
    // SQLAlchemy model of the package; datetime.utcnow() or the like.
    {"flask-session", "sessions", "expiry", "", "UTC", "0"},
    // schema-postgresql.sql of spring-session-jdbc.
    {"spring-session", "spring_session", "expiry_time", "milliseconds", "", "0"},
    // artisan session:table; the lifetime is SESSION_LIFETIME.
    {"laravel", "sessions", "last_activity", "seconds", "", "2 hours"},
    // README of scs/postgresstore.
    {"scs", "sessions", "expiry", "", "", "0"},
};

}  // namespace
}  // namespace prm::expiry

// redis_migrate.add_expiry(…): see docs/expiry.md. Locks: ACCESS SHARE on the table. Errors: 42710 it has a
// policy, 42501 a right is missing, 42809, 42703, 42804, 22023, 42601 for invalid arguments.
PRM_FUNCTION(add_expiry) {
  using namespace prm::expiry;
  RequireArgument(fcinfo, 0, "target");
  prm::pg::Spi spi;
  AddPolicy(PG_GETARG_OID(0), PropertyArguments(fcinfo, 1), BoolArgument(fcinfo, 16));
  prm::pg::WarnOfRoleProblem(GetUserId(), "the expiry policy of " + QualifiedName(PG_GETARG_OID(0)));
  PG_RETURN_VOID();
}

// redis_migrate.alter_expiry(…): as add_expiry. Waits for a running batch of the policy.
PRM_FUNCTION(alter_expiry) {
  using namespace prm;
  using namespace prm::expiry;
  std::string const target = pg::TextArgument(fcinfo, 0, "target");
  std::vector<pg::SqlParam> const properties = PropertyArguments(fcinfo, 2);
  pg::Spi spi;
  CheckEvery(properties[kEvery]);
  JobName const job = FindJob(JobKind::kExpiry, target, false);
  std::optional<Oid> relation;
  if (!PG_ARGISNULL(1)) relation = PG_GETARG_OID(1);
  AlterJob(JobKind::kExpiry, job.id, relation, properties[kEvery],
           !properties[6].null || !properties[7].null);
  bool const trust = BoolArgument(fcinfo, 17);
  AcceptAnew(job, relation, trust);
  AlterPolicy(job.id, properties);
  Check(job.id, trust);
  Warn(job.id);
  PG_RETURN_VOID();
}

// redis_migrate.drop_expiry(target text): see the SQL comment.
PRM_FUNCTION(drop_expiry) {
  using namespace prm::expiry;
  prm::pg::Spi spi;
  DropJob(FindJob(JobKind::kExpiry, prm::pg::TextArgument(fcinfo, 0, "target"), true).id);
  PG_RETURN_VOID();
}

// redis_migrate.pause_expiry(target text), resume_expiry(target text): see the SQL comments.
PRM_FUNCTION(pause_expiry) {
  using namespace prm::expiry;
  prm::pg::Spi spi;
  EnableJob(FindJob(JobKind::kExpiry, prm::pg::TextArgument(fcinfo, 0, "target"), true).id, false);
  PG_RETURN_VOID();
}

PRM_FUNCTION(resume_expiry) {
  using namespace prm::expiry;
  prm::pg::Spi spi;
  EnableJob(FindJob(JobKind::kExpiry, prm::pg::TextArgument(fcinfo, 0, "target"), true).id, true);
  PG_RETURN_VOID();
}

// redis_migrate.add_session_expiry(store text, target regclass, every interval, lifetime interval,
// column_timezone text, trust_target boolean): see the SQL comment. Errors: 22023 for another store, 42P01
// when its table does not exist, those of add_expiry.
PRM_FUNCTION(add_session_expiry) {
  using namespace prm;
  using namespace prm::expiry;
  std::string const store = pg::TextArgument(fcinfo, 0, "store");
  pg::CheckKeyword(store, "store",
                   {"django", "connect-pg-simple", "flask-session", "spring-session", "laravel", "scs"});
  const Preset &preset = *std::find_if(std::begin(kPresets), std::end(kPresets),
                                       [&](const Preset &each) { return store == each.store; });
  pg::Spi spi;
  Oid const relation = PG_ARGISNULL(1) ? FindRelation(preset.table) : PG_GETARG_OID(1);
  if (!OidIsValid(relation))
    throw pg::Failure(ERRCODE_UNDEFINED_TABLE,
                      std::string("there is no table \"") + preset.table + "\" of " + store, "",
                      "Name the table: target => '...'.");
  std::optional<std::string> zone = pg::OptionalTextArgument(fcinfo, 4);
  if (!zone) {
    zone = preset.timezone;
    if (*zone == "session") {
      zone = pg::Call([] { return GetConfigOption("timezone", false, false); });
      pg::Report(NOTICE, std::string("times of ") + store + " are taken to be in time zone " + *zone,
                 "This is the time zone of the session; the application may use another.",
                 "Use column_timezone => '...' to set another.");
    }
  }
  auto interval = [](const char *value) {
    return pg::SqlParam{INTERVALOID, pg::Call([&] {
                          return DirectFunctionCall3(interval_in, CStringGetDatum(value),
                                                     ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
                        }),
                        false};
  };
  pg::SqlParam const none = {TEXTOID, 0, true};
  AddPolicy(relation,
            {pg::SqlParam::Text(preset.column), Argument(fcinfo, 2, INTERVALOID),
             pg::SqlParam::Text(preset.unit), pg::SqlParam::Text(*zone),
             PG_ARGISNULL(3) ? interval(preset.lifetime) : Argument(fcinfo, 3, INTERVALOID), interval("0"),
             none, none, none, none, pg::SqlParam::Bool(false), interval("100 ms"), pg::SqlParam::Int4(0),
             interval("30 s"), pg::SqlParam::Int4(10000000)},
            BoolArgument(fcinfo, 5));
  PG_RETURN_VOID();
}

// redis_migrate.reset_expiry_stats(target text): see the SQL comment.
PRM_FUNCTION(reset_expiry_stats) {
  using namespace prm;
  using namespace prm::expiry;
  std::optional<std::string> const target = pg::OptionalTextArgument(fcinfo, 0);
  Oid const user = GetUserId();
  pg::Spi spi;
  int64 const job_id = target ? FindJob(JobKind::kExpiry, *target, true).id : 0;
  pg::AsExtensionOwner as_owner;
  pg::Spi::Execute(
      R"sql(WITH j AS (
                UPDATE redis_migrate.job
                SET runs = 0, empty_runs = 0, failed_runs = 0, last_sqlstate = NULL,
                    last_message = NULL, last_error_at = NULL, stats_reset = clock_timestamp()
                WHERE kind = 'expiry'
                    AND (job_id = $1 OR $1 = 0 AND redis_migrate.owner_oid(owner) = $2)
                RETURNING job_id)
            UPDATE redis_migrate.expiry_state AS s
            SET rows_total = 0, batches_total = 0, skipped_total = 0, partitions_dropped = 0
            FROM j
            WHERE s.job_id = j.job_id)sql",
      {pg::SqlParam::Int8(job_id), pg::SqlParam::OidOf(user)});
  PG_RETURN_VOID();
}
