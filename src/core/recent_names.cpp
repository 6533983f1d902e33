#include "core/recent_names.h"

#include <algorithm>
#include <utility>

namespace prm {

bool RecentNames::Insert(Bytes name) {
  Hash128 hash = SipHash128(key_, name);
  if (hash == Hash128{}) hash.low = 1;
  const bool known = older_.Contains(hash);
  if (!younger_.Insert(hash)) return false;
  if (younger_.size() >= generation_) {
    std::swap(younger_, older_);
    younger_.Empty();
  }
  return !known;
}

void RecentNames::Clear() {
  younger_ = Generation();
  older_ = Generation();
}

bool RecentNames::Generation::Contains(const Hash128& hash) const {
  return size_ > 0 && slots_[Find(hash)] == hash;
}

bool RecentNames::Generation::Insert(const Hash128& hash) {
  if (2 * size_ >= slots_.size()) Grow();
  Hash128& slot = slots_[Find(hash)];
  if (slot == hash) return false;
  slot = hash;
  ++size_;
  return true;
}

void RecentNames::Generation::Empty() {
  std::fill(slots_.begin(), slots_.end(), Hash128{});
  size_ = 0;
}

// The slot that holds the hash, or the empty one where it belongs.
size_t RecentNames::Generation::Find(const Hash128& hash) const {
  const size_t mask = slots_.size() - 1;
  size_t index = hash.low & mask;
  while (!(slots_[index] == hash) && !(slots_[index] == Hash128{})) index = (index + 1) & mask;
  return index;
}

void RecentNames::Generation::Grow() {
  std::vector<Hash128> old(std::max<size_t>(1024, 2 * slots_.size()));
  std::swap(old, slots_);
  for (const Hash128& hash : old) {
    if (!(hash == Hash128{})) slots_[Find(hash)] = hash;
  }
}

}  // namespace prm
