// All that storing rows of a mapping needs.
#pragma once

#include "mapping/mapping_query.h"
#include "store/ledger.h"
#include "store/packed_rows.h"
#include "store/writer.h"

namespace prm {

// The state of a mapping, kept from batch to batch.
struct MappingState {
  const Mapping *mapping;
  BatchShape shape;
  bool expects_new_rows = false;
  bool target_seen = false;
  bool checked_json = false;
  bool stored = false;  // a row
  bool inserts_in_bulk = true;

  MappingState(const Mapping *m, const KeyPattern &pattern)
      : mapping(m), shape(pattern, ExpandFromName(m->expand)) {}
};

// A mapping, prepared for one transaction.
struct PreparedMapping {
  MappingState &state;
  const Mapping &mapping;
  Target target;
  MappingQuery query;
  Writer writer;
  std::optional<Ledger> ledger;      // of a full one
  std::optional<PackedRows> packed;  // of a packed one

  explicit PreparedMapping(MappingState &s);
};

}  // namespace prm
