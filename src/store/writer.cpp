#include "store/writer.h"

#include "pg/spi.h"
#include "store/bulk_insert.h"

namespace prm {

using pg::Failure;

void RowCounts::Add(const RowCounts &other) {
  inserted += other.inserted;
  updated += other.updated;
  unchanged += other.unchanged;
  folded += other.folded;
  deleted += other.deleted;
}

namespace {

// A foreign table or a view is read by a set of keys, so that the planner must be free to choose.
pg::KeptStatement::Planning PlanningFor(TargetKind kind) {
  return kind == TargetKind::kLocal ? pg::KeptStatement::Planning::kByIndex
                                    : pg::KeptStatement::Planning::kAsUsual;
}

}  // namespace

Writer::Writer(const Mapping &mapping, const Target &target, const std::vector<const TargetColumn *> &columns,
               TargetStatements statements)
    : name_(mapping.name),
      relation_(target),
      columns_(columns),
      target_(target.name),
      kind_(target.kind),
      insert_missing_(mapping.mode != "update"),
      look_up_(std::move(statements.look_up), PlanningFor(target.kind)),
      insert_(std::move(statements.insert)),
      update_(std::move(statements.update), PlanningFor(target.kind)) {}

void Writer::RunWithoutRows(TupleDesc desc) {
  pg::Tuplestore empty;
  pg::NamedRows named(kRowsName, desc, empty.get());
  look_up_.Execute();
  if (insert_missing_) insert_.Execute();
  if (!update_.sql().empty()) update_.Execute();
}

std::vector<std::pair<int, RowOutcome>> Writer::LookUp(const std::vector<int> &lost) {
  std::set<int> folded(lost.begin(), lost.end());
  std::vector<std::pair<int, RowOutcome>> outcomes;
  pg::Rows found = look_up_.Execute();
  for (uint64 i = 0; i < found.size(); ++i) {
    pg::Row row = found[i];
    int number = row.Int4(0);
    RowOutcome outcome = insert_missing_ ? RowOutcome::kInserted : RowOutcome::kNoTargetRow;
    if (folded.count(number))
      outcome = RowOutcome::kFolded;
    else if (row.Bool(1))
      outcome = row.Bool(2) && !row.IsNull(2) ? RowOutcome::kUnchanged : RowOutcome::kUpdated;
    outcomes.emplace_back(number, outcome);
  }
  return outcomes;
}

void Writer::InsertRows(pg::Tuplestore &rows, TupleDesc desc, uint64 expected) {
  if (inserts_in_bulk_) {
    inserted_in_bulk_ = true;
    if (BulkInsert(relation_, columns_, desc, rows)) return;
    inserted_in_bulk_ = false;
  }
  if (insert_.Execute().processed() != expected) throw RowsNotStored();
}

void Writer::UpdateRows(uint64 expected) {
  if (update_.Execute().processed() != expected) throw RowsNotStored();
}

std::vector<std::pair<int, RowOutcome>> Writer::Write(pg::Tuplestore &rows, TupleDesc desc,
                                                      const std::vector<int> &row_numbers,
                                                      const std::vector<int> &lost) {
  std::vector<std::pair<int, RowOutcome>> outcomes;
  if (row_numbers.empty()) return outcomes;
  pg::NamedRows named(kRowsName, desc, rows.get());
  if (expects_new_rows_ && insert_missing_ && lost.empty()) {
    InsertRows(rows, desc, row_numbers.size());
    for (int number : row_numbers) outcomes.emplace_back(number, RowOutcome::kInserted);
    return outcomes;
  }
  outcomes = LookUp(lost);
  std::map<int, RowOutcome> by_row(outcomes.begin(), outcomes.end());
  uint64 inserts = 0, updates = 0;
  pg::Tuplestore new_rows, changed_rows;
  TupleTableSlot *slot = pg::Call([&] { return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple); });
  pg::Call([&] { tuplestore_rescan(rows.get()); });
  while (pg::Call([&] { return tuplestore_gettupleslot(rows.get(), true, false, slot); })) {
    int number = pg::Call([&] {
      bool null;
      return DatumGetInt32(slot_getattr(slot, 1, &null));
    });
    auto const outcome = by_row.find(number);
    if (outcome == by_row.end())
      throw Failure(ERRCODE_INTERNAL_ERROR, "the lookup in " + target_ + " lost row " +
                                                std::to_string(number) + " of mapping \"" + name_ + "\"");
    switch (outcome->second) {
      case RowOutcome::kInserted:
        new_rows.Put(slot);
        ++inserts;
        break;
      case RowOutcome::kUpdated:
        changed_rows.Put(slot);
        ++updates;
        break;
      default:
        break;
    }
  }
  pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
  if (inserts > 0) {
    named.Show(new_rows.get());
    InsertRows(new_rows, desc, inserts);
  }
  if (updates > 0) {
    named.Show(changed_rows.get());
    UpdateRows(updates);
  }
  expects_new_rows_ = kind_ == TargetKind::kLocal && inserts == row_numbers.size();
  return outcomes;
}

}  // namespace prm
