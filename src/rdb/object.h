// A value without its frame: what DUMP payloads and RDB files have in common.
// Layouts: redis 8.10 src/rdb.c, rdbLoadObject.
#pragma once

#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/object_type.h"
#include "rdb/value.h"

namespace prm::rdb {

// Decodes one value and moves the reader past it. kCorruptData, kTooLarge. An empty collection is no error:
// then nothing is called. From a stream no more is held than one string at a time - which is the whole value
// where the layout is a string - and, of a stream's consumer groups, 40 bytes for each pending entry of a
// group, and the names of fields that stand in front of a hash's values. Values that refer to a template are
// for DecodeTemplateRef. Throws what the visitor's CheckInterrupts does.
Status DecodeObject(Layout layout, ByteReader& reader, ValueVisitor& visitor);

// Moves the reader past a value, looking at no more than where its strings end. kCorruptData.
Status SkipObject(Layout layout, ByteReader& reader);

}  // namespace prm::rdb
