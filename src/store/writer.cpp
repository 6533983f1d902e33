#include "store/writer.h"

#include "pg/spi.h"
#include "pg/user_sql.h"

namespace prm {

using pg::Failure;
using pg::QuoteIdentifier;
using pg::Spi;

namespace {

std::string Join(const std::vector<std::string> &parts, const char *separator) {
  std::string text;
  for (const std::string &part : parts) text += (text.empty() ? "" : separator) + part;
  return text;
}

// "ROW(a, b)::record": compared as images, so that types without equality work and 1.0 differs from 1.00.
std::string Record(const std::vector<std::string> &expressions) {
  return "ROW(" + Join(expressions, ", ") + ")::pg_catalog.record";
}

// A cast to the column's type. Without a length: an explicit cast would cut a text that is too long, and hide
// it.
std::string CastTo(const std::string &expression, const TargetColumn &column) {
  bool has_length = column.type == VARCHAROID || column.type == BPCHAROID || column.type == BITOID ||
                    column.type == VARBITOID;
  const char *type = pg::Call([&] {
    return const_cast<const char *>(format_type_extended(
        column.type, has_length ? -1 : column.typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
  });
  return "CAST((" + expression + ") AS " + type + ")";
}

}  // namespace

void RowCounts::Add(const RowCounts &other) {
  inserted += other.inserted;
  updated += other.updated;
  unchanged += other.unchanged;
  folded += other.folded;
  deleted += other.deleted;
}

Writer::Writer(const Mapping &mapping, const Target &target, const std::vector<const TargetColumn *> &columns)
    : name_(mapping.name),
      target_(target.name),
      kind_(target.kind),
      insert_missing_(mapping.mode != "update"),
      keys_(target.keys) {
  std::vector<std::string> names, inserted, stored, offered, fill_tests, assignments;
  bool overriding = false;
  for (const TargetColumn *column : columns) {
    std::string name = QuoteIdentifier(column->name);
    names.push_back(name);
    inserted.push_back("excluded." + name);
    overriding = overriding || column->identity_always;
    bool const is_key = std::any_of(keys_.begin(), keys_.end(), [&](const KeyColumn &key) {
      return key.column.number == column->number;
    });
    if (column->identity_always || is_key) continue;
    if (mapping.on_conflict == "fill") {
      fill_tests.push_back("(target." + name + " IS NULL AND excluded." + name + " IS NOT NULL)");
      assignments.push_back(name + " = COALESCE(target." + name + ", excluded." + name + ")");
    } else if (mapping.on_conflict == "update") {
      stored.push_back("target." + name);
      offered.push_back("excluded." + name);
      assignments.push_back(name + " = excluded." + name);
    }
  }
  bool keyword =
      mapping.on_conflict == "update" || mapping.on_conflict == "nothing" || mapping.on_conflict == "fill";
  if (!keyword) {
    for (const pg::SetItem &item : pg::ParseSetList(mapping.on_conflict, "on_conflict", "")) {
      const TargetColumn *column = target.Find(item.column);
      if (column == nullptr)
        throw Failure(ERRCODE_UNDEFINED_COLUMN,
                      "column \"" + item.column + "\" of relation " + target.name + " does not exist",
                      "on_conflict of mapping \"" + mapping.name + "\" sets it.");
      std::string name = QuoteIdentifier(item.column);
      stored.push_back("target." + name);
      offered.push_back(CastTo(item.expression, *column));
      assignments.push_back(name + " = " + item.expression);
    }
  }
  std::string unchanged = "true";
  if (!fill_tests.empty()) unchanged = "NOT (" + Join(fill_tests, " OR ") + ")";
  if (!stored.empty()) unchanged = Record(stored) + " OPERATOR(pg_catalog.*=) " + Record(offered);

  std::string join = KeyJoin("target", "excluded");
  if (kind_ == TargetKind::kLocal)
    lookup_ = "SELECT excluded.redis_row, target.redis_found IS NOT NULL, " + unchanged +
              " FROM redis_rows AS excluded LEFT JOIN LATERAL (SELECT true AS redis_found, stored.* FROM " +
              target_ + " AS stored WHERE " + KeyJoin("stored", "excluded") + " LIMIT 1) AS target ON true";
  else
    lookup_ = "WITH target AS MATERIALIZED (SELECT true AS redis_found, stored.* FROM " + target_ +
              " AS stored WHERE " + KeysOfBatch("stored") +
              ") SELECT DISTINCT ON (excluded.redis_row) excluded.redis_row, "
              "target.redis_found IS NOT NULL, " +
              unchanged + " FROM redis_rows AS excluded LEFT JOIN target ON " + join;
  insert_ = "INSERT INTO " + target_ + " (" + Join(names, ", ") + ")" +
            (overriding ? " OVERRIDING SYSTEM VALUE" : "") + " SELECT " + Join(inserted, ", ") +
            " FROM redis_rows AS excluded";
  has_assignments_ = !assignments.empty();
  update_ = "UPDATE " + target_ + " AS target SET " + Join(assignments, ", ") +
            " FROM redis_rows AS excluded WHERE " + join +
            (kind_ == TargetKind::kRemote ? " AND " + KeysOfBatch("target") : "");
}

void Writer::CheckStatements(TupleDesc desc) const {
  pg::Tuplestore empty;
  pg::NamedRows named(kRowsName, desc, empty.get());
  Spi::Execute("EXPLAIN " + lookup_);
  if (has_assignments_) Spi::Execute("EXPLAIN " + update_);
}

void Writer::RunWithoutRows(TupleDesc desc) const {
  pg::Tuplestore empty;
  pg::NamedRows named(kRowsName, desc, empty.get());
  Spi::Execute(lookup_);
  if (insert_missing_) Spi::Execute(insert_);
  if (has_assignments_) Spi::Execute(update_);
}

std::string Writer::KeyJoin(const std::string &left, const std::string &right) const {
  std::vector<std::string> equalities;
  for (const KeyColumn &key : keys_) {
    std::string const name = QuoteIdentifier(key.column.name);
    equalities.push_back(key.Equal(left + "." + name, right + "." + name));
  }
  return Join(equalities, " AND ");
}

// A condition that a foreign server can work on: the first key column is one of the batch's.
std::string Writer::KeysOfBatch(const std::string &alias) const {
  const TargetColumn &first = keys_[0].column;
  bool const is_array = pg::Call([&] { return OidIsValid(get_base_element_type(first.type)); });
  if (!first.not_null || is_array) return "true";
  std::string const name = QuoteIdentifier(first.name);
  return alias + "." + name + " " + keys_[0].Operator() + " ANY (ARRAY(SELECT DISTINCT batch." + name +
         " FROM redis_rows AS batch))";
}

std::vector<std::pair<int, RowOutcome>> Writer::LookUp(const std::vector<int> &lost) {
  std::set<int> folded(lost.begin(), lost.end());
  std::vector<std::pair<int, RowOutcome>> outcomes;
  pg::Rows found = Spi::Execute(lookup_);
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

void Writer::InsertRows(uint64 expected) {
  if (Spi::Execute(insert_).processed() != expected) throw RowsNotStored();
}

void Writer::UpdateRows(uint64 expected) {
  if (Spi::Execute(update_).processed() != expected) throw RowsNotStored();
}

std::vector<std::pair<int, RowOutcome>> Writer::Write(pg::Tuplestore &rows, TupleDesc desc,
                                                      const std::vector<int> &row_numbers,
                                                      const std::vector<int> &lost) {
  std::vector<std::pair<int, RowOutcome>> outcomes;
  if (row_numbers.empty()) return outcomes;
  pg::NamedRows named(kRowsName, desc, rows.get());
  if (expects_new_rows_ && insert_missing_ && lost.empty()) {
    InsertRows(row_numbers.size());
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
      throw Failure(ERRCODE_INTERNAL_ERROR, "the look-up in " + target_ + " lost row " +
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
    InsertRows(inserts);
  }
  if (updates > 0) {
    named.Show(changed_rows.get());
    UpdateRows(updates);
  }
  expects_new_rows_ = kind_ == TargetKind::kLocal && inserts == row_numbers.size();
  return outcomes;
}

}  // namespace prm
