#include "ledger/inserted_rows.h"

#include "pg/identity.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// Each range costs a scan of the target.
constexpr int64 kRowsAtOnce = 1'000'000;

}  // namespace

InsertedRows::InsertedRows(int64 mapping_id, int64 run_id) : mapping_id_(mapping_id) {
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::ExecuteKept(
      "SELECT batch_id, columns, octet_length(inserted), format FROM redis_migrate.ledger_batch WHERE "
      "mapping_id "
      "= $1 AND run_id = $2 AND NOT in_journal AND octet_length(inserted) > 0 ORDER BY batch_id",
      {SqlParam::Int8(mapping_id), SqlParam::Int8(run_id)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    RequirePackedFormat(rows[i].Int4(3));
    size_t const items = ItemsOf(rows[i], 2, Packing::kEntries);
    size_ += static_cast<int64>(items);
    batches_.push_back(
        {rows[i].Int8(0),
         rows[i].Int8(1),
         {Packing::kEntries,
          "SELECT substr(inserted, $3, $4) FROM redis_migrate.ledger_batch WHERE mapping_id = $1 "
          "AND batch_id = $2",
          items}});
  }
  ranges_ = static_cast<uint64_t>(size_ / kRowsAtOnce) + 1;
}

bool InsertedRows::Next(int64 columns, std::vector<PackedItem> &items) {
  items.clear();
  if (next_ == ranges_) return false;
  pg::SnapshotScope snapshot;  // the items are fetched from TOAST
  pg::AsExtensionOwner as_owner;
  HashRange const range = HashRange::Share(next_++, ranges_);
  for (Batch &batch : batches_)
    batch.inserted.Read(mapping_id_, batch.id, range, ranges_, [&](PackedItem item) {
      if (batch.columns != columns) item.image = 0;
      items.push_back(item);
    });
  std::stable_sort(items.begin(), items.end());
  std::vector<PackedItem> last;
  for (const PackedItem &item : items) {
    if (!last.empty() && last.back().hash == item.hash) last.pop_back();
    last.push_back(item);
  }
  items = std::move(last);
  return true;
}

void InsertedRows::Forget(int64 mapping_id, int64 run_id) {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      "UPDATE redis_migrate.ledger_batch SET run_id = NULL WHERE mapping_id = $1 AND run_id = $2",
      {SqlParam::Int8(mapping_id), SqlParam::Int8(run_id)});
}

}  // namespace prm
