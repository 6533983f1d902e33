// The SQL functions of the reverse feed.
#include "mapping/migration_lock.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/session_lock.h"
#include "pg/transaction.h"
#include "pg/user_sql.h"
#include "pg/worker_role.h"
#include "reverse/ledger_names.h"
#include "reverse/outbox.h"

namespace prm {
namespace {

using pg::Spi;
using pg::SqlParam;

Mapping &FindMapping(Migration &migration, const std::string &name) {
  for (Mapping &mapping : migration.mappings)
    if (mapping.name == name) return mapping;
  throw pg::Failure(ERRCODE_UNDEFINED_OBJECT,
                    "migration \"" + migration.name + "\" has no mapping \"" + name + "\"", "",
                    "SELECT mapping FROM redis_migrate.mappings.");
}

// Two sessions that make and drop triggers of the same tables would wait for each other, and two that confirm
// roles would undo each other's.
void LockFeedForChange(const std::string &migration) {
  // No migration has such a name.
  pg::LockInTransaction(pg::LockTagOfName(pg::kReverseLocks, "\xff" + migration), ExclusiveLock);
}

// Has PostgreSQL analyse the statement, over no rows.
void CheckQuery(const ReverseMapping &reverse) {
  int64 bytes = 0;
  pg::SnapshotScope const snapshot;
  ReadReverseRows(reverse, {}, bytes);
}

}  // namespace
}  // namespace prm

// redis_migrate.set_reverse_query(migration text, mapping text, query text, trust_target boolean): see the
// SQL comment. Errors: 42704, 42501 not the owner, 55006 while it is changed or about to run, 42601 for what
// is no single query, 55000 for a mapping whose rows do not tell its keys, and those of the query.
PRM_FUNCTION(set_reverse_query) {
  using namespace prm;
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::string const mapping_name = pg::TextArgument(fcinfo, 1, "mapping");
  std::optional<std::string> const query = pg::OptionalTextArgument(fcinfo, 2);
  pg::Spi spi;
  LoadMigration(name);  // only its owner may take the locks
  LockFeedForChange(name);
  LockBesideRuns(name);
  Migration migration = LoadMigration(name);
  Mapping &mapping = FindMapping(migration, mapping_name);
  if (query) pg::CheckQuery(*query, "query");
  {
    LockFeed(name);
    pg::AsExtensionOwner as_owner;
    Spi::Execute("DELETE FROM redis_migrate.reverse_query WHERE mapping_id = $1",
                 {SqlParam::Int8(mapping.id)});
    if (query)
      Spi::Execute("INSERT INTO redis_migrate.reverse_query (mapping_id, query) VALUES ($1, $2)",
                   {SqlParam::Int8(mapping.id), SqlParam::Text(*query)});
    // Another query may not write when keys expire.
    Spi::Execute("UPDATE redis_migrate.reverse_mapping SET expires_column = NULL WHERE mapping_id = $1",
                 {SqlParam::Int8(mapping.id)});
  }
  if (!query) PG_RETURN_VOID();
  mapping.accepted->is_confirmed = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
  std::optional<ReverseMapping> reverse;
  auto const routing = std::make_shared<const Routing>(migration, std::nullopt, std::nullopt);
  if (auto problem = FindReverse(mapping, routing, reverse))
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "rows of mapping \"" + mapping.name + "\" cannot become keys: " + problem->problem, "",
                      problem->hint);
  pg::TrustCode(*mapping.accepted, UsedByQuery(*reverse), GetUserId());
  CheckQuery(*reverse);
  if (mapping.accepted->is_confirmed) StoreTrusted(mapping);
  PG_RETURN_VOID();
}

// redis_migrate.reverse_problems(migration text, pattern text): see the SQL comment. Errors: 42704, 42501 not
// the owner.
PRM_FUNCTION(reverse_problems) {
  using namespace prm;
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::optional<std::string> const pattern = pg::OptionalTextArgument(fcinfo, 1);
  std::map<std::string, ReverseProblem> problems;
  {
    pg::Spi spi;
    FindFedMappings(LoadMigration(name), pattern, problems);
  }
  for (const auto &[mapping, problem] : problems) {
    Datum values[] = {pg::TextDatum(mapping), pg::TextDatum(problem.problem), pg::TextDatum(problem.hint)};
    bool nulls[] = {false, false, false};
    pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
  }
  return static_cast<Datum>(0);
}

// redis_migrate.start_reverse(migration text, pattern text): see the SQL comment. Errors: 42704, 42501 not
// the owner, 25001 in a transaction that would not see what has changed before it has its locks, 55000 with
// the first problem, those of InstallOutboxes.
PRM_FUNCTION(start_reverse) {
  using namespace prm;
  if (IsolationUsesXactSnapshot())
    throw pg::Failure(ERRCODE_ACTIVE_SQL_TRANSACTION, "redis_migrate.start_reverse needs READ COMMITTED",
                      "In REPEATABLE READ and SERIALIZABLE a transaction does not see that triggers were "
                      "disabled or dropped since it began, and what was changed meanwhile would be lost.",
                      "Call it in a transaction of its own, after SET default_transaction_isolation = 'read "
                      "committed'.");
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::optional<std::string> const pattern = pg::OptionalTextArgument(fcinfo, 1);
  pg::Spi spi;
  Migration const migration = LoadMigration(name);
  RequireSource(migration, "scan");
  LockFeedForChange(name);
  std::map<std::string, ReverseProblem> problems;
  std::vector<ReverseMapping> const reverses = FindFedMappings(migration, pattern, problems);
  if (!problems.empty())
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "rows of mapping \"" + problems.begin()->first +
                          "\" cannot become keys: " + problems.begin()->second.problem,
                      "", problems.begin()->second.hint);
  if (reverses.empty())
    throw pg::Failure(ERRCODE_UNDEFINED_OBJECT, "there is no mapping whose rows could be written back");
  for (const ReverseMapping &reverse : reverses) CheckQuery(reverse);
  InstallOutboxes(reverses);
  if (std::string const named = ListNamedByLedger(reverses); !named.empty())
    pg::Report(NOTICE, "rows that are inserted here do not go to Redis, of mappings " + named, kWhyNameless);
  pg::WarnOfRoleProblem(GetUserId(), "the reverse feed of migration \"" + name + "\"");
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.reverse_feed (migration)
            VALUES ($1)
            ON CONFLICT (migration) DO UPDATE SET wanted = true, state = 'starting', since = clock_timestamp(),
                sqlstate = NULL, message = NULL, instance = NULL)sql",
      {SqlParam::Text(name)});
  PG_RETURN_VOID();
}

// redis_migrate.stop_reverse(migration text): see the SQL comment. Errors: 42704, 42501 not the owner, those
// of RemoveOutboxes.
PRM_FUNCTION(stop_reverse) {
  using namespace prm;
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  pg::Spi spi;
  Migration const migration = LoadMigration(name);
  LockFeedForChange(name);
  RemoveOutboxes(migration.mappings);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.reverse_feed
            SET wanted = false, state = 'stopped', since = clock_timestamp()
            WHERE migration = $1)sql",
      {SqlParam::Text(name)});
  PG_RETURN_VOID();
}
