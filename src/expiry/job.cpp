#include "expiry/job.h"

#include "expiry/relation.h"
#include "pg/argument_ranges.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/owner.h"
#include "pg/spi.h"

namespace prm::expiry {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

namespace {

SqlParam TimeParam(TimestampTz time) { return {TIMESTAMPTZOID, TimestampTzGetDatum(time), false}; }

// (owner, job_id, kind, due) of enabled jobs, `owner` being as whom each is run; $1 is now. A job that was
// scheduled in the future is due: the clock was set back. A mark counts from the last refresh, so that marks
// without end do not make refreshes without end. Marks and refreshes of the future are due: NULL in
// greatest() counts for nothing.
std::string DueTimes(const std::string &filter) {
  return R"sql(SELECT redis_migrate.acting_role(j.owner) AS owner, j.job_id, j.kind, j.next_run AS due
               FROM redis_migrate.job AS j
               WHERE j.enabled AND j.next_run IS NOT NULL)sql" +
         filter +
         R"sql( UNION ALL
                SELECT redis_migrate.acting_role(j.owner), j.job_id, j.kind, $1
                FROM redis_migrate.job AS j
                WHERE j.enabled AND j.scheduled_at > $1 AND j.next_run IS NOT NULL)sql" +
         filter +
         R"sql( UNION ALL
                SELECT redis_migrate.acting_role(j.owner), j.job_id, j.kind,
                    coalesce(greatest(CASE WHEN m.marked_at <= $1 THEN m.marked_at END,
                                      CASE WHEN j.last_finished_at <= $1 THEN j.last_finished_at END) +
                             p.debounce, $1)
                FROM redis_migrate.refresh_policy AS p JOIN redis_migrate.job AS j USING (job_id),
                     LATERAL (SELECT min(s.marked_at) AS marked_at
                              FROM redis_migrate.stale_mark AS s
                              WHERE s.job_id = p.job_id) AS m
                WHERE j.enabled AND j.failures = 0 AND m.marked_at IS NOT NULL)sql" +
         filter;
}

// The first condition finds the job by its index.
constexpr char kOfRole[] =
    " AND redis_migrate.stamped_role(j.owner) = $2 AND redis_migrate.acting_role(j.owner) = $2";

}  // namespace

const char *KindName(JobKind kind) { return kind == JobKind::kExpiry ? "expiry" : "refresh"; }

JobLock::JobLock(int64 job_id)
    : lock_(pg::LockTag(pg::kJobLocks, static_cast<uint64>(job_id)), ExclusiveLock) {
  (void)lock_.TryTake();
}

JobName FindJob(JobKind kind, const std::string &target, bool manage) {
  Oid const user = GetUserId();
  // Resolves the name with the session's search_path, as the caller would.
  std::string resolved = QualifiedName(FindRelation(target));
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT job_id, name, owner
            FROM redis_migrate.job
            WHERE kind = $1 AND name = ANY (ARRAY[$2, $3])
            ORDER BY name <> $2 LIMIT 1)sql",
      {SqlParam::Text(KindName(kind)), SqlParam::Text(target), SqlParam::Text(resolved)});
  bool const expiry = kind == JobKind::kExpiry;
  if (rows.size() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT,
                  (expiry ? "table \"" : "materialized view \"") + target + "\" has no " +
                      (expiry ? "expiry policy" : "refresh"),
                  "",
                  expiry ? "SELECT redis_migrate.add_expiry(" + pg::QuoteLiteral(target) +
                               ", 'expires_at') adds one; redis_migrate.expiry_policies lists them."
                         : "SELECT redis_migrate.add_refresh(" + pg::QuoteLiteral(target) +
                               ") adds one; redis_migrate.refreshes lists them.");
  pg::Owner const owner(rows[0].Value(2));
  if (!(manage ? pg::HasOwnerRights(owner, user) : owner.role() == user))
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE,
                  std::string("must be owner of the ") + (expiry ? "expiry policy" : "refresh") + " of " +
                      rows[0].Text(1),
                  pg::OwnerDetail(owner), pg::OwnerHint(owner, KindName(kind), rows[0].Text(1)));
  return {rows[0].Int8(0), rows[0].Text(1), !owner.is_local()};
}

namespace {

std::vector<SqlParam> SessionSettings() {
  std::vector<SqlParam> values;
  for (const char *name : {"search_path", "timezone", "datestyle", "intervalstyle"})
    values.push_back(SqlParam::Text(pg::Call([&] { return GetConfigOption(name, false, false); })));
  return values;
}

[[noreturn]] void ThrowDuplicate(JobKind kind, const std::string &name) {
  bool const expiry = kind == JobKind::kExpiry;
  throw Failure(ERRCODE_DUPLICATE_OBJECT,
                (expiry ? "table " : "materialized view ") + name + " has " +
                    (expiry ? "an expiry policy" : "a refresh") + " already",
                "", std::string("Change it with redis_migrate.alter_") + KindName(kind) + ".");
}

}  // namespace

std::string ConfirmCall(JobKind kind, const std::string &name) {
  return std::string("SELECT redis_migrate.alter_") + KindName(kind) + "(" + pg::QuoteLiteral(name) +
         ", trust_target => true);";
}

void StoreAccepted(int64 job_id, const pg::AcceptedRelation &relation) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.job
            SET relation = $2, relation_owner = $3::redis_migrate.owner_role,
                trusted_roles = $4::redis_migrate.owner_role[], problem = NULL
            WHERE job_id = $1)sql",
      {SqlParam::Int8(job_id), SqlParam::OidOf(relation.relation), SqlParam::Text(relation.owner.ToText()),
       SqlParam::TextArray(relation.TrustedText())});
}

void AcceptAnew(const JobName &job, std::optional<Oid> new_relation, bool is_confirmed) {
  if (!new_relation && !is_confirmed) return;
  Oid const relation = new_relation ? *new_relation : FindRelation(job.name, AccessShareLock);
  std::string const name = QualifiedName(relation);
  if (name.empty()) throw Failure(ERRCODE_UNDEFINED_TABLE, "relation " + job.name + " does not exist");
  StoreAccepted(job.id, pg::AcceptRelation(relation, name, GetUserId(), is_confirmed));
}

int64 AddJob(JobKind kind, const pg::AcceptedRelation &relation, const std::string &name,
             const SqlParam &every) {
  Oid const user = GetUserId();
  std::vector<SqlParam> params = {SqlParam::Text(KindName(kind)),
                                  SqlParam::Text(name),
                                  SqlParam::OidOf(relation.relation),
                                  SqlParam::OidOf(user),
                                  every,
                                  SqlParam::Text(relation.owner.ToText()),
                                  SqlParam::TextArray(relation.TrustedText())};
  for (const SqlParam &setting : SessionSettings()) params.push_back(setting);
  pg::ClaimOwnership(user);
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(INSERT INTO redis_migrate.job (kind, name, relation, owner, every, next_run,
                                           relation_owner, trusted_roles, search_path, timezone,
                                           datestyle, intervalstyle)
            VALUES ($1, $2, $3, redis_migrate.stamp_owner($4), $5,
                    CASE WHEN $5 IS NOT NULL THEN clock_timestamp() END, $6::redis_migrate.owner_role,
                    $7::redis_migrate.owner_role[], $8, $9, $10, $11)
            ON CONFLICT DO NOTHING
            RETURNING job_id)sql",
      params);
  if (rows.size() == 0) ThrowDuplicate(kind, name);
  return rows[0].Int8(0);
}

void AddHistoryPolicy() {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(WITH j AS (
                INSERT INTO redis_migrate.job (kind, name, relation, relation_owner, owner, every)
                SELECT 'expiry', 'redis_migrate.job_history', c.oid,
                    redis_migrate.stamp_owner(c.relowner),
                    redis_migrate.stamp_owner(CURRENT_USER::regrole), '1 hour'
                FROM pg_class AS c
                WHERE c.oid = 'redis_migrate.job_history'::regclass
                ON CONFLICT DO NOTHING
                RETURNING job_id),
                s AS (INSERT INTO redis_migrate.expiry_state (job_id) SELECT job_id FROM j)
            INSERT INTO redis_migrate.expiry_policy
                (job_id, expires_column, lifetime, grace, drop_partitions, batch_time, max_rate,
                 max_replication_lag, max_xmin_age)
            SELECT job_id, 'finished_at', '0', '0', false, '100 ms', 0, '30 seconds', 10000000
            FROM j)sql");
}

namespace {

// The role that changes or resumes a policy may have removed what kept rows.
void TryStuckRowsAgain(int64 job_id) {
  Spi::Execute("UPDATE redis_migrate.stuck_row SET next_try = clock_timestamp() WHERE job_id = $1",
               {SqlParam::Int8(job_id)});
}

}  // namespace

void CheckEvery(const SqlParam &every) {
  if (!every.null) pg::CheckDuration("every", pg::IntervalUs(every.value), pg::kSecond);
}

void AlterJob(JobKind kind, int64 job_id, std::optional<Oid> relation, const SqlParam &every, bool settings) {
  std::string const name = relation ? QualifiedName(*relation) : "";
  std::vector<SqlParam> params = {SqlParam::Int8(job_id),
                                  relation ? SqlParam::Text(name) : SqlParam{TEXTOID, 0, true}, every};
  std::string list;
  if (settings) {
    for (const SqlParam &setting : SessionSettings()) params.push_back(setting);
    list = ", search_path = $4, timezone = $5, datestyle = $6, intervalstyle = $7";
  }
  pg::AsExtensionOwner as_owner;
  if (relation && Spi::Execute("SELECT FROM redis_migrate.job WHERE kind = $1 AND name = $2 AND job_id <> $3",
                               {SqlParam::Text(KindName(kind)), SqlParam::Text(name), SqlParam::Int8(job_id)})
                          .size() > 0)
    ThrowDuplicate(kind, name);
  Spi::Execute(
      R"sql(UPDATE redis_migrate.job
            SET name = coalesce($2, name), problem = NULL, every = coalesce($3, every), failures = 0,
                scheduled_at = clock_timestamp(), next_run = clock_timestamp())sql" +
          list + " WHERE job_id = $1",
      params);
  TryStuckRowsAgain(job_id);
}

void DropJob(int64 job_id) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("DELETE FROM redis_migrate.job WHERE job_id = $1", {SqlParam::Int8(job_id)});
  Spi::Execute("DELETE FROM redis_migrate.stale_mark WHERE job_id = $1", {SqlParam::Int8(job_id)});
}

void EnableJob(int64 job_id, bool enabled) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.job
            SET enabled = $2, failures = CASE WHEN $2 THEN 0 ELSE failures END,
                scheduled_at = clock_timestamp(),
                next_run = CASE WHEN $2 AND every IS NOT NULL THEN clock_timestamp() ELSE next_run END
            WHERE job_id = $1)sql",
      {SqlParam::Int8(job_id), SqlParam::Bool(enabled)});
  if (enabled) TryStuckRowsAgain(job_id);
}

std::vector<DueJob> DueJobs(Oid owner) {
  TimestampTz const now = GetCurrentTimestamp();
  pg::AsExtensionOwner as_owner;
  auto rows =
      Spi::ExecuteKept("SELECT d.job_id, d.kind FROM (" + DueTimes(kOfRole) +
                           ") AS d WHERE d.due <= $1 GROUP BY d.job_id, d.kind ORDER BY min(d.due) LIMIT " +
                           std::to_string(kMostDueJobs),
                       {TimeParam(now), SqlParam::OidOf(owner)});
  std::vector<DueJob> jobs;
  for (uint64 i = 0; i < rows.size(); ++i)
    jobs.push_back({rows[i].Int8(0), rows[i].Text(1) == "expiry" ? JobKind::kExpiry : JobKind::kRefresh});
  return jobs;
}

bool IsDue(int64 job_id) {
  TimestampTz const now = GetCurrentTimestamp();
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept("SELECT FROM (" + DueTimes(" AND j.job_id = $2") + ") AS d WHERE d.due <= $1",
                          {TimeParam(now), SqlParam::Int8(job_id)})
             .size() > 0;
}

void RecordRun(int64 job_id, const JobRun &run) {
  TimestampTz const now = GetCurrentTimestamp();
  bool const failed = run.sqlstate != 0;
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.job
            SET runs = runs + 1, problem = nullif($9, ''),
                empty_runs = empty_runs + CASE WHEN $4 OR $5 THEN 0 ELSE 1 END,
                failed_runs = failed_runs + CASE WHEN $4 THEN 1 ELSE 0 END,
                failures = CASE WHEN $4 THEN failures + 1 ELSE 0 END, last_started_at = least($2, $3),
                last_finished_at = $3, last_rows = $6,
                last_sqlstate = CASE WHEN $4 THEN $7 ELSE last_sqlstate END,
                last_message = CASE WHEN $4 THEN $8 ELSE last_message END,
                last_error_at = CASE WHEN $4 THEN $3 ELSE last_error_at END, scheduled_at = $3,
                next_run = CASE WHEN $4
                    THEN $3 + least(interval '1 hour', interval '10 seconds' * 2 ^ least(failures, 10))
                    ELSE greatest(least($2, $3) + every, $3 + every / 10) END
            WHERE job_id = $1)sql",
      {SqlParam::Int8(job_id), TimeParam(run.started), TimeParam(now), SqlParam::Bool(failed),
       SqlParam::Bool(run.worked), SqlParam::Int8(run.rows),
       failed ? SqlParam::Text(pg::SqlStateText(run.sqlstate)) : SqlParam{TEXTOID, 0, true},
       failed ? SqlParam::Text(run.message) : SqlParam{TEXTOID, 0, true}, SqlParam::Text(run.problem)});
  if (!failed && !run.worked) return;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.job_history
                (job_id, kind, name, owner, started_at, finished_at, rows, batches, outcome, sqlstate,
                 message)
            SELECT job_id, kind, name, owner, least($2, $3), $3, $4, $5, $6, $7, $8
            FROM redis_migrate.job
            WHERE job_id = $1)sql",
      {SqlParam::Int8(job_id), TimeParam(run.started), TimeParam(now), SqlParam::Int8(run.rows),
       SqlParam::Int8(run.batches), SqlParam::Text(failed ? "failed" : "completed"),
       failed ? SqlParam::Text(pg::SqlStateText(run.sqlstate)) : SqlParam{TEXTOID, 0, true},
       run.message.empty() ? SqlParam{TEXTOID, 0, true} : SqlParam::Text(run.message)});
}

void Postpone(int64 job_id, int64 milliseconds) {
  TimestampTz const now = GetCurrentTimestamp();
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.job SET scheduled_at = $2, next_run = $3
            WHERE job_id =
                (SELECT job_id FROM redis_migrate.job WHERE job_id = $1 FOR UPDATE SKIP LOCKED))sql",
      {SqlParam::Int8(job_id), TimeParam(now), TimeParam(TimestampTzPlusMilliseconds(now, milliseconds))});
}

void RequireProcedure(FunctionCallInfo fcinfo, const char *procedure) {
  pg::RequireNonAtomic(fcinfo,
                       (std::string("redis_migrate.") + procedure + " commits after each batch").c_str());
  if (pg::Call([] { return RecoveryInProgress(); }))
    throw Failure(ERRCODE_READ_ONLY_SQL_TRANSACTION,
                  std::string("redis_migrate.") + procedure + " cannot run on a standby");
}

}  // namespace prm::expiry

// redis_migrate.next_maintenance(): see the SQL comment. ACCESS SHARE locks on the extension's tables.
PRM_FUNCTION(next_maintenance) {
  using namespace prm;
  using namespace prm::expiry;
  Oid const user = GetUserId();
  TimestampTz const now = GetCurrentTimestamp();
  TimestampTz due = 0;
  bool none = true;
  {
    pg::Spi spi;
    pg::AsExtensionOwner as_owner;
    auto rows = pg::Spi::ExecuteKept("SELECT min(d.due) FROM (" + DueTimes(kOfRole) + ") AS d",
                                     {TimeParam(now), pg::SqlParam::OidOf(user)});
    none = rows[0].IsNull(0);
    if (!none) due = DatumGetTimestampTz(rows[0].Value(0));
  }
  if (none) PG_RETURN_NULL();
  PG_RETURN_TIMESTAMPTZ(due);
}

// redis_migrate.maintenance_owners(): see the SQL comment. Jobs that nobody may run are left out.
PRM_FUNCTION(maintenance_owners) {
  using namespace prm;
  using namespace prm::expiry;
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  TimestampTz const now = GetCurrentTimestamp();
  pg::Spi spi;
  pg::AsExtensionOwner as_owner;
  auto rows = pg::Spi::ExecuteKept("SELECT d.owner, min(d.due) FROM (" + DueTimes("") +
                                       ") AS d WHERE d.owner IS NOT NULL GROUP BY d.owner ORDER BY 2",
                                   {TimeParam(now)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    Datum values[2] = {rows[i].Value(0), rows[i].Value(1)};
    bool nulls[2] = {false, false};
    pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
  }
  return Datum(0);
}

// redis_migrate.fail_maintenance(owner oid, sqlstate text, message text): see the SQL comment. Each is tried
// again as after any failed run. ROW EXCLUSIVE on the extension's tables.
PRM_FUNCTION(fail_maintenance) {
  using namespace prm;
  using namespace prm::expiry;
  Oid const owner = PG_GETARG_OID(0);
  JobRun run;
  run.started = GetCurrentTimestamp();
  run.sqlstate = pg::SqlStateCode(pg::TextArgument(fcinfo, 1, "sqlstate"));
  run.message = pg::TextArgument(fcinfo, 2, "message");
  pg::Spi spi;
  for (const DueJob &job : DueJobs(owner)) RecordRun(job.id, run);
  PG_RETURN_VOID();
}
