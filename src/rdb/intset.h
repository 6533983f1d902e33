// Intset: a sorted array of integers of one width, the encoding of small sets of integers.
#pragma once

#include <cstddef>

#include "core/bytes.h"
#include "core/status.h"
#include "rdb/value.h"

namespace prm::rdb {

// Passes every member, in decimal, to OnSetMember. `place` is the offset of the blob, for error messages.
// kCorruptData when width, number of members and size do not fit together. Format: redis 7.0 src/intset.h.
Status DecodeIntset(Bytes blob, uint64_t place, ValueVisitor& visitor);

}  // namespace prm::rdb
