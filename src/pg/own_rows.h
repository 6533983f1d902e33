// Rows of the extension's own tables, without the executor, where it would cost more than all the rest.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// The next value of a sequence; nobody's rights are checked. The transaction has its id before. Errors: those
// of nextval.
int64 NextValue(Oid sequence);

// Stores a row of these values, none of which is NULL, for the first columns of a table; the others are NULL.
// The table has neither triggers nor constraints but unique indexes. Takes ROW EXCLUSIVE on the table.
// Errors: those of indexes.
void StoreRow(Oid table, std::initializer_list<Datum> values);

}  // namespace prm::pg
