// A query that makes each of its rows from one row of redis_batch and reads nothing else. Its expressions are
// evaluated as the executor evaluates them, row by row as redis_batch is filled, so that redis_batch need not
// be stored.
#pragma once

#include "pg/guard.h"

namespace prm {

class RowProjection {
 public:
  // Whether the plan is that of such a query.
  static bool Fits(const PlannedStmt *plan);

  // batch: the descriptor of redis_batch. The plan must outlive it; memory is taken from the current context.
  // Needs a snapshot as long as it is used. Errors: 42501 the current user may not execute a function of the
  // query.
  RowProjection(const PlannedStmt *plan, TupleDesc batch, DestReceiver *receiver);
  RowProjection(const RowProjection &) = delete;
  RowProjection &operator=(const RowProjection &) = delete;

  // The row of redis_batch: its columns are to be filled before each Project.
  TupleTableSlot *row() const { return row_; }

  // Hands the row that the query makes of it to the receiver, unless the query leaves it out. Plain C, for
  // use inside pg::Call. Errors: those of the query's expressions and of the receiver.
  void Project();

  // Call it after the last row. After an error the memory context has to go.
  void Finish();

 private:
  DestReceiver *receiver_;
  EState *state_;
  ExprContext *context_;
  TupleTableSlot *row_;
  ExprState *condition_;
  ProjectionInfo *projection_;
};

}  // namespace prm
