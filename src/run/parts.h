// A level is read in parts, side by side: by the process that leads the run and by others that take part in
// it. Each part has a checkpoint and counts of its own and is read by one process at a time, which holds its
// lock. A process without a part takes one that nobody reads, so the run is completed with any number of
// processes, whichever of them end.
#pragma once

#include "run/pass.h"

namespace prm {

// Starts and stops the processes that help the leader of a run.
class Helpers {
 public:
  virtual ~Helpers() = default;
  // Why no process can help a run of the current user; nothing if one can.
  virtual std::optional<std::string> Problem() = 0;
  // Starts up to `count` processes that CALL redis_migrate.join_run(run_id), and returns how many. Reports
  // why there are fewer, at this level.
  virtual int Start(int64 run_id, int count, int report_level) = 0;
  // Stops those that still run, and waits until they have ended.
  virtual void Stop() = 0;
};

// Set by _PG_init.
extern std::unique_ptr<Helpers> (*new_helpers)();

// Reads the parts of the level that are left and waits until others have read theirs. first: as Pass::Read.
// Returns how many slots were read more than once. Errors: those of Pass::Read; the error with which another
// process ended, as it was.
uint64 LeadParts(Pass &pass, RunRecord &record, int level, bool first, bool stops_at_rejects);

}  // namespace prm
