#include "run/late_writes.h"

#include "mapping/catalog.h"
#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/commit_signal.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "redis/command_table.h"
#include "run/late_expiries.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;
using source::EntryState;

namespace {

constexpr int64 kMostWriters = 1000;  // of a migration

// The value of a field in a line of CLIENT LIST, "id=3 addr=127.0.0.1:60318 … name=x … cmd=set user=app …".
Bytes FieldOf(Bytes line, Bytes name) {
  while (!line.empty()) {
    size_t const end = std::min(line.find(' '), line.size());
    Bytes const field = line.substr(0, end);
    if (field.size() > name.size() && field.substr(0, name.size()) == name && field[name.size()] == '=')
      return field.substr(name.size() + 1);
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return {};
}

// Whether a command, without its arguments, is one that writes; EXEC and scripts may.
bool MayWrite(Bytes command) {
  Bytes const name = command.substr(0, command.find('|'));  // "xgroup|create"
  // These change no key, but are in the stream, or may be.
  for (const char *const word :
       {"cluster", "function", "multi", "ping", "publish", "replconf", "script", "select", "spublish"})
    if (redis::IsSameWord(name, word)) return false;
  // It delivers to a consumer, which is in the stream as XCLAIM.
  if (redis::IsSameWord(name, "xreadgroup")) return true;
  std::vector<size_t> positions;
  return redis::FindWrittenKeys({name}, 1, positions) != redis::KeysFound::kUnknown;
}

}  // namespace

void KeepLateWrites(const std::string &migration, const std::vector<LateWrite> &writes) {
  pg::AsExtensionOwner as_owner;
  bool has_deletions = false;
  for (const LateWrite &write : writes) {
    const source::Entry &entry = *write.entry;
    bool const has_value = !write.is_gone && entry.state == EntryState::kRead;
    has_deletions = has_deletions || !has_value;
    bool const is_deleted = write.is_gone || entry.state == EntryState::kVanished;
    std::string const payload = has_value ? pg::ValueOrThrow(source::DumpOf(entry)) : std::string();
    // It says nothing of the value, of which an earlier one may tell. If it was read, it may be what the
    // reverse feed has written.
    const char *set = "kind = excluded.kind, payload = excluded.payload, expires_at = excluded.expires_at";
    if (!has_value && !is_deleted && (write.only_expiry || write.is_older))
      set = "expires_at = coalesce(excluded.expires_at, l.expires_at)";
    else if (!is_deleted && write.only_expiry)
      set =
          R"sql(kind = excluded.kind, expires_at = excluded.expires_at,
                payload = CASE WHEN l.kind = excluded.kind AND l.payload IS NOT NULL THEN l.payload ELSE excluded.payload END)sql";
    // Who settles deletions goes by their numbers: one that was another late write before has a new one.
    Spi::ExecuteKept(
        std::string(R"sql(INSERT INTO redis_migrate.late_write AS l
                  (migration, pattern, db, key_bytes, kind, payload, expires_at)
              VALUES ($1, $2, $3, $4, $5, $6, $7)
              ON CONFLICT (migration, db, redis_migrate.index_key(key_bytes)) WHERE settled_at IS NULL
              DO UPDATE SET changes = l.changes + 1, last_at = clock_timestamp(), )sql") +
            set + (is_deleted ? ", late_write_id = DEFAULT" : "") +
            // Perhaps nobody but the feed has deleted it, and its value is nowhere else.
            (is_deleted && write.may_be_own
                 ? " WHERE l.kind <> 'written' OR l.expires_at <= clock_timestamp()"
                 : ""),
        {SqlParam::Text(migration),
         SqlParam::Text(write.pattern),
         SqlParam::Int4(entry.db),
         SqlParam::Bytea(entry.key),
         SqlParam::Text(is_deleted ? "deleted" : "written"),
         has_value ? SqlParam::Bytea(payload) : SqlParam{BYTEAOID, 0, true},
         {TIMESTAMPTZOID, entry.expires_at_ms ? TimestampTzGetDatum(pg::FromUnixMs(*entry.expires_at_ms)) : 0,
          !entry.expires_at_ms}});
  }
  if (!has_deletions) return;
  auto const feed =
      Spi::ExecuteKept("SELECT feed_id FROM redis_migrate.reverse_feed WHERE migration = $1 AND wanted",
                       {SqlParam::Text(migration)});
  if (feed.size() > 0) pg::SignalAtCommit(feed[0].Int8(0));
}

void KeepLostWrites(const Migration &migration, const Routing &routing, BatchStore &store,
                    std::vector<LateWrite> &writes) {
  if (writes.empty()) return;
  std::set<std::string> const owned = LockOwnedFamilies(migration.name);
  auto const is_none = [&](const LateWrite &write) {
    Route const route = Route::FromNumber(write.entry->route);
    // Deletions of misfits are not noted otherwise, either.
    if (owned.count(write.pattern) == 0 || !route.IsOfFamily() ||
        (write.is_gone && route.kind == Route::kMisfit))
      return true;
    bool const only_expiry = write.only_expiry && write.entry->state != EntryState::kRead;
    if (!only_expiry && !write.is_older) return false;
    // In other states the key was a late write when it was read.
    return (FamilyState(migration.name, write.pattern) == "both") != write.is_older;
  };
  writes.erase(std::remove_if(writes.begin(), writes.end(), is_none), writes.end());
  SettleHarmless(migration, routing, store, writes);
  KeepLateWrites(migration.name, writes);
}

void KeepUnseenWrites(const Migration &migration, const Routing &routing, BatchStore &store, int64 run_id,
                      std::vector<LateWrite> &late) {
  if (late.empty()) return;
  std::map<std::string, bool> is_fed;  // families that a live run has followed before they changed hands
  {
    pg::AsExtensionOwner as_owner;
    auto const families = Spi::ExecuteKept(
        R"sql(SELECT f.pattern,
                  NOT EXISTS (SELECT FROM redis_migrate.mapping AS m
                              LEFT JOIN redis_migrate.reverse_mapping AS r USING (mapping_id)
                              WHERE m.migration = $1 AND m.pattern = f.pattern AND r.mapping_id IS NULL)
              FROM (SELECT pattern, max(changed_at) AS changed_at
                    FROM redis_migrate.family_change
                    WHERE migration = $1
                    GROUP BY pattern) AS f
              WHERE EXISTS (SELECT FROM redis_migrate.run
                            WHERE migration = $1 AND live AND run_id < $2 AND started_at < f.changed_at))sql",
        {SqlParam::Text(migration.name), SqlParam::Int8(run_id)});
    for (uint64 i = 0; i < families.size(); ++i) is_fed[families[i].Text(0)] = families[i].Bool(1);
  }
  auto const keep = [&](auto is_wanted) {
    late.erase(
        std::remove_if(late.begin(), late.end(), [&](const LateWrite &write) { return !is_wanted(write); }),
        late.end());
  };
  keep([&](const LateWrite &write) { return is_fed.count(write.pattern) > 0; });
  for (LateWrite &write : late) write.may_be_own = true;
  SettleHarmless(migration, routing, store, late);
  if (std::any_of(late.begin(), late.end(), [&](const LateWrite &write) { return !is_fed[write.pattern]; })) {
    pg::AsExtensionOwner as_owner;
    int64 room = kMostUnseen - Spi::ExecuteKept(
                                   R"sql(SELECT count(*)
                                         FROM redis_migrate.late_write
                                         WHERE migration = $1 AND settled_at IS NULL)sql",
                                   {SqlParam::Text(migration.name)})[0]
                                   .Int8(0);
    int64 left_out = 0;
    keep([&](const LateWrite &write) {
      bool const is_kept = is_fed[write.pattern] || --room >= 0;
      left_out += is_kept ? 0 : 1;
      return is_kept;
    });
    if (left_out > 0)
      pg::Report(
          WARNING,
          std::to_string(left_out) + " more keys of migration \"" + migration.name +
              "\" are not as their rows, and were not kept as late writes",
          "A new snapshot was loaded, and without a reverse feed it is not known what was changed here.");
  }
  KeepLateWrites(migration.name, late);
}

Result<std::vector<WritingClient>> FetchWritingClients(redis::Connection &connection) {
  Result<redis::Reply> const listed =
      connection.Command({"CLIENT", "LIST", "TYPE", "normal"}, redis::kLargeReply);
  if (!listed.ok()) return listed.error();
  std::vector<WritingClient> clients;
  Bytes lines = listed.value().String().value_or(Bytes());
  auto const shown = [&](Bytes line, Bytes field) { return connection.gate().Pass(FieldOf(line, field)); };
  while (!lines.empty()) {
    size_t const end = std::min(lines.find('\n'), lines.size());
    Bytes const line = lines.substr(0, end);
    if (Bytes const command = FieldOf(line, "cmd"); !command.empty() && MayWrite(command)) {
      std::string address = shown(line, "addr");
      // All clients of a Unix socket have one address, without a port.
      if (address.size() > 2 && address.substr(address.size() - 2) == ":0")
        address += " id=" + shown(line, "id");
      clients.push_back({address, shown(line, "name"), shown(line, "user"), shown(line, "cmd")});
    }
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  return clients;
}

void KeepWritingClients(const std::string &migration, const std::vector<WritingClient> &clients) {
  pg::AsExtensionOwner as_owner;
  for (const WritingClient &client : clients)
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.late_writer (migration, address, client_name, username, command)
              VALUES ($1, $2, nullif($3, ''), nullif($4, ''), $5)
              ON CONFLICT (migration, address)
              DO UPDATE SET client_name = excluded.client_name, username = excluded.username,
                  command = excluded.command, last_seen_at = clock_timestamp())sql",
        {SqlParam::Text(migration), SqlParam::Text(client.address), SqlParam::Text(client.name),
         SqlParam::Text(client.username), SqlParam::Text(client.command)});
  // Each connection has a port or an id, and so an address, of its own.
  Spi::ExecuteKept(
      R"sql(DELETE FROM redis_migrate.late_writer
            WHERE migration = $1
              AND address IN (SELECT address FROM redis_migrate.late_writer
                              WHERE migration = $1
                              ORDER BY last_seen_at DESC
                              OFFSET $2))sql",
      {SqlParam::Text(migration), SqlParam::Int8(kMostWriters)});
}

}  // namespace prm

// redis_migrate.settle_late_writes(migration text, pattern text) → how many: see the SQL comment. Errors:
// 42704, 42501.
PRM_FUNCTION(settle_late_writes) {
  using namespace prm;
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::optional<std::string> const pattern = pg::OptionalTextArgument(fcinfo, 1);
  pg::Spi spi;
  LoadMigration(name);
  pg::AsExtensionOwner as_owner;
  auto const settled = Spi::Execute(
      R"sql(UPDATE redis_migrate.late_write
            SET settled_at = clock_timestamp()
            WHERE migration = $1 AND pattern = coalesce($2, pattern) AND settled_at IS NULL)sql",
      {SqlParam::Text(name), SqlParam::OptionalText(pattern)});
  PG_RETURN_INT64(static_cast<int64>(settled.processed()));
}
