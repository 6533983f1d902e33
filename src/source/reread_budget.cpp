#include "source/reread_budget.h"

#include <algorithm>
#include <chrono>
#include <functional>

namespace prm::source {

namespace {

constexpr size_t kMostKeys = 200;
constexpr double kExecUs = 1000;
constexpr double kTurnUs = 100;
constexpr double kNewestCounts = 0.2;  // of the time of a key, as a moving average

// An unused share may be used later, up to that of so much time.
constexpr double kSavedUs = 100'000;

constexpr int64_t kPingEveryUs = 50'000;
constexpr size_t kPings = 100;            // in a window
constexpr double kUnremarkableUs = 2000;  // the kernel's scheduler alone may take as long
constexpr double kMostSlowdown = 16;
// If so little reading has not helped, something else keeps the server busy. For so many windows, a minute,
// it is not looked at: less reading would not spare it, and the tables would fall behind for nothing.
constexpr int kExcusedWindows = 12;
// A server that has become slower for good is as it used to be after some windows.
constexpr double kForget = 1.05;

}  // namespace

int64_t RereadBudget::NowUs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

size_t RereadBudget::KeysIn(double busy_us) const {
  if (us_per_key_ == 0) return kMostKeys;
  return std::clamp(static_cast<size_t>(busy_us / us_per_key_), size_t{1}, kMostKeys);
}

size_t RereadBudget::KeysAtOnce() const { return KeysIn(kExecUs); }

size_t RereadBudget::KeysInTurn() const { return KeysIn(kTurnUs); }

double RereadBudget::CreditUs(double idle_us) const {
  return std::min(credit_us_ + idle_us * share(), kSavedUs * share());
}

double RereadBudget::PassedUs(int64_t now_us) const {
  return static_cast<double>(std::max(now_us - as_of_us_, int64_t{0}));
}

void RereadBudget::Spend(size_t keys, int64_t busy_us, int64_t now_us) {
  const auto busy = static_cast<double>(std::max(busy_us, int64_t{0}));
  if (keys > 0) {
    // Never 0, which stands for unknown.
    const double per_key = std::max(busy / static_cast<double>(keys), 0.001);
    us_per_key_ = us_per_key_ == 0 ? per_key : us_per_key_ + kNewestCounts * (per_key - us_per_key_);
  }
  const double idle_us = has_begun_ ? std::max(PassedUs(now_us) - busy, 0.0) : kSavedUs;
  has_begun_ = true;
  credit_us_ = CreditUs(idle_us) + busy * share() - busy;
  as_of_us_ = now_us;
}

int64_t RereadBudget::PauseUs(int64_t now_us) const {
  const double lacking_us = has_begun_ ? -CreditUs(PassedUs(now_us)) : 0;
  return lacking_us <= 0 ? 0 : static_cast<int64_t>(lacking_us / share()) + 1;
}

bool RereadBudget::WantsPing(int64_t now_us) const {
  return asked_us_ == 0 || now_us - asked_us_ >= kPingEveryUs;
}

void RereadBudget::NotePing(int64_t took_us, int64_t now_us) {
  asked_us_ = now_us;
  pings_us_.push_back(took_us);
  if (pings_us_.size() == kPings) JudgePings();
}

void RereadBudget::JudgePings() {
  // The second slowest of a hundred: one may be slow for a reason of ours.
  std::nth_element(pings_us_.begin(), pings_us_.begin() + 1, pings_us_.end(), std::greater<>());
  const auto slow_us = static_cast<double>(pings_us_[1]);
  pings_us_.clear();
  if (excused_windows_ > 0) {
    --excused_windows_;
    return;
  }
  const bool is_slow = usual_ping_us_ > 0 && slow_us > std::max(2 * usual_ping_us_, kUnremarkableUs);
  if (is_slow && slowdown_ == kMostSlowdown) {
    slowdown_ = 1;
    usual_ping_us_ = slow_us;
    excused_windows_ = kExcusedWindows;
    return;
  }
  slowdown_ = is_slow ? std::min(slowdown_ * 2, kMostSlowdown) : std::max(slowdown_ / 2, 1.0);
  usual_ping_us_ = usual_ping_us_ == 0 ? slow_us : std::min(slow_us, usual_ping_us_ * kForget);
}

}  // namespace prm::source
