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
  force_ = force;
  pg::AsExtensionOwner as_owner;
  // The answer of an earlier dry run is about to become wrong.
  Spi::Execute("DELETE FROM redis_migrate.undo WHERE run_id = $1 AND dry_run", {SqlParam::Int8(run_id_)});
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.undo AS u (run_id, dry_run, state, force) VALUES ($1, $2, 'running', $3)
            ON CONFLICT (run_id, dry_run) DO UPDATE
            SET state = 'running', force = $3, updated_at = clock_timestamp(), pid = pg_backend_pid(), finished_at = NULL,
                started_at = CASE WHEN u.state = 'running' THEN u.started_at ELSE clock_timestamp() END)sql",
      {SqlParam::Int8(run_id_), SqlParam::Bool(dry_run_), SqlParam::Bool(force)});
  if (!dry_run_) LoadCounts();
  // Changes of rows that the run counted, but that neither the journal nor an earlier call tells.
  pg::Rows const unknown = Spi::Execute(
      R"sql(SELECT c.mapping, greatest(0, c.rows - coalesce(k.changes, 0) - coalesce(d.changes, 0))::bigint
            FROM (SELECT mapping, sum(inserted + updated + deleted) AS rows FROM redis_migrate.mapping_count
                  WHERE run_id = $1 AND mapping <> '(archive)' GROUP BY mapping) AS c
                 JOIN redis_migrate.run AS r ON r.run_id = $1
                 LEFT JOIN redis_migrate.mapping AS m ON m.migration = r.migration AND m.mapping = c.mapping
                 LEFT JOIN (SELECT n.mapping_id, sum(changes) AS changes
                            FROM (SELECT mapping_id, lines AS changes FROM redis_migrate.journal WHERE run_id = $1
                                  UNION ALL
                                  SELECT mapping_id, octet_length(inserted) / 24 FROM redis_migrate.journal_insert
                                  WHERE run_id = $1
                                  UNION ALL
                                  SELECT mapping_id, octet_length(inserted) / 24 FROM redis_migrate.ledger_batch
                                  WHERE run_id = $1 AND NOT in_journal) AS k
                                LEFT JOIN redis_migrate.mapping AS n USING (mapping_id)
                            GROUP BY n.mapping_id) AS k ON k.mapping_id IS NOT DISTINCT FROM m.mapping_id
                 LEFT JOIN redis_migrate.undo_count AS d
                     ON d.run_id = $1 AND NOT d.dry_run AND d.mapping = c.mapping)sql",
      {SqlParam::Int8(run_id_)});
  for (uint64 i = 0; i < unknown.size(); ++i) {
    counts_[unknown[i].Text(0)].unknown = unknown[i].Int8(1);
    SaveCounts(unknown[i].Text(0));
  }
}

void UndoRecord::LoadCounts() {
  pg::Rows const rows = Spi::Execute(
      R"sql(SELECT mapping, restored, put_back, removed, already, changes
            FROM redis_migrate.undo_count
            WHERE run_id = $1 AND NOT dry_run)sql",
      {SqlParam::Int8(run_id_)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    UndoCounts &counts = counts_[rows[i].Text(0)];
    counts.restored = rows[i].Int8(1);
    counts.put_back = rows[i].Int8(2);
    counts.removed = rows[i].Int8(3);
    counts.already = rows[i].Int8(4);
    counts.changes = rows[i].Int8(5);
  }
}

void UndoRecord::BeginPass() {
  left_.Clear();
  kept_.clear();
  for (auto &[mapping, counts] : counts_) counts.left_alone = counts.failed = 0;
  pg::AsExtensionOwner as_owner;
  Spi::Execute("DELETE FROM redis_migrate.undo_left WHERE run_id = $1 AND dry_run = $2",
               {SqlParam::Int8(run_id_), SqlParam::Bool(dry_run_)});
  Spi::Execute(
      "UPDATE redis_migrate.undo_count SET left_alone = 0, failed = 0 WHERE run_id = $1 AND dry_run = $2",
      {SqlParam::Int8(run_id_), SqlParam::Bool(dry_run_)});
}

void UndoRecord::Add(const std::string &mapping, UndoFindings &&findings) {
  UndoCounts &counts = counts_[mapping];
  counts.restored += findings.counts.restored;
  counts.put_back += findings.counts.put_back;
  counts.removed += findings.counts.removed;
  counts.already += findings.counts.already;
  counts.changes += findings.counts.changes;
  for (LeftRow &row : findings.left) {
    if (!row.key.empty() && !left_.Insert(HashOfKey(mapping, row.key))) continue;
    (row.sqlstate.empty() ? counts.left_alone : counts.failed) += row.rows;
    if (kept_.size() == kMostKept) continue;
    kept_.emplace_back(mapping, std::move(row));
    SaveLeft(mapping, kept_.back().second);
  }
  SaveCounts(mapping);
}

void UndoRecord::SaveCounts(const std::string &mapping) {
  const UndoCounts &counts = counts_[mapping];
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.undo_count (run_id, mapping, restored, put_back, removed, left_alone, failed,
                unknown, already, changes, dry_run)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            ON CONFLICT (run_id, dry_run, mapping) DO UPDATE
            SET restored = $3, put_back = $4, removed = $5, left_alone = $6, failed = $7, unknown = $8, already = $9,
                changes = $10)sql",
      {SqlParam::Int8(run_id_), SqlParam::Text(mapping), SqlParam::Int8(counts.restored),
       SqlParam::Int8(counts.put_back), SqlParam::Int8(counts.removed), SqlParam::Int8(counts.left_alone),
       SqlParam::Int8(counts.failed), SqlParam::Int8(counts.unknown), SqlParam::Int8(counts.already),
       SqlParam::Int8(counts.changes), SqlParam::Bool(dry_run_)});
}

void UndoRecord::SaveLeft(const std::string &mapping, const LeftRow &row) {
  SqlParam const key = {TEXTARRAYOID, TextArrayDatum(row.key), false};
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.undo_left (run_id, dry_run, mapping, row_key, sqlstate, reason)
            VALUES ($1, $2, $3, $4, $5, $6))sql",
      {SqlParam::Int8(run_id_), SqlParam::Bool(dry_run_), SqlParam::Text(mapping), key,
       SqlParam::OptionalText(row.sqlstate.empty() ? std::nullopt : std::optional<std::string>(row.sqlstate)),
       SqlParam::Text(row.rows == 1 ? row.reason : row.reason + ": " + std::to_string(row.rows) + " rows")});
}

void UndoRecord::Finish() {
  pg::AsExtensionOwner as_owner;
  if (!dry_run_) {
    Spi::Execute(
        R"sql(UPDATE redis_migrate.undo
              SET state = 'completed', updated_at = clock_timestamp(), finished_at = clock_timestamp()
              WHERE run_id = $1 AND NOT dry_run)sql",
        {SqlParam::Int8(run_id_)});
    return;
  }
  Spi::Execute("DELETE FROM redis_migrate.undo WHERE run_id = $1 AND dry_run", {SqlParam::Int8(run_id_)});
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.undo (run_id, dry_run, state, force, finished_at)
            VALUES ($1, true, 'dry_run', $2, clock_timestamp()))sql",
      {SqlParam::Int8(run_id_), SqlParam::Bool(force_)});
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
    total.already += counts.already;
    total.changes += counts.changes;
  }
  return total;
}

}  // namespace prm
