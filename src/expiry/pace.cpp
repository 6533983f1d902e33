#include "expiry/pace.h"

#include "pg/entry.h"
#include "pg/spi.h"

#include <sched.h>
#include <chrono>

namespace prm::expiry {

using pg::Spi;
using pg::SqlParam;

std::string PauseReason(const Policy &policy) {
  pg::AsExtensionOwner as_owner;
  if (policy.max_replication_lag_s > 0) {
    auto rows = Spi::Execute(
        R"sql(SELECT format('standby %s (process %s) is %s behind, more than max_replication_lag %s',
                            coalesce(nullif(application_name, ''), '?'), pid,
                            date_trunc('milliseconds', replay_lag), make_interval(secs => $1))
              FROM pg_stat_replication
              WHERE replay_lag > make_interval(secs => $1)
              ORDER BY replay_lag DESC LIMIT 1)sql",
        {{FLOAT8OID, Float8GetDatum(policy.max_replication_lag_s), false}});
    if (rows.size() > 0) return rows[0].Text(0);
  }
  if (policy.max_xmin_age > 0) {
    // Vacuum ignores snapshots of other databases, except those of standbys, and those of vacuum itself.
    auto rows = Spi::Execute(
        R"sql(SELECT format('%s holds back the xmin horizon by %s transactions, more than max_xmin_age %s',
                            holder, age, $1)
              FROM (
                  SELECT greatest(age(backend_xmin), age(backend_xid)) AS age,
                      format('process %s (%s)', pid, coalesce(usename::text, backend_type)) AS holder
                  FROM pg_stat_activity
                  WHERE pid <> pg_backend_pid()
                      AND (datname = current_database() OR backend_type = 'walsender')
                      AND backend_type <> 'autovacuum worker'
                  UNION ALL
                  SELECT age(transaction), format('prepared transaction %s', gid)
                  FROM pg_prepared_xacts
                  WHERE database = current_database()
                  UNION ALL
                  SELECT age(xmin), format('replication slot %s', slot_name)
                  FROM pg_replication_slots) AS h
              WHERE age > $1
              ORDER BY age DESC LIMIT 1)sql",
        {SqlParam::Int4(policy.max_xmin_age)});
    if (rows.size() > 0) return rows[0].Text(0);
  }
  return "";
}

bool OthersAtWork() {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT FROM pg_stat_get_activity(NULL)
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND
                       (state NOT IN ('idle', 'idle in transaction', 'idle in transaction (aborted)')
                        OR state_change > clock_timestamp() - interval '1 second')
                   LIMIT 1)sql",
             {})
             .size() > 0;
}

// A process that computes may keep its processor until the next tick of the clock, 4 ms at 250 Hz, while
// another needs it for a tenth of that: `make bench-expiry` shows reads beside a session that only computes.
void GiveWay() { sched_yield(); }

int AdaptSize(int size, double elapsed_ms, double target_ms, int most) {
  double factor = std::clamp(target_ms / std::max(elapsed_ms, 0.1), 0.05, 2.0);
  return std::clamp(static_cast<int>(size * factor), 1, most);
}

void RateCeiling::Spend(int64 rows, int max_rate, TimestampTz begin) {
  if (max_rate == 0 || rows == 0) return;
  longest_ms_ = rows * 1000 / max_rate;
  ready_at_ = begin + rows * USECS_PER_SEC / max_rate;
}

int64 RateCeiling::WaitMs() const {
  // No longer than that, if the clock is set back meanwhile.
  return std::min<int64>(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), ready_at_), longest_ms_);
}

extern "C" {
PGDLLEXPORT Datum prm_gives_way(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(prm_gives_way);
}

// redis_migrate.gives_way(): see the SQL comment. Once per row, and nothing that could fail: without the
// barrier. A scan evaluates its conditions with no more than a pin on the page.
Datum prm_gives_way(FunctionCallInfo) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRowsPerLook = 16;
  constexpr auto kTurn = std::chrono::microseconds(100);
  static int rows = 0;
  static Clock::time_point turn_began;
  if (++rows >= kRowsPerLook) {
    rows = 0;
    if (Clock::now() - turn_began >= kTurn) {
      GiveWay();
      turn_began = Clock::now();
    }
  }
  return BoolGetDatum(true);
}

}  // namespace prm::expiry
