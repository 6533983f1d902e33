// Unlogged targets, which a crash of PostgreSQL empties.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// Has the next run of a migration begin anew instead of resuming the last one if unlogged targets were
// emptied in which that one has stored rows of these mappings: the rest of the keys would be all that is
// there. Says so in a WARNING. PostgreSQL empties unlogged tables after a crash, and when a standby is
// promoted or a base backup is restored. It then empties redis_migrate.unlogged_mark as well: a run that
// began under another mark began before that. Families of PostgreSQL are left out: what they have lost does
// not come back from a run. Makes the mark if there is none, before the run begins that notes it. Needs SPI.
void BeginAnewIfEmptied(const std::string &migration, const std::vector<const Mapping *> &mappings);

}  // namespace prm
