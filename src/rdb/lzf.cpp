#include "rdb/lzf.h"

#include <cstring>

#include "rdb/byte_reader.h"

namespace prm::rdb {

namespace {

// The longest repetition, 264 bytes, takes three bytes of input: the highest possible ratio.
constexpr uint64_t kMaxExpansion = 88;
constexpr uint64_t kMaxSize = uint64_t{1} << 30;
constexpr uint64_t kItemsBetweenChecks = 1 << 16;

// The first byte of an item: below 32, that many plus one literal bytes follow; otherwise its upper three
// bits are the length of a repetition (7: one more byte is added) and the lower five, with one more byte, the
// distance back.
constexpr uint8_t kFirstRepetition = 32;
constexpr size_t kLongRepetition = 7;
constexpr size_t kMinRepetition = 2;

// The source overlaps the destination when a repetition is longer than its distance.
void CopyRepetition(char* to, size_t distance, size_t length) {
  const char* from = to - distance;
  if (distance >= length) {
    std::memcpy(to, from, length);
  } else {
    for (size_t i = 0; i < length; ++i) to[i] = from[i];
  }
}

}  // namespace

Status LzfDecompress(Bytes compressed, uint64_t size, std::string& output, uint64_t place,
                     Interrupts* interrupts) {
  ByteReader reader(compressed, "compressed string", place);
  if (size / kMaxExpansion > compressed.size()) {
    return reader.Corrupt(std::to_string(compressed.size()) + " bytes cannot expand to " +
                          std::to_string(size));
  }
  if (size > kMaxSize) {
    return Error{ErrorCode::kTooLarge, "compressed string of " + std::to_string(size) + " bytes", {}, {}};
  }
  output.resize(static_cast<size_t>(size));
  size_t filled = 0;
  for (uint64_t items = 1; !reader.AtEnd(); ++items) {
    if (items % kItemsBetweenChecks == 0 && interrupts != nullptr) interrupts->CheckInterrupts();
    uint8_t control = 0;
    PRM_RETURN_IF_ERROR(reader.ReadByte(control));
    if (control < kFirstRepetition) {
      Bytes literal;
      PRM_RETURN_IF_ERROR(reader.ReadBytes(control + 1u, literal));
      if (literal.size() > output.size() - filled) return reader.Corrupt("it expands to more than its size");
      std::memcpy(output.data() + filled, literal.data(), literal.size());
      filled += literal.size();
      continue;
    }
    size_t length = control >> 5;
    uint8_t byte = 0;
    if (length == kLongRepetition) {
      PRM_RETURN_IF_ERROR(reader.ReadByte(byte));
      length += byte;
    }
    length += kMinRepetition;
    PRM_RETURN_IF_ERROR(reader.ReadByte(byte));
    const size_t distance = ((control & 0x1fu) << 8 | byte) + 1;
    if (distance > filled) return reader.Corrupt("a repetition begins before the string");
    if (length > output.size() - filled) return reader.Corrupt("it expands to more than its size");
    CopyRepetition(output.data() + filled, distance, length);
    filled += length;
  }
  if (filled != output.size()) return reader.Corrupt("it expands to less than its size");
  return {};
}

}  // namespace prm::rdb
