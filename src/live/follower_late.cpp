// Changes of keys whose families belong to PostgreSQL, and those that the reverse feed makes.
#include "live/follower.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/spi.h"
#include "run/late_expiries.h"
#include "run/late_writes.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using source::EntryState;
using stream::ChangeKind;

namespace {

constexpr size_t kMostOwnGone = 20000;
constexpr int64 kNameWritersMs = 5000;

}  // namespace

// The rows that it was made from are as new, or newer than it and all before it. What somebody else has
// written to the key meanwhile is gone from Redis.
void Follower::TakeOwn(const KeyId &id, const stream::StreamChange &change, Batch &batch) {
  bool const is_gone = change.kind == ChangeKind::kDelete;
  if (auto const known = batch.keys.find(id); known != batch.keys.end()) {
    NoteOverwritten(id, std::move(known->second), batch);
    batch.keys.erase(known);
  }
  // It was read when this had deleted it.
  if (auto const waiting = waiting_.find(id);
      is_gone && waiting != waiting_.end() && waiting->second.kind == KeyAhead::kAbsent &&
      waiting->second.tries == 0 && change.offset <= waiting->second.read_offset) {
    KeyChange lost = {ChangeKind::kChanged, change.entry, change.offset};
    lost.entry.route = filter_.Classify(id.first, id.second).route;
    lost.moved_until_ms = waiting->second.moved_until_ms;
    NoteOverwritten(id, std::move(lost), batch);
    waiting_.erase(waiting);
    unsaved_.insert(id);
  }
  // It was read when this had replaced what somebody else had written.
  if (auto const ahead = ahead_.find(id);
      ahead != ahead_.end() && ahead->second.may_be_lost && change.offset <= ahead->second.read_offset) {
    ahead->second.may_be_lost = false;
    KeyChange lost = {ChangeKind::kChanged, change.entry, change.offset};
    lost.entry.route = filter_.Classify(id.first, id.second).route;
    lost.is_older = true;
    NoteOverwritten(id, std::move(lost), batch);
  }
  if (cluster_) NoteOwn(id, is_gone);
  known_.Forget(id.first, id.second);
}

// If the family is PostgreSQL's, that is a late write all the same. A key that came with its slot was written
// by nobody, and one that had gone has lost nothing.
void Follower::NoteOverwritten(const KeyId &id, KeyChange change, Batch &batch) const {
  if (change.kind == ChangeKind::kDelete || (cluster_ && change.moved_until_ms > 0)) return;
  // These say nothing of the value that was written before them.
  if (auto const found = batch.overwritten.find(id);
      found != batch.overwritten.end() &&
      (change.is_older || (change.only_expiry && !found->second.only_expiry)))
    return;
  source::Entry &entry = change.entry;
  if (change.kind == ChangeKind::kChanged || change.elements) {  // nobody knows its value any more
    entry.state = EntryState::kChanging;
    entry.payload.clear();
    entry.expires_at_ms.reset();
    change.elements.reset();
  }
  batch.overwritten[id] = std::move(change);
}

// A change that came because the slot of the key moved counts no more.
void Follower::NoteOwn(const KeyId &id, bool is_gone) {
  if (auto const waiting = waiting_.find(id);
      waiting != waiting_.end() && waiting->second.moved_until_ms > 0) {
    waiting_.erase(waiting);
    unsaved_.insert(id);
  }
  if (!is_gone) {
    own_gone_.erase(id);
    return;
  }
  if (own_gone_.size() >= kMostOwnGone) own_gone_.clear();
  own_gone_.insert(id);
}

// Keys of a slot that moves are restored in the stream of its new master and deleted in that of the old one,
// whoever has written them. The reverse feed may be about to write what the rows have: such a key is looked
// at again.
bool Follower::MayBeOfMove(const LateWrite &write, Batch &batch) {
  KeyId const id = {write.entry->db, write.entry->key};
  const KeyChange &change = batch.keys.at(id);
  if (write.is_gone) return change.is_due && own_gone_.count(id) > 0;
  if (pg::MonotonicMs() >= change.moved_until_ms) return false;
  batch.unsettled.push_back(write.entry);
  return true;
}

// Elements alone would not tell what the key has in the end: it is read as a whole from now on.
void Follower::KeepLate(Batch &batch, std::vector<LateWrite> &late) {
  PartsRefused refused;
  for (LateWrite &write : late) {
    KeyId const id = {write.entry->db, write.entry->key};
    const KeyChange &change = batch.keys.at(id);
    write.only_expiry = change.only_expiry;
    // If it was read later than that, it may show what a client, or the feed, has written since: the stream
    // tells which, and each of these is taken by itself.
    if (change.only_expiry && ahead_.erase(id) > 0) {
      known_.Forget(id.first, id.second);
      unsaved_.insert(id);
    }
    write.may_be_own = is_feed_ || (cluster_ && change.moved_until_ms > 0);
    if (!write.entry->is_part) continue;
    refused.parts.push_back({id, true});
    read_whole_.insert(write.pattern);
  }
  if (!refused.parts.empty()) throw refused;
  batch.has_late = KeepOverwritten(batch);
  if (late.empty()) return;
  SettleHarmless(run_.migration(), run_.routing(), store_, late);
  if (cluster_)
    late.erase(std::remove_if(late.begin(), late.end(),
                              [&](const LateWrite &write) { return MayBeOfMove(write, batch); }),
               late.end());
  KeepLateWrites(run_.migration().name, late);
  batch.has_late = batch.has_late || !late.empty();
}

// Before later changes of the same keys. Returns whether there are any.
bool Follower::KeepOverwritten(const Batch &batch) {
  std::vector<LateWrite> writes;
  for (const auto &[id, change] : batch.overwritten)
    if (auto const pattern = Route::FromNumber(change.entry.route).pattern)
      writes.push_back({&change.entry, run_.routing().patterns()[*pattern].text(), false, change.only_expiry,
                        false, change.is_older});
  KeepLostWrites(run_.migration(), run_.routing(), store_, writes);
  return !writes.empty();
}

// Clients come and go: who has just written is still there.
void Follower::NameLateWriters() {
  int64 const now_ms = pg::MonotonicMs();
  if (named_writers_ms_ && now_ms - *named_writers_ms_ < kNameWritersMs) return;
  named_writers_ms_ = now_ms;
  try {
    ServerConnection connection(run_.migration().server, GetUserId(), link_.nodes());
    Spi::Commit();
    if (!connection.is_open()) return;
    auto const clients = pg::ValueOrThrow(FetchWritingClients(*connection));
    KeepWritingClients(run_.migration().name, clients);
    Spi::Commit();
  } catch (const Failure &failure) {
    // The writes are kept all the same.
    pg::Report(LOG, std::string("who writes late is not known: ") + failure.what());
  }
}

}  // namespace prm
