// A value without its frame, the common part of DUMP payloads and RDB files. Layouts: redis 8.10 src/rdb.c,
// rdbLoadObject.
#pragma once

#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/object_type.h"
#include "rdb/value.h"

namespace prm::rdb {

// Decodes one value and moves the reader past it. kCorruptData, kTooLarge. An empty collection is no error
// and calls nothing. Reading from a ByteStream holds in memory only one string at a time (the whole value
// where the layout is a string), a few thousand members of a sorted set, 40 bytes for each pending entry of a
// consumer group, and the field names in front of a hash's values. Values that refer to a template are for
// DecodeTemplateRef. Throws what the visitor's CheckInterrupts does.
Status DecodeObject(Layout layout, ByteReader& reader, ValueVisitor& visitor);

// Skips a value without decoding its strings. kCorruptData.
Status SkipObject(Layout layout, ByteReader& reader);

}  // namespace prm::rdb
