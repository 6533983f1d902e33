// A prune of which some rows cannot go: a foreign key refers to them, or a trigger raises an error.
#pragma once

#include "run/prune.h"

namespace prm {

// As Prune, after it has failed with an error of rows: finds by trial the rows that cannot go, and removes
// the others. Those that cannot go keep their entries in the ledger, so that the next prune tries them again;
// they are counted and the first is named in PruneResult::stuck. Rows of the mapping that refer to one
// another are tried again as long as that removes some. When a thousand rows cannot go, the search ends; what
// it has not tried stays as well, and is counted. The target is read twice, and twice more if a trigger lets
// rows go in turn, but not all at once; the rows are held in memory up to work_mem, then on the disk. Runs in
// the current transaction, of which it keeps few subtransactions. Errors: those of the server; those that are
// not of rows; those of Prune.
PruneResult PruneAround(const Mapping &mapping, int64 run_id, bool force);

}  // namespace prm
