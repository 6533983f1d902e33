// Keeps the feed of changes of a live run with source scan.
#pragma once

#include "pg/pg.h"

namespace prm {

// Writes the names of keys that have changed to the spool of the run, until the run ends, or until a change
// may have been missed. The state of the link tells that, and another run has to read everything again.
// Commits what it notes. Errors: those of ServerConnection and ChangeFeed that will not pass by themselves,
// 0A000 for a cluster or Sentinels, those of files.
void ReceiveFeed(int64 run_id, const std::string &migration);

}  // namespace prm
