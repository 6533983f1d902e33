#include "reverse/reverse_mapping.h"

#include "mapping/ledger_choice.h"
#include "mapping/mapping_query.h"
#include "mapping/mapping_settings.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"

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
         QuoteLiteral(mapping.name) + ", 'SELECT …') says how the rows become a key; docs: reverse-feed.md.";
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

// The query of a mapping whose columns are plain copies of the value; empty: they are not.
std::string DeriveQuery(const QueryFacts &facts, const ReverseMapping &reverse) {
  auto copy = [&](const char *source) -> std::string {
    auto found = facts.copied.find(source);
    return found == facts.copied.end() ? "" : QuoteIdentifier(found->second);
  };
  std::string names;
  for (const KeyColumn &name : reverse.names) names += QuoteIdentifier(name.column.name) + ", ";
  std::string const expires = copy("expires_at");
  auto plain = [&](const std::string &type, const std::string &value) {
    return "SELECT " + names + QuoteLiteral(type) + "::pg_catalog.text AS type, " + value + " AS value, " +
           (expires.empty() ? "NULL::pg_catalog.timestamptz" : expires) + " AS expires_at FROM redis_rows";
  };
  auto grouped = [&](const std::string &type, const std::string &value) {
    return "SELECT " + names + QuoteLiteral(type) + "::pg_catalog.text AS type, " + value + " AS value, " +
           (expires.empty() ? "NULL::pg_catalog.timestamptz" : "pg_catalog.max(" + expires + ")") +
           " AS expires_at FROM redis_rows GROUP BY " + names.substr(0, names.size() - 2);
  };
  const auto &types = reverse.mapping.types;
  std::string const type = types && types->size() == 1 ? types->front() : "";
  if (!reverse.mapping.expand) {
    for (const char *source : {"value_bytes", "value"})
      if (!copy(source).empty()) return plain("string", copy(source));
    if (!copy("json").empty() && (type == "hash" || type == "list" || type == "set" || type == "zset"))
      return plain(type, copy("json"));
    return "";
  }
  std::string const value = copy("value"), member = copy("member"), score = copy("score");
  if (*reverse.mapping.expand != "elements") return "";
  if (!copy("field").empty() && !value.empty())
    return grouped("hash", "pg_catalog.jsonb_object_agg(" + copy("field") + ", " + value + ")");
  if (!member.empty() && !score.empty() && type != "set")
    return grouped("zset", "pg_catalog.jsonb_object_agg(" + member + ", " + score + ")");
  if (!member.empty() && type == "set") return grouped("set", "pg_catalog.jsonb_agg(" + member + ")");
  std::string const order = copy("ordinal").empty() ? copy("position") : copy("ordinal");
  if (!value.empty() && !order.empty() && (type.empty() || type == "list"))
    return grouped("list", "pg_catalog.jsonb_agg(" + value + " ORDER BY " + order + ")");
  return "";
}

}  // namespace

std::optional<RowName> ReverseMapping::NameOf(Bytes key) const {
  Match match;
  if (pattern.MatchKey(key, match) != Fit::kFits) return std::nullopt;
  if (has_whole_key) return RowName{std::string(key)};
  return RowName(match.values.begin(), match.values.end());
}

std::string ReverseMapping::Cast(size_t column, const std::string &expression) const {
  // With the length left open: CAST AS character means character(1).
  const char *type = pg::Call([&] {
    return const_cast<const char *>(format_type_extended(
        names[column].column.type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
  });
  return "CAST(" + expression + " AS " + type + ")";
}

std::string ReverseMapping::ReadStatement() const {
  std::string parameters, aliases, condition, shown;
  for (size_t i = 0; i < names.size(); ++i) {
    std::string const number = std::to_string(i + 1), comma = i == 0 ? "" : ", ";
    std::string const column = QuoteIdentifier(names[i].column.name);
    parameters += comma + "$" + number + "::pg_catalog.text[]";
    aliases += comma + "n" + number;
    condition += (i == 0 ? "" : " AND ") + names[i].Equal("target." + column, Cast(i, "named.n" + number));
    shown += "r." + column + "::pg_catalog.text, ";
  }
  return "WITH redis_names AS MATERIALIZED (SELECT * FROM ROWS FROM (pg_catalog.unnest(" + parameters +
         ")) AS n (" + aliases +
         ")), redis_rows AS MATERIALIZED (SELECT target.* FROM redis_names AS named JOIN " + target.name +
         " AS target ON " + condition + ") SELECT " + shown +
         "r.type::pg_catalog.text, redis_migrate.reverse_elements(r.type::pg_catalog.text, r.value), "
         "r.expires_at::pg_catalog.timestamptz FROM (" +
         query + "\n) AS r";
}

std::string ReverseMapping::PageStatement(int limit) const {
  std::string columns, after, shown;
  for (size_t i = 0; i < names.size(); ++i) {
    std::string const comma = i == 0 ? "" : ", ", column = QuoteIdentifier(names[i].column.name);
    columns += comma + column;
    after += comma + Cast(i, "$" + std::to_string(i + 1));
    shown += comma + column + "::pg_catalog.text";
  }
  return "SELECT " + shown + " FROM " + target.name + " WHERE $1 IS NULL OR (" + columns + ") > (" + after +
         ") GROUP BY " + columns + " ORDER BY " + columns + " LIMIT " + std::to_string(limit);
}

std::optional<ReverseProblem> FindReverse(const Mapping &mapping, std::optional<ReverseMapping> &reverse) {
  MappingSettings settings(mapping);
  ReverseMapping found{mapping, LoadTarget(mapping), ParsePattern(mapping.pattern)};
  if (found.target.kind != TargetKind::kLocal)
    return ReverseProblem{"the target is a foreign table, has foreign partitions, or is a view",
                          "Changes of such targets cannot be told; cut over with no_way_back => true."};
  MappingQuery const query(mapping, BatchShape(found.pattern, ExpandFromName(mapping.expand)), found.target);
  if (auto why = FindNames(query.facts(), found))
    return ReverseProblem{*why, "Name the keys' captures in key_columns, and one database."};
  if (auto stored = StoredQuery(mapping))
    found.query = *stored;
  else
    found.query = DeriveQuery(query.facts(), found);
  if (found.query.empty())
    return ReverseProblem{"the columns are no plain copies of the value, and it has no reverse query",
                          HintFor(mapping)};
  reverse.emplace(std::move(found));
  return std::nullopt;
}

std::vector<ReverseMapping> FindReverses(const Migration &migration,
                                         const std::optional<std::string> &pattern,
                                         std::map<std::string, ReverseProblem> &problems) {
  std::map<std::string, std::vector<const Mapping *>> families;
  for (const Mapping &mapping : migration.mappings)
    if (!pattern || mapping.pattern == *pattern) families[mapping.pattern].push_back(&mapping);
  std::vector<ReverseMapping> reverses;
  for (auto &[text, mappings] : families) {
    if (mappings.size() > 1) {
      std::vector<const Mapping *> explicit_ones;
      for (const Mapping *mapping : mappings)
        if (StoredQuery(*mapping)) explicit_ones.push_back(mapping);
      if (explicit_ones.size() != 1) {
        problems[mappings.front()->name] = {"pattern " + text +
                                                " has several mappings, and not exactly one of them has a "
                                                "reverse query",
                                            HintFor(*mappings.front())};
        continue;
      }
      mappings = explicit_ones;
    }
    std::optional<ReverseMapping> reverse;
    if (auto problem = FindReverse(*mappings.front(), reverse))
      problems[mappings.front()->name] = *problem;
    else
      reverses.push_back(std::move(*reverse));
  }
  return reverses;
}

std::pair<RowName, redis::WholeValue> ReadReverseRow(const ReverseMapping &reverse, const pg::Row &row) {
  auto const count = static_cast<int>(reverse.names.size());
  RowName name;
  for (int i = 0; i < count; ++i) name.push_back(row.Text(i));
  redis::WholeValue value;
  value.type = row.Text(count);
  if (!row.IsNull(count + 1)) {
    Datum *elements = nullptr;
    bool *nulls = nullptr;
    int size = 0;
    Datum const array = row.Value(count + 1);
    pg::Call([&] {
      deconstruct_array(DatumGetArrayTypeP(array), BYTEAOID, -1, false, TYPALIGN_INT, &elements, &nulls,
                        &size);
    });
    for (int i = 0; i < size; ++i)
      value.elements.emplace_back(nulls[i] ? std::string() : std::string(pg::DatumBytes(elements[i])));
  } else if (value.type == "string") {
    value.type = "list";  // NULL: no key
  }
  if (!row.IsNull(count + 2)) {
    TimestampTz const expires_at = DatumGetTimestampTz(row.Value(count + 2));
    if (!TIMESTAMP_IS_NOEND(expires_at)) value.expires_at_ms = pg::UnixMs(expires_at);
  }
  if (!redis::IsComplete(value))
    throw pg::Failure(
        ERRCODE_INVALID_PARAMETER_VALUE,
        "the reverse query of mapping \"" + reverse.mapping.name + "\" yields a value that no key can have",
        "Its type must be string, hash, list, set or zset, and its value fit it.");
  return {std::move(name), std::move(value)};
}

}  // namespace prm
