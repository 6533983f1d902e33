#include "verify/verification.h"

#include "ledger/ledger_settling.h"
#include "mapping/family_state.h"
#include "mapping/ledger_mark.h"
#include "parts/part_reading.h"
#include "parts/worker_count.h"
#include "pg/arguments.h"
#include "pg/rollback.h"
#include "pg/spi.h"
#include "redis/info.h"
#include "verify/unmet_rows.h"
#include "verify/verified_place.h"

namespace prm {

using pg::Spi;

namespace {

constexpr size_t kSuspectsAtOnce = 5000;

std::string Plural(int64 count, const char *one, const char *many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

}  // namespace

Verification::Verification(Parameters parameters)
    : parameters_(std::move(parameters)),
      migration_(LoadMigration(parameters_.migration)),
      routing_(migration_, parameters_.priority, parameters_.mapping),
      record_(parameters_),
      comparison_(migration_, routing_, parameters_, record_),
      helpers_(new_helpers({Work::Kind::kVerification, record_.id()})),
      leads_(record_.id(), PartLock::kVerification, 0) {
  for (const Mapping *mapping : routing_.Mappings()) RequireLedgerSecret(*mapping);
  EnsureLedgerSecret();  // rows are known by hashes, whether or not there is a ledger
  Spi::Commit();
}

bool Verification::HasServer() const { return ReadsServer(parameters_.source); }

void Verification::Execute() {
  is_followed_ = HasServer() && comparison_.live().IsFollowed();
  comparison_.SetFollowed(is_followed_);
  record_.SetFollowed(is_followed_);
  Spi::Commit();
  NoteWrites();
  CompareSource();
  if (!parameters_.sample) FindUnmet();
  VerificationRecord::Findings all = in_parts_;
  all.Add(comparison_.findings());
  std::vector<std::string> const reasons = Reasons(all);
  record_.SaveFindings(comparison_.findings());
  record_.Save(all.keys);
  record_.Conclude(reasons, Proves(all, reasons));
  Spi::Commit();
  Report(all, reasons);
}

void Verification::Fail(const pg::Problem &problem) {
  pg::RollBackAfter(problem);
  helpers_->Stop();
  record_.Fail(problem.SqlState(), problem.message);
  Spi::Commit();
}

std::map<std::string, int64> Verification::ExtraRows() {
  std::map<std::string, int64> extra;
  for (const auto &[mapping, counts] : comparison_.findings().counts)
    if (counts.extra.value_or(0) > 0) extra.emplace(mapping, *counts.extra);
  return extra;
}

void Verification::NoteWrites() {
  if (HasServer() && !is_followed_) writes_before_ = AskWrites();
}

void Verification::CompareSource() {
  // A snapshot by replication is read by the process that receives it.
  bool const has_parts = parameters_.source == "scan" || parameters_.source == "rdb";
  bool first = true;
  for (bool done = false; !done;) {
    std::optional<SourceDivision> source;
    if (has_parts && parameters_.workers != 1) source.emplace(AskSource(std::exchange(first, false)));
    if (!source || !Divide(*source)) {
      comparison_.Compare([this] { NoteWrites(); });
      return;
    }
    done = CompareParts(*source);
  }
}

SourceDivision Verification::AskSource(bool first) const {
  SourceDivision source(PlaceToVerify(migration_, parameters_.source), true, first);
  Spi::Commit();
  return source;
}

bool Verification::Divide(const SourceDivision &source) {
  // Where one process at a time can store rows, several can compare them.
  int const wanted = CountWorkers(parameters_.workers, source, {});
  if (wanted < 2) return false;
  int const readers =
      1 + helpers_->StartUpTo(wanted - 1, parameters_.workers.has_value(), routing_.Mappings());
  std::vector<SourceDivision::Part> const parts = source.Into(readers);
  if (parts.size() < 2) return false;
  record_.parts().Divide(parts);
  record_.parts().SetReaders(readers);
  Spi::Commit();
  return true;
}

bool Verification::CompareParts(const SourceDivision &source) {
  TimestampTz touched_at = 0;
  auto look = [&] {
    int const left = CountUndone(record_.parts().Read());
    TimestampTz const now = GetCurrentTimestamp();
    if (left == 0 || TimestampDifferenceExceeds(touched_at, now, kTouchEveryMs)) {
      record_.Touch(source.keys());
      touched_at = now;
    }
    return left;
  };
  bool first = true;
  try {
    PartReading(record_.parts(), SourceComparison::kTakesOver)
        .ReadAll(
            [&](const PartTable::Part &part, const SourcePart &share) {
              comparison_.ComparePart(part, share, std::exchange(first, false), look);
            },
            look);
  } catch (const pg::Failure &failure) {
    if (failure.sqlstate() != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE) throw;
    Spi::RollBack();
    helpers_->Stop();
    record_.SetPart(0);
    if (StillHasAll(AskSource(false), record_.parts().Read())) throw;
    pg::Report(NOTICE, "the Redis server was restarted or replaced: the verification begins again");
    record_.DropParts();
    comparison_.Clear();
    Spi::Commit();
    NoteWrites();
    return false;
  }
  helpers_->Stop();
  comparison_.Clear();
  in_parts_ = record_.TakeFindings(parameters_.max_differences);
  in_parts_.keys.estimated = source.keys();
  for (auto &[mapping, counts] : in_parts_.counts)
    comparison_.findings().counts[mapping].kept = std::exchange(counts.kept, 0);
  Spi::Commit();
  return true;
}

// Rows that no key yields. While a run is under way, a row may be of a key that is newer than the reading: so
// the keys are read again. A row that none of them yields either has none, if it was there all the while:
// its key was absent at some moment of the second reading, and live sync has come by there. But live sync
// does not touch a row whose element goes and comes back in one batch: with it, keys are read once more, and
// again.
void Verification::FindUnmet() {
  std::map<std::string, VerificationRecord::Counts> &counts = comparison_.findings().counts;
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
        comparison_.AddDifference(nullptr, {mapping->name, "extra", std::string(row.key), {}, {}, {}});
        return;
      }
      suspects.push_back(row.version);
      if (suspects.size() == kSuspectsAtOnce) add();
    });
    add();
    if (unmet > 0 && may_be_new) suspected.insert(mapping);
    counts[mapping->name].extra = may_be_new ? 0 : unmet;
    Spi::Commit();
  }
  int const last = is_followed_ ? SourceComparison::kReadings : 1;
  for (int reading = 1; !suspected.empty() && reading <= last; ++reading) {
    comparison_.NoteMet();
    // Rows of keys that the stream has deleted must be gone here, too; otherwise nobody knows.
    if (is_followed_ && !comparison_.live().WaitForAll()) {
      is_extra_known_ = false;
      for (const Mapping *mapping : suspected) counts[mapping->name].extra.reset();
      return;
    }
    for (const Mapping *mapping : std::set<const Mapping *>(suspected)) {
      int64 const unmet = VisitUnmetRows(*mapping, record_, true, [&](const UnmetRow &row) {
        if (reading == last)
          comparison_.AddDifference(nullptr, {mapping->name, "extra", std::string(row.key), {}, {}, {}});
      });
      if (unmet == 0) suspected.erase(mapping);
      counts[mapping->name].extra = unmet;
      Spi::Commit();
    }
  }
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

std::vector<std::string> Verification::Reasons(const VerificationRecord::Findings &all) {
  std::vector<std::string> reasons;
  if (parameters_.sample)
    reasons.emplace_back(
        "only a sample of the keys was compared, and no row was looked for that lost its key");
  ComparedRows rows;
  int64 extra = 0, unsettled = 0;
  for (const auto &[mapping, counts] : all.counts) {
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
  for (const auto &[rule, keys] : all.rules)
    rules += (rules.empty() ? "" : ", ") + rule + " " + std::to_string(keys);
  add(all.keys.rejected, Plural(all.keys.rejected, "key", "keys") + " cannot be compared, by rule: " + rules);
  if (HasServer() && !is_followed_) {
    std::optional<Writes> const writes = AskWrites();
    if (!writes || !writes_before_ || !writes->CountsAs(*writes_before_))
      reasons.emplace_back(
          "whether keys were written to meanwhile is not known, and live sync is not under way");
    else if (writes->changes != writes_before_->changes)
      reasons.emplace_back("keys were written to meanwhile, and live sync is not under way");
  }
  add(all.restarts, "Redis was restarted or replaced meanwhile");
  if (!is_extra_known_)
    reasons.emplace_back(
        "live sync did not come to what was read in time: which rows have no key is not known");
  if (is_followed_ && !comparison_.live().IsFollowed())
    reasons.emplace_back("live sync ended meanwhile");
  else if (is_followed_ && !comparison_.live().IsFollowing())
    reasons.emplace_back("live sync was not following the server at the end, see redis_migrate.live_sync");
  if (record_.HasFamilyChanged()) reasons.emplace_back("a family has changed hands meanwhile");
  if (record_.IsOutdated()) reasons.emplace_back("the definition of the migration was changed meanwhile");
  return reasons;
}

// A cutover compares keys that never held still while writes are held back.
bool Verification::Proves(const VerificationRecord::Findings &all, const std::vector<std::string> &reasons) {
  int64 unsettled = 0, not_kept = 0;
  for (const auto &[mapping, counts] : all.counts) {
    unsettled += counts.unsettled;
    not_kept += counts.not_kept;
  }
  return reasons.empty() || (reasons.size() == 1 && unsettled > 0 && not_kept == 0);
}

void Verification::Report(const VerificationRecord::Findings &all,
                          const std::vector<std::string> &reasons) const {
  ComparedRows rows;
  for (const auto &[mapping, counts] : all.counts) rows.Add(counts.rows);
  std::string const what =
      "verification " + std::to_string(record_.id()) + " of migration \"" + migration_.name + "\": ";
  std::string const equal =
      std::to_string(all.keys.read) + " keys read, " + std::to_string(rows.equal) + " rows equal";
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
