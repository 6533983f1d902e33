#include "rdb/hash_template.h"

#include <algorithm>
#include <utility>

#include "core/bytes.h"
#include "rdb/encoded_string.h"
#include "rdb/listpack.h"
#include "rdb/skip.h"

namespace prm::rdb {

namespace {

using Fields = std::vector<std::string>;

// The encodings of the fields in front of the values.
enum FieldFormat : uint8_t { kListpack = 0, kStrings = 1 };

constexpr size_t kMostBytes = size_t{64} << 20;

bool HasDuplicates(const Fields& fields) {
  std::vector<Bytes> sorted(fields.begin(), fields.end());
  std::sort(sorted.begin(), sorted.end());
  return std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end();
}

Status CheckFields(const ByteReader& reader, const Fields& fields) {
  if (fields.empty()) return reader.Corrupt("a hash template without fields");
  if (HasDuplicates(fields)) return reader.Corrupt("a hash template has a field twice");
  return {};
}

Status ReadFieldStrings(ByteReader& reader, size_t limit, Fields& fields, size_t& bytes) {
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  std::string scratch;
  for (uint64_t i = 0; i < count; ++i) {
    Bytes field;
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, field));
    bytes += field.size() + sizeof(std::string);
    if (bytes > limit) {
      return Error{ErrorCode::kTooLarge, "the hash templates have more than 64 MB of field names", {}, {}};
    }
    fields.emplace_back(field);
  }
  return {};
}

Status ReadFieldListpack(ByteReader& reader, Fields& fields) {
  std::string scratch;
  Bytes blob;
  const uint64_t place = reader.offset();
  PRM_RETURN_IF_ERROR(ReadString(reader, scratch, blob));
  ListpackReader listpack(blob, place);
  PRM_RETURN_IF_ERROR(listpack.Open());
  while (!listpack.AtEnd()) {
    PackedElement field;
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(listpack.Next(field));
    fields.emplace_back(field.bytes());
  }
  return {};
}

// The fields in front of the values.
Status ReadFields(ByteReader& reader, Fields& fields) {
  uint8_t format = 0;
  size_t bytes = 0;
  PRM_RETURN_IF_ERROR(reader.ReadByte(format));
  if (format != kListpack && format != kStrings) {
    return reader.Corrupt("unknown format " + std::to_string(format) + " of a hash's fields");
  }
  PRM_RETURN_IF_ERROR(format == kListpack ? ReadFieldListpack(reader, fields)
                                          : ReadFieldStrings(reader, SIZE_MAX, fields, bytes));
  return CheckFields(reader, fields);
}

// Values in a listpack after an integer: the number of their template, or, where the fields precede them, a
// meaningless one. fields_of(number) returns the fields, nullptr for an unknown template.
template <typename FieldsOf>
Status DecodeListpackValues(ByteReader& reader, FieldsOf fields_of, ValueVisitor& visitor) {
  std::string scratch;
  Bytes blob;
  const uint64_t place = reader.offset();
  PRM_RETURN_IF_ERROR(ReadString(reader, scratch, blob));
  ListpackReader listpack(blob, place);
  PRM_RETURN_IF_ERROR(listpack.Open());
  int64_t number = 0;
  PRM_RETURN_IF_ERROR(listpack.NextInteger(number));
  const Fields* const fields = fields_of(static_cast<uint64_t>(number));
  if (fields == nullptr) return listpack.Corrupt("unknown hash template " + std::to_string(number));
  for (const std::string& field : *fields) {
    PackedElement value;
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(listpack.Next(value));
    visitor.OnHashField(field, value.bytes());
  }
  return listpack.AtEnd() ? Status()
                          : Status(listpack.Corrupt("it has more values than its template fields"));
}

Status DecodeStringValues(ByteReader& reader, const Fields& fields, ValueVisitor& visitor) {
  std::string scratch;
  for (const std::string& field : fields) {
    Bytes value;
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, value));
    visitor.OnHashField(field, value);
  }
  return {};
}

Status FindTemplate(const HashTemplates& templates, ByteReader& reader, const Fields*& fields) {
  uint64_t number = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, number));
  fields = templates.Find(number);
  if (fields == nullptr) return reader.Corrupt("unknown hash template " + std::to_string(number));
  return {};
}

}  // namespace

Status HashTemplates::Read(ByteReader& reader) {
  uint64_t number = 0;
  Fields fields;
  PRM_RETURN_IF_ERROR(ReadLength(reader, number));
  PRM_RETURN_IF_ERROR(ReadFieldStrings(reader, kMostBytes, fields, bytes_));
  PRM_RETURN_IF_ERROR(CheckFields(reader, fields));
  if (!fields_.emplace(number, std::move(fields)).second) {
    return reader.Corrupt("hash template " + std::to_string(number) + " is defined twice");
  }
  return {};
}

const Fields* HashTemplates::Find(uint64_t number) const {
  const auto found = fields_.find(number);
  return found == fields_.end() ? nullptr : &found->second;
}

Status DecodeTemplateRef(Layout layout, const HashTemplates& templates, ByteReader& reader,
                         ValueVisitor& visitor) {
  if (layout == Layout::kTemplateListpackRef) {
    return DecodeListpackValues(
        reader, [&](uint64_t number) { return templates.Find(number); }, visitor);
  }
  const Fields* fields = nullptr;
  PRM_RETURN_IF_ERROR(FindTemplate(templates, reader, fields));
  return DecodeStringValues(reader, *fields, visitor);
}

Status SkipTemplateRef(Layout layout, const HashTemplates& templates, ByteReader& reader) {
  if (layout == Layout::kTemplateListpackRef) return SkipString(reader);
  const Fields* fields = nullptr;
  PRM_RETURN_IF_ERROR(FindTemplate(templates, reader, fields));
  return SkipStrings(reader, fields->size());
}

Status DecodeTemplateHash(Layout layout, ByteReader& reader, ValueVisitor& visitor) {
  Fields fields;
  PRM_RETURN_IF_ERROR(ReadFields(reader, fields));
  if (layout == Layout::kTemplateArray) return DecodeStringValues(reader, fields, visitor);
  return DecodeListpackValues(
      reader, [&](uint64_t) { return &fields; }, visitor);
}

Status SkipTemplateHash(Layout layout, ByteReader& reader) {
  Fields fields;
  PRM_RETURN_IF_ERROR(ReadFields(reader, fields));
  return SkipStrings(reader, layout == Layout::kTemplateArray ? fields.size() : 1);
}

}  // namespace prm::rdb
