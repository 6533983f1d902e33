#include "restore/reject_source.h"

#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

RejectSource::RejectSource(const std::string &migration, source::KeyFilter &filter, size_t batch_keys,
                           const std::string &position)
    : filter_(filter), batch_keys_(batch_keys) {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT max(j.reject_id) AS reject_id
            FROM redis_migrate.reject AS j
            JOIN redis_migrate.run AS r USING (run_id)
            WHERE r.migration = $1 AND NOT r.dry_run AND j.settled_at IS NULL
                AND r.run_id >= coalesce((SELECT max(run_id) FROM redis_migrate.run
                                          WHERE migration = $1 AND NOT dry_run AND priority IS NULL
                                              AND mapping IS NULL AND source <> 'archive'
                                              AND (state = 'completed' OR live)), 0)
            GROUP BY j.db, j.key_bytes
            HAVING max(j.reject_id) > $2
            ORDER BY 1)sql",
      {SqlParam::Text(migration), SqlParam::Int8(position.empty() ? 0 : std::stoll(position))});
  for (uint64 i = 0; i < rows.size(); ++i) ids_.push_back(rows[i].Int8(0));
}

Result<bool> RejectSource::Next(source::Batch &batch) {
  batch = source::Batch();
  if (next_ == ids_.size()) return false;
  uint64_t const most_bytes = static_cast<uint64_t>(pg::settings::batch_size_kb) * 1024;
  pg::Context context("redis_migrate rejects");
  pg::SwitchContext in_context(context.get());
  pg::SnapshotScope snapshot;  // payloads are fetched from TOAST after the statement
  pg::AsExtensionOwner as_owner;
  auto const end = static_cast<int64_t>(std::min(next_ + batch_keys_, ids_.size()));
  auto const rows = Spi::Execute(
      R"sql(SELECT reject_id, db, key_bytes, payload, expires_at
            FROM redis_migrate.reject
            WHERE reject_id = ANY ($1)
            ORDER BY reject_id)sql",
      {SqlParam::Int8Array(
          {ids_.begin() + static_cast<int64_t>(next_), ids_.begin() + static_cast<int64_t>(end)})});
  int64 last = ids_[static_cast<size_t>(end) - 1];
  for (uint64 i = 0; i < rows.size(); ++i) {
    source::Entry entry;
    entry.db = rows[i].Int4(1);
    entry.key = pg::DatumBytes(rows[i].Value(2));
    if (filter_.Classify(entry.db, entry.key).interest == source::Interest::kRead) {
      entry.state = rows[i].IsNull(3) ? source::EntryState::kTooLarge : source::EntryState::kRead;
      if (!rows[i].IsNull(3)) entry.payload = pg::DatumBytes(rows[i].Value(3));
      if (!rows[i].IsNull(4)) entry.expires_at_ms = pg::UnixMs(DatumGetTimestampTz(rows[i].Value(4)));
      batch.bytes += entry.key.size() + entry.payload.size();
      batch.entries.push_back(std::move(entry));
    }
    if (batch.bytes < most_bytes) continue;
    last = rows[i].Int8(0);
    break;
  }
  next_ = static_cast<size_t>(std::upper_bound(ids_.begin(), ids_.end(), last) - ids_.begin());
  batch.position = std::to_string(last);
  return true;
}

}  // namespace prm
