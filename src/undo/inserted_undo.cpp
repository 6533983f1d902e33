// Removes the rows that a run has inserted.
#include <numeric>

#include "ledger/packed_column.h"
#include "mapping/mapping_settings.h"
#include "mapping/target_statements.h"
#include "pg/each_row.h"
#include "pg/transaction.h"
#include "undo/target_undo.h"

namespace prm {

using pg::Spi;

namespace {

constexpr int64 kRemovedAtOnce = 10'000;

bool Next(pg::Tuplestore &rows, TupleTableSlot *slot) {
  return pg::Call([&] { return tuplestore_gettupleslot(rows.get(), true, false, slot); });
}

}  // namespace

std::vector<PackedItem> TargetUndo::RemoveInserted(const std::vector<PackedItem> &items,
                                                   int most_subtransactions, std::vector<PackedItem> &left,
                                                   UndoFindings &findings) {
  MappingSettings settings(mapping_);
  pg::Tuplestore wanted, found;
  TupleDesc const wanted_desc = pg::Call([] {
    TupleDesc desc = CreateTemplateTupleDesc(2);
    TupleDescInitEntry(desc, 1, "redis_hash", BYTEAOID, -1, 0);
    TupleDescInitEntry(desc, 2, "redis_image", INT8OID, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
  for (const PackedItem &item : items) {
    Datum values[] = {pg::ByteaDatum(Pack({item}, Packing::kHashes)),
                      Int64GetDatum(static_cast<int64>(item.image))};
    bool nulls[] = {false, false};
    wanted.Put(wanted_desc, values, nulls);
    pfree(DatumGetPointer(values[0]));
  }
  {
    std::vector<const TargetColumn *> keys;
    for (const KeyColumn &key : target_.keys) keys.push_back(&key.column);
    pg::NamedRows named("redis_inserted", wanted_desc, wanted.get(), static_cast<double>(wanted.size()));
    pg::KeptStatement find("SELECT 0, " + ColumnList(keys, "target") +
                           ", inserted.redis_image FROM redis_inserted AS inserted, " + target_.name +
                           " AS target WHERE inserted.redis_hash OPERATOR(pg_catalog.=) " +
                           RowHashExpression(target_, "target"));
    find.ExecuteInto(found);
  }
  Removal removal;
  int64 tried = 0;
  pg::Call([&] { tuplestore_rescan(found.get()); });
  for (; tried < found.size() && findings.subtransactions < most_subtransactions; tried += kRemovedAtOnce)
    RemoveFound(found, findings, removal);
  bool const is_done = tried >= found.size();
  std::sort(removal.removed.begin(), removal.removed.end());
  std::sort(removal.left.begin(), removal.left.end());
  std::vector<PackedItem> waiting;
  size_t const left_before = left.size();
  int64 missing = 0;
  auto has = [](const std::vector<PackedItem> &rows, const PackedItem &item) {
    return std::binary_search(rows.begin(), rows.end(), item);
  };
  for (const PackedItem &item : items) {
    if (has(removal.removed, item)) continue;
    bool const is_left = has(removal.left, item);
    if (!is_left && !is_done) {
      waiting.push_back(item);
      continue;
    }
    if (!is_left) ++missing;
    if (is_left || hides_rows_) left.push_back(item);
  }
  if (missing > 0 && hides_rows_)
    findings.left.push_back({{}, "", kHiddenReason, missing});
  else
    findings.counts.already += missing;
  findings.counts.changes += static_cast<int64>(items.size() - waiting.size() - (left.size() - left_before));
  return waiting;
}

// Removes the next of the rows found unless they were changed since.
void TargetUndo::RemoveFound(pg::Tuplestore &found, UndoFindings &findings, Removal &removal) {
  TupleDesc const desc = Desc(true, "redis_image", INT8OID);
  TupleTableSlot *slot = pg::Call([&] { return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple); });
  pg::Tuplestore part;
  while (part.size() < kRemovedAtOnce && Next(found, slot)) part.Put(slot);
  // The rows of these ascending numbers.
  auto choose = [&](const std::vector<size_t> &which, pg::Tuplestore &rows) {
    pg::Call([&] {
      tuplestore_rescan(part.get());
      tuplestore_skiptuples(part.get(), static_cast<int64>(which.front()), true);
    });
    size_t number = which.front();
    for (auto next = which.begin(); next != which.end() && Next(part, slot); ++number) {
      if (*next != number) continue;
      rows.Put(slot);
      ++next;
    }
  };
  std::vector<size_t> all(static_cast<size_t>(part.size()));
  std::iota(all.begin(), all.end(), size_t{0});
  Divide(
      all,
      [&](const std::vector<size_t> &which, bool keep) {
        UndoFindings trial;
        Removal tried;
        auto refusal = InTrial(keep, [&] {
          pg::Tuplestore rows;
          choose(which, rows);
          pg::NamedRows named(kUndoName, desc, rows.get());
          TryRemove(static_cast<int64>(which.size()), trial, tried);
        });
        if (keep && !refusal) {
          ++trial.subtransactions;
          findings.Add(std::move(trial));
          removal.removed.insert(removal.removed.end(), tried.removed.begin(), tried.removed.end());
          removal.left.insert(removal.left.end(), tried.left.begin(), tried.left.end());
        }
        return refusal;
      },
      [&](size_t row, const Refusal &refusal) {
        pg::Tuplestore rows;
        choose({row}, rows);
        RefuseFound(rows, refusal, findings, removal);
      });
  pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
}

void TargetUndo::RefuseFound(pg::Tuplestore &row, const Refusal &refusal, UndoFindings &findings,
                             Removal &removal) {
  TupleDesc const desc = Desc(true, "redis_image", INT8OID);
  pg::NamedRows named(kUndoName, desc, row.get());
  std::vector<PackedItem> const hash = HashesOf(
      Spi::Execute("SELECT " + RowHashExpression(target_, "offered") + " FROM redis_undo AS offered"), 0);
  removal.left.insert(removal.left.end(), hash.begin(), hash.end());
  pg::SnapshotScope snapshot;
  TextSettings text_settings;
  pg::ForEachRow(desc, row, [&](TupleTableSlot *slot) {
    findings.left.push_back(
        {TextsOf(slot, 1, static_cast<int>(key_count_)), refusal.sqlstate, refusal.reason});
  });
}

// Removes the rows of redis_undo unless they were changed since.
void TargetUndo::TryRemove(int64 count, UndoFindings &findings, Removal &removal) {
  std::vector<const TargetColumn *> keys;
  for (const KeyColumn &key : target_.keys) keys.push_back(&key.column);
  auto const planning = target_.kind == TargetKind::kLocal ? pg::KeptStatement::Planning::kByIndex
                                                           : pg::KeptStatement::Planning::kAsUsual;
  std::string const hash = RowHashExpression(target_, "target");
  std::string const is_same = ImageExpression("target") + " OPERATOR(pg_catalog.=) offered.redis_image";
  pg::KeptStatement remove("DELETE FROM " + target_.name + " AS target USING redis_undo AS offered WHERE " +
                               IsRow("target") + (force_ ? "" : " AND " + is_same) + " RETURNING " + hash,
                           planning);
  removal.removed = HashesOf(remove.Execute(), 0);
  std::sort(removal.removed.begin(), removal.removed.end());
  findings.counts.removed = static_cast<int64>(removal.removed.size());
  if (findings.counts.removed > 0) StrikeOff(&removal.removed);
  if (packed_) {
    PackedLedger::News news;
    news.removed = removal.removed;
    packed_->ledger().Append(std::nullopt, std::move(news));
  }
  if (findings.counts.removed == count) return;
  pg::KeptStatement find("SELECT offered.redis_row, " + ColumnList(keys, "target") + ", " + hash +
                             " FROM redis_undo AS offered, " + target_.name + " AS target WHERE " +
                             IsRow("target"),
                         planning);
  pg::Tuplestore left;
  find.ExecuteInto(left);
  pg::SnapshotScope snapshot;
  TextSettings text_settings;
  pg::ForEachRow(Desc(true, "redis_hash", BYTEAOID), left, [&](TupleTableSlot *row) {
    findings.left.push_back({TextsOf(row, 1, static_cast<int>(key_count_)), "", kChangedReason});
    UnpackOrThrow(pg::DatumBytes(row->tts_values[key_count_ + 1]), Packing::kHashes, removal.left);
  });
}

}  // namespace prm
