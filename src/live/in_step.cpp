#include "live/in_step.h"

#include "connect/server.h"
#include "live/live_links.h"
#include "mapping/live_run.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "source/named_keys.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// A server that was restarted or replaced counts from a new offset: it is asked again.
constexpr int64 kAskAgainMs = 1000;

}  // namespace

InStep::InStep(std::string migration, Oid owner) : migration_(std::move(migration)), owner_(owner) {
  ReadServer();
  AskServer();
}

InStep::InStep(std::string migration, Oid owner, const std::vector<redis::ReplicationPoint> &points)
    : migration_(std::move(migration)), owner_(owner), asked_ms_(pg::MonotonicMs()) {
  ReadServer();
  for (const redis::ReplicationPoint &point : points) moments_.push_back({point, {}});
}

void InStep::ReadServer() {
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute("SELECT server::text FROM redis_migrate.migration WHERE migration = $1",
                             {SqlParam::Text(migration_)});
    if (rows.size() > 0) server_ = rows[0].Text(0);
  }
  Spi::Commit();
}

redis::ReplicationPoint InStep::FetchPoint(redis::Connection &connection) {
  auto const keys = pg::ValueOrThrow(source::NamedKeys::Open(connection, {}));
  return pg::ValueOrThrow(keys->FetchPoint());
}

void InStep::AskServer() {
  moments_.clear();
  std::optional<redis::ClusterTopology> const topology = TopologyOf(server_, owner_);
  std::vector<std::vector<std::string>> servers(1);
  if (topology) servers.clear();
  if (topology)
    for (const redis::ClusterShard &shard : topology->shards) servers.push_back({shard.master.id});
  for (const std::vector<std::string> &nodes : servers) {
    ServerConnection connection(server_, owner_, nodes);
    Spi::Commit();
    if (!connection.is_open())
      throw pg::Failure(ERRCODE_CONNECTION_FAILURE, "a master of the cluster has just lost its slots");
    moments_.push_back({FetchPoint(*connection), {}});
  }
  asked_ms_ = pg::MonotonicMs();
}

// Large values that wait because they change often are wanted at once.
void InStep::HastenUpTo(int link, int64 offset) const {
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.live_position AS p
            SET flush_offset = $2
            WHERE p.run_id = )sql" PRM_LIVE_RUN R"sql(
              AND p.link = $3 AND p.flush_offset < $2
              AND EXISTS (
                SELECT FROM redis_migrate.live_key AS k
                WHERE k.run_id = p.run_id AND k.link = p.link
                  AND k.bytes IS NOT NULL AND k.read_offset <= $2))sql",
      {SqlParam::Text(migration_), SqlParam::Int8(offset), SqlParam::Int4(link)});
}

// Of a run that has ended nothing counts: the next one may begin anew, after an undo for example.
bool InStep::IsReached() {
  bool is_of_history = true, is_reached = true;
  is_applied_ = true;
  {
    pg::AsExtensionOwner as_owner;
    // All at once: followers of a cluster hand keys over to each other.
    auto const unfilled = Spi::Execute(R"sql(WITH r AS (SELECT )sql" PRM_LIVE_RUN R"sql( AS run_id)
              SELECT EXISTS (
                      SELECT
                      FROM redis_migrate.live_position AS p
                      JOIN r USING (run_id)
                      JOIN redis_migrate.mapping AS m ON m.migration = $1
                      LEFT JOIN redis_migrate.live_mapping AS f USING (run_id, link, mapping_id)
                      WHERE f.is_filled IS NULL)
                  OR EXISTS (
                      SELECT
                      FROM redis_migrate.live_mapping AS f
                      JOIN r USING (run_id)
                      WHERE NOT is_filled OR NOT EXISTS (
                          SELECT
                          FROM redis_migrate.mapping AS m
                          WHERE m.migration = $1 AND m.mapping_id = f.mapping_id)))sql",
                                       {SqlParam::Text(migration_)});
    is_reached = !unfilled[0].Bool(0);
    auto rows = Spi::Execute(
        R"sql(SELECT l.replication_id, p.is_loaded, p.applied_offset, k.first, k.last,
                p.link, p.furthest_offset
              FROM redis_migrate.live_applied AS p
              JOIN redis_migrate.live_link AS l USING (run_id, link),
              LATERAL (SELECT min(q.read_offset) AS first, max(q.read_offset) AS last
                       FROM redis_migrate.live_key AS q
                       WHERE q.run_id = p.run_id AND q.link = p.link) AS k
              WHERE p.run_id = )sql" PRM_LIVE_RUN,
        {SqlParam::Text(migration_)});
    for (Moment &moment : moments_) {
      uint64 row = 0;
      while (row < rows.size() && (rows[row].Text(0) != moment.point.id || !rows[row].Bool(1))) ++row;
      if (row == rows.size()) {
        is_of_history = is_reached = is_applied_ = false;
        continue;
      }
      int64 const applied = rows[row].Int8(2);
      int64 const furthest = rows[row].Int8(6);
      bool const has_keys = !rows[row].IsNull(3);
      if (applied < static_cast<int64>(moment.point.offset)) {
        is_reached = is_applied_ = false;
      } else if (has_keys || furthest > applied) {
        // Keys may show changes after the moment, of transactions that other keys do not show yet: they were
        // read, or are in a share that is further than others. After a fail-over, such changes may never have
        // existed, but then the keys are read again.
        if (!moment.last_shown) moment.last_shown = std::max(has_keys ? rows[row].Int8(4) : 0, furthest);
        HastenUpTo(rows[row].Int4(5), *moment.last_shown);
        bool const has_early = has_keys && rows[row].Int8(3) <= *moment.last_shown;
        if (applied < *moment.last_shown || has_early) is_reached = false;
      }
    }
  }
  Spi::Commit();
  if (!is_of_history && pg::MonotonicMs() - asked_ms_ > kAskAgainMs) AskServer();
  return is_reached;
}

}  // namespace prm
