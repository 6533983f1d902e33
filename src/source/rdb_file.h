// Reads the keys of an RDB file, in the order in which they stand there.
//
// The file is passed once for each source that is opened; what the filter does not want is skipped by its
// lengths and not decoded.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/byte_source.h"
#include "rdb/file_reader.h"
#include "source/source.h"

namespace prm::source {

// How far the reading of a file has come, as text that can be stored. A place means something in one file
// only.
struct RdbFilePosition {
  std::string file;  // ByteSource::identity
  uint64_t size = 0;
  rdb::FilePosition place;

  // "file=<identity> size=<bytes> db=<n> crc=<hex> offset=<bytes>".
  std::string ToString() const;

  // The beginning of a file.
  static RdbFilePosition StartOf(const ByteSource& file) { return {file.identity(), file.size(), {}}; }

  // The inverse. kInvalidArgument for anything that ToString does not write.
  static Result<RdbFilePosition> Parse(Bytes text);
};

struct RdbFileOptions {
  std::optional<std::vector<int>> databases;       // nothing: all
  size_t batch_keys = 5000;                        // a batch has no more entries than this
  uint64_t batch_bytes = 8 << 20;                  // nor more bytes, unless a single entry does
  uint64_t max_value_bytes = uint64_t{512} << 20;  // larger values are kTooLarge
  int64_t now_ms = 0;  // keys that expire before are kExpired, so are hashes without a living field, and
                       // fields that do are left out; Unix time
};

class RdbFileSource : public Source {
 public:
  // Prepares to read from `position` (of an earlier Batch, or StartOf) or, if it is empty, from the start.
  // File and filter must outlive the source. Errors: those of rdb::FileReader::Open, kInvalidArgument for a
  // position of another file.
  static Result<std::unique_ptr<RdbFileSource>> Open(ByteSource& file, const RdbFileOptions& options,
                                                     KeyFilter& filter, const std::string& position);

  // Batches end between keys, so that nothing is returned twice. When the file turns out to be damaged, what
  // comes before the damage is returned first, and the error by the next call; so it is with a checksum that
  // does not fit. After an error the source is dead. Errors: those of rdb::FileReader; kCorruptData when
  // something stands behind the end.
  Result<bool> Next(Batch& batch) override;

  // The notes of the file besides its keys, as far as it has been read from where Open began.
  const rdb::FileHeader& header() const { return reader_.header(); }
  const rdb::FileNotes& notes() const { return reader_.notes(); }

 private:
  RdbFileSource(ByteSource& file, const RdbFileOptions& options, KeyFilter& filter,
                const rdb::FilePosition& place);

  Result<bool> Fill(Batch& batch);
  bool IsWanted(int db) const;

  ByteSource& file_;
  RdbFileOptions options_;
  KeyFilter& filter_;
  rdb::FileReader reader_;
  bool done_ = false;
  std::optional<Error> dead_;
};

}  // namespace prm::source
