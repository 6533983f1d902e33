#include "rdb/dump.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "rdb/byte_reader.h"
#include "rdb/crc64.h"
#include "rdb/endian.h"
#include "rdb/module.h"
#include "rdb/object.h"
#include "rdb/object_type.h"
#include "rdb/version.h"

namespace prm::rdb {

namespace {

constexpr size_t kTypeSize = 1;
constexpr size_t kVersionSize = 2;
constexpr size_t kChecksumSize = 8;
static_assert(kDumpFrameSize == kTypeSize + kVersionSize + kChecksumSize);
constexpr size_t kBytesBetweenChecks = size_t{1} << 20;
constexpr uint64_t kNotComputed = 0;  // the source runs with rdbchecksum no

struct Frame {
  size_t type_offset = 0;  // after the metadata of modules about the key
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
  Frame frame;
  frame.version = LoadLittleEndian<uint16_t>(trailer);
  frame.checksum = LoadLittleEndian<uint64_t>(trailer + kVersionSize);
  ByteReader reader(payload.substr(0, payload.size() - kVersionSize - kChecksumSize));
  PRM_RETURN_IF_ERROR(reader.ReadByte(frame.type));
  if (frame.type == kKeyMetadata && HasKeyMetadata(frame.version)) {
    PRM_RETURN_IF_ERROR(SkipKeyMetadata(reader));
    frame.type_offset = reader.offset();
    PRM_RETURN_IF_ERROR(reader.ReadByte(frame.type));
  }
  return frame;
}

uint64_t ChecksumOf(Bytes data, Interrupts& interrupts) {
  uint64_t crc = 0;
  for (size_t at = 0; at < data.size(); at += kBytesBetweenChecks) {
    interrupts.CheckInterrupts();
    crc = Crc64(data.substr(at, kBytesBetweenChecks), crc);
  }
  return crc;
}

}  // namespace

Result<ValueType> DumpType(Bytes payload) {
  const Result<Frame> frame = ParseFrame(payload);
  if (!frame.ok()) return frame.error();
  const Result<ObjectType> type = FindObjectType(frame.value().type, frame.value().version);
  if (!type.ok()) return type.error();
  return type.value().value;
}

std::optional<unsigned> DumpVersion(Bytes payload) {
  const Result<Frame> frame = ParseFrame(payload);
  if (!frame.ok()) return std::nullopt;
  return frame.value().version;
}

bool MayHaveExpiringFields(Bytes payload) {
  const Result<Frame> frame = ParseFrame(payload);
  if (!frame.ok()) return false;
  const Result<ObjectType> type = FindObjectType(frame.value().type, frame.value().version);
  return type.ok() && HasExpiringFields(type.value().layout);
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
  if (frame.checksum != kNotComputed &&
      frame.checksum != ChecksumOf(payload.substr(0, checksum_offset), visitor)) {
    return Error{ErrorCode::kCorruptData,
                 "corrupt DUMP payload: the checksum at byte " + std::to_string(checksum_offset) +
                     " is not that of the bytes before it",
                 {},
                 {}};
  }
  ByteReader reader(payload.substr(0, checksum_offset - kVersionSize));
  PRM_RETURN_IF_ERROR(reader.Skip(frame.type_offset + kTypeSize));
  const Result<ObjectType> found = FindObjectType(frame.type, frame.version);
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
