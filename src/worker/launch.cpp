#include "worker/launch.h"

#include "pg/guard.h"
#include "pg/session_lock.h"
#include "pg/spi.h"
#include "worker/start_data.h"

namespace prm::worker {
namespace {

// A launch takes it in share mode, and whoever closes the database keeps it in exclusive mode.
LOCKTAG GateOf(Oid database) { return pg::DatabaseLockTag(pg::kDatabaseLocks, database); }

BackgroundWorker Registration(const Task &task, Ticket ticket, uint32 settings) {
  BackgroundWorker worker = {};
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
  worker.bgw_restart_time = BGW_NEVER_RESTART;
  worker.bgw_notify_pid = MyProcPid;
  worker.bgw_main_arg = Int32GetDatum(ticket.slot);
  snprintf(worker.bgw_name, BGW_MAXLEN, "redis_migrate %s", kKindNames[static_cast<int>(task.kind)]);
  strlcpy(worker.bgw_type, worker.bgw_name, BGW_MAXLEN);
  strlcpy(worker.bgw_library_name, "pg_redis_migrate", sizeof worker.bgw_library_name);
  strlcpy(worker.bgw_function_name, "prm_worker_main", BGW_MAXLEN);
  StartData const data = {ticket.generation, Incarnation(), settings};
  static_assert(sizeof data <= BGW_EXTRALEN);
  memcpy(worker.bgw_extra, &data, sizeof data);
  return worker;
}

}  // namespace

void CloseDatabase(Oid database) { pg::LockInTransaction(GateOf(database), ExclusiveLock); }

LaunchOutcome Launch(const Task &task, TransactionId starter, uint32 settings) {
  std::optional<Ticket> ticket;
  {
    // From here on, a process that closes the database finds the claim.
    pg::SessionLock gate(GateOf(task.database), ShareLock);
    if (!gate.TryTake()) return LaunchOutcome::kClosed;
    ClaimRefusal refusal;
    ticket = Claim(task, starter, &refusal);
    if (!ticket) switch (refusal) {
        case ClaimRefusal::kDuplicate:
          return LaunchOutcome::kDuplicate;
        case ClaimRefusal::kShareUsed:
          return LaunchOutcome::kNoShare;
        case ClaimRefusal::kFull:
          return LaunchOutcome::kNoSlot;
      }
  }
  BackgroundWorkerHandle *handle = nullptr;
  BgwHandleStatus status = BGWH_STOPPED;
  bool registered = false;
  try {
    BackgroundWorker worker = Registration(task, *ticket, settings);
    registered = pg::Call([&] { return RegisterDynamicBackgroundWorker(&worker, &handle); });
    if (registered) {
      pid_t pid = 0;
      status = pg::Call([&] { return WaitForBackgroundWorkerStartup(handle, &pid); });
    }
  } catch (...) {
    if (registered) TerminateBackgroundWorker(handle);
    Unclaim(*ticket);
    throw;
  }
  // A started worker takes over the claim; if it dies before, the claim expires.
  if (registered && status == BGWH_STARTED) return LaunchOutcome::kStarted;
  if (!Unclaim(*ticket)) return LaunchOutcome::kStarted;  // the worker has run and ended
  return registered ? LaunchOutcome::kNoFork : LaunchOutcome::kNoProcess;
}

LaunchProblem Describe(LaunchOutcome outcome) {
  switch (outcome) {
    case LaunchOutcome::kNoSlot:
      return {"all " + std::to_string(WorkerLimit()) +
                  " workers that pg_redis_migrate.max_workers allows are in use",
              "Raise pg_redis_migrate.max_workers and restart the server, or stop another worker."};
    case LaunchOutcome::kNoShare:
      return {
          "its owner has " + std::to_string(WorkerShare()) + " of the " + std::to_string(WorkerLimit()) +
              " workers that pg_redis_migrate.max_workers allows, and the rest are reserved for other roles",
          "Raise pg_redis_migrate.max_workers and restart the server, or stop another migration of the "
          "role."};
    case LaunchOutcome::kNoProcess:
      return {"the server has no free slot for a background worker",
              "Raise max_worker_processes and restart the server."};
    case LaunchOutcome::kNoFork:
      return {"the server could not start a worker process", "The server's log says why."};
    case LaunchOutcome::kClosed:
      return {"the database is about to be dropped, renamed, moved or copied", ""};
    case LaunchOutcome::kDuplicate:
      return {"one of its workers was about to end", ""};
    case LaunchOutcome::kStarted:
      break;
  }
  return {"", ""};
}

}  // namespace prm::worker
