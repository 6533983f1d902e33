// Reads the keys of a batch of the stream again.
#include "connect/outage.h"
#include "connect/server_clock.h"
#include "connect/temporary_spool.h"
#include "live/follower.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using source::EntryState;
using stream::ChangeKind;

namespace {

constexpr size_t kKeysAtOnce = 2000;
constexpr int64 kMostLagMs = 10 * 1000;  // of the node that keys are read from, behind the one of the link
constexpr int kMostAbsences = 5;
constexpr long kMostConnectMs = 1000;  // to one master, while the others wait

}  // namespace

// The connection to the server, which is opened if there is none.
redis::Connection &Follower::Connect() {
  if (connection_ == nullptr) {
    auto opened = std::make_unique<ServerConnection>(run_.migration().server, GetUserId(), link_.nodes(),
                                                     cluster_ ? kMostConnectMs : LONG_MAX);
    Spi::Commit();
    if (!opened->is_open())
      throw Failure(ERRCODE_CONNECTION_FAILURE, "a master of the cluster has no slots any more");
    clock_ahead_ms_ = FetchClockAhead(**opened);
    names_.clear();
    connection_ = std::move(opened);
  }
  return **connection_;
}

source::NamedKeys &Follower::Reader() {
  redis::Connection &server = Connect();
  if (named_ == nullptr) {
    source::NamedKeysOptions options;
    options.is_cluster = cluster_.has_value();
    options.max_reply_bytes = static_cast<uint64>(pg::settings::max_reply_size_kb) * 1024;
    options.max_value_bytes = static_cast<uint64>(pg::settings::max_value_size_kb) * 1024;
    options.bytes_in_all = static_cast<uint64>(pg::settings::batch_size_kb) * 1024;
    options.budget = &budget_;
    options.has_points = !is_feed_;
    options.make_spool = TemporarySpool::Make;
    named_ = pg::ValueOrThrow(source::NamedKeys::Open(server, options));
  }
  return *named_;
}

source::TimeSpan Follower::Now() const {
  int64 const now_ms = pg::NowMs();
  return ByServerClock({now_ms, now_ms});
}

// Reads keys whose changes do not carry their state. What is too much for a batch waits for the next.
void Follower::ReadAgain(Batch &batch) {
  std::vector<KeyChange *> changes;
  for (auto &[id, change] : batch.keys)
    if (change.kind == ChangeKind::kChanged && !Space(id, change)) changes.push_back(&change);
  std::stable_sort(changes.begin(), changes.end(),
                   [](const KeyChange *a, const KeyChange *b) { return a->together < b->together; });
  ReadAgain(changes, batch);
}

void Follower::ReadAgain(const std::vector<KeyChange *> &changes, Batch &batch) {
  uint64 const most_bytes = static_cast<uint64>(pg::settings::batch_size_kb) * 1024;
  uint64 bytes = 0;
  for (size_t from = 0; from < changes.size(); from += kKeysAtOnce) {
    std::vector<KeyChange *> part(
        changes.begin() + static_cast<long>(from),
        changes.begin() + static_cast<long>(std::min(from + kKeysAtOnce, changes.size())));
    if (bytes > most_bytes) {
      for (const KeyChange *change : part) Wait(*change, KeyAhead::kAgain, change->offset, change->tries, 0);
      continue;
    }
    std::vector<source::NamedKey> keys;
    KeepToBudget();
    int64 const began_ms = pg::MonotonicMs();
    ReadAgain(keys, part);
    size_t read = 0;
    for (size_t i = 0; i < keys.size(); ++i) {
      if (keys[i].is_left) {
        Wait(*part[i], KeyAhead::kAgain, part[i]->offset, part[i]->tries, 0);
        continue;
      }
      if (read < i) keys[read] = std::move(keys[i]);
      part[read++] = part[i];
    }
    keys.resize(read);
    part.resize(read);
    NoteLarge(keys, pg::MonotonicMs() - began_ms, batch);
    batch.read_again += static_cast<int64>(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      bytes += PayloadSize(keys[i].entry);
      TakeRead(keys[i], *part[i]);
    }
  }
}

void Follower::ReadAgain(std::vector<source::NamedKey> &keys, const std::vector<KeyChange *> &changes) {
  Outage outage;
  int64 const began_ms = pg::MonotonicMs();
  for (;;) {
    keys.assign(changes.size(), {});
    for (size_t i = 0; i < changes.size(); ++i) {
      keys[i].entry.db = changes[i]->entry.db;
      keys[i].entry.key = changes[i]->entry.key;
      keys[i].together = changes[i]->together;
    }
    std::optional<Failure> failure;
    try {
      Status const read = Reader().Read(keys);
      if (!read.ok() && read.error().code == ErrorCode::kMoved) throw SlotsMoved();
      pg::ThrowIfError(read);
      if (IsOfNow(keys, changes) && HasSameData(keys)) return;
      // It may have been another server's once.
      named_.reset();
      connection_.reset();
      if (pg::MonotonicMs() - began_ms > kMostLagMs)
        throw Failure(ERRCODE_CONNECTION_FAILURE,
                      "server \"" + run_.migration().server + "\" does not know what the stream has changed",
                      "It lags behind the server of the replication link, or has another history.");
    } catch (const Failure &error) {
      Disconnect(error);
      failure.emplace(error);
    }
    link_.Look();
    if (failure && cluster_) throw MasterAway();
    if (failure)
      outage.Wait(*failure, true);
    else
      pg::Sleep(kLagPauseMs);
  }
}

// Whether what was read is as new as the changes, and belongs to the history that the link follows: that in
// which the stream is, or that in which it goes on.
bool Follower::IsOfNow(const std::vector<source::NamedKey> &keys,
                       const std::vector<KeyChange *> &changes) const {
  const std::string &id = next_ids_.empty() ? position_.point.id : next_ids_.back().id;
  for (size_t i = 0; i < keys.size(); ++i) {
    const redis::ReplicationPoint &since = keys[i].since;
    if (keys[i].is_left) continue;
    // A feed names only what has happened.
    uint64 const offset = is_feed_ ? 0 : changes[i]->offset;
    if (since.offset < offset || (since.id != id && !link_.IsOfServer(since.id))) return false;
  }
  return true;
}

// Whether keys that are gone have gone one by one. A feed may tell late, or by its end alone, that all have.
bool Follower::HasSameData(const std::vector<source::NamedKey> &keys) {
  bool const has_gone = std::any_of(keys.begin(), keys.end(), [](const source::NamedKey &key) {
    return key.entry.state == EntryState::kVanished;
  });
  if (!is_feed_ || !has_gone) return true;
  if (data_) {
    auto const is_same = Reader().Check(*data_);
    if (!is_same.ok() && is_same.error().code == ErrorCode::kUnavailable) return false;
    if (!pg::ValueOrThrow(is_same)) return false;
    if (data_->sees_commands()) return true;
  } else {
    data_ = pg::ValueOrThrow(redis::DataWatch::Begin(**connection_));
  }
  // What has happened before, or is not seen here, the feed finds out if anything does.
  for (int64 const begun_ms = pg::UnixMs(GetCurrentTimestamp()); link_.received_at_ms() <= begun_ms;) {
    pg::Sleep(kLagPauseMs);
    link_.Look();
  }
  return true;
}

void Follower::TakeRead(source::NamedKey &key, KeyChange &change) {
  KeyId id = {change.entry.db, change.entry.key};
  if (waiting_.erase(id) > 0) unsaved_.insert(id);  // by a reading that is repeated
  uint64 const read_offset = key.since.offset;
  bool const is_ahead = read_offset > changes_->position().offset;
  // It is not known which of the changes meanwhile a value that was read in pieces shows.
  if (key.since == key.until)
    known_.Note(key.entry);
  else
    known_.Forget(id.first, id.second);
  if (key.entry.state == EntryState::kChanging) {
    Wait(change, KeyAhead::kAgain, change.offset, 0, kRetryMs);
  } else if (key.entry.state == EntryState::kVanished) {
    // For a replica, a key is gone when it has expired by its own clock; the master may have extended it.
    if (key.is_of_replica && change.absences < kMostAbsences)
      Wait(change, KeyAhead::kAbsent, change.absences > 0 ? change.offset : read_offset, change.absences + 1,
           kRetryMs);
    else if (is_ahead && change.absences == 0)
      Wait(change, KeyAhead::kAbsent, read_offset, 0, 0);
    else
      change.kind = ChangeKind::kDelete;
    change.entry.plain = true;
    // A feed tells when a key changed, but not that the key went at that time.
    change.entry.changed = is_feed_ ? source::TimeSpan{change.entry.changed.after_ms, Now().until_ms} : Now();
  } else {
    key.entry.route = change.entry.route;
    key.entry.changed = change.entry.changed;
    change.entry = std::move(key.entry);
    change.kind = ChangeKind::kSet;
    if (!is_ahead) return;
    KeyAhead &ahead = ahead_[id] = {KeyAhead::kStored, read_offset, 0, 0};
    ahead.may_be_lost = !change.only_expiry && !change.is_filling && change.moved_until_ms == 0;
    unsaved_.insert(std::move(id));
  }
}

}  // namespace prm
