// How fast a sweep may go, and when it must wait.
#pragma once

#include "expiry/policy.h"
#include "pg/pg.h"

namespace prm::expiry {

// Why a policy must not remove rows now: a standby that is behind, or a session, prepared transaction or
// replication slot that keeps removed rows from being cleaned up; "" when nothing is in the way. Read as the
// extension's owner.
std::string PauseReason(const Policy &policy);

// Whether a client session is running a statement, or has run one within the last second. Read as the
// extension's owner. Sessions of the whole server count: they share its WAL and its processors.
bool OthersAtWork();

// Lets another process that waits for this processor have it. A sweep calls it between its statements; within
// them redis_migrate.gives_way() does. Not for a place that holds an LWLock.
void GiveWay();

// The next size of batches, after one of `size` took `elapsed_ms`. It at most doubles, and shrinks as far as
// needed.
int AdaptSize(int size, double elapsed_ms, double target_ms, int most);

// Keeps to a ceiling of rows per second.
class RateCeiling {
 public:
  // A batch that began at `begin` has removed so many rows.
  void Spend(int64 rows, int max_rate, TimestampTz begin);
  // Milliseconds until the next batch may begin.
  int64 WaitMs() const;

 private:
  TimestampTz ready_at_ = 0;
  int64 longest_ms_ = 0;
};

}  // namespace prm::expiry
