// The records of a spool of a replication stream.
//
// Layout, little endian: 3 bytes "prs", 1 byte kind, 4 bytes length of the content, 8 bytes offset, twice 8
// bytes time, the content, 8 bytes CRC-64 of all before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/byte_source.h"
#include "core/bytes.h"
#include "core/status.h"
#include "source/entry.h"

namespace prm::stream {

struct SpoolChunk {
  enum class Kind : uint8_t {
    kBytes = 1,     // content: a part of the stream
    kOrigin = 2,    // content: the replication id of the bytes after it
    kFullSync = 3,  // as kOrigin, but what came before is of no use: a snapshot holds the stream up to here
  };

  Kind kind = Kind::kBytes;
  uint64_t offset = 0;  // bytes of the stream before its content
  // kBytes: when its commands were run. It ends when the content was read, and begins then, too, unless that
  // came late, as after an interruption of the link.
  source::TimeSpan time;
  std::string content;
};

constexpr size_t kMostChunkContent = size_t{1} << 20;
constexpr size_t kChunkFrame = 40;  // what a chunk takes beside its content

// Appends the bytes of a chunk. content: at most kMostChunkContent.
void AppendChunk(SpoolChunk::Kind kind, uint64_t offset, const source::TimeSpan& time, Bytes content,
                 std::string& bytes);

// Reads the chunk that begins `at` bytes into a segment. False: there is none, or not all of it, or what is
// there is damaged. bytes: those of the chunk, kept for their memory. Errors: those of the segment.
Result<bool> ReadChunk(ByteSource& segment, uint64_t at, std::string& bytes, SpoolChunk& chunk);

}  // namespace prm::stream
