#include "store/row_parts.h"

#include <numeric>

#include "pg/wait.h"

namespace prm {

void ForEachPart(TupleDesc desc, QueryRows &rows, const std::function<void(RowPart &)> &visit) {
  if (rows.rows.size() == 0) return;
  RowPart part = {&rows.rows, 0, rows.entry_of_row, {}};
  bool const fits = !rows.entry_of_row.empty();
  if (rows.rows.size() == static_cast<int64>(part.entries.size())) {
    part.numbers.resize(part.entries.size());
    std::iota(part.numbers.begin(), part.numbers.end(), 0);
    return visit(part);
  }
  pg::Tuplestore copied;
  if (!fits) {
    part.rows = &copied;
    part.entries.resize(QueryRows::kAtOnce);
  }
  TupleTableSlot *slot = pg::Call([&] {
    tuplestore_rescan(rows.rows.get());
    return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
  });
  while (pg::Call([&] { return tuplestore_gettupleslot(rows.rows.get(), true, false, slot); })) {
    int number, entry;
    pg::Call([&] {
      bool null;
      number = DatumGetInt32(slot_getattr(slot, 1, &null));
      entry = DatumGetInt32(slot_getattr(slot, 2, &null));
    });
    if (number - part.first >= QueryRows::kAtOnce) {
      if (!part.numbers.empty()) visit(part);
      pg::CheckInterrupts();
      copied.Clear();
      part.numbers.clear();
      part.first = number;
    }
    part.numbers.push_back(number);
    part.entries[static_cast<size_t>(number - part.first)] = entry;
    if (!fits) copied.Put(slot);
  }
  visit(part);
  pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
}

}  // namespace prm
