#include "redis/deployment.h"

#include <algorithm>

namespace prm::redis {

namespace {

SentinelOptions ForSentinels(const Deployment& deployment) {
  SentinelOptions options{deployment.sentinel_master, deployment.sentinels, deployment.connection};
  options.connection.username = deployment.sentinel_username;
  options.connection.password = deployment.sentinel_password;
  return options;
}

Result<std::unique_ptr<Connection>> OpenAt(const Deployment& deployment, const Endpoint& endpoint,
                                           ReadFrom role, Waiter& waiter) {
  Result<std::unique_ptr<Connection>> connection = OpenNode(deployment, endpoint, waiter);
  if (!connection.ok()) return connection.error();
  PRM_RETURN_IF_ERROR(CheckRole(*connection.value(), role, deployment.stale_replica));
  return connection;
}

Result<std::unique_ptr<Connection>> OpenReplica(const Deployment& deployment, Waiter& waiter) {
  const Result<std::vector<Endpoint>> replicas = FindReplicas(ForSentinels(deployment), waiter);
  if (!replicas.ok()) return replicas.error();
  std::string reasons;
  for (const Endpoint& replica : replicas.value()) {
    auto connection = OpenAt(deployment, replica, ReadFrom::kReplica, waiter);
    if (connection.ok()) return connection;
    reasons += (reasons.empty() ? "" : "; ") + connection.error().message;
  }
  return Error{ErrorCode::kUnavailable,
               "no replica of master \"" + deployment.sentinel_master + "\" can be read",
               reasons.empty() ? "The Sentinels know none that is up." : reasons + ".",
               "Wait for one, or set the server's option read_from 'master'."};
}

// Calls `use` with each seed until it succeeds; otherwise returns the last error, with the others in its
// detail.
template <typename Value, typename Function>
Result<Value> WithSeed(const Deployment& deployment, const Function& use) {
  std::string others;
  for (size_t i = 0;; ++i) {
    Result<Value> result = use(deployment.seeds[i]);
    if (result.ok()) return result;
    if (i + 1 == deployment.seeds.size()) {
      Error error = result.error();
      if (!others.empty()) error.detail += (error.detail.empty() ? "" : " ") + ("Before it: " + others + ".");
      return error;
    }
    others += (others.empty() ? "" : "; ") + result.error().message;
  }
}

}  // namespace

Result<std::unique_ptr<Connection>> OpenNode(const Deployment& deployment, const Endpoint& node,
                                             Waiter& waiter) {
  ConnectionOptions options = deployment.connection;
  options.host = node.host;
  options.port = node.port;
  const bool is_seed =
      std::find(deployment.seeds.begin(), deployment.seeds.end(), node) != deployment.seeds.end();
  if (!is_seed) options.named = node.named;
  return Connection::Open(options, waiter);
}

Result<ClusterTopology> FindTopology(const Deployment& deployment, Waiter& waiter) {
  return WithSeed<ClusterTopology>(deployment, [&](const Endpoint& seed) -> Result<ClusterTopology> {
    auto connection = OpenNode(deployment, seed, waiter);
    if (!connection.ok()) return connection.error();
    const bool tls = deployment.connection.tls.mode != TlsMode::kOff;
    Result<ClusterTopology> topology = FetchTopology(*connection.value(), seed, tls);
    if (!topology.ok() || !topology.value().shards.empty()) return topology;
    return Error{ErrorCode::kUnavailable,
                 "Redis at " + connection.value()->address() + " knows no node that serves slots",
                 {},
                 "It has left its cluster, or has not joined one."};
  });
}

Result<std::unique_ptr<Connection>> OpenServer(const Deployment& deployment, Waiter& waiter) {
  if (!deployment.seeds.empty()) {
    return WithSeed<std::unique_ptr<Connection>>(
        deployment, [&](const Endpoint& seed) { return OpenNode(deployment, seed, waiter); });
  }
  if (deployment.sentinel_master.empty()) {
    Result<std::unique_ptr<Connection>> connection = Connection::Open(deployment.connection, waiter);
    if (!connection.ok()) return connection.error();
    PRM_RETURN_IF_ERROR(CheckRole(*connection.value(), deployment.read_from, deployment.stale_replica));
    return connection;
  }
  if (deployment.read_from == ReadFrom::kReplica) return OpenReplica(deployment, waiter);
  const Result<Endpoint> master = FindMaster(ForSentinels(deployment), waiter);
  if (!master.ok()) return master.error();
  return OpenAt(deployment, master.value(), ReadFrom::kMaster, waiter);
}

Status CheckStillCurrent(const Deployment& deployment, Connection& connection, Waiter& waiter) {
  if (deployment.sentinel_master.empty() || deployment.read_from == ReadFrom::kReplica) return {};
  const Result<Endpoint> master = FindMaster(ForSentinels(deployment), waiter);
  if (!master.ok()) return master.error();
  if (HostAndPort(master.value().host, master.value().port) != connection.address()) {
    return Error{ErrorCode::kUnavailable,
                 "Redis at " + connection.address() + " is no longer the master \"" +
                     deployment.sentinel_master + "\"",
                 {},
                 {}};
  }
  return CheckRole(connection, ReadFrom::kMaster, false);
}

}  // namespace prm::redis
