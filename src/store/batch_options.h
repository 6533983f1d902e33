// How a batch is stored.
#pragma once

#include <set>

#include "core/hash_filter.h"
#include "pg/transaction.h"
#include "source/source.h"

namespace prm {

using pg::kMostSubtransactions;

// A line of preview: a row that would be stored for a key.
struct PreviewRow {
  const source::Entry *entry;
  std::string mapping;
  std::string row;  // JSON
};

struct BatchComparison;

// A change of a key whose family belongs to PostgreSQL.
struct LateWrite {
  const source::Entry *entry;
  std::string pattern;
  bool is_gone;              // the key is
  bool only_expiry = false;  // nothing but when it expires has changed
  bool may_be_own = false;   // it may be what the reverse feed has written or deleted
  bool is_older = false;     // it may be older than what a late write of the key shows already
};

struct BatchOptions {
  BatchComparison *comparison = nullptr;   // compare the rows with those of the target, and store nothing
  bool takes_owned = false;                // also rows of families that belong to PostgreSQL
  std::vector<LateWrite> *late = nullptr;  // collect changes of such families otherwise
  bool defer = false;             // keep what a foreign key or a lower key refuses for the end of the level
  bool defer_conflicts = false;   // also what a unique or an exclusion constraint refuses
  bool beside_others = false;     // other processes store rows of the same mappings
  std::optional<int64> run;       // that stores it
  bool follows = false;           // it is of a stream of changes: rows may be deleted and inserted again
  std::optional<int64> seen_run;  // prune: note the rows met, for this run
  const std::set<std::string> *claiming = nullptr;  // mappings whose packed ledger takes unchanged rows
  HashFilter *recorded = nullptr;                   // see Ledger::set_recorded
  int *subtransactions = nullptr;  // how many more the transaction may keep; none: as many as it takes
  std::vector<PreviewRow> *preview = nullptr;  // collect the rows that would be stored
  bool preview_bytes = false;                  // with their columns of type bytea
};

}  // namespace prm
