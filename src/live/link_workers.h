// The background worker that keeps the replication link of a live run.
#pragma once

#include "pg/pg.h"

namespace prm {

class LinkWorkers {
 public:
  virtual ~LinkWorkers() = default;
  // Whether a link of a run has a worker. link: of a cluster its number, otherwise 0.
  virtual bool Exists(int64 run_id, int link) = 0;
  // Starts one, which CALLs redis_migrate.receive_stream(run_id, link). Returns why it could not. The caller
  // has no transaction that has to end first.
  virtual std::optional<std::string> Start(int64 run_id, int link) = 0;
  // Ends it, and waits for that.
  virtual void Stop(int64 run_id, int link) = 0;
  // For the worker of a link: whether the background run of the migration has a worker still.
  virtual bool IsWanted(const std::string &migration) = 0;
};

// Set by _PG_init.
extern std::unique_ptr<LinkWorkers> (*new_link_workers)();

}  // namespace prm
