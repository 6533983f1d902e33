// Lets the followers of a cluster's masters work in one process, one after the other.
#include "connect/outage.h"
#include "live/follower.h"
#include "pg/background.h"
#include "pg/spi.h"

namespace prm {

using pg::Failure;
using pg::Spi;

namespace {

constexpr int64 kLookAgainMs = 200;  // while a slot is being moved
constexpr long kIdleMs = 5;

// A master that is away: the others wait for an attempt to reach it at most a tenth of the time.
constexpr int64 kPauses = 10;
constexpr int64 kLeastPauseMs = 500;
constexpr int64 kLongestPauseMs = 60 * 1000;

}  // namespace

void Follower::FollowCluster(std::vector<std::unique_ptr<Follower>> &followers, SlotOwners &owners) {
  for (size_t i = 0; i < followers.size(); ++i) {
    followers[i]->cluster_.emplace(Cluster{&followers, &owners, i});
    followers[i]->ReadRecord();
  }
  for (;;) {
    bool is_news = false;
    for (const auto &follower : followers) is_news = follower->Step() || is_news;
    if (!is_news) pg::Sleep(kIdleMs);
  }
}

// Whether there was anything to do. A batch for which the master is needed waits until that is back.
bool Follower::Step() {
  link_.Look();
  int64 const began_ms = pg::MonotonicMs();
  if (began_ms < retry_ms_) return false;
  Batch batch;
  try {
    if (!changes_ && !OpenSpool()) return false;
    if (held_) {
      batch = std::move(*held_);
      held_.reset();
    } else {
      Collect(batch);
      TakeBackfill(batch);
    }
    Apply(batch);
  } catch (const MasterAway &) {
    if (changes_) held_ = std::move(batch);
    int64 const now_ms = pg::MonotonicMs();
    retry_ms_ = now_ms + std::clamp((now_ms - began_ms) * kPauses, kLeastPauseMs, kLongestPauseMs);
    return false;
  }
  return batch.commands > 0;
}

// This master's stream does not tell the state of keys that it no longer has, or is about to lose. They are
// read from the master that has them.
void Follower::LeaveToOthers(Batch &batch) {
  if (!cluster_ || (batch.keys.empty() && batch.emptied.none())) return;
  AskOwners();
  for (size_t slot = 0; slot < redis::kClusterSlots; ++slot)
    if (batch.emptied[slot] && !cluster_->owners->IsOfOther(slot, cluster_->number))
      throw FullSyncNeeded{"slot " + std::to_string(slot) + " was emptied at its master"};
  for (auto change = batch.keys.begin(); change != batch.keys.end();) {
    const KeyId &id = change->first;
    std::optional<size_t> const link = cluster_->owners->LinkOf(id.second);
    if (link == cluster_->number) {
      ++change;
      continue;
    }
    if (link) {
      batch.left[*link].insert(id);
      known_.Forget(id.first, id.second);
      if (ahead_.erase(id) > 0) unsaved_.insert(id);
    } else {
      // The reverse feed cannot write to it before the move has ended.
      if (change->second.moved_until_ms > 0) change->second.moved_until_ms = pg::MonotonicMs() + kMovedMs;
      Wait(change->second, KeyAhead::kAgain, 0, change->second.tries, kLookAgainMs);
    }
    change = batch.keys.erase(change);
  }
}

void Follower::AskOwners() {
  try {
    Reader();
    bool const tls = connection_->deployment().connection.tls.mode != redis::TlsMode::kOff;
    cluster_->owners->Ask(**connection_, connection_->node().endpoint, tls);
  } catch (const Failure &failure) {
    Disconnect(failure);
    throw MasterAway();
  }
}

void Follower::AskClock() {
  try {
    Reader();
  } catch (const Failure &failure) {
    Disconnect(failure);
    if (!cluster_) throw;
    throw MasterAway();
  }
}

// Throws a failure of the connection that does not pass by itself.
void Follower::Disconnect(const Failure &failure) {
  named_.reset();
  connection_.reset();
  if (IsRefusal(failure.sqlstate()))
    throw Failure(failure.sqlstate(), WithKind(failure), failure.detail(), failure.hint());
  if (!MayComeBack(failure.sqlstate())) throw failure;
}

// Within a batch of another follower: keys that this one's master has now are to be read there.
void Follower::TakeOver(const std::set<KeyId> &ids) {
  std::vector<std::pair<const KeyId *, const KeyAhead *>> keys;
  for (const KeyId &id : ids) {
    ahead_.erase(id);
    known_.Forget(id.first, id.second);
    KeyAhead &waiting = waiting_[id];
    waiting = {KeyAhead::kAgain, 0, 0, pg::MonotonicMs()};
    waiting.moved_until_ms = pg::MonotonicMs() + kMovedMs;
    keys.emplace_back(&id, &waiting);
  }
  record_.SaveKeys(keys);
  has_saved_keys_ = true;
}

}  // namespace prm
