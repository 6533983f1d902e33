// The versions of RDB that this release reads. Up to 11 they are common to Redis and Valkey; Redis continues
// with 12, and Valkey with 80, whose files begin with another magic word.
#pragma once

namespace prm::rdb {

constexpr unsigned kOldestVersion = 1;
constexpr unsigned kNewestVersion = 15;        // Redis 8.10
constexpr unsigned kOldestValkeyVersion = 80;  // Valkey 9.0
constexpr unsigned kNewestValkeyVersion = 81;  // Valkey 9.2
inline constexpr char kVersionsRead[] = "Versions 1 to 15 of Redis and 80 to 81 of Valkey are read.";

// The first version of Valkey alone; lower ones belong to Redis or to both.
constexpr bool IsValkey(unsigned version) { return version >= kOldestValkeyVersion; }

constexpr bool IsSupportedVersion(unsigned version) {
  return IsValkey(version) ? version <= kNewestValkeyVersion
                           : version >= kOldestVersion && version <= kNewestVersion;
}

// Whether files and payloads may hold metadata of modules about keys.
constexpr bool HasKeyMetadata(unsigned version) { return !IsValkey(version) && version >= 13; }

// Whether files may hold templates of hashes.
constexpr bool HasHashTemplates(unsigned version) { return !IsValkey(version) && version >= 15; }

}  // namespace prm::rdb
