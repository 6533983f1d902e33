// CREATE SERVER … FOREIGN DATA WRAPPER redis_migrate: where a Redis is, and the credentials for it.
#pragma once

#include "pg/pg.h"
#include "pg/wait.h"
#include "redis/deployment.h"

namespace prm {

// The options of a server and of the user mapping of `user` (or PUBLIC's).
// Errors: 42704 no such server, or one of another wrapper; 42501 no USAGE on it or no right to read
// the files of the user mapping; 42704 no user mapping is not an error: a Redis may ask for no credentials.
redis::Deployment ServerOptions(const std::string &server, Oid user);

// Resources for connections to a cluster: room for a node's two sockets and another one, and a waiter.
struct ClusterResources {
  pg::ExternalDescriptor node, names, other;
  pg::LatchWaiter waiter;
};

// Opens a connection with the options of a server, waiting interruptibly. Errors: those of ServerOptions,
// 08006, 08000 (timeout), 28000.
class ServerConnection {
 public:
  ServerConnection(const std::string &server, Oid user);
  // As above, but of a cluster to the first of these nodes that is a master and has slots; is_open() tells
  // whether one is. most_connect_ms: bounds the server's connect_timeout.
  ServerConnection(const std::string &server, Oid user, const std::vector<std::string> &nodes,
                   long most_connect_ms = LONG_MAX);
  bool is_open() const { return connection_ != nullptr; }
  redis::Connection &operator*() { return *connection_; }
  redis::Connection *operator->() { return connection_.get(); }
  const redis::Deployment &deployment() const { return deployment_; }
  // For a connection to a node of a cluster: the masters and their slots, as of when it was opened.
  const redis::ClusterTopology &topology() const { return topology_; }
  const redis::ClusterNode &node() const { return node_; }
  // See redis::CheckStillCurrent.
  Status CheckStillCurrent() { return redis::CheckStillCurrent(deployment_, *connection_, waiter_); }

 private:
  redis::Deployment deployment_;
  pg::ExternalDescriptor descriptor_;
  pg::LatchWaiter waiter_;
  redis::ClusterTopology topology_;
  redis::ClusterNode node_;
  std::unique_ptr<redis::Connection> connection_;
};

}  // namespace prm
