// What a link has received, and nobody will apply any more.
#pragma once

#include "live/live_record.h"
#include "mapping/routing.h"

namespace prm {

// A run calls this when it gives way to one that takes a new snapshot: what its spool has beyond what is
// applied may be gone from Redis by then. Of families that belong to PostgreSQL it is kept as late writes.
// Not of a feed, which does not tell what the reverse feed has written. Returns why some may be missing;
// empty: none are. What fails is rolled back, after some tries if that may help, and keeps nobody from the
// new snapshot. Commits. Needs SPI; with the rights of the owner of the migration. Errors: 57014 and others
// of class 57; those of RollBackAfter.
std::string KeepUnappliedWrites(const Migration &migration, const Routing &routing, const LiveRecord &record);

}  // namespace prm
