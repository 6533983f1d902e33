// Where a Redis is and how to read it: a server, the master or replicas that Sentinels name, or a cluster.
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
  ReadFrom read_from = ReadFrom::kAny;  // with Sentinels kAny means kMaster
  bool stale_replica = false;           // a replica without a link to its master is acceptable
  long max_rate = 0;                    // keys per second; 0: no limit
};

// Connects to the server, or to the first seed of a cluster that answers, or to a server that the Sentinels
// name, and then verifies its role. Errors: those of Connection::Open, FindMaster and CheckRole; kUnavailable
// (no suitable replica).
Result<std::unique_ptr<Connection>> OpenServer(const Deployment& deployment, Waiter& waiter);

// Connects to one node of a cluster. Errors: those of Connection::Open.
Result<std::unique_ptr<Connection>> OpenNode(const Deployment& deployment, const Endpoint& node,
                                             Waiter& waiter);

// The topology according to the first seed that answers; it has at least one shard. Errors: those of
// Connection::Open and FetchTopology; kUnavailable (none knows a node that serves slots).
Result<ClusterTopology> FindTopology(const Deployment& deployment, Waiter& waiter);

// Whether the connection still leads to the right server: Sentinels may have promoted another master before
// the old one notices. Errors: kUnavailable, those of OpenServer.
Status CheckStillCurrent(const Deployment& deployment, Connection& connection, Waiter& waiter);

}  // namespace prm::redis
