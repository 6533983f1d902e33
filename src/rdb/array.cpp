#include "rdb/array.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string>

#include "rdb/encoded_string.h"

namespace prm::rdb {

namespace {

template <typename Number>
Bytes Render(Number number, std::array<char, 32>& text) {
  const auto rendered = std::to_chars(text.data(), text.data() + text.size(), number);
  return Bytes(text.data(), static_cast<size_t>(rendered.ptr - text.data()));
}

Status ReadElement(ByteReader& reader, std::string& scratch, std::array<char, 32>& text, Bytes& value) {
  uint64_t tag = 0;
  uint64_t bits = 0;
  double number = 0;
  static_assert(sizeof(number) == sizeof(bits));
  PRM_RETURN_IF_ERROR(ReadLength(reader, tag));
  switch (tag) {
    case kArrayString:
    case kArrayShortString:
      return ReadString(reader, scratch, value);
    case kArrayInteger:
      PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(bits));
      value = Render(static_cast<int64_t>(bits), text);
      return {};
    case kArrayDouble:
      PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(bits));
      std::memcpy(&number, &bits, sizeof(number));
      if (!std::isfinite(number)) return reader.Corrupt("an element is not a number");
      value = Render(number, text);
      return {};
    default:
      return reader.Corrupt("unknown kind " + std::to_string(tag) + " of an array's element");
  }
}

}  // namespace

Status DecodeArray(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  std::array<char, 32> text{};
  uint64_t count = 0;
  uint64_t has_next = 0;
  uint64_t next = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  PRM_RETURN_IF_ERROR(ReadLength(reader, has_next));
  if (has_next != 0) PRM_RETURN_IF_ERROR(ReadLength(reader, next));
  uint64_t last = 0;
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t index = 0;
    Bytes value;
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(ReadLength(reader, index));
    if (i > 0 && index <= last) return reader.Corrupt("the indexes of an array do not ascend");
    last = index;
    PRM_RETURN_IF_ERROR(ReadElement(reader, scratch, text, value));
    visitor.OnArrayElement(index, value);
  }
  return {};
}

}  // namespace prm::rdb
