// Stores a batch of the stream.
#include "live/follower.h"
#include "mapping/migration_lock.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "run/late_writes.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using stream::ChangeKind;

namespace {

constexpr int kMostTries = 10;
constexpr int64 kLookAtLateMs = 200;  // again, in a cluster
constexpr int kMaintainEvery = 256;   // batches
constexpr int kStoreRetries = 5;
constexpr long kStoreRetryPauseMs = 100;

}  // namespace

// Makes a key wait, whatever is known of it so far.
void Follower::Wait(const KeyChange &change, KeyAhead::Kind kind, uint64 offset, int tries, int64 pause_ms) {
  KeyId const id = {change.entry.db, change.entry.key};
  known_.Forget(id.first, id.second);  // changes up to where it was read are passed over no more
  if (auto const ahead = ahead_.find(id); ahead != ahead_.end()) {
    offset = std::max(offset, ahead->second.read_offset);
    ahead_.erase(ahead);
  }
  KeyAhead &waiting = waiting_[id];
  waiting = {kind, offset, tries, pg::MonotonicMs() + pause_ms};
  waiting.moved_until_ms = change.moved_until_ms;
  unsaved_.insert(id);
}

void Follower::Apply(Batch &batch) {
  ReleaseApplied();
  TakeWaiting(batch);
  for (bool is_read = false; !is_read;) {
    LeaveToOthers(batch);
    try {
      ReadAgain(batch);
      is_read = true;
    } catch (const SlotsMoved &) {
      named_.reset();
      connection_.reset();
      link_.Look();
      pg::Sleep(kLagPauseMs);
    }
  }
  FinishElements(batch);
  if (batch.keys.empty() && batch.left.empty() && unsaved_.empty() && !batch.ends_backfill &&
      changes_->position().offset == position_.point.offset)
    return;
  stored_ms_ = pg::MonotonicMs();
  pg::Context context("redis_migrate live batch");
  pg::SwitchContext in_context(context.get());
  for (int attempt = 1;;) {
    std::optional<PartsRefused> refused;
    NoteTouched(batch);
    try {
      pg::InSubtransaction([&] { Store(batch); });
      break;
    } catch (const PartsRefused &parts) {
      store_.Forget();
      refused = parts;
    } catch (const pg::PgError &error) {
      store_.Forget();
      if (!pg::IsTransient(error.sqlstate()) || attempt == kStoreRetries) throw;
      pg::Sleep(attempt++ * kStoreRetryPauseMs);
    }
    if (!refused) continue;
    Spi::Commit();
    ReadWhole(*refused, batch);
  }
  Spi::Commit();
  unsaved_.clear();
  if (batch.ends_backfill) backfill_->Finish();
  for (const KeyId &id : batch.forgiven) rejected_.erase(id);
  for (KeyId &id : batch.rejected) rejected_.insert(std::move(id));
  streak_ = std::move(batch.streak);
  SpaceLarge(batch, pg::MonotonicMs() - stored_ms_);
  position_ = NextPosition();
  earlier_.erase(std::remove_if(earlier_.begin(), earlier_.end(),
                                [&](const AppliedShare &earlier) {
                                  return earlier.point.offset <= position_.point.offset;
                                }),
                 earlier_.end());
  newest_ = {XactLastCommitEnd, batch.applied};
  if (!unreleased_) unreleased_ = newest_;
  if (batch.has_late) NameLateWriters();
  if (batch.takes_elements_again) {
    read_whole_.clear();
    store_.FindElementTypes();
    Spi::Commit();
  }
  merges_.After(batch.rows);
  if (share_.is_first() && ++since_maintenance_ == kMaintainEvery) {
    since_maintenance_ = 0;
    MaintainLedgers(run_.routing());
    run_.record().ForgetSettledRejects();
    Spi::Commit();
  }
}

// Once the WAL writer has made a commit durable, what it applied no longer needs room on disk and in memory.
void Follower::ReleaseApplied() {
  if (share_.is_first() && !share_.is_all()) LookAtOthers();
  if (!unreleased_ || !pg::IsFlushed(unreleased_->commit_end)) return;
  if (share_.is_first()) pg::ThrowIfError(reader_->RemoveUpTo(unreleased_->offset));
  // While the spool is full, no other batch comes.
  if (unreleased_->offset == newest_.offset)
    unreleased_.reset();
  else
    unreleased_ = newest_;
  for (auto ahead = ahead_.begin(); ahead != ahead_.end();)
    ahead = ahead->second.read_offset <= position_.point.offset ? ahead_.erase(ahead) : std::next(ahead);
  has_saved_keys_ = !ahead_.empty() || !waiting_.empty();
}

// The position of the stream after the batch. Its id is that of the history to which its bytes belong.
LivePosition Follower::NextPosition() const {
  LivePosition next;
  next.point.offset = changes_->position().offset;
  next.point.id = position_.point.id;
  for (const redis::ReplicationPoint &from : next_ids_)
    if (next.point.offset > from.offset) next.point.id = from.id;
  next.db = changes_->position().db;
  next.received_at_ms = received_at_ms_;
  return next;
}

// Nothing good has been stored yet of keys that wait.
void Follower::ForgiveNone(const Entries &waiting, Batch &batch) {
  if (batch.forgiven.empty()) return;
  KeySet const keys = KeysOf(waiting);
  batch.forgiven.erase(std::remove_if(batch.forgiven.begin(), batch.forgiven.end(),
                                      [&](const KeyId &id) { return keys.count(id) > 0; }),
                       batch.forgiven.end());
}

void Follower::NoteTouched(const Batch &batch) {
  std::vector<const KeyId *> keys;
  for (const auto &[id, change] : batch.keys)
    if (change.kind != ChangeKind::kChanged) keys.push_back(&id);
  if (!keys.empty()) touched_.Note(keys);
}

// In a subtransaction that may be tried again.
void Follower::Store(Batch &batch) {
  pg::CheckConstraintsAtOnce();
  // A commit that a crash loses takes its position with it.
  pg::SetForTransaction("synchronous_commit", "off");
  Entries stored, gone, last_tries;
  batch.forgiven.clear();
  batch.rejected.clear();
  batch.unsettled.clear();
  for (const auto &[id, change] : batch.keys) {
    if (change.kind == ChangeKind::kChanged) continue;  // it waits
    if (rejected_.count(id) > 0) batch.forgiven.push_back(id);
    if (change.kind == ChangeKind::kDelete)
      gone.push_back(&change.entry);
    else
      (change.tries >= kMostTries ? last_tries : stored).push_back(&change.entry);
  }
  Tally tally;
  if (forgets_archived_) tally.by_key.emplace();
  BatchOptions options;
  options.run = record_.run_id();
  options.follows = true;
  options.beside_others = options.defer_conflicts = !share_.is_all();
  options.claiming = &claiming_;
  std::vector<LateWrite> late;
  options.late = &late;
  if (!share_.is_all()) LockMappings(batch);
  Entries const referenced = store_.Delete(gone, options, tally);
  for (int level = 0; level < run_.routing().levels(); ++level) {
    options.defer = true;
    store_.Process(stored, level, {}, options, tally);
    options.defer = false;
    store_.Process(last_tries, level, {}, options, tally);
  }
  RequireWholeParts(tally);
  std::set<std::string> of_postgres;
  for (const LateWrite &write : late) of_postgres.insert(write.pattern);
  batch.takes_elements_again =
      std::any_of(read_whole_.begin(), read_whole_.end(), [&](const std::string &pattern) {
        return tally.read.count(pattern) > 0 && of_postgres.count(pattern) == 0;
      });
  KeepLate(batch, late);
  if (forgets_archived_) {
    store_.archive().Forget(*tally.by_key);
    store_.archive().Delete(gone);  // of mappings that are younger than the archive
  }
  LivePosition const next = NextPosition();
  Entries const deferred = TakeDeferred(tally);
  ForgiveNone(referenced, batch);
  ForgiveNone(deferred, batch);
  batch.streak = streak_;
  batch.streak.Take(run_.migration().name, tally);
  SettleRejects(batch, tally);
  if (!tally.read.empty())
    run_.record().Save(tally, run_.routing().levels(),
                       next.point.id + " offset=" + std::to_string(next.point.offset));
  batch.applied = record_.Advance(next, batch.commands, batch.read_again);
  if (batch.ends_backfill) record_.SetFilled(run_.migration().name);
  batch.rows = std::move(tally.rows);
  // Only here, where little can still fail: a second try would not find them waiting.
  std::optional<OtherShares> others;
  if (!referenced.empty() || !deferred.empty()) others = record_.ReadOthers();
  for (const source::Entry *entry : referenced)
    WaitForOthers(batch.keys.at({entry->db, entry->key}), KeyAhead::kAbsent, next.point.offset, 0, others);
  for (const source::Entry *entry : deferred) {
    const KeyChange &change = batch.keys.at({entry->db, entry->key});
    WaitForOthers(change, KeyAhead::kAgain, change.offset, change.tries + 1, others);
  }
  for (const source::Entry *entry : batch.unsettled) {
    const KeyChange &change = batch.keys.at({entry->db, entry->key});
    Wait(change, KeyAhead::kAgain, change.offset, change.tries, kLookAtLateMs);
  }
  for (const auto &[number, ids] : batch.left) (*cluster_->followers)[number]->TakeOver(ids);
  SaveKeysAhead(next.point.offset);
}

// Full ledgers are locked as long as the transaction lasts: in one order, whatever its keys are.
void Follower::LockMappings(const Batch &batch) const {
  std::set<int64> mappings;
  for (const auto &[id, change] : batch.keys) {
    if (change.kind == ChangeKind::kChanged) continue;  // it waits
    if (auto const pattern = Route::FromNumber(change.entry.route).pattern)
      for (const Mapping *mapping : run_.routing().MappingsOf(*pattern))
        if (mapping->ledger == "full") mappings.insert(mapping->id);
  }
  for (int64 const mapping : mappings) LockMapping(mapping);
}

// Returns the keys that a foreign key refuses, or beside other processes a constraint that looks at other
// rows, or whose row belongs to a lower key. They are read and tried again.
Follower::Entries Follower::TakeDeferred(Tally &tally) const {
  for (const source::Entry *entry : tally.deferred) {
    auto const pattern = Route::FromNumber(entry->route).pattern;
    auto const read = tally.read.find(pattern ? Tally::Pattern(run_.routing().patterns()[*pattern].text())
                                              : Tally::Pattern());
    if (--read->second == 0) tally.read.erase(read);
  }
  return std::exchange(tally.deferred, {});
}

// Marks rejects of a key as settled, unless it has been rejected again.
void Follower::SettleRejects(Batch &batch, const Tally &tally) {
  for (const Reject &reject : tally.rejects) batch.rejected.emplace_back(reject.entry->db, reject.entry->key);
  std::set<KeyId> const rejected(batch.rejected.begin(), batch.rejected.end());
  std::vector<KeyId> again, settled;
  for (const KeyId &id : batch.forgiven) (rejected.count(id) > 0 ? again : settled).push_back(id);
  run_.record().ForgetRejects(again);
  run_.record().SettleRejects(settled);
}

void Follower::SaveKeysAhead(uint64 offset) {
  has_saved_keys_ = has_saved_keys_ || !unsaved_.empty();
  if (!has_saved_keys_) return;
  record_.ForgetKeysUpTo(offset);
  std::vector<KeyId> gone;
  std::vector<std::pair<const KeyId *, const KeyAhead *>> kept;
  for (const KeyId &id : unsaved_) {
    auto const waiting = waiting_.find(id);
    auto const ahead = ahead_.find(id);
    if (waiting != waiting_.end())
      kept.emplace_back(&id, &waiting->second);
    else if (ahead != ahead_.end() && ahead->second.read_offset > offset)
      kept.emplace_back(&id, &ahead->second);
    else
      gone.push_back(id);
  }
  record_.ForgetKeys(gone);
  record_.SaveKeys(kept);
}

}  // namespace prm
