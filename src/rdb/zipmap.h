// Zipmap: the encoding of small hashes before Redis 2.6. Format: redis 6.2 src/zipmap.c, the comment at its
// beginning.
#pragma once

#include <cstdint>

#include "core/bytes.h"
#include "core/status.h"
#include "rdb/value.h"

namespace prm::rdb {

// Passes every field to OnHashField. `place` is the offset of the blob, for error messages. kCorruptData.
Status DecodeZipmap(Bytes blob, uint64_t place, ValueVisitor& visitor);

}  // namespace prm::rdb
