// The parts of a level in the record of a run.
#include "pg/identity.h"
#include "pg/spi.h"
#include "run/run_record.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

void RunRecord::Divide(int level, const std::vector<SourceDivision::Part> &parts) {
  std::vector<std::string> shares, positions;
  for (const SourceDivision::Part &part : parts) {
    shares.push_back(part.share);
    positions.push_back(part.position);
  }
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.run_part (run_id, level, part, share, position)
            SELECT $1, $2, s.part, s.share, s.position
            FROM unnest($3, $4) WITH ORDINALITY AS s (share, position, part))sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::TextArray(shares),
       SqlParam::TextArray(positions)});
}

void RunRecord::DropParts(int level) {
  pg::AsExtensionOwner as_owner;
  for (const char *table : {"run_count", "reject", "deferred", "run_part"})
    Spi::Execute(std::string("DELETE FROM redis_migrate.") + table + " WHERE run_id = $1 AND level = $2",
                 {SqlParam::Int8(id_), SqlParam::Int4(level)});
  Spi::Execute("DELETE FROM redis_migrate.page_key WHERE run_id = $1", {SqlParam::Int8(id_)});
  NoteRestart();
  BeginLevel(level);
}

namespace {

constexpr char kPartColumns[] =
    " p.part, p.share, p.position, p.done, p.sqlstate, p.message, p.repeated_slots, p.readers, before.pid ";

RunRecord::Part ReadPart(const pg::Row &row) {
  return {row.Int4(0), row.Text(1),         row.Text(2),
          row.Bool(3), row.OptionalText(4), row.OptionalText(5),
          row.Int8(6), row.Int4(7),         row.IsNull(8) ? 0 : row.Int4(8)};
}

}  // namespace

std::vector<RunRecord::Part> RunRecord::ReadParts(int level) const {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(std::string("SELECT") + kPartColumns +
                               "FROM redis_migrate.run_part AS p, LATERAL (SELECT p.pid) AS before WHERE "
                               "p.run_id = $1 AND p.level = $2 ORDER BY p.part",
                           {SqlParam::Int8(id_), SqlParam::Int4(level)});
  std::vector<Part> parts;
  for (uint64 i = 0; i < rows.size(); ++i) parts.push_back(ReadPart(rows[i]));
  return parts;
}

std::optional<RunRecord::Part> RunRecord::TakePart(int level) {
  pg::AsExtensionOwner as_owner;
  std::string const take =
      R"sql(UPDATE redis_migrate.run_part AS p
            SET pid = pg_backend_pid(), updated_at = clock_timestamp()
            FROM redis_migrate.run_part AS before
            WHERE p.run_id = $1 AND p.level = $2 AND p.part = $3 AND NOT p.done AND p.sqlstate IS NULL
                AND (before.run_id, before.level, before.part) = (p.run_id, p.level, p.part)
            RETURNING)sql";
  auto rows =
      Spi::Execute(take + kPartColumns, {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_)});
  if (rows.size() == 0) return std::nullopt;
  return ReadPart(rows[0]);
}

void RunRecord::AddRepeatedSlots(int level, uint64 slots) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run_part
            SET repeated_slots = repeated_slots + $4
            WHERE run_id = $1 AND level = $2 AND part = $3)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_),
       SqlParam::Int8(static_cast<int64>(slots))});
}

void RunRecord::FinishPart(int level) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run_part
            SET done = true, updated_at = clock_timestamp()
            WHERE run_id = $1 AND level = $2 AND part = $3)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_)});
}

void RunRecord::FailPart(int level, const std::string &sqlstate, const std::string &message) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run_part
            SET updated_at = clock_timestamp(), sqlstate = $4, message = $5
            WHERE run_id = $1 AND level = $2 AND part = $3 AND NOT done)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_), SqlParam::Text(sqlstate),
       SqlParam::Text(message)});
}

void RunRecord::SetReaders(int level, int readers) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run_part
            SET readers = $3, pid = NULL
            WHERE run_id = $1 AND level = $2 AND NOT done)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(readers)});
}

}  // namespace prm
