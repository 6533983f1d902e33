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

// Whether the run that would be resumed has rows of the mapping in its target.
bool HasStored(const Mapping &mapping) {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT coalesce(sum(c.inserted + c.updated + c.unchanged - c.deleted - c.expired - c.unclear), 0) > 0
            FROM redis_migrate.mapping_count AS c
            WHERE c.mapping = $2 AND c.run_id = (
                SELECT max(r.run_id)
                FROM redis_migrate.run AS r
                WHERE r.migration = $1 AND NOT r.dry_run AND r.state IN ('running', 'stopped', 'failed')))sql",
      {SqlParam::Text(mapping.migration), SqlParam::Text(mapping.name)});
  return rows[0].Bool(0);
}

// Whether a relation, or its partitions, are unlogged and have no page, as a crash leaves them.
bool IsEmptyAsAfterCrash(Oid target) {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(WITH RECURSIVE tree AS (
                SELECT $1 AS oid
                UNION
                SELECT i.inhrelid
                FROM pg_inherits AS i
                JOIN tree ON i.inhparent = tree.oid)
            SELECT coalesce(bool_and(pg_relation_size(c.oid) = 0), false)
            FROM tree
            JOIN pg_class AS c USING (oid)
            WHERE c.relpersistence = 'u' AND c.relkind = 'r')sql",
      {SqlParam::OidOf(target)});
  return rows[0].Bool(0);
}

}  // namespace

void BeginAnewIfEmptied(const std::string &migration, const std::vector<const Mapping *> &mappings) {
  for (const Mapping *mapping : mappings) {
    if (!HasStored(*mapping) || !IsEmptyAsAfterCrash(FindTarget(*mapping)) ||
        LockOwnedFamilies(migration).count(mapping->pattern) > 0)
      continue;
    pg::Report(WARNING,
               "target " + mapping->target + " of mapping \"" + mapping->name +
                   "\" is empty: what was stored in it is read again",
               "It is unlogged. A crash of PostgreSQL empties such tables.");
    pg::AsExtensionOwner as_owner;
    Spi::Execute(
        R"sql(UPDATE redis_migrate.migration
              SET changed_at = clock_timestamp(), altered_at = clock_timestamp()
              WHERE migration = $1)sql",
        {SqlParam::Text(migration)});
    return;
  }
}

}  // namespace prm
