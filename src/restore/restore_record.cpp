#include "restore/restore_record.h"

#include "pg/encoding.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

const char *OutcomeOf(sink::KeyFate fate) {
  switch (fate) {
    case sink::KeyFate::kRestored:
      return "restored";
    case sink::KeyFate::kExists:
      return "exists";
    case sink::KeyFate::kExpired:
      return "expired";
    case sink::KeyFate::kFailed:
    case sink::KeyFate::kElsewhere:
      break;
  }
  return "failed";
}

}  // namespace

RestoreRecord::RestoreRecord(const Parameters &parameters) {
  Oid const user = GetUserId();
  pg::AsExtensionOwner as_owner;
  std::vector<SqlParam> const arguments = {SqlParam::Text(parameters.migration),
                                           SqlParam::Text(parameters.server),
                                           SqlParam::Text(parameters.source),
                                           SqlParam::OptionalText(parameters.pattern),
                                           SqlParam::Bool(parameters.replaces),
                                           SqlParam::Bool(parameters.is_dry),
                                           SqlParam::OidOf(user)};
  auto const last = Spi::Execute(
      R"sql(UPDATE redis_migrate.restore AS r
            SET state = 'running', pid = pg_backend_pid(), updated_at = clock_timestamp(), finished_at = NULL,
                sqlstate = NULL, message = NULL
            WHERE r.restore_id = (SELECT max(restore_id) FROM redis_migrate.restore
                                  WHERE migration = $1 AND server = $2::text::name AND source = $3
                                      AND pattern IS NOT DISTINCT FROM $4 AND replace = $5 AND dry_run = $6
                                      AND redis_migrate.stamped_role(owner) = $7)
                AND r.state IN ('running', 'failed')
                AND NOT EXISTS (SELECT FROM redis_migrate.run AS n
                                WHERE n.migration = $1 AND NOT n.dry_run AND n.updated_at > r.updated_at)
            RETURNING r.restore_id, r.position)sql",
      arguments);
  if (last.size() > 0) {
    id_ = last[0].Int8(0);
    position_ = last[0].Text(1);
    is_continued_ = !position_.empty();
    return;
  }
  auto const row = Spi::Execute(
      R"sql(INSERT INTO redis_migrate.restore (migration, server, source, pattern, replace, dry_run, owner)
            VALUES ($1, $2::text::name, $3, $4, $5, $6, redis_migrate.stamp_owner($7))
            RETURNING restore_id)sql",
      arguments);
  id_ = row[0].Int8(0);
}

void RestoreRecord::Add(const std::vector<source::Entry> &entries,
                        const std::vector<sink::WrittenKey> &written, uint64_t by_commands,
                        const std::string &position) {
  pg::AsExtensionOwner as_owner;
  std::map<std::pair<std::string, std::string>, int64> counts;
  for (size_t i = 0; i < entries.size(); ++i) {
    const sink::WrittenKey &key = written[i];
    std::string const outcome = OutcomeOf(key.fate);
    ++counts[{outcome, key.reason}];
    if (outcome != "failed") continue;
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.restore_failure (restore_id, db, key_bytes, reason, message)
              VALUES ($1, $2, $3, $4, $5))sql",
        {SqlParam::Int8(id_), SqlParam::Int4(entries[i].db), SqlParam::Bytea(entries[i].key),
         SqlParam::Text(key.reason), SqlParam::Text(key.message)});
  }
  for (const auto &[count, keys] : counts)
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.restore_count AS c (restore_id, outcome, reason, keys)
              VALUES ($1, $2, NULLIF($3, ''), $4)
              ON CONFLICT (restore_id, outcome, reason) DO UPDATE SET keys = c.keys + excluded.keys)sql",
        {SqlParam::Int8(id_), SqlParam::Text(count.first), SqlParam::Text(count.second),
         SqlParam::Int8(keys)});
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.restore
            SET position = $2, by_commands = by_commands + $3, updated_at = clock_timestamp()
            WHERE restore_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Text(position), SqlParam::Int8(static_cast<int64>(by_commands))});
}

RestoreRecord::Summary RestoreRecord::Sum() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT s.keys, s.restored, s.exists, s.expired, s.failed, s.by_commands,
                coalesce((SELECT keys FROM redis_migrate.restore_count AS c
                          WHERE c.restore_id = $1 AND reason = 'without_pending'), 0)
            FROM redis_migrate.restores AS s
            WHERE restore_id = $1)sql",
      {SqlParam::Int8(id_)});
  return {rows[0].Int8(0), rows[0].Int8(1), rows[0].Int8(2), rows[0].Int8(3),
          rows[0].Int8(4), rows[0].Int8(6), rows[0].Int8(5)};
}

void RestoreRecord::Complete() const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.restore
            SET state = 'completed', finished_at = clock_timestamp(), updated_at = clock_timestamp()
            WHERE restore_id = $1)sql",
      {SqlParam::Int8(id_)});
}

void RestoreRecord::Fail(const std::string &sqlstate, const std::string &message) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.restore
            SET state = 'failed', finished_at = clock_timestamp(), updated_at = clock_timestamp(),
                sqlstate = $2, message = $3
            WHERE restore_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Text(sqlstate), SqlParam::Text(message)});
}

}  // namespace prm
