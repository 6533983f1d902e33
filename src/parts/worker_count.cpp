#include "parts/worker_count.h"

#include <unistd.h>

#include "mapping/target.h"
#include "pg/arguments.h"
#include "pg/session_settings.h"
#include "pg/spi.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kMostWorkers = 64;

bool HasFullLedger(const Mapping *mapping) { return mapping->ledger == "full"; }

}  // namespace

std::optional<int> WorkersArgument(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) return std::nullopt;
  int const workers = PG_GETARG_INT32(n);
  if (workers < 1 || workers > kMostWorkers)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                  "workers must be between 1 and " + std::to_string(kMostWorkers),
                  "It is the number of processes that read the source side by side.",
                  "Leave it out for a number that suits the source.");
  return workers;
}

std::optional<std::string> ReasonToRunAlone(const std::vector<const Mapping *> &mappings) {
  if (std::optional<std::string> reason = pg::ReasonNotToAdoptSettings()) return reason;
  for (const Mapping *mapping : mappings) {
    std::string const of = " of mapping \"" + mapping->name + "\"";
    if (pg::Call([&, target = FindTarget(*mapping)] { return get_rel_persistence(target); }) ==
        RELPERSISTENCE_TEMP)
      return "target " + mapping->target + of + " is temporary";
    std::string sql = mapping->query;
    for (const Check &check : mapping->checks) sql += " " + check.condition;
    // Each relation has a type of its name.
    auto const temporary = Spi::Execute(
        R"sql(SELECT t.typname::pg_catalog.text
              FROM pg_catalog.pg_type AS t
              WHERE t.typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()
                  AND pg_catalog.strpos(pg_catalog.lower($1), pg_catalog.lower(t.typname::pg_catalog.text))
                      OPERATOR(pg_catalog.>) 0
              ORDER BY 1 DESC
              LIMIT 1)sql",
        {SqlParam::Text(sql)});
    if (temporary.size() > 0)
      return "the query or a check" + of + " may use \"" + temporary[0].Text(0) + "\", which is temporary";
  }
  return std::nullopt;
}

int CountWorkers(std::optional<int> wanted, const SourceDivision &source,
                 const std::vector<const Mapping *> &mappings) {
  if (wanted) return std::min(*wanted, source.most_readers());
  if (source.is_cluster()) return source.most_readers();
  // One process at a time writes rows of a mapping that has a full ledger.
  if (!mappings.empty() && std::all_of(mappings.begin(), mappings.end(), HasFullLedger)) return 1;
  // Without a core for Redis its other clients would wait for one, and readers would, too.
  auto const cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)) - (source.is_local() ? 1 : 0);
  return std::min(std::max(cores, 1), source.worthwhile_readers());
}

}  // namespace prm
