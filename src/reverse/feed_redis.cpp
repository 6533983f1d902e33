// CALL redis_migrate.feed_redis(...): the reverse feed of a migration, in this process.
#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/commit_signal.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/rollback.h"
#include "pg/session_lock.h"
#include "pg/wait.h"
#include "reverse/reverse_feed.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int64 kLookMs = 1000;  // between two looks whether the feed is wanted
constexpr long kPauseMs = 20;    // between two looks whether another process is done

void NoteState(const std::string &migration, const char *state, const std::optional<pg::Problem> &problem) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.reverse_feed
            SET state = $2, sqlstate = $3, message = $4,
                since = CASE WHEN state = 'failed' AND $2 = 'failed' THEN since ELSE clock_timestamp() END
            WHERE migration = $1)sql",
      {SqlParam::Text(migration), SqlParam::Text(state),
       SqlParam::OptionalText(problem ? std::optional(problem->SqlState()) : std::nullopt),
       SqlParam::OptionalText(problem ? std::optional(problem->message) : std::nullopt)});
}

// The definition that a feed was begun with. When it changes, or start_reverse is called, the feed begins
// anew.
struct Wanted {
  bool wanted = false;
  bool is_starting = false;
  std::string definition;
  int64 feed_id = 0;
};

Wanted ReadWanted(const std::string &migration) {
  Wanted result;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::ExecuteKept(
        R"sql(SELECT f.wanted, f.state = 'starting', coalesce((
                         SELECT md5(string_agg(p.*::text || coalesce(q.query, '') || coalesce(m.target_relation::oid::text, ''), '' ORDER BY p.mapping_id))
                         FROM redis_migrate.mapping AS p LEFT JOIN redis_migrate.reverse_mapping AS m USING (mapping_id)
                              LEFT JOIN redis_migrate.reverse_query AS q USING (mapping_id)
                         WHERE p.migration = f.migration), ''),
                     f.feed_id
              FROM redis_migrate.reverse_feed AS f
              WHERE f.migration = $1)sql",
        {SqlParam::Text(migration)}, true);
    if (rows.size() > 0) result = {rows[0].Bool(0), rows[0].Bool(1), rows[0].Text(2), rows[0].Int8(3)};
  }
  Spi::Commit();
  return result;
}

// But for passes over all rows that wait until their families are PostgreSQL's.
bool IsDrained(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT NOT EXISTS (SELECT FROM redis_migrate.reverse_mapping AS r JOIN redis_migrate.mapping AS m USING (mapping_id)
                                      WHERE m.migration = $1
                                            AND (EXISTS (SELECT FROM redis_migrate.outbox AS o WHERE o.mapping_id = m.mapping_id)
                                                 OR (r.in_full_pass
                                                     OR EXISTS (SELECT FROM redis_migrate.outbox_gap AS g WHERE g.mapping_id = m.mapping_id))
                                                    AND NOT )sql" +
                 std::string(kFollowsRedis) + "))",
             {SqlParam::Text(migration)})[0]
      .Bool(0);
}

// Errors: 55000 in a copy of the database in which it was started.
void TakeUp(const std::string &migration) {
  std::string const instance = FeedInstance();
  bool is_ours = true;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute(
        R"sql(UPDATE redis_migrate.reverse_feed SET instance = coalesce(instance, $2) WHERE migration = $1
              RETURNING instance = $2)sql",
        {SqlParam::Text(migration), SqlParam::Text(instance)});
    is_ours = rows.size() == 0 || rows[0].Bool(0);
  }
  Spi::Commit();
  if (!is_ours)
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "the reverse feed of migration \"" + migration +
                          "\" was started in another database, of which "
                          "this one is a copy",
                      "",
                      "If it is to go on here, and nowhere else: SELECT redis_migrate.start_reverse(" +
                          pg::QuoteLiteral(migration) + ").");
}

// Until it is not wanted any more, or, until_drained, until nothing is left.
void Feed(const std::string &name, bool until_drained) {
  TakeUp(name);
  for (;;) {
    Wanted const begun = ReadWanted(name);
    if (!until_drained && !begun.wanted) return;
    ReverseFeed feed(LoadMigration(name));
    feed.Look();
    NoteState(name, "running", std::nullopt);
    Spi::Commit();
    pg::CommitSignal signal(begun.feed_id);
    std::optional<pg::Problem> noted;
    int64 sent_ms = pg::MonotonicMs();
    for (int64 looked_ms = sent_ms;;) {
      int64 sent = 0;
      signal.Listen();
      try {
        sent = feed.SendSome();
      } catch (const ReverseStopped &) {
        break;
      }
      if (sent > 0) sent_ms = pg::MonotonicMs();
      if (until_drained && sent == 0 && feed.is_unserved() && feed.problem())
        throw pg::Failure(feed.problem()->sqlstate, feed.problem()->message,
                          "No worker of this database runs live sync of migration \"" + name + "\".",
                          "SELECT * FROM redis_migrate.workers; if live sync is not to go on: SELECT "
                          "redis_migrate.stop(" +
                              pg::QuoteLiteral(name) + ").");
      if (until_drained && sent == 0 && !feed.has_more() && !feed.waits()) {
        if (!feed.problem()) return;
        if (std::optional<std::string> const pattern = feed.UnwatchedPattern())
          throw pg::Failure(feed.problem()->sqlstate, feed.problem()->message, kWhyNotNoted,
                            "SELECT redis_migrate.start_reverse(" + pg::QuoteLiteral(name) + ", " +
                                pg::QuoteLiteral(*pattern) + ") makes them anew and writes all rows.");
        // Slots that are being moved may soon be at their new place.
        if (feed.problem()->sqlstate != ERRCODE_CANNOT_CONNECT_NOW ||
            pg::MonotonicMs() - sent_ms > kMostMoveMs)
          throw pg::Failure(feed.problem()->sqlstate, feed.problem()->message);
      }
      int64 const now_ms = pg::MonotonicMs();
      bool const is_time = now_ms - looked_ms > kLookMs;
      bool const is_other = is_time && noted && feed.problem() && noted->message != feed.problem()->message;
      if (feed.problem().has_value() != noted.has_value() || is_other) {
        noted = feed.problem();
        NoteState(name, noted ? "failed" : "running", noted);
        Spi::Commit();
      }
      if (is_time) {
        looked_ms = now_ms;
        feed.Look();
        Wanted const now = ReadWanted(name);
        if (!now.wanted && !until_drained) return;
        if (now.definition != begun.definition || now.is_starting) break;
      }
      if (sent == 0 && !feed.has_more()) signal.Wait();
    }
  }
}

// The migration may be gone, or Redis.
void Forget(const std::string &migration) {
  try {
    ForgetBatches(LoadMigration(migration));
  } catch (...) {
    pg::Problem const problem = pg::CurrentProblem();
    pg::RollBackAfter(problem);
    pg::Report(LOG, "keys of the reverse feed of migration \"" + migration + "\" stay in Redis",
               problem.message);
  }
}

}  // namespace
}  // namespace prm

// redis_migrate.feed_redis(migration text, until_drained boolean): see the SQL comment. Errors: 2D000 in a
// transaction block, 42704, 42501 not the owner, 55006 if another process feeds and until_drained is false,
// those of ReverseFeed.
PRM_FUNCTION(feed_redis) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.feed_redis commits after each batch");
  std::string const migration = pg::TextArgument(fcinfo, 0, "migration");
  bool const until_drained = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  pg::Spi spi(true);
  LoadMigration(migration);
  pg::SessionLock lock(ReverseFeedLock(migration), ExclusiveLock);
  while (!lock.TryTake()) {
    if (!until_drained)
      throw pg::Failure(ERRCODE_OBJECT_IN_USE,
                        "the reverse feed of migration \"" + migration + "\" is under way", "",
                        "SELECT * FROM redis_migrate.reverse_feeds.");
    bool const is_drained = IsDrained(migration);  // by the other process
    Spi::Commit();
    if (is_drained) PG_RETURN_VOID();
    pg::Sleep(kPauseMs);
  }
  std::optional<pg::Problem> problem;
  try {
    Feed(migration, until_drained);
    NoteState(migration, until_drained ? "idle" : "stopped", std::nullopt);
    Spi::Commit();
    if (!until_drained) Forget(migration);
  } catch (...) {
    problem = pg::CurrentProblem();
    pg::RollBackAfter(*problem);
    NoteState(migration, "failed", problem);
    Spi::Commit();
    throw;
  }
  PG_RETURN_VOID();
}
