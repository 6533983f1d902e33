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

// Sleeps, interruptibly.
void Sleep(long timeout_ms);

}  // namespace prm::pg
