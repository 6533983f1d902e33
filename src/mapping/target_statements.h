// The SQL that stores the rows of a mapping in its target, and removes them.
#pragma once

#include "mapping/catalog.h"
#include "mapping/target.h"

namespace prm {

// The relation of rows that the statements read: columns as MappingQuery::row_desc() has them.
constexpr char kRowsName[] = "redis_rows";

// Whether on_conflict is no SET list.
bool IsConflictKeyword(const std::string &on_conflict);

// The rows that fail a check.
std::string CheckStatement(const std::string &condition);

struct TargetStatements {
  // columns: those that the mapping's query fills. Errors: 42601, 42703 for a SET list of on_conflict.
  TargetStatements(const Mapping &mapping, const Target &target,
                   const std::vector<const TargetColumn *> &columns);

  std::string look_up;  // (row, whether the target has it, whether it would not change) for each row
  std::string insert;
  std::string update;       // empty: on_conflict changes nothing
  std::string is_of_batch;  // whether `target` is the row that `excluded` identifies

  // A column that may change in a row that is there: expressions over `excluded`, the row that is offered,
  // and `target`, the one that is stored.
  struct Column {
    const TargetColumn *column;
    std::string stored;
    std::string offered;
    std::string same;  // whether it stays as it is
  };
  std::vector<Column> compared;
  // As look_up, with another list of what is selected for each row: over `excluded`, and `target`, whose
  // redis_found is NULL if there is no such row.
  std::string LookUpOf(const std::string &list) const { return before_list_ + list + behind_list_; }

  // Has PostgreSQL analyse what comes from a SET list of on_conflict, over rows of this descriptor. Errors:
  // those of its expressions.
  void Check(TupleDesc desc) const;

 private:
  std::string before_list_, behind_list_;
};

// Whether a condition on the first key column is one that the servers of a target can work on.
bool CanAskForFirstKey(const Target &target);

// A condition on the rows of a target that a foreign server can work on: the first key column is one of those
// of redis_rows. "true" where none can.
std::string KeysOfBatch(const Target &target, const std::string &alias);

// "DELETE FROM target AS target" or, with a SET list of on_delete, "UPDATE target AS target SET …".
std::string DeleteStatement(const std::string &target, const std::string &on_delete);

// Checks a SET list of on_delete against the target. Errors: those of its expressions.
void CheckDeleteStatement(const std::string &target, const std::string &on_delete);

}  // namespace prm
