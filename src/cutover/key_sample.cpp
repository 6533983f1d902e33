#include "cutover/key_sample.h"

#include "ledger/ledger_settling.h"
#include "live/touched_keys.h"
#include "mapping/ledger_mark.h"
#include "pg/background.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "redis/info.h"
#include "source/living_fields.h"
#include "source/named_keys.h"

namespace prm {

using pg::Spi;
using pg::ValueOrThrow;
using source::EntryState;

namespace {

constexpr size_t kAskAtOnce = 200;
// Where few keys are of the families, it stays with those that were found by then.
constexpr int64 kMostChoosingMs = 1000;
constexpr size_t kMostDescribed = 3;

class SessionInterrupts : public Interrupts {
 public:
  void CheckInterrupts() override { pg::CheckInterrupts(); }
};

// Expired fields stay where they are until the server deletes them.
void DropExpired(source::Entry &entry) {
  if (entry.state != EntryState::kRead || entry.plain) return;
  SessionInterrupts interrupts;
  Result<bool> const living = source::DropExpiredFields(entry, pg::NowMs(), interrupts);
  if (living.ok() && !living.value()) entry.state = EntryState::kVanished;
}

}  // namespace

KeySample::KeySample(Migration migration, std::vector<std::string> patterns)
    : migration_(std::move(migration)),
      patterns_(std::move(patterns)),
      routing_(migration_, std::nullopt, std::nullopt),
      store_(migration_, routing_),
      filter_(routing_, std::nullopt) {
  for (const Mapping *mapping : routing_.Mappings()) RequireLedgerSecret(*mapping);
  EnsureLedgerSecret();  // rows are known by hashes
  Spi::Commit();
}

bool KeySample::IsOfFamilies(int db, Bytes key, uint64 &route) {
  source::KeyDecision const decision = filter_.Classify(db, key);
  if (decision.interest != source::Interest::kRead) return false;
  route = decision.route;
  Route const found = Route::FromNumber(route);
  return found.kind == Route::kMapped &&
         std::count(patterns_.begin(), patterns_.end(), routing_.patterns()[*found.pattern].text()) > 0;
}

void KeySample::Choose(Masters &masters, size_t most) {
  keys_.assign(masters.size(), {});
  size_t const of_each = (most + masters.size() - 1) / masters.size();
  int64 const began_ms = pg::MonotonicMs();
  for (size_t number = 0; number < masters.size(); ++number) {
    ServerConnection &server = masters[number];
    redis::ServerInfo const info = ValueOrThrow(redis::FetchInfo(*server));
    std::vector<int> databases;
    for (const redis::KeyspaceInfo &space : info.Keyspace())
      if (Takes(migration_.databases, space.db)) databases.push_back(space.db);
    std::set<KeyId> &keys = keys_[number];
    for (size_t i = 0; i < databases.size(); ++i) {
      int const db = databases[i];
      ValueOrThrow(server->Command({"SELECT", std::to_string(db)}));
      // If one database has too few keys, those after it may have more.
      size_t const databases_left = databases.size() - i;
      size_t const wanted = keys.size() + (of_each - keys.size() + databases_left - 1) / databases_left;
      size_t misses = 0;
      while (keys.size() < wanted && misses < 4 * of_each && pg::MonotonicMs() - began_ms < kMostChoosingMs) {
        for (size_t n = 0; n < kAskAtOnce; ++n) server->Append({"RANDOMKEY"});
        for (size_t n = 0; n < kAskAtOnce; ++n) {
          redis::Reply const key = ValueOrThrow(server->Receive());
          if (key.IsError()) throw pg::Failure(server->ToError(key));
          uint64 route = 0;
          bool const is_new = key.String() && keys.size() < wanted &&
                              IsOfFamilies(db, *key.String(), route) &&
                              keys.emplace(db, std::string(*key.String())).second;
          if (!is_new) ++misses;
        }
      }
    }
  }
}

bool KeySample::AddTouched(Masters &masters, size_t most) {
  TouchedKeys::Found const touched = TouchedKeys::Read(migration_.name, patterns_);
  Spi::Commit();
  std::vector<KeyId> of_families;
  uint64 route = 0;
  for (const KeyId &id : touched.keys)
    if (IsOfFamilies(id.first, id.second, route)) of_families.push_back(id);
  touched_ = touched.is_known ? static_cast<int64>(of_families.size()) : -1;
  if (!touched.is_known || touched.has_more || of_families.size() > most) return false;
  Add(masters, std::move(of_families));
  return true;
}

void KeySample::Add(Masters &masters, std::vector<KeyId> keys) {
  for (KeyId &id : keys) {
    size_t number = 0;
    while (number + 1 < masters.size() && !masters.Has(number, id.second)) ++number;
    keys_[number].insert(std::move(id));
  }
}

source::NamedKeys &KeySample::ReaderOf(Masters &masters, size_t number) {
  if (readers_.size() < masters.size()) readers_.resize(masters.size());
  if (readers_[number] == nullptr) {
    source::NamedKeysOptions options;
    options.is_cluster = !masters[number].node().id.empty();
    options.max_reply_bytes = static_cast<uint64>(pg::settings::max_reply_size_kb) * 1024;
    options.max_value_bytes = static_cast<uint64>(pg::settings::max_value_size_kb) * 1024;
    readers_[number] = ValueOrThrow(source::NamedKeys::Open(*masters[number], options));
  }
  return *readers_[number];
}

void KeySample::Prepare(Masters &masters) { CompareAll(masters, false); }

int64 KeySample::Compare(Masters &masters) { return CompareAll(masters, true); }

int64 KeySample::CompareAll(Masters &masters, bool must_be_equal) {
  pg::Context context("redis_migrate cutover");
  pg::SwitchContext in_context(context.get());
  int64 compared = 0;
  for (size_t number = 0; number < masters.size(); ++number) {
    std::vector<source::NamedKey> keys;
    for (const KeyId &id : keys_[number]) {
      keys.emplace_back();
      std::tie(keys.back().entry.db, keys.back().entry.key) = id;
    }
    if (keys.empty()) continue;
    pg::ThrowIfError(ReaderOf(masters, number).Read(keys));
    std::vector<const source::Entry *> entries;
    for (source::NamedKey &key : keys) {
      DropExpired(key.entry);
      if (key.is_left || !IsOfFamilies(key.entry.db, key.entry.key, key.entry.route)) continue;
      entries.push_back(&key.entry);
    }
    BatchComparison comparison;
    comparison.most_differences = kMostDescribed;
    BatchOptions batch;
    batch.comparison = &comparison;
    Tally tally;
    for (int level = 0; level < routing_.levels(); ++level) store_.Process(entries, level, {}, batch, tally);
    Spi::Commit();
    compared += static_cast<int64>(entries.size());
    if (!must_be_equal || (comparison.unequal.empty() && tally.rejects.empty())) continue;
    std::string detail =
        tally.rejects.empty() ? "" : "A key cannot be stored: " + tally.rejects[0].message + ".";
    for (const auto &[entry, of] : comparison.unequal)
      for (const RowDifference &difference : of.differences)
        detail += (detail.empty() ? "Mapping \"" : "\nMapping \"") + difference.mapping + "\", row " +
                  difference.row_key + ": " + difference.kind +
                  (difference.column ? " in column \"" + *difference.column + "\"" : std::string()) + ".";
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        std::to_string(comparison.unequal.size() + tally.rejects.size()) + " of " +
            std::to_string(entries.size()) + " keys are not as the tables have them",
        detail, "CALL redis_migrate.verify(" + pg::QuoteLiteral(migration_.name) + ") finds all of them.");
  }
  return compared;
}

}  // namespace prm
