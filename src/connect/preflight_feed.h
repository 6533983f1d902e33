// The part of preflight that is about following the keys that a server says have changed.
#pragma once

#include "connect/preflight_live.h"
#include "redis/deployment.h"

namespace prm {

// Adds the row "change feed" for a server that a migration scans: what a live run would follow, what it
// lacks, and why it would never be settled. That nothing can be followed is no warning, as only live runs
// need it. may_track: the migrations name their databases. Opens two connections, and closes them. Errors:
// those of the waiter.
void CheckFeed(const redis::Deployment &deployment, redis::Waiter &waiter, bool may_track,
               const AddCheck &add);

}  // namespace prm
