// Families in state both: fleets that still read Redis touch the expiries of its keys. Of the key's and the
// row's expiry the later wins on both sides, and nothing else of what is written there.
#pragma once

#include "mapping/catalog.h"
#include "store/batch.h"

namespace prm {

// Takes those of `late` that need no attention: writes of families in state both that have changed no more
// than expiries, which it merges, and writes that the rows show already: in state both, or if the write may
// be the reverse feed's. The states are locked since the batch that found `late`, in the same
// (sub)transaction. Needs SPI; with the rights of the owner of the migration. Errors: those of
// BatchStore::Process and of the target.
void SettleHarmless(const Migration &migration, const Routing &routing, BatchStore &store,
                    std::vector<LateWrite> &late);

}  // namespace prm
