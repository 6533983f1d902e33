#include "write/journal.h"

#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "pg/wait.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::Spi;
using pg::SqlParam;

namespace {

// A row with a larger value is not noted when it is inserted, or when it is changed or deleted:
// its text would take several times the memory that storing it takes. undo_run counts it as unknown.
constexpr int kMostInsertedBytes = 1024 * 1024;
constexpr int kMostImageBytes = 16 * 1024 * 1024;

constexpr char kBeforeName[] = "redis_before";
constexpr char kJournalName[] = "redis_journal";

// Whether the current user may read all these columns, and lock rows.
struct Rights {
  bool read;
  bool lock;
};

Rights FindRights(const Target &target, const std::vector<const TargetColumn *> &columns) {
  std::vector<AttrNumber> numbers;
  for (const TargetColumn *column : columns) numbers.push_back(column->number);
  const AttrNumber *const data = numbers.data();
  int const count = static_cast<int>(numbers.size());
  Oid const relation = target.oid;
  bool const is_local = target.kind == TargetKind::kLocal;
  return pg::Call([&]() -> Rights {
    Rights rights = {true, false};
    bool const reads_all = pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
    for (int i = 0; i < count && !reads_all; ++i)
      rights.read =
          rights.read && pg_attribute_aclcheck(relation, data[i], GetUserId(), ACL_SELECT) == ACLCHECK_OK;
    rights.lock = is_local &&
                  (pg_class_aclcheck(relation, GetUserId(), ACL_UPDATE) == ACLCHECK_OK ||
                   pg_attribute_aclcheck_all(relation, GetUserId(), ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK);
    return rights;
  });
}

TupleDesc ColumnsDesc(const std::vector<const TargetColumn *> &columns, int copies) {
  const TargetColumn *const *const data = columns.data();
  int const count = static_cast<int>(columns.size());
  return pg::Call([&] {
    int const width = copies == 1 ? count : count * 2 + 1;
    TupleDesc desc = CreateTemplateTupleDesc(width);
    for (int copy = 0; copy < copies; ++copy) {
      int const first = copy * (count + 1);
      for (int i = 0; i < count; ++i) {
        auto const number = static_cast<AttrNumber>(first + i + 1);
        TupleDescInitEntry(desc, number, data[i]->name.c_str(), data[i]->type, data[i]->typmod, 0);
        TupleDescInitEntryCollation(desc, number, data[i]->collation);
      }
    }
    if (copies > 1)
      TupleDescInitEntry(desc, static_cast<AttrNumber>(count + 1), "redis_found", BOOLOID, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
}

TupleDesc JournalDesc() {
  return pg::Call([] {
    TupleDesc desc = CreateTemplateTupleDesc(3);
    TupleDescInitEntry(desc, 1, "row_key", TEXTARRAYOID, -1, 0);
    TupleDescInitEntry(desc, 2, "earlier", TEXTARRAYOID, -1, 0);
    TupleDescInitEntry(desc, 3, "later", TEXTARRAYOID, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
}

}  // namespace

std::vector<const TargetColumn *> JournalColumns(const Target &target) {
  std::vector<const TargetColumn *> columns;
  for (const KeyColumn &key : target.keys) columns.push_back(target.Find(key.column.name));
  size_t const keys = columns.size();
  for (const TargetColumn &column : target.columns)
    if (!column.generated && std::find(columns.begin(), columns.begin() + static_cast<ptrdiff_t>(keys),
                                       &column) == columns.begin() + static_cast<ptrdiff_t>(keys))
      columns.push_back(&column);
  return columns;
}

std::string ColumnList(const std::vector<const TargetColumn *> &columns, const std::string &alias) {
  std::string list;
  for (const TargetColumn *column : columns)
    list += (list.empty() ? "" : ", ") + alias + "." + QuoteIdentifier(column->name);
  return list;
}

Journal::Journal(const Mapping &mapping, const Target &target)
    : mapping_(mapping),
      target_(target),
      columns_(JournalColumns(target)),
      save_(
          "INSERT INTO redis_migrate.journal (run_id, mapping_id, target, columns, row_key, earlier, later) "
          "SELECT $1, $2, $3, $4, row_key, earlier, later FROM redis_journal") {
  Rights const rights = FindRights(target, columns_);
  may_read_ = rights.read;
  may_lock_ = rights.lock;
  std::string is_same;
  for (const KeyColumn &key : target.keys) {
    std::string const name = QuoteIdentifier(key.column.name);
    is_same += (is_same.empty() ? "" : " AND ") + key.Equal("latter." + name, "before." + name);
  }
  // LIMIT makes it one look-up in the index for each row.
  bool const is_local = target.kind == TargetKind::kLocal;
  after_.emplace("SELECT " + ColumnList(columns_, "before") + ", target.redis_found, " +
                     ColumnList(columns_, "target") + " FROM redis_before AS before LEFT JOIN " +
                     (is_local ? "LATERAL " : "") + "(SELECT true AS redis_found, latter.* FROM " +
                     target.name + " AS latter" + (is_local ? " WHERE " + is_same + " LIMIT 1" : "") +
                     ") AS target ON " + (is_local ? "true" : ""),
                 is_local ? pg::KeptStatement::Planning::kByIndex : pg::KeptStatement::Planning::kAsUsual);
  if (is_local) return;
  std::string is_target;
  for (const KeyColumn &key : target.keys) {
    std::string const name = QuoteIdentifier(key.column.name);
    is_target += (is_target.empty() ? "" : " AND ") + key.Equal("target." + name, "before." + name);
  }
  after_.emplace(after_->sql() + is_target);
}

pg::KeptStatement &Journal::Select(const std::string &relations, const std::string &condition,
                                   pg::KeptStatement::Planning planning) {
  // Locked: what somebody else changes meanwhile would be undone with it.
  std::string const sql = "SELECT " + ColumnList(columns_, "target") + " FROM " + target_.name +
                          " AS target" + (relations.empty() ? "" : ", " + relations) + " WHERE " + condition +
                          (may_lock_ ? " FOR UPDATE OF target" : "");
  // Planned anew: a plan for few rows would be kept for many.
  if (planning == pg::KeptStatement::Planning::kAsUsual) selects_.erase(sql);
  return selects_.try_emplace(sql, sql, planning).first->second;
}

// A condition, after others, that no value of a row of the target is larger.
std::string Journal::IsSmall(int bytes) const {
  std::string condition;
  for (size_t i = target_.keys.size(); i < columns_.size(); ++i) {
    Oid const type = columns_[i]->type;
    // Of the others the size as stored has to do: it may be compressed.
    bool const has_length = type == TEXTOID || type == VARCHAROID || type == BYTEAOID;
    condition += std::string(" AND coalesce(pg_catalog.") + (has_length ? "octet_length" : "pg_column_size") +
                 "(target." + QuoteIdentifier(columns_[i]->name) + "), 0) OPERATOR(pg_catalog.<=) " +
                 std::to_string(bytes);
  }
  return condition;
}

void Journal::Around(const std::string &relations, const std::string &condition,
                     pg::KeptStatement::Planning planning, const std::function<void()> &change) {
  if (!keeps()) return change();
  pg::Tuplestore before;
  Select(relations, "(" + condition + ")" + IsSmall(kMostImageBytes), planning).ExecuteInto(before);
  change();
  if (before.size() == 0) return;
  pg::NamedRows named(kBeforeName, ColumnsDesc(columns_, 1), before.get(),
                      static_cast<double>(before.size()));
  pg::Tuplestore both;
  after_->ExecuteInto(both);
  Save(ColumnsDesc(columns_, 2), both, true);
}

void Journal::NoteInserted(const std::string &relations, const std::string &condition,
                           pg::KeptStatement::Planning planning) {
  if (!keeps_inserts()) return;
  pg::Tuplestore rows;
  Select(relations, "(" + condition + ")" + IsSmall(kMostInsertedBytes), planning).ExecuteInto(rows);
  if (rows.size() > 0) Save(ColumnsDesc(columns_, 1), rows, false);
}

// Saves rows with the columns before and after a change; or, not were_there, those that were inserted.
void Journal::Save(TupleDesc desc, pg::Tuplestore &rows, bool were_there) {
  int const count = static_cast<int>(columns_.size());
  pg::Tuplestore entries;
  TupleDesc const journal = JournalDesc();
  {
    pg::SnapshotScope snapshot;  // values are fetched from TOAST after the statements
    TextSettings settings;
    TupleTableSlot *slot = pg::Call([&] {
      tuplestore_rescan(rows.get());
      return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
    });
    while (pg::Call([&] { return tuplestore_gettupleslot(rows.get(), true, false, slot); })) {
      pg::CheckInterrupts();
      pg::Context context("redis_migrate journal");
      pg::SwitchContext in_context(context.get());
      RowText const earlier = TextsOf(slot, 0, count);
      RowText later = earlier;
      bool const is_there = !were_there || !slot->tts_isnull[count];
      if (were_there && is_there) later = TextsOf(slot, count + 1, count);
      if (were_there && is_there && later == earlier) continue;
      has_deleted_ = has_deleted_ || !is_there;
      for (size_t i = 0; is_there && i < later.size(); ++i) {
        if (were_there && later[i] == earlier[i])
          later[i].reset();
        else
          later[i] = ValueDigest(later[i]);
      }
      RowText const key(earlier.begin(), earlier.begin() + static_cast<ptrdiff_t>(target_.keys.size()));
      Datum values[] = {TextArrayDatum(key), were_there ? TextArrayDatum(earlier) : Datum{0},
                        is_there ? TextArrayDatum(later) : Datum{0}};
      bool nulls[] = {false, !were_there, !is_there};
      entries.Put(journal, values, nulls);
    }
    pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
  }
  if (entries.size() == 0) return;
  std::vector<std::string> names;
  for (const TargetColumn *column : columns_) names.push_back(column->name);
  pg::NamedRows named(kJournalName, journal, entries.get());
  pg::AsExtensionOwner as_owner;
  save_.Execute({SqlParam::Int8(*run_), SqlParam::Int8(mapping_.id), SqlParam::Text(mapping_.target),
                 SqlParam::TextArray(names)});
}

void Journal::DeleteExpired() {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      "DELETE FROM redis_migrate.journal WHERE recorded_at <= clock_timestamp() - $1 * interval '1 second'",
      {SqlParam::Int8(pg::settings::journal_retention_s)});
}

}  // namespace prm
