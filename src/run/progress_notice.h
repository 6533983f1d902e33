// Tells the client of a run how far it is, every few seconds.
#pragma once

#include "pg/pg.h"

namespace prm {

class ProgressNotice {
 public:
  ProgressNotice();

  // Whether pg_redis_migrate.progress_interval has passed since the last notice, or the beginning; never in a
  // background worker.
  bool IsDue() const;
  // Sends a notice if it is due. Between batches: needs SPI, and may have begun a transaction afterwards.
  void Tell(int64 run_id);

 private:
  int64 told_ms_;
};

}  // namespace prm
