// Changes rows of a plain table where they are, without a statement.
#pragma once

#include "mapping/target.h"
#include "pg/tuplestore.h"
#include "write/index_lookup.h"

namespace prm {

enum class BulkUpdated {
  kAll,
  kNone,  // an UPDATE does more there than BulkUpdate, or the current user may not do it
  kSome,  // somebody else has changed a row meanwhile: all is to be rolled back
};

// Where the rows before and after the update are kept: of each these columns, redis_found, and the same
// columns afterwards.
struct KeptChanges {
  const std::vector<const TargetColumn *> &columns;
  TupleDesc desc;
  pg::Tuplestore &rows;
};

// Updates the columns of the target that are not key_columns or GENERATED ALWAYS AS IDENTITY. rows: with the
// descriptor `desc` of MappingQuery, which fill `columns`, in ascending order of their numbers. places: those
// of the rows and perhaps of others, in the same order. Where BulkInsert does not insert, it does nothing.
// Takes a fresh snapshot. Locks: ROW EXCLUSIVE on the target and its indexes; waits for others who change the
// rows. Errors: those of an UPDATE.
BulkUpdated BulkUpdate(const Target &target, const std::vector<const TargetColumn *> &columns, TupleDesc desc,
                       pg::Tuplestore &rows, const std::vector<LookedUpRow> &places,
                       const KeptChanges *kept = nullptr);

}  // namespace prm
