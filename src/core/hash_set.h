// A set of 128-bit hashes.
#pragma once

#include <cstddef>
#include <vector>

#include "core/siphash.h"

namespace prm {

// A hash table with linear probing, of keyed hashes, whose low bits are the place.
class HashSet {
 public:
  // Memory for so many hashes at once; otherwise it grows by doubling. A hash takes 32 to 64 bytes.
  void Reserve(size_t count);

  // True if the hash was not in the set.
  bool Insert(Hash128 hash);
  bool Contains(Hash128 hash) const { return size_ > 0 && slots_[Find(NonZero(hash))] == NonZero(hash); }

  // Has the place of the hash fetched into the processor's cache.
  void Look(const Hash128& hash) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[hash.low & (slots_.size() - 1)]);
  }

  // Forgets all hashes and keeps the memory.
  void Clear();
  size_t size() const { return size_; }

 private:
  // All zero bits mean an empty slot.
  static Hash128 NonZero(Hash128 hash) {
    if (hash == Hash128{}) hash.low = 1;
    return hash;
  }
  size_t Find(const Hash128& hash) const;
  void Grow(size_t slots);

  std::vector<Hash128> slots_;  // their number is a power of two
  size_t size_ = 0;
};

}  // namespace prm
