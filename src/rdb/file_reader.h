// RDB files: a header, keys with their values between opcodes with data about them or about the file, an end
// mark and a checksum. Format: redis 8.10 src/rdb.c, rdbSaveRio and rdbLoadRioWithLoadingCtx.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/byte_source.h"
#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/byte_stream.h"
#include "rdb/hash_template.h"
#include "rdb/large_payload.h"
#include "rdb/object_type.h"
#include "rdb/value.h"

namespace prm::rdb {

// The header: "REDIS0011" or "VALKEY080".
struct FileHeader {
  unsigned version = 0;
  bool valkey = false;  // from the magic word before the version
};

// A position between two keys, to resume from.
struct FilePosition {
  uint64_t offset = 0;  // 0: the beginning, before the header
  uint64_t crc = 0;     // checksum of the bytes before it
  int db = 0;           // the database of the keys after it, until another is selected
};

// A key, without its value.
struct FileKey {
  int db = 0;
  std::string name;
  ObjectType type{};
  std::optional<int64_t> expires_at_ms;  // absolute, Unix time
  std::optional<uint64_t> idle_seconds;  // where the server evicts by LRU
  std::optional<uint8_t> frequency;      // where it evicts by LFU: the logarithmic counter
};

// The metadata of a file, as far as it has been read.
struct FileNotes {
  std::map<std::string, std::string>
      aux;                 // "redis-ver", "ctime" and so on, the first 100; long texts are cut
  uint64_t functions = 0;  // libraries
  std::map<std::string, uint64_t> modules;  // data of modules outside keys, by the name of their type; beyond
                                            // 100 names by "(others)"
  std::optional<bool> checksum;             // at the end: whether it matches; nullopt: the file has none
};

class FileReader {
 public:
  // The source must outlive the reader. Memory: a window of ByteStream::kWindow, the longest name of a key,
  // and the templates of hashes (see HashTemplates).
  FileReader(ByteSource& source, const FilePosition& position);

  // Reads the header. Call it first. kCorruptData if it is not that of an RDB file, kUnsupported for a
  // version that this release does not read.
  Status Open();
  const FileHeader& header() const { return header_; }

  // Moves to the next key; false at the end of the file, after the checksum has been compared. The value of
  // each key must be read by one of the functions below before the next key. Errors, after which the reader
  // is unusable: kCorruptData, kUnsupported, those of the source. Their detail has database, key, type,
  // version and byte offset.
  Result<bool> Next();
  const FileKey& key() const { return key_; }

  // How many keys the database of key() has, as the file says before the first of them; nothing at other keys
  // and where it does not say. No more than a hint: any number may stand there.
  std::optional<uint64_t> size_hint() const { return size_hint_; }

  // Passes the value to the visitor, with the memory that DecodeObject states.
  Status DecodeValue(ValueVisitor& visitor);

  // Skips the value and stores the payload that DUMP would return for it, with the version of the file, in
  // `payload`. A hash that refers to a template becomes an ordinary one, and metadata of modules is left out.
  // `size` is the size of the payload; if it exceeds `limit`, `payload` is left empty.
  Status TakePayload(size_t limit, std::string& payload, uint64_t& size);

  // The payload of a value: one of the three.
  struct Taken {
    std::string payload;
    bool plain = false;                   // `payload` is a string by itself
    std::shared_ptr<LargePayload> large;  // which reads the source; it must outlive that, too
    uint64_t size = 0;                    // of the payload, even if it exceeds the limit and is left out
  };
  // As TakePayload, but a string of 1 to `most` bytes is taken by itself: a payload would be summed here and
  // by whoever decodes it. A large collection stays in the source.
  Status TakeValue(size_t limit, size_t most, Taken& taken);

  Status SkipValue();

  // The position after the last value read; before any, the initial one.
  const FilePosition& position() const { return position_; }
  const FileNotes& notes() const { return notes_; }
  // Where the file ended, after Next has returned false.
  uint64_t end() const { return reader_.offset(); }

 private:
  Status ReadHeader();
  Status ReadTemplates();
  Result<bool> Advance();
  Status ReadCode(uint8_t code, bool& is_code);
  Status ReadAux();
  Status ReadModuleAux();
  Status ReadSlotImport();
  Status ReadKey(uint8_t type);
  Status ReadEnd();
  Status TakeObject(size_t limit, std::string& payload, uint64_t& size);
  Status TakeCollection(size_t limit, Taken& taken);
  Status EncodePayload(size_t limit, std::string& payload, uint64_t& size);
  Status EndValue(Status status);
  Error WithContext(Error error) const;

  ByteSource& source_;
  FilePosition position_;
  ByteStream stream_;
  ByteReader reader_;
  FileHeader header_;
  FileKey key_;
  std::optional<uint64_t> size_hint_;
  FileNotes notes_;
  HashTemplates templates_;
  std::string object_;  // of a string that may be short
  int db_ = 0;
  bool in_key_ = false;  // its name has been read, its value has not
};

}  // namespace prm::rdb
