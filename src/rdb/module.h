// The data of modules, in values and beside them: parts that say what they are, so that whoever lacks the
// module can pass over them. Format: redis 7.0 src/rdb.c, rdbLoadCheckModuleValue; src/module.c,
// moduleTypeNameByID.
#pragma once

#include <cstdint>
#include <string>

#include "core/status.h"
#include "rdb/byte_reader.h"

namespace prm::rdb {

// The name of a module's type, nine characters, from the number that RDB has for it.
std::string ModuleTypeName(uint64_t id);

// Moves past the parts and the mark that ends them. kCorruptData for a part of unknown kind.
Status SkipModuleParts(ByteReader& reader);

// Moves past what modules keep about a key (Redis 8.6), behind the code 243 that begins it: parts, each
// behind four bytes that say whose they are. kCorruptData.
constexpr uint8_t kKeyMetadata = 243;
Status SkipKeyMetadata(ByteReader& reader);

}  // namespace prm::rdb
