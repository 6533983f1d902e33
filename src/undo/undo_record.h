// The record of an undo: its state, counts, and rows that were not undone.
#pragma once

#include "undo/undo_counts.h"

namespace prm {

// Needs SPI; works with the rights of the extension's owner.
class UndoRecord {
 public:
  explicit UndoRecord(int64 run_id) : run_id_(run_id) {}

  // Begins, or goes on with what an earlier call has left: counts of rows that it has undone stay.
  void Begin(bool force);
  // Adds what a transaction has found out, and saves it within that.
  void Add(const std::string &mapping, UndoFindings &&findings);
  // Ends it; counts and rows are saved again, because a dry run has rolled them back.
  void Finish(bool dry_run);

  // Whether the row was left by this call.
  bool IsLeft(const std::string &mapping, const RowText &key) const {
    return left_.Contains(HashOfKey(mapping, key));
  }
  const std::map<std::string, UndoCounts> &counts() const { return counts_; }
  UndoCounts total() const;

 private:
  void SaveCounts(const std::string &mapping);
  void SaveLeft(const std::string &mapping, const LeftRow &row);

  int64 run_id_;
  std::map<std::string, UndoCounts> counts_;
  HashSet left_;
  std::vector<std::pair<std::string, LeftRow>> kept_;
};

}  // namespace prm
