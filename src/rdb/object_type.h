// The type numbers of values, and their meaning: redis 8.10 src/rdb.h, valkey 9.2 src/rdb.h, RDB_TYPE_*.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "rdb/value.h"

namespace prm::rdb {

// The layouts of values.
enum class Layout {
  kString,
  kList,
  kSet,
  kHash,
  kZsetOfTexts,  // scores as decimal text
  kZset,         // scores as 8 bytes
  kModule,       // tagged parts
  kHashZipmap,   // from here on, one string that holds the whole collection
  kListZiplist,
  kHashZiplist,
  kZsetZiplist,
  kSetIntset,
  kHashListpack,
  kZsetListpack,
  kSetListpack,
  kListOfZiplists,  // nodes, each a string
  kListOfNodes,     // nodes, each a listpack or an element
  kStream,          // five layouts, see StreamLayout
  kStream2,
  kStream3,
  kStream4,
  kStream5,
  kExpiringHashDraft,  // Redis 7.4 release candidates
  kExpiringListpackDraft,
  kExpiringHash,  // Redis 7.4
  kExpiringListpack,
  kValkeyExpiringHash,   // Valkey 9.0
  kArray,                // Redis 8.8
  kTemplateListpack,     // Redis 8.10: the fields, then the values in a listpack
  kTemplateListpackRef,  // the number of a template of the file, which has the fields
  kTemplateArray,        // the same with the values as strings
  kTemplateArrayRef,
};

// Whether fields of a hash in that layout may have an expiry.
constexpr bool HasExpiringFields(Layout layout) {
  return layout >= Layout::kExpiringHashDraft && layout <= Layout::kValkeyExpiringHash;
}

// Whether values of that layout refer to templates of their file.
constexpr bool RefersToTemplate(Layout layout) {
  return layout == Layout::kTemplateListpackRef || layout == Layout::kTemplateArrayRef;
}

struct ObjectType {
  uint8_t number;
  const char* name;  // as in rdb.h, without RDB_TYPE_
  ValueType value;
  Layout layout;
  unsigned since;  // the first RDB version with it; others use the number differently
};

// The meaning of a type number in that version, which must be supported. kUnsupported, naming number and
// version, for a type that this release does not read.
Result<ObjectType> FindObjectType(uint8_t number, unsigned version);

}  // namespace prm::rdb
