// Late deletions that need no attention: the rows are as gone as the keys.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// Settles what live sync has noted of keys of these families as deleted, if the key has no row, or one that
// has expired: whoever has deleted it, both sides are the same. So it is with keys that have expired, and
// with what the reverse feed has deleted where live sync cannot tell. Others stay, as do those of families of
// several mappings, and of mappings whose rows cannot become keys. Begins nothing more after `until_ms` of
// the monotonic clock. Returns the late_write_id of the last that it has looked at, or 0. Commits, and may
// roll back. Errors: those of FindFedMappings.
int64 SettleLateDeletions(const Migration &migration, const std::vector<std::string> &patterns,
                          int64 until_ms);

}  // namespace prm
