// Key families: the result of a tree of keys (discover/family_tree.h), as patterns that add_mapping takes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/pattern.h"
#include "discover/family_stats.h"
#include "discover/family_tree.h"

namespace prm {

struct Family {
  KeyPattern pattern;
  FamilyStats stats;
  // Keys that fit the pattern's skeleton but not its types, by the reason: they would be rejected. They are
  // counted in stats, too.
  std::map<std::string, uint64_t> odd;
};

// The families of a tree whose Finish has been called, those with most keys first. Every example of a family
// fits its pattern, except those of odd keys. Keys of one pattern and several types are one family per type.
// Patterns are valid UTF-8.
std::vector<Family> FindFamilies(const FamilyTree& tree);

// The key with the letters and digits of its captures replaced by x, X and 0, printable; of a key that the
// pattern does not fit, all letters and digits.
std::string MaskKey(const KeyPattern& pattern, Bytes key);

}  // namespace prm
