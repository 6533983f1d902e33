// Bytes that are kept outside memory as they arrive, such as in a file on the server.
#pragma once

#include "core/byte_source.h"
#include "core/bytes.h"

namespace prm {

class ByteSpool : public ByteSource {
 public:
  // Adds bytes at the end. Errors: those of the medium.
  virtual Status Append(Bytes bytes) = 0;

  // Drops all bytes from `size` on. Errors: those of the medium.
  virtual Status Truncate(uint64_t size) = 0;
};

}  // namespace prm
