#include "rdb/expiring_hash.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "rdb/encoded_string.h"
#include "rdb/listpack.h"

namespace prm::rdb {

namespace {

void Visit(Bytes field, Bytes value, bool expires, int64_t expires_at_ms, ValueVisitor& visitor) {
  if (expires)
    visitor.OnExpiringHashField(field, value, expires_at_ms);
  else
    visitor.OnHashField(field, value);
}

// Fields in a listpack, each followed by its expiry (absolute, 0: none).
Status DecodeListpack(ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  Bytes blob;
  const uint64_t place = reader.offset();
  PRM_RETURN_IF_ERROR(ReadString(reader, scratch, blob));
  ListpackReader listpack(blob, place);
  PRM_RETURN_IF_ERROR(listpack.Open());
  while (!listpack.AtEnd()) {
    PackedElement field;
    PackedElement value;
    int64_t expiry = 0;
    visitor.CheckInterrupts();
    PRM_RETURN_IF_ERROR(listpack.Next(field));
    PRM_RETURN_IF_ERROR(listpack.Next(value));
    PRM_RETURN_IF_ERROR(listpack.NextInteger(expiry));
    if (expiry < 0) return listpack.Corrupt("negative expiry of a field");
    Visit(field.bytes(), value.bytes(), expiry != 0, expiry, visitor);
  }
  return {};
}

// Triples of expiry, field and value. An expiry of 0 means none; others count from `base`, which may be -1.
Status DecodeTriples(int64_t base, ByteReader& reader, ValueVisitor& visitor) {
  std::string field_scratch;
  std::string value_scratch;
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t expiry = 0;
    Bytes field;
    Bytes value;
    visitor.CheckInterrupts();
    PRM_RETURN_IF_ERROR(ReadLength(reader, expiry));
    if (expiry > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() - std::max<int64_t>(base, 0))) {
      return reader.Corrupt("impossible expiry of a field");
    }
    PRM_RETURN_IF_ERROR(ReadString(reader, field_scratch, field));
    PRM_RETURN_IF_ERROR(ReadString(reader, value_scratch, value));
    Visit(field, value, expiry != 0, base + static_cast<int64_t>(expiry), visitor);
  }
  return {};
}

// Triples of field, value and expiry (8 bytes, absolute, -1: none).
Status DecodeValkeyTriples(ByteReader& reader, ValueVisitor& visitor) {
  std::string field_scratch;
  std::string value_scratch;
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  for (uint64_t i = 0; i < count; ++i) {
    Bytes field;
    Bytes value;
    uint64_t expiry = 0;
    visitor.CheckInterrupts();
    PRM_RETURN_IF_ERROR(ReadString(reader, field_scratch, field));
    PRM_RETURN_IF_ERROR(ReadString(reader, value_scratch, value));
    PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(expiry));
    const auto expires_at_ms = static_cast<int64_t>(expiry);
    if (expires_at_ms < -1) return reader.Corrupt("negative expiry of a field");
    Visit(field, value, expires_at_ms != -1, expires_at_ms, visitor);
  }
  return {};
}

}  // namespace

Status DecodeExpiringHash(Layout layout, ByteReader& reader, ValueVisitor& visitor) {
  uint64_t earliest = 0;
  switch (layout) {
    case Layout::kExpiringListpackDraft:
      return DecodeListpack(reader, visitor);
    case Layout::kExpiringHashDraft:
      return DecodeTriples(0, reader, visitor);
    case Layout::kValkeyExpiringHash:
      return DecodeValkeyTriples(reader, visitor);
    default:
      break;
  }
  PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(earliest));
  if (layout == Layout::kExpiringListpack) return DecodeListpack(reader, visitor);
  if (earliest > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return reader.Corrupt("impossible expiry of a field");
  }
  // 1 means the earliest, so that 0 can mean none.
  return DecodeTriples(static_cast<int64_t>(earliest) - 1, reader, visitor);
}

}  // namespace prm::rdb
