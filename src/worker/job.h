// Requested background runs: the table redis_migrate.background_run. All functions need SPI and run with the
// rights of the extension's owner; states are those of the table's CHECK.
#pragma once

#include "pg/pg.h"

namespace prm::worker {

struct Job {
  int64 id = 0;
  std::string migration;
  Oid owner = InvalidOid;  // none: see owner_problem
  std::optional<std::string> owner_problem;
  std::optional<std::string> priority;
  std::optional<std::string> mapping;
  std::string on_error;
  bool prune = false;
  bool force = false;
  std::optional<int> workers;
  bool live = false;
  std::optional<std::string> seed;
  bool wanted = false;
  std::string state;
  std::optional<std::string> sqlstate;
  std::optional<std::string> message;
  std::optional<std::string> hint;
  // For the scheduler:
  bool marked = false;    // a worker was launched and has not recorded its end
  int64 incarnation = 0;  // of the shared memory, when it was marked
  int crashes = 0;
  int failures = 0;
  int64 wait_ms = 0;     // until not_before; at most the longest backoff, whatever the clock says
  int64 healthy_ms = 0;  // how long the last worker is known to have run
};

// Stores the arguments of start() and marks the job as started. Returns its number.
int64 RequestJob(const Job &wanted);
std::optional<Job> FindJob(const std::string &migration);
std::vector<Job> WantedJobs();
// The run that a job is, or was when it ended; nullopt if it has not begun.
std::optional<int64> FindRun(const Job &job);

// The number of scheduled definitions that wait for redis_migrate.resume_restored.
int64 CountRestored();

// Marks a launch; commit the transaction before launching. False if the job is no longer wanted.
bool MarkLaunch(int64 id);
// For the worker: marks the job as running. nullopt: it is no longer wanted, or was never committed.
std::optional<Job> TakeUp(int64 id);

// Records the end of a worker or of a launch and clears the mark.
void Conclude(int64 id, const std::string &state, bool wanted, const std::string &sqlstate = "",
              const std::string &message = "", const std::string &hint = "");
// As Conclude, for a run to retry after `wait_ms`.
void ConcludeForNow(int64 id, const std::string &state, int crashes, int failures, int64 wait_ms,
                    const std::string &sqlstate, const std::string &message, const std::string &hint = "");
// Records in the interrupted run of a job that it was stopped.
void MarkRunStopped(const std::string &migration);

}  // namespace prm::worker
