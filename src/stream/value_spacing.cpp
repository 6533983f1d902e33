#include "stream/value_spacing.h"

#include <algorithm>

namespace prm::stream {

namespace {

constexpr int64_t kTimes = 20;             // what it took
constexpr int64_t kMostTookMs = 3600'000;  // nothing waits for days, whatever the clocks said
constexpr size_t kMostValues = 10'000;

}  // namespace

void ValueSpacing::Note(const Key& key, uint64_t bytes, int64_t took_ms, int64_t now_ms) {
  if (bytes < kLargeValueBytes) {
    values_.erase(key);
    return;
  }
  took_ms = std::clamp(took_ms, int64_t{1}, kMostTookMs);
  values_[key] = {bytes, now_ms + kTimes * took_ms};
  const double bytes_ms = static_cast<double>(bytes) * 1000 / static_cast<double>(bytes_per_second_);
  free_ms_ = std::max(free_ms_, now_ms) + static_cast<int64_t>(std::min(bytes_ms, double{kMostTookMs}));
  if (values_.size() > kMostValues) MakeRoom(now_ms);
}

// A key that is not known is read at once.
void ValueSpacing::MakeRoom(int64_t now_ms) {
  for (auto value = values_.begin(); value != values_.end();)
    value = value->second.due_ms <= now_ms ? values_.erase(value) : std::next(value);
  if (values_.size() > kMostValues / 2) values_.clear();
}

uint64_t ValueSpacing::BytesOf(const Key& key) const {
  const auto value = values_.find(key);
  return value == values_.end() ? 0 : value->second.bytes;
}

int64_t ValueSpacing::PauseMs(const Key& key, int64_t now_ms) const {
  const auto value = values_.find(key);
  if (value == values_.end()) return 0;
  return std::max(std::max(value->second.due_ms, free_ms_) - now_ms, int64_t{0});
}

}  // namespace prm::stream
