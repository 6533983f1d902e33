// Rows of a mapping's query in the order of an index. Plain C, for use inside pg::Call.
#pragma once

#include "pg/pg.h"

namespace prm {

struct KeyOrder {
  int count;
  AttrNumber attributes[INDEX_MAX_KEYS];  // of the rows
  Oid operators[INDEX_MAX_KEYS];
  Oid collations[INDEX_MAX_KEYS];
  bool nulls_first[INDEX_MAX_KEYS];
  SortSupportData support[INDEX_MAX_KEYS];
};

// The order of a B-tree on plain columns. source: for each column of the table, the attribute of the rows
// that fills it.
void FindKeyOrder(Relation index, const AttrNumber *source, KeyOrder *order);

struct OrderedRows {
  Tuplestorestate *rows;
  MinimalTuple *sorted;  // nullptr: they are taken as they come
  int64 count;           // of them
  int64 next;
  TupleTableSlot *row;  // the current one
};

// Sorts rows that are not in order yet, unless they take more than work_mem. No order: as they come. Memory
// is taken from the current context. Until EndOrderedRows the store must not change.
void BeginOrderedRows(Tuplestorestate *rows, TupleDesc desc, KeyOrder *order, OrderedRows *ordered);
bool NextOrderedRow(OrderedRows *ordered);
void EndOrderedRows(OrderedRows *ordered);

}  // namespace prm
