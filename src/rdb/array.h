// Arrays (Redis 8.8): sparse, by index.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/value.h"

namespace prm::rdb {

// The encodings of an element.
enum ArrayTag : uint64_t { kArrayString = 0, kArrayInteger = 1, kArrayDouble = 2, kArrayShortString = 3 };

// Passes every element to OnArrayElement, in the order of the indexes; numbers as Redis prints them. Skips
// the insert position of ARINSERT. kCorruptData, also for indexes that do not ascend. Format: redis 8.8
// src/rdb.c, rdbSaveObject (RDB_TYPE_ARRAY); src/sparsearray.h.
Status DecodeArray(ByteReader& reader, ValueVisitor& visitor);

}  // namespace prm::rdb
