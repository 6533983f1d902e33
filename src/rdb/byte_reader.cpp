#include "rdb/byte_reader.h"

#include <algorithm>
#include <utility>

namespace prm::rdb {

Error ByteReader::Corrupt(std::string_view problem) const {
  std::string where = "byte " + std::to_string(part_ == nullptr ? offset() : offset_);
  if (part_ != nullptr) where += " of the " + std::string(part_) + " at byte " + std::to_string(place_);
  return {ErrorCode::kCorruptData, "corrupt value at " + where + ": " + std::string(problem), {}, {}};
}

Error ByteReader::Truncated(uint64_t wanted) const {
  return Corrupt(std::to_string(wanted) + " bytes expected, " + std::to_string(remaining()) + " left");
}

Status ByteReader::Advance(size_t wanted) {
  const size_t consumed = std::exchange(offset_, 0);
  return stream_->Advance(consumed, wanted, data_);
}

Status ByteReader::Fetch(size_t count) {
  if (stream_ == nullptr) return Truncated(count);
  PRM_RETURN_IF_ERROR(Advance(count));
  return count > remaining() ? Status(Truncated(count)) : Status();
}

Status ByteReader::Settle() { return stream_ != nullptr ? Advance(0) : Status(); }

template <typename Take>
Status ByteReader::TakePieces(uint64_t count, Take take) {
  for (uint64_t left = count; left > 0;) {
    if (AtEnd() && stream_ != nullptr) PRM_RETURN_IF_ERROR(Advance(1));
    if (AtEnd()) return Truncated(left);
    const auto piece = static_cast<size_t>(std::min<uint64_t>(left, remaining()));
    take(data_.substr(offset_, piece));
    offset_ += piece;
    left -= piece;
  }
  return {};
}

Status ByteReader::ReadInto(uint64_t count, std::string& bytes) {
  bytes.clear();
  return TakePieces(count, [&bytes](Bytes piece) { bytes += piece; });
}

Status ByteReader::Skip(uint64_t count) {
  return TakePieces(count, [](Bytes) {});
}

}  // namespace prm::rdb
