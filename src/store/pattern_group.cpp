#include "store/pattern_group.h"

#include <cstring>

#include "core/halves.h"
#include "mapping/mapping_settings.h"
#include "mapping/named_errors.h"
#include "pg/identity.h"
#include "pg/transaction.h"
#include "source/entry_order.h"
#include "store/group_store.h"

namespace prm {

using pg::PgError;

class PatternGroup::Work {
 public:
  Work(PatternGroup &group, const std::vector<const source::Entry *> &entries, const BatchOptions &options,
       Tally &tally)
      : group_(group), entries_(entries), options_(options), tally_(tally), context_("redis_migrate batch") {
    pg::SwitchContext in_context(context_.get());
    store_.emplace(TallyPattern(), group.states_, entries_, options_);
  }

  // Returns the entries that are left for another transaction.
  std::vector<const source::Entry *> Run() {
    pg::SwitchContext in_context(context_.get());
    std::vector<int> all(entries_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    Divide(all);
    return std::move(left_);
  }

  // Returns the entries whose rows are still referenced.
  std::vector<const source::Entry *> RunDelete() {
    pg::SwitchContext in_context(context_.get());
    std::vector<int> all(entries_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    DivideDelete(all);
    return std::move(left_);
  }

 private:
  using Findings = GroupStore::Findings;
  using Trial = GroupStore::Trial;

  bool MayKeepMore() const { return options_.subtransactions == nullptr || *options_.subtransactions > 0; }

  // Stores `which`, or finds the entries among them that cannot be.
  void Divide(std::vector<int> which) {
    int conflicts = 0;
    while (!which.empty()) {
      if (!MayKeepMore()) {
        for (int entry : which) left_.push_back(entries_[entry]);
        return;
      }
      Trial trial = store_->Try(which);
      switch (trial.result) {
        case Trial::kStored:
          if (options_.subtransactions != nullptr) --*options_.subtransactions;
          return Settle(which, trial.findings);
        case Trial::kRefused:
          for (const auto &[entry, refusal] : trial.refused) RejectEntry(entry, refusal);
          which.erase(
              std::remove_if(which.begin(), which.end(), [&](int e) { return trial.refused.count(e) > 0; }),
              which.end());
          continue;
        case Trial::kDeferred:
          for (int entry : trial.deferred) tally_.deferred.push_back(entries_[entry]);
          which.erase(
              std::remove_if(which.begin(), which.end(), [&](int e) { return trial.deferred.count(e) > 0; }),
              which.end());
          continue;
        case Trial::kNotStored:
        case Trial::kFailed:
          break;
      }
      bool const conflict =
          trial.result == Trial::kNotStored || trial.error->sqlstate() == ERRCODE_UNIQUE_VIOLATION;
      if (conflict && (StopBlindInserts(trial) || conflicts++ < kConflictRetries)) continue;
      if (store_->StopBulkInserts(trial)) continue;
      RequireFaultOfKeys(which, trial);
      if (which.size() == 1) return Single(which[0], trial);
      size_t half = which.size() / 2;
      Divide(std::vector<int>(which.begin(), which.begin() + static_cast<long>(half)));
      which.erase(which.begin(), which.begin() + static_cast<long>(half));
      conflicts = 0;
    }
  }

  void DivideDelete(const std::vector<int> &which) {
    Trial trial = store_->TryDelete(which);
    if (trial.result == Trial::kStored) {
      for (const auto &[mapping, counts] : trial.findings.rows) tally_.rows[mapping].Add(counts);
      for (int entry : which) Count(entry, Outcome::kVanished, "deleted");
      return;
    }
    // The rows are there, so the mapping has stored others.
    RequireFaultOfKeys(which, trial, true, [&](int entry) { return store_->TryDelete({entry}, false); });
    if (which.size() > 1) {
      auto const middle = which.begin() + static_cast<long>(which.size() / 2);
      DivideDelete({which.begin(), middle});
      DivideDelete({middle, which.end()});
    } else if (pg::IsForeignKeyViolation(trial.error->sqlstate())) {
      left_.push_back(entries_[which.front()]);
    } else {
      RejectEntry(which.front(), Explain(which.front(), trial));
    }
  }

  // Another session may have inserted the same row between our look-up and our insert.
  static constexpr int kConflictRetries = 2;

  // False if that was not the reason.
  bool StopBlindInserts(const Trial &trial) {
    if (trial.blind) store_->StopExpectingNewRows();
    return trial.blind;
  }

  // Throws the error of a try if it must not reject keys: if it is the server's, or if the mapping fails
  // whatever the key. has_stored: it has not failed for others; attempt: tries a single key.
  template <typename Attempt>
  void RequireFaultOfKeys(const std::vector<int> &which, const Trial &trial, bool has_stored,
                          Attempt attempt) {
    if (trial.result != Trial::kFailed) return;
    int const sqlstate = trial.error->sqlstate();
    if (of_keys_.count({trial.mapping, sqlstate}) > 0) return;
    if (!pg::CostsRows(
            sqlstate, [&] { return FailsWithoutRows(trial); },
            [&] { return FailsForAnyKey(which, trial, has_stored, attempt); })) {
      if (pg::FaultOf(sqlstate) == pg::Fault::kServer) throw *trial.error;
      ThrowFaultOfMapping(trial);
    }
    of_keys_.emplace(trial.mapping, sqlstate);
  }

  void RequireFaultOfKeys(const std::vector<int> &which, const Trial &trial) {
    RequireFaultOfKeys(which, trial, store_->prepared(trial.mapping).state.stored,
                       [&](int entry) { return store_->Try({entry}, false); });
  }

  bool FailsWithoutRows(const Trial &trial) {
    try {
      pg::InRolledBackSubtransaction([&] { store_->RunWithoutRows(trial.mapping); });
      return false;
    } catch (const PgError &error) {
      if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
      return error.sqlstate() == trial.error->sqlstate() && strcmp(error.what(), trial.error->what()) == 0;
    }
  }

  // Whether three keys by themselves fail alike. Fewer keys prove nothing if the mapping has stored others.
  // Of a stream keys come one by one: there the mapping fails if it does without any, and a follower ends
  // when it rejects many in a row.
  template <typename Attempt>
  bool FailsForAnyKey(const std::vector<int> &which, const Trial &trial, bool has_stored, Attempt attempt) {
    std::set<int> sample = {which.front(), which[which.size() / 2], which.back()};
    for (int entry = 0; entry < static_cast<int>(entries_.size()) && sample.size() < kSampleKeys; ++entry)
      sample.insert(entry);
    for (int entry : sample) {
      Trial single = attempt(entry);
      if (single.result != Trial::kFailed) return false;
      if (pg::FaultOf(single.error->sqlstate()) == pg::Fault::kServer) throw *single.error;
      if (single.error->sqlstate() != trial.error->sqlstate()) return false;
    }
    if (sample.size() == kSampleKeys) return true;
    return !has_stored && (!options_.follows || FailsWithoutRows(trial));
  }

  static constexpr size_t kSampleKeys = 3;

  [[noreturn]] void ThrowFaultOfMapping(const Trial &trial) {
    const PreparedMapping &prepared = store_->prepared(trial.mapping);
    PgError error = *trial.error;
    error.SetMessage(NamedMessage(prepared.mapping, error.what()));
    if (error.data()->detail == nullptr)
      error.SetDetail("Each key that was tried on its own failed in the same way.");
    if (error.data()->hint == nullptr)
      error.SetHint(
          "Change the mapping with redis_migrate.alter_mapping, or the functions that its query, its "
          "checks and the triggers of " +
          prepared.target.name + " call, and run the migration again: it continues from here.");
    throw error;
  }

  // Counts what a try that holds has found.
  void Settle(const std::vector<int> &which, Findings &findings) {
    for (const auto &[entry, refusal] : findings.refused) RejectEntry(entry, refusal);
    std::set<const source::Entry *> refused;
    for (const auto &[entry, refusal] : findings.refused) refused.insert(entries_[entry]);
    for (Reject &reject : findings.partial)
      if (refused.count(reject.entry) == 0) tally_.rejects.push_back(std::move(reject));
    for (const auto &[mapping, counts] : findings.rows) tally_.rows[mapping].Add(counts);
    if (options_.comparison != nullptr) {
      std::vector<int> kept;
      for (int entry : which)
        if (findings.refused.count(entry) == 0) kept.push_back(entry);
      options_.comparison->Settle(entries_, kept, findings.compared);
    }
    if (options_.preview != nullptr)
      options_.preview->insert(options_.preview->end(), findings.preview.begin(), findings.preview.end());
    for (size_t mapping = 0; mapping < store_->mapping_count(); ++mapping) {
      PreparedMapping &prepared = store_->prepared(mapping);
      auto const rows = findings.rows.find(prepared.mapping.name);
      if (rows != findings.rows.end() && rows->second.HasStored()) prepared.state.stored = true;
    }
    std::array<std::vector<const source::Entry *>, kMarks> marked;
    for (int entry : which) {
      if (findings.refused.count(entry)) continue;
      if (findings.partial_entries.count(entry))
        Count(entry, Outcome::kRejected, "partial");
      else
        marked[static_cast<size_t>(findings.marks[entry])].push_back(entries_[entry]);
    }
    Outcome const stored = group_.archive_ ? Outcome::kArchived : Outcome::kMigrated;
    auto count = [&](Mark mark, Outcome outcome, const char *reason) {
      tally_.Count(marked[static_cast<size_t>(mark)], TallyPattern(), outcome, reason);
    };
    count(Mark::kInserted, stored, "inserted");
    count(Mark::kUpdated, stored, "updated");
    count(Mark::kUnchanged, stored, "unchanged");
    count(Mark::kFolded, Outcome::kSkipped, "folded");
    count(Mark::kFiltered, Outcome::kSkipped, "filtered");
    count(Mark::kNone, Outcome::kSkipped, "filtered");
  }

  void Count(int entry, Outcome outcome, const std::string &reason) {
    tally_.Count(entries_[entry], TallyPattern(), outcome, reason);
  }

  Tally::Pattern TallyPattern() const {
    return group_.archive_ ? Tally::Pattern() : Tally::Pattern(group_.pattern_.text());
  }

  void RejectEntry(int entry, const Refusal &refusal) {
    Count(entry, Outcome::kRejected, refusal.rule);
    tally_.rejects.push_back({entries_[entry], TallyPattern(), refusal.mapping, refusal.rule,
                              refusal.sqlstate, refusal.message, false});
  }

  // Whether other keys are at fault, which may be others soon.
  bool MayPass(int sqlstate) const {
    return pg::IsForeignKeyViolation(sqlstate) ||
           (options_.defer_conflicts &&
            (sqlstate == ERRCODE_UNIQUE_VIOLATION || sqlstate == ERRCODE_EXCLUSION_VIOLATION));
  }

  // One entry that cannot be stored.
  void Single(int entry, const Trial &trial) {
    if (trial.result == Trial::kFailed && options_.defer && MayPass(trial.error->sqlstate())) {
      tally_.deferred.push_back(entries_[entry]);
      return;
    }
    Refusal const refusal = Explain(entry, trial);
    if (store_->prepared(trial.mapping).mapping.atomic == "element")
      ByElement(entry, trial.mapping, refusal);
    else
      RejectEntry(entry, refusal);
  }

  // Names what refused the row: a constraint, a column, or the SQLSTATE where PostgreSQL says no more.
  Refusal Explain(int entry, const Trial &trial) {
    PreparedMapping &mapping = store_->prepared(trial.mapping);
    if (trial.result == Trial::kNotStored) return NotStored(mapping);
    const PgError &error = *trial.error;
    const ErrorData *data = error.data();
    Refusal refusal{mapping.mapping.name, pg::SqlStateText(error.sqlstate()),
                    pg::SqlStateText(error.sqlstate()), error.what()};
    if (data->constraint_name != nullptr)
      refusal.rule = data->constraint_name;
    else if (data->column_name != nullptr)
      refusal.rule = data->column_name;
    else if (trial.in_query)
      refusal.rule = FailingColumn(entry, mapping).value_or(refusal.rule);
    return refusal;
  }

  // The column whose expression fails for an entry, if one does by itself.
  std::optional<std::string> FailingColumn(int entry, PreparedMapping &mapping) {
    std::string column;
    pg::Context context("redis_migrate try");
    pg::SwitchContext in_context(context.get());
    try {
      pg::InRolledBackSubtransaction([&] {
        MappingSettings settings(mapping.mapping);
        pg::Tuplestore batch;
        store_->FillElements(entry, mapping, batch);
        column = mapping.query.FindFailingColumn(batch.get());
      });
    } catch (const PgError &error) {
      if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    }
    return column.empty() ? std::nullopt : std::optional<std::string>(column);
  }

  // Stores a key without its bad elements.
  void ByElement(int entry, size_t failing, const Refusal &first) {
    if (store_->Excludes(failing)) return RejectEntry(entry, first);
    store_->StopExpectingNewRows();
    pg::Tuplestore batch;
    {
      MappingSettings settings(store_->prepared(failing).mapping);
      store_->FillElements(entry, store_->prepared(failing), batch);
    }
    std::map<int, Refusal> bad = FindBadElements(entry, failing, batch);
    if (static_cast<int64>(bad.size()) == batch.size()) return RejectEntry(entry, first);
    store_->Exclude(failing, std::move(bad));
    Divide({entry});
    store_->Include(failing);
  }

  // Tries ranges of elements. What holds is kept while others are tried, since elements may exclude one
  // another; then all is rolled back, and again whenever many subtransactions have been kept.
  std::map<int, Refusal> FindBadElements(int entry, size_t failing, pg::Tuplestore &batch) {
    std::map<int, Refusal> bad;
    auto const count = static_cast<size_t>(batch.size());
    size_t known = 0;  // the elements before it have been tried
    while (known < count) {
      pg::InRolledBackSubtransaction([&] {
        int kept = 0;
        if (known > 0) {
          TryElements(entry, failing, batch, 0, known, bad);
          ++kept;
        }
        Halves left(count, known);
        while (!left.done() && kept < kMostSubtransactions / 2) {
          std::optional<Refusal> refusal = TryElements(entry, failing, batch, left.begin(), left.end(), bad);
          if (refusal && left.Split()) continue;
          if (refusal)
            bad.emplace(static_cast<int>(left.begin()), *refusal);
          else
            ++kept;
          left.Next();
          known = left.begin();
        }
      });
    }
    return bad;
  }

  // Why the elements from `begin` to before `end`, without the bad ones, cannot be stored; nothing: they can.
  std::optional<Refusal> TryElements(int entry, size_t failing, pg::Tuplestore &batch, size_t begin,
                                     size_t end, const std::map<int, Refusal> &bad) {
    pg::Tuplestore range;
    size_t number = 0;
    GroupStore::ForEachTuple(store_->prepared(failing).query.batch_desc(), batch, [&](TupleTableSlot *slot) {
      if (number >= begin && number < end && bad.count(static_cast<int>(number)) == 0) range.Put(slot);
      ++number;
    });
    Trial trial = store_->TryElements(entry, failing, range);
    switch (trial.result) {
      case Trial::kRefused:
        return trial.refused.begin()->second;
      case Trial::kNotStored:
      case Trial::kFailed:
        RequireFaultOfKeys({entry}, trial);
        return Explain(entry, trial);
      case Trial::kDeferred:  // good, but not now: the whole key waits
      case Trial::kStored:
        break;
    }
    return std::nullopt;
  }

  static Refusal NotStored(const PreparedMapping &mapping) {
    return {mapping.mapping.name, "not_stored", std::nullopt,
            "target " + mapping.target.name + " did not store the row: a trigger or rule suppressed it"};
  }

  PatternGroup &group_;
  const std::vector<const source::Entry *> &entries_;
  const BatchOptions &options_;
  Tally &tally_;
  pg::Context context_;
  std::optional<GroupStore> store_;
  std::vector<const source::Entry *> left_;
  std::set<std::pair<size_t, int>> of_keys_;  // SQLSTATEs of mappings that have rejected single keys
};

PatternGroup::PatternGroup(KeyPattern pattern, const std::vector<const Mapping *> &mappings, bool archive)
    : pattern_(std::move(pattern)), archive_(archive) {
  for (const Mapping *mapping : mappings)
    states_.push_back(std::make_unique<MappingState>(mapping, pattern_));
}

bool PatternGroup::TakesElements(rdb::ValueType type) const {
  return !states_.empty() &&
         std::all_of(states_.begin(), states_.end(), [&](const std::unique_ptr<MappingState> &state) {
           MappingSettings settings(*state->mapping);
           return state->Prepare().TakesElements(type);
         });
}

void PatternGroup::Forget() {
  for (auto &state : states_) state->Forget();
}

std::vector<const source::Entry *> PatternGroup::Delete(std::vector<const source::Entry *> &entries,
                                                        const BatchOptions &options, Tally &tally) {
  if (entries.empty()) return {};
  source::SortByKey(entries);
  return Work(*this, entries, options, tally).RunDelete();
}

std::vector<const source::Entry *> PatternGroup::Process(std::vector<const source::Entry *> &entries,
                                                         const BatchOptions &options, Tally &tally) {
  if (entries.empty()) return {};
  if (options.subtransactions != nullptr && *options.subtransactions <= 0) {
    return entries;
  }
  source::SortByKey(entries);
  std::optional<pg::AsExtensionOwner> as_owner;
  if (archive_) as_owner.emplace();
  return Work(*this, entries, options, tally).Run();
}

}  // namespace prm
