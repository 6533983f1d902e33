// Removes rows whose keys are gone from Redis.
#pragma once

#include "mapping/catalog.h"
#include "write/row_counts.h"

namespace prm {

struct PruneResult {
  RowCounts counts;                // of the rows that were removed
  int64 rows = 0;                  // that the mapping had before; not counted with `force`
  std::string outcome = "pruned";  // or "kept", "refused"
  std::string why;                 // of an outcome that is not "pruned"
};

// After a whole pass that noted the rows it met (seen_row): deletes, or changes as on_delete says, or
// on_expire if a row's expiry has passed by now, those rows of the mapping that it did not meet. With a
// ledger these are the rows that the ledger knows; an exclusive mapping owns every row of its target. Rows of
// keys that the run rejected stay. A mapping of which the run met no key is refused unless `force`: an
// emptied or a wrong Redis must not empty the target. Runs in the current transaction.
PruneResult Prune(const Mapping &mapping, int64 run_id, bool force);

}  // namespace prm
