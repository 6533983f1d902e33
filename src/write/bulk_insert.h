// Inserts rows many at a time, as COPY does: one visit and one WAL record for all rows of a page.
#pragma once

#include "mapping/target.h"
#include "pg/tuplestore.h"

namespace prm {

// Inserts all of `rows`, which have the descriptor `desc` of MappingQuery and fill `columns`, in the order of
// the index of the target's key columns. Returns false, and has inserted nothing, where an INSERT by the
// current user would do more than store the rows, or be refused: triggers (foreign keys and deferrable
// constraints are some), rules, row security, partitions, children, generated and identity columns, defaults,
// indexes and checks that run functions which might look at the table, a table access method that is not
// heap, a missing privilege, a hook that wants to see the privileges used.
// Needs an active snapshot. Locks: ROW EXCLUSIVE on the target until the transaction ends. Errors: those of
// constraints and unique indexes; the caller's subtransaction is then to be rolled back.
bool BulkInsert(const Target &target, const std::vector<const TargetColumn *> &columns, TupleDesc desc,
                pg::Tuplestore &rows);

}  // namespace prm
