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

// Deletes, or changes as on_delete says, the rows of the mapping that a whole pass has not met; on_expire
// decides about rows whose expiry has passed by now. With a ledger, the rows of the mapping are those that
// the ledger knows; an exclusive mapping owns all rows of its target. Rows of keys that the run rejected
// stay. If the run met no key of the mapping, the prune is refused unless `force`: an emptied or a wrong
// Redis must not empty the target. Runs in the current transaction.
PruneResult Prune(const Mapping &mapping, int64 run_id, bool force);

// Whether an error of Prune is one of rows, which stay then. Otherwise it is the server's, or no row of the
// mapping could go. Call it when the error's subtransaction was rolled back.
bool IsFaultOfRows(const Mapping &mapping, const pg::PgError &error);

}  // namespace prm
