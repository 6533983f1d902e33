// Where a partitioned table stores a row. Plain C, for use inside pg::Call.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Whether rows that are equal in a unique index of a partitioned table are stored in the same partition. Both
// are open and locked. PostgreSQL sees to that when it creates the index; versions before 2024 do not for
// collations.
bool IsDividedAs(Relation table, Relation index);

// The partition of the open and locked table in which a row would be stored; InvalidOid: in none. source: for
// each column of the table, the attribute of the row that fills it. The columns that divide the table are
// filled, and not computed. Errors: those of their comparison and hash functions.
Oid FindPartition(Relation table, TupleTableSlot *row, const AttrNumber *source);

// The index of a partition that is part of an index of its table; InvalidOid: it has none. Locks: ACCESS
// SHARE on the partition.
Oid FindIndexOfPartition(Oid partition, Oid index);

}  // namespace prm::pg
