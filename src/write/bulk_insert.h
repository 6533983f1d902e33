// Inserts rows many at a time, as COPY does: one visit and one WAL record for all rows of a page.
#pragma once

#include "mapping/target.h"
#include "pg/tuplestore.h"

namespace prm {

// Inserts all of `rows` into `relation`. They have two columns of their own, as the descriptor of
// MappingQuery says, and after these `columns` of the relation. order: they are inserted in the order of this
// index; none: as they come. Returns false, and has inserted nothing, where an INSERT by the current user
// would do more than store the rows, or be refused: triggers (foreign keys and deferrable constraints are
// some), rules, row security, partitions, children, generated and identity columns, defaults, indexes and
// checks that run functions which might look at the table, a table access method that is not heap, a missing
// privilege, a hook that wants to see the privileges used. Locks: ROW EXCLUSIVE on the relation until the
// transaction ends. Errors: those of constraints and unique indexes; the caller's subtransaction is then to
// be rolled back.
bool BulkInsert(Oid relation, Oid order, const std::vector<AttrNumber> &columns, TupleDesc desc,
                pg::Tuplestore &rows);

// Inserts into a target in the same way, in the order of the index of its key columns.
bool BulkInsert(const Target &target, const std::vector<const TargetColumn *> &columns, TupleDesc desc,
                pg::Tuplestore &rows);

}  // namespace prm
