#include "rdb/object.h"

#include <charconv>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "rdb/encoded_string.h"
#include "rdb/intset.h"
#include "rdb/listpack.h"
#include "rdb/stream.h"

namespace prm::rdb {

namespace {

enum RdbType : uint8_t {
  kString = 0,
  kList = 1,
  kSet = 2,
  kHash = 4,
  kZset2 = 5,
  kSetIntset = 11,
  kStreamListpacks = 15,
  kHashListpack = 16,
  kZsetListpack = 17,
  kListQuicklist2 = 18,
  kStreamListpacks2 = 19,
  kSetListpack = 20,
  kStreamListpacks3 = 21,
};

// How a node of a quicklist holds its elements.
enum QuicklistContainer : uint64_t { kPlain = 1, kPacked = 2 };

Error UnsupportedType(uint8_t rdb_type, unsigned rdb_version) {
  return {
      ErrorCode::kUnsupported,
      "unsupported value type " + std::to_string(rdb_type) + " of RDB version " + std::to_string(rdb_version),
      {},
      {}};
}

// The score of a member in a listpack: an integer, or text as C's strtod reads it. from_chars does not depend
// on the locale.
Status ScoreOf(ListpackElement& element, const ListpackReader& listpack, double& score) {
  if (element.is_integer()) {
    score = static_cast<double>(element.integer());
    return {};
  }
  const Bytes text = element.bytes();
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), score);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    return listpack.Corrupt("a score is not a number");
  }
  return {};
}

// Opens a listpack that is stored as a string and calls decode_element(listpack) until it is read.
template <typename DecodeElement>
Status DecodeListpack(Bytes blob, size_t place, DecodeElement decode_element) {
  ListpackReader listpack(blob, place);
  PRM_RETURN_IF_ERROR(listpack.Open());
  while (!listpack.AtEnd()) PRM_RETURN_IF_ERROR(decode_element(listpack));
  return {};
}

Status DecodeListpackList(Bytes blob, size_t place, ValueVisitor& visitor) {
  return DecodeListpack(blob, place, [&visitor](ListpackReader& listpack) -> Status {
    ListpackElement element;
    PRM_RETURN_IF_ERROR(listpack.Next(element));
    visitor.OnListElement(element.bytes());
    return {};
  });
}

Status DecodeListpackSet(Bytes blob, size_t place, ValueVisitor& visitor) {
  return DecodeListpack(blob, place, [&visitor](ListpackReader& listpack) -> Status {
    ListpackElement member;
    PRM_RETURN_IF_ERROR(listpack.Next(member));
    visitor.OnSetMember(member.bytes());
    return {};
  });
}

Status DecodeListpackHash(Bytes blob, size_t place, ValueVisitor& visitor) {
  return DecodeListpack(blob, place, [&visitor](ListpackReader& listpack) -> Status {
    ListpackElement field;
    ListpackElement value;
    PRM_RETURN_IF_ERROR(listpack.Next(field));
    PRM_RETURN_IF_ERROR(listpack.Next(value));
    visitor.OnHashField(field.bytes(), value.bytes());
    return {};
  });
}

Status DecodeListpackZset(Bytes blob, size_t place, ValueVisitor& visitor) {
  return DecodeListpack(blob, place, [&visitor](ListpackReader& listpack) -> Status {
    ListpackElement member;
    ListpackElement text;
    double score = 0;
    PRM_RETURN_IF_ERROR(listpack.Next(member));
    PRM_RETURN_IF_ERROR(listpack.Next(text));
    PRM_RETURN_IF_ERROR(ScoreOf(text, listpack, score));
    visitor.OnZsetMember(member.bytes(), score);
    return {};
  });
}

// A string that holds a whole collection.
template <typename DecodeBlobFunction>
Status DecodeBlob(ByteReader& reader, ValueVisitor& visitor, DecodeBlobFunction decode) {
  std::string scratch;
  Bytes blob;
  const size_t place = reader.offset();
  PRM_RETURN_IF_ERROR(ReadString(reader, scratch, blob));
  return decode(blob, place, visitor);
}

// A number of elements, then the elements. decode_element() reads one; each takes at least a byte, so a
// number that is too great ends at the end of the input.
template <typename DecodeElement>
Status DecodeSequence(ByteReader& reader, DecodeElement decode_element) {
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  for (uint64_t i = 0; i < count; ++i) PRM_RETURN_IF_ERROR(decode_element());
  return {};
}

Status DecodeString(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  Bytes value;
  PRM_RETURN_IF_ERROR(ReadString(reader, scratch, value));
  visitor.OnString(value);
  return {};
}

Status DecodeList(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  return DecodeSequence(reader, [&]() -> Status {
    Bytes element;
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, element));
    visitor.OnListElement(element);
    return {};
  });
}

Status DecodeQuicklist2(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  return DecodeSequence(reader, [&]() -> Status {
    uint64_t container = 0;
    Bytes node;
    PRM_RETURN_IF_ERROR(ReadLength(reader, container));
    if (container != kPlain && container != kPacked) {
      return reader.Corrupt("unknown container " + std::to_string(container) + " of a list node");
    }
    const size_t place = reader.offset();
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, node));
    if (container == kPacked) return DecodeListpackList(node, place, visitor);
    visitor.OnListElement(node);
    return {};
  });
}

Status DecodeSet(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  return DecodeSequence(reader, [&]() -> Status {
    Bytes member;
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, member));
    visitor.OnSetMember(member);
    return {};
  });
}

Status DecodeHash(ByteReader& reader, ValueVisitor& visitor) {
  std::string field_scratch;
  std::string value_scratch;
  return DecodeSequence(reader, [&]() -> Status {
    Bytes field;
    Bytes value;
    PRM_RETURN_IF_ERROR(ReadString(reader, field_scratch, field));
    PRM_RETURN_IF_ERROR(ReadString(reader, value_scratch, value));
    visitor.OnHashField(field, value);
    return {};
  });
}

// Written from the highest score to the lowest, ties too (rdb.c, rdbSaveObject), where listpacks go upwards.
Status DecodeZset2(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  std::vector<std::pair<std::string, double>> members;
  Status decoded = DecodeSequence(reader, [&]() -> Status {
    Bytes member;
    uint64_t bits = 0;
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, member));
    PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(bits));
    double score = 0;
    static_assert(sizeof(score) == sizeof(bits));
    std::memcpy(&score, &bits, sizeof(score));
    members.emplace_back(member, score);
    return {};
  });
  for (auto entry = members.rbegin(); entry != members.rend(); ++entry)
    visitor.OnZsetMember(entry->first, entry->second);
  return decoded;
}

}  // namespace

Result<ValueType> ObjectValueType(uint8_t rdb_type, unsigned rdb_version) {
  switch (rdb_type) {
    case kString:
      return ValueType::kString;
    case kList:
    case kListQuicklist2:
      return ValueType::kList;
    case kSet:
    case kSetIntset:
    case kSetListpack:
      return ValueType::kSet;
    case kZset2:
    case kZsetListpack:
      return ValueType::kZset;
    case kHash:
    case kHashListpack:
      return ValueType::kHash;
    case kStreamListpacks:
    case kStreamListpacks2:
    case kStreamListpacks3:
      return ValueType::kStream;
    default:
      return UnsupportedType(rdb_type, rdb_version);
  }
}

Status DecodeObject(uint8_t rdb_type, unsigned rdb_version, ByteReader& reader, ValueVisitor& visitor) {
  switch (rdb_type) {
    case kString:
      return DecodeString(reader, visitor);
    case kList:
      return DecodeList(reader, visitor);
    case kSet:
      return DecodeSet(reader, visitor);
    case kHash:
      return DecodeHash(reader, visitor);
    case kZset2:
      return DecodeZset2(reader, visitor);
    case kSetIntset:
      return DecodeBlob(reader, visitor, DecodeIntset);
    case kHashListpack:
      return DecodeBlob(reader, visitor, DecodeListpackHash);
    case kZsetListpack:
      return DecodeBlob(reader, visitor, DecodeListpackZset);
    case kSetListpack:
      return DecodeBlob(reader, visitor, DecodeListpackSet);
    case kListQuicklist2:
      return DecodeQuicklist2(reader, visitor);
    case kStreamListpacks:
      return DecodeStream(StreamLayout::kListpacks, reader, visitor);
    case kStreamListpacks2:
      return DecodeStream(StreamLayout::kListpacks2, reader, visitor);
    case kStreamListpacks3:
      return DecodeStream(StreamLayout::kListpacks3, reader, visitor);
    default:
      return UnsupportedType(rdb_type, rdb_version);
  }
}

}  // namespace prm::rdb
