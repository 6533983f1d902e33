// Tells how many rows a live run has written over that somebody else had changed.
#pragma once

#include "live/followed_run.h"

namespace prm {

class ChangedRows {
 public:
  // is_resumed: what was found before may not have been told; otherwise the run has told it when it had
  // loaded its snapshot. Needs SPI. The run must outlive it.
  ChangedRows(FollowedRun &run, bool is_resumed);

  // Every few seconds merges ledgers, which finds such rows, as far as that writes little in relation to the
  // time that has passed. Warns if there are more than were told, at most once a minute. Commits. Errors:
  // those of PackedLedger::Merge.
  void Look();

 private:
  FollowedRun &run_;
  int64 looked_ms_;
  std::map<int64, int64> merged_ms_;  // by mapping
  int64 told_ = 0;                    // rows
  std::optional<int64> told_ms_;
};

}  // namespace prm
