// Removes rows whose keys are gone from Redis.
#pragma once

#include "mapping/catalog.h"

namespace prm {

struct PruneResult {
  std::string mapping;
  int64 deleted = 0;
  std::string skipped;  // why nothing was removed, if so
};

// After a whole pass that noted the rows it met (seen_row): deletes, or changes as on_delete says, those rows
// of the mapping that it did not meet. With a ledger these are the rows that the ledger knows; an exclusive
// mapping owns every row of its target. Rows of keys that the run rejected stay. Runs in the current
// transaction.
PruneResult Prune(const Mapping &mapping, int64 run_id);

}  // namespace prm
