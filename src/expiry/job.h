// Scheduled jobs, sweeps and refreshes: when they are due, and their results.
#pragma once

#include "pg/relation_trust.h"
#include "pg/session_lock.h"
#include "pg/spi.h"

namespace prm::expiry {

enum class JobKind { kExpiry, kRefresh };

// "expiry" or "refresh", as the column kind has it.
const char *KindName(JobKind kind);

// One session at a time works on a job. Held for a scope, across transactions, and released also by an error.
class JobLock {
 public:
  // Does not wait; held() says whether it was free.
  explicit JobLock(int64 job_id);
  bool held() const { return lock_.held(); }

 private:
  pg::SessionLock lock_;
};

struct JobName {
  int64 id;
  std::string name;  // schema-qualified and quoted
  bool restored;     // it waits for redis_migrate.resume_restored
};

// The job for a table or materialized view, named as it was when the job was defined or as it is found now.
// `manage`: any role with the privileges of the owner may, otherwise the owner alone. Errors: 42704, 42501.
JobName FindJob(JobKind kind, const std::string &target, bool manage);

// Adds a job of the caller, due at once, with the settings of the session. `every` NULL: it is due only on
// demand. Errors: 42710 when there is one.
int64 AddJob(JobKind kind, const pg::AcceptedRelation &relation, const std::string &name,
             const pg::SqlParam &every);

// "SELECT redis_migrate.alter_expiry('public.session', trust_target => true);"
std::string ConfirmCall(JobKind kind, const std::string &name);

// For alter_expiry and alter_refresh: accepts another relation, or the one that the job's name resolves to
// when its owner says so. Errors: 55000, 42P01.
void AcceptAnew(const JobName &job, std::optional<Oid> new_relation, bool is_confirmed);

// Stores what the owner of a job has accepted.
void StoreAccepted(int64 job_id, const pg::AcceptedRelation &relation);

// The history expires by an expiry policy of the extension's owner, which is added with the first job.
void AddHistoryPolicy();

// Checks the interval between two runs of a job, unless it is NULL. Errors: 22023.
void CheckEvery(const pg::SqlParam &every);

// Changes properties that are not NULL; `settings` stores the session's settings again. The job is due at
// once, with its failures reset. Errors: 42710.
void AlterJob(JobKind kind, int64 job_id, std::optional<Oid> relation, const pg::SqlParam &every,
              bool settings);

void DropJob(int64 job_id);
void EnableJob(int64 job_id, bool enabled);

struct DueJob {
  int64 id;
  JobKind kind;
};

// Jobs of a role that are due, the most overdue first, found by index.
constexpr size_t kMostDueJobs = 1000;
std::vector<DueJob> DueJobs(Oid owner);

// Whether a job is enabled and due, now.
bool IsDue(int64 job_id);

// A run of a job as the history shows it.
struct JobRun {
  TimestampTz started = 0;
  int64 rows = 0;
  int64 batches = 0;
  bool worked = false;  // something was found to do
  int sqlstate = 0;     // 0: no error
  std::string message;
  std::string problem;  // what waits for the job's owner, with the command that confirms it
};

// Records a run: counts it, says when the next one is due (after an error in 10 s, then twice as long each
// time up to an hour), and adds it to the history if it did something or failed. In the caller's transaction,
// as the extension's owner.
void RecordRun(int64 job_id, const JobRun &run);

// Makes a job due again after this many milliseconds, before its run is finished, because it is paused or
// blocks others. Not while another transaction changes it.
void Postpone(int64 job_id, int64 milliseconds);

// Errors: 2D000 unless the procedure may commit; 25006 on a standby.
void RequireProcedure(FunctionCallInfo fcinfo, const char *procedure);

}  // namespace prm::expiry
