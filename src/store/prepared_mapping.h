// All that storing rows of a mapping needs.
#pragma once

#include "ledger/ledger.h"
#include "mapping/mapping_query.h"
#include "store/comparison.h"
#include "store/packed_rows.h"
#include "write/writer.h"

namespace prm {

struct PreparedMapping;

// The state of a mapping, kept from batch to batch.
struct MappingState {
  const Mapping *mapping;
  BatchShape shape;
  bool expects_new_rows = false;
  bool target_seen = false;
  bool stored = false;  // a row
  bool inserts_in_bulk = true;

  std::unique_ptr<PreparedMapping> prepared;

  MappingState(const Mapping *m, const KeyPattern &pattern);
  ~MappingState();

  // Returns the mapping as prepared before, or prepares it anew if that no longer holds. Locks its target and
  // what its query reads for the transaction. Call it first in each transaction, under the mapping's
  // settings; the caller has Forget called when the transaction, or the subtransaction around it, is rolled
  // back. Needs SPI. Errors: those of LoadTarget, MappingQuery, Writer and PackedRows.
  PreparedMapping &Prepare();
  void Forget();
};

// A mapping with all that was made for it from the catalogs: it outlives a transaction, and what it locks
// does not.
struct PreparedMapping {
  MappingState &state;
  const Mapping &mapping;
  pg::CatalogWatch watch;
  Target target;
  MappingQuery query;
  Writer writer;
  Journal journal;
  pg::KeptStatement failed_checks;   // of redis_rows: their numbers and entries, and whether each check fails
  pg::KeptStatement folded;          // of redis_rows: the numbers of those whose identity a lower row has
  std::optional<Ledger> ledger;      // of a full one
  std::optional<PackedRows> packed;  // of a packed one
  std::optional<RowComparer> comparer;  // when rows have been compared
  bool notes_inserts;                   // not the journal, but InsertedRows has rows that are inserted
  std::optional<RowImages> images;      // for that

  explicit PreparedMapping(MappingState &s);

  // Whether changes of single elements of a value of that type can be stored without the others.
  bool TakesElements(rdb::ValueType type) const;

  // Locks what the mapping uses, and says whether it still is as it was.
  bool IsCurrent() const;
};

}  // namespace prm
