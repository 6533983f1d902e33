// Sets of hashes as bytes: 16 for each, in ascending order and big endian, so that the bytes are in the order
// of the hashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/siphash.h"

namespace prm {

constexpr size_t kPackedHashBytes = 16;

// A range of hashes, by their high words; both ends are in it.
struct HashRange {
  uint64_t first = 0;
  uint64_t last = UINT64_MAX;

  // One of `count` ranges of about equal size that cover all hashes; count > 0, index < count.
  static HashRange Share(uint64_t index, uint64_t count);
  bool Has(const Hash128& hash) const { return first <= hash.high && hash.high <= last; }
};

// A hash that joined a set or left it.
struct HashChange {
  Hash128 hash;
  bool added;
};

// The hashes in any order; repeated ones are packed once.
std::string PackHashes(std::vector<Hash128> hashes);

// Appends those of a packed set that are in the range. Bytes behind the last whole hash are passed over.
void UnpackHashes(Bytes packed, const HashRange& range, std::vector<Hash128>& hashes);

bool PackedHashesContain(Bytes packed, const Hash128& hash);

// Sorts changes, which come in the order in which they were made, and leaves the newest of each hash.
void KeepNewest(std::vector<HashChange>& changes);

// A sorted set after the changes from `begin` to before `end`, which KeepNewest has left.
std::vector<Hash128> ApplyChanges(const std::vector<Hash128>& hashes, const HashChange* begin,
                                  const HashChange* end);

// What is in the first set and not in the second; both are sorted.
std::vector<Hash128> WithoutHashes(const std::vector<Hash128>& hashes, const std::vector<Hash128>& others);

}  // namespace prm
