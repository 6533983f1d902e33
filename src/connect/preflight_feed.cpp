#include "connect/preflight_feed.h"

#include "pg/wait.h"
#include "redis/change_feed.h"

namespace prm {

using redis::ChangeFeed;

namespace {

constexpr char kCheck[] = "change feed";

void AddFeed(const ChangeFeed &feed, bool may_track, const AddCheck &add) {
  bool const is_tracking = feed.kind() == ChangeFeed::Kind::kTracking;
  std::string const found = std::string("a live run with source scan follows ") +
                            (is_tracking ? "CLIENT TRACKING" : "keyspace notifications");
  if (!feed.doubt().empty())
    return add(kCheck, CheckStatus::kWarn, found + ", and is never settled: " + feed.doubt(),
               "ACL SETUSER ... +config|get +info");
  add(kCheck, CheckStatus::kOk, found,
      is_tracking || may_track
          ? ""
          : "CLIENT TRACKING costs Redis less where it has it, if the migration names its databases: SELECT "
            "redis_migrate.alter_migration(..., databases => '{0}')");
}

}  // namespace

void CheckFeed(const redis::Deployment &deployment, redis::Waiter &waiter, bool may_track,
               const AddCheck &add) {
  if (!deployment.seeds.empty() || !deployment.sentinel_master.empty())
    return add(kCheck, CheckStatus::kOk,
               "a live run with source scan follows neither clusters nor the masters of Sentinels",
               "For live sync use source 'replication'.");
  pg::ExternalDescriptor const subscriber_descriptor, commands_descriptor;
  auto const subscriber = redis::OpenServer(deployment, waiter);
  auto const commands = redis::OpenServer(deployment, waiter);
  if (!subscriber.ok() || !commands.ok()) return;  // it was reachable a moment ago
  auto const feed = ChangeFeed::Open(*subscriber.value(), *commands.value(), may_track);
  if (feed.ok()) return AddFeed(*feed.value(), may_track, add);
  const Error &error = feed.error();
  add(kCheck, CheckStatus::kOk,
      "a live run with source scan cannot follow it: " + error.message +
          (error.detail.empty() ? "" : " (" + error.detail + ")"),
      error.hint);
}

}  // namespace prm
