#include "expiry/refresh.h"

#include "expiry/relation.h"
#include "pg/argument_ranges.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "pg/worker_role.h"

namespace prm::expiry {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

bool Refresh::Run() {
  run_.started = GetCurrentTimestamp();
  try {
    pg::InSubtransaction([&] { Work(); });
  } catch (const pg::UnconfirmedRelation &error) {
    run_.problem = error.message() + ". " + error.hint();
    throw;
  } catch (const pg::PgError &error) {
    if (!pg::IsTransient(error.sqlstate())) throw;
    Spi::Commit();
    return false;
  }
  Spi::Commit();
  return true;
}

void Refresh::Fail(const pg::Problem &problem) {
  run_.sqlstate = problem.sqlstate;
  run_.message = problem.message;
  RecordRun(job_id_, run_);
  Spi::Commit();
}

void Refresh::Work() {
  std::string name;
  bool concurrently;
  pg::AcceptedRelation accepted;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute(
        R"sql(SELECT j.name, p."concurrently", j.relation, j.relation_owner, j.trusted_roles::text[]
              FROM redis_migrate.job AS j JOIN redis_migrate.refresh_policy AS p USING (job_id)
              WHERE j.job_id = $1)sql",
        {SqlParam::Int8(job_id_)});
    if (rows.size() == 0) return;  // dropped
    name = rows[0].Text(0);
    concurrently = rows[0].Bool(1);
    accepted = pg::AcceptedRelation::FromText(DatumGetObjectId(rows[0].Value(2)), rows[0].Value(3),
                                              rows[0].TextArray(4));
    // Only marks that are committed: the snapshot of the refresh is taken later, and sees what their writers
    // wrote.
    Spi::Execute("DELETE FROM redis_migrate.stale_mark WHERE job_id = $1", {SqlParam::Int8(job_id_)});
  }
  pg::LocalSettings settings;
  settings.Set("lock_timeout", "1s");
  Oid view = FindRelation(name, AccessShareLock);
  if (!OidIsValid(view) || pg::Call([&] { return get_rel_relkind(view); }) != RELKIND_MATVIEW)
    throw Failure(ERRCODE_UNDEFINED_TABLE, "materialized view " + name + " does not exist", "",
                  "SELECT redis_migrate.drop_refresh(" + pg::QuoteLiteral(name) + ") drops its refresh.");
  if (auto changed = pg::CheckRelation(accepted, view, GetUserId(), "materialized view " + name,
                                       ConfirmCall(JobKind::kRefresh, name)))
    StoreAccepted(job_id_, *changed);
  bool const populated =
      Spi::Execute("SELECT relispopulated FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) $1",
                   {SqlParam::OidOf(view)})[0]
          .Bool(0);
  Spi::Execute(std::string("REFRESH MATERIALIZED VIEW ") +
               (concurrently && populated ? "CONCURRENTLY " : "") + name);
  run_.worked = true;
  run_.batches = 1;
  RecordRun(job_id_, run_);
}

namespace {

// Errors: 42809 for what is no materialized view, 42501 unless the caller may refresh it, 55000 without the
// index that CONCURRENTLY needs.
void CheckView(Oid view, bool concurrently) {
  std::string const name = QualifiedName(view);
  if (pg::Call([&] { return get_rel_relkind(view); }) != RELKIND_MATVIEW)
    throw Failure(ERRCODE_WRONG_OBJECT_TYPE, (name.empty() ? "this" : name) + " is not a materialized view");
  auto rows = Spi::Execute(
      R"sql(SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE'), o.rolname::pg_catalog.text, o.rolsuper, EXISTS (
                SELECT FROM pg_catalog.pg_index AS i
                WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisunique AND i.indisvalid
                    AND i.indpred IS NULL AND i.indexprs IS NULL)
            FROM pg_catalog.pg_class AS c
              JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) c.relowner
            WHERE c.oid OPERATOR(pg_catalog.=) $1)sql",
      {SqlParam::OidOf(view)});
  if (!rows[0].Bool(0))
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of materialized view " + name,
                  "Its owner is " + pg::QuoteIdentifier(rows[0].Text(1)) + ".",
                  rows[0].Bool(2) ? "" : "SET ROLE " + pg::QuoteIdentifier(rows[0].Text(1)) + ".");
  if (concurrently && !rows[0].Bool(3))
    throw Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "materialized view " + name + " cannot be refreshed concurrently",
        "It has no unique index on plain columns that covers all rows.",
        "CREATE UNIQUE INDEX ON " + name + " (...), or use concurrently => false, which blocks readers.");
}

// 0 as NULL: refreshed only when stale.
SqlParam Every(FunctionCallInfo fcinfo, int n) {
  SqlParam every = {INTERVALOID, PG_ARGISNULL(n) ? 0 : PG_GETARG_DATUM(n), PG_ARGISNULL(n)};
  if (!every.null && pg::IntervalUs(every.value) == 0) return {INTERVALOID, 0, true};
  CheckEvery(every);
  return every;
}

// Notes in this transaction that a view is stale. False when it has no refresh.
bool Mark(Oid view) {
  std::string const name = QualifiedName(view);
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(INSERT INTO redis_migrate.stale_mark (job_id, marked_at)
                   SELECT job_id, clock_timestamp()
                   FROM redis_migrate.job
                   WHERE kind = 'refresh' AND name = $1)sql",
             {SqlParam::Text(name)})
             .processed() > 0;
}

// The views that this transaction has marked already: a mark per row would be one too many.
struct Marked {
  LocalTransactionId transaction = InvalidLocalTransactionId;
  SubTransactionId subtransaction = InvalidSubTransactionId;
  Oid view = InvalidOid;
  bool operator==(const Marked &other) const {
    return transaction == other.transaction && subtransaction == other.subtransaction && view == other.view;
  }
};
Marked last_marked;

bool MarkOnce(Oid view) {
  Marked const mark{pg::CurrentLocalTransaction(), GetCurrentSubTransactionId(), view};
  if (mark == last_marked) return true;
  if (!Mark(view)) return false;
  last_marked = mark;
  return true;
}

}  // namespace
}  // namespace prm::expiry

// redis_migrate.add_refresh(view regclass, every interval, concurrently boolean, debounce interval,
// trust_target boolean): see the SQL comment. Errors: those of CheckView and AcceptRelation, 42710 it has a
// refresh, 22023.
PRM_FUNCTION(add_refresh) {
  using namespace prm;
  using namespace prm::expiry;
  if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
    throw pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "view, concurrently and debounce must not be NULL");
  Oid const view = PG_GETARG_OID(0);
  bool const concurrently = PG_GETARG_BOOL(2);
  pg::SqlParam const debounce = {INTERVALOID, PG_GETARG_DATUM(3), false};
  pg::Spi spi;
  CheckView(view, concurrently);
  pg::CheckDuration("debounce", pg::IntervalUs(debounce.value), pg::kNoTime);
  bool const trust = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
  std::string const name = QualifiedName(view);
  int64 const job_id =
      AddJob(JobKind::kRefresh, pg::AcceptRelation(view, name, GetUserId(), trust), name, Every(fcinfo, 1));
  AddHistoryPolicy();
  pg::WarnOfRoleProblem(GetUserId(), "the refresh of " + QualifiedName(view));
  pg::AsExtensionOwner as_owner;
  pg::Spi::Execute(
      "INSERT INTO redis_migrate.refresh_policy (job_id, \"concurrently\", debounce) VALUES ($1, $2, $3)",
      {pg::SqlParam::Int8(job_id), pg::SqlParam::Bool(concurrently), debounce});
  PG_RETURN_VOID();
}

// redis_migrate.alter_refresh(view text, new_view regclass, every interval, concurrently boolean, debounce
// interval, trust_target boolean): see the SQL comment.
PRM_FUNCTION(alter_refresh) {
  using namespace prm;
  using namespace prm::expiry;
  std::string const name = pg::TextArgument(fcinfo, 0, "view");
  pg::Spi spi;
  JobName const job = FindJob(JobKind::kRefresh, name, false);
  std::optional<Oid> relation;
  if (!PG_ARGISNULL(1)) relation = PG_GETARG_OID(1);
  pg::SqlParam const concurrently = {BOOLOID, PG_ARGISNULL(3) ? 0 : PG_GETARG_DATUM(3), PG_ARGISNULL(3)};
  pg::SqlParam const debounce = {INTERVALOID, PG_ARGISNULL(4) ? 0 : PG_GETARG_DATUM(4), PG_ARGISNULL(4)};
  pg::OptionalDurationArgument(fcinfo, 4, "debounce", pg::kNoTime);
  pg::SqlParam const every = Every(fcinfo, 2);
  AlterJob(JobKind::kRefresh, job.id, relation, every, false);
  AcceptAnew(job, relation, !PG_ARGISNULL(5) && PG_GETARG_BOOL(5));
  bool now_concurrently;
  {
    pg::AsExtensionOwner as_owner;
    if (every.null && !PG_ARGISNULL(2))
      pg::Spi::Execute("UPDATE redis_migrate.job SET every = NULL, next_run = NULL WHERE job_id = $1",
                       {pg::SqlParam::Int8(job.id)});
    now_concurrently = pg::Spi::Execute(
                           R"sql(UPDATE redis_migrate.refresh_policy
                                 SET "concurrently" = coalesce($2, "concurrently"),
                                     debounce = coalesce($3, debounce)
                                 WHERE job_id = $1
                                 RETURNING "concurrently")sql",
                           {pg::SqlParam::Int8(job.id), concurrently, debounce})[0]
                           .Bool(0);
  }
  CheckView(relation ? *relation : FindRelation(job.name), now_concurrently);
  PG_RETURN_VOID();
}

// redis_migrate.drop_refresh(view text), pause_refresh(view text), resume_refresh(view text): see the SQL
// comments.
PRM_FUNCTION(drop_refresh) {
  using namespace prm::expiry;
  prm::pg::Spi spi;
  DropJob(FindJob(JobKind::kRefresh, prm::pg::TextArgument(fcinfo, 0, "view"), true).id);
  PG_RETURN_VOID();
}

PRM_FUNCTION(pause_refresh) {
  using namespace prm::expiry;
  prm::pg::Spi spi;
  EnableJob(FindJob(JobKind::kRefresh, prm::pg::TextArgument(fcinfo, 0, "view"), true).id, false);
  PG_RETURN_VOID();
}

PRM_FUNCTION(resume_refresh) {
  using namespace prm::expiry;
  prm::pg::Spi spi;
  EnableJob(FindJob(JobKind::kRefresh, prm::pg::TextArgument(fcinfo, 0, "view"), true).id, true);
  PG_RETURN_VOID();
}

// redis_migrate.mark_stale(view regclass): see the SQL comment. One row per transaction, no lock that another
// writer could wait for. Errors: 42501 without SELECT on the view, 42704 when it has no refresh.
PRM_FUNCTION(mark_stale) {
  using namespace prm;
  using namespace prm::expiry;
  Oid const view = PG_GETARG_OID(0);
  if (pg::Call([&] { return pg_class_aclcheck(view, GetUserId(), ACL_SELECT); }) != ACLCHECK_OK)
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE,
                      "permission denied for materialized view " + QualifiedName(view), "",
                      "GRANT SELECT ON " + QualifiedName(view) + " TO ...;");
  pg::Spi spi;
  if (!MarkOnce(view))
    throw pg::Failure(
        ERRCODE_UNDEFINED_OBJECT, "materialized view " + QualifiedName(view) + " has no refresh", "",
        "SELECT redis_migrate.add_refresh(" + pg::QuoteLiteral(QualifiedName(view)) + ") adds one.");
  PG_RETURN_VOID();
}

// redis_migrate.mark_stale_trigger(): see the SQL comment. A view without a refresh is no reason to refuse
// the writer: a warning, once per session. Errors: 39P01 not called as a trigger, 42P01 no such view, 42501.
PRM_FUNCTION(mark_stale_trigger) {
  using namespace prm;
  using namespace prm::expiry;
  static bool warned = false;
  if (!CALLED_AS_TRIGGER(fcinfo))
    throw pg::Failure(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "mark_stale_trigger is a trigger function");
  auto *data = reinterpret_cast<TriggerData *>(fcinfo->context);
  if (data->tg_trigger->tgnargs == 0)
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                      "mark_stale_trigger needs the name of a materialized view");
  Oid const owner = data->tg_relation->rd_rel->relowner;
  pg::Spi spi;
  for (int i = 0; i < data->tg_trigger->tgnargs; ++i) {
    std::string const name = data->tg_trigger->tgargs[i];
    Oid const view = FindRelation(name);
    if (!OidIsValid(view))
      throw pg::Failure(ERRCODE_UNDEFINED_TABLE, "materialized view " + name + " of a trigger does not exist",
                        "", "Name it with its schema in CREATE TRIGGER.");
    if (pg::Call([&] { return pg_class_aclcheck(view, owner, ACL_SELECT); }) != ACLCHECK_OK)
      throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for materialized view " + name,
                        "The owner of the trigger's table needs SELECT on it.");
    if (!MarkOnce(view) && !std::exchange(warned, true))
      pg::Report(WARNING, "materialized view " + name + " has no refresh", "It is not marked as stale.");
  }
  return TRIGGER_FIRED_BEFORE(data->tg_event)
             ? PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple
                                                                       : data->tg_trigtuple)
             : Datum{0};
}
