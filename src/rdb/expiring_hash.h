// Hashes whose fields may expire. Format: redis 7.4 src/rdb.c, rdbSaveObject and rdbLoadObject
// (RDB_TYPE_HASH_METADATA, RDB_TYPE_HASH_LISTPACK_EX); valkey 9.0 src/rdb.c (RDB_TYPE_HASH_2).
#pragma once

#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/object_type.h"
#include "rdb/value.h"

namespace prm::rdb {

// Decodes one of the layouts from kExpiringHashDraft to kValkeyExpiringHash. Fields that expire go to
// OnExpiringHashField, the others to OnHashField. kCorruptData.
Status DecodeExpiringHash(Layout layout, ByteReader& reader, ValueVisitor& visitor);

}  // namespace prm::rdb
