// The names seen lately, in bounded memory.
#pragma once

#include <cstddef>

#include "core/bytes.h"
#include "core/hash_set.h"
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
  bool Insert(Bytes name) { return Insert(Look(name)); }

  // Insert in two steps: the tables are far larger than the caches of a processor, so whoever has many
  // names looks at some of the next before it inserts one.
  Hash128 Look(Bytes name) const;
  bool Insert(const Hash128& hash);

  // Forgets all names and frees their memory.
  void Clear();

 private:
  SipKey key_;
  size_t generation_;
  HashSet younger_;
  HashSet older_;
};

}  // namespace prm
