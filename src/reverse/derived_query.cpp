#include "reverse/derived_query.h"

#include "pg/spi.h"
#include "reverse/ledger_names.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::QuoteLiteral;

std::string DeriveQuery(const QueryFacts &facts, const ReverseMapping &reverse) {
  auto copy = [&](const char *source) -> std::string {
    auto found = facts.copied.find(source);
    return found == facts.copied.end() ? "" : QuoteIdentifier(found->second);
  };
  std::string names, groups;
  for (size_t i = 0; i < reverse.NameSize(); ++i) {
    std::string const column =
        reverse.ledger ? kLedgerColumns[i] : QuoteIdentifier(reverse.names[i].column.name);
    names += column + " AS " + reverse.NameColumn(i) + ", ";
    groups += (i == 0 ? "" : ", ") + column;
  }
  std::string const expires = copy("expires_at");
  auto plain = [&](const std::string &type, const std::string &value) {
    return "SELECT " + names + QuoteLiteral(type) + "::pg_catalog.text AS type, " + value + " AS value, " +
           (expires.empty() ? "NULL::pg_catalog.timestamptz" : expires) + " AS expires_at FROM redis_rows";
  };
  auto grouped = [&](const std::string &type, const std::string &value) {
    return "SELECT " + names + QuoteLiteral(type) + "::pg_catalog.text AS type, " + value + " AS value, " +
           (expires.empty() ? "NULL::pg_catalog.timestamptz" : "pg_catalog.max(" + expires + ")") +
           " AS expires_at FROM redis_rows GROUP BY " + groups;
  };
  const auto &types = reverse.mapping.types;
  std::string const type = types && types->size() == 1 ? types->front() : "";
  if (!reverse.mapping.expand) {
    for (const char *source : {"value_bytes", "value"})
      if (std::string const value = copy(source); !value.empty()) {
        if (type == "string") return plain(type, value);
        // Where keys may be of other types, a NULL does not mean that there is none.
        return "SELECT " + names + "CASE WHEN " + value +
               " IS NULL THEN '' ELSE 'string' END::pg_catalog.text AS type, " + value + " AS value, " +
               (expires.empty() ? "NULL::pg_catalog.timestamptz" : expires) +
               " AS expires_at FROM redis_rows";
      }
    if (!copy("json").empty() && (type == "hash" || type == "list" || type == "set" || type == "zset"))
      return plain(type, copy("json") + "::pg_catalog.jsonb");
    return "";
  }
  std::string const value = copy("value"), member = copy("member"), score = copy("score");
  if (*reverse.mapping.expand != "elements") return "";
  if (std::string const field = copy("field"); !field.empty() && !value.empty()) {
    std::string const field_expires = copy("field_expires_at");
    if (field_expires.empty())
      return grouped("hash", "pg_catalog.jsonb_object_agg(" + field + ", " + value + ")");
    return grouped("hash", "pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('field', " + field +
                               ", 'value', " + value + ", 'expires_at', " + field_expires + "))");
  }
  if (!member.empty() && !score.empty() && (type == "zset" || type.empty()))
    // As text: numbers of JSON have no negative zero.
    return grouped("zset", "pg_catalog.jsonb_object_agg(" + member + ", " + score + "::pg_catalog.text)") +
           " HAVING pg_catalog.count(" + score + ") OPERATOR(pg_catalog.>) 0" +
           (type.empty() ? " UNION ALL " + grouped("set", "pg_catalog.jsonb_agg(" + member + ")") +
                               " HAVING pg_catalog.count(" + score + ") OPERATOR(pg_catalog.=) 0"
                         : "");
  if (!member.empty() && type == "set") return grouped("set", "pg_catalog.jsonb_agg(" + member + ")");
  std::string const order = copy("ordinal").empty() ? copy("position") : copy("ordinal");
  if (!value.empty() && !order.empty() && (type.empty() || type == "list"))
    return grouped("list", "pg_catalog.jsonb_agg(" + value + " ORDER BY " + order + ")");
  return "";
}

}  // namespace prm
