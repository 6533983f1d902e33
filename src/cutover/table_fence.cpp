#include "cutover/table_fence.h"

#include "cutover/unfinished.h"
#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/own_write.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;

namespace {

constexpr int64 kUnfenceWaitMs = 10 * 1000;

// Row triggers of partitioned tables are those of their partitions, too.
constexpr char kRowTrigger[] = "redis_migrate_fence";
constexpr char kTruncateTrigger[] = "redis_migrate_fence_truncate";

// By the names of mappings, which are schema-qualified.
std::set<std::string> TargetsOf(const Migration &migration, const std::vector<std::string> &patterns) {
  std::set<std::string> targets;
  for (const Mapping &mapping : migration.mappings)
    if (std::count(patterns.begin(), patterns.end(), mapping.pattern) > 0 && mapping.accepted)
      targets.insert(mapping.target);
  return targets;
}

void SetLockTimeout(int64 wait_ms) {
  pg::SetForTransaction("lock_timeout", std::to_string(std::max(wait_ms, int64{1})).c_str());
}

void DropTriggers(const std::string &target) {
  // Only of a table that has them: DROP TRIGGER waits for everybody who reads it.
  for (const char *trigger : {kRowTrigger, kTruncateTrigger}) {
    bool const is_there = Spi::Execute(
                              R"sql(SELECT EXISTS (SELECT
                                    FROM pg_catalog.pg_trigger
                                    WHERE tgrelid = to_regclass($1) AND tgname = $2 AND tgparentid = 0))sql",
                              {pg::SqlParam::Text(target), pg::SqlParam::Text(trigger)})[0]
                              .Bool(0);
    if (is_there) Spi::Execute("DROP TRIGGER " + std::string(trigger) + " ON " + target);
  }
}

}  // namespace

void FenceTables(const Migration &migration, const std::vector<std::string> &patterns, int64 wait_ms) {
  SetLockTimeout(wait_ms);
  for (const std::string &target : TargetsOf(migration, patterns)) {
    DropTriggers(target);
    Spi::Execute("CREATE TRIGGER " + std::string(kRowTrigger) + " BEFORE INSERT OR UPDATE OR DELETE ON " +
                 target + " FOR EACH ROW EXECUTE FUNCTION redis_migrate.refuse_write()");
    Spi::Execute("CREATE TRIGGER " + std::string(kTruncateTrigger) + " BEFORE TRUNCATE ON " + target +
                 " FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.refuse_write()");
    for (const char *trigger : {kRowTrigger, kTruncateTrigger})
      Spi::Execute("ALTER TABLE " + target + " ENABLE ALWAYS TRIGGER " + trigger);
  }
}

void UnfenceTables(const Migration &migration, const std::vector<std::string> &patterns, int64 wait_ms) {
  SetLockTimeout(wait_ms);
  for (const std::string &target : TargetsOf(migration, patterns)) DropTriggers(target);
}

}  // namespace prm

// redis_migrate.refuse_write() → trigger: see the SQL comment. Errors: 39P01 unless called as a trigger;
// 25006 unless the extension itself writes.
PRM_FUNCTION(refuse_write) {
  using namespace prm;
  if (!CALLED_AS_TRIGGER(fcinfo))
    throw pg::Failure(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                      "redis_migrate.refuse_write is for triggers");
  const auto *data = reinterpret_cast<const TriggerData *>(fcinfo->context);
  if (!pg::OwnWrite::IsUnderWay())
    throw pg::Failure(
        ERRCODE_READ_ONLY_SQL_TRANSACTION,
        "table \"" + std::string(RelationGetRelationName(data->tg_relation)) + "\" belongs to Redis again",
        "redis_migrate.cutback has fenced it. What is written here now would be lost.",
        "Write to Redis; redis_migrate.unfence ends the fence.");
  if (TRIGGER_FIRED_BY_UPDATE(data->tg_event)) PG_RETURN_POINTER(data->tg_newtuple);
  PG_RETURN_POINTER(TRIGGER_FIRED_FOR_ROW(data->tg_event) ? data->tg_trigtuple : nullptr);
}

// redis_migrate.unfence(migration text, pattern text): see the SQL comment. Errors: 42704, 42501, 55006 while
// a session cuts the migration over or back; those of UnfenceTables.
PRM_FUNCTION(unfence) {
  using namespace prm;
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::optional<std::string> const pattern = pg::OptionalTextArgument(fcinfo, 1);
  pg::Spi spi;
  Migration const migration = LoadMigration(name);
  CutoverLock const lock(name);
  UnfenceTables(migration, PatternsOf(migration, pattern), kUnfenceWaitMs);
  PG_RETURN_VOID();
}
