#include "run/pass.h"

#include "core/printable.h"
#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "run/late_writes.h"
#include "store/archive_source.h"
#include "write/index_key.h"

namespace prm {

using pg::Spi;

namespace {

constexpr int kBatchRetries = 5;
constexpr long kRetryPauseMs = 100;

}  // namespace

Pass::Pass(const Migration &migration, const RunParameters &parameters, const Routing &routing,
           RunRecord &record)
    : migration_(migration),
      parameters_(parameters),
      routing_(routing),
      record_(record),
      store_(migration, routing),
      forgets_archived_(parameters.source != "archive" && !store_.archive().IsEmpty()),
      merges_(migration) {}

uint64 Pass::Read(int level, std::string position, bool first, const std::optional<SourcePart> &part,
                  const std::function<void()> &between) {
  beside_others_ = part.has_value();
  if (beside_others_) ShareLedgers();
  stored_ = record_.ReadPageKeys();
  has_deferred_ = record_.HasDeferred(level);
  Spi::Commit();  // nothing is held while the network is waited for
  PassFilter filter(routing_, level, &stored_,
                    [&](int other, int db, Bytes key) { names_.Note(other, db, key); });
  SourcePlace place = PlaceOf(migration_, parameters_.source);
  if (place.kind == "scan" && !part) {
    place.listed = names_.Take(level);
    if (!place.listed && position.empty()) names_.Begin(level);
    place.end_page = [&](const std::string &cursor) { names_.EndPage(cursor); };
  }
  place.run_id = record_.id();
  place.is_received = parameters_.live;
  SourceReader source(std::move(place), filter, position, first, part);
  if (!part && source.estimate() >= 0) record_.SetEstimate(source.estimate());
  if (source.TakeRestarted()) {
    Restart(level);
    position.clear();
  }
  Spi::Commit();
  source::Batch batch;
  uint64 noted = 0;
  while (source.Next(batch, position)) {
    if (source.TakeRestarted()) {
      Restart(level);
      Spi::Commit();
      position.clear();
      continue;
    }
    std::string const before = std::exchange(position, batch.position);
    std::vector<const source::Entry *> entries;
    for (const source::Entry &entry : batch.entries) entries.push_back(&entry);
    StoreOptions options;
    options.defer = parameters_.source != "archive";
    options.goes_beyond = batch.goes_beyond;
    options.expected_keys = batch.expected_keys;
    Store(std::move(entries), level, before, position, options);
    if (part && source.repeated_slots() > noted) {
      record_.AddRepeatedSlots(level, source.repeated_slots() - noted);
      noted = source.repeated_slots();
    }
    if (between) between();
    Spi::Commit();
    progress_.Tell(record_.id());
    Spi::Commit();
  }
  beside_others_ = false;
  if (!part) names_.End(source.was_cut() ? std::string() : source.run_id());
  std::optional<int64> evicted;
  if (!part && (evicted = source.Evicted())) {
    record_.AddEvicted(*evicted);
    Spi::Commit();
  }
  return source.repeated_slots();
}

void Pass::Restart(int level) {
  pg::Report(NOTICE, std::string("the Redis server was restarted or replaced: ") +
                         (beside_others_ ? "a part of level " : "level ") + std::to_string(level + 1) +
                         " is read again from its beginning");
  record_.RestartLevel(level);
  stored_.clear();
  names_.Forget();
}

// Stores entries and the checkpoint, in one transaction if it may have as many subtransactions as that takes.
// Otherwise the checkpoint moves with the last one. Until then the finished keys are noted, like those of a
// page that the checkpoint does not cover, so that a run resumed after a crash skips them. Returns how many
// of the entries a foreign key or a lower key refused.
size_t Pass::Store(std::vector<const source::Entry *> entries, int level, const std::string &before,
                   const std::string &position, const StoreOptions &store) {
  size_t deferred = 0, fresh = 0;
  std::string first_reject;
  while (true) {
    Tally tally;
    std::vector<const source::Entry *> const left =
        StorePart(entries, level, before, position, store, tally, &fresh, &first_reject);
    std::set<const source::Entry *> const again(left.begin(), left.end());
    for (const source::Entry *entry : tally.deferred) deferred += again.count(entry) == 0;
    if (left.empty()) break;
    entries = left;
  }
  if (!store.goes_beyond) stored_.clear();
  if (fresh > 0)
    throw StoppedByReject(
        record_.id(),
        "run " + std::to_string(record_.id()) + " stopped: " + std::to_string(fresh) + " keys were rejected",
        first_reject);
  return deferred;
}

// Stores entries in one transaction and commits. Returns those that are left for the next.
std::vector<const source::Entry *> Pass::StorePart(const std::vector<const source::Entry *> &entries,
                                                   int level, const std::string &before,
                                                   const std::string &position, const StoreOptions &store,
                                                   Tally &tally, size_t *fresh, std::string *first_reject) {
  BatchOptions options;
  options.defer = store.defer;
  options.beside_others = beside_others_;
  options.run = record_.id();
  // Whoever prunes by force means what is gone, not what the application has taken over.
  options.takes_owned = parameters_.force && !parameters_.prune && !parameters_.live;
  if (parameters_.prune) options.seen_run = record_.id();
  if (!claiming_) {
    claiming_ = record_.ReadClaiming();
    if (!beside_others_ && !parameters_.live && Ledger::AreEmpty(routing_.Mappings())) recorded_.emplace();
  }
  options.claiming = &*claiming_;
  if (recorded_) options.recorded = &*recorded_;
  std::vector<LateWrite> late;
  if (parameters_.live) options.late = &late;
  int subtransactions = 0;
  options.subtransactions = &subtransactions;
  std::vector<const source::Entry *> left, done;
  std::vector<const Reject *> rejects;
  pg::Context context("redis_migrate transaction");
  pg::SwitchContext in_context(context.get());
  for (int attempt = 1;; ++attempt) {
    tally = Tally();
    late.clear();
    if (forgets_archived_) tally.by_key.emplace();
    subtransactions = kMostSubtransactions - 2;  // the one below, and the archive's
    try {
      pg::InSubtransaction([&] {
        // Deferred constraints must be found per row. A commit that a crash loses takes its checkpoint with
        // it, so that only the last one of a run has to reach the disk.
        pg::CheckConstraintsAtOnce();
        pg::SetForTransaction("synchronous_commit", "off");
        // A key that is read again while it waits is not counted twice, and its older value is dropped.
        // Another process may have deferred it meanwhile.
        if (beside_others_) has_deferred_ = record_.HasDeferred(level);
        KeySet counted = has_deferred_ || store.recount ? record_.ForgetDeferred(level, entries) : KeySet();
        if (store.recount) counted = KeysOf(entries);
        left = store_.Process(entries, level, counted, options, tally);
        KeepUnseenWrites(migration_, routing_, store_, record_.id(), late);
        std::set<const source::Entry *> const again(left.begin(), left.end());
        done.clear();
        for (const source::Entry *entry : entries) {
          if (again.count(entry) == 0)
            done.push_back(entry);
          else if (counted.count({entry->db, entry->key}) > 0)
            tally.deferred.push_back(entry);  // it is counted as read and must not be lost
        }
        if (forgets_archived_) store_.archive().Forget(*tally.by_key);
        // A batch that is read again rejects the same keys again: no reason to stop again.
        rejects.clear();
        if (parameters_.on_error == "stop")
          for (const Reject &reject : tally.rejects)
            if (!record_.HasReject(level, *reject.entry)) rejects.push_back(&reject);
        record_.Save(tally, level, left.empty() ? position : before);
        if (left.empty()) record_.AddExpected(level, store.expected_keys);
        bool const beyond = store.goes_beyond || !left.empty();
        if (!store.recount && (beyond || !stored_.empty())) record_.NotePageKeys(done, beyond);
      });
      break;
    } catch (const pg::PgError &error) {
      store_.Forget();
      if (!pg::IsTransient(error.sqlstate()) || attempt == kBatchRetries) throw;
      // Lets a session that waited for this batch go first: taking the same locks at once would cause the
      // same deadlock.
      pg::Sleep(attempt * kRetryPauseMs);
    }
  }
  Spi::Commit();
  merges_.After(tally.rows);
  has_deferred_ = has_deferred_ || !tally.deferred.empty();
  if (!store.recount && (store.goes_beyond || !left.empty()))
    for (const source::Entry *entry : done) stored_.emplace(entry->db, entry->key);
  if (!rejects.empty() && *fresh == 0)
    *first_reject = "The first is \"" + Printable(rejects.front()->entry->key) + "\", rule " +
                    rejects.front()->rule + ": " + rejects.front()->message;
  *fresh += rejects.size();
  return left;
}

void Pass::RetryDeferred(int level) {
  StoreOptions options;
  options.recount = true;
  Match match;
  for (options.defer = true;;) {
    size_t tried = 0, refused = 0;
    int db = -1;
    std::string index_key;
    for (;;) {
      std::vector<source::Entry> entries =
          record_.TakeDeferred(level, db, index_key, pg::settings::batch_rows);
      if (entries.empty()) break;
      db = entries.back().db;
      index_key = IndexKey(entries.back().key);
      std::vector<const source::Entry *> pointers;
      for (source::Entry &entry : entries) {
        entry.route = routing_.Find(entry.db, entry.key, match).ToNumber();
        pointers.push_back(&entry);
      }
      tried += entries.size();
      refused += Store(std::move(pointers), level, record_.position(), record_.position(), options);
    }
    Spi::Commit();
    if (refused == 0) return;
    options.defer = refused < tried;
  }
}

}  // namespace prm
