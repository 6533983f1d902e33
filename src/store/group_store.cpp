#include "store/group_store.h"

#include "mapping/mapping_settings.h"
#include "mapping/migration_lock.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "rdb/dump.h"
#include "store/folded_rows.h"

namespace prm {

using pg::Spi;

namespace {

// Of values: their elements as rows take several times as much, and work_mem should hold them.
constexpr size_t kShareBytes = 256 * 1024;

// Thrown when a try finds out, after it has begun to write, that entries have to wait, or to be refused.
struct EntriesDeferred {
  std::set<int> entries;
};
struct EntriesRefused {
  std::map<int, Refusal> refusals;
};

}  // namespace

GroupStore::GroupStore(Tally::Pattern pattern, const std::vector<std::unique_ptr<MappingState>> &states,
                       const std::vector<const source::Entry *> &entries, const BatchOptions &options)
    : pattern_(std::move(pattern)), entries_(entries), options_(options) {
  for (const auto &state : states) {
    if (options.beside_others && state->mapping->ledger == "full") LockMapping(state->mapping->id);
    MappingSettings settings(*state->mapping);
    prepared_.push_back(&state->Prepare());
    // Somebody else may have changed rows of the mapping.
    PreparedMapping &prepared = *prepared_.back();
    // A packed ledger notes what is inserted, but not in which order with what is deleted.
    prepared.journal.Begin(options.run, !prepared.packed || options.follows);
    if (prepared.packed && !Claims(prepared.mapping))
      prepared.writer.set_before_update([&prepared] { prepared.packed->ReadPriors(); });
  }
}

void GroupStore::StopExpectingNewRows() {
  for (auto &prepared : prepared_) {
    prepared->state.expects_new_rows = false;
    prepared->writer.set_expects_new_rows(false);
  }
}

bool GroupStore::StopBulkInserts(const Trial &trial) {
  bool const of_server = trial.error && pg::FaultOf(trial.error->sqlstate()) == pg::Fault::kServer;
  if (trial.in_query || of_server) return false;
  bool stopped = false;
  for (auto &prepared : prepared_) {
    if (!prepared->writer.inserts_in_bulk()) continue;
    prepared->writer.set_inserts_in_bulk(false);
    if (trial.error && trial.error->sqlstate() == ERRCODE_UNIQUE_VIOLATION)
      prepared->state.inserts_in_bulk = false;
    stopped = true;
  }
  return stopped;
}

template <typename Body>
GroupStore::Trial GroupStore::InTrial(bool keep, Body body) {
  Trial trial;
  trial.findings.marks.assign(entries_.size(), Mark::kNone);
  // An executor that an error ends leaves its memory, and a batch may have thousands of tries.
  pg::Context context("redis_migrate try");
  pg::SwitchContext in_context(context.get());
  try {
    if (keep)
      pg::InSubtransaction([&] { body(trial); });
    else
      pg::InRolledBackSubtransaction([&] { body(trial); });
  } catch (const UncheckedJsonFailed &) {
    trial.result = Trial::kUncheckedJson;
  } catch (EntriesRefused &found) {
    trial.result = Trial::kRefused;
    trial.refused = std::move(found.refusals);
  } catch (EntriesDeferred &found) {
    trial.result = Trial::kDeferred;
    trial.deferred = std::move(found.entries);
  } catch (const RowsNotStored &) {
    trial.result = Trial::kNotStored;
  } catch (const pg::PgError &error) {
    trial.result = Trial::kFailed;
    trial.error = error;
  }
  return trial;
}

GroupStore::Trial GroupStore::Try(const std::vector<int> &which, bool keep) {
  return InTrial(keep, [&](Trial &trial) { Store(which, trial); });
}

GroupStore::Trial GroupStore::TryElements(int entry, size_t mapping, pg::Tuplestore &elements) {
  return InTrial(true, [&](Trial &trial) { StoreElements(entry, mapping, elements, trial); });
}

// If each key has rows of its own, what becomes of others does not matter to it, and the elements of a few
// keys at a time stay in memory.
void GroupStore::Store(const std::vector<int> &which, Trial &trial) {
  // Held throughout: rows of the query may point at out-of-line values of the tables that it joins.
  pg::SnapshotScope held;
  bool const divides = prepared_.size() == 1 && prepared_.front()->packed &&
                       prepared_.front()->state.shape.expand() != Expand::kNone;
  if (!divides) return StoreShare(which, trial);
  std::vector<int> share;
  size_t bytes = 0;
  for (int const entry : which) {
    share.push_back(entry);
    bytes += entries_[static_cast<size_t>(entry)]->payload.size();
    if (bytes < kShareBytes) continue;
    StoreShare(share, trial);
    share.clear();
    bytes = 0;
  }
  if (!share.empty() || which.empty()) StoreShare(share, trial);
}

void GroupStore::StoreShare(const std::vector<int> &which, Trial &trial) {
  std::vector<Stage> stages(prepared_.size());
  for (size_t i = 0; i < prepared_.size(); ++i) {
    PreparedMapping &mapping = *prepared_[i];
    trial.mapping = i;
    MappingSettings settings(mapping.mapping);
    RefuseParts(which, mapping, trial.findings);
    Stage &stage = stages[i];
    stage.rows = std::make_unique<QueryRows>();
    trial.in_query = true;
    MakeRows(which, i, *stage.rows, trial.findings);
    trial.in_query = false;
    FindMissing(which, mapping, *stage.rows, trial.findings);
    RunChecks(mapping, stage, trial.findings);
  }
  for (size_t i = 0; options_.comparison != nullptr && i < prepared_.size(); ++i) {
    trial.mapping = i;
    MappingSettings settings(prepared_[i]->mapping);
    Compare(*prepared_[i], stages[i], trial.findings);
  }
  if (options_.comparison != nullptr) return;
  for (size_t i = 0; i < prepared_.size(); ++i) {
    trial.mapping = i;
    trial.blind = trial.blind || prepared_[i]->writer.expects_new_rows();
    MappingSettings settings(prepared_[i]->mapping);
    Store(*prepared_[i], stages[i], which, trial.findings);
  }
}

GroupStore::Trial GroupStore::TryDelete(const std::vector<int> &which) {
  return InTrial(true, [&](Trial &trial) { Delete(which, trial); });
}

// Last what was stored first: later mappings may depend on it.
void GroupStore::Delete(const std::vector<int> &which, Trial &trial) {
  for (trial.mapping = prepared_.size(); trial.mapping-- > 0;) {
    PreparedMapping &mapping = *prepared_[trial.mapping];
    const Mapping &definition = mapping.mapping;
    if (definition.KeepsGone()) continue;
    MappingSettings settings(definition);
    RowCounts &counts = trial.findings.rows[definition.name];
    if (mapping.packed) {
      mapping.packed->DeleteRowsOf(entries_, which, nullptr, options_.run, counts);
    } else if (mapping.ledger) {
      std::vector<Ledger::Changed> keys;
      for (int entry : which) keys.push_back(ChangedKey(entry));
      pg::Tuplestore none, obsolete;
      mapping.ledger->TakeObsolete(keys, none, obsolete);
      if (obsolete.size() > 0) mapping.ledger->DeleteRows(obsolete, none, counts);
    }
  }
}

void GroupStore::StoreElements(int entry, size_t mapping, pg::Tuplestore &elements, Trial &trial) {
  PreparedMapping &prepared = *prepared_[mapping];
  trial.mapping = mapping;
  trial.findings.partial_entries.insert(entry);  // its other elements are not obsolete
  MappingSettings settings(prepared.mapping);
  pg::SnapshotScope held;
  Stage stage;
  stage.rows = std::make_unique<QueryRows>();
  trial.in_query = true;
  {
    pg::SnapshotScope snapshot;
    prepared.query.Run(elements.get(), entries_.size(), *stage.rows);
  }
  trial.in_query = false;
  RunChecks(prepared, stage, trial.findings);
  if (options_.comparison != nullptr)
    Compare(prepared, stage, trial.findings);
  else
    Store(prepared, stage, {entry}, trial.findings);
}

void GroupStore::RunWithoutRows(size_t mapping) {
  PreparedMapping &prepared = *prepared_[mapping];
  MappingSettings settings(prepared.mapping);
  pg::SnapshotScope snapshot;
  pg::Tuplestore nothing;
  QueryRows rows;
  prepared.query.Run(nothing.get(), 0, rows);
  if (!prepared.mapping.checks.empty()) FailedChecks(prepared, rows.rows);
  prepared.writer.RunWithoutRows(prepared.query.row_desc());
  if (prepared.mapping.ledger == "none") return;
  for (const std::string &action :
       {prepared.mapping.on_delete, prepared.mapping.on_expire.value_or(prepared.mapping.on_delete)})
    if (action != "keep") Spi::Execute(DeleteStatement(prepared.target.name, action) + " WHERE false");
}

FillOptions GroupStore::FillOptionsOf(const PreparedMapping &mapping) const {
  return {mapping.mapping.types, mapping.state.checked_json, mapping.mapping.atomic == "element",
          mapping.mapping.exclusive && !HasKeyAmongKeyColumns(mapping.mapping, mapping.query.facts()),
          &mapping.query.facts().fields};
}

void GroupStore::FillElements(int entry, PreparedMapping &mapping, pg::Tuplestore &batch) {
  FillBatch(mapping.state.shape, mapping.query.facts().needed, entries_, {entry}, FillOptionsOf(mapping),
            mapping.query.batch_desc(), batch);
}

void GroupStore::MakeRows(const std::vector<int> &which, size_t number, QueryRows &rows, Findings &findings) {
  PreparedMapping &mapping = *prepared_[number];
  const std::vector<PlainColumn> &plain = mapping.query.facts().plain;
  if (!plain.empty() && !Excludes(number)) {
    rows.yielded.assign(entries_.size(), false);
    PlainRows const made = {plain, rows.entry_of_row, QueryRows::kAtOnce, rows.yielded};
    Fill(which, number, mapping.query.row_desc(), &made, rows.rows, findings);
    if (rows.rows.size() > QueryRows::kAtOnce) rows.entry_of_row.clear();
    return;
  }
  pg::Tuplestore batch;
  Fill(which, number, mapping.query.batch_desc(), nullptr, batch, findings);
  LeaveOutExcluded(which, number, batch, findings);
  pg::SnapshotScope snapshot;
  mapping.query.Run(batch.get(), entries_.size(), rows);
}

void GroupStore::Fill(const std::vector<int> &which, size_t number, TupleDesc desc, const PlainRows *plain,
                      pg::Tuplestore &batch, Findings &findings) {
  PreparedMapping &mapping = *prepared_[number];
  FillOptions options = FillOptionsOf(mapping);
  options.plain = plain;
  std::vector<int> shown;
  for (int entry : which)
    if (!HasNoStates(entry)) shown.push_back(entry);
  for (EntryProblem &problem :
       FillBatch(mapping.state.shape, mapping.query.facts().needed, entries_, shown, options, desc, batch)) {
    if (problem.is_element) {
      findings.partial.push_back({entries_[problem.entry], pattern_, mapping.mapping.name, problem.rule,
                                  std::nullopt, problem.message, true});
      findings.partial_entries.insert(problem.entry);
    } else {
      findings.refused.emplace(problem.entry,
                               Refusal{mapping.mapping.name, problem.rule, std::nullopt, problem.message});
    }
  }
}

void GroupStore::LeaveOutExcluded(const std::vector<int> &which, size_t number, pg::Tuplestore &batch,
                                  Findings &findings) {
  auto found = excluded_.find(number);
  if (found == excluded_.end()) return;
  PreparedMapping &mapping = *prepared_[number];
  const source::Entry *entry = entries_[which.front()];
  pg::Tuplestore all;
  ForEachTuple(mapping.query.batch_desc(), batch, [&](TupleTableSlot *slot) { all.Put(slot); });
  batch.Clear();
  int element = 0;
  ForEachTuple(mapping.query.batch_desc(), all, [&](TupleTableSlot *slot) {
    auto refusal = found->second.find(element++);
    if (refusal == found->second.end()) return batch.Put(slot);
    findings.partial.push_back({entry, pattern_, mapping.mapping.name, refusal->second.rule,
                                refusal->second.sqlstate, refusal->second.message, true});
  });
  findings.partial_entries.insert(which.front());
}

void GroupStore::RefuseParts(const std::vector<int> &which, const PreparedMapping &mapping,
                             Findings &findings) {
  for (int entry : which) {
    const source::Entry &part = *entries_[static_cast<size_t>(entry)];
    if (!part.is_part) continue;
    auto const type = rdb::DumpType(part.payload.empty() ? part.gone_elements : part.payload);
    if (type.ok() && mapping.TakesElements(type.value())) continue;
    findings.refused.emplace(entry, Refusal{mapping.mapping.name, "no_row", std::nullopt,
                                            "single elements of the key cannot be stored"});
  }
}

void GroupStore::FindMissing(const std::vector<int> &which, PreparedMapping &mapping, const QueryRows &rows,
                             Findings &findings) {
  for (int entry : which) {
    if (rows.yielded[static_cast<size_t>(entry)] || findings.refused.count(entry)) continue;
    if (HasNoStates(entry))
      findings.marks[entry] = std::max(findings.marks[entry], Mark::kUpdated);
    else if (mapping.mapping.no_row == "skip")
      findings.marks[entry] = std::max(findings.marks[entry], Mark::kFiltered);
    else
      findings.refused.emplace(entry, Refusal{mapping.mapping.name, "no_row", std::nullopt,
                                              "the query returned no row for the key"});
  }
}

pg::Rows GroupStore::FailedChecks(PreparedMapping &mapping, pg::Tuplestore &rows) {
  pg::NamedRows named(kRowsName, mapping.query.row_desc(), rows.get());
  return mapping.failed_checks.Execute();
}

void GroupStore::RunChecks(PreparedMapping &mapping, Stage &stage, Findings &findings) {
  const std::vector<Check> &checks = mapping.mapping.checks;
  if (checks.empty() || stage.rows->rows.size() == 0) return;
  pg::Rows failed = FailedChecks(mapping, stage.rows->rows);
  for (uint64 i = 0; i < failed.size(); ++i) {
    int row = failed[i].Int4(0);
    int entry = failed[i].Int4(1);
    size_t check = 0;
    while (!failed[i].Bool(static_cast<int>(check) + 2)) ++check;
    std::string message = "check \"" + checks[check].name + "\" failed: " + checks[check].condition;
    if (mapping.mapping.atomic == "element") {
      stage.dropped.insert(row);
      findings.partial.push_back(
          {entries_[entry], pattern_, mapping.mapping.name, checks[check].name, std::nullopt, message, true});
      findings.partial_entries.insert(entry);
    } else {
      findings.refused.emplace(entry,
                               Refusal{mapping.mapping.name, checks[check].name, std::nullopt, message});
    }
  }
}

// Copies the rows that are still to be stored; the usual case needs no copy.
void GroupStore::LeaveOutRefused(PreparedMapping &mapping, Stage &stage, const Findings &findings) {
  if (findings.refused.empty() && stage.dropped.empty()) return;
  auto kept = std::make_unique<QueryRows>();
  ForEachTuple(mapping.query.row_desc(), stage.rows->rows, [&](TupleTableSlot *slot) {
    int number, entry;
    pg::Call([&] {
      bool null;
      number = DatumGetInt32(slot_getattr(slot, 1, &null));
      entry = DatumGetInt32(slot_getattr(slot, 2, &null));
    });
    if (!findings.refused.count(entry) && !stage.dropped.count(number)) kept->rows.Put(slot);
  });
  kept->entry_of_row = std::move(stage.rows->entry_of_row);
  kept->yielded = std::move(stage.rows->yielded);
  stage.rows = std::move(kept);
}

void GroupStore::Store(PreparedMapping &mapping, Stage &stage, const std::vector<int> &which,
                       Findings &findings) {
  LeaveOutRefused(mapping, stage, findings);
  TupleDesc desc = mapping.query.row_desc();
  if (options_.preview != nullptr) CollectPreview(mapping, stage, findings);
  RowCounts &counts = findings.rows[mapping.mapping.name];
  std::optional<Ledger> of_no_ledger;
  if (options_.seen_run && !mapping.ledger && !mapping.packed)
    of_no_ledger.emplace(mapping.mapping, mapping.target);
  Ledger *const ledger = mapping.ledger ? &*mapping.ledger : of_no_ledger ? &*of_no_ledger : nullptr;
  pg::Tuplestore identities, obsolete;
  if (ledger != nullptr) {
    pg::NamedRows named(kRowsName, desc, stage.rows->rows.get());
    ledger->Identify(identities);
  }
  // First come rows that keys of the batch have left, so that others can have them.
  if (mapping.ledger && !mapping.mapping.KeepsGone())
    TakeObsolete(mapping, which, findings, identities, obsolete);
  if (mapping.packed) DeleteLeftRows(mapping, stage, which, findings, counts);
  bool const blind = mapping.writer.expects_new_rows();
  std::vector<int> folded;
  if (!blind && MayFold(mapping, *stage.rows)) folded = FindFolded(mapping, stage);

  bool all_new = true;
  std::map<int, Refusal> without_target;
  ForEachPart(desc, *stage.rows, [&](RowPart &part) {
    pg::Context context("redis_migrate rows");
    pg::SwitchContext in_context(context.get());
    mapping.writer.set_expects_new_rows(blind);
    std::vector<IdentifiedRow> identified;
    if (ledger != nullptr) identified = ledger->Next(identities, part.numbers.size());
    auto const begin = std::lower_bound(folded.begin(), folded.end(), part.numbers.front());
    auto const end = std::upper_bound(begin, folded.end(), part.numbers.back());
    StorePart(mapping, part, {begin, end}, identified, findings, without_target);
    all_new = all_new && mapping.writer.expects_new_rows();
  });
  if (!without_target.empty()) throw EntriesRefused{std::move(without_target)};
  if (stage.rows->rows.size() > 0) mapping.writer.set_expects_new_rows(all_new);
  mapping.state.expects_new_rows = mapping.writer.expects_new_rows();
  if (obsolete.size() > 0) ledger->DeleteRows(obsolete, identities, counts);
}

void GroupStore::Compare(PreparedMapping &mapping, Stage &stage, Findings &findings) {
  LeaveOutRefused(mapping, stage, findings);
  MappingComparison &found = findings.compared[mapping.mapping.name];
  found.rows.resize(entries_.size());
  if (!mapping.comparer) mapping.comparer.emplace(mapping.mapping, mapping.target, mapping.query);
  TupleDesc desc = mapping.query.row_desc();
  std::vector<int> folded;
  if (MayFold(mapping, *stage.rows)) folded = FindFolded(mapping, stage);
  pg::Tuplestore identities;
  if (mapping.ledger) {
    pg::NamedRows named(kRowsName, desc, stage.rows->rows.get());
    mapping.ledger->Identify(identities);
  }
  ForEachPart(desc, *stage.rows, [&](RowPart &part) {
    pg::Context context("redis_migrate rows");
    pg::SwitchContext in_context(context.get());
    auto const begin = std::lower_bound(folded.begin(), folded.end(), part.numbers.front());
    std::vector<int> lost(begin, std::upper_bound(begin, folded.end(), part.numbers.back()));
    if (mapping.ledger) {
      auto const identified = mapping.ledger->Next(identities, part.numbers.size());
      for (int const row : mapping.ledger->FindLost(identified, [&](int number) {
             const source::Entry &entry = *entries_[static_cast<size_t>(part.EntryOf(number))];
             return KeyName{entry.db, entry.key};
           }))
        lost.push_back(row);
    }
    Writer::Outcomes const outcomes = mapping.writer.Compare(*part.rows, desc, lost);
    mapping.comparer->Compare(part, outcomes, *options_.comparison, found);
  });
}

void GroupStore::StorePart(PreparedMapping &mapping, RowPart &part, std::vector<int> lost,
                           const std::vector<IdentifiedRow> &identified, Findings &findings,
                           std::map<int, Refusal> &without_target) {
  auto key_of_row = [&](int row) {
    const source::Entry &entry = *entries_[static_cast<size_t>(part.EntryOf(row))];
    return KeyName{entry.db, entry.key};
  };
  if (mapping.ledger) {
    std::vector<int> const lost_to_lower = mapping.ledger->FindLost(identified, key_of_row);
    DeferLosers(lost_to_lower, part);
    lost.insert(lost.end(), lost_to_lower.begin(), lost_to_lower.end());
  }
  Outcomes const outcomes = mapping.writer.Write(*part.rows, mapping.query.row_desc(), part.numbers, lost);
  RowCounts &counts = findings.rows[mapping.mapping.name];
  for (auto [row, outcome] : outcomes) {
    int const entry = part.EntryOf(row);
    Mark mark = Mark::kNone;
    switch (outcome) {
      case RowOutcome::kInserted:
        ++counts.inserted;
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
    findings.marks[entry] = std::max(findings.marks[entry], mark);
  }
  if (mapping.ledger) KeepLedger(mapping, identified, lost, outcomes, key_of_row);
  if (mapping.packed)
    KeepPackedLedger(mapping, part, outcomes);
  else if (options_.seen_run)
    NoteSeen(mapping.mapping, identified, lost);
}

// Whether rows of this batch may have the same identity. If different keys have different rows, only several
// rows of one key can.
bool GroupStore::MayFold(const PreparedMapping &mapping, const QueryRows &rows) {
  if (rows.rows.size() == 0) return false;
  if (mapping.ledger || mapping.state.shape.expand() != Expand::kNone) return true;
  if (!mapping.packed) return false;
  bool const is_whole = rows.rows.size() == static_cast<int64>(rows.entry_of_row.size());
  return !is_whole || rows.rows.size() > std::count(rows.yielded.begin(), rows.yielded.end(), true);
}

// Rows of this batch with the same identity: the lowest key wins; entries are numbered in that order. Returns
// the others, in ascending order.
std::vector<int> GroupStore::FindFolded(PreparedMapping &mapping, Stage &stage) {
  if (mapping.packed) {
    std::optional<std::vector<int>> of_keys = FindFoldedOfKeys(mapping.target, mapping.query.facts().columns,
                                                               mapping.query.row_desc(), stage.rows->rows);
    if (of_keys) return std::move(*of_keys);
  }
  pg::NamedRows named(kRowsName, mapping.query.row_desc(), stage.rows->rows.get());
  pg::Rows rows = mapping.folded.Execute();
  std::vector<int> folded;
  for (uint64 i = 0; i < rows.size(); ++i) folded.push_back(rows[i].Int4(0));
  std::sort(folded.begin(), folded.end());
  return folded;
}

Ledger::Changed GroupStore::ChangedKey(int entry) const {
  const source::Entry &key = *entries_[static_cast<size_t>(entry)];
  return {entry, {key.db, key.key}, key.changed};
}

void GroupStore::TakeObsolete(PreparedMapping &mapping, const std::vector<int> &which,
                              const Findings &findings, pg::Tuplestore &identities,
                              pg::Tuplestore &obsolete) {
  std::vector<Ledger::Changed> keys;
  for (int entry : which)
    if (!findings.refused.count(entry) && !findings.partial_entries.count(entry))
      keys.push_back(ChangedKey(entry));
  mapping.ledger->TakeObsolete(keys, identities, obsolete);
}

// A lower key that has the row may leave it later in this level: who is right is decided at its end.
void GroupStore::DeferLosers(const std::vector<int> &lost, const RowPart &part) {
  if (!options_.defer) return;
  std::set<int> losers;
  for (int row : lost) losers.insert(part.EntryOf(row));
  if (!losers.empty()) throw EntriesDeferred{std::move(losers)};
}

void GroupStore::KeepLedger(PreparedMapping &mapping, const std::vector<IdentifiedRow> &identified,
                            const std::vector<int> &lost, const Outcomes &outcomes,
                            const KeyOfRow &key_of_row) {
  // A row that was there before and whose values stay is nobody's to delete.
  bool const takes_over = mapping.mapping.on_conflict != "nothing" && mapping.mapping.on_conflict != "fill";
  if (takes_over && lost.empty()) return mapping.ledger->Record(identified, key_of_row);
  std::set<int> const lost_rows(lost.begin(), lost.end());
  std::set<int> inserted;
  for (auto [row, outcome] : outcomes)
    if (outcome == RowOutcome::kInserted) inserted.insert(row);
  std::vector<IdentifiedRow> owned;
  for (const IdentifiedRow &row : identified)
    if (!lost_rows.count(row.row) &&
        (takes_over || inserted.count(row.row) > 0 || mapping.ledger->IsRecorded(row.row)))
      owned.push_back(row);
  mapping.ledger->Record(owned, key_of_row);
}

void GroupStore::DeleteLeftRows(PreparedMapping &mapping, Stage &stage, const std::vector<int> &which,
                                const Findings &findings, RowCounts &counts) {
  if (mapping.mapping.KeepsGone()) return;
  // If keys have one row each, a key that yields its row has left none.
  bool const has_one_row = mapping.packed->keys_have_one_row();
  std::vector<bool> is_whole(entries_.size(), true);
  if (has_one_row)
    for (int entry : which) is_whole[entry] = !stage.rows->yielded[static_cast<size_t>(entry)];
  for (int entry : findings.partial_entries) is_whole[entry] = false;
  std::vector<int> left;
  std::vector<const source::Entry *> parts;
  for (int entry : which) {
    if (!is_whole[entry] || findings.refused.count(entry)) continue;
    if (entries_[static_cast<size_t>(entry)]->is_part)
      parts.push_back(entries_[static_cast<size_t>(entry)]);
    else
      left.push_back(entry);
  }
  if (!parts.empty()) mapping.packed->DeleteElementsOf(parts, stage.rows->rows, options_.run, counts);
  mapping.packed->DeleteRowsOf(entries_, left, has_one_row ? nullptr : &stage.rows->rows, options_.run,
                               counts);
}

void GroupStore::KeepPackedLedger(PreparedMapping &mapping, RowPart &part, const Outcomes &outcomes) {
  const Mapping &definition = mapping.mapping;
  // A row that was there before and whose values stay is nobody's to delete.
  bool const takes_over = definition.on_conflict != "nothing" && definition.on_conflict != "fill";
  // An unchanged row may already be the mapping's, and looking would cost more than storing it. If the ledger
  // has entries, the row is assumed to be the mapping's, unless rows outlive their entries, as a SET list or
  // an on_expire leaves them.
  bool const outlives =
      definition.on_expire || (definition.on_delete != "delete" && definition.on_delete != "keep");
  bool const claims_unchanged = takes_over && (outlives || Claims(definition));
  std::vector<PackedRows::Fate> fates(part.entries.size(), PackedRows::Fate::kNothing);
  for (auto [row, outcome] : outcomes) {
    PackedRows::Fate &fate = fates[static_cast<size_t>(row - part.first)];
    if (outcome == RowOutcome::kInserted)
      fate = PackedRows::Fate::kInserted;
    else if (outcome == RowOutcome::kUpdated)
      fate = PackedRows::Fate::kUpdated;
    else if (outcome == RowOutcome::kUnchanged && claims_unchanged)
      fate = PackedRows::Fate::kClaimed;
  }
  mapping.packed->Keep(*part.rows, part.first, fates, takes_over, options_.run, options_.seen_run);
}

// Whether the mapping's ledger was empty when the run began, so that unchanged rows become the mapping's.
bool GroupStore::Claims(const Mapping &mapping) const {
  return options_.claiming != nullptr && options_.claiming->count(mapping.name) > 0;
}

void GroupStore::NoteSeen(const Mapping &mapping, const std::vector<IdentifiedRow> &identified,
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
      R"sql(INSERT INTO redis_migrate.seen_row (run_id, mapping_id, row_key, lost)
            SELECT $1, $2, s.row_key, s.lost = 1
            FROM unnest($3, $4) AS s (row_key, lost))sql",
      {pg::SqlParam::Int8(*options_.seen_run), pg::SqlParam::Int8(mapping.id),
       pg::SqlParam::TextArray(row_keys), pg::SqlParam::Int4Array(is_lost)});
}

void GroupStore::CollectPreview(PreparedMapping &mapping, Stage &stage, Findings &findings) {
  pg::NamedRows named(kRowsName, mapping.query.row_desc(), stage.rows->rows.get());
  std::vector<std::string> left_out = {"redis_row", "redis_entry"};
  for (const TargetColumn *column : mapping.query.facts().columns) {
    bool const is_bytes = pg::Call([&] { return getBaseType(column->type); }) == BYTEAOID;
    if (is_bytes && !options_.preview_bytes) left_out.push_back(column->name);
  }
  pg::Rows rows = Spi::Execute(
      R"sql(SELECT redis_entry, (pg_catalog.to_jsonb(redis_rows) OPERATOR(pg_catalog.-) $1)::pg_catalog.text
            FROM redis_rows
            ORDER BY redis_row)sql",
      {pg::SqlParam::TextArray(left_out)});
  for (uint64 i = 0; i < rows.size(); ++i)
    findings.preview.push_back({entries_[rows[i].Int4(0)], mapping.mapping.name, rows[i].Text(1)});
}

}  // namespace prm
