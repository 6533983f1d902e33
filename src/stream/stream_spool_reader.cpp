#include <algorithm>
#include <utility>

#include "stream/stream_spool.h"

namespace prm::stream {

namespace {

using redis::ReplicationPoint;

Error Damaged(uint64_t number, const std::string& detail) {
  return {ErrorCode::kCorruptData,
          "segment " + std::to_string(number) + " of the spool of the replication stream is damaged",
          detail,
          {}};
}

bool IsOrigin(const SpoolChunk& chunk) {
  return chunk.kind != SpoolChunk::Kind::kBytes && redis::IsReplicationId(chunk.content);
}

}  // namespace

Result<std::unique_ptr<StreamSpoolReader>> StreamSpoolReader::Open(
    SpoolSegments& segments, const std::optional<ReplicationPoint>& from) {
  std::unique_ptr<StreamSpoolReader> reader(new StreamSpoolReader(segments));
  const auto found = reader->Seek(from);
  if (!found.ok()) return found.error();
  if (!found.value()) reader.reset();
  return reader;
}

Result<bool> StreamSpoolReader::Seek(const std::optional<ReplicationPoint>& from) {
  auto numbers = segments_.List();
  if (!numbers.ok()) return numbers.error();
  std::vector<uint64_t>& left = numbers.value();
  // With nothing to look for the first one is wanted.
  if (!from) std::reverse(left.begin(), left.end());
  for (bool found = false; !found;) {
    if (left.empty()) return false;
    const uint64_t number = left.back();
    left.pop_back();
    SpoolChunk first;
    auto opened = OpenSegment(number, first);
    if (!opened.ok()) return opened.error();
    if (!opened.value() || (from && first.offset > from->offset)) continue;
    Enter(number, std::move(opened.value()), first);
    passed_.clear();
    if (from) {
      for (const uint64_t before : left) passed_.push_back({before, first.offset});
      const auto sought = SeekInSegment(*from);
      if (!sought.ok()) return sought;
      found = sought.value();
    } else {
      kept_ = std::move(first);
      found = true;
    }
  }
  return true;
}

// False: the point is not in the segment that was entered.
Result<bool> StreamSpoolReader::SeekInSegment(const ReplicationPoint& from) {
  SpoolChunk chunk;
  while (point_.offset <= from.offset) {
    if (point_ == from) return true;
    const auto read = ReadOn(chunk);
    if (!read.ok() || !read.value()) return read;
    bool is_news = false;
    PRM_RETURN_IF_ERROR(Follow(chunk, is_news));
  }
  if (chunk.kind != SpoolChunk::Kind::kBytes || point_.id != from.id) return false;
  chunk.content.erase(0, static_cast<size_t>(from.offset - chunk.offset));
  chunk.offset = from.offset;
  kept_ = std::move(chunk);
  return true;
}

// Opens a segment and reads its first chunk; nullptr: it has none yet.
Result<std::unique_ptr<SpoolSegment>> StreamSpoolReader::OpenSegment(uint64_t number, SpoolChunk& first) {
  auto opened = segments_.Open(number);
  if (!opened.ok() || !opened.value()) return opened;
  const auto read = ReadChunk(*opened.value(), 0, bytes_, first);
  if (!read.ok()) return read.error();
  if (!read.value()) return std::unique_ptr<SpoolSegment>();
  if (!IsOrigin(first)) return Damaged(number, "It does not begin with its origin.");
  return opened;
}

// To be called after OpenSegment.
void StreamSpoolReader::Enter(uint64_t number, std::unique_ptr<SpoolSegment> segment,
                              const SpoolChunk& first) {
  segment_ = std::move(segment);
  number_ = number;
  at_ = kChunkFrame + first.content.size();
  point_ = {first.content, first.offset};
}

// The next chunk of the segment; false: there is none yet.
Result<bool> StreamSpoolReader::ReadOn(SpoolChunk& chunk) {
  segment_->CheckInterrupts();
  const auto read = ReadChunk(*segment_, at_, bytes_, chunk);
  if (read.ok() && read.value()) at_ += bytes_.size();
  return read;
}

Result<bool> StreamSpoolReader::Next(SpoolChunk& chunk) {
  if (kept_) {
    chunk = std::move(*kept_);
    kept_.reset();
    return true;
  }
  for (bool is_news = false; !is_news;) {
    auto read = ReadOn(chunk);
    if (read.ok() && !read.value()) read = ReadFromNextSegment(chunk);
    if (!read.ok() || !read.value()) return read;
    PRM_RETURN_IF_ERROR(Follow(chunk, is_news));
  }
  return true;
}

// Once the next segment has begun this one has ended: the first chunk of the next, or what has come to this
// one before. False: there is no next one.
Result<bool> StreamSpoolReader::ReadFromNextSegment(SpoolChunk& chunk) {
  auto numbers = segments_.List();
  if (!numbers.ok()) return numbers.error();
  const auto next = std::upper_bound(numbers.value().begin(), numbers.value().end(), number_);
  if (next == numbers.value().end()) return false;
  const uint64_t number = *next;
  const bool has_ended = number != numbers.value().back();
  SpoolChunk first;
  auto opened = OpenSegment(number, first);
  if (!opened.ok()) return opened.error();
  if (!opened.value()) {
    // Nothing is to come to it, unless the writer has removed it to begin again.
    if (has_ended) numbers = segments_.List();
    if (!numbers.ok()) return numbers.error();
    const bool exists = std::binary_search(numbers.value().begin(), numbers.value().end(), number);
    return has_ended && exists ? Result<bool>(Damaged(number, "It has no beginning.")) : Result<bool>(false);
  }
  const auto read = ReadOn(chunk);
  if (!read.ok() || read.value()) return read;
  char byte = 0;
  const auto rest = segment_->Read(at_, &byte, 1);
  if (!rest.ok()) return rest.error();
  if (rest.value() > 0) return Damaged(number_, "After byte " + std::to_string(at_) + " there is no chunk.");
  passed_.push_back({number_, point_.offset});
  const ReplicationPoint ended = point_;
  Enter(number, std::move(opened.value()), first);
  point_ = ended;  // Follow goes on from it
  chunk = std::move(first);
  return true;
}

// Checks that a chunk goes on where the last one ended.
Status StreamSpoolReader::Follow(const SpoolChunk& chunk, bool& is_news) {
  if (chunk.kind != SpoolChunk::Kind::kFullSync && chunk.offset != point_.offset) {
    return Damaged(number_, "It goes on at offset " + std::to_string(chunk.offset) +
                                " of the stream, not at " + std::to_string(point_.offset) + ".");
  }
  if (chunk.kind == SpoolChunk::Kind::kBytes) {
    point_.offset += chunk.content.size();
    is_news = true;
    return {};
  }
  if (!IsOrigin(chunk)) return Damaged(number_, "It has no replication id.");
  is_news = chunk.kind == SpoolChunk::Kind::kFullSync || chunk.content != point_.id;
  point_ = {chunk.content, chunk.offset};
  return {};
}

Status StreamSpoolReader::RemoveUpTo(uint64_t offset) {
  std::vector<Passed> kept;
  for (const Passed& passed : passed_) {
    if (passed.end > offset) {
      kept.push_back(passed);
    } else {
      PRM_RETURN_IF_ERROR(segments_.Remove(passed.number));
    }
  }
  passed_ = std::move(kept);
  return {};
}

}  // namespace prm::stream
