#include "write/writer.h"

#include "pg/spi.h"
#include "write/bulk_insert.h"

namespace prm {

using pg::Failure;

void RowCounts::Add(const RowCounts &other) {
  inserted += other.inserted;
  updated += other.updated;
  unchanged += other.unchanged;
  folded += other.folded;
  deleted += other.deleted;
  changed_here += other.changed_here;
  expired += other.expired;
  unclear += other.unclear;
  ledger_bytes += other.ledger_bytes;
}

namespace {

constexpr char kRowsAsExcluded[] = "redis_rows AS excluded";

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
      update_(std::move(statements.update), PlanningFor(target.kind)),
      is_of_batch_(std::move(statements.is_of_batch)) {
  if (mapping.on_conflict == "update") comparison_ = Comparison::kImages;
  if (mapping.on_conflict == "fill") comparison_ = Comparison::kNulls;
  if (mapping.on_conflict == "nothing") comparison_ = Comparison::kNone;
}

void Writer::RunWithoutRows(TupleDesc desc) {
  pg::Tuplestore empty;
  pg::NamedRows named(kRowsName, desc, empty.get());
  look_up_.Execute();
  if (insert_missing_) insert_.Execute();
  if (!update_.sql().empty()) update_.Execute();
}

Writer::Outcomes Writer::LookUp(pg::Tuplestore &rows, TupleDesc desc, const std::vector<int> &lost) {
  std::set<int> const folded(lost.begin(), lost.end());
  Outcomes outcomes;
  auto add = [&](int number, bool found, bool same) {
    RowOutcome outcome = insert_missing_ ? RowOutcome::kInserted : RowOutcome::kNoTargetRow;
    if (folded.count(number))
      outcome = RowOutcome::kFolded;
    else if (found)
      outcome = same ? RowOutcome::kUnchanged : RowOutcome::kUpdated;
    outcomes.emplace_back(number, outcome);
  };
  places_.clear();
  if (comparison_) {
    if (auto looked_up = LookUpInIndex(relation_, columns_, *comparison_, desc, rows)) {
      for (const LookedUpRow &row : *looked_up)
        add(row.number, row.stored != Stored::kNothing, row.stored == Stored::kSame);
      places_ = std::move(*looked_up);
      return outcomes;
    }
  }
  pg::Rows found = look_up_.Execute();
  for (uint64 i = 0; i < found.size(); ++i) {
    pg::Row row = found[i];
    add(row.Int4(0), row.Bool(1), !row.IsNull(2) && row.Bool(2));
  }
  return outcomes;
}

// redis_rows holds the rows.
void Writer::InsertRows(pg::Tuplestore &rows, TupleDesc desc, uint64 expected) {
  bool const keeps = journal_ != nullptr && journal_->keeps_inserts();
  if (inserts_in_bulk_) {
    inserted_in_bulk_ = true;
    if (BulkInsert(relation_, columns_, desc, rows)) {
      // Nothing but what is offered is stored then.
      if (keeps) journal_->NoteInserted(rows, desc, columns_);
      return;
    }
    inserted_in_bulk_ = false;
  }
  // With RETURNING a foreign table is sent its rows one by one.
  bool const returns = keeps && kind_ == TargetKind::kLocal;
  if (!returns) {
    if (insert_.Execute().processed() != expected) throw RowsNotStored();
    if (keeps) journal_->NoteInserted(kRowsAsExcluded, is_of_batch_, PlanningFor(kind_));
    return;
  }
  if (!insert_returning_)
    insert_returning_.emplace("WITH target AS (" + insert_.sql() + " RETURNING " + journal_->List("") +
                              ") SELECT * FROM target");
  pg::Tuplestore stored;
  insert_returning_->ExecuteInto(stored);
  if (static_cast<uint64>(stored.size()) != expected) throw RowsNotStored();
  journal_->NoteInserted(stored);
}

BulkUpdated Writer::UpdateInBulk(pg::Tuplestore &rows, TupleDesc desc, const KeptChanges *kept) {
  if (!inserts_in_bulk_ || comparison_ != Comparison::kImages || places_.empty()) return BulkUpdated::kNone;
  bool const inserted = std::exchange(inserted_in_bulk_, true);
  std::sort(places_.begin(), places_.end(),
            [](const LookedUpRow &a, const LookedUpRow &b) { return a.number < b.number; });
  BulkUpdated const updated = BulkUpdate(relation_, columns_, desc, rows, places_, kept);
  if (updated == BulkUpdated::kSome) throw RowsNotStored();
  if (updated == BulkUpdated::kNone) inserted_in_bulk_ = inserted;
  return updated;
}

void Writer::UpdateRows(pg::Tuplestore &rows, TupleDesc desc, uint64 expected) {
  auto update = [&] {
    if (update_.Execute().processed() != expected) throw RowsNotStored();
  };
  if (journal_ == nullptr || !journal_->keeps()) {
    if (UpdateInBulk(rows, desc, nullptr) == BulkUpdated::kNone) update();
    return;
  }
  pg::Tuplestore changes;
  KeptChanges const kept = {journal_->columns(), journal_->changes_desc(), changes};
  if (UpdateInBulk(rows, desc, &kept) == BulkUpdated::kAll) return journal_->NoteChanged(changes);
  journal_->Around(kRowsAsExcluded, is_of_batch_, PlanningFor(kind_), update);
}

// Copies the rows that are to be inserted and to be updated.
void Writer::Divide(pg::Tuplestore &rows, TupleDesc desc, const Outcomes &outcomes, pg::Tuplestore &new_rows,
                    pg::Tuplestore &changed_rows) const {
  // Indexed by the number of the row, from the lowest on.
  auto const [lowest, highest] = std::minmax_element(outcomes.begin(), outcomes.end());
  int const first = lowest->first;
  std::vector<RowOutcome> by_row(static_cast<size_t>(highest->first - first + 1));
  for (auto [number, outcome] : outcomes) by_row[static_cast<size_t>(number - first)] = outcome;
  TupleTableSlot *slot = pg::Call([&] { return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple); });
  pg::Call([&] { tuplestore_rescan(rows.get()); });
  while (pg::Call([&] { return tuplestore_gettupleslot(rows.get(), true, false, slot); })) {
    int number = pg::Call([&] {
      bool null;
      return DatumGetInt32(slot_getattr(slot, 1, &null));
    });
    RowOutcome const outcome = by_row[static_cast<size_t>(number - first)];
    if (outcome == RowOutcome::kInserted) new_rows.Put(slot);
    if (outcome == RowOutcome::kUpdated) changed_rows.Put(slot);
  }
  pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
}

Writer::Outcomes Writer::Compare(pg::Tuplestore &rows, TupleDesc desc, const std::vector<int> &lost) {
  pg::NamedRows named(kRowsName, desc, rows.get());
  return LookUp(rows, desc, lost);
}

Writer::Outcomes Writer::Write(pg::Tuplestore &rows, TupleDesc desc, const std::vector<int> &row_numbers,
                               const std::vector<int> &lost) {
  std::vector<std::pair<int, RowOutcome>> outcomes;
  if (row_numbers.empty()) return outcomes;
  pg::NamedRows named(kRowsName, desc, rows.get());
  if (expects_new_rows_ && insert_missing_ && lost.empty()) {
    InsertRows(rows, desc, row_numbers.size());
    for (int number : row_numbers) outcomes.emplace_back(number, RowOutcome::kInserted);
    return outcomes;
  }
  outcomes = LookUp(rows, desc, lost);
  if (outcomes.size() != row_numbers.size())
    throw Failure(ERRCODE_INTERNAL_ERROR,
                  "the lookup in " + target_ + " returned " + std::to_string(outcomes.size()) + " of " +
                      std::to_string(row_numbers.size()) + " rows of mapping \"" + name_ + "\"");
  uint64 inserts = 0, updates = 0;
  for (auto [number, outcome] : outcomes) {
    inserts += outcome == RowOutcome::kInserted ? 1 : 0;
    updates += outcome == RowOutcome::kUpdated ? 1 : 0;
  }
  if (inserts == row_numbers.size()) {
    InsertRows(rows, desc, inserts);
  } else if (inserts + updates > 0) {
    pg::Tuplestore new_rows, changed_rows;
    Divide(rows, desc, outcomes, new_rows, changed_rows);
    if (inserts > 0) {
      named.Show(new_rows.get());
      InsertRows(new_rows, desc, inserts);
    }
    if (updates > 0) {
      named.Show(changed_rows.get());
      if (before_update_) before_update_();
      UpdateRows(changed_rows, desc, updates);
    }
  }
  expects_new_rows_ = kind_ == TargetKind::kLocal && inserts == row_numbers.size();
  return outcomes;
}

}  // namespace prm
