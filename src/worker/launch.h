// Starts a worker: claims a slot, registers the worker, and waits until the postmaster has forked.
#pragma once

#include "worker/slots.h"

namespace prm::worker {

enum class LaunchOutcome {
  kStarted,
  kDuplicate,  // there is one for this task already
  kNoSlot,     // pg_redis_migrate.max_workers
  kNoShare,    // the role has its share of them
  kNoProcess,  // max_worker_processes
  kNoFork,     // the postmaster could not start it, or it died at once; see the server's log
  kClosed,     // the database is about to be dropped, renamed, moved or copied
};

// Starts a worker for a task. The worker first waits for the end of the transaction `starter`, if it is
// valid. The claim is released in any case unless the worker has taken it over. Errors: those of a cancelled
// wait. settings: the handle of a pg::SharedText with those that the worker's session is to have.
LaunchOutcome Launch(const Task &task, TransactionId starter = InvalidTransactionId, uint32 settings = 0);

// The message and hint for an outcome other than kStarted, for a WARNING and for the job's record.
struct LaunchProblem {
  std::string message;
  std::string hint;
};
LaunchProblem Describe(LaunchOutcome outcome);

// Blocks launches into a database until the end of the transaction: later ones fail with kClosed, and the
// claims of earlier ones are visible to the caller. Errors: those of a cancelled wait.
void CloseDatabase(Oid database);

}  // namespace prm::worker
