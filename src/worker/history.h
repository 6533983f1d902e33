// Records job runs in redis_migrate.job_history.
#pragma once

#include "worker/job.h"
#include "worker/worker_main.h"

namespace prm::worker {

// Notes a background run that has ended: outcome is completed, stopped, failed or retrying. Inside a
// transaction, with SPI.
void NoteMigrationRun(const Job &job, TimestampTz started_at, const char *outcome, const Problem &problem);

}  // namespace prm::worker
