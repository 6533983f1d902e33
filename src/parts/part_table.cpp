#include "parts/part_table.h"

#include <algorithm>

#include "mapping/migration_lock.h"
#include "pg/identity.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr char kColumns[] =
    " p.part, p.share, p.position, p.done, p.sqlstate, p.message, p.readers, before.pid ";

PartTable::Part PartOf(const pg::Row &row) {
  return {row.Int4(0),         row.Text(1),         row.Text(2), row.Bool(3),
          row.OptionalText(4), row.OptionalText(5), row.Int4(6), row.IsNull(7) ? 0 : row.Int4(7)};
}

}  // namespace

PartTable::PartTable(const Work &work, int level, std::string table, std::string mine)
    : work_(work), level_(level), table_(std::move(table)), mine_(std::move(mine)) {}

PartTable PartTable::OfRun(int64 run_id, int level) {
  return {{Work::Kind::kRun, run_id},
          level,
          "redis_migrate.run_part",
          "p.run_id = " + std::to_string(run_id) + " AND p.level = " + std::to_string(level)};
}

PartTable PartTable::OfVerification(int64 verification_id) {
  return {{Work::Kind::kVerification, verification_id},
          PartLock::kVerification,
          "redis_migrate.verification_part",
          "p.verification_id = " + std::to_string(verification_id)};
}

void PartTable::Divide(const std::vector<SourceDivision::Part> &parts) const {
  std::vector<std::string> shares, positions;
  for (const SourceDivision::Part &part : parts) {
    shares.push_back(part.share);
    positions.push_back(part.position);
  }
  bool const is_run = work_.kind == Work::Kind::kRun;
  pg::AsExtensionOwner as_owner;
  Spi::Execute("INSERT INTO " + table_ +
                   (is_run ? " (run_id, level, part, share, position) SELECT $1, " + std::to_string(level_)
                           : " (verification_id, part, share, position) SELECT $1") +
                   ", s.part, s.share, s.position FROM unnest($2, $3) WITH ORDINALITY AS s (share, position, "
                   "part)",
               {SqlParam::Int8(work_.id), SqlParam::TextArray(shares), SqlParam::TextArray(positions)});
}

std::vector<PartTable::Part> PartTable::Read() const {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(std::string("SELECT") + kColumns + "FROM " + table_ +
                           " AS p, LATERAL (SELECT p.pid) AS before WHERE " + mine_ + " ORDER BY p.part");
  std::vector<Part> parts;
  for (uint64 i = 0; i < rows.size(); ++i) parts.push_back(PartOf(rows[i]));
  return parts;
}

std::optional<PartTable::Part> PartTable::Take(int part) const {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      "WITH before AS (SELECT p.pid FROM " + table_ + " AS p WHERE " + mine_ + " AND p.part = $1) UPDATE " +
          table_ + " AS p SET pid = pg_backend_pid(), updated_at = clock_timestamp() FROM before WHERE " +
          mine_ + " AND p.part = $1 AND NOT p.done AND p.sqlstate IS NULL RETURNING" + kColumns,
      {SqlParam::Int4(part)});
  if (rows.size() == 0) return std::nullopt;
  return PartOf(rows[0]);
}

void PartTable::Finish(int part) const {
  pg::AsExtensionOwner as_owner;
  RequireRead(
      Spi::Execute("UPDATE " + table_ + " AS p SET done = true, updated_at = clock_timestamp() WHERE " +
                       mine_ + " AND p.part = $1 AND p.pid = pg_backend_pid()",
                   {SqlParam::Int4(part)}),
      work_, part);
}

void PartTable::Fail(int part, const std::string &sqlstate, const std::string &message) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE " + table_ +
                   " AS p SET updated_at = clock_timestamp(), sqlstate = $2, message = $3 WHERE " + mine_ +
                   " AND p.part = $1 AND p.pid = pg_backend_pid() AND NOT p.done",
               {SqlParam::Int4(part), SqlParam::Text(sqlstate), SqlParam::Text(message)});
}

void PartTable::SetReaders(int readers) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE " + table_ + " AS p SET readers = $1 WHERE " + mine_ + " AND NOT p.done",
               {SqlParam::Int4(readers)});
}

bool StillHasAll(const SourceDivision &source, const std::vector<PartTable::Part> &parts) {
  return std::all_of(parts.begin(), parts.end(), [&](const PartTable::Part &part) {
    return source.StillHas({part.share, part.position});
  });
}

void RequireRead(const pg::Rows &changed, const Work &work, int part) {
  if (changed.processed() == 0)
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "part " + std::to_string(part) + " of " + work.ToString() + " is no longer this process's",
        "Another process leads it now, or the source was divided anew.");
}

}  // namespace prm
