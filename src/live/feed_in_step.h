// Tells whether the tables of a live run with source scan hold all changes that its server made before a
// moment.
#pragma once

#include "pg/pg.h"

namespace prm {

class FeedInStep {
 public:
  // The moment is now, by the clock of this server.
  explicit FeedInStep(std::string migration);

  // Whether all keys have been read, and all changes are applied that the feed told of before it answered two
  // questions that were asked after the moment. Commits.
  bool IsReached();

 private:
  std::string migration_;
  TimestampTz moment_;
  int64 run_id_ = 0;
  std::optional<int64> offset_;  // that has to be applied, in the spool of the run
};

}  // namespace prm
