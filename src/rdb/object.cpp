#include "rdb/object.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "rdb/array.h"
#include "rdb/encoded_string.h"
#include "rdb/expiring_hash.h"
#include "rdb/hash_template.h"
#include "rdb/intset.h"
#include "rdb/listpack.h"
#include "rdb/module.h"
#include "rdb/score.h"
#include "rdb/stream.h"
#include "rdb/ziplist.h"
#include "rdb/zipmap.h"

namespace prm::rdb {

namespace {

// The encodings of a node of a quicklist.
enum QuicklistContainer : uint64_t { kPlain = 1, kPacked = 2 };

// The score of a member in a listpack or ziplist: an integer, or text.
template <typename Reader>
Status ScoreOf(PackedElement& element, const Reader& reader, double& score) {
  if (element.is_integer()) {
    score = static_cast<double>(element.integer());
    return {};
  }
  return ParseScore(element.bytes(), score) ? Status() : Status(reader.Corrupt("a score is not a number"));
}

// Opens a listpack or ziplist that is stored as a string and calls decode_element(reader) for each element.
template <typename Reader, typename DecodeElement>
Status DecodePacked(Bytes blob, uint64_t place, ValueVisitor& visitor, DecodeElement decode_element) {
  Reader reader(blob, place);
  PRM_RETURN_IF_ERROR(reader.Open());
  while (!reader.AtEnd()) {
    visitor.CheckInterrupts();
    PRM_RETURN_IF_ERROR(decode_element(reader));
  }
  return {};
}

template <typename Reader>
Status DecodePackedList(Bytes blob, uint64_t place, ValueVisitor& visitor) {
  return DecodePacked<Reader>(blob, place, visitor, [&visitor](Reader& reader) -> Status {
    PackedElement element;
    PRM_RETURN_IF_ERROR(reader.Next(element));
    visitor.OnListElement(element.bytes());
    return {};
  });
}

Status DecodeListpackSet(Bytes blob, uint64_t place, ValueVisitor& visitor) {
  return DecodePacked<ListpackReader>(blob, place, visitor, [&visitor](ListpackReader& reader) -> Status {
    PackedElement member;
    PRM_RETURN_IF_ERROR(reader.Next(member));
    visitor.OnSetMember(member.bytes());
    return {};
  });
}

template <typename Reader>
Status DecodePackedHash(Bytes blob, uint64_t place, ValueVisitor& visitor) {
  return DecodePacked<Reader>(blob, place, visitor, [&visitor](Reader& reader) -> Status {
    PackedElement field;
    PackedElement value;
    PRM_RETURN_IF_ERROR(reader.Next(field));
    PRM_RETURN_IF_ERROR(reader.Next(value));
    visitor.OnHashField(field.bytes(), value.bytes());
    return {};
  });
}

template <typename Reader>
Status DecodePackedZset(Bytes blob, uint64_t place, ValueVisitor& visitor) {
  return DecodePacked<Reader>(blob, place, visitor, [&visitor](Reader& reader) -> Status {
    PackedElement member;
    PackedElement text;
    double score = 0;
    PRM_RETURN_IF_ERROR(reader.Next(member));
    PRM_RETURN_IF_ERROR(reader.Next(text));
    PRM_RETURN_IF_ERROR(ScoreOf(text, reader, score));
    visitor.OnZsetMember(member.bytes(), score);
    return {};
  });
}

// A string that holds a whole collection.
template <typename DecodeBlobFunction>
Status DecodeBlob(ByteReader& reader, ValueVisitor& visitor, DecodeBlobFunction decode) {
  std::string scratch;
  Bytes blob;
  const uint64_t place = reader.offset();
  PRM_RETURN_IF_ERROR(ReadString(reader, scratch, blob));
  return decode(blob, place, visitor);
}

// A number of elements, then the elements. decode_element() reads one; each takes at least a byte, so a
// number that is too great ends at the end of the input.
template <typename DecodeElement>
Status DecodeSequence(ByteReader& reader, DecodeElement decode_element) {
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  for (uint64_t i = 0; i < count; ++i) {
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(decode_element());
  }
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

Status DecodeListOfZiplists(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  return DecodeSequence(reader, [&]() -> Status {
    Bytes node;
    const uint64_t place = reader.offset();
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, node));
    return DecodePackedList<ZiplistReader>(node, place, visitor);
  });
}

Status DecodeListOfNodes(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  return DecodeSequence(reader, [&]() -> Status {
    uint64_t container = 0;
    Bytes node;
    PRM_RETURN_IF_ERROR(ReadLength(reader, container));
    if (container != kPlain && container != kPacked) {
      return reader.Corrupt("unknown container " + std::to_string(container) + " of a list node");
    }
    const uint64_t place = reader.offset();
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, node));
    if (container == kPacked) return DecodePackedList<ListpackReader>(node, place, visitor);
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

// A score in eight bytes.
Status ReadBinaryScore(ByteReader& reader, double& score) {
  uint64_t bits = 0;
  PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(bits));
  static_assert(sizeof(score) == sizeof(bits));
  std::memcpy(&score, &bits, sizeof(score));
  return std::isnan(score) ? Status(reader.Corrupt("a score is not a number")) : Status();
}

// A score as text after its length; special lengths mean infinities and NaN: rdb.c, rdbLoadDoubleValue.
Status ReadTextScore(ByteReader& reader, double& score) {
  constexpr uint8_t kNan = 253, kInfinity = 254, kMinusInfinity = 255;
  uint8_t length = 0;
  PRM_RETURN_IF_ERROR(reader.ReadByte(length));
  if (length == kInfinity) score = std::numeric_limits<double>::infinity();
  if (length == kMinusInfinity) score = -std::numeric_limits<double>::infinity();
  if (length == kNan) return reader.Corrupt("a score is not a number");
  if (length > kNan) return {};
  std::string text;
  PRM_RETURN_IF_ERROR(reader.ReadInto(length, text));
  return ParseScore(text, score) ? Status() : Status(reader.Corrupt("a score is not a number"));
}

// RDB stores members from the highest score to the lowest, ties too (rdb.c, rdbSaveObject), listpacks in
// ascending order. They are read in blocks, to be passed on from the last one to the first: all but that one
// are read twice, so that only a block is held.
template <typename ReadScore>
Status DecodeZset(ByteReader& reader, ReadScore read_score, ValueVisitor& visitor) {
  constexpr size_t kMembersAtOnce = 4096;
  constexpr size_t kBytesAtOnce = size_t{1} << 20;
  constexpr size_t kWindowOfBlock = size_t{64} << 10;
  struct Block {
    ByteReader first;  // of data in memory: at its first member
    uint64_t place;    // of a stream: of its first member
    size_t count;
  };
  std::string scratch;
  std::vector<Block> blocks;
  std::vector<std::pair<std::string, double>> members;  // of one block
  size_t bytes = 0;
  const auto read = [&](ByteReader& from) -> Status {
    Bytes member;
    double score = 0;
    PRM_RETURN_IF_ERROR(ReadString(from, scratch, member));
    PRM_RETURN_IF_ERROR(read_score(from, score));
    members.emplace_back(member, score);
    bytes += member.size();
    return {};
  };
  const auto read_block = [&](ByteReader& from, size_t count) -> Status {
    while (members.size() < count) PRM_RETURN_IF_ERROR(read(from));
    return {};
  };
  PRM_RETURN_IF_ERROR(DecodeSequence(reader, [&]() -> Status {
    if (blocks.empty() || members.size() == kMembersAtOnce || bytes >= kBytesAtOnce) {
      members.clear();
      bytes = 0;
      blocks.push_back({reader, reader.offset(), 0});
    }
    ++blocks.back().count;
    return read(reader);
  }));
  while (!blocks.empty()) {
    for (auto entry = members.rbegin(); entry != members.rend(); ++entry) {
      visitor.CheckInterrupts();
      visitor.OnZsetMember(entry->first, entry->second);
    }
    blocks.pop_back();
    members.clear();
    if (blocks.empty()) break;
    Block& block = blocks.back();
    if (reader.is_stream()) {
      ByteStream stream(reader.source(), block.place, 0, kWindowOfBlock);
      ByteReader from(stream);
      PRM_RETURN_IF_ERROR(read_block(from, block.count));
    } else {
      PRM_RETURN_IF_ERROR(read_block(block.first, block.count));
    }
  }
  return {};
}

Status DecodeModule(ByteReader& reader, ValueVisitor& visitor) {
  uint64_t id = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, id));
  visitor.OnModuleValue(ModuleTypeName(id));
  return SkipModuleParts(reader);
}

// Lets the visitor cancel work on the reader's bytes, for a scope.
class InterruptScope {
 public:
  InterruptScope(ByteReader& reader, Interrupts& interrupts) : reader_(reader), before_(reader.interrupts()) {
    reader.set_interrupts(&interrupts);
  }
  ~InterruptScope() { reader_.set_interrupts(before_); }
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  ByteReader& reader_;
  Interrupts* before_;
};

}  // namespace

Status DecodeObject(Layout layout, ByteReader& reader, ValueVisitor& visitor) {
  const InterruptScope scope(reader, visitor);
  switch (layout) {
    case Layout::kString:
      return DecodeString(reader, visitor);
    case Layout::kList:
      return DecodeList(reader, visitor);
    case Layout::kSet:
      return DecodeSet(reader, visitor);
    case Layout::kHash:
      return DecodeHash(reader, visitor);
    case Layout::kZsetOfTexts:
      return DecodeZset(reader, ReadTextScore, visitor);
    case Layout::kZset:
      return DecodeZset(reader, ReadBinaryScore, visitor);
    case Layout::kModule:
      return DecodeModule(reader, visitor);
    case Layout::kHashZipmap:
      return DecodeBlob(reader, visitor, DecodeZipmap);
    case Layout::kListZiplist:
      return DecodeBlob(reader, visitor, DecodePackedList<ZiplistReader>);
    case Layout::kHashZiplist:
      return DecodeBlob(reader, visitor, DecodePackedHash<ZiplistReader>);
    case Layout::kZsetZiplist:
      return DecodeBlob(reader, visitor, DecodePackedZset<ZiplistReader>);
    case Layout::kSetIntset:
      return DecodeBlob(reader, visitor, DecodeIntset);
    case Layout::kHashListpack:
      return DecodeBlob(reader, visitor, DecodePackedHash<ListpackReader>);
    case Layout::kZsetListpack:
      return DecodeBlob(reader, visitor, DecodePackedZset<ListpackReader>);
    case Layout::kSetListpack:
      return DecodeBlob(reader, visitor, DecodeListpackSet);
    case Layout::kListOfZiplists:
      return DecodeListOfZiplists(reader, visitor);
    case Layout::kListOfNodes:
      return DecodeListOfNodes(reader, visitor);
    case Layout::kStream:
      return DecodeStream(StreamLayout::kListpacks, reader, visitor);
    case Layout::kStream2:
      return DecodeStream(StreamLayout::kListpacks2, reader, visitor);
    case Layout::kStream3:
      return DecodeStream(StreamLayout::kListpacks3, reader, visitor);
    case Layout::kStream4:
      return DecodeStream(StreamLayout::kListpacks4, reader, visitor);
    case Layout::kStream5:
      return DecodeStream(StreamLayout::kListpacks5, reader, visitor);
    case Layout::kExpiringHashDraft:
    case Layout::kExpiringListpackDraft:
    case Layout::kExpiringHash:
    case Layout::kExpiringListpack:
    case Layout::kValkeyExpiringHash:
      return DecodeExpiringHash(layout, reader, visitor);
    case Layout::kArray:
      return DecodeArray(reader, visitor);
    case Layout::kTemplateListpack:
    case Layout::kTemplateArray:
      return DecodeTemplateHash(layout, reader, visitor);
    case Layout::kTemplateListpackRef:
    case Layout::kTemplateArrayRef:
      return reader.Corrupt("its fields are in a template of the file");
  }
  return reader.Corrupt("unknown layout");
}

}  // namespace prm::rdb
