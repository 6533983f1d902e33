#include "run/emptied_targets.h"

#include "mapping/family_state.h"
#include "mapping/target.h"
#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// The run that would be resumed, if unlogged tables were emptied since it began.
std::optional<int64> FindRunBeforeLoss(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("INSERT INTO redis_migrate.unlogged_mark DEFAULT VALUES ON CONFLICT DO NOTHING");
  auto const rows = Spi::Execute(
      R"sql(SELECT r.run_id, r.unlogged_mark IS DISTINCT FROM u.mark
            FROM redis_migrate.run AS r
            CROSS JOIN redis_migrate.unlogged_mark AS u
            WHERE r.migration = $1 AND NOT r.dry_run AND r.state IN ('running', 'stopped', 'failed')
            ORDER BY r.run_id DESC
            LIMIT 1)sql",
      {SqlParam::Text(migration)});
  if (rows.size() == 0 || !rows[0].Bool(1)) return std::nullopt;
  return rows[0].Int8(0);
}

bool HasStored(int64 run_id, const Mapping &mapping) {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT coalesce(sum(inserted + updated + unchanged - deleted - expired - unclear), 0) > 0
            FROM redis_migrate.mapping_count
            WHERE run_id = $1 AND mapping = $2)sql",
      {SqlParam::Int8(run_id), SqlParam::Text(mapping.name)});
  return rows[0].Bool(0);
}

// Whether a relation, one of its partitions, or a table behind a view is unlogged; or all of it is empty, as
// such tables are that have been made logged since.
bool MayHaveLostRows(Oid target) {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(WITH RECURSIVE tree AS (
                SELECT $1 AS oid
                UNION
                SELECT next.oid
                FROM tree
                CROSS JOIN LATERAL (
                    SELECT i.inhrelid AS oid
                    FROM pg_inherits AS i
                    WHERE i.inhparent = tree.oid
                    UNION ALL
                    SELECT d.refobjid
                    FROM pg_rewrite AS w
                    JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                    WHERE w.ev_class = tree.oid AND d.refclassid = 'pg_class'::regclass) AS next)
            SELECT coalesce(bool_or(c.relpersistence = 'u') OR bool_and(pg_relation_size(c.oid) = 0), false)
            FROM tree
            JOIN pg_class AS c USING (oid)
            WHERE c.relkind = 'r')sql",
      {SqlParam::OidOf(target)});
  return rows[0].Bool(0);
}

// Notes that what the run has stored is there now.
void MarkAsWhole(int64 run_id) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run
            SET unlogged_mark = (SELECT mark FROM redis_migrate.unlogged_mark)
            WHERE run_id = $1)sql",
      {SqlParam::Int8(run_id)});
}

}  // namespace

void BeginAnewIfEmptied(const std::string &migration, const std::vector<const Mapping *> &mappings) {
  std::optional<int64> const run_id = FindRunBeforeLoss(migration);
  if (!run_id) return;
  bool is_whole = true;
  for (const Mapping *mapping : mappings) {
    if (!MayHaveLostRows(FindTarget(*mapping)) || !HasStored(*run_id, *mapping)) continue;
    if (LockOwnedFamilies(migration).count(mapping->pattern) > 0) {
      is_whole = false;
      continue;
    }
    pg::Report(WARNING,
               "target " + mapping->target + " of mapping \"" + mapping->name +
                   "\" has lost rows: what was stored in it is read again",
               "It is or was unlogged, or is made of tables that are. PostgreSQL empties such tables after a "
               "crash, and when a standby is promoted or a base backup is restored.");
    pg::AsExtensionOwner as_owner;
    Spi::Execute("UPDATE redis_migrate.run SET state = 'superseded' WHERE run_id = $1",
                 {SqlParam::Int8(*run_id)});
    return;
  }
  if (is_whole) MarkAsWhole(*run_id);
}

}  // namespace prm
