#include "redis/value_commands.h"

#include <algorithm>
#include <utility>

namespace prm::redis {
namespace {

// A command with more arguments would hold up the server for long.
constexpr size_t kMostElements = 1000;

struct Collection {
  const char* type;
  const char* command;
  size_t width;    // elements that belong together
  bool is_scored;  // the second of them goes first
};
constexpr Collection kCollections[] = {{"hash", "HSET", 2, false},
                                       {"list", "RPUSH", 1, false},
                                       {"set", "SADD", 1, false},
                                       {"zset", "ZADD", 2, true}};

const Collection* Find(const std::string& type) {
  const auto* found = std::find_if(std::begin(kCollections), std::end(kCollections),
                                   [&](const Collection& each) { return type == each.type; });
  return found == std::end(kCollections) ? nullptr : found;
}

}  // namespace

bool IsComplete(const WholeValue& value) {
  if (value.type == "string") return value.elements.size() == 1;
  const Collection* const collection = Find(value.type);
  return collection != nullptr && value.elements.size() % collection->width == 0;
}

void AppendWholeValue(Bytes key, const WholeValue& value, std::vector<CommandArguments>& commands) {
  const std::string name(key);
  if (value.type == "string") {
    commands.push_back({"SET", name, value.elements[0]});
  } else {
    commands.push_back({"UNLINK", name});
    const Collection& collection = *Find(value.type);
    const size_t step = kMostElements / collection.width * collection.width;
    for (size_t from = 0; from < value.elements.size(); from += step) {
      CommandArguments arguments = {collection.command, name};
      for (size_t i = from; i < std::min(from + step, value.elements.size()); ++i)
        arguments.push_back(value.elements[collection.is_scored ? i ^ 1 : i]);
      commands.push_back(std::move(arguments));
    }
    if (value.elements.empty()) return;
  }
  if (value.expires_at_ms) commands.push_back({"PEXPIREAT", name, std::to_string(*value.expires_at_ms)});
}

}  // namespace prm::redis
