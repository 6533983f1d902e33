#include "rdb/zipmap.h"

#include <string>

#include "rdb/byte_reader.h"

namespace prm::rdb {

namespace {

constexpr uint8_t kUnknownCount = 254;  // this and more
constexpr uint8_t kLongLength = 254;    // four bytes of length follow
constexpr uint8_t kEnd = 255;

Status ReadLength(ByteReader& reader, uint8_t first, uint32_t& length) {
  length = first;
  return first == kLongLength ? reader.ReadLittleEndian(length) : Status();
}

}  // namespace

Status DecodeZipmap(Bytes blob, uint64_t place, ValueVisitor& visitor) {
  ByteReader reader(blob, "zipmap", place);
  uint8_t stated_count = 0;
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(reader.ReadByte(stated_count));
  for (;;) {
    uint8_t first = 0;
    uint32_t length = 0;
    Bytes field;
    Bytes value;
    visitor.CheckInterrupts();
    PRM_RETURN_IF_ERROR(reader.ReadByte(first));
    if (first == kEnd) break;
    PRM_RETURN_IF_ERROR(ReadLength(reader, first, length));
    PRM_RETURN_IF_ERROR(reader.ReadBytes(length, field));
    PRM_RETURN_IF_ERROR(reader.ReadByte(first));
    if (first == kEnd) return reader.Corrupt("it ends where a value is expected");
    PRM_RETURN_IF_ERROR(ReadLength(reader, first, length));
    uint8_t unused = 0;  // bytes after the value
    PRM_RETURN_IF_ERROR(reader.ReadByte(unused));
    PRM_RETURN_IF_ERROR(reader.ReadBytes(length, value));
    PRM_RETURN_IF_ERROR(reader.Skip(unused));
    visitor.OnHashField(field, value);
    ++count;
  }
  if (!reader.AtEnd())
    return reader.Corrupt(std::to_string(reader.remaining()) + " bytes are left after its end");
  if (stated_count < kUnknownCount && stated_count != count) {
    return reader.Corrupt("its header says " + std::to_string(stated_count) + " fields, it has " +
                          std::to_string(count));
  }
  return {};
}

}  // namespace prm::rdb
