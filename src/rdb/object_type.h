// The numbers that stand before values, and what they mean: redis 7.4 src/rdb.h, valkey 9.0 src/rdb.h,
// RDB_TYPE_*.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "rdb/value.h"

namespace prm::rdb {

// How a value is written behind its number.
enum class Layout {
  kString,
  kList,
  kSet,
  kHash,
  kZsetOfTexts,  // scores as decimal text
  kZset,         // scores as 8 bytes
  kModule,       // parts that say what they are
  kHashZipmap,   // from here on, a string that holds the whole collection
  kListZiplist,
  kHashZiplist,
  kZsetZiplist,
  kSetIntset,
  kHashListpack,
  kZsetListpack,
  kSetListpack,
  kListOfZiplists,  // nodes, each a string
  kListOfNodes,     // nodes, each a listpack or an element
  kStream,          // three layouts, see StreamLayout
  kStream2,
  kStream3,
  kExpiringHashDraft,  // Redis 7.4 release candidates
  kExpiringListpackDraft,
  kExpiringHash,  // Redis 7.4
  kExpiringListpack,
  kValkeyExpiringHash,  // Valkey 9.0
};

struct ObjectType {
  uint8_t number;
  const char* name;  // as in rdb.h, without RDB_TYPE_
  ValueType value;
  Layout layout;
};

// The meaning of a type number in that version, which must be supported. kUnsupported, naming number and
// version, for a type that this release does not read.
Result<ObjectType> FindObjectType(uint8_t number, unsigned version);

}  // namespace prm::rdb
