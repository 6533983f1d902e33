// The SQL functions of background runs.
#include "connect/server_file.h"
#include "cutover/unfinished.h"
#include "live/live_moment.h"
#include "mapping/catalog.h"
#include "mapping/define.h"
#include "mapping/followable.h"
#include "mapping/live_run.h"
#include "mapping/migration_lock.h"
#include "parts/worker_count.h"
#include "pg/argument_ranges.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/owner.h"
#include "pg/time.h"
#include "pg/transaction.h"
#include "pg/wait.h"
#include "pg/worker_role.h"
#include "reverse/outbox.h"
#include "run/progress_notice.h"
#include "run/run_summary.h"
#include "worker/backoff.h"
#include "worker/databases.h"
#include "worker/job.h"
#include "worker/launch.h"

namespace prm::worker {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

constexpr int64 kStopTimeoutMs = 30 * 1000;

// The owner of a migration. The caller must be the owner or a superuser. Errors: 42704, 42501.
pg::Owner ControlledOwner(const std::string &migration) {
  Oid const user = GetUserId();
  bool const is_superuser = pg::Call([] { return superuser(); });
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute("SELECT owner FROM redis_migrate.migration WHERE migration = $1",
                           {SqlParam::Text(migration)});
  if (rows.size() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, "migration \"" + migration + "\" does not exist", "",
                  "SELECT migration FROM redis_migrate.migrations lists those you own.");
  pg::Owner const owner(rows[0].Value(0));
  if (owner.role() != user && !is_superuser)
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of migration \"" + migration + "\"",
                  pg::OwnerDetail(owner), pg::OwnerHint(owner, "migration", migration));
  return owner;
}

void RequireWritableServer() {
  if (pg::Call([] { return RecoveryInProgress(); }))
    throw Failure(ERRCODE_READ_ONLY_SQL_TRANSACTION, "background runs cannot be started on a standby", "",
                  "Start it on the primary; it continues here after a promotion.");
  if (IsBinaryUpgrade)
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "background runs cannot be started during a binary upgrade");
}

void RequireMapping(const std::string &migration, const std::string &mapping) {
  pg::AsExtensionOwner as_owner;
  if (Spi::Execute("SELECT FROM redis_migrate.mapping WHERE migration = $1 AND mapping = $2",
                   {SqlParam::Text(migration), SqlParam::Text(mapping)})
          .processed() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT,
                  "mapping \"" + mapping + "\" of migration \"" + migration + "\" does not exist");
}

void RequireNoWorker(const Job &job) {
  std::optional<Slot> slot = FindSlot({Kind::kMigration, MyDatabaseId, job.owner, job.id});
  if (!slot) return;
  throw Failure(ERRCODE_OBJECT_IN_USE, "migration \"" + job.migration + "\" already has a background worker",
                "Its process is " + std::to_string(slot->pid) + ", its state \"" +
                    kStateNames[static_cast<int>(slot->state)] + "\".",
                "SELECT * FROM redis_migrate.workers shows it; redis_migrate.stop ends it.");
}

// The migration of a run; nullopt if the run does not exist.
std::optional<std::string> MigrationOf(int64 run_id) {
  pg::AsExtensionOwner as_owner;
  auto rows =
      Spi::Execute("SELECT migration FROM redis_migrate.run WHERE run_id = $1", {SqlParam::Int8(run_id)});
  if (rows.size() == 0) return std::nullopt;
  return rows[0].Text(0);
}

// A live run follows all keys of a migration.
void RequirePlainOptions(const Job &wanted) {
  const std::pair<bool, const char *> refused[] = {{wanted.priority.has_value(), "priority"},
                                                   {wanted.mapping.has_value(), "mapping"},
                                                   {wanted.on_error != "continue", "on_error"},
                                                   {wanted.prune, "prune"}};
  for (const auto &[given, name] : refused)
    if (given)
      throw Failure(ERRCODE_FEATURE_NOT_SUPPORTED, std::string("a live run does not take ") + name,
                    "It follows all keys of the migration, and always prunes.");
}

// The source of a migration that exists.
std::string SourceOf(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute("SELECT source FROM redis_migrate.migration WHERE migration = $1",
                      {SqlParam::Text(migration)})[0]
      .Text(0);
}

void RequireLiveSource(const std::string &migration) {
  std::string const source = SourceOf(migration);
  if (source == "replication" || source == "scan") return;
  throw Failure(
      ERRCODE_INVALID_PARAMETER_VALUE, "a live run needs source 'replication' or 'scan'",
      "It follows the server's replication stream, or the names of changed keys that the server tells.",
      "SELECT redis_migrate.alter_migration(" + pg::QuoteLiteral(migration) + ", source => 'replication').");
}

// A share of the keys without a process would never be in step.
void RequireRoomForAppliers(const Job &wanted) {
  int const needed = wanted.workers.value_or(1) + 1;
  if (wanted.workers.value_or(1) == 1 || needed <= WorkerShare()) return;
  throw Failure(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                std::to_string(*wanted.workers) + " appliers and their link need " + std::to_string(needed) +
                    " workers, and the migrations of one role may have " + std::to_string(WorkerShare()),
                "pg_redis_migrate.max_workers is " + std::to_string(WorkerLimit()) + ".",
                "Raise pg_redis_migrate.max_workers and restart the server, or choose fewer workers.");
}

// Stores what is wanted and launches its worker, which waits for the transaction.
void StartJob(Job wanted, const pg::Owner &owner) {
  wanted.owner = owner.role();
  if (!OidIsValid(wanted.owner))
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "migration \"" + wanted.migration + "\" has no owner to run it", pg::OwnerDetail(owner),
                      pg::OwnerHint(owner, "migration", wanted.migration));
  if (wanted.live) {
    RequireLiveSource(wanted.migration);
    RequireFollowable(LoadMigration(wanted.migration, MigrationUse::kDrop));
  }
  if (wanted.seed && SourceOf(wanted.migration) != "replication")
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "seed needs source 'replication'");
  if (wanted.seed) ServerFile::Check(*wanted.seed, wanted.owner);
  if (wanted.mapping) RequireMapping(wanted.migration, *wanted.mapping);
  if (std::optional<pg::RoleProblem> problem = pg::FindRoleProblem(wanted.owner))
    throw pg::Failure(
        pg::SqlStateCode(problem->sqlstate),
        "migration \"" + wanted.migration + "\" cannot be run in the background: " + problem->message,
        "Its worker connects as the owner.", problem->hint);
  RequireSlots();
  if (wanted.live) RequireRoomForAppliers(wanted);
  if (std::optional<Job> before = FindJob(wanted.migration)) RequireNoWorker(*before);
  LockForChange(wanted.migration);
  wanted.id = RequestJob(wanted);
  TransactionId const starter = pg::Call([] { return GetTopTransactionId(); });
  LaunchOutcome const outcome = Launch({Kind::kMigration, MyDatabaseId, wanted.owner, wanted.id}, starter);
  bool const scheduled = IsListed(MyDatabaseId);
  if (outcome == LaunchOutcome::kStarted) {
    if (IsPreloaded() && !scheduled)
      pg::Report(NOTICE, "the run will not resume by itself after a restart of the server",
                 "This database is not in pg_redis_migrate.databases.");
    return;
  }
  if (outcome == LaunchOutcome::kDuplicate) RequireNoWorker(wanted);  // the scheduler was faster
  LaunchProblem const problem = Describe(outcome);
  ConcludeForNow(wanted.id, "waiting for worker", 0, 1, BackoffMs(1),
                 pg::SqlStateText(ERRCODE_INSUFFICIENT_RESOURCES), problem.message, problem.hint);
  pg::Report(WARNING, "migration \"" + wanted.migration + "\" waits for a worker: " + problem.message,
             scheduled
                 ? "It starts when a worker is free."
                 : "Nothing starts it later: this database has no scheduler. Call redis_migrate.start again.",
             problem.hint);
}

// Ends a wait for a run with the summary that redis_migrate.run gives, too. end: how it ended.
void TellSummary(const Job &job, const std::string &end) {
  std::optional<int64> const run_id = FindRun(job);
  if (run_id) {
    NoteLastRun(*run_id);
    RunRecord const record = RunRecord::Of(*run_id);
    RunRecord::Sums sums = record.ReadSums();
    if (job.live) sums.seconds = 0;  // most of its time it waits for others
    TellOutcomes("run " + std::to_string(*run_id) + " of migration \"" + job.migration + "\" " + end, *run_id,
                 sums);
    TellRows(record, job.migration);
  }
  Spi::Commit();
}

// How a live run is in step: at which offsets, unless the source is scan.
std::string InStepText(const Job &job) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT string_agg(p.applied_offset::text, ', ' ORDER BY p.link)
            FROM redis_migrate.live_applied AS p
            JOIN redis_migrate.live_link AS l USING (run_id, link)
            WHERE l.feed IS NULL AND p.run_id = )sql" PRM_LIVE_RUN,
      {SqlParam::Text(job.migration)});
  return "is in step" + (rows[0].IsNull(0) ? "" : " at offset " + rows[0].Text(0));
}

// Ends the background run of a migration. Returns whether there was one.
bool StopJob(const std::string &migration) {
  std::optional<Job> job = FindJob(migration);
  if (!job) return false;
  RequireSlots();
  std::optional<Ticket> ticket = Ask({Kind::kMigration, MyDatabaseId, job->owner, job->id}, Request::kStop);
  // The worker itself records that it was stopped, so its row must not be locked until it has ended.
  bool ended = !ticket || End(*ticket, kStopTimeoutMs);
  // Part workers notice the end of their leader only after a reply of Redis, those of links after a second.
  for (const Slot &slot : Slots()) {
    if (!IsOfRun(slot.kind) || slot.database != MyDatabaseId || MigrationOf(slot.job) != migration) continue;
    if (std::optional<Ticket> part = Ask(slot.task(), Request::kStop))
      ended = End(*part, kStopTimeoutMs) && ended;
  }
  if (!ended)
    pg::Report(WARNING, "a worker of migration \"" + migration + "\" has not ended yet",
               "It was asked to stop, and then to terminate.",
               "SELECT * FROM redis_migrate.workers shows when it has.");
  job = FindJob(migration);
  if (job && job->wanted) {
    try {
      pg::InSubtransaction([&] {
        Conclude(job->id, "stopped", false);
        MarkRunStopped(migration);
      });
    } catch (const pg::PgError &error) {
      // The worker has recorded that it was stopped, or somebody has started another run since, and the
      // transaction's isolation level hides that.
      if (!ticket || error.sqlstate() != ERRCODE_T_R_SERIALIZATION_FAILURE) throw;
    }
    return true;
  }
  return ticket.has_value();
}

}  // namespace
}  // namespace prm::worker

using namespace prm;
using namespace prm::worker;

// redis_migrate.start(migration text, priority text, mapping text, on_error text, prune boolean, force
// boolean, workers integer, live boolean, seed text): the worker is registered at once and waits for the
// caller's transaction. Takes the migration's advisory lock until then. Errors: 42704, 42501, 22023, 28000
// (the owner may not log in), 55006 (already running), 25006 on a standby, 53200. If no worker can be
// started, the job waits, with a WARNING.
PRM_FUNCTION(start) {
  Job wanted;
  wanted.migration = pg::TextArgument(fcinfo, 0, "migration");
  wanted.priority = pg::OptionalTextArgument(fcinfo, 1);
  wanted.mapping = pg::OptionalTextArgument(fcinfo, 2);
  wanted.on_error = pg::TextArgument(fcinfo, 3, "on_error");
  wanted.prune = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
  wanted.force = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
  wanted.workers = WorkersArgument(fcinfo, 6);
  wanted.live = !PG_ARGISNULL(7) && PG_GETARG_BOOL(7);
  wanted.seed = pg::OptionalTextArgument(fcinfo, 8);
  RequireWritableServer();
  pg::CheckKeyword(wanted.on_error, "on_error", {"continue", "stop"});
  if (wanted.live) RequirePlainOptions(wanted);
  if (wanted.seed && !wanted.live)
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "seed needs live", "", "Add live => true.");
  if (wanted.priority) PriorityRank(*wanted.priority);
  pg::Spi spi;
  pg::Owner const owner = ControlledOwner(wanted.migration);
  StartJob(std::move(wanted), owner);
  PG_RETURN_VOID();
}

// redis_migrate.confirm_instance(migration text): starts a paused live run again, with the options that it
// had. Errors: 55000 if it is not paused; those of start.
PRM_FUNCTION(confirm_instance) {
  std::string const migration = pg::TextArgument(fcinfo, 0, "migration");
  RequireWritableServer();
  pg::Spi spi;
  pg::Owner const owner = ControlledOwner(migration);
  std::optional<Job> job = FindJob(migration);
  if (!job || job->state != "paused")
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "migration \"" + migration + "\" has no live run that is paused",
                  job ? "The state of its background run is \"" + job->state + "\"." : "");
  StartJob(std::move(*job), owner);
  PG_RETURN_VOID();
}

// redis_migrate.stop(migration text): ends the worker and waits for that up to 40 s. A run that another
// session starts meanwhile may go on: under REPEATABLE READ and SERIALIZABLE what has changed since the
// transaction's snapshot is not seen. Errors: 42704, 42501.
PRM_FUNCTION(stop) {
  std::string const migration = pg::TextArgument(fcinfo, 0, "migration");
  pg::Spi spi;
  ControlledOwner(migration);
  if (!StopJob(migration))
    pg::Report(NOTICE, "migration \"" + migration + "\" is not running in the background");
  PG_RETURN_VOID();
}

// redis_migrate.drop_migration(migration text): stops its background run; drops the definition, its archive
// and the history of its runs; target tables stay. Errors: 42704, 42501, 55006 while a session runs it, 40001
// if its background run, or another session, has changed it since the snapshot of the transaction; those of
// RequireNoCutover and RemoveOutboxes. Nothing is stopped if tables cannot be locked, but by somebody who
// comes between that and the end of the run, which would not end while its tables are locked against it.
PRM_FUNCTION(drop_migration) {
  std::string const migration = pg::TextArgument(fcinfo, 0, "migration");
  pg::Spi spi;
  // The right to drop it implies the right to stop it.
  Migration const definition = LoadMigration(migration, MigrationUse::kDrop);
  RequireNoCutover(migration);
  WaitUntilRemovable(definition.mappings);
  bool const is_stopped = StopJob(migration);
  UsersLeft left;
  try {
    RemoveOutboxes(definition.mappings);
    left = FindUsersLeft(migration);
    DropMigration(migration);
  } catch (const Failure &failure) {
    if (failure.sqlstate() != ERRCODE_LOCK_NOT_AVAILABLE || !is_stopped) throw;
    throw Failure(failure.sqlstate(), failure.message(),
                  failure.detail() + " The background run was stopped just now.", failure.hint());
  } catch (const pg::PgError &error) {
    if (error.sqlstate() != ERRCODE_T_R_SERIALIZATION_FAILURE) throw;
    throw Failure(ERRCODE_T_R_SERIALIZATION_FAILURE,
                  "migration \"" + migration + "\" has changed since this transaction began",
                  "Its background run was stopped just now, or another session has worked with it. The "
                  "isolation level of the transaction hides that.",
                  "Call redis_migrate.drop_migration once more, in another transaction.");
  }
  WarnOfUsersLeft(left);
  PG_RETURN_VOID();
}

// redis_migrate.wait_for(migration text, timeout interval): returns when the background run has completed or
// was stopped (with a NOTICE), or when a live one is in step with what the server had done before the call.
// Meanwhile it tells the progress of the run, and at the end its summary, as redis_migrate.run does.
// Errors: the run's own SQLSTATE and message if it failed or is paused, 57014 when the time is over, 42704
// without such a run, 22023 for a timeout that is no length of time, 42501, 2D000 in a transaction block; of
// a live run those of the server. Holds nothing between checks.
PRM_FUNCTION(wait_for) {
  pg::RequireNonAtomic(fcinfo, "redis_migrate.wait_for ends its transaction at each check");
  std::string const migration = pg::TextArgument(fcinfo, 0, "migration");
  std::optional<int64> timeout = pg::OptionalDurationArgument(
      fcinfo, 1, "timeout", pg::kNoTime, pg::kHundredYears, "Leave it out to wait without a limit.");
  if (timeout) *timeout /= 1000;
  int64 const began = pg::MonotonicMs();
  pg::Spi spi(true);
  ControlledOwner(migration);
  std::string const source = SourceOf(migration);
  std::optional<LiveMoment> moment;
  ProgressNotice progress;
  for (int64 pause = 5;; pause = std::min(pause * 2, int64{500})) {
    std::optional<Job> job = FindJob(migration);
    Spi::Commit();
    if (!job)
      throw Failure(ERRCODE_UNDEFINED_OBJECT, "migration \"" + migration + "\" has no background run", "",
                    "redis_migrate.start starts one.");
    if (job->state == "failed") {
      if (std::optional<int64> run_id = FindRun(*job)) NoteLastRun(*run_id);
      throw Failure(
          pg::SqlStateCode(job->sqlstate.value_or("XX000")),
          "the background run of migration \"" + migration + "\" failed: " + job->message.value_or(""), "",
          job->hint.value_or(""));
    }
    if (job->state == "paused")
      throw Failure(pg::SqlStateCode(job->sqlstate.value_or("XX000")),
                    "the live run of migration \"" + migration + "\" is paused: " + job->message.value_or(""),
                    "", "SELECT redis_migrate.confirm_instance(" + pg::QuoteLiteral(migration) + ").");
    if (job->state == "stopped")
      pg::Report(NOTICE, "the background run of migration \"" + migration + "\" was stopped");
    if (!job->wanted) {
      TellSummary(*job, job->state);
      PG_RETURN_VOID();
    }
    if (job->live) {
      if (!moment) moment.emplace(migration, source, job->owner);
      if (moment->IsReached()) {
        TellSummary(*job, InStepText(*job));
        PG_RETURN_VOID();
      }
      pause = std::min(pause, int64{20});
    }
    if (progress.IsDue()) {
      if (std::optional<int64> run_id = FindRun(*job)) progress.Tell(*run_id);
      Spi::Commit();
    }
    if (timeout) {
      int64 const rest = *timeout - (pg::MonotonicMs() - began);
      if (rest <= 0) {
        bool const is_retrying = job->state == "retrying" && job->message;
        throw Failure(
            ERRCODE_QUERY_CANCELED,
            "migration \"" + migration + "\" is " + (job->live ? "not in step yet" : "still running"),
            "Its state is \"" + job->state + "\"" + (is_retrying ? ": " + *job->message : "") + ".",
            is_retrying && job->hint
                ? *job->hint
                : std::string("SELECT * FROM redis_migrate.") + (job->live ? "live_sync" : "workers") + ".");
      }
      pause = std::min(pause, rest);
    }
    pg::Sleep(static_cast<long>(pause));
  }
}

// redis_migrate.worker_slots() → the workers of all databases; workers of other roles only for pg_monitor.
PRM_FUNCTION(worker_slots) {
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  RequireSlots();
  bool const sees_all = pg::Call([] { return has_privs_of_role(GetUserId(), ROLE_PG_MONITOR); });
  for (const Slot &slot : Slots()) {
    if (!sees_all &&
        !(OidIsValid(slot.owner) && pg::Call([&] { return has_privs_of_role(GetUserId(), slot.owner); })))
      continue;
    constexpr int kColumns = 15;
    Datum values[kColumns] = {};
    bool nulls[kColumns] = {};
    auto as_text = [](const char *s) { return pg::TextDatum(s); };
    values[0] = Int32GetDatum(slot.pid);
    nulls[0] = slot.pid == 0;
    values[1] = as_text(kKindNames[static_cast<int>(slot.kind)]);
    values[2] = ObjectIdGetDatum(slot.database);
    nulls[2] = !OidIsValid(slot.database);
    values[3] = ObjectIdGetDatum(slot.owner);
    nulls[3] = !OidIsValid(slot.owner);
    values[4] = Int64GetDatum(slot.job);
    nulls[4] = slot.kind != Kind::kMigration;
    values[5] = Int64GetDatum(slot.job);
    nulls[5] = !IsOfRun(slot.kind);
    values[6] = as_text(kStateNames[static_cast<int>(slot.state)]);
    values[7] = TimestampTzGetDatum(slot.launched_at);
    values[8] = TimestampTzGetDatum(slot.since);
    values[9] = Int64GetDatum(static_cast<int64>(slot.wakeups));
    values[10] = Int64GetDatum(static_cast<int64>(slot.runs));
    nulls[11] = slot.sqlstate[0] == '\0';
    if (!nulls[11]) values[11] = as_text(slot.sqlstate);
    nulls[12] = slot.message[0] == '\0';
    if (!nulls[12]) values[12] = as_text(slot.message);
    values[13] = Int32GetDatum(slot.number);
    nulls[13] = nulls[5];
    values[14] = Int64GetDatum(slot.job);
    nulls[14] = slot.kind != Kind::kVerificationPart;
    pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
  }
  return static_cast<Datum>(0);
}

// redis_migrate.wake_workers(), a trigger: see databases.h.
PRM_FUNCTION(wake_workers) {
  if (!CALLED_AS_TRIGGER(fcinfo))
    throw pg::Failure(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "redis_migrate.wake_workers is a trigger");
  WakeAtCommit();
  return static_cast<Datum>(0);
}
