// The archive of a migration: keys that no pattern owns, with their payloads. A small payload stands in the
// key's row; a large one in chunks, so that neither storing nor reading it needs more memory than the value
// itself and a chunk.
#pragma once

#include "store/pattern_group.h"

namespace prm {

// The bytes of a chunk; a larger payload is kept in chunks.
constexpr size_t kArchiveChunkBytes = 1024 * 1024;

class Archive {
 public:
  explicit Archive(const std::string &migration);
  Archive(const Archive &) = delete;
  Archive &operator=(const Archive &) = delete;

  // Stores entries that were read, and counts them, or compares them with what is stored. Values that cannot
  // be decoded are rejected. In the current transaction; needs SPI. Returns what is left, and errors, as
  // PatternGroup::Process.
  std::vector<const source::Entry *> Store(const std::vector<const source::Entry *> &entries,
                                           const BatchOptions &options, Tally &tally);

  // Drops the keys that a run has not met, which noted those that it did (BatchOptions::seen_run). Returns
  // how many there were, and how many before. In the current transaction.
  std::pair<int64, int64> Prune(int64 run_id);

  // Drops keys that are gone from Redis.
  void Delete(const std::vector<const source::Entry *> &entries);

  bool IsEmpty() const;

  // As PatternGroup::Forget.
  void ForgetPrepared() { group_.Forget(); }

  // Takes keys that were migrated out of the archive: Redis has a newer value than the archive, and a run
  // from the archive must not bring the old one back.
  void Forget(const Tally::Outcomes &outcomes);

 private:
  void Reject(const source::Entry &entry, const Error &error, Tally &tally);
  void StoreInChunks(const source::Entry &entry, const BatchOptions &options, Tally &tally);
  const char *WriteChunks(const source::Entry &entry);
  void NoteSeen(const source::Entry &entry, int64 run_id);
  std::string RowKeyExpression() const;
  void DropChunks(const std::vector<const source::Entry *> &entries);
  void CompareChunks(const source::Entry &entry, BatchComparison &comparison);

  std::string migration_;
  Mapping mapping_;     // that of small payloads
  PatternGroup group_;  // of mapping_
};

}  // namespace prm
