// Suggestions of an audit for a family: its priority, a table, and the call of add_mapping.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "discover/family.h"

namespace prm {

struct Suggestion {
  std::string priority;  // critical, high, medium, low: by the words of the pattern
  // Statements that can be run as they stand; none for types that no mapping takes and for the pattern *.
  std::optional<std::string> create_table;
  std::optional<std::string> add_mapping;
};

// migration: the migration of the suggested mapping. database: that of the family, if the audit met several.
// tables: names already taken; the suggested one is added.
Suggestion Suggest(const Family &family, const std::string &migration, const std::optional<int> &database,
                   std::set<std::string> &tables);

}  // namespace prm
