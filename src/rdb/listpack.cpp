#include "rdb/listpack.h"

#include <string>

namespace prm::rdb {

namespace {

constexpr char kEndMark = '\xff';
constexpr uint16_t kUnknownCount = 0xffff;

// The first byte of an element. Short encodings hold the upper bits of an integer or a length.
constexpr uint8_t kInt13Mask = 0xe0, kInt13 = 0xc0;
constexpr uint8_t kString6Mask = 0xc0, kString6 = 0x80;
constexpr uint8_t kString12Mask = 0xf0, kString12 = 0xe0;
constexpr uint8_t kUint7Mask = 0x80, kUint7 = 0x00;
constexpr uint8_t kString32 = 0xf0;
constexpr uint8_t kInt16 = 0xf1;
constexpr uint8_t kInt24 = 0xf2;
constexpr uint8_t kInt32 = 0xf3;
constexpr uint8_t kInt64 = 0xf4;

// The number of bytes of the back length of an element of `length` bytes. The bounds are those of Redis,
// which encodes 16383 and its like in the next size.
size_t BackLengthSize(size_t length) {
  if (length <= 127) return 1;
  if (length < 16383) return 2;
  if (length < 2097151) return 3;
  if (length < 268435455) return 4;
  return 5;
}

}  // namespace

Status ListpackReader::Open() {
  uint32_t size = 0;
  PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(size));
  PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(stated_count_));
  if (size != blob_.size()) {
    return Corrupt("its header says " + std::to_string(size) + " bytes, it has " +
                   std::to_string(blob_.size()));
  }
  if (blob_.back() != kEndMark) return Corrupt("it has no end mark");
  return CheckCount();
}

Status ListpackReader::Next(PackedElement& element) {
  if (NextShort(element)) return AtEnd() ? CheckCount() : Status();
  if (AtEnd()) return Corrupt("it ends where an element is expected");
  const size_t start = reader_.offset();
  PRM_RETURN_IF_ERROR(ReadElement(element));
  PRM_RETURN_IF_ERROR(ReadBackLength(reader_.offset() - start));
  ++count_;
  return CheckCount();
}

// Most elements are strings of at most 63 bytes or integers of at most 13 bits: they have one byte before
// them, or two that are the integer, and one behind them. False, at the same place: it is another element, or
// damaged.
bool ListpackReader::NextShort(PackedElement& element) {
  const Bytes rest = reader_.rest();
  if (rest.size() < 2) return false;
  const auto first = static_cast<uint8_t>(rest[0]);
  size_t length = 1;
  if ((first & kString6Mask) == kString6)
    length = 1 + (first & 0x3fu);
  else if ((first & kInt13Mask) == kInt13)
    length = 2;
  else if ((first & kUint7Mask) != kUint7)
    return false;
  if (rest.size() <= length || static_cast<uint8_t>(rest[length]) != length) return false;
  if ((first & kUint7Mask) == kUint7)
    element.SetInteger(first);
  else if ((first & kString6Mask) == kString6)
    element.SetText(rest.substr(1, length - 1));
  else
    element.SetInteger(SignExtend((first & 0x1fu) << 8 | static_cast<uint8_t>(rest[1]), 13));
  reader_.Pass(length + 1);
  ++count_;
  return true;
}

Status ListpackReader::NextInteger(int64_t& value) {
  PackedElement element;
  PRM_RETURN_IF_ERROR(Next(element));
  if (!element.is_integer()) return Corrupt("a string is found where an integer is expected");
  value = element.integer();
  return {};
}

Status ListpackReader::CheckCount() const {
  if (!AtEnd() || stated_count_ == kUnknownCount || stated_count_ == count_) return {};
  return Corrupt("its header says " + std::to_string(stated_count_) + " elements, it has " +
                 std::to_string(count_));
}

Status ListpackReader::ReadElement(PackedElement& element) {
  uint8_t first = 0;
  uint8_t second = 0;
  uint64_t length = 0;
  PRM_RETURN_IF_ERROR(reader_.ReadByte(first));
  if ((first & kUint7Mask) == kUint7) {
    element.SetInteger(first);
    return {};
  }
  if ((first & kInt13Mask) == kInt13) {
    PRM_RETURN_IF_ERROR(reader_.ReadByte(second));
    element.SetInteger(SignExtend((first & 0x1fu) << 8 | second, 13));
    return {};
  }
  if ((first & kString6Mask) == kString6) {
    length = first & 0x3fu;
  } else if ((first & kString12Mask) == kString12) {
    PRM_RETURN_IF_ERROR(reader_.ReadByte(second));
    length = (first & 0x0fu) << 8 | second;
  } else {
    switch (first) {
      case kInt16:
        return ReadInteger<uint16_t>(reader_, element);
      case kInt24: {
        uint16_t low = 0;
        PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(low));
        PRM_RETURN_IF_ERROR(reader_.ReadByte(second));
        element.SetInteger(SignExtend(uint64_t{second} << 16 | low, 24));
        return {};
      }
      case kInt32:
        return ReadInteger<uint32_t>(reader_, element);
      case kInt64:
        return ReadInteger<uint64_t>(reader_, element);
      case kString32: {
        uint32_t long_length = 0;
        PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(long_length));
        length = long_length;
        break;
      }
      default:
        return Corrupt("unknown element encoding " + std::to_string(first));
    }
  }
  Bytes text;
  PRM_RETURN_IF_ERROR(reader_.ReadBytes(length, text));
  element.SetText(text);
  return {};
}

// Each element is followed by its length, seven bits per byte, most significant first, all bytes but the
// first with the high bit set: Redis reads it backwards.
Status ListpackReader::ReadBackLength(size_t length) {
  const size_t size = BackLengthSize(length);
  for (size_t i = 0; i < size; ++i) {
    uint8_t byte = 0;
    PRM_RETURN_IF_ERROR(reader_.ReadByte(byte));
    const size_t bits = length >> (7 * (size - 1 - i)) & 0x7f;
    if (byte != (bits | (i == 0 ? 0u : 0x80u))) return Corrupt("wrong back length of an element");
  }
  return {};
}

}  // namespace prm::rdb
