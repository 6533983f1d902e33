// Hashes that share the names of their fields (Redis 8.10): the names are in a template of the file, or, in
// DUMP payloads, in front of the values. Format: redis 8.10 src/rdb.c, tests/unit/type/hash-templates.tcl.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/object_type.h"
#include "rdb/value.h"

namespace prm::rdb {

// The templates of a file.
class HashTemplates {
 public:
  // Reads a template. kCorruptData, also for a duplicate number or field; kTooLarge when all templates
  // together have more than 64 MB of names.
  Status Read(ByteReader& reader);

  // The names of a template's fields; nullptr if the template does not exist.
  const std::vector<std::string>* Find(uint64_t number) const;

 private:
  std::map<uint64_t, std::vector<std::string>> fields_;
  size_t bytes_ = 0;
};

// Decode or skip values that refer to a template. kCorruptData, also for an unknown template.
Status DecodeTemplateRef(Layout layout, const HashTemplates& templates, ByteReader& reader,
                         ValueVisitor& visitor);
Status SkipTemplateRef(Layout layout, const HashTemplates& templates, ByteReader& reader);

// Decode or skip values with their fields in front. All names are held in memory.
Status DecodeTemplateHash(Layout layout, ByteReader& reader, ValueVisitor& visitor);
Status SkipTemplateHash(Layout layout, ByteReader& reader);

}  // namespace prm::rdb
