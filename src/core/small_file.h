// A small local file, read whole.
#pragma once

#include <sys/stat.h>

#include <string>

#include "core/status.h"

namespace prm {

struct SmallFile {
  std::string bytes;
  struct stat info;  // of the file that was read
};

// A system's bundle of trusted certificates takes a quarter of this.
constexpr size_t kMostSmallFileBytes = size_t{1} << 20;

// Reads a regular file. Opening does not block, as it would on a pipe. Errors: kInvalidArgument (it cannot be
// opened or read, is not a regular file, or has more than kMostSmallFileBytes); the caller sets the message,
// the detail is a sentence.
Result<SmallFile> ReadSmallFile(const std::string& path);

}  // namespace prm
