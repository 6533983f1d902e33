#include "store/pattern_group.h"

#include "mapping/mapping_settings.h"
#include "pg/identity.h"
#include "pg/transaction.h"
#include "store/group_store.h"

namespace prm {

using pg::IsDataError;
using pg::PgError;

class PatternGroup::Work {
 public:
  Work(PatternGroup &group, const std::vector<BatchEntry> &entries, const Options &options, Tally &tally)
      : group_(group), entries_(entries), options_(options), tally_(tally), context_("redis_migrate batch") {
    pg::SwitchContext in_context(context_.get());
    store_.emplace(TallyPattern(), group.states_, entries_, options_);
  }

  void Run() {
    pg::SwitchContext in_context(context_.get());
    std::vector<int> all(entries_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    Divide(all);
  }

 private:
  using Findings = GroupStore::Findings;
  using Prepared = GroupStore::Prepared;

  // Stores `which`, or finds the entries among them that cannot be.
  void Divide(std::vector<int> which) {
    int conflicts = 0;
    while (!which.empty()) {
      Findings findings;
      try {
        pg::InSubtransaction([&] { store_->Attempt(which, findings); });
        Settle(which, findings);
        return;
      } catch (const UncheckedJsonFailed &) {
        Current().state.checked_json = true;
        continue;
      } catch (const EntriesRefused &found) {
        for (const auto &[entry, refusal] : found.refusals) RejectEntry(entry, refusal);
        which.erase(
            std::remove_if(which.begin(), which.end(), [&](int e) { return found.refusals.count(e) > 0; }),
            which.end());
        continue;
      } catch (const EntriesDeferred &found) {
        for (int entry : found.entries) tally_.deferred.push_back(entries_[entry].entry);
        which.erase(
            std::remove_if(which.begin(), which.end(), [&](int e) { return found.entries.count(e) > 0; }),
            which.end());
        continue;
      } catch (const RowsNotStored &) {
        if (StopBlindInserts() || conflicts++ < kConflictRetries) continue;
        if (which.size() == 1) return RejectOrDivide(which[0], NotStored(Current()));
      } catch (const PgError &error) {
        bool conflict = error.sqlstate() == ERRCODE_UNIQUE_VIOLATION;
        if (conflict && (StopBlindInserts() || conflicts++ < kConflictRetries)) continue;
        if (!IsDataError(error.sqlstate())) throw;
        if (which.size() == 1) return Single(which[0], error);
      }
      size_t half = which.size() / 2;
      Divide(std::vector<int>(which.begin(), which.begin() + static_cast<long>(half)));
      which.erase(which.begin(), which.begin() + static_cast<long>(half));
      conflicts = 0;
    }
  }

  // Another session may have inserted the same row between our look-up and our insert.
  static constexpr int kConflictRetries = 2;

  // False if that was no reason.
  bool StopBlindInserts() {
    if (store_->was_blind()) store_->StopExpectingNewRows();
    return store_->was_blind();
  }

  Prepared &Current() { return store_->prepared(store_->current()); }

  // Counts what a try that holds has found.
  void Settle(const std::vector<int> &which, Findings &findings) {
    for (const auto &[entry, refusal] : findings.refused) RejectEntry(entry, refusal);
    std::set<const source::Entry *> refused;
    for (const auto &[entry, refusal] : findings.refused) refused.insert(entries_[entry].entry);
    for (Reject &reject : findings.partial)
      if (refused.count(reject.entry) == 0) tally_.rejects.push_back(std::move(reject));
    for (const auto &[mapping, counts] : findings.rows) tally_.rows[mapping].Add(counts);
    if (options_.preview != nullptr)
      options_.preview->insert(options_.preview->end(), findings.preview.begin(), findings.preview.end());
    for (int entry : which) {
      if (findings.refused.count(entry)) continue;
      if (findings.partial_entries.count(entry)) {
        Count(entry, Outcome::kRejected, "partial");
        continue;
      }
      Outcome stored = group_.archive_ ? Outcome::kArchived : Outcome::kMigrated;
      switch (findings.marks[entry]) {
        case Mark::kInserted:
          Count(entry, stored, "inserted");
          break;
        case Mark::kUpdated:
          Count(entry, stored, "updated");
          break;
        case Mark::kUnchanged:
          Count(entry, stored, "unchanged");
          break;
        case Mark::kFolded:
          Count(entry, Outcome::kSkipped, "folded");
          break;
        case Mark::kFiltered:
        case Mark::kNone:
          Count(entry, Outcome::kSkipped, "filtered");
          break;
      }
    }
  }

  void Count(int entry, Outcome outcome, const std::string &reason) {
    tally_.Count(entries_[entry].entry, TallyPattern(), outcome, reason);
  }

  Tally::Pattern TallyPattern() const {
    return group_.archive_ ? Tally::Pattern() : Tally::Pattern(group_.pattern_.text());
  }

  void RejectEntry(int entry, const Refusal &refusal) {
    Count(entry, Outcome::kRejected, refusal.rule);
    tally_.rejects.push_back({entries_[entry].entry, TallyPattern(), refusal.mapping, refusal.rule,
                              refusal.sqlstate, refusal.message, false});
  }

  // One entry that cannot be stored because of `error`.
  void Single(int entry, const PgError &error) {
    if (options_.defer && error.sqlstate() == ERRCODE_FOREIGN_KEY_VIOLATION) {
      tally_.deferred.push_back(entries_[entry].entry);
      return;
    }
    RejectOrDivide(entry, Explain(entry, Current(), error));
  }

  void RejectOrDivide(int entry, const Refusal &refusal) {
    if (Current().mapping.atomic == "element")
      ByElement(entry, refusal);
    else
      RejectEntry(entry, refusal);
  }

  // Names what refused the row: a constraint, a column, or the SQLSTATE where PostgreSQL says no more.
  Refusal Explain(int entry, Prepared &mapping, const PgError &error) {
    const ErrorData *data = error.data();
    Refusal refusal{mapping.mapping.name, pg::SqlStateText(error.sqlstate()),
                    pg::SqlStateText(error.sqlstate()), error.what()};
    if (data->constraint_name != nullptr)
      refusal.rule = data->constraint_name;
    else if (data->column_name != nullptr)
      refusal.rule = data->column_name;
    else if (store_->in_query())
      refusal.rule = FailingColumn(entry, mapping).value_or(refusal.rule);
    return refusal;
  }

  // The column whose expression fails for an entry, if one does by itself.
  std::optional<std::string> FailingColumn(int entry, Prepared &mapping) {
    std::string column;
    try {
      pg::InSubtransaction([&] {
        MappingSettings settings(mapping.mapping);
        pg::Tuplestore batch;
        store_->FillElements(entry, mapping, batch);
        column = mapping.query.FindFailingColumn(batch.get());
      });
    } catch (const PgError &error) {
      if (!IsDataError(error.sqlstate())) throw;
    }
    return column.empty() ? std::nullopt : std::optional<std::string>(column);
  }

  // Finds the bad elements of a key by trying one after another, and stores the key without them.
  void ByElement(int entry, const Refusal &first) {
    size_t const failing = store_->current();
    if (store_->Excludes(failing)) return RejectEntry(entry, first);
    store_->StopExpectingNewRows();
    Prepared &mapping = store_->prepared(failing);
    std::map<int, Refusal> bad;
    int count = 0;
    {
      MappingSettings settings(mapping.mapping);
      pg::Tuplestore batch;
      store_->FillElements(entry, mapping, batch);
      pg::InRolledBackSubtransaction([&] {
        GroupStore::ForEachTuple(mapping.query.batch_desc(), batch, [&](TupleTableSlot *slot) {
          if (std::optional<Refusal> refusal = TryElement(entry, failing, slot)) bad.emplace(count, *refusal);
          ++count;
        });
      });
    }
    if (static_cast<int>(bad.size()) == count) return RejectEntry(entry, first);
    store_->Exclude(failing, std::move(bad));
    Divide({entry});
    store_->Include(failing);
  }

  std::optional<Refusal> TryElement(int entry, size_t failing, TupleTableSlot *slot) {
    Prepared &mapping = store_->prepared(failing);
    try {
      pg::InSubtransaction([&] { store_->AttemptElement(entry, failing, slot); });
    } catch (const PgError &error) {
      if (!IsDataError(error.sqlstate())) throw;
      return Explain(entry, mapping, error);
    } catch (const RowsNotStored &) {
      return NotStored(mapping);
    } catch (const EntriesDeferred &) {
      // Good, but not now: the whole key waits.
    } catch (const EntriesRefused &found) {
      return found.refusals.begin()->second;
    }
    return std::nullopt;
  }

  static Refusal NotStored(const Prepared &mapping) {
    return {mapping.mapping.name, "not_stored", std::nullopt,
            "target " + mapping.target.name + " did not store the row: a trigger or rule suppressed it"};
  }

  PatternGroup &group_;
  const std::vector<BatchEntry> &entries_;
  const Options &options_;
  Tally &tally_;
  pg::Context context_;
  std::optional<GroupStore> store_;
};

PatternGroup::PatternGroup(KeyPattern pattern, std::vector<const Mapping *> mappings, bool archive)
    : pattern_(std::move(pattern)), archive_(archive), mappings_(std::move(mappings)) {
  for (const Mapping *mapping : mappings_) states_.push_back(std::make_unique<State>(mapping, pattern_));
}

PatternGroup::~PatternGroup() = default;
PatternGroup::PatternGroup(PatternGroup &&) noexcept = default;

const std::vector<const Mapping *> &PatternGroup::mappings() const { return mappings_; }

void PatternGroup::Process(std::vector<BatchEntry> &entries, const Options &options, Tally &tally) {
  if (entries.empty()) return;
  std::sort(entries.begin(), entries.end(), [](const BatchEntry &a, const BatchEntry &b) {
    return KeyName{a.entry->db, a.entry->key} < KeyName{b.entry->db, b.entry->key};
  });
  std::optional<pg::AsExtensionOwner> as_owner;
  if (archive_) as_owner.emplace();
  Work(*this, entries, options, tally).Run();
}

}  // namespace prm
