// The key that marks transactions of a reverse feed.
#pragma once

#include <string>

#include "core/bytes.h"

namespace prm {

// SET of this key begins each transaction of the reverse feed of a migration, so that its own live sync knows
// them.
inline std::string PositionKeyOf(const std::string& migration) {
  return "redis_migrate:position:{" + migration + "}";
}

// Whether a key is one of these, of whatever migration: no mapping is for it.
inline bool IsPositionKey(Bytes key) { return key.substr(0, 24) == "redis_migrate:position:{"; }

}  // namespace prm
