// Reads packed items from a column of the extension's tables in ranges of hashes.
#pragma once

#include "ledger/ledger_segments.h"
#include "pg/memory.h"
#include "pg/spi.h"
#include "pg/wait.h"

namespace prm {

// The most that is worked on at once. If there is more, the hashes are divided into ranges, one after the
// other.
constexpr int64 kBytesAtOnce = 4 * 1024 * 1024;
// A reserve over the estimated number of items of a range: what is read beyond the range is read again with
// the next.
constexpr size_t kSpareItems = 64;

inline uint64_t RangesFor(int64 bytes) { return static_cast<uint64_t>(bytes / kBytesAtOnce) + 1; }

// A column with packed items, read in parts from beginning to end.
struct PackedColumn {
  Packing packing;
  const char *part;  // statement: parameters are two numbers of the row, the first byte from 1, how many
  size_t items = 0;
  size_t next = 0;

  // Hands the items of a range to `visit`. Ranges come in ascending order, without gaps. Reads in the active
  // snapshot.
  template <typename Visit>
  void Read(int64 owner_id, int64 id, const HashRange &range, uint64_t ranges, Visit visit) {
    auto const size = static_cast<size_t>(packing);
    while (next < items) {
      size_t const count = std::min(items - next, items / ranges + items / ranges / 8 + kSpareItems);
      pg::CheckInterrupts();
      pg::Context context("redis_migrate ledger");
      pg::SwitchContext in_context(context.get());
      pg::Rows const rows = pg::Spi::ExecuteKept(part,
                                                 {pg::SqlParam::Int8(owner_id), pg::SqlParam::Int8(id),
                                                  pg::SqlParam::Int4(static_cast<int32>(next * size + 1)),
                                                  pg::SqlParam::Int4(static_cast<int32>(count * size))},
                                                 true);
      if (rows.size() == 0) return;
      std::vector<PackedItem> read;
      UnpackOrThrow(pg::DatumBytes(rows[0].Value(0)), packing, read);
      if (read.empty()) return;
      for (const PackedItem &item : read) {
        if (!range.Has(item.hash)) return;
        visit(item);
        ++next;
      }
    }
  }
};

inline size_t ItemsOf(const pg::Row &row, int column, Packing packing) {
  return static_cast<size_t>(row.Int4(column)) / static_cast<size_t>(packing);
}

}  // namespace prm
