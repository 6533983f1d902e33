#include "store/packed_rows.h"

#include "ledger/departure.h"
#include "ledger/ledger_segments.h"
#include "mapping/expiry_columns.h"
#include "mapping/ledger_choice.h"
#include "mapping/ledger_mark.h"
#include "mapping/target_statements.h"
#include "pg/each_row.h"
#include "pg/identity.h"
#include "pg/kept_statement.h"
#include "pg/spi.h"
#include "pg/time.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::Spi;

namespace {

constexpr char kNamesName[] = "redis_names";
constexpr char kGoneName[] = "redis_gone";
constexpr char kSeenName[] = "redis_seen";

// The most rows of a batch whose hashes are held in memory, 32 bytes each.
constexpr int64 kMostHashed = 131072;

// Converts a value of redis_batch into what the target's column holds: a bigint into a narrower integer type;
// others stay as they are. False: it does not fit.
bool Narrow(Oid from, Oid to, Datum *value) {
  if (from != INT8OID || (to != INT4OID && to != INT2OID)) return true;
  int64 const integer = DatumGetInt64(*value);
  bool const fits = to == INT4OID ? integer >= PG_INT32_MIN && integer <= PG_INT32_MAX
                                  : integer >= PG_INT16_MIN && integer <= PG_INT16_MAX;
  *value =
      to == INT4OID ? Int32GetDatum(static_cast<int32>(integer)) : Int16GetDatum(static_cast<int16>(integer));
  return fits;
}

// Columns of our own relations, whose names no SET list of on_delete can mean.
std::string KeyName(size_t i) { return "redis_key_" + std::to_string(i + 1); }

}  // namespace

PackedRows::PackedRows(const Mapping &mapping, const Target &target, const MappingQuery &query)
    : mapping_(mapping),
      target_(target),
      query_(query),
      names_(ParsePattern(mapping.pattern), Expand::kNone),
      elements_(ParsePattern(mapping.pattern), Expand::kElements),
      images_(target, query),
      ledger_(mapping.id, images_.columns()) {
  KeyPattern const pattern = ParsePattern(mapping.pattern);
  LedgerChoice const choice = ChooseLedger(mapping, pattern, target, query.facts());
  if (choice.ledger != mapping.ledger || choice.reason != mapping.ledger_reason)
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the packed ledger of mapping \"" + mapping.name + "\" no longer fits target " + target.name,
        "When the mapping was defined: " + mapping.ledger_reason + ". Now: " + choice.reason + ".",
        "Undo the change, or " + HintToBeginAnew(mapping));
  RequireFittingKeyColumns(mapping, target);
  const std::vector<BatchColumn> &columns = names_.columns();
  needed_.assign(columns.size(), false);
  needed_[0] = true;
  for (const KeyColumn &key : target.keys) {
    KeyColumnSource source = {-1, images_.key_columns()[sources_.size()]};
    std::optional<std::string> const name = NameColumnOf(key.column.name, pattern, query.facts());
    for (size_t i = 0; i < columns.size(); ++i)
      if (columns[i].name == name) source.name_column = static_cast<int>(i);
    if (source.name_column >= 0) {
      needed_[static_cast<size_t>(source.name_column)] = true;
      named_.push_back(sources_.size());
    }
    all_keys_.push_back(sources_.size());
    sources_.push_back(source);
  }
  FindElementColumn();
  MakeStatements();
}

void PackedRows::MakeStatements() {
  // A foreign table or view is read by a set of keys, so the planner must be free to choose.
  auto const planning = target_.kind == TargetKind::kLocal ? pg::KeptStatement::Planning::kByIndex
                                                           : pg::KeptStatement::Planning::kAsUsual;
  std::string list, is_named, is_named_whole, is_yielded, is_gone;
  auto add = [](std::string &condition, const std::string &more) {
    condition += (condition.empty() ? "" : " AND ") + more;
  };
  for (size_t i = 0; i < target_.keys.size(); ++i) {
    const KeyColumn &key = target_.keys[i];
    std::string const column = QuoteIdentifier(key.column.name);
    list += (i == 0 ? "stored." : ", stored.") + column + " AS " + KeyName(i);
    add(is_yielded, key.Equal("found." + KeyName(i), "yielded." + column));
    add(is_gone, key.Equal("target." + column, "gone." + KeyName(i)));
    add(is_named_whole, key.Equal("stored." + column, "names." + KeyName(i)));
  }
  for (size_t const i : named_)
    add(is_named, target_.keys[i].Equal("stored." + QuoteIdentifier(target_.keys[i].column.name),
                                        "names." + KeyName(i)));
  // LATERAL and OFFSET make it one look-up in the index for each key.
  auto find_by = [&](const std::string &condition) {
    return "SELECT found.*, NULL::pg_catalog.int8, names.redis_after_ms, names.redis_until_ms FROM "
           "redis_names "
           "AS names, LATERAL (SELECT " +
           list + " FROM " + target_.name + " AS stored WHERE " + condition + " OFFSET 0) AS found";
  };
  find_.emplace(find_by(is_named), planning);
  find_elements_.emplace(find_by(is_named_whole), planning);
  find_left_.emplace(
      "SELECT found.* FROM redis_gone AS found WHERE NOT EXISTS (SELECT FROM redis_rows AS yielded WHERE " +
      is_yielded + ")");
  delete_ = MakeDeleteStatements(is_gone, planning);
}

std::unique_ptr<PackedRows::DeleteStatements> PackedRows::MakeDeleteStatements(
    const std::string &condition, pg::KeptStatement::Planning planning) const {
  std::string const is_changed = "gone.redis_image OPERATOR(pg_catalog.<>) " + ImageExpression("target");
  std::string remove = DeleteStatement(target_.name, mapping_.on_delete);
  if (mapping_.on_expire)
    remove = DepartureStatement(
        mapping_, target_.name, ExpiryColumns(query_.facts()),
        {"redis_gone AS gone", condition, "gone.redis_after_ms", "gone.redis_until_ms", is_changed});
  else if (mapping_.on_delete == "delete")
    remove = "WITH deleted AS (" + remove + " USING redis_gone AS gone WHERE " + condition + " RETURNING " +
             is_changed +
             " AS is_changed) SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE is_changed) FROM "
             "deleted";
  else
    remove += " FROM redis_gone AS gone WHERE " + condition;
  return std::unique_ptr<DeleteStatements>(new DeleteStatements{
      condition, planning,
      pg::KeptStatement("SELECT pg_catalog.count(*) FROM redis_gone AS gone, " + target_.name +
                            " AS target WHERE " + condition + " AND " + is_changed,
                        planning),
      pg::KeptStatement(std::move(remove), planning)});
}

void PackedRows::Keep(pg::Tuplestore &rows, int first, const std::vector<Fate> &fates, bool takes_changed,
                      bool in_journal, std::optional<int64> run_id, std::optional<int64> seen_run) {
  auto const inserts = std::count(fates.begin(), fates.end(), Fate::kInserted);
  bool const updates = std::count(fates.begin(), fates.end(), Fate::kUpdated) > 0;
  bool const claims = std::count(fates.begin(), fates.end(), Fate::kClaimed) > 0;
  if (inserts == 0 && !updates && !claims && !seen_run) return;
  bool const stores_otherwise = (updates || claims) && mapping_.on_conflict != "update";
  std::optional<std::map<int, uint64>> stored;
  if (stores_otherwise || ((inserts > 0 || updates) && HasTriggers(target_))) {
    pg::NamedRows named(kRowsName, query_.row_desc(), rows.get());
    stored = images_.ReadStored();
  }
  PackedLedger::News news;
  news.takes_changed = takes_changed;
  news.in_journal = in_journal;
  news.inserted.reserve(static_cast<size_t>(inserts));
  std::vector<PackedItem> seen;
  images_.Clear();
  pg::ForEachRow(query_.row_desc(), rows, [&](TupleTableSlot *slot) {
    int const row = DatumGetInt32(slot->tts_values[0]);
    Fate const fate = fates[static_cast<size_t>(row - first)];
    if (fate == Fate::kNothing && !seen_run) return;
    PackedItem item = images_.ItemOf(slot, fate != Fate::kNothing && !stored);
    if (seen_run) seen.push_back(item);
    if (fate == Fate::kNothing) return;
    if (stored)
      if (auto image = stored->find(row); image != stored->end()) item.image = image->second;
    if (auto prior = priors_.find(row); fate == Fate::kUpdated && prior != priors_.end())
      item.prior = prior->second;
    (fate == Fate::kInserted ? news.inserted : news.changed).push_back(item);
  });
  priors_.clear();
  ledger_.Append(run_id, std::move(news));
  if (seen_run) PackedLedger::NoteSeen(mapping_.id, *seen_run, std::move(seen));
}

// The key columns as the target has them, the image that was stored (NULL: unknown), and when the key became
// what it is.
TupleDesc PackedRows::KeysDesc(const std::vector<size_t> &keys, bool with_image) const {
  const size_t *const first = keys.data();
  size_t const count = keys.size();
  return pg::Call([&] {
    TupleDesc desc = CreateTemplateTupleDesc(static_cast<int>(count) + (with_image ? 3 : 2));
    AttrNumber number = 0;
    for (size_t i = 0; i < count; ++i) {
      const KeyColumn &key = target_.keys[first[i]];
      char name[NAMEDATALEN];
      snprintf(name, sizeof name, "redis_key_%zu", first[i] + 1);
      TupleDescInitEntry(desc, ++number, name, key.column.type, -1, 0);
      TupleDescInitEntryCollation(desc, number, key.column.collation);
    }
    if (with_image) TupleDescInitEntry(desc, ++number, "redis_image", INT8OID, -1, 0);
    TupleDescInitEntry(desc, ++number, "redis_after_ms", INT8OID, -1, 0);
    TupleDescInitEntry(desc, ++number, "redis_until_ms", INT8OID, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
}

TupleDesc PackedRows::GoneDesc() const {
  std::vector<size_t> keys;
  for (size_t i = 0; i < target_.keys.size(); ++i) keys.push_back(i);
  return KeysDesc(keys, true);
}

void PackedRows::FillNames(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                           TupleDesc desc, pg::Tuplestore &names) {
  std::optional<std::vector<std::string>> const any_type;
  TupleDesc batch_desc = names_.MakeTupleDesc();
  pg::Tuplestore batch;
  BatchSink sink(batch_desc, batch);
  FillBatch(names_, needed_, entries, which, NameOptions(any_type), sink);
  std::vector<int> columns;
  for (size_t const i : named_) columns.push_back(sources_[i].name_column);
  PutNames(entries, batch_desc, batch, named_, columns, desc, names);
}

// A key whose name does not fit these columns has no row.
FillOptions PackedRows::NameOptions(const std::optional<std::vector<std::string>> &any_type) const {
  FillOptions options = {any_type};
  options.one_spelling = mapping_.exclusive && !HasKeyAmongKeyColumns(mapping_, query_.facts());
  return options;
}

void PackedRows::PutNames(const std::vector<const source::Entry *> &entries, TupleDesc batch_desc,
                          pg::Tuplestore &batch, const std::vector<size_t> &keys,
                          const std::vector<int> &columns, TupleDesc desc, pg::Tuplestore &names) {
  int64 const now_ms = pg::NowMs();
  pg::ForEachRow(batch_desc, batch, [&](TupleTableSlot *slot) {
    std::vector<Datum> values;
    for (size_t k = 0; k < keys.size(); ++k) {
      int const column = columns[k];
      if (slot->tts_isnull[column]) return;
      values.push_back(slot->tts_values[column]);
      if (!Narrow(TupleDescAttr(batch_desc, column)->atttypid, target_.keys[keys[k]].column.type,
                  &values.back()))
        return;
    }
    const source::TimeSpan &time = entries[static_cast<size_t>(DatumGetInt32(slot->tts_values[0]))]->changed;
    values.push_back(Int64GetDatum(time.until_ms != 0 ? time.after_ms : now_ms));
    values.push_back(Int64GetDatum(time.until_ms != 0 ? time.until_ms : now_ms));
    auto nulls = std::make_unique<bool[]>(values.size());
    names.Put(desc, values.data(), nulls.get());
  });
}

void PackedRows::FindStored(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                            pg::Tuplestore *yielded, Stored &stored) {
  TupleDesc names_desc = KeysDesc(named_, false);
  pg::Tuplestore names;
  FillNames(entries, which, names_desc, names);
  FindNamed(names_desc, names, *find_, yielded, stored);
}

void PackedRows::FindNamed(TupleDesc desc, pg::Tuplestore &names, pg::KeptStatement &find,
                           pg::Tuplestore *yielded, Stored &stored) {
  pg::NamedRows named(kNamesName, desc, names.get());
  // As many elements of a huge collection may be gone.
  if (yielded == nullptr) {
    find.ExecuteInto(stored.keys);
  } else {
    pg::Tuplestore found;
    find.ExecuteInto(found);
    if (found.size() == 0) return;
    if (yielded->size() <= kMostHashed) return FindLeft(found, *yielded, stored);
    pg::NamedRows found_rows(kGoneName, GoneDesc(), found.get());
    pg::NamedRows yielded_rows(kRowsName, query_.row_desc(), yielded->get());
    find_left_->ExecuteInto(stored.keys);
  }
  hasher_.Clear();
  pg::ForEachRow(GoneDesc(), stored.keys, [&](TupleTableSlot *slot) {
    for (size_t i = 0; i < target_.keys.size(); ++i)
      hasher_.Add(target_.keys[i].column.type, slot->tts_values[i], slot->tts_isnull[i]);
    stored.items.push_back({hasher_.Finish()});
  });
}

// Keeps those of the rows found that are not yielded. Compares hashes: a hash join would take several times
// as long.
void PackedRows::FindLeft(pg::Tuplestore &found, pg::Tuplestore &yielded, Stored &stored) {
  HashSet hashes;
  hashes.Reserve(static_cast<size_t>(yielded.size()));
  hasher_.Clear();
  pg::ForEachRow(query_.row_desc(), yielded, [&](TupleTableSlot *slot) {
    for (size_t i = 0; i < sources_.size(); ++i) {
      int const column = sources_[i].row_column;
      hasher_.Add(target_.keys[i].column.type, slot->tts_values[column], slot->tts_isnull[column]);
    }
    hashes.Insert(hasher_.Finish());
  });
  pg::ForEachRow(GoneDesc(), found, [&](TupleTableSlot *slot) {
    for (size_t i = 0; i < target_.keys.size(); ++i)
      hasher_.Add(target_.keys[i].column.type, slot->tts_values[i], slot->tts_isnull[i]);
    Hash128 const hash = hasher_.Finish();
    if (hashes.Contains(hash)) return;
    stored.keys.Put(slot);
    stored.items.push_back({hash});
  });
}

// Deletes the rows of the target that `gone` names, or changes them as on_delete says. Counts them, and those
// that were no longer as stored.
void PackedRows::DeleteGone(TupleDesc desc, pg::Tuplestore &gone, DeleteStatements &statements,
                            RowCounts &counts) {
  if (gone.size() == 0) return;
  pg::NamedRows named(kGoneName, desc, gone.get());
  if (journal_ == nullptr) return ExecuteDelete(statements, counts);
  if (mapping_.on_expire || mapping_.on_delete != "delete")
    return journal_->Around("redis_gone AS gone", statements.condition, statements.planning,
                            [&] { ExecuteDelete(statements, counts); });
  journal_->AroundDelete("redis_gone AS gone", statements.condition, statements.planning, [&] {
    int64 const before = counts.deleted;
    ExecuteDelete(statements, counts);
    return counts.deleted - before;
  });
}

void PackedRows::ExecuteDelete(DeleteStatements &statements, RowCounts &counts) {
  if (mapping_.on_expire) return CountDeparted(statements.remove.Execute()[0], counts);
  if (mapping_.on_delete == "delete") {
    pg::Rows const deleted = statements.remove.Execute();
    counts.deleted += deleted[0].Int8(0);
    counts.changed_here += deleted[0].Int8(1);
    return;
  }
  counts.changed_here += statements.count_changed.Execute()[0].Int8(0);
  counts.deleted += static_cast<int64>(statements.remove.Execute().processed());
}

void PackedRows::DeleteRowsOf(const std::vector<const source::Entry *> &entries,
                              const std::vector<int> &which, pg::Tuplestore *yielded,
                              std::optional<int64> run_id, RowCounts &counts) {
  if (which.empty()) return;
  Stored stored;
  FindStored(entries, which, yielded, stored);
  DeleteStored(stored, run_id, counts);
}

void PackedRows::DeleteStored(Stored &stored, std::optional<int64> run_id, RowCounts &counts) {
  if (stored.items.empty()) return;
  PackedLedger::News news;
  news.removed = ledger_.FindOwn(stored.items, &counts.ledger_bytes);
  if (news.removed.empty() && !mapping_.exclusive) return;
  TupleDesc desc = GoneDesc();
  pg::Tuplestore gone;
  size_t number = 0;
  pg::ForEachRow(desc, stored.keys, [&](TupleTableSlot *slot) {
    const PackedItem &item = stored.items[number++];
    auto const own = std::lower_bound(news.removed.begin(), news.removed.end(), item);
    bool const is_known = own != news.removed.end() && own->hash == item.hash;
    if (!is_known && !mapping_.exclusive) return;
    std::vector<Datum> values(slot->tts_values, slot->tts_values + desc->natts);
    auto nulls = std::make_unique<bool[]>(values.size());
    std::copy(slot->tts_isnull, slot->tts_isnull + desc->natts, nulls.get());
    uint64 const image = is_known ? own->image : 0;
    size_t const image_column = target_.keys.size();
    values[image_column] = Int64GetDatum(static_cast<int64>(image));
    nulls[image_column] = image == 0;
    gone.Put(desc, values.data(), nulls.get());
  });
  DeleteGone(desc, gone, *delete_, counts);
  ledger_.Append(run_id, std::move(news));
}

void PackedRows::NoteSeenRowsOf(const std::vector<const source::Entry *> &entries,
                                const std::vector<int> &which, int64 run_id) {
  Stored stored;
  FindStored(entries, which, nullptr, stored);
  PackedLedger::NoteSeen(mapping_.id, run_id, std::move(stored.items));
}

void PackedRows::ReadUnseen(int64 run_id, bool takes, Unseen &unseen) {
  TupleDesc desc = unseen.desc = pg::Call([&] {
    TupleDesc made = CreateTemplateTupleDesc(4);
    TupleDescInitEntry(made, 1, "redis_hash", BYTEAOID, -1, 0);
    TupleDescInitEntry(made, 2, "redis_image", INT8OID, -1, 0);
    TupleDescInitEntry(made, 3, "redis_after_ms", INT8OID, -1, 0);
    TupleDescInitEntry(made, 4, "redis_until_ms", INT8OID, -1, 0);
    TupleDescFinalize(made);
    return made;
  });
  Datum const now_ms = Int64GetDatum(pg::NowMs());
  auto put = [&](pg::Tuplestore &rows, const PackedItem &item) {
    Datum values[] = {pg::ByteaDatum(Pack({item}, Packing::kHashes)),
                      Int64GetDatum(static_cast<int64>(item.image)), now_ms, now_ms};
    bool nulls[] = {false, item.image == 0, false, false};
    rows.Put(desc, values, nulls);
    pfree(DatumGetPointer(values[0]));
  };
  ledger_.VisitUnseen(
      run_id, takes, [&](const PackedItem &item) { put(unseen.gone, item); },
      [&](const PackedItem &item) {
        if (mapping_.exclusive) put(unseen.seen, item);
      });
}

// The condition that a row of an exclusive mapping is neither among redis_seen nor among redis_gone.
std::string PackedRows::IsUnseen() const {
  std::string const is_row = "redis_hash OPERATOR(pg_catalog.=) " + RowHashExpression(target_, "target");
  return "NOT EXISTS (SELECT FROM redis_seen AS seen WHERE seen." + is_row +
         ") AND NOT EXISTS (SELECT FROM redis_gone AS gone WHERE gone." + is_row + ")";
}

void PackedRows::FindUnseen(int64 run_id, const std::string &row_key, pg::Tuplestore &rows) {
  Unseen unseen;
  ReadUnseen(run_id, false, unseen);
  pg::NamedRows named_gone(kGoneName, unseen.desc, unseen.gone.get());
  pg::NamedRows named_seen(kSeenName, unseen.desc, unseen.seen.get());
  std::string const hash = RowHashExpression(target_, "target");
  std::string const select = "SELECT " + row_key + ", " + hash + " FROM " + target_.name + " AS target";
  std::string sql = select + ", redis_gone AS gone WHERE gone.redis_hash OPERATOR(pg_catalog.=) " + hash;
  if (mapping_.exclusive) sql += " UNION ALL " + select + " WHERE " + IsUnseen();
  pg::KeptStatement(sql).ExecuteInto(rows);
}

void PackedRows::DeleteUnseen(int64 run_id, RowCounts &counts) {
  Unseen unseen;
  ReadUnseen(run_id, true, unseen);
  auto const statements =
      MakeDeleteStatements("gone.redis_hash OPERATOR(pg_catalog.=) " + RowHashExpression(target_, "target"),
                           pg::KeptStatement::Planning::kAsUsual);
  DeleteGone(unseen.desc, unseen.gone, *statements, counts);
  if (!mapping_.exclusive) return;
  // Rows that have just been marked are not marked again.
  pg::NamedRows named(kSeenName, unseen.desc, unseen.seen.get());
  pg::NamedRows named_gone(kGoneName, unseen.desc, unseen.gone.get());
  DeleteWhere(mapping_, target_.name, ExpiryColumns(query_.facts()), IsUnseen(), *journal_, counts);
}

}  // namespace prm
