#include "cutover/table_fence.h"

#include "cutover/unfinished.h"
#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/own_write.h"
#include "pg/spi.h"
#include "pg/table_locks.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;

namespace {

// Row triggers of partitioned tables are those of their partitions, too.
constexpr char kRowTrigger[] = "redis_migrate_fence";
constexpr char kTruncateTrigger[] = "redis_migrate_fence_truncate";

struct Table {
  std::string name;  // schema-qualified and quoted
  bool is_foreign;
  std::vector<std::string> leaves;  // of a partitioned table: TRUNCATE triggers are not theirs
};

// Nobody else's functions and operators.
class CatalogPath : public pg::LocalSettings {
 public:
  CatalogPath() { Set("search_path", "pg_catalog, pg_temp"); }
};

// The table that a target is, or that a view stands for, which has no row triggers of its own. Nothing: there
// is none of that name. Errors: 0A000 for a view that does not stand for one.
std::optional<Table> TableOf(const std::string &target) {
  CatalogPath const path;
  auto const rows = Spi::Execute(
      R"sql(WITH RECURSIVE named (relation) AS (
                SELECT to_regclass($1)::oid
                UNION
                SELECT d.refobjid
                FROM named AS n
                JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = n.relation AND w.ev_type = '1'
                JOIN pg_catalog.pg_depend AS d
                    ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                        AND d.refclassid = 'pg_class'::regclass)
            SELECT format('%I.%I', s.nspname, c.relname), c.relkind = 'f',
                ARRAY(SELECT format('%I.%I', t.nspname, l.relname)
                      FROM pg_catalog.pg_partition_tree(c.oid) AS p
                      JOIN pg_catalog.pg_class AS l ON l.oid = p.relid AND l.relkind = 'r'
                      JOIN pg_catalog.pg_namespace AS t ON t.oid = l.relnamespace
                      WHERE p.isleaf AND p.level > 0),
                c.relkind = 'v', pg_catalog.pg_relation_is_updatable(c.oid, false) & 28 = 28
            FROM named AS n
            JOIN pg_catalog.pg_class AS c ON c.oid = n.relation AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
            JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace)sql",
      {pg::SqlParam::Text(target)});
  if (rows.size() == 0) return std::nullopt;
  std::vector<Table> tables;
  bool stands_for_table = true;
  for (uint64 i = 0; i < rows.size(); ++i) {
    if (rows[i].Bool(3))
      stands_for_table = stands_for_table && rows[i].Bool(4);
    else
      tables.push_back({rows[i].Text(0), rows[i].Bool(1), rows[i].TextArray(2)});
  }
  if (!stands_for_table || tables.size() != 1)
    throw pg::Failure(
        ERRCODE_FEATURE_NOT_SUPPORTED, "target " + target + " cannot be fenced",
        "It is a view that does not stand for one table, and triggers of views do not refuse rows.",
        "Take the right to write to what it names from the application; once nobody writes there any more: "
        "SELECT redis_migrate.set_family_state(..., 'redis').");
  return tables[0];
}

enum class Gone { kIsAnError, kIsPassedOver };

// The targets of the mappings of these patterns, each once.
// Errors: 42P01 one is gone.
std::vector<Table> TablesOf(const Migration &migration, const std::vector<std::string> &patterns, Gone gone) {
  std::vector<Table> tables;
  for (const Mapping &mapping : migration.mappings) {
    if (std::count(patterns.begin(), patterns.end(), mapping.pattern) == 0 || !mapping.accepted) continue;
    if (std::optional<Table> table = TableOf(mapping.target)) {
      bool const is_known = std::any_of(tables.begin(), tables.end(),
                                        [&](const Table &known) { return known.name == table->name; });
      if (!is_known) tables.push_back(std::move(*table));
    } else if (gone == Gone::kIsAnError) {
      throw pg::Failure(ERRCODE_UNDEFINED_TABLE,
                        "target " + mapping.target + " of mapping \"" + mapping.name + "\" does not exist",
                        "If it was renamed, whoever writes to it now would not be refused.",
                        "If it is gone: SELECT redis_migrate.drop_mapping(" +
                            pg::QuoteLiteral(migration.name) + ", " + pg::QuoteLiteral(mapping.name) +
                            "). If it was renamed, give it its name back.");
    }
  }
  return tables;
}

bool HasTrigger(const std::string &table, const char *trigger) {
  CatalogPath const path;
  return Spi::Execute(
             R"sql(SELECT EXISTS (SELECT
                   FROM pg_catalog.pg_trigger
                   WHERE tgrelid = to_regclass($1) AND tgname = $2 AND tgparentid = 0))sql",
             {pg::SqlParam::Text(table), pg::SqlParam::Text(trigger)})[0]
      .Bool(0);
}

// Only of a table that has it: DROP TRIGGER waits for everybody who reads it.
void DropTrigger(const std::string &table, const char *trigger) {
  if (!HasTrigger(table, trigger)) return;
  Spi::Execute("DROP TRIGGER " + std::string(trigger) + " ON " + table);
}

void CreateTrigger(const std::string &table, const char *trigger, const std::string &when) {
  DropTrigger(table, trigger);
  Spi::Execute("CREATE TRIGGER " + std::string(trigger) + " BEFORE " + when +
               " EXECUTE FUNCTION redis_migrate.refuse_write()");
  Spi::Execute("ALTER TABLE " + table + " ENABLE ALWAYS TRIGGER " + trigger);
}

// A partitioned table, and its leaves, or else the table.
std::vector<std::string> TruncatedWith(const Table &table) {
  if (table.is_foreign) return {};  // before PostgreSQL 16 they have no such triggers
  std::vector<std::string> tables = table.leaves;
  tables.push_back(table.name);
  return tables;
}

bool HasFence(const Table &table) {
  std::vector<std::string> const truncated = TruncatedWith(table);
  return HasTrigger(table.name, kRowTrigger) ||
         std::any_of(truncated.begin(), truncated.end(),
                     [](const std::string &name) { return HasTrigger(name, kTruncateTrigger); });
}

// Makes and drops triggers of these tables for a scope, before a moment. Errors: those of pg::LockTables.
class TriggerChanges {
 public:
  TriggerChanges(const std::vector<Table> &tables, int64 until_ms) {
    std::vector<pg::TableLock> locks;
    for (const Table &table : tables)
      if (!table.is_foreign)
        locks.push_back({table.name, HasFence(table) ? "ACCESS EXCLUSIVE" : "SHARE ROW EXCLUSIVE"});
    pg::LockTables(locks, until_ms);
    // For foreign tables, which LOCK TABLE does not take.
    patience_.Set("lock_timeout", std::to_string(std::max(until_ms - pg::MonotonicMs(), int64{1})));
  }

 private:
  pg::LocalSettings patience_;
};

}  // namespace

void RequireFenceableTables(const Migration &migration, const std::vector<std::string> &patterns) {
  TablesOf(migration, patterns, Gone::kIsAnError);
}

std::string ListSharers(const Migration &migration, const std::vector<std::string> &patterns,
                        bool only_owned) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(WITH RECURSIVE named (mapping_id, relation) AS (
                       SELECT mapping_id, target_relation FROM redis_migrate.mapping
                       UNION
                       SELECT n.mapping_id, d.refobjid
                       FROM named AS n
                       JOIN pg_rewrite AS w ON w.ev_class = n.relation AND w.ev_type = '1'
                       JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                           AND d.refclassid = 'pg_class'::regclass),
                   stored AS (
                       SELECT mapping_id, relation FROM named
                       UNION
                       SELECT n.mapping_id, p.relid FROM named AS n CROSS JOIN pg_partition_tree(n.relation) AS p),
                   families AS (
                       SELECT m.migration, m.pattern, g.owner::text AS owner, array_agg(s.relation) AS relations,
                           m.migration = $1 AND m.pattern = ANY ($2) AS is_named,
                           coalesce((SELECT c.state
                                     FROM redis_migrate.family_change AS c
                                     WHERE c.migration = m.migration AND c.pattern = m.pattern
                                     ORDER BY c.change_id DESC
                                     LIMIT 1), 'redis') <> 'redis' AS is_owned
                       FROM redis_migrate.mapping AS m
                       JOIN redis_migrate.migration AS g USING (migration)
                       JOIN stored AS s USING (mapping_id)
                       GROUP BY m.migration, m.pattern, g.owner::text)
                   SELECT string_agg(DISTINCT CASE WHEN o.owner = f.owner
                              THEN format('%s of migration "%s"', o.pattern, o.migration)
                              ELSE 'one of another owner' END, ', ')
                   FROM families AS f
                   JOIN families AS o ON NOT o.is_named AND o.relations && f.relations
                   WHERE f.is_named AND (o.is_owned OR NOT $3))sql",
             {pg::SqlParam::Text(migration.name), pg::SqlParam::TextArray(patterns),
              pg::SqlParam::Bool(only_owned)})[0]
      .Text(0);
}

void FenceTables(const Migration &migration, const std::vector<std::string> &patterns, int64 until_ms) {
  std::vector<Table> const tables = TablesOf(migration, patterns, Gone::kIsAnError);
  TriggerChanges const changes(tables, until_ms);
  for (const Table &table : tables) {
    CreateTrigger(table.name, kRowTrigger, "INSERT OR UPDATE OR DELETE ON " + table.name + " FOR EACH ROW");
    for (const std::string &truncated : TruncatedWith(table))
      CreateTrigger(truncated, kTruncateTrigger, "TRUNCATE ON " + truncated + " FOR EACH STATEMENT");
    if (table.is_foreign)
      pg::Report(WARNING, "foreign table " + table.name + " is fenced only here",
                 "Who writes to it elsewhere, or truncates it, is not refused.");
  }
}

void UnfenceTables(const Migration &migration, const std::vector<std::string> &patterns, int64 until_ms) {
  std::vector<Table> tables = TablesOf(migration, patterns, Gone::kIsPassedOver);
  tables.erase(
      std::remove_if(tables.begin(), tables.end(), [](const Table &table) { return !HasFence(table); }),
      tables.end());
  TriggerChanges const changes(tables, until_ms);
  for (const Table &table : tables) {
    DropTrigger(table.name, kRowTrigger);
    for (const std::string &truncated : TruncatedWith(table)) DropTrigger(truncated, kTruncateTrigger);
  }
}

void WaitUntilUnfenceable(const Migration &migration, const std::vector<std::string> &patterns,
                          int64 until_ms) {
  for (const Table &table : TablesOf(migration, patterns, Gone::kIsPassedOver))
    if (!table.is_foreign && HasFence(table))
      pg::InRolledBackSubtransaction([&] { pg::LockTables({{table.name, "ACCESS EXCLUSIVE"}}, until_ms); });
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
  UnfenceTables(migration, PatternsOf(migration, pattern), pg::EndOfPatience());
  PG_RETURN_VOID();
}
