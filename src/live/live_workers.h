// The background workers beside the one of a live run: they keep its links, or apply shares of the changes.
#pragma once

#include "mapping/catalog.h"
#include "pg/pg.h"

namespace prm {

class LiveWorkers {
 public:
  virtual ~LiveWorkers() = default;
  // Whether a link or a share of a run has a worker, by its number. link: of a cluster from 1 on, otherwise
  // 0.
  virtual bool Exists(int64 run_id, int number) = 0;
  // Starts one, which CALLs redis_migrate.receive_stream(run_id, link) or apply_stream(run_id, applier).
  // Returns why it could not. The caller has no transaction that has to end first.
  virtual std::optional<std::string> Start(int64 run_id, int number) = 0;
  // Ends it, or all of the run, and waits for that.
  virtual void Stop(int64 run_id, int number) = 0;
  virtual void StopAll(int64 run_id) = 0;
  // For the worker itself: whether the background run of the migration has a worker still.
  virtual bool IsWanted(const std::string &migration) = 0;
};

// Set by _PG_init.
extern std::unique_ptr<LiveWorkers> (*new_link_workers)();
extern std::unique_ptr<LiveWorkers> (*new_applier_workers)();

// Looks after what a cutover has left at the masters, outside of a transaction. Set by _PG_init.
extern void (*look_after_fences)(const Migration &migration);

}  // namespace prm
