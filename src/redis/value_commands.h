// The commands that give a key a whole value, whatever it was before.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"

namespace prm::redis {

// The value of a key. Elements are the string alone; field and value of a hash, one after the other; the
// elements of a list, in order; the members of a set; member and score of a sorted set, one after the other.
struct WholeValue {
  std::string type;  // string, hash, list, set, zset, as TYPE answers
  std::vector<std::string> elements;
  std::optional<int64_t> expires_at_ms;  // Unix time; nothing: never
};

// Whether the value can be one of Redis: a known type, with as many elements as belong together.
bool IsComplete(const WholeValue& value);

using CommandArguments = std::vector<std::string>;

// Appends the commands to `commands`; they are to be run in one transaction. An empty collection is a key
// that does not exist. They need Redis 4.0. The value is complete.
void AppendWholeValue(Bytes key, const WholeValue& value, std::vector<CommandArguments>& commands);

}  // namespace prm::redis
