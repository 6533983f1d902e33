// Tables whose rows can be stored without a statement. Plain C, for use inside pg::Call.
#pragma once

#include "pg/pg.h"

namespace prm {

// Whether storing a row takes no more than the heap, its indexes, and constraints that look at nothing else.
bool IsPlainTable(Relation relation);
// The same of its open indexes.
bool HasPlainIndexes(ResultRelInfo *table);

// Whether the current user may use columns so, and nobody wants to see that being done.
bool MayUseColumns(Oid relation, const AttrNumber *columns, int count, AclMode mode);

}  // namespace prm
