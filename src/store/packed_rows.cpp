#include "store/packed_rows.h"

#include "mapping/ledger_choice.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;

namespace {

constexpr char kKeysName[] = "redis_keys";

template <typename Visit>
void ForEachRow(TupleDesc desc, pg::Tuplestore &rows, Visit visit) {
  TupleTableSlot *slot = pg::Call([&] {
    tuplestore_rescan(rows.get());
    return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
  });
  while (pg::Call([&] { return tuplestore_gettupleslot(rows.get(), true, false, slot); })) {
    pg::Call([&] { slot_getallattrs(slot); });
    visit(slot);
  }
  pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
}

// A value of redis_batch as the target's column holds it: a bigint of a narrower integer type, all others as
// they are. False: it does not fit.
bool Narrow(Oid from, Oid to, Datum *value) {
  if (from != INT8OID || (to != INT4OID && to != INT2OID)) return true;
  int64 const integer = DatumGetInt64(*value);
  bool const fits = to == INT4OID ? integer >= PG_INT32_MIN && integer <= PG_INT32_MAX
                                  : integer >= PG_INT16_MIN && integer <= PG_INT16_MAX;
  *value =
      to == INT4OID ? Int32GetDatum(static_cast<int32>(integer)) : Int16GetDatum(static_cast<int16>(integer));
  return fits;
}

}  // namespace

PackedRows::PackedRows(const Mapping &mapping, const BatchShape &shape, const Target &target,
                       const MappingQuery &query)
    : mapping_(mapping), shape_(shape), target_(target), query_(query), ledger_(mapping.id) {
  LedgerChoice const choice = ChooseLedger(mapping, ParsePattern(mapping.pattern), target, query.facts());
  if (choice.ledger != mapping.ledger || choice.reason != mapping.ledger_reason)
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the packed ledger of mapping \"" + mapping.name + "\" no longer fits target " + target.name,
        "When the mapping was defined: " + mapping.ledger_reason + ". Now: " + choice.reason + ".",
        "Call redis_migrate.alter_mapping for the mapping, which chooses the ledger anew.");
  const std::vector<BatchColumn> &columns = shape.columns();
  needed_.assign(columns.size(), false);
  needed_[0] = true;
  for (const KeyColumn &key : target.keys) {
    KeyColumnSource source = {0, 0};
    std::string const name = SourceOf(key.column.name, query.facts()).value();
    for (size_t i = 0; i < columns.size(); ++i)
      if (columns[i].name == name) source.batch_column = static_cast<int>(i);
    for (size_t i = 0; i < query.facts().columns.size(); ++i)
      if (query.facts().columns[i]->number == key.column.number) source.row_column = static_cast<int>(i) + 2;
    needed_[static_cast<size_t>(source.batch_column)] = true;
    sources_.push_back(source);
  }
}

std::vector<Hash128> PackedRows::Hash(pg::Tuplestore &rows, const std::function<bool(int)> &wanted) {
  std::vector<Hash128> hashes;
  ForEachRow(query_.row_desc(), rows, [&](TupleTableSlot *slot) {
    if (!wanted(DatumGetInt32(slot->tts_values[0]))) return;
    for (size_t i = 0; i < sources_.size(); ++i) {
      int const column = sources_[i].row_column;
      hasher_.Add(target_.keys[i].column.type, slot->tts_values[column], slot->tts_isnull[column]);
    }
    hashes.push_back(hasher_.Finish());
  });
  return hashes;
}

// (redis_row, the key columns as the target has them)
TupleDesc PackedRows::KeysDesc() const {
  return pg::Call([&] {
    TupleDesc desc = CreateTemplateTupleDesc(static_cast<int>(target_.keys.size()) + 1);
    TupleDescInitEntry(desc, 1, "redis_row", INT4OID, -1, 0);
    AttrNumber number = 1;
    for (const KeyColumn &key : target_.keys) {
      TupleDescInitEntry(desc, ++number, key.column.name.c_str(), key.column.type, -1, 0);
      TupleDescInitEntryCollation(desc, number, key.column.collation);
    }
    TupleDescFinalize(desc);
    return desc;
  });
}

void PackedRows::FillKeys(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                          TupleDesc desc, pg::Tuplestore &keys, std::vector<Hash128> &hashes) {
  std::optional<std::vector<std::string>> const any_type;
  pg::Tuplestore batch;
  // A key whose name cannot be shown in these columns has no row.
  FillBatch(shape_, needed_, entries, which, {any_type}, query_.batch_desc(), batch);
  ForEachRow(query_.batch_desc(), batch, [&](TupleTableSlot *slot) {
    std::vector<Datum> values = {Int32GetDatum(static_cast<int32>(hashes.size()))};
    for (size_t i = 0; i < sources_.size(); ++i) {
      int const column = sources_[i].batch_column;
      if (slot->tts_isnull[column]) return;
      values.push_back(slot->tts_values[column]);
      if (!Narrow(TupleDescAttr(query_.batch_desc(), column)->atttypid, target_.keys[i].column.type,
                  &values.back()))
        return;
    }
    for (size_t i = 0; i < sources_.size(); ++i)
      hasher_.Add(target_.keys[i].column.type, values[i + 1], false);
    hashes.push_back(hasher_.Finish());
    auto nulls = std::make_unique<bool[]>(values.size());
    keys.Put(desc, values.data(), nulls.get());
  });
}

std::vector<Hash128> PackedRows::HashKeys(const std::vector<const source::Entry *> &entries,
                                          const std::vector<int> &which) {
  std::vector<Hash128> hashes;
  pg::Tuplestore keys;
  FillKeys(entries, which, KeysDesc(), keys, hashes);
  return hashes;
}

int64 PackedRows::DeleteRowsOf(const std::vector<const source::Entry *> &entries,
                               const std::vector<int> &which, const std::string &statement) {
  if (which.empty()) return 0;
  TupleDesc desc = KeysDesc();
  pg::Tuplestore keys, gone;
  std::vector<Hash128> hashes;
  FillKeys(entries, which, desc, keys, hashes);
  std::string stored_is_key, target_is_key;
  for (const KeyColumn &key : target_.keys) {
    std::string const column = "." + pg::QuoteIdentifier(key.column.name);
    const char *conjunction = stored_is_key.empty() ? "" : " AND ";
    stored_is_key += conjunction + key.Equal("stored" + column, "keys" + column);
    target_is_key += conjunction + key.Equal("target" + column, "keys" + column);
  }
  pg::NamedRows named(kKeysName, desc, keys.get());
  std::vector<Hash128> present;
  {
    // LATERAL and LIMIT make it one look-up in the index for each key.
    pg::Rows const rows =
        Spi::Execute("SELECT keys.redis_row FROM redis_keys AS keys, LATERAL (SELECT FROM " + target_.name +
                     " AS stored WHERE " + stored_is_key + " LIMIT 1) AS found");
    for (uint64 i = 0; i < rows.size(); ++i) present.push_back(hashes[static_cast<size_t>(rows[i].Int4(0))]);
  }
  if (present.empty()) return 0;
  std::vector<Hash128> own = ledger_.FindOwn(std::move(present));
  if (own.empty()) return 0;
  ForEachRow(desc, keys, [&](TupleTableSlot *slot) {
    const Hash128 &hash = hashes[static_cast<size_t>(DatumGetInt32(slot->tts_values[0]))];
    if (std::binary_search(own.begin(), own.end(), hash)) gone.Put(slot);
  });
  named.Show(gone.get());
  bool const deletes = mapping_.on_delete == "delete";
  int64 const deleted = static_cast<int64>(
      Spi::Execute(statement + (deletes ? " USING" : " FROM") + " redis_keys AS keys WHERE " + target_is_key)
          .processed());
  ledger_.Append({}, std::move(own));
  return deleted;
}

std::string PackedRows::HashExpression(const std::string &alias) const {
  std::string arguments;
  for (const KeyColumn &key : target_.keys)
    arguments += (arguments.empty() ? "" : ", ") + alias + "." + pg::QuoteIdentifier(key.column.name);
  return "redis_migrate.row_hash(" + arguments + ")";
}

}  // namespace prm
