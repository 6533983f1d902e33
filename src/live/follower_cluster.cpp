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

}  // namespace

void Follower::FollowCluster(std::vector<std::unique_ptr<Follower>> &followers, SlotOwners &owners) {
  for (size_t i = 0; i < followers.size(); ++i) {
    followers[i]->cluster_.emplace(Cluster{&followers, &owners, i});
    followers[i]->OpenSpool();
  }
  for (;;) {
    bool is_news = false;
    for (const auto &follower : followers) is_news = follower->Step() || is_news;
    if (!is_news) pg::Sleep(kIdleMs);
  }
}

// Whether there was anything to do.
bool Follower::Step() {
  Batch batch;
  Collect(batch);
  link_.Look();
  Apply(batch);
  return batch.commands > 0;
}

// What this master has sent of keys that it no longer has, or is about to lose, does not tell their state.
// They are read from the master that has them.
void Follower::LeaveToOthers(Batch &batch) {
  if (!cluster_ || batch.keys.empty()) return;
  AskOwners();
  for (auto change = batch.keys.begin(); change != batch.keys.end();) {
    const KeyId &id = change->first;
    std::optional<size_t> const link = cluster_->owners->LinkOf(id.second);
    if (link == cluster_->number) {
      ++change;
      continue;
    }
    if (link) {
      batch.left[*link].push_back(id);
      known_.Forget(id.first, id.second);
      if (ahead_.erase(id) > 0) dropped_.push_back(id);
    } else {
      Wait(change->second, KeyAhead::kAgain, 0, change->second.tries, kLookAgainMs);
    }
    change = batch.keys.erase(change);
  }
}

void Follower::AskOwners() {
  Outage outage;
  for (;;) {
    std::optional<Failure> failure;
    try {
      Reader();
      bool const tls = connection_->deployment().connection.tls.mode != redis::TlsMode::kOff;
      cluster_->owners->Ask(**connection_, connection_->node().endpoint, tls);
      return;
    } catch (const Failure &error) {
      named_.reset();
      connection_.reset();
      if (!MayComeBack(error.sqlstate())) throw;
      failure.emplace(error);
    }
    link_.Look();
    outage.Wait(*failure, true);
  }
}

// Called within a batch of another follower: keys that this one's master now has are to be read from it.
void Follower::TakeOver(const std::vector<KeyId> &ids) {
  std::vector<std::pair<const KeyId *, const KeyAhead *>> keys;
  for (const KeyId &id : ids) {
    ahead_.erase(id);
    known_.Forget(id.first, id.second);
    KeyAhead &waiting = waiting_[id];
    waiting = {KeyAhead::kAgain, 0, 0, pg::MonotonicMs()};
    keys.emplace_back(&id, &waiting);
  }
  record_.ForgetKeys(ids);
  record_.AddKeys(keys);
  has_saved_keys_ = waiting_changed_ = true;
}

}  // namespace prm
