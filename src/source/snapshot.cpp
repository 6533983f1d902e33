#include "source/snapshot.h"

#include <limits>

#include "rdb/file_reader.h"

namespace prm::source {

namespace {

// The part of the snapshot that has arrived, and after it the rest: a reader waits for the server.
class ArrivingSnapshot : public ByteSource {
 public:
  ArrivingSnapshot(redis::ReplicationLink& link, ByteSpool& spool, uint64_t most_bytes)
      : link_(link), spool_(spool), most_bytes_(most_bytes) {}

  Result<size_t> Read(uint64_t offset, char* to, size_t size) override {
    if (offset < spool_.size()) return spool_.Read(offset, to, size);
    auto read = link_.ReadSnapshot(to, size);
    if (!read.ok()) return read;
    if (spool_.size() + read.value() > most_bytes_) return TooLarge(most_bytes_);
    PRM_RETURN_IF_ERROR(spool_.Append({to, read.value()}));
    return read;
  }

  static Error TooLarge(uint64_t most_bytes) {
    return {
        ErrorCode::kTooLarge,
        "the snapshot is larger than " + std::to_string(most_bytes >> 20) + " MB, the most that is allowed",
        {},
        {}};
  }

  // Not known before all of it has arrived.
  uint64_t size() const override { return std::numeric_limits<uint64_t>::max(); }
  std::string identity() const override { return spool_.identity(); }
  void CheckInterrupts() override { spool_.CheckInterrupts(); }

 private:
  redis::ReplicationLink& link_;
  ByteSpool& spool_;
  uint64_t most_bytes_;
};

Error Damaged(const std::string& detail) {
  return {ErrorCode::kCorruptData, "the snapshot does not end where it should", detail, {}};
}

Result<std::string> ReadAll(ByteSource& source, uint64_t from, uint64_t size) {
  std::string bytes(size, '\0');
  for (size_t at = 0; at < bytes.size();) {
    const auto read = source.Read(from + at, bytes.data() + at, bytes.size() - at);
    if (!read.ok()) return read.error();
    at += read.value();
  }
  return bytes;
}

// The mark must follow the last byte. To look for it would not do: a server uses the same mark as long as it
// runs, so that a value may contain it. What follows the mark belongs to the stream.
Status TakeEndMark(redis::ReplicationLink& link, ArrivingSnapshot& arriving, ByteSpool& spool, uint64_t end) {
  const std::string& mark = link.end_mark();
  const auto found = ReadAll(arriving, end, mark.size());
  if (!found.ok()) return found.error();
  if (found.value() != mark) return Damaged("Its end mark is missing.");
  const uint64_t stream = end + mark.size();
  const auto rest = ReadAll(spool, stream, spool.size() - stream);
  if (!rest.ok()) return rest.error();
  link.PutBack(rest.value());
  return spool.Truncate(end);
}

}  // namespace

Status ReceiveSnapshot(redis::ReplicationLink& link, ByteSpool& spool, uint64_t most_bytes) {
  if (link.snapshot_size().value_or(0) > most_bytes) return ArrivingSnapshot::TooLarge(most_bytes);
  ArrivingSnapshot arriving(link, spool, most_bytes);
  rdb::FileReader reader(arriving, {});
  PRM_RETURN_IF_ERROR(reader.Open());
  while (true) {
    const auto next = reader.Next();
    if (!next.ok()) return next.error();
    if (!next.value()) break;
    PRM_RETURN_IF_ERROR(reader.SkipValue());
  }
  if (!link.snapshot_size()) return TakeEndMark(link, arriving, spool, reader.end());
  if (reader.end() == *link.snapshot_size()) return {};
  return Damaged("It ends at byte " + std::to_string(reader.end()) + ", and the server announced " +
                 std::to_string(*link.snapshot_size()) + ".");
}

}  // namespace prm::source
