// A point in time by which something must have happened.
#pragma once

#include <algorithm>
#include <chrono>

namespace prm::redis {

class Deadline {
 public:
  // limit_ms milliseconds from now.
  explicit Deadline(long limit_ms) : limit_ms_(limit_ms), end_(Clock::now() + Milliseconds(limit_ms)) {}

  // Milliseconds left, rounded up; 0 after the deadline.
  long RemainingMs() const {
    const auto left = std::chrono::ceil<Milliseconds>(end_ - Clock::now()).count();
    return std::max(0L, static_cast<long>(left));
  }

  // The original time limit, for messages.
  long limit_ms() const { return limit_ms_; }

 private:
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::milliseconds;

  long limit_ms_;
  Clock::time_point end_;
};

}  // namespace prm::redis
