// Reads the keys of an RDB file, in the order of the file.
//
// Each source reads the file once; values that the filter does not want, or that belong to another share, are
// skipped, not decompressed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/byte_spool.h"
#include "rdb/file_reader.h"
#include "source/name_share.h"
#include "source/source.h"

namespace prm::source {

// A position in a file, as text that can be stored. It is valid only for that file.
struct RdbFilePosition {
  std::string file;  // ByteSource::identity
  uint64_t size = 0;
  rdb::FilePosition place;

  // "file=<identity> size=<bytes> db=<n> crc=<hex> offset=<bytes>".
  std::string ToString() const;

  // The beginning of a file.
  static RdbFilePosition StartOf(const ByteSource& file) { return {file.identity(), file.size(), {}}; }

  // Parses such a text. Errors: kInvalidArgument unless it has the format of ToString.
  static Result<RdbFilePosition> Parse(Bytes text);
};

struct RdbFileOptions {
  std::optional<std::vector<int>> databases;       // nothing: all
  NameShare share;                                 // of the keys
  size_t batch_keys = 5000;                        // a batch has no more entries than this
  uint64_t batch_bytes = 8 << 20;                  // nor more bytes, unless a single entry does
  uint64_t max_value_bytes = uint64_t{512} << 20;  // larger values are kTooLarge
  int64_t now_ms = 0;    // keys that expire before are kExpired, so are hashes without a living field, and
                         // fields that do are left out; Unix time
  MakeSpool make_spool;  // for a large hash without the fields that are left out
};

class RdbFileSource : public Source {
 public:
  // Prepares to read from `position` (of an earlier Batch for the same share, or StartOf) or, if it is empty,
  // from the start. File and filter must outlive the source. Errors: those of rdb::FileReader::Open,
  // kInvalidArgument for a position of another file or an invalid share.
  static Result<std::unique_ptr<RdbFileSource>> Open(ByteSource& file, const RdbFileOptions& options,
                                                     KeyFilter& filter, const std::string& position);

  // Batches end between keys, so that nothing is returned twice. If the file is damaged or its checksum is
  // wrong, the keys before the damage are returned first, and the next call returns the error. After an error
  // the source is unusable. Batch::expected_keys is what the file says of its databases, in all batches
  // together at most the size of the file. Entries may refer to the file. Errors: those of rdb::FileReader;
  // kCorruptData if bytes follow the end.
  Result<bool> Next(Batch& batch) override;

  // The metadata of the file, as far as it has been read from where Open began.
  const rdb::FileHeader& header() const { return reader_.header(); }
  const rdb::FileNotes& notes() const { return reader_.notes(); }

 private:
  RdbFileSource(ByteSource& file, const RdbFileOptions& options, KeyFilter& filter,
                const rdb::FilePosition& place);

  Result<bool> Fill(Batch& batch);
  void KeepSpare(std::vector<Entry>& entries);
  Entry NewEntry();
  void NoteHint(Batch& batch);
  bool HasDatabase(int db) const;

  ByteSource& file_;
  RdbFileOptions options_;
  KeyFilter& filter_;
  rdb::FileReader reader_;
  uint64_t expected_keys_ = 0;  // of all batches
  rdb::FileReader::Taken taken_;
  std::vector<std::pair<std::string, std::string>> spare_;  // of keys and payloads, for their memory
  bool done_ = false;
  std::optional<Error> dead_;
};

}  // namespace prm::source
