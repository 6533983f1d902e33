#include "ledger/ledger.h"

#include "ledger/departure.h"
#include "ledger/ledger_hash.h"
#include "mapping/ledger_choice.h"
#include "mapping/mapping_query.h"
#include "mapping/target_statements.h"
#include "pg/each_row.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"
#include "write/bulk_insert.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::Spi;
using pg::SqlParam;

namespace {

constexpr char kOwnedName[] = "redis_owned";
constexpr char kObsoleteName[] = "redis_obsolete";
constexpr char kIdentitiesName[] = "redis_identities";

TupleDesc DescOf(std::initializer_list<std::pair<const char *, Oid>> columns) {
  return pg::Call([&] {
    TupleDesc desc = CreateTemplateTupleDesc(static_cast<int>(columns.size()));
    AttrNumber number = 0;
    for (const auto &[name, type] : columns) {
      TupleDescInitEntry(desc, ++number, name, type, -1, 0);
    }
    TupleDescFinalize(desc);
    return desc;
  });
}

TupleDesc IdentitiesDesc() {
  return DescOf({{"redis_row", INT4OID}, {"redis_entry", INT4OID}, {"row_key", TEXTOID}});
}
TupleDesc OwnedDesc() {
  return DescOf({{"redis_entry", INT4OID},
                 {"row_hash", INT8OID},
                 {"row_key", TEXTOID},
                 {"after_ms", INT8OID},
                 {"until_ms", INT8OID}});
}
// As BulkInsert wants it, with the columns of the table behind the first two.
TupleDesc EntriesDesc() {
  return DescOf({{"redis_row", INT4OID},
                 {"redis_entry", INT4OID},
                 {"mapping_id", INT8OID},
                 {"row_hash", INT8OID},
                 {"key_hash", INT8OID},
                 {"db", INT4OID},
                 {"row_key", TEXTOID},
                 {"key_bytes", BYTEAOID}});
}
TupleDesc ObsoleteDesc() {
  return DescOf({{"row_hash", INT8OID}, {"row_key", TEXTOID}, {"after_ms", INT8OID}, {"until_ms", INT8OID}});
}

// A row that is in the target has the texts that it has there: those of the key may differ, though they are
// equal, as 1.0 and 1.00, and all keys that yield the row must give it the same identity.
std::string IdentifyStatement(const Ledger &ledger, const Target &target) {
  std::string const own = ledger.RowKeyExpression("excluded");
  if (std::all_of(target.keys.begin(), target.keys.end(), EqualMeansSameBytes))
    return "SELECT excluded.redis_row, excluded.redis_entry, " + own + " FROM redis_rows AS excluded";
  std::string is_stored, names;
  for (const KeyColumn &key : target.keys) {
    std::string const name = QuoteIdentifier(key.column.name);
    is_stored += (is_stored.empty() ? "" : " AND ") + key.Equal("stored." + name, "excluded." + name);
    names += ", stored." + name;
  }
  std::string const stored = ledger.RowKeyExpression("stored");
  if (target.kind == TargetKind::kLocal)
    return "SELECT excluded.redis_row, excluded.redis_entry, COALESCE(found.row_key, " + own +
           ") FROM redis_rows AS excluded LEFT JOIN LATERAL (SELECT " + stored + " AS row_key FROM " +
           target.name + " AS stored WHERE " + is_stored + " LIMIT 1) AS found ON true";
  // Another server is asked once for the rows of a batch. Nothing keeps it from having several that are
  // equal.
  std::string const found = QuoteIdentifier(target.NameBeside("redis_found"));
  return "WITH stored AS MATERIALIZED (SELECT true AS " + found + names + " FROM " + target.name +
         " AS stored WHERE " + KeysOfBatch(target, "stored") +
         ") SELECT DISTINCT ON (excluded.redis_row) excluded.redis_row, excluded.redis_entry, "
         "CASE WHEN stored." +
         found + " THEN " + stored + " ELSE " + own +
         " END FROM redis_rows AS excluded LEFT JOIN stored ON " + is_stored + " ORDER BY 1, 3";
}

}  // namespace

Ledger::Ledger(const Mapping &mapping, const Target &target, std::vector<std::string> expires)
    : mapping_(mapping),
      mapping_id_(mapping.id),
      target_(target.name),
      expires_(std::move(expires)),
      keys_(target.keys),
      asks_for_first_key_(CanAskForFirstKey(target)),
      has_equal_images_(std::all_of(target.keys.begin(), target.keys.end(), EqualMeansSameBytes)),
      planning_(target.kind == TargetKind::kLocal ? pg::KeptStatement::Planning::kByIndex
                                                  : pg::KeptStatement::Planning::kAsUsual),
      identify_(IdentifyStatement(*this, target), planning_),
      find_owned_(R"(
SELECT k.entry, l.row_hash, l.row_key, k.after_ms, k.until_ms
FROM unnest($2, $3, $4, $5, $6, $7) AS k (entry, key_hash, db, key_bytes, after_ms, until_ms),
     LATERAL (SELECT row_hash, row_key FROM redis_migrate.ledger
              WHERE key_hash = k.key_hash AND mapping_id = $1 AND db = k.db AND key_bytes = k.key_bytes OFFSET 0) AS l)",
                  pg::KeptStatement::Planning::kByIndex),
      find_obsolete_(R"(
SELECT o.row_hash, o.row_key, o.after_ms, o.until_ms FROM redis_owned AS o
WHERE NOT EXISTS (SELECT FROM redis_identities AS i WHERE i.redis_entry = o.redis_entry AND i.row_key = o.row_key))"),
      strike_off_(R"(
DELETE FROM redis_migrate.ledger AS l
USING redis_obsolete AS k,
      LATERAL (SELECT ctid FROM redis_migrate.ledger
               WHERE row_hash = k.row_hash AND mapping_id = $1 AND row_key = k.row_key OFFSET 0) AS found
WHERE l.ctid = found.ctid)",
                  pg::KeptStatement::Planning::kByIndex),
      delete_all_(DeleteRowsStatement(Obsolete("")), planning_) {
  if (target.kind == TargetKind::kLocal)
    find_stored_.emplace(
        "SELECT n.number FROM (SELECT k.number, k.row_key::pg_catalog.text[] AS row_key FROM ROWS FROM "
        "(pg_catalog.unnest($1), pg_catalog.unnest($2)) AS k (number, row_key) OFFSET 0) AS n WHERE EXISTS "
        "(SELECT FROM " +
            target.name + " AS target WHERE " + HasIdentity("target", "n.row_key") + ")",
        planning_);
}

std::string Ledger::RowKeyExpression(const std::string &alias) const {
  std::string list;
  for (const KeyColumn &key : keys_)
    list += (list.empty() ? "" : ", ") + alias + "." + QuoteIdentifier(key.column.name) + "::pg_catalog.text";
  return "(ARRAY[" + list + "])::pg_catalog.text";
}

CanonicalText::CanonicalText() {
  Set("timezone", "UTC");
  Set("datestyle", "ISO, YMD");
  Set("intervalstyle", "postgres");
  Set("bytea_output", "hex");
  Set("extra_float_digits", "1");
}

int64 LedgerHashOfRow(RowHasher &hasher, int64 mapping_id, Bytes row_key) {
  hasher.Add(INT8OID, Int64GetDatum(mapping_id), false);
  hasher.AddBytes(row_key);
  return static_cast<int64>(hasher.Finish().high);
}

int64 LedgerHashOfKey(RowHasher &hasher, int64 mapping_id, const KeyName &key) {
  hasher.Add(INT8OID, Int64GetDatum(mapping_id), false);
  hasher.Add(INT4OID, Int32GetDatum(key.db), false);
  hasher.AddBytes(key.key);
  return static_cast<int64>(hasher.Finish().high);
}

int64 Ledger::HashOfRow(Bytes row_key) {
  if (!hasher_) hasher_.emplace();
  return LedgerHashOfRow(*hasher_, mapping_id_, row_key);
}

int64 Ledger::HashOfKey(const KeyName &key) {
  if (!hasher_) hasher_.emplace();
  return LedgerHashOfKey(*hasher_, mapping_id_, key);
}

bool Ledger::AreEmpty(const std::vector<const Mapping *> &mappings) {
  std::vector<int64> full, packed;
  for (const Mapping *mapping : mappings) {
    if (mapping->ledger == "full") full.push_back(mapping->id);
    if (mapping->ledger == "packed") packed.push_back(mapping->id);
  }
  pg::AsExtensionOwner as_owner;
  // There is no index by mapping, so that a table of more than 8 MB is not searched.
  return Spi::Execute(
             R"sql(SELECT CASE WHEN pg_relation_size('redis_migrate.ledger') <= 8388608
                       THEN NOT EXISTS (SELECT FROM redis_migrate.ledger WHERE mapping_id = ANY ($1))
                       ELSE false END
                  AND NOT EXISTS (SELECT FROM redis_migrate.ledger_batch
                                  WHERE mapping_id = ANY ($2) AND NOT merged)
                  AND NOT EXISTS (SELECT FROM redis_migrate.ledger_segment WHERE mapping_id = ANY ($2)))sql",
             {SqlParam::Int8Array(full), SqlParam::Int8Array(packed)})[0]
      .Bool(0);
}

void Ledger::Identify(pg::Tuplestore &identities) {
  {
    CanonicalText canonical;
    identify_.ExecuteInto(identities);
  }
  pg::Call([&] { tuplestore_rescan(identities.get()); });
}

std::vector<IdentifiedRow> Ledger::Next(pg::Tuplestore &identities, size_t count) {
  std::vector<IdentifiedRow> rows;
  rows.reserve(count);
  TupleTableSlot *slot =
      pg::Call([&] { return MakeSingleTupleTableSlot(IdentitiesDesc(), &TTSOpsMinimalTuple); });
  while (rows.size() < count &&
         pg::Call([&] { return tuplestore_gettupleslot(identities.get(), true, false, slot); })) {
    pg::Call([&] { slot_getallattrs(slot); });
    Bytes const row_key = pg::DatumBytes(slot->tts_values[2]);
    rows.push_back({DatumGetInt32(slot->tts_values[0]), std::string(row_key), HashOfRow(row_key)});
  }
  pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
  std::sort(rows.begin(), rows.end(),
            [](const IdentifiedRow &a, const IdentifiedRow &b) { return a.hash < b.hash; });
  return rows;
}

bool Ledger::MayFold(pg::Tuplestore &identities) {
  if (!has_equal_images_ || identities.size() > QueryRows::kAtOnce) return true;
  std::vector<int64> hashes;
  pg::ForEachRow(IdentitiesDesc(), identities, [&](TupleTableSlot *slot) {
    hashes.push_back(HashOfRow(pg::DatumBytes(slot->tts_values[2])));
  });
  pg::Call([&] { tuplestore_rescan(identities.get()); });
  std::sort(hashes.begin(), hashes.end());
  return std::adjacent_find(hashes.begin(), hashes.end()) != hashes.end();
}

std::vector<int> Ledger::FindLost(const std::vector<IdentifiedRow> &rows, const KeyOfRow &key_of_row) {
  auto const [lowest, highest] = std::minmax_element(
      rows.begin(), rows.end(), [](const IdentifiedRow &a, const IdentifiedRow &b) { return a.row < b.row; });
  first_ = rows.empty() ? 0 : lowest->row;
  owners_.assign(rows.empty() ? 0 : static_cast<size_t>(highest->row - first_) + 1, Owner::kNobody);
  std::vector<const IdentifiedRow *> asked;
  std::vector<int64> hashes;
  std::vector<std::string> row_keys;
  for (const IdentifiedRow &row : rows) {
    if (!MayBeRecorded(row.hash)) continue;
    asked.push_back(&row);
    hashes.push_back(row.hash);
    row_keys.push_back(row.row_key);
  }
  if (asked.empty()) return {};
  std::vector<const IdentifiedRow *> lost;
  pg::SnapshotScope snapshot;  // key names are fetched from TOAST after the statement
  std::optional<pg::AsExtensionOwner> as_owner(std::in_place);
  // LATERAL and OFFSET make it one look-up in the index for each row, whatever the planner makes of a ledger
  // that grew since it was analysed.
  pg::Rows owners = Spi::ExecuteKept(
      R"(
SELECT k.n, l.db, l.key_bytes
FROM ROWS FROM (unnest($2), unnest($3)) WITH ORDINALITY AS k (row_hash, row_key, n),
     LATERAL (SELECT db, key_bytes FROM redis_migrate.ledger
              WHERE row_hash = k.row_hash AND mapping_id = $1 AND row_key = k.row_key OFFSET 0) AS l)",
      {SqlParam::Int8(mapping_id_), SqlParam::Int8Array(hashes), SqlParam::TextArray(row_keys)});
  for (uint64 i = 0; i < owners.size(); ++i) {
    const IdentifiedRow &row = *asked[static_cast<size_t>(owners[i].Int8(0) - 1)];
    KeyName owner = {owners[i].Int4(1), pg::DatumBytes(owners[i].Value(2))};
    KeyName key = key_of_row(row.row);
    owners_[static_cast<size_t>(row.row - first_)] =
        owner < key || key < owner ? Owner::kOther : Owner::kSelf;
    if (owner < key) lost.push_back(&row);
  }
  as_owner.reset();
  return WithRows(lost);
}

// Numbers of those whose rows are in the target. A lower key whose row was deleted here has none to defend:
// after a cutback nothing else tells that it is gone from Redis.
std::vector<int> Ledger::WithRows(const std::vector<const IdentifiedRow *> &rows) {
  std::vector<int> numbers;
  std::vector<std::string> row_keys;
  for (const IdentifiedRow *row : rows) {
    numbers.push_back(row->row);
    row_keys.push_back(row->row_key);
  }
  if (rows.empty() || !find_stored_) return numbers;
  CanonicalText const canonical;
  pg::Rows const stored =
      find_stored_->Execute({SqlParam::Int4Array(numbers), SqlParam::TextArray(row_keys)});
  numbers.clear();
  for (uint64 i = 0; i < stored.size(); ++i) numbers.push_back(stored[i].Int4(0));
  return numbers;
}

void Ledger::Record(const std::vector<IdentifiedRow> &rows, const KeyOfRow &key_of_row) {
  Entries fresh, changed;
  for (const IdentifiedRow &row : rows) {
    if (IsRecorded(row.row)) continue;
    KeyName const key = key_of_row(row.row);
    Entries &entries = OwnerOf(row.row) == Owner::kOther ? changed : fresh;
    entries.row_hashes.push_back(row.hash);
    entries.key_hashes.push_back(HashOfKey(key));
    entries.row_keys.push_back(row.row_key);
    entries.dbs.push_back(key.db);
    entries.keys.push_back(key.key);
    if (recorded_ == nullptr) continue;
    recorded_->Add(static_cast<uint64>(row.hash));
    recorded_->Add(static_cast<uint64>(entries.key_hashes.back()));
  }
  pg::AsExtensionOwner as_owner;
  auto execute = [&](const std::string &sql, const Entries &entries) {
    Spi::ExecuteKept(sql, {SqlParam::Int8(mapping_id_), SqlParam::Int8Array(entries.row_hashes),
                           SqlParam::Int8Array(entries.key_hashes), SqlParam::TextArray(entries.row_keys),
                           SqlParam::Int4Array(entries.dbs), SqlParam::ByteaArray(entries.keys)});
  };
  if (!fresh.dbs.empty() && !InsertInBulk(fresh))
    execute(R"(
INSERT INTO redis_migrate.ledger (mapping_id, row_hash, key_hash, row_key, db, key_bytes)
SELECT $1, k.* FROM unnest($2, $3, $4, $5, $6) AS k)",
            fresh);
  if (!changed.dbs.empty())
    execute(R"(
UPDATE redis_migrate.ledger AS l SET db = k.db, key_bytes = k.key_bytes, key_hash = k.key_hash
FROM unnest($2, $3, $4, $5, $6) AS k (row_hash, key_hash, row_key, db, key_bytes),
     LATERAL (SELECT ctid FROM redis_migrate.ledger
              WHERE row_hash = k.row_hash AND mapping_id = $1 AND row_key = k.row_key OFFSET 0) AS found
WHERE l.ctid = found.ctid)",
            changed);
}

bool Ledger::InsertInBulk(const Entries &entries) const {
  Oid const relation =
      pg::Call([] { return get_relname_relid("ledger", get_namespace_oid("redis_migrate", false)); });
  TupleDesc desc = EntriesDesc();
  std::vector<AttrNumber> columns;
  for (int i = QueryRows::kFirstColumn; i <= desc->natts; ++i) {
    const char *const name = NameStr(TupleDescAttr(desc, i - 1)->attname);
    columns.push_back(pg::Call([&] { return get_attnum(relation, name); }));
  }
  pg::Tuplestore rows;
  bool nulls[8] = {};
  for (size_t i = 0; i < entries.dbs.size(); ++i) {
    Datum values[] = {Int32GetDatum(static_cast<int32>(i)), Int32GetDatum(0),
                      Int64GetDatum(mapping_id_),           Int64GetDatum(entries.row_hashes[i]),
                      Int64GetDatum(entries.key_hashes[i]), Int32GetDatum(entries.dbs[i]),
                      pg::TextDatum(entries.row_keys[i]),   pg::ByteaDatum(entries.keys[i])};
    rows.Put(desc, values, nulls);
    pfree(DatumGetPointer(values[6]));
    pfree(DatumGetPointer(values[7]));
  }
  return BulkInsert(relation, InvalidOid, columns, desc, rows);
}

void Ledger::TakeObsolete(const std::vector<Changed> &keys, pg::Tuplestore &identities,
                          pg::Tuplestore &obsolete) {
  std::vector<int64> hashes, after, until;
  std::vector<int> entries, dbs;
  std::vector<Bytes> names;
  for (const auto &[entry, key, time] : keys) {
    int64 const hash = HashOfKey(key);
    if (!MayBeRecorded(hash)) continue;
    after.push_back(time.until_ms != 0 ? time.after_ms : pg::NowMs());
    until.push_back(time.until_ms != 0 ? time.until_ms : pg::NowMs());
    entries.push_back(entry);
    hashes.push_back(hash);
    dbs.push_back(key.db);
    names.push_back(key.key);
  }
  if (entries.empty()) return;
  pg::AsExtensionOwner as_owner;
  pg::Tuplestore owned;
  find_owned_.ExecuteInto(
      owned, {SqlParam::Int8(mapping_id_), SqlParam::Int4Array(entries), SqlParam::Int8Array(hashes),
              SqlParam::Int4Array(dbs), SqlParam::ByteaArray(names), SqlParam::Int8Array(after),
              SqlParam::Int8Array(until)});
  if (owned.size() == 0) return;
  {
    pg::NamedRows shown_owned(kOwnedName, OwnedDesc(), owned.get());
    pg::NamedRows shown_identities(kIdentitiesName, IdentitiesDesc(), identities.get());
    find_obsolete_.ExecuteInto(obsolete);
  }
  pg::Call([&] { tuplestore_rescan(identities.get()); });
  if (obsolete.size() == 0) return;
  pg::NamedRows shown(kObsoleteName, ObsoleteDesc(), obsolete.get());
  strike_off_.Execute({SqlParam::Int8(mapping_id_)});
}

void Ledger::StrikeOff(const std::vector<std::string> &row_keys) {
  std::vector<int64> hashes;
  for (const std::string &row_key : row_keys) hashes.push_back(HashOfRow(row_key));
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      "DELETE FROM redis_migrate.ledger WHERE row_hash = ANY ($2) AND mapping_id = $1 AND row_key = ANY ($3)",
      {SqlParam::Int8(mapping_id_), SqlParam::Int8Array(hashes), SqlParam::TextArray(row_keys)});
}

std::string Ledger::HasIdentity(const std::string &alias, const std::string &row_key) const {
  std::string condition;
  for (size_t i = 0; i < keys_.size(); ++i)
    condition += (i == 0 ? "" : " AND ") +
                 keys_[i].Equal(alias + "." + QuoteIdentifier(keys_[i].column.name), KeyValue(i, row_key));
  return condition;
}

// The value of a key column in an identity.
std::string Ledger::KeyValue(size_t i, const std::string &row_key) const {
  // With the length left open: CAST AS character means character(1).
  const char *type = pg::Call([&] {
    return const_cast<const char *>(format_type_extended(
        keys_[i].column.type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
  });
  return "CAST(" + row_key + "[" + std::to_string(i + 1) + "] AS " + type + ")";
}

std::string Ledger::KeyValues(const std::string &row_key) const {
  std::string values;
  for (size_t i = 0; i < keys_.size(); ++i) values += (i == 0 ? "" : ", ") + KeyValue(i, row_key);
  return values;
}

// The rows of redis_obsolete that fulfil a condition on the relation `obsolete`; "": all of them.
DepartedRows Ledger::Obsolete(const std::string &condition) const {
  // OFFSET 0: each text is parsed once. A SET list sees these columns beside those of the target.
  std::string const parsed =
      std::string("(SELECT row_key::pg_catalog.text[] AS redis_row_key, after_ms AS redis_after_ms, ") +
      "until_ms AS redis_until_ms FROM " + kObsoleteName + " OFFSET 0)";
  std::string is_gone = HasIdentity("target", "gone.redis_row_key");
  if (asks_for_first_key_)
    is_gone += " AND target." + QuoteIdentifier(keys_[0].column.name) + " " + keys_[0].Operator() +
               " ANY (ARRAY(SELECT DISTINCT " + KeyValue(0, "obsolete.redis_row_key") + " FROM " + parsed +
               " AS obsolete))";
  std::string const gone = "(SELECT obsolete.* FROM " + parsed + " AS obsolete" +
                           (condition.empty() ? "" : " WHERE " + condition) + " OFFSET 0) AS gone";
  return {gone, is_gone, "gone.redis_after_ms", "gone.redis_until_ms", ""};
}

std::string Ledger::DeleteRowsStatement(const DepartedRows &rows) const {
  if (mapping_.on_expire) return DepartureStatement(mapping_, target_, expires_, rows);
  return DeleteStatement(target_, mapping_.on_delete) +
         (mapping_.on_delete == "delete" ? " USING " : " FROM ") + rows.relations + " WHERE " +
         rows.condition;
}

void Ledger::CountDeleted(const pg::Rows &result, RowCounts &counts) const {
  if (mapping_.on_expire)
    CountDeparted(result[0], counts);
  else
    counts.deleted += static_cast<int64>(result.processed());
}

void Ledger::DeleteRows(pg::Tuplestore &obsolete, pg::Tuplestore &identities, RowCounts &counts) {
  pg::NamedRows shown_obsolete(kObsoleteName, ObsoleteDesc(), obsolete.get(),
                               static_cast<double>(obsolete.size()));
  if (identities.size() == 0)
    return InJournal(Obsolete(""), planning_, [&] { CountDeleted(delete_all_.Execute(), counts); });
  pg::NamedRows shown_identities(kIdentitiesName, IdentitiesDesc(), identities.get(),
                                 static_cast<double>(identities.size()));
  std::string is_kept;
  for (size_t i = 0; i < keys_.size(); ++i) {
    KeyColumn key = keys_[i];
    // Neither side is the column, whose collation may take other texts for equal.
    if (!OidIsValid(key.collation)) key.collation = key.column.collation;
    is_kept += (i == 0 ? "" : " AND ") +
               key.Equal(KeyValue(i, "obsolete.redis_row_key"), KeyValue(i, "kept.row_key"));
  }
  std::string const is_left =
      std::string("NOT EXISTS (SELECT FROM (SELECT row_key::pg_catalog.text[] AS row_key FROM ") +
      kIdentitiesName + " OFFSET 0) AS kept WHERE " + is_kept + ")";
  DepartedRows const left = Obsolete(is_left);
  // Looking up one by one those that are kept would take the square of their number.
  InJournal(left, pg::KeptStatement::Planning::kAsUsual,
            [&] { CountDeleted(Spi::Execute(DeleteRowsStatement(left)), counts); });
}

void Ledger::InJournal(const DepartedRows &rows, pg::KeptStatement::Planning planning,
                       const std::function<void()> &change) {
  if (journal_ == nullptr) return change();
  journal_->Around(rows.relations, rows.condition, planning, change);
}

void Ledger::DeleteRows(const std::function<void(const TakeRowKey &)> &hand_over, RowCounts &counts) {
  Datum const now_ms = Int64GetDatum(pg::NowMs());
  TupleDesc desc = ObsoleteDesc();
  pg::Tuplestore obsolete, none;
  hand_over([&](Bytes row_key) {
    Datum values[] = {Int64GetDatum(0), pg::TextDatum(row_key), now_ms, now_ms};
    bool nulls[] = {true, false, false, false};
    obsolete.Put(desc, values, nulls);
    pfree(DatumGetPointer(values[1]));
  });
  if (obsolete.size() > 0) DeleteRows(obsolete, none, counts);
}

}  // namespace prm
