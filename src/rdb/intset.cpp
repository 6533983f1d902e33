#include "rdb/intset.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <string>

#include "rdb/byte_reader.h"

namespace prm::rdb {

namespace {

template <typename Unsigned, typename Signed>
Status DecodeMembers(ByteReader& reader, ValueVisitor& visitor) {
  std::array<char, 20> digits{};  // "-9223372036854775808"
  while (!reader.AtEnd()) {
    Unsigned member = 0;
    visitor.CheckInterrupts();
    PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(member));
    const auto rendered =
        std::to_chars(digits.data(), digits.data() + digits.size(), static_cast<Signed>(member));
    visitor.OnSetMember(Bytes(digits.data(), static_cast<size_t>(rendered.ptr - digits.data())));
  }
  return {};
}

}  // namespace

Status DecodeIntset(Bytes blob, uint64_t place, ValueVisitor& visitor) {
  ByteReader reader(blob, "intset", place);
  uint32_t width = 0;
  uint32_t count = 0;
  PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(width));
  PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(count));
  if (width != 2 && width != 4 && width != 8) {
    return reader.Corrupt("its integers have " + std::to_string(width) + " bytes");
  }
  if (uint64_t{width} * count != reader.remaining()) {
    return reader.Corrupt(std::to_string(count) + " integers of " + std::to_string(width) +
                          " bytes expected, " + std::to_string(reader.remaining()) + " bytes left");
  }
  if (width == 2) return DecodeMembers<uint16_t, int16_t>(reader, visitor);
  if (width == 4) return DecodeMembers<uint32_t, int32_t>(reader, visitor);
  return DecodeMembers<uint64_t, int64_t>(reader, visitor);
}

}  // namespace prm::rdb
