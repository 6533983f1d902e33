// Which columns of a target tell when a row's key, or its element, expires.
#pragma once

#include "mapping/mapping_query.h"

namespace prm {

// Those that are unchanged copies of expires_at or field_expires_at of redis_batch, by their names.
inline std::vector<std::string> ExpiryColumns(const QueryFacts &facts) {
  std::vector<std::string> columns;
  for (const char *source : {"expires_at", "field_expires_at"})
    if (auto copy = facts.copied.find(source); copy != facts.copied.end()) columns.push_back(copy->second);
  return columns;
}

}  // namespace prm
