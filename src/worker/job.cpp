#include "worker/job.h"

#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"
#include "worker/backoff.h"
#include "worker/slots.h"

namespace prm::worker {
namespace {

using pg::Spi;
using pg::SqlParam;

constexpr char kColumns[] =
    R"sql(j.background_run_id, j.migration, redis_migrate.acting_role(j.owner), j.priority, j.mapping,
          j.on_error, j.prune, j.wanted, j.state, j.sqlstate, j.message, j.marked_at IS NOT NULL,
          coalesce(j.incarnation, 0), j.crashes, j.failures,
          coalesce(j.not_before - clock_timestamp(), '0'),
          coalesce((SELECT max(r.updated_at) - j.marked_at
                    FROM redis_migrate.run AS r
                    WHERE r.migration = j.migration), '0'),
          j.force, redis_migrate.owner_problem(j.owner), j.workers, j.live, j.seed, j.hint)sql";

Job Read(const pg::Row &row) {
  Job job;
  job.id = row.Int8(0);
  job.migration = row.Text(1);
  job.owner = row.IsNull(2) ? InvalidOid : DatumGetObjectId(row.Value(2));
  job.priority = row.OptionalText(3);
  job.mapping = row.OptionalText(4);
  job.on_error = row.Text(5);
  job.prune = row.Bool(6);
  job.wanted = row.Bool(7);
  job.state = row.Text(8);
  job.sqlstate = row.OptionalText(9);
  job.message = row.OptionalText(10);
  job.marked = row.Bool(11);
  job.incarnation = row.Int8(12);
  job.crashes = row.Int4(13);
  job.failures = row.Int4(14);
  // A time beyond any backoff was written before the clock was set back.
  const int64 wait_ms = pg::IntervalUs(row.Value(15)) / 1000;
  job.wait_ms = wait_ms > kMostBackoffMs ? 0 : wait_ms;
  job.healthy_ms = pg::IntervalUs(row.Value(16)) / 1000;
  job.force = row.Bool(17);
  job.owner_problem = row.OptionalText(18);
  if (!row.IsNull(19)) job.workers = row.Int4(19);
  job.live = row.Bool(20);
  job.seed = row.OptionalText(21);
  job.hint = row.OptionalText(22);
  return job;
}

SqlParam NullIfEmpty(const std::string &text) {
  return text.empty() ? SqlParam{TEXTOID, 0, true} : SqlParam::Text(text);
}

}  // namespace

int64 RequestJob(const Job &wanted) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(INSERT INTO redis_migrate.background_run AS j
                       (migration, owner, priority, mapping, on_error, prune, marked_at, incarnation,
                        force, workers, live, seed)
                   VALUES ($1, redis_migrate.stamp_owner($2), $3, $4, $5, $6, clock_timestamp(), $7, $8,
                           $9, $10, $11)
                   ON CONFLICT (migration)
                   DO UPDATE SET owner = excluded.owner, priority = excluded.priority,
                       mapping = excluded.mapping, on_error = excluded.on_error, prune = excluded.prune,
                       force = excluded.force, workers = excluded.workers, live = excluded.live,
                       seed = excluded.seed, wanted = true, state = 'starting',
                       since = clock_timestamp(), requested_at = clock_timestamp(),
                       marked_at = excluded.marked_at, incarnation = excluded.incarnation, crashes = 0,
                       failures = 0, not_before = NULL, sqlstate = NULL, message = NULL, hint = NULL,
                       instance = NULL
                   RETURNING background_run_id)sql",
             {SqlParam::Text(wanted.migration), SqlParam::OidOf(wanted.owner),
              SqlParam::OptionalText(wanted.priority), SqlParam::OptionalText(wanted.mapping),
              SqlParam::Text(wanted.on_error), SqlParam::Bool(wanted.prune), SqlParam::Int8(Incarnation()),
              SqlParam::Bool(wanted.force), SqlParam::OptionalInt4(wanted.workers),
              SqlParam::Bool(wanted.live), SqlParam::OptionalText(wanted.seed)})[0]
      .Int8(0);
}

std::optional<Job> FindJob(const std::string &migration) {
  pg::LatestSnapshotScope latest;  // a worker may have changed it during the caller's transaction
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      std::string("SELECT ") + kColumns + " FROM redis_migrate.background_run AS j WHERE j.migration = $1",
      {SqlParam::Text(migration)}, true);
  if (rows.size() == 0) return std::nullopt;
  return Read(rows[0]);
}

std::vector<Job> WantedJobs() {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(std::string("SELECT ") + kColumns +
                           R"sql( FROM redis_migrate.background_run AS j
                                  WHERE j.wanted AND NOT redis_migrate.is_restored(j.owner)
                                  ORDER BY j.background_run_id)sql");
  std::vector<Job> jobs;
  for (uint64 i = 0; i < rows.size(); ++i) jobs.push_back(Read(rows[i]));
  return jobs;
}

std::optional<int64> FindRun(const Job &job) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT max(r.run_id)
            FROM redis_migrate.run AS r
            JOIN redis_migrate.background_run AS j USING (migration)
            WHERE j.background_run_id = $1 AND NOT r.dry_run AND r.updated_at >= j.requested_at
                AND (j.wanted OR r.started_at <= j.since))sql",
      {SqlParam::Int8(job.id)});
  if (rows[0].IsNull(0)) return std::nullopt;
  return rows[0].Int8(0);
}

int64 CountRestored() {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT count(*)
                   FROM redis_migrate.definitions
                   WHERE restored AND kind IN ('expiry', 'refresh', 'background run'))sql")[0]
      .Int8(0);
}

bool MarkLaunch(int64 id) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(UPDATE redis_migrate.background_run
                   SET marked_at = clock_timestamp(), incarnation = $2
                   WHERE background_run_id = $1 AND wanted)sql",
             {SqlParam::Int8(id), SqlParam::Int8(Incarnation())})
             .processed() == 1;
}

std::optional<Job> TakeUp(int64 id) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(std::string(
                               R"sql(UPDATE redis_migrate.background_run AS j
                                     SET state = 'running', since = clock_timestamp(),
                                         marked_at = clock_timestamp(), incarnation = $2,
                                         not_before = NULL
                                     WHERE background_run_id = $1 AND wanted
                                     RETURNING )sql") +
                               kColumns,
                           {SqlParam::Int8(id), SqlParam::Int8(Incarnation())});
  if (rows.size() == 0) return std::nullopt;
  return Read(rows[0]);
}

void Conclude(int64 id, const std::string &state, bool wanted, const std::string &sqlstate,
              const std::string &message, const std::string &hint) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.background_run
            SET state = $2, wanted = $3, since = clock_timestamp(), marked_at = NULL,
                incarnation = NULL, not_before = NULL, sqlstate = $4, message = $5,
                hint = $6
            WHERE background_run_id = $1)sql",
      {SqlParam::Int8(id), SqlParam::Text(state), SqlParam::Bool(wanted), NullIfEmpty(sqlstate),
       NullIfEmpty(message), NullIfEmpty(hint)});
}

void ConcludeForNow(int64 id, const std::string &state, int crashes, int failures, int64 wait_ms,
                    const std::string &sqlstate, const std::string &message, const std::string &hint) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.background_run
            SET state = $2, since = clock_timestamp(), marked_at = NULL, incarnation = NULL,
                crashes = $3, failures = $4,
                not_before = clock_timestamp() + $5 * interval '1 millisecond', sqlstate = $6,
                message = $7, hint = $8
            WHERE background_run_id = $1 AND wanted)sql",
      {SqlParam::Int8(id), SqlParam::Text(state), SqlParam::Int4(crashes), SqlParam::Int4(failures),
       SqlParam::Int8(wait_ms), NullIfEmpty(sqlstate), NullIfEmpty(message), NullIfEmpty(hint)});
}

void MarkRunStopped(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run
            SET state = 'stopped', finished_at = coalesce(finished_at, clock_timestamp()),
                sqlstate = NULL, message = 'stopped by redis_migrate.stop'
            WHERE run_id =
                (SELECT max(run_id) FROM redis_migrate.run WHERE migration = $1 AND NOT dry_run)
                AND state IN ('running', 'failed'))sql",
      {SqlParam::Text(migration)});
}

}  // namespace prm::worker
