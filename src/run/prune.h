// Removes rows whose keys are gone from Redis.
#pragma once

#include "mapping/catalog.h"

namespace prm {

struct PruneResult {
  int64 deleted = 0;
  int64 changed_here = 0;          // of them: rows that somebody else had changed since they were stored
  int64 rows = 0;                  // that the mapping had before; not counted with `force`
  std::string outcome = "pruned";  // or "kept", "refused"
  std::string why;                 // of an outcome that is not "pruned"
};

// After a whole pass that noted the rows it met (seen_row): deletes, or changes as on_delete says, those rows
// of the mapping that it did not meet. With a ledger these are the rows that the ledger knows; an exclusive
// mapping owns every row of its target. Rows of keys that the run rejected stay. A mapping of which the run
// met no key is refused unless `force`: an emptied or a wrong Redis must not empty the target. Runs in
// the current transaction.
PruneResult Prune(const Mapping &mapping, int64 run_id, bool force);

}  // namespace prm
