// One value of a layout, in the three ways in which it is read.
#pragma once

#include <algorithm>
#include <cstring>

#include "fuzz/touch.h"
#include "rdb/object.h"

namespace prm::fuzz {

class BytesSource : public ByteSource {
 public:
  explicit BytesSource(Bytes bytes) : bytes_(bytes) {}
  Result<size_t> Read(uint64_t offset, char* to, size_t size) override {
    if (offset >= bytes_.size()) return size_t{0};
    const size_t count = std::min(size, bytes_.size() - static_cast<size_t>(offset));
    std::memcpy(to, bytes_.data() + offset, count);
    return count;
  }
  uint64_t size() const override { return bytes_.size(); }
  std::string identity() const override { return "fuzz"; }

 private:
  Bytes bytes_;
};

// From memory and from a stream with a small window the same is accepted, up to the same byte; and what is
// accepted can be passed over, too.
inline void ReadEveryWay(rdb::Layout layout, Bytes input) {
  TouchingVisitor visitor;
  rdb::ByteReader memory(input);
  const bool decoded = rdb::DecodeObject(layout, memory, visitor).ok();
  BytesSource source(input);
  rdb::ByteStream stream(source, 0, 0, rdb::ByteStream::kSmallestWindow);
  rdb::ByteReader streamed(stream);
  if (rdb::DecodeObject(layout, streamed, visitor).ok() != decoded) __builtin_trap();
  rdb::ByteReader skipped(input);
  const bool passed = rdb::SkipObject(layout, skipped).ok();
  if (decoded && (!passed || memory.offset() != streamed.offset() || memory.offset() != skipped.offset())) {
    __builtin_trap();
  }
}

}  // namespace prm::fuzz
