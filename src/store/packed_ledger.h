// The ledger of a mapping of which each key has one row and each row one key: which rows of the target are
// the mapping's, by their hashes. Each batch appends its news; merging them moves them into segments, in
// which they are found by their hash.
#pragma once

#include "core/packed_hashes.h"
#include "pg/pg.h"

namespace prm {

// Needs SPI; works with the rights of the extension's owner in the current transaction. One process at a time
// may merge and strike off; while it does, nobody appends.
class PackedLedger {
 public:
  explicit PackedLedger(int64 mapping_id) : mapping_id_(mapping_id) {}

  // Writes down that rows became the mapping's, and that others are so no more. No hash may be in both.
  void Append(std::vector<Hash128> stored, std::vector<Hash128> removed) const;

  // Those of the rows that are the mapping's, in ascending order.
  std::vector<Hash128> FindOwn(std::vector<Hash128> hashes) const;

  // Moves what was appended into the segments.
  void Merge() const;

  // How many rows are the mapping's. Only of what was merged.
  int64 Count() const;

  // Writes down, for a run with prune, which rows a batch met.
  void NoteSeen(int64 run_id, std::vector<Hash128> hashes) const;
  bool HasSeen(int64 run_id) const;

  // Strikes off the rows that the run has not met and hands them to `visit`. Only of what was merged.
  void TakeUnseen(int64 run_id, const std::function<void(const Hash128 &)> &visit) const;

 private:
  class Segments;

  int64 mapping_id_;
};

}  // namespace prm
