// How a worker is started: claim a slot, register, wait until the postmaster has forked.
#pragma once

#include "worker/slots.h"

namespace prm::worker {

enum class LaunchOutcome {
  kStarted,
  kDuplicate,  // there is one for this task already
  kNoSlot,     // pg_redis_migrate.max_workers
  kNoShare,    // the role has its share of them
  kNoProcess,  // max_worker_processes
  kNoFork,     // the postmaster could not start it, or it died before it did anything; see the server's log
  kClosed,     // the database is about to be dropped, renamed, moved or copied
};

// Starts a worker for a task. It waits for the end of the transaction `starter`, if that is one, before it
// does anything. Whatever happens, the claim is given back unless the worker has taken it up.
// Errors: those of a cancelled wait.
LaunchOutcome Launch(const Task &task, TransactionId starter = InvalidTransactionId);

// The words for an outcome that is not kStarted, with a remedy; for a WARNING and for the job's record.
struct LaunchProblem {
  std::string message;
  std::string hint;
};
LaunchProblem Describe(LaunchOutcome outcome);

// Keeps launches into a database away until the end of the transaction: those that come later fail with
// kClosed, and who closes it finds the claims of those that came before. Errors: those of a cancelled wait.
void CloseDatabase(Oid database);

}  // namespace prm::worker
