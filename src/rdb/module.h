// The data of modules, in values and outside them: tagged parts, which can be skipped without the module.
// Format: redis 7.0 src/rdb.c, rdbLoadCheckModuleValue; src/module.c, moduleTypeNameByID.
#pragma once

#include <cstdint>
#include <string>

#include "core/status.h"
#include "rdb/byte_reader.h"

namespace prm::rdb {

// The name of a module's type, nine characters, from its number in RDB.
std::string ModuleTypeName(uint64_t id);

// Skips the parts and their end mark. kCorruptData for a part of unknown kind.
Status SkipModuleParts(ByteReader& reader);

// Skips the metadata of modules about a key (Redis 8.6), after its opcode 243: parts, each after four bytes
// that identify the module. kCorruptData.
constexpr uint8_t kKeyMetadata = 243;
Status SkipKeyMetadata(ByteReader& reader);

}  // namespace prm::rdb
