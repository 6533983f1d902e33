#include "mapping/family_state.h"

#include "mapping/catalog.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/session_lock.h"
#include "pg/spi.h"
#include "pg/table_locks.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

const char *const kIsRedisAgain = R"sql(
    ((SELECT c.state
      FROM redis_migrate.family_change AS c
      WHERE c.migration = m.migration AND c.pattern = m.pattern
      ORDER BY c.change_id DESC
      LIMIT 1) IN ('redis', 'cutting')
     AND EXISTS (SELECT
                 FROM redis_migrate.family_change AS c
                 WHERE c.migration = m.migration AND c.pattern = m.pattern
                     AND c.state IN ('both', 'postgres', 'done'))))sql";

const char *const kFollowsRedis = R"sql(
    (coalesce((SELECT c.state
               FROM redis_migrate.family_change AS c
               WHERE c.migration = m.migration AND c.pattern = m.pattern
               ORDER BY c.change_id DESC
               LIMIT 1), 'redis') IN ('redis', 'cutting')
     AND EXISTS (SELECT FROM redis_migrate.background_run AS b WHERE b.migration = m.migration AND b.live)))sql";

namespace {

// Batches hold it shared, a change of a state exclusively.
LOCKTAG TagOf(const std::string &migration) { return pg::LockTagOfName(pg::kFamilyLocks, migration); }

// Keys that were deleted may have expired.
void RequireNoLateWrites(const std::string &migration, const std::string &pattern) {
  pg::AsExtensionOwner as_owner;
  int64 const writes = Spi::Execute(
                           R"sql(SELECT count(*)
                                 FROM redis_migrate.late_write
                                 WHERE migration = $1 AND pattern = $2 AND settled_at IS NULL
                                     AND kind = 'written')sql",
                           {SqlParam::Text(migration), SqlParam::Text(pattern)})[0]
                           .Int8(0);
  if (writes > 0)
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        std::to_string(writes) + " keys of family " + pattern +
            " were written to in Redis after it became PostgreSQL's",
        "Somebody may still need what is in Redis.",
        "SELECT * FROM redis_migrate.late_writes; SELECT * FROM redis_migrate.late_writers; once nothing is "
        "to be done about them: SELECT redis_migrate.settle_late_writes(" +
            pg::QuoteLiteral(migration) + ", " + pg::QuoteLiteral(pattern) + ").");
}

// Changes that were noted while the family was Redis' may be forgotten by now, and nobody has compared the
// rows.
void NoteGapAfterRest(const std::string &migration, const std::string &pattern) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.outbox_gap (mapping_id, reason)
            SELECT m.mapping_id, 'the family became PostgreSQL''s without a cutover'
            FROM redis_migrate.mapping AS m
            JOIN redis_migrate.reverse_mapping AS r USING (mapping_id)
            WHERE m.migration = $1 AND m.pattern = $2 AND )sql" +
          std::string(kIsRedisAgain),
      {SqlParam::Text(migration), SqlParam::Text(pattern)});
}

}  // namespace

std::set<std::string> LockOwnedFamilies(const std::string &migration) {
  pg::LockInTransaction(TagOf(migration), ShareLock);
  std::set<std::string> owned;
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::ExecuteKept(
      R"sql(SELECT c.pattern
            FROM redis_migrate.family_change AS c
            WHERE c.migration = $1 AND c.state IN ('both', 'postgres', 'done')
                AND NOT EXISTS (
                    SELECT
                    FROM redis_migrate.family_change AS later
                    WHERE later.migration = c.migration AND later.pattern = c.pattern
                        AND later.change_id > c.change_id))sql",
      {SqlParam::Text(migration)});
  for (uint64 i = 0; i < rows.size(); ++i) owned.insert(rows[i].Text(0));
  return owned;
}

void LockFamiliesForChange(const std::string &migration) {
  pg::LockInTransaction(TagOf(migration), ExclusiveLock);
}

bool LockFamiliesWithin(const std::string &migration, int64 wait_ms) {
  return pg::LockInTransactionWithin(TagOf(migration), ExclusiveLock, wait_ms);
}

bool TryLockFamilies(const std::string &migration) {
  return pg::TryLockInTransaction(TagOf(migration), ShareLock);
}

std::string FamilyState(const std::string &migration, const std::string &pattern) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT coalesce((SELECT state
                                    FROM redis_migrate.family_change
                                    WHERE migration = $1 AND pattern = $2
                                    ORDER BY change_id DESC
                                    LIMIT 1), 'redis'))sql",
             {SqlParam::Text(migration), SqlParam::Text(pattern)})[0]
      .Text(0);
}

void ChangeFamilyState(const std::string &migration, const std::string &pattern, const std::string &state,
                       const std::optional<std::string> &note) {
  if (FamilyState(migration, pattern) == state) return;
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.family_change (migration, pattern, state, note)
            VALUES ($1, $2, $3, $4))sql",
      {SqlParam::Text(migration), SqlParam::Text(pattern), SqlParam::Text(state),
       SqlParam::OptionalText(note)});
}

}  // namespace prm

// redis_migrate.set_family_state(migration text, pattern text, state text, note text): see the SQL comment.
// Errors: 42704 no such migration, or no mapping of that pattern; 42501 not the owner; 22023 no such state;
// 55000 for done, with late writes that are not settled.
PRM_FUNCTION(set_family_state) {
  using namespace prm;
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::string const pattern = pg::TextArgument(fcinfo, 1, "pattern");
  std::string const state = pg::TextArgument(fcinfo, 2, "state");
  std::optional<std::string> const note = pg::OptionalTextArgument(fcinfo, 3);
  pg::CheckKeyword(state, "state", {"redis", "cutting", "both", "postgres", "done"});
  pg::Spi spi;
  Migration const migration = LoadMigration(name);
  bool const is_known = std::any_of(migration.mappings.begin(), migration.mappings.end(),
                                    [&](const Mapping &mapping) { return mapping.pattern == pattern; });
  if (!is_known)
    throw pg::Failure(
        ERRCODE_UNDEFINED_OBJECT, "migration \"" + name + "\" has no mapping of pattern " + pattern, "",
        "SELECT pattern, mappings FROM redis_migrate.families WHERE migration = " + pg::QuoteLiteral(name) +
            ".");
  LockFamiliesForChange(name);
  if (state == "done") RequireNoLateWrites(name, pattern);
  if (state != "redis" && state != "cutting") NoteGapAfterRest(name, pattern);
  ChangeFamilyState(name, pattern, state, note);
  PG_RETURN_VOID();
}
