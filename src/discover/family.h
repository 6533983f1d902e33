// Key families: what a tree of keys (core/family_tree.h) comes to, as patterns that add_mapping takes.
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
  // Keys that have the pattern's skeleton and not its types, by what is wrong with them: they would be
  // rejected. They are counted in stats, too.
  std::map<std::string, uint64_t> odd;
};

// The families of a tree whose Finish has been called, by keys, most first. Every example of a family fits
// its pattern, but for those of odd keys. Keys of one pattern and several types are a family for each type.
// Patterns are valid UTF-8.
std::vector<Family> FindFamilies(const FamilyTree& tree);

// The key with the letters and digits of its captures replaced by x, X and 0, printable; of a key that the
// pattern does not fit, all letters and digits.
std::string MaskKey(const KeyPattern& pattern, Bytes key);

}  // namespace prm
