#include "verify/source_comparison.h"

#include "connect/source_reader.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/spi.h"
#include "pg/wait.h"
#include "verify/verified_place.h"

namespace prm {

using pg::Spi;
using source::EntryState;

namespace {

// A difference is one if the key held still from its reading until after the comparison. Where keys cannot be
// watched, a value that was read kReadings times in a row, each time followed by a comparison, is taken for
// one that held still. Keys are watched together: if one of them does not hold still, none is known to, so
// the next rounds watch fewer at once.
constexpr size_t kWatchedAtOnce[] = {0, 100, 100, 25, 5, 1, 1, 1};
constexpr int kMostRounds = std::size(kWatchedAtOnce);
constexpr long kPauseMs = 50;
constexpr long kLivePauseMs = 300;
constexpr size_t kMostDoubts = 20000;
constexpr int64 kExpiryToleranceMs = 1000;

bool IsNear(const std::optional<int64_t> &a, const std::optional<int64_t> &b) {
  return a.has_value() == b.has_value() && (!a || std::abs(*a - *b) <= kExpiryToleranceMs);
}

}  // namespace

SourceComparison::SampleFilter::SampleFilter(const Routing &routing, std::optional<double> share)
    : filter_(routing, std::nullopt), secret_(RandomSipKey()) {
  if (share) below_ = static_cast<uint64_t>(*share * 18446744073709551616.0);  // of 2^64
}

source::KeyDecision SourceComparison::SampleFilter::Classify(int db, Bytes key) {
  if (below_ && SipHash128(secret_, key).low >= *below_) return {};
  return filter_.Classify(db, key);
}

SourceComparison::SourceComparison(const Migration &migration, const Routing &routing,
                                   const VerificationRecord::Parameters &parameters,
                                   VerificationRecord &record)
    : migration_(migration),
      routing_(routing),
      parameters_(parameters),
      record_(record),
      store_(migration, routing),
      filter_(routing, parameters.sample),
      reader_(migration, filter_),
      live_(migration.name, reader_),
      has_server_(ReadsServer(parameters.source)) {
  Clear();
}

void SourceComparison::Clear() {
  findings_ = {};
  for (const Mapping *mapping : routing_.Mappings()) findings_.counts[mapping->name];
  doubts_.clear();
  partial_.clear();
}

void SourceComparison::Compare(const std::function<void()> &restarted) {
  Scope scope;
  scope.restarted = restarted;
  between_ = {};
  CompareScope(scope);
}

void SourceComparison::ComparePart(const PartTable::Part &part, const SourcePart &share, bool first,
                                   const std::function<void()> &between) {
  record_.SetPart(part.number);
  // Its last reader has kept to itself what it found, but for rows that it met and differences.
  if (part.pid != 0) record_.Restart();
  Spi::Commit();
  Clear();
  Scope scope;
  scope.part = share;
  scope.position = part.position;
  scope.first = first;
  between_ = between;
  CompareScope(scope);
  between_ = {};
  record_.Save(findings_.keys);
  record_.SaveFindings(findings_);
  record_.SetPart(0);
}

void SourceComparison::CompareScope(const Scope &scope) {
  reader_.SetPart(scope.part, scope.position);
  ReadSource(scope, true);
  SettleDoubts();
  reader_.SetPart({}, "");
}

void SourceComparison::NoteMet() { ReadSource({}, false); }

// counts: false when it is read only for the rows that keys yield now.
void SourceComparison::ReadSource(const Scope &scope, bool counts) {
  SourceReader source(PlaceToVerify(migration_, parameters_.source), filter_, scope.position, scope.first,
                      scope.part);
  if (counts && !scope.part) findings_.keys.estimated = source.estimate();
  Spi::Commit();
  std::string position = scope.position;
  source::Batch batch;
  while (source.Next(batch, position)) {
    position = batch.position;
    if (source.TakeRestarted()) {
      position = scope.position;
      if (counts) Restart(scope);
    } else {
      Take(batch, counts);
    }
    batch = source::Batch();
    if (counts && doubts_.size() >= kMostDoubts) SettleDoubts();
  }
}

void SourceComparison::Restart(const Scope &scope) {
  pg::Report(NOTICE, std::string("the Redis server was restarted or replaced: ") +
                         (scope.part ? "a part of the verification" : "the verification") + " begins again");
  if (scope.part) record_.NoteRestart();
  record_.Restart();
  int64 const estimated = findings_.keys.estimated;
  Clear();
  findings_.keys.estimated = estimated;
  Spi::Commit();
  if (scope.restarted) scope.restarted();
}

void SourceComparison::Take(source::Batch &batch, bool counts) {
  pg::Context context("redis_migrate verification");
  pg::SwitchContext in_context(context.get());
  std::vector<source::Entry> entries;
  for (source::Entry &entry : batch.entries) {
    if (has_server_ && counts && entry.state == EntryState::kChanging)
      doubts_.emplace(KeyId{entry.db, entry.key}, Doubt());
    else
      entries.push_back(std::move(entry));
  }
  if (counts) findings_.keys.read += static_cast<int64>(batch.entries.size());
  // A file does not change: its differences are final.
  BatchComparison found = CompareEntries(entries, !has_server_, counts);
  if (counts) {
    for (auto &[entry, of] : found.unequal) {
      if (has_server_)
        doubts_.emplace(KeyId{entry->db, entry->key}, Doubt());
      else
        Count(*entry, of);
    }
    // Others are not read again by name.
    for (auto key = partial_.begin(); key != partial_.end();)
      key = doubts_.count(*key) == 0 ? partial_.erase(key) : std::next(key);
    record_.Save(findings_.keys);
  }
  CommitBatch();
}

BatchComparison SourceComparison::CompareEntries(const std::vector<source::Entry> &entries, bool describes,
                                                 bool counts) {
  std::vector<const source::Entry *> pointers;
  for (const source::Entry &entry : entries) pointers.push_back(&entry);
  BatchComparison comparison;
  if (!parameters_.sample)
    comparison.keep_met = [this](const Mapping &mapping, std::vector<PackedItem> rows) {
      AddMetInTry(mapping, std::move(rows));
    };
  if (describes) comparison.most_differences = static_cast<size_t>(parameters_.max_differences);
  BatchOptions options;
  options.comparison = &comparison;
  Tally tally;
  for (int level = 0; level < routing_.levels(); ++level) store_.Process(pointers, level, {}, options, tally);
  for (const Mapping *mapping : routing_.Mappings())
    if (auto met = comparison.met_rows.find(mapping->name); met != comparison.met_rows.end())
      record_.AddMet(mapping->id, std::move(met->second));
  if (!counts) return comparison;
  for (const auto &[mapping, rows] : comparison.equal) findings_.counts[mapping].rows.Add(rows);
  for (const Reject &reject : tally.rejects) {
    // A key some of whose elements are rejected counts once, however often it is read because it is in doubt.
    // One that the source returns again is counted again, here as everywhere.
    if (reject.partial && !partial_.emplace(reject.entry->db, reject.entry->key).second) continue;
    ++findings_.rules[reject.rule];
    ++findings_.keys.rejected;
    if (reject.mapping)
      AddDifference(reject.entry, {*reject.mapping, "rejected", "", std::nullopt, reject.message, {}});
  }
  return comparison;
}

// Within a try, what PostgreSQL raises is taken for the fault of a key or of the mapping, which this is not.
void SourceComparison::AddMetInTry(const Mapping &mapping, std::vector<PackedItem> rows) {
  try {
    record_.AddMet(mapping.id, std::move(rows));
  } catch (const pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    const ErrorData *data = error.data();
    throw pg::Failure(error.sqlstate(), error.what(), data->detail ? data->detail : "",
                      data->hint ? data->hint : "");
  }
}

void SourceComparison::Count(const source::Entry &entry, BatchComparison::OfKey &found) {
  for (const auto &[mapping, rows] : found.rows) findings_.counts[mapping].rows.Add(rows);
  // Columns of one row follow one another.
  std::map<std::string, std::set<std::string>> described;
  for (const RowDifference &difference : found.differences) {
    VerificationRecord::Counts &counts = findings_.counts[difference.mapping];
    std::set<std::string> &rows = described[difference.mapping];
    if (rows.count(difference.row_key) == 0 && counts.kept >= parameters_.max_differences) continue;
    if (rows.insert(difference.row_key).second) ++counts.kept;
    record_.AddDifference(&entry, difference, counts.kept);
  }
  for (const auto &[mapping, rows] : found.rows)
    findings_.counts[mapping].not_kept +=
        rows.missing + rows.different + rows.expiry_differs - static_cast<int64>(described[mapping].size());
}

// A difference that is no row's, but a key's.
void SourceComparison::AddDifference(const source::Entry *entry, const RowDifference &difference) {
  VerificationRecord::Counts &counts = findings_.counts[difference.mapping];
  if (counts.kept >= parameters_.max_differences) {
    ++counts.not_kept;
    return;
  }
  record_.AddDifference(entry, difference, ++counts.kept);
}

void SourceComparison::SettleDoubts() {
  for (int round = 0; round < kMostRounds && !doubts_.empty(); ++round) {
    if (round > 0) pg::Sleep(is_followed_ ? kLivePauseMs : kPauseMs);
    is_behind_ = false;
    std::vector<KeyId> keys;
    for (const auto &[key, doubt] : doubts_) keys.push_back(key);
    reader_.Read(
        keys, is_followed_ ? kWatchedAtOnce[round] : 0,
        [&](std::vector<source::Entry> &entries, const std::optional<redis::ReplicationPoint> &point) {
          TakeAgain(entries, point, round);
        });
  }
  CountUnsettled();
}

void SourceComparison::TakeAgain(std::vector<source::Entry> &entries,
                                 const std::optional<redis::ReplicationPoint> &point, int round) {
  pg::Context context("redis_migrate verification");
  pg::SwitchContext in_context(context.get());
  findings_.keys.read_again += static_cast<int64>(entries.size());
  if (is_followed_ && !is_behind_)
    is_behind_ = !(point && !live_.IsFeed() ? live_.WaitForStream(*point) : live_.WaitForAll());
  std::vector<source::Entry> still;
  std::vector<KeyId> keys;
  for (source::Entry &entry : entries) {
    if (entry.state == EntryState::kChanging) continue;
    keys.emplace_back(entry.db, entry.key);
    still.push_back(std::move(entry));
  }
  std::set<KeyId> const deferred = is_followed_ ? live_.Deferred(keys) : std::set<KeyId>();
  BatchComparison found = CompareEntries(still, round > 0, true);
  std::optional<bool> held_still;
  if (!found.unequal.empty()) {
    CommitBatch();
    held_still = reader_.HeldStill();
  }
  for (const source::Entry &entry : still) {
    KeyId const key = {entry.db, entry.key};
    auto const unequal = found.unequal.find(&entry);
    if (unequal == found.unequal.end()) {
      doubts_.erase(key);
      continue;
    }
    Doubt &doubt = doubts_[key];
    if (is_followed_ && kWatchedAtOnce[round] > 0 && !held_still && !std::exchange(doubt.is_unwatched, true))
      ++findings_.keys.unwatched;
    // A change that live sync has not come to yet proves nothing.
    bool const is_behind = is_behind_ || deferred.count(key) > 0;
    // The trailer of a large payload has the checksum of all of it.
    Hash128 const value = SipHash128({}, entry.large ? entry.large->trailer() : Bytes(entry.payload));
    bool const is_same =
        doubt.readings > 0 && value == doubt.value && IsNear(entry.expires_at_ms, doubt.expires_at_ms);
    doubt.value = value;
    doubt.expires_at_ms = entry.expires_at_ms;
    doubt.readings = is_behind ? 0 : is_same ? doubt.readings + 1 : 1;
    if (is_behind || !held_still.value_or(doubt.readings >= kReadings)) continue;
    Count(entry, unequal->second);
    doubts_.erase(key);
  }
  record_.Save(findings_.keys);
  CommitBatch();
}

void SourceComparison::CommitBatch() {
  if (between_) between_();
  Spi::Commit();
}

void SourceComparison::CountUnsettled() {
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
      ++findings_.counts[mapping].unsettled;
      AddDifference(&entry, {mapping, "unsettled", "", std::nullopt, std::nullopt, std::nullopt});
    }
  }
  doubts_.clear();
  partial_.clear();
  Spi::Commit();
}

}  // namespace prm
