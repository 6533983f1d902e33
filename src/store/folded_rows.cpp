#include "store/folded_rows.h"

#include "mapping/mapping_query.h"
#include "pg/memory.h"
#include "write/key_order.h"

namespace prm {

namespace {

// The functions below run inside pg::Call: plain C.

struct Row {
  int32 number;
  Datum values[INDEX_MAX_KEYS];
  bool nulls[INDEX_MAX_KEYS];
};

// The rows of one key.
struct KeyRows {
  KeyOrder *order;
  TupleDesc desc;
  int32 entry;
  int count;
  int space;
  Row **rows;
  MemoryContext values;
};

struct Folded {
  int count;
  int space;
  int32 *numbers;
};

int CompareKeys(const Row *a, const Row *b, KeyOrder *order) {
  for (int i = 0; i < order->count; ++i) {
    int const result =
        ApplySortComparator(a->values[i], a->nulls[i], b->values[i], b->nulls[i], &order->support[i]);
    if (result != 0) return result;
  }
  return 0;
}

int CompareRows(const void *a, const void *b, void *order) {
  const Row *first = *static_cast<Row *const *>(a);
  const Row *second = *static_cast<Row *const *>(b);
  int const result = CompareKeys(first, second, static_cast<KeyOrder *>(order));
  return result != 0 ? result : first->number < second->number ? -1 : 1;
}

bool IsAscending(const KeyRows &rows) {
  for (int i = 1; i < rows.count; ++i)
    if (CompareKeys(rows.rows[i - 1], rows.rows[i], rows.order) >= 0) return false;
  return true;
}

void AddFolded(Folded *folded, int32 number) {
  if (folded->count == folded->space) {
    folded->space *= 2;
    folded->numbers = static_cast<int32 *>(
        repalloc_huge(folded->numbers, sizeof(int32) * static_cast<Size>(folded->space)));
  }
  folded->numbers[folded->count++] = number;
}

// Ends a key.
void FoldRows(KeyRows *rows, Folded *folded) {
  if (!IsAscending(*rows)) {
    qsort_arg(rows->rows, static_cast<size_t>(rows->count), sizeof(Row *), CompareRows, rows->order);
    for (int i = 1; i < rows->count; ++i)
      if (CompareKeys(rows->rows[i - 1], rows->rows[i], rows->order) == 0)
        AddFolded(folded, rows->rows[i]->number);
  }
  rows->count = 0;
  MemoryContextReset(rows->values);
}

void AddRow(TupleTableSlot *slot, KeyRows *rows) {
  MemoryContext before = MemoryContextSwitchTo(rows->values);
  auto *row = static_cast<Row *>(palloc(sizeof(Row)));
  row->number = DatumGetInt32(slot->tts_values[0]);
  for (int i = 0; i < rows->order->count; ++i) {
    int const column = rows->order->attributes[i] - 1;
    Form_pg_attribute type = TupleDescAttr(rows->desc, column);
    row->nulls[i] = slot->tts_isnull[column];
    row->values[i] =
        row->nulls[i] ? Datum{0} : datumCopy(slot->tts_values[column], type->attbyval, type->attlen);
  }
  MemoryContextSwitchTo(before);
  if (rows->count == rows->space) {
    rows->space *= 2;
    rows->rows = static_cast<Row **>(repalloc(rows->rows, sizeof(Row *) * static_cast<Size>(rows->space)));
  }
  rows->rows[rows->count++] = row;
}

bool FindFolded(Tuplestorestate *store, KeyRows *rows, Folded *folded) {
  TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
  tuplestore_rescan(store);
  bool found = true;
  while (found && tuplestore_gettupleslot(store, true, false, slot)) {
    CHECK_FOR_INTERRUPTS();
    slot_getallattrs(slot);
    int32 const entry = DatumGetInt32(slot->tts_values[1]);
    found = entry >= rows->entry && rows->count < QueryRows::kAtOnce;
    if (entry > rows->entry) FoldRows(rows, folded);
    rows->entry = entry;
    AddRow(slot, rows);
  }
  if (found) FoldRows(rows, folded);
  ExecDropSingleTupleTableSlot(slot);
  return found;
}

}  // namespace

std::optional<std::vector<int>> FindFoldedOfKeys(const Target &target,
                                                 const std::vector<const TargetColumn *> &columns,
                                                 TupleDesc desc, pg::Tuplestore &rows) {
  if (!OidIsValid(target.key_index)) return std::nullopt;
  std::vector<AttrNumber> source;  // by number of the target's column
  for (size_t i = 0; i < columns.size(); ++i) {
    source.resize(std::max(source.size(), static_cast<size_t>(columns[i]->number)), 0);
    source[static_cast<size_t>(columns[i]->number) - 1] =
        static_cast<AttrNumber>(i + QueryRows::kFirstColumn);
  }
  const AttrNumber *const attributes = source.data();
  Tuplestorestate *const store = rows.get();
  pg::Context context("redis_migrate folded rows");
  pg::SwitchContext in_context(context.get());
  Folded folded = {};
  bool const found = pg::Call([&] {
    KeyOrder order;
    Relation index = index_open(target.key_index, AccessShareLock);
    FindKeyOrder(index, attributes, &order);
    index_close(index, NoLock);
    folded = {0, 64, static_cast<int32 *>(palloc(sizeof(int32) * 64))};
    KeyRows key = {
        &order,
        desc,
        0,
        0,
        64,
        static_cast<Row **>(palloc(sizeof(Row *) * 64)),
        AllocSetContextCreate(CurrentMemoryContext, "redis_migrate rows of a key", ALLOCSET_DEFAULT_SIZES)};
    return FindFolded(store, &key, &folded);
  });
  if (!found) return std::nullopt;
  std::vector<int> numbers(folded.numbers, folded.numbers + folded.count);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace prm
