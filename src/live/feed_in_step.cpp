#include "live/feed_in_step.h"

#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

FeedInStep::FeedInStep(std::string migration)
    : migration_(std::move(migration)), moment_(GetCurrentTimestamp()) {}

bool FeedInStep::IsReached() {
  bool is_reached = false;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute(
        R"sql(SELECT p.run_id, p.is_loaded, p.applied_offset,
                  CASE WHEN l.received_at > $2 THEN l.received_offset END,
                  (SELECT min(k.read_offset) FROM redis_migrate.live_key AS k WHERE k.run_id = p.run_id)
              FROM redis_migrate.live_applied AS p
              JOIN redis_migrate.live_link AS l USING (run_id)
              WHERE l.feed IS NOT NULL
                  AND p.run_id = (SELECT max(run_id) FROM redis_migrate.run WHERE migration = $1 AND live)
                  AND (SELECT r.started_at > m.changed_at
                       FROM redis_migrate.run AS r
                       JOIN redis_migrate.migration AS m USING (migration)
                       WHERE r.run_id = p.run_id))sql",
        {SqlParam::Text(migration_), {TIMESTAMPTZOID, TimestampTzGetDatum(moment_), false}});
    if (rows.size() > 0) {
      if (std::exchange(run_id_, rows[0].Int8(0)) != rows[0].Int8(0)) offset_.reset();
      if (!offset_ && !rows[0].IsNull(3)) offset_ = rows[0].Int8(3);
      bool const has_waiting = offset_ && !rows[0].IsNull(4) && rows[0].Int8(4) <= *offset_;
      // Large values that wait because they change often are wanted at once.
      if (has_waiting)
        Spi::ExecuteKept(
            R"sql(UPDATE redis_migrate.live_position AS p SET flush_offset = $2
                  WHERE p.run_id = $1 AND p.flush_offset < $2
                      AND EXISTS (SELECT FROM redis_migrate.live_key AS k
                                  WHERE k.run_id = p.run_id AND k.bytes IS NOT NULL AND k.read_offset <= $2))sql",
            {SqlParam::Int8(run_id_), SqlParam::Int8(*offset_)});
      is_reached = rows[0].Bool(1) && offset_ && rows[0].Int8(2) >= *offset_ && !has_waiting;
    }
  }
  Spi::Commit();
  return is_reached;
}

}  // namespace prm
