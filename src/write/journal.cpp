#include "write/journal.h"

#include "pg/each_row.h"
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

// A block of the journal.
constexpr size_t kMostBlockBytes = 256 * 1024;
constexpr int kMostBlockLines = 1000;

constexpr char kBeforeName[] = "redis_before";

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
    list += (list.empty() ? "" : ", ") + (alias.empty() ? "" : alias + ".") + QuoteIdentifier(column->name);
  return list;
}

Journal::Journal(const Mapping &mapping, const Target &target)
    : mapping_(mapping), target_(target), columns_(JournalColumns(target)) {
  Rights const rights = FindRights(target, columns_);
  may_read_ = rights.read;
  may_lock_ = rights.lock;
  std::string is_same;
  for (const KeyColumn &key : target.keys) {
    std::string const name = QuoteIdentifier(key.column.name);
    is_same += (is_same.empty() ? "" : " AND ") + key.Equal("latter." + name, "before." + name);
  }
  std::string const found = QuoteIdentifier(target.NameBeside("redis_found"));
  // LIMIT makes it one look-up in the index for each row.
  bool const is_local = target.kind == TargetKind::kLocal;
  after_.emplace("SELECT " + ColumnList(columns_, "before") + ", target." + found + ", " +
                     ColumnList(columns_, "target") + " FROM redis_before AS before LEFT JOIN " +
                     (is_local ? "LATERAL " : "") + "(SELECT true AS " + found + ", latter.* FROM " +
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

void Journal::Begin(std::optional<int64> run, bool with_inserts) {
  with_inserts_ = with_inserts;
  if (run == run_) return;
  run_ = run;
  has_deleted_ = keeps() && HasDeleted();
}

// Whether an earlier session of the run has deleted rows of the mapping.
bool Journal::HasDeleted() const {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT EXISTS (SELECT FROM redis_migrate.journal
                                WHERE run_id = $1 AND mapping_id = $2 AND deletes))sql",
             {SqlParam::Int8(*run_), SqlParam::Int8(mapping_.id)})[0]
      .Bool(0);
}

TupleDesc Journal::changes_desc() const { return ColumnsDesc(columns_, 2); }

std::string Journal::List(const std::string &alias) const { return ColumnList(columns_, alias); }

pg::KeptStatement &Journal::Select(const std::string &relations, const std::string &condition,
                                   pg::KeptStatement::Planning planning) {
  // Locked: what somebody else changes meanwhile would be undone with it.
  bool const by_index = planning == pg::KeptStatement::Planning::kByIndex;
  std::string rows = target_.name + " AS target";
  std::string lock = may_lock_ ? " FOR UPDATE OF target" : "";
  std::string sql;
  // LATERAL and OFFSET make it one look-up in the index for each row of the relations.
  if (by_index && !relations.empty())
    sql = "SELECT " + List("target") + " FROM " + relations + ", LATERAL (SELECT target.* FROM " + rows +
          " WHERE " + condition + " OFFSET 0" + lock + ") AS target";
  else
    sql = "SELECT " + List("target") + " FROM " + rows + (relations.empty() ? "" : ", " + relations) +
          " WHERE " + condition + lock;
  // Planned anew: a plan for few rows would be kept for many.
  if (!by_index) selects_.erase(sql);
  return selects_.try_emplace(sql, sql, planning).first->second;
}

void Journal::Around(const std::string &relations, const std::string &condition,
                     pg::KeptStatement::Planning planning, const std::function<void()> &change) {
  if (!keeps()) return change();
  pg::Tuplestore before;
  Select(relations, condition, planning).ExecuteInto(before);
  change();
  NoteAfterwards(before);
}

void Journal::AroundDelete(const std::string &relations, const std::string &condition,
                           pg::KeptStatement::Planning planning, const std::function<int64()> &remove) {
  if (!keeps()) {
    remove();
    return;
  }
  pg::Tuplestore before;
  Select(relations, condition, planning).ExecuteInto(before);
  // A trigger or a rule may have kept some.
  if (remove() != before.size()) return NoteAfterwards(before);
  if (before.size() > 0) Save(before, ColumnsDesc(columns_, 1), {InOrder(0), {}});
}

void Journal::NoteAfterwards(pg::Tuplestore &before) {
  if (before.size() == 0) return;
  pg::NamedRows named(kBeforeName, ColumnsDesc(columns_, 1), before.get(),
                      static_cast<double>(before.size()));
  pg::Tuplestore both;
  after_->ExecuteInto(both);
  NoteChanged(both);
}

std::vector<int> Journal::InOrder(int first) const {
  std::vector<int> places;
  for (size_t i = 0; i < columns_.size(); ++i) places.push_back(first + static_cast<int>(i));
  return places;
}

void Journal::NoteChanged(pg::Tuplestore &changes) {
  auto const width = static_cast<int>(columns_.size());
  Save(changes, changes_desc(), {InOrder(0), InOrder(width + 1), width});
}

void Journal::NoteInserted(pg::Tuplestore &rows) {
  if (rows.size() > 0) Save(rows, ColumnsDesc(columns_, 1), {{}, InOrder(0)});
}

void Journal::NoteInserted(pg::Tuplestore &rows, TupleDesc desc,
                           const std::vector<const TargetColumn *> &filled) {
  Places places;
  for (const TargetColumn *column : columns_) {
    auto const at = std::find_if(filled.begin(), filled.end(),
                                 [&](const TargetColumn *other) { return other->number == column->number; });
    // Behind redis_row and redis_entry.
    places.later.push_back(at == filled.end() ? -1 : static_cast<int>(at - filled.begin()) + 2);
  }
  if (rows.size() > 0) Save(rows, desc, places);
}

void Journal::NoteInserted(const std::string &relations, const std::string &condition,
                           pg::KeptStatement::Planning planning) {
  pg::Tuplestore rows;
  Select(relations, condition, planning).ExecuteInto(rows);
  NoteInserted(rows);
}

void Journal::Save(pg::Tuplestore &rows, TupleDesc desc, const Places &places) {
  SipKey const salt = RandomSipKey();
  JournalBlock block;
  bool deletes = false;
  {
    pg::SnapshotScope snapshot;  // values are fetched from TOAST after the statements
    TextSettings settings;
    ColumnTexts texts(columns_);
    pg::Context context("redis_migrate journal");
    size_t const count = columns_.size();
    pg::ForEachRow(desc, rows, [&](TupleTableSlot *slot) {
      if (block.bytes().size() >= kMostBlockBytes || block.lines() == kMostBlockLines) {
        Flush(block, salt, deletes);
        block = JournalBlock();
        deletes = false;
      }
      pg::SwitchContext in_context(context.get());
      // Of large values one at a time is in memory.
      auto text_of = [&](size_t column, int attribute, std::optional<int64> keeping_run) {
        context.Reset();
        return texts.Of(column, slot, attribute, keeping_run);
      };
      bool const has_earlier = !places.earlier.empty();
      bool const has_later = !places.later.empty() && (places.found < 0 || !slot->tts_isnull[places.found]);
      std::vector<bool> same(count, false);
      if (has_earlier && has_later) {
        bool all = true;
        for (size_t i = 0; i < count; ++i)
          all = (same[i] = texts.AreSame(i, slot, places.earlier[i], places.later[i])) && all;
        if (all) return;
      }
      deletes = deletes || !has_later;
      block.Begin((has_earlier ? JournalBlock::kHasEarlier : 0) | (has_later ? JournalBlock::kHasLater : 0));
      for (size_t i = 0; has_earlier && i < count; ++i) block.Add(text_of(i, places.earlier[i], run_));
      for (size_t i = 0; !has_earlier && i < target_.keys.size(); ++i)
        block.Add(text_of(i, places.later[i], std::nullopt));
      for (size_t i = 0; has_later && i < count; ++i) {
        if (same[i])
          block.Add(std::nullopt);
        else
          block.Add(ValueDigest(salt, text_of(i, places.later[i], std::nullopt)));
      }
    });
  }
  Flush(block, salt, deletes);
}

void Journal::Flush(JournalBlock &block, const SipKey &salt, bool deletes) {
  if (block.lines() == 0) return;
  has_deleted_ = has_deleted_ || deletes;
  std::vector<std::string> names, types;
  for (const TargetColumn *column : columns_) {
    names.push_back(column->name);
    types.push_back(BaseTypeName(*column));
  }
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.journal
                (run_id, mapping_id, target, columns, keys, salt, deletes, lines, entries, types)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10))sql",
      {SqlParam::Int8(*run_), SqlParam::Int8(mapping_.id), SqlParam::Text(mapping_.target),
       SqlParam::TextArray(names), SqlParam::Int4(static_cast<int32>(target_.keys.size())),
       SqlParam::Bytea(Bytes(reinterpret_cast<const char *>(salt.data()), sizeof salt)),
       SqlParam::Bool(deletes), SqlParam::Int4(block.lines()), SqlParam::Bytea(block.bytes()),
       SqlParam::TextArray(types)});
}

void Journal::DeleteExpired() {
  pg::AsExtensionOwner as_owner;
  for (const char *table : {"journal", "journal_insert", "journal_value"})
    // now() is the same for all rows, so that an index finds those that are old.
    Spi::ExecuteKept(
        std::string("DELETE FROM redis_migrate.") + table +
            " AS j WHERE recorded_at <= now() - $1 * interval '1 second' AND NOT "
            "EXISTS (SELECT FROM redis_migrate.undo AS u WHERE u.run_id = j.run_id AND u.state = "
            "'running')",
        {SqlParam::Int8(pg::settings::journal_retention_s)});
}

}  // namespace prm
