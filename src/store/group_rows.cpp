// How a try stores the rows that the queries of its mappings have given: whose each row is, the rows
// themselves, and what the ledgers keep of them.
#include "core/siphash.h"
#include "ledger/inserted_rows.h"
#include "mapping/ledger_mark.h"
#include "mapping/mapping_settings.h"
#include "pg/each_row.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "store/folded_rows.h"
#include "store/group_store.h"

namespace prm {

using pg::Spi;

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
  if (!blind && MayFold(mapping, *stage.rows)) folded = FindFolded(mapping, stage, identities);

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
  pg::Tuplestore identities;
  if (mapping.ledger) {
    pg::NamedRows named(kRowsName, desc, stage.rows->rows.get());
    mapping.ledger->Identify(identities);
  }
  std::vector<int> folded;
  if (MayFold(mapping, *stage.rows)) folded = FindFolded(mapping, stage, identities);
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
  bool const in_journal = mapping.journal.keeps_inserts();  // the writer asks before it changes rows, too
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
    KeepPackedLedger(mapping, part, outcomes, in_journal);
  else if (options_.seen_run)
    NoteSeen(mapping.mapping, identified, lost);
  if (mapping.notes_inserts && options_.run && !in_journal) NoteInserted(mapping, part, outcomes);
}

void GroupStore::NoteInserted(PreparedMapping &mapping, RowPart &part, const Outcomes &outcomes) {
  std::vector<bool> is_inserted(part.entries.size(), false);
  bool any = false;
  for (auto [row, outcome] : outcomes)
    if (outcome == RowOutcome::kInserted) any = is_inserted[static_cast<size_t>(row - part.first)] = true;
  if (!any) return;
  if (!mapping.images) {
    EnsureLedgerSecret();
    mapping.images.emplace(mapping.target, mapping.query);
  }
  mapping.images->Clear();
  std::vector<PackedItem> items;
  pg::ForEachRow(mapping.query.row_desc(), *part.rows, [&](TupleTableSlot *slot) {
    int const row = DatumGetInt32(slot->tts_values[0]);
    if (is_inserted[static_cast<size_t>(row - part.first)]) items.push_back(mapping.images->ItemOf(slot));
  });
  InsertedRows(mapping.mapping, *options_.run).Note(mapping.images->columns(), std::move(items));
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
std::vector<int> GroupStore::FindFolded(PreparedMapping &mapping, Stage &stage, pg::Tuplestore &identities) {
  if (mapping.ledger && !mapping.ledger->MayFold(identities)) return {};
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
  // If the ledger was empty, only keys that were stored since have entries. All rows of an exclusive mapping
  // are its own, also without entries.
  if (options_.recorded != nullptr && !has_one_row && !mapping.mapping.exclusive)
    for (int entry : which) {
      const source::Entry &key = *entries_[static_cast<size_t>(entry)];
      SipKey const of_mapping = {static_cast<uint64>(mapping.mapping.id), static_cast<uint64>(key.db)};
      uint64 const hash = SipHash128(of_mapping, key.key).low;
      if (!options_.recorded->MayHold(hash)) is_whole[entry] = false;
      options_.recorded->Add(hash);
    }
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

void GroupStore::KeepPackedLedger(PreparedMapping &mapping, RowPart &part, const Outcomes &outcomes,
                                  bool in_journal) {
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
  mapping.packed->Keep(*part.rows, part.first, fates, takes_over, in_journal, options_.run,
                       options_.seen_run);
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
      R"sql(SELECT redis_entry, (pg_catalog.to_jsonb(batch.*) OPERATOR(pg_catalog.-) $1)::pg_catalog.text
            FROM redis_rows AS batch
            ORDER BY redis_row)sql",
      {pg::SqlParam::TextArray(left_out)});
  for (uint64 i = 0; i < rows.size(); ++i)
    findings.preview.push_back({entries_[rows[i].Int4(0)], mapping.mapping.name, rows[i].Text(1)});
}

}  // namespace prm
