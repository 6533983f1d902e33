// The ledger of a mapping of which each key has rows of its own: which rows of the target are the mapping's,
// by their hashes, and as what they were stored, by their images. Each batch appends its news, which is the
// journal of what a run inserted, too; merging them moves them into segments, in which they are found by
// their hash.
#pragma once

#include "core/packed_items.h"
#include "pg/pg.h"

namespace prm {

// Needs SPI; works with the rights of the extension's owner in the current transaction. Errors: XX001 for
// what cannot have been written by this version.
class PackedLedger {
 public:
  // columns: stands for the columns that images are of. Images of others are taken for unknown ones.
  PackedLedger(int64 mapping_id, int64 columns) : mapping_id_(mapping_id), columns_(columns) {}

  // What a batch did to rows. No hash may be twice in it.
  struct News {
    std::vector<PackedItem> inserted;
    std::vector<PackedItem> changed;  // and were there before
    bool takes_changed = true;        // those become the mapping's
    std::vector<PackedItem> removed;
  };
  void Append(std::optional<int64> run_id, News news) const;

  // Those of the rows that are the mapping's, in ascending order, with their images. bytes_read: of what was
  // not merged, added.
  std::vector<PackedItem> FindOwn(std::vector<PackedItem> rows, int64 *bytes_read) const;

  // Strikes off the rows that the run has not met and hands them to `visit`, and those that it has met to
  // `met`, in no order. Only of what was merged; nobody may merge meanwhile.
  void TakeUnseen(int64 run_id, const std::function<void(const PackedItem &)> &visit,
                  const std::function<void(const PackedItem &)> &met) const;

  // Moves what was appended into the segments, and counts for the runs that appended it which rows somebody
  // else has changed or deleted since. Waits for who does the same; others may append.
  static void Merge(int64 mapping_id);
  // How many bytes a merge would write.
  static int64 MergeCost(int64 mapping_id);
  // Deletes what was merged and is older than pg_redis_migrate.journal_retention.
  static void DeleteExpired(int64 mapping_id);

  // How many rows are the mapping's. Only of what was merged.
  static int64 Count(int64 mapping_id);

  // Writes down, for a run with prune, which rows a batch met.
  static void NoteSeen(int64 mapping_id, int64 run_id, std::vector<PackedItem> rows);
  static bool HasSeen(int64 mapping_id, int64 run_id);

 private:
  int64 mapping_id_;
  int64 columns_;
};

}  // namespace prm
