#include "rdb/large_payload.h"

#include <algorithm>

#include "rdb/byte_reader.h"
#include "rdb/byte_stream.h"
#include "rdb/crc64.h"
#include "rdb/dump.h"
#include "rdb/endian.h"
#include "rdb/object.h"

namespace prm::rdb {

namespace {

constexpr size_t kVersionSize = 2;
constexpr size_t kChecksumSize = 8;

}  // namespace

Result<std::shared_ptr<LargePayload>> LargePayload::Make(std::string head, std::shared_ptr<ByteSource> body,
                                                         uint64_t begin, uint64_t size, unsigned version) {
  std::shared_ptr<LargePayload> payload(new LargePayload(std::move(head), std::move(body), begin, size));
  const Result<ObjectType> type = FindObjectType(static_cast<uint8_t>(payload->head_.front()), version);
  if (!type.ok()) return type.error();
  payload->type_ = type.value();
  payload->version_ = version;
  AppendLittleEndian(payload->trailer_, version, kVersionSize);
  const Result<uint64_t> sum = payload->Sum(payload->size());
  if (!sum.ok()) return sum.error();
  AppendLittleEndian(payload->trailer_, sum.value(), kChecksumSize);
  return payload;
}

// The checksum of the first `size` bytes.
Result<uint64_t> LargePayload::Sum(uint64_t size) {
  ByteStream stream(*this);
  ByteReader reader(stream);
  PRM_RETURN_IF_ERROR(reader.Skip(size));
  PRM_RETURN_IF_ERROR(reader.Settle());
  return stream.crc();
}

Status LargePayload::Decode(ValueVisitor& visitor) {
  const Result<uint64_t> sum = Sum(size() - kChecksumSize);
  if (!sum.ok()) return sum.error();
  if (sum.value() != LoadLittleEndian<uint64_t>(trailer_.data() + kVersionSize)) {
    return Error{
        ErrorCode::kCorruptData, "corrupt payload: the bytes have changed since they were read", {}, {}};
  }
  ByteStream stream(*this);
  ByteReader reader(stream);
  PRM_RETURN_IF_ERROR(reader.Skip(1));
  PRM_RETURN_IF_ERROR(DecodeObject(type_.layout, reader, visitor));
  if (reader.offset() == value_size()) return {};
  return reader.Corrupt("the value should end at byte " + std::to_string(value_size()));
}

Result<size_t> LargePayload::Read(uint64_t offset, char* to, size_t size) {
  if (offset < head_.size()) return head_.copy(to, size, offset);
  if (offset < value_size()) {
    return body_->Read(begin_ + offset - head_.size(), to,
                       static_cast<size_t>(std::min<uint64_t>(size, value_size() - offset)));
  }
  const uint64_t in_trailer = offset - value_size();
  return in_trailer < trailer_.size() ? trailer_.copy(to, size, in_trailer) : size_t{0};
}

}  // namespace prm::rdb
