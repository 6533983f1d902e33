// Shared by the bodies of the workers. Each runs in a process of its own, connected to its database.
#pragma once

#include "pg/arguments.h"
#include "pg/error.h"
#include "worker/slots.h"

namespace prm::worker {

void RunLauncher();
void RunScheduler(const Slot &slot);
void RunMigrationWorker(const Slot &slot);
void RunPartWorker(const Slot &slot);
void RunVerificationPartWorker(const Slot &slot);
void RunLinkWorker(const Slot &slot);
void RunApplierWorker(const Slot &slot);
void RunReverseWorker(const Slot &slot);
void RunCutoverWorker(const Slot &slot);
void RunSweeper(const Slot &slot);
void RunAttemptWriter(const Slot &slot);

using pg::Problem;

// Runs `body`; an error ends the transaction and is returned as a value.
template <typename Body>
std::optional<Problem> Try(Body body);

// Writes one line to the server's log.
void Log(int level, const Problem &problem, const std::string &what, const std::string &hint = "");

// The extension as of the start of this process. The loaded library belongs to that version.
class Extension {
 public:
  Extension();  // errors: none but those of the catalogs
  bool exists() const { return !version_.empty(); }
  Oid owner() const { return owner_; }
  // Whether the extension was dropped or changed by ALTER EXTENSION UPDATE, so that the process has to end.
  // Needs a transaction.
  bool HasChanged() const;
  // As HasChanged, in a transaction of its own and without errors: whether that caused a failure.
  bool WentAway() const;

 private:
  std::string version_;
  Oid owner_ = InvalidOid;
};

// The body of a worker beside the process that leads a run or a verification: CALL
// redis_migrate.<procedure>(job), or with a second argument. An error is logged as one of `part` and the
// number of the job, unless the worker was asked to end.
void CallForJob(const Slot &slot, const std::string &procedure, const std::string &part,
                const std::string &argument = "");

// Whether a function or procedure of the extension exists: parts may not be installed. Needs a transaction.
bool HasRoutine(const char *signature);

}  // namespace prm::worker

#include "pg/background.h"

namespace prm::worker {

template <typename Body>
std::optional<Problem> Try(Body body) {
  Problem problem;
  try {
    body();
    return std::nullopt;
  } catch (...) {
    problem = pg::CurrentProblem();
  }
  pg::AbortTransaction();
  return problem;
}

}  // namespace prm::worker
