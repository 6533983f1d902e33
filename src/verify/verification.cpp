#include "verify/verification.h"

#include "connect/source_reader.h"
#include "ledger/ledger_settling.h"
#include "mapping/family_state.h"
#include "mapping/ledger_mark.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/rollback.h"
#include "pg/spi.h"
#include "redis/info.h"
#include "store/archive_source.h"
#include "verify/unmet_rows.h"

namespace prm {

using pg::Spi;
using source::EntryState;

namespace {

// A difference is one if a value that was read so often in a row, each time followed by a comparison, is not
// the stored one: the value was that while the row was looked at.
constexpr int kReadings = 3;
constexpr int kMostRounds = 8;
constexpr long kPauseMs = 50;
constexpr long kLivePauseMs = 300;
constexpr size_t kMostDoubts = 20000;
constexpr int64 kExpiryToleranceMs = 1000;
constexpr size_t kSuspectsAtOnce = 5000;

bool IsNear(const std::optional<int64_t> &a, const std::optional<int64_t> &b) {
  return a.has_value() == b.has_value() && (!a || std::abs(*a - *b) <= kExpiryToleranceMs);
}

std::string Plural(int64 count, const char *one, const char *many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

}  // namespace

Verification::SampleFilter::SampleFilter(const Routing &routing, std::optional<double> share)
    : filter_(routing, std::nullopt), secret_(RandomSipKey()) {
  if (share) below_ = static_cast<uint64_t>(*share * 18446744073709551616.0);  // of 2^64
}

source::KeyDecision Verification::SampleFilter::Classify(int db, Bytes key) {
  if (below_ && SipHash128(secret_, key).low >= *below_) return {};
  return filter_.Classify(db, key);
}

Verification::Verification(Parameters parameters)
    : parameters_(std::move(parameters)),
      migration_(LoadMigration(parameters_.migration)),
      routing_(migration_, parameters_.priority, parameters_.mapping),
      store_(migration_, routing_),
      filter_(routing_, parameters_.sample),
      record_(parameters_),
      reader_(migration_, filter_) {
  for (const Mapping *mapping : routing_.Mappings()) RequireLedgerSecret(*mapping);
  EnsureLedgerSecret();  // rows are known by hashes, whether or not there is a ledger
  for (const Mapping *mapping : routing_.Mappings()) counts_[mapping->name];
  Spi::Commit();
}

bool Verification::HasServer() const { return ReadsServer(parameters_.source); }

void Verification::Execute() {
  is_followed_ = HasServer() && IsFollowed();
  if (HasServer() && !is_followed_) writes_before_ = AskWrites();
  ReadSource(true);
  SettleDoubts();
  if (!parameters_.sample) FindUnmet();
  std::vector<std::string> const reasons = Reasons();
  for (const auto &[mapping, counts] : counts_) record_.SaveCounts(mapping, counts);
  record_.Save(keys_);
  record_.Conclude(reasons, Proves(reasons));
  Spi::Commit();
  Report(reasons);
}

void Verification::Fail(const pg::Problem &problem) const {
  pg::RollBackAfter(problem);
  record_.Fail(problem.SqlState(), problem.message);
  Spi::Commit();
}

std::map<std::string, int64> Verification::ExtraRows() const {
  std::map<std::string, int64> extra;
  for (const auto &[mapping, counts] : counts_)
    if (counts.extra.value_or(0) > 0) extra.emplace(mapping, *counts.extra);
  return extra;
}

// counts: false when it is read only for the rows that keys yield now.
void Verification::ReadSource(bool counts) {
  SourceReader source(PlaceOf(migration_, parameters_.source), filter_, "", true);
  if (counts) keys_.estimated = source.estimate();
  Spi::Commit();
  std::string position;
  source::Batch batch;
  while (source.Next(batch, position)) {
    position = batch.position;
    if (source.TakeRestarted()) {
      position.clear();
      if (counts) Restart();
    } else {
      Take(batch, counts);
    }
    batch = source::Batch();
    if (counts && doubts_.size() >= kMostDoubts) SettleDoubts();
  }
}

void Verification::Take(source::Batch &batch, bool counts) {
  pg::Context context("redis_migrate verification");
  pg::SwitchContext in_context(context.get());
  std::vector<source::Entry> entries;
  for (source::Entry &entry : batch.entries) {
    if (HasServer() && counts && entry.state == EntryState::kChanging)
      doubts_.emplace(KeyId{entry.db, entry.key}, Doubt());
    else
      entries.push_back(std::move(entry));
  }
  if (counts) keys_.read += static_cast<int64>(batch.entries.size());
  // A file does not change: its differences are final.
  BatchComparison found = Compare(entries, !HasServer(), counts);
  if (counts) {
    for (auto &[entry, of] : found.unequal) {
      if (HasServer())
        doubts_.emplace(KeyId{entry->db, entry->key}, Doubt());
      else
        Count(*entry, of);
    }
    record_.Save(keys_);
  }
  Spi::Commit();
}

BatchComparison Verification::Compare(const std::vector<source::Entry> &entries, bool describes,
                                      bool counts) {
  std::vector<const source::Entry *> pointers;
  for (const source::Entry &entry : entries) pointers.push_back(&entry);
  BatchComparison comparison;
  comparison.notes_met = !parameters_.sample;
  if (describes) comparison.most_differences = static_cast<size_t>(parameters_.max_differences);
  BatchOptions options;
  options.comparison = &comparison;
  Tally tally;
  for (int level = 0; level < routing_.levels(); ++level) store_.Process(pointers, level, {}, options, tally);
  for (const Mapping *mapping : routing_.Mappings())
    if (auto met = comparison.met_rows.find(mapping->name); met != comparison.met_rows.end())
      record_.AddMet(mapping->id, std::move(met->second));
  if (!counts) return comparison;
  for (const auto &[mapping, rows] : comparison.equal) counts_[mapping].rows.Add(rows);
  for (const Reject &reject : tally.rejects) {
    // A key some of whose elements are rejected counts once, however often it is read.
    if (reject.partial && !partial_.emplace(reject.entry->db, reject.entry->key).second) continue;
    ++rules_[reject.rule];
    ++keys_.rejected;
    if (reject.mapping)
      AddDifference(reject.entry, {*reject.mapping, "rejected", "", std::nullopt, reject.message, {}});
  }
  return comparison;
}

void Verification::Count(const source::Entry &entry, BatchComparison::OfKey &found) {
  for (const auto &[mapping, rows] : found.rows) counts_[mapping].rows.Add(rows);
  // Columns of one row follow one another.
  std::map<std::string, std::set<std::string>> described;
  for (const RowDifference &difference : found.differences) {
    VerificationRecord::Counts &counts = counts_[difference.mapping];
    std::set<std::string> &rows = described[difference.mapping];
    if (rows.count(difference.row_key) == 0 && counts.kept >= parameters_.max_differences) continue;
    if (rows.insert(difference.row_key).second) ++counts.kept;
    record_.AddDifference(&entry, difference);
  }
  for (const auto &[mapping, rows] : found.rows)
    counts_[mapping].not_kept +=
        rows.missing + rows.different + rows.expiry_differs - static_cast<int64>(described[mapping].size());
}

// A difference that is no row's, but a key's.
void Verification::AddDifference(const source::Entry *entry, const RowDifference &difference) {
  VerificationRecord::Counts &counts = counts_[difference.mapping];
  if (counts.kept >= parameters_.max_differences) {
    ++counts.not_kept;
    return;
  }
  ++counts.kept;
  record_.AddDifference(entry, difference);
}

void Verification::SettleDoubts() {
  for (int round = 0; round < kMostRounds && !doubts_.empty(); ++round) {
    if (round > 0) pg::Sleep(is_followed_ ? kLivePauseMs : kPauseMs);
    is_behind_ = false;
    std::vector<KeyId> keys;
    for (const auto &[key, doubt] : doubts_) keys.push_back(key);
    reader_.Read(
        keys, [&](std::vector<source::Entry> &entries, const std::optional<redis::ReplicationPoint> &point) {
          TakeAgain(entries, point, round);
        });
  }
  CountUnsettled();
}

void Verification::TakeAgain(std::vector<source::Entry> &entries,
                             const std::optional<redis::ReplicationPoint> &point, int round) {
  pg::Context context("redis_migrate verification");
  pg::SwitchContext in_context(context.get());
  keys_.read_again += static_cast<int64>(entries.size());
  if (is_followed_ && !is_behind_) is_behind_ = !(point && !IsFeed() ? WaitForStream(*point) : WaitForLive());
  std::vector<source::Entry> still;
  for (source::Entry &entry : entries)
    if (entry.state != EntryState::kChanging) still.push_back(std::move(entry));
  BatchComparison found = Compare(still, round + 1 >= kReadings, true);
  for (const source::Entry &entry : still) {
    KeyId const key = {entry.db, entry.key};
    auto const unequal = found.unequal.find(&entry);
    if (unequal == found.unequal.end()) {
      doubts_.erase(key);
      continue;
    }
    Doubt &doubt = doubts_[key];
    // The trailer of a large payload has the checksum of all of it.
    Hash128 const value = SipHash128({}, entry.large ? entry.large->trailer() : Bytes(entry.payload));
    bool const is_same =
        doubt.readings > 0 && value == doubt.value && IsNear(entry.expires_at_ms, doubt.expires_at_ms);
    doubt.value = value;
    doubt.expires_at_ms = entry.expires_at_ms;
    // A change that live sync has not come to yet proves nothing.
    doubt.readings = is_behind_ ? 0 : is_same ? doubt.readings + 1 : 1;
    if (doubt.readings < kReadings) continue;
    Count(entry, unequal->second);
    doubts_.erase(key);
  }
  record_.Save(keys_);
  Spi::Commit();
}

void Verification::CountUnsettled() {
  for (const auto &[key, doubt] : doubts_) {
    source::Entry entry;
    std::tie(entry.db, entry.key) = key;
    Route const route = Route::FromNumber(filter_.Classify(entry.db, entry.key).route);
    std::vector<std::string> mappings;
    if (route.kind == Route::kMapped)
      for (const Mapping *mapping : routing_.MappingsOf(*route.pattern)) mappings.push_back(mapping->name);
    else
      mappings.emplace_back("(archive)");
    for (const std::string &mapping : mappings) {
      ++counts_[mapping].unsettled;
      AddDifference(&entry, {mapping, "unsettled", "", std::nullopt, std::nullopt, std::nullopt});
    }
  }
  doubts_.clear();
  Spi::Commit();
}

// Rows that no key yields. While a run is under way, a row may be of a key that is newer than the reading: so
// the keys are read again. A row that none of them yields either has none, if it was there all the while:
// its key was absent at some moment of the second reading, and live sync has come by there. But live sync
// does not touch a row whose element goes and comes back in one batch: with it, keys are read once more, and
// again.
void Verification::FindUnmet() {
  std::vector<const Mapping *> const mappings = routing_.Mappings();
  bool const may_be_new = HasServer() && record_.HasMetRun();
  Spi::Commit();
  std::set<std::string> const owned = LockOwnedFamilies(migration_.name);
  std::set<const Mapping *> suspected;
  for (const Mapping *mapping : mappings) {
    if (owned.count(mapping->pattern) > 0 || !WhyUnmetAreUnknown(*mapping).empty()) continue;
    std::vector<PackedItem> suspects;
    auto add = [&] { record_.AddMet(mapping->id, std::exchange(suspects, {}), true); };
    int64 const unmet = VisitUnmetRows(*mapping, record_, false, [&](const UnmetRow &row) {
      if (!may_be_new) {
        AddDifference(nullptr, {mapping->name, "extra", std::string(row.key), {}, {}, {}});
        return;
      }
      suspects.push_back(row.version);
      if (suspects.size() == kSuspectsAtOnce) add();
    });
    add();
    if (unmet > 0 && may_be_new) suspected.insert(mapping);
    counts_[mapping->name].extra = may_be_new ? 0 : unmet;
    Spi::Commit();
  }
  int const last = is_followed_ ? kReadings : 1;
  for (int reading = 1; !suspected.empty() && reading <= last; ++reading) {
    ReadSource(false);
    // Rows of keys that the stream has deleted must be gone here, too; otherwise nobody knows.
    if (is_followed_ && !WaitForLive()) {
      is_extra_known_ = false;
      for (const Mapping *mapping : suspected) counts_[mapping->name].extra.reset();
      return;
    }
    for (const Mapping *mapping : std::set<const Mapping *>(suspected)) {
      int64 const unmet = VisitUnmetRows(*mapping, record_, true, [&](const UnmetRow &row) {
        if (reading == last)
          AddDifference(nullptr, {mapping->name, "extra", std::string(row.key), {}, {}, {}});
      });
      if (unmet == 0) suspected.erase(mapping);
      counts_[mapping->name].extra = unmet;
      Spi::Commit();
    }
  }
}

void Verification::Restart() {
  pg::Report(NOTICE, "the Redis server was restarted or replaced: the verification begins again");
  record_.Restart();
  for (auto &[mapping, counts] : counts_) counts = {};
  rules_.clear();
  doubts_.clear();
  partial_.clear();
  int64 const estimated = keys_.estimated;
  keys_ = {};
  keys_.estimated = estimated;
  Spi::Commit();
  if (HasServer() && !is_followed_) writes_before_ = AskWrites();
}

// Asks a single server; tells nothing for a cluster, or without the right to INFO.
std::optional<Verification::Writes> Verification::AskWrites() const {
  redis::Deployment const deployment = ServerOptions(migration_.server, GetUserId());
  Spi::Commit();
  if (!deployment.seeds.empty()) return {};
  ServerConnection connection(migration_.server, GetUserId());
  Spi::Commit();
  auto const info = redis::FetchInfo(*connection);
  if (!info.ok()) return {};
  Writes writes = {std::string(info.value().run_id()),
                   std::string(info.value().Get("rdb_changes_since_last_save")),
                   std::string(info.value().Get("rdb_last_save_time"))};
  if (writes.run_id.empty() || writes.changes.empty() || writes.last_save.empty()) return {};
  return writes;
}

std::vector<std::string> Verification::Reasons() {
  std::vector<std::string> reasons;
  if (parameters_.sample)
    reasons.emplace_back(
        "only a sample of the keys was compared, and no row was looked for that lost its key");
  ComparedRows rows;
  int64 extra = 0, unsettled = 0;
  for (const auto &[mapping, counts] : counts_) {
    rows.Add(counts.rows);
    extra += counts.extra.value_or(0);
    unsettled += counts.unsettled;
  }
  auto add = [&](int64 count, const std::string &reason) {
    if (count > 0) reasons.push_back(reason);
  };
  add(rows.missing, Plural(rows.missing, "row is", "rows are") + " missing");
  add(rows.different, Plural(rows.different, "row is", "rows are") + " different");
  add(rows.expiry_differs,
      Plural(rows.expiry_differs, "row expires", "rows expire") + " at another time than the key");
  add(extra, Plural(extra, "row has", "rows have") + " no key");
  add(unsettled, Plural(unsettled, "key", "keys") + " never held still");
  std::string rules;
  for (const auto &[rule, keys] : rules_)
    rules += (rules.empty() ? "" : ", ") + rule + " " + std::to_string(keys);
  add(keys_.rejected, Plural(keys_.rejected, "key", "keys") + " cannot be compared, by rule: " + rules);
  if (HasServer() && !is_followed_) {
    std::optional<Writes> const writes = AskWrites();
    if (!writes || !writes_before_ || !writes->CountsAs(*writes_before_))
      reasons.emplace_back(
          "whether keys were written to meanwhile is not known, and live sync is not under way");
    else if (writes->changes != writes_before_->changes)
      reasons.emplace_back("keys were written to meanwhile, and live sync is not under way");
  }
  if (!is_extra_known_)
    reasons.emplace_back(
        "live sync did not come to what was read in time: which rows have no key is not known");
  if (is_followed_ && !IsFollowed())
    reasons.emplace_back("live sync ended meanwhile");
  else if (is_followed_ && !IsFollowing())
    reasons.emplace_back("live sync was not following the server at the end, see redis_migrate.live_sync");
  if (record_.HasFamilyChanged()) reasons.emplace_back("a family has changed hands meanwhile");
  if (record_.IsOutdated()) reasons.emplace_back("the definition of the migration was changed meanwhile");
  return reasons;
}

// A cutover compares keys that never held still while writes are held back.
bool Verification::Proves(const std::vector<std::string> &reasons) const {
  int64 unsettled = 0, not_kept = 0;
  for (const auto &[mapping, counts] : counts_) {
    unsettled += counts.unsettled;
    not_kept += counts.not_kept;
  }
  return reasons.empty() || (reasons.size() == 1 && unsettled > 0 && not_kept == 0);
}

void Verification::Report(const std::vector<std::string> &reasons) const {
  ComparedRows rows;
  for (const auto &[mapping, counts] : counts_) rows.Add(counts.rows);
  std::string const what =
      "verification " + std::to_string(record_.id()) + " of migration \"" + migration_.name + "\": ";
  std::string const equal =
      std::to_string(keys_.read) + " keys read, " + std::to_string(rows.equal) + " rows equal";
  if (reasons.empty()) {
    pg::Report(NOTICE, what + "verified, " + equal);
    return;
  }
  std::string list;
  for (const std::string &reason : reasons) list += (list.empty() ? "" : "; ") + reason;
  pg::Report(WARNING, what + "not verified, " + equal, "Because " + list + ".",
             "SELECT * FROM redis_migrate.verification_differences WHERE verification_id = " +
                 std::to_string(record_.id()) + ".");
}

}  // namespace prm
