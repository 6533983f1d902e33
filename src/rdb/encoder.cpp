#include "rdb/encoder.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "rdb/byte_reader.h"
#include "rdb/dump.h"
#include "rdb/encoded_string.h"
#include "rdb/endian.h"

namespace prm::rdb {

namespace {

enum RdbType : char {
  kString = 0,
  kList = 1,
  kSet = 2,
  kHash = 4,
  kZset2 = 5,
  kStream = 15,
  kStream2 = 19,
  kValkeyExpiringHash = 22,
  kExpiringHash = 24
};

// The RDB versions that introduced the types: Redis 2.6 (the first with RESTORE), 4.0, 5.0, 7.0, 7.4, Valkey
// 9.0.
constexpr uint16_t kStringVersion = 6, kZset2Version = 8, kStreamVersion = 9, kStream2Version = 10,
                   kExpiringHashVersion = 12, kValkeyExpiringHashVersion = 80;

constexpr size_t kLongestLength = 9;

// The first byte of a length: two bits of kind, and six bits of the length or zeros.
constexpr uint64_t k6BitLimit = uint64_t{1} << 6;
constexpr uint64_t k14BitLimit = uint64_t{1} << 14;
constexpr uint64_t k14Bits = 0x40;
constexpr char k32Bits = '\x80';
constexpr char k64Bits = '\x81';

// CollectionEncoder leaves room for the number of elements after the type, always 64 bits.
constexpr size_t kCountOffset = 2;
constexpr size_t kCountSize = 8;
constexpr size_t kHeadSize = kCountOffset + kCountSize;

// CollectionEncoder adds so many bytes to its spool at once.
constexpr size_t kSpillBytes = size_t{256} << 10;

// CollectionEncoder tells the size of a payload from so many bytes of it, and takes a margin, because numbers
// in elements get longer.
constexpr size_t kSampleBytes = size_t{1} << 20;
constexpr double kMargin = 1.25;

// Redis' defaults for stream-node-max-entries and stream-node-max-bytes.
constexpr int64_t kListpackEntries = 100;
constexpr size_t kListpackBytes = 4096;

constexpr size_t kRawIdSize = 16;

constexpr int64_t kSameFields = 2;
constexpr uint64_t kUnknownListpackCount = 0xffff;
constexpr size_t kListpackHeaderSize = 6;
constexpr char kListpackEnd = '\xff';

unsigned PlainVersion(ValueType type) { return type == ValueType::kZset ? kZset2Version : kStringVersion; }

unsigned ExpiringVersion(bool valkey) { return valkey ? kValkeyExpiringHashVersion : kExpiringHashVersion; }

void AppendLength(std::string& bytes, uint64_t length) {
  if (length < k6BitLimit) {
    AppendBigEndian(bytes, length, 1);
  } else if (length < k14BitLimit) {
    AppendBigEndian(bytes, k14Bits << 8 | length, 2);
  } else if (length <= UINT32_MAX) {
    bytes.push_back(k32Bits);
    AppendBigEndian(bytes, length, 4);
  } else {
    bytes.push_back(k64Bits);
    AppendBigEndian(bytes, length, 8);
  }
}

void AppendString(std::string& bytes, Bytes value) {
  AppendLength(bytes, value.size());
  bytes += value;
}

void AppendRawId(std::string& bytes, StreamId id) {
  AppendBigEndian(bytes, id.ms, 8);
  AppendBigEndian(bytes, id.seq, 8);
}

void AppendLengthId(std::string& bytes, StreamId id) {
  AppendLength(bytes, id.ms);
  AppendLength(bytes, id.seq);
}

void AppendGroup(std::string& payload, const StreamGroupState& group, bool has_counters) {
  AppendString(payload, group.name);
  AppendLengthId(payload, group.last_delivered_id);
  if (has_counters) AppendLength(payload, static_cast<uint64_t>(group.entries_read));
  AppendLength(payload, group.pending.size());
  std::map<Bytes, std::string> ids_of_consumer;
  for (const StreamGroupState::Pending& pending : group.pending) {
    AppendRawId(ids_of_consumer[pending.consumer], pending.id);
    AppendRawId(payload, pending.id);
    AppendLittleEndian(payload, static_cast<uint64_t>(pending.delivery_time_ms), 8);
    AppendLength(payload, pending.delivery_count);
  }
  AppendLength(payload, group.consumers.size());
  for (const StreamGroupState::Consumer& consumer : group.consumers) {
    AppendString(payload, consumer.name);
    AppendLittleEndian(payload, static_cast<uint64_t>(consumer.seen_time_ms), 8);
    const std::string& ids = ids_of_consumer[consumer.name];
    AppendLength(payload, ids.size() / kRawIdSize);
    payload += ids;
  }
}

}  // namespace

std::string EncodeStringDump(Bytes value) {
  std::string payload;
  payload.reserve(kDumpFrameSize + kLongestLength + value.size());
  payload.push_back(kString);
  AppendString(payload, value);
  AppendDumpTrailer(kStringVersion, payload);
  return payload;
}

CollectionEncoder::CollectionEncoder(ValueType type, MakeSpool make_spool)
    : type_(type), make_spool_(std::move(make_spool)) {
  switch (type) {
    case ValueType::kList:
      payload_.push_back(kList);
      break;
    case ValueType::kSet:
      payload_.push_back(kSet);
      break;
    case ValueType::kHash:
      payload_.push_back(kHash);
      break;
    case ValueType::kZset:
      payload_.push_back(kZset2);
      break;
    case ValueType::kString:
    case ValueType::kStream:
    case ValueType::kArray:
    case ValueType::kModule:
      break;  // no collections
  }
  payload_.push_back(k64Bits);
  payload_.append(kCountSize, '\0');
}

void CollectionEncoder::Add(Bytes element) {
  AppendString(payload_, element);
  ++count_;
}

void CollectionEncoder::AddHashField(Bytes field, Bytes value) {
  Add(field);
  AppendString(payload_, value);
  if (!expiries_.empty()) expiries_.push_back(kNever);
}

void CollectionEncoder::AddExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) {
  expiries_.resize(count_, kNever);
  Add(field);
  AppendString(payload_, value);
  expiries_.push_back(expires_at_ms);
  earliest_ = std::min(earliest_, expires_at_ms);
}

void CollectionEncoder::AddZsetMember(Bytes member, double score) {
  Add(member);
  uint64_t bits = 0;
  static_assert(sizeof(score) == sizeof(bits));
  std::memcpy(&bits, &score, sizeof(bits));
  AppendLittleEndian(payload_, bits, sizeof(bits));
}

void CollectionEncoder::ExpectCount(uint64_t count, uint64_t most) {
  if (make_spool_ || count_ == 0 || payload_.size() < kSampleBytes) return;
  const double expected =
      static_cast<double>(payload_.size()) / static_cast<double>(count_) * static_cast<double>(count);
  if (expected <= static_cast<double>(payload_.capacity())) return;
  const auto room = static_cast<size_t>(std::min(kMargin * expected, static_cast<double>(most)));
  if (room > payload_.capacity()) payload_.reserve(room);
}

Status CollectionEncoder::Spill() {
  if (!make_spool_ || payload_.size() < (spool_ ? kSpillBytes : kLargePayload)) return {};
  if (spool_ == nullptr) {
    spool_ = make_spool_();
    head_ = payload_.substr(0, kHeadSize);
    PRM_RETURN_IF_ERROR(spool_->Append(Bytes(payload_).substr(kHeadSize)));
    std::string().swap(payload_);
    return {};
  }
  PRM_RETURN_IF_ERROR(spool_->Append(payload_));
  payload_.clear();
  return {};
}

std::string CollectionEncoder::Finish(bool valkey) {
  if (!expiries_.empty()) return FinishExpiring(valkey);
  std::string count;
  AppendBigEndian(count, count_, kCountSize);
  payload_.replace(kCountOffset, kCountSize, count);
  AppendDumpTrailer(PlainVersion(type_), payload_);
  return std::move(payload_);
}

Status CollectionEncoder::Finish(bool valkey, std::string& payload, std::shared_ptr<LargePayload>& large) {
  payload.clear();
  large.reset();
  if (spool_ == nullptr) {
    payload = Finish(valkey);
    return {};
  }
  PRM_RETURN_IF_ERROR(spool_->Append(payload_));
  std::string().swap(payload_);
  unsigned version = PlainVersion(type_);
  if (expiries_.empty()) {
    head_.resize(kCountOffset);
    AppendBigEndian(head_, count_, kCountSize);
  } else {
    PRM_RETURN_IF_ERROR(SpoolExpiring(valkey));
    version = ExpiringVersion(valkey);
  }
  const uint64_t size = spool_->size();
  auto made = LargePayload::Make(std::move(head_), std::move(spool_), 0, size, version);
  if (!made.ok()) return made.error();
  large = std::move(made.value());
  return {};
}

// Redis counts expiries from the earliest; 0 means none.
std::string CollectionEncoder::HeadOfExpiring(bool valkey) const {
  std::string head(1, valkey ? kValkeyExpiringHash : kExpiringHash);
  if (!valkey) AppendLittleEndian(head, static_cast<uint64_t>(earliest_), sizeof(earliest_));
  AppendLength(head, count_);
  return head;
}

// Appends the next of the fields with its expiry.
Status CollectionEncoder::AppendExpiring(ByteReader& pairs, int64_t expiry, bool valkey,
                                         std::string& to) const {
  std::string field_scratch, value_scratch;  // of a spool only
  Bytes field, value;
  PRM_RETURN_IF_ERROR(ReadString(pairs, field_scratch, field));
  PRM_RETURN_IF_ERROR(ReadString(pairs, value_scratch, value));
  if (!valkey) AppendLength(to, expiry == kNever ? 0 : static_cast<uint64_t>(expiry - earliest_) + 1);
  AppendString(to, field);
  AppendString(to, value);
  if (valkey) AppendLittleEndian(to, static_cast<uint64_t>(expiry), sizeof(expiry));
  return {};
}

// Writes the fields again, each with its expiry.
std::string CollectionEncoder::FinishExpiring(bool valkey) {
  const std::string plain = std::move(payload_);
  std::string payload = HeadOfExpiring(valkey);
  payload.reserve(plain.size() + expiries_.size() * sizeof(int64_t) + kDumpFrameSize + kLongestLength);
  ByteReader pairs(Bytes(plain).substr(kHeadSize));
  // Add wrote the strings, so reading them cannot fail.
  for (const int64_t expiry : expiries_)
    if (!AppendExpiring(pairs, expiry, valkey, payload).ok()) break;
  AppendDumpTrailer(ExpiringVersion(valkey), payload);
  return payload;
}

// The same in another spool.
Status CollectionEncoder::SpoolExpiring(bool valkey) {
  std::shared_ptr<ByteSpool> spool = make_spool_();
  ByteStream plain(*spool_);
  ByteReader pairs(plain);
  std::string piece;
  for (const int64_t expiry : expiries_) {
    PRM_RETURN_IF_ERROR(AppendExpiring(pairs, expiry, valkey, piece));
    if (piece.size() < kSpillBytes) continue;
    PRM_RETURN_IF_ERROR(spool->Append(piece));
    piece.clear();
  }
  PRM_RETURN_IF_ERROR(spool->Append(piece));
  head_ = HeadOfExpiring(valkey);
  spool_ = std::move(spool);
  return {};
}

// A listpack begins with a master entry: how many entries it has, how many of them are deleted, and the names
// of fields, which the entries need not repeat if theirs are the same.
void StreamEncoder::AddEntry(StreamId id, const StreamFields& fields) {
  if (listpack_entries_ == kListpackEntries || listpack_.size() >= kListpackBytes) EndListpack();
  if (listpack_entries_ == 0) {
    master_id_ = id;
    master_fields_.clear();
    for (const auto& [field, value] : fields) master_fields_.emplace_back(field);
  }
  bool same_fields = fields.size() == master_fields_.size();
  for (size_t i = 0; same_fields && i < fields.size(); ++i)
    same_fields = fields[i].first == master_fields_[i];
  AddInteger(same_fields ? kSameFields : 0);
  // Differences may wrap, as for ids beyond 2^63; adding them wraps back.
  AddInteger(static_cast<int64_t>(id.ms - master_id_.ms));
  AddInteger(static_cast<int64_t>(id.seq - master_id_.seq));
  if (!same_fields) AddInteger(static_cast<int64_t>(fields.size()));
  for (const auto& [field, value] : fields) {
    if (!same_fields) AddString(field);
    AddString(value);
  }
  // The number of elements of the entry, for reading backwards.
  const size_t elements = same_fields ? 3 + fields.size() : 4 + 2 * fields.size();
  AddInteger(static_cast<int64_t>(elements));
  ++listpack_entries_;
  ++count_;
}

void StreamEncoder::EndListpack() {
  if (listpack_entries_ == 0) return;
  const std::string body = std::exchange(listpack_, {});
  const uint64_t body_elements = std::exchange(elements_, 0);
  AddInteger(listpack_entries_);
  AddInteger(0);
  AddInteger(static_cast<int64_t>(master_fields_.size()));
  for (const std::string& field : master_fields_) AddString(field);
  AddInteger(0);
  const std::string master = std::exchange(listpack_, {});
  const uint64_t elements = std::exchange(elements_, 0) + body_elements;

  std::string id;
  AppendRawId(id, master_id_);
  AppendString(entries_, id);
  const size_t size = kListpackHeaderSize + master.size() + body.size() + 1;
  AppendLength(entries_, size);
  AppendLittleEndian(entries_, size, 4);
  AppendLittleEndian(entries_, elements < kUnknownListpackCount ? elements : kUnknownListpackCount, 2);
  entries_ += master;
  entries_ += body;
  entries_.push_back(kListpackEnd);
  ++listpack_count_;
  listpack_entries_ = 0;
}

void StreamEncoder::AddInteger(int64_t value) {
  const size_t start = listpack_.size();
  const auto add = [&](char encoding, size_t size) {
    listpack_.push_back(encoding);
    AppendLittleEndian(listpack_, static_cast<uint64_t>(value), size);
  };
  if (value >= 0 && value <= 127) {
    listpack_.push_back(static_cast<char>(value));
  } else if (value == static_cast<int16_t>(value)) {
    add('\xf1', 2);
  } else if (value == static_cast<int32_t>(value)) {
    add('\xf3', 4);
  } else {
    add('\xf4', 8);
  }
  AddBackLength(listpack_.size() - start);
}

void StreamEncoder::AddString(Bytes value) {
  const size_t start = listpack_.size();
  if (value.size() < 64) {
    listpack_.push_back(static_cast<char>(0x80 | value.size()));
  } else if (value.size() < 4096) {
    AppendBigEndian(listpack_, 0xe000 | value.size(), 2);
  } else {
    listpack_.push_back('\xf0');
    AppendLittleEndian(listpack_, value.size(), 4);
  }
  listpack_ += value;
  AddBackLength(listpack_.size() - start);
}

// Seven bits per byte, most significant first, all bytes but the first with the high bit set. The bounds are
// those of Redis, which encodes 16383 and its like in the next size.
void StreamEncoder::AddBackLength(size_t length) {
  const size_t size = length <= 127        ? 1
                      : length < 16383     ? 2
                      : length < 2097151   ? 3
                      : length < 268435455 ? 4
                                           : 5;
  for (size_t i = size; i-- > 0;) {
    listpack_.push_back(static_cast<char>((length >> (7 * i) & 0x7f) | (i + 1 == size ? 0 : 0x80)));
  }
  ++elements_;
}

std::string StreamEncoder::Finish(const StreamInfo& info, const std::vector<StreamGroupState>& groups,
                                  bool has_counters) {
  EndListpack();
  std::string payload;
  payload.reserve(entries_.size() + 1024);
  payload.push_back(has_counters ? kStream2 : kStream);
  AppendLength(payload, listpack_count_);
  payload += entries_;
  entries_ = {};
  AppendLength(payload, info.length);
  AppendLengthId(payload, info.last_id);
  if (has_counters) {
    AppendLengthId(payload, info.first_id);
    AppendLengthId(payload, info.max_deleted_id);
    AppendLength(payload, info.entries_added);
  }
  AppendLength(payload, groups.size());
  for (const StreamGroupState& group : groups) AppendGroup(payload, group, has_counters);
  AppendDumpTrailer(has_counters ? kStream2Version : kStreamVersion, payload);
  return payload;
}

}  // namespace prm::rdb
