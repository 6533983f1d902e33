#include "write/key_order.h"

namespace prm {

namespace {

int CompareRows(TupleTableSlot *a, TupleTableSlot *b, KeyOrder *order) {
  for (int i = 0; i < order->count; ++i) {
    bool a_null, b_null;
    Datum const a_value = slot_getattr(a, order->attributes[i], &a_null);
    Datum const b_value = slot_getattr(b, order->attributes[i], &b_null);
    int const result = ApplySortComparator(a_value, a_null, b_value, b_null, &order->support[i]);
    if (result != 0) return result;
  }
  return 0;
}

// Keys come in the order of their names, so that rows mostly are in order. More than work_mem is left as it
// is.
bool NeedsSort(Tuplestorestate *rows, TupleDesc desc, KeyOrder *order) {
  TupleTableSlot *slots[2] = {MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple),
                              MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple)};
  Size bytes = 0;
  bool unsorted = false;
  tuplestore_rescan(rows);
  for (int i = 0; tuplestore_gettupleslot(rows, true, false, slots[i % 2]); ++i) {
    bool shared;
    bytes += ExecFetchSlotMinimalTuple(slots[i % 2], &shared)->t_len;
    unsorted = unsorted || (i > 0 && CompareRows(slots[(i - 1) % 2], slots[i % 2], order) > 0);
  }
  ExecDropSingleTupleTableSlot(slots[0]);
  ExecDropSingleTupleTableSlot(slots[1]);
  return unsorted && bytes <= static_cast<Size>(work_mem) * 1024;
}

Tuplesortstate *Sort(Tuplestorestate *rows, TupleDesc desc, KeyOrder *order) {
  Tuplesortstate *sort =
      tuplesort_begin_heap(desc, order->count, order->attributes, order->operators, order->collations,
                           order->nulls_first, work_mem, nullptr, TUPLESORT_NONE);
  TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
  tuplestore_rescan(rows);
  while (tuplestore_gettupleslot(rows, true, false, slot)) tuplesort_puttupleslot(sort, slot);
  ExecDropSingleTupleTableSlot(slot);
  tuplesort_performsort(sort);
  return sort;
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
  ordered->rows = rows;
  ordered->sort = order != nullptr && NeedsSort(rows, desc, order) ? Sort(rows, desc, order) : nullptr;
  ordered->row = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
  tuplestore_rescan(rows);
}

bool NextOrderedRow(OrderedRows *ordered) {
  return ordered->sort != nullptr ? tuplesort_gettupleslot(ordered->sort, true, false, ordered->row, nullptr)
                                  : tuplestore_gettupleslot(ordered->rows, true, false, ordered->row);
}

void EndOrderedRows(OrderedRows *ordered) {
  ExecDropSingleTupleTableSlot(ordered->row);
  if (ordered->sort != nullptr) tuplesort_end(ordered->sort);
}

}  // namespace prm
