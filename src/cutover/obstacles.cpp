#include "cutover/obstacles.h"

#include "mapping/target.h"
#include "pg/identity.h"
#include "pg/instance.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

std::string FindLiveObstacle(const std::string &migration) {
  std::string const instance = pg::ThisInstance();
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT CASE
                WHEN b.state <> 'running' THEN format('live sync is in state "%s"', b.state)
                WHEN b.instance <> $2 THEN 'live sync belongs to another server, of which this one is a copy'
                WHEN NOT EXISTS (SELECT FROM pg_stat_get_activity(r.pid) AS a
                                 WHERE a.datid = $3 AND a.backend_start <= r.updated_at)
                THEN 'no worker of this database applies its changes now; a copy of a database has none'
                WHEN NOT coalesce(l.is_up, false) THEN 'a replication link is not up'
                WHEN l.is_loading THEN 'live sync is still loading its snapshot'
                WHEN l.doubt IS NOT NULL THEN 'live sync may have missed changes: ' || l.doubt
            END
            FROM redis_migrate.background_run AS b
            LEFT JOIN LATERAL (
                SELECT pid, updated_at
                FROM redis_migrate.run
                WHERE migration = b.migration AND live
                ORDER BY run_id DESC
                LIMIT 1) AS r ON true
            LEFT JOIN LATERAL (
                SELECT bool_and(v.state IN ('loading', 'streaming', 'converging', 'in step', 'settled')) AS is_up,
                    bool_or(v.state = 'loading') AS is_loading, max(v.doubt) AS doubt
                FROM redis_migrate.live_sync AS v
                WHERE v.migration = b.migration) AS l ON true
            WHERE b.migration = $1 AND b.live)sql",
      {SqlParam::Text(migration), SqlParam::Text(instance), SqlParam::OidOf(MyDatabaseId)});
  return rows.size() == 0 ? "live sync is not under way" : rows[0].Text(0);
}

std::vector<std::string> FindObstacles(const Migration &migration, const std::vector<std::string> &patterns,
                                       TimestampTz verified_since) {
  std::vector<std::string> obstacles;
  pg::AsExtensionOwner as_owner;
  // Live sync has followed without a gap since its run began, which was before the verification.
  auto const unproved = Spi::Execute(
      R"sql(SELECT string_agg('"' || m.mapping || '"', ', ' ORDER BY m.mapping_id)
            FROM redis_migrate.mapping AS m
            JOIN redis_migrate.migration AS g USING (migration)
            WHERE m.migration = $1 AND m.pattern = ANY ($2)
                AND NOT EXISTS (
                    SELECT
                    FROM redis_migrate.verification AS v
                    WHERE v.migration = $1 AND v.proves AND v.source IN ('scan', 'replication')
                        AND (v.mapping IS NULL OR v.mapping = m.mapping)
                        AND v.finished_at > $3
                        AND v.started_at > g.changed_at
                        AND v.started_at > (SELECT max(started_at)
                                            FROM redis_migrate.run
                                            WHERE migration = $1 AND live)
                        AND NOT EXISTS (
                            SELECT
                            FROM redis_migrate.verification AS later
                            WHERE later.migration = $1 AND later.verification_id > v.verification_id
                                AND later.state = 'completed' AND NOT later.proves AND later.sample IS NULL
                                AND later.source IN ('scan', 'replication')
                                AND (later.mapping IS NULL OR later.mapping = m.mapping))))sql",
      {SqlParam::Text(migration.name),
       SqlParam::TextArray(patterns),
       {TIMESTAMPTZOID, TimestampTzGetDatum(verified_since), false}});
  if (!unproved[0].IsNull(0))
    obstacles.push_back("no verification of late has proved that mappings " + unproved[0].Text(0) +
                        " are equal");
  int64 const rejects = Spi::Execute(
                            R"sql(SELECT count(*)
                FROM redis_migrate.reject
                WHERE run_id = (SELECT max(run_id) FROM redis_migrate.run WHERE migration = $1 AND live)
                    AND settled_at IS NULL AND pattern = ANY ($2))sql",
                            {SqlParam::Text(migration.name), SqlParam::TextArray(patterns)})[0]
                            .Int8(0);
  if (rejects > 0) obstacles.push_back(std::to_string(rejects) + " keys are rejected");
  return obstacles;
}

std::vector<KeyId> FindUnsettled(const Migration &migration, const std::vector<std::string> &patterns,
                                 TimestampTz verified_since) {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT DISTINCT d.db, d.key_bytes
            FROM redis_migrate.verification AS v
            JOIN redis_migrate.verification_difference AS d USING (verification_id)
            JOIN redis_migrate.mapping AS m ON m.migration = v.migration AND m.mapping = d.mapping
            WHERE v.migration = $1 AND v.proves AND d.kind = 'unsettled' AND m.pattern = ANY ($2)
                AND v.finished_at > $3)sql",
      {SqlParam::Text(migration.name),
       SqlParam::TextArray(patterns),
       {TIMESTAMPTZOID, TimestampTzGetDatum(verified_since), false}});
  std::vector<KeyId> keys;
  for (uint64 i = 0; i < rows.size(); ++i)
    keys.emplace_back(rows[i].Int4(0), std::string(pg::DatumBytes(rows[i].Value(1))));
  return keys;
}

std::string FindCounters(const Migration &migration, const std::vector<std::string> &patterns) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT string_agg('"' || m.mapping || '"', ', ' ORDER BY m.mapping_id)
                   FROM redis_migrate.mapping AS m
                   WHERE m.migration = $1 AND m.pattern = ANY ($2)
                       AND (m.on_conflict NOT IN ('update', 'nothing', 'fill')
                           OR m.expand IS NULL AND (m.types IS NULL OR 'string' = ANY (m.types))
                               AND EXISTS (
                                   SELECT
                                   FROM pg_attribute AS a
                                   JOIN pg_type AS t ON t.oid = a.atttypid
                                   WHERE a.attrelid = m.target_relation AND a.attnum > 0
                                       AND NOT a.attisdropped AND t.typcategory = 'N'
                                       AND a.attname <> ALL (m.key_columns))))sql",
             {SqlParam::Text(migration.name), SqlParam::TextArray(patterns)})[0]
      .Text(0);
}

std::vector<std::string> FindUnnoted(const Migration &migration, const std::vector<std::string> &patterns,
                                     const std::map<std::string, std::vector<Oid>> &watched) {
  std::vector<std::string> unnoted;
  for (const Mapping &mapping : migration.mappings) {
    bool const is_archive = !mapping.accepted;
    if (is_archive || std::count(patterns.begin(), patterns.end(), mapping.pattern) == 0) continue;
    std::vector<int64> relations;
    if (auto const found = watched.find(mapping.pattern); found != watched.end())
      relations.assign(found->second.begin(), found->second.end());
    Oid const target = FindTarget(mapping);
    pg::AsExtensionOwner as_owner;
    bool const is_noted = Spi::Execute(
                              R"sql(SELECT EXISTS (
                      SELECT
                      FROM unnest($1) AS w
                      WHERE w::oid = $2
                          OR $2 IN (SELECT p.relid::oid FROM pg_partition_tree(w::oid::regclass) AS p)))sql",
                              {SqlParam::Int8Array(relations), SqlParam::OidOf(target)})[0]
                              .Bool(0);
    if (!is_noted) unnoted.push_back(mapping.name);
  }
  return unnoted;
}

std::string FindNameless(const Migration &migration, const std::vector<std::string> &patterns) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT string_agg('"' || m.mapping || '"', ', ' ORDER BY mapping_id)
            FROM redis_migrate.reverse_mapping AS r
            JOIN redis_migrate.mapping AS m USING (mapping_id)
            WHERE m.migration = $1 AND m.pattern = ANY ($2)
                AND r.nameless_after >= coalesce(
                    (SELECT min(c.change_id)
                     FROM redis_migrate.family_change AS c
                     WHERE c.migration = m.migration AND c.pattern = m.pattern
                         AND c.change_id > coalesce(
                             (SELECT max(before.change_id)
                              FROM redis_migrate.family_change AS before
                              WHERE before.migration = m.migration
                                  AND before.pattern = m.pattern AND before.state = 'redis'), 0)),
                    0))sql",
             {SqlParam::Text(migration.name), SqlParam::TextArray(patterns)})[0]
      .Text(0);
}

std::vector<int64> FindNoted(const Migration &migration, const std::vector<std::string> &patterns) {
  std::vector<int64> noted;
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT mapping_id
            FROM redis_migrate.reverse_mapping
            JOIN redis_migrate.mapping AS m USING (mapping_id)
            WHERE m.migration = $1 AND m.pattern = ANY ($2)
            ORDER BY mapping_id)sql",
      {SqlParam::Text(migration.name), SqlParam::TextArray(patterns)});
  for (uint64 i = 0; i < rows.size(); ++i) noted.push_back(rows[i].Int8(0));
  return noted;
}

}  // namespace prm
