// Where a Redis is and how it is to be read: a server, the master or replicas that Sentinels name,
// or a cluster.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "redis/cluster_topology.h"
#include "redis/connection.h"
#include "redis/endpoint.h"
#include "redis/role.h"
#include "redis/sentinel.h"

namespace prm::redis {

struct Deployment {
  ConnectionOptions connection;  // with Sentinels, host and port are not used
  std::string sentinel_master;   // empty: there are no Sentinels
  std::vector<Endpoint> sentinels;
  std::vector<Endpoint> seeds;    // not empty: nodes of a cluster, host and port are not used
  std::string sentinel_username;  // as username and password of `connection`, for the Sentinels
  std::string sentinel_password;
  ReadFrom read_from = ReadFrom::kAny;  // Sentinels have masters and replicas: kAny is kMaster there
  bool stale_replica = false;           // a replica without a link to its master will do
  long max_rate = 0;                    // keys per second; 0: no limit
};

// Connects to the server, to the first seed of a cluster that answers, or finds it by its Sentinels and then
// verifies its role. Errors: those of Connection::Open, FindMaster and CheckRole; kUnavailable (no replica
// will do).
Result<std::unique_ptr<Connection>> OpenServer(const Deployment& deployment, Waiter& waiter);

// Connects to one node of a cluster. Errors: those of Connection::Open.
Result<std::unique_ptr<Connection>> OpenNode(const Deployment& deployment, const Endpoint& node,
                                             Waiter& waiter);

// The topology that the first seed of a cluster knows that answers; there is at least one shard. Errors:
// those of Connection::Open and FetchTopology; kUnavailable (none knows a node that serves slots).
Result<ClusterTopology> FindTopology(const Deployment& deployment, Waiter& waiter);

// Whether the connection still leads to the server that is to be read: Sentinels may have made another the
// master without the old one having noticed. Errors: kUnavailable, those of OpenServer.
Status CheckStillCurrent(const Deployment& deployment, Connection& connection, Waiter& waiter);

}  // namespace prm::redis
