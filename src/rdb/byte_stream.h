// A window that moves over bytes that are not all in memory, with the checksum of the bytes it has passed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/byte_source.h"
#include "core/bytes.h"
#include "core/status.h"

namespace prm::rdb {

// Used through a ByteReader, which reports its progress. Uses no memory but the window.
class ByteStream {
 public:
  static constexpr size_t kWindow = 256 * 1024;
  static constexpr size_t kSmallestWindow = 16;  // the most that is read at once

  // Begins at `position` of the source, which must outlive the stream. `crc`: the checksum of the bytes
  // before it.
  explicit ByteStream(ByteSource& source, uint64_t position = 0, uint64_t crc = 0, size_t window = kWindow)
      : source_(source),
        position_(position),
        crc_(crc),
        window_size_(
            std::max(kSmallestWindow, static_cast<size_t>(std::min<uint64_t>(window, source.size())))) {}
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  // Drops the first `consumed` bytes of the window. The rest, filled up to at least `wanted` bytes (at most
  // the size of the window) unless the source ends before, becomes `window`. Errors: those of the source.
  Status Advance(size_t consumed, size_t wanted, Bytes& window);

  ByteSource& source() const { return source_; }

  // Where the window begins, and the checksum of all bytes before it.
  uint64_t position() const { return position_; }
  uint64_t crc() const { return crc_; }

  // From now on appends dropped bytes to `copy`, until it has `limit` bytes; nullptr stops that.
  void CopyTo(std::string* copy, size_t limit);

 private:
  ByteSource& source_;
  uint64_t position_;
  uint64_t crc_;
  size_t window_size_;
  std::string buffer_;
  size_t begin_ = 0;  // of the window, in buffer_
  std::string* copy_ = nullptr;
  size_t copy_limit_ = 0;
};

}  // namespace prm::rdb
