// A limit of keys per second.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace prm::source {

// A token bucket that holds a single batch of tokens: a batch must be paid for before the next one, so that
// the load is even.
class RateCeiling {
 public:
  // per_second: 0 means no ceiling.
  explicit RateCeiling(long per_second) : per_second_(per_second) {}

  void Take(uint64_t keys) {
    if (per_second_ == 0) return;
    const auto cost =
        std::chrono::duration<double>(static_cast<double>(keys) / static_cast<double>(per_second_));
    free_at_ = std::max(free_at_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(cost);
  }

  // Milliseconds until more may be taken, rounded up; 0: now.
  long WaitMs() const {
    if (per_second_ == 0) return 0;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(free_at_ - Clock::now()).count();
    return std::max(0L, static_cast<long>(left));
  }

 private:
  using Clock = std::chrono::steady_clock;

  long per_second_;
  Clock::time_point free_at_{};
};

}  // namespace prm::source
