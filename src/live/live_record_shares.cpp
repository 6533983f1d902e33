// The shares of the processes that apply the changes of a live run.
#include "live/live_record.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

int LiveRecord::ReadAppliers(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  auto const rows =
      Spi::Execute("SELECT coalesce(workers, 1) FROM redis_migrate.background_run WHERE migration = $1",
                   {SqlParam::Text(migration)});
  return rows.size() == 0 ? 1 : rows[0].Int4(0);
}

void LiveRecord::BeginShares(const std::string &migration) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.live_position AS p (
                run_id, link, appliers, applier, replication_id, applied_offset, db, received_at, is_loaded,
                flush_offset)
            SELECT l.run_id, l.link, $3, a.applier, l.replication_id, l.applied_offset, l.db, l.received_at,
                l.is_loaded, l.flush_offset
            FROM redis_migrate.live_applied AS l, generate_series(0, $3 - 1) AS a (applier)
            WHERE l.run_id = $1 AND l.link = $2
            ON CONFLICT (run_id, link, appliers, applier)
            DO UPDATE SET replication_id = excluded.replication_id, applied_offset = excluded.applied_offset,
                db = excluded.db, received_at = excluded.received_at
            WHERE p.applied_offset < excluded.applied_offset)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.of)});
  Spi::Execute(
      R"sql(UPDATE redis_migrate.live_position
            SET sqlstate = NULL, message = NULL
            WHERE run_id = $1 AND link = $2 AND message IS NOT NULL)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_)});
  // The counts are of all that were ever applied.
  Spi::Execute(
      R"sql(WITH lowest AS (
                SELECT min(applied_offset) AS applied_offset
                FROM redis_migrate.live_position
                WHERE run_id = $1 AND link = $2 AND appliers = $3),
            passed AS (
                SELECT appliers
                FROM redis_migrate.live_position
                WHERE run_id = $1 AND link = $2 AND appliers <> $3
                GROUP BY appliers
                HAVING max(applied_offset) <= (SELECT applied_offset FROM lowest)),
            gone AS (
                DELETE FROM redis_migrate.live_position
                WHERE run_id = $1 AND link = $2 AND appliers IN (SELECT appliers FROM passed)
                RETURNING commands, keys_read_again),
            sums AS (
                SELECT sum(commands) AS commands, sum(keys_read_again) AS keys_read_again
                FROM gone
                HAVING count(*) > 0)
            UPDATE redis_migrate.live_position AS p
            SET commands = p.commands + s.commands, keys_read_again = p.keys_read_again + s.keys_read_again
            FROM sums AS s
            WHERE run_id = $1 AND link = $2 AND appliers = $3 AND applier = 0)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.of)});
  NoteMappings(migration);
}

void LiveRecord::NoteMappings(const std::string &migration) const {
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.live_mapping (run_id, link, mapping_id, pattern, is_filled)
            SELECT $1, $2, m.mapping_id, m.pattern, false
            FROM redis_migrate.mapping AS m
            WHERE m.migration = $3
            ON CONFLICT DO NOTHING)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Text(migration)});
  Spi::Execute(
      R"sql(UPDATE redis_migrate.live_mapping AS l
            SET is_filled = false
            WHERE run_id = $1 AND link = $2 AND is_filled AND NOT EXISTS (
                SELECT FROM redis_migrate.mapping AS m WHERE m.migration = $3 AND m.mapping_id = l.mapping_id))sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Text(migration)});
  Spi::Execute(
      R"sql(UPDATE redis_migrate.live_mapping
            SET appliers_left = ARRAY(SELECT generate_series(0, $3 - 1))
            WHERE run_id = $1 AND link = $2 AND NOT is_filled)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.of)});
}

std::set<std::string> LiveRecord::ReadUnfilled() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT DISTINCT pattern
            FROM redis_migrate.live_mapping
            WHERE run_id = $1 AND link = $2 AND NOT is_filled AND $3 = ANY (appliers_left))sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.number)});
  std::set<std::string> patterns;
  for (uint64 i = 0; i < rows.size(); ++i) patterns.insert(rows[i].Text(0));
  return patterns;
}

void LiveRecord::SetFilled(const std::string &migration) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.live_mapping
            SET appliers_left = array_remove(appliers_left, $3),
                is_filled = cardinality(array_remove(appliers_left, $3)) = 0
            WHERE run_id = $1 AND link = $2 AND NOT is_filled)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.number)});
  Spi::Execute(
      R"sql(DELETE FROM redis_migrate.live_mapping AS l
            WHERE run_id = $1 AND link = $2 AND is_filled AND NOT EXISTS (
                SELECT FROM redis_migrate.mapping AS m WHERE m.migration = $3 AND m.mapping_id = l.mapping_id))sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Text(migration)});
}

std::vector<AppliedShare> LiveRecord::ReadEarlierShares() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT applier, appliers, replication_id, applied_offset
            FROM redis_migrate.live_position
            WHERE run_id = $1 AND link = $2 AND appliers <> $3)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.of)});
  std::vector<AppliedShare> shares;
  for (uint64 i = 0; i < rows.size(); ++i)
    shares.push_back(
        {{rows[i].Int4(0), rows[i].Int4(1)}, {rows[i].Text(2), static_cast<uint64>(rows[i].Int8(3))}});
  return shares;
}

std::optional<OtherShares> LiveRecord::ReadOthers() const {
  if (share_.is_all()) return std::nullopt;
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::ExecuteKept(
      R"sql(SELECT min(applied_offset), max(applied_offset)
            FROM redis_migrate.live_position
            WHERE run_id = $1 AND link = $2 AND appliers = $3 AND applier <> $4)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.of),
       SqlParam::Int4(share_.number)});
  if (rows[0].IsNull(0)) return std::nullopt;
  return OtherShares{static_cast<uint64>(rows[0].Int8(0)), static_cast<uint64>(rows[0].Int8(1))};
}

void LiveRecord::NoteFailure(const ApplierFailure &failure) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.live_position
            SET sqlstate = $5, message = $6
            WHERE run_id = $1 AND link = $2 AND appliers = $3 AND applier = $4)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.of),
       SqlParam::Int4(share_.number), SqlParam::OptionalText(failure.sqlstate),
       SqlParam::Text(failure.message)});
}

std::optional<ApplierFailure> LiveRecord::ReadFailure() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::ExecuteKept(
      R"sql(SELECT sqlstate, message
            FROM redis_migrate.live_position
            WHERE run_id = $1 AND appliers = $2 AND message IS NOT NULL
            LIMIT 1)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(share_.of)});
  if (rows.size() == 0) return std::nullopt;
  return ApplierFailure{rows[0].OptionalText(0), rows[0].Text(1)};
}

}  // namespace prm
