// Unlogged targets, which a crash of PostgreSQL empties.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// Has the next run of a migration begin anew instead of resuming the last one if a crash has emptied unlogged
// targets in which that one has stored rows of these mappings: the rest of the keys would be all that is
// there. Says so in a WARNING. Families of PostgreSQL are left out: what they have lost does not come back
// from a run. Needs SPI.
void BeginAnewIfEmptied(const std::string &migration, const std::vector<const Mapping *> &mappings);

}  // namespace prm
