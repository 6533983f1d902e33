#include "core/hash_set.h"

#include <algorithm>
#include <utility>

namespace prm {

void HashSet::Reserve(size_t count) {
  size_t slots = 1024;
  while (slots < 2 * count) slots *= 2;
  if (slots > slots_.size()) Grow(slots);
}

bool HashSet::Insert(Hash128 hash) {
  hash = NonZero(hash);
  if (2 * size_ >= slots_.size()) Reserve(size_ + 1);
  Hash128& slot = slots_[Find(hash)];
  if (slot == hash) return false;
  slot = hash;
  ++size_;
  return true;
}

void HashSet::Clear() {
  std::fill(slots_.begin(), slots_.end(), Hash128{});
  size_ = 0;
}

// The slot that holds the hash, or the empty one where it belongs.
size_t HashSet::Find(const Hash128& hash) const {
  const size_t mask = slots_.size() - 1;
  size_t index = hash.low & mask;
  while (!(slots_[index] == hash) && !(slots_[index] == Hash128{})) index = (index + 1) & mask;
  return index;
}

void HashSet::Grow(size_t slots) {
  std::vector<Hash128> old(slots);
  std::swap(old, slots_);
  for (const Hash128& hash : old) {
    if (!(hash == Hash128{})) slots_[Find(hash)] = hash;
  }
}

}  // namespace prm
