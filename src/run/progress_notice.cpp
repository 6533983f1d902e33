#include "run/progress_notice.h"

#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/settings.h"
#include "pg/spi.h"

namespace prm {

ProgressNotice::ProgressNotice() : told_ms_(pg::MonotonicMs()) {}

void ProgressNotice::Tell(int64 run_id) {
  int64 const interval_ms = int64{pg::settings::progress_interval_s} * 1000;
  if (interval_ms == 0 || MyBgworkerEntry != nullptr) return;
  int64 const now_ms = pg::MonotonicMs();
  if (now_ms - told_ms_ < interval_ms) return;
  told_ms_ = now_ms;
  pg::Rows const rows = pg::Spi::Execute(
      R"sql(SELECT p.keys_read::pg_catalog.text, p.keys_estimated::pg_catalog.text, p.percent::pg_catalog.text,
                   p.keys_per_second::pg_catalog.text,
                   pg_catalog.date_trunc('second', p.estimated_end OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp())::pg_catalog.text
            FROM redis_migrate.progress AS p
            WHERE p.run_id OPERATOR(pg_catalog.=) $1)sql",
      {pg::SqlParam::Int8(run_id)});
  if (rows.size() == 0) return;
  pg::Row const row = rows[0];
  std::string text = "run " + std::to_string(run_id) + ": " + row.Text(0);
  if (!row.IsNull(1)) text += " of about " + row.Text(1);
  text += " keys";
  if (!row.IsNull(2)) text += ", " + row.Text(2) + " %";
  if (!row.IsNull(3)) text += ", " + row.Text(3) + " keys/s";
  if (!row.IsNull(4)) text += ", about " + row.Text(4) + " left";
  pg::Report(NOTICE, text);
}

}  // namespace prm
