#include "live/touched_keys.h"

#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr size_t kMostKeys = 20000;
constexpr uint64 kMostBytes = uint64{8} << 20;

}  // namespace

void TouchedKeys::Note(const std::vector<const KeyId *> &keys) {
  pg::AsExtensionOwner as_owner;
  auto const newest = Spi::ExecuteKept(
      R"sql(SELECT coalesce(max(verification_id), 0)
            FROM redis_migrate.verification
            WHERE migration = $1 AND mapping IS NULL AND sample IS NULL
                AND source IN ('scan', 'replication'))sql",
      {SqlParam::Text(migration_)});
  if (newest[0].Int8(0) != verification_) Begin(newest[0].Int8(0));
  if (verification_ == 0 || has_more_) return;
  std::vector<int> dbs;
  std::vector<Bytes> names;
  for (const KeyId *id : keys) {
    auto const [known, is_new] = names_.insert(*id);
    if (!is_new) continue;
    bytes_ += id->second.size();
    dbs.push_back(id->first);
    names.emplace_back(known->second);
  }
  if (names.empty()) return;
  kept_ += names.size();
  has_more_ = kept_ > kMostKeys || bytes_ > kMostBytes;
  if (has_more_) {
    names_.clear();
    Spi::Execute("INSERT INTO redis_migrate.touched_key (migration, verification_id) VALUES ($1, $2)",
                 {SqlParam::Text(migration_), SqlParam::Int8(verification_)});
    return;
  }
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.touched_key (migration, verification_id, db, key_bytes)
            SELECT $1, $2, k.db, k.key_bytes
            FROM unnest($3, $4) AS k (db, key_bytes)
            ON CONFLICT DO NOTHING)sql",
      {SqlParam::Text(migration_), SqlParam::Int8(verification_), SqlParam::Int4Array(dbs),
       SqlParam::ByteaArray(names)});
}

// Keys that were touched before a verification that proved everything equal need not be looked at any more.
void TouchedKeys::Begin(int64 verification) {
  verification_ = verification;
  names_.clear();
  bytes_ = 0;
  Spi::Execute(
      R"sql(DELETE FROM redis_migrate.touched_key
            WHERE migration = $1 AND verification_id < (
                SELECT max(verification_id)
                FROM redis_migrate.verification
                WHERE migration = $1 AND mapping IS NULL AND sample IS NULL AND proves
                    AND source IN ('scan', 'replication')))sql",
      {SqlParam::Text(migration_)});
  auto const kept = Spi::Execute(
      R"sql(SELECT count(*), coalesce(bool_or(key_bytes IS NULL AND verification_id = $2), false)
            FROM redis_migrate.touched_key
            WHERE migration = $1)sql",
      {SqlParam::Text(migration_), SqlParam::Int8(verification)});
  kept_ = static_cast<size_t>(kept[0].Int8(0));
  has_more_ = kept[0].Bool(1);
}

TouchedKeys::Found TouchedKeys::Read(const std::string &migration, const std::vector<std::string> &patterns) {
  Found found;
  pg::AsExtensionOwner as_owner;
  auto const since = Spi::Execute(
      R"sql(SELECT max(f.verification_id)
            FROM redis_migrate.verification AS f
            WHERE f.migration = $1 AND f.mapping IS NULL AND f.sample IS NULL
                AND f.source IN ('scan', 'replication')
                AND f.verification_id <= ALL (
                    SELECT (SELECT coalesce(max(v.verification_id), 0)
                            FROM redis_migrate.verification AS v
                            WHERE v.migration = $1 AND v.proves AND v.source IN ('scan', 'replication')
                                AND (v.mapping IS NULL OR v.mapping = m.mapping))
                    FROM redis_migrate.mapping AS m
                    WHERE m.migration = $1 AND m.pattern = ANY ($2)))sql",
      {SqlParam::Text(migration), SqlParam::TextArray(patterns)});
  if (since[0].IsNull(0)) return found;
  found.is_known = true;
  auto const rows = Spi::Execute(
      R"sql(SELECT DISTINCT db, key_bytes
            FROM redis_migrate.touched_key
            WHERE migration = $1 AND verification_id >= $2)sql",
      {SqlParam::Text(migration), SqlParam::Int8(since[0].Int8(0))});
  for (uint64 i = 0; i < rows.size(); ++i) {
    if (rows[i].IsNull(1))
      found.has_more = true;
    else
      found.keys.emplace_back(rows[i].Int4(0), std::string(pg::DatumBytes(rows[i].Value(1))));
  }
  return found;
}

}  // namespace prm
