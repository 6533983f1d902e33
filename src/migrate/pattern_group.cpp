#include "migrate/pattern_group.h"

#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm::migrate {

using pg::Failure;
using pg::IsDataError;
using pg::PgError;
using pg::Spi;

namespace {

// A longer key may not fit into the index of the table that keeps deferred keys.
constexpr size_t kLongestDeferredKey = 2000;

struct Refusal {
  std::string mapping;
  std::string rule;
  std::optional<std::string> sqlstate;
  std::string message;
};

// Thrown when a try finds out, after it has begun to write, that entries must wait.
struct EntriesDeferred {
  std::set<int> entries;
};

// The same, that entries must be refused.
struct EntriesRefused {
  std::map<int, Refusal> refusals;
};

// What a mapping did with an entry, the weightiest last.
enum class Mark : char { kNone, kFiltered, kFolded, kUnchanged, kUpdated, kInserted };

}  // namespace

struct PatternGroup::State {
  const Mapping *mapping;
  BatchShape shape;
  bool expects_new_rows = false;
  bool target_seen = false;
  bool checked_json = false;

  State(const Mapping *m, const KeyPattern &pattern)
      : mapping(m), shape(pattern, ExpandFromName(m->expand)) {}
};

// Settings that decide what a mapping's query returns, as they were when it was defined.
class MappingSettings {
 public:
  explicit MappingSettings(const Mapping &mapping) {
    settings_.Set("search_path", mapping.search_path);
    settings_.Set("timezone", mapping.timezone);
    settings_.Set("datestyle", mapping.datestyle);
    settings_.Set("intervalstyle", mapping.intervalstyle);
  }

 private:
  pg::LocalSettings settings_;
};

struct PatternGroup::Prepared {
  State &state;
  const Mapping &mapping;
  Target target;
  MappingQuery query;
  Writer writer;
  std::optional<Ledger> ledger;

  explicit Prepared(State &s)
      : state(s),
        mapping(*s.mapping),
        target(LoadTarget(mapping.target, mapping.name)),
        query(mapping, s.shape, target),
        writer(mapping, target, query.facts().columns) {
    CheckKeyColumns(target, mapping.key_columns);
    if (mapping.ledger) ledger.emplace(mapping, target);
    if (!s.target_seen) {
      s.target_seen = true;
      s.expects_new_rows = target.kind == TargetKind::kLocal &&
                           !Spi::Execute("SELECT EXISTS (SELECT FROM " + target.name + ")")[0].Bool(0);
    }
    writer.set_expects_new_rows(s.expects_new_rows);
  }
};

class PatternGroup::Work {
 public:
  Work(PatternGroup &group, const std::vector<BatchEntry> &entries, const Options &options, Tally &tally)
      : group_(group), entries_(entries), options_(options), tally_(tally), context_("redis_migrate batch") {
    pg::SwitchContext in_context(context_.get());
    for (auto &state : group.states_) {
      MappingSettings settings(*state->mapping);
      prepared_.push_back(std::make_unique<Prepared>(*state));
    }
  }

  void Run() {
    pg::SwitchContext in_context(context_.get());
    std::vector<int> all(entries_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    Divide(all);
  }

 private:
  // What a try found, counted only if it holds.
  struct Try {
    std::map<int, Refusal> refused;
    std::vector<Reject> partial;
    std::set<int> partial_entries;
    std::vector<Mark> marks;
    std::map<std::string, RowCounts> rows;
    std::vector<PreviewRow> preview;
  };

  // Stores `which`, or finds the entries among them that cannot be.
  void Divide(std::vector<int> which) {
    int conflicts = 0;
    while (!which.empty()) {
      Try attempt;
      bool blind = false;
      try {
        pg::InSubtransaction([&] { Attempt(which, attempt, blind); });
        Settle(which, attempt);
        return;
      } catch (const UncheckedJsonFailed &) {
        prepared_[current_]->state.checked_json = true;
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
        if (StopExpectingNewRows(blind) || conflicts++ < kConflictRetries) continue;
        if (which.size() == 1) return RejectOrDivide(which[0], NotStored(*prepared_[current_]));
      } catch (const PgError &error) {
        bool conflict = error.sqlstate() == ERRCODE_UNIQUE_VIOLATION;
        if (conflict && (StopExpectingNewRows(blind) || conflicts++ < kConflictRetries)) continue;
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

  bool StopExpectingNewRows(bool blind) {
    if (!blind) return false;
    for (auto &prepared : prepared_) {
      prepared->state.expects_new_rows = false;
      prepared->writer.set_expects_new_rows(false);
    }
    return true;
  }

  struct Stage {
    std::unique_ptr<QueryRows> rows;
    std::set<int> dropped;  // rows that a check refused, where the good elements are kept
  };

  void Attempt(const std::vector<int> &which, Try &attempt, bool &blind) {
    attempt = Try();
    attempt.marks.assign(entries_.size(), Mark::kNone);
    std::vector<Stage> stages(prepared_.size());
    // Held throughout: rows of the query may point at out-of-line values of the tables that it joins.
    pg::SnapshotScope held;
    for (current_ = 0; current_ < prepared_.size(); ++current_) {
      Prepared &mapping = *prepared_[current_];
      MappingSettings settings(mapping.mapping);
      pg::Tuplestore batch;
      in_query_ = true;
      for (EntryProblem &problem :
           FillBatch(mapping.state.shape, mapping.query.facts().needed, entries_, which,
                     mapping.mapping.types, mapping.state.checked_json, mapping.query.batch_desc(), batch))
        attempt.refused.emplace(problem.entry,
                                Refusal{mapping.mapping.name, problem.rule, std::nullopt, problem.message});
      Exclude(which, mapping, batch, attempt);
      Stage &stage = stages[current_];
      stage.rows = std::make_unique<QueryRows>();
      {
        pg::SnapshotScope snapshot;
        mapping.query.Run(batch.get(), *stage.rows);
      }
      in_query_ = false;
      FindMissing(which, mapping, *stage.rows, attempt);
      RunChecks(mapping, stage, attempt);
    }
    for (current_ = 0; current_ < prepared_.size(); ++current_) {
      blind = blind || prepared_[current_]->writer.expects_new_rows();
      MappingSettings settings(prepared_[current_]->mapping);
      Store(*prepared_[current_], stages[current_], which, attempt);
    }
    current_ = 0;
  }

  void FindMissing(const std::vector<int> &which, Prepared &mapping, const QueryRows &rows, Try &attempt) {
    std::vector<bool> yielded(entries_.size(), false);
    for (int entry : rows.entry_of_row) yielded[entry] = true;
    for (int entry : which) {
      if (yielded[entry] || attempt.refused.count(entry)) continue;
      if (mapping.mapping.no_row == "skip")
        attempt.marks[entry] = std::max(attempt.marks[entry], Mark::kFiltered);
      else
        attempt.refused.emplace(entry, Refusal{mapping.mapping.name, "no_row", std::nullopt,
                                               "the query returned no row for the key"});
    }
  }

  void RunChecks(Prepared &mapping, Stage &stage, Try &attempt) {
    const std::vector<Check> &checks = mapping.mapping.checks;
    if (checks.empty() || stage.rows->entry_of_row.empty()) return;
    pg::NamedRows named(kRowsName, mapping.query.row_desc(), stage.rows->rows.get());
    std::string sql = "SELECT redis_row";
    std::string any_failed;
    for (const Check &check : checks) {
      std::string failed = "((" + check.condition + "\n) IS NOT TRUE)";
      sql += ", " + failed;
      any_failed += (any_failed.empty() ? "" : " OR ") + failed;
    }
    pg::Rows failed = Spi::Execute(sql + " FROM redis_rows WHERE " + any_failed);
    for (uint64 i = 0; i < failed.size(); ++i) {
      int row = failed[i].Int4(0);
      int entry = stage.rows->entry_of_row[row];
      size_t check = 0;
      while (!failed[i].Bool(static_cast<int>(check) + 1)) ++check;
      std::string message = "check \"" + checks[check].name + "\" failed: " + checks[check].condition;
      if (mapping.mapping.atomic == "element") {
        stage.dropped.insert(row);
        attempt.partial.push_back({entries_[entry].entry, group_.pattern_.text(), mapping.mapping.name,
                                   checks[check].name, std::nullopt, message, true});
        attempt.partial_entries.insert(entry);
      } else {
        attempt.refused.emplace(entry,
                                Refusal{mapping.mapping.name, checks[check].name, std::nullopt, message});
      }
    }
  }

  // Copies the rows that are still to be stored; the usual case needs no copy.
  std::vector<int> Remaining(Prepared &mapping, Stage &stage, const Try &attempt) {
    std::vector<int> numbers;
    const std::vector<int> &entry_of_row = stage.rows->entry_of_row;
    for (size_t row = 0; row < entry_of_row.size(); ++row)
      if (!attempt.refused.count(entry_of_row[row]) && !stage.dropped.count(static_cast<int>(row)))
        numbers.push_back(static_cast<int>(row));
    if (numbers.size() == entry_of_row.size()) return numbers;
    auto kept = std::make_unique<QueryRows>();
    CopyRows(mapping.query.row_desc(), stage.rows->rows, kept->rows,
             std::set<int>(numbers.begin(), numbers.end()));
    kept->entry_of_row = entry_of_row;
    stage.rows = std::move(kept);
    return numbers;
  }

  static void CopyRows(TupleDesc desc, pg::Tuplestore &from, pg::Tuplestore &to,
                       const std::set<int> &numbers) {
    ForEachTuple(desc, from, [&](TupleTableSlot *slot) {
      int number = pg::Call([&] {
        bool null;
        return DatumGetInt32(slot_getattr(slot, 1, &null));
      });
      if (numbers.count(number)) to.Put(slot);
    });
  }

  void Store(Prepared &mapping, Stage &stage, const std::vector<int> &which, Try &attempt) {
    std::vector<int> numbers = Remaining(mapping, stage, attempt);
    const std::vector<int> &entry_of_row = stage.rows->entry_of_row;
    auto key_of_row = [&](int row) {
      const source::Entry &entry = *entries_[entry_of_row[row]].entry;
      return KeyName{entry.db, entry.key};
    };
    TupleDesc desc = mapping.query.row_desc();
    if (options_.preview != nullptr) CollectPreview(mapping, stage, attempt);
    std::vector<int> lost;
    std::vector<IdentifiedRow> identified;
    if (mapping.ledger || options_.seen_run) {
      pg::NamedRows named(kRowsName, desc, stage.rows->rows.get());
      identified = Ledger(mapping.mapping, mapping.target).Identify();
    }
    std::vector<std::string> obsolete;
    if (mapping.ledger) {
      // First what the keys of the batch have left, so that others can have it.
      if (mapping.mapping.on_delete != "keep")
        obsolete = TakeObsolete(mapping, which, attempt, identified, key_of_row);
      lost = mapping.ledger->FindLost(identified, key_of_row);
      DeferLosers(lost, entry_of_row);
    }
    if (!mapping.writer.expects_new_rows() && !numbers.empty()) FindFolded(mapping, stage, lost);

    auto outcomes = mapping.writer.Write(stage.rows->rows, desc, numbers, lost);
    mapping.state.expects_new_rows = mapping.writer.expects_new_rows();
    RowCounts &counts = attempt.rows[mapping.mapping.name];
    std::map<int, Refusal> without_target;
    std::set<int> inserted;
    for (auto [row, outcome] : outcomes) {
      int entry = entry_of_row[row];
      Mark mark = Mark::kNone;
      switch (outcome) {
        case RowOutcome::kInserted:
          ++counts.inserted;
          inserted.insert(row);
          mark = Mark::kInserted;
          break;
        case RowOutcome::kUpdated:
          ++counts.updated;
          mark = Mark::kUpdated;
          break;
        case RowOutcome::kUnchanged:
          ++counts.unchanged;
          mark = Mark::kUnchanged;
          break;
        case RowOutcome::kFolded:
          ++counts.folded;
          mark = Mark::kFolded;
          break;
        case RowOutcome::kNoTargetRow:
          if (mapping.mapping.no_row == "skip")
            mark = Mark::kFiltered;
          else
            without_target.emplace(
                entry, Refusal{mapping.mapping.name, "no_target_row", std::nullopt,
                               mapping.target.name + " has no row for the key, and mode is 'update'"});
          break;
      }
      attempt.marks[entry] = std::max(attempt.marks[entry], mark);
    }
    if (!without_target.empty()) throw EntriesRefused{std::move(without_target)};
    if (mapping.ledger) KeepLedger(mapping, identified, lost, inserted, obsolete, key_of_row, counts);
    if (options_.seen_run) NoteSeen(mapping.mapping, identified, lost);
  }

  // Rows of this batch with the same identity: the lowest key wins; entries are numbered in that order.
  void FindFolded(Prepared &mapping, Stage &stage, std::vector<int> &lost) {
    if (!mapping.mapping.ledger && mapping.state.shape.expand() == Expand::kNone)
      return;  // keys tell rows apart
    std::string keys;
    for (const std::string &key : mapping.mapping.key_columns)
      keys += (keys.empty() ? "" : ", ") + pg::QuoteIdentifier(key);
    pg::NamedRows named(kRowsName, mapping.query.row_desc(), stage.rows->rows.get());
    pg::Rows folded =
        Spi::Execute("SELECT redis_row FROM (SELECT redis_row, row_number() OVER (PARTITION BY " + keys +
                     " ORDER BY redis_entry, redis_row) AS n FROM redis_rows) AS ranked WHERE n > 1");
    for (uint64 i = 0; i < folded.size(); ++i) lost.push_back(folded[i].Int4(0));
  }

  std::vector<std::string> TakeObsolete(Prepared &mapping, const std::vector<int> &which, const Try &attempt,
                                        const std::vector<IdentifiedRow> &identified,
                                        const std::function<KeyName(int)> &key_of_row) {
    std::vector<KeyName> keys;
    for (int entry : which)
      if (!attempt.refused.count(entry) && !attempt.partial_entries.count(entry))
        keys.push_back({entries_[entry].entry->db, entries_[entry].entry->key});
    return mapping.ledger->TakeObsolete(keys, identified, key_of_row);
  }

  // A lower key that has the row may leave it later in this level: who is right is decided at its end.
  void DeferLosers(const std::vector<int> &lost, const std::vector<int> &entry_of_row) {
    if (!options_.defer) return;
    std::set<int> losers;
    for (int row : lost)
      if (entries_[entry_of_row[row]].entry->key.size() <= kLongestDeferredKey)
        losers.insert(entry_of_row[row]);
    if (!losers.empty()) throw EntriesDeferred{std::move(losers)};
  }

  void KeepLedger(Prepared &mapping, const std::vector<IdentifiedRow> &identified,
                  const std::vector<int> &lost, const std::set<int> &inserted,
                  const std::vector<std::string> &obsolete, const std::function<KeyName(int)> &key_of_row,
                  RowCounts &counts) {
    std::set<int> lost_rows(lost.begin(), lost.end());
    // A row that was there before and whose values stay is nobody's to delete.
    bool takes_over = mapping.mapping.on_conflict != "nothing" && mapping.mapping.on_conflict != "fill";
    std::vector<IdentifiedRow> owned;
    for (const IdentifiedRow &row : identified)
      if (!lost_rows.count(row.row) &&
          (takes_over || inserted.count(row.row) > 0 || mapping.ledger->IsRecorded(row.row)))
        owned.push_back(row);
    std::vector<std::string> kept;
    for (const IdentifiedRow &row : identified) kept.push_back(row.row_key);
    counts.deleted += mapping.ledger->DeleteRows(obsolete, kept);
    mapping.ledger->Record(owned, key_of_row);
  }

  void NoteSeen(const Mapping &mapping, const std::vector<IdentifiedRow> &identified,
                const std::vector<int> &lost) {
    std::set<int> lost_rows(lost.begin(), lost.end());
    std::vector<std::string> row_keys;
    std::vector<int> is_lost;
    for (const IdentifiedRow &row : identified) {
      row_keys.push_back(row.row_key);
      is_lost.push_back(lost_rows.count(row.row) > 0 ? 1 : 0);
    }
    pg::AsExtensionOwner as_owner;
    Spi::Execute(
        "INSERT INTO redis_migrate.seen_row (run_id, mapping_id, row_key, lost) "
        "SELECT $1, $2, s.row_key, s.lost = 1 FROM unnest($3, $4) AS s (row_key, lost)",
        {pg::SqlParam::Int8(*options_.seen_run), pg::SqlParam::Int8(mapping.id),
         pg::SqlParam::TextArray(row_keys), pg::SqlParam::Int4Array(is_lost)});
  }

  void CollectPreview(Prepared &mapping, Stage &stage, Try &attempt) {
    pg::NamedRows named(kRowsName, mapping.query.row_desc(), stage.rows->rows.get());
    pg::Rows rows = Spi::Execute(
        "SELECT redis_entry, (pg_catalog.to_jsonb(redis_rows) - 'redis_row' - 'redis_entry')::text FROM "
        "redis_rows ORDER BY redis_row");
    for (uint64 i = 0; i < rows.size(); ++i)
      attempt.preview.push_back({entries_[rows[i].Int4(0)].entry, mapping.mapping.name, rows[i].Text(1)});
  }

  // Counts what a try that holds has found.
  void Settle(const std::vector<int> &which, Try &attempt) {
    for (const auto &[entry, refusal] : attempt.refused) RejectEntry(entry, refusal);
    for (Reject &reject : attempt.partial) tally_.rejects.push_back(std::move(reject));
    for (const auto &[mapping, counts] : attempt.rows) tally_.rows[mapping].Add(counts);
    if (options_.preview != nullptr)
      options_.preview->insert(options_.preview->end(), attempt.preview.begin(), attempt.preview.end());
    for (int entry : which) {
      if (attempt.refused.count(entry)) continue;
      if (attempt.partial_entries.count(entry)) {
        Count(entry, Outcome::kRejected, "partial");
        continue;
      }
      Outcome stored = group_.archive_ ? Outcome::kArchived : Outcome::kMigrated;
      switch (attempt.marks[entry]) {
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
    if (options_.defer && error.sqlstate() == ERRCODE_FOREIGN_KEY_VIOLATION &&
        entries_[entry].entry->key.size() <= kLongestDeferredKey) {
      tally_.deferred.push_back(entries_[entry].entry);
      return;
    }
    Prepared &mapping = *prepared_[current_];
    RejectOrDivide(entry, Explain(entry, mapping, error));
  }

  void RejectOrDivide(int entry, const Refusal &refusal) {
    if (prepared_[current_]->mapping.atomic == "element")
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
    else if (in_query_)
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
        FillBatch(mapping.state.shape, mapping.query.facts().needed, entries_, {entry}, mapping.mapping.types,
                  mapping.state.checked_json, mapping.query.batch_desc(), batch);
        column = mapping.query.FindFailingColumn(batch.get());
      });
    } catch (const PgError &error) {
      if (!IsDataError(error.sqlstate())) throw;
    }
    return column.empty() ? std::nullopt : std::optional<std::string>(column);
  }

  // Finds the bad elements of a key by trying one after another, and stores the key without them.
  void ByElement(int entry, const Refusal &first) {
    size_t const failing = current_;
    if (excluded_.count(failing) > 0) return RejectEntry(entry, first);
    StopExpectingNewRows(true);
    Prepared &mapping = *prepared_[failing];
    std::map<int, Refusal> bad;
    int count = 0;
    {
      MappingSettings settings(mapping.mapping);
      pg::Tuplestore batch;
      FillBatch(mapping.state.shape, mapping.query.facts().needed, entries_, {entry}, mapping.mapping.types,
                mapping.state.checked_json, mapping.query.batch_desc(), batch);
      pg::InRolledBackSubtransaction([&] {
        ForEachTuple(mapping.query.batch_desc(), batch, [&](TupleTableSlot *slot) {
          if (std::optional<Refusal> refusal = TryElement(entry, mapping, slot)) bad.emplace(count, *refusal);
          ++count;
        });
      });
    }
    if (static_cast<int>(bad.size()) == count) return RejectEntry(entry, first);
    excluded_[failing] = std::move(bad);
    Divide({entry});
    excluded_.erase(failing);
  }

  std::optional<Refusal> TryElement(int entry, Prepared &mapping, TupleTableSlot *slot) {
    pg::Tuplestore element;
    element.Put(slot);
    try {
      pg::InSubtransaction([&] {
        Try attempt;
        attempt.marks.assign(entries_.size(), Mark::kNone);
        attempt.partial_entries.insert(entry);  // its other elements are not obsolete
        Stage stage;
        stage.rows = std::make_unique<QueryRows>();
        in_query_ = true;
        {
          pg::SnapshotScope snapshot;
          mapping.query.Run(element.get(), *stage.rows);
        }
        in_query_ = false;
        RunChecks(mapping, stage, attempt);
        Store(mapping, stage, {entry}, attempt);
      });
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

  // Takes the elements that ByElement found to be bad out of the batch of its entry.
  void Exclude(const std::vector<int> &which, Prepared &mapping, pg::Tuplestore &batch, Try &attempt) {
    auto found = excluded_.find(current_);
    if (found == excluded_.end()) return;
    const source::Entry *entry = entries_[which.front()].entry;
    pg::Tuplestore all;
    ForEachTuple(mapping.query.batch_desc(), batch, [&](TupleTableSlot *slot) { all.Put(slot); });
    batch.Clear();
    int element = 0;
    ForEachTuple(mapping.query.batch_desc(), all, [&](TupleTableSlot *slot) {
      auto refusal = found->second.find(element++);
      if (refusal == found->second.end()) return batch.Put(slot);
      attempt.partial.push_back({entry, TallyPattern(), mapping.mapping.name, refusal->second.rule,
                                 refusal->second.sqlstate, refusal->second.message, true});
    });
    attempt.partial_entries.insert(which.front());
  }

  template <typename Visit>
  static void ForEachTuple(TupleDesc desc, pg::Tuplestore &rows, Visit visit) {
    TupleTableSlot *slot = pg::Call([&] {
      tuplestore_rescan(rows.get());
      return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
    });
    while (pg::Call([&] { return tuplestore_gettupleslot(rows.get(), true, true, slot); })) visit(slot);
    pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
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
  std::vector<std::unique_ptr<Prepared>> prepared_;
  size_t current_ = 0;     // the mapping that is being worked on
  bool in_query_ = false;  // in its query, rather than in its target
  // While ByElement stores a key: for each mapping the elements to leave out, and why.
  std::map<size_t, std::map<int, Refusal>> excluded_;
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

}  // namespace prm::migrate
