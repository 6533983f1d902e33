#include "worker/history.h"

#include "pg/identity.h"

namespace prm::worker {

using pg::Spi;
using pg::SqlParam;

void NoteMigrationRun(const Job &job, TimestampTz started_at, const char *outcome, const Problem &problem) {
  pg::AsExtensionOwner as_owner;
  if (Spi::Execute("SELECT to_regclass('redis_migrate.job_history')")[0].IsNull(0)) return;
  auto optional = [](const std::string &text) {
    return text.empty() ? SqlParam{TEXTOID, 0, true} : SqlParam::Text(text);
  };
  Spi::Execute(
      "INSERT INTO redis_migrate.job_history (kind, name, owner, started_at, finished_at, duration, rows, "
      "batches, outcome, sqlstate, message) SELECT 'migration', $1, $2::regrole, $3, clock_timestamp(), "
      "clock_timestamp() - $3, coalesce((SELECT sum(m.inserted + m.updated + m.deleted) FROM "
      "redis_migrate.mapping_count AS m WHERE m.run_id = r.run_id), 0), r.batches, $4, $5, $6 FROM (SELECT "
      "max(run_id) AS run_id FROM redis_migrate.run WHERE migration = $1 AND NOT dry_run) AS last LEFT JOIN "
      "redis_migrate.run AS r USING (run_id)",
      {SqlParam::Text(job.migration), SqlParam::OidOf(job.owner),
       {TIMESTAMPTZOID, TimestampTzGetDatum(started_at), false}, SqlParam::Text(outcome),
       optional(problem.sqlstate), optional(problem.message)});
}

}  // namespace prm::worker
