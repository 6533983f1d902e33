// When packed ledgers are merged while batches are stored.
#pragma once

#include "mapping/routing.h"
#include "store/tally.h"

namespace prm {

class LedgerMerges {
 public:
  // It must outlive the object.
  explicit LedgerMerges(const Migration &migration) : migration_(migration) {}

  // After a batch that has been committed: merges the ledgers whose news the look-ups of batches have read as
  // much of as a merge would write, and commits. rows: of the batch, by mapping. Errors: those of
  // PackedLedger::Merge.
  void After(const std::map<std::string, RowCounts> &rows);

 private:
  const Migration &migration_;
  std::map<std::string, int64> bytes_;  // read since a merge, by mapping
};

// Both forget what the journals have kept for long enough, and commit. Errors: those of PackedLedger::Merge.
// Merges all packed ledgers of a run.
void MergeLedgers(const Routing &routing);
// Of a run that goes on for long: merges those of which it pays.
void MaintainLedgers(const Routing &routing);

}  // namespace prm
