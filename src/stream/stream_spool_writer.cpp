#include <algorithm>

#include "stream/stream_spool.h"

namespace prm::stream {

Result<std::unique_ptr<StreamSpoolWriter>> StreamSpoolWriter::Open(SpoolSegments& segments,
                                                                   uint64_t segment_bytes) {
  std::unique_ptr<StreamSpoolWriter> writer(new StreamSpoolWriter(segments, segment_bytes));
  PRM_RETURN_IF_ERROR(writer->Recover());
  return writer;
}

// Finds the end. Segments that were created, but whose first chunk never came, are removed.
Status StreamSpoolWriter::Recover() {
  auto numbers = segments_.List();
  if (!numbers.ok()) return numbers.error();
  for (; !numbers.value().empty() && !end_; numbers.value().pop_back()) {
    const uint64_t number = numbers.value().back();
    PRM_RETURN_IF_ERROR(RecoverSegment(number));
    number_ = std::max(number_, number);
    if (!end_) PRM_RETURN_IF_ERROR(segments_.Remove(number));
  }
  return Sync();
}

// Reads a segment as far as it is whole, and cuts off the rest.
Status StreamSpoolWriter::RecoverSegment(uint64_t number) {
  auto opened = segments_.Open(number);
  if (!opened.ok()) return opened.error();
  if (!opened.value()) return {};
  SpoolSegment& segment = *opened.value();
  SpoolChunk chunk;
  uint64_t at = 0;
  while (true) {
    segment.CheckInterrupts();
    const auto read = ReadChunk(segment, at, bytes_, chunk);
    if (!read.ok()) return read.error();
    const bool is_origin = chunk.kind != SpoolChunk::Kind::kBytes;
    if (!read.value() || (!end_ && !is_origin)) break;
    at += bytes_.size();
    if (is_origin) {
      end_ = {chunk.content, chunk.offset};
    } else {
      end_->offset += chunk.content.size();
    }
  }
  if (!end_) return {};
  if (segment.size() > at) PRM_RETURN_IF_ERROR(segment.Truncate(at));
  segment_ = std::move(opened.value());
  number_ = number;
  return {};
}

Status StreamSpoolWriter::Begin(const redis::ReplicationPoint& point, bool after_snapshot) {
  const auto old = segments_.List();
  if (!old.ok()) return old.error();
  // Not the number of one that a reader may have open.
  if (!old.value().empty()) number_ = std::max(number_, old.value().back());
  const auto kind = after_snapshot ? SpoolChunk::Kind::kFullSync : SpoolChunk::Kind::kOrigin;
  PRM_RETURN_IF_ERROR(BeginSegment(kind, point));
  PRM_RETURN_IF_ERROR(Sync());
  for (const uint64_t number : old.value()) PRM_RETURN_IF_ERROR(segments_.Remove(number));
  return {};
}

// The writer stays where it is until the segment has its origin, which may fail again and again on a full
// disk.
Status StreamSpoolWriter::BeginSegment(SpoolChunk::Kind kind, const redis::ReplicationPoint& point) {
  // What a write that failed has left behind the last chunk is none of the next.
  if (segment_) PRM_RETURN_IF_ERROR(segment_->Truncate(segment_->size()));
  auto created = segments_.Create(number_ + 1);
  if (!created.ok()) return created.error();
  bytes_.clear();
  AppendChunk(kind, point.offset, {}, point.id, bytes_);
  PRM_RETURN_IF_ERROR(created.value()->Append(bytes_));
  segment_ = std::move(created.value());
  ++number_;
  end_ = point;
  return {};
}

Status StreamSpoolWriter::ChangeId(const std::string& id) {
  PRM_RETURN_IF_ERROR(Write(SpoolChunk::Kind::kOrigin, {}, id));
  end_->id = id;
  return {};
}

Status StreamSpoolWriter::Append(Bytes bytes, const source::TimeSpan& time) {
  for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), kMostChunkContent))) {
    const Bytes content = bytes.substr(0, kMostChunkContent);
    if (segment_->size() + content.size() + kChunkFrame > segment_bytes_) {
      // The durable part must have no gaps.
      PRM_RETURN_IF_ERROR(Sync());
      PRM_RETURN_IF_ERROR(BeginSegment(SpoolChunk::Kind::kOrigin, *end_));
    }
    PRM_RETURN_IF_ERROR(Write(SpoolChunk::Kind::kBytes, time, content));
    end_->offset += content.size();
  }
  return {};
}

Status StreamSpoolWriter::Write(SpoolChunk::Kind kind, const source::TimeSpan& time, Bytes content) {
  bytes_.clear();
  AppendChunk(kind, end_->offset, time, content, bytes_);
  return segment_->Append(bytes_);
}

Status StreamSpoolWriter::Sync() {
  if (!segment_) return {};
  PRM_RETURN_IF_ERROR(segment_->Sync());
  durable_offset_ = end_->offset;
  return {};
}

Result<uint64_t> StreamSpoolWriter::CountBytes() {
  const auto numbers = segments_.List();
  if (!numbers.ok()) return numbers.error();
  return numbers.value().size() * segment_bytes_;
}

}  // namespace prm::stream
