#include "run/level_names.h"

#include "pg/settings.h"

namespace prm {

namespace {

constexpr int kSecondsKept = 60;
// For all names together.
constexpr size_t kMostBytes = 4 << 20;
// The memory of a name beside its bytes.
constexpr size_t kBytesPerName = 48;

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
  names->emplace_back(db, key);
  bytes_ += key.size() + kBytesPerName;
  if (names->size() <= static_cast<size_t>(pg::settings::batch_rows) && bytes_ <= kMostBytes) return;
  for (const auto &[of_db, name] : *names) bytes_ -= name.size() + kBytesPerName;
  names.reset();
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

std::optional<source::ListedNames> LevelNames::Of(int level) const {
  bool const is_old = TimestampDifferenceExceeds(begun_, GetCurrentTimestamp(), kSecondsKept * 1000);
  if (state_ != State::kKnown || level <= scanned_ || is_old) return std::nullopt;
  auto const found = of_levels_.find(level);
  if (found == of_levels_.end()) return source::ListedNames{run_id_, {}};
  if (!found->second) return std::nullopt;
  return source::ListedNames{run_id_, *found->second};
}

}  // namespace prm
