// Visits the rows of a tuplestore.
#pragma once

#include "pg/guard.h"
#include "pg/meanwhile.h"
#include "pg/tuplestore.h"

namespace prm::pg {

// Hands a slot with each row, from the first on, to `visit`; all its values are there. Looks for interrupts.
// desc: of the rows. Errors: those of reading a temporary file, and what `visit` throws.
template <typename Visit>
void ForEachRow(TupleDesc desc, Tuplestore &rows, Visit visit) {
  TupleTableSlot *slot = Call([&] {
    tuplestore_rescan(rows.get());
    return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
  });
  while (Call([&] { return tuplestore_gettupleslot(rows.get(), true, false, slot); })) {
    CheckInterrupts();
    Proceed();
    Call([&] { slot_getallattrs(slot); });
    visit(slot);
  }
  Call([&] { ExecDropSingleTupleTableSlot(slot); });
}

}  // namespace prm::pg
