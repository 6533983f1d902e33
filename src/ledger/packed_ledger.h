// The packed ledger, for a mapping whose keys never share a row. It knows the rows of the mapping by their
// hashes, and what was stored in them by their images. Each batch appends what it did, which is also the
// journal of what a run inserted. A merge moves that into segments, which are searched by hash.
#pragma once

#include "core/packed_items.h"
#include "pg/pg.h"

namespace prm {

// Needs SPI; works with the rights of the extension's owner in the current transaction. Errors: XX001 for
// data that this version cannot have written.
class PackedLedger {
 public:
  // columns: a fingerprint of the columns that images cover. Images of other columns are taken as unknown.
  PackedLedger(int64 mapping_id, int64 columns) : mapping_id_(mapping_id), columns_(columns) {}
  int64 columns() const { return columns_; }

  // The changes of a batch. No hash may be twice in it.
  struct News {
    std::vector<PackedItem> inserted;
    std::vector<PackedItem> changed;  // and were there before
    bool takes_changed = true;        // those become the mapping's
    std::vector<PackedItem> removed;
    bool in_journal = false;  // so are those inserted
  };
  void Append(std::optional<int64> run_id, News news) const;

  // Returns those of the rows that are the mapping's, in ascending order, with their images. Adds to
  // bytes_read what it read of batches that are not merged.
  std::vector<PackedItem> FindOwn(std::vector<PackedItem> rows, int64 *bytes_read) const;

  // Hands the entries of rows that the run has not met to `visit`, and those that it has met to `met`, in no
  // order. takes: removes the former. Considers only what was merged; nobody may merge meanwhile.
  void VisitUnseen(int64 run_id, bool takes, const std::function<void(const PackedItem &)> &visit,
                   const std::function<void(const PackedItem &)> &met) const;

  // Moves what was appended into the segments, and counts for each run that appended how many rows somebody
  // else had changed or deleted since. Waits for another merge; others may append meanwhile.
  static void Merge(int64 mapping_id);
  // How many bytes a merge would write.
  static int64 MergeCost(int64 mapping_id);
  // Whether so much was appended that it pays to write the segments anew, of which news of any rows may touch
  // all; or so often that look-ups have many rows to read.
  static bool MergePays(int64 mapping_id);
  // Deletes what was merged and is older than pg_redis_migrate.journal_retention.
  static void DeleteExpired(int64 mapping_id);

  // Returns how many rows the mapping has, by what was merged.
  static int64 Count(int64 mapping_id);

  // Records, for a run with prune, which rows a batch met.
  static void NoteSeen(int64 mapping_id, int64 run_id, std::vector<PackedItem> rows);
  // Takes back what NoteSeen has recorded of these rows.
  static void ForgetSeen(int64 mapping_id, int64 run_id, std::vector<PackedItem> rows);
  static bool HasSeen(int64 mapping_id, int64 run_id);

 private:
  int64 mapping_id_;
  int64 columns_;
};

}  // namespace prm
