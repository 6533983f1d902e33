// Automatic refreshes of materialized views.
#pragma once

#include "expiry/job.h"

namespace prm::expiry {

// One refresh. Holds the job's lock while it lives.
class Refresh {
 public:
  explicit Refresh(int64 job_id) : lock_(job_id), job_id_(job_id) {}
  bool held() const { return lock_.held(); }
  // Refreshes and commits. False: a lock was in the way. Errors: 42P01 when the view is gone, and those of
  // REFRESH.
  bool Run();
  void Fail(const pg::Problem &problem);

 private:
  void Work();

  JobLock lock_;
  int64 job_id_;
  JobRun run_;
};

}  // namespace prm::expiry
