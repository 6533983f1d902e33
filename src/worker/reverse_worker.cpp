// The worker of a reverse feed: CALLs redis_migrate.feed_redis as the owner of the migration, until that is
// stopped.
#include "pg/identity.h"
#include "reverse/reverse_feed.h"
#include "worker/backoff.h"
#include "worker/worker_main.h"

namespace prm::worker {
namespace {

using pg::Spi;
using pg::SqlParam;

// The migration of a feed that is wanted. A feed that was started in another database, of which this one is a
// copy, is paused; one that no worker has taken up since start_reverse belongs to this server from now on.
std::optional<std::string> TakeUpFeed(int64 feed_id) {
  std::string const instance = FeedInstance();
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(UPDATE redis_migrate.reverse_feed
            SET instance = coalesce(instance, $2),
                state = CASE WHEN coalesce(instance, $2) = $2 THEN state ELSE 'paused' END
            WHERE feed_id = $1 AND wanted
            RETURNING migration, instance = $2)sql",
      {SqlParam::Int8(feed_id), SqlParam::Text(instance)});
  if (rows.size() == 0) return std::nullopt;
  if (rows[0].Bool(1)) return rows[0].Text(0);
  Log(WARNING,
      {ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
       "it was started on another server, of which this one is a copy, or before this one was restored or "
       "promoted"},
      "reverse feed of migration \"" + rows[0].Text(0) + "\" is paused",
      "If it is to go on here, and nowhere else: SELECT redis_migrate.start_reverse(" +
          pg::QuoteLiteral(rows[0].Text(0)) + ").");
  return std::nullopt;
}

}  // namespace

void RunReverseWorker(const Slot &slot) {
  Extension extension;
  if (!extension.exists()) return;
  for (uint32 failures = 0; MyRequest() == Request::kNone;) {
    CountWakeup();
    std::optional<std::string> migration;
    int64 const began = pg::MonotonicMs();
    std::optional<Problem> problem = Try([&] {
      pg::InTransaction([&] {
        if (!extension.HasChanged()) migration = TakeUpFeed(slot.job);
      });
      if (!migration) return;
      SetState(State::kRunning);
      CountRun();
      pg::RunCommand("CALL redis_migrate.feed_redis(" + pg::QuoteLiteral(*migration) + ")");
    });
    if (!problem || MyRequest() != Request::kNone || extension.WentAway()) return;
    if (pg::MonotonicMs() - began > kHealthyMs) failures = 0;
    int64 const pause = BackoffMs(++failures);
    SetError(problem->SqlState().c_str(), problem->message);
    Log(WARNING, *problem,
        "reverse feed" + (migration ? " of migration \"" + *migration + "\"" : "") + " is tried again in " +
            std::to_string(pause / 1000) + " s");
    SetState(State::kRetrying);
    Try([&] { pg::WaitForLatch(pause); });
  }
}

}  // namespace prm::worker
