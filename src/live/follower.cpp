#include "live/follower.h"

#include "connect/outage.h"
#include "core/printable.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "redis/command_table.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using stream::ChangeKind;

namespace {

constexpr int64 kIdleMs = 1000;        // nor waits longer than this for its first key
constexpr int64 kMostCollectMs = 250;  // and what has arrived is taken for so long
constexpr size_t kMostBatches = 4;     // of batch_rows keys at once
constexpr long kLookAgainMs = 5;       // while nothing arrives
constexpr long kLookForSpoolMs = 50;
constexpr int64 kMostSpoolWaitMs = 60 * 1000;
constexpr int64 kMostRoomWaitMs = 5000;  // the link looks for room each second
// A transaction whose changes take more than this is applied in pieces. After a crash in between, all of them
// are applied again.
constexpr uint64 kLargestTransactionBytes = uint64{256} << 20;
constexpr size_t kKnownBytes = size_t{64} << 20;
constexpr size_t kMostNames = 1000;  // of commands that are kept, of so many bytes at most
constexpr size_t kLongestKeptName = 200;

bool HasKey(const stream::StreamChange &change) {
  return change.kind == ChangeKind::kSet || change.kind == ChangeKind::kDelete ||
         change.kind == ChangeKind::kChanged;
}

}  // namespace

Follower::Follower(FollowedRun &run, const LiveRecord &record, LinkWatch &link)
    : run_(run),
      record_(record),
      link_(link),
      share_(record.share()),
      is_feed_(run.source() == "scan"),
      store_(run.migration(), run.routing()),
      filter_(run.routing(), std::nullopt),
      claiming_(run.record().ReadClaiming()),
      forgets_archived_(!store_.archive().IsEmpty()),
      spool_(record.run_id(), record.link()),
      known_(kKnownBytes / static_cast<size_t>(share_.of)),
      budget_(pg::settings::live_reread_share / 100.0 / share_.of),
      spacing_(static_cast<uint64>(pg::settings::live_large_value_rate_kb) * 1024 /
               static_cast<uint64>(share_.of)),
      merges_(run.migration()),
      touched_(run.migration().name) {}

void Follower::Follow() {
  ReadRecord();
  while (!OpenSpool()) pg::Sleep(kLookForSpoolMs);
  // After a restart the barrier of the last batch is not known.
  for (uint64 barrier = share_.is_all() ? 0 : position_.point.offset;;) {
    PassBarrier(barrier);
    Batch batch;
    Collect(batch);
    TakeBackfill(batch);
    link_.Look();
    Apply(batch);
    barrier = batch.barrier;
  }
}

void Follower::ReadRecord() {
  link_.Look();  // tells which nodes are the link's
  position_ = record_.ReadPosition().value();
  for (AppliedShare &earlier : record_.ReadEarlierShares())
    if (earlier.point.offset > position_.point.offset) earlier_.push_back(std::move(earlier));
  for (auto &[id, key] : record_.ReadKeysAhead())
    (key.kind == KeyAhead::kStored ? ahead_ : waiting_).emplace(id, key);
  // Changes of such a key since it began to wait are not stored.
  for (auto &[id, key] : waiting_)
    if (key.bytes > 0) key.newest_offset = position_.point.offset;
  for (auto &[id, key] : ahead_) key.may_be_lost = true;
  if (cluster_)
    for (auto &[id, key] : waiting_) key.moved_until_ms = pg::MonotonicMs() + kMovedMs;
  rejected_ = run_.record().ReadRejectedKeys();
  backfill_.emplace(run_.migration(), run_.routing(), record_, link_, budget_);
  Spi::Commit();
  received_at_ms_ = position_.received_at_ms;
}

// False: the link has yet to see to it that the spool has what follows, or to say that it cannot.
bool Follower::OpenSpool() {
  const std::vector<Mapping> &mappings = run_.migration().mappings;
  if (std::any_of(mappings.begin(), mappings.end(), [](const Mapping &m) { return m.on_expire.has_value(); }))
    AskClock();
  reader_ = pg::ValueOrThrow(stream::StreamSpoolReader::Open(spool_, position_.point));
  if (reader_ == nullptr) {
    link_.Look();
    int64 const now_ms = pg::MonotonicMs();
    if (unspooled_ms_ == 0 || !link_.IsStreaming()) unspooled_ms_ = now_ms;
    if (now_ms - unspooled_ms_ > kMostSpoolWaitMs)
      throw FullSyncNeeded{"the spool does not have the stream from offset " +
                           std::to_string(position_.point.offset) + " on"};
    return false;
  }
  redis::StreamLimits limits;
  limits.max_argument_bytes = static_cast<uint64>(pg::settings::max_value_size_kb) * 1024;
  changes_.emplace(stream::StreamPosition{position_.point.offset, position_.db}, limits, *this);
  store_.FindElementTypes();
  Spi::Commit();
  changes_->set_share(share_);
  changes_->set_wants_elements(store_.TakesAnyElements());
  known_.set_wants_elements(store_.TakesAnyElements());
  changes_->set_migration(run_.migration().name);
  return true;
}

size_t Follower::MostKeys() { return kMostBatches * static_cast<size_t>(pg::settings::batch_rows); }

bool Follower::IsFull(const Batch &batch) const {
  return batch.keys.size() + batch.overwritten.size() >= MostKeys() ||
         batch.bytes >= static_cast<uint64>(pg::settings::batch_size_kb) * 1024;
}

// Takes what has arrived, and what arrives before the next batch may be stored, but never a part of a
// transaction.
void Follower::Collect(Batch &batch) {
  int64 const began_ms = pg::MonotonicMs();
  // Once as many keys wait as a batch takes, they go first: no more may come than go.
  if (!changes_->in_transaction() && waiting_.size() >= MostKeys() && HasDueKeys()) return;
  for (;;) {
    bool const is_news = TakeNext(batch);
    if (changes_->in_transaction()) {
      if (!is_news) {
        if (IsShortOfRoom()) return;
        WaitForNews();
      }
      if (batch.bytes < kLargestTransactionBytes) continue;
      pg::Report(LOG,
                 "a transaction of the stream at offset " + std::to_string(changes_->position().offset) +
                     " is applied in pieces",
                 "Its changes take more than " + std::to_string(batch.bytes >> 20) + " MB.");
      return;
    }
    if (IsFull(batch) || changes_->position().offset == common_end_) return;
    int64 const now_ms = pg::MonotonicMs();
    if (is_news && now_ms - began_ms < kMostCollectMs) continue;
    bool const has_moved = changes_->position().offset != position_.point.offset;
    if (backfill_->IsDue() ||
        now_ms >= (has_moved || HasDueKeys() ? stored_ms_ + pace_ms_ : began_ms + kIdleMs))
      return;
    if (cluster_ && !has_moved) return;  // others may have news
    WaitForNews();
  }
}

void Follower::WaitForNews() {
  link_.Look();
  pg::Sleep(kLookAgainMs);
}

// Whether the rest of a transaction has no room before what came ahead of it is stored.
bool Follower::IsShortOfRoom() {
  if (!link_.IsSpoolFull()) {
    alone_since_ms_ = 0;
    return false;
  }
  if (changes_->position().offset != position_.point.offset) return true;
  ReleaseApplied();
  if (unreleased_ || OthersLag()) {
    alone_since_ms_ = 0;
    return false;
  }
  int64 const now_ms = pg::MonotonicMs();
  if (alone_since_ms_ == 0) alone_since_ms_ = now_ms;
  if (now_ms - alone_since_ms_ < kMostRoomWaitMs) return false;
  throw Failure(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                "a transaction of the stream at offset " + std::to_string(changes_->position().offset) +
                    " is larger than the changes that may wait",
                "", "Raise pg_redis_migrate.max_spool_size, and start the run again.");
}

// Takes the next command of the stream. False: there is none yet.
bool Follower::TakeNext(Batch &batch) {
  found_.clear();
  bool const goes_on = changes_->in_transaction();
  if (pg::ValueOrThrow(changes_->Next(found_))) {
    bool const is_one_key = found_.size() < 2 && !changes_->in_transaction();
    if (!goes_on) ++done_at_once_;
    together_ = is_one_key ? 0 : done_at_once_;
    for (stream::StreamChange &change : found_) {
      if (!is_one_key && HasKey(change) && !change.is_own) NoteShare(change.entry.db, change.entry.key);
      Take(change, batch);
    }
    together_ = 0;
    if (changes_->in_transaction()) return true;
    if (is_of_several_) batch.barrier = changes_->position().offset;
    at_once_.reset();
    is_of_several_ = false;
    return true;
  }
  stream::SpoolChunk chunk;
  if (!pg::ValueOrThrow(reader_->Next(chunk))) return false;
  switch (chunk.kind) {
    case stream::SpoolChunk::Kind::kBytes:
      changes_->Feed(chunk.content, ByServerClock(chunk.time));
      received_at_ms_ = chunk.time.until_ms;
      break;
    case stream::SpoolChunk::Kind::kOrigin:
      TakeId(chunk, batch);
      break;
    case stream::SpoolChunk::Kind::kFullSync:
      throw FullSyncNeeded{"the server sent another snapshot"};
  }
  return true;
}

void Follower::Take(stream::StreamChange &change, Batch &batch) {
  bool const has_key = HasKey(change);
  if (has_key && (!share_.Has(change.entry.key) || IsApplied(change))) return;
  if (has_key || share_.is_first()) ++batch.commands;
  switch (change.kind) {
    case ChangeKind::kSet:
    case ChangeKind::kDelete:
    case ChangeKind::kChanged:
      return TakeKey(std::move(change), batch);
    case ChangeKind::kFlush:
    case ChangeKind::kSwap:
      return TakeFlush(change);
    case ChangeKind::kSlots:
      return TakeSlots(change, batch);
    case ChangeKind::kUnknown:
      return TakeUnknown(change, batch);
    case ChangeKind::kHidden:
      throw Failure(ERRCODE_FEATURE_NOT_SUPPORTED,
                    "the stream at offset " + std::to_string(change.offset) + " has a command whose keys " +
                        "nobody knows: " + change.command.front(),
                    "A script that is sent as a whole may write to any key.",
                    "On Redis before 5.0 CONFIG SET lua-replicate-commands yes helps.");
  }
}

void Follower::TakeKey(stream::StreamChange change, Batch &batch) {
  source::Entry &entry = change.entry;
  if (!Takes(run_.migration().databases, entry.db)) return;
  source::KeyDecision const decision = filter_.Classify(entry.db, entry.key);
  if (decision.interest == source::Interest::kIgnore) return;
  KeyId id = {entry.db, entry.key};
  if (change.is_own) return TakeOwn(id, change, batch);
  if (change.kind != ChangeKind::kDelete) own_gone_.erase(id);
  if (auto const ahead = ahead_.find(id); ahead != ahead_.end() && change.offset <= ahead->second.read_offset)
    return;  // its row shows that already
  if (auto const waiting = waiting_.find(id); waiting != waiting_.end()) {
    KeyAhead &key = waiting->second;
    if (key.bytes > 0 && change.kind == ChangeKind::kChanged) {
      key.newest_offset = change.offset;
      return;
    }
    if (key.kind == KeyAhead::kAbsent && change.offset <= key.read_offset) {
      if (change.kind != ChangeKind::kDelete) return;
      // For whatever reason it went, it was already absent at read_offset.
      ahead_[id] = {KeyAhead::kStored, key.read_offset};
    }
    waiting_.erase(waiting);
    unsaved_.insert(id);
    change.elements.reset();  // of what it is now the rows say nothing
  }
  if (change.elements && decision.interest == source::Interest::kRead &&
      TakeElements(id, change, decision.route, batch))
    return;
  auto const known = batch.keys.find(id);
  bool const only_expiry =
      (change.edit == stream::Edit::kExpireAt || change.edit == stream::Edit::kPersist) &&
      (known == batch.keys.end() || known->second.only_expiry);
  if (decision.interest == source::Interest::kRead) {
    Complete(change);
  } else if (change.kind != ChangeKind::kDelete) {
    change.kind = ChangeKind::kSet;
    entry.state = source::EntryState::kNameOnly;
    entry.payload.clear();
  }
  entry.route = decision.route;
  entry.plain = entry.plain || change.kind == ChangeKind::kDelete;
  batch.bytes += entry.key.size() + entry.payload.size();
  KeyChange &taken = batch.keys[std::move(id)];
  taken = {change.kind, std::move(entry), change.offset};
  taken.only_expiry = only_expiry;
  taken.together = together_;
  if (change.is_restored) taken.moved_until_ms = pg::MonotonicMs() + kMovedMs;
}

// Notes a change, and the new state of the key if it follows from what is known of it.
void Follower::Complete(stream::StreamChange &change) {
  switch (change.kind) {
    case ChangeKind::kSet:
      return known_.Note(change.entry);
    case ChangeKind::kDelete:
      return known_.NoteGone(change.entry.db, change.entry.key);
    default:
      if (known_.Apply(change.edit, change.amount, change.entry)) {
        change.kind = ChangeKind::kSet;
      } else {
        known_.Forget(change.entry.db, change.entry.key);
        change.entry.payload.clear();
      }
  }
}

void Follower::TakeChangedKey(int db, std::string key, uint64 offset, Batch &batch) {
  stream::StreamChange change;
  change.kind = ChangeKind::kChanged;
  change.entry.db = db;
  change.entry.key = std::move(key);
  change.offset = offset;
  if (share_.Has(change.entry.key)) TakeKey(std::move(change), batch);
}

// The name that a command has by itself: servers may have renamed FLUSHALL, for example, and send it by that
// name.
Result<std::string> Follower::FindName(const std::string &command) {
  redis::Connection &server = Connect();
  if (auto const known = names_.find(command); known != names_.end()) return known->second;
  auto name = redis::FetchName(server, command);
  if (name.ok() && command.size() + name.value().size() <= kLongestKeptName) {
    if (names_.size() >= kMostNames) names_.clear();
    names_.emplace(command, name.value());
  }
  return name;
}

void Follower::TakeUnknown(const stream::StreamChange &change, Batch &batch) {
  auto const refuse = [&change](const Error &error) {
    if (MayComeBack(error.code)) throw Failure(error);
    throw Failure(error.code == ErrorCode::kPermissionDenied ? ERRCODE_INSUFFICIENT_PRIVILEGE
                                                             : ERRCODE_FEATURE_NOT_SUPPORTED,
                  "the stream at offset " + std::to_string(change.offset) +
                      " has an unknown command: " + Printable(change.command.front(), redis::kShownNameBytes),
                  error.message + (error.detail.empty() ? "." : ". " + error.detail),
                  "Update pg_redis_migrate, or grant the user COMMAND INFO and COMMAND GETKEYS: ACL SETUSER "
                  "... +command.");
  };
  // Without it the keys are not all: those of MOVE, for example, do not tell the other database.
  auto const name = FindName(change.command.front());
  if (!name.ok()) refuse(name.error());
  if (!redis::IsSameWord(name.value(), change.command.front())) {
    std::vector<stream::StreamChange> found;
    pg::ThrowIfError(changes_->TakeAs(name.value(), change, found));
    if (found.empty() || found.front().kind != ChangeKind::kUnknown) {
      for (stream::StreamChange &known : found) {
        if (HasKey(known)) NoteShare(known.entry.db, known.entry.key);
        Take(known, batch);
      }
      return;
    }
  }
  auto const keys = redis::FetchKeys(Connect(), change.command);
  if (!keys.ok()) refuse(keys.error());
  for (const std::string &key : keys.value()) {
    NoteShare(change.entry.db, key);
    TakeChangedKey(change.entry.db, key, change.offset, batch);
  }
}

// A new snapshot shows best what is left, and it removes a mass of rows only if that is allowed.
void Follower::TakeFlush(const stream::StreamChange &change) const {
  const DatabaseNumbers &databases = run_.migration().databases;
  std::string command = "FLUSHALL";
  bool takes = true;
  if (change.kind == ChangeKind::kSwap) {
    takes = Takes(databases, change.entry.db) || Takes(databases, change.other_db);
    command = "SWAPDB " + std::to_string(change.entry.db) + " " + std::to_string(change.other_db);
  } else if (change.entry.db != stream::kEveryDatabase) {
    takes = Takes(databases, change.entry.db);
    command = "FLUSHDB of database " + std::to_string(change.entry.db);
  }
  if (!takes) return;
  LiveRecord::NoteFlush(run_.migration().name);
  Spi::Commit();
  throw FullSyncNeeded{command};
}

// Of a cluster it is found out whether another master has the slots. Their keys go without a command for
// each, and may come back as another master has left them.
void Follower::TakeSlots(const stream::StreamChange &change, Batch &batch) {
  if (!cluster_) throw FullSyncNeeded{change.command[0] + " " + change.command[1]};
  known_.Clear();
  batch.emptied |= pg::ValueOrThrow(redis::SlotsFromText(change.command[1]));
}

// After a fail-over, or a restart with the data, states that were read beyond this point of the old history
// may never have existed.
void Follower::TakeId(const stream::SpoolChunk &chunk, Batch &batch) {
  for (const AppliedShare &earlier : earlier_)
    if (earlier.point.offset > chunk.offset && earlier.point.id != chunk.content)
      throw FullSyncNeeded{"changes were applied that the server no longer has"};
  next_ids_.push_back({chunk.content, chunk.offset});
  known_.Clear();
  std::vector<KeyId> in_doubt;
  for (auto *keys : {&ahead_, &waiting_})
    for (const auto &[id, key] : *keys)
      if (key.read_offset > chunk.offset) in_doubt.push_back(id);
  for (const KeyId &id : in_doubt) {
    if (ahead_.erase(id) + waiting_.erase(id) > 0) unsaved_.insert(id);
    TakeChangedKey(id.first, id.second, chunk.offset, batch);
  }
}

bool Follower::HasDueKeys() const {
  return std::any_of(waiting_.begin(), waiting_.end(), [&, now_ms = pg::MonotonicMs()](const auto &waiting) {
    return IsDue(waiting.second, now_ms);
  });
}

bool Follower::IsDue(const KeyAhead &key, int64 now_ms) const {
  // Somebody waits for it.
  if (key.bytes > 0 && key.read_offset <= link_.flush_offset()) return true;
  return key.retry_ms <= now_ms &&
         (key.kind == KeyAhead::kAgain || key.read_offset <= changes_->position().offset);
}

// Adds keys to the batch whose time has come.
void Follower::TakeWaiting(Batch &batch) {
  int64 const now_ms = pg::MonotonicMs();
  for (auto waiting = waiting_.begin(); waiting != waiting_.end();) {
    const auto &[id, key] = *waiting;
    if (!IsDue(key, now_ms) || IsFull(batch)) {
      ++waiting;
      continue;
    }
    bool const is_gone = key.kind == KeyAhead::kAbsent && key.tries == 0;
    KeyChange change = {is_gone ? ChangeKind::kDelete : ChangeKind::kChanged,
                        {},
                        std::max(key.read_offset, key.newest_offset)};
    change.is_due = true;
    change.barrier = key.barrier;
    change.moved_until_ms = key.moved_until_ms;
    (key.kind == KeyAhead::kAbsent ? change.absences : change.tries) = key.tries;
    change.entry.db = id.first;
    change.entry.key = id.second;
    change.entry.plain = true;
    change.entry.changed = is_feed_ ? source::TimeSpan{0, Now().until_ms} : Now();
    change.entry.route = filter_.Classify(id.first, id.second).route;
    batch.keys.emplace(id, std::move(change));
    unsaved_.insert(id);
    waiting = waiting_.erase(waiting);
  }
}

// Adds keys of mappings that the run did not have before, and of those that it has no more.
void Follower::TakeBackfill(Batch &batch) {
  for (int64 const began_ms = pg::MonotonicMs(); !batch.ends_backfill && !IsFull(batch) &&
                                                 backfill_->IsDue() &&
                                                 pg::MonotonicMs() - began_ms < kBatchEveryMs;) {
    std::vector<KeyId> found;
    uint64 const offset = changes_->position().offset;
    batch.ends_backfill = backfill_->FindMore(offset, found);
    for (const KeyId &id : found) {
      if (waiting_.count(id) > 0) continue;  // it is read again in any case
      auto const known = batch.keys.find(id);
      if (known != batch.keys.end() && (!known->second.elements || known->second.is_whole)) continue;
      // Its rows show a later state, but not those of all mappings.
      if (ahead_.erase(id) > 0) unsaved_.insert(id);
      TakeChangedKey(id.first, id.second, offset, batch);
      if (auto const taken = batch.keys.find(id); taken != batch.keys.end())
        taken->second.is_filling = known == batch.keys.end();
    }
  }
}

}  // namespace prm
