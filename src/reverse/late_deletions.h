// Late deletions that need no attention: the rows are as gone as the keys.
#pragma once

#include "reverse/reverse_mapping.h"

namespace prm {

// Whether a family has one mapping. Of several each may have rows of a key, and one does not tell whether
// those of the others are gone. Needs SPI.
bool HasOneMapping(const std::string &migration, const std::string &pattern);

// Settles what live sync has noted of keys of these families as deleted, if the key has no row, or one that
// has expired: whoever has deleted it, both sides are the same. So it is with keys that have expired, and
// with what the reverse feed has deleted where live sync cannot tell. Others stay, as do those of families
// without one of the mappings that find_reverses returns; it is called once, if there are any. Begins with
// those that have a greater late_write_id than `after`, which becomes that of the last that it has looked at,
// and nothing more after `until_ms` of the monotonic clock. Those that somebody else is just changing stay
// for another look. left: takes the numbers of those that it has looked at and not settled. Returns whether
// it has come to the end. Commits, and may roll back. Errors: those of find_reverses.
bool SettleLateDeletions(const std::string &migration, const std::vector<std::string> &patterns,
                         const std::function<std::vector<const ReverseMapping *>()> &find_reverses,
                         int64 &after, int64 until_ms, std::set<int64> *left = nullptr);

}  // namespace prm
