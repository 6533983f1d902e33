// Rows of one key that have the same identity.
#pragma once

#include "mapping/target.h"
#include "pg/tuplestore.h"

namespace prm {

// Finds rows of one key that are the same for the index of the target's key columns: the redis_row of all but
// the first, in ascending order. Rows of different keys are not compared. `rows` have the
// descriptor `desc` of MappingQuery and fill `columns`. Returns nothing where that cannot be told: the target
// has no such index, a query has mixed the rows of its keys, or a key has more rows than are worked on at
// once. Locks: ACCESS SHARE on the index until the transaction ends. Errors: those of the comparison
// functions of the key's types.
std::optional<std::vector<int>> FindFoldedOfKeys(const Target &target,
                                                 const std::vector<const TargetColumn *> &columns,
                                                 TupleDesc desc, pg::Tuplestore &rows);

}  // namespace prm
