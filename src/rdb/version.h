// The versions of RDB that this release reads. Redis and Valkey number them apart: up to 11 they are the
// same, Redis goes on with 12, and Valkey with 80, whose files begin with another word.
#pragma once

namespace prm::rdb {

constexpr unsigned kOldestVersion = 1;
constexpr unsigned kNewestVersion = 12;  // Redis 7.4
constexpr unsigned kValkeyVersion = 80;  // Valkey 9.0
inline constexpr char kVersionsRead[] = "Versions 1 to 12 of Redis and 80 of Valkey are read.";

// The first of Valkey's own; what is below belongs to Redis or to both.
constexpr bool IsValkey(unsigned version) { return version >= kValkeyVersion; }

constexpr bool IsSupportedVersion(unsigned version) {
  return (version >= kOldestVersion && version <= kNewestVersion) || version == kValkeyVersion;
}

}  // namespace prm::rdb
