// SipHash-2-4 with 128 bits of output: a keyed hash in which an attacker who chooses the input cannot cause
// collisions.
#pragma once

#include <array>
#include <cstdint>

#include "core/bytes.h"

namespace prm {

struct Hash128 {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const Hash128& other) const { return low == other.low && high == other.high; }
  bool operator<(const Hash128& other) const {
    return high != other.high ? high < other.high : low < other.low;
  }
};

using SipKey = std::array<uint64_t, 2>;  // the 16 key bytes as two little-endian words

// Algorithm: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), with the finalization for 128
// bits of its authors' reference implementation. `low` holds the first 8 bytes of the output, little endian.
Hash128 SipHash128(const SipKey& key, Bytes bytes);

// A key from the operating system's random numbers.
SipKey RandomSipKey();

}  // namespace prm
