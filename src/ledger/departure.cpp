#include "ledger/departure.h"

#include "mapping/target_statements.h"
#include "pg/identity.h"
#include "pg/time.h"

namespace prm {

using pg::Spi;

namespace {

// Whether a row had expired at a time, in milliseconds since 1970. Never NULL.
std::string HasExpired(const std::vector<std::string> &expires, const std::string &at_ms) {
  std::string any;
  for (const std::string &column : expires)
    any += (any.empty() ? "" : " OR ") + std::string("target.") + pg::QuoteIdentifier(column) +
           " OPERATOR(pg_catalog.<=) pg_catalog.to_timestamp((" + at_ms +
           ")::pg_catalog.float8 OPERATOR(pg_catalog./) 1000)";
  return "((" + any + ") IS TRUE)";
}

const std::string &MilderOf(const std::string &on_delete, const std::string &on_expire) {
  for (const std::string *action : {&on_expire, &on_delete})
    if (*action == "keep") return *action;
  return on_expire == "delete" ? on_delete : on_expire;
}

}  // namespace

std::string DepartureStatement(const Mapping &mapping, const std::string &target,
                               const std::vector<std::string> &expires, const DepartedRows &rows) {
  std::string const had_expired = HasExpired(expires, rows.after_ms);
  std::string const has_expired = HasExpired(expires, rows.until_ms);
  struct Part {
    const char *name;
    const std::string &action;
    std::string condition;
  };
  const Part parts[] = {
      {"deleted", mapping.on_delete, "NOT " + has_expired},
      {"expired", *mapping.on_expire, had_expired},
      {"unclear", MilderOf(mapping.on_delete, *mapping.on_expire), has_expired + " AND NOT " + had_expired}};
  std::string all = rows.relations.empty() ? "" : ", " + rows.relations;
  // One statement, so that no part sees what another has changed.
  std::string with, removed, changed, counts;
  for (const Part &part : parts) {
    std::string const condition = " WHERE " + rows.condition + " AND " + part.condition;
    bool const is_kept = part.action == "keep";
    std::string statement = "SELECT FROM " + target + " AS target" + all + condition;
    if (!is_kept) {
      const char *const word = part.action == "delete" ? " USING " : " FROM ";
      statement = DeleteStatement(target, part.action) +
                  (rows.relations.empty() ? "" : word + rows.relations) + condition + " RETURNING 1";
    }
    with += std::string(with.empty() ? "WITH " : ", ") + "redis_" + part.name + " AS (" + statement + ")";
    std::string const count = std::string("(SELECT pg_catalog.count(*) FROM redis_") + part.name + ")";
    counts += ", " + count;
    if (is_kept) continue;
    removed += " OPERATOR(pg_catalog.+) " + count;
    if (!rows.is_changed.empty())
      changed += " OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM " + target + " AS target" + all +
                 condition + " AND " + rows.is_changed + ")";
  }
  return with + " SELECT 0::pg_catalog.int8" + removed + ", 0::pg_catalog.int8" + changed + counts;
}

void CountDeparted(const pg::Row &row, RowCounts &counts) {
  counts.deleted += row.Int8(0);
  counts.changed_here += row.Int8(1);
  counts.expired += row.Int8(3);
  counts.unclear += row.Int8(4);
}

void DeleteWhere(const Mapping &mapping, const std::string &target, const std::vector<std::string> &expires,
                 const std::string &condition, Journal &journal, RowCounts &counts) {
  journal.Around("", condition, pg::KeptStatement::Planning::kAsUsual, [&] {
    if (mapping.on_expire) {
      std::string const now_ms = std::to_string(pg::NowMs());
      pg::Rows const result =
          Spi::Execute(DepartureStatement(mapping, target, expires, {"", condition, now_ms, now_ms, ""}));
      return CountDeparted(result[0], counts);
    }
    counts.deleted += static_cast<int64>(
        Spi::Execute(DeleteStatement(target, mapping.on_delete) + " WHERE " + condition).processed());
  });
}

}  // namespace prm
