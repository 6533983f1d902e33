#include "run/progress_notice.h"

#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/settings.h"
#include "pg/spi.h"

namespace prm {

namespace {

using pg::Spi;
using pg::SqlParam;

// How far a run has read its source; nothing: it does not read.
std::optional<std::string> Reading(int64 run_id) {
  pg::Rows const rows = Spi::Execute(
      R"sql(SELECT p.keys_read::pg_catalog.text, p.keys_estimated::pg_catalog.text, p.percent::pg_catalog.text,
                   p.keys_per_second::pg_catalog.text,
                   pg_catalog.date_trunc('second', p.estimated_end OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp())::pg_catalog.text
            FROM redis_migrate.progress AS p
            WHERE p.run_id OPERATOR(pg_catalog.=) $1)sql",
      {SqlParam::Int8(run_id)});
  if (rows.size() == 0) return std::nullopt;
  pg::Row const row = rows[0];
  std::string text = row.Text(0);
  if (!row.IsNull(1)) text += " of about " + row.Text(1);
  text += " keys";
  if (!row.IsNull(2)) text += ", " + row.Text(2) + " %";
  if (!row.IsNull(3)) text += ", " + row.Text(3) + " keys/s";
  if (!row.IsNull(4)) text += ", about " + row.Text(4) + " left";
  return text;
}

// How far a live run is behind its server; nothing: it does not follow yet.
std::optional<std::string> Following(int64 run_id) {
  pg::Rows const rows = Spi::Execute(
      R"sql(SELECT pg_catalog.string_agg(DISTINCT s.state, ', '),
                   pg_catalog.sum(s.lag_bytes) FILTER (WHERE s.feed IS NULL)::pg_catalog.text,
                   pg_catalog.max(s.lag_seconds)::pg_catalog.text, pg_catalog.sum(s.keys_ahead)::pg_catalog.text
            FROM redis_migrate.live_sync AS s
            WHERE s.run_id OPERATOR(pg_catalog.=) $1
            HAVING pg_catalog.bool_and(s.applied_offset IS NOT NULL AND s.lag_seconds IS NOT NULL))sql",
      {SqlParam::Int8(run_id)});
  if (rows.size() == 0) return std::nullopt;
  pg::Row const row = rows[0];
  std::string text = row.Text(0);
  if (!row.IsNull(1)) text += ", " + row.Text(1) + " bytes behind";
  return text + ", " + row.Text(2) + " s behind, " + row.Text(3) + " keys ahead of their offset";
}

}  // namespace

ProgressNotice::ProgressNotice() : told_ms_(pg::MonotonicMs()) {}

bool ProgressNotice::IsDue() const {
  int64 const interval_ms = int64{pg::settings::progress_interval_s} * 1000;
  return interval_ms > 0 && MyBgworkerEntry == nullptr && pg::MonotonicMs() - told_ms_ >= interval_ms;
}

void ProgressNotice::Tell(int64 run_id) {
  if (!IsDue()) return;
  told_ms_ = pg::MonotonicMs();
  std::optional<std::string> text = Following(run_id);
  if (!text) text = Reading(run_id);
  if (text) pg::Report(NOTICE, "run " + std::to_string(run_id) + ": " + *text);
}

}  // namespace prm
