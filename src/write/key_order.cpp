#include "write/key_order.h"

namespace prm {

namespace {

void *Allocate(Size size) { return MemoryContextAllocHuge(CurrentMemoryContext, size); }

// A row and the values of its key columns.
struct Row {
  MinimalTuple tuple;
  Datum *values;
  bool *nulls;
};

// Consecutive rows of one entry.
struct Group {
  Row *rows;
  int64 count;
};

int CompareRows(const void *a, const void *b, void *key_order) {
  auto *order = static_cast<KeyOrder *>(key_order);
  const Row *first = static_cast<const Row *>(a);
  const Row *second = static_cast<const Row *>(b);
  for (int i = 0; i < order->count; ++i) {
    int const result = ApplySortComparator(first->values[i], first->nulls[i], second->values[i],
                                           second->nulls[i], &order->support[i]);
    if (result != 0) return result;
  }
  return 0;
}

int CompareGroups(const void *a, const void *b, void *order) {
  return CompareRows(static_cast<const Group *>(a)->rows, static_cast<const Group *>(b)->rows, order);
}

bool IsSorted(const Row *rows, int64 count, KeyOrder *order) {
  for (int64 i = 1; i < count; ++i)
    if (CompareRows(rows + i - 1, rows + i, order) > 0) return false;
  return true;
}

void SortRows(Row *rows, int64 count, KeyOrder *order) {
  if (!IsSorted(rows, count, order))
    qsort_arg(rows, static_cast<size_t>(count), sizeof(Row), CompareRows, order);
}

// Reads the rows of a store, and divides them into those of each entry. False: they take more than work_mem.
bool ReadRows(Tuplestorestate *store, TupleTableSlot *slot, const KeyOrder *order, Row *rows, Group *groups,
              int64 *group_count) {
  auto const width = static_cast<size_t>(order->count);
  auto const count = static_cast<size_t>(tuplestore_tuple_count(store));
  auto *values = static_cast<Datum *>(Allocate(sizeof(Datum) * width * count));
  auto *nulls = static_cast<bool *>(Allocate(width * count));
  bool const in_memory = tuplestore_in_memory(store);
  Size bytes = 0;
  int32 entry = 0;
  *group_count = 0;
  tuplestore_rescan(store);
  for (Row *row = rows; tuplestore_gettupleslot(store, true, false, slot); ++row) {
    bool is_own;
    *row = {ExecFetchSlotMinimalTuple(slot, &is_own), values, nulls};
    if (!in_memory) {
      bytes += row->tuple->t_len;
      if (bytes > static_cast<Size>(work_mem) * 1024) return false;
      row->tuple = ExecCopySlotMinimalTuple(slot);
      ExecStoreMinimalTuple(row->tuple, slot, false);
    }
    bool null;
    int32 const of_entry = DatumGetInt32(slot_getattr(slot, 2, &null));
    for (size_t i = 0; i < width; ++i) values[i] = slot_getattr(slot, order->attributes[i], &nulls[i]);
    values += width;
    nulls += width;
    if (row == rows || of_entry != entry) groups[(*group_count)++] = {row, 0};
    ++groups[*group_count - 1].count;
    entry = of_entry;
  }
  return true;
}

// Keys come in the order of their names, so that rows mostly are in order, or those of each key are apart
// from those of others: sorting keys by their first rows then costs less than sorting all rows.
MinimalTuple *Sort(Tuplestorestate *store, TupleTableSlot *slot, KeyOrder *order) {
  int64 const count = tuplestore_tuple_count(store);
  auto const size = static_cast<Size>(count);
  auto *rows = static_cast<Row *>(Allocate(sizeof(Row) * size));
  auto *groups = static_cast<Group *>(Allocate(sizeof(Group) * size));
  int64 group_count;
  if (!ReadRows(store, slot, order, rows, groups, &group_count) || IsSorted(rows, count, order))
    return nullptr;
  for (int64 i = 0; i < group_count; ++i) SortRows(groups[i].rows, groups[i].count, order);
  qsort_arg(groups, static_cast<size_t>(group_count), sizeof(Group), CompareGroups, order);
  auto *sorted = static_cast<MinimalTuple *>(Allocate(sizeof(MinimalTuple) * size));
  MinimalTuple *next = sorted;
  const Row *last = nullptr;
  bool is_whole = true;
  for (int64 i = 0; i < group_count; ++i) {
    is_whole = is_whole && (last == nullptr || CompareRows(last, groups[i].rows, order) <= 0);
    last = groups[i].rows + groups[i].count - 1;
    for (const Row *row = groups[i].rows; row <= last; ++row) *next++ = row->tuple;
  }
  if (is_whole) return sorted;
  qsort_arg(rows, size, sizeof(Row), CompareRows, order);
  for (int64 i = 0; i < count; ++i) sorted[i] = rows[i].tuple;
  return sorted;
}

}  // namespace

void FindKeyOrder(Relation index, const AttrNumber *source, KeyOrder *order) {
  order->count = index->rd_index->indnkeyatts;
  for (int i = 0; i < order->count; ++i) {
    bool const descends = (index->rd_indoption[i] & INDOPTION_DESC) != 0;
    Oid const type = index->rd_opcintype[i];
    order->attributes[i] = source[index->rd_index->indkey.values[i] - 1];
    order->operators[i] = get_opfamily_member(index->rd_opfamily[i], type, type,
                                              descends ? BTGreaterStrategyNumber : BTLessStrategyNumber);
    order->collations[i] = index->rd_indcollation[i];
    order->nulls_first[i] = (index->rd_indoption[i] & INDOPTION_NULLS_FIRST) != 0;
    SortSupport support = &order->support[i];
    *support = {};
    support->ssup_cxt = CurrentMemoryContext;
    support->ssup_collation = order->collations[i];
    support->ssup_nulls_first = order->nulls_first[i];
    support->ssup_attno = order->attributes[i];
    PrepareSortSupportFromOrderingOp(order->operators[i], support);
  }
}

void BeginOrderedRows(Tuplestorestate *rows, TupleDesc desc, KeyOrder *order, OrderedRows *ordered) {
  *ordered = {rows, nullptr, tuplestore_tuple_count(rows), 0,
              MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple)};
  if (order != nullptr) ordered->sorted = Sort(rows, ordered->row, order);
  ExecClearTuple(ordered->row);  // it may be large
  tuplestore_rescan(rows);
}

bool NextOrderedRow(OrderedRows *ordered) {
  if (ordered->sorted == nullptr) return tuplestore_gettupleslot(ordered->rows, true, false, ordered->row);
  if (ordered->next == ordered->count) return false;
  ExecStoreMinimalTuple(ordered->sorted[ordered->next++], ordered->row, false);
  return true;
}

void EndOrderedRows(OrderedRows *ordered) { ExecDropSingleTupleTableSlot(ordered->row); }

}  // namespace prm
