// Bytes that stand somewhere else, such as in a file on the server, and are read piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/interrupts.h"
#include "core/status.h"

namespace prm {

// It also says whether to go on with what was read.
class ByteSource : public Interrupts {
 public:
  // Copies at most `size` bytes that stand at `offset` to `to`, and returns how many: 0 at the end. Errors:
  // those of the medium. May throw when the session is interrupted.
  virtual Result<size_t> Read(uint64_t offset, char* to, size_t size) = 0;

  // How many bytes there are.
  virtual uint64_t size() const = 0;

  // Text without spaces that another thing in the same place does not have: whoever goes on later checks it.
  virtual std::string identity() const = 0;
};

}  // namespace prm
