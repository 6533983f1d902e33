// An element of a listpack or ziplist: a string, or an integer, rendered in decimal on demand.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>

#include "core/bytes.h"
#include "rdb/byte_reader.h"

namespace prm::rdb {

class PackedElement {
 public:
  void SetInteger(int64_t integer) {
    is_integer_ = true;
    integer_ = integer;
  }
  void SetText(Bytes text) {
    is_integer_ = false;
    text_ = text;
  }

  bool is_integer() const { return is_integer_; }
  int64_t integer() const { return integer_; }

  // The string, which points into the data that was read, or the decimal digits, which point into this
  // object.
  Bytes bytes() {
    if (is_integer_) {
      const auto rendered = std::to_chars(digits_.data(), digits_.data() + digits_.size(), integer_);
      text_ = Bytes(digits_.data(), static_cast<size_t>(rendered.ptr - digits_.data()));
    }
    return text_;
  }

 private:
  bool is_integer_ = false;
  int64_t integer_ = 0;
  Bytes text_;
  std::array<char, 20> digits_{};  // "-9223372036854775808"
};

// Two's complement of `bits` bits.
inline int64_t SignExtend(uint64_t value, int bits) {
  const uint64_t sign = uint64_t{1} << (bits - 1);
  return static_cast<int64_t>((value ^ sign) - sign);
}

// Reads an integer of as many bytes as T, which is unsigned, as the element. kCorruptData if the bytes are
// missing.
template <typename T>
Status ReadInteger(ByteReader& reader, PackedElement& element) {
  T value = 0;
  PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(value));
  element.SetInteger(SignExtend(value, 8 * sizeof(T)));
  return {};
}

}  // namespace prm::rdb
