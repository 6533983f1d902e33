// SipHash of bytes that come in parts, so that large ones need not be held together.
#pragma once

#include "core/siphash.h"

namespace prm {

class SipHasher {
 public:
  explicit SipHasher(const SipKey& key) : key_(key) { Clear(); }

  // Forgets what was added.
  void Clear();

  void Add(Bytes bytes);

  // Returns SipHash128 of all that was added, and begins a new one.
  Hash128 Finish();

 private:
  struct State {
    uint64_t v0 = 0, v1 = 0, v2 = 0, v3 = 0;
    void Round();
    void Absorb(uint64_t word);
    uint64_t Squeeze();
  };

  SipKey key_;
  State state_;
  uint64_t length_ = 0;
  char rest_[8] = {};  // of the last word, length_ % 8 bytes
};

}  // namespace prm
