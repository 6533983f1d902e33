// A replication stream on disk, between the process that receives it and the one that applies it.
//
// It is a row of segments, numbered upwards; each begins with a chunk that tells the replication id and the
// offset, so that the first ones can be removed when they are applied. One process writes, one reads, at the
// same time. What the writer has not synced may be lost when the machine fails: it then goes on where the
// spool ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/byte_spool.h"
#include "core/bytes.h"
#include "core/status.h"
#include "redis/replication_point.h"
#include "stream/spool_chunk.h"

namespace prm::stream {

// One segment. Read also returns what another process has appended since it was opened, and goes on to work
// after it was removed; the reader does not ask for size().
class SpoolSegment : public ByteSpool {
 public:
  // Makes what was appended durable. Errors: those of the medium.
  virtual Status Sync() = 0;
};

// The segments of one spool. Errors of all functions: those of the medium.
class SpoolSegments {
 public:
  virtual ~SpoolSegments() = default;

  // The numbers of the segments that exist, ascending.
  virtual Result<std::vector<uint64_t>> List() = 0;
  // Creates an empty segment whose existence is durable. In place of one that exists.
  virtual Result<std::unique_ptr<SpoolSegment>> Create(uint64_t number) = 0;
  // nullptr: it does not exist.
  virtual Result<std::unique_ptr<SpoolSegment>> Open(uint64_t number) = 0;
  // Does nothing if it does not exist.
  virtual Status Remove(uint64_t number) = 0;
};

// A segment is closed when it has this many bytes.
constexpr uint64_t kSegmentBytes = uint64_t{16} << 20;

// After an error the spool ends where it ended before, or behind what an Append has written of its bytes, and
// the call may be made again, as when a disk was full.
class StreamSpoolWriter {
 public:
  // Opens what there is and cuts off a chunk at its end that is not whole, and all behind it. The segments
  // must outlive the writer. Errors: those of the medium.
  static Result<std::unique_ptr<StreamSpoolWriter>> Open(SpoolSegments& segments,
                                                         uint64_t segment_bytes = kSegmentBytes);

  // Where the spool ends: the next byte of the stream belongs there. nullopt: it holds nothing.
  const std::optional<redis::ReplicationPoint>& end() const { return end_; }

  // How far it is durable: an offset that may be acknowledged. 0: it holds nothing.
  uint64_t durable_offset() const { return durable_offset_; }

  // Drops everything and begins at a point. after_snapshot: the reader has to load a snapshot of this point,
  // which must be durable already; without, it holds the data up to there.
  Status Begin(const redis::ReplicationPoint& point, bool after_snapshot);

  // The bytes from here on are of another replication id. Only after Begin, or where end() is not empty.
  Status ChangeId(const std::string& id);

  // Appends the next bytes of the stream. Only after Begin, or where end() is not empty.
  // time: see SpoolChunk.
  Status Append(Bytes bytes, const source::TimeSpan& time);

  // Makes everything durable.
  Status Sync();

  // The bytes on disk, rounded up to whole segments.
  Result<uint64_t> CountBytes();

 private:
  StreamSpoolWriter(SpoolSegments& segments, uint64_t segment_bytes)
      : segments_(segments), segment_bytes_(segment_bytes) {}

  Status Recover();
  Status RecoverSegment(uint64_t number);
  Status BeginSegment(SpoolChunk::Kind kind, const redis::ReplicationPoint& point);
  Status Write(SpoolChunk::Kind kind, const source::TimeSpan& time, Bytes content);

  SpoolSegments& segments_;
  uint64_t segment_bytes_;
  std::unique_ptr<SpoolSegment> segment_;  // the last one
  uint64_t number_ = 0;                    // of it
  std::optional<redis::ReplicationPoint> end_;
  uint64_t durable_offset_ = 0;
  std::string bytes_;  // of a chunk, kept for their memory
};

// After an error a reader is unusable: open another one.
class StreamSpoolReader {
 public:
  // Prepares to read from a point on, or with nullopt from the beginning. nullptr: the spool does not hold
  // the stream from there on; it ended before, begins after, or is of another history. The segments must
  // outlive the reader. Errors: kCorruptData (a chunk is damaged that others follow), those of the medium.
  static Result<std::unique_ptr<StreamSpoolReader>> Open(SpoolSegments& segments,
                                                         const std::optional<redis::ReplicationPoint>& from);

  // The next chunk; false: there is none yet. Next to bytes it returns kFullSync, and kOrigin only where the
  // replication id changes: bytes after it are of the new id. Bytes are without gaps, up to a kFullSync,
  // which may come at any time. Errors: as above.
  Result<bool> Next(SpoolChunk& chunk);

  // Removes the segments that hold nothing beyond this offset, but for the one that is being read. To be
  // called when what they hold is applied and that is durable.
  Status RemoveUpTo(uint64_t offset);

 private:
  struct Passed {
    uint64_t number;
    uint64_t end;  // an offset that nothing in it is beyond
  };

  explicit StreamSpoolReader(SpoolSegments& segments) : segments_(segments) {}

  Result<bool> Seek(const std::optional<redis::ReplicationPoint>& from);
  Result<bool> SeekInSegment(const redis::ReplicationPoint& from);
  Result<std::unique_ptr<SpoolSegment>> OpenSegment(uint64_t number, SpoolChunk& first);
  void Enter(uint64_t number, std::unique_ptr<SpoolSegment> segment, const SpoolChunk& first);
  Result<bool> ReadOn(SpoolChunk& chunk);
  Result<bool> ReadFromNextSegment(SpoolChunk& chunk);
  Status Follow(const SpoolChunk& chunk, bool& is_news);

  SpoolSegments& segments_;
  std::unique_ptr<SpoolSegment> segment_;  // that is being read
  uint64_t number_ = 0;                    // of it
  uint64_t at_ = 0;                        // bytes of it that are read
  redis::ReplicationPoint point_;          // of the end of the last chunk
  std::optional<SpoolChunk> kept_;         // read by Open, to be returned first
  std::vector<Passed> passed_;             // segments before it that may exist
  std::string bytes_;                      // of a chunk, kept for their memory
};

}  // namespace prm::stream
