// A source of bytes outside memory, such as a file on the server, that is read piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/interrupts.h"
#include "core/status.h"

namespace prm {

class ByteSource : public Interrupts {
 public:
  // Copies at most `size` bytes from `offset` to `to` and returns the number copied: 0 at the end. Errors:
  // those of the medium. May throw when the session is interrupted.
  virtual Result<size_t> Read(uint64_t offset, char* to, size_t size) = 0;

  // The total number of bytes.
  virtual uint64_t size() const = 0;

  // Identifies the content, as text without spaces: a reader that resumes checks that the file was not
  // replaced.
  virtual std::string identity() const = 0;
};

}  // namespace prm
