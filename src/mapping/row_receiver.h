// Takes the rows of a mapping's query as they come.
#pragma once

#include "pg/guard.h"
#include "pg/tuplestore.h"

namespace prm {

// The rows that a query returned: (redis_row, redis_entry, the target's columns in the query's order),
// coerced to the target's types as INSERT would, without constraints checked.
struct QueryRows {
  // As many as are worked on at once: of a huge collection there are more, and what is kept of each must not
  // grow with it.
  static constexpr int kAtOnce = 20000;
  static constexpr int kFirstColumn = 3;  // attribute of the first column of the target

  pg::Tuplestore rows;
  std::vector<int> entry_of_row;  // indexed by redis_row; empty if there are more rows than kAtOnce
  std::vector<bool> yielded;      // indexed by entry: whether it has rows
};

// Numbers rows of (redis_entry, the columns) and stores them with their numbers.
class RowReceiver {
 public:
  // desc: of the rows with their numbers. entries: of the batch. Memory is taken from the current context.
  RowReceiver(TupleDesc desc, size_t entries, QueryRows &result);
  RowReceiver(const RowReceiver &) = delete;
  RowReceiver &operator=(const RowReceiver &) = delete;

  // For the executor.
  DestReceiver *destination() { return &state_.base; }
  // Takes a row. Plain C, for use inside pg::Call. Errors: 54000, 53200.
  static bool Receive(TupleTableSlot *slot, DestReceiver *self);

  // Call it after the last row.
  void Finish();

 private:
  struct State {
    DestReceiver base;
    Tuplestorestate *store;
    TupleDesc desc;
    Datum *values;
    bool *nulls;
    int *entries;   // of the first kAtOnce rows
    bool *yielded;  // indexed by entry
    int count;
  } state_ = {};
  size_t entries_;
  QueryRows &result_;
};

}  // namespace prm
