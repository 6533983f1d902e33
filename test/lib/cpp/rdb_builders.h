// Encodings that the installed redis-server reads but no longer writes, and those that it does not know,
// built by hand from their descriptions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.h"

namespace prm::test {

// An integer of so many bytes, least significant first.
std::string LittleEndian(uint64_t value, size_t size);

// A length as RDB writes it, and a string behind its length.
std::string Length(uint64_t length);
std::string String(Bytes bytes);

// A ziplist of the elements: decimal integers in their shortest form, everything else as text.
std::string Ziplist(const std::vector<std::string>& elements);

// A zipmap of fields and values; each value has `unused` bytes behind it.
std::string Zipmap(const std::vector<std::pair<std::string, std::string>>& fields, uint8_t unused = 0);

// A listpack of texts of less than 4096 bytes and integers of 64 bits.
struct ListpackItem {
  std::string text;
  std::optional<int64_t> integer;
};
std::string Listpack(const std::vector<ListpackItem>& items);

// A score as RDB_TYPE_ZSET has it.
std::string TextScore(const std::string& score);

// The 64-bit number of a module's type: nine characters and the version of its encoding.
uint64_t ModuleId(const std::string& name, unsigned version);

}  // namespace prm::test
