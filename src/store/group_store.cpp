#include "store/group_store.h"

#include "mapping/mapping_settings.h"
#include "mapping/migration_lock.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "rdb/dump.h"

namespace prm {

using pg::Spi;

namespace {

// The values of a share: their elements as rows take several times as much, and work_mem should hold them.
// Elements of ten bytes are as many rows as are stored at once (QueryRows::kAtOnce), more would be copied.
constexpr size_t kShareBytes = 192 * 1024;

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
    // Neither a packed ledger nor a note says in which order rows were inserted and deleted. Of a full
    // ledger, one process may insert what another has deleted.
    bool const in_order = options.follows || (options.beside_others && prepared.ledger);
    prepared.journal.Begin(options.run, in_order || !(prepared.packed || prepared.notes_inserts));
    if (prepared.ledger) prepared.ledger->set_recorded(options.recorded);
    // What a first run writes over was nobody's; but when it follows, it knows the rows that it has stored.
    if (prepared.packed && (options.follows || !Claims(prepared.mapping)))
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
    bytes += source::PayloadSize(*entries_[static_cast<size_t>(entry)]);
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

GroupStore::Trial GroupStore::TryDelete(const std::vector<int> &which, bool keep) {
  return InTrial(keep, [&](Trial &trial) { Delete(which, trial); });
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
  return {mapping.mapping.types, mapping.mapping.atomic == "element",
          mapping.mapping.exclusive && !HasKeyAmongKeyColumns(mapping.mapping, mapping.query.facts()),
          &mapping.query.facts().fields};
}

void GroupStore::FillElements(int entry, PreparedMapping &mapping, pg::Tuplestore &batch) {
  BatchSink sink(mapping.query.batch_desc(), batch);
  FillBatch(mapping.state.shape, mapping.query.facts().needed, entries_, {entry}, FillOptionsOf(mapping),
            sink);
}

void GroupStore::MakeRows(const std::vector<int> &which, size_t number, QueryRows &rows, Findings &findings) {
  PreparedMapping &mapping = *prepared_[number];
  if (mapping.query.is_projection() && !Excludes(number)) {
    pg::SnapshotScope snapshot;
    return mapping.query.Project(entries_.size(), rows, [&](RowProjection &projection) {
      BatchSink sink(projection);
      Fill(which, number, sink, findings);
    });
  }
  pg::Tuplestore batch;
  BatchSink sink(mapping.query.batch_desc(), batch);
  Fill(which, number, sink, findings);
  LeaveOutExcluded(which, number, batch, findings);
  pg::SnapshotScope snapshot;
  mapping.query.Run(batch.get(), entries_.size(), rows);
}

void GroupStore::Fill(const std::vector<int> &which, size_t number, BatchSink &sink, Findings &findings) {
  PreparedMapping &mapping = *prepared_[number];
  std::vector<int> shown;
  for (int entry : which)
    if (!HasNoStates(entry)) shown.push_back(entry);
  for (EntryProblem &problem : FillBatch(mapping.state.shape, mapping.query.facts().needed, entries_, shown,
                                         FillOptionsOf(mapping), sink)) {
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

}  // namespace prm
