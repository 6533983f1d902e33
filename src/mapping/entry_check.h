// Whether a mapping's query works entry by entry: a query that groups, sorts out duplicates or numbers rows
// across entries would give other rows for other batches.
#pragma once

#include "pg/pg.h"

namespace prm {

// Throws the error that the query of a mapping is refused with: "query of mapping "name" <what>".
[[noreturn]] void RefuseQuery(int sqlstate, const std::string &mapping, const std::string &what,
                              const std::string &hint = "", const std::string &detail = "");

// Whether a range table entry is redis_batch itself.
bool IsBatch(const RangeTblEntry *rte);

// How often an analysed query selects from redis_batch. Plain C, for use inside pg::Call.
int CountBatches(Query *query);

// Checks an analysed query whose output column `entry` says which entry a row comes from, and returns
// warnings: of volatile functions and the current time. Errors: 42803, 42P20, 42601 for aggregates, windows
// and LIMIT over redis_batch, wherever they stand and through whatever subqueries; 42P10 for an entry that is
// computed or may be NULL.
std::vector<std::string> CheckPerEntry(Query *query, AttrNumber entry, const std::string &mapping);

}  // namespace prm
