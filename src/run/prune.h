// Removes rows whose keys are gone from Redis.
#pragma once

#include "mapping/catalog.h"
#include "mapping/target.h"
#include "run/gone_rows.h"
#include "write/row_counts.h"

namespace prm {

struct PruneResult {
  RowCounts counts;                // of the rows that were removed
  int64 rows = 0;                  // that the mapping had before; not counted with `force`
  std::string outcome = "pruned";  // or "kept", "refused"
  std::string why;                 // of an outcome that is not "pruned"
  std::string stuck;               // how many rows could not go, which is the first, and why; empty: none
};

// Deletes, or changes as on_delete says, the rows of the mapping that a whole pass has not met; on_expire
// decides about rows whose expiry has passed by now. With a ledger, the rows of the mapping are those that
// the ledger knows; an exclusive mapping owns all rows of its target. Rows of keys that the run rejected
// stay. If the run met no key of the mapping, the prune is refused unless `force`: an emptied or a wrong
// Redis must not empty the target. Runs in the current transaction.
PruneResult Prune(const Mapping &mapping, int64 run_id, bool force);

// Adds the rows that Prune would remove to `gone`. Needs SPI and the mapping's settings. Errors: those of
// LoadTarget, MappingQuery and a SELECT by the current user.
void FindGoneRows(const Mapping &mapping, const Target &target, int64 run_id, GoneRows &gone);

// The columns of the target that hold when rows expire; none if the mapping has no on_expire.
std::vector<std::string> FindExpiryColumns(const Mapping &mapping, const Target &target);

// Whether an error of Prune is one of rows, which stay then. Otherwise it is the server's, or no row of the
// mapping could go. Call it when the error's subtransaction was rolled back.
bool IsFaultOfRows(const Mapping &mapping, const pg::PgError &error);

}  // namespace prm
