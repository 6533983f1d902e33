#include "lib/cpp/rdb_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "rdb/crc64.h"

namespace prm::test {

Result<size_t> MemorySource::Read(uint64_t offset, char* to, size_t size) {
  if (offset >= bytes_.size()) return size_t{0};
  const size_t count = std::min({size, most_, bytes_.size() - static_cast<size_t>(offset)});
  std::memcpy(to, bytes_.data() + offset, count);
  return count;
}

namespace {

// Calls take(reader, entry) for each key.
template <typename Take>
FileContents Walk(const std::string& bytes, size_t most, Take take) {
  FileContents contents;
  MemorySource source(bytes, most);
  rdb::FileReader reader(source, {});
  contents.status = reader.Open();
  contents.header = reader.header();
  while (contents.status.ok()) {
    const Result<bool> next = reader.Next();
    if (!next.ok()) contents.status = next.error();
    if (!next.ok() || !next.value()) break;
    FileEntry entry;
    entry.key = reader.key();
    contents.status = take(reader, entry);
    if (!contents.status.ok()) break;
    ++contents.key_count;
    contents.keys[{entry.key.db, entry.key.name}] = std::move(entry);
  }
  contents.notes = reader.notes();
  return contents;
}

}  // namespace

FileContents ReadFile(const std::string& bytes, size_t most) {
  FileContents decoded = Walk(bytes, most, [](rdb::FileReader& reader, FileEntry& entry) -> Status {
    const Result<Rows> rows = CollectRows(
        entry.key.type.value, [&reader](rdb::ValueVisitor& visitor) { return reader.DecodeValue(visitor); });
    if (!rows.ok()) return rows.error();
    entry.rows = rows.value();
    return {};
  });
  FileContents taken = Walk(bytes, most, [](rdb::FileReader& reader, FileEntry& entry) -> Status {
    uint64_t size = 0;
    PRM_RETURN_IF_ERROR(reader.TakePayload(SIZE_MAX, entry.payload, size));
    EXPECT_EQ(size, entry.payload.size());
    return {};
  });
  // Passing over a value sees less than decoding it.
  if (decoded.status.ok()) {
    EXPECT_TRUE(taken.status.ok()) << taken.status.error().message;
    EXPECT_EQ(taken.key_count, decoded.key_count);
  }
  for (auto& [name, entry] : decoded.keys) {
    entry.payload = taken.keys[name].payload;
    const Result<Rows> rows = DecodedRows(entry.payload);
    EXPECT_TRUE(rows.ok()) << name.second;
    if (rows.ok()) EXPECT_EQ(rows.value(), entry.rows) << name.second;
  }
  return decoded;
}

uint64_t ReadPlaceByPlace(const std::string& bytes, const std::function<void(rdb::FileReader&)>& take) {
  MemorySource source(bytes);
  rdb::FilePosition position;
  for (uint64_t keys = 0;; ++keys) {
    rdb::FileReader reader(source, position);
    const Status opened = reader.Open();
    if (!opened.ok()) throw std::runtime_error(opened.error().message);
    const Result<bool> next = reader.Next();
    if (!next.ok()) throw std::runtime_error(next.error().message);
    if (!next.value()) return keys;
    take(reader);
    if (reader.position().offset <= position.offset) throw std::runtime_error("the position does not move");
    position = reader.position();
  }
}

std::string Slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("no file " + path);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

std::string FramedFile(const std::string& header, const std::string& body) {
  std::string file = header + body + '\xff';
  const uint64_t checksum = rdb::Crc64(file);
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(checksum >> (8 * i)));
  return file;
}

std::string FileKeyBytes(uint8_t type, const std::string& name, const std::string& value) {
  return std::string(1, static_cast<char>(type)) + static_cast<char>(name.size()) + name + value;
}

}  // namespace prm::test
