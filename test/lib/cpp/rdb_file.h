// RDB files in memory, for tests: reading all of one, and building one by hand.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "core/byte_source.h"
#include "core/bytes.h"
#include "core/status.h"
#include "lib/cpp/rdb_rows.h"
#include "rdb/file_reader.h"

namespace prm::test {

class MemorySource : public ByteSource {
 public:
  // most: bytes that one call gives, so that every border has its turn.
  explicit MemorySource(std::string bytes, size_t most = SIZE_MAX) : bytes_(std::move(bytes)), most_(most) {}
  Result<size_t> Read(uint64_t offset, char* to, size_t size) override;
  uint64_t size() const override { return bytes_.size(); }
  std::string identity() const override { return identity_; }
  void set_identity(const std::string& identity) { identity_ = identity; }

 private:
  std::string bytes_;
  size_t most_;
  std::string identity_ = "memory";
};

struct FileEntry {
  rdb::FileKey key;
  Rows rows;
  std::string payload;
};

struct FileContents {
  rdb::FileHeader header;
  rdb::FileNotes notes;
  std::map<std::pair<int, std::string>, FileEntry> keys;
  uint64_t key_count = 0;  // repeated names, too
  Status status;           // the error that ended it, if any; what came before it is there
};

// Reads a file twice, once element by element and once by payloads, and compares the two. The values of a
// payload that cannot be decoded are none.
FileContents ReadFile(const std::string& bytes, size_t most = SIZE_MAX);

// Reads each key with a reader of its own that goes on where the one before it stopped; `take` takes the
// value. Returns the number of keys. Throws std::runtime_error.
uint64_t ReadPlaceByPlace(const std::string& bytes, const std::function<void(rdb::FileReader&)>& take);

// The bytes of a file. Throws std::runtime_error.
std::string Slurp(const std::string& path);

// A file with that header ("REDIS0011"), its end mark and its checksum around the body.
std::string FramedFile(const std::string& header, const std::string& body);

// A key with its value: type, name as a string of less than 64 bytes, value.
std::string FileKeyBytes(uint8_t type, const std::string& name, const std::string& value);

}  // namespace prm::test
