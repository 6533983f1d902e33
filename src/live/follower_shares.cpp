// How an applier of a share of the keys works with those of the other shares.
#include <utility>

#include "live/follower.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;

namespace {

constexpr int64 kOthersPauseMs = 100;  // of keys that wait for what other processes apply
constexpr int64 kLookAtOthersMs = 250;
constexpr int64 kSoonMs = 1000;  // others that are behind for longer are not looked at as often
constexpr int64 kTellAfterMs = 10000;

}  // namespace

// Whether a change was applied when the keys were divided in another way.
bool Follower::IsApplied(const stream::StreamChange &change) const {
  return std::any_of(earlier_.begin(), earlier_.end(), [&](const AppliedShare &earlier) {
    return change.offset <= earlier.point.offset && earlier.share.Has(change.entry.key);
  });
}

// Notes a key of what the server did at once, unless nobody stores it. All shares see the same ones. A feed
// names together what was done one after the other.
void Follower::NoteShare(int db, const std::string &key) {
  if (share_.is_all() || is_feed_ || is_of_several_) return;
  int const share = share_.NumberOf(key);
  if (share == at_once_ || !Takes(run_.migration().databases, db) ||
      filter_.Classify(db, key).interest == source::Interest::kIgnore)
    return;
  is_of_several_ = at_once_.has_value();
  at_once_ = share;
}

// Waits until all shares are applied up to a barrier, 0: none. The one that is behind all others never waits.
// The next batch ends where the furthest of them is, at once: they would otherwise take turns, as each comes
// to a barrier that the others have not reached. Who has followed another like that lets it go first again.
void Follower::PassBarrier(uint64 barrier) {
  pace_ms_ = common_end_ == 0 ? kBatchEveryMs : 2 * kBatchEveryMs;
  common_end_ = 0;
  if (barrier == 0) return;
  bool is_told = false;
  for (int64 const since_ms = pg::MonotonicMs();;) {
    std::optional<OtherShares> const others = record_.ReadOthers();
    Spi::Commit();
    if (others && others->lowest < barrier) {
      ReleaseApplied();
      WaitForNews();
      int64 const waited_ms = pg::MonotonicMs() - since_ms;
      if (waited_ms > kSoonMs) pg::Sleep(kLagPauseMs);
      if (waited_ms > kTellAfterMs && !std::exchange(is_told, true))
        pg::Report(LOG, "applier " + std::to_string(share_.number) + " waits for another one",
                   "What Redis did at once to keys of several appliers ends at offset " +
                       std::to_string(barrier) + ", and the last of them is at " +
                       std::to_string(others->lowest) + ".");
      continue;
    }
    if (others && others->furthest > position_.point.offset) common_end_ = others->furthest;
    return;
  }
}

// Whether the spool has what others have not applied yet.
bool Follower::OthersLag() const {
  std::optional<OtherShares> const others = record_.ReadOthers();
  Spi::Commit();
  return others && others->lowest < position_.point.offset;
}

// The spool is not to be full of what others have applied since the last batch.
void Follower::LookAtOthers() {
  int64 const now_ms = pg::MonotonicMs();
  if (newest_.offset >= position_.point.offset || now_ms - looked_at_others_ms_ < kLookAtOthersMs) return;
  looked_at_others_ms_ = now_ms;
  std::optional<OtherShares> const others = record_.ReadOthers();
  // A commit that can be seen lies before this point of the log.
  XLogRecPtr const end = pg::Call([] { return GetXLogInsertRecPtr(); });
  Spi::Commit();
  if (!others) return;
  newest_ = {end, std::min(others->lowest, position_.point.offset)};
  if (!unreleased_) unreleased_ = newest_;
}

// Makes a key wait that rows of other keys refuse. While other processes have not applied what was there
// before it, it is not its fault. others: how far they are.
void Follower::WaitForOthers(const KeyChange &change, KeyAhead::Kind kind, uint64 offset, int tries,
                             const std::optional<OtherShares> &others) {
  uint64 barrier = change.barrier;
  if (auto const ahead = ahead_.find({change.entry.db, change.entry.key}); barrier == 0)
    barrier = std::max(change.offset, ahead == ahead_.end() ? 0 : ahead->second.read_offset);
  // The first time, they may have come to it since.
  bool const is_early = others && (change.barrier == 0 || others->lowest < barrier);
  if (is_early && kind == KeyAhead::kAgain) tries = change.tries;
  Wait(change, kind, offset, tries, is_early ? kOthersPauseMs : kRetryMs);
  waiting_[{change.entry.db, change.entry.key}].barrier = barrier;
}

}  // namespace prm
