// The session settings that decide what a mapping's query returns.
#pragma once

#include "mapping/catalog.h"
#include "pg/identity.h"

namespace prm {

// For a scope: as they were when the mapping was defined.
class MappingSettings : public pg::LocalSettings {
 public:
  explicit MappingSettings(const Mapping &mapping) {
    Set("search_path", mapping.search_path);
    Set("timezone", mapping.timezone);
    Set("datestyle", mapping.datestyle);
    Set("intervalstyle", mapping.intervalstyle);
    Set("standard_conforming_strings", "on");
    Set("quote_all_identifiers", "off");  // names become part of what is stored
  }
};

}  // namespace prm
