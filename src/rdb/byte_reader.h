// A cursor over bytes that never leaves them and whose errors say where it stood.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/bytes.h"
#include "core/status.h"
#include "rdb/endian.h"

namespace prm::rdb {

class ByteReader {
 public:
  // Reads `data`, which must outlive the reader and what it returns. For data inside other data, `part` names
  // it ("listpack") and `place` is the offset where it stands: error messages then name both offsets.
  explicit ByteReader(Bytes data, const char* part = nullptr, size_t place = 0)
      : data_(data), part_(part), place_(place) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return data_.size() - offset_; }
  bool AtEnd() const { return remaining() == 0; }

  // Each of these moves the cursor past what it read; kCorruptData, without moving, when too few bytes are
  // left. count may be any number that the input claims.
  Status ReadBytes(uint64_t count, Bytes& bytes) {
    if (count > remaining()) return Truncated(count);
    bytes = data_.substr(offset_, static_cast<size_t>(count));
    offset_ += static_cast<size_t>(count);
    return {};
  }

  Status ReadByte(uint8_t& value) { return ReadLittleEndian(value); }

  template <typename T>
  Status ReadLittleEndian(T& value) {
    if (sizeof(T) > remaining()) return Truncated(sizeof(T));
    value = LoadLittleEndian<T>(data_.data() + offset_);
    offset_ += sizeof(T);
    return {};
  }

  template <typename T>
  Status ReadBigEndian(T& value) {
    if (sizeof(T) > remaining()) return Truncated(sizeof(T));
    value = LoadBigEndian<T>(data_.data() + offset_);
    offset_ += sizeof(T);
    return {};
  }

  // A kCorruptData error: the problem and the cursor's offset.
  Error Corrupt(std::string_view problem) const;

 private:
  Error Truncated(uint64_t wanted) const;

  Bytes data_;
  const char* part_;
  size_t place_;
  size_t offset_ = 0;
};

}  // namespace prm::rdb
