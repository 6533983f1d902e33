// Deletes or changes rows whose keys or elements are gone. If a mapping has an on_expire, it decides about
// rows whose expiry had passed, and on_delete about the others. If the order of the two is unknown, the
// milder applies: keep, then a SET list, then delete.
#pragma once

#include "mapping/catalog.h"
#include "pg/spi.h"
#include "write/journal.h"
#include "write/row_counts.h"

namespace prm {

// Describes such rows, in SQL.
struct DepartedRows {
  std::string relations;  // beside the target, which is called target; empty: none
  std::string condition;  // that a row of the target is gone
  std::string after_ms;   // when it went: expressions of type bigint, as source::TimeSpan
  std::string until_ms;
  std::string is_changed;  // whether somebody else has changed the row; empty: that is not known
};

// Returns the statement that deletes, changes or counts the rows. expires: the columns of the target that
// hold when rows expire, at least one. The statement returns a row of counts for CountDeparted.
std::string DepartureStatement(const Mapping &mapping, const std::string &target,
                               const std::vector<std::string> &expires, const DepartedRows &rows);

// Adds the result of such a statement.
void CountDeparted(const pg::Row &row, RowCounts &counts);

// Deletes or changes the rows of the target that fulfil a condition, as rows whose keys are gone now.
// expires: as above; empty if the mapping has no on_expire.
void DeleteWhere(const Mapping &mapping, const std::string &target, const std::vector<std::string> &expires,
                 const std::string &condition, Journal &journal, RowCounts &counts);

}  // namespace prm
