// The key that marks transactions of a reverse feed.
#pragma once

#include <string>

namespace prm {

// SET of this key begins each transaction of the reverse feed of a migration, so that its own live sync knows
// them.
inline std::string PositionKeyOf(const std::string& migration) {
  return "redis_migrate:position:{" + migration + "}";
}

}  // namespace prm
