#include "reverse/reverse_mapping.h"

#include "connect/server.h"
#include "ledger/ledger.h"
#include "mapping/ledger_choice.h"
#include "mapping/mapping_query.h"
#include "mapping/mapping_settings.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "reverse/derived_query.h"
#include "reverse/ledger_names.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::QuoteLiteral;
using pg::Spi;
using pg::SqlParam;

namespace {

std::optional<std::string> StoredQuery(const Mapping &mapping) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute("SELECT query FROM redis_migrate.reverse_query WHERE mapping_id = $1",
                           {SqlParam::Int8(mapping.id)});
  return rows.size() == 0 ? std::nullopt : rows[0].OptionalText(0);
}

std::string HintFor(const Mapping &mapping) {
  return "SELECT redis_migrate.set_reverse_query(" + QuoteLiteral(mapping.migration) + ", " +
         QuoteLiteral(mapping.name) +
         ", 'SELECT ...') says how the rows become a key; docs: reverse-feed.md.";
}

// The columns of the target that hold the name of the key, or why they do not.
std::optional<std::string> FindNames(const QueryFacts &facts, ReverseMapping &reverse) {
  const Mapping &mapping = reverse.mapping;
  if (!mapping.databases || mapping.databases->size() != 1) return "databases does not name a single one";
  reverse.db = mapping.databases->front();
  if (!KeysHaveRowsApart(mapping, reverse.pattern, facts))
    return "the name of the key does not stand unchanged in key_columns";
  auto add = [&](const std::string &source) {
    for (const KeyColumn &key : reverse.target.keys)
      if (auto found = facts.copied.find(source);
          found != facts.copied.end() && found->second == key.column.name) {
        reverse.names.push_back(key);
        return true;
      }
    return false;
  };
  if (add("key")) {
    reverse.has_whole_key = true;
    return std::nullopt;
  }
  for (const Capture &capture : reverse.pattern.captures())
    if (!add(capture.name)) return "the capture {" + capture.name + "} stands in no key column by itself";
  return reverse.names.empty() ? std::optional<std::string>("the pattern has no capture") : std::nullopt;
}

// Other than partitions.
bool HasChildren(Oid table) {
  return pg::Call([&] { return get_rel_relkind(table) != RELKIND_PARTITIONED_TABLE && has_subclass(table); });
}

constexpr std::string_view kFirstDay = "-01";

}  // namespace

std::optional<RowName> ReverseMapping::NameOf(int key_db, Bytes key) const {
  if (ledger ? !Takes(mapping.databases, key_db) : key_db != db) return std::nullopt;
  Match match;
  Route const route = routing->Find(key_db, key, match);
  if (route.kind != Route::kMapped || routing->patterns()[*route.pattern].text() != pattern.text())
    return std::nullopt;
  if (ledger) return RowName{std::to_string(key_db), std::string(key)};
  if (has_whole_key) return RowName{std::string(key)};
  RowName name;
  for (size_t i = 0; i < match.values.size(); ++i) {
    CaptureType const type = pattern.captures()[i].type;
    if (!IsCanonical(type, match.values[i])) return std::nullopt;
    name.emplace_back(match.values[i]);
    if (type == CaptureType::kMonth) name.back() += kFirstDay;
  }
  return name;
}

int ReverseMapping::DbOf(const RowName &name) const {
  return ledger ? static_cast<int>(strtol(name[0].c_str(), nullptr, 10)) : db;
}

std::string ReverseMapping::KeyOf(const RowName &name) const {
  if (ledger) return name[1];
  if (has_whole_key) return name[0];
  RowName values = name;
  for (size_t i = 0; i < values.size(); ++i)
    if (pattern.captures()[i].type == CaptureType::kMonth && values[i].size() > kFirstDay.size())
      values[i].resize(values[i].size() - kFirstDay.size());
  return pattern.Compose(values);
}

std::string ReverseMapping::MaskedKeyOf(RowName name) const {
  auto mask = [](std::string &part) {
    for (char &c : part)
      if (isalnum(static_cast<unsigned char>(c)) || IS_HIGHBIT_SET(c)) c = 'x';
  };
  if (Match match; ledger && routing->Find(DbOf(name), name[1], match).kind == Route::kMapped &&
                   match.values.size() == pattern.captures().size() && !pattern.has_star()) {
    std::vector<std::string> values(match.values.begin(), match.values.end());
    std::for_each(values.begin(), values.end(), mask);
    return pattern.Compose(values);
  }
  std::for_each(name.begin(), name.end(), mask);
  return KeyOf(name);
}

std::optional<RowName> ReverseMapping::Canonical(RowName name) const {
  if (name.size() != NameSize()) return std::nullopt;  // of a trigger that is not ours
  if (!has_whole_key && !ledger)
    for (size_t i = 0; i < name.size(); ++i)
      if (pattern.captures()[i].type == CaptureType::kNumber && name[i].find('.') != std::string::npos) {
        name[i].resize(name[i].find_last_not_of('0') + 1);
        if (name[i].back() == '.') name[i].pop_back();
      }
  if (NameOf(DbOf(name), KeyOf(name)) != name) return std::nullopt;
  return name;
}

std::string ReverseMapping::Cast(size_t column, const std::string &expression) const {
  // With the length left open: CAST AS character means character(1).
  const char *type = pg::Call([&] {
    return const_cast<const char *>(format_type_extended(
        names[column].column.type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
  });
  return "CAST(" + expression + " AS " + type + ")";
}

// A derived query's own: a column of the key may be called type, value or expires_at.
std::string ReverseMapping::NameColumn(size_t name) const {
  if (!is_of_owner) return "redis_name_" + std::to_string(name + 1);
  return ledger ? kLedgerColumns[name] : QuoteIdentifier(names[name].column.name);
}

std::string ReverseMapping::ReadStatement() const {
  std::string parameters, aliases, condition, columns, shown;
  for (size_t i = 0; i < NameSize(); ++i) {
    std::string const number = std::to_string(i + 1);
    columns += "pg_catalog.concat(r." + NameColumn(i) + ") AS n" + number + ", ";
    shown += "r.n" + number + ", ";
  }
  for (size_t i = 0; i < names.size() && !ledger; ++i) {
    std::string const number = std::to_string(i + 1), comma = i == 0 ? "" : ", ";
    std::string const column = QuoteIdentifier(names[i].column.name);
    std::string const before = "($2 OPERATOR(pg_catalog.*) " + std::to_string(i) + ")";
    parameters += comma + "pg_catalog.unnest($1[" + before + " OPERATOR(pg_catalog.+) 1 : " + before +
                  " OPERATOR(pg_catalog.+) $2])";
    aliases += comma + "n" + number;
    condition += (i == 0 ? "" : " AND ") + names[i].Equal("target." + column, Cast(i, "named.n" + number));
  }
  std::string const rows =
      ledger
          ? ledger->RowsQuery()
          : "WITH redis_names AS MATERIALIZED (SELECT * FROM ROWS FROM (" + parameters + ") AS n (" +
                aliases + ")), redis_rows AS MATERIALIZED (SELECT target.* FROM redis_names AS named JOIN " +
                target.name + " AS target ON " + condition + ")";
  std::string const before = "(r.before OPERATOR(pg_catalog.-) r.bytes)::pg_catalog.int8";
  return rows + " SELECT " + shown + "r.type, CASE WHEN " + before + " OPERATOR(pg_catalog.<) " +
         std::to_string(kMostReverseBytes) + " THEN r.elements END, r.expires_at, " + before +
         ", r.bytes FROM (SELECT r.*, pg_catalog.sum(r.bytes) OVER (ROWS UNBOUNDED PRECEDING) AS before FROM "
         "(SELECT " +
         columns +
         "r.type::pg_catalog.text AS type, e.elements, r.expires_at::pg_catalog.timestamptz AS expires_at, "
         "coalesce(pg_catalog.pg_column_size(e.elements), 0)::pg_catalog.int8 AS bytes FROM (" +
         query +
         "\n) AS r, LATERAL (SELECT redis_migrate.reverse_elements(r.type::pg_catalog.text, r.value) AS "
         "elements "
         "OFFSET 0) AS e) AS r) AS r";
}

std::string ReverseMapping::PageStatement(int limit) const {
  std::string columns, after, shown, is_there;
  for (size_t i = 0; i < names.size(); ++i) {
    std::string const comma = i == 0 ? "" : ", ", column = QuoteIdentifier(names[i].column.name);
    columns += comma + column;
    after += comma + Cast(i, "$" + std::to_string(i + 1));
    shown += comma + "pg_catalog.concat(" + column + ")";
    is_there += " AND " + column + " IS NOT NULL";
  }
  return "SELECT " + shown + " FROM " + target.name + " WHERE ($1 IS NULL OR (" + columns + ") > (" + after +
         "))" + is_there + " GROUP BY " + columns + " ORDER BY " + columns + " LIMIT " +
         std::to_string(limit);
}

std::optional<ReverseProblem> FindReverse(const Mapping &mapping,
                                          const std::shared_ptr<const Routing> &routing,
                                          std::optional<ReverseMapping> &reverse) {
  MappingSettings settings(mapping);
  ReverseMapping found{mapping, LoadTarget(mapping), ParsePattern(mapping.pattern), routing};
  if (GetDatabaseEncoding() != PG_UTF8)
    return ReverseProblem{"the encoding of the database is not UTF8, as that of keys is",
                          "Cut over with no_way_back => true."};
  if (found.target.kind != TargetKind::kLocal)
    return ReverseProblem{"the target is a foreign table, has foreign partitions, or is a view",
                          "Changes of such targets cannot be told; cut over with no_way_back => true."};
  if (HasChildren(found.target.oid))
    return ReverseProblem{"the target has children by inheritance",
                          "Changes of these cannot be told; cut over with no_way_back => true."};
  MappingQuery const query(mapping, BatchShape(found.pattern, ExpandFromName(mapping.expand)), found.target);
  if (auto why = FindNames(query.facts(), found)) {
    if (auto why_not = WhyLedgerCannotName(mapping, found.target, query.facts()))
      return ReverseProblem{*why + (why_not->empty() ? "" : ", and " + *why_not),
                            "Name the keys' captures in key_columns, and one database."};
    found.has_whole_key = false;
    found.names = found.target.keys;
    found.ledger = std::make_shared<LedgerNames>(mapping, found.target);
  }
  if (auto stored = StoredQuery(mapping)) {
    found.query = *stored;
    found.is_of_owner = true;
  } else {
    found.query = DeriveQuery(query.facts(), found);
    const auto &copied = query.facts().copied;
    if (auto expires = copied.find("expires_at"); !mapping.expand && expires != copied.end())
      found.expires_column = expires->second;
  }
  if (found.query.empty())
    return ReverseProblem{"the columns are no plain copies of the value, and it has no reverse query",
                          HintFor(mapping)};
  found.read =
      std::make_shared<pg::KeptStatement>(found.ReadStatement(), pg::KeptStatement::Planning::kByIndex);
  reverse.emplace(std::move(found));
  return std::nullopt;
}

std::vector<ReverseMapping> FindReverses(const Migration &migration,
                                         const std::optional<std::string> &pattern,
                                         std::map<std::string, ReverseProblem> &problems) {
  auto const routing = std::make_shared<const Routing>(migration, std::nullopt, std::nullopt);
  std::map<std::string, std::vector<const Mapping *>> families;
  for (const Mapping &mapping : migration.mappings)
    if (!pattern || mapping.pattern == *pattern) families[mapping.pattern].push_back(&mapping);
  std::map<int64, const Mapping *> chosen;
  for (const auto &[text, mappings] : families) {
    if (mappings.size() == 1) {
      chosen[mappings.front()->id] = mappings.front();
      continue;
    }
    std::vector<const Mapping *> explicit_ones;
    for (const Mapping *mapping : mappings)
      if (StoredQuery(*mapping)) explicit_ones.push_back(mapping);
    if (explicit_ones.size() == 1)
      chosen[explicit_ones.front()->id] = explicit_ones.front();
    else
      problems[mappings.front()->name] = {
          "pattern " + text + " has several mappings, and not exactly one of them has a reverse query",
          HintFor(*mappings.front())};
  }
  // Their tables are locked in the order in which stop_reverse drops triggers.
  std::vector<ReverseMapping> reverses;
  for (const auto &[id, mapping] : chosen) {
    std::optional<ReverseMapping> reverse;
    if (auto problem = FindReverse(*mapping, routing, reverse))
      problems[mapping->name] = *problem;
    else
      reverses.push_back(std::move(*reverse));
  }
  return reverses;
}

std::vector<ReverseMapping> FindFedMappings(const Migration &migration,
                                            const std::optional<std::string> &pattern,
                                            std::map<std::string, ReverseProblem> &problems) {
  std::vector<ReverseMapping> reverses = FindReverses(migration, pattern, problems);
  if (migration.server.empty() || ServerOptions(migration.server, GetUserId()).seeds.empty()) return reverses;
  std::vector<ReverseMapping> fed;
  for (ReverseMapping &reverse : reverses) {
    const auto &databases = reverse.mapping.databases;
    if (reverse.ledger ? !databases || *databases == std::vector<int>{0} : reverse.db == 0)
      fed.push_back(std::move(reverse));
    else
      problems[reverse.mapping.name] = {"a Redis Cluster has database 0 only",
                                        "databases => '{0}' of the mapping."};
  }
  return fed;
}

namespace {

pg::Failure Unfit(const ReverseMapping &reverse, const std::string &what, const std::string &hint) {
  return {ERRCODE_INVALID_PARAMETER_VALUE,
          "the reverse query of mapping \"" + reverse.mapping.name + "\" yields " + what, "", hint};
}

// Errors: 22023.
sink::WholeValue ReadValue(const ReverseMapping &reverse, const pg::Row &row) {
  auto const count = static_cast<int>(reverse.NameSize());
  sink::WholeValue value;
  value.type = row.Text(count);
  if (value.type.empty()) return value;
  if (!row.IsNull(count + 1)) {
    Datum *elements = nullptr;
    bool *nulls = nullptr;
    int size = 0;
    Datum const array = row.Value(count + 1);
    pg::Call([&] {
      deconstruct_array(DatumGetArrayTypeP(array), BYTEAOID, -1, false, TYPALIGN_INT, &elements, &nulls,
                        &size);
    });
    // As reverse_elements begins those of a hash whose fields expire.
    bool const has_expiries = value.type == "hash" && size > 0 && nulls[0];
    for (int i = has_expiries ? 1 : 0; i < size; ++i) {
      if (has_expiries && i % 3 == 0) {
        value.field_expiries.push_back(
            nulls[i] ? std::nullopt : std::optional(std::stoll(std::string(pg::DatumBytes(elements[i])))));
        continue;
      }
      if (nulls[i])
        throw Unfit(reverse, "a NULL among elements of a value", "Leave it out, or say what it is.");
      value.elements.emplace_back(pg::DatumBytes(elements[i]));
    }
  } else if (value.type == "string") {
    value.type = "list";  // NULL: no key
  }
  if (!row.IsNull(count + 2)) {
    TimestampTz const expires_at = DatumGetTimestampTz(row.Value(count + 2));
    if (TIMESTAMP_IS_NOBEGIN(expires_at))
      value.expires_at_ms = 1;
    else if (!TIMESTAMP_IS_NOEND(expires_at))
      value.expires_at_ms = pg::UnixMs(expires_at);
  }
  if (!sink::IsComplete(value))
    throw Unfit(
        reverse, "a value that no key can have",
        "Its type must be string, hash, list, set or zset, and its value fit it; scores are numbers.");
  return value;
}

}  // namespace

pg::UsedObjects UsedByQuery(const ReverseMapping &reverse) {
  MappingSettings const settings(reverse.mapping);
  pg::UsedObjects used;
  if (reverse.ledger)
    used.Add(reverse.ReadStatement(), {TEXTARRAYOID, INT4ARRAYOID, TEXTARRAYOID});
  else
    used.Add(reverse.ReadStatement(), {TEXTARRAYOID, INT4OID});
  return used;
}

void RequireTarget(const ReverseMapping &reverse) {
  if (LoadTargetRelation(reverse.mapping).oid != reverse.target.oid)
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "target " + reverse.target.name + " of mapping \"" + reverse.mapping.name +
                          "\" was replaced while it was being read");
}

namespace {

pg::Rows ReadRows(const ReverseMapping &reverse, const std::set<RowName> &names) {
  std::vector<std::string> columns;
  columns.reserve(names.size() * reverse.names.size());
  for (size_t i = 0; i < reverse.names.size(); ++i)
    for (const RowName &name : names) columns.push_back(name[i]);
  return reverse.read->Execute(
      {SqlParam::TextArray(columns), SqlParam::Int4(static_cast<int32>(names.size()))}, true);
}

pg::Rows ReadRowsOf(const ReverseMapping &reverse, const std::vector<LedgerNames::Entry> &entries) {
  std::vector<std::string> row_keys, keys;
  std::vector<int> dbs;
  for (const LedgerNames::Entry &entry : entries) {
    row_keys.push_back(entry.row_key);
    dbs.push_back(reverse.DbOf(entry.name));
    keys.push_back(entry.name[1]);
  }
  return reverse.read->Execute(
      {SqlParam::TextArray(row_keys), SqlParam::Int4Array(dbs), SqlParam::TextArray(keys)}, true);
}

}  // namespace

std::map<RowName, ReverseValue> ReadReverseRows(const ReverseMapping &reverse, const std::set<RowName> &names,
                                                int64 &bytes, std::set<RowName> *unknown) {
  RequireTarget(reverse);
  if (reverse.is_of_owner && pg::Call([] { return superuser(); }))
    pg::CheckCode(*reverse.mapping.accepted, UsedByQuery(reverse), GetUserId(),
                  "the reverse query of mapping \"" + reverse.mapping.name + "\"",
                  "SELECT redis_migrate.set_reverse_query(" + QuoteLiteral(reverse.mapping.migration) + ", " +
                      QuoteLiteral(reverse.mapping.name) + ", '...', trust_target => true);");
  std::vector<LedgerNames::Entry> entries;
  if (reverse.ledger) {
    entries = reverse.ledger->FindRows(names);
    if (unknown != nullptr) {
      *unknown = names;
      for (const LedgerNames::Entry &entry : entries) unknown->erase(entry.name);
    }
  }
  MappingSettings const settings(reverse.mapping);
  CanonicalText canonical;
  // Of reverse queries; identities of rows are parsed by that of the ledger, see WhyLedgerCannotName.
  canonical.Set("timezone", reverse.mapping.timezone);
  canonical.Set("row_security", "off");  // a row that is hidden would be a key that is gone
  pg::Rows const rows = reverse.ledger ? ReadRowsOf(reverse, entries) : ReadRows(reverse, names);
  auto const count = static_cast<int>(reverse.NameSize());
  std::map<RowName, ReverseValue> values;
  bytes = 0;
  for (uint64 i = 0; i < rows.size(); ++i) {
    RowName texts;
    for (int j = 0; j < count; ++j) texts.push_back(rows[i].Text(j));
    std::optional<RowName> const name = reverse.Canonical(std::move(texts));
    if (!name || names.count(*name) == 0)
      throw Unfit(reverse, "a name that is not one of redis_rows",
                  reverse.ledger ? "It has to yield redis_db and redis_key as redis_rows has them."
                                 : "It has to yield the columns that name the key as redis_rows has them.");
    bytes += rows[i].Int8(count + 4);
    ReverseValue value;
    if (rows[i].Int8(count + 3) < kMostReverseBytes) value = ReadValue(reverse, rows[i]);
    if (!values.emplace(*name, std::move(value)).second)
      throw Unfit(reverse, "two values of one key", "It has to yield one row for each key.");
  }
  return values;
}

std::vector<RowName> ReadRowColumns(const ReverseMapping &reverse, int limit, RowName &last) {
  RequireTarget(reverse);
  CanonicalText canonical;
  canonical.Set("search_path", "pg_catalog, pg_temp");  // of the comparison of rows
  canonical.Set("row_security", "off");
  std::vector<SqlParam> after;
  for (size_t i = 0; i < reverse.names.size(); ++i)
    after.push_back(last.empty() ? SqlParam{TEXTOID, 0, true} : SqlParam::Text(last[i]));
  auto rows = Spi::Execute(reverse.PageStatement(limit), after);
  last.clear();
  std::vector<RowName> columns;
  for (uint64 i = 0; i < rows.size(); ++i) {
    last.clear();
    for (size_t j = 0; j < reverse.names.size(); ++j) last.push_back(rows[i].Text(static_cast<int>(j)));
    columns.push_back(last);
  }
  return columns;
}

std::vector<RowName> ReadReverseNames(const ReverseMapping &reverse, int limit, RowName &last) {
  std::vector<RowName> names;
  for (RowName &texts :
       reverse.ledger ? reverse.ledger->ReadNames(limit, last) : ReadRowColumns(reverse, limit, last))
    if (auto name = reverse.Canonical(std::move(texts))) names.push_back(std::move(*name));
  return names;
}

}  // namespace prm
