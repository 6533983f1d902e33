#include "store/archive_source.h"

#include "core/printable.h"
#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

std::string ToHex(const std::string &bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (char c : bytes) {
    hex += kDigits[static_cast<unsigned char>(c) >> 4];
    hex += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return hex;
}

std::string FromHex(const std::string &hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

}  // namespace

SourcePlace PlaceOf(const Migration &migration, const std::string &source) {
  SourcePlace place;
  place.kind = source;
  place.migration = migration.name;
  place.server = migration.server;
  place.file = migration.file;
  place.databases = migration.databases;
  place.open_archive = [name = migration.name](source::KeyFilter &filter, const std::string &position) {
    return std::make_unique<ArchiveSource>(name, filter, pg::settings::batch_rows, position);
  };
  return place;
}

ArchiveSource::ArchiveSource(std::string migration, source::KeyFilter &filter, size_t batch_keys,
                             const std::string &position)
    : migration_(std::move(migration)), filter_(filter), batch_keys_(batch_keys) {
  size_t space = position.find(' ');
  if (space == std::string::npos) return;
  db_ = std::stoi(position.substr(0, space));
  index_key_ = FromHex(position.substr(space + 1));
}

Result<bool> ArchiveSource::Next(source::Batch &batch) {
  batch = source::Batch();
  uint64_t const most_bytes = static_cast<uint64_t>(pg::settings::batch_size_kb) * 1024;
  pg::Context context("redis_migrate archive");
  pg::SwitchContext in_context(context.get());
  pg::SnapshotScope snapshot;  // payloads are fetched from TOAST after the statement
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT db, key_bytes, payload, expires_at, payload_size, index_key
            FROM (
                SELECT *, sum(payload_size) OVER (ORDER BY db, index_key) - payload_size AS before
                FROM (
                    SELECT *
                    FROM redis_migrate.archived_key
                    WHERE migration = $1 AND (db, index_key) > ($2, $3)
                    ORDER BY db, index_key
                    LIMIT $4) AS a) AS b
            WHERE before < $5
            ORDER BY db, index_key)sql",
      {SqlParam::Text(migration_), SqlParam::Int4(db_), SqlParam::Bytea(index_key_),
       SqlParam::Int8(static_cast<int64>(batch_keys_)), SqlParam::Int8(static_cast<int64>(most_bytes))});
  if (rows.size() == 0) return false;
  for (uint64 i = 0; i < rows.size(); ++i) {
    source::Entry entry;
    entry.db = db_ = rows[i].Int4(0);
    entry.key = pg::DatumBytes(rows[i].Value(1));
    index_key_ = pg::DatumBytes(rows[i].Value(5));
    source::KeyDecision const decision = filter_.Classify(entry.db, entry.key);
    if (decision.interest == source::Interest::kIgnore) continue;
    entry.route = decision.route;
    bool const reads = decision.interest == source::Interest::kRead;
    entry.state = reads ? source::EntryState::kRead : source::EntryState::kNameOnly;
    if (reads)
      entry.payload = rows[i].IsNull(2)
                          ? ReadChunks(entry.db, entry.key, index_key_, static_cast<size_t>(rows[i].Int8(4)))
                          : std::string(pg::DatumBytes(rows[i].Value(2)));
    if (!rows[i].IsNull(3)) entry.expires_at_ms = pg::UnixMs(DatumGetTimestampTz(rows[i].Value(3)));
    batch.bytes += entry.key.size() + entry.payload.size();
    batch.entries.push_back(std::move(entry));
  }
  batch.position = std::to_string(db_) + " " + ToHex(index_key_);
  return true;
}

// One chunk after another, each forgotten when it is copied.
std::string ArchiveSource::ReadChunks(int db, Bytes key, Bytes index_key, size_t size) {
  std::string payload;
  payload.reserve(size);
  pg::Context context("redis_migrate chunk");
  for (int32 chunk = 0; payload.size() < size; ++chunk) {
    pg::SwitchContext in_context(context.get());
    auto rows = Spi::Execute(
        R"sql(SELECT bytes
              FROM redis_migrate.archive_chunk
              WHERE migration = $1 AND db = $2 AND index_key = $3 AND chunk_no = $4)sql",
        {SqlParam::Text(migration_), SqlParam::Int4(db), SqlParam::Bytea(index_key), SqlParam::Int4(chunk)});
    if (rows.size() == 0)
      throw pg::Failure(ERRCODE_DATA_CORRUPTED,
                        "chunk " + std::to_string(chunk) + " of an archived payload is missing",
                        "Database " + std::to_string(db) + ", key \"" + Printable(key) + "\".");
    payload += pg::DatumBytes(rows[0].Value(0));
    context.Reset();
  }
  return payload;
}

}  // namespace prm
