#include "rdb/ziplist.h"

#include <string>

namespace prm::rdb {

namespace {

constexpr char kEndMark = '\xff';
constexpr uint16_t kUnknownCount = 0xffff;
constexpr uint8_t kLongSize = 0xfe;  // four bytes with the size of the previous element follow

// The byte after that size. Its upper two bits give the kind of the length of a string, or mark an integer.
constexpr uint8_t kStringMask = 0xc0, kString6 = 0x00, kString14 = 0x40, kString32 = 0x80;
constexpr uint8_t kInt16 = 0xc0, kInt32 = 0xd0, kInt64 = 0xe0, kInt24 = 0xf0, kInt8 = 0xfe;
constexpr uint8_t kFirstSmall = 0xf1, kLastSmall = 0xfd;  // 0 to 12

}  // namespace

Status ZiplistReader::Open() {
  uint32_t size = 0;
  PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(size));
  PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(stated_tail_));
  PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(stated_count_));
  if (size != blob_.size()) {
    return Corrupt("its header says " + std::to_string(size) + " bytes, it has " +
                   std::to_string(blob_.size()));
  }
  if (blob_.back() != kEndMark) return Corrupt("it has no end mark");
  last_ = reader_.offset();
  return CheckEnd();
}

Status ZiplistReader::Next(PackedElement& element) {
  if (AtEnd()) return Corrupt("it ends where an element is expected");
  const uint64_t start = reader_.offset();
  uint8_t size_before = 0;
  uint32_t long_size_before = 0;
  PRM_RETURN_IF_ERROR(reader_.ReadByte(size_before));
  if (size_before == kLongSize) PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(long_size_before));
  if ((size_before == kLongSize ? long_size_before : size_before) != last_size_) {
    return Corrupt("an element does not say how long the one before it is");
  }
  PRM_RETURN_IF_ERROR(ReadElement(element));
  last_ = start;
  last_size_ = reader_.offset() - start;
  ++count_;
  return CheckEnd();
}

Status ZiplistReader::CheckEnd() const {
  if (!AtEnd()) return {};
  if (stated_count_ != kUnknownCount && stated_count_ != count_) {
    return Corrupt("its header says " + std::to_string(stated_count_) + " elements, it has " +
                   std::to_string(count_));
  }
  if (stated_tail_ != last_) {
    return Corrupt("its header says that the last element is at byte " + std::to_string(stated_tail_) +
                   ", it is at " + std::to_string(last_));
  }
  return {};
}

Status ZiplistReader::ReadElement(PackedElement& element) {
  uint8_t first = 0;
  uint8_t second = 0;
  uint32_t length = 0;
  PRM_RETURN_IF_ERROR(reader_.ReadByte(first));
  switch (first & kStringMask) {
    case kString6:
      length = first;
      break;
    case kString14:
      PRM_RETURN_IF_ERROR(reader_.ReadByte(second));
      length = (first & 0x3fu) << 8 | second;
      break;
    case kString32:
      PRM_RETURN_IF_ERROR(reader_.ReadBigEndian(length));
      break;
    default:
      if (first == kInt8) return ReadInteger<uint8_t>(reader_, element);
      if (first == kInt16) return ReadInteger<uint16_t>(reader_, element);
      if (first == kInt32) return ReadInteger<uint32_t>(reader_, element);
      if (first == kInt64) return ReadInteger<uint64_t>(reader_, element);
      if (first == kInt24) {
        uint16_t low = 0;
        PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(low));
        PRM_RETURN_IF_ERROR(reader_.ReadByte(second));
        element.SetInteger(SignExtend(uint64_t{second} << 16 | low, 24));
        return {};
      }
      if (first < kFirstSmall || first > kLastSmall) {
        return Corrupt("unknown element encoding " + std::to_string(first));
      }
      element.SetInteger(first - kFirstSmall);
      return {};
  }
  Bytes text;
  PRM_RETURN_IF_ERROR(reader_.ReadBytes(length, text));
  element.SetText(text);
  return {};
}

}  // namespace prm::rdb
