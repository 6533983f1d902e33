#include "verify/live_beside.h"

#include "mapping/live_run.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int64 kMostLiveWaitMs = 10 * 1000;
constexpr long kLookAtLiveMs = 20;

}  // namespace

bool LiveBeside::IsFollowed() const {
  bool is_followed = false;
  {
    pg::AsExtensionOwner as_owner;
    is_followed = Spi::Execute(
                      R"sql(SELECT EXISTS (
                                SELECT
                                FROM redis_migrate.run AS r
                                WHERE r.run_id = )sql" PRM_LIVE_RUN R"sql(
                                    AND EXISTS (SELECT FROM pg_stat_get_activity(r.pid) AS a
                                                WHERE a.backend_start <= r.updated_at)))sql",
                      {SqlParam::Text(migration_)})[0]
                      .Bool(0);
  }
  Spi::Commit();
  return is_followed;
}

bool LiveBeside::IsFollowing() const {
  bool is_following = false;
  {
    pg::AsExtensionOwner as_owner;
    is_following =
        Spi::Execute(
            R"sql(SELECT count(*) > 0 AND bool_and(coalesce(state IN ('streaming', 'in step', 'settled'), false))
                             FROM redis_migrate.live_sync
                             WHERE migration = $1)sql",
            {SqlParam::Text(migration_)})[0]
            .Bool(0);
  }
  Spi::Commit();
  return is_following;
}

bool LiveBeside::IsFeed() const {
  bool is_feed = false;
  {
    pg::AsExtensionOwner as_owner;
    is_feed = Spi::ExecuteKept(
                  R"sql(SELECT coalesce(bool_or(l.feed IS NOT NULL), false)
                        FROM redis_migrate.live_link AS l
                        WHERE l.run_id = )sql" PRM_LIVE_RUN,
                  {SqlParam::Text(migration_)})[0]
                  .Bool(0);
  }
  Spi::Commit();
  return is_feed;
}

bool LiveBeside::WaitForAll() {
  if (IsFeed()) return WaitForFeed();
  std::vector<redis::ReplicationPoint> const points = reader_.FetchPoints();
  for (const redis::ReplicationPoint &point : points)
    if (!WaitForStream(point)) return false;
  return !points.empty();
}

// Asks again and again until the answer is true. False, too: the answer is NULL, that nobody knows.
bool LiveBeside::WaitUntil(const std::string &question, std::initializer_list<SqlParam> parameters) {
  for (int64 const began_ms = pg::MonotonicMs();;) {
    std::optional<bool> is_reached;
    {
      pg::AsExtensionOwner as_owner;
      auto const rows = Spi::ExecuteKept(question, parameters);
      if (rows.size() > 0 && !rows[0].IsNull(0)) is_reached = rows[0].Bool(0);
    }
    Spi::Commit();
    if (is_reached.value_or(true)) return is_reached.has_value();
    if (pg::MonotonicMs() - began_ms > kMostLiveWaitMs) return false;
    pg::Sleep(kLookAtLiveMs);
  }
}

bool LiveBeside::WaitForStream(const redis::ReplicationPoint &point) const {
  return WaitUntil(
      R"sql(SELECT p.is_loaded AND p.applied_offset >= $3
            FROM redis_migrate.live_applied AS p
            LEFT JOIN redis_migrate.live_link AS l USING (run_id, link)
            WHERE p.run_id = )sql" PRM_LIVE_RUN R"sql(
                AND $2 IN (p.replication_id, l.replication_id)
            ORDER BY p.applied_offset
            LIMIT 1)sql",
      {SqlParam::Text(migration_), SqlParam::Text(point.id),
       SqlParam::Int8(static_cast<int64>(point.offset))});
}

std::set<KeyId> LiveBeside::Deferred(const std::vector<KeyId> &keys) const {
  std::vector<int> dbs;
  std::vector<Bytes> names;
  for (const auto &[db, key] : keys) {
    dbs.push_back(db);
    names.emplace_back(key);
  }
  std::set<KeyId> deferred;
  {
    pg::AsExtensionOwner as_owner;
    auto const rows = Spi::ExecuteKept(
        R"sql(SELECT k.db, k.key_bytes
              FROM redis_migrate.live_key AS k
              JOIN unnest($2, $3) AS a (db, key_bytes) USING (db, key_bytes)
              WHERE k.bytes IS NOT NULL AND k.run_id = )sql" PRM_LIVE_RUN,
        {SqlParam::Text(migration_), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(names)});
    for (size_t i = 0; i < rows.size(); ++i)
      deferred.emplace(rows[i].Int4(0), std::string(pg::DatumBytes(rows[i].Value(1))));
  }
  Spi::Commit();
  return deferred;
}

// A feed knows all that changed before some time. One that has a doubt knows nothing.
bool LiveBeside::WaitForFeed() const {
  return WaitUntil(
      R"sql(SELECT CASE WHEN bool_and(l.doubt IS NULL)
                THEN bool_and(p.is_loaded AND p.applied_offset >= l.received_offset AND l.received_at > $2) END
            FROM redis_migrate.live_link AS l
            LEFT JOIN redis_migrate.live_applied AS p USING (run_id, link)
            WHERE l.run_id = )sql" PRM_LIVE_RUN,
      {SqlParam::Text(migration_), {TIMESTAMPTZOID, TimestampTzGetDatum(GetCurrentTimestamp()), false}});
}

}  // namespace prm
