// A value without its frame: what DUMP payloads and RDB files have in common.
// Types: redis 7.0 src/rdb.h, RDB_TYPE_*; layouts: src/rdb.c, rdbLoadObject.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/value.h"

namespace prm::rdb {

// The type of value that an RDB type number stands for. kUnsupported, naming the number and the RDB version,
// for a type that this release does not read.
Result<ValueType> ObjectValueType(uint8_t rdb_type, unsigned rdb_version);

// Decodes one value of that RDB type and moves the reader past it. kCorruptData, kTooLarge, kUnsupported.
// An empty collection is no error: then nothing is called.
Status DecodeObject(uint8_t rdb_type, unsigned rdb_version, ByteReader& reader, ValueVisitor& visitor);

}  // namespace prm::rdb
