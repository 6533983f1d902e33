// How a PostgreSQL session waits for the network: on its latch as well, so that cancel, terminate, postmaster
// death and barriers of other sessions' DROP DATABASE take effect at once.
#pragma once

#include "pg/guard.h"
#include "redis/waiter.h"

namespace prm::pg {

// Throws PgError when the wait is cancelled. Holds no snapshot while it waits, unless the caller's query
// does.
class LatchWaiter : public redis::Waiter {
 public:
  int Wait(redis::WaitSocket *sockets, size_t count, long timeout_ms) override;
};

// A socket that PostgreSQL's own files have to leave room for, as long as the object lives.
class ExternalDescriptor {
 public:
  // Errors: 53000 when max_files_per_process leaves none.
  ExternalDescriptor();
  ~ExternalDescriptor() { ReleaseExternalFD(); }
  ExternalDescriptor(const ExternalDescriptor &) = delete;
  ExternalDescriptor &operator=(const ExternalDescriptor &) = delete;
};

// Sleeps, interruptibly.
void Sleep(long timeout_ms);

}  // namespace prm::pg
