#include "run/pass.h"

#include "core/printable.h"
#include "pg/arguments.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "store/index_key.h"

namespace prm {

using pg::Spi;

namespace {

bool IsTransient(int sqlstate) {
  return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_TRANSACTION_ROLLBACK ||
         sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
}

constexpr int kBatchRetries = 5;
constexpr long kRetryPauseMs = 100;

}  // namespace

Pass::Pass(const Migration &migration, const RunParameters &parameters, Routing &routing, RunRecord &record)
    : migration_(migration),
      parameters_(parameters),
      routing_(routing),
      record_(record),
      archive_(migration.name),
      forgets_archived_(parameters.source != "archive" && !archive_.IsEmpty()) {}

uint64 Pass::Read(int level, std::string position, bool first, const std::optional<SourcePart> &part,
                  const std::function<void()> &between) {
  beside_others_ = part.has_value();
  stored_ = record_.ReadPageKeys();
  has_deferred_ = record_.HasDeferred(level);
  Spi::Commit();  // nothing is held while the network is waited for
  PassFilter filter(routing_, level, &stored_);
  OpenSource source(migration_, parameters_.source, filter, position, first, part);
  if (source.estimate() >= 0) record_.SetEstimate(source.estimate());
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
    position = batch.position;
    std::vector<const source::Entry *> entries;
    for (const source::Entry &entry : batch.entries) entries.push_back(&entry);
    StoreOptions options;
    options.defer = parameters_.source != "archive";
    options.goes_beyond = batch.goes_beyond;
    Store(entries, level, position, options);
    batch = source::Batch();
    if (!part) continue;
    if (source.repeated_slots() > noted) {
      record_.AddRepeatedSlots(level, source.repeated_slots() - noted);
      noted = source.repeated_slots();
    }
    between();
    Spi::Commit();
  }
  beside_others_ = false;
  if (std::optional<int64> evicted = source.Evicted()) {
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
}

// Stores entries and the checkpoint in one transaction. Returns how many of them a foreign key refused.
size_t Pass::Store(const std::vector<const source::Entry *> &entries, int level, const std::string &position,
                   const StoreOptions &store) {
  Archive *unmapped = migration_.unmapped == "reject" ? nullptr : &archive_;
  PatternGroup::Options options;
  options.defer = store.defer;
  options.beside_others = beside_others_;
  if (parameters_.prune) options.seen_run = record_.id();
  Tally tally;
  std::vector<const Reject *> fresh;
  pg::Context context("redis_migrate transaction");
  pg::SwitchContext in_context(context.get());
  for (int attempt = 1;; ++attempt) {
    tally = Tally();
    std::map<const source::Entry *, std::pair<Outcome, std::string>> by_key;
    if (forgets_archived_) tally.by_key = &by_key;
    try {
      pg::InSubtransaction([&] {
        // Deferred constraints must be found per row. A commit that a crash loses takes its checkpoint with
        // it, so that only the last one of a run has to reach the disk.
        Spi::Execute("SET CONSTRAINTS ALL IMMEDIATE");
        Spi::Execute("SET LOCAL synchronous_commit = off");
        // What is read again while it waits is not read twice, and its older value is worth nothing.
        KeySet const counted = store.recount   ? KeysOf(entries)
                               : has_deferred_ ? record_.ForgetDeferred(level, entries)
                                               : KeySet();
        ProcessEntries(routing_, unmapped, entries, level, counted, options, tally);
        if (forgets_archived_) archive_.Forget(by_key);
        // What a batch that is read again rejects again is no reason to stop again.
        fresh.clear();
        if (parameters_.on_error == "stop")
          for (const Reject &reject : tally.rejects)
            if (!record_.HasReject(level, *reject.entry)) fresh.push_back(&reject);
        record_.Save(tally, level, position);
        if (store.goes_beyond || !stored_.empty()) record_.NotePageKeys(entries, store.goes_beyond);
      });
      break;
    } catch (const pg::PgError &error) {
      if (!IsTransient(error.sqlstate()) || attempt == kBatchRetries) throw;
      // So that whoever waited for this batch goes first: to take the same locks at once would be the same
      // deadlock.
      pg::Sleep(attempt * kRetryPauseMs);
    }
  }
  Spi::Commit();
  has_deferred_ = has_deferred_ || !tally.deferred.empty();
  if (!store.goes_beyond) stored_.clear();
  if (store.goes_beyond)
    for (const source::Entry *entry : entries) stored_.emplace(entry->db, entry->key);
  if (!fresh.empty())
    throw StoppedByReject{"run " + std::to_string(record_.id()) +
                              " stopped: " + std::to_string(fresh.size()) + " keys were rejected",
                          "The first is \"" + Printable(fresh.front()->entry->key) + "\", rule " +
                              fresh.front()->rule + ": " + fresh.front()->message};
  return tally.deferred.size();
}

void Pass::RetryDeferred(int level) {
  StoreOptions options;
  options.recount = true;
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
      for (const source::Entry &entry : entries) pointers.push_back(&entry);
      tried += entries.size();
      refused += Store(pointers, level, record_.position(), options);
    }
    Spi::Commit();
    if (refused == 0) return;
    options.defer = refused < tried;
  }
}

}  // namespace prm
