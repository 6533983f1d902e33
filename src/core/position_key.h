// The keys that mark transactions of a reverse feed.
#pragma once

#include <cstddef>
#include <string>

#include "core/bytes.h"

namespace prm {

constexpr char kPositionPrefix[] = "redis_migrate:position:{";
constexpr size_t kPositionPrefixSize = sizeof kPositionPrefix - 1;

// SET of this key begins each transaction of the reverse feed of a migration, so that its own live sync knows
// them.
inline std::string PositionKeyOf(const std::string& migration) { return kPositionPrefix + migration + "}"; }

// As above, for the transactions of one slot of a cluster. tag: a number, which is a hash tag of the slot.
inline std::string PositionKeyOf(const std::string& migration, const std::string& tag) {
  return kPositionPrefix + tag + "}:" + migration;
}

// Whether a key is one of these, of whatever migration: no mapping is for it.
inline bool IsPositionKey(Bytes key) { return key.substr(0, kPositionPrefixSize) == kPositionPrefix; }

// Whether a key is one of these, of this migration.
inline bool IsPositionKeyOf(const std::string& migration, Bytes key) {
  if (!IsPositionKey(key)) return false;
  if (key == PositionKeyOf(migration)) return true;
  const size_t end = key.find_first_not_of("0123456789", kPositionPrefixSize);
  return end != Bytes::npos && end > kPositionPrefixSize && key.substr(end) == "}:" + migration;
}

}  // namespace prm
