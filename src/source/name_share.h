// A share of the keys by a hash of their names, for sources that can only be read from one end to the other.
#pragma once

#include <cstdint>

#include "core/bytes.h"
#include "core/siphash.h"

namespace prm::source {

// Readers in different processes, and after an upgrade, must agree on the hash, so its key is a constant.
// Names that somebody chose to fall into one share make that share slow, not wrong.
struct NameShare {
  uint64_t number = 0;  // below count
  uint64_t count = 1;   // 1: everything

  bool IsValid() const { return number < count; }
  bool Contains(Bytes name) const {
    constexpr SipKey kKey = {0x7368617265206f66, 0x2061206e616d6521};
    return count == 1 || SipHash128(kKey, name).low % count == number;
  }
};

}  // namespace prm::source
