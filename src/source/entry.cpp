#include "source/entry.h"

#include <algorithm>

#include "rdb/dump.h"
#include "rdb/encoder.h"

namespace prm::source {

namespace {

// An upper bound of what DUMP adds to an uncompressed string.
constexpr size_t kMostDumpOverhead = 32;

// Collects a short string.
class ShortString : public rdb::ValueVisitor {
 public:
  void OnString(Bytes value) override {
    if (!value.empty() && value.size() < kShortStringLimit) string = value;
  }
  std::optional<std::string> string;
};

// An empty collection takes a few bytes; a list may consist of several empty nodes.
constexpr size_t kMostBytesOfNothing = 1024;

class ElementFinder : public rdb::ValueVisitor {
 public:
  void OnListElement(Bytes) override { found = true; }
  void OnSetMember(Bytes) override { found = true; }
  void OnHashField(Bytes, Bytes) override { found = true; }
  void OnZsetMember(Bytes, double) override { found = true; }
  bool found = false;
};

}  // namespace

bool IsEmptyCollection(const Entry& entry) {
  using rdb::ValueType;
  if (entry.plain || PayloadSize(entry) > kMostBytesOfNothing) return false;
  const Result<ValueType> type = TypeOf(entry);
  if (!type.ok() || type.value() == ValueType::kString || type.value() == ValueType::kStream ||
      type.value() == ValueType::kModule) {
    return false;
  }
  ElementFinder finder;
  return Decode(entry, finder).ok() && !finder.found;
}

uint64_t PayloadSize(const Entry& entry) { return entry.large ? entry.large->size() : entry.payload.size(); }

void DropPayload(Entry& entry) {
  std::string().swap(entry.payload);
  entry.large.reset();
}

Result<rdb::ValueType> TypeOf(const Entry& entry) {
  if (entry.large) return entry.large->type().value;
  if (entry.plain) return rdb::ValueType::kString;
  return rdb::DumpType(entry.payload);
}

Status Decode(const Entry& entry, rdb::ValueVisitor& visitor) {
  if (entry.large) return entry.large->Decode(visitor);
  if (!entry.plain) return rdb::DecodeDump(entry.payload, visitor);
  visitor.OnString(entry.payload);
  return {};
}

Result<Bytes> PayloadPart(const Entry& entry, uint64_t offset, size_t size, std::string& scratch) {
  if (!entry.large) return Bytes(entry.payload).substr(offset, size);
  scratch.resize(static_cast<size_t>(std::min<uint64_t>(size, entry.large->size() - offset)));
  for (size_t held = 0; held < scratch.size();) {
    const Result<size_t> read =
        entry.large->Read(offset + held, scratch.data() + held, scratch.size() - held);
    if (!read.ok()) return read.error();
    if (read.value() == 0) {
      return Error{
          ErrorCode::kCorruptData, "corrupt payload: it has fewer bytes than when it was read", {}, {}};
    }
    held += read.value();
  }
  return Bytes(scratch);
}

Result<std::string> DumpOf(const Entry& entry) {
  if (entry.large) {
    std::string payload;
    const Result<Bytes> whole = PayloadPart(entry, 0, entry.large->size(), payload);
    if (!whole.ok()) return whole.error();
    return payload;
  }
  if (entry.plain) return rdb::EncodeStringDump(entry.payload);
  const Result<rdb::ValueType> type = TypeOf(entry);
  const bool may_be_short = type.ok() && type.value() == rdb::ValueType::kString &&
                            entry.payload.size() < kShortStringLimit + kMostDumpOverhead;
  if (!may_be_short) return entry.payload;
  ShortString visitor;
  const Status decoded = Decode(entry, visitor);
  return decoded.ok() && visitor.string ? rdb::EncodeStringDump(*visitor.string) : entry.payload;
}

}  // namespace prm::source
