#include "undo/target_undo.h"

#include <numeric>

#include "ledger/packed_column.h"
#include "mapping/mapping_settings.h"
#include "mapping/target_statements.h"
#include "pg/each_row.h"
#include "pg/identity.h"
#include "pg/transaction.h"
#include "pg/wait.h"
#include "write/journal.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::Spi;
using pg::SqlParam;

namespace {

// Whether equal values may have different texts.
bool HasSpellings(const KeyColumn &key) {
  Oid const collation = OidIsValid(key.collation) ? key.collation : key.column.collation;
  Oid const declared = key.column.type;
  return pg::Call([&] {
    Oid const type = getBaseType(declared);
    switch (type) {
      case INT2OID:
      case INT4OID:
      case INT8OID:
      case UUIDOID:
      case BYTEAOID:
      case BOOLOID:
      case DATEOID:
      case TIMESTAMPOID:
      case TIMESTAMPTZOID:
        return false;
      case TEXTOID:
      case VARCHAROID:
        return OidIsValid(collation) && !get_collation_isdeterministic(collation);
      default:
        return get_typtype(type) != TYPTYPE_ENUM;
    }
  });
}

bool AreSameStates(const std::optional<RowText> &a, const std::optional<RowText> &b) {
  return a && b ? AreSameTexts(*a, *b) : !a && !b;
}

}  // namespace

std::vector<PackedItem> TargetUndo::HashesOf(const pg::Rows &rows, int column) {
  std::vector<PackedItem> items;
  for (uint64 i = 0; i < rows.size(); ++i)
    UnpackOrThrow(pg::DatumBytes(rows[i].Value(column)), Packing::kHashes, items);
  return items;
}

TargetUndo::TargetUndo(const Mapping &mapping, bool force, bool claims)
    : mapping_(mapping), force_(force), claims_(claims), target_(LoadTarget(mapping_)) {
  key_count_ = target_.keys.size();
  hides_rows_ =
      Spi::Execute("SELECT pg_catalog.row_security_active($1)", {SqlParam::OidOf(target_.oid)})[0].Bool(0);
  if (mapping_.ledger != "packed") return;
  shape_.emplace(ParsePattern(mapping_.pattern), ExpandFromName(mapping_.expand));
  query_.emplace(mapping_, *shape_, target_);
  packed_.emplace(mapping_, target_, *query_);
}

TargetUndo::~TargetUndo() = default;

int64 TargetUndo::image_columns() {
  if (packed_) return packed_->ledger().columns();
  if (!images_) {
    MappingSettings settings(mapping_);
    shape_.emplace(ParsePattern(mapping_.pattern), ExpandFromName(mapping_.expand));
    query_.emplace(mapping_, *shape_, target_);
    images_.emplace(target_, *query_);
  }
  return images_->columns();
}

std::string TargetUndo::ImageExpression(const std::string &alias) const {
  return packed_ ? packed_->ImageExpression(alias) : images_->Expression(alias);
}

std::string TargetUndo::IsRow(const std::string &alias) const {
  std::string condition;
  for (const KeyColumn &key : target_.keys) {
    std::string const name = QuoteIdentifier(key.column.name);
    condition += (condition.empty() ? "" : " AND ") + key.Equal(alias + "." + name, "offered." + name);
  }
  if (CanAskForFirstKey(target_)) {
    std::string const name = QuoteIdentifier(target_.keys[0].column.name);
    condition += " AND " + alias + "." + name + " " + target_.keys[0].Operator() +
                 " ANY (ARRAY(SELECT DISTINCT asked." + name + " FROM redis_undo AS asked))";
  }
  return condition;
}

// redis_row and the columns, or only the key columns; and perhaps one more.
TupleDesc TargetUndo::Desc(bool keys_only, const char *more, Oid more_type) const {
  std::vector<const TargetColumn *> columns;
  if (keys_only)
    for (const KeyColumn &key : target_.keys) columns.push_back(&key.column);
  else
    for (const Column &column : columns_) columns.push_back(column.column);
  const TargetColumn *const *const data = columns.data();
  int const count = static_cast<int>(columns.size());
  return pg::Call([&] {
    TupleDesc desc = CreateTemplateTupleDesc(count + (more != nullptr ? 2 : 1));
    TupleDescInitEntry(desc, 1, "redis_row", INT4OID, -1, 0);
    for (int i = 0; i < count; ++i) {
      auto const number = static_cast<AttrNumber>(i + 2);
      TupleDescInitEntry(desc, number, data[i]->name.c_str(), data[i]->type, data[i]->typmod, 0);
      TupleDescInitEntryCollation(desc, number, data[i]->collation);
    }
    if (more != nullptr) TupleDescInitEntry(desc, static_cast<AttrNumber>(count + 2), more, more_type, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
}

void TargetUndo::PutKeys(int number, const RowText &key, pg::Tuplestore &rows) const {
  TextSettings settings;
  std::vector<Datum> values = {Int32GetDatum(number)};
  auto nulls = std::make_unique<bool[]>(key_count_ + 1);
  nulls[0] = false;
  for (size_t i = 0; i < key_count_; ++i) {
    nulls[i + 1] = !key[i];
    values.push_back(key[i] ? ValueOfText(target_.keys[i].column, "", *key[i]) : Datum{0});
  }
  rows.Put(Desc(true, nullptr, InvalidOid), values.data(), nulls.get());
}

void TargetUndo::Execute(const std::string &sql, int64 expected) {
  pg::KeptStatement statement(sql, target_.kind == TargetKind::kLocal
                                       ? pg::KeptStatement::Planning::kByIndex
                                       : pg::KeptStatement::Planning::kAsUsual);
  if (static_cast<int64>(statement.Execute().processed()) != expected) throw RowsNotStored();
}

RowText TargetUndo::CommonOf(const RowText &texts) const {
  RowText common;
  for (const Column &column : columns_) common.push_back(texts[column.place]);
  return common;
}

// Whether the row still is as the change left it.
bool TargetUndo::IsAsLeft(const JournalEntry &entry, const std::optional<RowText> &state) const {
  const JournalLine &line = entry.line;
  if (!line.later || !state) return !line.later && !state;
  for (size_t i = 0; i < columns_.size(); ++i) {
    const std::optional<std::string> &later = (*line.later)[columns_[i].place];
    const std::optional<std::string> &now = (*state)[i];
    if (!later) {
      if (!IsSameText(now, (*line.earlier)[columns_[i].place])) return false;
    } else if (ValueDigest(entry.salt, now ? std::optional<Bytes>(Comparable(*now)) : std::nullopt) !=
               *later) {
      return false;
    }
  }
  return true;
}

// Takes the row back from change to change, beginning with `state`, as it is now. False: it was left alone.
bool TargetUndo::Decide(const Row &row, std::optional<RowText> &state, UndoFindings &findings) const {
  for (const JournalEntry *entry : row.entries) {
    std::optional<RowText> earlier;
    if (entry->line.earlier) earlier = CommonOf(*entry->line.earlier);
    bool const may_be_hidden = hides_rows_ && !state && !earlier;
    if (may_be_hidden || (!force_ && !IsAsLeft(*entry, state) && !AreSameStates(state, earlier))) {
      findings.left.push_back({row.key, "", may_be_hidden ? kHiddenReason : kChangedReason});
      return false;
    }
    state = std::move(earlier);
    findings.undone.push_back(entry->number);
  }
  return true;
}

void TargetUndo::TryRows(const std::vector<const Row *> &rows, UndoFindings &findings) {
  size_t const count = rows.size();
  pg::Tuplestore keys;
  TupleDesc const keys_desc = Desc(true, nullptr, InvalidOid);
  for (size_t i = 0; i < count; ++i) PutKeys(static_cast<int>(i), rows[i]->key, keys);
  std::vector<std::optional<RowText>> now(count);
  std::vector<int64> images(count, 0);
  std::vector<const TargetColumn *> columns;
  for (const Column &column : columns_) columns.push_back(column.column);
  {
    pg::NamedRows named(kUndoName, keys_desc, keys.get());
    pg::Tuplestore found;
    pg::KeptStatement find("SELECT offered.redis_row, " + ColumnList(columns, "target") + ", " +
                               (packed_ ? packed_->ImageExpression("target") : "0::pg_catalog.int8") +
                               " FROM redis_undo AS offered, " + target_.name + " AS target WHERE " +
                               IsRow("target") +
                               (target_.kind == TargetKind::kLocal ? " FOR UPDATE OF target" : ""),
                           target_.kind == TargetKind::kLocal ? pg::KeptStatement::Planning::kByIndex
                                                              : pg::KeptStatement::Planning::kAsUsual);
    find.ExecuteInto(found);
    pg::SnapshotScope snapshot;
    TextSettings settings;
    int const width = static_cast<int>(columns_.size());
    ColumnTexts texts(columns);
    pg::ForEachRow(Desc(false, "redis_image", INT8OID), found, [&](TupleTableSlot *slot) {
      auto const row = static_cast<size_t>(DatumGetInt32(slot->tts_values[0]));
      now[row] = TextsOf(texts, slot, 1, width);
      images[row] = DatumGetInt64(slot->tts_values[width + 1]);
    });
  }
  pg::Tuplestore removed, put_back, restored;
  bool respells = false;  // key columns, with equal values of other texts
  TupleDesc const desc = Desc(false, nullptr, InvalidOid);
  for (size_t i = 0; i < count; ++i) {
    std::optional<RowText> state = now[i];
    bool const is_undone = Decide(*rows[i], state, findings);
    if (AreSameStates(state, now[i])) {
      if (is_undone) ++findings.counts.already;
      continue;
    }
    if (state && now[i])
      respells = respells || !std::equal(state->begin(), state->begin() + static_cast<ptrdiff_t>(key_count_),
                                         now[i]->begin());
    int const number = static_cast<int>(i);
    if (!state) {
      PutKeys(number, rows[i]->key, removed);
      continue;
    }
    TextSettings settings;
    pg::Context row_context("redis_migrate row");  // a large value is there once at a time
    pg::SwitchContext in_context(row_context.get());
    std::vector<Datum> values = {Int32GetDatum(number)};
    auto nulls = std::make_unique<bool[]>(columns_.size() + 1);
    nulls[0] = false;
    for (size_t k = 0; k < columns_.size(); ++k) {
      nulls[k + 1] = !(*state)[k];
      values.push_back((*state)[k] ? ValueOfText(*columns_[k].column, columns_[k].was, *(*state)[k])
                                   : Datum{0});
    }
    (now[i] ? restored : put_back).Put(desc, values.data(), nulls.get());
  }
  // First go rows that others may take the place of.
  PackedLedger::News news;
  auto note = [&](const std::string &from, std::vector<PackedItem> &items) {
    if (!packed_) return;
    pg::Rows const hashes =
        Spi::Execute("SELECT offered.redis_row, " + RowHashExpression(target_, "offered") + ", " + from);
    for (uint64 i = 0; i < hashes.size(); ++i) {
      PackedItem item;
      std::vector<PackedItem> unpacked;
      UnpackOrThrow(pg::DatumBytes(hashes[i].Value(1)), Packing::kHashes, unpacked);
      item.hash = unpacked.front().hash;
      item.image = static_cast<uint64>(hashes[i].Int8(2));
      item.prior = static_cast<uint64>(images[static_cast<size_t>(hashes[i].Int4(0))]);
      items.push_back(item);
    }
  };
  std::string const now_stored = (packed_ ? packed_->ImageExpression("target") : "0") +
                                 " FROM redis_undo AS offered, " + target_.name + " AS target WHERE " +
                                 IsRow("target");
  if (removed.size() > 0) {
    pg::NamedRows named(kUndoName, keys_desc, removed.get());
    Execute("DELETE FROM " + target_.name + " AS target USING redis_undo AS offered WHERE " + IsRow("target"),
            removed.size());
    note("0::pg_catalog.int8 FROM redis_undo AS offered", news.removed);
    StrikeOff(nullptr);
  }
  if (restored.size() > 0) {
    std::string assignments;
    for (size_t k = respells ? 0 : key_count_; k < columns_.size(); ++k) {
      if (columns_[k].column->identity_always) continue;
      std::string const name = QuoteIdentifier(columns_[k].column->name);
      assignments += (assignments.empty() ? "" : ", ") + name + " = offered." + name;
    }
    pg::NamedRows named(kUndoName, desc, restored.get());
    Execute("UPDATE " + target_.name + " AS target SET " + assignments +
                " FROM redis_undo AS offered WHERE " + IsRow("target"),
            restored.size());
    note(now_stored, claims_ ? news.removed : news.changed);
  }
  if (put_back.size() > 0) {
    std::string names;
    bool overriding = false;
    for (const Column &column : columns_) {
      names += (names.empty() ? "" : ", ") + QuoteIdentifier(column.column->name);
      overriding = overriding || column.column->identity_always;
    }
    pg::NamedRows named(kUndoName, desc, put_back.get());
    Execute("INSERT INTO " + target_.name + " (" + names + ")" +
                (overriding ? " OVERRIDING SYSTEM VALUE" : "") + " SELECT " + ColumnList(columns, "offered") +
                " FROM redis_undo AS offered",
            put_back.size());
    note(now_stored, news.inserted);
  }
  findings.counts.removed += removed.size();
  findings.counts.restored += restored.size();
  findings.counts.put_back += put_back.size();
  if (packed_) packed_->ledger().Append(std::nullopt, std::move(news));
}

// Strikes the rows of redis_undo, or those of them that were removed, off a full ledger.
void TargetUndo::StrikeOff(const std::vector<PackedItem> *removed) {
  if (mapping_.ledger != "full") return;
  Ledger ledger(mapping_, target_);
  std::vector<std::string> row_keys;
  {
    CanonicalText canonical;
    pg::Rows const found =
        Spi::Execute("SELECT " + ledger.RowKeyExpression("offered") + ", " +
                     RowHashExpression(target_, "offered") + " FROM redis_undo AS offered");
    std::vector<PackedItem> const hashes = HashesOf(found, 1);
    for (uint64 i = 0; i < found.size(); ++i)
      if (removed == nullptr || std::binary_search(removed->begin(), removed->end(), hashes[i]))
        row_keys.push_back(found[i].Text(0));
  }
  ledger.StrikeOff(row_keys);
}

// Runs `body` in a subtransaction, which is kept or only tried. Returns the error of a row.
std::optional<TargetUndo::Refusal> TargetUndo::InTrial(bool keep, const std::function<void()> &body) {
  // An executor that an error ends leaves its memory.
  pg::Context context("redis_migrate try");
  pg::SwitchContext in_context(context.get());
  try {
    if (keep)
      pg::InSubtransaction(body);
    else
      pg::InRolledBackSubtransaction(body);
  } catch (const RowsNotStored &) {
    return Refusal{"XX000", "a trigger, rule or policy of the target kept the row from being stored"};
  } catch (const pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    return Refusal{pg::SqlStateText(error.sqlstate()), error.what()};
  }
  return std::nullopt;
}

// Undoes all of these rows that can be. Tries that are rolled back find the others, so that few
// subtransactions are kept however many there are.
void TargetUndo::Divide(const std::vector<size_t> &which, const Attempt &attempt, const Refuse &refuse) {
  std::optional<Refusal> const refusal = attempt(which, true);
  if (!refusal) return;
  if (which.size() == 1) return refuse(which[0], *refusal);
  std::vector<size_t> good;
  FindGood(which, attempt, refuse, good);
  if (good.size() < which.size()) {
    if (!good.empty()) Divide(good, attempt, refuse);
    return;
  }
  // They only fail together.
  auto const middle = good.begin() + static_cast<ptrdiff_t>(good.size() / 2);
  Divide({good.begin(), middle}, attempt, refuse);
  Divide({middle, good.end()}, attempt, refuse);
}

// Halves rows that fail, until each that does is alone.
void TargetUndo::FindGood(const std::vector<size_t> &which, const Attempt &attempt, const Refuse &refuse,
                          std::vector<size_t> &good) {
  auto const middle = which.begin() + static_cast<ptrdiff_t>(which.size() / 2);
  for (const std::vector<size_t> &half :
       {std::vector<size_t>(which.begin(), middle), std::vector<size_t>(middle, which.end())}) {
    std::optional<Refusal> const refusal = attempt(half, false);
    if (!refusal)
      good.insert(good.end(), half.begin(), half.end());
    else if (half.size() == 1)
      refuse(half[0], *refusal);
    else
      FindGood(half, attempt, refuse, good);
  }
}

void TargetUndo::UndoRows(const std::vector<Row> &rows, UndoFindings &findings) {
  std::vector<size_t> all(rows.size());
  std::iota(all.begin(), all.end(), size_t{0});
  Divide(
      all,
      [&](const std::vector<size_t> &which, bool keep) {
        std::vector<const Row *> chosen;
        for (size_t const row : which) chosen.push_back(&rows[row]);
        UndoFindings found;
        auto refusal = InTrial(keep, [&] { TryRows(chosen, found); });
        if (keep && !refusal) {
          ++found.subtransactions;
          findings.Add(std::move(found));
        }
        return refusal;
      },
      [&](size_t row, const Refusal &refusal) {
        findings.left.push_back({rows[row].key, refusal.sqlstate, refusal.reason});
      });
}

UndoFindings TargetUndo::UndoEntries(const std::vector<std::string> &columns,
                                     const std::vector<std::string> &types, size_t keys,
                                     const std::vector<JournalEntry> &entries,
                                     const std::function<bool(const RowText &)> &is_left) {
  UndoFindings findings;
  MappingSettings settings(mapping_);
  columns_.clear();
  std::string misfit;
  for (size_t i = 0; i < columns.size(); ++i) {
    const TargetColumn *const column = target_.Find(columns[i]);
    if (column == nullptr || column->generated) continue;
    columns_.push_back({column, i, types[i]});
    // Which text its bytes would be nobody knows.
    if ((types[i] == kBytesType) != (BaseTypeName(*column) == kBytesType))
      misfit = "column \"" + column->name + "\" was of type " + types[i] + " then";
  }
  if (keys != key_count_) misfit = "the mapping has other key columns now";
  for (size_t i = 0; i < key_count_; ++i)
    if (i >= columns.size() || columns[i] != target_.keys[i].column.name)
      misfit = "the mapping has other key columns now";
  std::vector<Row> rows;
  std::map<RowText, size_t> places;
  for (const JournalEntry &entry : entries) {
    const RowText &key = entry.line.key;
    if (is_left(key)) continue;
    auto const [place, is_new] = places.emplace(key, rows.size());
    if (is_new) rows.push_back({key, {}});
    rows[place->second].entries.push_back(&entry);
  }
  if (!misfit.empty()) {
    for (const Row &row : rows) findings.left.push_back({row.key, "", misfit});
    return findings;
  }
  MergeEqualKeys(rows);
  if (!rows.empty()) UndoRows(rows, findings);
  return findings;
}

// Entries of one row may spell its key differently: it was deleted as 'A' and inserted as 'a'.
void TargetUndo::MergeEqualKeys(std::vector<Row> &rows) {
  if (rows.size() < 2 || std::none_of(target_.keys.begin(), target_.keys.end(), HasSpellings)) return;
  pg::Tuplestore keys;
  for (size_t i = 0; i < rows.size(); ++i) PutKeys(static_cast<int>(i), rows[i].key, keys);
  pg::NamedRows named(kUndoName, Desc(true, nullptr, InvalidOid), keys.get(),
                      static_cast<double>(keys.size()));
  std::string is_same;
  for (const KeyColumn &key : target_.keys) {
    std::string const name = QuoteIdentifier(key.column.name);
    is_same += " AND " + key.Equal("one." + name, "other." + name);
  }
  pg::Rows const same = Spi::Execute(
      "SELECT one.redis_row, pg_catalog.min(other.redis_row) FROM redis_undo AS one, redis_undo AS other "
      "WHERE one.redis_row OPERATOR(pg_catalog.>=) other.redis_row" +
      is_same + " GROUP BY one.redis_row");
  for (uint64 i = 0; i < same.size(); ++i) {
    Row &row = rows[static_cast<size_t>(same[i].Int4(0))];
    Row &first = rows[static_cast<size_t>(same[i].Int4(1))];
    if (&row == &first) continue;
    first.entries.insert(first.entries.end(), row.entries.begin(), row.entries.end());
    row.entries.clear();
  }
  rows.erase(std::remove_if(rows.begin(), rows.end(), [](const Row &row) { return row.entries.empty(); }),
             rows.end());
  for (Row &row : rows)
    std::sort(row.entries.begin(), row.entries.end(),
              [](const JournalEntry *a, const JournalEntry *b) { return a->number < b->number; });
}

}  // namespace prm
