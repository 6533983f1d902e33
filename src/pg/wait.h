// Waits for the network in a PostgreSQL session: also on its latch, so that cancel, terminate, postmaster
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
  void CheckInterrupts() override { pg::CheckInterrupts(); }
};

// Reserves a file descriptor for a socket against PostgreSQL's own files, as long as the object lives.
class ExternalDescriptor {
 public:
  // Errors: 53000 when max_files_per_process leaves none.
  ExternalDescriptor();
  ~ExternalDescriptor() { ReleaseExternalFD(); }
  ExternalDescriptor(const ExternalDescriptor &) = delete;
  ExternalDescriptor &operator=(const ExternalDescriptor &) = delete;
};

// No wait in this scope is cancelled, for records that a worker must write before it ends.
class WithoutCancel {
 public:
  WithoutCancel() { HOLD_CANCEL_INTERRUPTS(); }
  ~WithoutCancel() {
    if (QueryCancelHoldoffCount > 0) RESUME_CANCEL_INTERRUPTS();  // an error, caught or not, has reset it
  }
  WithoutCancel(const WithoutCancel &) = delete;
  WithoutCancel &operator=(const WithoutCancel &) = delete;
};

// For a scope: cancels are let through all the same, because lock_timeout ends a wait by the same means.
class CancelAllowed {
 public:
  CancelAllowed() : held_(std::exchange(QueryCancelHoldoffCount, 0)) {}
  ~CancelAllowed() { QueryCancelHoldoffCount = held_; }
  CancelAllowed(const CancelAllowed &) = delete;
  CancelAllowed &operator=(const CancelAllowed &) = delete;

 private:
  decltype(QueryCancelHoldoffCount) held_;
};

// Sleeps, interruptibly.
void Sleep(long timeout_ms);

}  // namespace prm::pg
