// A window that moves over bytes which are not all in memory, with the checksum of what it has passed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/byte_source.h"
#include "core/bytes.h"
#include "core/status.h"

namespace prm::rdb {

// Used through a ByteReader, which says how far it has come. Memory: the window, whatever is read.
class ByteStream {
 public:
  static constexpr size_t kWindow = 256 * 1024;
  static constexpr size_t kSmallestWindow = 16;  // no more is asked for at once

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

  // Leaves the first `consumed` bytes of the window behind. The rest of it, filled up to at least `wanted`
  // bytes (no more than the window has room for) unless the source ends before, becomes `window`. Errors:
  // those of the source.
  Status Advance(size_t consumed, size_t wanted, Bytes& window);

  // Where the window begins, and the checksum of all bytes before it.
  uint64_t position() const { return position_; }
  uint64_t crc() const { return crc_; }

  // Appends what is left behind from now on to `copy`, until it has `limit` bytes; nullptr: no more.
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
