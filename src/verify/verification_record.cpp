#include "verify/verification_record.h"

#include "ledger/ledger_segments.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int64 kBatchesAtOnce = 16;
constexpr size_t kShownRowKey = 500;

}  // namespace

VerificationRecord::VerificationRecord(const Parameters &parameters) : migration_(parameters.migration) {
  Oid const user = GetUserId();
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(DELETE FROM redis_migrate.verification_met AS m
            USING redis_migrate.verification AS v
            WHERE v.verification_id = m.verification_id AND v.migration = $1
                AND NOT (v.state = 'running'
                         AND EXISTS (SELECT FROM pg_stat_get_activity(v.pid) AS a WHERE a.backend_start <= v.updated_at)))sql",
      {SqlParam::Text(migration_)});
  auto const row = Spi::Execute(
      R"sql(INSERT INTO redis_migrate.verification (migration, owner, source, mapping, sample, max_differences)
            VALUES ($1, redis_migrate.stamp_owner($2), $3, $4, $5, $6)
            RETURNING verification_id)sql",
      {SqlParam::Text(migration_), SqlParam::OidOf(user), SqlParam::Text(parameters.source),
       SqlParam::OptionalText(parameters.mapping),
       parameters.sample ? SqlParam{FLOAT8OID, Float8GetDatum(*parameters.sample), false}
                         : SqlParam{FLOAT8OID, 0, true},
       SqlParam::Int8(parameters.max_differences)});
  id_ = row[0].Int8(0);
  begun_with_ = ReadVersions();
}

VerificationRecord::Versions VerificationRecord::ReadVersions() const {
  pg::AsExtensionOwner as_owner;
  auto const row = Spi::Execute(
      R"sql(SELECT (SELECT changed_at FROM redis_migrate.migration WHERE migration = $1),
                coalesce((SELECT max(change_id) FROM redis_migrate.family_change WHERE migration = $1), 0))sql",
      {SqlParam::Text(migration_)});
  Versions versions;
  if (!row[0].IsNull(0)) versions.definition = DatumGetTimestampTz(row[0].Value(0));
  versions.families = row[0].Int8(1);
  return versions;
}

VerificationRecord VerificationRecord::Join(int64 id, Parameters *parameters, bool *is_followed) {
  Oid const user = GetUserId();
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT migration, source, mapping, sample, max_differences, followed, state = 'running'
            FROM redis_migrate.verification
            WHERE verification_id = $1 AND redis_migrate.owner_oid(owner) = $2)sql",
      {SqlParam::Int8(id), SqlParam::OidOf(user)});
  if (rows.size() == 0)
    throw pg::Failure(ERRCODE_UNDEFINED_OBJECT, "verification " + std::to_string(id) + " does not exist");
  if (!rows[0].Bool(6))
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "verification " + std::to_string(id) + " is not in progress");
  parameters->migration = rows[0].Text(0);
  parameters->source = rows[0].Text(1);
  parameters->mapping = rows[0].OptionalText(2);
  if (!rows[0].IsNull(3)) parameters->sample = DatumGetFloat8(rows[0].Value(3));
  parameters->max_differences = rows[0].Int8(4);
  *is_followed = rows[0].Bool(5);
  VerificationRecord record;
  record.migration_ = parameters->migration;
  record.id_ = id;
  return record;
}

void VerificationRecord::SetFollowed(bool is_followed) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.verification SET followed = $2 WHERE verification_id = $1",
               {SqlParam::Int8(id_), SqlParam::Bool(is_followed)});
}

void VerificationRecord::Save(const Keys &keys) const {
  pg::AsExtensionOwner as_owner;
  if (part_ != 0) {
    RequireRead(
        Spi::ExecuteKept(
            R"sql(UPDATE redis_migrate.verification_part
                          SET keys_read = $3, keys_read_again = $4, keys_rejected = $5,
                              keys_unwatched = $6, updated_at = clock_timestamp()
                          WHERE verification_id = $1 AND part = $2 AND pid = pg_backend_pid())sql",
            {SqlParam::Int8(id_), SqlParam::Int4(part_), SqlParam::Int8(keys.read),
             SqlParam::Int8(keys.read_again), SqlParam::Int8(keys.rejected), SqlParam::Int8(keys.unwatched)}),
        parts().work(), part_);
    return;
  }
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.verification
            SET keys_estimated = NULLIF($2, -1), keys_read = $3, keys_read_again = $4, keys_rejected = $5,
                keys_unwatched = $6, updated_at = clock_timestamp()
            WHERE verification_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Int8(keys.estimated), SqlParam::Int8(keys.read),
       SqlParam::Int8(keys.read_again), SqlParam::Int8(keys.rejected), SqlParam::Int8(keys.unwatched)});
}

void VerificationRecord::Touch(int64 estimated) const {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.verification AS v
            SET keys_estimated = NULLIF($2, -1), keys_read = p.keys_read, keys_read_again = p.keys_read_again,
                keys_rejected = p.keys_rejected, keys_unwatched = p.keys_unwatched,
                updated_at = clock_timestamp()
            FROM (SELECT coalesce(sum(keys_read), 0)::bigint AS keys_read,
                      coalesce(sum(keys_read_again), 0)::bigint AS keys_read_again,
                      coalesce(sum(keys_rejected), 0)::bigint AS keys_rejected,
                      coalesce(sum(keys_unwatched), 0)::bigint AS keys_unwatched
                  FROM redis_migrate.verification_part
                  WHERE verification_id = $1) AS p
            WHERE v.verification_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Int8(estimated)});
}

void VerificationRecord::AddMet(int64 mapping_id, std::vector<PackedItem> rows, bool suspects) const {
  if (rows.empty()) return;
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.verification_met (verification_id, part, mapping_id, suspects, format, hashes)
            VALUES ($1, $2, $3, $4, $5, $6))sql",
      {SqlParam::Int8(id_), SqlParam::Int4(part_), SqlParam::Int8(mapping_id), SqlParam::Bool(suspects),
       SqlParam::Int4(kPackedFormat), SqlParam::Bytea(Pack(std::move(rows), Packing::kHashes))});
}

void VerificationRecord::VisitMet(int64 mapping_id, bool suspects,
                                  const std::function<void(const PackedItem &)> &visit) const {
  pg::SnapshotScope snapshot;  // hashes are fetched from TOAST after the statement
  pg::AsExtensionOwner as_owner;
  for (int64 last = 0;;) {
    pg::CheckInterrupts();
    pg::Context context("redis_migrate rows met");
    pg::SwitchContext in_context(context.get());
    pg::Rows const batches = Spi::ExecuteKept(
        R"sql(SELECT batch_id, format, hashes
              FROM redis_migrate.verification_met
              WHERE verification_id = $1 AND batch_id > $2 AND mapping_id = $3 AND suspects = $4
              ORDER BY batch_id
              LIMIT $5)sql",
        {SqlParam::Int8(id_), SqlParam::Int8(last), SqlParam::Int8(mapping_id), SqlParam::Bool(suspects),
         SqlParam::Int8(kBatchesAtOnce)});
    if (batches.size() == 0) return;
    for (uint64 i = 0; i < batches.size(); ++i) {
      last = batches[i].Int8(0);
      RequirePackedFormat(batches[i].Int4(1));
      std::vector<PackedItem> items;
      UnpackOrThrow(pg::DatumBytes(batches[i].Value(2)), Packing::kHashes, items);
      for (const PackedItem &item : items) visit(item);
    }
  }
}

void VerificationRecord::ForgetMet() const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("DELETE FROM redis_migrate.verification_met WHERE verification_id = $1",
               {SqlParam::Int8(id_)});
}

void VerificationRecord::Restart() const {
  pg::AsExtensionOwner as_owner;
  for (const char *table : {"verification_met", "verification_difference"})
    Spi::Execute(
        std::string("DELETE FROM redis_migrate.") + table + " WHERE verification_id = $1 AND part = $2",
        {SqlParam::Int8(id_), SqlParam::Int4(part_)});
}

void VerificationRecord::NoteRestart() const {
  pg::AsExtensionOwner as_owner;
  RequireRead(Spi::Execute(
                  R"sql(UPDATE redis_migrate.verification_part
                        SET restarts = restarts + 1
                        WHERE verification_id = $1 AND part = $2 AND pid = pg_backend_pid())sql",
                  {SqlParam::Int8(id_), SqlParam::Int4(part_)}),
              parts().work(), part_);
}

// The parts first: this waits for whoever is about to commit what it has found in one, and everybody else
// finds it gone.
void VerificationRecord::DropParts() {
  part_ = 0;
  pg::AsExtensionOwner as_owner;
  for (const char *table :
       {"verification_part", "verification_met", "verification_difference", "verification_count"})
    Spi::Execute(std::string("DELETE FROM redis_migrate.") + table + " WHERE verification_id = $1",
                 {SqlParam::Int8(id_)});
}

void VerificationRecord::AddDifference(const source::Entry *entry, const RowDifference &difference,
                                       int64 number) const {
  std::optional<std::string> row_key;
  if (!difference.row_key.empty()) {
    size_t const shown = pg::Call([&] {
      return static_cast<size_t>(
          pg_mbcliplen(difference.row_key.data(), static_cast<int>(difference.row_key.size()), kShownRowKey));
    });
    row_key = difference.row_key.substr(0, shown) + (shown < difference.row_key.size() ? "..." : "");
  }
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.verification_difference (
                verification_id, mapping, kind, db, key_bytes, row_key, column_name, redis_value, stored_value,
                part, number)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11))sql",
      {SqlParam::Int8(id_), SqlParam::Text(difference.mapping), SqlParam::Text(difference.kind),
       entry != nullptr ? SqlParam::Int4(entry->db) : SqlParam{INT4OID, 0, true},
       entry != nullptr ? SqlParam::Bytea(entry->key) : SqlParam{BYTEAOID, 0, true},
       SqlParam::OptionalText(row_key), SqlParam::OptionalText(difference.column),
       SqlParam::OptionalText(difference.redis_value), SqlParam::OptionalText(difference.stored_value),
       SqlParam::Int4(part_), SqlParam::Int8(number)});
}

bool VerificationRecord::HasMetRun() const {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT EXISTS (
                       SELECT
                       FROM redis_migrate.run AS r
                       JOIN redis_migrate.verification AS v USING (migration)
                       WHERE v.verification_id = $1 AND NOT r.dry_run
                           AND (r.updated_at >= v.started_at OR r.finished_at >= v.started_at
                                OR r.state = 'running'
                                   AND EXISTS (SELECT FROM pg_stat_get_activity(r.pid) AS a WHERE a.backend_start <= r.updated_at))))sql",
             {SqlParam::Int8(id_)})[0]
      .Bool(0);
}

bool VerificationRecord::IsOutdated() const {
  return !begun_with_.definition || ReadVersions().definition != begun_with_.definition;
}

bool VerificationRecord::HasFamilyChanged() const { return ReadVersions().families != begun_with_.families; }

void VerificationRecord::Conclude(const std::vector<std::string> &reasons, bool proves) const {
  ForgetMet();
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.verification
            SET state = 'completed', updated_at = clock_timestamp(), finished_at = clock_timestamp(),
                verified = cardinality($2) = 0, proves = $3, reasons = $2
            WHERE verification_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::TextArray(reasons), SqlParam::Bool(proves)});
}

void VerificationRecord::Fail(const std::string &sqlstate, const std::string &message) const {
  ForgetMet();
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.verification
            SET state = 'failed', updated_at = clock_timestamp(), finished_at = clock_timestamp(), sqlstate = $2,
                message = $3
            WHERE verification_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Text(sqlstate), SqlParam::Text(message)});
}

}  // namespace prm
