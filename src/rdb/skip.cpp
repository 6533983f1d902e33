// Finds the end of a value.
#include <cstdint>

#include "rdb/encoded_string.h"
#include "rdb/module.h"
#include "rdb/object.h"

namespace prm::rdb {

namespace {

constexpr uint64_t kIdSize = 16;
constexpr uint64_t kTimeSize = 8;
constexpr uint8_t kLongestScore = 252;  // longer ones stand for numbers without digits

Status SkipLengths(ByteReader& reader, int count) {
  uint64_t ignored = 0;
  for (int i = 0; i < count; ++i) PRM_RETURN_IF_ERROR(ReadLength(reader, ignored));
  return {};
}

Status SkipStrings(ByteReader& reader, int count) {
  for (int i = 0; i < count; ++i) PRM_RETURN_IF_ERROR(SkipString(reader));
  return {};
}

// A number of items, and the items.
template <typename SkipItem>
Status SkipItems(ByteReader& reader, SkipItem skip_item) {
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  for (uint64_t i = 0; i < count; ++i) PRM_RETURN_IF_ERROR(skip_item());
  return {};
}

// Items of so many lengths, then so many strings, then so many bytes.
Status SkipUniform(ByteReader& reader, int lengths, int strings, uint64_t bytes) {
  return SkipItems(reader, [&]() -> Status {
    PRM_RETURN_IF_ERROR(SkipLengths(reader, lengths));
    PRM_RETURN_IF_ERROR(SkipStrings(reader, strings));
    return reader.Skip(bytes);
  });
}

Status SkipTextScore(ByteReader& reader) {
  uint8_t length = 0;
  PRM_RETURN_IF_ERROR(reader.ReadByte(length));
  return length <= kLongestScore ? reader.Skip(length) : Status();
}

// See stream.cpp.
Status SkipStream(ByteReader& reader, bool has_counters, bool has_active_times) {
  PRM_RETURN_IF_ERROR(SkipUniform(reader, 0, 2, 0));
  PRM_RETURN_IF_ERROR(SkipLengths(reader, has_counters ? 8 : 3));
  return SkipItems(reader, [&]() -> Status {
    PRM_RETURN_IF_ERROR(SkipString(reader));
    PRM_RETURN_IF_ERROR(SkipLengths(reader, has_counters ? 3 : 2));
    const Status deliveries = SkipItems(reader, [&]() -> Status {
      PRM_RETURN_IF_ERROR(reader.Skip(kIdSize + kTimeSize));
      return SkipLengths(reader, 1);
    });
    if (!deliveries.ok()) return deliveries;
    return SkipItems(reader, [&]() -> Status {
      PRM_RETURN_IF_ERROR(SkipString(reader));
      PRM_RETURN_IF_ERROR(reader.Skip(has_active_times ? 2 * kTimeSize : kTimeSize));
      return SkipUniform(reader, 0, 0, kIdSize);
    });
  });
}

}  // namespace

Status SkipObject(Layout layout, ByteReader& reader) {
  switch (layout) {
    case Layout::kString:
    case Layout::kHashZipmap:
    case Layout::kListZiplist:
    case Layout::kHashZiplist:
    case Layout::kZsetZiplist:
    case Layout::kSetIntset:
    case Layout::kHashListpack:
    case Layout::kZsetListpack:
    case Layout::kSetListpack:
    case Layout::kExpiringListpackDraft:
      return SkipString(reader);
    case Layout::kList:
    case Layout::kSet:
    case Layout::kListOfZiplists:
      return SkipUniform(reader, 0, 1, 0);
    case Layout::kHash:
      return SkipUniform(reader, 0, 2, 0);
    case Layout::kZset:
      return SkipUniform(reader, 0, 1, sizeof(double));
    case Layout::kZsetOfTexts:
      return SkipItems(reader, [&]() -> Status {
        PRM_RETURN_IF_ERROR(SkipString(reader));
        return SkipTextScore(reader);
      });
    case Layout::kModule:
      PRM_RETURN_IF_ERROR(SkipLengths(reader, 1));
      return SkipModuleParts(reader);
    case Layout::kListOfNodes:
      return SkipUniform(reader, 1, 1, 0);
    case Layout::kStream:
      return SkipStream(reader, false, false);
    case Layout::kStream2:
      return SkipStream(reader, true, false);
    case Layout::kStream3:
      return SkipStream(reader, true, true);
    case Layout::kExpiringHash:
      PRM_RETURN_IF_ERROR(reader.Skip(kTimeSize));
      return SkipUniform(reader, 1, 2, 0);
    case Layout::kExpiringHashDraft:
      return SkipUniform(reader, 1, 2, 0);
    case Layout::kExpiringListpack:
      PRM_RETURN_IF_ERROR(reader.Skip(kTimeSize));
      return SkipString(reader);
    case Layout::kValkeyExpiringHash:
      return SkipUniform(reader, 0, 2, kTimeSize);
  }
  return reader.Corrupt("unknown layout");
}

}  // namespace prm::rdb
