// Tables and views as they stand in the catalogs now.
#pragma once

#include "pg/pg.h"
#include "pg/spi.h"

namespace prm::expiry {

// The relation of a name, by the search_path of the session; InvalidOid when there is none. With a lock it
// keeps its name and its owner until the end of the transaction. Errors: 42602 for what is not a name, 42501
// without USAGE on the schema.
Oid FindRelation(const std::string &name, LOCKMODE lock = NoLock);

// "public.session", quoted as needed, whatever the search_path; "" for a relation that is gone.
std::string QualifiedName(Oid relation);

// The tables that hold the rows of a table: itself, or its partitions or children at any depth, by name.
// Foreign tables among them are left out and counted.
struct Leaves {
  std::vector<std::pair<std::string, Oid>> tables;
  int foreign = 0;
};
Leaves FindLeaves(Oid relation);

// Whether a valid btree index leads with the column and holds every row with a value in it.
bool HasIndexOn(Oid relation, int attnum);

// How many pages a table has now. Takes ACCESS SHARE.
BlockNumber Pages(Oid table);
// The share of a table of so many pages that a sample reads: 64 of them, or all.
double SampleShare(double pages);
// As the argument of TABLESAMPLE.
pg::SqlParam SamplePercent(double share);

// Whether row security may hide rows of a table from the current user.
bool HidesRows(Oid table);

}  // namespace prm::expiry
