#include "live/live_links.h"

#include "connect/server.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

std::vector<LiveRecord> ReadLinks(int64 run_id) {
  std::vector<LiveRecord> links;
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute("SELECT link FROM redis_migrate.live_link WHERE run_id = $1 ORDER BY link",
                           {SqlParam::Int8(run_id)});
  for (uint64 i = 0; i < rows.size(); ++i) links.emplace_back(run_id, rows[i].Int4(0));
  return links;
}

}  // namespace

std::vector<std::string> NodesOf(const redis::ClusterShard &shard) {
  std::vector<std::string> nodes = {shard.master.id};
  for (const redis::ClusterNode &replica : shard.replicas) nodes.push_back(replica.id);
  return nodes;
}

std::optional<redis::ClusterTopology> TopologyOf(const std::string &server, Oid user) {
  redis::Deployment const deployment = ServerOptions(server, user);
  Spi::Commit();
  if (deployment.seeds.empty()) return std::nullopt;
  ClusterResources resources;
  return pg::ValueOrThrow(redis::FindTopology(deployment, resources.waiter));
}

std::vector<LiveRecord> LinksOf(int64 run_id, const std::string &server) {
  std::vector<LiveRecord> links = ReadLinks(run_id);
  Spi::Commit();
  if (!links.empty()) return links;
  std::optional<redis::ClusterTopology> const topology = TopologyOf(server, GetUserId());
  if (!topology) return {LiveRecord(run_id)};
  for (const redis::ClusterShard &shard : topology->shards) {
    LinkStatus status;
    status.nodes = NodesOf(shard);
    links.emplace_back(run_id, static_cast<int>(links.size()) + 1);
    links.back().WriteLink(status);
  }
  Spi::Commit();
  return links;
}

}  // namespace prm
