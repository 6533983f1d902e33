// A level is read in parts, side by side: by the process that leads the run and by others that take part in
// it. Each part has a checkpoint and counts of its own and is read by one process at a time, which holds its
// lock. A process without a part takes one that nobody reads, so that the run is complete however many
// processes there are, and whichever of them end.
#pragma once

#include "run/pass.h"

namespace prm {

// How the process that leads a run comes by others.
class Helpers {
 public:
  virtual ~Helpers() = default;
  // Why nobody can help a run of the current user; nothing: somebody can.
  virtual std::optional<std::string> Problem() = 0;
  // Starts up to `count` processes that CALL redis_migrate.join_run(run_id), and returns how many. Reports
  // why there are fewer, at this level.
  virtual int Start(int64 run_id, int count, int report_level) = 0;
  // Ends those that are still there, and waits for that.
  virtual void Stop() = 0;
};

// Set by _PG_init.
extern std::unique_ptr<Helpers> (*new_helpers)();

// Reads the parts of the level that are left and waits until others have read theirs. first: as Pass::Read.
// Returns how many slots were read more than once. Errors: those of Pass::Read; the error with which another
// process ended, as it was.
uint64 LeadParts(Pass &pass, RunRecord &record, int level, bool first, bool stops_at_rejects);

}  // namespace prm
