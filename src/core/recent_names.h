// The names seen lately, in bounded memory.
#pragma once

#include <cstddef>
#include <vector>

#include "core/bytes.h"
#include "core/siphash.h"

namespace prm {

// A set of the most recent names, kept as 128-bit keyed hashes: of n names, the chance that any two different
// ones are taken for one another is about n^2 / 2^129. Two generations: when the younger is full, the older
// is forgotten, so that at least the last `generation` different names are known and at most twice as many.
class RecentNames {
 public:
  // Memory grows with use, up to 32 to 64 bytes for each name of both generations together: 16 MB by default.
  explicit RecentNames(const SipKey& key, size_t generation = 262144) : key_(key), generation_(generation) {}

  // Notes that the name was seen now. True if it was not known.
  bool Insert(Bytes name);

  // Forgets all names and frees their memory.
  void Clear();

 private:
  // A hash table with linear probing; all zero bits mean an empty slot.
  class Generation {
   public:
    bool Contains(const Hash128& hash) const;
    bool Insert(const Hash128& hash);
    void Empty();
    size_t size() const { return size_; }

   private:
    size_t Find(const Hash128& hash) const;
    void Grow();

    std::vector<Hash128> slots_;  // their number is a power of two
    size_t size_ = 0;
  };

  SipKey key_;
  size_t generation_;
  Generation younger_;
  Generation older_;
};

}  // namespace prm
