#include "run/level_names.h"

namespace prm {

namespace {

constexpr int kSecondsKept = 60;
// For all names together.
constexpr size_t kMostBytes = 8 << 20;
// The memory of a page and of a name beside its bytes.
constexpr size_t kBytesPerPage = 128;
constexpr size_t kBytesPerName = sizeof(size_t);

}  // namespace

void LevelNames::Begin(int level) {
  Forget();
  state_ = State::kScanning;
  scanned_ = level;
  begun_ = GetCurrentTimestamp();
}

void LevelNames::Note(int level, int db, Bytes key) {
  if (state_ != State::kScanning || level <= scanned_) return;
  std::optional<Names> &names = of_levels_.try_emplace(level, Names()).first->second;
  if (!names) return;
  size_t const bytes = key.size() + kBytesPerName + (names->is_open ? 0 : kBytesPerPage);
  while (bytes_ + bytes > kMostBytes) {
    if (ForgetLargest() == level) return;
  }
  bytes_ += bytes;
  names->bytes += bytes;
  if (!std::exchange(names->is_open, true)) names->pages.push_back({db, {}, {}, {}});
  source::NamesPage &page = names->pages.back();
  page.bytes += key;
  page.ends.push_back(page.bytes.size());
}

int LevelNames::ForgetLargest() {
  auto const largest =
      std::max_element(of_levels_.begin(), of_levels_.end(), [](const auto &a, const auto &b) {
        return b.second && (!a.second || a.second->bytes < b.second->bytes);
      });
  bytes_ -= largest->second->bytes;
  largest->second.reset();
  return largest->first;
}

void LevelNames::EndPage(const std::string &cursor) {
  if (state_ != State::kScanning) return;
  for (auto &[level, names] : of_levels_)
    if (names && std::exchange(names->is_open, false)) names->pages.back().cursor = cursor;
}

void LevelNames::End(const std::string &run_id) {
  if (state_ != State::kScanning) return;
  if (!source::IsRunId(run_id)) return Forget();
  state_ = State::kKnown;
  run_id_ = run_id;
}

void LevelNames::Forget() {
  state_ = State::kNothing;
  of_levels_.clear();
  bytes_ = 0;
}

std::optional<source::ListedNames> LevelNames::Take(int level) {
  bool const is_old = TimestampDifferenceExceeds(begun_, GetCurrentTimestamp(), kSecondsKept * 1000);
  if (state_ != State::kKnown || level <= scanned_ || is_old) return std::nullopt;
  auto const found = of_levels_.find(level);
  if (found == of_levels_.end()) return source::ListedNames{run_id_, {}};
  if (!found->second) return std::nullopt;
  source::ListedNames listed = {run_id_, std::move(found->second->pages)};
  bytes_ -= found->second->bytes;
  found->second.reset();
  return listed;
}

}  // namespace prm
