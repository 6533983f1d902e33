#include "undo/undo_record.h"

#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr size_t kMostKept = 1000;

}  // namespace

void UndoRecord::Begin(bool force) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.undo AS u (run_id, state, force) VALUES ($1, 'running', $2)
            ON CONFLICT (run_id) DO UPDATE
            SET force = $2, updated_at = clock_timestamp(), pid = pg_backend_pid(), finished_at = NULL,
                started_at = CASE WHEN u.state = 'running' THEN u.started_at ELSE clock_timestamp() END)sql",
      {SqlParam::Int8(run_id_), SqlParam::Bool(force)});
  // Of a dry run nothing was kept.
  Spi::Execute(
      "DELETE FROM redis_migrate.undo_count AS c USING redis_migrate.undo AS u WHERE u.run_id = c.run_id AND "
      "u.run_id = $1 AND u.state = 'dry_run'",
      {SqlParam::Int8(run_id_)});
  Spi::Execute("UPDATE redis_migrate.undo SET state = 'running' WHERE run_id = $1",
               {SqlParam::Int8(run_id_)});
  Spi::Execute("DELETE FROM redis_migrate.undo_left WHERE run_id = $1", {SqlParam::Int8(run_id_)});
  pg::Rows const rows = Spi::Execute(
      "SELECT mapping, restored, put_back, removed FROM redis_migrate.undo_count WHERE run_id = $1",
      {SqlParam::Int8(run_id_)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    UndoCounts &counts = counts_[rows[i].Text(0)];
    counts.restored = rows[i].Int8(1);
    counts.put_back = rows[i].Int8(2);
    counts.removed = rows[i].Int8(3);
  }
  // What the run did to rows, as far as the journal no longer says it. The ledger's batches say of inserts
  // what the journal does not.
  pg::Rows const unknown = Spi::Execute(
      R"sql(SELECT c.mapping,
                   greatest(0, c.rows - coalesce(j.entries, 0) - coalesce(b.inserted, 0) - coalesce(d.undone, 0))::bigint
            FROM (SELECT mapping, sum(inserted + updated + deleted) AS rows FROM redis_migrate.mapping_count
                  WHERE run_id = $1 AND mapping <> '(archive)' GROUP BY mapping) AS c
                 JOIN redis_migrate.run AS r ON r.run_id = $1
                 LEFT JOIN redis_migrate.mapping AS m ON m.migration = r.migration AND m.mapping = c.mapping
                 LEFT JOIN (SELECT mapping_id, count(*) AS entries FROM redis_migrate.journal WHERE run_id = $1
                            GROUP BY mapping_id) AS j ON j.mapping_id = m.mapping_id
                 LEFT JOIN (SELECT mapping_id, sum(octet_length(inserted) / 24) AS inserted
                            FROM redis_migrate.ledger_batch WHERE run_id = $1 AND NOT in_journal GROUP BY mapping_id) AS b
                     ON b.mapping_id = m.mapping_id
                 LEFT JOIN (SELECT mapping, restored + put_back + removed AS undone FROM redis_migrate.undo_count
                            WHERE run_id = $1) AS d ON d.mapping = c.mapping)sql",
      {SqlParam::Int8(run_id_)});
  for (uint64 i = 0; i < unknown.size(); ++i) {
    counts_[unknown[i].Text(0)].unknown = unknown[i].Int8(1);
    SaveCounts(unknown[i].Text(0));
  }
}

void UndoRecord::Add(const std::string &mapping, UndoFindings &&findings) {
  UndoCounts &counts = counts_[mapping];
  counts.restored += findings.counts.restored;
  counts.put_back += findings.counts.put_back;
  counts.removed += findings.counts.removed;
  for (LeftRow &row : findings.left) {
    if (!left_.Insert(HashOfKey(mapping, row.key))) continue;
    ++(row.sqlstate.empty() ? counts.left_alone : counts.failed);
    if (kept_.size() == kMostKept) continue;
    kept_.emplace_back(mapping, std::move(row));
    SaveLeft(mapping, kept_.back().second);
  }
  SaveCounts(mapping);
  if (findings.undone.empty()) return;
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept("DELETE FROM redis_migrate.journal WHERE run_id = $1 AND journal_id = ANY ($2)",
                   {SqlParam::Int8(run_id_), SqlParam::Int8Array(findings.undone)});
}

void UndoRecord::SaveCounts(const std::string &mapping) {
  const UndoCounts &counts = counts_[mapping];
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.undo_count
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            ON CONFLICT (run_id, mapping) DO UPDATE
            SET restored = $3, put_back = $4, removed = $5, left_alone = $6, failed = $7, unknown = $8)sql",
      {SqlParam::Int8(run_id_), SqlParam::Text(mapping), SqlParam::Int8(counts.restored),
       SqlParam::Int8(counts.put_back), SqlParam::Int8(counts.removed), SqlParam::Int8(counts.left_alone),
       SqlParam::Int8(counts.failed), SqlParam::Int8(counts.unknown)});
}

void UndoRecord::SaveLeft(const std::string &mapping, const LeftRow &row) {
  SqlParam const key = {TEXTARRAYOID, TextArrayDatum(row.key), false};
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      "INSERT INTO redis_migrate.undo_left (run_id, mapping, row_key, sqlstate, reason) VALUES ($1, $2, $3, "
      "$4, "
      "$5)",
      {SqlParam::Int8(run_id_), SqlParam::Text(mapping), key,
       SqlParam::OptionalText(row.sqlstate.empty() ? std::nullopt : std::optional<std::string>(row.sqlstate)),
       SqlParam::Text(row.reason)});
}

void UndoRecord::Finish(bool dry_run) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.undo AS u (run_id, state, force, finished_at)
            VALUES ($1, $2, false, clock_timestamp())
            ON CONFLICT (run_id) DO UPDATE
            SET state = $2, updated_at = clock_timestamp(), finished_at = clock_timestamp())sql",
      {SqlParam::Int8(run_id_), SqlParam::Text(dry_run ? "dry_run" : "completed")});
  if (!dry_run) return;
  Spi::Execute("DELETE FROM redis_migrate.undo_left WHERE run_id = $1", {SqlParam::Int8(run_id_)});
  for (const auto &[mapping, counts] : counts_) SaveCounts(mapping);
  for (const auto &[mapping, row] : kept_) SaveLeft(mapping, row);
}

UndoCounts UndoRecord::total() const {
  UndoCounts total;
  for (const auto &[mapping, counts] : counts_) {
    total.restored += counts.restored;
    total.put_back += counts.put_back;
    total.removed += counts.removed;
    total.left_alone += counts.left_alone;
    total.failed += counts.failed;
    total.unknown += counts.unknown;
  }
  return total;
}

}  // namespace prm
