// A level whose source has several masters is read in parts, side by side: by the process that leads the run
// and by others that take part in it. Each part has a checkpoint and counts of its own and is read by one
// process at a time, which holds its lock. Whoever has none looks for one that nobody reads, so that the run
// is complete however many processes there are, and whichever of them end.
#pragma once

#include "run/pass.h"

namespace prm {

// How the process that leads a run comes by others.
class Helpers {
 public:
  virtual ~Helpers() = default;
  // Starts up to `count` processes that CALL redis_migrate.join_run(run_id), and returns how many.
  virtual int Start(int64 run_id, int count) = 0;
};

// The helpers of this process; nullptr: it reads all parts itself, one after the other.
extern Helpers *helpers;

// Reads the parts of the level that are left and waits until others have read theirs. Returns how many slots
// were read more than once. Errors: those of Pass::Read; the error with which another process ended, as it
// was.
uint64 LeadParts(Pass &pass, RunRecord &record, int level, bool stops_at_rejects);

}  // namespace prm
