#include "migrate/batch.h"

#include "pg/identity.h"
#include "pg/spi.h"

namespace prm::migrate {

using source::EntryState;
using source::Interest;

Interest PassFilter::Classify(int db, Bytes key) {
  if (stored_ != nullptr && !stored_->empty() && stored_->count({db, std::string(key)}) > 0)
    return Interest::kIgnore;
  Route route = routing_.Find(db, key, match_);
  if (level_ ? routing_.LevelOf(route) != *level_ : route.kind == Route::kNotSelected)
    return Interest::kIgnore;
  return route.kind == Route::kDeclared || route.kind == Route::kNotSelected ? Interest::kNameOnly
                                                                             : Interest::kRead;
}

Mapping ArchiveMapping(const std::string &migration) {
  Mapping mapping;
  mapping.name = "(archive)";
  mapping.pattern = "*";
  mapping.target = "redis_migrate.archived_key";
  mapping.query = "SELECT " + pg::QuoteLiteral(migration) +
                  "::text AS migration, db, key_bytes, type, payload, expires_at FROM redis_batch";
  mapping.key_columns = {"migration", "db", "key_bytes"};
  mapping.on_conflict = "update";
  mapping.on_delete = "keep";
  mapping.mode = "upsert";
  mapping.no_row = "reject";
  mapping.atomic = "key";
  mapping.exclusive = true;
  mapping.ledger = false;
  mapping.search_path = "pg_catalog, pg_temp";
  mapping.timezone = "UTC";
  mapping.datestyle = "ISO, YMD";
  mapping.intervalstyle = "postgres";
  return mapping;
}

namespace {

void RejectKey(const source::Entry *entry, const Tally::Pattern &pattern, const std::string &rule,
               const std::string &message, Tally &tally) {
  tally.Count(entry, pattern, Outcome::kRejected, rule);
  tally.rejects.push_back({entry, pattern, std::nullopt, rule, std::nullopt, message, false});
}

}  // namespace

void ProcessEntries(Routing &routing, const UnmappedKeys &unmapped,
                    const std::vector<const source::Entry *> &entries, std::optional<int> level, bool recount,
                    const PatternGroup::Options &options, Tally &tally) {
  std::vector<std::vector<BatchEntry>> grouped(routing.group_count());
  std::vector<BatchEntry> archived;
  Match match;
  for (const source::Entry *entry : entries) {
    Route route = routing.Find(entry->db, entry->key, match);
    if (level && routing.LevelOf(route) != *level) continue;
    if (!recount) ++tally.read[route.pattern];
    tally.bytes += entry->key.size() + entry->payload.size();
    if (route.kind == Route::kDeclared || route.kind == Route::kNotSelected) {
      tally.Count(entry, route.pattern, Outcome::kSkipped,
                  route.kind == Route::kDeclared ? "declared" : "not_selected");
    } else if (entry->state == EntryState::kVanished) {
      tally.Count(entry, route.pattern, Outcome::kVanished);
    } else if (entry->state == EntryState::kTooLarge) {
      RejectKey(entry, route.pattern, "max_value_size",
                "the value takes " + std::to_string(entry->size) +
                    " bytes in Redis, more than pg_redis_migrate.max_value_size",
                tally);
    } else if (entry->state == EntryState::kChanging) {
      RejectKey(entry, route.pattern, "changed_while_read",
                "the key was written to each time that it was read in pieces", tally);
    } else if (entry->state == EntryState::kUnsupported) {
      RejectKey(entry, route.pattern, "unsupported_payload",
                "only DUMP can read a value of type " + entry->type_name + ", and it may not be used", tally);
    } else if (route.kind == Route::kMisfit) {
      RejectKey(entry, route.pattern, route.misfit,
                "the text of capture \"" + route.misfit + "\" is not of the type that pattern " +
                    *route.pattern + " gives it",
                tally);
    } else if (route.kind == Route::kMapped) {
      grouped[route.group].push_back({entry, match.values});
    } else if (unmapped.reject) {
      RejectKey(entry, std::nullopt, "unmapped", "no pattern of the migration owns the key", tally);
    } else {
      archived.push_back({entry, {}});
    }
  }
  for (size_t group = 0; group < grouped.size(); ++group)
    routing.group(group).Process(grouped[group], options, tally);
  if (unmapped.archive != nullptr) unmapped.archive->Process(archived, options, tally);
}

void ForgetArchived(const std::string &migration,
                    const std::map<const source::Entry *, std::pair<Outcome, std::string>> &outcomes) {
  std::vector<int> dbs;
  std::vector<Bytes> keys;
  for (const auto &[entry, outcome] : outcomes) {
    if (outcome.first != Outcome::kMigrated) continue;
    dbs.push_back(entry->db);
    keys.push_back(entry->key);
  }
  if (keys.empty()) return;
  pg::AsExtensionOwner as_owner;
  // LATERAL and OFFSET make it one look-up in the primary key for each key, where the planner would read the
  // archive.
  pg::Spi::Execute(
      "DELETE FROM redis_migrate.archived_key AS a USING unnest($2, $3) AS k (db, key_bytes), LATERAL "
      "(SELECT ctid "
      "FROM redis_migrate.archived_key WHERE migration = $1 AND db = k.db AND key_bytes = k.key_bytes OFFSET "
      "0) AS "
      "found WHERE a.ctid = found.ctid",
      {pg::SqlParam::Text(migration), pg::SqlParam::Int4Array(dbs), pg::SqlParam::ByteaArray(keys)});
}

}  // namespace prm::migrate
