#include "run/gone_rows.h"

#include "ledger/ledger_segments.h"
#include "pg/each_row.h"
#include "pg/kept_statement.h"
#include "pg/memory.h"

namespace prm {

GoneRows::GoneRows()
    : desc_(pg::Call([] {
        TupleDesc desc = CreateTemplateTupleDesc(2);
        TupleDescInitEntry(desc, 1, "row_key", TEXTOID, -1, 0);
        TupleDescInitEntry(desc, 2, "redis_hash", BYTEAOID, -1, 0);
        TupleDescFinalize(desc);
        return desc;
      })) {}

void GoneRows::Put(const GoneRow &row) {
  Datum values[] = {pg::TextDatum(row.row_key), pg::ByteaDatum(Pack({row.item}, Packing::kHashes))};
  bool nulls[] = {false, false};
  rows_.Put(desc_, values, nulls);
  for (Datum const value : values) pfree(DatumGetPointer(value));
}

void GoneRows::SortInto(GoneRows &sorted, bool largest_first) {
  pg::NamedRows named("redis_gone", desc_, rows_.get());
  std::string const direction = largest_first ? " DESC" : "";
  pg::KeptStatement("SELECT row_key, redis_hash FROM redis_gone ORDER BY pg_catalog.octet_length(row_key)" +
                    direction + ", row_key COLLATE pg_catalog.\"C\"" + direction)
      .ExecuteInto(sorted.rows_);
}

void GoneRows::ForEachPortion(size_t most, const std::function<void(std::vector<GoneRow> &)> &visit) {
  std::vector<GoneRow> portion;
  std::vector<PackedItem> items;
  pg::ForEachRow(desc_, rows_, [&](TupleTableSlot *slot) {
    items.assign(1, {});
    if (!slot->tts_isnull[1]) {
      items.clear();
      UnpackOrThrow(pg::DatumBytes(slot->tts_values[1]), Packing::kHashes, items);
    }
    portion.push_back({std::string(pg::DatumBytes(slot->tts_values[0])), items.at(0)});
    if (portion.size() < most) return;
    visit(portion);
    portion.clear();
  });
  if (!portion.empty()) visit(portion);
}

}  // namespace prm
