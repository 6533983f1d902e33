#include "store/comparison.h"

#include "ledger/ledger_segments.h"
#include "pg/each_row.h"
#include "pg/memory.h"
#include "pg/transaction.h"
#include "store/shown_value.h"

namespace prm {

namespace {

constexpr int64 kExpiryToleranceUs = USECS_PER_SEC;
// Rows that are not equal are looked up again so many at a time, with all their values.
constexpr int64 kRowsAtOnce = 100;
constexpr size_t kBytesAtOnce = size_t{8} << 20;
// Hashes of rows, of 32 bytes each while they are not packed, that a try holds; and those of another part.
constexpr size_t kMostMet = 50000;

pg::KeptStatement::Planning PlanningFor(const Target &target) {
  return target.kind == TargetKind::kLocal ? pg::KeptStatement::Planning::kByIndex
                                           : pg::KeptStatement::Planning::kAsUsual;
}

// Whether the images of equal keys are equal, too.
bool HasEqualImages(const Target &target) {
  if (!OidIsValid(target.key_index)) return false;
  return pg::Call([&] {
    Relation index = index_open(target.key_index, AccessShareLock);
    bool const has = _bt_allequalimage(index, false);
    index_close(index, NoLock);
    return has;
  });
}

}  // namespace

void ComparedRows::Add(const ComparedRows &other) {
  equal += other.equal;
  missing += other.missing;
  expiry_differs += other.expiry_differs;
  different += other.different;
}

bool BatchComparison::OfKey::IsEqual() const {
  return std::all_of(rows.begin(), rows.end(), [](const auto &of) { return of.second.IsEqual(); });
}

void BatchComparison::Settle(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                             std::map<std::string, MappingComparison> &found) {
  for (int const entry : which) {
    bool const is_equal = std::all_of(found.begin(), found.end(), [&](const auto &of) {
      return of.second.rows[static_cast<size_t>(entry)].IsEqual();
    });
    for (auto &[mapping, of] : found) {
      const ComparedRows &rows = of.rows[static_cast<size_t>(entry)];
      (is_equal ? equal[mapping] : unequal[entries[static_cast<size_t>(entry)]].rows[mapping]).Add(rows);
    }
  }
  for (auto &[mapping, of] : found) {
    for (auto &[entry, difference] : of.differences)
      unequal[entries[static_cast<size_t>(entry)]].differences.push_back(std::move(difference));
    std::vector<PackedItem> &met = met_rows[mapping];
    met.insert(met.end(), of.met.begin(), of.met.end());
  }
}

RowComparer::RowComparer(const Mapping &mapping, const Target &target, const MappingQuery &query)
    : mapping_(mapping),
      query_(query),
      statements_(mapping, target, query.facts().columns),
      look_up_(LookUpStatement(Ledger(mapping, target)), PlanningFor(target)),
      stored_hash_("SELECT found.hash FROM (" +
                       statements_.LookUpOf(RowHashExpression(target, "target") + " AS hash") +
                       ") AS found (redis_row, is_found, hash) WHERE found.is_found",
                   PlanningFor(target)),
      hashes_stored_keys_(!HasEqualImages(target)) {
  auto const copy = query.facts().copied.find("expires_at");
  for (size_t i = 0; i < statements_.compared.size(); ++i) {
    const TargetColumn &column = *statements_.compared[i].column;
    if (copy != query.facts().copied.end() && column.name == copy->second && column.type == TIMESTAMPTZOID)
      expiry_ = static_cast<int>(i);
  }
  for (const KeyColumn &key : target.keys)
    for (size_t i = 0; i < query.facts().columns.size(); ++i)
      if (query.facts().columns[i]->number == key.column.number)
        keys_.emplace_back(static_cast<int>(i) + 2, key.column.type);
}

std::string RowComparer::LookUpStatement(const Ledger &ledger) const {
  std::string list = ledger.RowKeyExpression("excluded");
  for (const TargetStatements::Column &column : statements_.compared)
    list += ", " + column.same + ", " + column.stored + ", " + column.offered;
  return statements_.LookUpOf(list);
}

void RowComparer::Compare(RowPart &part, const Writer::Outcomes &outcomes, const BatchComparison &wanted,
                          MappingComparison &found) {
  bool const describes = found.differences.size() < wanted.most_differences;
  std::set<int> unequal;  // of which more has to be known
  for (auto [row, outcome] : outcomes) {
    ComparedRows &counts = found.rows[static_cast<size_t>(part.EntryOf(row))];
    if (outcome == RowOutcome::kUnchanged) ++counts.equal;
    // If nobody inserts rows, one that is not there may be none of ours.
    bool const is_missing = outcome == RowOutcome::kInserted ||
                            (outcome == RowOutcome::kNoTargetRow && mapping_.no_row != "skip");
    if (outcome == RowOutcome::kUpdated || (is_missing && describes))
      unequal.insert(row);
    else if (is_missing)
      ++counts.missing;
  }
  if (!unequal.empty()) {
    TupleDesc desc = query_.row_desc();
    pg::Tuplestore rows;
    size_t bytes = 0;
    TupleTableSlot *slot = pg::Call([&] {
      tuplestore_rescan(part.rows->get());
      return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
    });
    auto compare = [&] {
      if (rows.size() == 0) return;
      CompareColumns(part, rows, wanted, found);
      rows.Clear();
      bytes = 0;
    };
    while (pg::Call([&] { return tuplestore_gettupleslot(part.rows->get(), true, false, slot); })) {
      size_t size = 0;
      int const row = pg::Call([&] {
        bool null;
        size = reinterpret_cast<MinimalTupleTableSlot *>(slot)->mintuple->t_len;
        return DatumGetInt32(slot_getattr(slot, 1, &null));
      });
      if (unequal.count(row) == 0) continue;
      if (rows.size() == kRowsAtOnce || bytes + size > kBytesAtOnce) compare();
      rows.Put(slot);
      pg::Call([&] { ExecClearTuple(slot); });  // a large row is not held twice
      bytes += size;
    }
    compare();
    pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
  }
  if (!wanted.keep_met || mapping_.on_delete == "keep") return;
  NoteMet(part, found);
  if (found.met.size() >= kMostMet) wanted.keep_met(mapping_, std::exchange(found.met, {}));
}

void RowComparer::CompareColumns(RowPart &part, pg::Tuplestore &rows, const BatchComparison &wanted,
                                 MappingComparison &found) {
  pg::CheckInterrupts();
  pg::Context context("redis_migrate comparison");
  pg::SwitchContext in_context(context.get());
  pg::SnapshotScope held;  // values of the target are fetched from TOAST after the statement
  pg::NamedRows named(kRowsName, query_.row_desc(), rows.get());
  pg::Rows const compared = look_up_.Execute();
  for (uint64 i = 0; i < compared.size(); ++i) {
    pg::Row const row = compared[i];
    int const entry = part.EntryOf(row.Int4(0));
    ComparedRows &counts = found.rows[static_cast<size_t>(entry)];
    bool const describes = found.differences.size() < wanted.most_differences;
    if (!row.Bool(1)) {
      ++counts.missing;
      if (describes)
        found.differences.push_back({entry, {mapping_.name, "missing", row.Text(2), {}, {}, {}}});
      continue;
    }
    std::vector<size_t> differing;
    for (size_t c = 0; c < statements_.compared.size(); ++c) {
      int const at = 3 + 3 * static_cast<int>(c);
      if (!row.IsNull(at) && row.Bool(at)) continue;
      bool const may_be_near = static_cast<int>(c) == expiry_ && !row.IsNull(at + 1) && !row.IsNull(at + 2);
      if (may_be_near) {
        __int128 const apart =
            __int128{DatumGetTimestampTz(row.Value(at + 1))} - DatumGetTimestampTz(row.Value(at + 2));
        if (apart <= kExpiryToleranceUs && -apart <= kExpiryToleranceUs) continue;
      }
      differing.push_back(c);
    }
    if (differing.empty()) {
      ++counts.equal;
      continue;
    }
    bool const only_expiry = differing.size() == 1 && static_cast<int>(differing[0]) == expiry_;
    ++(only_expiry ? counts.expiry_differs : counts.different);
    if (!describes) continue;
    for (size_t const c : differing) {
      int const at = 3 + 3 * static_cast<int>(c);
      const TargetColumn &column = *statements_.compared[c].column;
      ShownPair const shown = ShowDifference(
          column.type, row.IsNull(at + 1) ? std::nullopt : std::optional<Datum>(row.Value(at + 1)),
          row.IsNull(at + 2) ? std::nullopt : std::optional<Datum>(row.Value(at + 2)));
      found.differences.push_back({entry,
                                   {mapping_.name, only_expiry ? "expiry_differs" : "different", row.Text(2),
                                    column.name, shown.second, shown.first, static_cast<int>(c) == expiry_}});
    }
  }
}

void RowComparer::NoteMet(RowPart &part, MappingComparison &found) {
  if (hashes_stored_keys_) {
    pg::NamedRows named(kRowsName, query_.row_desc(), part.rows->get());
    pg::Rows const hashes = stored_hash_.Execute();
    for (uint64 i = 0; i < hashes.size(); ++i)
      UnpackOrThrow(pg::DatumBytes(hashes[i].Value(0)), Packing::kHashes, found.met);
    return;
  }
  hasher_.Clear();
  pg::ForEachRow(query_.row_desc(), *part.rows, [&](TupleTableSlot *slot) {
    for (auto [attribute, type] : keys_)
      hasher_.Add(type, slot->tts_values[attribute], slot->tts_isnull[attribute]);
    found.met.push_back({hasher_.Finish()});
  });
}

}  // namespace prm
