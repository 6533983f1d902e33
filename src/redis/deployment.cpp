#include "redis/deployment.h"

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
  ConnectionOptions options = deployment.connection;
  options.host = endpoint.host;
  options.port = endpoint.port;
  Result<std::unique_ptr<Connection>> connection = Connection::Open(options, waiter);
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

}  // namespace

Result<std::unique_ptr<Connection>> OpenServer(const Deployment& deployment, Waiter& waiter) {
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
