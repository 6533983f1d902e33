// A bounds-checked cursor over bytes, whose errors name its offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/bytes.h"
#include "core/interrupts.h"
#include "core/status.h"
#include "rdb/byte_stream.h"
#include "rdb/endian.h"

namespace prm::rdb {

class ByteReader {
 public:
  // Reads `data`, which must outlive the reader and what it returns. For data inside other data, `part` names
  // it ("listpack") and `place` is its offset: error messages then name both offsets.
  explicit ByteReader(Bytes data, const char* part = nullptr, uint64_t place = 0)
      : data_(data), part_(part), place_(place) {}

  // Reads a stream, which must outlive the reader. Offsets are those of the stream's source. All functions
  // may return the errors of the source, too.
  explicit ByteReader(ByteStream& stream) : part_(nullptr), place_(0), stream_(&stream) {}

  // Checked by long work, unless nullptr. Must outlive its use.
  void set_interrupts(Interrupts* interrupts) { interrupts_ = interrupts; }
  Interrupts* interrupts() const { return interrupts_; }
  void CheckInterrupts() {
    if (interrupts_ != nullptr) interrupts_->CheckInterrupts();
  }

  bool is_stream() const { return stream_ != nullptr; }
  // The source that a stream reads; for streams only.
  ByteSource& source() const { return stream_->source(); }
  uint64_t offset() const { return (stream_ != nullptr ? stream_->position() : 0) + offset_; }

  // For data in memory.
  size_t remaining() const { return data_.size() - offset_; }
  bool AtEnd() const { return remaining() == 0; }
  Bytes rest() const { return data_.substr(offset_); }
  // Moves the cursor past the first of them, which must be there.
  void Pass(size_t count) { offset_ += count; }

  // Each of these moves the cursor past what it read; kCorruptData, without moving, when too few bytes are
  // left.

  // For data in memory. count may be any number that the input claims.
  Status ReadBytes(uint64_t count, Bytes& bytes) {
    if (count > remaining()) return Truncated(count);
    bytes = data_.substr(offset_, static_cast<size_t>(count));
    offset_ += static_cast<size_t>(count);
    return {};
  }

  Status ReadByte(uint8_t& value) { return ReadLittleEndian(value); }

  template <typename T>
  Status ReadLittleEndian(T& value) {
    if (sizeof(T) > remaining()) PRM_RETURN_IF_ERROR(Fetch(sizeof(T)));
    value = LoadLittleEndian<T>(data_.data() + offset_);
    offset_ += sizeof(T);
    return {};
  }

  template <typename T>
  Status ReadBigEndian(T& value) {
    if (sizeof(T) > remaining()) PRM_RETURN_IF_ERROR(Fetch(sizeof(T)));
    value = LoadBigEndian<T>(data_.data() + offset_);
    offset_ += sizeof(T);
    return {};
  }

  // As ReadBytes, for any number of bytes, of data and streams. They replace `bytes`, whose memory grows with
  // the bytes read and not with the claimed length. After an error the cursor may have moved.
  Status ReadInto(uint64_t count, std::string& bytes);
  Status Skip(uint64_t count);

  // Tells the stream how far the cursor has come, so that its position, checksum and copy end here.
  Status Settle();

  // A kCorruptData error: the problem and the cursor's offset.
  Error Corrupt(std::string_view problem) const;

 private:
  Status Fetch(size_t count);
  Status Advance(size_t wanted);
  Error Truncated(uint64_t wanted) const;
  template <typename Take>
  Status TakePieces(uint64_t count, Take take);

  Bytes data_;  // of a stream: its window
  const char* part_;
  uint64_t place_;
  size_t offset_ = 0;
  ByteStream* stream_ = nullptr;
  Interrupts* interrupts_ = nullptr;
};

}  // namespace prm::rdb
