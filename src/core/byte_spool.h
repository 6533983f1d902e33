// Bytes that are kept outside memory as they arrive, such as in a file on the server.
#pragma once

#include <functional>
#include <memory>

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

// Makes an empty spool, which goes with the object. None: there is no place for spools. May throw.
using MakeSpool = std::function<std::unique_ptr<ByteSpool>()>;

}  // namespace prm
