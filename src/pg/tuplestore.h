// Rows in memory or, past work_mem, in a temporary file.
#pragma once

#include "pg/guard.h"
#include "pg/pg.h"
#include "pg/scope.h"

namespace prm::pg {

class Tuplestore {
 public:
  // Has random access, for reading again; its files belong to the current resource owner.
  Tuplestore() {
    Call([&] {
      store_ = tuplestore_begin_heap(true, false, work_mem);
      tuples_ = TuplestoreContext();
      SpareTuplestoreBlock(tuples_);
    });
  }
  // Ends the tuplestore after an error, too: an aborted transaction would keep its memory until the session
  // ends. Closing its file can fail on a full disk; the resource owner then closes it. It may also log how
  // large the file was, and a log message ends in a look at interrupts.
  ~Tuplestore() {
    try {
      Call([&] {
        HOLD_INTERRUPTS();
        tuplestore_end(store_);
        RESUME_INTERRUPTS();
      });
    } catch (const PgError &) {
    }
  }
  Tuplestore(const Tuplestore &) = delete;
  Tuplestore &operator=(const Tuplestore &) = delete;

  Tuplestorestate *get() const { return store_; }
  int64 size() const { return tuplestore_tuple_count(store_); }
  void Clear() {
    Call([&] {
      tuplestore_clear(store_);
      SpareTuplestoreBlock(tuples_);
    });
  }
  void Put(TupleDesc desc, Datum *values, bool *nulls) {
    Call([&] { tuplestore_putvalues(store_, desc, values, nulls); });
  }
  void Put(TupleTableSlot *slot) {
    Call([&] { tuplestore_puttupleslot(store_, slot); });
  }

 private:
  Tuplestorestate *store_;
  MemoryContext tuples_;
};

// The planner's estimate of the rows in a batch. With 0 it would choose nested loops, with the true number of
// a large batch a hash of the whole target.
constexpr double kEstimatedBatchRows = 1000;

// Makes a tuplestore visible to SQL under a name, as transition tables are, for a scope. Needs an SPI
// connection.
class NamedRows : Scope {
 public:
  // name: a constant. estimate: for a statement that is planned for this once.
  NamedRows(const char *name, TupleDesc desc, Tuplestorestate *rows, double estimate = kEstimatedBatchRows);
  ~NamedRows();
  void Show(Tuplestorestate *rows) { relation_.reldata = rows; }

 private:
  EphemeralNamedRelationData &relation_;
};

}  // namespace prm::pg
