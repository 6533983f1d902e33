// A spool in memory.
#pragma once

#include <string>

#include "core/byte_spool.h"

namespace prm::test {

class MemorySpool : public ByteSpool {
 public:
  Status Append(Bytes bytes) override {
    content += bytes;
    return {};
  }
  Status Truncate(uint64_t size) override {
    content.resize(size);
    return {};
  }
  Result<size_t> Read(uint64_t offset, char* to, size_t size) override {
    return content.copy(to, size, offset);
  }
  uint64_t size() const override { return content.size(); }
  std::string identity() const override { return "memory"; }
  void CheckInterrupts() override {}

  std::string content;
};

}  // namespace prm::test
