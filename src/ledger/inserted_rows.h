// The rows that a run has inserted, by the batches of a packed ledger, as far as they are not in the journal.
#pragma once

#include "ledger/packed_column.h"

namespace prm {

class InsertedRows {
 public:
  // Reads what there is to read. Needs SPI and an active snapshot, as Next. Errors: XX001, 0A000.
  InsertedRows(int64 mapping_id, int64 run_id);

  // How many rows the batches name; a row that was inserted twice counts twice.
  int64 size() const { return size_; }

  // Returns the rows of the next range of hashes in ascending order, each once, with the image that it had
  // when it was inserted last; of other columns than these: 0. False: that was all. May be called in another
  // transaction, if nobody deletes batches meanwhile.
  bool Next(int64 columns, std::vector<PackedItem> &items);

  // Makes the batches those of no run: what was inserted is undone.
  static void Forget(int64 mapping_id, int64 run_id);

 private:
  struct Batch {
    int64 id;
    int64 columns;
    PackedColumn inserted;
  };
  int64 mapping_id_;
  std::vector<Batch> batches_;
  int64 size_ = 0;
  uint64_t ranges_ = 1;
  uint64_t next_ = 0;
};

}  // namespace prm
