// The rows of a query in parts, each of no more than are worked on at once.
#pragma once

#include "mapping/mapping_query.h"

namespace prm {

struct RowPart {
  pg::Tuplestore *rows;
  int first;                 // redis_row of the first that it may have
  std::vector<int> entries;  // indexed by redis_row, from `first` on
  std::vector<int> numbers;  // redis_row of those that it has, in ascending order

  int EntryOf(int row) const { return entries[static_cast<size_t>(row - first)]; }
};

// Visits parts that have rows. `rows` has the descriptor `desc` of MappingQuery; some of what the query
// returned may be missing. Nobody else may read it meanwhile.
void ForEachPart(TupleDesc desc, QueryRows &rows, const std::function<void(RowPart &)> &visit);

}  // namespace prm
