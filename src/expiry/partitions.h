// Whole partitions that have expired.
#pragma once

#include "expiry/predicate.h"

namespace prm::expiry {

// Whether the bounds of a partition prove that each of its rows, now and later, has expired. PostgreSQL's
// planner does the proof: no row of the partition can be at or above the cutoff. Errors: 42501 where row
// security hides rows, see HidesRows.
bool BoundsHaveExpired(const Statements &statements, const Cutoff &cutoff);

// Waits for locks no longer than lock_timeout. Errors: 42501 unless the caller owns it.
void DropPartition(const std::string &name);

}  // namespace prm::expiry
