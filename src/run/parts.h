// A level of a run that is read in parts, side by side: each part has a checkpoint and counts of its own.
#pragma once

#include "parts/part_reading.h"
#include "run/pass.h"

namespace prm {

// Reads the parts of the level that are left and waits until others have read theirs. first: as Pass::Read.
// Returns how many slots were read more than once. Errors: those of Pass::Read; the error with which another
// process ended, as it was.
uint64 LeadParts(Pass &pass, RunRecord &record, int level, bool first, bool stops_at_rejects);

}  // namespace prm
