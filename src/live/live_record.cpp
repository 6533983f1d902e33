#include "live/live_record.h"

#include "mapping/family_state.h"
#include "pg/error.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

SqlParam Time(int64 unix_ms) { return {TIMESTAMPTZOID, TimestampTzGetDatum(pg::FromUnixMs(unix_ms)), false}; }

SqlParam Offset(uint64 offset) { return SqlParam::Int8(static_cast<int64>(offset)); }

}  // namespace

namespace {

std::optional<LivePosition> PositionOf(pg::Rows rows) {
  if (rows.size() == 0) return std::nullopt;
  LivePosition position;
  position.point = {rows[0].Text(0), static_cast<uint64>(rows[0].Int8(1))};
  position.db = rows[0].Int4(2);
  position.received_at_ms = pg::UnixMs(DatumGetTimestampTz(rows[0].Value(3)));
  position.is_loaded = rows[0].Bool(4);
  return position;
}

}  // namespace

std::optional<LivePosition> LiveRecord::ReadLowest() const {
  pg::AsExtensionOwner as_owner;
  return PositionOf(Spi::Execute(
      R"sql(SELECT replication_id, applied_offset, db, received_at, is_loaded
            FROM redis_migrate.live_applied
            WHERE run_id = $1 AND link = $2)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_)}));
}

std::optional<LivePosition> LiveRecord::ReadPosition() const {
  pg::AsExtensionOwner as_owner;
  return PositionOf(Spi::Execute(
      R"sql(SELECT replication_id, applied_offset, db, received_at, is_loaded
            FROM redis_migrate.live_position
            WHERE run_id = $1 AND link = $2 AND appliers = $3 AND applier = $4)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.of),
       SqlParam::Int4(share_.number)}));
}

std::map<KeyId, KeyAhead> LiveRecord::ReadKeysAhead() const {
  pg::SnapshotScope snapshot;  // key names are fetched from TOAST after the statement
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT db, key_bytes, read_offset, is_absent, is_unread, coalesce(bytes, 0)
            FROM redis_migrate.live_key
            WHERE run_id = $1 AND link = $2 AND slot % $3 = $4)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_), SqlParam::Int4(share_.of),
       SqlParam::Int4(share_.number)});
  std::map<KeyId, KeyAhead> keys;
  for (uint64 i = 0; i < rows.size(); ++i) {
    KeyAhead &key = keys[{rows[i].Int4(0), std::string(pg::DatumBytes(rows[i].Value(1)))}];
    key.read_offset = static_cast<uint64>(rows[i].Int8(2));
    key.bytes = static_cast<uint64>(rows[i].Int8(5));
    // Whether that was a replica is not known any more.
    if (rows[i].Bool(3)) key.tries = 1;
    key.kind = rows[i].Bool(3) ? KeyAhead::kAbsent : rows[i].Bool(4) ? KeyAhead::kAgain : KeyAhead::kStored;
  }
  return keys;
}

void LiveRecord::Begin(const LivePosition &position) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.live_position
              (run_id, replication_id, applied_offset, db, received_at, link)
            VALUES ($1, $2, $3, $4, $5, $6))sql",
      {SqlParam::Int8(run_id_), SqlParam::Text(position.point.id), Offset(position.point.offset),
       SqlParam::Int4(position.db), Time(position.received_at_ms), SqlParam::Int4(link_)});
}

void LiveRecord::SetLoaded(const std::string &migration) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.live_position
            SET is_loaded = true, updated_at = clock_timestamp()
            WHERE run_id = $1)sql",
      {SqlParam::Int8(run_id_)});
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.live_mapping (run_id, link, mapping_id, pattern, is_filled)
            SELECT p.run_id, p.link, m.mapping_id, m.pattern, true
            FROM redis_migrate.live_position AS p, redis_migrate.mapping AS m
            WHERE p.run_id = $1 AND m.migration = $2)sql",
      {SqlParam::Int8(run_id_), SqlParam::Text(migration)});
  Spi::Execute(
      R"sql(UPDATE redis_migrate.background_run
            SET force = false, is_flushed = false
            WHERE migration = $1 AND (force OR is_flushed))sql",
      {SqlParam::Text(migration)});
}

void LiveRecord::NoteFlush(const std::string &migration) {
  NoteLostKeys(migration, "Redis was told to forget keys, or to exchange databases");
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      "UPDATE redis_migrate.background_run SET is_flushed = true WHERE migration = $1 AND NOT is_flushed",
      {SqlParam::Text(migration)});
}

void LiveRecord::NoteLostKeys(const std::string &migration, const char *reason) {
  std::set<std::string> const owned = LockOwnedFamilies(migration);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.outbox_gap (mapping_id, reason)
            SELECT m.mapping_id, $3
            FROM redis_migrate.mapping AS m
            JOIN redis_migrate.reverse_mapping AS r USING (mapping_id)
            WHERE m.migration = $1 AND m.pattern = ANY ($2))sql",
      {SqlParam::Text(migration), SqlParam::TextArray({owned.begin(), owned.end()}), SqlParam::Text(reason)});
}

bool LiveRecord::IsFlushed(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute("SELECT is_flushed FROM redis_migrate.background_run WHERE migration = $1",
                           {SqlParam::Text(migration)});
  return rows.size() > 0 && rows[0].Bool(0);
}

uint64 LiveRecord::Advance(const LivePosition &position, int64 commands, int64 keys_read_again) const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.live_position AS p
            SET replication_id = $2, applied_offset = $3, db = $4, received_at = $5,
                commands = commands + $6, keys_read_again = keys_read_again + $7,
                updated_at = clock_timestamp()
            WHERE run_id = $1 AND link = $8 AND appliers = $9 AND applier = $10
            RETURNING least(applied_offset, (
                SELECT min(o.applied_offset)
                FROM redis_migrate.live_position AS o
                WHERE o.run_id = $1 AND o.link = $8 AND o.appliers = $9 AND o.applier <> $10)))sql",
      {SqlParam::Int8(run_id_), SqlParam::Text(position.point.id), Offset(position.point.offset),
       SqlParam::Int4(position.db), Time(position.received_at_ms), SqlParam::Int8(commands),
       SqlParam::Int8(keys_read_again), SqlParam::Int4(link_), SqlParam::Int4(share_.of),
       SqlParam::Int4(share_.number)});
  return static_cast<uint64>(rows[0].Int8(0));
}

void LiveRecord::ForgetKeysUpTo(uint64 offset) const {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(DELETE FROM redis_migrate.live_key
            WHERE run_id = $1 AND read_offset <= $2 AND NOT is_absent AND NOT is_unread
              AND link = $3 AND slot % $4 = $5)sql",
      {SqlParam::Int8(run_id_), Offset(offset), SqlParam::Int4(link_), SqlParam::Int4(share_.of),
       SqlParam::Int4(share_.number)});
}

void LiveRecord::SaveKeys(const std::vector<std::pair<const KeyId *, const KeyAhead *>> &keys) const {
  if (keys.empty()) return;
  std::vector<int> dbs, slots, absent, unread;
  std::vector<Bytes> names;
  std::vector<int64> offsets, bytes;
  for (const auto &[id, key] : keys) {
    dbs.push_back(id->first);
    names.push_back(id->second);
    slots.push_back(static_cast<int>(redis::KeySlot(id->second)));
    offsets.push_back(static_cast<int64>(key->read_offset));
    bytes.push_back(static_cast<int64>(key->bytes));
    absent.push_back(key->kind == KeyAhead::kAbsent ? 1 : 0);
    unread.push_back(key->kind == KeyAhead::kAgain ? 1 : 0);
  }
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.live_key
              (run_id, link, db, key_bytes, slot, read_offset, is_absent, is_unread, bytes)
            SELECT $1, $8, k.db, k.key_bytes, k.slot, k.read_offset, k.absent = 1, k.unread = 1,
              NULLIF(k.bytes, 0)
            FROM unnest($2, $3, $9, $4, $5, $6, $7)
              AS k (db, key_bytes, slot, read_offset, absent, unread, bytes)
            ON CONFLICT (run_id, link, db, redis_migrate.index_key(key_bytes)) DO UPDATE
            SET read_offset = excluded.read_offset,
                is_absent = excluded.is_absent,
                is_unread = excluded.is_unread,
                bytes = excluded.bytes)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(names),
       SqlParam::Int8Array(offsets), SqlParam::Int4Array(absent), SqlParam::Int4Array(unread),
       SqlParam::Int8Array(bytes), SqlParam::Int4(link_), SqlParam::Int4Array(slots)});
}

void LiveRecord::ForgetKeys(const std::vector<KeyId> &keys) const {
  if (keys.empty()) return;
  std::vector<int> dbs;
  std::vector<Bytes> names;
  for (const auto &[db, name] : keys) {
    dbs.push_back(db);
    names.push_back(name);
  }
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(DELETE FROM redis_migrate.live_key AS l
            USING unnest($2, $3) AS k (db, key_bytes)
            WHERE l.run_id = $1 AND l.link = $4 AND l.db = k.db
              AND redis_migrate.index_key(l.key_bytes) = redis_migrate.index_key(k.key_bytes))sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(names),
       SqlParam::Int4(link_)});
}

std::optional<std::string> LiveRecord::ReadSeed(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute("SELECT seed FROM redis_migrate.background_run WHERE migration = $1",
                           {SqlParam::Text(migration)});
  return rows.size() == 0 ? std::nullopt : rows[0].OptionalText(0);
}

void LiveRecord::ForgetSeed(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      "UPDATE redis_migrate.background_run SET seed = NULL WHERE migration = $1 AND seed IS NOT NULL",
      {SqlParam::Text(migration)});
}

std::optional<LinkStatus> LiveRecord::ReadLink() const {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::ExecuteKept(
      R"sql(SELECT state, sqlstate, message, replication_id, updated_at,
              coalesce((SELECT max(flush_offset) FROM redis_migrate.live_position
                        WHERE run_id = $1 AND link = $2), 0),
              nodes, received_at
            FROM redis_migrate.live_link
            WHERE run_id = $1 AND link = $2)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int4(link_)});
  if (rows.size() == 0) return std::nullopt;
  LinkStatus status;
  status.state = rows[0].Text(0);
  if (!rows[0].IsNull(1)) status.sqlstate = pg::SqlStateCode(rows[0].Text(1));
  status.message = rows[0].Text(2);
  status.replication_id = rows[0].Text(3);
  status.noted_at = DatumGetTimestampTz(rows[0].Value(4));
  status.flush_offset = static_cast<uint64>(rows[0].Int8(5));
  status.nodes = rows[0].TextArray(6);
  if (!rows[0].IsNull(7)) status.received_at_ms = pg::UnixMs(DatumGetTimestampTz(rows[0].Value(7)));
  return status;
}

bool LiveRecord::IsSuperseded() const {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::ExecuteKept("SELECT state = 'superseded' FROM redis_migrate.run WHERE run_id = $1",
                               {SqlParam::Int8(run_id_)});
  return rows.size() == 0 || rows[0].Bool(0);
}

void LiveRecord::WriteLink(const LinkStatus &status) const {
  auto number = [](const std::optional<uint64> &value) {
    return value ? Offset(*value) : SqlParam{INT8OID, 0, true};
  };
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.live_link AS l
              (run_id, state, replication_id, received_offset, durable_offset, received_at, spool_bytes,
               reconnects, sqlstate, message, backlog_bytes,
               acknowledged_at,
               feed, doubt, link, nodes)
            VALUES ($1, $2, NULLIF($3, ''), $4, $5, $6, $7,
                    $8, $9, NULLIF($10, ''), $11,
                    CASE WHEN $2 = 'streaming' AND $12 = '' THEN clock_timestamp() END,
                    NULLIF($12, ''), NULLIF($13, ''), $14, $15)
            ON CONFLICT (run_id, link) DO UPDATE
            SET state = excluded.state,
                since = CASE WHEN l.state = excluded.state THEN l.since ELSE clock_timestamp() END,
                replication_id = coalesce(excluded.replication_id, l.replication_id),
                received_offset = coalesce(excluded.received_offset, l.received_offset),
                durable_offset = coalesce(excluded.durable_offset, l.durable_offset),
                received_at = coalesce(excluded.received_at, l.received_at),
                spool_bytes = coalesce(excluded.spool_bytes, l.spool_bytes),
                backlog_bytes = coalesce(excluded.backlog_bytes, l.backlog_bytes),
                acknowledged_at = coalesce(excluded.acknowledged_at, l.acknowledged_at),
                reconnects = l.reconnects + excluded.reconnects,
                sqlstate = excluded.sqlstate,
                message = excluded.message,
                feed = coalesce(excluded.feed, l.feed),
                doubt = excluded.doubt,
                nodes = excluded.nodes,
                updated_at = clock_timestamp())sql",
      {SqlParam::Int8(run_id_), SqlParam::Text(status.state), SqlParam::Text(status.replication_id),
       number(status.received_offset), number(status.durable_offset),
       status.received_at_ms ? Time(*status.received_at_ms) : SqlParam{TIMESTAMPTZOID, 0, true},
       number(status.spool_bytes), SqlParam::Int8(status.reconnects),
       status.sqlstate ? SqlParam::Text(pg::SqlStateText(*status.sqlstate)) : SqlParam{TEXTOID, 0, true},
       SqlParam::Text(status.message), number(status.backlog_bytes), SqlParam::Text(status.feed),
       SqlParam::Text(status.doubt), SqlParam::Int4(link_), SqlParam::TextArray(status.nodes)});
}

}  // namespace prm
