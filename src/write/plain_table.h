// Tables whose rows can be stored without a statement. Plain C, for use inside pg::Call.
#pragma once

#include "pg/pg.h"

namespace prm {

// Whether storing a row takes no more than the heap, its indexes, and constraints that look at nothing else.
bool IsPlainTable(Relation relation);
// Whether a table's open indexes are plain, too.
bool HasPlainIndexes(ResultRelInfo *table);

// Whether the current user may use columns so, and nobody wants to see that being done.
bool MayUseColumns(Oid relation, const AttrNumber *columns, int count, AclMode mode);

}  // namespace prm
