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
  // The history has two outcomes; a stopped run has the SQLSTATE of a cancelled statement.
  bool const completed = strcmp(outcome, "completed") == 0;
  bool const stopped = strcmp(outcome, "stopped") == 0;
  std::string const sqlstate = stopped ? pg::SqlStateText(ERRCODE_QUERY_CANCELED) : problem.SqlState();
  std::string const message = stopped ? "stopped by redis_migrate.stop" : problem.message;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.job_history
                (job_id, kind, name, owner, started_at, finished_at, rows, batches, outcome, sqlstate,
                 message)
            SELECT $7, 'migration', $1, redis_migrate.stamp_owner($2), $3, clock_timestamp(),
                coalesce((SELECT sum(m.inserted + m.updated + m.deleted)
                          FROM redis_migrate.mapping_count AS m
                          WHERE m.run_id = r.run_id), 0),
                coalesce(r.batches, 0), $4, $5, $6
            FROM (SELECT max(run_id) AS run_id
                  FROM redis_migrate.run
                  WHERE migration = $1 AND NOT dry_run) AS last
              LEFT JOIN redis_migrate.run AS r USING (run_id))sql",
      {SqlParam::Text(job.migration),
       SqlParam::OidOf(job.owner),
       {TIMESTAMPTZOID, TimestampTzGetDatum(started_at), false},
       SqlParam::Text(completed ? "completed" : "failed"),
       optional(sqlstate),
       optional(message),
       SqlParam::Int8(-job.id)});
}

}  // namespace prm::worker
