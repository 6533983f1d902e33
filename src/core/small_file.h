// A small file of this machine, read whole.
#pragma once

#include <sys/stat.h>

#include <string>

#include "core/status.h"

namespace prm {

struct SmallFile {
  std::string bytes;
  struct stat info;  // of the file that was read
};

// Certificates of all authorities that a system trusts take a quarter of this.
constexpr size_t kMostSmallFileBytes = size_t{1} << 20;

// Opens a regular file without waiting, as a pipe would have us do, and reads it. Errors: kInvalidArgument
// (it cannot be opened or read, is no regular file, or has more than kMostSmallFileBytes); the message is
// left to the caller, the detail is a sentence.
Result<SmallFile> ReadSmallFile(const std::string& path);

}  // namespace prm
