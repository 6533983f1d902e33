// The record of an undo: its state, counts, and rows that were not undone.
#pragma once

#include "undo/undo_counts.h"

namespace prm {

// Needs SPI; works with the rights of the extension's owner.
class UndoRecord {
 public:
  // A dry run has a record of its own, beside that of the undo.
  UndoRecord(int64 run_id, bool dry_run) : run_id_(run_id), dry_run_(dry_run) {}

  // Begins, or goes on with what an earlier call has left: counts of rows that it has undone stay. A dry run
  // counts only what there is to be done.
  void Begin(bool force);
  // Forgets which rows were left: they are looked at again.
  void BeginPass();
  // Adds what a transaction has found out, and saves it within that.
  void Add(const std::string &mapping, UndoFindings &&findings);
  // Ends it; counts and rows are saved again, because a dry run has rolled them back.
  void Finish();

  // Whether the row was left by this call.
  bool IsLeft(const std::string &mapping, const RowText &key) const {
    return left_.Contains(HashOfKey(mapping, key));
  }
  const std::map<std::string, UndoCounts> &counts() const { return counts_; }
  UndoCounts total() const;

 private:
  void LoadCounts();
  void SaveCounts(const std::string &mapping);
  void SaveLeft(const std::string &mapping, const LeftRow &row);

  int64 run_id_;
  bool dry_run_;
  bool force_ = false;
  std::map<std::string, UndoCounts> counts_;
  HashSet left_;
  std::vector<std::pair<std::string, LeftRow>> kept_;
};

}  // namespace prm
