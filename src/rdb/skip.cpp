// Finds the end of a value.
#include <cstdint>

#include "rdb/array.h"
#include "rdb/encoded_string.h"
#include "rdb/hash_template.h"
#include "rdb/module.h"
#include "rdb/object.h"
#include "rdb/skip.h"
#include "rdb/stream.h"

namespace prm::rdb {

namespace {

constexpr uint64_t kTimeSize = 8;
constexpr uint64_t kIntegerSize = 8;
constexpr uint8_t kLongestScore = 252;  // higher values mean infinities and NaN

// Skips items, each of `lengths` lengths, then `strings` strings, then `bytes` bytes.
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

// See array.cpp.
Status SkipArray(ByteReader& reader) {
  uint64_t count = 0;
  uint64_t has_next = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  PRM_RETURN_IF_ERROR(ReadLength(reader, has_next));
  if (has_next != 0) PRM_RETURN_IF_ERROR(SkipLengths(reader, 1));
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t tag = 0;
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(SkipLengths(reader, 1));
    PRM_RETURN_IF_ERROR(ReadLength(reader, tag));
    const bool is_number = tag == kArrayInteger || tag == kArrayDouble;
    PRM_RETURN_IF_ERROR(is_number ? reader.Skip(kIntegerSize) : SkipString(reader));
  }
  return {};
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
      return SkipStream(StreamLayout::kListpacks, reader);
    case Layout::kStream2:
      return SkipStream(StreamLayout::kListpacks2, reader);
    case Layout::kStream3:
      return SkipStream(StreamLayout::kListpacks3, reader);
    case Layout::kStream4:
      return SkipStream(StreamLayout::kListpacks4, reader);
    case Layout::kStream5:
      return SkipStream(StreamLayout::kListpacks5, reader);
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
    case Layout::kArray:
      return SkipArray(reader);
    case Layout::kTemplateListpack:
    case Layout::kTemplateArray:
      return SkipTemplateHash(layout, reader);
    case Layout::kTemplateListpackRef:
    case Layout::kTemplateArrayRef:
      return reader.Corrupt("its fields are in a template of the file");
  }
  return reader.Corrupt("unknown layout");
}

}  // namespace prm::rdb
