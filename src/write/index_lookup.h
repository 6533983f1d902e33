// Looks rows up in the index of the target's key columns without a statement, as an index scan does.
#pragma once

#include "mapping/target.h"
#include "pg/tuplestore.h"

namespace prm {

// How a row of the target is compared with the one to be stored.
enum class Comparison {
  kNone,    // not at all: the row stays as it is
  kNulls,   // it differs where it has NULL and the other has not
  kImages,  // it differs where the images of two values do, as record_image_eq takes them
};

// The state of a row in the target.
enum class Stored : char { kNothing, kSame, kOther };

struct LookedUpRow {
  int32 number;  // redis_row
  Stored stored;
  ItemPointerData place;  // in the heap, where it is stored
};

// Looks up all of `rows`, which have the descriptor `desc` of MappingQuery and fill `columns`. Columns other
// than key_columns and GENERATED ALWAYS AS IDENTITY are compared. Returns the rows in any order, or nothing
// where a SELECT by the current user would read more than one heap, or that of its partition, and its index,
// or be refused: children, row security, a table access method that is not heap, a missing privilege, a hook
// that wants to see the privileges used; partitions whose columns have other numbers, or more of them than a
// few hundred. Takes a fresh snapshot, as a statement does. Locks: ACCESS SHARE on the target, its partitions
// that hold rows and the indexes until the transaction ends. Errors: those of the comparison functions of the
// key's types.
std::optional<std::vector<LookedUpRow>> LookUpInIndex(const Target &target,
                                                      const std::vector<const TargetColumn *> &columns,
                                                      Comparison comparison, TupleDesc desc,
                                                      pg::Tuplestore &rows);

}  // namespace prm
