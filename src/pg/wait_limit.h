// Ends waits for the network in time.
#pragma once

#include "pg/wait.h"

namespace prm::pg {

// No wait of a LatchWaiter in this scope lasts longer than a moment, by the monotonic clock: it throws the
// failure then.
class WaitLimit {
 public:
  WaitLimit(int64 until_ms, Failure failure);
  ~WaitLimit();
  WaitLimit(const WaitLimit &) = delete;
  WaitLimit &operator=(const WaitLimit &) = delete;

  int64 RestMs() const;
  const Failure &failure() const { return failure_; }

 private:
  int64 until_ms_;
  Failure failure_;
  const WaitLimit *outer_;
};

}  // namespace prm::pg
