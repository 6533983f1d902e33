#include "reverse/ledger_names.h"

#include "ledger/ledger.h"
#include "ledger/ledger_hash.h"
#include "ledger/ledger_settling.h"
#include "mapping/ledger_choice.h"
#include "mapping/ledger_mark.h"
#include "mapping/mapping_settings.h"
#include "pg/identity.h"

namespace prm {

using pg::SqlParam;

const char *const kLedgerColumns[2] = {"redis_db", "redis_key"};

const char *const kWhyNameless =
    "The ledger names the keys of rows that came from Redis. Nobody knows those of rows that were inserted "
    "here, or whose key columns were changed here, and keys that are no UTF-8 are not written.";

namespace {

// Whether each value of the type has one text, which nothing but CanonicalText decides, and which is that of
// no other value. Others would have to be looked for by their equality, for which the ledger has no index.
bool HasOneText(const KeyColumn &key) {
  Oid const type = key.column.type;  // not of a domain, whose checks are code of others
  switch (type) {
    case TEXTOID:
    case VARCHAROID:
    case NAMEOID:
    case BYTEAOID:
    case INT2OID:
    case INT4OID:
    case INT8OID:
    case OIDOID:
    case UUIDOID:
    case BOOLOID:
    case INETOID:
    case DATEOID:
    case TIMEOID:
    case TIMESTAMPOID:
    case TIMESTAMPTZOID:
      break;
    default:
      return false;  // labels of enums can be renamed
  }
  return EqualMeansSameBytes(key);
}

std::string IdentifyStatement(const Mapping &mapping, const Target &target) {
  // The values are parsed as the ledger's own are, and the columns then have the target's names.
  std::string parameters, aliases, list, names;
  for (size_t i = 0; i < target.keys.size(); ++i) {
    std::string const number = std::to_string(i + 1), comma = i == 0 ? "" : ", ";
    std::string const before = "($2 OPERATOR(pg_catalog.*) " + std::to_string(i) + ")";
    parameters += comma + "pg_catalog.unnest($1[" + before + " OPERATOR(pg_catalog.+) 1 : " + before +
                  " OPERATOR(pg_catalog.+) $2])";
    aliases += comma + "n" + number;
    list += comma + "n.n" + number;
    names += ", " + pg::QuoteIdentifier(target.keys[i].column.name);
  }
  Ledger const ledger(mapping, target);
  std::string const number = pg::QuoteIdentifier(target.NameBeside("redis_n"));
  return "SELECT v." + number + ", " + ledger.RowKeyExpression("v") + " FROM (SELECT n.redis_n, " +
         ledger.KeyValues("(ARRAY[" + list + "])") + " FROM ROWS FROM (" + parameters +
         ") WITH ORDINALITY AS n (" + aliases + ", redis_n) OFFSET 0) AS v (" + number + names + ")";
}

std::string RowsQueryOf(const Mapping &mapping, const Target &target) {
  return std::string(
             "WITH redis_names AS MATERIALIZED (SELECT n.row_key::pg_catalog.text[] AS row_key, n.db, "
             "n.key FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), "
             "pg_catalog.unnest($3)) AS n (row_key, db, key)), redis_rows AS MATERIALIZED (SELECT "
             "named.db AS ") +
         kLedgerColumns[0] + ", named.key AS " + kLedgerColumns[1] +
         ", target.* FROM redis_names AS named JOIN " + target.name + " AS target ON " +
         Ledger(mapping, target).HasIdentity("target", "named.row_key") + ")";
}

}  // namespace

std::optional<std::string> WhyLedgerCannotName(const Mapping &mapping, const Target &target,
                                               const QueryFacts &facts) {
  if (mapping.ledger != "full") return "";
  if (IsLedgerToBeChosen(mapping)) return "the next run chooses its ledger";
  if (mapping.expand)
    return "the ledger does not tell whether it has all rows of a key, as the mapping is expanded";
  if (!facts.yields_each)
    return "the ledger does not tell whether it has all rows of a key, as the query may yield none or "
           "several";
  for (const KeyColumn &key : target.keys) {
    std::string const column = "key column \"" + key.column.name + "\"";
    if (!key.column.not_null) return column + ", by which the ledger knows rows, can be NULL";
    if (!HasOneText(key))
      return "values of " + column + ", by which the ledger knows rows, can be equal and yet differ";
  }
  for (const char *column : kLedgerColumns)
    if (target.Find(column) != nullptr)
      return std::string("the target has a column ") + column + ", which is the ledger's name of the key";
  if (ReadLedgerMark(mapping.id) == LedgerMark::kOtherSecret)
    return "the ledger was made with another secret: a run makes it anew";
  return std::nullopt;
}

LedgerNames::LedgerNames(const Mapping &mapping, const Target &target)
    : mapping_id_(mapping.id),
      key_columns_(target.keys.size()),
      rows_query_(RowsQueryOf(mapping, target)),
      identify_(IdentifyStatement(mapping, target)),
      // LATERAL and OFFSET make it one look-up in the index for each row.
      find_names_(R"(
SELECT k.n, l.db, l.key_bytes
FROM ROWS FROM (unnest($2), unnest($3)) WITH ORDINALITY AS k (row_hash, row_key, n),
     LATERAL (SELECT db, key_bytes FROM redis_migrate.ledger
              WHERE row_hash = k.row_hash AND mapping_id = $1 AND row_key = k.row_key OFFSET 0) AS l)",
                  pg::KeptStatement::Planning::kByIndex),
      find_rows_(R"(
SELECT k.n, l.row_key
FROM ROWS FROM (unnest($2), unnest($3), unnest($4)) WITH ORDINALITY AS k (key_hash, db, key_bytes, n),
     LATERAL (SELECT row_key FROM redis_migrate.ledger
              WHERE key_hash = k.key_hash AND mapping_id = $1 AND db = k.db AND key_bytes = k.key_bytes OFFSET 0) AS l)",
                 pg::KeptStatement::Planning::kByIndex) {}

std::vector<LedgerNames::Entry> LedgerNames::FindRows(const std::set<RowName> &names) {
  std::vector<Entry> entries;
  if (names.empty()) return entries;
  RowHasher hasher;
  std::vector<const RowName *> asked;
  std::vector<int64> hashes;
  std::vector<int> dbs;
  std::vector<Bytes> keys;
  for (const RowName &name : names) {
    KeyName const key = {static_cast<int>(strtol(name[0].c_str(), nullptr, 10)), name[1]};
    asked.push_back(&name);
    hashes.push_back(LedgerHashOfKey(hasher, mapping_id_, key));
    dbs.push_back(key.db);
    keys.push_back(key.key);
  }
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = find_rows_.Execute({SqlParam::Int8(mapping_id_), SqlParam::Int8Array(hashes),
                                            SqlParam::Int4Array(dbs), SqlParam::ByteaArray(keys)},
                                           true);
  for (uint64 i = 0; i < rows.size(); ++i)
    entries.push_back({rows[i].Text(1), *asked[static_cast<size_t>(rows[i].Int8(0) - 1)]});
  return entries;
}

std::map<RowName, RowName> LedgerNames::FindNames(const ReverseMapping &reverse,
                                                  const std::set<RowName> &rows) {
  std::map<RowName, RowName> names;
  std::vector<const RowName *> asked;
  std::vector<std::string> columns;
  for (const RowName &row : rows)
    if (row.size() == key_columns_) asked.push_back(&row);  // others are of a trigger that is not ours
  if (asked.empty()) return names;
  for (size_t i = 0; i < key_columns_; ++i)
    for (const RowName *row : asked) columns.push_back((*row)[i]);
  RowHasher hasher;
  std::vector<int64> hashes;
  std::vector<std::string> row_keys(asked.size());
  {
    MappingSettings const settings(reverse.mapping);
    CanonicalText const canonical;
    pg::Rows const identities = identify_.Execute(
        {SqlParam::TextArray(columns), SqlParam::Int4(static_cast<int32>(asked.size()))}, true);
    for (uint64 i = 0; i < identities.size(); ++i)
      row_keys[static_cast<size_t>(identities[i].Int8(0) - 1)] = identities[i].Text(1);
  }
  for (const std::string &row_key : row_keys) hashes.push_back(LedgerHashOfRow(hasher, mapping_id_, row_key));
  pg::AsExtensionOwner as_owner;
  pg::Rows const found = find_names_.Execute(
      {SqlParam::Int8(mapping_id_), SqlParam::Int8Array(hashes), SqlParam::TextArray(row_keys)}, true);
  for (uint64 i = 0; i < found.size(); ++i) {
    Bytes const key = pg::DatumBytes(found[i].Value(2));
    if (!pg::Call([&] { return pg_verify_mbstr(PG_UTF8, key.data(), static_cast<int>(key.size()), true); }))
      continue;
    names[*asked[static_cast<size_t>(found[i].Int8(0) - 1)]] = {std::to_string(found[i].Int4(1)),
                                                                std::string(key)};
  }
  return names;
}

// There is no index by mapping: a page has the entries of others, too, which are passed over, so that it does
// not grow with them.
std::vector<RowName> LedgerNames::ReadNames(int limit, RowName &position) const {
  int64 const from = position.empty() ? PG_INT64_MIN : strtoll(position[0].c_str(), nullptr, 10);
  position.clear();
  std::vector<RowName> names;
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = pg::Spi::ExecuteKept(
      R"sql(SELECT row_hash, db, CASE WHEN mapping_id = $1 THEN key_bytes END
            FROM redis_migrate.ledger
            WHERE row_hash >= $2
            ORDER BY row_hash FETCH FIRST $3 ROWS WITH TIES)sql",
      {SqlParam::Int8(mapping_id_), SqlParam::Int8(from), SqlParam::Int8(limit)}, true);
  for (uint64 i = 0; i < rows.size(); ++i) {
    if (rows[i].IsNull(2)) continue;
    Bytes const key = pg::DatumBytes(rows[i].Value(2));
    if (pg::Call([&] { return pg_verify_mbstr(PG_UTF8, key.data(), static_cast<int>(key.size()), true); }))
      names.push_back({std::to_string(rows[i].Int4(1)), std::string(key)});
  }
  if (rows.size() < static_cast<uint64>(limit)) return names;
  if (int64 const last = rows[rows.size() - 1].Int8(0); last < PG_INT64_MAX)
    position = {std::to_string(last + 1)};
  return names;
}

RowName LedgerNames::Noted(const RowName &name) const {
  RowName noted = name;
  noted.resize(key_columns_ + 1);
  return noted;
}

std::optional<RowName> LedgerNames::FromNoted(const RowName &noted) const {
  if (noted.size() != key_columns_ + 1) return std::nullopt;
  return RowName{noted[0], noted[1]};
}

std::string ListNamedByLedger(const std::vector<ReverseMapping> &reverses) {
  std::string list;
  for (const ReverseMapping &reverse : reverses)
    if (reverse.ledger) list += (list.empty() ? "\"" : ", \"") + reverse.mapping.name + "\"";
  return list;
}

}  // namespace prm
