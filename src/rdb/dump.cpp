#include "rdb/dump.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "rdb/byte_reader.h"
#include "rdb/crc64.h"
#include "rdb/endian.h"
#include "rdb/object.h"
#include "rdb/object_type.h"
#include "rdb/version.h"

namespace prm::rdb {

namespace {

constexpr size_t kTypeSize = 1;
constexpr size_t kVersionSize = 2;
constexpr size_t kChecksumSize = 8;
static_assert(kDumpFrameSize == kTypeSize + kVersionSize + kChecksumSize);
constexpr uint64_t kNotComputed = 0;  // the source runs with rdbchecksum no

struct Frame {
  uint8_t type = 0;
  unsigned version = 0;
  uint64_t checksum = 0;
};

Result<Frame> ParseFrame(Bytes payload) {
  if (payload.size() < kDumpFrameSize) {
    return Error{ErrorCode::kCorruptData,
                 "corrupt DUMP payload: " + std::to_string(payload.size()) + " bytes, at least " +
                     std::to_string(kDumpFrameSize) + " expected",
                 {},
                 {}};
  }
  const char* const trailer = payload.data() + payload.size() - kVersionSize - kChecksumSize;
  return Frame{static_cast<uint8_t>(payload[0]), LoadLittleEndian<uint16_t>(trailer),
               LoadLittleEndian<uint64_t>(trailer + kVersionSize)};
}

}  // namespace

Result<ValueType> DumpType(Bytes payload) {
  const Result<Frame> frame = ParseFrame(payload);
  if (!frame.ok()) return frame.error();
  const Result<ObjectType> type = FindObjectType(frame.value().type, frame.value().version);
  if (!type.ok()) return type.error();
  return type.value().value;
}

bool CanDecodeDump(Bytes payload) {
  const Result<Frame> frame = ParseFrame(payload);
  return frame.ok() && IsSupportedVersion(frame.value().version) &&
         FindObjectType(frame.value().type, frame.value().version).ok();
}

Status DecodeDump(Bytes payload, ValueVisitor& visitor) {
  const Result<Frame> parsed = ParseFrame(payload);
  if (!parsed.ok()) return parsed.error();
  const Frame& frame = parsed.value();
  // The version comes before the checksum: a newer version may sum differently.
  if (!IsSupportedVersion(frame.version)) {
    return Error{ErrorCode::kUnsupported,
                 "unsupported RDB version " + std::to_string(frame.version) + " of a DUMP payload",
                 kVersionsRead,
                 {}};
  }
  const size_t checksum_offset = payload.size() - kChecksumSize;
  if (frame.checksum != kNotComputed && frame.checksum != Crc64(payload.substr(0, checksum_offset))) {
    return Error{ErrorCode::kCorruptData,
                 "corrupt DUMP payload: the checksum at byte " + std::to_string(checksum_offset) +
                     " is not that of the bytes before it",
                 {},
                 {}};
  }
  ByteReader reader(payload.substr(0, checksum_offset - kVersionSize));
  uint8_t type = 0;
  PRM_RETURN_IF_ERROR(reader.ReadByte(type));
  const Result<ObjectType> found = FindObjectType(type, frame.version);
  if (!found.ok()) return found.error();
  PRM_RETURN_IF_ERROR(DecodeObject(found.value().layout, reader, visitor));
  if (!reader.AtEnd()) {
    return reader.Corrupt(std::to_string(reader.remaining()) + " bytes are left after the value");
  }
  return {};
}

void AppendDumpTrailer(unsigned version, std::string& payload) {
  AppendLittleEndian(payload, version, kVersionSize);
  AppendLittleEndian(payload, Crc64(payload), kChecksumSize);
}

}  // namespace prm::rdb
