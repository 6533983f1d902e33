// A share of the keys of a database: those whose hashes have the same low bits.
//
// SCAN goes through the hash table in the order of the reversed bits of its cursor (redis 7.0 src/dict.c,
// comment on dictScan; valkey 8.1 src/hashtable.c, hashtableScan), so that all buckets with the same low bits
// come one after the other, whatever the size of the table and while it is rehashed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/bytes.h"

namespace prm::source {

// A table of Redis that has keys has at least 4 buckets (redis 7.0 src/dict.h, DICT_HT_INITIAL_SIZE), so that
// a key belongs to one share as long as it exists. In a smaller table one bucket would hold keys of several.
constexpr int kMostShareBits = 2;

// The bits of a cursor in the order in which SCAN counts them; nullopt unless it is a number of 64 bits.
std::optional<uint64_t> ScanOrder(Bytes cursor);

struct CursorShare {
  uint64_t number = 0;  // below 2^bits
  int bits = 0;         // 0 to kMostShareBits; 0: everything

  bool IsValid() const { return bits >= 0 && bits <= kMostShareBits && number < uint64_t{1} << bits; }
  // The cursor that the share begins at.
  std::string Start() const;
  // The cursor that the next share begins at. There must be one.
  std::string NextStart() const { return CursorShare{number + 1, bits}.Start(); }
  bool IsLast() const { return number + 1 == uint64_t{1} << bits; }
  // Whether SCAN goes on within the share at a cursor that it has returned.
  bool GoesOnAt(Bytes cursor) const;
};

}  // namespace prm::source
