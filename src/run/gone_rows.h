// Rows that have lost their keys, in memory or, past work_mem, in a temporary file.
#pragma once

#include "core/packed_items.h"
#include "pg/tuplestore.h"

namespace prm {

// A row: its key columns as the text of an array; and its hash, with a packed ledger.
struct GoneRow {
  std::string row_key;
  PackedItem item;
};

// Needs SPI. Errors: 53100 and others of temporary files.
class GoneRows {
 public:
  GoneRows();

  void Put(const GoneRow &row);
  // For statements that yield (row_key text, redis_hash bytea), the hash NULL without a packed ledger.
  pg::Tuplestore &store() { return rows_; }
  size_t size() const { return static_cast<size_t>(rows_.size()); }

  void Clear() { rows_.Clear(); }

  // Adds the rows to `sorted`, in the order of the numbers in their keys, as far as there are some.
  void SortInto(GoneRows &sorted, bool largest_first);

  // Hands the rows to `visit`, at most so many at a time, in their order. Looks for interrupts.
  void ForEachPortion(size_t most, const std::function<void(std::vector<GoneRow> &)> &visit);

 private:
  TupleDesc desc_;
  pg::Tuplestore rows_;
};

}  // namespace prm
