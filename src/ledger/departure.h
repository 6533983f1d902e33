// What becomes of rows whose keys or elements are gone, where a mapping has an on_expire: that says it for
// rows whose expiry had passed, on_delete for the others. Where it is not known which of the two came first,
// the milder applies: keep, then a SET list, then delete.
#pragma once

#include "mapping/catalog.h"
#include "pg/spi.h"
#include "write/row_counts.h"

namespace prm {

// In SQL.
struct DepartedRows {
  std::string relations;  // beside the target, which is called target; empty: none
  std::string condition;  // that a row of the target is gone
  std::string after_ms;   // when it went: expressions of type bigint, as source::TimeSpan
  std::string until_ms;
  std::string is_changed;  // whether somebody else has changed the row; empty: that is not known
};

// The statement that deletes them, or changes them, or counts them. expires: the columns of the target that
// say when rows expire; there must be one. Its result is a row of counts for CountDeparted.
std::string DepartureStatement(const Mapping &mapping, const std::string &target,
                               const std::vector<std::string> &expires, const DepartedRows &rows);

// Adds the result of such a statement.
void CountDeparted(const pg::Row &row, RowCounts &counts);

// Deletes the rows of the target for which a condition holds, or changes them, as of keys that are gone now.
// expires: as above; empty where the mapping has no on_expire.
void DeleteWhere(const Mapping &mapping, const std::string &target, const std::vector<std::string> &expires,
                 const std::string &condition, RowCounts &counts);

}  // namespace prm
