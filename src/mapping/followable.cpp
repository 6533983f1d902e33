#include "mapping/followable.h"

#include "mapping/ledger_choice.h"

namespace prm {

using pg::Failure;

namespace {

std::string AlterMapping(const Mapping &mapping, const std::string &change) {
  return "SELECT redis_migrate.alter_mapping(" + pg::QuoteLiteral(mapping.migration) + ", " +
         pg::QuoteLiteral(mapping.name) + change + ")";
}

// A key changes a few elements at a time: all its rows must not be looked for in the whole table.
void RequireIndex(const Mapping &mapping) {
  std::optional<std::string> const columns = ColumnsOfMissingIndex(mapping);
  if (!mapping.expand || !columns || mapping.KeepsGone()) return;
  throw Failure(
      ERRCODE_FEATURE_NOT_SUPPORTED,
      "mapping \"" + mapping.name + "\" cannot be followed: no index of " + mapping.target + " begins with " +
          *columns,
      "By it the rows are found that a change of a key leaves behind.",
      "CREATE INDEX ON " + mapping.target + " " + *columns + ", and then " + AlterMapping(mapping, "") + ".");
}

void RequireLedger(const Mapping &mapping) {
  if (mapping.ledger != "none" || mapping.KeepsGone()) return;
  throw Failure(ERRCODE_FEATURE_NOT_SUPPORTED,
                "mapping \"" + mapping.name + "\" cannot be followed: nothing tells which rows a key has",
                "Its ledger is none: " + mapping.ledger_reason + ".",
                AlterMapping(mapping, ", exclusive => false") + ".");
}

}  // namespace

void RequireFollowable(const Migration &migration) {
  for (const Mapping &mapping : migration.mappings) {
    RequireIndex(mapping);
    RequireLedger(mapping);
  }
}

}  // namespace prm
