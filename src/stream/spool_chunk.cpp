#include "stream/spool_chunk.h"

#include <optional>

#include "rdb/crc64.h"
#include "rdb/endian.h"

namespace prm::stream {

namespace {

constexpr Bytes kMagic = "prs";
constexpr size_t kKindAt = 3;
constexpr size_t kLengthAt = 4;
constexpr size_t kOffsetAt = 8;
constexpr size_t kAfterAt = 16;
constexpr size_t kUntilAt = 24;
constexpr size_t kContentAt = 32;
constexpr size_t kSumBytes = 8;
static_assert(kContentAt + kSumBytes == kChunkFrame);

// The length of the chunk that begins with these bytes; nullopt: none does.
std::optional<size_t> ChunkLength(Bytes bytes) {
  if (bytes.substr(0, kKindAt) != kMagic) return std::nullopt;
  const auto kind = static_cast<unsigned char>(bytes[kKindAt]);
  const uint64_t length = rdb::LoadLittleEndian<uint32_t>(bytes.data() + kLengthAt);
  if (kind < 1 || kind > static_cast<unsigned char>(SpoolChunk::Kind::kFullSync)) return std::nullopt;
  if (length > kMostChunkContent) return std::nullopt;
  return kChunkFrame + static_cast<size_t>(length);
}

// False: the checksum is wrong.
bool ParseChunk(Bytes bytes, SpoolChunk& chunk) {
  const size_t sum_at = bytes.size() - kSumBytes;
  if (rdb::Crc64(bytes.substr(0, sum_at)) != rdb::LoadLittleEndian<uint64_t>(bytes.data() + sum_at))
    return false;
  chunk.kind = static_cast<SpoolChunk::Kind>(bytes[kKindAt]);
  chunk.offset = rdb::LoadLittleEndian<uint64_t>(bytes.data() + kOffsetAt);
  chunk.time.after_ms = static_cast<int64_t>(rdb::LoadLittleEndian<uint64_t>(bytes.data() + kAfterAt));
  chunk.time.until_ms = static_cast<int64_t>(rdb::LoadLittleEndian<uint64_t>(bytes.data() + kUntilAt));
  chunk.content = bytes.substr(kContentAt, sum_at - kContentAt);
  return true;
}

}  // namespace

void AppendChunk(SpoolChunk::Kind kind, uint64_t offset, const source::TimeSpan& time, Bytes content,
                 std::string& bytes) {
  const size_t start = bytes.size();
  bytes += kMagic;
  rdb::AppendLittleEndian(bytes, static_cast<uint64_t>(kind), 1);
  rdb::AppendLittleEndian(bytes, content.size(), kOffsetAt - kLengthAt);
  rdb::AppendLittleEndian(bytes, offset, kAfterAt - kOffsetAt);
  rdb::AppendLittleEndian(bytes, static_cast<uint64_t>(time.after_ms), kUntilAt - kAfterAt);
  rdb::AppendLittleEndian(bytes, static_cast<uint64_t>(time.until_ms), kContentAt - kUntilAt);
  bytes += content;
  rdb::AppendLittleEndian(bytes, rdb::Crc64(Bytes(bytes).substr(start)), kSumBytes);
}

Result<bool> ReadChunk(ByteSource& segment, uint64_t at, std::string& bytes, SpoolChunk& chunk) {
  size_t length = kChunkFrame;
  for (size_t read = 0; read < length;) {
    bytes.resize(length);
    const auto more = segment.Read(at + read, bytes.data() + read, length - read);
    if (!more.ok()) return more.error();
    if (more.value() == 0) return false;
    read += more.value();
    if (read != kChunkFrame) continue;
    const auto told = ChunkLength(bytes);
    if (!told) return false;
    length = *told;
  }
  return ParseChunk(bytes, chunk);
}

}  // namespace prm::stream
