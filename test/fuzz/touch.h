// Reads every byte that the decoder hands out, so that AddressSanitizer sees those that do not exist.
#pragma once

#include "core/bytes.h"

namespace prm::fuzz {

inline void Touch(Bytes bytes) {
  volatile char sink = 0;
  for (const char byte : bytes) sink = byte;
  (void)sink;
}

}  // namespace prm::fuzz
