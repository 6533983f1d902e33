// Keys in the record of a run: those that its position does not cover, those that wait for the end of a
// level, and those that a live run has rejected.
#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"
#include "run/run_record.h"
#include "write/index_key.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

std::pair<std::vector<int>, std::vector<Bytes>> DivideKeys(
    const std::vector<std::pair<int, std::string>> &keys) {
  std::pair<std::vector<int>, std::vector<Bytes>> divided;
  for (const auto &[db, name] : keys) {
    divided.first.push_back(db);
    divided.second.push_back(name);
  }
  return divided;
}

}  // namespace

void RunRecord::NotePageKeys(const std::vector<const source::Entry *> &entries, bool beyond) {
  pg::AsExtensionOwner as_owner;
  if (!beyond) {
    Spi::ExecuteKept("DELETE FROM redis_migrate.page_key WHERE run_id = $1 AND part = $2",
                     {SqlParam::Int8(id_), SqlParam::Int4(part_)});
    return;
  }
  std::vector<int> dbs;
  std::vector<Bytes> keys;
  for (const source::Entry *entry : entries) {
    dbs.push_back(entry->db);
    keys.push_back(entry->key);
  }
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.page_key
            SELECT $1, $2, k.db, k.key_bytes
            FROM unnest($3, $4) AS k (db, key_bytes))sql",
      {SqlParam::Int8(id_), SqlParam::Int4(part_), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(keys)});
}

std::set<std::pair<int, std::string>> RunRecord::ReadPageKeys() const {
  pg::SnapshotScope snapshot;  // key names are fetched from TOAST after the statement
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute("SELECT db, key_bytes FROM redis_migrate.page_key WHERE run_id = $1 AND part = $2",
                           {SqlParam::Int8(id_), SqlParam::Int4(part_)});
  std::set<std::pair<int, std::string>> keys;
  for (uint64 i = 0; i < rows.size(); ++i)
    keys.emplace(rows[i].Int4(0), std::string(pg::DatumBytes(rows[i].Value(1))));
  return keys;
}

bool RunRecord::HasDeferred(int level) const {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute("SELECT EXISTS (SELECT FROM redis_migrate.deferred WHERE run_id = $1 AND level = $2)",
                      {SqlParam::Int8(id_), SqlParam::Int4(level)})[0]
      .Bool(0);
}

std::set<std::pair<int, std::string>> RunRecord::ForgetDeferred(
    int level, const std::vector<const source::Entry *> &entries) {
  std::vector<int> dbs;
  std::vector<Bytes> keys;
  for (const source::Entry *entry : entries) {
    dbs.push_back(entry->db);
    keys.push_back(entry->key);
  }
  pg::SnapshotScope snapshot;  // key names are fetched from TOAST after the statement
  pg::AsExtensionOwner as_owner;
  // LATERAL and OFFSET make it one look-up in the primary key for each key.
  auto rows = Spi::ExecuteKept(
      R"sql(DELETE FROM redis_migrate.deferred AS d
            USING unnest($3, $4) AS k (db, key_bytes),
                LATERAL (
                    SELECT ctid
                    FROM redis_migrate.deferred
                    WHERE run_id = $1 AND level = $2 AND db = k.db
                        AND index_key = redis_migrate.index_key(k.key_bytes)
                    OFFSET 0) AS found
            WHERE d.ctid = found.ctid
            RETURNING d.db, d.key_bytes)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(keys)});
  std::set<std::pair<int, std::string>> forgotten;
  for (uint64 i = 0; i < rows.size(); ++i)
    forgotten.emplace(rows[i].Int4(0), std::string(pg::DatumBytes(rows[i].Value(1))));
  return forgotten;
}

std::vector<source::Entry> RunRecord::TakeDeferred(int level, int db, Bytes index_key, int limit) {
  pg::Context context("redis_migrate deferred");
  pg::SwitchContext in_context(context.get());
  pg::SnapshotScope snapshot;  // payloads are fetched from TOAST after the statement
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(DELETE FROM redis_migrate.deferred
            WHERE (run_id, level, db, index_key) IN (
                SELECT run_id, level, db, index_key
                FROM (
                    SELECT *,
                        sum(octet_length(payload)) OVER (ORDER BY db, index_key)
                            - octet_length(payload) AS before
                    FROM (
                        SELECT *
                        FROM redis_migrate.deferred
                        WHERE run_id = $1 AND level = $2 AND (db, index_key) > ($3, $4)
                        ORDER BY db, index_key
                        LIMIT $5) AS d) AS s
                WHERE before < $6)
            RETURNING db, key_bytes, payload, expires_at)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(db), SqlParam::Bytea(index_key),
       SqlParam::Int4(limit), SqlParam::Int8(static_cast<int64>(pg::settings::batch_size_kb) * 1024)});
  std::vector<source::Entry> entries;
  for (uint64 i = 0; i < rows.size(); ++i) {
    source::Entry entry;
    entry.db = rows[i].Int4(0);
    entry.key = pg::DatumBytes(rows[i].Value(1));
    entry.payload = pg::DatumBytes(rows[i].Value(2));
    if (!rows[i].IsNull(3)) entry.expires_at_ms = pg::UnixMs(DatumGetTimestampTz(rows[i].Value(3)));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const source::Entry &a, const source::Entry &b) {
    return a.db != b.db ? a.db < b.db : IndexKey(a.key) < IndexKey(b.key);
  });
  return entries;
}

std::set<std::pair<int, std::string>> RunRecord::ReadRejectedKeys() const {
  pg::SnapshotScope snapshot;  // key names are fetched from TOAST after the statement
  pg::AsExtensionOwner as_owner;
  auto rows =
      Spi::Execute("SELECT db, key_bytes FROM redis_migrate.reject WHERE run_id = $1 AND settled_at IS NULL",
                   {SqlParam::Int8(id_)});
  std::set<std::pair<int, std::string>> keys;
  for (uint64 i = 0; i < rows.size(); ++i)
    keys.emplace(rows[i].Int4(0), std::string(pg::DatumBytes(rows[i].Value(1))));
  return keys;
}

void RunRecord::ForgetRejects(const std::vector<std::pair<int, std::string>> &keys) const {
  if (keys.empty()) return;
  auto const [dbs, names] = DivideKeys(keys);
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(DELETE FROM redis_migrate.reject AS r
            USING unnest($2, $3) AS k (db, key_bytes)
            WHERE r.run_id = $1 AND r.db = k.db AND r.key_bytes = k.key_bytes AND settled_at IS NULL)sql",
      {SqlParam::Int8(id_), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(names)});
}

void RunRecord::SettleRejects(const std::vector<std::pair<int, std::string>> &keys) const {
  if (keys.empty()) return;
  auto const [dbs, names] = DivideKeys(keys);
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(WITH k AS (
                SELECT *
                FROM unnest($2, $3) AS k (db, key_bytes)),
            earlier AS (
                DELETE FROM redis_migrate.reject AS r
                USING k
                WHERE r.run_id = $1 AND r.db = k.db AND r.key_bytes = k.key_bytes
                    AND r.settled_at IS NOT NULL)
            UPDATE redis_migrate.reject AS r
            SET settled_at = clock_timestamp()
            FROM k
            WHERE r.run_id = $1 AND r.db = k.db AND r.key_bytes = k.key_bytes
                AND r.settled_at IS NULL)sql",
      {SqlParam::Int8(id_), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(names)});
}

void RunRecord::ForgetSettledRejects() const {
  pg::AsExtensionOwner as_owner;
  // now() is the same for all rows, so that an index finds those that are old.
  Spi::ExecuteKept(
      R"sql(DELETE FROM redis_migrate.reject
            WHERE run_id = $1 AND settled_at < now() - $2 * interval '1 second')sql",
      {SqlParam::Int8(id_), SqlParam::Int8(pg::settings::journal_retention_s)});
}

bool RunRecord::HasSkippedOwned(const std::string &pattern) const {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT EXISTS (
                       SELECT
                       FROM redis_migrate.run_count
                       WHERE run_id = $1 AND pattern = $2 AND outcome = 'skipped' AND reason = 'owned'))sql",
             {SqlParam::Int8(id_), SqlParam::Text(pattern)})[0]
      .Bool(0);
}

}  // namespace prm
