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

// Resources for connections to a cluster: room for two sockets, and a waiter.
struct ClusterResources {
  pg::ExternalDescriptor node, other;
  pg::LatchWaiter waiter;
};

// Opens a connection with the options of a server, waiting interruptibly. Errors: those of ServerOptions,
// 08006, 08000 (timeout), 28000.
class ServerConnection {
 public:
  ServerConnection(const std::string &server, Oid user);
  redis::Connection &operator*() { return *connection_; }
  redis::Connection *operator->() { return connection_.get(); }
  const redis::Deployment &deployment() const { return deployment_; }
  // See redis::CheckStillCurrent.
  Status CheckStillCurrent() { return redis::CheckStillCurrent(deployment_, *connection_, waiter_); }

 private:
  redis::Deployment deployment_;
  pg::ExternalDescriptor descriptor_;
  pg::LatchWaiter waiter_;
  std::unique_ptr<redis::Connection> connection_;
};

}  // namespace prm
