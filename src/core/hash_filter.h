// Which hashes have been added, in memory of a fixed size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace prm {

// A Bloom filter of keyed hashes: it forgets none, and takes others for one of its own. Each hash sets four
// bits of one word (Putze, Sanders and Singler, "Cache-, hash- and space-efficient Bloom filters", 2007). Of
// other hashes it takes one in 400 for its own when it holds two million, and three in ten when it holds ten.
class HashFilter {
 public:
  HashFilter() : words_(kWords) {}

  void Add(uint64_t hash) { words_[WordOf(hash)] |= BitsOf(hash); }
  // False: it was not added.
  bool MayHold(uint64_t hash) const { return (words_[WordOf(hash)] & BitsOf(hash)) == BitsOf(hash); }

 private:
  static constexpr size_t kWords = size_t{1} << 19;  // 4 MB

  static size_t WordOf(uint64_t hash) { return hash >> 45; }
  static uint64_t BitsOf(uint64_t hash) {
    uint64_t bits = 0;
    for (int i = 0; i < 4; ++i) bits |= uint64_t{1} << (hash >> (6 * i) & 63);
    return bits;
  }

  std::vector<uint64_t> words_;
};

}  // namespace prm
